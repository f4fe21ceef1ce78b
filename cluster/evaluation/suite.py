"""A suite: spoken cases and what is expected of each, as a YAML file. docs/evaluation.md says what each key means."""

from __future__ import annotations

import re
from collections.abc import Sequence
from importlib import resources
from pathlib import Path
from typing import Annotated, Any, Literal, cast

import yaml
from pydantic import BeforeValidator, Field, ValidationError, model_validator

from cluster.bench.sounds import Noise as Sound
from serve.config import Strict
from serve.errors import ConfigError


def _listed(value: Any) -> Any:
    return [value] if isinstance(value, str) else value


def _pattern(value: Any) -> Any:
    if isinstance(value, str):
        try:
            re.compile(value)
        except re.error as error:
            raise ValueError(f"is no regular expression: {error}") from None
    return value


Texts = Annotated[tuple[str, ...], BeforeValidator(_listed)]
"""One text, or a list of them."""

Pattern = Annotated[str, BeforeValidator(_pattern)]


class Noise(Strict):
    """Noise under the caller's voice, of a seed, so that it is the same each time."""

    kind: Literal["white", "pink", "brown"] = "pink"
    snr: float = Field(ge=-10, le=60, description="Decibels of the voice, while it speaks, above the noise")


class Over(Strict):
    """What the caller says, or what is heard around them, over the answer."""

    after: float = Field(default=1.0, ge=0, le=5, description="Seconds after the answer's first sound")
    say: str | None = None
    sound: Sound | None = None
    seconds: float = Field(default=1.0, gt=0, le=10, description="How long coloured noise lasts")
    level: float = Field(default=0.3, gt=0, le=1, description="Of a sound's peak")

    @model_validator(mode="after")
    def _one(self) -> Over:
        if (self.say is None) == (self.sound is None):
            raise ValueError("set one of `say` and `sound`")
        return self


class File(Strict):
    """A file that the caller sends before they speak: one beside the suite, or a text."""

    name: str = Field(pattern=r"^[^/\\]{1,200}$")
    text: str | None = None
    path: str | None = None

    @model_validator(mode="after")
    def _one(self) -> File:
        if (self.text is None) == (self.path is None):
            raise ValueError("set one of `text` and `path`")
        return self


class Heard(Strict):
    """What speech to text makes of the words."""

    words: Texts = Field(default=(), description="What is right, or several that are; without: what is said")
    max_wer: float | None = Field(default=None, ge=0, le=1, description="Most word error rate")
    contains: Texts = Field(default=(), description="Words that must be among those heard")


class Answer(Strict):
    """Rules on the answer; upper and lower case are the same."""

    contains: Texts = Field(default=(), description="Each of these")
    any_of: Texts = Field(default=(), description="At least one of these")
    lacks: Texts = Field(default=(), description="None of these")
    matches: Pattern | None = Field(default=None, description="A regular expression that is found in it")
    min_words: int | None = Field(default=None, ge=0)
    max_words: int | None = Field(default=None, ge=1)


class Tool(Strict):
    """A tool that must be called; a name alone, or with arguments."""

    name: str
    arguments: dict[str, Any] = Field(
        default_factory=dict[str, Any], description="These, among others; texts whatever their case"
    )


def _named(value: Any) -> Any:
    return {"name": value} if isinstance(value, str) else value


class Expect(Strict):
    """What is right."""

    answered: bool = Field(default=True, description="false: nobody says anything")
    interrupted: bool | None = Field(default=None, description="Of `over`: the answer ends (true) or goes on (false)")
    heard: Heard = Field(default_factory=Heard)
    answer: Answer = Field(default_factory=Answer)
    tool: Annotated[Tool, BeforeValidator(_named)] | None = None
    within: float | None = Field(default=None, gt=0, description="Seconds, voice to voice")
    judge: str | None = Field(default=None, min_length=3, description="A sentence that a judge model finds true")


class Case(Strict):
    """One question, in a call of its own."""

    name: str = Field(pattern=r"^[A-Za-z0-9][A-Za-z0-9 _.-]{0,63}$")
    say: Texts = ()
    pauses: tuple[float, ...] = Field(default=(), description="Seconds between the parts of `say`")
    audio: str | None = Field(default=None, description="A recording beside the suite, instead of `say`")
    sound: Sound | None = Field(default=None, description="A noise, instead of `say`: nobody speaks")
    voice: str | None = Field(default=None, pattern=r"^(flite|espeak):[A-Za-z0-9+_-]{1,40}$")
    speed: float = Field(default=1.0, gt=0.5, lt=2)
    gain: float = Field(
        default=1.0, gt=0, le=1, description="Of the voice, or a sound's peak; below 1: from further away"
    )
    noise: Noise | None = None
    over: Over | None = None
    file: File | None = None
    before: Texts = Field(default=(), description="Said first in the same call; their answers are not judged")
    assistant: str | None = None
    tools: Texts = Field(default=(), description="Of the suite's tools, for a model that is asked straight")
    expect: Expect = Field(default_factory=Expect)

    @model_validator(mode="after")
    def _whole(self) -> Case:
        if sum((bool(self.say), self.audio is not None, self.sound is not None)) != 1:
            raise ValueError("set one of `say`, `audio` and `sound`")
        if self.sound is not None and self.expect.answered:
            raise ValueError("`sound` goes with expect.answered: false; nobody says anything")
        if self.say and len(self.pauses) != len(self.say) - 1:
            raise ValueError(f"pauses: {len(self.say)} parts have {len(self.say) - 1} pauses between them")
        if (self.over is None) != (self.expect.interrupted is None):
            raise ValueError("`over` and expect.interrupted need each other")
        if self.expect.tool and self.tools and self.expect.tool.name not in self.tools:
            raise ValueError(f"expect.tool: {self.expect.tool.name!r} is none of the case's tools")
        return self

    @property
    def text(self) -> str:
        """The words that are said; "" where only a recording knows."""
        return " ".join(self.say)

    @property
    def references(self) -> tuple[str, ...]:
        """What is right to hear."""
        return self.expect.heard.words or ((self.text,) if self.say else ())


