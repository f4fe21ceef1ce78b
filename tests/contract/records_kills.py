"""Dies by SIGKILL at each step of storing a call's records, one after the other, and looks at what is left.

    python -m tests.contract.records_kills URL STEP

A step is a line of `api/records/`, or a statement or a commit on its way to the database. For each so manieth: a child
stores a call in pieces and is killed there. Another one is then given all of them, as the outbox would, and all must be
there once. Prints how many steps there are.
"""

from __future__ import annotations

import asyncio
import importlib
import os
import signal
import sys
from collections.abc import Callable, Coroutine
from decimal import Decimal
from pathlib import Path
from types import FrameType
from typing import Any

from sqlalchemy import event

from api.db import Database
from api.records.sink import RecordSink
from tests.contract.calls_told import PRICES, stored, whole_call

# Once, else each child would bring it in, when it first counts.
importlib.import_module("ray.util.metrics")

RECORDS = f"{Path(__file__).parents[2]}/api/records/"
PIECE = 5


def main() -> None:
    """Try one step after the other, until the work ends before the step is reached."""
    url, every = sys.argv[1], int(sys.argv[2])
    calls: dict[str, list[bytes]] = {}
    step, killed = 1, True
    while killed:
        name = f"call-{step}"
        calls[name] = whole_call(name).bodies
        killed = child(lambda bodies=calls[name], step=step: store(url, bodies, step))
        step += every * killed
    assert not child(lambda: check(url, calls))
    print(step)


def child(work: Callable[[], Coroutine[Any, Any, None]]) -> bool:
    """Do work in a process of its own; return whether it was killed."""
    if (pid := os.fork()) == 0:
        code = 1
        try:
            signal.alarm(30)
            asyncio.run(work())
            code = 0
        finally:
            os._exit(code)
    status = os.waitstatus_to_exitcode(os.waitpid(pid, 0)[1])
    assert status in (0, -signal.SIGKILL), status
    return status != 0


async def store(url: str, bodies: list[bytes], step: int) -> None:
    """Store a call in pieces, and die at a step."""
    database = Database(url)
    die_at(database, step)
    sink = RecordSink(database, PRICES)
    for first in range(0, len(bodies), PIECE):
        await sink.store(bodies[first : first + PIECE])
    sys.settrace(None)


def die_at(database: Database, step: int) -> None:
    """Kill this process at a step."""
    seen = 0

    def count(*_: Any, **__: Any) -> None:
        nonlocal seen
        seen += 1
        if seen == step:
            os.kill(os.getpid(), signal.SIGKILL)

    def trace(frame: FrameType, what: str, _: Any) -> Any:
        file = frame.f_code.co_filename
        if not file.startswith(RECORDS) or file.endswith("/prices.py"):
            return None  # who only computes leaves nothing behind
        if what == "line":
            count()
        return trace

    for name in ("before_cursor_execute", "after_cursor_execute", "commit"):
        event.listen(database.engine.sync_engine, name, count)
    sys.settrace(trace)


async def check(url: str, calls: dict[str, list[bytes]]) -> None:
    """Deliver all of them, and compare with what calls that nobody has disturbed leave."""
    database = Database(url)
    sink = RecordSink(database, PRICES)
    for call, bodies in calls.items():
        await sink.store(bodies)
        found = await stored(database, call)
        counts = {table: len(rows) for table, rows in found.items() if table != "webhooks"}
        expected = {"calls": 1, "turns": 2, "participants": 1, "call_events": 3, "files": 1, "usage": 4}
        assert counts == {**expected, "stored_records": len(bodies)}, f"{call}: {counts}"
        said = found["calls"][0]
        assert (said["status"], said["turns"], said["cost"]) == ("ended", 2, Decimal("0.005906990")), call
    await database.aclose()


if __name__ == "__main__":
    main()
