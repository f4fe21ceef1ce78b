"""Text to speech behind OpenAI's speech API: OpenAI, Azure OpenAI, and any server that is compatible."""

from __future__ import annotations

from collections.abc import AsyncGenerator
from typing import Any

from pydantic import Field

from serve.config import Strict
from serve.contracts import Capabilities, SpeechChunk, SpeechRequest
from serve.errors import BadRequest
from serve.openai_client import AzureAccount, Connection, OpenAIAccount
from serve.tts.proxied import spoken
from serve.tts.text import check

VOICES = (
    *("alloy", "ash", "ballad", "cedar", "coral", "echo", "fable", "marin", "nova", "onyx", "sage", "shimmer"),
    "verse",
)
_PIECE = 2000
"""Characters of one request; OpenAI takes 4096, or 2000 tokens."""


class SpeechOptions(Strict):
    """Options of the speech.

    Attributes:
        voice: Where the request does not say.
        voices: Names that a request may ask for; empty: any, and the provider says what it knows.
        instructions: How to speak, in words; not for tts-1 and tts-1-hd.
        sample_rate: Hz of the server's pcm; OpenAI's is 24000.
        max_characters: Longer texts are refused; what OpenAI does not take at once goes in several requests.
    """

    voice: str = "marin"
    voices: tuple[str, ...] = VOICES
    instructions: str | None = None
    sample_rate: int = Field(default=24_000, ge=8000, le=48_000)
    max_characters: int = Field(default=20_000, ge=1)


class Options(OpenAIAccount, SpeechOptions):
    """Options of `openai-tts`.

    Attributes:
        model: As the server knows it.
    """

    model: str = "gpt-4o-mini-tts"


class AzureOptions(AzureAccount, SpeechOptions):
    """Options of `azure-openai-tts`; the deployment says which model."""


class OpenAISpeech:
    """Speaks by somebody else's model."""

    Options: type[Options] | type[AzureOptions] = Options

    def __init__(self, options: Options | AzureOptions) -> None:
        self._options = options
        self._connection = Connection(options, "text")

    @property
    def capabilities(self) -> Capabilities:
        """The rate and the voices of the options."""
        return Capabilities(streaming=True, sample_rate=self._options.sample_rate, voices=self._options.voices)

    async def load(self) -> None:
        """Make the client; nothing is sent."""
        await self._connection.open()

    async def warm(self) -> None:
        """Open a connection."""
        await self._connection.warm()

    async def close(self) -> None:
        """Close the connections."""
        await self._connection.close()

    async def speak(self, request: SpeechRequest) -> AsyncGenerator[SpeechChunk, None]:
        """Stream the speech as it arrives; closing it closes the provider's connection at once."""
        options = self._options
        check(request, options.max_characters)
        voice = request.voice or options.voice
        if options.voices and voice not in options.voices:
            raise BadRequest("voice", f"no voice of this name; choose one of {', '.join(options.voices)}")
        body: dict[str, Any] = {"model": options.model, "voice": voice, "response_format": "pcm"}
        if request.speed != 1.0:
            body["speed"] = request.speed
        if options.instructions:
            body["instructions"] = options.instructions
        chunks = spoken(
            request, self._connection.caller, lambda text: self._ask(text, body), options.sample_rate, _PIECE
        )
        try:
            async for chunk in chunks:
                yield chunk
        finally:
            await chunks.aclose()

    async def _ask(self, text: str, body: dict[str, Any]) -> AsyncGenerator[bytes, None]:
        """Send one part of the text; yield pcm16 in pieces of any length."""
        speech = self._connection.client.audio.speech.with_streaming_response
        async with speech.create(input=text, **body) as response:
            async for piece in response.iter_bytes():
                yield piece


class AzureOpenAISpeech(OpenAISpeech):
    """Speaks by a deployment of Azure OpenAI."""

    Options = AzureOptions
