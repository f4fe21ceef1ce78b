"""Piper: neural voices of many languages, small and quick enough for a CPU."""

from __future__ import annotations

from typing import Any

from pydantic import Field, ValidationInfo, field_validator, model_validator

from serve.config import Strict
from serve.errors import EngineMissing
from serve.tts.hosted import HostedOptions, HostedSpeech, local

_WHAT = "a voice of piper is an .onnx file with its .onnx.json beside it (https://huggingface.co/rhasspy/piper-voices)"
_OWN = "hf://rhasspy/piper-voices/en/en_US/ljspeech/medium/"
"""Its recordings are in the public domain; those of many other English voices are not for commercial use."""


class Voice(Strict):
    """A voice; in YAML its path alone will do.

    Attributes:
        path: Of the .onnx file, whose .onnx.json is beside it, or of a folder with just these; or an hf:// reference.
        speaker: Number of one of its speakers, where it has several; None: the one that options name, or its own.
    """

    path: str
    speaker: int | None = Field(default=None, ge=0)

    @model_validator(mode="before")
    @classmethod
    def _path_alone(cls, value: Any) -> Any:
        return {"path": value} if isinstance(value, str) else value


class Options(HostedOptions):
    """Options of piper.

    Attributes:
        voices: Voices by the names that requests use.
        voice: The default: a name of `voices`, or a path as there; None: the first of them, or LJ Speech.
        speaker: For voices of several speakers that name none.
        length_scale: Above 1.0 slower; None: as the voice says. A request's speed divides it.
        noise_scale: How much the sound varies; None: as the voice says.
        noise_w_scale: How much the lengths of sounds vary; None: as the voice says.
        threads: Of one process.
        cuda: On a GPU, by onnxruntime-gpu.
    """

    voices: dict[str, Voice] = Field(default_factory=dict)
    voice: str | None = None
    speaker: int | None = Field(default=None, ge=0)
    length_scale: float | None = Field(default=None, gt=0)
    noise_scale: float | None = Field(default=None, ge=0)
    noise_w_scale: float | None = Field(default=None, ge=0)
    threads: int = Field(default=2, ge=1)
    cuda: bool = False

    @field_validator("voice")
    @classmethod
    def _known(cls, voice: str | None, info: ValidationInfo) -> str | None:
        names = info.data.get("voices", {})
        if voice and voice not in names and "/" not in voice and not voice.endswith(".onnx"):
            raise ValueError(f"{voice!r} is no path, and none of voices ({', '.join(names) or 'none'})")
        return voice

    def wanted(self) -> list[tuple[str | None, Voice]]:
        """Return the voices with their names, None for that of the file; the default comes first."""
        voices = dict(self.voices)
        if self.voice in voices:
            return [(self.voice, voices.pop(self.voice)), *voices.items()]
        default = [(None, Voice(path=self.voice or _OWN))] if self.voice or not voices else []
        return [*default, *voices.items()]

    def files(self) -> tuple[str, ...]:
        """Return the paths and references that loading reads."""
        paths = [voice.path for _, voice in self.wanted()]
        return tuple(file for path in paths for file in (path, *([f"{path}.json"] if path.endswith(".onnx") else [])))


class Piper(HostedSpeech):
    """Speaks; a sentence at a time, in a child process."""

    Options = Options
    child = "serve.tts.piper_child:Speaking"

    def __init__(self, options: Options) -> None:
        super().__init__(options)
        self._options = options

    def arguments(self) -> dict[str, Any]:
        """Find the files."""
        found: dict[str, tuple[str, str, int | None]] = {}
        for name, voice in self._options.wanted():
            found |= self._found(voice, name)
        names = ("length_scale", "noise_scale", "noise_w_scale", "threads", "cuda")
        return {"voices": found, **{name: getattr(self._options, name) for name in names}}

    def _found(self, voice: Voice, name: str | None) -> dict[str, tuple[str, str, int | None]]:
        """Return a voice's model, configuration and speaker by its name; without one, by that of its file."""
        model, beside = local(voice.path, _WHAT), f"{voice.path}.json"
        if model.is_dir():
            models = sorted(model.glob("*.onnx"))
            if len(models) != 1:
                raise EngineMissing(f"{model} has {len(models)} .onnx files: {_WHAT}")
            model, beside = models[0], f"{models[0]}.json"
        config = local(beside, _WHAT)
        speaker = self._options.speaker if voice.speaker is None else voice.speaker
        return {name or model.stem: (str(model), str(config), speaker)}
