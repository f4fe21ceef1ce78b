"""Unit: a swap goes through its steps, back, or on, by what the turns are like; the turns as records have them."""

from __future__ import annotations

import asyncio
import json
import time
from pathlib import Path
from typing import Any

import pytest

from api.db import Database, migrate, sqlite_url
from api.db.tables import Call, Turn
from api.db.tables.accounts import DEFAULT_TENANT
from api.db.types import now
from cluster import profile, samples, swap
from cluster.change_cli import share
from cluster.gate import Gate
from cluster.profile import Profile
from cluster.samples import LinesSource, Sample
from cluster.swap import Asked, Outcome, Swap
from serve.config import ModelConfig, Route
from serve.contracts import Role
from serve.errors import ConfigError, ParleyError

pytestmark = pytest.mark.unit

QUICK = Gate(min_calls=2, min_turns=100, max_minutes=0.02)


@pytest.fixture
def running() -> Profile:
    return profile.load("local")


def asked(running: Profile, keep: bool = False, gate: Gate = QUICK) -> Asked:
    other = running.model(running.routes.model("llm")).model_copy(update={"name": "llm-b"})
    return swap.ask(running, "llm", "llm-b", [other], 0.1, gate, keep)


class FakeSource:
    """Turns of both sides, as many as the test says."""

    def __init__(self, turns: list[Sample]) -> None:
        self.turns = turns

    async def since(self, at: float, role: Role) -> list[Sample]:
        return self.turns


def turns(model: str, count: int, **values: Any) -> list[Sample]:
    return [Sample(call=f"{model}-{n // 10}", model=model, own_ms=300 + n % 10, **values) for n in range(count)]


async def go(running: Profile, turns: list[Sample], what: Asked) -> tuple[Outcome, list[tuple[Profile, str]]]:
    put: list[tuple[Profile, str]] = []

    async def take(profile: Profile, why: str) -> None:
        put.append((profile, why))

    outcome = await Swap(running, what, take, FakeSource(turns), lambda _: None, poll=0.01).run()
    return outcome, put


async def test_a_model_that_is_as_good_takes_all_calls_in_steps(running: Profile) -> None:
    old = running.routes.model("llm")
    outcome, put = await go(running, turns(old, 200) + turns("llm-b", 200), asked(running))
    assert outcome.promoted, outcome
    routes = [each.routes.llm for each, _ in put]
    assert [route.weights for route in routes] == [{"llm-b": 0.1}, {"llm-b": 0.5}, {}]
    assert [route.default for route in routes] == [old, old, "llm-b"]
    assert [old in {model.name for model in each.models} for each, _ in put] == [True, True, False]
    assert [step for step, _ in outcome.steps] == [0.1, 0.5]
    assert json.loads(json.dumps(outcome.json()))["promoted"] is True


async def test_a_model_that_fails_goes_and_all_is_as_it_was(running: Profile) -> None:
    old = running.routes.model("llm")
    outcome, put = await go(running, turns(old, 200) + turns("llm-b", 20, failed=True), asked(running))
    assert not outcome.promoted
    assert outcome.why == "it failed on 20 of 20 turns"
    assert put[-1][0] == running
    assert "rolled back: it failed" in put[-1][1]


async def test_too_few_turns_wait_and_are_rolled_back_in_the_end(running: Profile) -> None:
    outcome, put = await go(running, turns("llm-b", 3), asked(running))
    assert not outcome.promoted
    assert "not decided within" in outcome.why
    assert "at least 100 turns of 2 calls are needed" in outcome.why
    assert put[-1][0] == running


async def test_what_does_not_come_up_needs_no_way_back(running: Profile) -> None:
    async def refuse(profile: Profile, why: str) -> None:
        raise ParleyError("it did not come up")

    with pytest.raises(ParleyError, match="did not come up"):
        await Swap(running, asked(running), refuse, FakeSource([]), lambda _: None).run()


async def test_who_breaks_it_off_while_it_comes_up_goes_back_too(running: Profile) -> None:
    put: list[Profile] = []
    begun = asyncio.Event()

    async def take(profile: Profile, why: str) -> None:
        put.append(profile)
        if len(put) == 1:
            begun.set()
            await asyncio.Event().wait()

    work = asyncio.create_task(Swap(running, asked(running), take, FakeSource([]), lambda _: None).run())
    async with asyncio.timeout(5):
        await begun.wait()
        work.cancel()
        with pytest.raises(asyncio.CancelledError):
            await work
    assert put[1:] == [running]


async def test_who_breaks_it_off_leaves_no_share_behind(running: Profile) -> None:
    put: list[Profile] = []
    shared = asyncio.Event()

    async def take(profile: Profile, why: str) -> None:
        put.append(profile)
        shared.set()

    work = asyncio.create_task(Swap(running, asked(running, gate=Gate()), take, FakeSource([]), lambda _: None).run())
    async with asyncio.timeout(5):
        await shared.wait()
        work.cancel()
        with pytest.raises(asyncio.CancelledError):
            await work
    assert put[-1] == running


