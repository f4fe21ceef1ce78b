"""Cursors: what is none, or another list's, is a problem of the field and never of the database."""

from __future__ import annotations

import base64
from pathlib import Path

import pytest

from api.db.types import now
from api.pages import cursor_of
from tests.unit.api.backend import backend, client

pytestmark = pytest.mark.unit


@pytest.mark.parametrize(
    "cursor",
    [
        "x",
        base64.urlsafe_b64encode(b"{}").decode(),
        cursor_of("one"),
        cursor_of("2026-05-04T09:30:12Z", "key_1"),
        cursor_of(now(), now()),
        cursor_of(now(), "a\0b"),
    ],
)
async def test_a_cursor_that_is_none_of_the_lists_is_refused(tmp_path: Path, cursor: str) -> None:
    async with backend(tmp_path) as app, client(app) as http:
        answer = await http.get("/api/v1/keys", params={"after": cursor})
        assert answer.status_code == 422
        assert answer.json()["errors"][0]["field"] == "after"
        assert (await http.get("/api/v1/keys", params={"after": cursor_of(now(), "key_1")})).status_code == 200
