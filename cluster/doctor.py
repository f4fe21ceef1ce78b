"""What this machine has, what it lacks, and what to do about it."""

from __future__ import annotations

import ctypes.util
import importlib.util
import os
import platform
import shutil
import subprocess
import sys
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import psutil

from cluster import livekit, processes
from serve.errors import ParleyError


@dataclass(frozen=True, slots=True)
class Finding:
    """One thing that was looked at.

    Attributes:
        name: What.
        status: "ok", "optional" (missing, and one can do without) or "missing".
        found: What is there.
        advice: What to do, where it is not "ok".
    """

    name: str
    status: str
    found: str
    advice: str = ""

    def json(self) -> dict[str, Any]:
        """Return it as a JSON object."""
        return {"name": self.name, "status": self.status, "found": self.found, "advice": self.advice}


def examine(profile: str = "local") -> list[Finding]:
    """Look at everything; starts nothing and changes nothing.

    Args:
        profile: Whose ports to look at.
    """
    checks: tuple[Callable[[], Finding], ...] = (
        _python, _cores, _memory, _livekit, _go, _flite, _espeak, _hub, _node, _page, _chromium,
        lambda: _models(profile), lambda: _ports(profile),
    )  # fmt: skip
    return [check() for check in checks]


def has_flite() -> bool:
    """Whether Debian's flite library and its voice are here."""
    return bool(ctypes.util.find_library("flite") and ctypes.util.find_library("flite_cmu_us_rms"))


def has_espeak() -> bool:
    """Whether the package that carries espeak is here."""
    return importlib.util.find_spec("espeakng_loader") is not None


def is_root() -> bool:
    """Whether system packages can be installed without asking anybody."""
    if os.geteuid() == 0:
        return True
    sudo = shutil.which("sudo")
    return bool(sudo) and subprocess.run([sudo, "-n", "true"], capture_output=True, timeout=10).returncode == 0  # noqa: S603


def page_folder() -> Path:
    """Return where the built page is expected."""
    import api

    return Path(api.__file__).parent / "web" / "dist"


def _python() -> Finding:
    version = platform.python_version()
    if (3, 11) <= sys.version_info[:2] < (3, 13):
        return Finding("python", "ok", version)
    return Finding("python", "missing", version, "use Python 3.11 or 3.12")


def _cores() -> Finding:
    count = len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count() or 1
    if count >= 2:
        return Finding("cores", "ok", str(count))
    return Finding("cores", "optional", str(count), "answers are slow on one core: two or more are better")


def _memory() -> Finding:
    free = psutil.virtual_memory().available / 2**30
    if free >= 4:
        return Finding("memory", "ok", f"{free:.1f} GiB available")
    return Finding("memory", "missing", f"{free:.1f} GiB available", "free some: the local profile takes 3 to 4 GiB")


def _livekit() -> Finding:
    url = os.environ.get("LIVEKIT_URL")
    if url:
        missing = [name for name in ("LIVEKIT_API_KEY", "LIVEKIT_API_SECRET") if not os.environ.get(name)]
        if missing:
            return Finding("livekit", "missing", f"LIVEKIT_URL is {url}", f"set {' and '.join(missing)} too")
        return Finding("livekit", "ok", f"LIVEKIT_URL is {url}")
    program = livekit.find()
    if program:
        return Finding("livekit", "ok", str(program))
    return Finding("livekit", "missing", "no livekit-server", "`make setup` builds it once, in 2 to 4 minutes")


def _go() -> Finding:
    go = livekit.find_go()
    if go:
        return Finding("go", "ok", str(go))
    return Finding("go", "optional", "none that is new enough", "fetched as a wheel when livekit-server must be built")


def _flite() -> Finding:
    if has_flite():
        return Finding("libflite1", "ok", "the voice of the local profile")
    if has_espeak():
        advice = "apt-get install libflite1; without it espeak speaks, in the profile local-pip"
        return Finding("libflite1", "optional", "not here", advice)
    advice = "apt-get install libflite1, or `uv pip install 'parley[espeak]'` (GPL): without either nobody speaks"
    return Finding("libflite1", "missing", "not here, and no espeak", advice)


def _espeak() -> Finding:
    if has_espeak():
        return Finding("espeak", "ok", "the voice of the profile local-pip (GPL)")
    return Finding(
        "espeak", "optional", "not here", "only where there is no libflite1: uv pip install 'parley[espeak]'"
    )


def _hub() -> Finding:
    from serve import hub

    where = f"{hub.endpoint()}, cache {hub.cache()}"
    if hub.offline():
        return Finding("hub", "optional", f"HF_HUB_OFFLINE is set, cache {hub.cache()}", "only what is there is used")
    from cluster.choice import Probe

    problem = Probe(hub.endpoint()).start().problem()
    if problem:
        return Finding("hub", "optional", f"{where}: {problem}", "without it there are the models in packages")
    return Finding("hub", "ok", where)


def _models(name: str) -> Finding:
    """Look at what the models of a profile need: packages, keys, files, GPUs."""
    from cluster import profile

    try:
        profile.load(name, here=True)
    except ParleyError as error:
        return Finding("models", "missing", f"the profile {name} lacks something", str(error))
    return Finding("models", "ok", f"everything that the profile {name} needs, but for downloads")


def _node() -> Finding:
    node = shutil.which("node")
    if node:
        version = subprocess.run([node, "--version"], capture_output=True, text=True, timeout=10).stdout.strip()  # noqa: S603
        if version.removeprefix("v").split(".")[0].isdigit() and int(version.removeprefix("v").split(".")[0]) >= 20:
            return Finding("node", "ok", f"{node} {version}")
    if (Path(sys.prefix) / "bin" / "node").exists():
        return Finding("node", "ok", str(Path(sys.prefix) / "bin" / "node"))
    return Finding("node", "optional", "none of version 20 or later", "`make setup` takes it from a wheel")


def _page() -> Finding:
    index = page_folder() / "index.html"
    if index.exists():
        return Finding("page", "ok", str(index.parent))
    return Finding("page", "missing", "not built", "`make setup` builds it")


def _chromium() -> Finding:
    for name in ("chromium", "chromium-browser", "google-chrome"):
        found = shutil.which(name)
        if found:
            return Finding("chromium", "ok", found)
    return Finding("chromium", "optional", "not on PATH", "only tests need it; `make test` gets one")


def _ports(name: str) -> Finding:
    from cluster import profile
    from cluster.status import current
    from cluster.up import ports

    try:
        page = current().addresses.get("page")
        return Finding("ports", "ok", f"in use by the cluster that is up ({page})")
    except ParleyError:
        pass
    try:
        processes.check_ports(ports(profile.load(name)))
    except ParleyError as error:
        return Finding("ports", "missing", "not all free", str(error))
    return Finding("ports", "ok", "all free")
