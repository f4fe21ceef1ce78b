"""One profile describes a cluster: models, routes, agent, api, LiveKit and Ray, in one YAML.

A profile may say `extends: NAME`: what it says is laid over that profile, mappings key by key, lists as a whole.
"""

from __future__ import annotations

import difflib
from collections.abc import Iterator, Sequence
from importlib import resources
from itertools import pairwise
from pathlib import Path
from typing import Any, cast, get_args, get_origin

import yaml
from pydantic import BaseModel, Field, ValidationError

from agent import tool_names
from agent.config import AgentConfig
from api.config import ApiConfig
from cluster import needs, positions
from cluster.config import LiveKitConfig, MonitoringConfig, RayConfig
from cluster.positions import Document, dotted
from serve import registry
from serve.config import ModelConfig, Routes, Strict
from serve.contracts import ROLES
from serve.errors import ConfigError, EngineMissing


class Profile(Strict):
    """A whole cluster."""

    models: list[ModelConfig] = Field(min_length=1)
    routes: Routes
    agent: AgentConfig = Field(default_factory=AgentConfig)
    api: ApiConfig = Field(default_factory=ApiConfig)
    livekit: LiveKitConfig = Field(default_factory=LiveKitConfig)
    ray: RayConfig = Field(default_factory=RayConfig)
    monitoring: MonitoringConfig = Field(default_factory=MonitoringConfig)

    def model(self, name: str) -> ModelConfig:
        """Return the catalog entry of a name."""
        return next(model for model in self.models if model.name == name)


def names() -> list[str]:
    """Return the profiles that come with Parley."""
    folder = resources.files("cluster") / "profiles"
    return sorted(item.name.removesuffix(".yaml") for item in folder.iterdir() if item.name.endswith(".yaml"))


def load(name: str, overrides: Sequence[str] = (), *, here: bool = False) -> Profile:
    """Read and check a profile.

    Args:
        name: The name of a packaged profile, or a path.
        overrides: `key=value` each, as `api.port=9000` or `models[0].max_ongoing=2`; the value is YAML.
        here: It will run on this machine: check also that keys, packages, files and GPUs are here.

    Raises:
        ConfigError: One line for each thing that is wrong, with file, line, key and the choices.
    """
    document = _read(name)
    for override in overrides:
        _override(document, override)
    return check(document, here=here)


def check(document: Document, *, here: bool = False) -> Profile:
    """Check everything that can be known without starting anything; all errors at once.

    Raises:
        ConfigError: One line for each thing that is wrong.
    """
    try:
        profile = Profile.model_validate(document.data)
    except ValidationError as error:
        lines = [_explain(document, dict(item)) for item in error.errors()]
        raise ConfigError("\n".join(lines)) from None
    found = _problems(profile)
    if here and not found:
        found = list(needs.lacking(profile))
    if found:
        raise ConfigError("\n".join(f"{document.place(path)}: {dotted(path)}: {problem}" for path, problem in found))
    return profile


def _read(name: str, extended_by: tuple[str, ...] = ()) -> Document:
    """Read a profile, and below it the one that it extends."""
    path = Path(name)
    if path.suffix in {".yaml", ".yml"} or path.is_file():
        try:
            document = positions.read(path.read_text(encoding="utf-8"), name)
        except OSError as error:
            raise ConfigError(f"{name}: cannot be read: {error.strerror}") from None
        except UnicodeDecodeError:
            raise ConfigError(f"{name}: not text in UTF-8") from None
        identity = str(path.resolve())
    elif name in names():
        text = (resources.files("cluster") / "profiles" / f"{name}.yaml").read_text(encoding="utf-8")
        document, identity = positions.read(text, f"{name}.yaml"), name
    else:
        raise ConfigError(f"no profile is named {name!r}; {_choices(name, names())}, or a path to a .yaml file")
    if "extends" not in document.data:
        return document
    base, place = document.data.pop("extends"), document.place(("extends",))
    if not isinstance(base, str):
        raise ConfigError(f"{place}: extends: names one profile, or a path to a .yaml file")
    if identity in extended_by:
        raise ConfigError(f"{place}: extends: {base!r} leads back to this profile")
    if base not in names() and path.suffix:
        # A path is meant from where it is written.
        base = str(path.parent / base)
    try:
        below = _read(base, (*extended_by, identity))
    except ConfigError as error:
        raise ConfigError(f"{place}: extends: {error}" if str(error).startswith("no profile") else str(error)) from None
    return document.over(below)


def _override(document: Document, override: str) -> None:
    key, equals, text = override.partition("=")
    if not equals or not key.strip():
        raise ConfigError(f"--set {override}: write it as key=value, for example --set api.port=9000")
    try:
        value = yaml.safe_load(text)
    except yaml.YAMLError:
        value = text
    path: list[str | int] = []
    for part in key.strip().replace("[", ".[").split("."):
        index = part.removeprefix("[").removesuffix("]")
        path.append(int(index) if part.startswith("[") and index.isdigit() else part)
    here: Any = document.data
    for step, following in pairwise(path):
        if isinstance(here, list):
            here = _item(cast("list[Any]", here), step, override)
        else:
            # A section that the file leaves out, or leaves empty, begins here.
            if here.get(step) is None:
                here[step] = [] if isinstance(following, int) else {}
            here = cast("dict[str | int, Any]", here)[step]
        if not isinstance(here, dict | list):
            raise ConfigError(f"--set {override}: {dotted(tuple(path))}: {step} holds a value, no keys")
    last = path[-1]
    if isinstance(here, list):
        _item(cast("list[Any]", here), last, override)
    cast("dict[str | int, Any]", here)[last] = value
    document.places = {known: place for known, place in document.places.items() if known != tuple(path)}


