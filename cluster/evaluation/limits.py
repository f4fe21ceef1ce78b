"""Limits that a run must keep, as a YAML file: `parley eval --gate FILE` exits with 1 where it does not."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path
from typing import Any, cast

import yaml
from pydantic import Field, ValidationError, model_validator

from cluster.evaluation.measures import BY_NAME
from serve.config import Strict
from serve.errors import ConfigError


class Limit(Strict):
    """Of one measure, in its own unit: rates as shares, times in milliseconds."""

    min: float | None = None
    max: float | None = None
    worse: float | None = Field(default=None, ge=0, description="Than the run of --against, at most; beyond chance")


class Limits(Strict):
    """A gate: limits by measure, and cases that must pass."""

    measures: dict[str, Limit] = Field(default_factory=dict[str, Limit])
    must_pass: tuple[str, ...] = ()
    failed: int | None = Field(default=None, ge=0, description="Most cases that may fail")

    @model_validator(mode="after")
    def _known(self) -> Limits:
        if unknown := sorted(set(self.measures) - set(BY_NAME)):
            raise ValueError(f"measures: {unknown[0]!r} is no measure; there are {', '.join(BY_NAME)}")
        return self


def read(path: Path) -> Limits:
    """Read limits.

    Raises:
        ConfigError: The file holds none; one line for each thing that is wrong.
    """
    try:
        data: Any = yaml.safe_load(path.read_text(encoding="utf-8"))
    except OSError as error:
        raise ConfigError(f"--gate {path}: cannot be read: {error.strerror}") from None
    except (yaml.YAMLError, UnicodeDecodeError):
        raise ConfigError(f"--gate {path}: is not YAML") from None
    try:
        return Limits.model_validate(data or {})
    except ValidationError as error:
        lines = [f"{': '.join([str(path), *_place(item)])}" for item in error.errors()]
        raise ConfigError("\n".join([*lines, f"the keys are {', '.join(Limits.model_fields)}"])) from None


def _place(error: Any) -> list[str]:
    where = ".".join(map(str, error["loc"]))
    return [*([where] if where else []), str(error["msg"]).removeprefix("Value error, ")]


def broken(limits: Limits, report: dict[str, Any]) -> list[str]:
    """Return each limit that a report does not keep, as a sentence; what was not measured keeps none."""
    return list(_broken(limits, report))


def _broken(limits: Limits, report: dict[str, Any]) -> Iterator[str]:
    against = cast("dict[str, Any] | None", report.get("against"))
    for name, limit in limits.measures.items():
        measure, found = BY_NAME[name], report["measures"].get(name)
        if found is None:
            yield f"{name}: was not measured"
            continue
        value = found["value"]
        if limit.min is not None and value < limit.min:
            yield f"{name}: {measure.shown(value)}, at least {measure.shown(limit.min)} is wanted"
        if limit.max is not None and value > limit.max:
            yield f"{name}: {measure.shown(value)}, at most {measure.shown(limit.max)} is allowed"
        if limit.worse is None:
            continue
        change = against and against["measures"].get(name)
        if not change:
            yield f"{name}: `worse` needs --against a run that has it"
            continue
        worse = change["difference"] * (-1 if measure.better == "more" else 1)
        if worse > limit.worse and change["verdict"] == "worse":
            before, now, allowed = (measure.shown(each) for each in (change["old"], value, limit.worse))
            yield f"{name}: {before} before, {now} now: worse by more than {allowed}"
    cases: dict[str, list[str]] = {}
    for each in report["results"]:
        if each["status"] != "skipped":
            cases.setdefault(each["case"], []).append(each["status"])
    failed = [name for name, states in cases.items() if set(states) != {"passed"}]
    for name in limits.must_pass:
        if name not in cases or name in failed:
            yield f"must_pass: {name} " + ("failed" if name in cases else "was not tried")
    if limits.failed is not None and len(failed) > limits.failed:
        yield f"failed: {len(failed)} cases ({', '.join(failed)}), at most {limits.failed} may"
