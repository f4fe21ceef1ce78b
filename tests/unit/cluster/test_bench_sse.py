"""The watchers of `parley bench sse`: who is asked to wait comes again, who is refused ends it with the reason."""

from __future__ import annotations

import asyncio

import httpx
import pytest

from cluster.bench.sse import _first, _Watcher, _within  # pyright: ignore[reportPrivateUsage]
from serve.errors import Unavailable

pytestmark = [pytest.mark.unit, pytest.mark.timeout(20)]

STREAM = 'event: turn\ndata: {"at": 1.0}\n\n: ping\n\nevent: ended\ndata: {"at": 2.0}\n\n'


def watcher(*answers: httpx.Response) -> _Watcher:
    left = iter(answers)
    http = httpx.AsyncClient(transport=httpx.MockTransport(lambda _: next(left)))
    return _Watcher(http, "http://127.0.0.1/api/v1/calls/room/live")


async def test_whoever_is_asked_to_wait_comes_again() -> None:
    one = watcher(httpx.Response(429, headers={"retry-after": "0"}), httpx.Response(200, text=STREAM))
    await one.watch()
    assert (one.turns, one.ended, one.refused) == (1, True, 1)


async def test_one_that_is_refused_ends_all_with_the_reason() -> None:
    waits = asyncio.Event()

    async def run() -> None:
        async with asyncio.TaskGroup() as group:
            group.create_task(watcher(httpx.Response(503)).watch())
            await waits.wait()

    with pytest.raises(ExceptionGroup) as failed:
        await asyncio.wait_for(run(), 5)
    assert str(_first(failed.value)) == "a request was answered by 503 Service Unavailable"


async def test_what_takes_too_long_is_named() -> None:
    with pytest.raises(Unavailable, match=r"a turn took more than 0\.01 s"):
        async with _within(0.01, "a turn"):
            await asyncio.Event().wait()
