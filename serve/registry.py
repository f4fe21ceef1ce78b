"""Engines by name. Adding one is a file and a line here; nothing is imported before it is asked for."""

from __future__ import annotations

import difflib
from collections.abc import Mapping
from dataclasses import dataclass, field
from importlib import import_module
from typing import Any, cast

from pydantic import ValidationError

from serve.catalog import CATALOG
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
        preset: Options that the name stands for; those of a profile come over them, in dicts key by key.
        licence: Of the engine's own code and libraries, as SPDX names it; models have their own.
    """

    role: Role
    target: str
    extra: str | None
    summary: str
    proxy: bool = False
    preset: Mapping[str, Any] = field(default_factory=dict[str, Any])
    licence: str = ""


_ENTRIES: dict[str, Entry] = {}


def register(
    name: str,
    role: Role,
    target: str,
    extra: str | None,
    summary: str,
    *,
    proxy: bool = False,
    preset: Mapping[str, Any] | None = None,
    licence: str = "",
) -> None:
    """Add an engine.

    Raises:
        ConfigError: The name is taken.
    """
    if name in _ENTRIES:
        raise ConfigError(f"engine {name!r} is registered twice: {_ENTRIES[name].target} and {target}")
    _ENTRIES[name] = Entry(role, target, extra, summary, proxy, preset or {}, licence)


register(
    "pocketsphinx",
    "stt",
    "serve.stt.pocketsphinx:PocketSphinx",
    None,
    "English, streaming, on a CPU",
    licence="BSD-2-Clause",
)
register(
    "faster-whisper",
    "stt",
    "serve.stt.faster_whisper:FasterWhisper",
    "faster-whisper",
    "Whisper, a hundred languages, many calls in one pass; best on a GPU",
    licence="MIT",
)
register(
    "onnx-asr",
    "stt",
    "serve.stt.onnx_asr:OnnxAsr",
    "onnx-asr",
    "Parakeet, Canary and others of ONNX, CPU or GPU",
    licence="MIT",
)
register(
    "llamacpp",
    "llm",
    "serve.llm.llamacpp:LlamaCpp",
    None,
    "any GGUF file; its own is SmolLM2 135M",
    licence="MIT",
)
register(
    "vllm",
    "llm",
    "serve.llm.vllm:VLLM",
    "vllm",
    "any model of vLLM, on GPUs: many conversations at once, LoRA",
    licence="Apache-2.0",
)
register("flite", "tts", "serve.tts.flite:Flite", None, "English, quick; needs Debian's libflite1", licence="MIT-CMU")
register(
    "espeak",
    "tts",
    "serve.tts.espeak:Espeak",
    "espeak",
    "many languages, robotic; in a process of its own (GPL)",
    licence="GPL-3.0",
)
register(
    "piper",
    "tts",
    "serve.tts.piper:Piper",
    "piper",
    "many languages, quick; in a process of its own (GPL)",
    licence="GPL-3.0",
)
register(
    "kokoro",
    "tts",
    "serve.tts.kokoro:Kokoro",
    "kokoro",
    "natural, slower; in a process of its own (GPL)",
    licence="GPL-3.0",
)
for _name, _line in CATALOG.items():
    register(_name, _line.role, _line.target, _line.extra, _line.summary, proxy=True, preset=_line.preset)
register(
    "openai-stt", "stt", "serve.stt.openai:OpenAITranscription", None, "OpenAI, or a compatible server", proxy=True
)
register("openai-llm", "llm", "serve.llm.openai:OpenAIChat", None, "OpenAI, or a compatible server", proxy=True)
register("openai-tts", "tts", "serve.tts.openai:OpenAISpeech", None, "OpenAI, or a compatible server", proxy=True)
register("azure-openai-stt", "stt", "serve.stt.openai:AzureOpenAITranscription", None, "Azure OpenAI", proxy=True)
register("azure-openai-llm", "llm", "serve.llm.openai:AzureOpenAIChat", None, "Azure OpenAI", proxy=True)
register("azure-openai-tts", "tts", "serve.tts.openai:AzureOpenAISpeech", None, "Azure OpenAI", proxy=True)
register(
    "azure-speech-stt", "stt", "serve.stt.azure_speech:AzureSpeechToText", None, "Azure Speech, up to 60 s", proxy=True
)
register("azure-speech-tts", "tts", "serve.tts.azure_speech:AzureTextToSpeech", None, "Azure Speech", proxy=True)
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
        return model.model_validate(_over(entry(name).preset, values))
    except ValidationError as error:
        problems = [_problem(model, problem["type"], problem["loc"], problem["msg"]) for problem in error.errors()]
        raise ConfigError(f"engine {name!r}: {'; '.join(problems)}") from None


def _over(preset: Mapping[str, Any], values: Mapping[str, Any]) -> dict[str, Any]:
    """Return one set of options over another; dicts are merged key by key."""
    merged = {**preset, **values}
    for key in preset.keys() & values.keys():
        if isinstance(preset[key], dict) and isinstance(values[key], dict):
            merged[key] = {**preset[key], **values[key]}
    return merged


def _problem(model: type[Strict], kind: str, place: tuple[int | str, ...], message: str) -> str:
    key = ".".join(str(part) for part in place)
    if kind == "extra_forbidden":
        choices = sorted(model.model_fields)
        return f"no option {key!r}{_guess(key, choices)}; there are {', '.join(choices) or 'none'}"
    return f"option {key!r}: {message[:1].lower()}{message[1:]}"


def _guess(name: str, choices: list[str]) -> str:
    close = difflib.get_close_matches(name, choices, n=1)
    return f" (did you mean {close[0]!r}?)" if close else ""
