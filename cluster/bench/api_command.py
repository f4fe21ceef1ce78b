"""`parley bench api`."""

from __future__ import annotations

import asyncio
from typing import TYPE_CHECKING, Annotated

import typer

from cluster.bench.telling import say, show

if TYPE_CHECKING:
    from cluster.bench.report import Report


def api_(
    calls: Annotated[int, typer.Option("--calls", min=100, help="Calls in the database.")] = 100_000,
    turns: Annotated[int, typer.Option("--turns", min=100, help="Turns in it, of all calls.")] = 1_000_000,
    times: Annotated[int, typer.Option("--times", min=1, max=2000, help="How often each list is asked for.")] = 50,
    seconds: Annotated[int, typer.Option("--seconds", min=1, max=300, help="Of each run of wrk.")] = 10,
    connections: Annotated[int, typer.Option("--connections", min=1, max=1000, help="Of wrk, at once.")] = 16,
    rounds: Annotated[int, typer.Option("--rounds", min=1, max=50, help="Runs of wrk on each way.")] = 3,
    only: Annotated[str | None, typer.Option("--only", help="lists or load; without: both.")] = None,
    as_json: Annotated[bool, typer.Option("--json", help="Print the figures as JSON.")] = False,
) -> None:
    """The backend: the console's lists over a year of calls, and requests a second beside a bare FastAPI.

    Needs no cluster; one that is up is measured as well, through HAProxy and through Serve's own proxy.

    Example: parley bench api --calls 100000 --turns 1000000
    """
    from cluster import state
    from cluster.bench import api, load

    if only not in (None, "lists", "load"):
        raise typer.BadParameter("--only is lists or load")
    reports: list[Report] = []
    if only != "load":
        reports += asyncio.run(api.lists(say, calls=calls, turns=turns, times=times))
    if only != "lists":
        run = state.load()
        ingress = run.addresses.get("api") if run and run.alive else None
        proxy = f"http://127.0.0.1:{run.settings['ray']['proxy_port']}" if run and ingress else None
        measured = load.load(ingress, proxy, say, seconds=seconds, connections=connections, rounds=rounds)
        reports.append(asyncio.run(measured))
    show(reports, as_json)
