"""The shell around an engine: load, warm-up, health, deadlines, cancellation, metrics and errors, once for all.

Three deployments, one for each role, share one base. What reaches an engine is a plain request; what leaves the
replica is a value of `serve.contracts` or an error of `serve.errors`.
"""

from __future__ import annotations

import asyncio
import logging
import platform
import time
from collections.abc import AsyncGenerator, Awaitable, Callable
from dataclasses import dataclass, field, replace
from typing import Any, ClassVar, TypeVar, cast

import ray.serve

from serve import logs, metrics, registry, tracing
from serve.config import Batch, ModelConfig
from serve.contracts import (
    BatchingSpeechToText,
    Capabilities,
    ChatChunk,
    ChatRequest,
    CheckedEngine,
    Engine,
    LanguageModel,
    ListenRequest,
    PrefillingLanguageModel,
    RequestContext,
    Role,
    SpeechChunk,
    SpeechRequest,
    SpeechToText,
    StreamingSpeechToText,
    TextToSpeech,
    TranscribeRequest,
    Transcript,
    TranscriptionStream,
    Usage,
    WarmingEngine,
)
from serve.errors import BadRequest, DeadlineExceeded, EngineFailed, ParleyError, StreamLost
from serve.work import TellsWork, Work

logger = logging.getLogger("ray.serve")
_serve: Any = ray.serve

T = TypeVar("T")

UNHEALTHY_AFTER = 5
"""Engine failures in a row, with no success between, after which Serve replaces the replica."""

FIRST = {"chat": "first token", "speak": "first byte"}
"""What the first sign of an engine is called in a trace."""

STREAM_IDLE_SECONDS = 20.0
"""A listening stream without a new piece for this long belongs to a caller who is gone."""


class Replica:
    """What the three roles share. Serve constructs it, waits for `__init__`, then sends requests."""

    role: ClassVar[Role]

    async def __init__(self, config: dict[str, Any]) -> None:
        logs.install()
        tracing.tracer()  # before somebody waits for it
        self.config = ModelConfig.model_validate(config)
        self.engine: Engine = registry.create(self.config.engine, self.config.options)
        self._ongoing = 0
        self._failures = 0
        started = time.perf_counter()
        await self.engine.load()
        loaded = time.perf_counter()
        if isinstance(self.engine, WarmingEngine):
            await self.engine.warm()
        else:
            await self.warm_up()
        logger.info(
            "model ready: %s on %s, loaded in %.2f s, warm in %.2f s",
            self.config.name,
            self.config.engine,
            loaded - started,
            time.perf_counter() - loaded,
        )
        # From the start: what has not happened yet is 0 and not unknown.
        metrics.ONGOING.set(0, model=self.config.name)
        metrics.SLOTS.set(self.config.max_ongoing, model=self.config.name)

    async def warm_up(self) -> None:
        """Send one small request through the engine, so that no caller pays for the first."""
        raise NotImplementedError

    async def capabilities(self, context: RequestContext) -> Capabilities:
        """Return what the engine can do."""
        return self.engine.capabilities

    async def check_health(self) -> None:
        """Raise once the engine only fails, or says itself that it is broken; Serve then replaces the replica."""
        if isinstance(self.engine, CheckedEngine):
            await self.engine.check()
        if self._failures >= UNHEALTHY_AFTER:
            raise EngineFailed(f"{self.config.name} failed {self._failures} times in a row")

    async def shutdown(self) -> None:
        """Free what the engine holds. Serve calls the destructor below when the replica stops."""
        await self.engine.close()

    async def __del__(self) -> None:
        await self.shutdown()

    async def _unary(self, method: str, work: Callable[[], Awaitable[T]], context: RequestContext) -> T:
        """Run one request that has one answer, within its time."""

        async def once() -> AsyncGenerator[T, None]:
            yield await work()

        # To its end: whoever leaves a stream after its first piece has cancelled it.
        (answer,) = [each async for each in self._stream(method, once(), context)]
        return answer

    async def _stream(
        self, method: str, chunks: AsyncGenerator[T, None], context: RequestContext
    ) -> AsyncGenerator[T, None]:
        """Pass an engine's chunks on, within the request's time; always closes the engine's generator."""
        if context.call:
            logs.begin(context.call, context.trace)
        labels = {"model": self.config.name, "method": method}
        started = time.perf_counter()
        deadline = asyncio.get_running_loop().time() + context.timeout
        outcome, first, told = "cancelled", True, False
        about = {**{f"parley.{key}": value for key, value in labels.items()}, "parley.engine": self.config.engine}
        span = tracing.begin(f"replica {method}", context.trace, about) if context.trace else None
        self._ongoing += 1
        metrics.ONGOING.set(self._ongoing, model=self.config.name)
        try:
            while True:
                try:
                    async with asyncio.timeout_at(deadline):
                        chunk = await anext(chunks)
                except StopAsyncIteration:
                    break
                if first:
                    first = False
                    metrics.FIRST_CHUNK_SECONDS.observe(time.perf_counter() - started, **labels)
                    if span is not None:
                        span.add_event(FIRST.get(method, "answer"))
                chunk = self._metered(chunk, time.perf_counter() - started)
                if isinstance(chunk, Transcript | ChatChunk | SpeechChunk) and chunk.usage is not None:
                    told = True
                    metrics.count_usage(self.config.name, chunk.usage)
                yield chunk
            outcome, self._failures = "ok", 0
        except TimeoutError:
            outcome = "deadline"
            raise DeadlineExceeded(
                f"{self.config.name} did not answer within {context.timeout:.1f} s; ask for less or allow more time"
            ) from None
        except ParleyError as error:
            outcome = error.code
            self._failures += isinstance(error, EngineFailed)
            raise
        except Exception as error:  # an engine may raise anything: it is counted, and translated
            outcome = "EngineFailed"
            self._failures += 1
            # The type says enough: an engine's message can hold words of the conversation.
            logger.exception("%s failed in %s", self.config.name, method, exc_info=_without_text(error))
            raise EngineFailed(f"{self.config.name} failed ({type(error).__name__})") from None
        finally:
            self._ongoing -= 1
            seconds = time.perf_counter() - started
            metrics.ONGOING.set(self._ongoing, model=self.config.name)
            metrics.REQUESTS.add(**labels, outcome=outcome)
            tracing.end(span, outcome)
            metrics.REQUEST_SECONDS.observe(seconds, **labels)
            if not told:
                # Cut off, failed, or read ahead: it worked all the same.
                worked = Usage(busy_seconds=seconds, gpu_seconds=seconds * self.config.resources.gpus)
                metrics.count_usage(self.config.name, worked)
            await chunks.aclose()

    def _metered(self, chunk: T, seconds: float) -> T:
        """Fill in what the engine does not know of its usage: the time where it does not say, and the GPUs it holds."""
        if not isinstance(chunk, Transcript | ChatChunk | SpeechChunk) or chunk.usage is None:
            return chunk
        busy = chunk.usage.busy_seconds or seconds
        usage = replace(chunk.usage, busy_seconds=busy, gpu_seconds=busy * self.config.resources.gpus)
        return cast("T", replace(chunk, usage=usage))


