"""Cases over the real path: each in a call of its own, by a robot caller in a room of the running cluster."""

from __future__ import annotations

import asyncio
import contextlib
import json
import tempfile
import time
from collections.abc import AsyncGenerator, Sequence
from contextlib import asynccontextmanager
from pathlib import Path
from typing import Any

import httpx
from livekit import rtc

from cluster.bench import scoring
from cluster.evaluation.checks import Seen
from cluster.evaluation.suite import Case
from cluster.evaluation.voicing import Spoken
from cluster.robot import CONNECT_SECONDS, RATE, Access, Robot
from serve.errors import BadRequest, ParleyError, Unavailable
from serve.settings import settings

GREETING_SECONDS = 3.0
"""An assistant that has not begun by then has no greeting."""

LINE_SECONDS = 30.0
"""In the queue, while other callers have all lines."""

ANSWER_SECONDS = 25.0
SETTLE_SECONDS = 90.0
"""An answer may take this long to be spoken."""

QUIET_SECONDS = 1.0
WATCHED_SECONDS = 4.0
"""Silence after which no answer is to be expected, and one that stopped goes on no more."""

FILE_SECONDS = 60.0
FOLLOW_SECONDS = 10.0
ATTEMPTS = 3
"""Of a case whose answer is over before anything is said over it."""

FILE = "parley.file"


class Line:
    """Calls a cluster.

    Args:
        page: Address of the page.
        api: Of the API.
        folder: Where files of the suite are.
    """

    def __init__(self, page: str, api: str, folder: Path) -> None:
        self._page, self._api, self._folder = page.rstrip("/"), api.rstrip("/"), folder
        key = settings().parley_api_keys.get_secret_value().split(",")[0].strip()
        # Where `api.local` is off.
        self._headers = {"authorization": f"Bearer {key}"} if key else {}

    async def __call__(self, case: Case, spoken: Spoken) -> Seen:
        """Try a case.

        Raises:
            ParleyError: The call could not be placed, or broke off.
            httpx.HTTPError: The API does not answer.
        """
        seen, void = await self._once(case, spoken)
        for _ in range(ATTEMPTS - 1):
            if not void:
                return seen
            seen, void = await self._once(case, spoken)
        if void:
            seen.note = "the answer was over before anything could be said over it"
        return seen

    def _access(self, assistant: str | None) -> Access:
        async def access() -> tuple[str, str]:
            asked = {"participant_name": "Evaluation", **({"assistant": assistant} if assistant else {})}
            async with httpx.AsyncClient(timeout=CONNECT_SECONDS, headers=self._headers) as http:
                answer = await http.post(f"{self._page}/api/v1/token", json=asked)
            if answer.status_code in (400, 404, 422) and assistant:
                raise BadRequest("assistant", f"the cluster has no assistant {assistant!r}")
            answer.raise_for_status()
            return answer.json()["server_url"], answer.json()["participant_token"]

        return access

    async def _once(self, case: Case, spoken: Spoken) -> tuple[Seen, bool]:
        async with Robot(self._page, self._access(case.assistant)) as robot:
            # Told by a text stream, which a room hands to whoever has asked for it before.
            told: asyncio.Queue[dict[str, Any]] = asyncio.Queue()
            robot.room.register_text_stream_handler(FILE, lambda reader, _: _put(reader, told))
            await robot.answered(LINE_SECONDS)
            await _greeted(robot)
            if case.file:
                await self._send(robot, case, told)
            for part in spoken.before:
                await _asked(robot, part)
            return await self._question(robot, case, spoken)

    async def _send(self, robot: Robot, case: Case, told: asyncio.Queue[dict[str, Any]]) -> None:
        assert case.file
        before = len(robot.sounds)
        with tempfile.TemporaryDirectory() as folder:
            path = self._folder / case.file.path if case.file.path else Path(folder) / case.file.name
            if case.file.text is not None:
                await asyncio.to_thread(path.write_text, case.file.text, "utf-8")
            await robot.room.local_participant.send_file(str(path), topic=FILE)
            try:
                status = await asyncio.wait_for(told.get(), FILE_SECONDS)
            except TimeoutError:
                raise Unavailable("nobody said whether the file was read") from None
        if status.get("status") != "read":
            raise BadRequest("file", f"was not read: {status.get('code')}")
        # The assistant says that it has read it, a moment after the page was told; where it has words for it.
        with contextlib.suppress(Unavailable):
            await robot.until(lambda: len(robot.sounds) > before, GREETING_SECONDS, "word of the file")
        await robot.quiet(QUIET_SECONDS, ANSWER_SECONDS)

    async def _question(self, robot: Robot, case: Case, spoken: Spoken) -> tuple[Seen, bool]:
        seen = Seen(voice=spoken.voice)
        while not robot.turns.empty():
            robot.turns.get_nowait()
        began = time.perf_counter()
        ended = await robot.say(spoken.samples, audible=case.expect.answered)
        said, heard_from = (began, ended), began
        if not case.expect.answered:
            await robot.quiet(WATCHED_SECONDS, SETTLE_SECONDS)
        else:
            try:
                first = await robot.heard_after(ended, ANSWER_SECONDS)
            except Unavailable:
                seen.answered, seen.note = False, f"no answer within {ANSWER_SECONDS:.0f} s"
                return seen, False
            seen.voice_to_voice_ms = round((first - ended) * 1000, 1)
            seen.cut_in = any(sound.ended > began and sound.began < ended for sound in robot.sounds)
            if case.over and spoken.over is not None:
                await asyncio.sleep(max(0.0, first + case.over.after - time.perf_counter()))  # the case says when
                heard_from, start = first, time.perf_counter()
                end = await robot.say(spoken.over, audible=False)
                said = (start, max(end, start + len(spoken.over) / RATE))
        turns = await _turns(robot, case)
        void = _read(case, seen, robot, turns, said, heard_from)
        if case.expect.tool:
            await self._tools(robot, seen, len(case.before) + 1)
        return seen, void

    async def _tools(self, robot: Robot, seen: Seen, turns: int) -> None:
        """Read in the call's live feed which tools were called; it says nothing of their arguments."""
        names: list[str] = []
        kind = ""
        try:
            async with asyncio.timeout(FOLLOW_SECONDS), self._feed(robot.name) as lines:
                async for line in lines:
                    field, _, value = line.partition(": ")
                    kind = value if field == "event" else kind
                    if field != "data":
                        continue
                    event = json.loads(value)
                    if kind == "event" and event.get("update") == "tool_call_started":
                        names.append(str(event["name"]))
                    if kind == "turn":
                        turns -= 1
                        if not turns:
                            break
                        names.clear()
        except (TimeoutError, httpx.HTTPError, ValueError):
            if not names:
                seen.note = "the call's live feed did not tell of its tools"
                return
        seen.tools = [(name, None) for name in names]

    @asynccontextmanager
    async def _feed(self, call: str) -> AsyncGenerator[Any]:
        url = f"{self._api}/api/v1/calls/{call}/live"
        async with (
            httpx.AsyncClient(timeout=FOLLOW_SECONDS, headers=self._headers) as http,
            http.stream("GET", url) as answer,
        ):
            answer.raise_for_status()
            yield answer.aiter_lines()


