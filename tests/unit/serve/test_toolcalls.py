"""Tool calls that arrive in pieces."""

from __future__ import annotations

from typing import Any

import pytest

from serve.llm.toolcalls import ToolCalls

pytestmark = pytest.mark.unit


def piece(index: int | None, arguments: str = "", **more: Any) -> dict[str, Any]:
    function = {"arguments": arguments} | ({"name": more.pop("name")} if "name" in more else {})
    return {"index": index, "function": function, **more}


def gathered(*deltas: list[dict[str, Any]]) -> list[tuple[str, str, str]]:
    calls = ToolCalls()
    for delta in deltas:
        calls.add(delta)
    return [(call.id, call.name, call.arguments) for call in calls.whole()]


def test_pieces_of_two_calls_that_alternate() -> None:
    assert gathered(
        [piece(0, id="a", name="one"), piece(1, id="b", name="two")],
        [piece(1, '{"x"'), piece(0, "{")],
        [piece(0, "}"), piece(1, ": 1}")],
    ) == [("a", "one", "{}"), ("b", "two", '{"x": 1}')]


def test_a_server_that_does_not_count() -> None:
    assert gathered(
        [piece(None, '{"x"', id="a", name="one")],
        [piece(None, ": 1}")],
        [piece(None, "{}", id="b", name="two")],
    ) == [("a", "one", '{"x": 1}'), ("b", "two", "{}")]


def test_what_is_missing_is_made_up() -> None:
    ((identity, name, arguments),) = gathered([piece(0, name="one")])
    assert identity.startswith("call_")
    assert (name, arguments) == ("one", "{}")


def test_none_is_false() -> None:
    calls = ToolCalls()
    assert not calls
    assert calls.whole() == ()
    calls.add([piece(0, name="one")])
    assert calls
