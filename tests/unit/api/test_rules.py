"""What assistants that are made here may have is told to those who may read assistants."""

from __future__ import annotations

from pathlib import Path

import pytest

from tests.unit.api.backend import backend, client

pytestmark = pytest.mark.unit

RULES = {"tools": ["end_call", "not_there"], "mcp": ["https://tools.example.com/mcp"], "people": ["tel:+49301"]}
URL = "/api/v1/assistant_rules"


async def test_the_choices_are_those_that_a_change_is_checked_by(tmp_path: Path) -> None:
    async with backend(tmp_path, assistants=RULES) as app, client(app) as http:
        app.state.staff.update({"default": {}}, ["end_call", "secret_tool"])
        told = await http.get(URL)
        assert told.status_code == 200, told.text
        assert told.json() == RULES | {"tools": ["end_call"]}
        made = await http.post("/api/v1/assistants", json={"name": "Desk", "definition": {"tools": ["secret_tool"]}})
        assert made.status_code == 422


async def test_without_rules_all_tools_are_there_and_nobody_else_is(tmp_path: Path) -> None:
    async with backend(tmp_path) as app, client(app, scopes=["calls:read"]) as stranger, client(app) as http:
        app.state.staff.update({"default": {}}, ["end_call", "hand_over"])
        assert (await http.get(URL)).json() == {"tools": ["end_call", "hand_over"], "mcp": [], "people": []}
        assert (await stranger.get(URL)).status_code == 403
