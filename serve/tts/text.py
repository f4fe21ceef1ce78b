"""Text as synthesisers want it: plain, and in pieces that can be spoken one after the other."""

from __future__ import annotations

import re
import unicodedata

from serve.contracts import SpeechRequest
from serve.errors import BadRequest

GAP_SECONDS = 0.15
"""Silence between two pieces, beside the tail of the one before."""
MIN_SPEED, MAX_SPEED = 0.25, 4.0

_MARKUP = re.compile(r"<[^<>]{0,200}>|[*_`#~|\\{}\[\]<>]+")
_TYPOGRAPHY = str.maketrans(
    {"\u2018": "'", "\u2019": "'", "\u201c": '"', "\u201d": '"', "\u2013": "-", "\u2014": ", ", "\u2026": "..."}
)
_SENTENCE_END = re.compile(r"(?<=[.!?;:])(?<!\bDr\.)(?<!\bMr\.)(?<!\bMs\.)(?<!\bMrs\.)(?<!\bSt\.)\s+|\s*\n\s*")


def check(request: SpeechRequest, max_characters: int) -> None:
    """Refuse what no synthesiser should be given.

    Raises:
        BadRequest: Too long, or too fast or slow.
    """
    if len(request.text) > max_characters:
        raise BadRequest("text", f"longer than {max_characters} characters")
    if not MIN_SPEED <= request.speed <= MAX_SPEED:
        raise BadRequest("speed", f"must be from {MIN_SPEED} to {MAX_SPEED}")


def plain(text: str) -> str:
    """Return the text without markup, control characters and emoji, spaces collapsed."""
    text = _MARKUP.sub(" ", unicodedata.normalize("NFC", text).translate(_TYPOGRAPHY))
    kept = (
        " " if unicodedata.category(c) in {"Cc", "Cf", "Cs", "Co", "Cn", "So", "Sk"} and c != "\n" else c for c in text
    )
    return re.sub(r"[^\S\n]+", " ", "".join(kept)).strip()


def pieces(text: str, limit: int) -> list[str]:
    """Cut at the ends of sentences, and at spaces where a sentence is longer than `limit` characters."""
    found: list[str] = []
    for sentence in _SENTENCE_END.split(text):
        rest = sentence.strip()
        while len(rest) > limit:
            cut = rest.rfind(" ", 1, limit + 1)
            cut = cut if cut > 0 else limit
            found.append(rest[:cut])
            rest = rest[cut:].lstrip()
        if rest:
            found.append(rest)
    return [piece for piece in found if any(character.isalnum() for character in piece)]


def passages(text: str, limit: int) -> list[str]:
    """Cut into as few parts as can be of at most `limit` characters, at the ends of sentences: for paid requests."""
    found: list[str] = []
    for piece in pieces(text, limit):
        if found and len(found[-1]) + 1 + len(piece) <= limit:
            found[-1] += f" {piece}"
        else:
            found.append(piece)
    return found
