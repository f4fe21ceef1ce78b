"""What a new model must show before it gets more calls: the gate of `parley swap`, and its verdict on two sides.

The question is not whether the new model differs, which enough turns always show, but whether it is worse by more than
is allowed (a test of non-inferiority): it goes on only where the bound of the difference says that it is not.
"""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any, Literal, NamedTuple

import yaml
from pydantic import Field, ValidationError

from cluster import intervals
from cluster.samples import Sample
from serve.config import Strict
from serve.errors import ConfigError

FELT_MS = 30.0
"""A median that is later by less is heard by nobody, whatever share of a short time it is."""

Outcome = Literal["promote", "roll back", "wait"]


class Evaluation(Strict):
    """A suite that both models are asked straight, before the new one takes a call (docs/evaluation.md).

    Attributes:
        suite: Its name, or a path from the gate's folder.
        min_score: The least evaluation score of the new model.
        loss: How much lower than the old model's it may be.
        rounds: Times each case is tried.
    """

    suite: str = "basic"
    min_score: float | None = Field(default=None, ge=0, le=1, description="Share of what is expected")
    loss: float | None = Field(default=0.1, ge=0, le=1, description="Points, as a share of what is expected")
    rounds: int = Field(default=1, ge=1, le=20)


class Gate(Strict):
    """A YAML file with any of these keys; `null` leaves a measure out.

    Attributes:
        min_calls: Of each side, before anything is judged.
        min_turns: The same; it is looked at again at twice, four times, ... as many.
        max_minutes: For each step; what is not decided by then is rolled back.
        confidence: That a model which is worse than allowed is not promoted by chance, over all looks of a step.
        failures_at_once: So many failed turns of the new model, if they are most of its turns, end the swap at once.
        failed: Share of turns that the model failed on (an error, or another stood in): so much more is allowed.
        unanswered: Share of turns whose answer has no word and was not cut off.
        interrupted: Share of answers that the caller cut off.
        own_time: The model's own time: end of speech to text, request to first token, or to first sound; p50.
        voice_to_voice: End of speech to the answer's first sound; p50.
        words_per_minute: Of answers as they were spoken: so much slower, as a share, is allowed; p50.
        evaluation: A suite that is tried first; without it nothing is.
    """

    min_calls: int = Field(default=10, ge=1)
    min_turns: int = Field(default=50, ge=1)
    max_minutes: float = Field(default=60.0, gt=0)
    confidence: float = Field(default=0.95, gt=0.5, lt=1)
    failures_at_once: int = Field(default=5, ge=1)
    failed: float | None = Field(default=0.05, ge=0, le=1, description="Points, as a share of turns")
    unanswered: float | None = Field(default=0.05, ge=0, le=1, description="Points, as a share of turns")
    interrupted: float | None = Field(default=0.15, ge=0, le=1, description="Points, as a share of turns")
    own_time: float | None = Field(default=0.2, ge=0, description="Share of the old model's median")
    voice_to_voice: float | None = Field(default=0.2, ge=0, description="Share of the old side's median")
    words_per_minute: float | None = Field(default=0.2, ge=0, le=1, description="Share of the old side's median")
    evaluation: Evaluation | None = None


class Finding(NamedTuple):
    """One measure of both sides.

    Attributes:
        measure: The gate's key.
        old: Rate, or median in milliseconds or words per minute.
        new: The same.
        lower: Bound of new less old; where less is worse, of old less new.
        upper: The other bound.
        allowed: What `upper` may be.
        verdict: "ok": not worse than allowed; "worse"; "unclear".
    """

    measure: str
    old: float
    new: float
    lower: float
    upper: float
    allowed: float
    verdict: Literal["ok", "worse", "unclear"]

    def text(self) -> str:
        """Return a line for a person."""
        rate = self.measure in _RATES or self.measure == "evaluation_score"
        unit = "" if rate else " wpm" if self.measure == "words_per_minute" else " ms"

        def shown(value: float) -> str:
            return f"{value:.1%}" if rate else f"{value:.0f}{unit}"

        worse = f"worse by {shown(self.lower)} to {shown(self.upper)}, {shown(self.allowed)} allowed"
        return f"{self.measure}: {shown(self.old)} before, {shown(self.new)} now ({worse}): {self.verdict}"


class Judgement(NamedTuple):
    """What is to be done now, and why."""

    outcome: Outcome
    why: str
    findings: tuple[Finding, ...] = ()


_RATES: dict[str, Callable[[Sample], float | None]] = {
    "failed": lambda turn: float(turn.failed),
    "unanswered": lambda turn: float(turn.unanswered),
    "interrupted": lambda turn: float(turn.interrupted),
}
_MEDIANS: dict[str, Callable[[Sample], float | None]] = {
    "own_time": lambda turn: turn.own_ms,
    "voice_to_voice": lambda turn: turn.voice_ms,
    # More is better: the other way round, so that "worse" is up for all.
    "words_per_minute": lambda turn: None if turn.words_per_minute is None else -turn.words_per_minute,
}


