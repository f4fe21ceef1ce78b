"""OpenAI's client for the three roles: one account, one pool of connections, and what its exceptions mean.

OpenAI itself, Azure OpenAI, and every server that speaks OpenAI's protocol.
"""

from __future__ import annotations

import asyncio
import re
from collections.abc import Mapping
from importlib import import_module
from typing import Any, Protocol, cast

from pydantic import Field

from serve.errors import ConfigError, EngineFailed, EngineMissing, ParleyError, ProviderDown
from serve.providers import Caller, ProviderOptions, Refusal, key, retry_after

_OPENAI = "https://api.openai.com/v1"
_IDLE_SECONDS = 120.0
"""How long an idle connection is kept: longer than most pauses in a conversation; a new one costs three round trips."""
_FIELDS = {"max_completion_tokens": "max_tokens", "prompt": "messages", "input": "text", "file": "audio"}
"""Names of our fields where the provider has others."""
_LIMITS = {"rate_limit_exceeded", "rate_limit_error"}
_CALLERS_FAULT = {"content_filter", "context_length_exceeded", "invalid_request_error"}


class Account(Protocol):
    """Options that say how to reach a provider."""

    def provider(self) -> str:
        """Return its name, for messages."""
        ...

    def client(self, openai: Any, http: Any) -> Any:
        """Return the SDK's client.

        Args:
            openai: The SDK.
            http: The pool of connections to use.

        Raises:
            EngineMissing: There is no key.
            ConfigError: There is no address.
        """
        ...


class OpenAIAccount(ProviderOptions):
    """Options of OpenAI and of servers that are compatible.

    Attributes:
        base_url: Address of a compatible server, up to and with its `/v1`; None: OpenAI. Such a server is sent the key
            that `key_env` names and never `OPENAI_API_KEY` by itself; without `key_env` it is sent none.
        organization: To bill, where the key belongs to several.
        project: To bill, where the key belongs to several.
    """

    base_url: str | None = Field(default=None, pattern=r"^https?://")
    organization: str | None = None
    project: str | None = None

    def provider(self) -> str:
        """Return its name, for messages."""
        return "OpenAI" if self.base_url is None else "the OpenAI-compatible server"

    def key_names(self) -> tuple[str, ...]:
        """Return the variable that must hold the key; a compatible server may do without."""
        return (self.key_env or "OPENAI_API_KEY",) if self.key_env or self.base_url is None else ()

    def client(self, openai: Any, http: Any) -> Any:
        """Return the SDK's client."""
        keyless = self.base_url is not None and self.key_env is None
        secret = "none" if keyless else key("OPENAI_API_KEY", self.key_env).get_secret_value()
        if keyless:
            http.event_hooks["request"].append(_without_key)
        return openai.AsyncOpenAI(
            api_key=secret,
            base_url=self.base_url or _OPENAI,
            organization=self.organization,
            project=self.project,
            max_retries=0,
            http_client=http,
            default_headers=_left_out(openai, organization=self.organization, project=self.project),
        )


class AzureAccount(ProviderOptions):
    """Options of Azure OpenAI.

    Attributes:
        endpoint: Of the resource, `https://NAME.openai.azure.com`.
        deployment: Name of the model's deployment.
        api_version: Of the data plane's API; audio models came with 2025-03-01-preview.
    """

    endpoint: str | None = Field(default=None, pattern=r"^https?://")
    deployment: str | None = Field(default=None, pattern=r"^[\w.-]{1,64}$")
    api_version: str = "2025-04-01-preview"

    @property
    def model(self) -> str:
        """The deployment's name, where a request wants a model's."""
        return self.deployment or ""

    def provider(self) -> str:
        """Return its name, for messages."""
        return "Azure OpenAI"

    def key_names(self) -> tuple[str, ...]:
        """Return the variable that must hold the key."""
        return (self.key_env or "AZURE_OPENAI_API_KEY",)

    def unset(self) -> tuple[str, ...]:
        """Return the options that have no default and no value."""
        return tuple(name for name in ("endpoint", "deployment") if getattr(self, name) is None)

    def client(self, openai: Any, http: Any) -> Any:
        """Return the SDK's client."""
        if self.endpoint is None or self.deployment is None:
            missing = "endpoint" if self.endpoint is None else "deployment"
            raise ConfigError(f"Azure OpenAI: option {missing!r} is not set; it has no default")
        return openai.AsyncAzureOpenAI(
            api_key=key("AZURE_OPENAI_API_KEY", self.key_env).get_secret_value(),
            azure_endpoint=self.endpoint,
            azure_deployment=self.deployment,
            api_version=self.api_version,
            max_retries=0,
            http_client=http,
            default_headers=_left_out(openai, organization=None, project=None),
        )