def test_the_old_model_stays_where_it_is_wanted(running: Profile) -> None:
    old = running.routes.model("llm")
    kept = swap.promoted(running, asked(running, keep=True))
    assert kept.routes.llm == Route(default="llm-b", fallbacks=(old,))
    assert kept.model(old)
    assistant = running.agent.assistant.model_copy(update={"models": {"llm": old}})
    named = running.model_copy(update={"agent": running.agent.model_copy(update={"assistant": assistant})})
    assert swap.promoted(named, asked(named)).model(old), "an assistant asks for it"


def test_what_cannot_be_swapped_is_said(running: Profile) -> None:
    def ask(role: Role, model: str, at: Profile = running, catalog: list[ModelConfig] | None = None) -> Asked:
        return swap.ask(at, role, model, catalog or [], 0.1, QUICK, keep=False)

    with pytest.raises(ConfigError, match="no model is named 'nobody'; the llm models are"):
        ask("llm", "nobody")
    with pytest.raises(ConfigError, match="is a tts model"):
        ask("llm", running.routes.model("tts"))
    with pytest.raises(ConfigError, match="has the role llm already"):
        ask("llm", running.routes.model("llm"))
    route = running.routes.llm.model_copy(update={"weights": {"llm-c": 0.7}})
    busy = running.model_copy(update={"routes": running.routes.model_copy(update={"llm": route})})
    other = running.model(running.routes.model("llm")).model_copy(update={"name": "llm-b"})
    with pytest.raises(ConfigError, match="70% of the calls"):
        ask("llm", "llm-b", busy, [other])


@pytest.mark.parametrize(("text", "value"), [("10%", 0.1), ("0.25", 0.25), ("2.5%", 0.025)])
def test_a_share_is_written_either_way(text: str, value: float) -> None:
    assert share(text) == pytest.approx(value)


MEASURES: dict[str, Any] = {
    "stages": {"stt_ms": 250, "llm_first_token_ms": 90, "tts_first_byte_ms": None},
    "voice_to_voice_ms": 700,
    "times": {"question": None, "answer": [100.0, 106.0]},
    "words": 15,
    "models": {"stt": "s", "llm": "b", "tts": "t"},
    "asked": {"stt": "s", "llm": "a"},
    "fallback": {"llm": "b"},
    "retries": 1,
}


def test_a_turn_belongs_to_the_model_that_was_to_answer() -> None:
    found = samples.sample("call-1", "llm", False, None, MEASURES)
    assert found == Sample("call-1", "a", failed=True, own_ms=90, voice_ms=700, words_per_minute=150)
    heard = samples.sample("call-1", "stt", False, None, MEASURES)
    assert (heard.model, heard.failed, heard.own_ms) == ("s", False, 250)
    assert samples.sample("call-1", "tts", False, None, MEASURES).model == "", "nobody was asked for speech"
    silent = samples.sample("call-1", "llm", False, "EngineFailed", {**MEASURES, "words": 0, "fallback": None})
    assert (silent.failed, silent.unanswered, silent.words_per_minute) == (True, True, None)


async def test_turns_are_read_from_the_file_as_it_grows(tmp_path: Path) -> None:
    file = tmp_path / "records.jsonl"
    source = LinesSource(file)
    assert await source.since(0, "llm") == []

    def turn(call: str, at: float) -> str:
        what = {"kind": "turn", "call": call, "time": at, "interrupted": False, "error": None, "measures": MEASURES}
        return json.dumps(what) + "\n"

    file.write_text('{"kind": "usage"}\n' + turn("early", 5.0) + turn("one", 10.0) + turn("two", 11.0)[:30])
    assert [each.call for each in await source.since(10, "llm")] == ["one"]
    with file.open("a") as more:
        more.write(turn("two", 11.0)[30:])
    assert [each.call for each in await source.since(10, "llm")] == ["one", "two"]


async def test_turns_are_read_from_the_database(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    url = sqlite_url(tmp_path / "parley.db")
    database = Database(url)
    await migrate.upgrade(database)
    async with database.system() as session:
        session.add(Call(id="call-1", tenant_id=DEFAULT_TENANT))
        await session.flush()
        turn = {"number": 1, "at": now(), "heard": "", "answer": "", "measures": MEASURES}
        session.add(Turn(id="t1", tenant_id=DEFAULT_TENANT, call_id="call-1", **turn))
        await session.commit()
    await database.aclose()
    monkeypatch.setattr("api.db.open_database", lambda: Database(url))
    source = samples.source("api")
    assert [(each.call, each.model) for each in await source.since(time.time() - 60, "llm")] == [("call-1", "a")]
    assert await source.since(time.time() + 60, "llm") == []


def test_a_cluster_that_keeps_no_turns_cannot_swap() -> None:
    with pytest.raises(ConfigError, match=r"agent\.backend"):
        samples.source("none")
