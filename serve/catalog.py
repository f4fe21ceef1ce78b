"""Providers that come as livekit-agents plugins: a line of this table is an engine.

A line is a name for options of `serve.{stt,llm,tts}.plugin`: the same that a profile can give to `livekit-stt`,
`livekit-llm` and `livekit-tts`, which have none of their own.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

from serve.contracts import Role


@dataclass(frozen=True, slots=True)
class Line:
    """An engine of the table.

    Attributes:
        role: What it serves.
        summary: One line for people who choose.
        preset: Its options; those of a profile come over them.
    """

    role: Role
    summary: str
    preset: dict[str, Any]

    @property
    def target(self) -> str:
        """The engine's class, one for each role."""
        return f"serve.{self.role}.plugin:{_CLASSES[self.role]}"

    @property
    def extra(self) -> str | None:
        """The extra that brings the plugin."""
        return self.preset.get("extra")


_CLASSES: dict[Role, str] = {
    "stt": "PluginSpeechToText",
    "llm": "PluginLanguageModel",
    "tts": "PluginTextToSpeech",
}


def _line(role: Role, package: str, summary: str, *variables: str, **preset: Any) -> Line:
    plugin = f"livekit.plugins.{package}:{role.upper()}"
    return Line(role, summary, {"plugin": plugin, "extra": package, "variables": list(variables), **preset})


_AWS = ("AWS_ACCESS_KEY_ID", "AWS_SECRET_ACCESS_KEY")
_AWS_OPTIONS: dict[str, Any] = {"key_argument": None, "environment": {"AWS_MAX_ATTEMPTS": "1"}}
_GOOGLE = ("GOOGLE_APPLICATION_CREDENTIALS",)

CATALOG: dict[str, Line] = {
    "livekit-stt": Line("stt", "any livekit-agents STT plugin, named by the option plugin", {}),
    "livekit-llm": Line("llm", "any livekit-agents LLM plugin, named by the option plugin", {}),
    "livekit-tts": Line("tts", "any livekit-agents TTS plugin, named by the option plugin", {}),
    "deepgram-stt": _line(
        *("stt", "deepgram", "Deepgram Nova, streaming", "DEEPGRAM_API_KEY"),
        address="https://api.deepgram.com",
        # Its keep-alive holds the stream open for up to 5 s after the last word.
        settle_seconds=0.5,
    ),
    "deepgram-tts": _line(
        *("tts", "deepgram", "Deepgram Aura", "DEEPGRAM_API_KEY"),
        address="https://api.deepgram.com",
        takes={"voice": "model", "speed": "speed"},
    ),
    "elevenlabs-stt": _line(
        *("stt", "elevenlabs", "ElevenLabs Scribe, whole utterances", "ELEVEN_API_KEY"),
        address="https://api.elevenlabs.io",
        arguments={"model": "scribe_v2", "tag_audio_events": False},
        takes={"language": "language_code"},
    ),
    "elevenlabs-tts": _line(
        *("tts", "elevenlabs", "ElevenLabs voices", "ELEVEN_API_KEY"),
        address="https://api.elevenlabs.io",
        arguments={"encoding": "pcm_24000"},
        takes={"voice": "voice_id", "language": "language"},
    ),
    "aws-stt": _line(
        *("stt", "aws", "Amazon Transcribe, streaming; Python 3.12", *_AWS),
        arguments={"sample_rate": 16000},
        **_AWS_OPTIONS,
    ),
    "aws-llm": _line(
        *("llm", "aws", "models of Amazon Bedrock", *_AWS),
        takes={"max_tokens": "max_output_tokens", "temperature": "temperature", "top_p": "top_p"},
        **_AWS_OPTIONS,
    ),
    "aws-tts": _line(
        *("tts", "aws", "Amazon Polly", *_AWS), takes={"voice": "voice", "language": "language"}, **_AWS_OPTIONS
    ),
    "google-stt": _line("stt", "google", "Google Cloud Speech-to-Text, streaming", *_GOOGLE, key_argument=None),
    "google-llm": _line(
        *("llm", "google", "Gemini, by its own API or Vertex AI", "GOOGLE_API_KEY"),
        passes={
            **{name: name for name in ("temperature", "top_p", "seed")},
            **{"max_tokens": "max_output_tokens", "stop": "stop_sequences"},
        },
    ),
    "google-tts": _line(
        *("tts", "google", "Google Cloud voices", *_GOOGLE),
        key_argument=None,
        streamed=True,
        takes={"voice": "voice_name", "language": "language", "speed": "speaking_rate"},
    ),
    "anthropic-llm": _line(
        *("llm", "anthropic", "Claude", "ANTHROPIC_API_KEY"),
        passes={
            **{name: f"extra_body.{name}" for name in ("max_tokens", "temperature", "top_p")},
            "stop": "extra_body.stop_sequences",
        },
    ),
    "cartesia-tts": _line(
        *("tts", "cartesia", "Cartesia Sonic", "CARTESIA_API_KEY"),
        address="https://api.cartesia.ai",
        takes={"voice": "voice", "language": "language", "speed": "speed"},
    ),
}
