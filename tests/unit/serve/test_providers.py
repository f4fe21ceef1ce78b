"""What proxies share: the meaning of refusals, tries, time-outs and the circuit, with no provider at all."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncGenerator, Callable, Sequence
from datetime import UTC, datetime, timedelta
from email.utils import format_datetime
from typing import Any

import pytest

from serve.circuit import Circuit
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
from serve.providers import Caller, ProviderOptions, Refusal, Retries, Timeouts, key, meaning, retry_after
from serve.settings import settings

pytestmark = pytest.mark.unit


class FakeClock:
    def __init__(self) -> None:
        self.now = 0.0

    def __call__(self) -> float:
        return self.now


class FakeSdkError(Exception):
    """What a vendor's SDK would raise."""

    def __init__(self, refusal: Refusal) -> None:
        super().__init__("the secret words of a conversation")
        self.refusal = refusal


def translate(error: Exception) -> Refusal | ParleyError | None:
    match error:
        case FakeSdkError():
            return error.refusal
        case ConnectionError():
            return ProviderDown("cannot be reached")
        case _:
            return None


class FakeVendor:
    """Plays one script a request: values are chunks, errors are raised, floats are pauses; counts what it sees."""

    def __init__(self, *scripts: Sequence[Any]) -> None:
        self.scripts = list(scripts)
        self.asked = self.closed = 0

    async def ask(self) -> AsyncGenerator[str | None, None]:
        script = self.scripts[min(self.asked, len(self.scripts) - 1)]
        self.asked += 1
        try:
            for step in script:
                if isinstance(step, Exception):
                    raise step
                if isinstance(step, float):
                    await asyncio.sleep(step)
                else:
                    yield step
        finally:
            self.closed += 1

    async def ask_once(self) -> str:
        async for chunk in self.ask():
            if chunk is not None:
                return chunk
        return ""


Made = tuple[Caller, list[float], Circuit]
DOWN = ConnectionError("at 10.0.0.1")


def caller(clock: Callable[[], float] | None = None, *, timeouts: Timeouts | None = None, **retries: Any) -> Made:
    """Return a caller, what it slept, and its circuit."""
    slept: list[float] = []

    async def sleep(seconds: float) -> None:
        slept.append(seconds)

    circuit = Circuit(failures=3, pause=5.0, clock=clock or FakeClock())
    options = ProviderOptions(timeouts=timeouts or Timeouts(), retries=Retries(**retries))
    return Caller("acme", options, translate, circuit=circuit, sleep=sleep), slept, circuit


async def heard(made: Caller, vendor: FakeVendor) -> list[str]:
    async with asyncio.timeout(5):
        return [chunk async for chunk in made.stream(vendor.ask)]


@pytest.mark.parametrize(
    ("status", "code", "kind"),
    [
        (401, "", AuthFailed),
        (403, "", AuthFailed),
        (400, "invalid_api_key", AuthFailed),
        (402, "", QuotaExceeded),
        (429, "insufficient_quota", QuotaExceeded),
        (401, "quota_exceeded", QuotaExceeded),
        (429, "", RateLimited),
        (400, "", BadRequest),
        (404, "", BadRequest),
        (413, "", BadRequest),
        (415, "", BadRequest),
        (422, "", BadRequest),
        (404, "DeploymentNotFound", NotDeployed),
        (404, "model_not_found", NotDeployed),
        (408, "", ProviderDown),
        (500, "", ProviderDown),
        (503, "", ProviderDown),
        (529, "", ProviderDown),
        (302, "", ProviderDown),
    ],
)
def test_a_status_means_an_error(status: int, code: str, kind: type[ParleyError]) -> None:
    error = meaning("acme", Refusal(status, code))
    assert type(error) is kind
    assert "acme" in str(error)
    assert str(status) in str(error)


def test_a_bad_request_names_the_field() -> None:
    error = meaning("acme", Refusal(400, "context_length_exceeded", "messages"))
    assert isinstance(error, ContextExceeded)
    assert error.field == "messages"
    error = meaning("acme", Refusal(422, "string_above_max_length", "text"))
    assert isinstance(error, BadRequest)
    assert str(error) == "text: too long (acme: 422, string_above_max_length)"


def test_nothing_that_may_be_content_is_repeated() -> None:
    error = meaning("acme", Refusal(400, "my pin is 1234", "my name is Bob"))
    assert isinstance(error, BadRequest)
    assert error.field == "request"
    assert "pin" not in str(error)


