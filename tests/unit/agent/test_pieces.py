"""An answer is cut where it sounds right, the first time early, and nothing of it is lost."""

from __future__ import annotations

import pytest

from agent.pieces import Pieces

pytestmark = pytest.mark.unit


def cut(text: str, step: int = 3) -> list[str]:
    pieces = Pieces()
    out: list[str] = []
    for start in range(0, len(text), step):
        out += pieces.push(text[start : start + step])
    rest = pieces.flush()
    return [*out, rest] if rest else out


@pytest.mark.parametrize(
    ("text", "pieces"),
    [
        ("Yes, I can hear you well.", ["Yes,", "I can hear you well."]),
        ("Paris is the capital of France. It is old.", ["Paris is the capital", "of France.", "It is old."]),
        ("Hello.", ["Hello."]),
        ("", []),
        ("   ", []),
    ],
)
def test_cuts(text: str, pieces: list[str]) -> None:
    assert cut(text) == pieces


def test_first_piece_ends_after_eight_words_at_the_latest() -> None:
    assert len(cut("one two three four five six seven eight nine ten eleven")[0].split()) == 8


@pytest.mark.parametrize("text", ["Dr. Smith is here today.", "It costs 3.50 euros, and 1,000 yen."])
def test_abbreviations_and_numbers_stay_whole(text: str) -> None:
    assert not {"Dr.", "It costs 3.", "and 1,"} & set(cut(text, 1))


@pytest.mark.parametrize("step", [1, 2, 7, 1000])
def test_nothing_is_lost_however_the_text_comes(step: int) -> None:
    text = "Well, let me think about that! First, we go to the market; then we come home again, don't we? Yes…"
    assert " ".join(cut(text, step)).split() == text.split()
