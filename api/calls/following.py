"""Following calls live: one poll for each followed call in each API replica, however many watch.

A dispatcher answers a poll as soon as there is news (`agent.dispatcher.Dispatcher.live`). Events have ids that are the
same at every replica, so a watcher goes on anywhere. A watcher who reads more slowly than the call goes on is cut off
and told so: what is late is of no use, and the transcript has all of it.
"""

from __future__ import annotations

import asyncio
import logging
from collections import deque
from collections.abc import AsyncGenerator, Awaitable, Callable, Generator
from contextlib import asynccontextmanager, contextmanager
from dataclasses import dataclass, field
from typing import Any

from api.problems import Problem

logger = logging.getLogger("ray.serve")

POLL_SECONDS = 3.0
ANSWER_SECONDS = POLL_SECONDS + 3.0
PAUSE_SECONDS = (0.5, 5.0)
"""After a poll that failed: the first, doubled up to the second."""

KEPT = 500
"""Events of a call that are kept for those who come later; as many as the agents' state keeps."""

BEHIND = 200
"""Events that a watcher may be behind."""

CALLS = 64
"""Calls that one replica follows: each is a request that waits at a dispatcher."""

WATCHERS = 600
"""Connections that follow calls at one replica; Serve lets it have more, so that others come through."""

QUIET_SECONDS = 15.0
"""After so long without an event it is asked whether the call is still on."""

ROSTER_SECONDS = 1.0

Event = dict[str, Any]
Told = tuple[str, Event]
"""An event with its id; "" has the id of none: it is about the watching itself."""


@dataclass(eq=False, slots=True)
class Watcher:
    """Somebody who watches one call.

    Attributes:
        since: Position of the event they know already; nothing up to it is told again.
        waiting: What they have not read yet.
        over: Nothing more will come.
    """

    since: tuple[int, int] = (0, 0)
    waiting: deque[Told] = field(default_factory=deque[Told])
    over: bool = False
    _news: asyncio.Event = field(default_factory=asyncio.Event)

    def tell(self, told: Told, *, last: bool = False) -> None:
        """Add an event; whoever is too far behind is cut off."""
        if self.over:
            return
        if len(self.waiting) >= BEHIND:
            self.waiting.clear()
            detail = "You read more slowly than the call goes on; come back with Last-Event-ID, or read the transcript"
            told, last = ("", {"type": "cut_off", "detail": detail}), True
        if not told[0] or _position(told[0]) > self.since:
            self.waiting.append(told)
        self.over = self.over or last
        self._news.set()

    async def events(self) -> AsyncGenerator[Told]:
        """Yield events until the last."""
        while True:
            while self.waiting:
                yield self.waiting.popleft()
            if self.over:
                return
            self._news.clear()
            await self._news.wait()


class Following:
    """The calls that are followed at this replica.

    Args:
        dispatchers: Returns the handle of the dispatchers.
    """

    def __init__(self, dispatchers: Callable[[], Any]) -> None:
        self._dispatchers = dispatchers
        self._followed: dict[str, _Followed] = {}
        self._watchers = 0
        self._roster: list[Event] = []
        self._read_at = float("-inf")
        self._reading: asyncio.Task[list[Event]] | None = None

    @property
    def polls(self) -> int:
        """Return how many calls are followed now."""
        return len(self._followed)

    def admit(self, call: str | None = None) -> None:
        """Refuse whom there is no room for; asked before the answer begins, because a stream has no status any more.

        Args:
            call: Whom they want to follow; None: the list of calls.

        Raises:
            Problem: 503.
        """
        full = ""
        if self._watchers >= WATCHERS:
            full = f"{WATCHERS} follow calls at this server already"
        elif call is not None and call not in self._followed and len(self._followed) >= CALLS:
            full = f"{CALLS} calls are followed at this server already"
        if full:
            raise Problem(503, "Busy", f"{full}; try again in a moment", headers={"retry-after": "5"})

    @contextmanager
    def counted(self) -> Generator[None]:
        """Count a connection while it follows something."""
        self._watchers += 1
        try:
            yield
        finally:
            self._watchers -= 1

    @asynccontextmanager
    async def watch(
        self, call: str, after: str, reason: Callable[[], Awaitable[str | None]]
    ) -> AsyncGenerator[Watcher]:
        """Watch a call.

        Args:
            call: Its id.
            after: Id of the event seen last; "": from the first that is kept.
            reason: Says why the call has ended, None: it has not; asked when nothing is heard of it.
        """
        followed = self._followed.get(call)
        if followed is None:
            followed = self._followed[call] = _Followed(self, call, reason)
        watcher = followed.join(after)
        try:
            yield watcher
        finally:
            if followed.leave(watcher) and self._followed.get(call) is followed:
                del self._followed[call]

    async def living(self) -> list[Event]:
        """Return what each live call of all tenants does now, as it was at most `ROSTER_SECONDS` ago.

        Raises:
            TimeoutError: Nobody could be asked.
        """
        clock = asyncio.get_running_loop().time
        if clock() - self._read_at > ROSTER_SECONDS:
            # Whoever comes while it is read waits for the same answer, and a watcher who goes takes it from nobody.
            if self._reading is None or self._reading.done():
                self._reading = asyncio.create_task(self._read())
            self._roster = await asyncio.shield(self._reading)
        return self._roster

    async def _read(self) -> list[Event]:
        found: list[Event] = await self.ask("living")
        self._read_at = asyncio.get_running_loop().time()
        return found

    async def ask(self, method: str, *args: Any) -> Any:
        """Ask any dispatcher.

        Raises:
            TimeoutError: None answered, or it had nothing to say.
        """
        try:
            async with asyncio.timeout(ANSWER_SECONDS):
                return await self._dispatchers().options(method_name=method).remote(*args)
        except Exception as raw:  # whatever it is, it is asked again
            raise TimeoutError(type(getattr(raw, "cause", raw)).__name__) from None


