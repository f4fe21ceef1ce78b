"""Piper in a process of its own, because it is GPL. Hosted by `serve.worker`."""

from __future__ import annotations

import json
from importlib import import_module
from pathlib import Path
from typing import Any, NamedTuple

from serve.errors import ConfigError, EngineMissing
from serve.tts.onnx_child import Session, Stopped, give, quiet


class _Voice(NamedTuple):
    """A `piper.PiperVoice`, which of its speakers speaks, and its language."""

    voice: Any
    speaker: int | None
    language: str


class Speaking:
    """Voices, loaded; one text at a time.

    Args:
        voices: By name: the model's path, its configuration's, and the speaker.
        length_scale: As piper has it; None: the voice's own. The same goes for both noise scales.
        noise_scale: As above.
        noise_w_scale: As above.
        threads: Of one run.
        cuda: On a GPU.
    """

    def __init__(
        self,
        voices: dict[str, tuple[str, str, int | None]],
        length_scale: float | None,
        noise_scale: float | None,
        noise_w_scale: float | None,
        threads: int,
        cuda: bool,
    ) -> None:
        quiet()
        try:
            self._piper: Any = import_module("piper")
        except ImportError:
            raise EngineMissing("piper is not installed: `uv pip install 'parley[piper]'`") from None
        self._length, self._noise, self._noise_w = length_scale, noise_scale, noise_w_scale
        sessions: dict[str, Session] = {}
        self._voices: dict[str, _Voice] = {}
        for name, (model, config, speaker) in voices.items():
            if model not in sessions:
                sessions[model] = Session(model, threads, cuda)
            self._voices[name] = self._load(name, sessions[model], config, speaker)
        for name in self._voices:
            self.speak(lambda _: False, ["Ready."], name, 1.0)

    def describe(self) -> tuple[int, dict[str, tuple[int, str]]]:
        """Return the default voice's sample rate, and each voice's with its language."""
        voices = {name: (each.voice.config.sample_rate, each.language) for name, each in self._voices.items()}
        return next(iter(voices.values()))[0], voices

    def speak(self, emit: Any, texts: list[str], voice: str, speed: float) -> None:
        """Emit pcm16 mono as it is made; b"" ends each text."""
        speaking, speaker, _ = self._voices[voice]
        speaking.session.emit = emit
        config = self._piper.SynthesisConfig(
            speaker_id=speaker,
            length_scale=(self._length or speaking.config.length_scale) / speed,
            noise_scale=self._noise,
            noise_w_scale=self._noise_w,
        )
        try:
            for text in texts:
                for sentence in speaking.synthesize(text, config):
                    if give(emit, sentence.audio_int16_bytes, sentence.sample_rate):
                        return
                if emit(b""):
                    return
        except Stopped:
            return

    def _load(self, name: str, session: Session, config: str, speaker: int | None) -> _Voice:
        try:
            read: dict[str, Any] = json.loads(Path(config).read_text("utf-8"))
            parsed = self._piper.PiperConfig.from_dict(read)
        except (ValueError, KeyError) as error:
            problem = f"{Path(config).name} is no voice's configuration ({type(error).__name__})"
            raise EngineMissing(problem) from None
        if parsed.num_speakers > 1 and speaker is not None and speaker >= parsed.num_speakers:
            raise ConfigError(f"voice {name!r} has speakers 0 to {parsed.num_speakers - 1}, not {speaker}")
        language = str(read.get("language", {}).get("code") or parsed.espeak_voice).replace("_", "-")
        return _Voice(self._piper.PiperVoice(session, parsed, download_dir=Path(config).parent), speaker, language)
