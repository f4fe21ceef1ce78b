"""What `parley deploy`, `routes`, `rollback` and `swap` do."""

from __future__ import annotations

import asyncio
import datetime
import sys
from dataclasses import asdict
from pathlib import Path
from typing import Any

from rich.table import Table
from rich.text import Text

from cluster import change, console, gate, history, needs, plan, samples
from cluster import fetch as fetch_
from cluster import profile as profiles
from cluster import swap as swaps
from cluster.console import Story
from cluster.profile import Profile
from serve.contracts import ROLES, Role
from serve.errors import ConfigError, ParleyError

PUT_SECONDS = 600.0
"""A change follows three steps of at most 180 s each (`cluster.deploy.follow`)."""


def deploy(profile: str, overrides: list[str], *, yes: bool, dry_run: bool, as_json: bool) -> None:
    """Show what going to a profile does, ask, and do it.

    Raises:
        ParleyError: It did not come up; what ran before goes on running.
    """
    settings = profiles.load(profile, overrides, here=True)
    running, _ = change.current()
    _change(running, settings, profile, "deploy", yes=yes, dry_run=dry_run, as_json=as_json)


def rollback(number: int | None, *, yes: bool, dry_run: bool, as_json: bool) -> None:
    """Bring back what ran after an entry of the history; without a number, before the last change.

    Raises:
        ParleyError: There is none, or it did not come up; what runs goes on running.
    """
    running, name = change.current()
    with history.changing():
        history.here(name, running.model_dump(mode="json"))
    entry = history.find(history.read(), number)
    target = Profile.model_validate(entry.settings)
    what = f"back to {entry.number}: {entry.what}"
    _change(
        running, target, entry.profile, "rollback", yes=yes, dry_run=dry_run, as_json=as_json, what=what,
        before=entry.before,
    )  # fmt: skip


def routes(as_json: bool) -> None:
    """Show which models serve each role now, and who changed what, when.

    Raises:
        ParleyError: Nothing is up.
    """
    live, changes = change.routes()
    if as_json:
        told = [each.model_dump(mode="json", exclude={"settings"}) for each in changes]
        console.print_json({"routes": live.model_dump(mode="json"), "history": told})
        return
    out = console.out()
    out.print(_table(("role", "model", "shares", "stand by"), [_route(role, live.route(role)) for role in ROLES]))
    if changes:
        out.print()
        out.print(_table(("change", "when", "who", "command", "profile", "what"), [_entry(each) for each in changes]))


def swap(
    role: Role, model: str, *, canary: float, gate_file: Path | None, profile: str | None, keep: bool, as_json: bool
) -> None:
    """Give a role to another model, a share of the calls at a time; exits with 1 when it was rolled back.

    Raises:
        ParleyError: It did not come up, or turns cannot be read; all is as it was.
    """
    rules = gate.read(gate_file)
    if rules.evaluation:
        from cluster.evaluation import swapping  # with what speaks and calls, which no other swap needs

        swapping.check(rules)
    catalog = profiles.load(profile).models if profile else []
    running, name = change.current()
    asked = swaps.ask(running, role, model, catalog, canary, rules, keep)
    first = swaps.sharing(running, asked, asked.steps[0])
    if lacking := list(needs.lacking(first)):
        raise ConfigError("\n".join(problem for _, problem in lacking))
    source = samples.source(running.agent.backend)
    story = Story(quiet=as_json)
    with history.changing():
        try:
            fetch_.fetch(fetch_.wanted(needs.references(first)), story)
            before = history.here(name, running.model_dump(mode="json")).number

            async def put(profile: Profile, what: str) -> None:
                work = asyncio.ensure_future(asyncio.to_thread(change.make, profile, name, "swap", what, story, before))
                try:
                    await asyncio.shield(work)
                except asyncio.CancelledError:
                    # Nothing stops the thread: what it began is done before anything else is put.
                    await asyncio.wait([work], timeout=PUT_SECONDS)
                    raise

            async def examine(asked: swaps.Asked, profile: Profile) -> gate.Judgement:
                from cluster.evaluation import swapping

                return await swapping.examine(asked, profile, story.note)

            judge = examine if rules.evaluation else None
            outcome = asyncio.run(swaps.Swap(running, asked, put, source, story.note, examine=judge).run())
        finally:
            story.close()
    if as_json:
        console.print_json(outcome.json())
    else:
        out = console.out()
        for share, judged in outcome.steps:
            for found in judged.findings:
                out.print(f"  at {share:.0%}  {found.text()}", markup=False)
        end = f"{model} has the role {role}" if outcome.promoted else f"rolled back to {asked.old}"
        out.print(f"{end}: {outcome.why}", markup=False)
    if not outcome.promoted:
        sys.exit(1)


