"""Where records are kept until they are delivered."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Protocol

STORED_MOST = 1_000_000
"""Records that wait to be delivered; a store that has more takes no new ones."""

BOUND_SECONDS = 2.0
"""How long one operation may take."""


@dataclass(frozen=True, slots=True)
class Entry:
    """A record on its way in."""

    id: str
    call: str
    body: bytes


@dataclass(frozen=True, slots=True)
class Stored:
    """A record on its way out; `position` is the store's own."""

    position: str
    body: bytes


class Store(Protocol):
    """Keeps records in the order in which they came.

    Each operation ends within `BOUND_SECONDS`, or raises `serve.errors.Unavailable`; what it was asked for may
    have been done all the same.
    """

    async def append(self, entries: Sequence[Entry]) -> None:
        """Keep records, all or none; safe when it returns."""
        ...

    async def take(self, owner: str, count: int, ttl: float) -> list[Stored] | None:
        """Return the first records that are not done; the same ones until they are.

        Returns:
            None: another owner delivers. Whoever is given records keeps others away for `ttl` seconds.
        """
        ...

    async def done(self, taken: Sequence[Stored]) -> None:
        """Forget records: the sink has them."""
        ...

    async def set_aside(self, taken: Stored, reason: str) -> None:
        """Keep a record that cannot be delivered where a person finds it, out of the others' way."""
        ...

    async def waiting(self) -> int:
        """Return how many records are not done."""
        ...

    async def aclose(self) -> None:
        """Free connections and files."""
        ...
