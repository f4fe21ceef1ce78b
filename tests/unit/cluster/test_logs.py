"""A call's story from files as Serve and LiveKit write them."""

from __future__ import annotations

import json
from io import StringIO
from pathlib import Path

import pytest
from rich.console import Console

from cluster import logs
from cluster.logs_cli import table
from serve.errors import ParleyError

pytestmark = pytest.mark.unit

CALL, OTHER = "call-0123456789ab", "call-ba9876543210"


def line(at: float, message: str, **more: object) -> str:
    common = {"levelname": "INFO", "message": message, "timestamp_ns": int(at * 1e9), "worker_id": "w", "process": 1}
    return json.dumps({**common, **more}) + "\n"


@pytest.fixture
def folders(tmp_path: Path) -> list[Path]:
    serve = tmp_path / "ray" / "serve"
    serve.mkdir(parents=True)
    parley = tmp_path / "parley"
    parley.mkdir()
    agent = {"deployment": "agent_Agent", "replica": "abc", "component_name": "replica"}
    (serve / "replica_agent_Agent_abc.log").write_text(
        line(12.0, "Started HTTP server", **agent)
        + line(13.0, f"call {CALL}: turn 1", **agent, call=CALL, turn=1, trace_id="t", stages={"stt_ms": 5})
        + line(14.0, f"call {OTHER}: turn 1", **agent, call=OTHER)
        + line(15.0, "a tool failed", **agent, call=CALL, turn=1, tenant="acme")
        + f"{CALL} is no JSON\n"
    )
    # A file that was rotated, whose lines are older; and a longer name that only begins alike.
    (serve / "replica_agent_Agent_abc.log.1").write_text(line(11.0, f"call {CALL}: claimed", **agent))
    (serve / "replica_dispatcher_Dispatcher_d.log").write_text(line(10.0, f"call {CALL}c: turn 7"))
    (parley / "livekit.log").write_text(
        json.dumps({"level": "warn", "ts": 12.5, "logger": "livekit", "msg": "slow", "room": CALL, "label": "x"}) + "\n"
    )
    return [parley, tmp_path / "ray"]


def test_a_story_is_gathered_in_order_of_time(folders: list[Path]) -> None:
    found = logs.story(CALL, folders)
    assert [(each.time, each.source) for each in found] == [
        (11.0, "agent/Agent abc"),
        (12.5, "livekit"),
        (13.0, "agent/Agent abc"),
        (15.0, "agent/Agent abc"),
    ]
    turn = found[2]
    assert (turn.turn, turn.trace_id, turn.more) == (1, "t", {"stages": {"stt_ms": 5}})
    assert found[1].json() == {
        **{"time": "1970-01-01T00:00:12.500+00:00", "source": "livekit", "level": "WARN", "message": "slow"},
        **{"call": CALL, "more": {"label": "x"}, "file": "livekit.log"},
    }
    console = Console(width=120, record=True, file=StringIO())
    console.print(table(CALL, found))
    shown = console.export_text()
    assert "tenant acme" in shown
    assert "a tool failed" in shown
    assert "worker_id" not in shown


def test_a_call_that_no_log_knows_is_said_with_those_that_are(folders: list[Path]) -> None:
    with pytest.raises(ParleyError, match=f"knows the call call-x; these are in them: .*{CALL}"):
        logs.story("call-x", folders)
