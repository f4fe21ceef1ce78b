"""What `parley eval` does: find or start the cluster, try the suite, write the report, hold it against the gate."""

from __future__ import annotations

import asyncio
import contextlib
import datetime
import json
import subprocess
import sys
import time
from collections.abc import Callable, Generator, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from cluster import console, state, status
from cluster.bench.telling import say
from cluster.connect import connect, disconnect
from cluster.profile import Profile
from cluster.state import State
from serve import registry
from serve.contracts import ROLES
from serve.errors import ConfigError, ParleyError, Unavailable
from serve.settings import home

START_SECONDS = 1500
"""Of `--profile`: what a hub sends takes as long as its line is thin."""

STOP_SECONDS = 120


@dataclass(frozen=True, slots=True)
class Wish:
    """What is asked for, as the command's options say."""

    suite: str
    model: str | None = None
    profile: str | None = None
    overrides: tuple[str, ...] = ()
    cases: tuple[str, ...] = ()
    rounds: int = 1
    judge: str | None = None
    against: Path | None = None
    gate: Path | None = None
    out: Path | None = None


def run(wish: Wish, as_json: bool) -> None:
    """Evaluate; exits with 1 where the gate is not kept, or no case could be tried.

    Raises:
        ParleyError: The suite, the gate or the report of before cannot be used, or nothing is up.
    """
    from cluster.evaluation import limits, page, running, suite

    # What is wrong in files is said before anything takes minutes.
    loaded = suite.load(wish.suite, wish.cases)
    kept = limits.read(wish.gate) if wish.gate else None
    if wish.against:
        running.read(wish.against)
    with _cluster(wish) as up:
        try:
            report = asyncio.run(evaluate(up, wish, loaded))
        finally:
            disconnect()
    report["gate"] = limits.broken(kept, report) if kept else None
    folder = write(report, wish.out)
    if as_json:
        console.print_json(report)
    else:
        out = console.out()
        page.show(report, out)
        out.print(f"\n{folder / 'report.html'}", markup=False)
    if report["gate"] or not report["measures"]:
        sys.exit(1)


async def evaluate(up: State, wish: Wish, suite: Any) -> dict[str, Any]:
    """Try a suite on the cluster that is up; return the report, without the gate's word.

    Args:
        up: The cluster.
        wish: What is asked for.
        suite: A loaded `Suite`.
    """
    profile = Profile.model_validate(up.settings)
    if wish.model:
        connect(up)
    from cluster.evaluation import running
    from cluster.evaluation.judge import configured

    target = _straight(profile, wish.model, suite) if wish.model else _calls(up, profile, suite)
    judge = configured(wish.judge, up.addresses.get("openai"))
    began = time.monotonic()
    say(f"{suite.name}: {len(suite.cases)} cases, {wish.rounds} round(s), {target.name}")
    results = await running.run(suite, target, say, rounds=wish.rounds, judge=judge)
    report = running.report(
        suite,
        target,
        results,
        rounds=wish.rounds,
        judge=judge.model if judge else None,
        seconds=time.monotonic() - began,
        command=_command(wish),
    )
    report["against"] = running.against(wish.against, suite, target, results) if wish.against else None
    return report


def write(report: dict[str, Any], out: Path | None) -> Path:
    """Write a report as `report.json` and `report.html`; return the folder.

    Args:
        report: As `evaluate` returns it, with the gate's word.
        out: Folder; None: one of its own in PARLEY_HOME.
    """
    from cluster.evaluation import page

    stamp = datetime.datetime.fromisoformat(report["at"]).strftime("%Y%m%d-%H%M%S")
    folder = out or home() / "evaluations" / f"{stamp}-{report['suite']}-{report['target']}"
    folder.mkdir(parents=True, exist_ok=True)
    (folder / "report.json").write_text(json.dumps(report, indent=1, ensure_ascii=False) + "\n", encoding="utf-8")
    (folder / "report.html").write_text(page.html(report), encoding="utf-8")
    _note(report)
    return folder


