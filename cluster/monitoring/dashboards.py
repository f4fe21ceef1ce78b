"""Grafana dashboards: voice experience, models, calls, money, capacity. Panels are data here; Grafana's own library
makes their JSON. Run as `python -m cluster.monitoring.dashboards FOLDER` to write them for a Grafana of your own.
"""

from __future__ import annotations

import sys
from dataclasses import dataclass
from pathlib import Path
from typing import Literal

from grafana_foundation_sdk.builders import common, dashboard, prometheus, stat, timeseries
from grafana_foundation_sdk.cog.encoder import JSONEncoder
from grafana_foundation_sdk.models.dashboard import DataSourceRef

from agent import metrics as calls
from api import metrics as backend
from cluster.monitoring.queries import highest, increase, quantile, rate, total
from cluster.monitoring.run import DATASOURCE
from serve import metrics as models
from serve.instruments import Metric


@dataclass(frozen=True, slots=True)
class Panel:
    """One panel.

    Attributes:
        title: What it shows.
        queries: PromQL and the legend of each.
        unit: Grafana's id of a unit.
        kind: Lines over time, or one number.
    """

    title: str
    queries: tuple[tuple[str, str], ...]
    unit: str = "short"
    kind: Literal["lines", "number"] = "lines"


@dataclass(frozen=True, slots=True)
class Board:
    """One dashboard: rows of panels."""

    name: str
    title: str
    rows: tuple[tuple[str, tuple[Panel, ...]], ...]


def _percentiles(title: str, metric: Metric, only: str = "") -> Panel:
    found = tuple((quantile(of, metric, only=only), f"p{of * 100:g}") for of in (0.5, 0.9, 0.95, 0.99))
    return Panel(title, found, "s")


def _now(title: str, query: str, unit: str = "short") -> Panel:
    return Panel(title, ((query, ""),), unit, "number")


def _share(part: str, whole: str) -> str:
    """Return a share; nothing where there is nothing to share, so that no panel shows 0 / 0."""
    return f"{part} / ({whole} > 0)"


_LINES = _share(total(calls.CALLS_LIVE), total(calls.CALL_SLOTS))
_CALLS = increase(calls.CALLS_BEGUN, window="$__range")
_PER_CALL = f"{increase(backend.COST, 'currency', window='$__range')} / on () group_left () ({_CALLS} > 0)"
_SERVE = "ray_serve_deployment"
_API = '{deployment="Api"}'

