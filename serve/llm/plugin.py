"""Any livekit-agents LLM plugin as an engine."""

from __future__ import annotations

import time
from collections.abc import AsyncGenerator
from typing import TYPE_CHECKING, Any, cast

from pydantic import Field

from serve.contracts import Capabilities, ChatChunk, ChatRequest, ToolCall, Usage
from serve.errors import BadRequest
from serve.plugins import Hosted, PluginOptions, release

if TYPE_CHECKING:
    from livekit.agents import llm


class Options(PluginOptions):
    """Options of a hosted language model.

    Attributes:
        passes: Fields of a request, and where the plugin's `chat` takes them in `extra_kwargs` (`a.b`: b inside a).
            A limit of tokens or a stop text that neither this nor `takes` names is kept by closing the stream.
    """

    passes: dict[str, str] = Field(default_factory=dict)


class PluginLanguageModel:
    """Answers by a plugin's `chat`."""

    Options = Options

    def __init__(self, options: Options) -> None:
        self._options = options
        self._hosted: Hosted[llm.LLM[Any]] = Hosted(options, "messages")

    @property
    def capabilities(self) -> Capabilities:
        """Calls tools."""
        return Capabilities(streaming=True, tools=True)

    async def load(self) -> None:
        """Build the plugin."""
        await self._hosted.load()

    async def warm(self) -> None:
        """Open the connection to the provider."""
        await self._hosted.warm()

    async def close(self) -> None:
        """Close the plugin."""
        await self._hosted.close()

    async def chat(self, request: ChatRequest) -> AsyncGenerator[ChatChunk, None]:
        """Stream the next message."""
        if not request.messages:
            raise BadRequest("messages", "must not be empty")
        if request.response_format is not None:
            raise BadRequest("response_format", f"{self._hosted.name} as a plugin takes none")
        if request.adapter is not None:
            raise BadRequest("adapter", f"{self._hosted.name} as a plugin has none")
        chunks = self._hosted.caller.stream(lambda: self._ask(request))
        try:
            async for chunk in chunks:
                yield chunk
        finally:
            await chunks.aclose()

    async def _ask(self, request: ChatRequest) -> AsyncGenerator[ChatChunk | None, None]:
        began = time.perf_counter()
        known = {*self._options.passes, *self._options.takes}
        limit = None if "max_tokens" in known else request.max_tokens
        stops = Stops(() if "stop" in known else request.stop)
        calls: list[ToolCall] = []
        usage, pieces, cut = Usage(), 0, False
        async with self._hosted.instance(**_settings(request)) as plugin:
            stream = self._hosted.within(self._begin, plugin, request)
            try:
                async for chunk in stream:
                    if chunk.usage is not None:
                        usage = _usage(chunk.usage)
                    delta = chunk.delta
                    for call in delta.tool_calls if delta is not None else ():
                        calls.append(ToolCall(call.call_id, call.name, call.arguments or "{}"))
                    content = (delta.content if delta is not None else None) or ""
                    text = stops.feed(content)
                    yield ChatChunk(text) if text else None
                    pieces += bool(content)
                    # A piece is a token or more.
                    cut = limit is not None and pieces >= limit
                    if cut or stops.met:
                        break
            finally:
                await release(stream)
        if rest := stops.rest():
            yield ChatChunk(rest)
        if calls:
            yield ChatChunk(tool_calls=tuple(calls))
        written = usage.completion_tokens
        cut = cut or bool(request.max_tokens and written >= request.max_tokens)
        usage = Usage(
            prompt_tokens=usage.prompt_tokens,
            cached_tokens=usage.cached_tokens,
            completion_tokens=written or pieces,
            busy_seconds=time.perf_counter() - began,
        )
        yield ChatChunk(finish_reason="tool_calls" if calls else "length" if cut else "stop", usage=usage)

    def _begin(self, plugin: llm.LLM[Any], request: ChatRequest) -> llm.LLMStream:
        extra: dict[str, Any] = {}
        for field, value in _settings(request).items():
            if value is not None and field in self._options.passes:
                *path, last = self._options.passes[field].split(".")
                place = extra
                for part in path:
                    place = place.setdefault(part, {})
                place[last] = list(value) if isinstance(value, tuple) else value
        more: dict[str, Any] = {"extra_kwargs": extra} if extra else {}
        if request.tool_choice is not None and request.tools:
            more["tool_choice"] = request.tool_choice
        return plugin.chat(
            chat_ctx=context(request.messages),
            tools=tools(request.tools) or None,
            conn_options=self._hosted.connect_options(),
            **more,
        )


