"""Tools of servers that speak the Model Context Protocol over HTTP, through livekit-agents' own client."""

from __future__ import annotations

import asyncio
import contextlib
import logging
import os
from typing import Any, cast
from urllib.parse import urlparse

from livekit.agents import llm

from serve.assistant import McpServer

logger = logging.getLogger("ray.serve.parley")

OPEN_SECONDS = 5.0
"""How long a server may take to connect and to list its tools."""

CLOSE_SECONDS = 2.0
MOST_TOOLS = 64
"""More than these no model keeps apart."""


class McpTools:
    """The tools of one server, for one call; a connection that breaks is made again by the next use.

    Args:
        config: The server.
        deadline: Seconds that one use may take.
    """

    def __init__(self, config: McpServer, deadline: float) -> None:
        self._config = config
        self._deadline = deadline
        self._server: Any = None
        self._broken = False
        self._opening = asyncio.Lock()

    async def open(self) -> list[llm.RawFunctionTool[Any, Any]]:
        """Connect and return the tools; none, with a warning, where that fails."""
        where = urlparse(self._config.url).netloc
        missing = [variable for variable in self._config.headers.values() if not os.environ.get(variable)]
        if missing:
            logger.warning("the tools of %s are not there: set %s", where, ", ".join(missing))
            return []
        try:
            async with asyncio.timeout(OPEN_SECONDS):
                self._server = self._client()
                await self._server.initialize()
                tools: list[Any] = await self._server.list_tools()
        except Exception as error:  # the client raises groups of whatever happened
            logger.warning("the tools of %s are not there: %s", where, _names(error))
            return []
        if len(tools) > MOST_TOOLS:
            logger.warning("%s has %d tools: the first %d are taken", where, len(tools), MOST_TOOLS)
        return [self._mending(tool) for tool in tools[:MOST_TOOLS]]

    async def aclose(self) -> None:
        """Close the connection."""
        if self._server is not None:
            with contextlib.suppress(Exception):
                await asyncio.wait_for(self._server.aclose(), CLOSE_SECONDS)

    def _client(self) -> Any:
        # Imported here: it takes a quarter of a second, and most calls have no such server.
        from livekit.agents.llm import mcp

        path = urlparse(self._config.url).path.rstrip("/")
        return mcp.MCPServerHTTP(
            self._config.url,
            transport_type="sse" if path.endswith("/sse") else "streamable_http",
            allowed_tools=list(self._config.tools) if self._config.tools is not None else None,
            headers={header: os.environ[variable] for header, variable in self._config.headers.items()},
            timeout=OPEN_SECONDS,
            client_session_timeout_seconds=self._deadline,
            tool_result_resolver=_text,
        )

    def _mending(self, tool: llm.RawFunctionTool[Any, Any]) -> llm.RawFunctionTool[Any, Any]:
        async def run(raw_arguments: dict[str, object]) -> Any:
            await self._mend()
            try:
                return await tool(raw_arguments)
            except llm.ToolError:
                # Its own error, or a connection that is gone.
                self._broken = not self._server.initialized
                raise
            except Exception:  # whatever broke it, the next use connects anew
                self._broken = True
                raise

        return llm.function_tool(run, raw_schema=tool.info.raw_schema)

    async def _mend(self) -> None:
        """Connect again where the last use has shown that the connection is broken."""
        async with self._opening:
            if not self._broken:
                return
            await self.aclose()
            async with asyncio.timeout(OPEN_SECONDS):
                await self._server.initialize()
            self._broken = False


def _text(result: Any) -> str:
    """Return what a tool answered as text; what is no text is named."""
    parts = [getattr(part, "text", None) or f"[{getattr(part, 'type', 'content')}]" for part in result.result.content]
    return "\n".join(parts) or "Done."


def _names(error: BaseException) -> str:
    """Return the classes of an error, those inside a group."""
    if isinstance(error, BaseExceptionGroup):
        inside = cast("BaseExceptionGroup[BaseException]", error).exceptions
        return ", ".join(sorted({_names(each) for each in inside}))
    return type(error).__name__
