"""The client: deadlines, other replicas, cancellation, and Ray's errors in our words."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncGenerator, Callable
from typing import Any

import numpy as np
import pytest
import ray.exceptions
from ray.serve.exceptions import BackPressureError

from serve.client import ATTEMPTS, Models, translate
from serve.config import Route, Routes
from serve.contracts import (
    ChatChunk,
    ChatRequest,
    ListenRequest,
    RequestContext,
    Role,
    SpeechChunk,
    SpeechRequest,
    TranscribeRequest,
    Transcript,
    Usage,
)
from serve.errors import (
    AuthFailed,
    BadRequest,
    DeadlineExceeded,
    EngineFailed,
    Overloaded,
    ParleyError,
    ReplicaLost,
    StreamLost,
)

pytestmark = pytest.mark.unit

CONTEXT = RequestContext("call-1", timeout=1.0)
UTTERANCE = TranscribeRequest(b"", 16000)


class FakeResponse:
    """Stands where Serve's response does: awaitable, iterable, and it remembers whether it was cancelled."""

    def __init__(self, answer: Any) -> None:
        self.answer = answer
        self.cancelled = False

    def cancel(self) -> None:
        self.cancelled = True

    def __await__(self) -> Any:
        return self._answer().__await__()

    async def _answer(self) -> Any:
        if isinstance(self.answer, Exception):
            raise self.answer
        if self.answer is None:
            await asyncio.Event().wait()
        return self.answer

    def __aiter__(self) -> AsyncGenerator[Any, None]:
        return self._chunks()

    async def _chunks(self) -> AsyncGenerator[Any, None]:
        for chunk in self.answer:
            if isinstance(chunk, Exception):
                raise chunk
            if chunk is None:
                await asyncio.Event().wait()
            yield chunk


class FakeHandle:
    """Gives the next answer of a list to each request."""

    def __init__(self, answers: list[Any]) -> None:
        self.answers = answers
        self.responses: list[FakeResponse] = []
        self.sessions: list[str] = []
        self.sent: list[tuple[Any, ...]] = []

    def options(self, *, method_name: str, stream: bool, session_id: str) -> FakeHandle:
        self.sessions.append(session_id)
        return self

    def remote(self, *args: Any) -> FakeResponse:
        self.sent.append(args)
        self.responses.append(FakeResponse(self.answers.pop(0)))
        return self.responses[-1]


def models(*answers: Any) -> tuple[Models, FakeHandle]:
    handle = FakeHandle(list(answers))

    def find(model: str, role: Role) -> FakeHandle:
        return handle

    return Models(Routes.model_validate({"stt": "s", "llm": "l", "tts": "t"}), find), handle


async def collect(stream: AsyncGenerator[ChatChunk, None]) -> str:
    return "".join([chunk.text async for chunk in stream])


async def test_a_lost_replica_is_replaced_by_another() -> None:
    client, handle = models(ray.exceptions.ActorUnavailableError("gone", None), Transcript("hello"))
    assert (await client.transcribe(UTTERANCE, CONTEXT)).text == "hello"
    assert len(handle.responses) == 2
    assert handle.responses[0].cancelled


async def test_tries_are_bounded() -> None:
    client, handle = models(*[EngineFailed("broken")] * (ATTEMPTS + 1))
    with pytest.raises(EngineFailed):
        await client.transcribe(UTTERANCE, CONTEXT)
    assert len(handle.responses) == ATTEMPTS


async def test_bad_input_is_not_sent_twice() -> None:
    client, handle = models(BadRequest("audio", "odd number of bytes"))
    with pytest.raises(BadRequest, match="audio: odd"):
        await client.transcribe(UTTERANCE, CONTEXT)
    assert len(handle.responses) == 1


async def test_an_error_of_our_own_is_not_hidden() -> None:
    client, handle = models(ValueError("a bug"), Transcript("never"))
    with pytest.raises(ValueError, match="a bug"):
        await client.transcribe(UTTERANCE, CONTEXT)
    assert handle.responses[0].cancelled


async def test_a_piece_of_a_stream_is_never_sent_to_another_replica() -> None:
    client, handle = models(StreamLost("new here"), Transcript("never"))
    with pytest.raises(StreamLost):
        await client.listen(ListenRequest("u", 3, b"", 16000), CONTEXT)
    assert len(handle.responses) == 1


async def test_deadline_stops_the_work() -> None:
    client, handle = models(None)
    with pytest.raises(DeadlineExceeded):
        await client.transcribe(UTTERANCE, RequestContext(timeout=0.05))
    assert handle.responses[0].cancelled


