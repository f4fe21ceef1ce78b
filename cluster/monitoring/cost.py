"""What recording costs: time of one count, one gauge and one histogram value in a process of a Ray cluster that runs.

Run as `python -m cluster.monitoring.cost [ADDRESS]`; without an address it starts a Ray of its own.
"""

from __future__ import annotations

import statistics
import sys
import time
from collections.abc import Callable
from typing import Any

from agent import metrics
from serve.settings import apply_ray_environment

TIMES, ROUNDS = 2000, 10


def measure() -> dict[str, float]:
    """Return the median time of one recording by kind, in microseconds."""
    works: dict[str, Callable[[], None]] = {
        "counter": lambda: metrics.TURNS.add(outcome="answered"),
        "gauge": lambda: metrics.CALLS_LIVE.set(1),
        "histogram": lambda: metrics.STAGE_SECONDS.observe(0.3, stage="stt"),
    }
    found: dict[str, float] = {}
    for kind, work in works.items():
        work()
        took: list[float] = []
        for _ in range(ROUNDS):
            began = time.perf_counter()
            for _ in range(TIMES):
                work()
            took.append((time.perf_counter() - began) / TIMES * 1e6)
        found[kind] = round(statistics.median(took), 2)
    return found


def main() -> None:
    """Measure in a worker, as replicas are."""
    # Ray reads it when it is imported.
    apply_ray_environment()
    import ray

    to: dict[str, Any] = {"address": sys.argv[1]} if len(sys.argv) > 1 else {"num_cpus": 1, "include_dashboard": False}
    ray.init(**to)
    try:
        remote: Any = ray.remote(measure)
        print(ray.get(remote.options(num_cpus=0).remote(), timeout=120))
    finally:
        ray.shutdown()


if __name__ == "__main__":
    main()
