"""Azure Speech to text: its REST API for short audio, an utterance at a time."""

from __future__ import annotations

import asyncio
import re
import time
from typing import Any, Literal, cast

from serve.audio import check, duration
from serve.azure_speech import SpeechAccount, SpeechClient
from serve.contracts import Capabilities, TranscribeRequest, Transcript, Usage
from serve.errors import BadRequest, ProviderDown
from serve.stt.wav import wav

RATE = 16000
"""The only one that this API takes."""
_PATH = "/speech/recognition/conversation/cognitiveservices/v1"
_LONGEST_SECONDS = 60.0
_LANGUAGE = re.compile(r"[A-Za-z]{2,3}(-[A-Za-z0-9]{2,8}){0,3}")
_NOTHING = {"NoMatch", "InitialSilenceTimeout", "BabbleTimeout", "EndOfDictation"}
"""Statuses of a request that went well and heard no words."""


class Options(SpeechAccount):
    """Options of `azure-speech-stt`.

    Attributes:
        profanity: Whether words that some would not say are masked, removed, or left.
    """

    profanity: Literal["masked", "removed", "raw"] = "masked"


class AzureSpeechToText:
    """Hears by Azure Speech, up to 60 s at a time."""

    Options = Options

    def __init__(self, options: Options) -> None:
        self._options = options
        self._client = SpeechClient(options, "stt", "audio")

    @property
    def capabilities(self) -> Capabilities:
        """Whole utterances at 16 kHz."""
        return Capabilities(sample_rate=RATE)

    async def load(self) -> None:
        """Make the client; nothing is sent."""
        self._client.open()

    async def warm(self) -> None:
        """Open a connection."""
        await self._client.warm()

    async def close(self) -> None:
        """Close the connections."""
        await self._client.close()

    async def transcribe(self, request: TranscribeRequest) -> Transcript:
        """Transcribe one whole utterance; digital silence is not sent."""
        check(request.audio, request.sample_rate)
        seconds = duration(request.audio, request.sample_rate)
        if seconds > _LONGEST_SECONDS:
            raise BadRequest("audio", f"longer than {_LONGEST_SECONDS:.0f} s, which Azure's REST API takes at most")
        if request.language is not None and not _LANGUAGE.fullmatch(request.language):
            raise BadRequest("language", "must be a BCP 47 tag, such as en-US")
        language = self._options.locale(request.language)
        if not request.audio.strip(b"\0"):
            return Transcript("", language=language, usage=Usage(audio_seconds=seconds))
        began = time.perf_counter()
        file = await asyncio.to_thread(wav, request.audio, request.sample_rate, RATE)
        answer = await self._client.caller.once(lambda: self._ask(file, language))
        best = cast("list[dict[str, Any]]", answer.get("NBest") or [{}])[0]
        busy = time.perf_counter() - began
        return Transcript(
            str(best.get("Display") or answer.get("DisplayText") or "").strip(),
            language=language,
            confidence=best.get("Confidence"),
            usage=Usage(audio_seconds=seconds, busy_seconds=busy),
        )

    async def _ask(self, file: bytes, language: str) -> dict[str, Any]:
        """Send an utterance; return the answer, {} where nothing was said."""
        response = await self._client.http.post(
            _PATH,
            params={"language": language, "format": "detailed", "profanity": self._options.profanity},
            headers={"Content-Type": f"audio/wav; codecs=audio/pcm; samplerate={RATE}", "Accept": "application/json"},
            content=file,
        )
        response.raise_for_status()
        answer = cast("dict[str, Any]", response.json())
        status = answer.get("RecognitionStatus")
        if status == "Success":
            return answer
        if status in _NOTHING:
            return {}
        raise ProviderDown("Azure Speech could not go on with this utterance")
