"""Azure Speech by its own REST API: the account, and what its answers mean; for both roles."""

from __future__ import annotations

import json
from typing import Any, cast

import httpx
from pydantic import Field

from serve.errors import ConfigError, EngineFailed, ParleyError, ProviderDown
from serve.providers import Caller, ProviderOptions, Refusal, key, retry_after

_IDLE_SECONDS = 120.0
_LOCALES = {
    **{"en": "en-US", "ja": "ja-JP", "zh": "zh-CN", "ko": "ko-KR", "sv": "sv-SE", "da": "da-DK", "cs": "cs-CZ"},
    **{"ar": "ar-SA", "hi": "hi-IN", "nb": "nb-NO", "uk": "uk-UA", "el": "el-GR", "he": "he-IL", "pt": "pt-BR"},
}
"""Azure knows no bare languages; the rest are called after themselves (de-DE)."""


class SpeechAccount(ProviderOptions):
    """Options of Azure Speech.

    Attributes:
        region: Of the resource, such as `westeurope`.
        endpoint: Instead of the region: an address up to where the path of the documentation begins, for sovereign
            clouds, private endpoints (`https://NAME.cognitiveservices.azure.com/stt` and `/tts`) and containers.
        language: BCP 47 with its region, where the request does not say.
    """

    region: str | None = Field(default=None, pattern=r"^[a-z0-9]{3,40}$")
    endpoint: str | None = Field(default=None, pattern=r"^https?://")
    language: str = Field(default="en-US", pattern=r"^[a-z]{2,3}(-[A-Za-z0-9]+)+$")

    def key_names(self) -> tuple[str, ...]:
        """Return the variable that must hold the key."""
        return (self.key_env or "AZURE_SPEECH_KEY",)

    def unset(self) -> tuple[str, ...]:
        """Return the option that has no default and no value."""
        return ("region",) if self.region is None and self.endpoint is None else ()

    def locale(self, language: str | None) -> str:
        """Return a language with its region, as Azure wants it."""
        if language is None or language.lower() == self.language.split("-")[0]:
            return self.language
        bare = language.lower()
        return language if "-" in language else _LOCALES.get(bare, f"{bare}-{bare.upper()}")


class SpeechClient:
    """An engine's way to Azure Speech; `open` comes first, `close` last.

    Args:
        account: Where, and with which key.
        service: `stt` or `tts`, a part of the address.
        subject: The field that a refusal is about, since Azure does not say.
    """

    def __init__(self, account: SpeechAccount, service: str, subject: str) -> None:
        self._account, self._service, self._subject = account, service, subject
        self._http: httpx.AsyncClient | None = None
        self.caller = Caller("Azure Speech", account, self._meaning)

    @property
    def http(self) -> httpx.AsyncClient:
        """The pool of connections, with address and key.

        Raises:
            EngineFailed: It is not open.
        """
        if self._http is None:
            raise EngineFailed("the client of Azure Speech is not loaded")
        return self._http

    def open(self) -> None:
        """Make the client; nothing is sent.

        Raises:
            EngineMissing: There is no key.
            ConfigError: There is no address.
        """
        account = self._account
        if account.endpoint is None and account.region is None:
            raise ConfigError("Azure Speech: set option 'region', or 'endpoint'")
        address = account.endpoint or f"https://{account.region}.{self._service}.speech.microsoft.com"
        secret = key("AZURE_SPEECH_KEY", account.key_env).get_secret_value()
        self._http = httpx.AsyncClient(
            base_url=address,
            headers={"Ocp-Apim-Subscription-Key": secret, "User-Agent": "parley"},
            # Reading is bounded by the caller, who can tell the first chunk from the next.
            timeout=httpx.Timeout(account.timeouts.first, connect=account.timeouts.connect, read=None),
            limits=httpx.Limits(max_keepalive_connections=32, keepalive_expiry=_IDLE_SECONDS),
        )

    async def warm(self) -> None:
        """Open a connection of the pool."""
        await self.caller.warm(lambda: self.http.head("/"))

    async def close(self) -> None:
        """Close the connections."""
        http, self._http = self._http, None
        if http is not None:
            await http.aclose()

    def _meaning(self, error: Exception) -> Refusal | ParleyError | None:
        """Say what the HTTP client's exceptions mean."""
        match error:
            case httpx.HTTPStatusError():
                response = error.response
                return Refusal(response.status_code, _code(response), self._subject, retry_after(response.headers))
            case httpx.HTTPError() | httpx.StreamError() | ValueError():
                # A body that is no JSON is a ValueError.
                return ProviderDown(f"Azure Speech cannot be reached, or broke off ({type(error).__name__})")
            case _:
                return None


def _code(response: httpx.Response) -> str:
    """Return Azure's own name for a refusal, where its body is read and has one."""
    try:
        body = cast("dict[str, Any]", json.loads(response.content))
        return str(body["error"]["code"])
    except (httpx.ResponseNotRead, ValueError, KeyError, TypeError):
        return ""
