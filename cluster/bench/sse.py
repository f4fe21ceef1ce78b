"""Watchers of one live call: from when the agent knew something to when each of them has read it."""

from __future__ import annotations

import asyncio
import json
import time
from collections.abc import AsyncGenerator, Callable
from contextlib import asynccontextmanager

import httpx

from cluster.bench.report import Report
from cluster.bench.sentences import QUESTIONS
from cluster.call import speak
from cluster.robot import Robot
from serve.errors import Unavailable

Progress = Callable[[str], None]

CONNECT_SECONDS = 30.0
"""For all watchers to be let in, for any one answer, and for the last event."""

TURN_SECONDS = 60.0


async def sse(page: str, say: Progress, *, watchers: int, turns: int) -> Report:
    """Let many watch a call of a few turns.

    Args:
        page: Address of the page; its API must need no key.
        say: Told what is being done.
        watchers: How many connections.
        turns: Of the call.

    Raises:
        Unavailable: A watcher was refused, or did not see every turn.
    """
    api = f"{page.rstrip('/')}/api/v1"
    spoken = await speak(QUESTIONS[:turns])
    limits = httpx.Limits(max_connections=watchers + 10)
    # A comment comes each 15 s where nothing else does.
    async with httpx.AsyncClient(timeout=CONNECT_SECONDS, limits=limits) as http:
        made = (await http.post(f"{api}/calls", json={"participant_name": "Robot"})).raise_for_status().json()

        async def enter() -> tuple[str, str]:
            return made["server_url"], made["participant_token"]

        everybody = [_Watcher(http, f"{api}/calls/{made['id']}/live") for _ in range(watchers)]
        async with Robot(page, enter) as robot:
            await robot.answered()
            say(f"{watchers} watchers")
            try:
                # Whichever watcher is refused ends all of it at once, with its reason.
                async with asyncio.TaskGroup() as group:
                    tasks = [group.create_task(each.watch()) for each in everybody]
                    async with _within(CONNECT_SECONDS, "letting all watchers in"):
                        await asyncio.gather(*(each.began.wait() for each in everybody))
                    say(f"{turns} turns")
                    for utterance in spoken:
                        await robot.quiet(0.4, TURN_SECONDS)
                        await robot.say(utterance.samples)
                        async with _within(TURN_SECONDS, "a turn"):
                            await robot.turns.get()
                    (await http.post(f"{api}/calls/{made['id']}/end")).raise_for_status()
                    async with _within(CONNECT_SECONDS, "telling all watchers of the end"):
                        await asyncio.wait(tasks)
            except ExceptionGroup as failed:
                raise _first(failed) from None
    short = sum(each.turns < turns or not each.ended for each in everybody)
    if short:
        raise Unavailable(f"{short} of {watchers} watchers missed a turn or the end")
    report = Report(f"sse --watchers {watchers} --turns {turns}")
    late = [ms for each in everybody for ms in each.late]
    report.add("from the agent to a watcher", "ms", late, "gathered for up to 100 ms, then state, dispatcher, API")
    report.add("the stream begins", "ms", [each.connected for each in everybody], "all at once")
    report.facts["events of each watcher"] = sorted({len(each.late) for each in everybody})
    report.facts["watchers that the tenant's limit of requests made wait"] = sum(each.refused > 0 for each in everybody)
    return report


@asynccontextmanager
async def _within(seconds: float, what: str) -> AsyncGenerator[None]:
    try:
        async with asyncio.timeout(seconds):
            yield
    except TimeoutError:
        raise Unavailable(f"{what} took more than {seconds:g} s") from None


def _first(failed: ExceptionGroup[Exception]) -> Exception:
    """Return the first error that is no group, an HTTP error with what the server said of it."""
    error = failed.exceptions[0]
    if isinstance(error, ExceptionGroup):
        return _first(error)
    if isinstance(error, httpx.HTTPStatusError):
        return Unavailable(f"a request was answered by {error.response.status_code} {error.response.reason_phrase}")
    return Unavailable(f"a request failed: {type(error).__name__}") if isinstance(error, httpx.HTTPError) else error


class _Watcher:
    def __init__(self, http: httpx.AsyncClient, url: str) -> None:
        self._http, self._url = http, url
        self.began = asyncio.Event()
        self.connected = 0.0
        self.late: list[float] = []
        self.turns = self.refused = 0
        self.ended = False

    async def watch(self) -> None:
        """Watch until the end; where all come within one second, some have to wait for the next."""
        while not await self._let_in():
            self.refused += 1

    async def _let_in(self) -> bool:
        start, kind = time.time(), ""
        async with self._http.stream("GET", self._url) as stream:
            if stream.status_code == 429 and not self.began.is_set():
                await asyncio.sleep(float(stream.headers["retry-after"]))  # as the server asks
                return False
            stream.raise_for_status()
            async for line in stream.aiter_lines():
                field, _, value = line.partition(": ")
                if field == "event":
                    kind = value
                elif field == "data":
                    self._note(kind, json.loads(value)["at"], start)
        return True

    def _note(self, kind: str, at: float, start: float) -> None:
        now = time.time()
        if not self.began.is_set():
            self.connected = (now - start) * 1000
            self.began.set()
        # What was told before this watcher came says nothing of how long it takes.
        if at > start:
            self.late.append((now - at) * 1000)
        self.turns += kind == "turn"
        self.ended = self.ended or kind == "ended"
