"""Which of a model's caches a conversation goes to: the one that has read most of it."""

from __future__ import annotations

import asyncio
import json
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

_FORGETS = 40
"""Characters of another reading that a conversation may overwrite and still count as the same: a draft's last words."""


@dataclass(slots=True)
class Slot:
    """One cache of the model.

    Attributes:
        number: Its number.
        read: The conversation it has read, as text.
        used: When it was last taken, in requests.
        busy: Taken now.
        leaving: Its listener has left; free in a moment, and worth waiting for by the conversation it has read.
    """

    number: int
    read: str = ""
    used: int = 0
    busy: bool = False
    leaving: bool = False


class Slots:
    """Hands out caches, so that calls which share a system prompt do not overwrite each other's history."""

    def __init__(self, count: int) -> None:
        self._slots = [Slot(number) for number in range(count)]
        self._changed = asyncio.Event()
        self._clock = 0

    async def take(self, messages: Sequence[dict[str, Any]], tools: Sequence[dict[str, Any]] = ()) -> Slot:
        """Return the best slot; wait where none is free, or where the best is about to be."""
        text = "\n".join(json.dumps(part, ensure_ascii=False) for part in (list(tools), *messages))
        while True:
            near = [slot for slot in self._slots if slot.leaving or not slot.busy]
            if near and not (slot := self._best(text, near)).busy:
                break
            await self._changed.wait()
        self._clock += 1
        slot.busy, slot.used, slot.read = True, self._clock, text
        return slot

    def leave(self, slot: Slot, taken: int) -> None:
        """Say that the request which took a slot at `taken` wants no more of it."""
        if slot.busy and slot.used == taken:
            slot.leaving = True
            self._wake()

    def give(self, slot: Slot) -> None:
        """Take a slot back."""
        slot.busy = slot.leaving = False
        self._wake()

    @property
    def busy(self) -> int:
        """Slots at work."""
        return sum(slot.busy for slot in self._slots)

    def _wake(self) -> None:
        self._changed.set()
        self._changed.clear()

    def _best(self, text: str, near: list[Slot]) -> Slot:
        shared = {slot.number: _shared(text, slot.read) for slot in near}
        same = [slot for slot in near if slot.read and len(slot.read) - shared[slot.number] <= _FORGETS]
        if same:
            return max(same, key=lambda slot: shared[slot.number])
        return min(near, key=lambda slot: slot.used)


def _shared(one: str, other: str) -> int:
    """Return how many characters two texts begin with alike."""
    length = min(len(one), len(other))
    return next((at for at in range(length) if one[at] != other[at]), length)
