"""A real PostgreSQL of the tests' own: Debian's, on a free port of loopback, gone when they are over."""

from __future__ import annotations

import os
import pwd
import shutil
import signal
import socket
import subprocess
import tempfile
import time
from pathlib import Path
from typing import Any, cast

import asyncpg  # pyright: ignore[reportMissingTypeStubs]
import pytest

SAFE_NO_MORE = ("fsync=off", "synchronous_commit=off", "full_page_writes=off")
"""What is only there for a machine that loses power; a kill loses nothing without."""

ROOT_RUNS_AS = "postgres"
"""PostgreSQL refuses to run as root; Debian's package makes this user."""


def _binaries() -> Path:
    """Return the folder of the newest server's programs."""
    found = sorted(Path("/usr/lib/postgresql").glob("*/bin/initdb"), key=lambda path: int(path.parts[-3]))
    if found:
        return found[-1].parent
    if elsewhere := shutil.which("initdb"):
        return Path(elsewhere).resolve().parent
    pytest.skip("no PostgreSQL: `python -m cluster.setup --tests` installs it where apt may be used")


class PostgresServer:
    """One server, with one user (`parley`) who needs no password.

    Attributes:
        port: On loopback.
        template: A database that others may be copies of, once somebody has made it.
    """

    def __init__(self) -> None:
        self._programs = _binaries()
        self._user: dict[str, Any] = {}
        # Not below pytest's folders: those are closed to other users.
        self._folder = Path(tempfile.mkdtemp(prefix="parley-postgres-"))
        if os.geteuid() == 0:
            try:
                account = pwd.getpwnam(ROOT_RUNS_AS)
            except KeyError:
                shutil.rmtree(self._folder)
                pytest.skip(f"root cannot run PostgreSQL, and there is no user {ROOT_RUNS_AS}")
            self._user = {"user": account.pw_uid, "group": account.pw_gid, "extra_groups": []}
            os.chown(self._folder, account.pw_uid, account.pw_gid)
        with socket.socket() as probe:
            probe.bind(("127.0.0.1", 0))
            self.port = probe.getsockname()[1]
        self._process: subprocess.Popen[Any] | None = None
        self._count = 0
        self.template: str | None = None

    def url(self, database: str) -> str:
        """Return the address of a database, as DATABASE_URL has it."""
        return f"postgresql://parley@127.0.0.1:{self.port}/{database}"

    def start(self) -> None:
        """Make the server's files where there are none, start it, and wait until it answers."""
        data = self._folder / "data"
        if not data.exists():
            self._make(data)
        command = [str(self._programs / "postgres"), "-D", str(data), "-p", str(self.port), "-k", str(self._folder)]
        command += ["-c", "listen_addresses=127.0.0.1", "-c", "shared_buffers=64MB", "-c", "max_connections=60"]
        for setting in SAFE_NO_MORE:
            command += ["-c", setting]
        with (self._folder / "log").open("ab") as log:
            self._process = subprocess.Popen(command, stdout=log, stderr=log, cwd="/", **self._user)
        ready = [str(self._programs / "pg_isready"), "-q", "-h", "127.0.0.1", "-p", str(self.port)]
        deadline = time.monotonic() + 30
        while time.monotonic() < deadline:
            if subprocess.run(ready, timeout=10).returncode == 0:
                return
            time.sleep(0.05)
        pytest.fail(f"PostgreSQL does not answer:\n{(self._folder / 'log').read_text()[-2000:]}")

    def kill(self) -> None:
        """End it as a crash would."""
        if self._process is not None:
            self._process.send_signal(signal.SIGQUIT)
            self._process.wait(20)
            self._process = None

    def stop(self) -> None:
        """End it, and take its files away."""
        self.kill()
        shutil.rmtree(self._folder, ignore_errors=True)

    async def create(self, template: str = "template1") -> str:
        """Make a database, as a copy of another; return its address."""
        self._count += 1
        name = f"parley_{self._count}"
        connection = cast(Any, await asyncpg.connect(self.url("postgres"), timeout=10))
        try:
            await connection.execute(f'CREATE DATABASE "{name}" TEMPLATE "{template}" STRATEGY FILE_COPY', timeout=30)
        finally:
            await connection.close()
        return self.url(name)

    def _make(self, data: Path) -> None:
        command = [str(self._programs / "initdb"), "-D", str(data), "-U", "parley", "--auth=trust", "--no-sync"]
        command += ["-E", "UTF8", "--locale=C.UTF-8", "--no-instructions"]
        done = subprocess.run(command, capture_output=True, text=True, timeout=60, cwd="/", **self._user)
        if done.returncode:
            pytest.fail(f"initdb failed:\n{done.stderr[-2000:]}")