BOARDS = (
    Board(
        "voice",
        "Parley: voice experience",
        (
            (
                "What callers feel",
                (
                    _now("Voice to voice, p50", quantile(0.5, calls.VOICE_TO_VOICE, window="$__range"), "s"),
                    _now("Voice to voice, p95", quantile(0.95, calls.VOICE_TO_VOICE, window="$__range"), "s"),
                    _now("Turns", increase(calls.TURNS, window="$__range")),
                    _now(
                        "Turns without an answer",
                        _share(
                            increase(calls.TURNS, window="$__range", only='outcome=~"failed|unanswered"'),
                            increase(calls.TURNS, window="$__range"),
                        ),
                        "percentunit",
                    ),
                    _percentiles("Voice to voice", calls.VOICE_TO_VOICE),
                    _percentiles("Typed message to voice", calls.TYPED_TO_VOICE),
                ),
            ),
            (
                "Stages of a turn (they overlap)",
                (
                    Panel("Median", ((quantile(0.5, calls.STAGE_SECONDS, "stage"), "{{stage}}"),), "s"),
                    Panel("p95", ((quantile(0.95, calls.STAGE_SECONDS, "stage"), "{{stage}}"),), "s"),
                ),
            ),
            (
                "Conversation",
                (
                    Panel("Turns by outcome", ((rate(calls.TURNS, "outcome"), "{{outcome}}"),), "ops"),
                    Panel(
                        "Barge-in",
                        ((rate(calls.BARGE_INS, "kind"), "{{kind}}"), (rate(calls.UNHEARD), "spoke, not understood")),
                        "ops",
                    ),
                    Panel("Tools by outcome", ((rate(calls.TOOLS, "outcome"), "{{outcome}}"),), "ops"),
                ),
            ),
        ),
    ),
    Board(
        "models",
        "Parley: models",
        (
            (
                "Speed",
                (
                    Panel(
                        "First piece of an answer, p50",
                        ((quantile(0.5, models.FIRST_CHUNK_SECONDS, "model", "method"), "{{model}} {{method}}"),),
                        "s",
                    ),
                    Panel(
                        "First piece of an answer, p95",
                        ((quantile(0.95, models.FIRST_CHUNK_SECONDS, "model", "method"), "{{model}} {{method}}"),),
                        "s",
                    ),
                    Panel(
                        "Evaluation score",
                        ((highest(backend.EVALUATION, "suite", "target"), "{{suite}}: {{target}}"),),
                        "percentunit",
                    ),
                    Panel(
                        "Whole request, p95",
                        ((quantile(0.95, models.REQUEST_SECONDS, "model", "method"), "{{model}} {{method}}"),),
                        "s",
                    ),
                ),
            ),
            (
                "Requests",
                (
                    Panel(
                        "By model and outcome",
                        ((rate(models.REQUESTS, "model", "outcome"), "{{model}} {{outcome}}"),),
                        "reqps",
                    ),
                    Panel("Sent again", ((rate(models.RETRIES, "model", "error"), "{{model}} {{error}}"),), "ops"),
                    Panel(
                        "Answered by another model",
                        ((rate(models.FALLBACKS, "model", "instead", "error"), "{{model}} → {{instead}} ({{error}})"),),
                        "ops",
                    ),
                    Panel(
                        "Answered by nobody",
                        ((rate(models.FAILURES, "role", "model", "error"), "{{role}} {{model}} {{error}}"),),
                        "ops",
                    ),
                ),
            ),
            (
                "Load",
                (
                    Panel("Working on", ((total(models.ONGOING, "model"), "{{model}}"),)),
                    Panel("Busy", ((rate(models.BUSY_SECONDS, "model"), "{{model}}"),), "percentunit"),
                    Panel(
                        "Queue before it (Serve)",
                        ((f"sum by (application) ({_SERVE}_queued_queries)", "{{application}}"),),
                    ),
                    Panel("Tokens", ((rate(models.TOKENS, "model", "kind"), "{{model}} {{kind}}"),), "ops"),
                    Panel("Characters spoken", ((rate(models.CHARACTERS, "model"), "{{model}}"),), "ops"),
                    Panel("Audio, seconds per second", ((rate(models.AUDIO_SECONDS, "model"), "{{model}}"),)),
                ),
            ),
        ),
    ),
    Board(
        "calls",
        "Parley: calls",
        (
            (
                "Now",
                (
                    _now("Calls", total(calls.CALLS_LIVE)),
                    _now("Lines in use", _LINES, "percentunit"),
                    _now("Callers who wait", highest(calls.CALLS_WAITING)),
                    _now("Dispatchers at LiveKit", total(calls.DISPATCHERS)),
                ),
            ),
            (
                "Calls",
                (
                    Panel("In progress", ((total(calls.CALLS_LIVE), "calls"), (total(calls.CALL_SLOTS), "lines"))),
                    Panel(
                        "Begun", ((rate(calls.CALLS_BEGUN), "begun"), (rate(calls.CALLS_BUSY), "told to wait")), "ops"
                    ),
                    Panel("Ended, by reason", ((rate(calls.CALLS_ENDED, "reason"), "{{reason}}"),), "ops"),
                    _percentiles("Length", calls.CALL_LENGTH),
                ),
            ),
            (
                "Survival",
                (
                    Panel(
                        "Calls that changed their replica",
                        ((rate(calls.CALLS_BROKEN, "outcome"), "{{outcome}}"), (rate(calls.CALLS_RESUMED), "went on")),
                        "ops",
                    ),
                    Panel("Agents that lost LiveKit", ((rate(calls.RECONNECTS), "lost"),), "ops"),
                ),
            ),
            (
                "What is told afterwards",
                (
                    Panel(
                        "Outbox",
                        ((highest(calls.OUTBOX_WAITING), "waiting"), (total(calls.OUTBOX_BUFFERED), "in memory")),
                    ),
                    Panel("Oldest record", ((highest(calls.OUTBOX_AGE), "outbox"),), "s"),
                    Panel(
                        "Records",
                        (
                            (rate(calls.OUTBOX_DELIVERED), "delivered"),
                            (rate(calls.OUTBOX_SET_ASIDE), "set aside"),
                            (rate(calls.OUTBOX_DROPPED), "lost"),
                        ),
                        "ops",
                    ),
                    Panel(
                        "Webhooks",
                        ((highest(backend.WEBHOOKS_PENDING), "pending"), (highest(backend.WEBHOOKS_DEAD), "dead")),
                    ),
                    Panel("Webhook overdue", ((highest(backend.WEBHOOKS_AGE), "oldest"),), "s"),
                    Panel("Webhook attempts", ((rate(backend.WEBHOOK_ATTEMPTS, "outcome"), "{{outcome}}"),), "ops"),
                ),
            ),
        ),
    ),
    Board(
        "money",
        "Parley: money",
        (
            (
                "Cost, by the profile's prices",
                (
                    Panel(
                        "In this time",
                        ((increase(backend.COST, "currency", window="$__range"), "{{currency}}"),),
                        kind="number",
                    ),
                    Panel(
                        "Per call",
                        (
                            (
                                _PER_CALL,
                                "{{currency}}",
                            ),
                        ),
                        kind="number",
                    ),
                    Panel(
                        "Per hour, by role",
                        ((increase(backend.COST, "role", "currency", window="1h"), "{{role}} {{currency}}"),),
                    ),
                    Panel(
                        "Per hour, by model",
                        ((increase(backend.COST, "model", "currency", window="1h"), "{{model}} {{currency}}"),),
                    ),
                ),
            ),
            (
                "What it is made of, per hour",
                (
                    Panel("GPU seconds", ((increase(models.GPU_SECONDS, "model", window="1h"), "{{model}}"),), "s"),
                    Panel("Tokens", ((increase(models.TOKENS, "model", "kind", window="1h"), "{{model}} {{kind}}"),)),
                    Panel("Characters", ((increase(models.CHARACTERS, "model", window="1h"), "{{model}}"),)),
                    Panel("Audio", ((increase(models.AUDIO_SECONDS, "model", window="1h"), "{{model}}"),), "s"),
                ),
            ),
        ),
    ),
    Board(
        "capacity",
        "Parley: capacity",
        (
            (
                "Lines",
                (
                    Panel("In use", ((_LINES, "lines"),), "percentunit"),
                    Panel("Callers who wait", ((highest(calls.CALLS_WAITING), "waiting"),)),
                    Panel(
                        "Replicas (Serve)", ((f"sum by (application) ({_SERVE}_replica_healthy)", "{{application}}"),)
                    ),
                ),
            ),
            (
                "Models",
                (
                    Panel(
                        "Slots in use",
                        ((_share(total(models.ONGOING, "model"), total(models.SLOTS, "model")), "{{model}}"),),
                        "percentunit",
                    ),
                    Panel("Queue (Serve)", ((f"sum by (application) ({_SERVE}_queued_queries)", "{{application}}"),)),
                ),
            ),
            (
                "API (Serve)",
                (
                    Panel(
                        "Requests",
                        ((f"sum(rate({_SERVE}_request_counter_total{_API}[$__rate_interval]))", "requests"),),
                        "reqps",
                    ),
                    Panel(
                        "Errors",
                        ((f"sum(rate({_SERVE}_error_counter_total{_API}[$__rate_interval]))", "errors"),),
                        "reqps",
                    ),
                ),
            ),
            (
                "Machines (Ray)",
                (
                    Panel("CPU", (("ray_node_cpu_utilization", "{{instance}}"),), "percent"),
                    Panel("Memory", (("ray_node_mem_used", "{{instance}}"),), "bytes"),
                    Panel("GPU", (("ray_node_gpus_utilization", "{{instance}} {{GpuIndex}}"),), "percent"),
                ),
            ),
        ),
    ),
)


