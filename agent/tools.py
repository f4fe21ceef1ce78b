"""Tools that an assistant calls: Python functions of installed packages, and those of MCP servers.

Whatever a tool does, the model is told in words, within a deadline; nothing that goes wrong in one reaches the caller.
"""

from __future__ import annotations

import asyncio
import contextvars
import functools
import inspect
import json
import logging
from collections.abc import Awaitable, Callable, Sequence
from concurrent.futures import ThreadPoolExecutor
from contextlib import AsyncExitStack
from typing import Any, cast

from livekit.agents import RunContext, llm
from livekit.agents.voice import SpeechHandle

from agent import tool_names
from agent.mcp_tools import McpTools
from serve.assistant import Assistant, ToolLimits

logger = logging.getLogger("ray.serve.parley")

Used = dict[str, Any]


class Guard:
    """What stands between one call's tools and its model.

    Args:
        limits: Deadline, concurrency, length of results.
        filler: Asks the caller to wait, or returns None.
        used: Told each use: `tool`, `outcome` ("ok", "error", "late") and `ms`; no content.
    """

    def __init__(
        self,
        limits: ToolLimits,
        filler: Callable[[], SpeechHandle | None] = lambda: None,
        used: Callable[[Used], None] = lambda _: None,
    ) -> None:
        self._limits = limits
        self._filler = filler
        self._used = used
        self._slots = asyncio.Semaphore(limits.at_once)
        self._filled = ""
        self.threads = ThreadPoolExecutor(max_workers=limits.at_once, thread_name_prefix="tool")
        """For functions that block. One that outlives its deadline keeps its thread, and no more than these."""

    async def run(
        self,
        name: str,
        work: Callable[[], Awaitable[Any]],
        context: RunContext[Any],
        *,
        deadline: float | None = None,
        as_is: bool = False,
    ) -> Any:
        """Do a tool's work; return its result for the model, or what went wrong, in words.

        Args:
            name: Of the tool.
            work: Does it.
            context: Of the call of the tool.
            deadline: Seconds; None: as the limits say.
            as_is: The result is livekit-agents' own, a hand-over or one without a reply.
        """
        clock = asyncio.get_running_loop().time
        began, seconds, outcome = clock(), deadline or self._limits.deadline, "error"
        task = asyncio.create_task(self._work(work, context), name=f"tool {name}")
        try:
            # Not by cancelling alone: a tool that swallows that must not hold up the call.
            done, _ = await asyncio.wait({task}, timeout=seconds)
            if not done:
                outcome = "late"
                return f"{name} took longer than {seconds:g} seconds and was given up. Tell the caller so."
            result = task.result()
            outcome = "ok"
            return result if as_is else self._bounded(result)
        except llm.ToolError as error:
            return self._bounded(f"{name} failed: {error.message}")
        except llm.StopResponse:
            outcome = "ok"
            raise
        except Exception as error:  # a tool is anybody's code; the model is told
            logger.warning("tool %s failed with %s", name, type(error).__name__)
            return f"{name} failed ({type(error).__name__}). Tell the caller that this is not possible now."
        finally:
            if not task.done():
                task.add_done_callback(_forget)
                task.cancel()
            self._used({"tool": name, "outcome": outcome, "ms": round((clock() - began) * 1000)})

    def close(self) -> None:
        """Take no more work; functions that still run are left to their end."""
        self.threads.shutdown(wait=False, cancel_futures=True)

    async def _work(self, work: Callable[[], Awaitable[Any]], context: RunContext[Any]) -> Any:
        async with AsyncExitStack() as stack:
            if self._limits.filler_after:
                filler = context.with_filler(lambda _: self._fill(context), delay=self._limits.filler_after)
                await stack.enter_async_context(filler)
            async with self._slots:
                return await work()

    def _fill(self, context: RunContext[Any]) -> SpeechHandle | None:
        """Ask the caller to wait, once a turn."""
        if self._filled == context.speech_handle.id:
            return None
        self._filled = context.speech_handle.id
        return self._filler()

    def _bounded(self, result: Any) -> str:
        text = "Done." if result is None else result if isinstance(result, str) else _json(result)
        most = self._limits.max_result
        return text if len(text) <= most else f"{text[:most]} [cut: {len(text)} characters in all]"


