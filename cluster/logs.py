"""One call's story, from the log files of all processes on this machine, in order of time."""

from __future__ import annotations

import datetime
import json
import re
from collections.abc import Generator, Iterable
from dataclasses import asdict, dataclass, field
from pathlib import Path
from typing import Any, cast

from cluster import state
from serve.errors import ParleyError
from serve.settings import home

LONGEST = 2**20
"""Characters of a line that are read."""

_CALL = re.compile(r"call-[0-9a-f]{12}")
_KNOWN = {
    *("asctime", "levelname", "message", "filename", "lineno", "process", "timestamp_ns", "level", "ts", "msg"),
    *("logger", "call", "room", "turn", "tenant", "trace_id", "log_to_stderr", "component_name", "component_id"),
    *("component_type", "worker_id", "node_id", "actor_id", "actor_name", "task_name", "task_func_name", "deployment"),
    *("replica", "route", "request_id", "application", "caller", "roomID", "participantID", "pID"),
}
"""What a line has besides, that is shown in a place of its own or that nobody asks for."""


@dataclass(frozen=True, slots=True)
class Line:
    """What one process wrote.

    Attributes:
        time: Seconds since 1970.
        source: The process: a replica as `agent/Agent otdwgy8l`, `controller`, `livekit`.
        level: INFO, WARNING, ...
        message: What it says.
        call: Whose it is; `turn`, `tenant` and `trace_id` where they are known.
        more: What else it has, of what Parley or LiveKit wrote.
        file: Where it is.
    """

    time: float
    source: str
    level: str
    message: str
    call: str
    turn: int | None = None
    tenant: str = ""
    trace_id: str = ""
    more: dict[str, Any] = field(default_factory=dict[str, Any])
    file: str = ""

    def json(self) -> dict[str, Any]:
        """Return it as an object; `time` in ISO 8601, UTC."""
        moment = datetime.datetime.fromtimestamp(self.time, datetime.UTC)
        found = {**asdict(self), "time": moment.isoformat(timespec="milliseconds")}
        return {name: value for name, value in found.items() if value not in ("", None, {})}


def folders() -> list[Path]:
    """Return where the logs of the run that is up are; where none is, those that the last one has left."""
    run = state.load()
    if run is not None and (run.folder / "logs").is_dir():
        return [run.folder / "logs", run.folder / "ray" / "session_latest" / "logs"]
    last = home() / "logs" / "last"
    return [last / "parley", last / "ray"]


def story(call: str, where: Iterable[Path]) -> list[Line]:
    """Return a call's lines in order of time.

    Args:
        call: Its id, which is its room's name.
        where: Folders of logs.

    Raises:
        ParleyError: No process has written of it; the message names the calls that were last.
    """
    seen: dict[str, None] = {}
    found: list[Line] = []
    for path in files(where):
        for text in _lines(path):
            if call in text and (line := read(text, path, call)) is not None:
                found.append(line)
            for other in _CALL.findall(text) if not found else ():
                seen.pop(other, None)
                seen[other] = None
    if not found:
        others = ", ".join(list(seen)[-5:])
        raise ParleyError(f"no log here knows the call {call}" + (f"; these are in them: {others}" if others else ""))
    return sorted(found, key=lambda line: line.time)


def files(where: Iterable[Path]) -> Generator[Path]:
    """Yield the files in which calls can be: of replicas, of Serve, of LiveKit; rotated ones too."""
    for folder in where:
        for pattern in ("livekit.log*", "serve/*.log*"):
            yield from sorted(path for path in folder.glob(pattern) if path.is_file())


def read(text: str, path: Path, call: str) -> Line | None:
    """Return a line if it is the call's: it says so, or names it in its message."""
    try:
        value = json.loads(text)
    except ValueError:
        return None
    if not isinstance(value, dict):
        return None
    fields = cast("dict[str, Any]", value)
    message = str(fields.get("message") or fields.get("msg") or "")
    whose = fields.get("call") or fields.get("room")
    if whose != call and (whose or not re.search(rf"(?<![\w-]){re.escape(call)}(?![\w-])", message)):
        return None
    nanoseconds = fields.get("timestamp_ns")
    return Line(
        time=nanoseconds / 1e9 if nanoseconds else float(fields.get("ts") or 0.0),
        source=_source(fields, path),
        level=str(fields.get("levelname") or fields.get("level") or "").upper().replace("WARNING", "WARN"),
        message=message,
        call=call,
        turn=fields.get("turn"),
        tenant=str(fields.get("tenant") or ""),
        trace_id=str(fields.get("trace_id") or ""),
        more={name: each for name, each in fields.items() if name not in _KNOWN and each not in ("", None)},
        file=path.name,
    )


def _source(fields: dict[str, Any], path: Path) -> str:
    if "replica" in fields:
        application, _, deployment = str(fields.get("deployment", "")).rpartition("_")
        return f"{application}/{deployment} {fields['replica']}"
    return str(fields.get("component_name") or path.name.partition(".")[0])


def _lines(path: Path) -> Generator[str]:
    with path.open(encoding="utf-8", errors="replace") as file:
        while text := file.readline(LONGEST):
            yield text
