"""Cuts an answer, as it is written, into pieces that sound right when each is spoken by itself."""

from __future__ import annotations

import re

_CLAUSE_END = re.compile(r"[.!?;:,\u2026]+[\"')\]]*\s")
_SENTENCE_END = re.compile(r"[.!?\u2026]+[\"')\]]*\s")
_NO_END = re.compile(r"(?:\b(?:Mr|Mrs|Ms|Dr|St|vs|e\.g|i\.e)\.|\d[.,:])\s$")

_FIRST_WORDS = 4
"""From here on the first piece may end before a word that begins a phrase."""

_FIRST_MOST = 8
"""The first piece ends here at the latest: what the caller waits for is its synthesis."""

_LATER_WORDS = 6
"""A later piece is a sentence, or a clause of at least this many words."""

_BREAKS_BEFORE = {
    *("and", "or", "but", "so", "because", "if", "when", "while", "that", "which", "who", "where", "than", "as"),
    *("in", "on", "at", "for", "with", "from", "to", "of", "by", "about", "into"),
}


class Pieces:
    """Takes text as it comes and gives pieces to speak; the first one early, later ones whole clauses."""

    def __init__(self) -> None:
        self._text = ""
        self._first = True

    def push(self, text: str) -> list[str]:
        """Take more text; return the pieces that are complete now."""
        self._text += text
        pieces: list[str] = []
        while (end := self._cut()) is not None:
            piece, self._text = self._text[:end], self._text[end:]
            if piece.strip():
                pieces.append(piece.strip())
                self._first = False
        return pieces

    def flush(self) -> str:
        """The answer is complete: return what is left, or ""."""
        rest, self._text = self._text.strip(), ""
        return rest

    def _cut(self) -> int | None:
        for match in (_CLAUSE_END if self._first else _SENTENCE_END).finditer(self._text):
            if not _NO_END.search(self._text[: match.end()]):
                return match.end()
        if not self._first:
            for match in _CLAUSE_END.finditer(self._text):
                if len(self._text[: match.end()].split()) >= _LATER_WORDS and not _NO_END.search(
                    self._text[: match.end()]
                ):
                    return match.end()
            return None
        # A word counts once the space behind it is there: the next token may still change it.
        words = list(re.finditer(r"\S+(?=\s)", self._text))
        for index, word in enumerate(words):
            if index >= _FIRST_MOST or (index >= _FIRST_WORDS and word.group().lower() in _BREAKS_BEFORE):
                return word.start()
        return None
