"""One pocketsphinx decoder in a process of its own: it never lets go of the GIL. Hosted by `serve.worker`."""

from __future__ import annotations

from importlib import import_module
from typing import Any

from serve.errors import EngineMissing

RATE = 16_000
_LISTEN_BYTES = int(0.8 * RATE) * 2
"""Audio that the channel is judged by before the search begins."""
_PRIOR = (44.8, 0.6, 3.6, 7.6, 1.4, 0.3, 3.2, -4.5, -3.0, -2.2, 3.7, 0.0, 0.8)
"""Cepstral mean of clean speech. The decoder's own start, 40,3,-1, doubles the word error rate."""
_PRIOR_FRAMES = 100
"""Weight of the prior against what was heard."""
_WINDOW = 500
"""Frames that pocketsphinx counts the mean it was given for (CMN_WIN)."""
_BYTES_A_FRAME = RATE // 100 * 2
_FILLERS = ("<", "[", "++")

Heard = tuple[str, tuple[tuple[str, float, float, float], ...]]
"""Text, and its words with start, end (seconds) and confidence."""


class Decoding:
    """A decoder for one utterance at a time.

    Args:
        config: pocketsphinx's own parameters.
    """

    def __init__(self, config: dict[str, Any]) -> None:
        try:
            decoder: Any = import_module("pocketsphinx").Decoder
        except ImportError:
            raise EngineMissing("pocketsphinx is not installed: `uv pip install pocketsphinx`") from None
        try:
            self._decoder: Any = decoder(samprate=RATE, loglevel="FATAL", **config)
        except (RuntimeError, ValueError):
            places = ", ".join(str(config[key]) for key in ("hmm", "lm", "dict") if key in config)
            raise EngineMissing(f"pocketsphinx cannot read its model ({places or 'the one in its wheel'})") from None
        self._waiting = b""
        self._searching = False
        self._open = False

    def start(self) -> None:
        """Begin an utterance; an unfinished one is dropped."""
        self._end()
        self._waiting, self._searching = b"", False

    def feed(self, audio: bytes) -> str:
        """Decode pcm16 mono at 16 kHz; return the text so far."""
        if not self._searching:
            self._waiting += audio
            if len(self._waiting) < _LISTEN_BYTES:
                return ""
            audio = self._begin()
        self._search(audio)
        return self._text()

    def finish(self) -> Heard:
        """End the utterance."""
        if not self._searching:
            if not any(self._waiting):
                return "", ()
            self._search(self._begin())
        self._end()
        self._searching = False
        words = tuple(self._words())
        return " ".join(word[0] for word in words), words

    def _search(self, audio: bytes) -> None:
        if audio:
            self._decoder.process_raw(audio, False, False)

    def _begin(self) -> bytes:
        """Start the search with this utterance's own mean, so that no other utterance has a say in it."""
        audio, self._waiting, self._searching = self._waiting, b"", True
        self._decoder.set_cmn(self._mean(audio))
        self._decoder.start_utt()
        self._open = True
        return audio

    def _mean(self, audio: bytes) -> str:
        frames = len(audio) // _BYTES_A_FRAME - 2
        mean = list(_PRIOR)
        if frames > 0:
            self._decoder.set_cmn(_joined(mean))
            self._decoder.start_utt()
            self._decoder.process_raw(audio, True, False)  # features only, no search
            self._decoder.end_utt()
            updated = [float(value) for value in self._decoder.get_cmn(True).split(",")]
            heard = [
                (new * (_WINDOW + frames) - old * _WINDOW) / frames for new, old in zip(updated, mean, strict=True)
            ]
            mean = [
                (old * _PRIOR_FRAMES + new * frames) / (_PRIOR_FRAMES + frames)
                for new, old in zip(heard, mean, strict=True)
            ]
        return _joined(mean)

    def _end(self) -> None:
        if self._open:
            self._open = False
            self._decoder.end_utt()

    def _text(self) -> str:
        best = self._decoder.hyp()
        return best.hypstr if best is not None else ""

    def _words(self) -> list[tuple[str, float, float, float]]:
        segments = self._decoder.seg() if self._decoder.hyp() is not None else None
        exp = self._decoder.logmath.exp
        return [
            (
                segment.word.split("(")[0],
                segment.start_frame / 100,
                (segment.end_frame + 1) / 100,
                min(1.0, exp(segment.prob)),
            )
            for segment in segments or ()
            if not segment.word.startswith(_FILLERS)
        ]


def _joined(mean: list[float]) -> str:
    return ",".join(f"{value:.4f}" for value in mean)
