"""Speech to text behind OpenAI's transcriptions: OpenAI, Azure OpenAI, and any server that is compatible."""

from __future__ import annotations

import asyncio
import math
import re
import time
from typing import Any

from pydantic import Field

from serve.audio import check, duration
from serve.config import Strict
from serve.contracts import Capabilities, Segment, TranscribeRequest, Transcript, Usage, Word
from serve.errors import BadRequest
from serve.openai_client import AzureAccount, Connection, OpenAIAccount
from serve.stt.wav import wav

RATE = 16000
_SHORTEST_SECONDS = 0.1
"""OpenAI refuses what is shorter."""
_TAG = re.compile(r"[a-z]{2,3}(-[A-Za-z0-9]+)*")


class TranscribeOptions(Strict):
    """Options of the transcripts.

    Attributes:
        language: BCP 47, where the request does not say; None: detect it.
        prompt: Names and words that are likely to occur, where the request does not say.
        max_audio_seconds: Longer audio is refused; OpenAI takes 25 MB, 800 s at 16 kHz.
        words: The model can say where each word is; None: models of the name whisper can.
    """

    language: str | None = None
    prompt: str | None = None
    max_audio_seconds: float = Field(default=600.0, gt=0)
    words: bool | None = None


class Options(OpenAIAccount, TranscribeOptions):
    """Options of `openai-stt`.

    Attributes:
        model: As the server knows it.
    """

    model: str = "gpt-transcribe"


class AzureOptions(AzureAccount, TranscribeOptions):
    """Options of `azure-openai-stt`; the deployment says which model."""


class OpenAITranscription:
    """Hears by somebody else's model, a whole utterance at a time."""

    Options: type[Options] | type[AzureOptions] = Options

    def __init__(self, options: Options | AzureOptions) -> None:
        self._options = options
        self._connection = Connection(options, "audio")
        self._words = "whisper" in options.model.lower() if options.words is None else options.words

    @property
    def capabilities(self) -> Capabilities:
        """Whole utterances; more than 16 kHz would only take longer to send."""
        return Capabilities(sample_rate=RATE, words=self._words)

    async def load(self) -> None:
        """Make the client; nothing is sent."""
        await self._connection.open()

    async def warm(self) -> None:
        """Open a connection."""
        await self._connection.warm()

    async def close(self) -> None:
        """Close the connections."""
        await self._connection.close()

    async def transcribe(self, request: TranscribeRequest) -> Transcript:
        """Transcribe one whole utterance; digital silence is not sent."""
        check(request.audio, request.sample_rate)
        seconds, options = duration(request.audio, request.sample_rate), self._options
        if seconds > options.max_audio_seconds:
            raise BadRequest("audio", f"longer than {options.max_audio_seconds:.0f} s: send it in parts")
        language = request.language or options.language
        if seconds < _SHORTEST_SECONDS or not request.audio.strip(b"\0"):
            return Transcript("", language=language, usage=Usage(audio_seconds=seconds))
        began = time.perf_counter()
        file = await asyncio.to_thread(wav, request.audio, request.sample_rate, min(RATE, request.sample_rate))
        detailed = request.words and self._words
        body: dict[str, Any] = {
            "model": options.model,
            "file": ("utterance.wav", file, "audio/wav"),
            "response_format": "verbose_json" if detailed else "json",
        }
        if detailed:
            body["timestamp_granularities"] = ["word", "segment"]
        if language:
            body["language"] = language.split("-")[0].lower()
        if prompt := request.prompt or options.prompt:
            body["prompt"] = prompt
        answer = await self._connection.caller.once(lambda: self._connection.client.audio.transcriptions.create(**body))
        return _transcript(answer, language, seconds, time.perf_counter() - began)


class AzureOpenAITranscription(OpenAITranscription):
    """Hears by a deployment of Azure OpenAI."""

    Options = AzureOptions


def _transcript(answer: Any, language: str | None, seconds: float, busy: float) -> Transcript:
    """Read a transcription; what only some models say is taken where it is there."""
    segments: list[Any] = getattr(answer, "segments", None) or []
    words: list[Any] = getattr(answer, "words", None) or []
    listed: list[Any] = getattr(answer, "languages", None) or []
    detected, used = str(getattr(answer, "language", None) or (listed[0].code if listed else "")), answer.usage
    return Transcript(
        (answer.text or "").strip(),
        # OpenAI writes "english", compatible servers "en".
        language=detected if _TAG.fullmatch(detected) else language,
        confidence=_confidence(segments),
        words=tuple(Word(word.word.strip(), word.start, word.end) for word in words),
        segments=tuple(Segment(part.text.strip(), part.start, part.end) for part in segments),
        usage=Usage(
            audio_seconds=seconds,
            prompt_tokens=getattr(used, "input_tokens", None) or 0,
            completion_tokens=getattr(used, "output_tokens", None) or 0,
            busy_seconds=busy,
        ),
    )


def _confidence(segments: list[Any]) -> float | None:
    """Return the mean probability of a token, by the segments' mean logarithms; None where they have none."""
    found = [(part.end - part.start, part.avg_logprob) for part in segments if part.avg_logprob is not None]
    total = sum(length for length, _ in found)
    return min(1.0, math.exp(sum(length * value for length, value in found) / total)) if total > 0 else None
