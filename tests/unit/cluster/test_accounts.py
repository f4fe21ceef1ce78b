"""Unit: tenants and keys from the command line, where nobody can sign in yet."""

from __future__ import annotations

import asyncio
import json
from pathlib import Path
from typing import Any

import pytest
from cryptography.fernet import Fernet
from typer.testing import CliRunner

from api.access.keys import KeyDoorman
from api.db import open_database
from api.problems import Problem
from cluster.cli import app
from serve.errors import ConfigError
from serve.settings import settings

pytestmark = pytest.mark.unit


@pytest.fixture(autouse=True)
def home(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("PARLEY_HOME", str(tmp_path))
    monkeypatch.delenv("DATABASE_URL", raising=False)
    monkeypatch.delenv("PARLEY_API_KEYS", raising=False)
    settings.cache_clear()


def parley(*arguments: str) -> Any:
    """Return what a command says with --json."""
    result = CliRunner().invoke(app, [*arguments, "--json"], catch_exceptions=False)
    assert result.exit_code == 0, result.output
    return json.loads(result.output)


async def let_in(key: str) -> tuple[str, list[str]] | int:
    """Return tenant and scopes of a key, or the status that it is refused with."""
    database = open_database()
    try:
        found = await KeyDoorman().find(key, database)
        assert found is not None
        return found.tenant, sorted(found.scopes)
    except Problem as problem:
        return problem.status
    finally:
        await database.aclose()


async def run(*arguments: str) -> Any:
    """As `parley`, beside a test's own event loop."""
    return await asyncio.to_thread(parley, *arguments)


async def test_the_first_key_is_made_where_nobody_can_sign_in() -> None:
    made = await run("keys", "add", "first")
    tenant, scopes = await let_in(made["key"])  # type: ignore[misc]  # it is let in
    assert (tenant, "keys:write" in scopes, "tenant:write" in scopes) == ("ten_default", True, True)
    listed = await run("keys", "list")
    assert [key["id"] for key in listed] == [made["id"]]
    assert made["key"] not in json.dumps(listed)
    assert (await run("keys", "revoke", made["id"]))["revoked_at"]
    assert await let_in(made["key"]) == 401


async def test_a_key_for_another_tenant_may_what_it_is_given() -> None:
    tenant = (await run("tenants", "add", "Example Ltd", "--calls", "20"))["id"]
    made = await run("keys", "add", "reports", "--tenant", tenant, "--scope", "calls:read", "--days", "90")
    assert made["expires_at"]
    assert await let_in(made["key"]) == (tenant, ["calls:read"])
    assert await run("keys", "list") == []


def test_tenants_get_limits() -> None:
    tenant = parley("tenants", "add", "Example Ltd", "--calls", "20")["id"]
    assert parley("tenants", "set", tenant, "--minutes", "100")["allowed"] == {"calls": 20, "minutes": 100}
    assert parley("tenants", "set", tenant, "--default", "--requests", "5")["allowed"] == {"requests": 5}
    assert [each["id"] for each in parley("tenants", "list")] == ["ten_default", tenant]


@pytest.mark.parametrize(
    ("arguments", "said"),
    [
        (("keys", "add", "a", "--scope", "calls:eat"), "calls:eat"),
        (("keys", "add", "a", "--tenant", "ten_nobody"), "ten_nobody"),
        (("keys", "add", " "), "1 to 200 characters"),
        (("keys", "revoke", "key_nobody"), "key_nobody"),
        (("tenants", "set", "ten_nobody"), "ten_nobody"),
        (("tenants", "add", ""), "1 to 200 characters"),
    ],
)
def test_mistakes_are_told_in_a_sentence(arguments: tuple[str, ...], said: str) -> None:
    with pytest.raises(ConfigError, match=said):
        CliRunner().invoke(app, arguments, catch_exceptions=False)


def test_no_third_key_of_a_name() -> None:
    for _ in range(2):
        parley("keys", "add", "a")
    with pytest.raises(ConfigError, match="revoke one first"):
        parley("keys", "add", "a")


def test_a_database_that_does_not_answer_is_told_without_its_password(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("DATABASE_URL", "postgresql://u:hunter2@127.0.0.1:9/parley")
    settings.cache_clear()
    with pytest.raises(ConfigError, match="DATABASE_URL") as caught:
        parley("keys", "list")
    assert "hunter2" not in str(caught.value)


def test_a_key_for_content_is_one() -> None:
    Fernet(parley("keys", "content")["key"])
