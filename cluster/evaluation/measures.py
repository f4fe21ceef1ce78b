"""What a run comes to: measures with their intervals, of cases that were tried once or several times; and two runs
side by side. Rounds of one case are alike, so cases are what counts (`cluster/intervals.py`).
"""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from statistics import median
from typing import Any, Literal

from cluster import intervals
from cluster.evaluation.checks import ANSWERS, Result

CONFIDENCE = 0.95
ALPHA = (1 - CONFIDENCE) / 2


@dataclass(frozen=True, slots=True)
class Measure:
    """One measure.

    Attributes:
        name: Its key in reports and limits.
        title: For a person.
        kind: A rate or a mean of 0 to 1 (`rate`), a sum over a sum (`ratio`), or a median.
        unit: "%", "ms" or "x".
        better: Whether more of it is better.
        of: Its value in a result; None: it has none. A ratio's: what was counted, and of how much.
    """

    name: str
    title: str
    kind: Literal["rate", "ratio", "median"]
    unit: Literal["%", "ms", "x"]
    better: Literal["more", "less"]
    of: Callable[[Result], Any]

    def shown(self, value: float) -> str:
        """Return a value with its unit."""
        return {"%": f"{value:.1%}", "ms": f"{value:.0f} ms", "x": f"{value:.2f} x"}[self.unit]


def _answer_score(result: Result) -> float | None:
    if result.status == "error":
        return 0.0
    found = [check.ok for check in result.checks if check.kind in ANSWERS and check.ok is not None]
    return sum(found) / len(found) if found else None


def _interrupted(goes_on: bool) -> Callable[[Result], float | None]:
    def found(result: Result) -> float | None:
        if result.goes_on is not goes_on or result.seen.interrupted is None:
            return None
        return float(result.seen.interrupted == goes_on)

    return found


MEASURES: tuple[Measure, ...] = (
    Measure("score", "evaluation score", "rate", "%", "more", lambda each: each.score),
    Measure("answer_score", "answer score", "rate", "%", "more", _answer_score),
    Measure(
        "word_error_rate", "word error rate", "ratio", "%", "less",
        lambda each: (each.errors, each.words) if each.errors is not None and each.words else None,
    ),
    Measure(
        "voice_to_voice_ms", "voice to voice, p50", "median", "ms", "less", lambda each: each.seen.voice_to_voice_ms
    ),
    Measure(
        "response_rate", "response rate", "rate", "%", "more",
        lambda each: float(bool(each.seen.answered)) if each.due else None,
    ),
    Measure("false_interruptions", "false interruptions", "rate", "%", "less", _interrupted(True)),
    Measure("missed_interruptions", "missed interruptions", "rate", "%", "less", _interrupted(False)),
    Measure(
        "cut_ins", "cut-ins", "rate", "%", "less",
        lambda each: None if each.seen.cut_in is None else float(each.seen.cut_in),
    ),
    Measure("first_ms", "first token or sound, p50", "median", "ms", "less", lambda each: each.seen.first_ms),
    Measure("real_time", "real-time factor, p50", "median", "x", "less", lambda each: each.seen.real_time),
)  # fmt: skip

BY_NAME = {measure.name: measure for measure in MEASURES}


def summary(results: Sequence[Result]) -> dict[str, dict[str, Any]]:
    """Return each measure that the results have, by name: `value`, `lower`, `upper` (95%), `n` and `cases`."""
    found: dict[str, dict[str, Any]] = {}
    for measure in MEASURES:
        cases = _by_case(results, measure)
        if not cases:
            continue
        if measure.kind == "ratio":
            bounds = intervals.of_ratio([_sum(each) for each in cases.values()], ALPHA)
        else:
            bounds = (intervals.of_rate if measure.kind == "rate" else intervals.of_median)(list(cases.values()), ALPHA)
        n = sum(map(len, cases.values()))
        found[measure.name] = {**_rounded(bounds._asdict()), "n": n, "cases": len(cases)}
    return found


def compare(old: Sequence[Result], new: Sequence[Result]) -> dict[str, Any]:
    """Return what changed from one run to another, on the cases that both have.

    Returns:
        `measures`, by name: `old`, `new`, `difference`, `lower`, `upper` (95%), `cases` and `verdict` (better, worse,
        unclear: an interval with 0 in it); `better` and `worse`: cases that pass more, or less often than before;
        `only_old` and `only_new`: cases of one run alone.
    """
    before, after = _tried(old), _tried(new)
    both = [name for name in after if name in before]
    found: dict[str, dict[str, Any]] = {}
    for measure in MEASURES:
        one, two = (_by_case(side, measure) for side in (old, new))
        shared = [name for name in both if name in one and name in two]
        if shared:
            found[measure.name] = _change(measure, [one[name] for name in shared], [two[name] for name in shared])
    return {
        "measures": found,
        "better": [name for name in both if after[name] > before[name]],
        "worse": [name for name in both if after[name] < before[name]],
        "only_old": [name for name in before if name not in after],
        "only_new": [name for name in after if name not in before],
    }


def _change(measure: Measure, old: list[list[Any]], new: list[list[Any]]) -> dict[str, Any]:
    if measure.kind == "median":
        # Of each case with itself: what one case takes more than another is no difference between the runs.
        pairs = list(zip(old, new, strict=True))
        change = intervals.of_median([[median(after) - median(before)] for before, after in pairs], ALPHA)
        before, after = (median([value for case in side for value in case]) for side in (old, new))
        value, lower, upper = change
    else:
        part = _sum if measure.kind == "ratio" else _mean
        one, two = ([part(case) for case in side] for side in (old, new))
        before, after, lower, upper = intervals.of_ratio_change(one, two, ALPHA)
        value = after - before
    told = "unclear"
    if lower > 0 or upper < 0:
        told = "better" if (lower > 0) == (measure.better == "more") else "worse"
    numbers = {"old": before, "new": after, "difference": value, "lower": lower, "upper": upper}
    return {**_rounded(numbers), "cases": len(old), "verdict": told}


def _tried(results: Sequence[Result]) -> dict[str, float]:
    """Return the share of rounds that each case passed."""
    rounds: dict[str, list[bool]] = defaultdict(list)
    for each in results:
        if each.status != "skipped":
            rounds[each.case].append(each.status == "passed")
    return {case: sum(passed) / len(passed) for case, passed in rounds.items()}


def _by_case(results: Sequence[Result], measure: Measure) -> dict[str, list[Any]]:
    cases: dict[str, list[Any]] = defaultdict(list)
    for each in results:
        if each.status != "skipped" and (value := measure.of(each)) is not None:
            cases[each.case].append(value)
    return dict(cases)


def _sum(values: Sequence[tuple[float, float]]) -> tuple[float, float]:
    return float(sum(value[0] for value in values)), float(sum(value[1] for value in values))


def _mean(values: Sequence[float]) -> tuple[float, float]:
    return float(sum(values)), float(len(values))


def _rounded(numbers: dict[str, float]) -> dict[str, float]:
    return {name: round(float(value), 4) + 0.0 for name, value in numbers.items()}
