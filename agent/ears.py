"""What the agent hears: voice activity and speech to text of one call, from one pass over its audio.

livekit-agents keeps voice activity and transcription apart, each with queues and tasks of its own. Here one function
sees each window of 32 ms once and feeds both, which halves the cost of a silent call and lets transcription act on
silence at once: audio goes out in pieces while the person speaks, and at the first short pause the utterance is
finished ahead of the decision that the turn is over (`PREFLIGHT_TRANSCRIPT`), so that the answer can begin.
"""

from __future__ import annotations

import asyncio
import functools
import time
from collections import deque
from collections.abc import AsyncGenerator, AsyncIterable, Callable

import numpy as np
import numpy.typing as npt
from livekit import rtc
from livekit.agents import LanguageCode, stt, utils, vad
from livekit.local_inference import VAD as SileroVAD
from livekit.local_inference import VAD_WINDOW_SAMPLES

from agent.config import Turns
from agent.keeper import Keeper
from agent.overlap import Overlap
from agent.sentences import dangles
from agent.utterance import Utterance
from serve.client import Models
from serve.contracts import RequestContext, Transcript

SAMPLE_RATE = 16000
"""Hz; what Silero takes, and enough for every recogniser."""

WINDOW_MS = VAD_WINDOW_SAMPLES * 1000 // SAMPLE_RATE
_WINDOW = VAD_WINDOW_SAMPLES / SAMPLE_RATE

_ACTIVE, _STILL_ACTIVE = 0.5, 0.35
"""Silero's own thresholds: speech begins above the first and goes on above the second."""

_MIN_SPEECH = 2 * _WINDOW
"""Seconds of speech that open an utterance: two windows, so that a click does not."""

_RESUMED_WITHIN = 1.0
"""Seconds after an utterance in which one window is enough: a person who goes on must be heard before the answer."""

_FAINT = 0.25
"""Sound over an answer that is nowhere louder than this share of the caller's voice is somebody else's, or an echo."""

_LEVEL_WINDOWS = 50
"""Windows over which the loudness of the caller's voice is averaged."""

_TOLD = 0.05
"""Seconds after which the session knows that speech goes on; what was held back must not come before."""

_PREROLL = 10
"""Windows kept from before speech is certain: the first consonant is in them."""


_KEPT_BYTES = int(0.2 * SAMPLE_RATE) * 2
"""What is being said is kept in pieces of this length."""


