"""Metrics as data: a name with its unit, its labels and its buckets stand in one place; Ray's exporter has the rest.

Recording one puts a number into this process's memory and returns; Ray's own threads carry it to the node's agent,
where a Prometheus reads it. Every name has `ray_` before it there: Ray's exporter adds it (`Metric.exported`).
"""

from __future__ import annotations

import threading
import time
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from functools import cache, partial
from typing import Any, Literal

Kind = Literal["counter", "gauge", "histogram"]

VOICE_SECONDS = (0.02, 0.05, 0.1, 0.15, 0.2, 0.3, 0.4, 0.5, 0.65, 0.8, 1.0, 1.25, 1.5, 2.0, 3.0, 5.0, 10.0, 30.0)
"""Bounds sized for a conversation: what a caller feels lies between 50 ms and 3 s."""

AGAIN_SECONDS = 10.0
"""Ray's exporter leaves out a gauge that was not set for a while, as if its process were gone."""

CALL_SECONDS = (5.0, 15.0, 30.0, 60.0, 120.0, 300.0, 600.0, 1200.0, 1800.0, 3600.0, 7200.0)
"""Bounds of a call's length."""


@dataclass(frozen=True, slots=True)
class Metric:
    """One metric. Its name ends in its unit, and a counter's in `_total`.

    Attributes:
        name: Stable: dashboards, alerts and other people's queries have it.
        kind: What Prometheus makes of it.
        meaning: A sentence, for the exporter and for docs/operations.md.
        labels: Their values are from a list that the code or the profile knows: no ids, nothing that people write.
        bounds: Of a histogram's buckets, in the metric's unit. Ray hands buckets on, not values: quantiles are good to
            a bucket, and the sum is made of their middles.
    """

    name: str
    kind: Kind
    meaning: str
    labels: tuple[str, ...] = ()
    bounds: tuple[float, ...] = ()

    @property
    def exported(self) -> str:
        """The name that Prometheus knows."""
        return f"ray_{self.name}"

    def add(self, value: float = 1, /, **labels: str) -> None:
        """Count; nothing is no news."""
        if value > 0:
            _instrument(self).inc(value, labels)

    def set(self, value: float, /, **labels: str) -> None:
        """Say what a gauge shows from now on."""
        gauge = _instrument(self)
        with _saying:
            gauge.set(value, labels)
            _said[self.name, frozenset(labels.items())] = partial(gauge.set, value, labels)
        _keep_saying()

    def observe(self, value: float, /, **labels: str) -> None:
        """Put a value into its bucket."""
        _instrument(self).observe(max(0.0, value), labels)


_saying = threading.Lock()
_said: dict[tuple[str, frozenset[tuple[str, str]]], Callable[[], None]] = {}
"""Sets each gauge of this process to its value."""


@cache
def _keep_saying() -> None:
    threading.Thread(target=_say_for_ever, name="gauges", daemon=True).start()


def _say_for_ever() -> None:
    while True:
        time.sleep(AGAIN_SECONDS)  # a clock of its own: what a gauge shows need not change for hours
        say_again()


def say_again() -> None:
    """Set each gauge to its value again."""
    for name in list(_said):
        with _saying:  # a value that has changed meanwhile must not come back
            _said[name]()


@cache
def _instrument(metric: Metric) -> Any:
    """Return Ray's side of a metric; Ray wants each name registered once in a process."""
    from ray.util.metrics import Counter, Gauge, Histogram

    match metric.kind:
        case "counter":
            return Counter(metric.name, metric.meaning, metric.labels)
        case "gauge":
            return Gauge(metric.name, metric.meaning, metric.labels)
        case "histogram":
            return Histogram(metric.name, metric.meaning, list(metric.bounds), metric.labels)


def one_of(known: Sequence[str] | frozenset[str], value: str) -> str:
    """Return a label's value where it is known, else `other`: a label with free text would grow without end."""
    return value if value in known else "other"
