"""What every proxy shares: what a provider's refusal means, time-outs, tries, and a circuit breaker.

Free of any vendor's SDK. An engine tells `Caller` two things: how to ask (a generator of chunks), and what its SDK's
exceptions mean (`Translate`). A replica is a process with one engine, so an engine's circuit is its account's.
"""

from __future__ import annotations

import asyncio
import logging
import random
import re
from collections.abc import AsyncGenerator, Awaitable, Callable, Mapping
from dataclasses import dataclass
from datetime import UTC, datetime
from email.utils import parsedate_to_datetime
from typing import TypeVar

from pydantic import Field, SecretStr

from serve.circuit import Circuit
from serve.config import Strict
from serve.errors import (
    AuthFailed,
    BadRequest,
    ContextExceeded,
    DeadlineExceeded,
    EngineMissing,
    NotDeployed,
    ParleyError,
    ProviderDown,
    QuotaExceeded,
    RateLimited,
)
from serve.settings import provider_key

logger = logging.getLogger("ray.serve.parley")

T = TypeVar("T")

_AUTH = {"invalid_api_key", "api_key_invalid", "invalid_authentication"}
_QUOTA = {"insufficient_quota", "quota_exceeded", "billing_hard_limit_reached", "billing_not_active"}
_NO_MODEL = {"model_not_found", "deploymentnotfound"}
_PROBLEMS = {
    "string_above_max_length": "too long",
    "content_filter": "refused by the provider's content filter",
}
_CALLERS_FAULT = (400, 404, 413, 415, 422)
_PLAIN = re.compile(r"[\w.\[\]-]{1,64}")
"""What a code or a field's name looks like. Anything else may be content, and is not repeated."""


class Timeouts(Strict):
    """Seconds that a provider is waited for.

    Attributes:
        connect: Until the connection stands.
        first: From sending a request to the first sign of an answer; of what has one answer, to that answer.
        between: From one piece of a streamed answer to the next.
        whole: For everything, further tries included.
    """

    connect: float = Field(default=3.0, gt=0)
    first: float = Field(default=10.0, gt=0)
    between: float = Field(default=10.0, gt=0)
    whole: float = Field(default=120.0, gt=0)


class Retries(Strict):
    """When a request is sent again: only where it may succeed, and before any of its answer was passed on.

    Attributes:
        attempts: Tries in all.
        within: Seconds after the first try in which another may begin.
        pause: Seconds before the second try, doubled for each further one; half of it is left to chance.
        retry_after: Longest wait, in seconds, that the provider may ask for; asked for more, the request fails.
    """

    attempts: int = Field(default=2, ge=1, le=10)
    within: float = Field(default=3.0, ge=0)
    pause: float = Field(default=0.2, ge=0)
    retry_after: float = Field(default=2.0, ge=0)


class ProviderOptions(Strict):
    """Options that every proxy has.

    Attributes:
        key_env: Name of the environment variable that holds the key; None: the provider's usual one.
        timeouts: How long the provider is waited for.
        retries: When a request is sent again.
    """

    key_env: str | None = Field(default=None, pattern=r"^[A-Za-z_][A-Za-z0-9_]*$")
    timeouts: Timeouts = Field(default_factory=Timeouts)
    retries: Retries = Field(default_factory=Retries)

    def key_names(self) -> tuple[str, ...]:
        """Return the environment variables that must hold a key, so that they are missed before anything starts."""
        return (self.key_env,) if self.key_env else ()

    def unset(self) -> tuple[str, ...]:
        """Return the options that have no default and no value."""
        return ()


def key(variable: str, key_env: str | None) -> SecretStr:
    """Return a provider's key.

    Args:
        variable: The provider's usual environment variable.
        key_env: The one to read instead, or None.

    Raises:
        EngineMissing: It is not set; the message names it.
    """
    found = provider_key(variable, key_env)
    if found is None:
        raise EngineMissing(f"no key: set {key_env or variable} in the cluster's environment")
    return found


@dataclass(frozen=True, slots=True)
class Refusal:
    """What a provider answered instead of its service, without its words.

    Attributes:
        status: HTTP status, or the one that would say the same.
        code: The provider's own name for it, "" where it has none.
        field: The field at fault, as our caller knows it; None where the provider does not say.
        retry_after: Seconds that the provider asks to be left alone.
    """

    status: int
    code: str = ""
    field: str | None = None
    retry_after: float | None = None


Translate = Callable[[Exception], Refusal | ParleyError | None]
"""Says what an SDK's exception means; None: it is not the SDK's."""


def meaning(provider: str, refusal: Refusal) -> ParleyError:
    """Return the error that says what a refusal means; nothing of the provider's text is in it."""
    status, code = refusal.status, refusal.code.lower()
    shown = f"{status}, {code}" if _PLAIN.fullmatch(code) and code != str(status) else str(status)
    if status == 402 or code in _QUOTA:
        return QuotaExceeded(f"{provider}: the account's budget is used up ({shown})")
    if status in (401, 403) or code in _AUTH:
        return AuthFailed(f"{provider} refused the key: wrong, or without rights to this ({shown})")
    if status == 429:
        return RateLimited(f"{provider}: too many requests for now ({shown})")
    if code in _NO_MODEL:
        # The profile's fault and not the caller's: a fallback may serve.
        return NotDeployed(f"{provider} has no such model or deployment, or not for this key ({shown})")
    if status in _CALLERS_FAULT:
        field = refusal.field or ""
        if code == "context_length_exceeded":
            return ContextExceeded("messages", f"more than the model's context holds ({provider}: {shown})")
        problem = _PROBLEMS.get(code) or f"{'too large for' if status == 413 else 'not accepted by'} the provider"
        return BadRequest(field if _PLAIN.fullmatch(field) else "request", f"{problem} ({provider}: {shown})")
    return ProviderDown(f"{provider} is away or broken ({shown})")


