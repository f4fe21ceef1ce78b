"""Kokoro in a process of its own: its phonemes are made by espeak-ng, which is GPL. Hosted by `serve.worker`."""

from __future__ import annotations

import re
import tempfile
from importlib import import_module
from typing import Any

from serve.audio import from_float
from serve.errors import ConfigError, EngineMissing
from serve.tts.onnx_child import Session, Stopped, give, quiet

_RATE = 24000
_SLOWEST, _FASTEST = 0.5, 2.0

_SWITCH = re.compile(r"\([a-z]{2,3}(-[a-z]+)*\)")
"""Where espeak-ng changes to another language for a word, it says so; it would be spoken."""

_LANGUAGES = {
    "a": ("en-us", "en-US"),
    "b": ("en-gb", "en-GB"),
    "e": ("es", "es"),
    "f": ("fr-fr", "fr"),
    "h": ("hi", "hi"),
    "i": ("it", "it"),
    "j": ("ja", "ja"),
    "p": ("pt-br", "pt-BR"),
    "z": ("cmn", "zh"),
}
"""By the first letter of a voice: as espeak-ng names it, and as BCP 47 does.

Source: VOICES.md of hexgrad/Kokoro-82M.
"""


class Speaking:
    """The model, loaded; one text at a time.

    Args:
        model: Path of the ONNX file.
        voices: Path of the voices' file.
        voice: The default.
        language: As espeak-ng names it, for all voices; None: each voice's own.
        threads: Of one run.
        cuda: On a GPU.
        scratch: A folder for temporary files, which the parent removes.
    """

    def __init__(
        self, model: str, voices: str, voice: str, language: str | None, threads: int, cuda: bool, scratch: str
    ) -> None:
        quiet()
        # The phonemizer loads copies of espeak-ng's library from there, and removes them only where it ends by itself.
        tempfile.tempdir = scratch
        try:
            package: Any = import_module("kokoro_onnx")
        except ImportError:
            raise EngineMissing("kokoro is not installed: `uv pip install 'parley[kokoro]'`") from None
        self._session = Session(model, threads, cuda)
        try:
            self._kokoro: Any = package.Kokoro.from_session(self._session, voices)
            names: list[str] = self._kokoro.get_voices()
        except (ValueError, OSError, AttributeError) as error:
            raise EngineMissing(f"the voices' file does not load ({type(error).__name__})") from None
        if voice not in names:
            raise ConfigError(f"kokoro has no voice {voice!r}; there are {', '.join(names)}")
        self._names = sorted(names, key=lambda name: name != voice)
        self._language = language
        try:
            self.phonemes("ready", voice)
        except RuntimeError:
            raise ConfigError(f"espeak-ng has no language {language!r}") from None
        self.speak(lambda _: False, ["Ready."], voice, 1.0)

    def describe(self) -> tuple[int, dict[str, tuple[int, str]]]:
        """Return the sample rate, and each voice's with its language."""
        return _RATE, {name: (_RATE, self._language or _language(name)[1]) for name in self._names}

    def phonemes(self, text: str, voice: str) -> str:
        """Return what the model is given for a text, in the voice's language."""
        phonemes: str = self._kokoro.tokenizer.phonemize(text, self._language or _language(voice)[0])
        return _SWITCH.sub("", phonemes).strip()

    def speak(self, emit: Any, texts: list[str], voice: str, speed: float) -> None:
        """Emit pcm16 mono as it is made; b"" ends each text."""
        self._session.emit = emit
        pace = min(_FASTEST, max(_SLOWEST, speed))
        try:
            for text in texts:
                if phonemes := self.phonemes(text, voice):
                    # Silence is cut by the parent, as it is for every engine.
                    audio, rate = self._kokoro.create(phonemes, voice, pace, is_phonemes=True, trim=False)
                    if give(emit, from_float(audio), rate):
                        return
                if emit(b""):
                    return
        except Stopped:
            return


def _language(voice: str) -> tuple[str, str]:
    return _LANGUAGES.get(voice[:1], _LANGUAGES["a"])
