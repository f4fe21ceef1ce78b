"""Tool calls arrive in pieces, in the shape of OpenAI's stream; a caller wants them whole."""

from __future__ import annotations

import secrets
from collections.abc import Mapping, Sequence
from typing import Any, cast

from serve.contracts import ToolCall


class ToolCalls:
    """Puts the pieces of an answer's tool calls together."""

    def __init__(self) -> None:
        self._calls: dict[int, dict[str, str]] = {}

    def __bool__(self) -> bool:
        return bool(self._calls)

    def add(self, deltas: Sequence[Mapping[str, Any]]) -> None:
        """Take the `tool_calls` of one delta."""
        for delta in deltas:
            call = self._calls.setdefault(self._index(delta), {"id": "", "name": "", "arguments": ""})
            function = cast("Mapping[str, Any]", delta.get("function") or {})
            call["id"] = delta.get("id") or call["id"]
            call["name"] = function.get("name") or call["name"]
            call["arguments"] += function.get("arguments") or ""

    def whole(self) -> tuple[ToolCall, ...]:
        """Return the calls in their order; one without an id gets one, and without arguments an empty object."""
        return tuple(
            ToolCall(call["id"] or f"call_{secrets.token_hex(8)}", call["name"], call["arguments"] or "{}")
            for _, call in sorted(self._calls.items())
        )

    def _index(self, delta: Mapping[str, Any]) -> int:
        """Return which call a piece belongs to; some servers do not count, and begin a new one by its id."""
        if (index := delta.get("index")) is not None:
            return index
        last = max(self._calls, default=0)
        known = self._calls.get(last)
        return last + 1 if known and delta.get("id") not in (None, "", known["id"]) else last