def retry_after(headers: Mapping[str, str]) -> float | None:
    """Return the seconds that a provider asks for: `retry-after-ms`, or `Retry-After` as seconds or date (RFC 9110)."""
    try:
        if (milliseconds := headers.get("retry-after-ms")) is not None:
            return max(0.0, float(milliseconds) / 1000)
        value = headers.get("retry-after")
        if value is None:
            return None
        if re.fullmatch(r"\d+(\.\d+)?", value):
            return float(value)
        return max(0.0, (parsedate_to_datetime(value) - datetime.now(UTC)).total_seconds())
    except (ValueError, TypeError):
        return None


class Caller:
    """Asks a provider: within its time, again where that helps, and not at all while it only fails.

    Args:
        provider: Its name, for messages.
        options: Time-outs and tries.
        translate: Says what its SDK's exceptions mean.
        circuit: Its circuit breaker; tests put their own in its place.
        sleep: Waits between tries; tests put their own in its place.
    """

    def __init__(
        self,
        provider: str,
        options: ProviderOptions,
        translate: Translate,
        *,
        circuit: Circuit | None = None,
        sleep: Callable[[float], Awaitable[None]] = asyncio.sleep,
    ) -> None:
        self._provider, self._translate, self._sleep = provider, translate, sleep
        self._timeouts, self._retries = options.timeouts, options.retries
        self.circuit = circuit or Circuit()

    async def once(self, ask: Callable[[], Awaitable[T]]) -> T:
        """Return the answer of a request that has one; `ask` sends it, and is called again for another try.

        Raises:
            ParleyError: See `stream`.
        """

        async def answer() -> AsyncGenerator[T, None]:
            yield await ask()

        chunks = self.stream(answer)
        try:
            return await anext(chunks)
        finally:
            await chunks.aclose()

    async def stream(self, ask: Callable[[], AsyncGenerator[T | None, None]]) -> AsyncGenerator[T, None]:
        """Yield the chunks of an answer; closing it closes the provider's stream.

        Args:
            ask: Sends the request; called again for another try. A None that it yields is a sign of life: it is not
                passed on, and after it the request may still be sent again.

        Raises:
            ProviderDown: Away, broken, too slow, cut off in mid-answer; or its circuit is open.
            DeadlineExceeded: It answers, but not to the end within `Timeouts.whole`.
            ParleyError: What else it refused; see `meaning`.
        """
        began = asyncio.get_running_loop().time()
        for attempt in range(1, self._retries.attempts + 1):
            if not self.circuit.allow():
                raise ProviderDown(f"{self._provider} failed of late and is left alone for a while")
            chunks = ask()
            alive = passed = False
            try:
                while True:
                    try:
                        chunk = await self._bounded(anext(chunks), began, alive=alive)
                    except StopAsyncIteration:
                        self.circuit.succeeded()
                        return
                    alive = True
                    if chunk is not None:
                        passed = True
                        yield chunk
            except (GeneratorExit, asyncio.CancelledError):
                if alive:  # who listened has heard enough; the provider did well
                    self.circuit.succeeded()
                raise
            except Exception as raw:  # `_failed` says which errors are known, and raises others
                error, asked = self._failed(raw)
                pause = None if passed else self._pause(error, asked, attempt, began)
                if pause is None:
                    raise error from None
            finally:
                await chunks.aclose()
            logger.warning("%s from %s: trying again in %.2f s", error.code, self._provider, pause)
            await self._sleep(pause)

    async def warm(self, connect: Callable[[], Awaitable[object]]) -> None:
        """Open the connection ahead of the first request; that it cannot be opened is logged and no more."""
        try:
            async with asyncio.timeout(self._timeouts.connect):
                await connect()
        except Exception as error:  # only a head start; the first request will tell
            logger.warning("%s cannot be reached yet (%s)", self._provider, type(error).__name__)

    async def _bounded(self, work: Awaitable[T], began: float, *, alive: bool) -> T:
        left = began + self._timeouts.whole - asyncio.get_running_loop().time()
        limit = self._timeouts.between if alive else self._timeouts.first
        try:
            async with asyncio.timeout(min(left, limit)):
                return await work
        except TimeoutError:
            if alive and left < limit:
                raise DeadlineExceeded(f"{self._provider} did not finish in {self._timeouts.whole:.1f} s") from None
            raise ProviderDown(f"{self._provider} gave no sign for {min(left, limit):.1f} s") from None

    def _failed(self, raw: Exception) -> tuple[ParleyError, float | None]:
        """Return what an exception means and how long to wait; tell the circuit.

        Raises:
            Exception: The exception itself, where it means nothing to the engine.
        """
        found = raw if isinstance(raw, ParleyError) else self._translate(raw)
        if found is None:
            raise raw
        asked = None
        if isinstance(found, Refusal):
            asked, found = found.retry_after, meaning(self._provider, found)
            if not isinstance(found, ProviderDown):
                self.circuit.succeeded()
        if isinstance(found, ProviderDown):
            self.circuit.failed()
        return found, asked

    def _pause(self, error: ParleyError, asked: float | None, attempt: int, began: float) -> float | None:
        """Return the seconds to wait before another try; None: there is none."""
        retries = self._retries
        if not error.retryable or attempt == retries.attempts or (asked or 0.0) > retries.retry_after:
            return None
        # Jitter, so that callers who failed together do not return together.
        pause = max(asked or 0.0, retries.pause * 2 ** (attempt - 1) * random.uniform(0.5, 1.0))  # noqa: S311
        elapsed = asyncio.get_running_loop().time() - began
        return pause if elapsed + pause <= min(retries.within, self._timeouts.whole) else None
