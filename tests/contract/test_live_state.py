"""Following calls through the state: the same suite in memory, on a Redis server and on a Redis cluster."""

from __future__ import annotations

import asyncio

import pytest

from agent.state.contract import LIVE_EVENTS, LIVE_PAGE, LIVE_SECONDS, NOW_SECONDS, State, position
from agent.state.memory import Memory
from agent.state.redis import RedisState
from serve.errors import BadRequest
from tests.contract.test_state import cluster, server, state, subject
from tests.redis_server import RedisServer

__all__ = ["cluster", "server", "state", "subject"]

pytestmark = [pytest.mark.contract, pytest.mark.timeout(60)]


async def everything(state: State, call: str = "room", after: str = "") -> list[tuple[str, dict[str, object]]]:
    found: list[tuple[str, dict[str, object]]] = []
    while page := await state.live(call, after):
        found += page
        after = page[-1][0]
    return found


async def test_events_come_in_order_and_go_on_after_any_of_them(state: State) -> None:
    assert await state.live("room") == []
    await state.publish("room", [{"n": n} for n in range(3)])
    await state.publish("room", [{"n": 3}])
    await state.publish("room", [])
    await state.publish("other", [{"n": 99}])
    found = await state.live("room")
    assert [event["n"] for _, event in found] == [0, 1, 2, 3]
    ids = [position(id) for id, _ in found]
    assert ids == sorted(set(ids))
    for place, (known, _) in enumerate(found):
        assert await state.live("room", known) == found[place + 1 :]


async def test_the_newest_are_kept_and_come_in_pages(state: State) -> None:
    for start in range(0, LIVE_EVENTS + 100, 100):
        await state.publish("room", [{"n": n} for n in range(start, start + 100)])
    assert len(await state.live("room")) == LIVE_PAGE
    found = await everything(state)
    assert [event["n"] for _, event in found] == list(range(100, LIVE_EVENTS + 100))


async def test_publishers_at_once_lose_nothing(state: State) -> None:
    await asyncio.gather(*(state.publish("room", [{"n": n}]) for n in range(100)))
    # One whose answer is lost on its way is sent again.
    assert {event["n"] for _, event in await everything(state)} == set(range(100))


@pytest.mark.parametrize("wrong", ["x", "1", "1-", "-1", "1-x", "1-2-3", "+", "9" * 41, "¹-1"])
async def test_what_is_no_id_is_refused(state: State, wrong: str) -> None:
    with pytest.raises(BadRequest, match="after"):
        await state.live("room", wrong)


async def test_live_calls_are_known_with_what_they_do_until_they_end(state: State) -> None:
    await state.note("a", {"call": "a", "assistant": "speaking"})
    await state.note("b", {"call": "b"})
    await state.note("a", {"call": "a", "assistant": "listening"})
    living = sorted(await state.living(), key=lambda now: now["call"])
    assert living == [{"call": "a", "assistant": "listening"}, {"call": "b"}]
    await state.note("a", None)
    await state.note("never", None)
    assert await state.living() == [{"call": "b"}]


async def test_in_memory_all_of_it_runs_out(monkeypatch: pytest.MonkeyPatch) -> None:
    now = [0.0]
    state = Memory(lambda: now[0])
    await state.publish("room", [{"n": 1}])
    await state.note("room", {"call": "room"})
    now[0] += NOW_SECONDS - 1
    assert len(await state.living()) == 1
    now[0] += 2
    assert await state.living() == []
    assert len(await state.live("room")) == 1
    now[0] += LIVE_SECONDS
    assert await state.live("room") == []


async def test_in_redis_all_of_it_runs_out(server: RedisServer, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("agent.state.redis.LIVE_SECONDS", 0.4)
    monkeypatch.setattr("agent.state.redis.NOW_SECONDS", 0.2)
    state = RedisState(server.url, "runs-out")
    try:
        await state.publish("room", [{"n": 1}])
        await state.note("room", {"call": "room"})
        assert len(await state.living()) == 1
        assert len(await state.live("room")) == 1
        async with asyncio.timeout(5):
            while await state.living() or await state.live("room"):  # noqa: ASYNC110  # only time passes
                await asyncio.sleep(0.05)
    finally:
        await state.aclose()


async def test_ids_go_on_growing_after_everything_was_lost() -> None:
    before, after = Memory(), Memory()
    await before.publish("room", [{"n": n} for n in range(50)])
    seen = (await before.live("room"))[-1][0]
    await asyncio.sleep(0.002)  # an actor takes longer than a millisecond to be started again
    await after.publish("room", [{"n": 50}])
    assert [event["n"] for _, event in await after.live("room", seen)] == [50]