@pytest.mark.parametrize(
    ("headers", "seconds"),
    [
        ({}, None),
        ({"retry-after": "3"}, 3.0),
        ({"retry-after": "0.5"}, 0.5),
        ({"retry-after-ms": "250", "retry-after": "3"}, 0.25),
        ({"retry-after": "soon"}, None),
        ({"retry-after": format_datetime(datetime.now(UTC) - timedelta(seconds=9), usegmt=True)}, 0.0),
    ],
)
def test_retry_after_is_read(headers: dict[str, str], seconds: float | None) -> None:
    assert retry_after(headers) == seconds


async def test_what_may_succeed_is_tried_again() -> None:
    made, slept, _ = caller(attempts=3, pause=0.2)
    vendor = FakeVendor([DOWN], [FakeSdkError(Refusal(429))], ["a", "b"])
    assert await heard(made, vendor) == ["a", "b"]
    assert vendor.asked == vendor.closed == 3
    assert 0.1 <= slept[0] <= 0.2
    assert 0.2 <= slept[1] <= 0.4


async def test_tries_are_counted() -> None:
    made, slept, _ = caller(attempts=2)
    vendor = FakeVendor([DOWN])
    with pytest.raises(ProviderDown):
        await heard(made, vendor)
    assert (vendor.asked, len(slept)) == (2, 1)


async def test_no_try_begins_too_late() -> None:
    made, slept, _ = caller(attempts=5, within=0.05, pause=0.2)
    vendor = FakeVendor([DOWN])
    with pytest.raises(ProviderDown):
        await heard(made, vendor)
    assert (vendor.asked, slept) == (1, [])


@pytest.mark.parametrize("status", [400, 401, 402])
async def test_what_cannot_succeed_is_not_tried_again(status: int) -> None:
    made, _, _ = caller(attempts=3)
    vendor = FakeVendor([FakeSdkError(Refusal(status))])
    with pytest.raises(ParleyError):
        await heard(made, vendor)
    assert vendor.asked == 1


async def test_retry_after_is_kept_to_and_bounded() -> None:
    made, slept, _ = caller(attempts=2, pause=0.1, retry_after=2.0)
    vendor = FakeVendor([FakeSdkError(Refusal(429, retry_after=1.5))], ["a"])
    assert await heard(made, vendor) == ["a"]
    assert slept == [1.5]
    made, slept, _ = caller(attempts=2, retry_after=2.0)
    vendor = FakeVendor([FakeSdkError(Refusal(429, retry_after=30))], ["a"])
    with pytest.raises(RateLimited):
        await heard(made, vendor)
    assert (vendor.asked, slept) == (1, [])


async def test_nothing_is_sent_again_once_something_was_passed_on() -> None:
    made, _, _ = caller(attempts=3)
    vendor = FakeVendor(["a", DOWN], ["a", "b"])
    stream = made.stream(vendor.ask)
    assert await anext(stream) == "a"
    with pytest.raises(ProviderDown):
        await anext(stream)
    assert vendor.asked == 1


async def test_a_sign_of_life_is_not_passed_on_and_allows_another_try() -> None:
    made, _, _ = caller(attempts=2)
    vendor = FakeVendor([None, DOWN], [None, "a", None, "b"])
    assert await heard(made, vendor) == ["a", "b"]


async def test_one_answer() -> None:
    made, _, _ = caller(attempts=2)
    vendor = FakeVendor([DOWN], ["whole"])
    assert await made.once(vendor.ask_once) == "whole"
    assert vendor.asked == 2


async def test_a_stranger_passes_as_it_is() -> None:
    made, _, circuit = caller(attempts=3)
    vendor = FakeVendor([KeyError("choices")])
    with pytest.raises(KeyError):
        await heard(made, vendor)
    assert vendor.asked == 1
    assert circuit.allow()


async def test_an_error_carries_no_words_of_the_sdk() -> None:
    made, _, _ = caller(attempts=1)
    with pytest.raises(ProviderDown) as caught:
        await heard(made, FakeVendor([FakeSdkError(Refusal(500))]))
    assert "secret" not in str(caught.value)
    assert caught.value.__cause__ is None


async def test_no_first_chunk_in_time() -> None:
    made, _, circuit = caller(timeouts=Timeouts(first=0.03), attempts=1)
    vendor = FakeVendor([9.0, "a"])
    with pytest.raises(ProviderDown, match="no sign"):
        await heard(made, vendor)
    assert vendor.closed == 1
    assert circuit._failed == 1  # pyright: ignore[reportPrivateUsage]


