"""Processes of one run: found by a mark that all of them inherit, ended, and nothing else touched.

Every process that `up` starts has PARLEY_RUN_ID=<uuid> in its environment and the run's folder as its working
directory, and so have the processes that those start, however deep and whoever is their parent by now. Some programs
write their title over their environment; for them the folder tells.
"""

from __future__ import annotations

import contextlib
import ctypes
import os
import signal
import socket
import time
from collections.abc import Callable, Iterable
from dataclasses import dataclass
from pathlib import Path

import psutil

from serve.errors import ParleyError

MARK = "PARLEY_RUN_ID"

_PR_SET_PDEATHSIG = 1
_PR_SET_CHILD_SUBREAPER = 36


class PortTaken(ParleyError):
    """Another process listens where one of ours should."""


@dataclass(frozen=True, slots=True)
class Port:
    """A port that must be free.

    Attributes:
        number: The port.
        use: What it is for, for a person.
        option: The key of the profile that changes it.
        kind: tcp or udp.
    """

    number: int
    use: str
    option: str
    kind: str = "tcp"


def adopt_orphans() -> None:
    """Become the parent of descendants whose own parent dies, so that they are reaped and stay in our tree."""
    _prctl(_PR_SET_CHILD_SUBREAPER, 1)


def die_with_parent(parent: int) -> Callable[[], None]:
    """Return what a child runs before exec so that it is told to end as soon as its parent is gone.

    Args:
        parent: Our pid; a child whose parent is already another one ends at once.
    """

    def prepare() -> None:
        _prctl(_PR_SET_PDEATHSIG, signal.SIGTERM)
        if os.getppid() != parent:
            os._exit(1)

    return prepare


def _prctl(option: int, value: int) -> None:
    # Only Linux has it; elsewhere the mark alone has to do.
    with contextlib.suppress(OSError, AttributeError):
        ctypes.CDLL(None, use_errno=True).prctl(option, value, 0, 0, 0)


def find(run_id: str, folder: Path | None = None) -> list[psutil.Process]:
    """Return the living processes of a run, without this one and those above it.

    Args:
        run_id: The run's mark.
        folder: The run's folder, which tells where the mark was overwritten.
    """
    mark, home = f"{MARK}={run_id}".encode(), str(folder.resolve()) if folder else None
    above = {os.getpid(), *(parent.pid for parent in psutil.Process().parents())}
    found: list[psutil.Process] = []
    for process in psutil.process_iter():
        if process.pid in above:
            continue
        with contextlib.suppress(psutil.Error, OSError):
            if process.status() == psutil.STATUS_ZOMBIE:
                continue
            if mark in Path(f"/proc/{process.pid}/environ").read_bytes().split(b"\0") or (
                home and process.cwd() == home
            ):
                found.append(process)
    return found


def same(pid: int, created: float) -> psutil.Process | None:
    """Return the process if it is still the one that was recorded: pids are given out again."""
    try:
        process = psutil.Process(pid)
        if abs(process.create_time() - created) < 0.05 and process.status() != psutil.STATUS_ZOMBIE:
            return process
    except psutil.Error:
        pass
    return None


def end(
    run_id: str, folder: Path | None = None, *, patience: float = 5.0, recorded: Iterable[tuple[int, float]] = ()
) -> int:
    """End every process of a run: asked first, then killed; waits until none is left, 15 s at most.

    Args:
        run_id: The run's mark.
        folder: The run's folder.
        patience: Seconds between asking and killing.
        recorded: More processes of the run, as pid and create time.

    Returns:
        How many processes it ended.
    """
    ended: set[int] = set()
    start = time.monotonic()
    named = [process for pid, created in recorded if (process := same(pid, created)) and pid != os.getpid()]
    while time.monotonic() - start < patience + 10:
        left = {process.pid: process for process in [*find(run_id, folder), *(p for p in named if p.is_running())]}
        if not left:
            break
        kill = time.monotonic() - start >= patience
        for process in left.values():
            # Whoever was asked already is left in peace until patience ends.
            if kill or process.pid not in ended:
                with contextlib.suppress(psutil.Error):
                    process.send_signal(signal.SIGKILL if kill else signal.SIGTERM)
            ended.add(process.pid)
        psutil.wait_procs(list(left.values()), timeout=0.3)
        for pid in ended:
            # Orphans that became ours are ours to collect.
            with contextlib.suppress(ChildProcessError):
                os.waitpid(pid, os.WNOHANG)
    return len(ended)


def check_ports(ports: Iterable[Port]) -> None:
    """Check that ports are free on loopback.

    Raises:
        PortTaken: One line for each that is not: which, by whom, and the option that changes it.
    """
    taken = [port for port in ports if not _free(port)]
    if not taken:
        return
    owners = _owners()
    lines: list[str] = []
    for port in taken:
        owner = owners.get((port.kind, port.number), "another process (of another user?)")
        lines.append(
            f"port {port.number} ({port.use}) is in use by {owner}; "
            f"end it, or choose another port: --set {port.option}=<port>"
        )
    raise PortTaken("\n".join(lines))


def _free(port: Port) -> bool:
    kind = socket.SOCK_DGRAM if port.kind == "udp" else socket.SOCK_STREAM
    with socket.socket(socket.AF_INET, kind) as probe:
        if port.kind == "tcp":
            # As servers do: a port in TIME_WAIT is free for them.
            probe.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
        try:
            probe.bind(("127.0.0.1", port.number))
        except OSError:
            return False
    return True


def _owners() -> dict[tuple[str, int], str]:
    owners: dict[tuple[str, int], str] = {}
    with contextlib.suppress(psutil.Error, OSError):
        for connection in psutil.net_connections(kind="inet"):
            listens = connection.type == socket.SOCK_DGRAM or connection.status == psutil.CONN_LISTEN
            if not connection.laddr or not listens or connection.pid is None:
                continue
            kind = "udp" if connection.type == socket.SOCK_DGRAM else "tcp"
            owners[kind, connection.laddr.port] = describe(connection.pid)
    return owners


def describe(pid: int) -> str:
    """Name a process for a person: `pid 123 (python -m http.server)`."""
    command = ""
    with contextlib.suppress(psutil.Error):
        process = psutil.Process(pid)
        command = " ".join(process.cmdline()) or process.name()
    return f"pid {pid} ({command[:80]})" if command else f"pid {pid}"
