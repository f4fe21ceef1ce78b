"""Changes of the cluster that is up, each noted with who made it: what `deploy`, `swap` and `rollback` share."""

from __future__ import annotations

from collections.abc import Callable

from cluster import apply, history, plan, status
from cluster.history import Action, Change
from cluster.profile import Profile
from cluster.up import Step
from serve.config import Routes
from serve.errors import ParleyError

HERE = 0
"""As an entry's number: that of what runs now."""


def current() -> tuple[Profile, str]:
    """Return the profile that runs, and the name that the person gave it.

    Raises:
        ParleyError: Nothing is up.
    """
    run = status.current()
    return Profile.model_validate(run.settings), run.profile


def make(
    profile: Profile,
    name: str,
    action: Action,
    what: str,
    say: Callable[[Step], None],
    before: int | None = HERE,
) -> dict[str, list[str]]:
    """Bring the cluster to a profile and note it; whoever does so holds `history.changing`.

    Args:
        profile: Checked by `cluster.profile.load`.
        name: As the person named it.
        action: The command.
        what: For the history.
        say: Told each step.
        before: Entry that `parley rollback` goes to from here; None: nowhere.

    Returns:
        Which applications were `added`, `changed` and `removed`.

    Raises:
        ParleyError: It did not come up; what ran before goes on running, and nothing is noted.
    """
    run = status.current()
    here = history.here(run.profile, run.settings)
    changes = apply.apply(profile, name, say)
    if any(changes.values()):
        settings = status.current().settings
        history.note(action, name, what, here.number if before == HERE else before, settings)
    return changes


def room(profile: Profile, change: plan.Plan) -> tuple[list[plan.Amount] | None, bool | None]:
    """Return what is free on each machine, and whether a change fits; None: Ray does not tell."""
    try:
        free = plan.free(f"127.0.0.1:{profile.ray.gcs_port}")
    except Exception:  # Ray's client raises RuntimeErrors of many kinds; to know nothing forbids nothing
        return None, None
    return free, plan.fits(change.needs, free)


def routes() -> tuple[Routes, list[Change]]:
    """Return the routes that the agents have now, and the history.

    Raises:
        ParleyError: Nothing is up, or its dashboard does not answer.
    """
    run = status.current()
    live = status.routes(run)
    if live is None:
        raise ParleyError("no application has routes; `parley status` shows what runs")
    return live, history.read()
