"""Change a running cluster to a profile: new models beside the old ones first, then the routes, then the old ones go.

Serve replaces a changed model by itself without a gap (`max_surge_percent`); what it cannot know is that routes must
not move to a model before it runs, and that a model must not go before routes have left it.
"""

from __future__ import annotations

import time
from collections.abc import Callable
from pathlib import Path
from typing import Any, cast

from cluster import status
from cluster.deploy import Application, Serve, follow
from cluster.profile import Profile
from cluster.schema import compose
from cluster.up import Step
from serve.errors import ParleyError

Applications = dict[str, dict[str, Any]]


def apply(profile: Profile, name: str, say: Callable[[Step], None]) -> dict[str, list[str]]:
    """Bring the cluster that is up to a profile; returns which applications were `added`, `changed` and `removed`.

    Args:
        profile: Checked by `cluster.profile.load`.
        name: The profile as the person named it.
        say: Told each step.

    Raises:
        ParleyError: Something did not come up; what ran before goes on running.
    """
    run = status.current()
    before = Profile.model_validate(run.settings)
    profile = _where_it_is(profile, before, say)
    serve = Serve(run.addresses.get("dashboard") or "")
    logs = run.folder / "ray" / "session_latest" / "logs"
    try:
        wanted = compose(profile)
        # What was asked for last time, not what Serve made of it: the two are then compared like with like.
        old, new = _by_name(compose(before)), _by_name(wanted)
        changes = {
            "added": sorted(new.keys() - old.keys()),
            "changed": sorted(each for each in new.keys() & old.keys() if new[each] != old[each]),
            "removed": sorted(old.keys() - new.keys()),
        }
        for title, applications in _phases(old, new):
            _put(serve, wanted, applications, old, title, logs, say)
    finally:
        serve.close()
    status.record(run, name, profile)
    return changes


def _where_it_is(profile: Profile, before: Profile, say: Callable[[Step], None]) -> Profile:
    """Return the profile with the ports of what is up: those belong to processes that only a new start replaces."""
    api = profile.api.model_copy(update={"host": before.api.host, "port": before.api.port})
    running = {"livekit": before.livekit, "ray": before.ray, "monitoring": before.monitoring}
    kept = profile.model_copy(update={**running, "api": api})
    if kept != profile:
        say(Step("ports", 0.0, "stay as they are; `parley down` and `parley up` change them"))
    return kept


def _phases(old: Applications, new: Applications) -> list[tuple[str, Applications]]:
    """Return the steps, each with all applications that should run after it."""
    models = {name: each for name, each in new.items() if "model" in each["args"]}
    steps = [
        ("models", {**old, **models}),
        ("routes", {**old, **new}),
        ("old models", new),
    ]
    found: list[tuple[str, Applications]] = []
    before = old
    for title, after in steps:
        if after != before:
            found.append((title, after))
        before = after
    return found


def _put(
    serve: Serve,
    schema: dict[str, Any],
    applications: Applications,
    old: Applications,
    title: str,
    logs: Path,
    say: Callable[[Step], None],
) -> None:
    """Deploy one step and wait; where it fails, ask again for what ran before."""

    def progress(now: dict[str, Application]) -> None:
        waiting = [app.name for app in now.values() if app.status != "RUNNING"]
        say(Step(title, detail=f"waiting for {', '.join(waiting)}" if waiting else ""))

    say(Step(title))
    serve.put({**schema, "applications": list(applications.values())})
    try:
        began = time.monotonic()
        follow(serve, list(applications), logs, progress)
    except ParleyError as error:
        serve.put({**schema, "applications": list(old.values())})
        raise ParleyError(f"{error}\nwhat ran before goes on running") from None
    say(Step(title, time.monotonic() - began))


def _by_name(schema: dict[str, Any]) -> Applications:
    return {each["name"]: each for each in cast("list[dict[str, Any]]", schema["applications"])}
