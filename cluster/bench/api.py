"""The backend's lists over a year of calls: how long each takes, and whether indexes find what it shows."""

from __future__ import annotations

import datetime
import re
import tempfile
import time
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import httpx
from fastapi import FastAPI, Request
from sqlalchemy import event

from api.access.principal import Principal
from api.access.scopes import SCOPES
from api.app import create_app
from api.config import ApiConfig
from api.db import Database, migrate
from api.db.tables.accounts import DEFAULT_TENANT
from cluster.bench import databases, rows
from cluster.bench.report import Report
from serve.errors import Unavailable

Progress = Callable[[str], None]

MIDDLE = "{middle}"
"""Stands for a call in the middle of the year."""

LISTS = {
    "calls, the newest": "/api/v1/calls",
    "calls, a page of half a year ago": "/api/v1/calls?after={cursor}",
    "calls that are live": "/api/v1/calls?status=live",
    "calls of one assistant": "/api/v1/calls?assistant=sales",
    "calls with errors": "/api/v1/calls?errors=true",
    "calls of one caller": "/api/v1/calls?caller=%2B49301234567",
    "a call": "/api/v1/calls/{middle}",
    "a call's transcript": "/api/v1/calls/{middle}/transcript",
    "a call's turns": "/api/v1/calls/{middle}/turns",
    "a call's events": "/api/v1/calls/{middle}/events",
    "usage of a month by day": "/api/v1/usage?group_by=day&first=2026-04-01&last=2026-04-30",
    "usage of a month, in sum": "/api/v1/usage/summary?first=2026-04-01&last=2026-04-30",
    "models, with the last turns' times": "/api/v1/models",
    "webhook messages": "/api/v1/webhook_messages?status=dead",
}
"""What the console asks for."""

LARGE = ("calls", "turns", "call_events", "usage")
"""Tables that are not to be read whole."""


@dataclass(frozen=True, slots=True)
class Seen:
    """A statement that a list sent."""

    text: str
    parameters: Any


class _Everybody:
    """Lets everyone in: what is measured stands behind it."""

    async def __call__(self, request: Request, database: Database) -> Principal | None:
        return Principal("per_bench", DEFAULT_TENANT, "person", frozenset(SCOPES), "Bench", "owner")


async def lists(say: Progress, *, calls: int, turns: int, times: int) -> list[Report]:
    """Measure the console's lists on SQLite, and on PostgreSQL where it is installed.

    Args:
        say: Told what is being done.
        calls: In the database.
        turns: In it, of all calls.
        times: How often each list is asked for.
    """
    reports: list[Report] = []
    with tempfile.TemporaryDirectory(prefix="parley-bench-") as folder:
        where: list[tuple[str, Callable[[], Any]]] = [("SQLite", lambda: databases.sqlite(Path(folder)))]
        if databases.binaries() is not None:
            where.append(("PostgreSQL", lambda: databases.postgres(Path(folder))))
        else:
            say("PostgreSQL is not installed (apt-get install postgresql-15): SQLite alone")
        for name, opened in where:
            report = Report(f"api --calls {calls} --turns {turns} --times {times}, {name}")
            async with opened() as url:
                database = Database(url)
                try:
                    await migrate.upgrade(database)
                    began = time.perf_counter()
                    await rows.fill(database, calls, turns, lambda what, name=name: say(f"{name}: {what}"))
                    report.facts["seconds to fill"] = round(time.perf_counter() - began, 1)
                    await _ask(database, report, say, calls=calls, times=times)
                finally:
                    await database.aclose()
            reports.append(report)
    return reports


async def _ask(database: Database, report: Report, say: Progress, *, calls: int, times: int) -> None:
    config = ApiConfig.model_validate({"limits": {"requests": 100_000}})
    app = create_app(config, "parley", lambda: None, database=database)
    app.state.doormen = [_Everybody()]
    async with httpx.AsyncClient(transport=httpx.ASGITransport(app), base_url="http://127.0.0.1") as http:
        cursor = await _cursor(http, calls)
        for name, form in LISTS.items():
            path = form.replace(MIDDLE, rows.call_id(calls // 2)).replace("{cursor}", cursor)
            if not _there(app, form):
                report.facts[name] = "this application has no such list"
                continue
            say(name)
            taken: list[float] = []
            seen: list[Seen] = []
            for number in range(times + 1):
                began = time.perf_counter()
                with _listening(database, seen if number == 0 else []):
                    answer = await http.get(path)
                if answer.status_code != 200:
                    raise Unavailable(f"{path} answers {answer.status_code}: {answer.text[:300]}")
                if number:  # the first one fills caches
                    taken.append((time.perf_counter() - began) * 1000)
            whole = await _read_whole(database, seen)
            note = "; ".join(whole) if whole else "by indexes"
            report.add(name, "ms", taken, f"{len(seen)} statements, {note}")


def _there(app: FastAPI, form: str) -> bool:
    path = form.partition("?")[0]
    paths: dict[str, Any] = app.openapi()["paths"]
    shapes = [re.compile(re.sub(r"\\\{\w+\\\}", "[^/]+", re.escape(each))) for each in paths]
    query = re.findall(r"[?&](\w+)=", form)
    for shape, operation in zip(shapes, paths.values(), strict=True):
        if shape.fullmatch(path) and "get" in operation:
            known = {each["name"] for each in operation["get"].get("parameters", ())}
            return set(query) <= known
    return False


async def _cursor(http: httpx.AsyncClient, calls: int) -> str:
    """Return a cursor in the middle of the list of calls: as `api.pages` writes them."""
    from api.pages import cursor_of

    answer = await http.get(f"/api/v1/calls/{rows.call_id(calls // 2)}")
    made = answer.json().get("created_at") if answer.status_code == 200 else None
    return cursor_of(datetime.datetime.fromisoformat(made), rows.call_id(calls // 2)) if made else ""


class _listening:  # a context manager by its use
    """Keeps the statements that are sent meanwhile."""

    def __init__(self, database: Database, seen: list[Seen]) -> None:
        self._engine, self._seen = database.engine.sync_engine, seen

    def _note(self, connection: Any, cursor: Any, statement: str, parameters: Any, context: Any, many: bool) -> None:
        if statement.lstrip().upper().startswith("SELECT"):
            self._seen.append(Seen(statement, parameters))

    def __enter__(self) -> None:
        event.listen(self._engine, "before_cursor_execute", self._note)

    def __exit__(self, *_: object) -> None:
        event.remove(self._engine, "before_cursor_execute", self._note)


async def _read_whole(database: Database, seen: list[Seen]) -> list[str]:
    """Return what the planner would read whole, of the large tables."""
    found: list[str] = []
    async with database.engine.connect() as connection:
        sqlite = connection.dialect.name == "sqlite"
        explain = "EXPLAIN QUERY PLAN" if sqlite else "EXPLAIN"
        for each in seen:
            plan = await connection.exec_driver_sql(f"{explain} {each.text}", each.parameters)
            lines = [str(row[-1]).strip() for row in plan.all()]
            for table in LARGE:
                scan = re.compile(rf"SCAN {table}\b(?!.* USING )" if sqlite else rf"Seq Scan on {table}\b")
                found += [f"reads {table} whole" for line in lines if scan.search(line)]
    return list(dict.fromkeys(found))
