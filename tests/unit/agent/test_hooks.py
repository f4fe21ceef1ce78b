"""Hooks get what they ask for, and whatever they do, the loop that carries the voice goes on."""

from __future__ import annotations

import asyncio
import importlib
import logging
import sys
import threading
import time
from collections.abc import AsyncGenerator, Callable
from contextlib import asynccontextmanager
from pathlib import Path
from typing import Any

import pytest

from agent import events
from agent.hooks import FAILURES, Hook, Hooks, hook

pytestmark = [pytest.mark.unit, pytest.mark.timeout(30)]

FRAME_SECONDS = 0.01


def event(number: int = 1) -> events.Event:
    return events.AgentStateChanged(call="room", time=1.0, sequence=number, old_state="idle", new_state="thinking")


async def until(ready: Callable[[], bool], seconds: float = 5) -> None:
    async with asyncio.timeout(seconds):
        while not ready():  # noqa: ASYNC110  # other threads do it
            await asyncio.sleep(0.005)


@asynccontextmanager
async def running(*hooks: Hook) -> AsyncGenerator[None]:
    try:
        yield
    finally:
        await asyncio.gather(*(each.aclose() for each in hooks))


async def voice(frames: int) -> float:
    """Send frames as the mouth does, by the clock; return the worst delay of one. Seconds."""
    worst, due = 0.0, time.perf_counter()
    for _ in range(frames):
        due += FRAME_SECONDS
        await asyncio.sleep(max(0.0, due - time.perf_counter()))
        worst = max(worst, time.perf_counter() - due)
        due = max(due, time.perf_counter() - FRAME_SECONDS)
    return worst


async def test_a_hook_gets_events_in_order_sync_or_not_off_the_callers_thread() -> None:
    seen: list[tuple[str, int, int]] = []

    def plain(event: events.Event) -> None:
        seen.append(("plain", event.sequence, threading.get_ident()))

    async def slow(event: events.Event) -> None:
        await asyncio.sleep(0)
        seen.append(("slow", event.sequence, threading.get_ident()))

    hooks = [Hook("plain", plain), Hook("slow", slow)]
    async with running(*hooks):
        for number in range(20):
            for each in hooks:
                each.take(event(number))
        await until(lambda: len(seen) == 40)
    for name in ("plain", "slow"):
        assert [number for who, number, _ in seen if who == name] == list(range(20))
    assert threading.get_ident() not in {thread for *_, thread in seen}


async def test_a_filter_lets_only_its_types_through() -> None:
    seen: list[str] = []

    @hook("close", "cleanup")
    def ends(event: events.Event) -> None:
        seen.append(event.type)

    one = Hook("ends", ends)
    async with running(one):
        one.take(event())
        one.take(events.Cleanup(call="room", time=1.0, sequence=2, reason="caller left", seconds=1.0))
        await until(lambda: bool(seen))
    assert seen == ["cleanup"]
    with pytest.raises(ValueError, match="no event has the type closed"):
        hook("closed")


async def test_the_voice_goes_on_while_hooks_sleep_raise_and_block(caplog: pytest.LogCaptureFixture) -> None:
    async def sleeps(event: events.Event) -> None:
        await asyncio.sleep(60)

    def raises(event: events.Event) -> None:
        raise RuntimeError("the caller said: my secret")

    async def blocks(event: events.Event) -> None:
        time.sleep(1)  # noqa: ASYNC251  # the mistake that this is about

    def leaves(event: events.Event) -> None:
        sys.exit(1)

    seen: list[int] = []
    bad = [Hook(each.__name__, each, deadline=0.1) for each in (sleeps, raises, blocks, leaves)]
    good = Hook("good", lambda event: seen.append(event.sequence))
    async with running(*bad, good):
        talking = asyncio.create_task(voice(150))
        for number in range(100):
            began = time.perf_counter()
            for each in (*bad, good):
                each.take(event(number))
            assert time.perf_counter() - began < 0.05
            await asyncio.sleep(0.005)
        worst = await talking
        await until(lambda: len(seen) == 100)
        assert all(each.failed >= FAILURES for each in bad), [(each.name, each.failed) for each in bad]
    assert worst < 0.15, "frames of the voice came late"
    for name in ("sleeps", "raises", "blocks", "leaves"):
        assert f"hook {name}" in caplog.text
    assert "secret" not in caplog.text


async def test_a_hook_that_fails_in_a_row_is_off_for_a_while_and_comes_back() -> None:
    broken, seen = True, list[int]()

    def flaky(event: events.Event) -> None:
        seen.append(event.sequence)
        if broken:
            raise ConnectionError

    one = Hook("flaky", flaky, off=0.3)
    async with running(one):
        for number in range(FAILURES):
            one.take(event(number))
        await until(lambda: one.failed == FAILURES)
        one.take(event(100))
        assert one.dropped == 1
        broken = False
        await asyncio.sleep(0.35)
        one.take(event(101))
        await until(lambda: one.delivered == 1)
    assert seen == [*range(FAILURES), 101]


async def test_a_full_queue_drops_the_oldest_and_counts() -> None:
    gate, seen = threading.Event(), list[int]()

    def waits(event: events.Event) -> None:
        gate.wait(5)
        seen.append(event.sequence)

    one = Hook("waits", waits, most=3)
    async with running(one):
        one.take(event(0))
        await until(lambda: one._task is not None and not one._waiting)  # pyright: ignore[reportPrivateUsage]
        for number in range(1, 10):
            one.take(event(number))
        assert one.dropped == 6
        gate.set()
        await until(lambda: len(seen) == 4)
    assert seen == [0, 7, 8, 9]


async def test_installed_hooks_are_found_by_their_entry_point(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    (tmp_path / "crm.py").write_text("seen = []\n\ndef tell(event):\n    seen.append(event.json())\n")
    about = tmp_path / "crm-1.0.dist-info"
    about.mkdir()
    (about / "METADATA").write_text("Metadata-Version: 2.1\nName: crm\nVersion: 1.0\n")
    (about / "entry_points.txt").write_text("[parley.hooks]\ncrm = crm:tell\nlost = nowhere_at_all:tell\n")
    monkeypatch.syspath_prepend(str(tmp_path))  # pyright: ignore[reportUnknownMemberType]
    importlib.invalidate_caches()
    with caplog.at_level(logging.ERROR):
        hooks = Hooks.installed()
    crm: Any = importlib.import_module("crm")
    found = {each.name for each in hooks.all}
    assert "crm" in found
    assert "lost" not in found
    assert "hook lost cannot be used (ModuleNotFoundError)" in caplog.text
    hooks.publish(event(7))
    await hooks.aclose()
    assert [each["sequence"] for each in crm.seen] == [7]
