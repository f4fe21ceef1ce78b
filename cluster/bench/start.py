"""How long a person waits: from nothing to the first answered call."""

from __future__ import annotations

import json
import subprocess
import sys
from collections.abc import Callable

from cluster import doctor, state
from cluster.bench.report import Report
from serve.errors import ParleyError, Unavailable

Progress = Callable[[str], None]
MOST_SECONDS = 300


def start(say: Progress, *, times: int) -> Report:
    """Run `parley up --detach` and `parley down`, and take the seconds that `up` itself reports.

    Raises:
        Unavailable: A cluster is up already, or a start failed.
    """
    if state.load() is not None:
        raise Unavailable("a cluster is up: `parley down` first, so that a start can be measured")
    seconds: list[float] = []
    # Models in packages: what a hub sends takes as long as its line is thin.
    profile = "local" if doctor.has_flite() else "local-pip"
    for number in range(times):
        say(f"start {number + 1} of {times}")
        try:
            facts = json.loads(_parley("up", "--profile", profile, "--detach", "--json"))
        finally:
            _parley("down")
        if facts["call"].get("error"):
            raise Unavailable(f"the call to itself failed: {facts['call']['error']}")
        seconds.append(facts["seconds"])
    report = Report(f"start --times {times}")
    report.add("start to the first answered call", "s", seconds, "everything installed before")
    return report


def _parley(*arguments: str) -> str:
    done = subprocess.run(  # noqa: S603  # our own command
        [sys.executable, "-m", "cluster.cli", *arguments],
        capture_output=True,
        text=True,
        timeout=MOST_SECONDS,
        check=False,
    )
    if done.returncode:
        raise ParleyError(done.stderr.strip() or f"parley {arguments[0]} failed")
    return done.stdout
