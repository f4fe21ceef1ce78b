"""What is said over an answer: does the caller want to speak, or only to show that they listen?"""

from __future__ import annotations

import re
from collections.abc import Callable, Iterable
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from agent.config import Turns

BACKCHANNELS = (
    *("uh-huh", "uh", "huh", "ah", "oh", "um", "mm", "mm-hmm", "mhm", "hm", "hmm", "aha", "wow"),
    *("yeah", "yes", "yep", "yup", "ok", "okay", "right", "all right", "alright", "sure", "of course", "exactly"),
    *("true", "i see", "got it", "good", "great", "nice", "cool", "fine", "really", "interesting", "thanks"),
)

STOPS = (
    *("stop", "wait", "no", "nope", "don't", "hold", "hang", "pause", "quiet", "enough", "cancel", "forget", "never"),
    *("but", "actually", "sorry", "excuse", "pardon", "hello", "hey", "help", "listen", "please", "again", "repeat"),
    *("what", "what's", "who", "who's", "which", "why", "where", "where's", "when", "how", "louder", "slower"),
)

_CERTAIN_WORDS = 2
"""Words that are no back-channel, after which an interruption is certain before the utterance has ended."""


class Overlap:
    """One utterance that began while an answer was being heard.

    Args:
        turns: Which words are back-channels, and which ones stop an answer.
        unfinished: The answer still has something to say; when it is over, all that is said counts.

    Attributes:
        seconds: Of speech so far, from its beginning to its last sound.
    """

    def __init__(self, turns: Turns, unfinished: Callable[[], bool]) -> None:
        self._brief, self._unfinished = turns.brief, unfinished
        self._backchannels = _phrases(turns.backchannels)
        self._stops = _phrases(turns.stops)
        self.seconds = 0.0

    def certain(self, text: str) -> bool:
        """Say whether a partial transcript is enough to know that the caller interrupts."""
        return self.seconds > self._brief and len(self._rest(text).split()) >= _CERTAIN_WORDS

    def passes(self, text: str) -> bool:
        """Say whether what was said up to a pause, or to the end, is a back-channel, so that the answer goes on.

        A recogniser often takes the few sounds of an "uh-huh" for other words: what is as brief as that counts as one,
        unless it has a word that people stop others with.
        """
        if not self._unfinished():
            return False
        brief = self.seconds <= self._brief and not self._stops.search(_plain(text))
        return brief or not self._rest(text)

    def _rest(self, text: str) -> str:
        """Return the words of a text that belong to no back-channel."""
        return " ".join(self._backchannels.sub(" ", _plain(text)).split())


def _plain(text: str) -> str:
    """Return a text's words, lower case, without marks."""
    return " ".join(re.findall(r"[^\W_]+(?:['\u2019][^\W_]+)*", text.lower())).replace("\u2019", "'")


def _phrases(phrases: Iterable[str]) -> re.Pattern[str]:
    """Return what finds any of some phrases, the longest first; where there are none it finds nothing."""
    found = sorted((_plain(phrase) for phrase in phrases if _plain(phrase)), key=len, reverse=True)
    return re.compile(rf"(?<!\S)(?:{'|'.join(map(re.escape, found))})(?!\S)" if found else r"(?!)")
