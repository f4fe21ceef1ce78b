"""Hooks: a deployer's own Python, told what happens in calls, and never in their way.

A hook is an entry point of the group `parley.hooks`: a function, async or not, that takes an event (`agent/events.py`).
Each has a thread and an event loop of its own, and a bounded queue before it: one that sleeps, blocks or raises loses
its own events and nothing else.
"""

from __future__ import annotations

import asyncio
import importlib.metadata
import inspect
import logging
import threading
from collections import deque
from collections.abc import Callable, Iterable, Mapping
from concurrent.futures import Future
from typing import Any, TypeVar, cast

from agent.events import Event, kinds

logger = logging.getLogger("ray.serve.parley")

GROUP = "parley.hooks"
"""Entry points of this group are hooks: name = "module:function"."""

DEADLINE_SECONDS = 5.0
"""What one event may take."""

QUEUE_MOST = 1000
"""Events that wait for a hook; the oldest one makes room."""

FAILURES = 5
"""In a row: the hook is off for a while."""

OFF_SECONDS = 60.0
TELL_SECONDS = 10.0
"""How often a trouble that lasts is logged."""

Call = Callable[[Event], Any]
F = TypeVar("F", bound=Call)


def hook(*types: str) -> Callable[[F], F]:
    """Mark a function as a hook for some types of events only.

    Raises:
        ValueError: There is no such type.
    """
    if unknown := set(types) - kinds().keys():
        raise ValueError(f"no event has the type {', '.join(sorted(unknown))}")

    def mark(call: F) -> F:
        cast(Any, call).types = frozenset(types)
        return call

    return mark


class Hook:
    """One hook: its queue, its task on the caller's loop, and its thread.

    Attributes:
        delivered, failed, dropped: How many events came to this end.

    Args:
        name: Of the entry point.
        call: The function; its attribute `types`, where it has one, says which events it wants.
        deadline: Seconds for one event.
        off: Seconds of rest after `FAILURES` in a row.
        most: Events that wait.
    """

    def __init__(
        self,
        name: str,
        call: Call,
        deadline: float = DEADLINE_SECONDS,
        off: float = OFF_SECONDS,
        most: int = QUEUE_MOST,
    ) -> None:
        self.name = name
        self.types = cast("Iterable[str] | None", getattr(call, "types", None))
        self.delivered = self.failed = self.dropped = 0
        self._call, self._deadline, self._off, self._most = call, deadline, off, most
        self._waiting: deque[Event] = deque()
        self._more = asyncio.Event()
        self._in_a_row = 0
        self._resting_until = self._told = float("-inf")
        self._task: asyncio.Task[None] | None = None
        self._loop: asyncio.AbstractEventLoop | None = None

    def take(self, event: Event) -> None:
        """Put an event at the end of the queue; returns at once."""
        if self.types is not None and event.type not in self.types:
            return
        clock = asyncio.get_running_loop().time
        if clock() < self._resting_until:
            self._drop(1, "is off after failures")
            return
        if len(self._waiting) >= self._most:
            self._waiting.popleft()
            self._drop(1, "is slower than the calls")
        self._waiting.append(event)
        self._more.set()
        if self._task is None:
            self._task = asyncio.create_task(self._deliver(), name=f"hook {self.name}")

    async def idle(self, seconds: float) -> bool:
        """Wait until nothing waits, but not longer than this; return whether it is so."""
        clock = asyncio.get_running_loop().time
        deadline = clock() + seconds
        while self._waiting or self._more.is_set():
            if clock() > deadline:
                return False
            await asyncio.sleep(0.02)  # only the end of a process waits here
        return True

    async def aclose(self) -> None:
        """Stop; a function that still runs is left to its thread, which keeps no process alive."""
        if self._task is not None:
            self._task.cancel()
            await asyncio.gather(self._task, return_exceptions=True)
        if self._loop is not None:
            self._loop.call_soon_threadsafe(self._loop.stop)
            self._loop = None

    async def _deliver(self) -> None:
        while True:
            await self._more.wait()
            while self._waiting:
                await self._one(self._waiting.popleft())
            self._more.clear()

    async def _one(self, event: Event) -> None:
        work = self._run(event)
        # Waits beside it, not for it: who blocks its thread cannot be cancelled.
        done, _ = await asyncio.wait({asyncio.wrap_future(work)}, timeout=self._deadline)
        if not done:
            work.cancel()
            trouble = f"took longer than {self._deadline:g} s"
        else:
            trouble = "cancelled itself" if work.cancelled() else work.result()
        if trouble is None:
            self.delivered += 1
            self._in_a_row = 0
            return
        self.failed += 1
        self._in_a_row += 1
        self._tell(f"hook {self.name} {trouble}, at {event.type} ({self.failed} failures so far)")
        if self._in_a_row >= FAILURES:
            self._rest()

    def _rest(self) -> None:
        """Switch it off for a while; one more failure after that does it again."""
        self._in_a_row = FAILURES - 1
        self._resting_until = asyncio.get_running_loop().time() + self._off
        logger.error("hook %s is off for %.0f s: %d failures in a row", self.name, self._off, FAILURES)
        self._drop(len(self._waiting), "is off after failures")
        self._waiting.clear()

    def _run(self, event: Event) -> Future[str | None]:
        if self._loop is None:
            self._loop = asyncio.new_event_loop()
            # A daemon: a hook that never returns must not keep the process from ending.
            threading.Thread(target=_serve, args=(self._loop,), name=f"hook {self.name}", daemon=True).start()
        return asyncio.run_coroutine_threadsafe(self._guarded(event), self._loop)

    async def _guarded(self, event: Event) -> str | None:
        """Call the function, in its own thread; return what went wrong, without its words."""
        try:
            answer = self._call(event)
            if inspect.isawaitable(answer):
                await answer
        except asyncio.CancelledError:
            raise
        except BaseException as error:  # SystemExit, too: it would end the thread
            return f"failed with {type(error).__name__}"
        return None

    def _drop(self, count: int, why: str) -> None:
        self.dropped += count
        if count:
            self._tell(f"hook {self.name} {why}: {self.dropped} events were dropped so far")

    def _tell(self, trouble: str) -> None:
        now = asyncio.get_running_loop().time()
        if now - self._told > TELL_SECONDS:
            self._told = now
            logger.warning(trouble)


class Hooks:
    """The hooks of one process, shared by its calls."""

    def __init__(self, calls: Mapping[str, Call]) -> None:
        self.all = [Hook(name, call) for name, call in calls.items()]

    @classmethod
    def installed(cls) -> Hooks:
        """Return the hooks that installed packages bring; one that cannot be loaded is left out, and said so."""
        calls: dict[str, Call] = {}
        for entry in importlib.metadata.entry_points(group=GROUP):
            try:
                call = entry.load()
            except Exception as error:  # somebody else's code
                logger.error("hook %s cannot be used (%s): calls go without it", entry.name, type(error).__name__)
                continue
            if callable(call):
                calls[entry.name] = call
            else:
                logger.error("hook %s is nothing that can be called: calls go without it", entry.name)
        return cls(calls)

    def publish(self, event: Event) -> None:
        """Give an event to all that want it; returns at once."""
        for each in self.all:
            each.take(event)

    async def aclose(self, seconds: float = 1.0) -> None:
        """Give hooks a moment to take what waits, then stop."""
        await asyncio.gather(*(each.idle(seconds) for each in self.all))
        await asyncio.gather(*(each.aclose() for each in self.all))


def _serve(loop: asyncio.AbstractEventLoop) -> None:
    loop.run_forever()
    loop.close()
