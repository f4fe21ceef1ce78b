"""The labelled set of turns, and what counts as right."""

from __future__ import annotations

from typing import Any

import numpy as np
import pytest
from pydantic import ValidationError

from cluster.bench.scoring import Case, Seen, judge
from cluster.bench.sounds import noise
from cluster.bench.turns import cases, summary
from cluster.robot import Sound
from serve.errors import BadRequest

pytestmark = pytest.mark.unit

SENTENCE = Case(say=["Please remind me", "to call my mother"], pauses=[0.4], kind="pause")
OVER = Case(say=["Yeah."], after=1.0, right="goes on", kind="back-channel")
STOP = Case(say=["Stop."], after=1.0, right="stopped", kind="interruption")
NOISE = Case(sound="knock", right="silent", kind="noise in silence")


def turn(heard: str, answer: str = "All right.", *, interrupted: bool = False) -> dict[str, Any]:
    return {"heard": heard, "answer": answer, "interrupted": interrupted, "error": None}


def seen(*sounds: tuple[float, float], said: list[tuple[float, float]], turns: list[dict[str, Any]]) -> Seen:
    return Seen(said, [Sound(*sound) for sound in sounds], turns)


WHOLE = turn("please remind me to call my mother")
HALVES = [(0.0, 1.0), (1.4, 2.4)]


@pytest.mark.parametrize(
    ("sounds", "turns", "fault"),
    [
        ([(3.0, 4.0)], [WHOLE], ""),
        ([(3.0, 4.0)], [turn("please remain me to call a mother")], ""),
        ([(3.0, 4.0)], [turn("to call my mother")], "not whole"),
        ([(1.3, 1.8), (3.0, 4.0)], [turn("please remind me", interrupted=True), turn("to call my mother")], "cut in"),
        ([(3.0, 4.0), (4.5, 5.0)], [WHOLE, WHOLE], "answered twice"),
        ([], [WHOLE], "not answered"),
        ([], [], "not answered"),
    ],
)
def test_a_sentence_is_answered_once_as_a_whole(
    sounds: list[tuple[float, float]], turns: list[dict[str, Any]], fault: str
) -> None:
    assert judge(SENTENCE, seen(*sounds, said=HALVES, turns=turns)).fault == fault


def test_an_answer_goes_on_after_a_back_channel() -> None:
    one = [turn("tell me a story", "Once upon a time.")]
    straight = judge(OVER, seen((0.0, 5.0), said=[(1.0, 1.4)], turns=one))
    assert (straight.fault, straight.interrupted, straight.gap) == ("", False, None)
    paused = judge(OVER, seen((0.0, 1.5), (2.5, 5.0), said=[(1.0, 1.4)], turns=one))
    assert (paused.fault, paused.gap) == ("", 1.0)
    cut = [turn("tell me a story", "Once", interrupted=True), turn("yeah")]
    false = judge(OVER, seen((0.0, 1.5), (2.5, 5.0), said=[(1.0, 1.4)], turns=cut))
    assert (false.fault, false.interrupted) == ("false interruption", True)


def test_an_answer_that_ends_by_itself_shows_nothing() -> None:
    verdict = judge(OVER, seen((0.0, 1.6), said=[(1.0, 1.4)], turns=[turn("tell me a story"), turn("yeah")]))
    assert verdict.void
    assert verdict.interrupted is None


def test_an_interruption_stops_the_answer_and_is_answered() -> None:
    cut = turn("tell me a story", "Once", interrupted=True)
    good = judge(STOP, seen((0.0, 1.5), (2.5, 3.0), said=[(1.0, 1.4)], turns=[cut, turn("stop")]))
    assert (good.fault, good.answered) == ("", True)
    assert judge(STOP, seen((0.0, 1.5), said=[(1.0, 1.4)], turns=[cut])).fault == "not answered"
    missed = judge(STOP, seen((0.0, 9.0), said=[(1.0, 1.4)], turns=[turn("tell me a story")]))
    assert (missed.fault, missed.answered) == ("not stopped", False)


def test_nobody_answers_noise() -> None:
    assert judge(NOISE, seen(said=[(0.0, 0.5)], turns=[])).fault == ""
    assert judge(NOISE, seen((1.0, 2.0), said=[(0.0, 0.5)], turns=[turn("the")])).fault == "answered"


def test_the_history_is_compared_with_what_was_heard() -> None:
    cut = seen((0.0, 1.5), said=[(1.0, 1.4)], turns=[turn("a story", "Once upon a time there was", interrupted=True)])
    cut.heard_words = 4
    assert judge(STOP, cut).unheard == 2


def test_figures_are_counted_over_what_they_are_about() -> None:
    one = [turn("tell me a story")]
    verdicts = [
        judge(SENTENCE, seen((3.0, 4.0), said=HALVES, turns=[WHOLE])),
        judge(SENTENCE, seen((1.2, 4.0), (5.0, 6.0), said=HALVES, turns=[WHOLE])),
        judge(OVER, seen((0.0, 1.5), (2.5, 5.0), said=[(1.0, 1.4)], turns=one)),
        judge(OVER, seen((0.0, 1.6), said=[(1.0, 1.4)], turns=one)),
        judge(STOP, seen((0.0, 9.0), said=[(1.0, 1.4)], turns=one)),
    ]
    facts = summary("turns", verdicts).facts
    assert facts["false interruptions"] == "0 of 1"
    assert facts["answers that paused and went on"] == "1 of 1"
    assert facts["missed interruptions"] == "1 of 1"
    assert facts["cut-ins"] == "1 of 2"
    assert facts["response rate"] == "2 of 3"
    assert facts["void: the answer was over too soon"] == 1
    assert facts["right: pause"] == "1 of 2; 1 cut in"


def test_the_labelled_set_has_several_of_each_kind() -> None:
    every = cases()
    assert all(len(cases(kind)) >= 5 for kind in {case.kind for case in every})
    assert {case.right for case in every} == {"answered", "goes on", "stopped", "silent"}
    with pytest.raises(BadRequest, match="back-channel"):
        cases("cough")


def test_a_case_that_lacks_something_is_refused() -> None:
    with pytest.raises(ValidationError, match="pauses between them"):
        Case(say=["one", "two"])
    with pytest.raises(ValidationError, match="`say` is missing"):
        Case(sound="far")
    with pytest.raises(ValidationError, match="over an answer"):
        Case(say=["yeah"], right="goes on")


def test_noises_are_the_same_for_the_same_seed() -> None:
    for kind in ("white", "pink", "brown", "knock", "cough"):
        first, again, other = (noise(kind, level=0.5, seed=seed) for seed in (1, 1, 2))
        assert np.array_equal(first, again)
        assert not np.array_equal(first, other)
        assert abs(int(np.abs(first).max()) - 16383) <= 1
