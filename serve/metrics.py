"""Metrics of the model plane, through Ray's own exporter: stable names, units in the name."""

from __future__ import annotations

from functools import lru_cache
from typing import NamedTuple

from ray.util.metrics import Counter, Gauge, Histogram

_SECONDS = [0.005, 0.01, 0.02, 0.05, 0.1, 0.2, 0.3, 0.5, 0.75, 1.0, 1.5, 2.0, 3.0, 5.0, 10.0, 30.0]
"""Bounds sized for a conversation: what a caller feels lies between 50 ms and 3 s."""


class ModelMetrics(NamedTuple):
    """What every replica of a model reports; labels `model` and `method` (and `outcome` for requests)."""

    requests: Counter
    seconds: Histogram
    first_seconds: Histogram
    ongoing: Gauge


@lru_cache(maxsize=1)
def model_metrics() -> ModelMetrics:
    """Return this process's metrics; Ray wants each name registered once."""
    labels = ("model", "method")
    return ModelMetrics(
        Counter("parley_model_requests_total", "Requests by outcome", (*labels, "outcome")),
        Histogram("parley_model_request_seconds", "Whole requests", _SECONDS, labels),
        Histogram("parley_model_first_chunk_seconds", "From request to first chunk", _SECONDS, labels),
        Gauge("parley_model_ongoing_requests", "Requests in progress", ("model",)),
    )
