"""Who may answer a call: the profile's assistants, which nobody changes here, and a tenant's own in the database."""

from __future__ import annotations

import difflib
import re
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from sqlalchemy import select
from sqlalchemy.ext.asyncio import AsyncSession

from api.db.tables import Assistant as AssistantRow
from api.db.tables import AssistantVersion
from api.openai.catalog import Catalog
from api.problems import Problem
from api.rules import AssistantRules
from serve.assistant import Assistant

DEFINITION_BYTES = 48 * 2**10
"""The largest definition, as JSON: it travels with each call that is carried on elsewhere."""

HIDDEN = frozenset({"mcp", "numbers", "person"})
"""What is not shown of the profile's assistants: addresses and numbers of the operator's."""

_REFERENCE = re.compile(r"(asst_\w{1,59})(?:@(\d{1,9}))?")


class Staff:
    """What the profile says of assistants; a change reaches it live.

    Attributes:
        names: Of its assistants, the default one first.
        named: The assistants.
        tools: Names of all tools there are.
    """

    def __init__(self, names: Sequence[str] = ()) -> None:
        self.names = list(names)
        self.named: dict[str, Assistant] = {name: Assistant() for name in names}
        self.tools: tuple[str, ...] = ()

    def update(self, named: Mapping[str, Any], tools: Sequence[str]) -> None:
        """Take what the profile says now."""
        self.named = {name: Assistant.model_validate(each) for name, each in named.items()}
        self.names[:] = named
        self.tools = tuple(tools)


@dataclass(frozen=True, slots=True)
class Chosen:
    """An assistant that somebody asked for.

    Attributes:
        name: As people know it.
        id: Of the database; None: it is the profile's.
        version: The one that a call begins with; None: it is the profile's.
    """

    name: str
    id: str | None = None
    version: int | None = None

    @property
    def ref(self) -> str:
        """What a dispatch's metadata calls it."""
        return self.name if self.id is None else f"{self.id}@{self.version}"


async def choose(session: AsyncSession, staff: Staff, asked: str) -> Chosen | None:
    """Return the assistant that new calls get for a name, an id, or an id with a version; None: there is none.

    Args:
        session: Within the tenant that asks.
        staff: Of the profile.
        asked: As `default`, `Order desk`, `asst_0190...` or `asst_0190...@3`.
    """
    if asked in staff.named:
        return Chosen(asked)
    found = await find(session, asked)
    if found is None or found[0].deleted_at is not None:
        return None
    return Chosen(found[0].name, found[0].id, found[1].number)


async def find(session: AsyncSession, asked: str) -> tuple[AssistantRow, AssistantVersion] | None:
    """Return a tenant's assistant and a version of it, the newest where none is named.

    One that is deleted is found by its version alone: calls that began with it go on.
    """
    match = _REFERENCE.fullmatch(asked)
    number = int(match[2]) if match and match[2] else None
    joined = select(AssistantRow, AssistantVersion).join(
        AssistantVersion, AssistantVersion.assistant_id == AssistantRow.id
    )
    joined = joined.where(AssistantRow.id == match[1] if match else AssistantRow.name == asked)
    joined = joined.where(AssistantVersion.number == (AssistantRow.version if number is None else number))
    if number is None:
        joined = joined.where(AssistantRow.deleted_at.is_(None))
    row = (await session.execute(joined)).first()
    return None if row is None else (row[0], row[1])


def tools_of(staff: Staff, rules: AssistantRules) -> list[str]:
    """Return the names of the tools that a tenant's assistants may have."""
    return [each for each in staff.tools if rules.tools is None or each in rules.tools]


def check(definition: Assistant, staff: Staff, catalog: Catalog, rules: AssistantRules) -> None:
    """Refuse what a tenant's assistant may not be.

    Raises:
        Problem: 422, with each field that is not right and the choices.
    """
    if len(definition.model_dump_json()) > DEFINITION_BYTES:
        raise Problem.field("definition", f"is longer than {DEFINITION_BYTES} bytes of JSON; long texts go into files")
    if errors := [
        {"field": f"definition.{at}", "problem": why} for at, why in _wrong(definition, staff, catalog, rules)
    ]:
        detail = "; ".join(f"{each['field']}: {each['problem']}" for each in errors)
        raise Problem(422, "Invalid request", detail, errors=errors)


def _wrong(definition: Assistant, staff: Staff, catalog: Catalog, rules: AssistantRules) -> Iterator[tuple[str, str]]:
    models = [each for each in catalog.list() if "engine" in each]
    for role, name in definition.models.items():
        fitting = [each["id"] for each in models if each["role"] == role]
        if name not in fitting:
            yield f"models.{role}", f"no {role} model is named {name!r}; {_choices(name, fitting)}"
    tools = tools_of(staff, rules)
    for index, name in enumerate(definition.tools):
        if name not in tools:
            yield f"tools.{index}", f"no tool is named {name!r}; {_choices(name, tools)}"
        elif name == "transfer_to_person" and definition.person is None:
            yield f"tools.{index}", f"{name} needs a number: set person to tel:+... or sip:..."
    for index, server in enumerate(definition.mcp):
        if server.headers:
            why = "would send this server's environment variables to an address; only a profile may have them"
            yield f"mcp.{index}.headers", why
        if server.url not in rules.mcp:
            yield f"mcp.{index}.url", f"is not allowed here; {_allowed(rules.mcp, 'mcp')}"
    if definition.person is not None and definition.person not in rules.people:
        yield "person", f"is not allowed here; {_allowed(rules.people, 'people')}"
    if definition.numbers:
        yield "numbers", "are a profile's only; a SIP dispatch rule names this assistant in its metadata instead"


def _allowed(choices: Sequence[str], key: str) -> str:
    return f"the choices are {', '.join(choices)}" if choices else f"an operator lists in api.assistants.{key} what is"


def _choices(given: str, choices: Sequence[str]) -> str:
    if not choices:
        return "there is nothing to choose from"
    near = difflib.get_close_matches(given, choices, n=1)
    return f"the choices are {', '.join(choices)}" + (f" (did you mean {near[0]}?)" if near else "")