class Ears:
    """Hears one call.

    Args:
        models: Where utterances are transcribed.
        call: Id of the call.
        turns: When to draft and when to end an utterance.
        streaming: The recogniser decodes while the person speaks.
        language: Of the caller, BCP 47.
        keeper: Keeps what is being said, and may have the beginning of it.
    """

    def __init__(
        self,
        models: Models,
        call: str,
        turns: Turns,
        *,
        streaming: bool,
        language: str,
        keeper: Keeper,
    ) -> None:
        self._models = models
        self._context = RequestContext(call, timeout=10.0)
        self._turns = turns
        self.streaming = streaming
        self.language = language
        self.asked: str | None = None
        """The language that the recogniser is asked for; None: its own, or what it detects."""
        self.understood: Callable[[Transcript], None] = lambda transcript: None
        """Told each transcript of a stretch of speech."""
        self.lost: Callable[[], None] = lambda: None
        """Told when no model could transcribe what was said."""
        self.answering: Callable[[], bool] = lambda: False
        """Says whether an answer is being heard and is not nearly over."""
        self.interrupt: Callable[[], None] = lambda: None
        """Told as soon as it is certain that the caller interrupts an answer."""
        self._silero = SileroVAD()
        self.vad_events: utils.aio.Chan[vad.VADEvent] = utils.aio.Chan()
        self._events: utils.aio.Chan[stt.SpeechEvent] = utils.aio.Chan()
        self._preroll: deque[bytes] = deque(maxlen=_PREROLL)
        self._speaking = False
        self._speech = self._silence = self._spoken = 0.0
        self._samples = 0
        self._since_utterance = _RESUMED_WITHIN
        self._level = self._loudest = 0.0
        self._voiced = 0
        self._utterance: Utterance | None = None
        self._over: Overlap | None = None
        self._held: tuple[asyncio.TimerHandle, str] | None = None
        """The final text of an unfinished sentence, and what will pass it on."""
        self._ended: set[Utterance] = set()
        self._keeper = keeper
        self._begun = keeper.left.audio if keeper.left else b""
        """What the replica before had heard of an utterance that may be going on."""
        self._unkept = bytearray()

    def activity(self) -> utils.aio.Chan[vad.VADEvent]:
        """Return where voice activity is told; a new place where the last one is closed: another assistant listens."""
        if self.vad_events.closed:
            self.vad_events = utils.aio.Chan()
        return self.vad_events

    async def transcribe(self, audio: AsyncIterable[rtc.AudioFrame]) -> AsyncGenerator[stt.SpeechEvent, None]:
        """Hear audio until it ends; yield what was understood. This is the session's STT node.

        Each assistant of a call begins anew, after the one before has ended.
        """
        active, self._events = self.activity(), utils.aio.Chan()
        reader = asyncio.create_task(self._read(audio), name="ears")
        try:
            async for event in self._events:
                yield event
        finally:
            await utils.aio.cancel_and_wait(reader)
            for utterance in [*self._ended, *([self._utterance] if self._utterance else [])]:
                await utterance.aclose()
            if self._held is not None:
                self._held[0].cancel()
            self._speaking, self._utterance, self._held = False, None, None
            self._ended.clear()
            active.close()

    async def _read(self, audio: AsyncIterable[rtc.AudioFrame]) -> None:
        try:
            async for frame in audio:
                for start in range(0, frame.samples_per_channel, VAD_WINDOW_SAMPLES):
                    window = bytes(frame.data[start : start + VAD_WINDOW_SAMPLES])
                    if len(window) == 2 * VAD_WINDOW_SAMPLES:
                        self._hear(window)
        finally:
            self._events.close()

    def _hear(self, window: bytes) -> None:
        """Take one window of 32 ms: who speaks, and what follows from it."""
        samples = np.frombuffer(window, dtype=np.int16)
        chance = self._silero.predict(samples)
        self._samples += VAD_WINDOW_SAMPLES
        if self._begun:
            self._preroll.append(self._begun)
            self._begun = b""
            self._begin()
        if chance > (_STILL_ACTIVE if self._speaking else _ACTIVE):
            self._speech += _WINDOW
            self._silence = 0.0
            self._measure(samples)
        else:
            self._silence += _WINDOW
            self._speech = self._loudest = 0.0
        if not self._speaking:
            self._preroll.append(window)
            resumed = self._since_utterance < _RESUMED_WITHIN
            self._since_utterance += _WINDOW
            if self._speech >= (_WINDOW if resumed else _MIN_SPEECH) and self._near():
                self._begin()
        else:
            self._spoken += _WINDOW
            self._go_on(window)
        if self._speaking or (self._speech and self._near()):
            self._emit(vad.VADEventType.INFERENCE_DONE, chance)

    def _measure(self, samples: npt.NDArray[np.int16]) -> None:
        """Take note of how loud speech is, and of how loud the caller speaks."""
        loud = float(np.sqrt(np.mean(samples.astype(np.float32) ** 2)))
        self._loudest = max(self._loudest, loud)
        if self._speaking:
            self._voiced = min(self._voiced + 1, _LEVEL_WINDOWS)
            self._level += (loud - self._level) / self._voiced

    def _near(self) -> bool:
        """Say whether what sounds like speech can be the caller's."""
        return self._loudest >= _FAINT * self._level or not self.answering()

    def _begin(self) -> None:
        self._speaking, self._spoken = True, self._speech
        self._over = Overlap(self._turns, self.answering) if self.answering() else None
        self._keeper.begin()
        self._emit(vad.VADEventType.START_OF_SPEECH)
        if self._held is not None:
            self._hold(self._held[1], _TOLD)
        self._events.send_nowait(stt.SpeechEvent(stt.SpeechEventType.START_OF_SPEECH))
        self._utterance = Utterance(
            self._models,
            self._context,
            SAMPLE_RATE,
            self._say if self._over is None else functools.partial(self._weigh, self._over),
            streaming=self.streaming,
            language=self.asked,
            understood=lambda transcript: self.understood(transcript),
            lost=lambda: self.lost(),
        )
        for window in self._preroll:
            self._utterance.push(window)
            self._unkept += window
        self._preroll.clear()

    def _go_on(self, window: bytes) -> None:
        assert self._utterance is not None
        self._utterance.push(window)
        self._unkept += window
        if len(self._unkept) >= _KEPT_BYTES:
            self._keeper.speaking(bytes(self._unkept))
            self._unkept.clear()
        if self._silence == 0.0:
            self._utterance.resume()
            if self._over is not None:
                self._over.seconds = self._spoken
        elif self._silence >= self._turns.end_silence:
            self._end()
        elif self._silence >= self._turns.draft_silence:
            self._utterance.draft()

    def _end(self) -> None:
        assert self._utterance is not None
        self._unkept.clear()
        self._emit(vad.VADEventType.END_OF_SPEECH)
        self._events.send_nowait(stt.SpeechEvent(stt.SpeechEventType.END_OF_SPEECH))
        ended, self._utterance = self._utterance, None
        self._ended.add(ended)
        ended.end().add_done_callback(lambda _: self._ended.discard(ended))
        self._speaking, self._spoken, self._since_utterance = False, 0.0, 0.0

    def _weigh(self, over: Overlap, kind: stt.SpeechEventType, text: str) -> None:
        """Pass on what an utterance over an answer was understood as, once it is known whether it interrupts."""
        partial = kind is stt.SpeechEventType.INTERIM_TRANSCRIPT
        if over.certain(text) if partial else not over.passes(text):
            if self.answering():
                # The answer is silent by now, but it is still being written.
                self.interrupt()
            self._say(kind, text)
        elif kind is stt.SpeechEventType.FINAL_TRANSCRIPT:
            self._say(kind, "")

    def _say(self, kind: stt.SpeechEventType, text: str) -> None:
        """Pass on what an utterance was understood as."""
        if self._events.closed:
            return
        if kind is stt.SpeechEventType.FINAL_TRANSCRIPT and not self._speaking and dangles(text, self._turns.dangling):
            self._hold(text, self._turns.dangling_delay - self._turns.end_silence - self._since_utterance)
            return
        self._tell(kind, text)

    def _hold(self, text: str, seconds: float) -> None:
        """Pass a final text on later: until then the turn is not over, and what is said belongs to it."""
        if self._held is not None:
            self._held[0].cancel()
        self._held = asyncio.get_running_loop().call_later(max(0.0, seconds), self._release), text

    def _release(self) -> None:
        assert self._held is not None
        text, self._held = self._held[1], None
        if not self._events.closed:
            self._tell(stt.SpeechEventType.FINAL_TRANSCRIPT, text)

    def _tell(self, kind: stt.SpeechEventType, text: str) -> None:
        if text or kind is stt.SpeechEventType.FINAL_TRANSCRIPT:
            data = stt.SpeechData(language=LanguageCode(self.language), text=text, confidence=1.0)
            self._events.send_nowait(stt.SpeechEvent(kind, alternatives=[data]))

    def _emit(self, kind: vad.VADEventType, chance: float = 0.0) -> None:
        if self.vad_events.closed:
            return
        self.vad_events.send_nowait(
            vad.VADEvent(
                type=kind,
                samples_index=self._samples,
                timestamp=time.time(),
                speech_duration=self._spoken,
                silence_duration=self._silence,
                probability=chance,
                speaking=self._speaking,
                raw_accumulated_silence=self._silence,
                raw_accumulated_speech=self._speech,
            )
        )
