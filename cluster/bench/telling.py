"""What a benchmark says on the way, and its figures at the end."""

from __future__ import annotations

from collections.abc import Sequence
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from cluster.bench.report import Report


def say(what: str) -> None:
    """Tell a person what is being done."""
    from rich.console import Console

    Console(stderr=True, highlight=False).print(f"  {what}", style="dim")


def show(reports: Sequence[Report], as_json: bool) -> None:
    """Print figures, as tables or as JSON."""
    from cluster import console

    if as_json:
        console.print_json([report.json() for report in reports] if len(reports) > 1 else reports[0].json())
        return
    out = console.out()
    for report in reports:
        out.print()
        report.show(out)
