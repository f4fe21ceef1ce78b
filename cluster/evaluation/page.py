"""A report as a page that needs nothing else, and as tables for a terminal."""

from __future__ import annotations

from importlib import resources
from typing import Any

import jinja2
from rich.console import Console
from rich.table import Table
from rich.text import Text

from cluster.evaluation.measures import MEASURES, Measure

_MARKS = {"passed": ("✓", "green"), "failed": ("✗", "red"), "error": ("!", "red"), "skipped": ("-", "dim")}


def html(report: dict[str, Any]) -> str:
    """Return the page of a report."""
    source = (resources.files("cluster.evaluation") / "report.html.j2").read_text(encoding="utf-8")
    template = jinja2.Environment(autoescape=True, trim_blocks=True, lstrip_blocks=True).from_string(source)
    tiles = [_tile(each, report["measures"][each.name]) for each in MEASURES if each.name in report["measures"]]
    compared: dict[str, Any] = report["against"]["measures"] if report["against"] else {}
    changes = [_change(each, compared[each.name]) for each in MEASURES if each.name in compared]
    minutes, seconds = divmod(round(report["seconds"]), 60)
    took = f"{minutes} min {seconds} s" if minutes else f"{seconds} s"
    return template.render(r=report, tiles=tiles, changes=changes, took=took)


def show(report: dict[str, Any], out: Console) -> None:
    """Print a report."""
    table = _table("measure", "value", "95%", "cases", *(["before", "verdict"] if report["against"] else []))
    for each in MEASURES:
        if each.name not in report["measures"]:
            continue
        found = report["measures"][each.name]
        row = [each.title, each.shown(found["value"]), _range(each, found), str(found["cases"])]
        compared: dict[str, Any] = report["against"]["measures"] if report["against"] else {}
        if change := compared.get(each.name):
            row += [each.shown(change["old"]), change["verdict"]]
        table.add_row(*row)
    out.print()
    out.print(table)
    out.print()
    counts = report["counts"]
    parts = (("passed", "passed"), ("failed", "failed"), ("error", "broke off"), ("skipped", "skipped"))
    line = Text("cases  ")
    for status, name in parts:
        if counts[status]:
            line.append(f"{_MARKS[status][0]} {counts[status]} {name}  ", style=_MARKS[status][1])
    out.print(line)
    if against := report["against"]:
        for title, names in (("better", against["better"]), ("worse", against["worse"])):
            if names:
                out.print(f"{title:<7}{', '.join(names)}", markup=False)
    for line in report["gate"] or ():
        out.print(Text(f"gate   {line}", style="red"))


def _table(*names: str) -> Table:
    table = Table(box=None, pad_edge=False, header_style="dim")
    for name in names:
        table.add_column(name, justify="left" if name in ("measure", "verdict") else "right")
    return table


def _range(measure: Measure, found: dict[str, Any]) -> str:
    return f"{measure.shown(found['lower'])} to {measure.shown(found['upper'])}"


def _tile(measure: Measure, found: dict[str, Any]) -> dict[str, Any]:
    # Shares have their whole range; times begin at 0 and leave some room above.
    most = 1.0 if measure.unit == "%" and found["upper"] <= 1 else found["upper"] * 1.25 or 1.0
    at = {key: round(100 * found[key] / most, 1) for key in ("value", "lower", "upper")}
    cases = "case" if found["cases"] == 1 else "cases"
    return {
        "title": measure.title,
        "value": measure.shown(found["value"]),
        "lower": measure.shown(found["lower"]),
        "upper": measure.shown(found["upper"]),
        "at": at["value"],
        "from": at["lower"],
        "width": round(at["upper"] - at["lower"], 1),
        "cases": f"{found['cases']} {cases}",
    }


def _change(measure: Measure, found: dict[str, Any]) -> dict[str, Any]:
    def signed(value: float) -> str:
        return ("+" if value > 0 else "") + measure.shown(value)

    signs = {key: signed(found[key]) for key in ("difference", "lower", "upper")}
    plain = {key: measure.shown(found[key]) for key in ("old", "new")}
    return {"title": measure.title, **plain, **signs, "verdict": found["verdict"]}
