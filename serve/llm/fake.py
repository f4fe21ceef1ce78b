"""A language model for tests: says what its options say, or repeats the last message."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncGenerator
from typing import Any

from pydantic import Field

from serve.config import Strict
from serve.contracts import Capabilities, ChatChunk, ChatRequest, ToolCall, Usage
from serve.errors import BadRequest, ContextExceeded
from serve.fakes import Failure, fail


class Options(Strict):
    """Options of the fake model.

    Attributes:
        answers: Answers in turn, from the start again after the last; none: repeat the last message.
        delay: Seconds before each word.
        first_delay: Seconds before the first word, beside `delay`.
        fail_after: Words before the answer breaks off; None: it does not.
        failure: The error's class.
        context: Words that the messages may have.
        max_tokens: Words of an answer, where the request does not say.
    """

    answers: tuple[str, ...] = ()
    delay: float = Field(default=0.0, ge=0)
    first_delay: float = Field(default=0.0, ge=0)
    fail_after: int | None = Field(default=None, ge=0)
    failure: Failure = "EngineFailed"
    context: int = Field(default=2048, ge=1)
    max_tokens: int = Field(default=256, ge=1)


class FakeLanguageModel:
    """Answers word by word; a word is a token. A request with tools calls the first when asked to `call`.

    Attributes:
        produced: Words made so far, for tests of cancellation.
        prefilled: Requests read ahead.
    """

    Options = Options

    def __init__(self, options: Options) -> None:
        self._options = options
        self._answers = 0
        self.produced = 0
        self.prefilled: list[ChatRequest] = []

    @property
    def capabilities(self) -> Capabilities:
        """Reads ahead and calls tools."""
        return Capabilities(streaming=True, prefill=True, tools=True, continues=True)

    async def load(self) -> None:
        """Nothing to load."""

    async def close(self) -> None:
        """Nothing to free."""

    async def chat(self, request: ChatRequest) -> AsyncGenerator[ChatChunk, None]:
        """Stream the answer."""
        prompt = self._read(request)
        last = str(request.messages[-1].get("content") or "")
        await asyncio.sleep(self._options.first_delay)
        if request.tools and "call" in last.lower():
            name = str(request.tools[0]["function"]["name"])
            yield ChatChunk(tool_calls=(ToolCall("call_1", name, "{}"),))
            yield ChatChunk(finish_reason="tool_calls", usage=Usage(prompt_tokens=prompt, completion_tokens=1))
            return
        words = self._next(last).split()[len(request.so_far.split()) :]
        limit = request.max_tokens or self._options.max_tokens
        said = 0
        for word in words[:limit]:
            await asyncio.sleep(self._options.delay)
            if said == self._options.fail_after:
                fail(self._options.failure)
            said += 1
            self.produced += 1
            yield ChatChunk(text=word if said == 1 and not request.so_far else f" {word}")
        yield ChatChunk(
            finish_reason="length" if len(words) > limit else "stop",
            usage=Usage(prompt_tokens=prompt, completion_tokens=said),
        )

    async def prefill(self, request: ChatRequest) -> None:
        """Note the request."""
        self._read(request)
        await asyncio.sleep(self._options.first_delay)
        self.prefilled.append(request)

    def _read(self, request: ChatRequest) -> int:
        if not request.messages:
            raise BadRequest("messages", "must not be empty")
        contents: list[Any] = [message.get("content") or "" for message in request.messages]
        words = sum(len(str(content).split()) for content in contents)
        if words > self._options.context:
            raise ContextExceeded("messages", f"{words} tokens; the context holds {self._options.context}")
        return words

    def _next(self, last: str) -> str:
        answers = self._options.answers
        number, self._answers = self._answers, self._answers + 1
        return answers[number % len(answers)] if answers else last
