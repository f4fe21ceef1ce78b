"""What the API's tests share."""

from __future__ import annotations

from collections.abc import Generator
from pathlib import Path

import pytest
from sqlalchemy.ext.asyncio import async_sessionmaker, create_async_engine
from sqlalchemy.pool import NullPool

from api.db import Database, sqlite_url
from serve.settings import settings
from tests.unit.api.backend import SECRET


class Unpooled(Database):
    """Keeps no connection open after use: nobody closes the applications of tests that need no backend."""

    def __init__(self, url: str) -> None:
        self.engine = create_async_engine(url, poolclass=NullPool)
        self._sessions = async_sessionmaker(self.engine, expire_on_commit=False)


@pytest.fixture(autouse=True)
def fresh_settings(monkeypatch: pytest.MonkeyPatch, tmp_path_factory: pytest.TempPathFactory) -> Generator[None]:
    """Take keys out of the environment, and keep what is not said otherwise in a folder of the test's own."""
    home: Path = tmp_path_factory.mktemp("home")
    monkeypatch.setenv("PARLEY_HOME", str(home))
    monkeypatch.delenv("PARLEY_API_KEYS", raising=False)
    monkeypatch.setattr("api.app.open_database", lambda: Unpooled(sqlite_url(home / "parley.db")))
    settings.cache_clear()
    yield
    settings.cache_clear()


@pytest.fixture
def livekit_keys(fresh_settings: None, monkeypatch: pytest.MonkeyPatch) -> None:
    """LiveKit's keys in the environment; nothing listens at its address."""
    monkeypatch.setenv("LIVEKIT_API_KEY", "key")
    monkeypatch.setenv("LIVEKIT_API_SECRET", SECRET)
    monkeypatch.setenv("LIVEKIT_URL", "ws://127.0.0.1:1")
    settings.cache_clear()
