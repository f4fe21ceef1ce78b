"""The shell around every engine: usage is complete, utterances of different calls go through together."""

from __future__ import annotations

import asyncio
from collections.abc import Sequence
from types import SimpleNamespace
from typing import Any

import pytest

from serve import registry
from serve.config import Batch
from serve.contracts import Capabilities, ChatChunk, ChatRequest, RequestContext, TranscribeRequest, Transcript
from serve.errors import BadRequest, ParleyError
from serve.replica import Chat, SpeechRecognition
from serve.stt.fake import FakeSpeechToText

pytestmark = pytest.mark.unit

CONTEXT = RequestContext("call", timeout=5.0)
SPOKEN = TranscribeRequest(b"\1\0" * 1600, 16000)


class FakeBatching(FakeSpeechToText):
    """Notes how many utterances came together; half a sample is one caller's own fault."""

    def __init__(self, options: Any) -> None:
        super().__init__(options)
        self.passes: list[int] = []

    async def transcribe_batch(self, requests: Sequence[TranscribeRequest]) -> list[Transcript | ParleyError]:
        self.passes.append(len(requests))
        await asyncio.sleep(0)
        return [
            BadRequest("audio", "half a sample") if len(each.audio) % 2 else Transcript(str(len(each.audio)))
            for each in requests
        ]


@pytest.fixture(autouse=True)
def serving(monkeypatch: pytest.MonkeyPatch) -> None:
    """Serve's batching looks at its deployment's cap."""
    deployment = SimpleNamespace(_deployment_config=SimpleNamespace(max_ongoing_requests=8))
    monkeypatch.setattr("ray.serve.get_replica_context", lambda: deployment)


async def replica(kind: Any, **config: Any) -> Any:
    # Serve awaits `__del__`; here the test ends the replica.
    local = type(kind.__name__, (kind,), {"__del__": lambda self: None})
    shell: Any = local.__new__(local)
    await shell.__init__({"name": "model", **config})
    return shell


async def test_usage_says_what_the_gpus_cost() -> None:
    shell = await replica(Chat, engine="fake-llm", options={"delay": 0.01}, resources={"gpus": 0.5})
    request = ChatRequest([{"role": "user", "content": "one two three"}])
    chunks: list[ChatChunk] = [chunk async for chunk in shell.chat(request, CONTEXT)]
    usage = chunks[-1].usage
    assert usage is not None
    assert usage.busy_seconds >= 0.03
    assert usage.gpu_seconds == pytest.approx(0.5 * usage.busy_seconds)
    await shell.shutdown()


async def test_who_cannot_go_on_in_mid_answer_is_asked_to_in_words(monkeypatch: pytest.MonkeyPatch) -> None:
    shell = await replica(Chat, engine="fake-llm")
    monkeypatch.setattr(type(shell.engine), "capabilities", property(lambda _: Capabilities(streaming=True)))
    asked: list[ChatRequest] = []
    chat = shell.engine.chat
    monkeypatch.setattr(shell.engine, "chat", lambda request: asked.append(request) or chat(request))
    request = ChatRequest([{"role": "user", "content": "The sea?"}], so_far="The sea is")
    assert [chunk async for chunk in shell.chat(request, CONTEXT)]
    assert [message["role"] for message in asked[0].messages] == ["user", "assistant", "user"]
    assert asked[0].messages[1]["content"] == "The sea is"
    assert asked[0].so_far == ""
    await shell.shutdown()


async def test_utterances_of_different_calls_go_through_together(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(registry, "create", lambda name, options: FakeBatching(FakeBatching.Options()))
    batch = Batch(size=4, wait_ms=50).model_dump()
    shell = await replica(SpeechRecognition, engine="fake-stt", batch=batch)
    broken = TranscribeRequest(b"\1", 16000)
    answers: list[Any] = await asyncio.gather(
        *(shell.transcribe(each, CONTEXT) for each in (SPOKEN, broken, SPOKEN)), return_exceptions=True
    )
    assert shell.engine.passes == [3]
    assert [answer.text for answer in (answers[0], answers[2])] == ["3200", "3200"]
    assert isinstance(answers[1], BadRequest)
    await shell.shutdown()


async def test_without_a_batch_each_goes_by_itself(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(registry, "create", lambda name, options: FakeBatching(FakeBatching.Options()))
    shell = await replica(SpeechRecognition, engine="fake-stt")
    await asyncio.gather(*(shell.transcribe(SPOKEN, CONTEXT) for _ in range(3)))
    assert shell.engine.passes == []
    await shell.shutdown()
