"""What a call leaves behind while it goes on, so that another replica can go on with it in mid-turn.

    record: {"greeted": bool,
             "history": [OpenAI messages],
             "question": text | null                the caller's last words, while they have no whole answer
             "answer": {...}                        as `Answer` says
             "heard": id                            of the last utterance that is in the history
             "assistant": name, "began": seconds     who answers; when the call began, since the epoch
             "staff": {...}                          who that is, where it is a tenant's: `agent.assistants.kept`
             "typed": [ids],                         of typed messages that are in the history
             "turns": number}                        of the last turn
    files:  {"files": [...]}                         as `agent.library.Library.json` says

Nothing waits for the state: changes are written by one task, the newest last, and a state that is away costs the call
nothing but what a replica that dies meanwhile would have left.
"""

from __future__ import annotations

import asyncio
import logging
import time
import uuid
from collections import deque
from dataclasses import dataclass, field
from typing import Any

from livekit.agents import utils

from agent.state import Lease, Record, State
from serve.errors import ParleyError

logger = logging.getLogger("ray.serve.parley")

RECORD_SECONDS = 3600.0
"""How long a record is kept after it was last written."""


@dataclass(slots=True)
class Answer:
    """An answer while it is written, spoken and heard.

    Attributes:
        written: What the model has written so far.
        done: It has written all.
        pieces: What has been spoken: end of each piece in `written`, and seconds of speech until there.
        played: Seconds of it that the caller has heard.
    """

    written: str = ""
    done: bool = False
    pieces: list[tuple[int, float]] = field(default_factory=list[tuple[int, float]])
    played: float = 0.0

    @property
    def heard(self) -> int:
        """Characters of `written` that the caller has heard, in whole pieces."""
        return max((end for end, seconds in self.pieces if seconds <= self.played), default=0)

    def json(self) -> Record:
        """Return it as JSON."""
        return {"written": self.written, "done": self.done, "pieces": self.pieces, "played": self.played}

    @classmethod
    def of(cls, value: Record) -> Answer:
        """Return what `json` was made from."""
        pieces = [(int(end), float(seconds)) for end, seconds in value["pieces"]]
        return cls(value["written"], value["done"], pieces, value["played"])


@dataclass(slots=True)
class Left:
    """What the replica before has left.

    Attributes:
        greeted: The greeting was spoken.
        history: OpenAI messages.
        question: The caller's words that still want an answer.
        answer: Theirs, as far as it got.
        audio: Of an utterance that was being spoken: pcm16 mono at 16 kHz.
        assistant: Name of who answers; "": as if the call were new.
        began: When the call began, seconds since the epoch; 0.0: not known.
        files: What was read of files that the caller sent.
        typed: Ids of typed messages that are in the history.
        turns: How many there have been.
        staff: Who answers, where a tenant's assistant does: it goes on as it is, whatever becomes of it.
    """

    greeted: bool = False
    history: list[dict[str, Any]] = field(default_factory=list[dict[str, Any]])
    question: str | None = None
    answer: Answer = field(default_factory=Answer)
    audio: bytes = b""
    assistant: str = ""
    began: float = 0.0
    files: list[dict[str, Any]] = field(default_factory=list[dict[str, Any]])
    typed: list[str] = field(default_factory=list[str], kw_only=True)
    turns: int = field(default=0, kw_only=True)
    staff: dict[str, Any] = field(default_factory=dict[str, Any])


class Keeper:
    """Writes what a call must leave behind. `left` is what the replica before has left; None: the call is new."""

    def __init__(self, state: State, lease: Lease, record: Record, left: Left | None) -> None:
        self.left = left
        self._state, self._lease = state, lease
        self._record = record
        self._files: list[dict[str, Any]] = left.files if left else []
        self._files_due = False
        self._changed = asyncio.Event()
        self._audio: deque[tuple[str, int, bytes]] = deque()
        self._utterance, self._sequence = "", 0
        self._spoke = 0.0
        self._writer = asyncio.create_task(self._write(), name="keeper")

    @classmethod
    async def open(cls, state: State, lease: Lease) -> Keeper:
        """Return a keeper that knows what was left; a state that cannot be read leaves nothing."""
        record: Record | None = None
        audio = files = None
        try:
            record, audio, files = await asyncio.gather(
                state.load(lease.call), state.audio(lease.call), state.load(lease.call, "files")
            )
        except ParleyError as error:
            logger.warning("call %s: what was left cannot be read (%s)", lease.call, error.code)
        empty: Record = {"greeted": False, "history": [], "question": None, "answer": Answer().json()}
        if record is None:
            return cls(state, lease, empty, None)
        left = Left(
            record["greeted"],
            record["history"],
            record["question"],
            Answer.of(record["answer"]),
            audio[1] if audio and audio[0] != record.get("heard") else b"",
            record.get("assistant", ""),
            record.get("began", 0.0),
            (files or {}).get("files", []),
            record.get("staff", {}),
            typed=record.get("typed", []),
            turns=record.get("turns", 0),
        )
        return cls(state, lease, {**empty, **record}, left)

    @property
    def silence(self) -> float:
        """Seconds since the caller has said something that is not in the record; infinite where all is."""
        understood = self._utterance in ("", self._record.get("heard"))
        return float("inf") if understood else time.monotonic() - self._spoke

    def note(self, **changes: Any) -> None:
        """Note changes of the record, or of the files."""
        # With each turn anew: a state that was empty for a moment has them back then.
        self._files_due |= "files" in changes or ("history" in changes and bool(self._files))
        self._files = changes.pop("files", self._files)
        self._record = {**self._record, **changes}
        self._changed.set()

    def begin(self) -> None:
        """The caller begins to speak."""
        self._utterance, self._sequence = uuid.uuid4().hex, 0

    def speaking(self, pcm: bytes) -> None:
        """Keep a piece of what the caller is saying: pcm16 mono at 16 kHz."""
        self._spoke = time.monotonic()
        self._audio.append((self._utterance, self._sequence, pcm))
        self._sequence += 1
        self._changed.set()

    def understood(self) -> None:
        """The caller's words are in the record now: their sound is not needed any more."""
        # An empty piece, so that what is kept is this utterance and none before it, however short it was.
        self.speaking(b"")
        self.note(heard=self._utterance)

    async def aclose(self) -> None:
        """Write what is left to write, and stop."""
        await utils.aio.cancel_and_wait(self._writer)
        await self._flush()

    async def _write(self) -> None:
        while True:
            await self._changed.wait()
            self._changed.clear()
            await self._flush()

    async def _flush(self) -> None:
        try:
            await self._state.save(self._lease, self._record, RECORD_SECONDS)
            if self._files_due:
                await self._state.save(self._lease, {"files": self._files}, RECORD_SECONDS, "files")
                self._files_due = False
            while self._audio:
                await self._state.keep_audio(self._lease, *self._audio.popleft())
        except ParleyError as error:
            logger.warning("call %s: the state is away (%s)", self._lease.call, error.code)
