"""What was right about a turn, from what a caller said and heard and what the agent reports; no audio, no clock."""

from __future__ import annotations

import itertools
import re
from collections.abc import Sequence
from dataclasses import dataclass, field
from typing import Any, Literal

from pydantic import Field, model_validator

from cluster.bench.sounds import Noise
from cluster.robot import Sound
from serve.config import Strict

Right = Literal["answered", "goes on", "stopped", "silent"]

GAP_SECONDS = 0.3
"""Silence that parts two sounds; the robot counts what comes sooner as one."""

SETTLED_SECONDS = 1.0
"""An answer that ends by itself so soon after a sound over it shows nothing of how the sound was taken."""

_KNOWN_WORDS = 0.5
"""Share of a part's words that must be understood for the part to count: the recogniser's errors are not counted."""


class Case(Strict):
    """One of the labelled set; cluster/bench/turns.yaml says what each field means."""

    say: list[str] = Field(default_factory=list[str])
    pauses: list[float] = Field(default_factory=list[float])
    sound: Noise | Literal["far"] | None = None
    level: float = Field(default=1.0, gt=0, le=1)
    seconds: float = Field(default=1.0, gt=0, le=10)
    after: float | None = Field(default=None, ge=0, le=5)
    speed: float = Field(default=1.0, gt=0.5, lt=2)
    kind: str = ""
    right: Right = "answered"

    @model_validator(mode="after")
    def _complete(self) -> Case:
        if self.sound in (None, "far") and not self.say:
            raise ValueError("`say` is missing: what is said")
        if self.sound is None and len(self.pauses) != len(self.say) - 1:
            raise ValueError(f"{len(self.say)} parts have {len(self.say) - 1} pauses between them")
        if (self.after is not None) != (self.right in ("goes on", "stopped")):
            raise ValueError("`after` is for sounds over an answer, and they need it")
        return self

    @property
    def text(self) -> str:
        """What to call it."""
        return " ... ".join(self.say) if self.sound is None else " ".join([self.sound, *self.say])


@dataclass(slots=True)
class Seen:
    """What a caller saw of one case; times are of one clock.

    Attributes:
        said: First and last audible moment of each part.
        sounds: What was heard of the agent from the case's beginning on.
        turns: What the agent reported, in order.
        heard_words: Words of the first answer as a recogniser hears them in what the caller heard; None: not known.
    """

    said: list[tuple[float, float]]
    sounds: list[Sound] = field(default_factory=list[Sound])
    turns: list[dict[str, Any]] = field(default_factory=list[dict[str, Any]])
    heard_words: int | None = None


@dataclass(slots=True)
class Verdict:
    """How a case went.

    Attributes:
        fault: What was wrong; "": nothing.
        void: The answer ended by itself too soon: nothing was shown.
        answered: What was said was answered; None: it needed no answer.
        cut: The agent was heard before the caller had finished; None: it was not the caller's turn alone.
        interrupted: The answer was cut off for good; None: there was none.
        gap: Seconds of silence in an answer that went on.
        unheard: Words of the first answer in the history, less those that were heard; None: not known.
    """

    case: Case
    fault: str = ""
    void: bool = False
    answered: bool | None = None
    cut: bool | None = None
    interrupted: bool | None = None
    gap: float | None = None
    unheard: int | None = None


def judge(case: Case, seen: Seen) -> Verdict:
    """Say how a case went."""
    verdict = Verdict(case)
    first, last = seen.said[0][0], seen.said[-1][1]
    after = [sound for sound in seen.sounds if sound.began >= last]
    if case.right == "silent":
        verdict.fault = "answered" if after or seen.turns else ""
    elif case.right == "answered":
        verdict.cut = any(sound.ended > first and sound.began < last for sound in seen.sounds)
        verdict.answered = bool(after) and any(turn["error"] is None for turn in seen.turns)
        verdict.fault = _fault(case, seen, verdict)
    else:
        _over(case, seen, verdict, first, last)
    if case.after is not None and seen.turns and seen.heard_words is not None:
        verdict.unheard = len(words(seen.turns[0]["answer"])) - seen.heard_words
    return verdict


def words(text: str) -> list[str]:
    """Return a text's words, lower case, without marks."""
    return re.findall(r"[a-z0-9']+", text.lower())


def _fault(case: Case, seen: Seen, verdict: Verdict) -> str:
    if not verdict.answered:
        return "not answered"
    if verdict.cut:
        return "cut in"
    if len(seen.turns) > 1:
        return "answered twice"
    return "" if _whole(case.say, seen.turns[0]["heard"]) else "not whole"


def _whole(parts: Sequence[str], heard: str) -> bool:
    understood = set(words(heard))
    shares = [sum(word in understood for word in words(part)) / len(words(part)) for part in parts]
    return all(share >= _KNOWN_WORDS for share in shares)


def _over(case: Case, seen: Seen, verdict: Verdict, first: float, last: float) -> None:
    """Judge a sound over an answer."""
    answer = seen.turns[0] if seen.turns else None
    verdict.interrupted = bool(answer and answer["interrupted"])
    if not verdict.interrupted and _ended(seen.sounds) < first + SETTLED_SECONDS:
        verdict.void, verdict.interrupted = True, None
    elif case.right == "stopped":
        verdict.answered = len(seen.turns) > 1 and any(sound.began >= last for sound in seen.sounds)
        if not verdict.interrupted:
            verdict.fault, verdict.answered = "not stopped", False
        elif not verdict.answered:
            verdict.fault = "not answered"
    elif verdict.interrupted:
        verdict.fault = "false interruption"
    elif len(seen.turns) > 1:
        verdict.fault = "answered"
    else:
        verdict.gap = _gap(seen.sounds, first, last)
        verdict.fault = "" if answer else "not told"


def _ended(sounds: Sequence[Sound]) -> float:
    return max((sound.ended for sound in sounds), default=0.0)


def _gap(sounds: Sequence[Sound], first: float, last: float) -> float | None:
    """Return the silence that a sound from `first` to `last` brought into an answer; None: it brought none."""
    pairs = itertools.pairwise(sounds)
    gaps = [after.began - before.ended for before, after in pairs if first <= before.ended <= last + 1.0]
    return max((gap for gap in gaps if gap >= GAP_SECONDS), default=None)
