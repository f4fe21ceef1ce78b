"""A call's events for the backend: gathered for some seconds, without words, and never too many."""

from __future__ import annotations

import asyncio
import json
from collections.abc import Callable, Mapping
from typing import Any, cast

from agent.events import Event

SECONDS = 5.0
"""How long events are gathered."""

MOST, MOST_BYTES = 200, 16 * 1024
"""Of one batch: with so many bytes it is told at once; with so many events the rest of the seconds is only counted."""

EVENT_BYTES, TEXT_MOST = 2048, 200
"""An event that is longer has its texts cut to so many characters."""

UNKEPT = frozenset({"active_speakers_changed", "data_received", "local_track_subscribed"})
"""What comes so often that nobody reads it. Neither is kept what has content."""

UNTOLD_FIELDS = {"sip_dtmf_received": ("digit", "code")}
"""Keys that a caller presses can be a secret number."""


class Chronicle:
    """Gathers the events of one call on one replica.

    Args:
        tell: Takes a batch.
    """

    def __init__(self, tell: Callable[[list[dict[str, Any]]], object]) -> None:
        self._tell = tell
        self._events: list[dict[str, Any]] = []
        self._bytes = self._left_out = self._count = 0
        self._timer: asyncio.TimerHandle | None = None

    def hear(self, event: Event) -> None:
        """Keep an event, where it is one to keep; on the event loop."""
        if event.content or event.type in UNKEPT:
            return
        if self._timer is None:
            self._timer = asyncio.get_running_loop().call_later(SECONDS, self.flush)
        self._count += 1
        if self._count > MOST:
            self._left_out += 1
            return
        kept = _short(event)
        size = len(json.dumps(kept))
        if self._events and self._bytes + size > MOST_BYTES:
            self._pass_on()
        self._events.append(kept)
        self._bytes += size

    def flush(self) -> None:
        """Tell what there is."""
        if self._timer is not None:
            self._timer.cancel()
        self._timer, self._count = None, 0
        if self._left_out and self._events:
            self._events.append({"event": "left_out", "time": self._events[-1]["time"], "count": self._left_out})
        self._left_out = 0
        self._pass_on()

    def _pass_on(self) -> None:
        told, self._events, self._bytes = self._events, [], 0
        if told:
            self._tell(told)


def _short(event: Event) -> dict[str, Any]:
    gone = ("type", "call", *UNTOLD_FIELDS.get(event.type, ()))
    fields = {name: value for name, value in event.json().items() if name not in gone}
    if len(json.dumps(fields)) > EVENT_BYTES:
        fields = _cut(fields)
    if len(json.dumps(fields)) > EVENT_BYTES:
        fields = {name: value for name, value in fields.items() if not isinstance(value, dict | list | tuple)}
    return {"event": event.type, **fields}


def _cut(value: Any) -> Any:
    if isinstance(value, str):
        return value[:TEXT_MOST]
    if isinstance(value, Mapping):
        return {key: _cut(each) for key, each in cast("Mapping[str, Any]", value).items()}
    return value
