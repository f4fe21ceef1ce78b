"""What the environment decides: secrets, and the knobs that Ray reads when it is imported."""

from __future__ import annotations

import os
from functools import lru_cache
from pathlib import Path

from pydantic import Field, SecretStr
from pydantic_settings import BaseSettings, SettingsConfigDict

RAY_ENVIRONMENT: dict[str, str] = {
    # Between replicas: gRPC, no thread hops. Halves the time of a hop (docs/performance.md).
    "RAY_SERVE_USE_GRPC_BY_DEFAULT": "1",
    "RAY_SERVE_RUN_USER_CODE_IN_SEPARATE_THREAD": "0",
    "RAY_SERVE_RUN_ROUTER_IN_SEPARATE_LOOP": "0",
    # Ten minutes of audio in one request (api.max_audio_seconds) are 19 MB; without a value it ends at 4.
    "RAY_SERVE_REPLICA_GRPC_MAX_MESSAGE_LENGTH": str(64 * 2**20),
    # Logs stay in files.
    "RAY_SERVE_LOG_TO_STDERR": "0",
    # The ingress; a reload (any deploy) cuts what is older than this, and a call's page must outlive it.
    "RAY_SERVE_ENABLE_HA_PROXY": "1",
    "RAY_SERVE_HAPROXY_HARD_STOP_AFTER_S": "7200",
    # Ray starts workers at nice 15, which starves the voice path as soon as a core is busy.
    "RAY_worker_niceness": "0",
    # Without a value a token file in the home directory decides.
    "RAY_AUTH_MODE": "disabled",
    "RAY_USAGE_STATS_ENABLED": "0",
    "RAY_ACCEL_ENV_VAR_OVERRIDE_ON_ZERO": "0",
    # One thread of WebRTC's runtime serves all calls of an agent replica; more only cost.
    "TOKIO_WORKER_THREADS": "1",
    # OpenMP's threads spin while they wait, by default; next to other work that costs more than it brings.
    "OMP_WAIT_POLICY": "passive",
}
"""Set for the head, the workers and every process that holds a handle, before `ray` is imported."""


def apply_ray_environment() -> None:
    """Set Ray's knobs in this process; values that are already there win."""
    for name, value in RAY_ENVIRONMENT.items():
        os.environ.setdefault(name, value)


class Settings(BaseSettings):
    """Secrets and addresses, from the environment only; no profile may hold them.

    Attributes:
        livekit_url: Where agents and dispatchers reach LiveKit (ws:// or wss://).
        livekit_public_url: Where browsers reach it; the same unless set.
        livekit_api_key: Names the secret that signs tokens.
        livekit_api_secret: Signs tokens.
        redis_url: Of the state and the outbox (`agent.state: redis`): redis://, rediss:// (TLS), redis+cluster:// or
            rediss+cluster://.
        parley_api_keys: Keys of the default tenant's owner, comma between, of 16 characters or more: to begin with,
            where nobody can sign in yet.
        database_url: Of the backend: postgresql://... None: a SQLite file in PARLEY_HOME.
        parley_secret: Signs cookies and links to files; the same in all replicas, 32 characters or more.
        parley_content_keys: Encrypt what people said, where it is stored: Fernet keys, comma between, the newest first.
            None: it is stored as it is.
        oidc_client_secret: Of this application, at the issuer that people sign in with.
        openai_api_key: For the engines `openai-llm`, `openai-stt`, `openai-tts`.
        azure_openai_api_key: For the engines `azure-openai-llm`, `azure-openai-stt`, `azure-openai-tts`.
        azure_speech_key: For the engines `azure-speech-stt`, `azure-speech-tts`.
        parley_judge_url: Of the judge of `parley eval`: any server of OpenAI's chat API; ends in /v1.
        parley_judge_model: Its model.
        parley_judge_key: Its key, where it wants one.
    """

    model_config = SettingsConfigDict(extra="ignore", frozen=True)

    livekit_url: str = "ws://127.0.0.1:7880"
    livekit_public_url: str | None = None
    livekit_api_key: str = ""
    livekit_api_secret: SecretStr = Field(default=SecretStr(""))
    redis_url: SecretStr | None = None
    parley_api_keys: SecretStr = Field(default=SecretStr(""))
    database_url: SecretStr | None = None
    parley_secret: SecretStr | None = None
    parley_content_keys: SecretStr = Field(default=SecretStr(""))
    oidc_client_secret: SecretStr | None = None
    openai_api_key: SecretStr | None = None
    azure_openai_api_key: SecretStr | None = None
    azure_speech_key: SecretStr | None = None
    parley_judge_url: str | None = None
    parley_judge_model: str | None = None
    parley_judge_key: SecretStr | None = None


@lru_cache(maxsize=1)
def settings() -> Settings:
    """Return this process's settings, read once at first use and never at import."""
    return Settings()


def home() -> Path:
    """Return where this machine keeps files: PARLEY_HOME, or a place of the user's own, as `parley` itself does."""
    if named := os.environ.get("PARLEY_HOME"):
        return Path(named)
    base = os.environ.get("XDG_STATE_HOME")
    return (Path(base) if base else Path.home() / ".local" / "state") / "parley"


def provider_key(variable: str, key_env: str | None = None) -> SecretStr | None:
    """Return a provider's key; None where it is not set.

    Args:
        variable: The provider's usual environment variable; an attribute of `Settings` has its name in lower case.
        key_env: Another variable to read instead: an account of its own for one model.
    """
    found = SecretStr(os.environ.get(key_env, "")) if key_env else getattr(settings(), variable.lower())
    return found if found is not None and found.get_secret_value() else None
