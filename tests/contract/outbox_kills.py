"""Dies by SIGKILL at each line that the outbox executes, one line after the other, and looks at what is left.

    python -m tests.contract.outbox_kills writer|courier sqlite|redis://... FOLDER STEP

For each line: a child puts records (writer), or delivers them (courier), and is killed there; another one delivers what
is left. Every record of which the writer was told that it is safe must then be in the sink, once, in order. Prints how
many lines were tried.
"""

from __future__ import annotations

import asyncio
import importlib
import json
import os
import signal
import sys
import threading
from collections.abc import Callable
from pathlib import Path
from types import FrameType
from typing import Any

from agent.backend import Backend
from agent.outbox import Buffer, Courier, LinesSink
from agent.outbox.redis import RedisStore
from agent.outbox.sqlite import SqliteStore
from agent.outbox.store import Store

# Once, else each of hundreds of children would bring it in, when it first counts.
importlib.import_module("ray.util.metrics")

LEAD = 0.02
RECORDS = 4
AGENT = f"{Path(__file__).parents[2]}/agent/"


def main() -> None:
    """Try one line after the other, until the work ends before the line is reached."""
    part, where, folder, step = sys.argv[1], sys.argv[2], Path(sys.argv[3]), int(sys.argv[4])
    line = 1
    while True:
        name = f"{part}-{line}"
        sink = folder / f"{name}.jsonl"

        def store(name: str = name) -> Store:
            return SqliteStore(folder / f"{name}.db") if where == "sqlite" else RedisStore(where, name)

        if part == "writer":
            safe, killed = child(lambda tell, store=store: write(store(), tell), line)
        else:
            safe, _ = child(lambda tell, store=store: write(store(), tell))
            _, killed = child(lambda _, store=store, sink=sink: deliver(store(), sink, "dies"), line)
        _, lost = child(lambda _, store=store, sink=sink: deliver(store(), sink, "lives"))
        assert not lost
        stored = [json.loads(text) for text in sink.read_text().splitlines()] if sink.exists() else []
        for call in ("a", "b"):
            turns = [record["turn"] for record in stored if record["call"] == call]
            assert turns == sorted(set(turns)), f"{name}: call {call} has {turns}"
            missing = {turn for said, turn in safe if said == call} - set(turns)
            assert not missing, f"{name}: call {call} lost {missing}"
        if not killed:
            assert len(stored) == 2 * RECORDS
            break
        line += step
    print(line)


def child(work: Callable[[Callable[[str, int], None]], Any], line: int = 0) -> tuple[set[tuple[str, int]], bool]:
    """Do work in a process of its own that dies at a line; return what it told, and whether it was killed."""
    reader, writer = os.pipe()
    if (pid := os.fork()) == 0:
        code = 1
        try:
            signal.alarm(20)
            if line:
                die_at(line)
            asyncio.run(work(lambda call, turn: _tell(writer, call, turn)))
            code = 0
        finally:
            os._exit(code)
    os.close(writer)
    with os.fdopen(reader) as told:
        found = {(text.split()[0], int(text.split()[1])) for text in told}
    status = os.waitstatus_to_exitcode(os.waitpid(pid, 0)[1])
    assert status in (0, -signal.SIGKILL), status
    return found, status != 0


def _tell(writer: int, call: str, turn: int) -> None:
    os.write(writer, f"{call} {turn}\n".encode())


def die_at(line: int) -> None:
    """Kill this process when it comes to so manieth a line of the agent's code, in any thread."""
    seen = 0

    def trace(frame: FrameType, event: str, _: Any) -> Any:
        nonlocal seen
        if not frame.f_code.co_filename.startswith(AGENT):
            return None
        if event == "line":
            seen += 1
            if seen == line:
                os.kill(os.getpid(), signal.SIGKILL)
        return trace

    threading.settrace(trace)
    sys.settrace(trace)


async def write(store: Store, tell: Callable[[str, int], None]) -> None:
    """Put the turns of two calls; tell of each that is safe."""
    outbox = Buffer(store)
    calls = {name: Backend(outbox, name, 1) for name in ("a", "b")}

    async def put(call: str, turn: int) -> None:
        if await calls[call].save_conversation_turn({"turn": turn, "heard": "?", "answer": "!"}, f"item {turn}"):
            tell(call, turn)

    await asyncio.gather(*(put(call, turn) for turn in range(1, RECORDS + 1) for call in calls))
    await outbox.aclose()


async def deliver(store: Store, path: Path, owner: str) -> None:
    """Deliver everything."""
    courier = Courier(store, LinesSink(path), owner, LEAD)
    while await courier.once() or await store.take(owner, 1, LEAD) != []:  # noqa: ASYNC110  # a lease runs out by time
        await asyncio.sleep(0.005)
    await courier.aclose()


if __name__ == "__main__":
    main()
