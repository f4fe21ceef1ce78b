"""What the terminal shows: steps with their times, tables, errors. Plain lines where it is no terminal."""

from __future__ import annotations

import json
import sys
import time
from typing import Any

from rich.console import Console
from rich.table import Table
from rich.text import Text

from cluster.up import Step

ADVICE = (
    ("parley up", "start the cluster"),
    ("parley call", "call it, and measure the answer"),
    ("parley status", "addresses, models, calls"),
    ("parley top", "what goes on, live"),
    ("parley logs", "one call's story, from all processes"),
    ("parley models", "engines, and what a profile's models need"),
    ("parley doctor", "what is missing on this machine"),
    ("parley down", "stop it"),
)


def out() -> Console:
    """Return the console for answers; rich itself heeds NO_COLOR and pipes."""
    return Console(highlight=False, soft_wrap=not sys.stdout.isatty())


def fail(message: str) -> None:
    """Print an error for a person."""
    console = Console(stderr=True, highlight=False, soft_wrap=True)
    console.print(Text(message.strip(), style="red"))


def print_json(value: Any) -> None:
    """Print one JSON object."""
    # Flushed: a native library that aborts at the very end of the process must not take the figures with it.
    print(json.dumps(value, indent=2), flush=True)


class Story:
    """Tells the steps of a start: on a terminal a line that lives and then stays, in a pipe a line when it is done.

    Args:
        quiet: Tell nothing (`--json`).
    """

    def __init__(self, quiet: bool = False) -> None:
        self._console = Console(stderr=True, highlight=False)
        self._quiet = quiet
        self._status: Any = None
        self._running: dict[str, str] = {}
        self._told = 0.0

    @property
    def quiet(self) -> bool:
        """Whether it tells nothing."""
        return self._quiet

    def __call__(self, step: Step) -> None:
        """Take one piece of news."""
        if self._quiet:
            return
        if step.seconds is not None:
            self._running.pop(step.name, None)
            line = Text.assemble(("✓ ", "green"), f"{step.name:<16}", (f"{step.seconds:5.1f} s  ", "dim"), step.detail)
            self._print(line)
        else:
            new = step.name not in self._running
            self._running[step.name] = step.detail
            if not self._console.is_terminal and step.detail and (new or time.monotonic() - self._told > 5):
                self._told = time.monotonic()
                self._print(Text(f"  {step.name}: {step.detail}"))
        self._show()

    def note(self, text: str) -> None:
        """Say something that is no step: why something is taken, what to expect. Wraps where a step is cut short."""
        if not self._quiet:
            self._console.print(Text(f"  {text}"))

    def close(self) -> None:
        """End the living line."""
        if self._status:
            self._status.stop()
            self._status = None

    def _print(self, line: Text) -> None:
        self._console.print(line, no_wrap=self._console.is_terminal, overflow="ellipsis")

    def _show(self) -> None:
        if not self._console.is_terminal:
            return
        if not self._running:
            self.close()
            return
        words = ", ".join(f"{name} {detail}".strip() for name, detail in self._running.items())
        text = Text(words[: max(20, self._console.width - 4)])
        if self._status:
            self._status.update(text)
        else:
            self._status = self._console.status(text)
            self._status.start()


def models_table(facts: dict[str, Any]) -> Table:
    """Lay out the models of `parley status`."""
    table = Table(box=None, pad_edge=False, header_style="dim")
    for name in ("role", "model", "engine", "status", "replicas"):
        table.add_column(name)
    for model in facts["models"]:
        routed = facts["routes"].get(model["role"]) == model["name"]
        healthy = model["status"] == "RUNNING"
        table.add_row(
            model["role"],
            Text(model["name"], style="bold" if routed else ""),
            model["engine"],
            Text(model["status"].lower(), style="green" if healthy else "red"),
            str(model["replicas"]),
        )
    return table


def addresses_table(addresses: dict[str, str | None]) -> Table:
    """Lay out addresses."""
    table = Table(box=None, pad_edge=False, show_header=False)
    for name, address in addresses.items():
        if address and name != "api":
            table.add_row(Text(name, style="dim"), address)
    return table
