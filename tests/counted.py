"""What code records in metrics, for tests: in place of Ray's instruments, which nobody reads in this process."""

from __future__ import annotations

from typing import Any

import pytest

from serve import instruments
from serve.instruments import Metric


class Counted:
    """Keeps sums, the last value of gauges, and what histograms were given, by name and labels."""

    def __init__(self) -> None:
        self.values: dict[tuple[str, tuple[tuple[str, str], ...]], list[float]] = {}

    def instrument(self, metric: Metric) -> Any:
        """Return what stands for Ray's side of a metric; as Ray does, it refuses labels that were not declared."""
        counted = self

        class Instrument:
            def inc(self, value: float, labels: dict[str, str]) -> None:
                assert labels.keys() == set(metric.labels), (metric.name, labels)
                counted.values.setdefault((metric.name, tuple(sorted(labels.items()))), []).append(value)

            set = observe = inc

        return Instrument()

    def all(self, metric: Metric, **labels: str) -> list[float]:
        """Return what was recorded."""
        return self.values.get((metric.name, tuple(sorted(labels.items()))), [])


@pytest.fixture
def counted(monkeypatch: pytest.MonkeyPatch) -> Counted:
    """Record metrics here instead of in Ray."""
    found = Counted()
    monkeypatch.setattr(instruments, "_instrument", found.instrument)
    return found
