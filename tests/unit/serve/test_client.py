"""The client: deadlines, other replicas, cancellation, and Ray's errors in our words."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncGenerator, Callable
from typing import Any

import pytest
import ray.exceptions
from ray.serve.exceptions import BackPressureError

from serve.client import ATTEMPTS, Models, translate
from serve.config import Routes
from serve.contracts import (
    ChatChunk,
    ChatRequest,
    ListenRequest,
    RequestContext,
    Role,
    TranscribeRequest,
    Transcript,
)
from serve.errors import (
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

    def options(self, *, method_name: str, stream: bool, session_id: str) -> FakeHandle:
        self.sessions.append(session_id)
        return self

    def remote(self, *args: Any) -> FakeResponse:
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


async def test_a_stream_that_was_heard_is_not_repeated() -> None:
    client, handle = models([ChatChunk("half"), ReplicaLost("gone")], [ChatChunk("again")])
    with pytest.raises(ReplicaLost):
        await collect(client.chat(ChatRequest([]), CONTEXT))
    assert len(handle.responses) == 1


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
