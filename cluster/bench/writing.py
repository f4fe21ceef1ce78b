"""When the language model stopped writing, as its replica has kept it, against a caller's clock."""

from __future__ import annotations

import asyncio
import platform
import time
from collections.abc import Awaitable, Callable, Sequence

from cluster.bench.report import Report
from cluster.profile import Profile
from serve.client import serve_handle
from serve.contracts import RequestContext
from serve.errors import Unavailable
from serve.work import Work

TOLD_SECONDS = 5.0
END_SECONDS = 20.0
"""An answer that nobody stops is written by then."""

Recent = Callable[[], Awaitable[Sequence[Work]]]
"""Returns the work of the last answers, oldest first."""


def recent(profile: Profile) -> Recent:
    """Return what asks the replica of the profile's language model; with several, any one of them answers."""
    model = profile.routes.model("llm")

    async def ask() -> Sequence[Work]:
        handle = serve_handle(model, "llm").options(method_name="work", stream=False, session_id="")
        async with asyncio.timeout(TOLD_SECONDS):
            machine, works = await handle.remote(RequestContext(timeout=TOLD_SECONDS))
        if machine != platform.node():
            raise Unavailable(f"{model} runs on {machine}, whose clock is not this machine's")
        return works

    return ask


class Writing:
    """Collects, over interruptions, how long the model wrote on after the caller's first sound.

    Args:
        ask: Returns the model's last work.
    """

    def __init__(self, ask: Recent) -> None:
        self._ask = ask
        self._tokens: list[float] = []
        self._ends: list[float] = []
        self._over = self._ended = self._unknown = 0

    async def interrupted(self, asked: float, began: float) -> None:
        """Note one interruption.

        Args:
            asked: End of the question whose answer was interrupted; seconds of `time.perf_counter`.
            began: The caller's first sound over the answer, likewise.
        """
        shift = time.monotonic() - time.perf_counter()
        work = await self._answer(asked + shift, began + shift)
        if work is None:
            self._unknown += 1
        elif work.last <= began + shift:
            self._over += 1
        elif not work.stopped:
            self._ended += 1
        else:
            self._tokens.append((work.last - began - shift) * 1000)
            self._ends.append((work.ended - began - shift) * 1000)

    def add(self, report: Report) -> None:
        """Add what was found to a report."""
        note = "of answers that the caller stopped while they were being written"
        report.add("barge-in: speech to the last token", "ms", self._tokens, note)
        report.add("barge-in: speech to the engine's letting go", "ms", self._ends, note)
        writing = len(self._tokens) + self._ended
        count = writing + self._over + self._unknown
        report.facts["answers that were being written at the caller's first sound"] = f"{writing} of {count}"
        report.facts["of these stopped, and not written to their end"] = f"{len(self._tokens)} of {writing}"
        if self._unknown:
            report.facts["answers of which the model tells nothing"] = self._unknown

    async def _answer(self, asked: float, began: float) -> Work | None:
        """Return the work on the answer that was interrupted, once the engine has let go of it."""
        deadline = time.monotonic() + END_SECONDS
        while time.monotonic() < deadline:
            # A draft may have asked for it before the question's last sound was sent on.
            works = [work for work in await self._ask() if asked - 1.0 <= work.began < began]
            if not works:
                return None
            if works[-1].ended:
                return works[-1]
            await asyncio.sleep(0.1)  # the engine is at work and tells no event
        return None
