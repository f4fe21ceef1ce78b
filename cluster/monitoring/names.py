"""All of Parley's metrics, and the table of docs/operations.md: `python -m cluster.monitoring.names` prints it."""

from __future__ import annotations

from agent import metrics as calls
from api import metrics as backend
from serve import metrics as models
from serve.instruments import Metric


def metrics() -> tuple[Metric, ...]:
    """Return all of Parley's metrics."""
    return (*calls.METRICS, *models.METRICS, *backend.METRICS)


def table() -> str:
    """Return the table of docs/operations.md."""
    lines = ["| metric | kind | labels | what it is |", "|---|---|---|---|"]
    for metric in sorted(metrics(), key=lambda each: each.name):
        labels = ", ".join(f"`{label}`" for label in metric.labels)
        lines.append(f"| `{metric.exported}` | {metric.kind} | {labels} | {metric.meaning} |")
    return "\n".join(lines)


if __name__ == "__main__":
    print(table())
