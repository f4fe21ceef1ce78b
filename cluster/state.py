"""What `up` leaves on disk so that `status`, `down` and the next `up` find the cluster, also after a crash."""

from __future__ import annotations

import contextlib
import json
import os
import shutil
import tempfile
from collections.abc import Generator
from pathlib import Path
from typing import Any

import psutil
from pydantic import BaseModel, ConfigDict, ValidationError

from cluster import processes
from serve.errors import ParleyError
from serve.settings import home


class Recorded(BaseModel):
    """A process of the run. Pids are given out again: the time it was made tells it from a later one."""

    model_config = ConfigDict(frozen=True)

    name: str
    pid: int
    created: float

    @classmethod
    def of(cls, name: str, pid: int) -> Recorded:
        """Record a living process."""
        return cls(name=name, pid=pid, created=psutil.Process(pid).create_time())


class State(BaseModel):
    """One run of `up`. Holds no secret, and is readable by its user only all the same.

    Attributes:
        run_id: The mark of all its processes.
        folder: The run's folder: Ray's session, sockets, logs.
        profile: The profile as the person named it.
        settings: The profile itself, as it was when the run began.
        ready: The cluster answers.
        supervisor: The process that watches over the run.
        processes: What the supervisor started itself.
        addresses: What `status` prints.
    """

    run_id: str
    folder: Path
    profile: str
    settings: dict[str, Any] = {}
    ready: bool = False
    supervisor: Recorded
    processes: list[Recorded] = []
    addresses: dict[str, str | None] = {}

    @property
    def alive(self) -> bool:
        """Whether the supervisor of this run still lives."""
        return processes.same(self.supervisor.pid, self.supervisor.created) is not None


def new_folder(run_id: str) -> Path:
    """Make a run's folder: short, because HAProxy takes 97 characters for its socket below it."""
    for base in (os.environ.get("PARLEY_RUN_DIR"), os.environ.get("XDG_RUNTIME_DIR"), tempfile.gettempdir(), "/tmp"):  # noqa: S108
        if base and len(base) <= 15 and Path(base).is_dir() and os.access(base, os.W_OK):
            folder = Path(base) / f"parley-{run_id[:8]}"
            folder.mkdir(mode=0o700)
            return folder.resolve()
    raise ParleyError("no writable folder with a short path for Ray's sockets: set PARLEY_RUN_DIR to one")


def load() -> State | None:
    """Return the recorded run, or None where there is none."""
    try:
        return State.model_validate_json(_file().read_bytes())
    except FileNotFoundError:
        return None
    except (ValidationError, OSError) as error:
        raise ParleyError(f"{_file()} cannot be read ({type(error).__name__}); remove it and run `parley up`") from None


def save(state: State) -> None:
    """Write the state."""
    write(_file(), json.dumps(state.model_dump(mode="json"), indent=1))


def write(path: Path, text: str) -> None:
    """Write a file of the state folder, whole or not at all; readable by its user only."""
    path.parent.mkdir(parents=True, exist_ok=True, mode=0o700)
    handle, name = tempfile.mkstemp(dir=path.parent, prefix=f"{path.stem}-")
    with os.fdopen(handle, "w", encoding="utf-8") as file:
        file.write(text)
    Path(name).replace(path)


def clear(run_id: str) -> None:
    """Forget a run, unless another one is recorded by now."""
    with contextlib.suppress(ParleyError):
        state = load()
        if state and state.run_id != run_id:
            return
    _file().unlink(missing_ok=True)


@contextlib.contextmanager
def lock(name: str = "lock", others: str = "`parley up` or `parley down`") -> Generator[None]:
    """Hold off other commands that do the same.

    Args:
        name: Of the file that is locked; none: that of those who start or stop a cluster.
        others: The commands that use it.

    Raises:
        ParleyError: Another one is at it.
    """
    import fcntl

    home().mkdir(parents=True, exist_ok=True, mode=0o700)
    with (home() / name).open("w") as file:
        try:
            fcntl.flock(file, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except BlockingIOError:
            raise ParleyError(f"another {others} is at work; try again when it is done") from None
        yield


def clean_up(state: State) -> int:
    """End what is left of a run and remove its folder.

    Returns:
        How many processes were left.
    """
    recorded = [(one.pid, one.created) for one in (*state.processes, state.supervisor)]
    ended = processes.end(state.run_id, state.folder, recorded=recorded)
    keep_logs(state.folder)
    shutil.rmtree(state.folder, ignore_errors=True)
    clear(state.run_id)
    return ended


def keep_logs(folder: Path) -> Path | None:
    """Move a run's logs to `logs/last` in the state folder; return where they are now."""
    target = home() / "logs" / "last"
    found = [path for path in (folder / "logs", folder / "ray" / "session_latest" / "logs") if path.is_dir()]
    if not found:
        return None
    shutil.rmtree(target, ignore_errors=True)
    target.mkdir(parents=True, mode=0o700)
    for path in found:
        name = "ray" if path.parent.name != folder.name else "parley"
        with contextlib.suppress(OSError):
            shutil.copytree(path, target / name, symlinks=True, dirs_exist_ok=True)
    return target


def _file() -> Path:
    return home() / "state.json"
