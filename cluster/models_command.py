"""What `parley models` does: the engines there are, or what each model of a profile needs and costs."""

from __future__ import annotations

import os
from collections.abc import Sequence
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any

from rich.table import Table
from rich.text import Text

from cluster import console, needs
from cluster import profile as profiles
from cluster.choice import Probe
from cluster.fetch import megabytes
from cluster.profile import Profile
from serve import hub, registry
from serve.config import ModelConfig
from serve.contracts import ROLES
from serve.errors import ParleyError


def run(profile: str | None, overrides: Sequence[str], as_json: bool) -> None:
    """Print engines, or a profile's models.

    Raises:
        ParleyError: The profile is wrong.
    """
    facts = engines() if profile is None else models(profile, overrides)
    if as_json:
        console.print_json(facts)
        return
    out = console.out()
    if profile is None:
        out.print(_engines_table(facts["engines"]))
        out.print("\nparley models --profile F: what each model of a profile needs", markup=False)
        return
    out.print(_models_table(facts["models"]))
    wants = [line for model in facts["models"] for line in _wants(model)]
    if wants:
        out.print(Text("\nneeds", style="dim"), *wants, sep="\n", soft_wrap=True)
    missing = facts["download_bytes"]
    if facts["hub"]:
        out.print(f"\nsizes are not known: the hub {facts['hub']}", markup=False)
    elif missing:
        out.print(f"\n{megabytes(missing)} to download: parley fetch --profile {profile}", markup=False)


def engines() -> dict[str, Any]:
    """Return every engine of the registry."""
    found = registry.engines()
    names = sorted(found, key=lambda name: (ROLES.index(found[name].role), found[name].proxy, name))
    return {"engines": [_engine(name) for name in names if not name.startswith("fake-")]}


def models(name: str, overrides: Sequence[str] = ()) -> dict[str, Any]:
    """Return what each model of a profile needs, what is here, and what it costs.

    Raises:
        ParleyError: The profile is wrong.
    """
    profile = profiles.load(name, overrides)
    references = needs.references(profile)
    sizes, problem = _sizes(references)
    here = {reference: hub.cached(reference) is not None for reference in references}
    return {
        "profile": name,
        "models": [_model(model, profile, sizes, here) for model in profile.models],
        "download_bytes": sum(size for reference, size in sizes.items() if size and not here[reference]),
        "hub": problem,
    }


def _engine(name: str) -> dict[str, Any]:
    entry = registry.entry(name)
    missing = needs.not_installed(entry.extra)
    return {
        "engine": name,
        "role": entry.role,
        "summary": entry.summary,
        "proxy": entry.proxy,
        "extra": entry.extra,
        "installed": not missing,
        "licence": entry.licence or None,
    }


def _model(model: ModelConfig, profile: Profile, sizes: dict[str, int | None], here: dict[str, bool]) -> dict[str, Any]:
    checked, entry, files = needs.options(model), registry.entry(model.engine), list[dict[str, Any]]()
    for text in needs.files(checked):
        if hub.is_reference(text):
            files.append({"file": text, "bytes": sizes[text], "here": here[text]})
        else:
            files.append({"file": text, "bytes": None, "here": Path(text).expanduser().exists()})
    return {
        "model": model.name,
        **_engine(model.engine),
        "route": _route(model.name, profile),
        "keys": [{"variable": key, "set": bool(os.environ.get(key))} for key in needs.keys(checked)],
        "unset": list(needs.unset(checked)),
        "resources": model.resources.model_dump(),
        "replicas": {"min": model.replicas.min, "max": model.replicas.max},
        "files": files,
        "cost": "paid, per use" if entry.proxy else "this cluster's machines",
    }


def _route(name: str, profile: Profile) -> str | None:
    for role in ROLES:
        route = profile.routes.route(role)
        if name == route.default:
            return "default"
        if name in route.weights:
            return f"{route.weights[name]:.0%} of calls"
        if name in route.fallbacks:
            return f"fallback {route.fallbacks.index(name) + 1}"
    return None


def _sizes(references: Sequence[str]) -> tuple[dict[str, int | None], str | None]:
    """Return sizes by reference, None where they cannot be known; and why, where the hub is not in reach."""
    problem: str | None = None
    if any(hub.cached(reference) is None for reference in references):
        problem = "is not asked (HF_HUB_OFFLINE)" if hub.offline() else Probe(hub.endpoint()).start().problem()

    def size(reference: str) -> int | None:
        if problem and hub.cached(reference) is None:
            return None
        try:
            return hub.size(reference)
        except ParleyError:
            return None

    with ThreadPoolExecutor(8) as pool:
        return dict(zip(references, pool.map(size, references), strict=True)), problem


def _engines_table(found: list[dict[str, Any]]) -> Table:
    table = Table(box=None, pad_edge=False, header_style="dim")
    for name in ("role", "engine", "extra", "licence"):
        table.add_column(name, no_wrap=True)
    table.add_column("what it is")
    for engine in found:
        there = engine["installed"]
        extra = Text(f"{engine['extra'] or ''}{'' if there else ' (missing)'}", style="" if there else "yellow")
        licence = "paid, per use" if engine["proxy"] else engine["licence"] or ""
        table.add_row(engine["role"], engine["engine"], extra, licence, Text(engine["summary"]))
    return table


def _models_table(found: list[dict[str, Any]]) -> Table:
    table = Table(box=None, pad_edge=False, header_style="dim")
    for name in ("role", "model", "engine", "route", "runs on", "licence"):
        table.add_column(name)
    for model in found:
        licence = "paid, per use" if model["proxy"] else model["licence"] or ""
        table.add_row(model["role"], model["model"], model["engine"], model["route"] or "none", _place(model), licence)
    return table


def _place(model: dict[str, Any]) -> str:
    resources = model["resources"]
    if model["proxy"]:
        return "its provider"
    place = f"{resources['gpus']:g} GPU" if resources["gpus"] else "CPU"
    memory = f", {resources['memory_mb']} MB" if resources["memory_mb"] else ""
    low, high = model["replicas"]["min"], model["replicas"]["max"]
    return f"{place}{memory}{'' if (low, high) == (1, 1) else f', {low} to {high} replicas'}"


def _wants(model: dict[str, Any]) -> list[Text]:
    """Write what has to be there, a line each; what is missing in yellow."""
    lines: list[tuple[str, bool]] = []
    if not model["installed"]:
        lines.append((f"not installed: uv pip install 'parley[{model['extra']}]'", False))
    lines += [(f"{key['variable']}{'' if key['set'] else ', not set'}", key["set"]) for key in model["keys"]]
    lines += [(f"option {name}, not set", False) for name in model["unset"]]
    for file in model["files"]:
        size = "" if file["bytes"] is None else f", {megabytes(file['bytes'])}"
        state = "here" if file["here"] else "to fetch" if hub.is_reference(file["file"]) else "not here"
        lines.append((f"{file['file']}{size}, {state}", file["here"]))
    return [Text.assemble(f"{model['model']:<16} ", (line, "" if there else "yellow")) for line, there in lines]
