"""What synthesisers behind an HTTP API share: a text in as few requests as can be, raw audio as it arrives."""

from __future__ import annotations

import time
from collections.abc import AsyncGenerator, Callable

from serve.audio import Trimmer, duration, silence
from serve.contracts import SAMPLE_WIDTH, SpeechChunk, SpeechRequest, Usage
from serve.providers import Caller
from serve.tts.text import GAP_SECONDS, passages, plain

Ask = Callable[[str], AsyncGenerator[bytes, None]]
"""Sends one part of the text; yields pcm16 mono in pieces of any length, half samples included."""


async def spoken(
    request: SpeechRequest, caller: Caller, ask: Ask, sample_rate: int, limit: int
) -> AsyncGenerator[SpeechChunk, None]:
    """Stream the speech as it arrives, without the silence round it; a text with nothing to say is not sent.

    Args:
        request: What to say; its text is sent plain.
        caller: Asks the provider.
        ask: Sends one part of the text.
        sample_rate: Hz of what the provider makes.
        limit: Most characters of one part.
    """
    began, seconds = time.perf_counter(), 0.0
    for number, text in enumerate(passages(plain(request.text), limit)):
        trimmer, half = Trimmer(sample_rate), b""
        gap = silence(GAP_SECONDS if number else 0.0, sample_rate)
        pieces = caller.stream(lambda text=text: ask(text))
        try:
            async for piece in pieces:
                audio = half + piece
                whole = len(audio) // SAMPLE_WIDTH * SAMPLE_WIDTH
                half = audio[whole:]
                if kept := trimmer.feed(audio[:whole]):
                    kept, gap = gap + kept, b""
                    seconds += duration(kept, sample_rate)
                    yield SpeechChunk(kept, sample_rate)
        finally:
            await pieces.aclose()
        if kept := trimmer.finish():
            seconds += duration(kept, sample_rate)
            yield SpeechChunk(kept, sample_rate)
    usage = Usage(audio_seconds=seconds, characters=len(request.text), busy_seconds=time.perf_counter() - began)
    yield SpeechChunk(b"", sample_rate, usage)
