"""Who changed what of a cluster, and when: `history.jsonl` beside the state that says what runs.

Each entry holds the whole profile that ran from then on, so that `parley rollback` needs nothing else; docs/decisions/
0010-where-changes-are-noted.md says why it is here. Readable by its user only, as the state.
"""

from __future__ import annotations

import getpass
import os
import time
from contextlib import AbstractContextManager
from pathlib import Path
from typing import Any, Literal

from pydantic import BaseModel, ConfigDict, ValidationError

from cluster import state
from serve.errors import ConfigError, ParleyError
from serve.settings import home

KEPT = 200
"""Entries; the oldest go."""

Action = Literal["up", "deploy", "swap", "rollback"]


class Change(BaseModel):
    """An entry.

    Attributes:
        number: 1, 2, ...
        at: Seconds since 1970.
        who: The user of this machine.
        action: The command.
        profile: The profile as the person named it.
        what: What changed, and why, in a line.
        before: Number of the entry that `parley rollback` goes to; None: there is none.
        settings: The profile itself, as it ran from then on.
    """

    model_config = ConfigDict(frozen=True)

    number: int
    at: float
    who: str
    action: Action
    profile: str
    what: str
    before: int | None
    settings: dict[str, Any]


def read() -> list[Change]:
    """Return the changes, the oldest first.

    Raises:
        ParleyError: The file cannot be read.
    """
    try:
        lines = _file().read_text(encoding="utf-8").splitlines()
        return [Change.model_validate_json(line) for line in lines if line.strip()]
    except FileNotFoundError:
        return []
    except (OSError, ValueError, ValidationError) as error:
        raise ParleyError(f"{_file()} cannot be read ({type(error).__name__}); move it away to begin anew") from None


def find(changes: list[Change], number: int | None) -> Change:
    """Return the entry to go back to.

    Args:
        changes: As `read` returns them.
        number: Its number; None: what ran before the last change.

    Raises:
        ConfigError: There is no such entry.
    """
    known = {change.number: change for change in changes}
    if number is not None:
        found = known.get(number)
    else:
        found = known.get(changes[-1].before or 0) if changes else None
        # A swap that was rolled back has left nothing to undo: further back, to what was different.
        while found is not None and found.settings == changes[-1].settings:
            found = known.get(found.before or 0)
    if found is None and number is None:
        raise ConfigError("nothing ran before; `parley routes` shows what is known")
    if found is None:
        raise ConfigError(f"there is no change {number}; `parley routes` shows those there are")
    return found


def note(action: Action, profile: str, what: str, before: int | None, settings: dict[str, Any]) -> Change:
    """Add an entry; whoever does so holds `changing`."""
    changes = read()
    number = changes[-1].number + 1 if changes else 1
    change = Change(
        number=number,
        at=time.time(),
        who=_who(),
        action=action,
        profile=profile,
        what=what,
        before=before,
        settings=settings,
    )
    lines = [f"{each.model_dump_json()}\n" for each in [*changes, change][-KEPT:]]
    state.write(_file(), "".join(lines))
    return change


def here(profile: str, settings: dict[str, Any]) -> Change:
    """Return the entry of what runs now; what `parley up` began is noted when it is first needed."""
    changes = read()
    if changes and changes[-1].settings == settings:
        return changes[-1]
    return note("up", profile, "as it was started", changes[-1].number if changes else None, settings)


def changing() -> AbstractContextManager[None]:
    """Hold off other changes of the cluster: a swap goes on for minutes.

    Raises:
        ParleyError: Another one is at it.
    """
    return state.lock("changing", "`parley deploy`, `swap` or `rollback`")


def _who() -> str:
    try:
        return getpass.getuser()
    except (OSError, KeyError):  # a container's user may have no name
        return str(os.getuid())


def _file() -> Path:
    return home() / "history.jsonl"
