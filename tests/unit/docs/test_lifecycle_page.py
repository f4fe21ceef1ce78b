"""docs/lifecycle.md says what the code does: every event with its fields, every reason, an example that runs."""

from __future__ import annotations

import dataclasses
import json
import re
import sys
import types
from typing import Any

import pytest
from google.protobuf import json_format
from livekit import api

from agent import events
from agent.hooks import Hook
from tests.conftest import ROOT

pytestmark = pytest.mark.unit

PAGE = (ROOT / "docs" / "lifecycle.md").read_text()


def section(heading: str) -> str:
    return re.split(r"\n## ", PAGE.split(f"\n## {heading}\n", 1)[1])[0]


def code(language: str) -> list[str]:
    return re.findall(rf"```{language}\n(.*?)```", PAGE, re.DOTALL)


def test_every_event_is_there_with_its_fields() -> None:
    rows = re.findall(r"^\| `(\w+)` \|(.*)\|$", section("Fields"), re.MULTILINE)
    told = {kind: tuple(re.findall(r"(?<!\w)`(\w+)`(?!\.)", text)) for kind, text in rows}
    common = {field.name for field in dataclasses.fields(events.Event)}
    own = {kind: [field.name for field in dataclasses.fields(each)] for kind, each in events.kinds().items()}
    known = {kind: [name for name in names if name not in common] for kind, names in own.items()}
    assert told.keys() == known.keys()
    for kind, fields in known.items():
        assert [name for name in told[kind] if name in fields] == fields, kind


def test_every_event_has_its_place_in_the_order() -> None:
    assert set(re.findall(r"^\| `(\w+)` \|", section("Order"), re.MULTILINE)) == set(events.kinds())


def test_what_has_content_is_named() -> None:
    (named,) = re.findall(r"Two types hold what was said:\s+`(\w+)` and `(\w+)`", PAGE)
    assert set(named) == {kind for kind, each in events.kinds().items() if each.content}


def test_every_reason_is_there() -> None:
    source = "".join(path.read_text() for path in sorted((ROOT / "agent").glob("*.py")))
    ends = re.findall(r'[._](?:end|wait)\("([^"]+)"\)|goodbye\([^\n]*, "([^"]+)"\)', source)
    reasons = {first or second for first, second in ends}
    told = set(re.findall(r"^\| `([^`]+)` \|", section("What ends a call"), re.MULTILINE))
    assert len(reasons) > 8
    assert reasons <= told
    assert told - reasons == {"error", "ended"}


async def test_the_example_of_a_hook_runs() -> None:
    (source,) = code("python")
    desk: Any = types.ModuleType("desk")
    # Annotations are looked up by the module's name.
    sys.modules["desk"] = desk
    try:
        exec(source, desk.__dict__)
    finally:
        del sys.modules["desk"]
    follow = Hook("crm", desk.follow)
    common: dict[str, Any] = {"call": "room", "time": 1.0}
    who: dict[str, Any] = {"identity": "ada", "name": "", "kind": "standard", "attributes": {}, "sip": {}}
    follow.take(events.ParticipantConnected(**common, sequence=1, **who))
    follow.take(events.Reconnecting(**common, sequence=2))
    follow.take(events.Cleanup(**common, sequence=3, reason="caller left", seconds=1.0))
    assert await follow.idle(5)
    await follow.aclose()
    assert desk.calls == {"room": ["ada", "caller left"]}
    assert 'crm = "desk:follow"' in PAGE


def test_livekit_understands_trunk_and_dispatch_rule() -> None:
    trunk, rule = (json.loads(each) for each in code("json"))
    inbound = json_format.ParseDict(trunk, api.CreateSIPInboundTrunkRequest())
    assert list(inbound.trunk.numbers) == ["+15550199"]
    dispatch = json_format.ParseDict(rule, api.CreateSIPDispatchRuleRequest())
    (agent,) = dispatch.dispatch_rule.room_config.agents
    assert agent.agent_name == "parley"
    assert json.loads(agent.metadata) == {"assistant": "default"}
