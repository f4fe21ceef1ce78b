"""What is true of Whisper wherever it runs: its models by name, its languages, and when it is not to be believed."""

from __future__ import annotations

import zlib
from collections.abc import Sequence
from dataclasses import dataclass

from pydantic import Field

from serve.audio import Floats
from serve.config import Strict
from serve.errors import BadRequest

RATE = 16_000
WINDOW_SECONDS = 30.0
"""What Whisper hears at once; everything shorter is filled up to it."""
POSITIONS = 448
"""Tokens of one window, those of the prompt with them."""

_PLAIN = ("tiny", "base", "small", "medium")
_OURS = (*_PLAIN, *(f"{name}.en" for name in _PLAIN), "large-v1", "large-v2", "large-v3")
_DISTILLED = ("distil-small.en", "distil-medium.en", "distil-large-v2", "distil-large-v3")
MODELS = {
    **{name: f"hf://Systran/faster-whisper-{name}" for name in _OURS},
    **{name: f"hf://Systran/faster-{name.replace('distil-', 'distil-whisper-')}" for name in _DISTILLED},
    "distil-large-v3.5": "hf://distil-whisper/distil-large-v3.5-ct2",
    "large-v3-turbo": "hf://mobiuslabsgmbh/faster-whisper-large-v3-turbo",
}
"""Where the models of CTranslate2's format are, by the names that faster-whisper gives them."""

_CODES = {"jv": "jw", "nb": "no", "iw": "he", "fil": "tl"}
"""Languages that Whisper calls otherwise than BCP 47 does."""


class Guards(Strict):
    """Options of what keeps Whisper from making up words (https://arxiv.org/abs/2212.04356, section 4.5).

    Attributes:
        no_speech: Silence where the model says so with this probability, and is unsure of the words; None: never.
        log_probability: A mean below this is unsure, and tried again; None: never.
        compression: Text that packs better than this repeats itself: tried again, in the end dropped; None: never.
        temperatures: Of the first try and of those that follow; the first is of use in audio over 30 s alone.
    """

    no_speech: float | None = Field(default=0.6, ge=0, le=1)
    log_probability: float | None = Field(default=-1.0, le=0)
    compression: float | None = Field(default=2.4, gt=0)
    temperatures: tuple[float, ...] = Field(default=(0.0, 0.4, 0.8), min_length=1)

    def silent(self, no_speech: float, mean: float) -> bool:
        """Whether nobody spoke: `no_speech` is the model's word for it, `mean` the log-probability of its tokens."""
        return (
            self.no_speech is not None
            and no_speech > self.no_speech
            and (self.log_probability is None or self.unsure(mean))
        )

    def unsure(self, mean: float) -> bool:
        """Whether another try may hear better."""
        return self.log_probability is not None and mean < self.log_probability

    def repeats(self, text: str) -> bool:
        """Whether the model ran in a circle."""
        data = text.strip().encode()
        return self.compression is not None and len(data) / len(zlib.compress(data)) > self.compression


@dataclass(frozen=True, slots=True)
class Utterance:
    """Audio as Whisper takes it.

    Attributes:
        samples: -1.0 to 1.0 at 16 kHz.
        seconds: Length.
        language: Whisper's code; None: to be detected.
        prompt: Names that are likely to occur.
        words: Say where each word is.
    """

    samples: Floats
    seconds: float
    language: str | None = None
    prompt: str | None = None
    words: bool = False


def code(language: str | None, known: Sequence[str]) -> str | None:
    """Return Whisper's code of a language.

    Args:
        language: BCP 47; None stays None.
        known: Codes that the model knows.

    Raises:
        BadRequest: The model does not know it.
    """
    if language is None:
        return None
    primary = language.replace("_", "-").split("-")[0].lower()
    found = _CODES.get(primary, primary)
    if found not in known:
        raise BadRequest(
            "language", f"this model hears {', '.join(known[:3])}{' and others' if known[3:] else ''} only"
        )
    return found


def tag(found: str) -> str:
    """Return the BCP 47 tag of one of Whisper's codes."""
    return "jv" if found == "jw" else found
