"""espeak-ng in a process of its own: it is GPL, and not thread safe. Hosted by `serve.worker`."""

from __future__ import annotations

import ctypes
from importlib import import_module
from typing import Any

from serve.errors import BadRequest, EngineFailed, EngineMissing

_SYNCHRONOUS, _DONT_EXIT = 2, 0x8000
_UTF8, _CHARACTERS = 1, 1
_RATE_PARAMETER, _WORDS_A_MINUTE = 1, 165
_BUFFER_MS = 60
_SLOWEST, _FASTEST = 80, 450


class Speaking:
    """The library; one text at a time."""

    def __init__(self) -> None:
        try:
            loader: Any = import_module("espeakng_loader")
        except ImportError:
            raise EngineMissing("espeak is not installed: `uv pip install 'parley[espeak]'`") from None
        try:
            self._library: Any = ctypes.CDLL(loader.get_library_path())
        except OSError:
            raise EngineMissing(
                "espeak's library does not load: `uv pip install --reinstall espeakng-loader`"
            ) from None
        data = str(loader.get_data_path()).encode()
        self._rate = int(self._library.espeak_Initialize(_SYNCHRONOUS, _BUFFER_MS, data, _DONT_EXIT))
        if self._rate <= 0:
            raise EngineMissing("espeak's data is not there: `uv pip install --reinstall espeakng-loader`")

    def describe(self) -> tuple[int, dict[str, tuple[int, str]]]:
        """Return the sample rate in Hz; the voices are too many to list."""
        return self._rate, {}

    def speak(self, emit: Any, texts: list[str], voice: str, speed: float) -> None:
        """Emit pcm16 mono as it is made; b"" ends each text."""
        if self._library.espeak_SetVoiceByName(voice.encode()):
            raise BadRequest("voice", f"espeak has no voice {voice!r}")
        words = min(_FASTEST, max(_SLOWEST, round(_WORDS_A_MINUTE * speed)))
        self._library.espeak_SetParameter(_RATE_PARAMETER, words, 0)
        stopped = False

        @ctypes.CFUNCTYPE(ctypes.c_int, ctypes.c_void_p, ctypes.c_int, ctypes.c_void_p)
        def on_audio(samples: int | None, count: int, _events: int | None) -> int:
            nonlocal stopped
            if samples and count > 0 and not stopped:
                stopped = bool(emit(ctypes.string_at(samples, 2 * count)))
            return int(stopped)

        self._library.espeak_SetSynthCallback(on_audio)
        for text in texts:
            data = text.encode()
            if self._library.espeak_Synth(data, len(data) + 1, 0, _CHARACTERS, 0, _UTF8, None, None):
                raise EngineFailed("espeak could not speak the text")
            if stopped or emit(b""):
                return
