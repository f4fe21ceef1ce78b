"""What goes on in a call, for those who follow it while it does: captions as they grow, states, turns, events.

Nobody who speaks waits for this. Events are gathered for a moment and go to the state in one piece
(`agent.state.State.publish`); while it is away they are lost to those who follow, and to nobody else.

    {"type": "caption", "who": "caller" | "assistant", "text": so far, "final": bool}
    {"type": "state", "caller": "listening" | "speaking" | "away", "assistant": "listening" | "thinking" | "speaking"}
    {"type": "turn", ...}       as `agent/turns.py` says
    {"type": "event", "event": name, ...}     of docs/lifecycle.md, without words
    {"type": "ended", "reason": why}

Each has `at`, seconds since 1970.
"""

from __future__ import annotations

import asyncio
import json
import logging
import time
from collections.abc import Callable, Mapping
from typing import Any, cast

from livekit.agents.voice import io

from agent import events
from agent.assistants import asked_for
from agent.state import Record, State
from agent.state.contract import NOW_SECONDS
from serve.errors import ParleyError

logger = logging.getLogger("ray.serve.parley")

TENANT = "parley.tenant"
"""The caller's attribute that says whose call it is, from the signed token; whoever carries the call later reads it."""

GATHER_SECONDS = 0.1
AGAIN_SECONDS = NOW_SECONDS / 3
"""How often a call in which nothing happens says that it is live."""

WAITING = 200
"""Events that are kept while the state is away; older ones are lost."""

ELSEWHERE = ("moved", "another replica took it over")
"""Why a call leaves this replica, and goes on at another."""

UNTOLD = frozenset({"active_speakers_changed", "connection_quality_changed", "data_received", "local_track_subscribed"})
"""What nobody who follows a call wants to see go by."""


class Live:
    """Tells of one call, from one replica.

    Args:
        state: Where.
        call: The room's name.
        metadata: Of the dispatch.
        clock: Seconds since 1970.
    """

    def __init__(self, state: State, call: str, metadata: str = "", clock: Callable[[], float] = time.time) -> None:
        self._state, self._call, self._clock = state, call, clock
        self._now: Record = {
            "call": call,
            "tenant": tenant_of(metadata),
            "assistant": asked_for(metadata) or "",
            "began": clock(),
            "name": "",
            "medium": "",
            "caller": "listening",
            "assistant_state": "listening",
            "turns": 0,
        }
        self._waiting: list[Record] = []
        self._ended = self._closing = False
        self._wake = asyncio.Event()
        self._away = False
        self._task = asyncio.create_task(self._tell(), name=f"live {call}")

    @property
    def captions(self) -> io.TextOutput:
        """Return where the session writes what the assistant says, as far as it was heard."""
        return _Captions(lambda text, final: self._caption("assistant", text, final))

    def hear(self, event: events.Event) -> None:
        """Take what the recorder records; returns at once."""
        match event:
            case events.UserInputTranscribed():
                self._caption("caller", event.transcript, event.is_final)
            case events.UserStateChanged():
                self._states(caller=event.new_state)
            case events.AgentStateChanged():
                self._states(assistant_state=event.new_state)
            case events.Turn():
                self._now["turns"] += 1
                self._put({"type": "turn", **event.turn})
            case events.Cleanup() if event.reason not in ELSEWHERE:
                self._ended = True
                self._put({"type": "ended", "reason": event.reason})
            case _ if event.content or event.type in UNTOLD:
                pass
            case _:
                self._know(event)
                fields = {name: value for name, value in event.json().items() if name not in ("type", "call", "time")}
                self._put({"type": "event", "event": event.type, **fields})

    async def aclose(self) -> None:
        """Tell the last, and stop; bounded by the state's own bound."""
        self._closing = True
        self._wake.set()
        await self._task  # what is on its way arrives first: the end may be in it

    def _know(self, event: events.Event) -> None:
        """Keep what the list of live calls shows."""
        match event:
            case events.ParticipantConnected() if event.kind != "agent" and not self._now["medium"]:
                self._now["name"] = event.name or event.sip.get("phoneNumber", "")
                self._now["medium"] = event.kind
                # Another replica had the dispatch's own word; this one reads what the token says.
                self._now["tenant"] = self._now["tenant"] or event.attributes.get(TENANT, "")
            case events.Process():
                self._now["assistant"] = event.assistant
            case _:
                pass

    def _states(self, **changed: str) -> None:
        self._now |= changed
        self._put({"type": "state", "caller": self._now["caller"], "assistant": self._now["assistant_state"]})

    def _caption(self, who: str, text: str, final: bool) -> None:
        last = self._waiting[-1] if self._waiting else None
        if last and last["type"] == "caption" and last["who"] == who and not last["final"]:
            self._waiting.pop()  # it was not told yet, and this one says more
        self._put({"type": "caption", "who": who, "text": text, "final": final})

    def _put(self, event: Record) -> None:
        if self._ended and event["type"] != "ended":
            return  # a last caption on its way would make the end look like somebody who came back
        self._waiting.append({**event, "at": round(self._clock(), 3)})
        del self._waiting[:-WAITING]
        self._wake.set()

    async def _tell(self) -> None:
        while not self._closing:
            try:
                async with asyncio.timeout(AGAIN_SECONDS):
                    await self._wake.wait()
                await asyncio.sleep(GATHER_SECONDS)  # what comes together goes together
            except TimeoutError:
                pass
            self._wake.clear()
            await self._flush(self._now)
        await self._flush(None if self._ended else self._now)

    async def _flush(self, now: Record | None) -> None:
        told, self._waiting = self._waiting, []
        try:
            await asyncio.gather(self._state.publish(self._call, told), self._state.note(self._call, now))
        except ParleyError as error:
            if not self._away:
                logger.warning("call %s: nobody can follow it (%s); it goes on", self._call, error.code)
            self._away = True
        else:
            self._away = False


class _Captions(io.TextOutput):
    """Writes a segment's text so far, whenever there is more of it."""

    def __init__(self, tell: Callable[[str, bool], None]) -> None:
        super().__init__(label="live", next_in_chain=None)
        self._tell, self._text = tell, ""

    async def capture_text(self, text: str) -> None:
        """Take more of the segment."""
        self._text += text
        self._tell(self._text, False)

    def flush(self) -> None:
        """The segment is complete."""
        if self._text:
            self._tell(self._text, True)
        self._text = ""


def tenant_of(metadata: str, attributes: Mapping[str, str] | None = None) -> str:
    """Return whose call a dispatch is, or else its caller's token; empty: neither says."""
    try:
        value: Any = json.loads(metadata) if metadata else None
    except ValueError:
        value = None
    found = cast("dict[str, Any]", value).get("tenant") if isinstance(value, dict) else None
    return found if isinstance(found, str) and found else (attributes or {}).get(TENANT, "")
