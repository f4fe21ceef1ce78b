"""Unit: the gate tells a worse model from an equal one, and knows when it cannot tell yet; all with seeds."""

from __future__ import annotations

import random
from pathlib import Path

import pytest

from cluster import gate as gates
from cluster import intervals
from cluster.gate import Gate
from cluster.samples import Sample
from serve.errors import ConfigError

pytestmark = pytest.mark.unit


def side(
    seed: int,
    calls: int = 40,
    turns: int = 5,
    *,
    own: float = 300,
    failed: float = 0.0,
    interrupted: float = 0.1,
    pace: float = 160,
) -> list[Sample]:
    """Turns as calls have them: those of one call are alike."""
    dice = random.Random(seed)
    made: list[Sample] = []
    for call in range(calls):
        line = dice.lognormvariate(0, 0.15)
        for _ in range(turns):
            ms = own * line * dice.lognormvariate(0, 0.2)
            made.append(
                Sample(
                    call=f"{seed}-{call}",
                    model="m",
                    failed=dice.random() < failed,
                    interrupted=dice.random() < interrupted,
                    own_ms=ms,
                    voice_ms=ms + 500,
                    words_per_minute=pace * dice.lognormvariate(0, 0.1),
                )
            )
    return made


@pytest.mark.parametrize("seed", range(5))
def test_an_equal_model_is_promoted(seed: int) -> None:
    assert gates.judge(side(seed), side(seed + 100), Gate(), 1).outcome == "promote"


@pytest.mark.parametrize(
    ("worse", "measure"),
    [
        ({"own": 500}, "own_time"),
        ({"failed": 0.25}, "failed"),
        ({"interrupted": 0.6}, "interrupted"),
        ({"pace": 90}, "words_per_minute"),
    ],
)
def test_a_worse_model_is_rolled_back_and_the_measure_is_named(worse: dict[str, float], measure: str) -> None:
    judged = gates.judge(side(1), side(2, **worse), Gate(), 1)  # pyright: ignore[reportArgumentType]
    assert judged.outcome == "roll back"
    assert judged.why.startswith(measure)
    assert next(each for each in judged.findings if each.measure == measure).verdict == "worse"


def test_a_better_model_is_promoted() -> None:
    assert gates.judge(side(1, failed=0.1), side(2, own=150), Gate(), 1).outcome == "promote"


def test_a_short_time_may_differ_by_what_nobody_hears() -> None:
    assert gates.judge(side(1, own=19), side(2, own=30), Gate(), 1).outcome == "promote"


def test_few_turns_wait() -> None:
    gate = Gate()
    assert gates.enough(side(1), side(2, calls=9), gate) == 0, "too few calls"
    assert gates.enough(side(1), side(2, calls=49, turns=1), gate) == 0, "too few turns"
    assert gates.judge(side(1, calls=10), side(2, calls=10), gate, 1).outcome == "wait", (
        "50 turns say little of failures"
    )


def test_it_is_looked_at_again_with_each_doubling() -> None:
    gate = Gate(min_turns=50)
    looks = [gates.enough(side(1, calls=count), side(2, calls=200), gate) for count in (10, 19, 20, 40, 80)]
    assert looks == [1, 1, 2, 3, 4]


def test_a_model_that_plainly_fails_is_not_waited_for() -> None:
    assert gates.tripped(side(1, calls=1, turns=4, failed=1.0), Gate()) is None
    judged = gates.tripped(side(1, calls=1, turns=5, failed=1.0), Gate())
    assert judged is not None
    assert (judged.outcome, judged.why) == ("roll back", "it failed on 5 of 5 turns")


def test_what_nobody_measures_is_left_out_and_what_one_side_lacks_is_unclear() -> None:
    typed = [Sample(call=f"{n}", model="m", own_ms=300) for n in range(200)]
    judged = gates.judge(typed, typed, Gate(), 1)
    assert judged.outcome == "promote"
    assert "words_per_minute" not in {each.measure for each in judged.findings}
    assert gates.judge(side(1), typed, Gate(), 1).outcome == "wait"


def test_a_worse_model_is_seldom_promoted_and_an_equal_one_seldom_called_worse() -> None:
    """The gate's promise, by simulation: a model that is slower by just more than is allowed."""
    gate = Gate(failed=None, unanswered=None, interrupted=None, voice_to_voice=None, words_per_minute=None)
    runs = 60
    slower = [gates.judge(side(n, 20), side(n + 500, 20, own=366), gate, 1).outcome for n in range(runs)]
    equal = [gates.judge(side(n, 20), side(n + 500, 20), gate, 1).outcome for n in range(runs)]
    # 2.5% is what one bound may err by at the first look: 4 of 60 or more would be a chance below 7%.
    assert slower.count("promote") <= 4
    assert equal.count("roll back") <= 4


def test_rates_of_alike_turns_say_less() -> None:
    """Ten calls that fail as a whole or not at all are no hundred turns."""
    whole = [[1.0] * 10] * 5 + [[0.0] * 10] * 5
    apart = [[1.0, 0.0] * 5] * 10
    wide, narrow = (intervals.of_rates(each, each, 0.05) for each in (whole, apart))
    assert wide.upper > 2 * narrow.upper
    assert narrow.lower == pytest.approx(-narrow.upper)


def test_medians_of_calls_that_are_drawn_are_those_of_their_turns() -> None:
    found = intervals.of_medians([[1.0, 2.0, 3.0]], [[5.0, 7.0]], 0.05)
    assert found == (2.0, 6.0, 4.0, 4.0), "one call alone is always drawn"


def test_newcombes_example() -> None:
    """56 of 70 against 48 of 80: 0.0524 to 0.3339 (Newcombe 1998, table II, method 10)."""
    first, second = ([[1.0]] * yes + [[0.0]] * no for yes, no in ((48, 32), (56, 14)))
    found = intervals.of_rates(first, second, 0.025)
    assert (found.lower, found.upper) == pytest.approx((0.0524, 0.3339), abs=5e-5)


def test_a_gate_is_read_from_a_file_and_faults_are_named(tmp_path: Path) -> None:
    file = tmp_path / "gate.yaml"
    file.write_text("min_turns: 20\ninterrupted: null\n")
    assert gates.read(file) == Gate(min_turns=20, interrupted=None)
    assert gates.read(None) == Gate()
    file.write_text("min_turn: 20\n")
    with pytest.raises(ConfigError, match=r"min_turn: .*\n.*min_turns"):
        gates.read(file)
    with pytest.raises(ConfigError, match="cannot be read"):
        gates.read(tmp_path / "none.yaml")
