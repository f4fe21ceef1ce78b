"""Which sentences go on, by their last word."""

from __future__ import annotations

import pytest

from agent.sentences import DANGLING, dangles

pytestmark = pytest.mark.unit


@pytest.mark.parametrize("text", ["I was thinking about", "go to the", "remind me, and", "call my", "I would like to"])
def test_a_sentence_goes_on(text: str) -> None:
    assert dangles(text, DANGLING)


@pytest.mark.parametrize("text", ["", "to", "what is it about", "Where are you from", "call my mother", "I want to."])
def test_a_sentence_may_be_over(text: str) -> None:
    assert not dangles(text, DANGLING)


def test_other_languages_bring_words_of_their_own() -> None:
    assert dangles("ich wohne in der", ("der", "die", "das"))
    assert not dangles("I was thinking about", ())
