"""Language models behind OpenAI's chat completions: OpenAI, Azure OpenAI, and any server that is compatible."""

from __future__ import annotations

import time
from collections.abc import AsyncGenerator
from typing import Any, Literal, cast

from pydantic import Field

from serve.config import Strict
from serve.contracts import Capabilities, ChatChunk, ChatRequest, Usage
from serve.errors import BadRequest, ProviderDown
from serve.llm.toolcalls import ToolCalls
from serve.openai_client import AzureAccount, Connection, OpenAIAccount

_FINISHES = ("stop", "length", "tool_calls", "content_filter")


class ChatOptions(Strict):
    """Options of the answers.

    Attributes:
        temperature: Randomness, where the request does not say; None: the model's own. Reasoning models take none.
        top_p: Likelier words that are considered, where the request does not say; None: the model's own.
        max_tokens: Of an answer, where the request does not say.
        token_limit: The field in which the provider takes it; None: `max_completion_tokens` for OpenAI and Azure,
            `max_tokens` for compatible servers.
        stream_usage: Ask for the usage; off for servers that refuse the question, which then report none.
        adapters: Models of the same server that a request may name as its `adapter`.
        tools: The model calls tools.
        structured: The model keeps to a JSON schema.
        images: The model sees pictures; None: OpenAI's and Azure's do, those of compatible servers do not.
        extra_body: Further fields of the request, such as `reasoning_effort`.
    """

    temperature: float | None = Field(default=None, ge=0)
    top_p: float | None = Field(default=None, gt=0, le=1)
    max_tokens: int = Field(default=512, ge=1)
    token_limit: Literal["max_tokens", "max_completion_tokens"] | None = None
    stream_usage: bool = True
    adapters: tuple[str, ...] = ()
    tools: bool = True
    structured: bool = True
    images: bool | None = None
    extra_body: dict[str, Any] = Field(default_factory=dict)


class Options(OpenAIAccount, ChatOptions):
    """Options of `openai-llm`.

    Attributes:
        model: As the server knows it.
    """

    model: str = "gpt-4.1-mini"


class AzureOptions(AzureAccount, ChatOptions):
    """Options of `azure-openai-llm`; the deployment says which model."""


class OpenAIChat:
    """Answers by somebody else's model."""

    Options: type[Options] | type[AzureOptions] = Options

    def __init__(self, options: Options | AzureOptions) -> None:
        self._options = options
        self._connection = Connection(options, "messages")
        compatible = isinstance(options, Options) and options.base_url is not None
        self._images = not compatible if options.images is None else options.images
        self._limit = options.token_limit or ("max_tokens" if compatible else "max_completion_tokens")

    @property
    def capabilities(self) -> Capabilities:
        """As the options say; a provider keeps what it has read without being asked."""
        options = self._options
        return Capabilities(streaming=True, tools=options.tools, structured=options.structured, images=self._images)

    async def load(self) -> None:
        """Make the client; nothing is sent."""
        await self._connection.open()

    async def warm(self) -> None:
        """Open a connection."""
        await self._connection.warm()

    async def close(self) -> None:
        """Close the connections."""
        await self._connection.close()

    async def chat(self, request: ChatRequest) -> AsyncGenerator[ChatChunk, None]:
        """Stream the next message; closing it closes the provider's connection at once."""
        if not request.messages:
            raise BadRequest("messages", "must not be empty")
        body = self._body(request)
        chunks = self._connection.caller.stream(lambda: self._answer(body))
        try:
            async for chunk in chunks:
                yield chunk
        finally:
            await chunks.aclose()

    async def _answer(self, body: dict[str, Any]) -> AsyncGenerator[ChatChunk | None, None]:
        """Send the request once; yield its pieces, and None for events that bring none."""
        began = time.perf_counter()
        calls, usage, finish = ToolCalls(), Usage(), ""
        events = await self._connection.client.chat.completions.create(**body)
        try:
            async for event in events:
                usage = _usage(event.usage) if event.usage else usage
                text = ""
                for choice in event.choices or ():
                    finish = choice.finish_reason or finish
                    if (delta := choice.delta) is None:
                        continue
                    text += delta.content or getattr(delta, "refusal", None) or ""
                    calls.add([call.model_dump() for call in delta.tool_calls or ()])
                yield ChatChunk(text=text) if text else None
        finally:
            await events.close()
        if not finish:
            # A connection that ends where it should not looks like an end to HTTP/1.0 and to some gateways.
            raise ProviderDown("the answer broke off before its end")
        if calls:
            yield ChatChunk(tool_calls=calls.whole())
        seconds = time.perf_counter() - began
        yield ChatChunk(
            finish_reason=cast("Any", "tool_calls" if calls else finish if finish in _FINISHES else "stop"),
            usage=Usage(
                prompt_tokens=usage.prompt_tokens,
                cached_tokens=usage.cached_tokens,
                completion_tokens=usage.completion_tokens,
                busy_seconds=seconds,
            ),
        )

    def _body(self, request: ChatRequest) -> dict[str, Any]:
        options = self._options
        if request.adapter is not None and request.adapter not in options.adapters:
            raise BadRequest("adapter", f"this model has {', '.join(options.adapters) or 'none'}")
        body: dict[str, Any] = {
            "model": request.adapter or options.model,
            "messages": request.messages,
            "stream": True,
            self._limit: request.max_tokens or options.max_tokens,
        }
        optional = {
            "stream_options": {"include_usage": True} if options.stream_usage else None,
            "temperature": options.temperature if request.temperature is None else request.temperature,
            "top_p": options.top_p if request.top_p is None else request.top_p,
            "stop": list(request.stop) or None,
            "seed": request.seed,
            "tools": list(request.tools) or None,
            # Without tools the choice is refused.
            "tool_choice": request.tool_choice if request.tools else None,
            "response_format": request.response_format,
            "extra_body": options.extra_body or None,
        }
        return body | {name: value for name, value in optional.items() if value is not None}


class AzureOpenAIChat(OpenAIChat):
    """Answers by a deployment of Azure OpenAI."""

    Options = AzureOptions


def _usage(counts: Any) -> Usage:
    details = counts.prompt_tokens_details
    return Usage(
        prompt_tokens=counts.prompt_tokens or 0,
        cached_tokens=(details.cached_tokens if details else 0) or 0,
        completion_tokens=counts.completion_tokens or 0,
    )
