"""One utterance on its way to text: sent while it is spoken, drafted at a pause, never lost.

The audio is kept until the text is final. A replica that dies with half of it costs time, not words: the segment is
sent whole to another.
"""

from __future__ import annotations

import asyncio
import logging
import uuid
from collections.abc import Callable

from livekit.agents import stt, utils

from serve.client import Models
from serve.contracts import ListenRequest, RequestContext, TranscribeRequest, Transcript
from serve.errors import ParleyError

logger = logging.getLogger("ray.serve.parley")

PIECE_SECONDS = 0.2
"""Audio sent at a time: less costs calls, more delays the draft."""


class Utterance:
    """What a person says between two silences.

    Pauses cut it into segments, each transcribed by itself; the texts are joined.

    Args:
        models: Where it is transcribed.
        context: Of the call.
        sample_rate: Hz of the audio pushed.
        say: Told interim, preflight and final texts of the whole utterance.
        streaming: Send pieces while the person speaks; else each segment whole.
        language: That is spoken, BCP 47; None: the model's own, or detected.
        understood: Told each final transcript of a segment.
        lost: Told when a segment could not be transcribed by any model.
    """

    def __init__(
        self,
        models: Models,
        context: RequestContext,
        sample_rate: int,
        say: Callable[[stt.SpeechEventType, str], None],
        *,
        streaming: bool,
        language: str | None = None,
        understood: Callable[[Transcript], None] = lambda _: None,
        lost: Callable[[], None] = lambda: None,
    ) -> None:
        self.language = language
        self.understood = understood
        self.lost = lost
        self.models = models
        self.context = context
        self.rate = sample_rate
        self._say = say
        self.streaming = streaming
        self._texts: list[str] = []
        self._segment = _Segment(self)
        self._task: asyncio.Task[None] | None = None

    def push(self, audio: bytes) -> None:
        """Take audio: pcm16 mono at the utterance's sample rate."""
        self._segment.push(audio)

    def draft(self) -> None:
        """There is a pause: finish what there is, unless that is done already."""
        if not self._segment.closed:
            self._segment.close()
            self._task = asyncio.create_task(self._finish(self._segment, self._task), name="utterance draft")

    def resume(self) -> None:
        """Speech goes on after a pause: what comes now is another segment."""
        if self._segment.closed:
            self._segment = _Segment(self, self._segment.after())

    def end(self) -> asyncio.Task[None]:
        """The person has finished; the final text follows as soon as it is there."""
        self.draft()
        return asyncio.create_task(self._final(self._task), name="utterance end")

    async def aclose(self) -> None:
        """Stop: the call is over."""
        if self._task:
            await utils.aio.cancel_and_wait(self._task)
        await self._segment.aclose()

    def interim(self, text: str) -> None:
        """Show what is understood so far of the segment that is being spoken."""
        self._say(stt.SpeechEventType.INTERIM_TRANSCRIPT, self._joined(text))

    def _joined(self, *more: str) -> str:
        return " ".join(text for text in (*self._texts, *more) if text)

    async def _finish(self, segment: _Segment, before: asyncio.Task[None] | None) -> None:
        text = await segment.text()
        if before:
            await before
        self._texts.append(text)
        if self._segment is segment:
            self._say(stt.SpeechEventType.PREFLIGHT_TRANSCRIPT, self._joined())

    async def _final(self, last: asyncio.Task[None] | None) -> None:
        if last:
            await last
        self._say(stt.SpeechEventType.FINAL_TRANSCRIPT, self._joined())


class _Segment:
    """Audio between two pauses, and the task that sends it."""

    def __init__(self, utterance: Utterance, audio: bytes = b"") -> None:
        self._of = utterance
        self._audio = bytearray(audio)
        self._tail = bytearray()
        self._more = asyncio.Event()
        self.closed = False
        self._sender = asyncio.create_task(self._send(), name="utterance segment")

    def push(self, audio: bytes) -> None:
        """Take audio; after `close` it is kept for the segment that may follow."""
        if self.closed:
            self._tail += audio
        else:
            self._audio += audio
            self._more.set()

    def close(self) -> None:
        """No more audio."""
        self.closed = True
        self._more.set()

    def after(self) -> bytes:
        """Return the audio pushed since `close`: the beginning of what follows."""
        return bytes(self._tail)

    async def text(self) -> str:
        """Return the text, or "" where every attempt failed (which is logged)."""
        return await self._sender

    async def aclose(self) -> None:
        """Stop sending."""
        await utils.aio.cancel_and_wait(self._sender)

    async def _send(self) -> str:
        try:
            if self._of.streaming:
                try:
                    return await self._stream()
                except ParleyError as error:
                    logger.warning("%s while listening: the utterance is sent whole", error.code)
            await self._closed()
            request = TranscribeRequest(bytes(self._audio), self._of.rate, self._of.language)
            answer = await self._of.models.transcribe(request, self._of.context)
            self._of.understood(answer)
            return answer.text
        except ParleyError as error:
            logger.error("an utterance was lost: %s", error.code)
            self._of.lost()
            return ""

    async def _stream(self) -> str:
        """Send pieces as they come, the last one as soon as the segment is closed."""
        name, sequence, sent = uuid.uuid4().hex, 0, 0
        piece = int(PIECE_SECONDS * self._of.rate) * 2
        while True:
            while not self.closed and len(self._audio) - sent < piece:
                self._more.clear()
                await self._more.wait()
            last = self.closed
            audio = bytes(self._audio[sent:])
            answer = await self._of.models.listen(
                ListenRequest(name, sequence, audio, self._of.rate, last, self._of.language), self._of.context
            )
            if last:
                self._of.understood(answer)
                return answer.text
            if answer.text and not self.closed:
                self._of.interim(answer.text)
            sequence, sent = sequence + 1, sent + len(audio)

    async def _closed(self) -> None:
        while not self.closed:
            self._more.clear()
            await self._more.wait()
