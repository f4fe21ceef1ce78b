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
    """

    number: int
    read: str = ""
    used: int = 0
    busy: bool = False


class Slots:
    """Hands out caches, so that calls which share a system prompt do not overwrite each other's history."""

    def __init__(self, count: int) -> None:
        self._slots = [Slot(number) for number in range(count)]
        self._free = asyncio.Semaphore(count)
        self._clock = 0

    async def take(self, messages: Sequence[dict[str, Any]], tools: Sequence[dict[str, Any]] = ()) -> Slot:
        """Wait for a free slot and return the best one."""
        await self._free.acquire()
        text = "\n".join(json.dumps(part, ensure_ascii=False) for part in (list(tools), *messages))
        slot = self._best(text, [slot for slot in self._slots if not slot.busy])
        self._clock += 1
        slot.busy, slot.used, slot.read = True, self._clock, text
        return slot

    def give(self, slot: Slot) -> None:
        """Take a slot back."""
        slot.busy = False
        self._free.release()

    def _best(self, text: str, free: list[Slot]) -> Slot:
        shared = {slot.number: _shared(text, slot.read) for slot in free}
        same = [slot for slot in free if slot.read and len(slot.read) - shared[slot.number] <= _FORGETS]
        if same:
            return max(same, key=lambda slot: shared[slot.number])
        return min(free, key=lambda slot: slot.used)


def _shared(one: str, other: str) -> int:
    """Return how many characters two texts begin with alike."""
    length = min(len(one), len(other))
    return next((at for at in range(length) if one[at] != other[at]), length)
