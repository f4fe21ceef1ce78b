"""Stands where the dispatchers' handle does: calls in progress, and what they tell to those who follow."""

from __future__ import annotations

import asyncio
from collections import Counter
from typing import Any

from agent.state.memory import Memory

Event = dict[str, Any]


class FakeDispatchers:
    """Answers as `agent.dispatcher.Dispatcher` does, over a state in memory; counts what it is asked.

    Attributes:
        state: What agents have told.
        calls: Held by the dispatchers; None: LiveKit sends them none.
        ended: Calls that were ended, with the reason.
        away: Nobody answers.
        asked: How often, by method; `polls`: how many polls wait now.
    """

    def __init__(self) -> None:
        self.state = Memory()
        self.calls: list[str] | None = []
        self.ended: list[tuple[str, str]] = []
        self.away = False
        self.asked: Counter[str] = Counter()
        self.polls = 0
        self._news = asyncio.Event()

    async def tell(self, call: str, *events: Event, now: Event | None = None) -> None:
        """Publish as an agent does."""
        await self.state.publish(call, [{"at": 0.0, **event} for event in events])
        if now is not None:
            await self.state.note(call, now)
        self._news.set()
        self._news = asyncio.Event()

    def options(self, method_name: str) -> _Method:
        return _Method(self, method_name)

    def broadcast(self, method: str) -> _Broadcast:
        assert method == "calls"
        return _Broadcast(self)

    async def answer(self, method: str, *args: Any) -> Any:
        self.asked[method] += 1
        if self.away:
            raise RuntimeError("nobody is there")
        match method:
            case "end":
                self.ended.append((args[0], args[1]))
                return args[0] in (self.calls or ())
            case "living":
                return await self.state.living()
            case "live":
                return await self._live(*args)
            case _:
                raise AssertionError(method)

    async def _live(self, call: str, after: str, wait: float) -> list[tuple[str, Event]]:
        self.polls += 1
        try:
            async with asyncio.timeout(wait):
                while not (found := await self.state.live(call, after)):
                    await self._news.wait()
                return found
        except TimeoutError:
            return []
        finally:
            self.polls -= 1


class _Method:
    def __init__(self, dispatchers: FakeDispatchers, name: str) -> None:
        self._dispatchers, self._name = dispatchers, name

    async def remote(self, *args: Any) -> Any:
        return await self._dispatchers.answer(self._name, *args)


class _Broadcast:
    def __init__(self, dispatchers: FakeDispatchers) -> None:
        self._dispatchers = dispatchers

    async def results_async(self) -> list[list[str] | None]:
        self._dispatchers.asked["calls"] += 1
        if self._dispatchers.away:
            raise RuntimeError("nobody is there")
        return [self._dispatchers.calls]
