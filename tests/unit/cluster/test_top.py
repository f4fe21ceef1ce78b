"""`parley top`: figures from exporters' text, gaps where something is away, and what a terminal shows."""

from __future__ import annotations

import json
from collections.abc import Callable
from io import StringIO
from pathlib import Path
from types import SimpleNamespace
from typing import Any, cast

import httpx
import pytest
from rich.console import Console

from agent import metrics as calls
from cluster import scrape, top
from cluster.scrape import Scrape, less, quantile
from cluster.top_view import view

pytestmark = pytest.mark.unit

TEXT = """
# HELP ray_parley_calls_live Calls that a replica carries
ray_parley_calls_live{Version="2.60.0",WorkerId="a"} 2.0
ray_parley_calls_live{Version="2.60.0",WorkerId="b"} 1.0
ray_parley_call_slots{WorkerId="a"} 4.0
ray_parley_call_slots{WorkerId="b"} 4.0
ray_parley_calls_waiting{WorkerId="c"} 2.0
ray_parley_calls_waiting{WorkerId="d"} 2.0
ray_parley_turn_stage_seconds_bucket{stage="stt",le="0.1",WorkerId="a"} 5.0
ray_parley_turn_stage_seconds_bucket{stage="stt",le="0.2",WorkerId="a"} 10.0
ray_parley_turn_stage_seconds_bucket{stage="stt",le="+Inf",WorkerId="a"} 10.0
ray_parley_model_ongoing_requests{model="llm-own",WorkerId="x"} 3.0
ray_parley_model_slots{model="llm-own",WorkerId="x"} 16.0
ray_serve_deployment_queued_queries{application="llm-own",deployment="Chat",handle="h"} 1.0
ray_node_cpu_utilization{ip="127.0.0.1"} 37.5
ray_node_cpu_count{ip="127.0.0.1"} 8
ray_node_mem_used{ip="127.0.0.1"} 2147483648
ray_node_mem_total{ip="127.0.0.1"} 8589934592
ray_node_gpus_utilization{GpuIndex="0"} 61.0
ray_node_gram_used{GpuIndex="0"} 10240.0
ray_node_gram_available{GpuIndex="0"} 71680.0
ray_other_thing{a="b"} 1.0
"""

LIVE = {
    **{"id": "call-0123456789ab", "assistant": "helper", "caller": "Ada", "medium": "standard", "began": 0.0},
    **{"caller_state": "speaking", "assistant_state": "listening", "turns": 3},
}


def application(engine: str | None, deployment: str, states: list[str]) -> dict[str, Any]:
    args: dict[str, Any] = {"model": {"engine": engine}} if engine else {}
    replicas = [{"state": state} for state in states]
    return {
        "status": "RUNNING",
        "deployed_app_config": {"args": args},
        "deployments": {"Front": {"replicas": []}, deployment: {"replicas": replicas, "target_num_replicas": 2}},
    }


def looking(monkeypatch: pytest.MonkeyPatch, answer: Callable[[httpx.Request], httpx.Response]) -> top.Top:
    monkeypatch.setattr(scrape, "read", lambda folder: Scrape([TEXT]))
    run = SimpleNamespace(folder=Path("/nowhere"), addresses={"api": "http://api", "dashboard": "http://ray"})
    found = top.Top(cast(Any, run))
    found._api = httpx.Client(base_url="http://api", transport=httpx.MockTransport(answer))  # pyright: ignore[reportPrivateUsage]
    served = {
        "llm-own": application("llamacpp", "Chat", ["RUNNING", "STARTING"]),
        "agent": application(None, "Agent", ["RUNNING", "RUNNING"]),
    }
    monkeypatch.setattr(found._serve, "details", lambda: served)  # pyright: ignore[reportPrivateUsage]
    return found


def api(request: httpx.Request) -> httpx.Response:
    match request.url.path:
        case "/api/v1/calls/live":
            told = json.dumps({"type": "calls", "calls": [LIVE]})
            return httpx.Response(200, text=f": hello\n\nevent: calls\ndata: {told}\n\n")
        case "/api/v1/calls":
            stored = {"id": LIVE["id"], "turns": 4, "median_ms": 640, "cost": "0.0123", "currency": "EUR"}
            return httpx.Response(200, json={"items": [stored]})
        case _:
            totals = [{"cost": "1.500000000", "currency": "EUR"}]
            return httpx.Response(200, json={"totals": totals, "unpriced_models": ["tts-own"]})


def test_everything_is_put_together(monkeypatch: pytest.MonkeyPatch) -> None:
    seen = looking(monkeypatch, api).look()
    assert seen["trouble"] == []
    assert (seen["calls"]["live"], seen["calls"]["slots"], seen["calls"]["waiting"]) == (3, 8, 2)
    (call,) = seen["calls"]["list"]
    assert (call["turns"], call["voice_to_voice_ms"], call["caller"]) == (4, 640, "Ada")
    (model,) = seen["models"]
    assert (model["role"], model["ongoing"], model["slots"], model["queued"]) == ("llm", 3, 16, 1)
    assert model["replicas"] == {"Chat": {"running": 1, "wanted": 2}}
    assert [each["name"] for each in seen["applications"]] == ["agent"]
    stt = next(each for each in seen["stages"] if each["stage"] == "stt")
    assert (stt["n"], stt["p50_ms"], stt["p95_ms"]) == (10, 100, 190)
    assert seen["node"]["gpus"] == [
        {"index": "0", "percent": 61, "memory_used": 10 * 2**30, "memory_total": 80 * 2**30}
    ]
    console = Console(width=140, record=True, file=StringIO())
    console.print(view(seen))
    shown = console.export_text()
    for words in ("3 of 8, 2 wait", "38 % of 8 CPUs", "61 %, 10.0 of 80.0 GiB", "1.5000 EUR", "Ada", "640", "1 of 2"):
        assert words in shown, words
    json.dumps(seen)


def test_what_is_away_leaves_a_gap_and_a_word(monkeypatch: pytest.MonkeyPatch) -> None:
    seen = looking(monkeypatch, lambda request: httpx.Response(503)).look()
    assert (seen["calls"]["live"], seen["calls"]["list"], seen["money"]) == (3, [], None)
    assert seen["trouble"] == ["calls: the API answers 503", "money: the API answers 503"]
    console = Console(width=140, record=True, file=StringIO())
    console.print(view(seen))
    assert "not known: money" in console.export_text()


def test_a_window_is_what_was_added_in_it() -> None:
    old, new = {0.1: 5.0, 0.2: 10.0, float("inf"): 10.0}, {0.1: 5.0, 0.2: 20.0, float("inf"): 20.0}
    assert quantile(0.5, less(new, old)) == pytest.approx(0.15)
    # A process that has gone takes its counts along.
    assert quantile(0.5, less(old, new)) is None
    assert quantile(0.5, {}) is None
    assert quantile(0.99, {0.1: 1.0, float("inf"): 4.0}) == 0.1
    assert Scrape([TEXT]).histogram(calls.VOICE_TO_VOICE) == {}