def _item(items: list[Any], step: str | int, override: str) -> Any:
    if isinstance(step, int) and step < len(items):
        return items[step]
    raise ConfigError(f"--set {override}: a list of {len(items)}; write an index from [0] to [{len(items) - 1}]")


def _problems(profile: Profile) -> list[tuple[positions.Path, str]]:
    """What pydantic cannot see: names against each other, engines against the registry."""
    found: list[tuple[positions.Path, str]] = []
    roles: dict[str, str] = {}
    for index, model in enumerate(profile.models):
        at: positions.Path = ("models", index)
        if model.name in roles:
            found.append(((*at, "name"), f"{model.name!r} is there twice; every model needs a name of its own"))
        roles[model.name] = ""
        engines = sorted(registry.engines())
        if model.engine not in engines:
            found.append(((*at, "engine"), f"{model.engine!r} is not an engine; {_choices(model.engine, engines)}"))
            continue
        roles[model.name] = registry.entry(model.engine).role
        try:
            registry.options(model.engine, model.options)
            found += [((*at, key), problem) for key, problem in needs.malformed(model)]
        except EngineMissing as error:
            found.append(((*at, "engine"), str(error)))
        except ConfigError as error:
            found.append(((*at, "options"), str(error)))
    for role in ROLES:
        for name in profile.routes.route(role).names():
            if name not in roles:
                fitting = [known for known, serves in roles.items() if serves == role]
                found.append((("routes", role), f"no model is named {name!r}; {_choices(name, fitting)}"))
            elif roles[name] and roles[name] != role:
                found.append((("routes", role), f"{name!r} is a {roles[name]} model"))
    agent = profile.agent
    if agent.spare_calls and agent.spare_calls >= (least := agent.replicas.min * agent.calls_per_replica):
        problem = f"{agent.spare_calls} of {least} slots (replicas.min x calls_per_replica): every caller would wait"
        found.append((("agent", "spare_calls"), problem))
    return [*found, *_assistant_problems(profile, roles)]


def _assistant_problems(profile: Profile, roles: dict[str, str]) -> Iterator[tuple[positions.Path, str]]:
    """Yield what is wrong with assistants; what another has from the default one is said there alone."""
    default, everybody = profile.agent.assistant, profile.agent.everybody()
    numbers: dict[str, str] = {}
    for who, assistant in everybody.items():
        at: positions.Path = ("agent", "assistant") if assistant is default else ("agent", "assistants", who)
        inherits = assistant is not default
        for role, name in assistant.models.items():
            if roles.get(name) != role and not (inherits and default.models.get(role) == name):
                fitting = [known for known, serves in roles.items() if serves == role]
                yield (*at, "models", role), f"no {role} model is named {name!r}; {_choices(name, fitting)}"
        for index, number in enumerate(assistant.numbers):
            if number in numbers:
                yield (*at, "numbers", index), f"{number!r} is answered by {numbers[number]} already"
            numbers[number] = who
        if inherits and assistant.tools == default.tools:
            continue
        for index, name in enumerate(assistant.tools):
            if name not in tool_names.names():
                yield (*at, "tools", index), f"no tool is named {name!r}; {_choices(name, tool_names.names())}"
            elif name == "transfer_to_person" and assistant.person is None:
                yield (*at, "tools", index), f"{name} needs a number: set person to tel:+... or sip:..."
            elif name == "hand_over" and len(everybody) == 1:
                yield (*at, "tools", index), f"{name} needs another assistant: there are no agent.assistants"


def _explain(document: Document, error: dict[str, Any]) -> str:
    path: positions.Path = tuple(error["loc"])
    given: Any = error.get("input")
    match error["type"]:
        case "extra_forbidden":
            problem = f"unknown key; {_choices(str(path[-1]), _keys(path[:-1]))}"
        case "missing":
            problem = "is missing"
        case "value_error":
            problem = str(error["ctx"]["error"])
        case "literal_error" | "enum":
            problem = f"{given!r} is not one of {error['ctx']['expected']}"
        case _:
            shown = "" if isinstance(given, dict | list) else f" (it is {given!r})"
            problem = f"{error['msg'][:1].lower()}{error['msg'][1:]}{shown}"
    return f"{document.place(path)}: {dotted(path)}: {problem}"


def _keys(path: positions.Path) -> list[str]:
    """Return the keys that a profile may have at a path."""
    kind: Any = Profile
    named = False
    for part in path:
        if isinstance(part, int) or named:
            named = False
            continue
        if not (isinstance(kind, type) and issubclass(kind, BaseModel)):
            return []
        kind = kind.model_fields[part].annotation if part in kind.model_fields else None
        named = get_origin(kind) is dict
        kind = _inner(kind)
    found = sorted(kind.model_fields) if isinstance(kind, type) and issubclass(kind, BaseModel) else []
    return found if path else [*found, "extends"]


def _inner(kind: Any) -> Any:
    """Look through lists, mappings and optionals for the model inside."""
    if get_origin(kind) is None:
        return kind
    inside = get_args(kind)[1:] if get_origin(kind) is dict else get_args(kind)
    return next((_inner(arg) for arg in inside if arg is not type(None)), None)


def _choices(given: str, choices: Sequence[str]) -> str:
    if not choices:
        return "there is nothing to choose from"
    near = difflib.get_close_matches(given, choices, n=1)
    hint = f" (did you mean {near[0]}?)" if near else ""
    return f"the choices are {', '.join(choices)}{hint}"
