"""Azure text to speech by its REST API: SSML out, raw pcm in, streamed as it arrives."""

from __future__ import annotations

import re
from collections.abc import AsyncGenerator
from xml.sax.saxutils import escape, quoteattr

from pydantic import Field

from serve.azure_speech import SpeechAccount, SpeechClient
from serve.contracts import Capabilities, SpeechChunk, SpeechRequest
from serve.errors import BadRequest
from serve.tts.proxied import spoken
from serve.tts.text import check

RATE = 24_000
_PATH = "/cognitiveservices/v1"
_PIECE = 3000
"""Characters of one request; Azure ends a speech after ten minutes."""
_SLOWEST, _FASTEST = 0.5, 2.0
"""Paces that Azure takes, of the voice's own."""
_VOICE = re.compile(r"[a-z]{2,3}(-[A-Za-z0-9]{2,8}){1,3}-[A-Za-z0-9:]{2,80}")
"""Names begin with a locale: en-US-AvaMultilingualNeural. Azure answers others with words only."""
_LANGUAGE = re.compile(r"[A-Za-z]{2,3}(-[A-Za-z0-9]{2,8}){0,3}")


class Options(SpeechAccount):
    """Options of `azure-speech-tts`.

    Attributes:
        voice: Where the request does not say.
        voices: Names that a request may ask for; empty: any of Azure's.
        max_characters: Longer texts are refused.
    """

    voice: str = Field(default="en-US-AvaMultilingualNeural", pattern=f"^{_VOICE.pattern}$")
    voices: tuple[str, ...] = ()
    max_characters: int = Field(default=20_000, ge=1)


class AzureTextToSpeech:
    """Speaks by Azure Speech."""

    Options = Options

    def __init__(self, options: Options) -> None:
        self._options = options
        self._client = SpeechClient(options, "tts", "voice")

    @property
    def capabilities(self) -> Capabilities:
        """24 kHz; the voices of the options."""
        return Capabilities(streaming=True, sample_rate=RATE, voices=self._options.voices)

    async def load(self) -> None:
        """Make the client; nothing is sent."""
        self._client.open()

    async def warm(self) -> None:
        """Open a connection."""
        await self._client.warm()

    async def close(self) -> None:
        """Close the connections."""
        await self._client.close()

    async def speak(self, request: SpeechRequest) -> AsyncGenerator[SpeechChunk, None]:
        """Stream the speech as it arrives; closing it closes the connection at once."""
        self._check(request)
        chunks = spoken(request, self._client.caller, lambda text: self._ask(self._ssml(text, request)), RATE, _PIECE)
        try:
            async for chunk in chunks:
                yield chunk
        finally:
            await chunks.aclose()

    def _check(self, request: SpeechRequest) -> None:
        """Refuse what Azure would, whose refusals name no field."""
        check(request, self._options.max_characters)
        if not _SLOWEST <= request.speed <= _FASTEST:
            raise BadRequest("speed", f"must be from {_SLOWEST} to {_FASTEST}")
        if request.language is not None and not _LANGUAGE.fullmatch(request.language):
            raise BadRequest("language", "must be a BCP 47 tag, such as en-US")
        voice, voices = request.voice, self._options.voices
        if voice is not None and (not _VOICE.fullmatch(voice) or (voices and voice not in voices)):
            choices = ", ".join(voices) or f"Azure's, such as {self._options.voice}"
            raise BadRequest("voice", f"no voice of this name; choose one of {choices}")

    def _ssml(self, text: str, request: SpeechRequest) -> str:
        """Return the text as SSML: whatever it holds is spoken, and nothing in it is markup."""
        name = request.voice or self._options.voice
        language, voice = quoteattr(self._options.locale(request.language)), quoteattr(name)
        said = escape(text)
        if request.speed != 1.0:
            said = f'<prosody rate="{(request.speed - 1) * 100:+.0f}%">{said}</prosody>'
        if request.language is not None and request.language.split("-")[0].lower() != name.split("-")[0]:
            # A voice of many languages speaks another than its own where it is told so.
            said = f"<lang xml:lang={language}>{said}</lang>"
        return (
            '<speak version="1.0" xmlns="http://www.w3.org/2001/10/synthesis" '
            f"xml:lang={language}><voice name={voice}>{said}</voice></speak>"
        )

    async def _ask(self, ssml: str) -> AsyncGenerator[bytes, None]:
        """Send SSML; yield pcm16 in pieces of any length."""
        headers = {
            "Content-Type": "application/ssml+xml",
            "X-Microsoft-OutputFormat": "raw-24khz-16bit-mono-pcm",
        }
        async with self._client.http.stream("POST", _PATH, headers=headers, content=ssml.encode()) as response:
            response.raise_for_status()
            async for piece in response.aiter_bytes():
                yield piece
