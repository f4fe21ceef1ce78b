"""Column types that mean the same in PostgreSQL and SQLite, and ids that sort by time."""

from __future__ import annotations

import datetime
import json
import os
import time
from decimal import Decimal
from functools import lru_cache
from typing import Any

from cryptography.fernet import Fernet, InvalidToken, MultiFernet
from sqlalchemy import BigInteger, DateTime, Numeric, String, Text
from sqlalchemy.dialects.postgresql import JSONB
from sqlalchemy.engine import Dialect
from sqlalchemy.types import JSON, TypeDecorator

from serve.errors import ConfigError
from serve.settings import settings

Json = JSON().with_variant(JSONB(), "postgresql")
"""Any JSON value; in PostgreSQL as JSONB."""

MARK = "fernet:"
"""What encrypted text begins with, so that text from before encryption was turned on can still be read."""

PLAIN = "text:"
"""Put before text that is not encrypted and begins as if it were, or with this."""


def new_id(prefix: str) -> str:
    """Return a new id such as `key_0190f3...`: 48 bits of time in milliseconds, then 80 random ones, much as UUIDv7."""
    return f"{prefix}_{time.time_ns() // 1_000_000:012x}{os.urandom(10).hex()}"


def first_id(prefix: str, at: datetime.datetime) -> str:
    """Return the id that sorts before all those made from a moment on."""
    return f"{prefix}_{int(at.timestamp() * 1000):012x}"


def now() -> datetime.datetime:
    """Return the time, with its zone (UTC)."""
    return datetime.datetime.now(datetime.UTC)


Id = String(64)
"""Of rows; calls have the names of their rooms."""


class Time(TypeDecorator[datetime.datetime]):
    """A moment, in UTC. SQLite keeps no zone, so it is put back."""

    impl = DateTime(timezone=True)
    cache_ok = True

    def process_bind_param(self, value: datetime.datetime | None, dialect: Dialect) -> datetime.datetime | None:
        """Refuse what has no zone: nobody would know when it was."""
        if value is not None and value.tzinfo is None:
            raise ValueError("a time needs its zone")
        return value.astimezone(datetime.UTC) if value is not None else None

    def process_result_value(self, value: datetime.datetime | None, dialect: Dialect) -> datetime.datetime | None:
        """Return it in UTC."""
        if value is None:
            return None
        return value.replace(tzinfo=datetime.UTC) if value.tzinfo is None else value.astimezone(datetime.UTC)


class Money(TypeDecorator[Any]):
    """An exact amount, nine places. SQLite would make a float of it, so it has an integer of billionths there."""

    impl = Numeric(20, 9)
    cache_ok = True

    def load_dialect_impl(self, dialect: Dialect) -> Any:
        """Return the type of the database at hand."""
        wanted: Any = BigInteger() if dialect.name == "sqlite" else Numeric(20, 9)
        return dialect.type_descriptor(wanted)

    def process_bind_param(self, value: Any, dialect: Dialect) -> Any:
        """Scale for SQLite."""
        return value if value is None or dialect.name != "sqlite" else int((value * 10**9).to_integral_value())

    def process_result_value(self, value: Any, dialect: Dialect) -> Any:
        """Scale back."""
        if value is None:
            return None
        return Decimal(value) / 10**9 if dialect.name == "sqlite" else Decimal(value)


class Content(TypeDecorator[str]):
    """What people said and what files say: encrypted at rest where PARLEY_CONTENT_KEYS is set."""

    impl = Text
    cache_ok = True

    def process_bind_param(self, value: str | None, dialect: Dialect) -> str | None:
        """Encrypt with the first key."""
        if value is None:
            return None
        keys = content_keys()
        if keys is not None:
            return MARK + keys.encrypt(value.encode()).decode()
        # Else a caller could make a transcript unreadable by a word.
        return PLAIN + value if value.startswith((MARK, PLAIN)) else value

    def process_result_value(self, value: str | None, dialect: Dialect) -> str | None:
        """Decrypt with whichever key fits.

        Raises:
            ConfigError: None does.
        """
        if value is None or not value.startswith(MARK):
            return value and value.removeprefix(PLAIN)
        keys = content_keys()
        try:
            if keys is not None:
                return keys.decrypt(value[len(MARK) :].encode()).decode()
        except InvalidToken:
            pass
        raise ConfigError("PARLEY_CONTENT_KEYS: none of the keys opens what is stored; add the one it was written with")


class ContentJson(TypeDecorator[Any]):
    """JSON of what people said, as `Content`."""

    impl = Content
    cache_ok = True

    def process_bind_param(self, value: Any, dialect: Dialect) -> str | None:
        """Write JSON, then encrypt."""
        return None if value is None else json.dumps(value, ensure_ascii=False, separators=(",", ":"))

    def process_result_value(self, value: str | None, dialect: Dialect) -> Any:
        """Decrypt, then read JSON."""
        return None if value is None else json.loads(value)


@lru_cache(maxsize=1)
def content_keys() -> MultiFernet | None:
    """Return the keys of `PARLEY_CONTENT_KEYS`, the newest first; None: nothing is encrypted.

    Raises:
        ConfigError: One of them is no key.
    """
    keys = _given_keys()
    return MultiFernet(keys) if keys else None


def newest_key() -> Fernet | None:
    """Return the first of `PARLEY_CONTENT_KEYS`, with which everything is written; None: nothing is encrypted.

    Raises:
        ConfigError: One of them is no key.
    """
    keys = _given_keys()
    return keys[0] if keys else None


def _given_keys() -> list[Fernet]:
    given = [key.strip() for key in settings().parley_content_keys.get_secret_value().split(",") if key.strip()]
    try:
        return [Fernet(key) for key in given]
    except ValueError:
        raise ConfigError(
            "PARLEY_CONTENT_KEYS: each is 32 bytes in URL-safe base64; `parley keys content` makes one"
        ) from None
