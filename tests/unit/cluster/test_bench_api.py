"""`parley bench api`: its rows, its look at plans, and what it reads of wrk."""

from __future__ import annotations

from pathlib import Path

import pytest
from sqlalchemy import func, select

from api.db import Database, migrate, sqlite_url
from api.db.tables import Call, Turn, Usage
from cluster.bench import api, databases, load, rows
from serve.errors import Unavailable

pytestmark = pytest.mark.unit

TOLD = """Running 10s test @ http://127.0.0.1:8000/health/live
  1 threads and 16 connections
  Thread Stats   Avg      Stdev     Max   +/- Stdev
    Latency     8.10ms    2.27ms  38.87ms   90.15%
    Req/Sec     1.99k   256.67     2.40k    74.00%
  Latency Distribution
     50%    7.62ms
     75%    8.40ms
     90%    9.76ms
     99%    1.02s
  19843 requests in 10.01s, 8.02MB read
Requests/sec:   1982.51
Transfer/sec:    820.57KB
"""


def test_what_wrk_tells() -> None:
    assert load.parse(TOLD) == (1982.51, 7.62, 1020.0)


@pytest.mark.parametrize("more", ["  Non-2xx or 3xx responses: 12\n", "  Socket errors: connect 0, read 3\n"])
def test_failed_requests_are_no_figures(more: str) -> None:
    with pytest.raises(Unavailable, match="failed"):
        load.parse(TOLD + more)


async def test_lists_are_asked_for_and_their_plans_read(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(databases, "binaries", lambda: None)
    monkeypatch.setenv("PARLEY_HOME", str(tmp_path))
    (report,) = await api.lists(lambda what: None, calls=200, turns=1000, times=2)
    figures = {figure.name: figure for figure in report.figures}
    assert {figure.n for figure in figures.values()} == {2}
    assert "usage of a month by day" in figures
    assert all("whole" not in figure.note for figure in figures.values()), report.json()


async def test_a_table_that_is_read_whole_is_seen(tmp_path: Path) -> None:
    database = Database(sqlite_url(tmp_path / "bench.db"))
    try:
        await migrate.upgrade(database)
        await rows.fill(database, 100, 500, lambda what: None)
        async with database.system() as session:
            counts = [await session.scalar(select(func.count()).select_from(table)) for table in (Call, Turn, Usage)]
            call = await session.get(Call, rows.call_id(7))
        assert counts == [100, 500, 300]
        assert call is not None
        assert (call.currency, call.turns, call.annotations) == ("EUR", 5, {})
        seen = [
            api.Seen("SELECT * FROM calls WHERE caller = ?", ("x",)),
            api.Seen("SELECT * FROM calls WHERE id = ?", ("x",)),
        ]
        assert await api._read_whole(database, seen) == ["reads calls whole"]  # pyright: ignore[reportPrivateUsage]
    finally:
        await database.aclose()
