"""What the cluster wrote of turns, as `parley swap` compares them: no words, only who was asked and how it went."""

from __future__ import annotations

import asyncio
import datetime
import json
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Literal, Protocol, cast

from serve.contracts import Role
from serve.errors import ConfigError
from serve.settings import home

TURNS = 50_000
"""The most that are compared; the newest ones."""

READ_SECONDS = 30.0

_KEPT = ("call", "time", "interrupted", "error", "measures")

OWN_TIME: dict[Role, str] = {"stt": "stt_ms", "llm": "llm_first_token_ms", "tts": "tts_first_byte_ms"}
"""Of a turn's stages, the one that is a role's own."""


@dataclass(frozen=True, slots=True)
class Sample:
    """A turn, as far as it says how one role's model did.

    Attributes:
        call: Its id; turns of one call are alike.
        model: Which one was to be asked, whoever answered in the end.
        failed: The turn has an error, or another model stood in.
        unanswered: There is no word of an answer, and nobody cut it off.
        interrupted: The caller cut the answer off.
        own_ms: The model's own stage.
        voice_ms: End of speech to the answer's first sound.
        words_per_minute: Of the answer as it was spoken.
    """

    call: str
    model: str
    failed: bool = False
    unanswered: bool = False
    interrupted: bool = False
    own_ms: float | None = None
    voice_ms: float | None = None
    words_per_minute: float | None = None


class Source(Protocol):
    """Where turns are read."""

    async def since(self, at: float, role: Role) -> list[Sample]:
        """Return the turns that ended then or later, seconds since 1970."""
        ...


def source(backend: Literal["api", "jsonl", "none"]) -> Source:
    """Return where a cluster's turns are, by `agent.backend`.

    Raises:
        ConfigError: They are kept nowhere.
    """
    if backend == "none":
        raise ConfigError("agent.backend: none keeps no turns to compare; set it to api or jsonl")
    return DatabaseSource() if backend == "api" else LinesSource(home() / "records.jsonl")


class DatabaseSource:
    """Reads the backend's database, of all tenants: measures alone, never what was said."""

    async def since(self, at: float, role: Role) -> list[Sample]:
        """Return the turns since then."""
        from sqlalchemy import select

        from api.db import open_database
        from api.db.tables import Tenant, Turn

        moment = datetime.datetime.fromtimestamp(at, datetime.UTC)
        database = open_database()
        try:
            async with asyncio.timeout(READ_SECONDS), database.system() as session:
                tenants = (await session.scalars(select(Tenant.id))).all()
                columns = (Turn.call_id, Turn.interrupted, Turn.error, Turn.measures)
                # By tenant: that is how the index of times begins.
                asked = select(*columns).where(Turn.tenant_id.in_(tenants), Turn.at >= moment)
                rows = (await session.execute(asked.order_by(Turn.at.desc()).limit(TURNS))).all()
        finally:
            await database.aclose()
        return [sample(call, role, interrupted, error, measures) for call, interrupted, error, measures in rows]


class LinesSource:
    """Reads `records.jsonl` (`agent.backend: jsonl`), each time from where the last one ended.

    Args:
        path: Of the file.
    """

    def __init__(self, path: Path) -> None:
        self._path = path
        self._read = 0
        self._turns: list[dict[str, Any]] = []

    async def since(self, at: float, role: Role) -> list[Sample]:
        """Return the turns since then."""
        await asyncio.to_thread(self._follow)
        self._turns = self._turns[-TURNS:]
        return [
            sample(turn["call"], role, turn["interrupted"], turn["error"], turn["measures"])
            for turn in self._turns
            if turn["time"] >= at
        ]

    def _follow(self) -> None:
        if not self._path.exists():
            return
        with self._path.open("rb") as file:
            file.seek(self._read)
            for line in file:
                if not line.endswith(b"\n"):
                    break  # it is being written
                self._read += len(line)
                record = json.loads(line)
                if record.get("kind") == "turn":
                    # Not the words: they have no business in this process.
                    self._turns.append(
                        {key: record[key] for key in ("call", "time", "interrupted", "error", "measures")}
                    )


def sample(call: str, role: Role, interrupted: bool, error: str | None, measures: Mapping[str, Any]) -> Sample:
    """Return a turn's sample for a role; `measures` are those of `agent/turns.py`."""
    # Agents of before tell only who served.
    asked = _mapping(measures, "asked" if "asked" in measures else "models")
    stood_in, stages = _mapping(measures, "fallback"), _mapping(measures, "stages")
    words = measures.get("words")
    return Sample(
        call=call,
        model=str(asked.get(role, "")),
        failed=error is not None or role in stood_in,
        unanswered=words == 0 and not interrupted,
        interrupted=interrupted,
        own_ms=_number(stages.get(OWN_TIME[role])),
        voice_ms=_number(measures.get("voice_to_voice_ms")),
        words_per_minute=_pace(words, _mapping(measures, "times").get("answer")),
    )


def _pace(words: Any, spoken: Any) -> float | None:
    if not isinstance(words, int) or not words or not isinstance(spoken, list):
        return None
    since, to = cast("list[float]", spoken)
    return words * 60 / (to - since) if to - since >= 1 else None  # a word or two have no pace


def _mapping(measures: Mapping[str, Any], name: str) -> dict[str, Any]:
    found = measures.get(name)
    return cast("dict[str, Any]", found) if isinstance(found, dict) else {}


def _number(value: Any) -> float | None:
    return float(value) if isinstance(value, int | float) else None
