"""Engines by name. Adding one is a file and a line here; nothing is imported before it is asked for."""

from __future__ import annotations

import difflib
from dataclasses import dataclass
from importlib import import_module
from typing import Any, cast

from pydantic import ValidationError

from serve.config import Strict
from serve.contracts import Engine, Role
from serve.errors import ConfigError, EngineMissing


@dataclass(frozen=True, slots=True)
class Entry:
    """Where an engine is.

    Attributes:
        role: What it serves.
        target: `module:Class`; the class has its pydantic `Options` as an attribute and is built from one.
        extra: The extra of this package that brings its dependency; None: always there.
        summary: One line for people who choose.
        proxy: Somebody else's service: it is paid for, and needs a key.
    """

    role: Role
    target: str
    extra: str | None
    summary: str
    proxy: bool = False


_ENTRIES: dict[str, Entry] = {}


def register(name: str, role: Role, target: str, extra: str | None, summary: str, *, proxy: bool = False) -> None:
    """Add an engine.

    Raises:
        ConfigError: The name is taken.
    """
    if name in _ENTRIES:
        raise ConfigError(f"engine {name!r} is registered twice: {_ENTRIES[name].target} and {target}")
    _ENTRIES[name] = Entry(role, target, extra, summary, proxy)


register("pocketsphinx", "stt", "serve.stt.pocketsphinx:PocketSphinx", None, "English, streaming, on a CPU")
register(
    "faster-whisper",
    "stt",
    "serve.stt.faster_whisper:FasterWhisper",
    "faster-whisper",
    "Whisper, a hundred languages, many calls in one pass; best on a GPU",
)
register("onnx-asr", "stt", "serve.stt.onnx_asr:OnnxAsr", "onnx-asr", "Parakeet, Canary and others of ONNX, CPU or GPU")
register("llamacpp", "llm", "serve.llm.llamacpp:LlamaCpp", None, "any GGUF file; its own is SmolLM2 135M")
register("flite", "tts", "serve.tts.flite:Flite", None, "English, quick; needs Debian's libflite1")
register("espeak", "tts", "serve.tts.espeak:Espeak", None, "many languages, robotic; in a process of its own (GPL)")
register("piper", "tts", "serve.tts.piper:Piper", "piper", "many languages, quick; in a process of its own (GPL)")
register("kokoro", "tts", "serve.tts.kokoro:Kokoro", "kokoro", "natural, slower; in a process of its own (GPL)")
register("fake-stt", "stt", "serve.stt.fake:FakeSpeechToText", None, "for tests: hears what its options say")
register(
    "fake-llm", "llm", "serve.llm.fake:FakeLanguageModel", None, "for tests: says what its options say, or repeats"
)
register("fake-tts", "tts", "serve.tts.fake:FakeTextToSpeech", None, "for tests: a tone as long as the text")


def engines(role: Role | None = None) -> dict[str, Entry]:
    """Return the engines by name, those of one role where given."""
    return {name: entry for name, entry in sorted(_ENTRIES.items()) if role in (None, entry.role)}


def entry(name: str) -> Entry:
    """Return an engine's entry.

    Raises:
        ConfigError: No such engine; the message lists those there are.
    """
    if name in _ENTRIES:
        return _ENTRIES[name]
    raise ConfigError(f"no engine {name!r}{_guess(name, list(_ENTRIES))}; choose one of {', '.join(sorted(_ENTRIES))}")


def options(name: str, values: dict[str, Any]) -> Strict:
    """Check an engine's options without loading it.

    Raises:
        ConfigError: A key or value is wrong; the message names it and the choices.
        EngineMissing: The engine's module needs an extra that is not installed.
    """
    return _validated(name, _engine_class(name), values)


def create(name: str, values: dict[str, Any]) -> Engine:
    """Build an engine; `load` comes next.

    Raises:
        ConfigError: The name or an option is wrong.
        EngineMissing: The engine's module needs an extra that is not installed.
    """
    cls = _engine_class(name)
    return cast("Engine", cls(_validated(name, cls, values)))


def _engine_class(name: str) -> Any:
    found = entry(name)
    module, attribute = found.target.split(":")
    try:
        return getattr(import_module(module), attribute)
    except ModuleNotFoundError as error:
        if (error.name or "").split(".")[0] == "serve" or found.extra is None:
            raise
        raise EngineMissing(f"engine {name!r} needs {error.name}: `uv pip install 'parley[{found.extra}]'`") from None


def _validated(name: str, cls: Any, values: dict[str, Any]) -> Strict:
    model = cast("type[Strict]", cls.Options)
    try:
        return model.model_validate(values)
    except ValidationError as error:
        problems = [_problem(model, problem["type"], problem["loc"], problem["msg"]) for problem in error.errors()]
        raise ConfigError(f"engine {name!r}: {'; '.join(problems)}") from None


def _problem(model: type[Strict], kind: str, place: tuple[int | str, ...], message: str) -> str:
    key = ".".join(str(part) for part in place)
    if kind == "extra_forbidden":
        choices = sorted(model.model_fields)
        return f"no option {key!r}{_guess(key, choices)}; there are {', '.join(choices) or 'none'}"
    return f"option {key!r}: {message[:1].lower()}{message[1:]}"


def _guess(name: str, choices: list[str]) -> str:
    close = difflib.get_close_matches(name, choices, n=1)
    return f" (did you mean {close[0]!r}?)" if close else ""