def _note(report: dict[str, Any]) -> None:
    """Keep the last score of each suite and target where the API shows it as a metric (`api/metrics.py`)."""
    if "score" not in report["measures"]:
        return
    path = home() / "evaluations" / "scores.json"
    path.parent.mkdir(parents=True, exist_ok=True)
    scores: list[dict[str, Any]] = []
    with contextlib.suppress(OSError, ValueError):
        scores = json.loads(path.read_text(encoding="utf-8"))
    kept = [each for each in scores if (each["suite"], each["target"]) != (report["suite"], report["target"])]
    kept.append({"suite": report["suite"], "target": report["target"], "score": report["measures"]["score"]["value"]})
    new = path.with_suffix(".new")
    new.write_text(json.dumps(kept), encoding="utf-8")
    new.replace(path)


def _calls(up: State, profile: Profile, suite: Any) -> Any:
    from cluster.evaluation.calls import Line
    from cluster.evaluation.running import Target

    web = up.addresses.get("page")
    if not web:
        raise Unavailable("the cluster is still starting; `parley status` shows it")
    models = {role: profile.routes.model(role) for role in ROLES}
    line = Line(web, up.addresses.get("api") or web, suite.folder)
    return Target("calls", None, line, _lacking(profile), models, _voices(profile))


def _lacking(profile: Profile) -> Callable[[Any], str]:
    everybody = profile.agent.everybody()
    default = next(iter(everybody.values()))

    def unfit(case: Any) -> str:
        # An assistant that the profile does not know may be one of the database.
        who = everybody.get(case.assistant) if case.assistant else default
        tool = case.expect.tool
        if tool and who and tool.name not in who.tools and not who.mcp:
            return f"the assistant has no tool {tool.name}"
        return ""

    return unfit


def _straight(profile: Profile, name: str, suite: Any) -> Any:
    from cluster.evaluation.running import Target
    from cluster.evaluation.straight import Straight

    known = {model.name: model for model in profile.models}
    if name not in known:
        raise ConfigError(f"--model: no model that runs is named {name!r}; there are {', '.join(known)}")
    role = registry.entry(known[name].engine).role
    straight = Straight(profile.routes, name, role, suite, profile.agent.everybody())
    return Target(name, role, straight, straight.unfit, {role: name}, _voices(profile))


def _voices(profile: Profile) -> tuple[str, ...]:
    """Return the voices that speak for the cluster: callers have others."""
    found: list[str] = []
    for model in profile.models:
        if model.engine in ("flite", "espeak"):
            own = registry.options(model.engine, model.options)
            named = {assistant.voice for assistant in profile.agent.everybody().values()}
            found += [f"{model.engine}:{voice}" for voice in {getattr(own, "voice", None), *named} if voice]
    return tuple(found)


def _command(wish: Wish) -> str:
    named = (("--model", wish.model), ("--profile", wish.profile), ("--judge", wish.judge))
    parts = ["parley eval", *(f"{option} {value}" for option, value in named if value), f"--suite {wish.suite}"]
    return " ".join([*parts, *([f"--rounds {wish.rounds}"] if wish.rounds > 1 else [])])


@contextlib.contextmanager
def _cluster(wish: Wish) -> Generator[State]:
    """Give the cluster that is up, or start one of a profile and take it down again."""
    if wish.profile is None:
        if wish.overrides:
            raise ConfigError("--set: belongs to --profile")
        yield status.current()
        return
    if state.load() is not None:
        raise Unavailable("a cluster is up: `parley down` first, or evaluate it without --profile")
    changes = [part for each in wish.overrides for part in ("--set", each)]
    try:
        _parley(START_SECONDS, "up", "--detach", "--no-call", "--profile", wish.profile, *changes)
        yield status.current()
    finally:
        _parley(STOP_SECONDS, "down")


def _parley(seconds: float, *arguments: Sequence[str] | str) -> None:
    # Its steps are told on stderr; its tables are not what this command prints.
    command = [sys.executable, "-m", "cluster.cli", *map(str, arguments)]
    try:
        done = subprocess.run(command, stdout=subprocess.DEVNULL, timeout=seconds, check=False)  # noqa: S603  # our own
    except subprocess.TimeoutExpired:
        raise ParleyError(f"`parley {arguments[0]}` took longer than {seconds:.0f} s") from None
    if done.returncode:
        raise ParleyError(f"`parley {arguments[0]}` failed")