class Connection:
    """An engine's way to its account; `open` comes first, `close` last.

    Args:
        account: Where, and with which key.
        subject: The field that a refusal without a field is about, for most are.
    """

    def __init__(self, account: Account, subject: str) -> None:
        self._account, self._subject = account, subject
        self._openai: Any = None
        self._http: Any = None
        self._client: Any = None
        self.caller = Caller(account.provider(), cast("ProviderOptions", account), self._meaning)

    @property
    def client(self) -> Any:
        """The SDK's client.

        Raises:
            EngineFailed: It is not open.
        """
        if self._client is None:
            raise EngineFailed(f"the client of {self._account.provider()} is not loaded")
        return self._client

    async def open(self) -> None:
        """Make the client; nothing is sent.

        Raises:
            EngineMissing: The SDK or the key is not there.
            ConfigError: An option without a default is not set.
        """
        timeouts = cast("ProviderOptions", self._account).timeouts
        try:
            # httpx2 is what this SDK brings and speaks.
            self._openai, httpx = await asyncio.to_thread(lambda: (import_module("openai"), import_module("httpx2")))
        except ImportError:
            raise EngineMissing("openai is not installed: `uv pip install 'openai>=3'`") from None
        http: Any = httpx.AsyncClient(
            # Reading is bounded by the caller, who can tell the first chunk from the next.
            timeout=httpx.Timeout(timeouts.first, connect=timeouts.connect, read=None),
            limits=httpx.Limits(max_keepalive_connections=32, keepalive_expiry=_IDLE_SECONDS),
        )
        try:
            self._client = self._account.client(self._openai, http)
        except BaseException:  # also when cancelled: connections must not stay
            await http.aclose()
            raise
        self._http = http

    async def warm(self) -> None:
        """Open a connection of the pool; without a key, and free of charge."""
        await self.caller.warm(lambda: self._http.head(str(self.client.base_url)))

    async def close(self) -> None:
        """Close the connections."""
        client, self._client = self._client, None
        if client is not None:
            await client.close()

    def _meaning(self, error: Exception) -> Refusal | ParleyError | None:
        """Say what the SDK's and its HTTP client's exceptions mean."""
        openai, name = self._openai, self._account.provider()
        if isinstance(error, openai.APIStatusError):
            found = cast("Any", error)
            wait = retry_after(cast("Mapping[str, str]", found.response.headers))
            return Refusal(found.status_code, _code(found), _field(found.param) or self._subject, wait)
        if isinstance(error, openai.APITimeoutError):
            return ProviderDown(f"{name} cannot be reached in time")
        if isinstance(error, openai.APIConnectionError):
            return ProviderDown(f"{name} cannot be reached, or broke off")
        if isinstance(error, openai.APIError):
            # Told inside a stream, where there is no status any more.
            code = _code(cast("Any", error))
            status = 429 if code in _LIMITS else 400 if code in _CALLERS_FAULT else 500
            return Refusal(status, code, _field(cast("Any", error).param) or self._subject)
        if isinstance(error, ValueError) or type(error).__module__.startswith(("httpx2", "httpcore2")):
            return ProviderDown(f"{name} broke off, or does not speak its protocol ({type(error).__name__})")
        return None


async def _without_key(request: Any) -> None:
    """Take the placeholder out that the SDK insists on."""
    request.headers.pop("Authorization", None)


def _left_out(openai: Any, *, organization: str | None, project: str | None) -> dict[str, Any]:
    """Return the headers that are not to be sent, and that the SDK would fill from the environment."""
    given = {"OpenAI-Organization": organization, "OpenAI-Project": project}
    return {name: openai.omit for name, value in given.items() if value is None}


def _code(error: Any) -> str:
    """Return the provider's name for a refusal; `type` says more than a code that only repeats the status."""
    code, kind = str(error.code or ""), str(error.type or "")
    return kind if kind and (not code or code.isdigit()) else code


def _field(param: Any) -> str | None:
    """Return our name of the field at fault: `messages.[0].content` is `messages`."""
    if not isinstance(param, str) or not (head := re.match(r"\w+", param)):
        return None
    return _FIELDS.get(head.group(), head.group())
