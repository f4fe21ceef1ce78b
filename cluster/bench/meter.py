"""Processor time and memory of some processes, children included."""

from __future__ import annotations

import contextlib
import time
from collections.abc import Callable, Iterable
from dataclasses import dataclass

import psutil

Group = Callable[[], Iterable[psutil.Process]]
"""Finds the processes that are measured; asked each time, because some begin later."""


@dataclass(frozen=True, slots=True)
class Usage:
    """Processor time at a moment.

    Attributes:
        at: Seconds of `time.perf_counter`.
        seconds: Of the processor, by process id: user and system, all threads.
    """

    at: float
    seconds: dict[int, float]

    def cores(self, later: Usage) -> float:
        """Return the cores taken until a later moment; a process that began in between counts from its start."""
        used = sum(seconds - self.seconds.get(pid, 0.0) for pid, seconds in later.seconds.items())
        return used / (later.at - self.at)

    def ended(self, later: Usage) -> int:
        """Return how many processes ended in between, whose last seconds are in no figure."""
        return len(self.seconds.keys() - later.seconds.keys())


def usage(group: Group) -> Usage:
    """Read the processor time of a group."""
    seconds: dict[int, float] = {}
    for process in _with_children(group):
        with contextlib.suppress(psutil.NoSuchProcess):
            seconds[process.pid] = sum(process.cpu_times()[:2])
    return Usage(time.perf_counter(), seconds)


def memory(group: Group) -> float:
    """Return the proportional set size of a group, MiB."""
    size = 0
    for process in _with_children(group):
        with contextlib.suppress(psutil.NoSuchProcess):
            size += process.memory_full_info().pss
    return size / 2**20


def memory_per_call(sizes: dict[int, float]) -> float:
    """Return what one more call takes, from sizes by the number of calls.

    The first call brings in what all later ones share, so the fewest and the most calls are compared, and no calls
    (0) only where there is nothing else to compare with.
    """
    counts = sorted(sizes)
    fewest, most = counts[1] if len(counts) > 2 else counts[0], counts[-1]
    return (sizes[most] - sizes[fewest]) / (most - fewest)


def _with_children(group: Group) -> list[psutil.Process]:
    found: dict[int, psutil.Process] = {}
    for process in group():
        with contextlib.suppress(psutil.NoSuchProcess):
            found |= {each.pid: each for each in (process, *process.children(recursive=True))}
    return list(found.values())