def _without_text(error: Exception) -> Exception:
    """Return an error of the same place in the code, without its words."""
    return EngineFailed(type(error).__name__).with_traceback(error.__traceback__)


@dataclass(slots=True)
class _Listening:
    """An utterance that is being decoded, and where it stands."""

    stream: TranscriptionStream
    expected: int = 0
    used: float = field(default_factory=time.monotonic)
    turn: asyncio.Lock = field(default_factory=asyncio.Lock)


class SpeechRecognition(Replica):
    """Serves `transcribe`, and `listen` where the engine decodes while the person speaks."""

    role = "stt"

    async def __init__(self, config: dict[str, Any]) -> None:
        self._listening: dict[str, _Listening] = {}
        await super().__init__(config)  # pyright: ignore[reportGeneralTypeIssues]  # Serve awaits constructors
        self._transcribe = _gathering(cast(SpeechToText, self.engine), self.config.batch)
        self._reaper = asyncio.create_task(self._reap())

    async def warm_up(self) -> None:
        """Transcribe half a second of silence."""
        rate = self.engine.capabilities.sample_rate or 16000
        await cast(SpeechToText, self.engine).transcribe(TranscribeRequest(bytes(rate), rate))

    async def transcribe(self, request: TranscribeRequest, context: RequestContext) -> Transcript:
        """Transcribe one whole utterance."""
        return await self._unary("transcribe", lambda: self._transcribe(request), context)

    async def listen(self, request: ListenRequest, context: RequestContext) -> Transcript:
        """Take one piece of an utterance; return what is understood so far, or the final transcript.

        Raises:
            StreamLost: Pieces before this one are not here; the caller sends the utterance whole.
        """
        return await self._unary("listen", lambda: self._piece(request), context)

    async def _piece(self, request: ListenRequest) -> Transcript:
        if not isinstance(self.engine, StreamingSpeechToText):
            raise BadRequest("model", f"{self.config.name} does not stream; send whole utterances")
        here = self._listening.get(request.stream)
        if here is None:
            if request.sequence != 0:
                raise StreamLost("the pieces before this one are not here")
            here = _Listening(await self.engine.open(request.sample_rate, request.language))
            self._listening[request.stream] = here
        async with here.turn:
            if request.sequence != here.expected:
                await self._forget(request.stream)
                raise StreamLost(f"piece {request.sequence} came where {here.expected} was due")
            here.expected += 1
            here.used = time.monotonic()
            try:
                text = await here.stream.feed(request.audio) if request.audio else ""
                if not request.last:
                    return Transcript(text, final=False)
                transcript = await here.stream.finish()
            except BaseException:  # also when cancelled: a broken stream is not kept
                await self._forget(request.stream)
                raise
            await self._forget(request.stream)
            return transcript

    async def _forget(self, stream: str) -> None:
        if (here := self._listening.pop(stream, None)) is not None:
            await here.stream.close()

    async def _reap(self) -> None:
        while True:
            await asyncio.sleep(STREAM_IDLE_SECONDS / 2)
            now = time.monotonic()
            for name, here in list(self._listening.items()):
                if now - here.used > STREAM_IDLE_SECONDS:
                    await self._forget(name)

    async def shutdown(self) -> None:
        """Give up what is being listened to, then free the engine."""
        self._reaper.cancel()
        for name in list(self._listening):
            await self._forget(name)
        await super().shutdown()


