"""When an engine wrote and when it let go: kept of its last answers, also of those that were cut off.

A stream that its listener closes says nothing of the work behind it. What is kept here is stamped where tokens come out
of the model, so that it can be told from outside how long an engine went on.
"""

from __future__ import annotations

import time
from collections import deque
from dataclasses import dataclass, field
from typing import Protocol, runtime_checkable

_KEPT = 64


@dataclass(slots=True)
class Work:
    """One answer's work. Times are seconds of the machine's monotonic clock, which all its processes share.

    Attributes:
        began: The engine took the request up.
        last: The last token so far came out of the model; 0.0: none has.
        ended: The engine let go of it; 0.0: it is at work.
        tokens: That came out of the model.
        stopped: It was stopped, and did not end by itself.
    """

    began: float = field(default_factory=time.monotonic)
    last: float = 0.0
    ended: float = 0.0
    tokens: int = 0
    stopped: bool = False

    def token(self) -> None:
        """A token came out of the model."""
        self.last, self.tokens = time.monotonic(), self.tokens + 1

    def end(self) -> None:
        """The engine has let go of the request."""
        self.ended = time.monotonic()


class WorkLog:
    """Keeps the work of an engine's last answers."""

    def __init__(self) -> None:
        self._recent: deque[Work] = deque(maxlen=_KEPT)

    def begin(self) -> Work:
        """Return the work of an answer that begins."""
        work = Work()
        self._recent.append(work)
        return work

    def recent(self) -> list[Work]:
        """Return the last answers' work, oldest first."""
        return list(self._recent)


@runtime_checkable
class TellsWork(Protocol):
    """An engine that keeps when it wrote."""

    work: WorkLog
