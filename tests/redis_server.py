"""Real Redis servers of the tests' own: one, or a cluster of three, on free ports of loopback."""

from __future__ import annotations

import asyncio
import contextlib
import shutil
import socket
import subprocess
import time
from pathlib import Path

import pytest


def _program() -> str:
    """Return redis-server; Debian's redis-tools has it by another name: what it is asked to be decides."""
    if found := shutil.which("redis-server") or shutil.which("redis-check-rdb"):
        return found
    pytest.skip("no redis-server: `python -m cluster.setup --tests` installs it where apt may be used")


def free_port() -> int:
    """Return a port whose cluster port (10000 above) exists too."""
    while True:
        with socket.socket() as probe:
            probe.bind(("127.0.0.1", 0))
            port = probe.getsockname()[1]
        if port < 55000:
            return port


class RedisServer:
    """One server; `kill` and `start` again as a crash would.

    Args:
        folder: For its files.
        durable: Writes survive a kill.
        tls: Certificate and key; it speaks TLS on `tls_port` too.
        clustered: Is a node of a cluster.
    """

    def __init__(
        self,
        folder: Path,
        *,
        durable: bool = False,
        clustered: bool = False,
        tls: tuple[Path, Path] | None = None,
    ) -> None:
        self.port = free_port()
        self.url = f"redis://127.0.0.1:{self.port}/0"
        self._folder = folder
        folder.mkdir(parents=True, exist_ok=True)
        self._options = ["--port", str(self.port), "--bind", "127.0.0.1", "--save", "", "--dir", str(folder)]
        if durable:
            self._options += ["--appendonly", "yes", "--appendfsync", "always"]
        if clustered:
            self._options += ["--cluster-enabled", "yes", "--cluster-node-timeout", "2000"]
        self.tls_port = 0
        if tls:
            self.tls_port = free_port()
            self._options += ["--tls-port", str(self.tls_port), "--tls-auth-clients", "no"]
            self._options += ["--tls-cert-file", str(tls[0]), "--tls-key-file", str(tls[1])]
            self._options += ["--tls-ca-cert-file", str(tls[0])]
        self._process: subprocess.Popen[bytes] | None = None

    def start(self) -> None:
        """Start it, and wait until it answers."""
        with (self._folder / "log").open("ab") as log:
            self._process = subprocess.Popen(
                ["redis-server", *self._options], executable=_program(), stdout=log, stderr=log
            )
        deadline = time.monotonic() + 20
        while time.monotonic() < deadline:
            with contextlib.suppress(OSError):
                if self.command("PING").startswith(b"+PONG"):
                    return
            time.sleep(0.02)
        pytest.fail(f"redis-server does not answer:\n{(self._folder / 'log').read_text()[-2000:]}")

    def command(self, *words: str) -> bytes:
        """Send one command; return what comes back, raw."""
        text = f"*{len(words)}\r\n" + "".join(f"${len(word.encode())}\r\n{word}\r\n" for word in words)
        with socket.create_connection(("127.0.0.1", self.port), timeout=5) as connection:
            connection.sendall(text.encode())
            return connection.recv(65536)

    def kill(self) -> None:
        """End it by SIGKILL."""
        if self._process is not None:
            self._process.kill()
            self._process.wait(10)
            self._process = None

    async def away(self, seconds: float) -> None:
        """Be gone for a while."""
        self.kill()
        await asyncio.sleep(seconds)
        await asyncio.to_thread(self.start)


class RedisCluster:
    """Three primaries that share the slots."""

    def __init__(self, folder: Path) -> None:
        self.nodes = [RedisServer(folder / str(number), clustered=True) for number in range(3)]
        self.url = f"redis+cluster://127.0.0.1:{self.nodes[0].port}"

    def start(self) -> None:
        """Start all, share the slots if nobody has yet, and wait until every node agrees."""
        bounds = (0, 5461, 10923, 16384)
        for number, node in enumerate(self.nodes):
            node.start()
            node.command("CLUSTER", "ADDSLOTSRANGE", str(bounds[number]), str(bounds[number + 1] - 1))
            node.command("CLUSTER", "SET-CONFIG-EPOCH", str(number + 1))
            if number:
                node.command("CLUSTER", "MEET", "127.0.0.1", str(self.nodes[0].port))
        deadline = time.monotonic() + 30
        while time.monotonic() < deadline:
            infos = [node.command("CLUSTER", "INFO") for node in self.nodes]
            if all(b"cluster_state:ok" in info and b"cluster_known_nodes:3" in info for info in infos):
                return
            time.sleep(0.05)
        pytest.fail("the Redis cluster did not come up")

    def kill(self) -> None:
        """End all nodes."""
        for node in self.nodes:
            node.kill()