def _change(
    running: Profile,
    settings: Profile,
    name: str,
    action: history.Action,
    *,
    yes: bool,
    dry_run: bool,
    as_json: bool,
    what: str = "",
    before: int | None = change.HERE,
) -> None:
    """Show the difference, ask, and apply it."""
    found = plan.between(running, settings)
    free, fits = change.room(running, found)
    told = {**found.json(), "free": free and [asdict(each) for each in free], "fits": fits}
    if not as_json:
        _show(found, free, fits)
    if dry_run or (found.empty and not as_json):
        if as_json:
            console.print_json({"plan": told})
        return
    asks = not yes and not as_json and sys.stdin.isatty()
    if asks and not found.empty and console.out().input("go on? (y/N) ").strip().lower() not in {"y", "yes"}:
        console.out().print("nothing was changed")
        return
    story = Story(quiet=as_json)
    with history.changing():
        if change.current()[0] != running:
            raise ParleyError("the cluster was changed meanwhile; look at the difference again")
        try:
            fetch_.fetch(fetch_.wanted(needs.references(settings)), story)
            changes = change.make(settings, name, action, what or _summary(found), story, before)
        finally:
            story.close()
    if as_json:
        console.print_json({**changes, "plan": told})
    else:
        console.out().print("done" if any(changes.values()) else "nothing to change")


def _show(found: plan.Plan, free: list[plan.Amount] | None, fits: bool | None) -> None:
    out = console.out()
    if found.empty:
        out.print("nothing to change")
        return
    for title, names in _parts(found):
        if names:
            out.print(f"{title:<18}{', '.join(names)}", markup=False)
    for role, (old, new) in found.routes.items():
        parts = [f"{key} {old[key]} -> {new[key]}" for key in new if old[key] != new[key]]
        out.print(f"{'route':<18}{role}: {', '.join(parts)}", markup=False)
    out.print(f"{'takes meanwhile':<18}{found.meanwhile.text()} beside what runs")
    if free is not None:
        out.print(f"{'free':<18}{sum(free, plan.Amount()).text()} on {len(free)} machine{'s' * (len(free) != 1)}")
    if fits is False:
        out.print(
            "[yellow]that does not fit[/]: what does not come up changes nothing; replicas.surge: false needs less"
        )
    if fits is None:
        out.print("Ray does not say what is free", style="dim")


def _summary(found: plan.Plan) -> str:
    parts = [f"{title} {', '.join(names)}" for title, names in _parts(found) if names]
    return "; ".join(parts) or "nothing"


def _parts(found: plan.Plan) -> list[tuple[str, list[str]]]:
    return [
        ("added", found.added),
        ("changed in place", found.in_place),
        ("restarted", found.restarted),
        ("removed", found.removed),
    ]


def _route(role: Role, route: Any) -> tuple[str, ...]:
    shares = ", ".join(f"{name} {share:.0%}" for name, share in route.weights.items())
    return role, route.default, shares, ", ".join(route.fallbacks)


def _entry(entry: history.Change) -> tuple[str, ...]:
    when = datetime.datetime.fromtimestamp(entry.at).astimezone().strftime("%Y-%m-%d %H:%M:%S")
    return str(entry.number), when, entry.who, entry.action, entry.profile, entry.what


def _table(names: tuple[str, ...], rows: list[tuple[str, ...]]) -> Table:
    table = Table(box=None, pad_edge=False, header_style="dim")
    for name in names:
        table.add_column(name)
    for row in rows:
        table.add_row(*(Text(cell) for cell in row))
    return table