def encode(board: Board) -> str:
    """Return a dashboard as Grafana takes it: JSON, the same each time."""
    made = (
        dashboard.Dashboard(board.title)
        .uid(f"parley-{board.name}")
        .tags(["parley"])
        .refresh("10s")
        .time("now-1h", "now")
        .editable()
    )
    for title, panels in board.rows:
        made = made.with_row(dashboard.Row(title))
        for panel in panels:
            made = made.with_panel(_panel(panel))
    return JSONEncoder(sort_keys=True, indent=1).encode(made.build()) + "\n"


def _panel(panel: Panel) -> stat.Panel | timeseries.Panel:
    last = common.ReduceDataOptions().calcs(["lastNotNull"])
    kind = stat.Panel().reduce_options(last) if panel.kind == "number" else timeseries.Panel()
    width, height = (6, 5) if panel.kind == "number" else (12, 8)
    made = kind.title(panel.title).unit(panel.unit).span(width).height(height)
    made = made.datasource(DataSourceRef(type_val="prometheus", uid=DATASOURCE))
    for place, (query, legend) in enumerate(panel.queries):
        target = prometheus.Dataquery().expr(query).legend_format(legend).ref_id(chr(ord("A") + place))
        made = made.with_target(target)
    return made


def write(folder: Path) -> list[Path]:
    """Write all dashboards into a folder; return their files."""
    folder.mkdir(parents=True, exist_ok=True)
    files = [folder / f"parley-{board.name}.json" for board in BOARDS]
    for path, board in zip(files, BOARDS, strict=True):
        path.write_text(encode(board), encoding="utf-8")
    return files


if __name__ == "__main__":
    print(*write(Path(sys.argv[1])), sep="\n")