def context(messages: list[dict[str, Any]]) -> llm.ChatContext:
    """Return OpenAI chat messages as LiveKit's.

    Raises:
        BadRequest: A message is none.
    """
    from livekit.agents import llm

    items: list[llm.ChatItem] = []
    names: dict[str, str] = {}
    try:
        for number, message in enumerate(messages):
            role = message["role"]
            if role == "tool":
                call = message["tool_call_id"]
                output = _text(message.get("content"))
                name = names.get(call, "")
                items.append(llm.FunctionCallOutput(call_id=call, name=name, output=output, is_error=False))
                continue
            if content := _content(message.get("content")):
                items.append(llm.ChatMessage(role=role, content=content))
            for call in cast("list[dict[str, Any]]", message.get("tool_calls") or []):
                function = cast("dict[str, Any]", call["function"])
                names[call["id"]] = function["name"]
                arguments = function.get("arguments") or "{}"
                # Calls of one message stay together in what the provider is sent.
                items.append(
                    llm.FunctionCall(
                        call_id=call["id"], name=function["name"], arguments=arguments, group_id=f"message_{number}"
                    )
                )
    except (KeyError, TypeError, ValueError):
        raise BadRequest("messages", "not OpenAI chat messages") from None
    return llm.ChatContext(items)


def tools(definitions: tuple[dict[str, Any], ...]) -> list[llm.Tool]:
    """Return OpenAI tool definitions as LiveKit's.

    Raises:
        BadRequest: A definition is none.
    """
    from livekit.agents import llm

    async def never(raw_arguments: dict[str, object]) -> None:
        """Whoever asked runs its tools; here they are only described."""

    found: list[llm.Tool] = []
    for definition in definitions:
        function = cast("dict[str, Any]", definition.get("function") or {})
        if not function.get("name"):
            raise BadRequest("tools", "not OpenAI tool definitions")
        schema: dict[str, Any] = {"parameters": {"type": "object", "properties": {}}, "description": "", **function}
        found.append(llm.function_tool(never, raw_schema=schema))
    return found


class Stops:
    """Cuts an answer before the first of some texts."""

    def __init__(self, stops: tuple[str, ...]) -> None:
        self._stops = tuple(stop for stop in stops if stop)
        self._most = max((len(stop) for stop in self._stops), default=1) - 1
        self._held = ""
        self.met = False

    def feed(self, text: str) -> str:
        """Return what cannot be the beginning of a stop text."""
        self._held += text
        found = [place for stop in self._stops if (place := self._held.find(stop)) >= 0]
        if found:
            self.met, text, self._held = True, self._held[: min(found)], ""
            return text
        keep = min(self._most, len(self._held))
        text, self._held = self._held[: len(self._held) - keep], self._held[len(self._held) - keep :]
        return text

    def rest(self) -> str:
        """Return what is held back."""
        return self._held


def _settings(request: ChatRequest) -> dict[str, Any]:
    return {
        "max_tokens": request.max_tokens,
        "temperature": request.temperature,
        "top_p": request.top_p,
        "seed": request.seed,
        "stop": request.stop or None,
    }


def _content(content: Any) -> list[Any]:
    from livekit.agents import llm

    if isinstance(content, str) or content is None:
        return [content] if content else []
    parts: list[Any] = []
    for part in content:
        if part["type"] == "image_url":
            parts.append(llm.ImageContent(image=part["image_url"]["url"]))
        else:
            parts.append(part["text"])
    return parts


def _text(content: Any) -> str:
    parts = cast("list[dict[str, Any]]", content or [])
    return content if isinstance(content, str) else "\n".join(part["text"] for part in parts)


def _usage(usage: llm.CompletionUsage) -> Usage:
    return Usage(
        prompt_tokens=usage.prompt_tokens,
        cached_tokens=usage.prompt_cached_tokens,
        completion_tokens=usage.completion_tokens,
    )
