"""How far two sides may be apart, given what was seen of them: bounds for rates and for medians, of turns within calls.

Turns of one call are alike, so calls are what counts. Medians: a bootstrap that draws whole calls (Davison and Hinkley,
Bootstrap Methods and their Application, 1997, section 3.8). Rates: Newcombe's interval of a difference (Statistics in
Medicine 17, 1998, method 10, from Wilson's intervals), on the number of turns divided by the design effect (Rao and
Scott, Biometrics 48, 1992). docs/decisions/0009-how-a-swap-is-judged.md says why these.
"""

from __future__ import annotations

from collections.abc import Sequence
from math import sqrt
from statistics import NormalDist
from typing import NamedTuple

import numpy as np

RESAMPLES = 4000
SEED = 7
"""The same turns get the same verdict, whoever asks, whenever."""

CELLS = 2_000_000
"""Numbers that are held at once."""

Calls = Sequence[Sequence[float]]
"""Values of turns, by call."""


class Difference(NamedTuple):
    """New less old: an estimate, and bounds that are each exceeded with a chance of at most `alpha`."""

    old: float
    new: float
    lower: float
    upper: float


class Bounds(NamedTuple):
    """An estimate of one side, and bounds that are each exceeded with a chance of at most `alpha`."""

    value: float
    lower: float
    upper: float


Ratios = Sequence[tuple[float, float]]
"""By call, or by case: what was counted, and out of how much."""


def of_rate(calls: Calls, alpha: float) -> Bounds:
    """Return a rate of turns, or a mean of values from 0 to 1, for which Wilson's interval is rather too wide.

    Args:
        calls: At least one call with a value.
        alpha: Chance of error of each bound.
    """
    return Bounds(*_wilson(calls, NormalDist().inv_cdf(1 - alpha)))


def of_median(calls: Calls, alpha: float) -> Bounds:
    """Return a median."""
    lower, upper = np.quantile(_medians(calls, np.random.default_rng(SEED)), (alpha, 1 - alpha))
    return Bounds(_median(calls), float(lower), float(upper))


def of_ratio(pairs: Ratios, alpha: float) -> Bounds:
    """Return a sum over a sum, as errors over words; at least one pair whose second is not 0."""
    (value,), drawn = _ratios(pairs)
    lower, upper = np.nanquantile(drawn[0], (alpha, 1 - alpha))
    return Bounds(value, float(lower), float(upper))


def of_ratio_change(old: Ratios, new: Ratios, alpha: float) -> Difference:
    """Return the difference of two such ratios over the same cases, in the same order: cases are drawn in pairs."""
    (before, after), drawn = _ratios(old, new)
    lower, upper = np.nanquantile(drawn[1] - drawn[0], (alpha, 1 - alpha))
    return Difference(before, after, float(lower), float(upper))


def _ratios(*sides: Ratios) -> tuple[list[float], list[np.ndarray]]:
    count = len(sides[0])
    times = np.random.default_rng(SEED).multinomial(count, [1 / count] * count, RESAMPLES)
    values: list[float] = []
    drawn: list[np.ndarray] = []
    for side in sides:
        counted, of = np.asarray(side, float).T
        values.append(float(counted.sum() / of.sum()))
        with np.errstate(invalid="ignore"):
            drawn.append((times @ counted) / (times @ of))
    return values, drawn


def of_medians(old: Calls, new: Calls, alpha: float) -> Difference:
    """Return the difference of two medians.

    Args:
        old: At least one call with a value.
        new: The same.
        alpha: Chance of error of each bound.
    """
    rng = np.random.default_rng(SEED)
    drawn = _medians(new, rng) - _medians(old, rng)
    lower, upper = np.quantile(drawn, (alpha, 1 - alpha))
    return Difference(_median(old), _median(new), float(lower), float(upper))


def of_rates(old: Calls, new: Calls, alpha: float) -> Difference:
    """Return the difference of two rates of turns.

    Args:
        old: 1 for a turn that it happened in, 0 for another; at least one call with a turn.
        new: The same.
        alpha: Chance of error of each bound.
    """
    z = NormalDist().inv_cdf(1 - alpha)
    (p, low, high), (q, least, most) = (_wilson(side, z) for side in (old, new))
    lower = q - p - sqrt((q - least) ** 2 + (high - p) ** 2)
    upper = q - p + sqrt((most - q) ** 2 + (p - low) ** 2)
    return Difference(p, q, lower, upper)


def _wilson(calls: Calls, z: float) -> tuple[float, float, float]:
    """Return a rate with Wilson's bounds."""
    turns = sum(len(call) for call in calls)
    rate = sum(sum(call) for call in calls) / turns
    n = turns / _design_effect(calls, rate, turns)
    middle = (rate + z * z / (2 * n)) / (1 + z * z / n)
    half = z / (1 + z * z / n) * sqrt(rate * (1 - rate) / n + z * z / (4 * n * n))
    return rate, middle - half, middle + half


def _design_effect(calls: Calls, rate: float, turns: int) -> float:
    """Return how many times wider the rate's variance is than if every turn were a call of its own; at least 1."""
    count = len(calls)
    if count < 2 or not 0 < rate < 1:
        return 1.0
    spread = sum((sum(call) - rate * len(call)) ** 2 for call in calls)
    among, alone = count / (count - 1) * spread / turns**2, rate * (1 - rate) / (turns - 1)
    return max(1.0, among / alone)


def _median(calls: Calls) -> float:
    return float(np.median(np.concatenate([np.asarray(call, float) for call in calls])))


def _medians(calls: Calls, rng: np.random.Generator) -> np.ndarray:
    """Return medians of as many calls as there are, drawn with replacement."""
    values = np.concatenate([np.asarray(call, float) for call in calls])
    call_of = np.repeat(np.arange(len(calls)), [len(call) for call in calls])
    order = np.argsort(values, kind="stable")
    values, call_of = values[order], call_of[order]
    block = max(1, CELLS // len(values))
    found: list[np.ndarray] = []
    for begin in range(0, RESAMPLES, block):
        # How often each call was drawn is how often each of its values counts.
        times = rng.multinomial(len(calls), [1 / len(calls)] * len(calls), min(block, RESAMPLES - begin))
        upto = np.cumsum(times[:, call_of], axis=1)
        total = upto[:, -1:]
        low, high = (upto * 2 >= total).argmax(axis=1), (upto * 2 > total).argmax(axis=1)
        found.append((values[low] + values[high]) / 2)
    return np.concatenate(found)