class _Followed:
    """One call, polled for as long as somebody watches it."""

    def __init__(self, following: Following, call: str, reason: Callable[[], Awaitable[str | None]]) -> None:
        self._following, self._call, self._reason = following, call, reason
        self._kept: deque[Told] = deque(maxlen=KEPT)
        self._watchers: set[Watcher] = set()
        self._ended: Told | None = None
        self._task = asyncio.create_task(self._poll(), name=f"follow {call}")

    def join(self, after: str) -> Watcher:
        """Add a watcher, who has first what they missed."""
        since = _position(after)
        watcher = Watcher(since)
        missed = [told for told in self._kept if _position(told[0]) > since]
        if after and self._kept and since < _position(self._kept[0][0]):
            watcher.waiting.append(
                ("", {"type": "gap", "detail": "Older events are gone; the transcript has the turns"})
            )
        # Captions that grew further are of no use any more.
        watcher.waiting.extend(told for told in missed if told[1].get("final", True))
        if self._ended is not None:
            watcher.tell(self._ended, last=True)
        self._watchers.add(watcher)
        return watcher

    def leave(self, watcher: Watcher) -> bool:
        """Take a watcher out; return whether they were the last."""
        self._watchers.discard(watcher)
        if not self._watchers:
            self._task.cancel()
        return not self._watchers

    async def _poll(self) -> None:
        cursor, pause, heard = "", PAUSE_SECONDS[0], asyncio.get_running_loop().time()
        while self._ended is None:
            try:
                found: list[Told] = await self._following.ask("live", self._call, cursor, POLL_SECONDS)
                pause = PAUSE_SECONDS[0]
                if not found and asyncio.get_running_loop().time() - heard > QUIET_SECONDS:
                    heard = asyncio.get_running_loop().time()
                    await self._still_on()
            except TimeoutError as error:
                logger.info("call %s is not followed for a moment (%s)", self._call, error)
                await asyncio.sleep(pause)  # nobody tells when dispatchers are back
                pause = min(pause * 2, PAUSE_SECONDS[1])
                continue
            for place, (id, event) in enumerate(found, 1):
                cursor, heard = id, asyncio.get_running_loop().time()
                # A caller who was lost may have come back: then it was not the end.
                if event["type"] != "ended" or place == len(found):
                    self._tell((id, event))

    async def _still_on(self) -> None:
        """End the watching of a call whose end nobody could tell."""
        if all(now["call"] != self._call for now in await self._following.living()):
            reason = await self._reason()
            if reason is not None:
                self._tell(("", {"type": "ended", "reason": reason}))

    def _tell(self, told: Told) -> None:
        if told[0]:
            self._kept.append(told)
        last = told[1]["type"] == "ended"
        self._ended = told if last else None
        for watcher in self._watchers:
            watcher.tell(told, last=last)


def _position(id: str) -> tuple[int, int]:
    milliseconds, _, number = id.partition("-")
    return (int(milliseconds), int(number)) if number.isdigit() and milliseconds.isdigit() else (0, 0)
