"""Parley's models as the components that livekit-agents' session expects, over `serve.client`."""

from __future__ import annotations

import asyncio
import logging
import time
from collections.abc import AsyncGenerator, AsyncIterable, Sequence
from contextlib import aclosing
from dataclasses import dataclass, replace
from typing import Any, cast

from livekit import rtc
from livekit.agents import (
    DEFAULT_API_CONNECT_OPTIONS,
    NOT_GIVEN,
    APIConnectionError,
    APIConnectOptions,
    APIError,
    LanguageCode,
    NotGivenOr,
    llm,
    stt,
    tts,
    utils,
    vad,
)
from livekit.agents.types import USERDATA_TTS_STARTED_TIME

from agent.ears import WINDOW_MS, Ears
from agent.keeper import Answer
from agent.library import Library
from agent.pieces import Pieces
from serve.assistant import Assistant
from serve.client import Models
from serve.contracts import ChatRequest, RequestContext, SpeechRequest, TranscribeRequest
from serve.errors import ParleyError

logger = logging.getLogger("ray.serve.parley")

_HISTORY_MOST, _HISTORY_KEPT = 20, 8
"""Messages of history: cut from the first number to the second at once, so that in between the prompt only grows and
the model's prompt cache holds."""

READ_SECONDS = 5.0
"""How long reading ahead may take; an answer that is asked for meanwhile waits for what has been read."""

ANSWER_SECONDS = 20.0
"""How long one answer, or one piece of speech, may take."""


class Recogniser(stt.STT[Any]):
    """Speech to text of a call. Live audio goes through `Ears`; this recognises whole buffers."""

    def __init__(self, models: Models, context: RequestContext) -> None:
        super().__init__(capabilities=stt.STTCapabilities(streaming=True, interim_results=True, offline_recognize=True))
        self._models, self._context = models, context

    @property
    def model(self) -> str:
        """The model that serves now."""
        return self._models.model("stt")

    async def _recognize_impl(
        self, buffer: utils.AudioBuffer, *, language: NotGivenOr[str] = NOT_GIVEN, conn_options: APIConnectOptions
    ) -> stt.SpeechEvent:
        frame = rtc.combine_audio_frames(buffer)
        request = TranscribeRequest(bytes(frame.data), frame.sample_rate, language or None)
        try:
            transcript = await self._models.transcribe(request, self._context)
        except ParleyError as error:
            raise _as_livekit(error) from error
        data = stt.SpeechData(language=LanguageCode(language or ""), text=transcript.text)
        return stt.SpeechEvent(stt.SpeechEventType.FINAL_TRANSCRIPT, alternatives=[data])


class SharedVad(vad.VAD):
    """The session's side of voice activity, which `Ears` detects on the way to transcription."""

    def __init__(self, ears: Ears) -> None:
        super().__init__(capabilities=vad.VADCapabilities(update_interval=WINDOW_MS / 1000))
        self._ears = ears

    def stream(self) -> vad.VADStream:
        """Return the events that the call's ears send; the audio pushed to it is theirs already."""
        return _SharedVadStream(self._ears)


class _SharedVadStream(vad.VADStream):
    """Events alone: no queue, no task and no second pass over the audio."""

    def __init__(self, ears: Ears) -> None:  # pyright: ignore[reportMissingSuperCall]  # its tasks are what it avoids
        self._events = ears.activity()

    async def _main_task(self) -> None:
        """Nothing to do: the ears hear."""

    def push_frame(self, frame: rtc.AudioFrame) -> None:
        """Drop the frame: the ears have it from the session's STT node."""

    def flush(self) -> None:
        """Keep state: the ears see every boundary."""

    def end_input(self) -> None:
        """Nothing is kept."""

    async def aclose(self) -> None:
        """The ears close their own events."""

    async def __anext__(self) -> vad.VADEvent:
        return await self._events.__anext__()


@dataclass(slots=True)
class Span:
    """From asking a model to its first sign, in seconds since the epoch; 0.0: not yet."""

    asked: float = 0.0
    first: float = 0.0

    def ask(self) -> None:
        """A request goes out."""
        self.asked, self.first = time.time(), 0.0

    def sign(self) -> None:
        """Something came; only the first time counts."""
        self.first = self.first or time.time()