class ToolDefinition(Strict):
    """A tool as a model is told of it; nothing runs it."""

    description: str
    parameters: dict[str, Any] = Field(default_factory=lambda: {"type": "object", "properties": {}})


class Suite(Strict):
    """Cases that belong together."""

    about: str = ""
    seed: int = Field(default=7, ge=0, description="Of noise")
    tools: dict[str, ToolDefinition] = Field(default_factory=dict[str, ToolDefinition])
    cases: tuple[Case, ...] = Field(min_length=1, max_length=1000)
    name: str = ""
    folder: Path = Path()

    def definitions(self, case: Case) -> tuple[dict[str, Any], ...]:
        """Return a case's tools in OpenAI's shape."""
        return tuple(
            {"type": "function", "function": {"name": name, **self.tools[name].model_dump()}} for name in case.tools
        )


def names() -> list[str]:
    """Return the suites that come with Parley."""
    folder = resources.files("cluster.evaluation") / "suites"
    return sorted(item.name.removesuffix(".yaml") for item in folder.iterdir() if item.name.endswith(".yaml"))


def load(name: str, only: Sequence[str] = ()) -> Suite:
    """Read and check a suite.

    Args:
        name: Of one that comes with Parley, or a path.
        only: Names of cases to keep; none: all.

    Raises:
        ConfigError: One line for each thing that is wrong, with the case and the field.
    """
    path = Path(name)
    if path.suffix not in {".yaml", ".yml"} and not path.is_file():
        if name not in names():
            raise ConfigError(
                f"--suite: no suite is named {name!r}; there are {', '.join(names())}, or a path to a .yaml"
            )
        path = Path(str(resources.files("cluster.evaluation") / "suites" / f"{name}.yaml"))
    try:
        data = yaml.safe_load(path.read_text(encoding="utf-8"))
    except OSError as error:
        raise ConfigError(f"--suite {name}: cannot be read: {error.strerror}") from None
    except (yaml.YAMLError, UnicodeDecodeError):
        raise ConfigError(f"--suite {name}: is not YAML") from None
    if not isinstance(data, dict):
        raise ConfigError(f"--suite {name}: wants keys: {', '.join(_keys())}")
    suite = _check(name, cast("dict[str, Any]", data), path)
    if unknown := sorted(set(only) - {case.name for case in suite.cases}):
        known = ", ".join(case.name for case in suite.cases)
        raise ConfigError(f"--case: {name} has no case {', '.join(unknown)}; it has {known}")
    kept = tuple(case for case in suite.cases if not only or case.name in only)
    return suite.model_copy(update={"cases": kept})


def _check(name: str, data: dict[str, Any], path: Path) -> Suite:
    if own := {"name", "folder"} & set(data):
        raise ConfigError(f"{name}: {sorted(own)[0]}: unknown key; the keys are {', '.join(_keys())}")
    try:
        suite = Suite.model_validate({**data, "name": path.stem, "folder": path.resolve().parent})
    except ValidationError as error:
        raise ConfigError("\n".join(f"{name}: {_place(data, item)}" for item in error.errors())) from None
    problems: list[str] = []
    seen: set[str] = set()
    for case in suite.cases:
        if case.name in seen:
            problems.append(f"case {case.name}: name: is there twice")
        seen.add(case.name)
        problems += [
            f"case {case.name}: tools: no tool is named {each!r}; the suite has {', '.join(suite.tools) or 'none'}"
            for each in case.tools
            if each not in suite.tools
        ]
        for field, file in (("audio", case.audio), ("file.path", case.file and case.file.path)):
            if file and not (suite.folder / file).is_file():
                problems.append(f"case {case.name}: {field}: {file} is not there, beside the suite")
    if problems:
        raise ConfigError("\n".join(f"{name}: {problem}" for problem in problems))
    return suite


def _keys() -> list[str]:
    return [key for key in Suite.model_fields if key not in ("name", "folder")]


def _place(data: dict[str, Any], error: Any) -> str:
    """Return where a mistake is and what it is, with the case's name."""
    place: list[Any] = list(error["loc"])
    where = ""
    if place[:1] == ["cases"] and len(place) > 1 and isinstance(place[1], int):
        item = data["cases"][place[1]]
        named = cast("dict[str, Any]", item).get("name") if isinstance(item, dict) else None
        where, place = f"case {named or place[1] + 1}: ", place[2:]
    field = ".".join(map(str, place))
    what = str(error["msg"]).removeprefix("Value error, ")
    if error["type"] == "extra_forbidden":
        what = "unknown key; docs/evaluation.md has them all"
    return f"{where}{field}: {what}" if field else f"{where}{what}"