async def test_cancelling_the_caller_stops_the_work() -> None:
    client, handle = models(None)
    task = asyncio.create_task(client.transcribe(UTTERANCE, CONTEXT))
    await asyncio.sleep(0)
    task.cancel()
    with pytest.raises(asyncio.CancelledError):
        await task
    assert handle.responses[0].cancelled


async def test_a_stream_that_gave_nothing_goes_elsewhere() -> None:
    client, handle = models([ReplicaLost("gone")], [ChatChunk("hi"), ChatChunk(finish_reason="stop")])
    assert await collect(client.chat(ChatRequest([]), CONTEXT)) == "hi"
    assert [response.cancelled for response in handle.responses] == [True, False]


async def test_an_answer_that_breaks_off_goes_on_from_its_words() -> None:
    client, handle = models(
        [ChatChunk("The sea"), ChatChunk(" is"), ReplicaLost("gone")],
        [ChatChunk(" wide"), ReplicaLost("gone")],
        [ChatChunk(" and"), ChatChunk(" deep"), ChatChunk(finish_reason="stop")],
    )
    request = ChatRequest([{"role": "user", "content": "The sea?"}], max_tokens=10)
    assert await collect(client.chat(request, CONTEXT)) == "The sea is wide and deep"
    asked = [sent[0] for sent in handle.sent]
    assert [each.so_far for each in asked] == ["", "The sea is", "The sea is wide"]
    assert [each.max_tokens for each in asked] == [10, 8, 7]


async def test_speech_that_breaks_off_goes_on_where_it_was_heard() -> None:
    ramp = np.arange(1600, dtype="<i2").tobytes()
    pieces = [SpeechChunk(ramp[start : start + 640], 16000) for start in range(0, len(ramp), 640)]
    again = [SpeechChunk(ramp[:2000], 16000), SpeechChunk(ramp[2000:], 16000, Usage(characters=5))]
    client, handle = models([*pieces[:2], ReplicaLost("gone")], again)
    spoken = [chunk async for chunk in client.speak(SpeechRequest("Hello"), CONTEXT)]
    assert b"".join(chunk.audio for chunk in spoken) == ramp
    assert spoken[-1].usage is not None
    assert len(handle.responses) == 2


async def test_a_model_that_falls_silent_in_mid_answer_is_replaced_by_another() -> None:
    client, handles = standby(0.05, a=[[ChatChunk("one"), None]], b=[[ChatChunk(" two")]])
    assert await collect(client.chat(ChatRequest([]), CONTEXT)) == "one two"
    assert handles["a"].responses[0].cancelled


async def test_closing_a_stream_stops_the_work() -> None:
    client, handle = models([ChatChunk("one"), ChatChunk("two"), None])
    stream = client.chat(ChatRequest([]), CONTEXT)
    assert (await anext(stream)).text == "one"
    await stream.aclose()
    assert handle.responses[0].cancelled


async def test_requests_of_one_call_ask_for_one_replica() -> None:
    client, handle = models(Transcript("a"), Transcript("b"))
    await client.transcribe(UTTERANCE, CONTEXT)
    await client.transcribe(UTTERANCE, CONTEXT)
    assert handle.sessions[-1] == "call-1"


@pytest.mark.parametrize(
    ("raw", "kind"),
    [
        (lambda: ray.exceptions.ActorDiedError(), ReplicaLost),
        (lambda: BackPressureError(1, 1), Overloaded),
    ],
)
def test_errors_in_our_words(raw: Callable[[], Exception], kind: type[ParleyError]) -> None:
    error = translate(raw(), "llm-a")
    assert type(error) is kind
    assert "llm-a" in str(error)


def standby(patience: float = 4.0, **answers: list[Any]) -> tuple[Models, dict[str, FakeHandle]]:
    """Models `a` (the default) and those that stand by, each with its own answers."""
    handles = {name: FakeHandle(list(given)) for name, given in answers.items()}
    route = {"default": "a", "fallbacks": [name for name in answers if name != "a"], "patience": patience}
    routes = Routes.model_validate({"stt": route, "llm": route, "tts": "t"})
    return Models(routes, lambda model, role: handles[model]), handles


async def test_another_model_answers_for_one_that_refuses() -> None:
    client, handles = standby(a=[AuthFailed("no key")], b=[Transcript("hello")])
    answer = await client.transcribe(UTTERANCE, CONTEXT)
    assert (answer.text, answer.model) == ("hello", "b")
    assert len(handles["a"].responses) == 1, "a refusal is not asked again"


