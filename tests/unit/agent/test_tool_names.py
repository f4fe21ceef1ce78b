"""Tools of installed packages: found by their entry points, as pip leaves them, and used."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest

from agent import tool_names
from serve.contracts import ToolCall
from tests.conftest import ROOT
from tests.unit.agent.fake_call import calling

pytestmark = pytest.mark.unit


@pytest.fixture(autouse=True)
def installed(monkeypatch: pytest.MonkeyPatch) -> Path:
    folder = ROOT / "tests" / "installed"
    monkeypatch.syspath_prepend(str(folder))  # pyright: ignore[reportUnknownMemberType]
    return folder


def test_what_packages_bring_is_named_after_what_is_built_in() -> None:
    assert tool_names.names()[: len(tool_names.BUILT_IN)] == list(tool_names.BUILT_IN)
    assert "opening_hours" in tool_names.names()


async def test_a_packages_tool_is_called() -> None:
    config: dict[str, Any] = {"assistant": {"greeting": "", "tools": ["opening_hours"]}}
    answers = [ToolCall("c", "opening_hours", '{"day": "on Monday"}'), "Nine to five."]
    async with calling(config, answers) as call:
        await call.say("When are you open on Monday?")
        assert call.results() == ["The shop is open from nine to five on Monday."]
