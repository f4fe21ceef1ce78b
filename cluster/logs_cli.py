"""`parley logs`: one call's story on a terminal, or as JSON."""

from __future__ import annotations

import datetime
import json
from typing import TYPE_CHECKING, Annotated

import typer

if TYPE_CHECKING:
    from rich.table import Table

    from cluster.logs import Line

STYLES = {"WARN": "yellow", "ERROR": "red", "CRITICAL": "red"}


def logs(
    call: Annotated[str, typer.Argument(help="Id of the call, as the page, the console and the API name it.")],
    as_json: Annotated[bool, typer.Option("--json", help="Print an object a line.")] = False,
) -> None:
    """Show what all processes on this machine have written of a call, in order of time; also after `parley down`.

    Example: parley logs call-0d9f2c51ab34
    """
    from cluster import console
    from cluster import logs as logs_

    found = logs_.story(call, logs_.folders())
    if as_json:
        for line in found:
            print(json.dumps(line.json(), ensure_ascii=False))
    else:
        console.out().print(table(call, found))


def table(call: str, lines: list[Line]) -> Table:
    """Return a call's story as a table; times in this machine's zone, then seconds since the first line."""
    from rich.table import Table
    from rich.text import Text

    began = datetime.datetime.fromtimestamp(lines[0].time).astimezone()
    tenants = ", ".join(sorted({line.tenant for line in lines if line.tenant}))
    title = f"{call}, from {began:%Y-%m-%d %H:%M:%S %Z}" + (f", tenant {tenants}" if tenants else "")
    found = Table(title=title, title_justify="left", show_edge=False, pad_edge=False)
    found.add_column("s", justify="right", no_wrap=True)
    found.add_column("turn", justify="right")
    found.add_column("who", no_wrap=True)
    found.add_column("what", overflow="fold")
    for line in lines:
        what = Text(line.message.removeprefix(f"call {call}: "), STYLES.get(line.level, ""))
        if line.more:
            what.append("  " + " ".join(f"{name}={_short(value)}" for name, value in line.more.items()), "dim")
        found.add_row(f"{line.time - lines[0].time:.3f}", str(line.turn or ""), Text(line.source), what)
    return found


def _short(value: object) -> str:
    text = value if isinstance(value, str) else json.dumps(value, ensure_ascii=False)
    return text if len(text) <= 200 else f"{text[:200]}…"