def read(path: Path | None) -> Gate:
    """Read a gate; without a file, the default one.

    Raises:
        ConfigError: The file is no gate; one line for each thing that is wrong.
    """
    if path is None:
        return Gate()
    try:
        data: Any = yaml.safe_load(path.read_text(encoding="utf-8"))
        return _placed(Gate.model_validate(data or {}), path.parent)
    except OSError as error:
        raise ConfigError(f"--gate {path}: cannot be read: {error.strerror}") from None
    except (yaml.YAMLError, UnicodeDecodeError):
        raise ConfigError(f"--gate {path}: is not YAML") from None
    except ValidationError as error:
        keys = ", ".join(Gate.model_fields)
        lines = [f"{path}: {'.'.join(map(str, item['loc']))}: {item['msg']}" for item in error.errors()]
        raise ConfigError("\n".join([*lines, f"the keys are {keys}"])) from None


def _placed(gate: Gate, folder: Path) -> Gate:
    """Return a gate whose suite, where it is a path, is found from anywhere."""
    tried = gate.evaluation
    if tried is None or Path(tried.suite).suffix not in (".yaml", ".yml"):
        return gate
    return gate.model_copy(update={"evaluation": tried.model_copy(update={"suite": str(folder / tried.suite)})})


def enough(old: Sequence[Sample], new: Sequence[Sample], gate: Gate) -> int:
    """Return how many looks the turns so far allow: 0 below the minimum, one more with each doubling."""
    if min(len({turn.call for turn in side}) for side in (old, new)) < gate.min_calls:
        return 0
    return (min(len(old), len(new)) // gate.min_turns).bit_length()


def tripped(new: Sequence[Sample], gate: Gate) -> Judgement | None:
    """Return the verdict on a model that plainly fails; it is not waited for samples of it."""
    failures = sum(turn.failed for turn in new)
    if failures >= gate.failures_at_once and failures * 2 > len(new):
        return Judgement("roll back", f"it failed on {failures} of {len(new)} turns")
    return None


def judge(old: Sequence[Sample], new: Sequence[Sample], gate: Gate, look: int) -> Judgement:
    """Compare two sides.

    Args:
        old: Turns that the old model was to serve.
        new: Those of the new one.
        gate: What is allowed.
        look: 1, 2, ...: the chance of error is halved with each, so that all together stay within the gate's.
    """
    alpha = (1 - gate.confidence) / 2**look
    measures = [name for name in (*_RATES, *_MEDIANS) if getattr(gate, name) is not None]
    found = [_finding(name, old, new, gate, alpha, len(measures)) for name in measures]
    findings = tuple(each for each in found if each is not None)
    worse = [each for each in findings if each.verdict == "worse"]
    unclear = [each for each in findings if each.verdict == "unclear"]
    if worse:
        return Judgement("roll back", "; ".join(each.text() for each in worse), findings)
    if unclear:
        return Judgement("wait", f"not clear yet: {'; '.join(each.text() for each in unclear)}", findings)
    if not findings:
        return Judgement("wait", "no turn carries any of the gate's measures")
    return Judgement("promote", f"not worse than allowed in {', '.join(each.measure for each in findings)}", findings)


def _finding(
    name: str, old: Sequence[Sample], new: Sequence[Sample], gate: Gate, alpha: float, count: int
) -> Finding | None:
    """Return one measure of both sides; None: nobody tells it, as where all callers type."""
    rate = name in _RATES
    value = _RATES[name] if rate else _MEDIANS[name]
    before, after = _by_call(old, value), _by_call(new, value)
    if not before and not after:
        return None
    allowed = float(getattr(gate, name))
    if not before or not after:
        return Finding(name, 0.0, 0.0, 0.0, 0.0, allowed, "unclear")
    bounds = intervals.of_rates if rate else intervals.of_medians
    found = bounds(before, after, alpha)
    if not rate:
        allowed = max(allowed * abs(found.old), 0.0 if name == "words_per_minute" else FELT_MS)
    if found.upper <= allowed:
        verdict = "ok"
    else:
        # Many measures are looked at: one that is "worse" by chance alone should be as rare as with one.
        least = bounds(before, after, alpha / count).lower
        verdict = "worse" if least > 0 and found.new - found.old > allowed else "unclear"
    sign = -1.0 if name == "words_per_minute" else 1.0
    return Finding(name, sign * found.old, sign * found.new, found.lower, found.upper, allowed, verdict)


def _by_call(turns: Sequence[Sample], value: Callable[[Sample], float | None]) -> list[list[float]]:
    calls: dict[str, list[float]] = defaultdict(list)
    for turn in turns:
        if (known := value(turn)) is not None:
            calls[turn.call].append(known)
    return list(calls.values())