def _put(reader: rtc.TextStreamReader, told: asyncio.Queue[dict[str, Any]]) -> None:
    async def read() -> None:
        told.put_nowait(json.loads(await reader.read_all()))

    _READING.add(task := asyncio.create_task(read(), name="file told"))
    task.add_done_callback(_READING.discard)


_READING: set[asyncio.Task[None]] = set()


async def _greeted(robot: Robot) -> None:
    try:
        await robot.heard_after(robot.joined, GREETING_SECONDS)
    except Unavailable:
        return
    await robot.quiet(QUIET_SECONDS, ANSWER_SECONDS)


async def _asked(robot: Robot, samples: Any) -> None:
    ended = await robot.say(samples)
    await robot.heard_after(ended, ANSWER_SECONDS)
    await robot.quiet(QUIET_SECONDS, SETTLE_SECONDS)


async def _turns(robot: Robot, case: Case) -> list[dict[str, Any]]:
    """Return the turns that were told, once nothing more is to be expected."""
    found: list[dict[str, Any]] = []
    wanted = 0 if not case.expect.answered else 2 if case.expect.interrupted else 1
    # What is missing is for the judge.
    with contextlib.suppress(TimeoutError):
        async with asyncio.timeout(SETTLE_SECONDS):
            while len(found) < wanted:
                found.append(await robot.turns.get())
                if case.expect.interrupted and not found[0]["interrupted"]:
                    break  # it was not cut off: there is nothing more to come
    # An answer without end is judged as far as it came.
    with contextlib.suppress(Unavailable):
        await robot.quiet(WATCHED_SECONDS if case.over else QUIET_SECONDS, SETTLE_SECONDS)
    while not robot.turns.empty():
        found.append(robot.turns.get_nowait())
    return found


def _read(
    case: Case,
    seen: Seen,
    robot: Robot,
    turns: Sequence[dict[str, Any]],
    said: tuple[float, float],
    heard_from: float,
) -> bool:
    """Fill in what was seen of the turns; return whether nothing was shown."""
    sounds = [sound for sound in robot.sounds if sound.began >= heard_from]
    if turns:
        seen.heard, seen.answer, seen.models = turns[0]["heard"], turns[0]["answer"], turns[0]["models"]
    if not case.expect.answered:
        seen.silent = not turns and not sounds
        return False
    if case.over is None:
        seen.answered = bool(turns) and turns[0]["error"] is None
        return False
    right = "stopped" if case.expect.interrupted else "goes on"
    over = {"say": [case.over.say]} if case.over.say else {"sound": case.over.sound}
    judged = scoring.judge(
        scoring.Case.model_validate({**over, "after": case.over.after, "right": right}),
        scoring.Seen([said], sounds, list(turns)),
    )
    seen.interrupted, seen.answered = judged.interrupted, judged.answered if case.expect.interrupted else bool(turns)
    return judged.void


FAULTS = (ParleyError, httpx.HTTPError, TimeoutError, ConnectionError)
"""What breaks a case off, and not the run."""
