"""What stops an answer, and what only says that somebody listens."""

from __future__ import annotations

import pytest

from agent.config import Turns
from agent.overlap import Overlap

pytestmark = pytest.mark.unit


def over(seconds: float, turns: Turns | None = None, *, unfinished: bool = True) -> Overlap:
    overlap = Overlap(turns or Turns(), lambda: unfinished)
    overlap.seconds = seconds
    return overlap


@pytest.mark.parametrize("text", ["", "Uh-huh.", "yeah", "Okay, okay", "Yes, I see", "MM-HMM", "of course, right"])
def test_back_channels_pass_however_long(text: str) -> None:
    assert over(1.5).passes(text)


@pytest.mark.parametrize("text", ["Stop.", "wait", "no", "Don’t", "what", "hold on", "okay but"])
def test_words_that_stop_others_stop_an_answer(text: str) -> None:
    assert not over(0.4).passes(text)


def test_what_is_brief_and_misheard_passes_and_what_is_long_does_not() -> None:
    assert over(0.45).passes("the flood")
    assert not over(1.2).passes("the flood of the river")


def test_when_the_answer_is_over_all_that_is_said_counts() -> None:
    assert not over(0.4, unfinished=False).passes("yes")


def test_a_partial_transcript_is_certain_from_two_words_on() -> None:
    assert over(1.0).certain("tell me")
    assert over(1.0).certain("yeah tell me")
    assert not over(1.0).certain("tell")
    assert not over(1.0).certain("yes okay yeah")
    assert not over(0.5).certain("the flood")


def test_other_languages_bring_words_of_their_own() -> None:
    german = Turns(backchannels=("ja", "ach so"), stops=("halt",), brief=0.8)
    assert over(1.0, german).passes("ja, ach so")
    assert not over(0.4, german).passes("Halt!")
    assert not over(0.4, Turns(backchannels=(), stops=(), brief=0.0)).passes("yeah")
