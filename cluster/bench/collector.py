"""A collector of traces in this process: takes spans by OTLP over HTTP on loopback, and keeps them."""

from __future__ import annotations

import gzip
import threading
from collections.abc import Callable
from dataclasses import dataclass
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from typing import Any

HOST = "127.0.0.1"
MOST = 100_000
"""Spans that are kept."""


@dataclass(frozen=True, slots=True)
class Seen:
    """A span as it came.

    Attributes:
        trace: Id of its trace, in hexadecimal; `id` and `parent` are spans' ("" where it has no parent).
        name: What it is.
        began: Seconds since 1970; so is `ended`.
        attributes: By name.
        events: Their names, in order.
        service: Of the process: `service.name`.
        process: Which one: `service.instance.id`.
    """

    trace: str
    id: str
    parent: str
    name: str
    began: float
    ended: float
    attributes: dict[str, Any]
    events: tuple[str, ...]
    service: str
    process: str


class Collector:
    """Listens from `start` to `stop`.

    Args:
        port: 0: any that is free.
    """

    def __init__(self, port: int = 0) -> None:
        self._more = threading.Condition()
        self._spans: list[Seen] = []
        collector = self

        class Handler(BaseHTTPRequestHandler):
            """Takes one batch."""

            timeout = 10

            def do_POST(self) -> None:  # the standard library's name
                """Keep the spans of a request; what is none gets 400."""
                body = self.rfile.read(int(self.headers.get("content-length") or 0))
                if self.headers.get("content-encoding") == "gzip":
                    body = gzip.decompress(body)
                try:
                    collector.take(body)
                    status = 200
                except Exception:  # whatever is sent here, the collector stays
                    status = 400
                self.send_response(status)
                self.send_header("content-length", "0")
                self.end_headers()

            def log_message(self, format: str, *args: Any) -> None:  # the standard library's name
                """Say nothing."""

        self._server = ThreadingHTTPServer((HOST, port), Handler)
        self._server.daemon_threads = True
        self.url = f"http://{HOST}:{self._server.server_address[1]}"

    def start(self) -> Collector:
        """Listen from now on, in a thread."""
        threading.Thread(target=self._server.serve_forever, daemon=True, name="collector").start()
        return self

    def stop(self) -> None:
        """Listen no more."""
        self._server.shutdown()
        self._server.server_close()

    @property
    def spans(self) -> list[Seen]:
        """Return what has come so far."""
        with self._more:
            return list(self._spans)

    def wait(self, enough: Callable[[list[Seen]], bool], seconds: float) -> list[Seen]:
        """Wait until `enough(spans)`; return the spans.

        Raises:
            TimeoutError: That did not come.
        """
        with self._more:
            if not self._more.wait_for(lambda: enough(self._spans), seconds):
                raise TimeoutError(f"{len(self._spans)} spans came: {sorted({span.name for span in self._spans})}")
            return list(self._spans)

    def take(self, body: bytes) -> None:
        """Take a batch: an ExportTraceServiceRequest."""
        from opentelemetry.proto.collector.trace.v1.trace_service_pb2 import ExportTraceServiceRequest

        request: Any = ExportTraceServiceRequest.FromString(body)
        found: list[Seen] = []
        for resource in request.resource_spans:
            about = _values(resource.resource.attributes)
            for scope in resource.scope_spans:
                found += [
                    Seen(
                        span.trace_id.hex(),
                        span.span_id.hex(),
                        span.parent_span_id.hex(),
                        span.name,
                        span.start_time_unix_nano / 1e9,
                        span.end_time_unix_nano / 1e9,
                        _values(span.attributes),
                        tuple(event.name for event in span.events),
                        str(about.get("service.name", "")),
                        str(about.get("service.instance.id", "")),
                    )
                    for span in scope.spans
                ]
        with self._more:
            self._spans = [*self._spans, *found][-MOST:]
            self._more.notify_all()


def _values(attributes: Any) -> dict[str, Any]:
    return {each.key: getattr(each.value, each.value.WhichOneof("value") or "string_value") for each in attributes}
