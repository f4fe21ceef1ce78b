"""What the API's tests share."""

from __future__ import annotations

from collections.abc import Generator

import pytest

from serve.settings import settings


@pytest.fixture(autouse=True)
def fresh_settings(monkeypatch: pytest.MonkeyPatch) -> Generator[None]:
    monkeypatch.delenv("PARLEY_API_KEYS", raising=False)
    settings.cache_clear()
    yield
    settings.cache_clear()
