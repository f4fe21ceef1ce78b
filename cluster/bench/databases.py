"""Databases of a benchmark's own: a SQLite file, a PostgreSQL of Debian's packages."""

from __future__ import annotations

import asyncio
import os
import pwd
from collections.abc import AsyncGenerator
from contextlib import asynccontextmanager
from pathlib import Path

from api.db import sqlite_url
from cluster.bench.load import free_port
from serve.errors import Unavailable

START_SECONDS = 60


@asynccontextmanager
async def sqlite(folder: Path) -> AsyncGenerator[str]:
    """Yield the address of a new file."""
    yield sqlite_url(folder / "bench.db")


def binaries() -> Path | None:
    """Return the folder of PostgreSQL's programs; None: it is not installed."""
    found = sorted(Path("/usr/lib/postgresql").glob("*/bin/initdb"))
    return found[-1].parent if found else None


@asynccontextmanager
async def postgres(folder: Path) -> AsyncGenerator[str]:
    """Run a PostgreSQL of its own on a loopback port, with its defaults; yields its address."""
    found, data, port = binaries(), folder / "postgres", free_port()
    assert found is not None, "looked for before"
    # It does not run as root.
    user = "postgres" if os.geteuid() == 0 else None
    data.mkdir()
    if user:
        os.chmod(folder, 0o755)  # noqa: S103, PTH101  # its own folder lies below
        os.chown(data, pwd.getpwnam(user).pw_uid, -1)

    async def call(name: str, *arguments: str) -> None:
        process = await asyncio.create_subprocess_exec(
            str(found / name), *arguments, user=user, cwd="/", stdout=asyncio.subprocess.DEVNULL
        )
        if await asyncio.wait_for(process.wait(), START_SECONDS):
            raise Unavailable(f"PostgreSQL's {name} failed")

    await call("initdb", "-D", str(data), "-U", "parley", "-A", "trust", "-E", "UTF8", "--no-sync")
    options = f"-p {port} -c listen_addresses=127.0.0.1 -c unix_socket_directories={data} -c maintenance_work_mem=256MB"
    await call("pg_ctl", "-D", str(data), "-o", options, "-l", str(data / "log"), "-w", "start")
    try:
        yield f"postgresql+asyncpg://parley@127.0.0.1:{port}/postgres"
    finally:
        await call("pg_ctl", "-D", str(data), "-m", "immediate", "-w", "stop")
