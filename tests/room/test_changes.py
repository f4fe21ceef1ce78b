"""Models are changed while callers talk: no turn fails, and what does not come up changes nothing."""

from __future__ import annotations

import asyncio
from collections.abc import Callable, Generator
from contextlib import contextmanager
from pathlib import Path

import httpx
import pytest

from cluster import apply, change, change_commands, history, plan, samples, status, swap
from cluster.call import CallResult, Utterance, place, report
from cluster.gate import Gate
from cluster.profile import Profile
from cluster.up import Step
from serve.config import Replicas, Route
from serve.errors import ParleyError
from tests.conftest import Parley

pytestmark = [pytest.mark.room, pytest.mark.timeout(240)]

Say = Callable[[str], Utterance]


def here() -> tuple[Profile, str]:
    run = status.current()
    return Profile.model_validate(run.settings), run.profile


def deploy(profile: Profile) -> dict[str, list[str]]:
    def ignore(step: Step) -> None:
        pass

    return apply.apply(profile, here()[1], ignore)


@contextmanager
def put_back(profile: Profile) -> Generator[None]:
    try:
        yield
    finally:
        deploy(profile)


async def test_another_model_takes_over_while_two_callers_talk(parley: Parley, say: Say) -> None:
    before, _ = here()
    agents = {each.pid for each in parley.replicas("agent")}
    old = before.model(before.routes.model("llm"))
    new = old.model_copy(update={"name": "llm-other"})
    routes = before.routes.model_copy(update={"llm": Route(default=new.name)})
    models = [each for each in before.models if each is not old]
    after = before.model_copy(update={"models": [*models, new], "routes": routes})
    with put_back(before):
        question = say("Hello, can you hear me?")
        talking = asyncio.create_task(place(parley.page, [question], calls=2, turns=4))
        await asyncio.sleep(5)  # both are in conversation
        changes = await asyncio.to_thread(deploy, after)
        result = report(await talking)
        last = report(await place(parley.page, [question]))
    assert (changes["added"], changes["removed"]) == (["llm-other"], [old.name])
    assert {each.pid for each in parley.replicas("agent")} == agents, "new routes must not restart what carries calls"
    assert result["summary"]["failed"] == 0, result
    assert last["summary"]["failed"] == 0, last


async def test_what_does_not_come_up_changes_nothing(parley: Parley, say: Say, tmp_path: Path) -> None:
    before, _ = here()
    file = tmp_path / "broken.gguf"
    file.write_bytes(b"GGUF, or so it says")
    old = before.model(before.routes.model("llm"))
    broken = old.model_copy(update={"name": "llm-broken", "options": {"path": str(file)}})
    after = before.model_copy(update={"models": [*before.models, broken]})
    with pytest.raises(ParleyError, match="goes on running"):
        await asyncio.to_thread(deploy, after)
    assert here()[0] == before
    result = report(await place(parley.page, [say("Hello, can you hear me?")]))
    assert result["summary"]["failed"] == 0, result


async def test_nothing_new_changes_nothing(parley: Parley) -> None:
    before, _ = here()
    assert await asyncio.to_thread(deploy, before) == {"added": [], "changed": [], "removed": []}


async def test_a_model_that_sleeps_wakes_for_a_request(parley: Parley) -> None:
    """Over OpenAI's API, which any client can use: the first answer waits for the model to load."""
    before, _ = here()
    old = before.model(before.routes.model("llm"))
    sleeper = old.model_copy(update={"name": "llm-sleeper", "replicas": Replicas(min=0, max=1, idle_seconds=60)})
    with put_back(before):
        await asyncio.to_thread(deploy, before.model_copy(update={"models": [*before.models, sleeper]}))
        assert parley.replicas("llm-sleeper") == []
        async with httpx.AsyncClient(timeout=60) as http:
            body = {"model": "llm-sleeper", "messages": [{"role": "user", "content": "Hello"}], "max_tokens": 4}
            answer = await http.post(f"{parley.page}/v1/chat/completions", json=body, headers=parley.key)
        assert answer.status_code == 200, answer.text
        assert answer.json()["model"] == "llm-sleeper"
        assert len(parley.replicas("llm-sleeper")) == 1


async def test_a_model_is_swapped_under_live_calls_and_back(parley: Parley, say: Say) -> None:
    """Half of the calls go to another model; what their records say lets it take all, and then all goes back."""
    before, name = here()
    old = before.model(before.routes.model("llm"))
    new = old.model_copy(update={"name": "llm-swapped"})
    # So few turns decide nothing: the gate is as wide as it can be, and what is tested is the way.
    gate = Gate(min_calls=1, min_turns=2, max_minutes=2, failed=1, unanswered=1, interrupted=1, own_time=50)
    gate = gate.model_copy(update={"voice_to_voice": 50, "words_per_minute": None})
    asked = swap.ask(before, "llm", new.name, [new], 0.5, gate, keep=False)
    told: list[str] = []

    async def put(profile: Profile, what: str) -> None:
        await asyncio.to_thread(change.make, profile, name, "swap", what, lambda _: None, number)

    with put_back(before):
        with history.changing():
            number = history.here(name, before.model_dump(mode="json")).number
            question = say("Hello, can you hear me?")
            work = asyncio.create_task(
                swap.Swap(before, asked, put, samples.source(before.agent.backend), told.append, poll=1).run()
            )
            results: list[CallResult] = []
            # Which side a call is on is up to its name: a few rounds have both.
            while not work.done() and len(results) < 16:
                results += await place(parley.page, [question], calls=2, turns=3)
            async with asyncio.timeout(60):
                outcome = await work
            results += await place(parley.page, [question], calls=2)
            after = here()[0]
            entries = [each.what for each in history.read()]
            free, _ = change.room(after, plan.between(after, before))
        await asyncio.to_thread(change_commands.rollback, None, yes=True, dry_run=False, as_json=True)
        assert here()[0] == before
    assert outcome.promoted, (outcome, told)
    assert (after.routes.model("llm"), [each for each in after.models if each.name == old.name]) == (new.name, [])
    summary = report(results)["summary"]
    assert summary["failed"] == 0, report(results)
    assert entries[-2:] == [f"llm: {old.name} to {new.name}, {part}" for part in ("50% of the calls", "all calls")]
    assert free, "Ray says what is free"
    assert free[0].cpus >= 0