def function(name: str, call: Callable[..., Any], guard: Guard) -> llm.RawFunctionTool[Any, Any]:
    """Return a plain function, async or not, as a tool.

    Args:
        name: Of the tool.
        call: Its parameters have type hints, its docstring says what it does; one parameter may be a `RunContext`.
        guard: Of the call.

    Raises:
        TypeError, KeyError, ValueError: Its parameters cannot be described.
    """
    described = llm.function_tool(call, name=name)
    schema = cast("dict[str, Any]", llm.utils.build_legacy_openai_schema(described)["function"])

    async def run(raw_arguments: dict[str, object], context: RunContext[Any]) -> Any:
        async def work() -> Any:
            args, more = llm.utils.prepare_function_arguments(
                fnc=described, json_arguments=raw_arguments, call_ctx=context
            )
            if inspect.iscoroutinefunction(call):
                return await call(*args, **more)
            inside = functools.partial(contextvars.copy_context().run, call, *args, **more)
            return await asyncio.get_running_loop().run_in_executor(guard.threads, inside)

        return await guard.run(name, work, context)

    return raw_tool(name, schema, run)


def raw_tool(name: str, schema: dict[str, Any], run: Callable[..., Awaitable[Any]]) -> llm.RawFunctionTool[Any, Any]:
    """Return a tool of a JSON schema and a function that takes `raw_arguments` and `context`."""
    kept: dict[str, Any] = {
        "name": name,
        "description": schema.get("description") or "",
        "parameters": schema.get("parameters") or {"type": "object", "properties": {}},
    }
    return llm.function_tool(run, raw_schema=kept)


class Toolbox:
    """The tools of one assistant in one call.

    Args:
        assistant: Whose tools.
        built_in: Tools of the call itself, by name; those that the assistant names are its own.
        guard: Bounds them.
    """

    def __init__(self, assistant: Assistant, built_in: Sequence[llm.RawFunctionTool[Any, Any]], guard: Guard) -> None:
        self._guard = guard
        self._servers = [McpTools(server, assistant.tool_limits.deadline) for server in assistant.mcp]
        self.tools: list[llm.RawFunctionTool[Any, Any]] = []
        installed = tool_names.installed()
        own = {tool.info.name: tool for tool in built_in}
        for name in dict.fromkeys(assistant.tools):
            if name in own:
                self.tools.append(own[name])
            elif name in installed:
                self._load(name, installed[name])
            else:
                logger.error("there is no tool %s here: the assistant goes without", name)

    @property
    def remote(self) -> bool:
        """Some of its tools are on MCP servers, and are there after `connect`."""
        return bool(self._servers)

    async def connect(self) -> None:
        """Add the tools of MCP servers; one that is away is left out, with a warning."""
        names = {tool.info.name for tool in self.tools}
        for found in await asyncio.gather(*(server.open() for server in self._servers)):
            for tool in found:
                name = str(tool.info.name)
                if name in names:
                    logger.warning("two tools are named %s: the first one stays", name)
                    continue
                names.add(name)
                self.tools.append(self._guarded(name, tool))

    async def aclose(self) -> None:
        """Close connections."""
        self._guard.close()
        await asyncio.gather(*(server.aclose() for server in self._servers))

    def _load(self, name: str, entry: Any) -> None:
        try:
            self.tools.append(function(name, entry.load(), self._guard))
        except Exception as error:  # somebody else's code
            logger.error("tool %s cannot be used (%s): the assistant goes without", name, type(error).__name__)

    def _guarded(self, name: str, tool: llm.RawFunctionTool[Any, Any]) -> llm.RawFunctionTool[Any, Any]:
        async def run(raw_arguments: dict[str, object], context: RunContext[Any]) -> Any:
            return await self._guard.run(name, lambda: tool(raw_arguments), context)

        return raw_tool(name, tool.info.raw_schema, run)


def _json(value: Any) -> str:
    try:
        return json.dumps(value, ensure_ascii=False, default=str)
    except (TypeError, ValueError):
        return str(value)


def _forget(task: asyncio.Task[Any]) -> None:
    """Look at how an abandoned task ended, so that asyncio does not print it."""
    if not task.cancelled():
        task.exception()