async def test_a_pause_between_chunks_is_too_long() -> None:
    made, _, _ = caller(timeouts=Timeouts(between=0.03), attempts=3)
    vendor = FakeVendor(["a", 9.0, "b"])
    with pytest.raises(ProviderDown):
        await heard(made, vendor)
    assert (vendor.asked, vendor.closed) == (1, 1)


async def test_an_answer_without_end() -> None:
    made, _, circuit = caller(timeouts=Timeouts(whole=0.1), attempts=3)
    vendor = FakeVendor(["a", 0.02] * 500)
    with pytest.raises(DeadlineExceeded):
        await heard(made, vendor)
    assert vendor.closed == 1
    assert circuit._failed == 0, "it gave signs all the time"  # pyright: ignore[reportPrivateUsage]


async def test_the_listeners_own_pace_counts_for_no_pause() -> None:
    made, _, _ = caller(timeouts=Timeouts(between=0.05))
    async for _ in made.stream(FakeVendor(["a", "b"]).ask):
        await asyncio.sleep(0.1)


async def test_opens_for_who_is_away_and_heals_by_a_probe() -> None:
    clock = FakeClock()
    made, _, circuit = caller(clock, attempts=1)
    vendor = FakeVendor([DOWN], [DOWN], [DOWN], ["well"])
    for _ in range(3):
        with pytest.raises(ProviderDown):
            await heard(made, vendor)
    assert circuit.open
    with pytest.raises(ProviderDown, match="left alone"):
        await heard(made, vendor)
    assert vendor.asked == 3, "asked while the circuit was open"
    clock.now += 5.1
    assert await heard(made, vendor) == ["well"]
    assert await heard(made, vendor) == ["well"]


async def test_refusals_of_one_request_open_nothing() -> None:
    made, _, circuit = caller(attempts=1)
    for status in (400, 401, 429, 402) * 3:
        with pytest.raises(ParleyError):
            await heard(made, FakeVendor([FakeSdkError(Refusal(status))]))
    assert not circuit.open


async def test_who_always_breaks_off_opens_the_circuit() -> None:
    made, _, circuit = caller()
    for _ in range(3):
        with pytest.raises(ProviderDown):
            await heard(made, FakeVendor(["a", DOWN]))
    assert circuit.open


async def test_closing_closes_the_vendors_stream_and_counts_as_well() -> None:
    made, _, circuit = caller()
    circuit.failed()
    vendor = FakeVendor(["a", 9.0])
    stream = made.stream(vendor.ask)
    assert await anext(stream) == "a"
    await stream.aclose()
    assert vendor.closed == 1
    assert circuit._failed == 0  # pyright: ignore[reportPrivateUsage]


async def test_cancelling_closes_the_vendors_stream() -> None:
    made, _, _ = caller()
    vendor = FakeVendor([9.0])
    task = asyncio.create_task(heard(made, vendor))
    await asyncio.sleep(0)
    await asyncio.sleep(0)
    task.cancel()
    with pytest.raises(asyncio.CancelledError):
        await task
    assert (vendor.asked, vendor.closed) == (1, 1)


async def test_warming_is_bounded_and_never_fails() -> None:
    made, _, _ = caller(timeouts=Timeouts(connect=0.03))

    async def refused() -> None:
        raise ConnectionRefusedError

    async with asyncio.timeout(1):
        await made.warm(refused)
        await made.warm(asyncio.Event().wait)


def test_a_missing_key_names_its_variable(monkeypatch: pytest.MonkeyPatch) -> None:
    settings.cache_clear()
    monkeypatch.delenv("OPENAI_API_KEY", raising=False)
    with pytest.raises(EngineMissing, match="OPENAI_API_KEY"):
        key("OPENAI_API_KEY", None)
    with pytest.raises(EngineMissing, match="TEAM_KEY"):
        key("OPENAI_API_KEY", "TEAM_KEY")
    monkeypatch.setenv("TEAM_KEY", "sk-team")
    found = key("OPENAI_API_KEY", "TEAM_KEY")
    assert found.get_secret_value() == "sk-team"
    assert "sk-team" not in repr(found)


def test_the_usual_variable_is_read(monkeypatch: pytest.MonkeyPatch) -> None:
    settings.cache_clear()
    monkeypatch.setenv("AZURE_SPEECH_KEY", "usual")
    try:
        assert key("AZURE_SPEECH_KEY", None).get_secret_value() == "usual"
    finally:
        settings.cache_clear()
