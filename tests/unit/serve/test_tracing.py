"""Spans of requests: made where somebody wants them, one below the other across processes, and never in the way."""

from __future__ import annotations

import time
from collections.abc import AsyncGenerator, Generator
from typing import Any, cast

import pytest

from cluster.bench.collector import Collector, Seen
from serve import tracing
from serve.client import Models
from serve.config import Routes
from serve.contracts import ChatChunk, ChatRequest, RequestContext
from serve.errors import BadRequest
from serve.replica import Chat, Replica
from tests.unit.serve.test_client import models

pytestmark = [pytest.mark.unit, pytest.mark.timeout(30)]

ASKED = ChatRequest([{"role": "user", "content": "xyzzy"}])


@pytest.fixture(autouse=True)
def fresh(monkeypatch: pytest.MonkeyPatch) -> Generator[None]:
    """Each test has a tracer of its own, and nothing of the shared cluster's environment."""
    for name in tracing.ENDPOINTS:
        monkeypatch.delenv(name, raising=False)
    monkeypatch.setenv("OTEL_BSP_SCHEDULE_DELAY", "20")
    tracing.tracer.cache_clear()
    yield
    tracing.tracer.cache_clear()


@pytest.fixture
def collector(monkeypatch: pytest.MonkeyPatch) -> Generator[Collector]:
    collector = Collector().start()
    monkeypatch.setenv("OTEL_EXPORTER_OTLP_ENDPOINT", collector.url)
    yield collector
    collector.stop()


class InProcess:
    """A handle to a replica in this process."""

    def __init__(self, replica: Chat) -> None:
        self.replica = replica

    def options(self, *, method_name: str, stream: bool, session_id: str) -> InProcess:
        return self

    def remote(self, *args: Any) -> Any:
        answer = self.replica.chat(*args)

        class Response:
            def __aiter__(self) -> AsyncGenerator[ChatChunk, None]:
                return answer

            def cancel(self) -> None: ...

        return Response()


async def test_a_request_is_below_its_turn_and_the_replica_below_the_request(
    collector: Collector, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.delattr(Replica, "__del__")  # Serve awaits it; nobody does here
    replica: Any = Chat.__new__(Chat)
    await replica.__init__({"name": "llm-echo", "engine": "fake-llm"})
    routes = Routes.model_validate({"stt": "s", "llm": "l", "tts": "t"})
    client = Models(routes, lambda model, role: InProcess(replica))
    turn = tracing.begin("turn", None, {"parley.call": "room"})
    client.span = lambda role, method, request: tracing.begin(f"{role} {method}", turn, {})
    async for _ in client.chat(ASKED, RequestContext("room")):
        pass
    tracing.end(turn)
    spans = {span.name: span for span in collector.wait(lambda spans: len(spans) == 3, 5)}
    assert spans.keys() == {"turn", "llm chat", "replica chat"}
    assert len({span.trace for span in spans.values()}) == 1
    assert spans["turn"].parent == ""
    assert spans["llm chat"].parent == spans["turn"].id
    assert spans["replica chat"].parent == spans["llm chat"].id
    assert "first token" in spans["replica chat"].events
    assert spans["replica chat"].attributes["parley.outcome"] == spans["llm chat"].attributes["parley.outcome"] == "ok"
    assert spans["llm chat"].attributes["parley.model"] == "l"
    assert {span.service for span in spans.values()} == {"parley"}
    assert "xyzzy" not in str(spans)


async def test_an_error_and_a_caller_who_leaves_are_told_by_code(collector: Collector) -> None:
    client, _ = models([ChatChunk("a"), BadRequest("text", "secret words")], [ChatChunk("a"), None])
    client.span = lambda role, method, request: tracing.begin(f"{role} {method}", None, {})
    with pytest.raises(BadRequest):
        async for _ in client.chat(ASKED, RequestContext("room", model="l", timeout=0.05)):
            pass
    stream = client.chat(ASKED, RequestContext("room"))
    await anext(stream)
    await stream.aclose()
    spans = collector.wait(lambda spans: len(spans) == 2, 5)
    assert [span.attributes["parley.outcome"] for span in spans] == [BadRequest("", "").code, "cancelled"]
    assert "secret" not in str(spans)


async def test_where_nobody_wants_traces_nothing_is_made() -> None:
    assert tracing.tracer() is None
    assert tracing.begin("turn", None, {}) is None
    client, handle = models([ChatChunk("a")])
    async for _ in client.chat(ASKED, RequestContext("room")):
        pass
    assert handle.sent[0][1].trace == ""
    with tracing.storing(["", ""]):
        tracing.end(None)


async def test_a_variable_that_makes_no_sense_costs_the_traces_alone(
    collector: Collector, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("OTEL_BSP_MAX_QUEUE_SIZE", "2")  # fewer than a batch has
    assert tracing.tracer() is None
    client, _ = models([ChatChunk("a")])
    assert [chunk.text async for chunk in client.chat(ASKED, RequestContext("room"))] == ["a"]


async def test_the_standard_variables_decide_on_samples(collector: Collector, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("OTEL_TRACES_SAMPLER", "parentbased_always_off")
    turn = tracing.begin("turn", None, {})
    assert turn is not None
    # Other processes are told nothing, and make nothing.
    assert tracing.traceparent(turn) == ""
    client, handle = models([ChatChunk("a")])
    client.span = lambda role, method, request: tracing.begin(f"{role} {method}", turn, {})
    async for _ in client.chat(ASKED, RequestContext("room")):
        pass
    assert handle.sent[0][1].trace == ""


async def test_a_collector_that_is_away_keeps_nobody_waiting(monkeypatch: pytest.MonkeyPatch) -> None:
    gone = Collector()
    gone._server.server_close()  # pyright: ignore[reportPrivateUsage]
    monkeypatch.setenv("OTEL_EXPORTER_OTLP_ENDPOINT", gone.url)
    monkeypatch.setenv("OTEL_BSP_MAX_QUEUE_SIZE", "64")
    monkeypatch.setenv("OTEL_BSP_MAX_EXPORT_BATCH_SIZE", "16")
    found = tracing.tracer()
    assert found is not None
    most = 0.0
    for _ in range(1000):
        before = time.perf_counter()
        tracing.end(tracing.begin("turn", None, {}))
        most = max(most, time.perf_counter() - before)
    assert most < 0.25
    processor = cast(Any, found).span_processor
    assert len(processor._span_processors[0]._batch_processor._queue) <= 64
    assert await _answers()


async def _answers() -> bool:
    client, _ = models([ChatChunk("a")])
    client.span = lambda role, method, request: tracing.begin(f"{role} {method}", None, {})
    return [chunk.text async for chunk in client.chat(ASKED, RequestContext("room"))] == ["a"]


def test_what_is_no_batch_is_refused(collector: Collector) -> None:
    import httpx

    assert httpx.post(f"{collector.url}/v1/traces", content=b"\xff", trust_env=False).status_code == 400
    assert collector.spans == list[Seen]()
