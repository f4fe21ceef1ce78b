"""Does a sentence go on? Told by its last word, where the sound of the voice does not tell."""

from __future__ import annotations

from collections.abc import Collection

DANGLING = (
    *("a", "an", "the", "my", "your", "his", "her", "our", "their", "its", "every", "very", "i", "we", "they", "i'm"),
    *("and", "or", "but", "because", "if", "whether", "although", "unless", "than", "while", "until"),
    *("to", "of", "about", "for", "with", "from", "into", "between", "without", "at", "by"),
)

_ASKING = ("what", "who", "whom", "which", "where", "why", "how", "when")
"""A sentence that begins so may end with what others go on after: "What is it about?"."""


def dangles(text: str, words: Collection[str]) -> bool:
    """Say whether a text ends with a word after which a sentence goes on.

    Args:
        text: A transcript, with or without marks. A mark that ends sentences has the last word.
        words: In lower case.
    """
    if text.rstrip().endswith((".", "?", "!")):
        return False
    said = text.lower().replace(",", " ").replace("\u2026", " ").split()
    return len(said) > 1 and said[-1] in words and said[0] not in _ASKING
