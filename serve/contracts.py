"""What a model takes and gives: three Protocols and the values that cross them.

Free of vendor SDKs and of Ray. Audio is always pcm16 mono, little endian, with its sample rate beside it. Messages
and tools have the shapes of OpenAI's chat API.
"""

from __future__ import annotations

from collections.abc import AsyncGenerator, Sequence
from dataclasses import dataclass, field
from typing import Any, Literal, Protocol, runtime_checkable

from serve.errors import ParleyError

Role = Literal["stt", "llm", "tts"]
ROLES: tuple[Role, ...] = ("stt", "llm", "tts")

SAMPLE_WIDTH = 2
"""Bytes in one sample of pcm16 mono."""


@dataclass(frozen=True, slots=True)
class Capabilities:
    """What an engine can do, as data: the shell and the callers fill the gaps.

    Attributes:
        streaming: STT decodes while the person speaks (`open` is there). LLM and TTS always stream.
        sample_rate: Hz; what an STT engine hears best, or what a TTS engine makes. None: any, or unknown yet.
        languages: BCP 47 tags; empty: not limited.
        prefill: The LLM can read a prompt ahead of the request that will need it (`prefill` is there).
        tools: The LLM calls tools.
        structured: The LLM keeps to a JSON schema (`ChatRequest.response_format`).
        words: STT can say where each word is (`TranscribeRequest.words`).
        images: The LLM sees pictures (`image_url` parts of messages).
        continues: The LLM goes on in the middle of an answer (`ChatRequest.so_far`); others are asked to in words.
        voices: Names a TTS engine accepts as `voice`; empty: not listed.
    """

    streaming: bool = False
    sample_rate: int | None = None
    languages: tuple[str, ...] = ()
    prefill: bool = False
    tools: bool = False
    structured: bool = False
    words: bool = False
    images: bool = False
    continues: bool = False
    voices: tuple[str, ...] = ()


@dataclass(frozen=True, slots=True)
class Usage:
    """What one request used. Fields add up over requests; a field that does not apply stays 0.

    Attributes:
        audio_seconds: Heard (STT) or made (TTS).
        characters: Of text spoken (TTS).
        prompt_tokens: Read by the LLM, cached ones included.
        cached_tokens: Of the prompt, taken from a cache.
        completion_tokens: Written by the LLM.
        busy_seconds: Time the engine worked for this request.
        gpu_seconds: `busy_seconds` times the GPUs that the replica holds; filled in by the shell.
    """

    audio_seconds: float = 0.0
    characters: int = 0
    prompt_tokens: int = 0
    cached_tokens: int = 0
    completion_tokens: int = 0
    busy_seconds: float = 0.0
    gpu_seconds: float = 0.0


@dataclass(frozen=True, slots=True)
class RequestContext:
    """Who asks, and for how long an answer is of use.

    Attributes:
        call: Id of the call, or "" outside one. It also keeps the pieces of one call on one replica.
        timeout: Seconds from now on that the whole answer may take.
        model: Ask this model and no other; None: the one that serves the role, and its fallbacks after it.
        trace: The span above, as W3C's traceparent; "": this request is not traced.
    """

    call: str = ""
    timeout: float = 30.0
    model: str | None = None
    trace: str = ""


@dataclass(frozen=True, slots=True)
class TranscribeRequest:
    """One whole utterance.

    Attributes:
        audio: pcm16 mono, little endian.
        sample_rate: Hz.
        language: BCP 47, or None to detect or take the engine's own.
        prompt: Names and words that are likely to occur.
        words: Say where each word is, where the engine can.
    """

    audio: bytes
    sample_rate: int
    language: str | None = None
    prompt: str | None = None
    words: bool = False


@dataclass(frozen=True, slots=True)
class ListenRequest:
    """One piece of an utterance that is still being spoken.

    Attributes:
        stream: Id of the utterance, made by the caller.
        sequence: 0 opens the stream; each piece is one more than the one before.
        audio: pcm16 mono, little endian; may be empty in the last piece.
        sample_rate: Hz, the same for all pieces of a stream.
        last: The utterance ends with this piece: the answer is the final transcript, and the stream is closed.
        language: BCP 47, or None.
    """

    stream: str
    sequence: int
    audio: bytes
    sample_rate: int
    last: bool = False
    language: str | None = None


@dataclass(frozen=True, slots=True)
class Word:
    """A word with its place in the audio, seconds from the start."""

    text: str
    start: float
    end: float
    confidence: float | None = None


@dataclass(frozen=True, slots=True)
class Segment:
    """A stretch of speech, about a sentence, with its place in the audio, seconds from the start."""

    text: str
    start: float
    end: float


@dataclass(frozen=True, slots=True)
class Transcript:
    """What was understood.

    Attributes:
        text: "" where there was no speech.
        final: False while the person still speaks.
        language: BCP 47, as asked for or detected.
        confidence: 0.0 to 1.0, where the engine says.
        words: With their places, where asked for or free.
        segments: Sentences or so with their places, where the engine says.
        usage: What it took.
        model: Which model it was; filled in by the client.
    """

    text: str
    final: bool = True
    language: str | None = None
    confidence: float | None = None
    words: tuple[Word, ...] = ()
    segments: tuple[Segment, ...] = ()
    usage: Usage = field(default_factory=Usage)
    model: str = ""


