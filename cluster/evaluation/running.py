"""A run: the cases of a suite one after another, each judged; and the report of it."""

from __future__ import annotations

import datetime
import json
from collections.abc import Awaitable, Callable, Sequence
from contextlib import AsyncExitStack
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, cast

from pydantic import TypeAdapter, ValidationError

from cluster.evaluation import measures
from cluster.evaluation.calls import FAULTS
from cluster.evaluation.checks import Result, Seen, broken, result, skipped
from cluster.evaluation.judge import Judge
from cluster.evaluation.suite import Case, Suite
from cluster.evaluation.voicing import Booth, Spoken
from serve.contracts import Role
from serve.errors import ConfigError, EngineMissing

FORMAT = 1
"""Of a report; another one is not compared with."""

Progress = Callable[[str], None]
Try = Callable[[Case, Any], Awaitable[Seen]]

_RESULTS = TypeAdapter(list[Result])


@dataclass(frozen=True, slots=True)
class Target:
    """What is evaluated.

    Attributes:
        name: "calls", or a model's name.
        role: Of the model; None: calls.
        ask: Tries a case: a `Line` of calls, or a `Straight` at the model.
        unfit: Says why a case cannot be tried so; "" where it can.
        models: Who serves, by role.
        voices: The assistant's own, which callers do not have.
    """

    name: str
    role: Role | None
    ask: Try
    unfit: Callable[[Case], str] = lambda case: ""
    models: dict[str, str] = field(default_factory=dict[str, str])
    voices: tuple[str, ...] = ()


async def run(
    suite: Suite, target: Target, say: Progress, *, rounds: int = 1, judge: Judge | None = None
) -> list[Result]:
    """Try all cases, `rounds` times.

    Raises:
        ConfigError: A recording or voice of a case cannot be used.
        EngineMissing: No voice is here to speak with.
    """
    found: list[Result] = []
    async with AsyncExitStack() as stack:
        booth = await stack.enter_async_context(Booth(suite.seed, target.voices))
        if judge is not None:
            await stack.enter_async_context(judge)
        # First of all: a voice that is not there is said before minutes of calls.
        spoken = {case.name: await _spoken(suite, target, booth, case, place) for place, case in enumerate(suite.cases)}
        for number in range(1, rounds + 1):
            for place, case in enumerate(suite.cases, 1):
                one = await _one(target, judge, case, spoken[case.name], number)
                found.append(one)
                done, of = len(suite.cases) * (number - 1) + place, len(suite.cases) * rounds
                say(f"{done} of {of}  {one.status:<8}{case.name}{_why(one)}")
    return found


async def _spoken(suite: Suite, target: Target, booth: Booth, case: Case, number: int) -> Spoken | str | None:
    """Return a case as it sounds; a text: why it cannot be tried; None: the model is given no sound."""
    if why := target.unfit(case):
        return why
    if target.role not in (None, "stt"):
        return None
    try:
        return await booth.speak(case, suite.folder, number)
    except EngineMissing as error:
        if case.voice is None:
            raise
        return f"voice {case.voice}: {error}"


async def _one(target: Target, judge: Judge | None, case: Case, spoken: Spoken | str | None, number: int) -> Result:
    if isinstance(spoken, str):
        return skipped(case, number, spoken)
    try:
        seen = await target.ask(case, spoken)
    except FAULTS as error:
        return broken(case, number, str(error) or type(error).__name__, target.role)
    if judge is not None and case.expect.judge and target.role in (None, "llm"):
        seen.verdict = await judge(case.expect.judge, seen.heard or case.text, seen.answer or "")
    return result(case, number, seen, target.role)


def _why(one: Result) -> str:
    if one.status in ("error", "skipped"):
        return f": {one.seen.note}"
    wrong = [f"{check.what}{f' ({check.found})' if check.found else ''}" for check in one.checks if check.ok is False]
    return f": missed {'; '.join(wrong)}" if wrong else ""


def report(
    suite: Suite,
    target: Target,
    results: Sequence[Result],
    *,
    rounds: int,
    judge: str | None,
    seconds: float,
    command: str,
) -> dict[str, Any]:
    """Return a run as a JSON object; docs/evaluation.md says what is in it."""
    states = [each.status for each in results]
    return {
        "format": FORMAT,
        "suite": suite.name,
        "about": suite.about,
        "at": datetime.datetime.now(datetime.UTC).isoformat(timespec="seconds"),
        "seconds": round(seconds, 1),
        "target": target.name,
        "role": target.role,
        "models": target.models,
        "rounds": rounds,
        "judge": judge,
        "command": command,
        "counts": {state: states.count(state) for state in ("passed", "failed", "error", "skipped")},
        "measures": measures.summary(results),
        "against": None,
        "gate": None,
        "results": [each.json() for each in results],
    }


def read(path: Path) -> tuple[dict[str, Any], list[Result]]:
    """Read a report of before.

    Raises:
        ConfigError: The file is none.
    """
    try:
        data: Any = json.loads(path.read_text(encoding="utf-8"))
    except OSError as error:
        raise ConfigError(f"--against {path}: cannot be read: {error.strerror}") from None
    except ValueError:
        raise ConfigError(f"--against {path}: is not JSON") from None
    told = cast("dict[str, Any]", data) if isinstance(data, dict) else {}
    if told.get("format") != FORMAT:
        raise ConfigError(f"--against {path}: is no report of `parley eval` (format {FORMAT})")
    try:
        return told, _RESULTS.validate_python(told["results"])
    except (KeyError, ValidationError):
        raise ConfigError(f"--against {path}: its results cannot be read") from None


def against(path: Path, suite: Suite, target: Target, results: Sequence[Result]) -> dict[str, Any]:
    """Return the comparison with a report of before.

    Raises:
        ConfigError: It is of another suite, or was a different kind of run.
    """
    told, old = read(path)
    if told.get("suite") != suite.name or told.get("role") != target.role:
        was = f"{told.get('suite')} ({told.get('role') or 'calls'})"
        raise ConfigError(f"--against {path}: is of {was}, this run of {suite.name} ({target.role or 'calls'})")
    kept = {name: told.get(name) for name in ("at", "target", "models", "rounds")}
    return {**kept, **measures.compare(old, results)}
