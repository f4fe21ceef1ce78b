"""What of a stream has been passed on: another replica or model gives the rest, and nothing is lost or said twice."""

from __future__ import annotations

from dataclasses import replace
from typing import Any

from serve.contracts import SAMPLE_WIDTH, ChatChunk, ChatRequest, SpeechChunk


class Given:
    """Follows one stream over its tries.

    An answer goes on from its words. Speech is made again from its beginning, since a synthesiser cannot start in the
    middle of a sentence, and as much of it as was passed on already is left out.

    Args:
        request: The request of the whole.
    """

    def __init__(self, request: Any) -> None:
        self._request = request
        self._text = ""
        self._pieces = 0
        self._seconds = self._skip = 0.0

    def rest(self) -> Any:
        """Return the request for what is missing still."""
        self._skip = self._seconds
        request = self._request
        if not isinstance(request, ChatRequest) or not self._text:
            return request
        # A piece is about a token; one at least must be left to say.
        left = None if request.max_tokens is None else max(1, request.max_tokens - self._pieces)
        return replace(request, so_far=request.so_far + self._text, max_tokens=left)

    def take(self, chunk: Any) -> Any:
        """Note a chunk; return what of it is new."""
        if isinstance(chunk, ChatChunk):
            self._text += chunk.text
            self._pieces += bool(chunk.text)
        elif isinstance(chunk, SpeechChunk):
            chunk = self._unheard(chunk)
            self._seconds += len(chunk.audio) / (SAMPLE_WIDTH * chunk.sample_rate)
        return chunk

    def _unheard(self, chunk: SpeechChunk) -> SpeechChunk:
        if self._skip <= 0:
            return chunk
        heard = min(len(chunk.audio), SAMPLE_WIDTH * round(self._skip * chunk.sample_rate))
        self._skip -= len(chunk.audio) / (SAMPLE_WIDTH * chunk.sample_rate)
        return replace(chunk, audio=chunk.audio[heard:])
