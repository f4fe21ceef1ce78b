"""How a benchmark's figures are kept and shown: what, unit, spread, how many, against what."""

from __future__ import annotations

import os
import statistics
from collections.abc import Sequence
from dataclasses import asdict, dataclass, field
from typing import Any

from rich.console import Console
from rich.table import Table


@dataclass(frozen=True, slots=True)
class Figure:
    """One measured quantity, with its spread over `n` values."""

    name: str
    unit: str
    n: int
    p50: float | None
    p95: float | None
    min: float | None
    max: float | None
    note: str = ""

    @classmethod
    def of(cls, name: str, unit: str, values: Sequence[float], note: str = "") -> Figure:
        """Summarise values."""
        if not values:
            return cls(name, unit, 0, None, None, None, None, note or "nothing was measured")
        p95 = statistics.quantiles(values, n=20, method="inclusive")[-1] if len(values) > 1 else values[0]
        return cls(name, unit, len(values), statistics.median(values), p95, min(values), max(values), note)


@dataclass(slots=True)
class Report:
    """What one benchmark found."""

    bench: str
    figures: list[Figure] = field(default_factory=list[Figure])
    facts: dict[str, Any] = field(default_factory=dict[str, Any])

    def add(self, name: str, unit: str, values: Sequence[float], note: str = "") -> None:
        """Add a figure."""
        self.figures.append(Figure.of(name, unit, values, note))

    def json(self) -> dict[str, Any]:
        """Return the report as a JSON object."""
        figures = [asdict(figure) for figure in self.figures]
        return {"bench": self.bench, "cores": os.cpu_count(), "figures": figures, "facts": self.facts}

    def show(self, console: Console) -> None:
        """Print the report as a table."""
        table = Table(title=f"parley bench {self.bench}", title_justify="left", show_edge=False, pad_edge=False)
        table.add_column("what")
        for heading in ("n", "p50", "p95", "min", "max"):
            table.add_column(heading, justify="right")
        table.add_column("unit")
        table.add_column("note")
        for figure in self.figures:
            values = [_number(value) for value in (figure.p50, figure.p95, figure.min, figure.max)]
            table.add_row(figure.name, str(figure.n), *values, figure.unit, figure.note)
        console.print(table)
        for name, value in self.facts.items():
            console.print(f"{name}: {value}", highlight=False)


def _number(value: float | None) -> str:
    if value is None:
        return "-"
    return f"{value:.0f}" if abs(value) >= 100 else f"{value:.3g}"