async def test_a_model_that_only_fails_is_tried_and_then_another() -> None:
    client, handles = standby(a=[[EngineFailed("broken")]] * ATTEMPTS, b=[[ChatChunk("hi")]])
    assert await collect(client.chat(ChatRequest([]), CONTEXT)) == "hi"
    assert len(handles["a"].responses) == ATTEMPTS


async def test_a_silent_model_costs_its_patience_at_most() -> None:
    client, handles = standby(0.05, a=[[None]], b=[[ChatChunk("hi")]])
    assert await collect(client.chat(ChatRequest([]), CONTEXT)) == "hi"
    assert handles["a"].responses[0].cancelled


async def test_the_last_model_has_all_the_time_there_is() -> None:
    client, _ = standby(0.05, a=[[None]], b=[[None]])
    started = asyncio.get_running_loop().time()
    with pytest.raises(DeadlineExceeded):
        await collect(client.chat(ChatRequest([]), RequestContext("call-1", timeout=0.2)))
    assert asyncio.get_running_loop().time() - started >= 0.2


async def test_bad_input_is_no_reason_to_ask_another_model() -> None:
    client, handles = standby(a=[BadRequest("audio", "odd")], b=[Transcript("never")])
    with pytest.raises(BadRequest):
        await client.transcribe(UTTERANCE, CONTEXT)
    assert handles["b"].responses == []


async def test_who_only_fails_is_left_alone_for_a_while() -> None:
    client, handles = standby(a=[AuthFailed("no key")] * 3, b=[Transcript("hello")] * 5)
    for _ in range(5):
        assert (await client.transcribe(UTTERANCE, CONTEXT)).model == "b"
    assert len(handles["a"].responses) == 3


async def test_a_named_model_is_asked_alone() -> None:
    client, _ = standby(a=[Transcript("never")], b=[AuthFailed("no key")])
    with pytest.raises(AuthFailed):
        await client.transcribe(UTTERANCE, RequestContext("call-1", 1.0, "b"))


async def test_a_call_learns_who_served_it() -> None:
    client, _ = standby(a=[AuthFailed("no key")], b=[Transcript("hello"), Transcript("chosen")])
    call = client.choosing({})
    await call.transcribe(UTTERANCE, CONTEXT)
    served = call.service()
    assert (served.models["stt"], served.retries, served.fallbacks) == ("b", 1, {"stt": "b"})
    assert call.service().retries == 0
    other = client.choosing({"stt": "b"})
    assert (await other.transcribe(UTTERANCE, CONTEXT)).text == "chosen"
    assert other.service().fallbacks == {}


async def test_new_routes_reach_calls_in_progress() -> None:
    client, _ = standby(a=[Transcript("old")], b=[Transcript("new")])
    call = client.choosing({})
    assert (await call.transcribe(UTTERANCE, CONTEXT)).text == "old"
    client.update(Routes.model_validate({"stt": "b", "llm": "b", "tts": "t"}))
    assert (await call.transcribe(UTTERANCE, CONTEXT)).text == "new"


def test_shares_of_calls_are_kept_and_a_call_stays_on_its_side() -> None:
    route = Route(default="a", weights={"b": 0.25}, fallbacks=("c",))
    sides = [route.order(f"call-{number}") for number in range(2000)]
    assert sides == [route.order(f"call-{number}") for number in range(2000)]
    assert 0.2 < sum(side[0] == "b" for side in sides) / 2000 < 0.3
    assert {side for side in sides if side[0] == "b"} == {("b", "a", "c")}


def test_a_call_stays_on_its_side_while_shares_change() -> None:
    few, many = Route(default="a", weights={"b": 0.1}), Route(default="a", weights={"b": 0.5})
    call = next(name for name in map("call-{}".format, range(1000)) if few.order(name) != many.order(name))
    assert few.order(call) == ("a",)
    assert many.order(call) == ("b", "a")
    assert many.order(call, "a") == ("a",)
    assert Route(default="b").order(call, "a") == ("b",), "a model that takes no calls any more keeps none"


async def test_a_call_in_progress_stays_on_its_side_and_says_who_was_asked() -> None:
    client, _ = standby(a=[Transcript("1"), Transcript("2"), Transcript("3")], b=[Transcript("new")])
    routes = {"llm": "b", "tts": "t"}
    begun = client.choosing({})
    await begun.transcribe(UTTERANCE, CONTEXT)
    client.update(Routes.model_validate({"stt": {"default": "a", "weights": {"b": 1.0}}, **routes}))
    await begun.transcribe(UTTERANCE, CONTEXT)
    assert begun.service().asked == {"stt": "a"}
    later = client.choosing({})
    assert (await later.transcribe(UTTERANCE, CONTEXT)).model == "b"
    assert later.service().asked == {"stt": "b"}
