"""Traces by OpenTelemetry: where a turn's time went, across processes.

Spans are made only where the environment says where to send them (OTEL_EXPORTER_OTLP_ENDPOINT); elsewhere nothing is
made or imported. Sampling, batches and time limits are the standard variables' to say. A span has names, numbers and
error codes: nothing that anybody said, no secret. What a collector that is away would have got waits in a bounded
queue, and what does not fit is dropped.

A request carries its parent with it (`RequestContext.trace`, W3C's traceparent), so no tracer of the process as a whole
is set: livekit-agents would put the conversation into its own spans.
"""

from __future__ import annotations

import asyncio
import atexit
import logging
import os
import platform
from collections.abc import AsyncGenerator, Awaitable, Callable, Generator, Iterable, Mapping
from contextlib import ExitStack, aclosing, contextmanager
from dataclasses import replace
from functools import lru_cache
from typing import TYPE_CHECKING, Any, TypeVar

from serve.contracts import RequestContext
from serve.errors import ParleyError

if TYPE_CHECKING:
    from opentelemetry.context import Context
    from opentelemetry.trace import Span, Tracer

logger = logging.getLogger("ray.serve.parley")

T = TypeVar("T")

ENDPOINTS = ("OTEL_EXPORTER_OTLP_TRACES_ENDPOINT", "OTEL_EXPORTER_OTLP_ENDPOINT")
LAST_SECONDS = 2.0
"""How long the end of a process waits for its last spans to be taken."""

Value = str | int | float | bool


@lru_cache(maxsize=1)
def tracer() -> Tracer | None:
    """Return this process's tracer, made at first use, which takes its time; None where nobody wants traces."""
    if os.environ.get("OTEL_SDK_DISABLED", "").lower() == "true" or not any(map(os.environ.get, ENDPOINTS)):
        return None
    try:
        return _tracer()
    except Exception as error:  # a variable that makes no sense costs the traces, and no call
        logger.error("no traces are made (%s): see the variables OTEL_...", type(error).__name__)
        return None


def _tracer() -> Tracer:
    from opentelemetry.sdk.resources import Resource
    from opentelemetry.sdk.trace import TracerProvider
    from opentelemetry.sdk.trace.export import BatchSpanProcessor

    about = {"service.instance.id": f"{platform.node()}:{os.getpid()}"}
    if not os.environ.get("OTEL_SERVICE_NAME") and "service.name" not in os.environ.get("OTEL_RESOURCE_ATTRIBUTES", ""):
        about["service.name"] = "parley"
    provider = TracerProvider(resource=Resource.create(about), shutdown_on_exit=False)
    processor = BatchSpanProcessor(_exporter())
    provider.add_span_processor(processor)
    # The SDK's own way waits 30 s for a collector that is away. Its thread is a daemon, and ends with the process.
    atexit.register(processor._batch_processor.shutdown, int(LAST_SECONDS * 1000))  # pyright: ignore[reportPrivateUsage]
    return provider.get_tracer("parley")


def _exporter() -> Any:
    protocol = os.environ.get("OTEL_EXPORTER_OTLP_TRACES_PROTOCOL") or os.environ.get("OTEL_EXPORTER_OTLP_PROTOCOL")
    if protocol == "grpc":
        from opentelemetry.exporter.otlp.proto.grpc.trace_exporter import OTLPSpanExporter
    else:
        from opentelemetry.exporter.otlp.proto.http.trace_exporter import OTLPSpanExporter
    return OTLPSpanExporter()


def begin(
    name: str, parent: Span | str | None, attributes: Mapping[str, Value | None], start: float | None = None
) -> Span | None:
    """Begin a span; None where there is no tracer.

    Args:
        name: Of the span: from a list that the code knows.
        parent: The span above, here or elsewhere (a traceparent); None: this one is a trace's first.
        attributes: Those that are None are left out.
        start: Seconds since 1970; None: now.
    """
    found = tracer()
    if found is None:
        return None
    return found.start_span(
        name,
        context=_context(parent),
        attributes={key: value for key, value in attributes.items() if value is not None},
        start_time=None if start is None else nanoseconds(start),
    )


def _context(parent: Span | str | None) -> Context:
    from opentelemetry.context import Context
    from opentelemetry.trace import set_span_in_context
    from opentelemetry.trace.propagation.tracecontext import TraceContextTextMapPropagator

    if isinstance(parent, str):
        return TraceContextTextMapPropagator().extract({"traceparent": parent}, Context())
    return Context() if parent is None else set_span_in_context(parent, Context())


def traceparent(span: Span | None) -> str:
    """Return how a span is named to other processes; "" where it is not sampled, so that they make none."""
    if span is None or not span.is_recording():
        return ""
    about = span.get_span_context()
    return f"00-{about.trace_id:032x}-{about.span_id:016x}-01"


def end(span: Span | None, outcome: str = "ok", at: float | None = None) -> None:
    """End a span: `outcome` is "ok", "cancelled", or the code of an error; `at` in seconds since 1970."""
    if span is None:
        return
    span.set_attribute("parley.outcome", outcome)
    if outcome not in ("ok", "cancelled"):
        from opentelemetry.trace import Status, StatusCode

        span.set_status(Status(StatusCode.ERROR, outcome))
    span.end(None if at is None else nanoseconds(at))


def nanoseconds(seconds: float) -> int:
    """Return a time as spans have it."""
    return int(seconds * 1e9)


@contextmanager
def ending(span: Span | None) -> Generator[None]:
    """End a span with what comes of the work inside."""
    outcome = "error"
    try:
        yield
        outcome = "ok"
    except ParleyError as error:
        outcome = error.code
        raise
    except (asyncio.CancelledError, GeneratorExit):
        outcome = "cancelled"
        raise
    except BaseException as error:
        outcome = type(error).__name__
        raise
    finally:
        end(span, outcome)


@contextmanager
def storing(turns: Iterable[str]) -> Generator[None]:
    """Store records in one transaction, as a span of each turn among them."""
    with ExitStack() as stack:
        for turn in filter(None, turns):
            stack.enter_context(ending(begin("database store", turn, {"db.operation.name": "store turn"})))
        yield


async def unary(span: Span | None, context: RequestContext, ask: Callable[[RequestContext], Awaitable[T]]) -> T:
    """Send a request that has one answer, as a span."""
    if span is None:
        return await ask(context)
    with ending(span):
        answer = await ask(replace(context, trace=traceparent(span)))
        _note_model(span, answer)
        return answer


def stream(
    span: Span | None, context: RequestContext, ask: Callable[[RequestContext], AsyncGenerator[T, None]]
) -> AsyncGenerator[T, None]:
    """Send a request that has a stream for an answer, as a span with an event at the first piece."""
    return ask(context) if span is None else _stream(span, ask(replace(context, trace=traceparent(span))))


async def _stream(span: Span, chunks: AsyncGenerator[T, None]) -> AsyncGenerator[T, None]:
    first = True
    with ending(span):
        async with aclosing(chunks):
            async for chunk in chunks:
                if first:
                    first = False
                    span.add_event("first chunk")
                    _note_model(span, chunk)
                yield chunk


def _note_model(span: Span, answer: object) -> None:
    if model := getattr(answer, "model", ""):
        span.set_attribute("parley.model", model)
