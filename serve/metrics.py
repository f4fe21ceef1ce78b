"""Metrics of the model plane: what models did (`serve/replica.py`), and what callers got (`serve/client.py`).

docs/operations.md has them in a table; cluster/monitoring/ has their panels and alerts.
"""

from __future__ import annotations

from serve.contracts import Role, Usage
from serve.instruments import VOICE_SECONDS, Metric

_METHOD = ("model", "method")

REQUESTS = Metric(
    "parley_model_requests_total",
    "counter",
    "Requests that a model's replicas ended, by outcome: ok, cancelled, deadline, or an error's class",
    (*_METHOD, "outcome"),
)
REQUEST_SECONDS = Metric(
    "parley_model_request_seconds", "histogram", "From a request to its end, at the replica", _METHOD, VOICE_SECONDS
)
FIRST_CHUNK_SECONDS = Metric(
    "parley_model_first_chunk_seconds",
    "histogram",
    "From a request to the first piece of its answer, at the replica: time to first token, time to first byte",
    _METHOD,
    VOICE_SECONDS,
)
ONGOING = Metric("parley_model_ongoing_requests", "gauge", "Requests that a replica works on", ("model",))
SLOTS = Metric("parley_model_slots", "gauge", "Requests that a replica may work on at once", ("model",))
BUSY_SECONDS = Metric(
    "parley_model_busy_seconds_total",
    "counter",
    "Time a model worked, also for requests that were cut off; one that works on two requests counts both",
    ("model",),
)
GPU_SECONDS = Metric(
    "parley_model_gpu_seconds_total", "counter", "Busy seconds times the GPUs that the replica holds", ("model",)
)
TOKENS = Metric(
    "parley_model_tokens_total",
    "counter",
    "Tokens by kind: prompt (cached ones included), cached, completion; of answers that came to their end",
    ("model", "kind"),
)
CHARACTERS = Metric("parley_model_characters_total", "counter", "Characters spoken", ("model",))
AUDIO_SECONDS = Metric("parley_model_audio_seconds_total", "counter", "Audio heard or made", ("model",))

RETRIES = Metric(
    "parley_retries_total",
    "counter",
    "Requests that were sent again to another replica of the same model, by the error's class",
    ("model", "error"),
)
FALLBACKS = Metric(
    "parley_fallbacks_total",
    "counter",
    "Requests that went to the model that stands by, by the model that failed and the error's class",
    ("model", "instead", "error"),
)
FAILURES = Metric(
    "parley_request_failures_total",
    "counter",
    "Requests that nobody answered, by the model asked last and the error's class",
    ("role", "model", "error"),
)

METRICS = (
    *(REQUESTS, REQUEST_SECONDS, FIRST_CHUNK_SECONDS, ONGOING, SLOTS, BUSY_SECONDS, GPU_SECONDS),
    *(TOKENS, CHARACTERS, AUDIO_SECONDS, RETRIES, FALLBACKS, FAILURES),
)


def count_usage(model: str, usage: Usage) -> None:
    """Count what one answer used, at the replica that gave it."""
    BUSY_SECONDS.add(usage.busy_seconds, model=model)
    GPU_SECONDS.add(usage.gpu_seconds, model=model)
    CHARACTERS.add(usage.characters, model=model)
    AUDIO_SECONDS.add(usage.audio_seconds, model=model)
    tokens = {"prompt": usage.prompt_tokens, "cached": usage.cached_tokens, "completion": usage.completion_tokens}
    for kind, count in tokens.items():
        TOKENS.add(count, model=model, kind=kind)


def failed(role: Role, model: str, error: str) -> None:
    """Count a request that nobody answered."""
    FAILURES.add(role=role, model=_known(model, error), error=error)


def retried(model: str, error: str) -> None:
    """Count a request that goes to another replica."""
    RETRIES.add(model=_known(model, error), error=error)


def fell_back(model: str, instead: str, error: str) -> None:
    """Count a request that goes to another model."""
    FALLBACKS.add(model=_known(model, error), instead=instead, error=error)


def _known(model: str, error: str) -> str:
    """Return a model's name for a label: one that is not deployed may be called anything."""
    return "unknown" if error == "NotDeployed" else model