@dataclass(frozen=True, slots=True)
class ChatRequest:
    """A conversation that wants its next message.

    Attributes:
        messages: OpenAI chat messages (`{"role": ..., "content": ...}`), oldest first.
        tools: OpenAI tool definitions.
        max_tokens: Most tokens of the answer; None: the engine's own limit.
        temperature: None: the engine's own.
        stop: Texts that end the answer and are not part of it.
        seed: For engines that can repeat themselves.
        top_p: Likelier words that are considered, by their summed probability; None: the engine's own.
        tool_choice: As OpenAI's: "auto", "none", "required" or one function; None: the engine's own.
        response_format: As OpenAI's: `{"type": "json_schema", ...}` or `{"type": "json_object"}`.
        adapter: Name of one of the engine's LoRA adapters.
        so_far: The beginning of the answer, which another replica or model has given: go on from there.
    """

    messages: list[dict[str, Any]]
    tools: tuple[dict[str, Any], ...] = ()
    max_tokens: int | None = None
    temperature: float | None = None
    stop: tuple[str, ...] = ()
    seed: int | None = None
    top_p: float | None = None
    tool_choice: str | dict[str, Any] | None = None
    response_format: dict[str, Any] | None = None
    adapter: str | None = None
    so_far: str = ""


@dataclass(frozen=True, slots=True)
class ToolCall:
    """A whole call of a tool; `arguments` is JSON."""

    id: str
    name: str
    arguments: str


@dataclass(frozen=True, slots=True)
class ChatChunk:
    """A piece of the answer. The last one says why it ended and what was used; the client adds which model it was."""

    text: str = ""
    tool_calls: tuple[ToolCall, ...] = ()
    finish_reason: Literal["stop", "length", "tool_calls", "content_filter"] | None = None
    usage: Usage | None = None
    model: str = ""


@dataclass(frozen=True, slots=True)
class SpeechRequest:
    """Text to speak.

    Attributes:
        text: Plain text, a clause or a few sentences.
        voice: One of the engine's voices, or None for its own.
        language: BCP 47, or None.
        speed: 1.0 is the voice's own pace.
    """

    text: str
    voice: str | None = None
    language: str | None = None
    speed: float = 1.0


@dataclass(frozen=True, slots=True)
class SpeechChunk:
    """A piece of speech: pcm16 mono, little endian. The last one carries the usage and may hold no audio.

    `model` says which model it was; filled in by the client.
    """

    audio: bytes
    sample_rate: int
    usage: Usage | None = None
    model: str = ""


class TranscriptionStream(Protocol):
    """An utterance that is being decoded while it is spoken."""

    async def feed(self, audio: bytes) -> str:
        """Decode one more piece.

        Args:
            audio: pcm16 mono at the stream's sample rate.

        Returns:
            The whole utterance as understood so far.
        """
        ...

    async def finish(self) -> Transcript:
        """End the utterance and return its final transcript."""
        ...

    async def close(self) -> None:
        """Free what the stream holds; harmless after `finish` and when called twice."""
        ...


class Engine(Protocol):
    """A model. `load` comes first and once; `close` comes last. Constructed with its own `Options`."""

    @property
    def capabilities(self) -> Capabilities:
        """What it can do; complete once `load` has returned."""
        ...

    async def load(self) -> None:
        """Bring the model into memory.

        Raises:
            EngineMissing: A package, library or file is not there; the message says what to install.
        """
        ...

    async def close(self) -> None:
        """Free memory, threads and processes."""
        ...


@runtime_checkable
class WarmingEngine(Engine, Protocol):
    """Gets ready for its first request without one: the shell calls `warm` in place of a small request of its own.

    For proxies, whose requests cost money, and which must come up while their provider is away.
    """

    async def warm(self) -> None:
        """Open connections; within bounds, and what fails is logged and no error."""
        ...


@runtime_checkable
class CheckedEngine(Engine, Protocol):
    """Can break down for good while nobody asks it: the shell calls `check` each time Serve asks for its health."""

    async def check(self) -> None:
        """Return at once where all is well.

        Raises:
            EngineFailed: No request will succeed on this replica again; Serve replaces it.
        """
        ...


@runtime_checkable
class SpeechToText(Engine, Protocol):
    """Understands an utterance."""

    async def transcribe(self, request: TranscribeRequest) -> Transcript:
        """Transcribe one whole utterance; silence gives an empty text."""
        ...


@runtime_checkable
class BatchingSpeechToText(SpeechToText, Protocol):
    """Understands utterances of different calls in one pass; the shell gathers them (`ModelConfig.batch`)."""

    async def transcribe_batch(self, requests: Sequence[TranscribeRequest]) -> list[Transcript | ParleyError]:
        """Transcribe each utterance; answers in the order of the requests, an error where one of them is at fault."""
        ...


@runtime_checkable
class StreamingSpeechToText(SpeechToText, Protocol):
    """Understands an utterance while it is spoken."""

    async def open(self, sample_rate: int, language: str | None) -> TranscriptionStream:
        """Begin an utterance.

        Raises:
            Overloaded: Every decoder is taken.
        """
        ...


@runtime_checkable
class LanguageModel(Engine, Protocol):
    """Answers a conversation."""

    def chat(self, request: ChatRequest) -> AsyncGenerator[ChatChunk, None]:
        """Stream the next message; closing the generator stops the model's work within 100 ms."""
        ...


@runtime_checkable
class PrefillingLanguageModel(LanguageModel, Protocol):
    """Reads ahead: what it has read need not be read again by the `chat` that starts with the same messages."""

    async def prefill(self, request: ChatRequest) -> None:
        """Read the prompt into the cache; cancelling stops the work."""
        ...


@runtime_checkable
class TextToSpeech(Engine, Protocol):
    """Speaks."""

    def speak(self, request: SpeechRequest) -> AsyncGenerator[SpeechChunk, None]:
        """Stream the speech as it is made; closing the generator stops the work within 100 ms."""
        ...
