"""What a cluster costs while nobody speaks: processor time of silent calls, and memory."""

from __future__ import annotations

import asyncio
import time
from collections.abc import Callable, Iterable
from contextlib import AsyncExitStack

import psutil

from cluster.bench.report import Report
from cluster.robot import Robot

Progress = Callable[[str], None]


async def silent_calls(
    page: str, members: Iterable[psutil.Process], say: Progress, *, calls: int, seconds: float
) -> Report:
    """Measure the agent's processor time while callers are silent, less what it takes without calls."""
    agents = [process for process in members if "ServeReplica:agent" in _title(process)]
    say(f"{seconds:.0f} s without calls")
    idle = await _cores(agents, seconds)
    async with AsyncExitStack() as stack:
        robots = [await stack.enter_async_context(Robot(page)) for _ in range(calls)]
        for robot in robots:
            await robot.answered()
        await asyncio.gather(*(robot.quiet(1.5, 30) for robot in robots))
        say(f"{seconds:.0f} s with {calls} silent calls")
        busy = await _cores(agents, seconds)
    report = Report(f"cpu --calls {calls} --seconds {seconds:.0f}")
    report.add("agent without calls", "cores", [idle])
    report.add(f"agent with {calls} silent calls", "cores", [busy])
    report.add("agent, a silent call", "cores", [(busy - idle) / calls])
    return report


def memory(members: Iterable[psutil.Process]) -> Report:
    """Measure the proportional set size of every process of a cluster, by what it is."""
    sizes: dict[str, float] = {}
    for process in members:
        try:
            size = process.memory_full_info().pss / 2**20
        except (psutil.NoSuchProcess, psutil.AccessDenied):
            continue
        name = _kind(_title(process))
        sizes[name] = sizes.get(name, 0.0) + size
    report = Report("memory")
    for name, size in sorted(sizes.items(), key=lambda item: -item[1]):
        report.add(name, "MiB", [size])
    report.add("everything", "MiB", [sum(sizes.values())], "PSS")
    return report


async def _cores(processes: Iterable[psutil.Process], seconds: float) -> float:
    def used() -> float:
        return sum(sum(process.cpu_times()[:2]) for process in processes)

    before, started = used(), time.perf_counter()
    await asyncio.sleep(seconds)
    return (used() - before) / (time.perf_counter() - started)


def _title(process: psutil.Process) -> str:
    try:
        return " ".join(process.cmdline()) or process.name()
    except (psutil.NoSuchProcess, psutil.AccessDenied):
        return ""


def _kind(title: str) -> str:
    for mark, kind in (
        ("ServeReplica:", title.partition("ServeReplica:")[2].split(":")[0].split("(")[0]),
        ("serve.worker", "engine processes"),
        ("livekit-server", "livekit-server"),
        ("haproxy", "ingress"),
        ("HAProxy", "ingress"),
        ("ProxyActor", "ingress"),
        ("ServeController", "Serve controller"),
        ("gcs_server", "Ray: GCS"),
        ("raylet", "Ray: raylet and workers"),
        ("dashboard", "Ray: dashboard"),
    ):
        if mark in title:
            return kind
    return "Ray: other" if "ray" in title else "parley"