def _gathering(engine: SpeechToText, batch: Batch | None) -> Callable[[TranscribeRequest], Awaitable[Transcript]]:
    """Return the engine's `transcribe`; with a batch, one that gathers requests of different calls into one pass."""
    if batch is None or not isinstance(engine, BatchingSpeechToText):
        return engine.transcribe

    @_serve.batch(max_batch_size=batch.size, batch_wait_timeout_s=batch.wait_ms / 1000)
    async def together(requests: list[TranscribeRequest]) -> list[Transcript | ParleyError]:
        return await engine.transcribe_batch(requests)

    async def transcribe(request: TranscribeRequest) -> Transcript:
        answer: Transcript | ParleyError = await together(request)
        if isinstance(answer, ParleyError):
            raise answer
        return answer

    return transcribe


class Chat(Replica):
    """Serves `chat`, and `prefill` where the engine reads ahead."""

    role = "llm"

    async def warm_up(self) -> None:
        """Ask for one token."""
        request = ChatRequest([{"role": "user", "content": "Hello"}], max_tokens=1)
        async for _ in cast(LanguageModel, self.engine).chat(request):
            pass

    async def chat(self, request: ChatRequest, context: RequestContext) -> AsyncGenerator[ChatChunk, None]:
        """Stream the next message of a conversation."""
        if request.so_far and not self.engine.capabilities.continues:
            request = _asked_to_continue(request)
        # Of a request outside a call, the engine itself says that it takes no pictures.
        if context.call and not self.engine.capabilities.images:
            request = _without_pictures(request)
        stream = self._stream("chat", cast(LanguageModel, self.engine).chat(request), context)
        try:
            async for chunk in stream:
                yield chunk
        finally:
            await stream.aclose()

    async def work(self, context: RequestContext) -> tuple[str, list[Work]]:
        """Return this machine's name, and when the engine wrote its last answers, where it keeps that."""
        return platform.node(), self.engine.work.recent() if isinstance(self.engine, TellsWork) else []

    async def prefill(self, request: ChatRequest, context: RequestContext) -> None:
        """Read a prompt ahead of the request that needs it; does nothing where the engine cannot."""
        engine = self.engine
        if isinstance(engine, PrefillingLanguageModel):
            if not engine.capabilities.images:
                request = _without_pictures(request)
            await self._unary("prefill", lambda: engine.prefill(request), context)


def _asked_to_continue(request: ChatRequest) -> ChatRequest:
    """Ask in words, for engines that cannot go on in the middle of a message."""
    begun = {"role": "assistant", "content": request.so_far}
    ask = {"role": "user", "content": "Go on exactly where you stopped. Repeat nothing, and do not mention this."}
    return replace(request, messages=[*request.messages, begun, ask], so_far="")


def _without_pictures(request: ChatRequest) -> ChatRequest:
    """Say in words where a picture was: the conversation had a model that sees, and this one stands in for it."""
    if all(not isinstance(message.get("content"), list) for message in request.messages):
        return request
    messages: list[dict[str, Any]] = []
    for message in request.messages:
        content: Any = message.get("content")
        if isinstance(content, list):
            parts = cast("list[dict[str, Any]]", content)
            texts = [part.get("text", "") if part.get("type") == "text" else "[a picture]" for part in parts]
            message = {**message, "content": "\n".join(texts)}
        messages.append(message)
    return replace(request, messages=messages)


class Speech(Replica):
    """Serves `speak`."""

    role = "tts"

    async def warm_up(self) -> None:
        """Speak one word."""
        async for _ in cast(TextToSpeech, self.engine).speak(SpeechRequest("Ready.")):
            pass

    async def speak(self, request: SpeechRequest, context: RequestContext) -> AsyncGenerator[SpeechChunk, None]:
        """Stream speech as it is made."""
        stream = self._stream("speak", cast(TextToSpeech, self.engine).speak(request), context)
        try:
            async for chunk in stream:
                yield chunk
        finally:
            await stream.aclose()


REPLICAS: dict[Role, type[Replica]] = {c.role: c for c in (SpeechRecognition, Chat, Speech)}
"""The deployment class of each role; its name is the deployment's name in Serve."""
