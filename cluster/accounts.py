"""Tenants and keys, in the database itself: whoever may read and write it needs no key."""

from __future__ import annotations

import asyncio
import datetime
import json
from collections.abc import Coroutine, Sequence
from typing import Any, cast

from cryptography.fernet import Fernet
from sqlalchemy import select

from api.access import keys
from api.access.audit import audit
from api.access.scopes import SCOPES
from api.db import Database, migrate, open_database, session_of
from api.db.tables import ApiKey, Tenant
from api.db.types import now
from api.etags import hold
from serve.errors import ConfigError

Facts = dict[str, Any] | list[dict[str, Any]]


def run(work: Coroutine[Any, Any, Facts], as_json: bool) -> None:
    """Do it, and print what came of it."""
    facts = asyncio.run(work)
    if as_json:
        print(json.dumps(facts, indent=2, default=_text))
        return
    for each in facts if isinstance(facts, list) else [facts]:
        print("  ".join(f"{name}: {_text(value)}" for name, value in each.items() if value is not None))


def limits(**given: float | None) -> dict[str, float]:
    """Return the limits that were given."""
    return {name: value for name, value in given.items() if value is not None}


async def add_tenant(name: str, limits: dict[str, float]) -> Facts:
    """Make a tenant."""
    if not name.strip() or len(name) > 200:
        raise ConfigError("the tenant's name has 1 to 200 characters")
    database = await opened()
    try:
        async with database.system() as session:
            row = Tenant(name=name.strip(), allowed=limits, limits={})
            session.add(row)
            await session.commit()
        async with session_of(database, row.id) as session:
            await audit(session, None, "tenant.create", row.id, {"name": row.name, "allowed": limits})
            await session.commit()
        return _tenant(row)
    finally:
        await database.aclose()


async def list_tenants() -> Facts:
    """Return all tenants, the oldest first."""
    database = await opened()
    try:
        async with database.system() as session:
            return [_tenant(row) for row in await session.scalars(select(Tenant).order_by(Tenant.created_at))]
    finally:
        await database.aclose()


async def set_tenant(tenant: str, limits: dict[str, float], default: bool) -> Facts:
    """Give a tenant limits."""
    database = await opened()
    try:
        async with session_of(database, tenant) as session:
            row = await hold(session, Tenant, tenant)
            if row is None:
                raise _no_tenant(tenant)
            row.allowed = limits if default else {**row.allowed, **limits}
            await audit(session, None, "tenant.allow", row.id, {"allowed": row.allowed})
            await session.commit()
            return _tenant(row)
    finally:
        await database.aclose()


async def add_key(name: str, scopes: Sequence[str], tenant: str, days: int | None) -> Facts:
    """Make a key; its secret is in what this returns, and nowhere else."""
    if unknown := sorted(set(scopes) - set(SCOPES)):
        raise ConfigError(f"--scope {unknown[0]}: is none of {', '.join(SCOPES)}")
    if not name.strip() or len(name) > 200:
        raise ConfigError("the key's name has 1 to 200 characters")
    new = keys.make()
    database = await opened()
    try:
        async with session_of(database, tenant) as session:
            if await session.get(Tenant, tenant) is None:
                raise _no_tenant(tenant)
            if await keys.living(session, name.strip()) >= keys.AT_ONCE:
                raise ConfigError(f"{keys.AT_ONCE} keys named {name.strip()} are alive: revoke one first")
            row = ApiKey(
                name=name.strip(),
                prefix=new.prefix,
                digest=new.digest,
                scopes=sorted(set(scopes)) or list(SCOPES),
                created_by="system",
                expires_at=now() + datetime.timedelta(days=days) if days else None,
            )
            session.add(row)
            await session.flush()
            await audit(session, None, "key.create", row.id, {"name": row.name, "scopes": row.scopes})
            await session.commit()
            return {"key": new.key, **_key(row)}
    finally:
        await database.aclose()


async def list_keys(tenant: str) -> Facts:
    """Return a tenant's keys, the oldest first."""
    database = await opened()
    try:
        async with session_of(database, tenant) as session:
            return [_key(row) for row in await session.scalars(select(ApiKey).order_by(ApiKey.created_at))]
    finally:
        await database.aclose()


async def revoke_key(key: str, tenant: str) -> Facts:
    """Revoke a key."""
    database = await opened()
    try:
        async with session_of(database, tenant) as session:
            row = await hold(session, ApiKey, key)
            if row is None:
                raise ConfigError(f"tenant {tenant} has no key {key}; parley keys list shows those there are")
            if row.revoked_at is None:
                row.revoked_at = now()
                await audit(session, None, "key.revoke", row.id, {"name": row.name})
                await session.commit()
            return _key(row)
    finally:
        await database.aclose()


def content_key(as_json: bool) -> None:
    """Print a new key."""
    key = Fernet.generate_key().decode()
    print(json.dumps({"key": key}) if as_json else key)


async def opened() -> Database:
    """Return the database, brought to this version; close it.

    Raises:
        ConfigError: It does not answer.
    """
    database = open_database()
    try:
        await migrate.upgrade(database)
    except Exception as error:  # whatever a driver raises, it may hold the address with its password
        await database.aclose()
        raise ConfigError(f"DATABASE_URL: the database does not answer ({type(error).__name__})") from None
    return database


def _tenant(row: Tenant) -> dict[str, Any]:
    return {"id": row.id, "name": row.name, "allowed": row.allowed, "limits": row.limits, "keep_days": row.keep_days}


def _key(row: ApiKey) -> dict[str, Any]:
    plain = {name: getattr(row, name) for name in ("id", "name", "scopes", "expires_at", "used_at", "revoked_at")}
    return {**plain, "prefix": f"{keys.MARK}{row.prefix}"}


def _no_tenant(tenant: str) -> ConfigError:
    return ConfigError(f"there is no tenant {tenant}; parley tenants list shows those there are")


def _text(value: Any) -> str:
    if isinstance(value, list):
        return " ".join(map(str, cast("list[Any]", value))) or "-"
    if isinstance(value, dict):
        return " ".join(f"{name}={each}" for name, each in cast("dict[str, Any]", value).items()) or "-"
    return value.isoformat(timespec="seconds") if isinstance(value, datetime.datetime) else str(value)
