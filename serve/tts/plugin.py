"""Any livekit-agents TTS plugin as an engine."""

from __future__ import annotations

import time
from collections.abc import AsyncGenerator
from typing import TYPE_CHECKING, Any

from pydantic import Field

from serve.audio import Resampler, Trimmer, duration
from serve.contracts import Capabilities, SpeechChunk, SpeechRequest, Usage
from serve.errors import BadRequest, ConfigError
from serve.plugins import Hosted, PluginOptions, name, release
from serve.tts.text import check, pieces, plain

if TYPE_CHECKING:
    from livekit.agents import tts


class Options(PluginOptions):
    """Options of a hosted synthesiser.

    Attributes:
        voices: Voices that a request may name; empty: any, and the provider says what it knows.
        streamed: Speak by the plugin's `stream`, where its `synthesize` waits for the whole of the audio.
        max_characters: Longer texts are refused.
        piece: Most characters that the provider is sent at once; a longer text is sent in sentences.
    """

    voices: tuple[str, ...] = ()
    streamed: bool = False
    max_characters: int = Field(default=20_000, ge=1)
    piece: int = Field(default=1000, ge=100)


class PluginTextToSpeech:
    """Speaks by a plugin's `synthesize`, or by its `stream`."""

    Options = Options

    def __init__(self, options: Options) -> None:
        self._options = options
        self._hosted: Hosted[tts.TTS[Any]] = Hosted(options, "text")
        self._rate = 0

    @property
    def capabilities(self) -> Capabilities:
        """The plugin's sample rate, once loaded; the voices that the options name."""
        return Capabilities(streaming=True, sample_rate=self._rate or None, voices=self._options.voices)

    async def load(self) -> None:
        """Build the plugin."""
        plugin = await self._hosted.load()
        if plugin.num_channels != 1:
            raise ConfigError(f"{self._options.plugin} makes {plugin.num_channels} channels; speech is mono")
        self._rate = plugin.sample_rate

    async def warm(self) -> None:
        """Open the connection to the provider."""
        await self._hosted.warm()

    async def close(self) -> None:
        """Close the plugin."""
        await self._hosted.close()

    async def speak(self, request: SpeechRequest) -> AsyncGenerator[SpeechChunk, None]:
        """Stream the speech as it comes."""
        check(request, self._options.max_characters)
        asked = self._asked(request)
        began, seconds, rate = time.perf_counter(), 0.0, self._rate
        trimmer = Trimmer(rate)
        for text in _together(pieces(plain(request.text), self._options.piece), self._options.piece):
            chunks = self._hosted.caller.stream(lambda text=text: self._ask(text, asked))
            try:
                async for audio in chunks:
                    if kept := trimmer.feed(audio):
                        seconds += duration(kept, rate)
                        yield SpeechChunk(kept, rate)
            finally:
                await chunks.aclose()
        if kept := trimmer.finish():
            seconds += duration(kept, rate)
            yield SpeechChunk(kept, rate)
        usage = Usage(audio_seconds=seconds, characters=len(request.text), busy_seconds=time.perf_counter() - began)
        yield SpeechChunk(b"", rate, usage)

    def _asked(self, request: SpeechRequest) -> dict[str, Any]:
        """Return what a request asks for beside its text.

        Raises:
            BadRequest: A voice or pace that is not to be had.
        """
        voice = name("voice", request.voice)
        voices, takes = self._options.voices, self._options.takes
        if voice is not None and ("voice" not in takes or (voices and voice not in voices)):
            choices = f"choose one of {', '.join(voices)}" if voices else f"{self._hosted.name} has one voice"
            raise BadRequest("voice", f"no voice {voice!r}; {choices}")
        if request.speed != 1.0 and "speed" not in takes:
            raise BadRequest("speed", f"{self._hosted.name} speaks at 1.0 only")
        # A hundredth nobody hears, and each pace is an instance of the plugin.
        speed = None if request.speed == 1.0 else round(request.speed, 2)
        return {"voice": voice, "language": name("language", request.language), "speed": speed}

    async def _ask(self, text: str, asked: dict[str, Any]) -> AsyncGenerator[bytes | None, None]:
        """Yield pcm16 mono at the engine's rate."""
        async with self._hosted.instance(**asked) as plugin:
            stream = self._hosted.within(self._begin, plugin, text)
            resampler: Resampler | None = None
            try:
                async for spoken in stream:
                    frame = spoken.frame
                    resampler = resampler or Resampler(frame.sample_rate, self._rate)
                    yield resampler.feed(frame.data.tobytes()) or None
                if resampler is not None and (rest := resampler.feed(b"", last=True)):
                    yield rest
            finally:
                await release(stream)

    def _begin(self, plugin: tts.TTS[Any], text: str) -> tts.ChunkedStream | tts.SynthesizeStream:
        if not self._options.streamed:
            return plugin.synthesize(text, conn_options=self._hosted.connect_options())
        stream = plugin.stream(conn_options=self._hosted.connect_options())
        stream.push_text(text)
        stream.end_input()
        return stream


def _together(sentences: list[str], limit: int) -> list[str]:
    """Join sentences up to a limit of characters: fewer requests, and a voice that knows what comes next."""
    texts: list[str] = []
    for sentence in sentences:
        if texts and len(texts[-1]) + 1 + len(sentence) <= limit:
            texts[-1] += f" {sentence}"
        else:
            texts.append(sentence)
    return texts
