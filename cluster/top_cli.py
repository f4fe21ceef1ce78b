"""`parley top`: what goes on now, live on a terminal."""

from __future__ import annotations

import sys
import time
from typing import Annotated

import typer


def top(
    once: Annotated[bool, typer.Option("--once", help="Look once; so does a pipe.")] = False,
    every: Annotated[float, typer.Option("--every", min=0.5, max=60, help="Seconds between looks.")] = 2.0,
    as_json: Annotated[bool, typer.Option("--json", help="Print facts as JSON, once.")] = False,
) -> None:
    """Show calls, latencies, replicas, queues, GPUs and money as they are now, until Ctrl-C.

    Example: parley top --once
    """
    from cluster import console, status
    from cluster.top import Top
    from cluster.top_view import view

    looking = Top(status.current())
    try:
        if as_json:
            console.print_json(looking.look())
        elif once or not sys.stdout.isatty():
            console.out().print(view(looking.look()))
        else:
            from rich.live import Live

            with Live(view(looking.look()), console=console.out(), screen=True, auto_refresh=False) as live:
                while True:
                    time.sleep(every)  # figures change by themselves, and tell no event
                    live.update(view(looking.look()), refresh=True)
    finally:
        looking.close()
