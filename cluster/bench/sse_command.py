"""`parley bench sse`."""

from __future__ import annotations

import asyncio
from typing import Annotated

import typer

from cluster.bench.telling import say, show


def sse_(
    watchers: Annotated[int, typer.Option("--watchers", min=1, max=1000, help="Connections.")] = 200,
    turns: Annotated[int, typer.Option("--turns", min=1, max=15, help="Of the call they watch.")] = 3,
    as_json: Annotated[bool, typer.Option("--json", help="Print the figures as JSON.")] = False,
) -> None:
    """Watchers of one live call: from when the agent knew something to when each of them has read it.

    Example: parley bench sse --watchers 200
    """
    from cluster import status
    from cluster.bench import sse

    run = status.current()
    show([asyncio.run(sse.sse(run.addresses["page"] or "", say, watchers=watchers, turns=turns))], as_json)
