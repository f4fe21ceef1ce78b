"""Requests a second and their times: a bare FastAPI, the backend, and the ways to it through a cluster, in one run."""

from __future__ import annotations

import asyncio
import re
import secrets
import shutil
import socket
import subprocess
import sys
import tempfile
import time
from collections.abc import AsyncGenerator, Callable
from contextlib import asynccontextmanager

import httpx
from fastapi import FastAPI

from api.app import create_app
from api.config import ApiConfig
from cluster.bench.report import Report
from serve.errors import EngineMissing, Unavailable

Progress = Callable[[str], None]

START_SECONDS = 60
PATH = "/health/live"


async def load(
    ingress: str | None, proxy: str | None, say: Progress, *, seconds: int, connections: int, rounds: int
) -> Report:
    """Measure requests a second of a simple route, side by side.

    Args:
        ingress: Address of the cluster's ingress (HAProxy); None: none is up.
        proxy: Address of Serve's own proxy on the same cluster.
        say: Told what is being done.
        seconds: Of each run.
        connections: At once.
        rounds: Each way is run so often, one after another.

    Raises:
        EngineMissing: wrk is not installed.
    """
    if shutil.which("wrk") is None:
        raise EngineMissing("wrk is not installed: apt-get install wrk")
    report = Report(f"api --seconds {seconds} --connections {connections} --rounds {rounds}")
    with tempfile.TemporaryDirectory(prefix="parley-bench-") as folder:
        async with (
            _uvicorn("cluster.bench.bare:app", folder) as bare,
            _uvicorn("cluster.bench.load:backend", folder, "--factory") as ours,
        ):
            ways = {"bare FastAPI, uvicorn": bare, "Parley's API, uvicorn": ours}
            ways |= {"through HAProxy": ingress} if ingress else {}
            ways |= {"through Serve's proxy": proxy} if proxy else {}
            found: dict[str, list[tuple[float, float, float]]] = {name: [] for name in ways}
            for number in range(rounds):
                for name, address in ways.items():
                    say(f"round {number + 1} of {rounds}: {name}")
                    found[name].append(await asyncio.to_thread(_wrk, f"{address}{PATH}", seconds, connections))
    for name, values in found.items():
        report.add(name, "requests/s", [each[0] for each in values])
        report.add(f"{name}, p50", "ms", [each[1] for each in values])
        report.add(f"{name}, p99", "ms", [each[2] for each in values])
    if not ingress:
        report.facts["ingress"] = "no cluster is up, so HAProxy and Serve's proxy were not measured"
    return report


def backend() -> FastAPI:
    """Return the application as a process of its own serves it, with a database in PARLEY_HOME."""
    return create_app(ApiConfig(), "parley", lambda: None)


def _wrk(url: str, seconds: int, connections: int) -> tuple[float, float, float]:
    """Return requests a second, p50 and p99 in ms."""
    command = ["wrk", "-t1", f"-c{connections}", f"-d{seconds}s", "--latency", url]
    done = subprocess.run(  # noqa: S603  # its name and numbers are ours
        command, capture_output=True, text=True, timeout=seconds + 30, check=False
    )
    return parse(done.stdout)


def parse(told: str) -> tuple[float, float, float]:
    """Return requests a second, p50 and p99 in ms of what wrk prints.

    Raises:
        Unavailable: Requests failed, or it printed something else.
    """
    if failed := re.search(r"Non-2xx or 3xx responses: (\d+)|Socket errors: (.*)", told):
        raise Unavailable(f"requests failed: {failed.group(0)}")
    rate = re.search(r"Requests/sec:\s+([\d.]+)", told)
    shares = dict(re.findall(r"^\s+(50|99)%\s+(\S+)$", told, re.MULTILINE))
    if rate is None or len(shares) != 2:
        raise Unavailable("wrk printed no figures")
    return float(rate.group(1)), _ms(shares["50"]), _ms(shares["99"])


def _ms(told: str) -> float:
    number, unit = re.fullmatch(r"([\d.]+)(us|ms|s|m)", told).groups()  # type: ignore[union-attr]
    return float(number) * {"us": 0.001, "ms": 1.0, "s": 1000.0, "m": 60_000.0}[unit]


@asynccontextmanager
async def _uvicorn(target: str, folder: str, *more: str) -> AsyncGenerator[str]:
    """Run an application in a process of its own, as uvicorn does by default; yields its address."""
    port = free_port()
    command = [sys.executable, "-m", "uvicorn", target, "--port", str(port), "--log-level", "warning", *more]
    environment = {"PARLEY_HOME": folder, "PATH": "/usr/bin:/bin", "PARLEY_SECRET": secrets.token_hex(32)}
    process = await asyncio.create_subprocess_exec(*command, env=environment)
    address = f"http://127.0.0.1:{port}"
    try:
        await _until_up(address, target)
        yield address
    finally:
        if process.returncode is None:
            process.terminate()
        await asyncio.wait_for(process.wait(), 20)


async def _until_up(address: str, what: str) -> None:
    end = time.monotonic() + START_SECONDS
    async with httpx.AsyncClient(trust_env=False, timeout=2) as http:
        while time.monotonic() < end:
            try:
                if (await http.get(f"{address}{PATH}")).status_code == 200:
                    return
            except httpx.HTTPError:
                pass
            await asyncio.sleep(0.1)  # a process that starts tells nobody
    raise Unavailable(f"{what} did not start in {START_SECONDS} s")


def free_port() -> int:
    """Return a port of loopback that nobody has now."""
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        return int(probe.getsockname()[1])