class LanguageModel(llm.LLM[Any]):
    """The language model of a call.

    Attributes:
        span: Of the last answer asked for.
        assistant: Who answers; another may take over.
        tools: What the assistant has; read ahead with the conversation, since they stand before it in the prompt.
        spoke: The last answer had words, not tool calls alone.
        called: The last answer called tools.
        library: Files that the caller has sent.
    """

    def __init__(self, models: Models, context: RequestContext, assistant: Assistant) -> None:
        super().__init__()
        self.span = Span()
        self.assistant = assistant
        self.tools: list[llm.Tool] = []
        self.spoke = self.called = False
        self.library = Library()
        self._models, self._context = models, context
        self._reading: asyncio.Task[None] | None = None
        self._calls: set[str] = set()

    @property
    def model(self) -> str:
        """The model that serves now."""
        return self._models.model("llm")

    def chat(
        self,
        *,
        chat_ctx: llm.ChatContext,
        tools: list[llm.Tool] | None = None,
        conn_options: APIConnectOptions = DEFAULT_API_CONNECT_OPTIONS,
        parallel_tool_calls: NotGivenOr[bool] = NOT_GIVEN,
        tool_choice: NotGivenOr[llm.ToolChoice] = NOT_GIVEN,
        extra_kwargs: NotGivenOr[dict[str, Any]] = NOT_GIVEN,
    ) -> llm.LLMStream:
        """Ask for the next message."""
        # The client has tried other replicas already; trying again here would only make the caller wait.
        once = APIConnectOptions(max_retry=0, timeout=ANSWER_SECONDS)
        choice = tool_choice if utils.is_given(tool_choice) else None
        return _Answer(self, chat_ctx=chat_ctx, tools=tools or [], conn_options=once, tool_choice=choice)

    def read_ahead(self, chat_ctx: llm.ChatContext) -> None:
        """Let the model read the conversation so far, before the caller asks on.

        What the caller says is not read while it is spoken: it is short, and with four callers on two cores reading
        each word's prompt again cost more than it brought (docs/performance.md).
        """
        if self._reading and not self._reading.done():
            return
        request = self.request(chat_ctx, self.tools)
        # An empty message stands where the caller's words will be.
        messages = [*request.messages, {"role": "user", "content": ""}]
        self._reading = asyncio.create_task(self._read(replace(request, messages=messages)), name="read ahead")

    def stop_reading(self) -> None:
        """The answer itself is asked for: it goes on from what has been read."""
        if self._reading:
            self._reading.cancel()

    async def aclose(self) -> None:
        """Stop; the call is over."""
        if self._reading:
            await utils.aio.cancel_and_wait(self._reading)
        await super().aclose()

    async def _read(self, request: ChatRequest) -> None:
        try:
            await self._models.prefill(request, RequestContext(self._context.call, timeout=READ_SECONDS))
        except ParleyError as error:
            logger.info("nothing was read ahead: %s", error.code)

    def call_id(self, given: str) -> str:
        """Return an id for a tool call; engines may give one twice, and calls and results are matched by it."""
        name = given if given and given not in self._calls else utils.shortuuid("call_")
        self._calls.add(name)
        return name

    def request(
        self, chat_ctx: llm.ChatContext, tools: Sequence[llm.Tool] = (), tool_choice: llm.ToolChoice | None = None
    ) -> ChatRequest:
        """Return the prompt: instructions, examples, tools, files, and the recent part of the conversation."""
        messages: list[dict[str, Any]] = cast(Any, chat_ctx).to_provider_format("openai")[0]
        # The session adds instructions to what it asks, not to the history that is read ahead.
        instructions = {"role": "system", "content": self.assistant.instructions}
        system = [m for m in messages if m["role"] == "system"][:1] or [instructions]
        examples = [
            {"role": role, "content": text}
            for example in self.assistant.examples
            for role, text in (("user", example.user), ("assistant", example.assistant))
        ]
        # A tool's result stays with the call before it.
        spoken: list[list[dict[str, Any]]] = []
        for message in messages:
            if message["role"] == "tool" and spoken:
                spoken[-1].append(message)
            elif message["role"] != "system":
                spoken.append([message])
        # What the caller is about to say does not count: what was read ahead is cut where the request will be.
        before = len(spoken) - (1 if spoken and spoken[-1][0]["role"] == "user" else 0)
        if (over := before - _HISTORY_KEPT) > 0:
            block = _HISTORY_MOST - _HISTORY_KEPT
            spoken = spoken[over // block * block :]
        self.library.characters = self.assistant.file_characters
        known = llm.ToolContext(tools).parse_function_tools("openai", strict=False) if tools else ()
        return ChatRequest(
            self.library.into([*system, *examples], [message for group in spoken for message in group]),
            tools=tuple(known),
            max_tokens=self.assistant.max_tokens,
            tool_choice=cast("str | dict[str, Any] | None", tool_choice) if known and tool_choice != "auto" else None,
        )

    @property
    def models(self) -> Models:
        """Where requests go."""
        return self._models

    @property
    def context(self) -> RequestContext:
        """Of the call."""
        return self._context


class _Answer(llm.LLMStream):
    """One answer, streamed."""

    def __init__(
        self,
        source: LanguageModel,
        *,
        chat_ctx: llm.ChatContext,
        tools: list[llm.Tool],
        conn_options: APIConnectOptions,
        tool_choice: llm.ToolChoice | None,
    ) -> None:
        self._choice: llm.ToolChoice | None = tool_choice
        super().__init__(source, chat_ctx=chat_ctx, tools=tools, conn_options=conn_options)

    async def _run(self) -> None:
        source = cast(LanguageModel, self._llm)
        source.stop_reading()
        source.span.ask()
        source.spoke = source.called = False
        context = RequestContext(source.context.call, timeout=self._conn_options.timeout)
        chunks = source.models.chat(source.request(self._chat_ctx, self._tools, self._choice), context)
        try:
            async for chunk in chunks:
                if chunk.text or chunk.tool_calls:
                    source.span.sign()
                    source.spoke = source.spoke or bool(chunk.text.strip())
                    source.called = source.called or bool(chunk.tool_calls)
                    calls = [
                        llm.FunctionToolCall(name=call.name, arguments=call.arguments, call_id=source.call_id(call.id))
                        for call in chunk.tool_calls
                    ]
                    delta = llm.ChoiceDelta(role="assistant", content=chunk.text or None, tool_calls=calls)
                    self._event_ch.send_nowait(llm.ChatChunk(id=source.context.call, delta=delta))
                if chunk.usage:
                    usage = llm.CompletionUsage(
                        completion_tokens=chunk.usage.completion_tokens,
                        prompt_tokens=chunk.usage.prompt_tokens,
                        prompt_cached_tokens=chunk.usage.cached_tokens,
                        total_tokens=chunk.usage.prompt_tokens + chunk.usage.completion_tokens,
                    )
                    self._event_ch.send_nowait(llm.ChatChunk(id=source.context.call, usage=usage))
        except ParleyError as error:
            raise _as_livekit(error) from error
        finally:
            await chunks.aclose()


class Voice(tts.TTS[Any]):
    """The voice of a call. The session speaks through `speak`, piece by piece.

    Attributes:
        span: Of a speech's start.
        assistant: Whose voice it is; another may take over.
        language: Of what is spoken, BCP 47; None: the voice's own.
    """

    def __init__(self, models: Models, context: RequestContext, assistant: Assistant, sample_rate: int) -> None:
        super().__init__(capabilities=tts.TTSCapabilities(streaming=True), sample_rate=sample_rate, num_channels=1)
        self._models, self._context = models, context
        self.assistant = assistant
        self.language: str | None = assistant.language
        self.span = Span()
        self.answer = Answer()
        """What was spoken last, or is being spoken."""

    @property
    def model(self) -> str:
        """The model that serves now."""
        return self._models.model("tts")

    def synthesize(
        self, text: str, *, conn_options: APIConnectOptions = DEFAULT_API_CONNECT_OPTIONS
    ) -> tts.ChunkedStream:
        """Not used: the session's TTS node is `speak`."""
        raise NotImplementedError("the session speaks through Voice.speak")

    async def speak(self, text: AsyncIterable[str]) -> AsyncGenerator[rtc.AudioFrame, None]:
        """Speak text as it is written; the session's TTS node."""
        answer = self.answer = Answer()
        async with aclosing(_pieces(text, answer)) as pieces:
            async for piece in pieces:
                if not answer.pieces:
                    self.span.ask()
                before, seconds = answer.pieces[-1] if answer.pieces else (0, 0.0)
                async with aclosing(self._piece(piece)) as frames:
                    async for frame in frames:
                        seconds += frame.duration
                        yield frame
                answer.pieces.append((answer.written.find(piece, before) + len(piece), seconds))

    async def _piece(self, text: str) -> AsyncGenerator[rtc.AudioFrame, None]:
        started = time.perf_counter()
        request = SpeechRequest(text, voice=self.assistant.voice, language=self.language)
        chunks = self._models.speak(request, RequestContext(self._context.call, timeout=ANSWER_SECONDS))
        try:
            async for chunk in chunks:
                if chunk.audio:
                    self.span.sign()
                    frame = rtc.AudioFrame(chunk.audio, chunk.sample_rate, 1, len(chunk.audio) // 2)
                    frame.userdata[USERDATA_TTS_STARTED_TIME] = started
                    yield frame
        except ParleyError as error:
            raise _as_livekit(error) from error
        finally:
            await chunks.aclose()


async def _pieces(text: AsyncIterable[str], answer: Answer) -> AsyncGenerator[str, None]:
    """Cut text into pieces as it is written, and note it."""
    pieces = Pieces()
    async for more in text:
        answer.written += more
        for piece in pieces.push(more):
            yield piece
    answer.done = True
    if rest := pieces.flush():
        yield rest


def _as_livekit(error: ParleyError) -> APIError:
    """Return the error as the session knows it; it never retries, because the client already has."""
    return APIConnectionError(str(error), retryable=False)
