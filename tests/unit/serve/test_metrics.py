"""What the model plane records: outcomes, work that was cut off too, usage, retries, stand-ins, failures."""

from __future__ import annotations

import contextlib
from collections.abc import AsyncGenerator
from typing import Any

import pytest

from serve import instruments, metrics
from serve.client import Models
from serve.config import Routes
from serve.contracts import ChatChunk, ChatRequest, RequestContext, Role, TranscribeRequest, Transcript
from serve.errors import BadRequest, EngineFailed, NotDeployed, ParleyError, ReplicaLost
from serve.replica import UNHEALTHY_AFTER, Chat, SpeechRecognition
from tests.counted import Counted, counted

pytestmark = pytest.mark.unit

__all__ = ["counted"]

CONTEXT = RequestContext("call", timeout=5.0)
UTTERANCE = TranscribeRequest(b"\1\0" * 1600, 16000)
ASKED = ChatRequest([{"role": "user", "content": "one two three"}])


async def chat(**config: Any) -> Any:
    local = type("Chat", (Chat,), {"__del__": lambda self: None})
    shell: Any = local.__new__(local)
    await shell.__init__({"name": "m", "engine": "fake-llm", "options": {"delay": 0.01}, **config})
    return shell


async def test_a_request_is_counted_with_what_it_used(counted: Counted) -> None:
    shell = await chat(resources={"gpus": 0.5}, max_ongoing=3)
    assert counted.all(metrics.SLOTS, model="m") == [3]
    chunks: list[ChatChunk] = [chunk async for chunk in shell.chat(ASKED, CONTEXT)]
    usage = chunks[-1].usage
    assert usage is not None
    assert counted.all(metrics.REQUESTS, model="m", method="chat", outcome="ok") == [1]
    assert counted.all(metrics.ONGOING, model="m") == [0, 1, 0]
    assert counted.all(metrics.TOKENS, model="m", kind="completion") == [usage.completion_tokens]
    assert counted.all(metrics.BUSY_SECONDS, model="m") == [usage.busy_seconds]
    assert counted.all(metrics.GPU_SECONDS, model="m") == [usage.gpu_seconds]
    (first,), (whole,) = (
        counted.all(each, model="m", method="chat") for each in (metrics.FIRST_CHUNK_SECONDS, metrics.REQUEST_SECONDS)
    )
    assert 0.01 <= first < whole
    await shell.shutdown()


async def test_work_for_an_answer_that_was_cut_off_is_counted(counted: Counted) -> None:
    shell = await chat(resources={"gpus": 2})
    stream: AsyncGenerator[ChatChunk] = shell.chat(ASKED, CONTEXT)
    await anext(stream)
    await stream.aclose()
    assert counted.all(metrics.REQUESTS, model="m", method="chat", outcome="cancelled") == [1]
    (busy,), (gpu,) = counted.all(metrics.BUSY_SECONDS, model="m"), counted.all(metrics.GPU_SECONDS, model="m")
    assert busy >= 0.01
    assert gpu == pytest.approx(2 * busy)
    await shell.shutdown()


async def test_one_answer_is_a_success_and_ends_a_row_of_failures(
    counted: Counted, monkeypatch: pytest.MonkeyPatch
) -> None:
    local = type("Hearing", (SpeechRecognition,), {"__del__": lambda self: None})
    shell: Any = local.__new__(local)
    await shell.__init__({"name": "m", "engine": "fake-stt"})

    async def broken(request: TranscribeRequest) -> Transcript:
        raise RuntimeError("broken")

    well = shell._transcribe
    for engine in (*[broken] * (UNHEALTHY_AFTER - 1), well, broken):
        monkeypatch.setattr(shell, "_transcribe", engine)
        with contextlib.suppress(EngineFailed):
            await shell.transcribe(UTTERANCE, CONTEXT)
    await shell.check_health()
    assert counted.all(metrics.REQUESTS, model="m", method="transcribe", outcome="ok") == [1]
    assert (
        counted.all(metrics.REQUESTS, model="m", method="transcribe", outcome="EngineFailed") == [1] * UNHEALTHY_AFTER
    )
    await shell.shutdown()


class FakeModel:
    """Gives one answer after another, whoever asks."""

    def __init__(self, answers: list[Any]) -> None:
        self.answers = answers

    def options(self, **_: Any) -> FakeModel:
        return self

    def remote(self, *_: Any) -> Any:
        return self

    def __await__(self) -> Any:
        return self._next().__await__()

    async def _next(self) -> Any:
        answer = self.answers.pop(0)
        if isinstance(answer, Exception):
            raise answer
        return answer

    def cancel(self) -> None: ...


def client(**answers: list[Any]) -> Models:
    def find(model: str, role: Role) -> Any:
        if model not in answers:
            raise NotDeployed(f"no {model}")
        return FakeModel(answers[model])

    routes = {"stt": {"default": "a", "fallbacks": ["b"]}, "llm": "l", "tts": "t"}
    return Models(Routes.model_validate(routes), find)


async def test_retries_and_stand_ins_are_counted_by_model_and_error(counted: Counted) -> None:
    models = client(a=[ReplicaLost("1"), ReplicaLost("2"), ReplicaLost("3")], b=[Transcript("yes")])
    assert (await models.transcribe(UTTERANCE, CONTEXT)).text == "yes"
    assert counted.all(metrics.RETRIES, model="a", error="ReplicaLost") == [1, 1]
    assert counted.all(metrics.FALLBACKS, model="a", instead="b", error="ReplicaLost") == [1]
    assert not [name for name, _ in counted.values if name == metrics.FAILURES.name]


@pytest.mark.parametrize(
    ("model", "error", "label"),
    [("a", BadRequest("audio", "is none"), "a"), ("anything a person wrote", None, "unknown")],
)
async def test_failures_have_no_free_text(counted: Counted, model: str, error: Exception | None, label: str) -> None:
    models = client(**({model: [error]} if error else {}))
    with pytest.raises(ParleyError):
        await models.transcribe(UTTERANCE, RequestContext("call", timeout=1.0, model=model))
    code = "BadRequest" if error else "NotDeployed"
    assert counted.all(metrics.FAILURES, role="stt", model=label, error=code) == [1]


def test_a_gauge_is_set_again_to_what_it_shows(counted: Counted) -> None:
    metrics.SLOTS.set(3, model="again")
    metrics.SLOTS.set(4, model="again")
    instruments.say_again()
    assert counted.all(metrics.SLOTS, model="again") == [3, 4, 4]
