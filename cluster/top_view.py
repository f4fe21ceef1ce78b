"""`parley top` on a terminal."""

from __future__ import annotations

from typing import Any

from rich.console import Group, RenderableType
from rich.table import Table
from rich.text import Text

Facts = dict[str, Any]

SHOWN = 30
"""Calls that are shown; the others are counted."""

STATES = {"speaking": "green", "thinking": "yellow", "away": "red"}


def view(facts: Facts) -> RenderableType:
    """Lay out what `cluster.top` has found."""
    parts: list[RenderableType] = [_head(facts), "", _stages(facts["stages"]), "", _models(facts)]
    if facts["calls"]["list"]:
        parts += ["", _calls(facts["calls"]["list"])]
        if (more := len(facts["calls"]["list"]) - SHOWN) > 0:
            parts.append(Text(f"and {more} more", "dim"))
    parts += [Text(f"not known: {each}", "yellow") for each in facts["trouble"]]
    return Group(*parts)


def _head(facts: Facts) -> Table:
    calls, node = facts["calls"], facts["node"]
    found = Table(box=None, pad_edge=False, show_header=False)
    found.add_column(style="dim")
    found.add_column()
    found.add_row("calls", f"{calls['live']} of {calls['slots']}" + _if(calls["waiting"], ", {} wait"))
    cpu = "" if node["cpu_percent"] is None else f"{node['cpu_percent']:.0f} % of {node['cpus']} CPUs, "
    found.add_row("machine", f"{cpu}{_gib(node['memory_used'])} of {_gib(node['memory_total'])} GiB")
    for gpu in node["gpus"]:
        memory = f"{_gib(gpu['memory_used'])} of {_gib(gpu['memory_total'])} GiB"
        found.add_row(f"gpu {gpu['index']}", f"{gpu['percent']} %, {memory}")
    found.add_row("money today", _money(facts["money"]))
    return found


def _stages(rows: list[Facts]) -> Table:
    found = _table("stage", ">p50 ms", ">p95 ms", ">n")
    for row in rows:
        style = "bold" if row["stage"] == "voice_to_voice" else ""
        name = Text(row["stage"].replace("_", " "), style)
        found.add_row(name, _number(row["p50_ms"]), _number(row["p95_ms"]), str(row["n"]))
    return found


def _models(facts: Facts) -> Table:
    found = _table("application", "role", "status", ">replicas", ">at work", ">queued", ">first ms p50", ">p95")
    for each in facts["models"]:
        work, first = f"{each['ongoing']} of {each['slots']}", each["first_chunk"]
        times = (_number(first["p50_ms"]), _number(first["p95_ms"]))
        found.add_row(each["name"], each["role"], _status(each), _replicas(each), work, str(each["queued"]), *times)
    for each in facts["applications"]:
        found.add_row(each["name"], "", _status(each), _replicas(each))
    return found


def _calls(rows: list[Facts]) -> Table:
    found = _table("call", "caller", "assistant", "caller", "assistant", ">turns", ">age", ">v2v ms", ">cost")
    for row in rows[:SHOWN]:
        states = [Text(row[key], STATES.get(row[key], "dim")) for key in ("caller_state", "assistant_state")]
        cost = f"{float(row['cost']):.4f} {row['currency']}" if row["cost"] and row["currency"] else "-"
        age = f"{row['seconds'] // 60}:{row['seconds'] % 60:02}"
        who = Text(row["caller"] or row["medium"])
        last = (str(row["turns"]), age, _number(row["voice_to_voice_ms"]), cost)
        found.add_row(row["id"], who, Text(row["assistant"]), *states, *last)
    return found


def _table(*headings: str) -> Table:
    found = Table(box=None, pad_edge=False, header_style="dim")
    for heading in headings:
        found.add_column(heading.removeprefix(">"), justify="right" if heading.startswith(">") else "left")
    return found


def _status(each: Facts) -> Text:
    return Text(each["status"].lower(), "green" if each["status"] == "RUNNING" else "red")


def _replicas(each: Facts) -> str:
    counts = each["replicas"].values()
    return ", ".join(f"{count['running']} of {_number(count['wanted'])}" for count in counts)


def _money(money: Facts | None) -> str:
    if money is None:
        return "-"
    known = ", ".join(
        f"{float(total['cost']):.4f} {total['currency']}" for total in money["today"] if total["currency"]
    )
    missing = money["unpriced_models"]
    return (known or "no prices") + (f"; without a price: {', '.join(missing)}" if known and missing else "")


def _if(value: int, text: str) -> str:
    return text.format(value) if value else ""


def _gib(size: float) -> str:
    return f"{size / 2**30:.1f}"


def _number(value: float | None) -> str:
    return "-" if value is None else f"{value:.0f}"
