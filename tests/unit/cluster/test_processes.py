"""Unit: a run's processes are found and ended, and nobody else's."""

from __future__ import annotations

import os
import socket
import subprocess
import sys
import time
import uuid
from collections.abc import Iterator
from pathlib import Path

import psutil
import pytest

from cluster import processes, state
from cluster.processes import Port, PortTaken
from cluster.state import Recorded, State
from serve.errors import ParleyError

pytestmark = pytest.mark.unit

TREE = """
import subprocess, sys, time
stubborn = "import signal, time; signal.signal(15, signal.SIG_IGN); time.sleep(60)"
child = subprocess.Popen([sys.executable, "-c", stubborn])
print(child.pid, flush=True)
time.sleep(60)
"""


@pytest.fixture(autouse=True)
def home(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    monkeypatch.setenv("PARLEY_HOME", str(tmp_path / "home"))
    return tmp_path / "home"


@pytest.fixture
def bystander() -> Iterator[subprocess.Popen[bytes]]:
    with subprocess.Popen([sys.executable, "-c", "import time; time.sleep(60)"]) as process:
        yield process
        process.kill()


def tree(run_id: str, folder: Path) -> tuple[subprocess.Popen[str], int]:
    process = subprocess.Popen(
        [sys.executable, "-c", TREE],
        env={**os.environ, processes.MARK: run_id},
        cwd=folder,
        stdout=subprocess.PIPE,
        text=True,
        start_new_session=True,
    )
    assert process.stdout
    return process, int(process.stdout.readline())


def gone(pid: int) -> bool:
    try:
        return psutil.Process(pid).status() == psutil.STATUS_ZOMBIE
    except psutil.NoSuchProcess:
        return True


def test_a_tree_ends_with_a_stubborn_orphan_and_nobody_else(tmp_path: Path, bystander: subprocess.Popen[bytes]) -> None:
    run_id = str(uuid.uuid4())
    parent, child = tree(run_id, tmp_path)
    parent.kill()
    parent.wait()
    assert [process.pid for process in processes.find(run_id)] == [child]
    assert processes.end(run_id, patience=0.5) == 1
    assert gone(child)
    assert bystander.poll() is None


def test_the_folder_tells_where_the_mark_was_overwritten(tmp_path: Path) -> None:
    parent, child = tree("another mark", tmp_path)
    try:
        assert {process.pid for process in processes.find("mine", tmp_path)} == {parent.pid, child}
    finally:
        processes.end("mine", tmp_path, patience=0.2)
    assert gone(child)


def test_a_pid_given_out_again_is_not_ours(bystander: subprocess.Popen[bytes]) -> None:
    created = psutil.Process(bystander.pid).create_time()
    assert processes.same(bystander.pid, created)
    assert processes.same(bystander.pid, created - 5) is None
    assert processes.end("no run", recorded=[(bystander.pid, created - 5)]) == 0
    assert bystander.poll() is None


@pytest.mark.parametrize("kind", ["tcp", "udp"])
def test_a_taken_port_names_its_holder_and_the_option(kind: str) -> None:
    with socket.socket(socket.AF_INET, socket.SOCK_STREAM if kind == "tcp" else socket.SOCK_DGRAM) as holder:
        holder.bind(("127.0.0.1", 0))
        if kind == "tcp":
            holder.listen()
        number = holder.getsockname()[1]
        with pytest.raises(PortTaken) as error:
            processes.check_ports([Port(number, "the page", "api.port", kind)])
    assert f"port {number} (the page) is in use by pid {os.getpid()}" in str(error.value)
    assert "--set api.port=" in str(error.value)
    processes.check_ports([Port(number, "the page", "api.port", kind)])


def run_of(folder: Path, run_id: str, supervisor: Recorded) -> State:
    return State(run_id=run_id, folder=folder, profile="local", supervisor=supervisor)


def test_after_a_crash_everything_is_cleaned_up(tmp_path: Path, home: Path, bystander: subprocess.Popen[bytes]) -> None:
    run_id, folder = str(uuid.uuid4()), tmp_path / "run"
    (folder / "logs").mkdir(parents=True)
    (folder / "logs" / "ray.log").write_text("last words")
    parent, child = tree(run_id, folder)
    state.save(run_of(folder, run_id, Recorded.of("supervisor", parent.pid)))
    assert (home / "state.json").stat().st_mode & 0o777 == 0o600
    parent.kill()
    parent.wait()
    found = state.load()
    assert found
    assert not found.alive
    assert state.clean_up(found) == 1
    assert gone(child)
    assert not folder.exists()
    assert state.load() is None
    assert (home / "logs" / "last" / "parley" / "ray.log").read_text() == "last words"
    assert bystander.poll() is None


def test_another_runs_state_is_kept(tmp_path: Path) -> None:
    state.save(run_of(tmp_path, "first", Recorded.of("supervisor", os.getpid())))
    state.clear("second")
    assert state.load()
    state.clear("first")
    assert state.load() is None


def test_an_unreadable_state_is_explained(home: Path) -> None:
    home.mkdir()
    (home / "state.json").write_text("{")
    with pytest.raises(ParleyError, match=r"cannot be read .*remove it"):
        state.load()


def test_one_at_a_time() -> None:
    with state.lock(), pytest.raises(ParleyError, match="at work"), state.lock():
        pass


def test_a_runs_folder_leaves_room_for_sockets() -> None:
    folder = state.new_folder(uuid.uuid4().hex)
    try:
        assert folder.stat().st_mode & 0o777 == 0o700
        assert len(str(folder / "h" / ("n" * 56) / "a.sock")) <= 97
    finally:
        folder.rmdir()


def test_ending_is_bounded(tmp_path: Path) -> None:
    start = time.monotonic()
    assert processes.end(str(uuid.uuid4()), tmp_path) == 0
    assert time.monotonic() - start < 5
