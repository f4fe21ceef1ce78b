"""Models are changed while callers talk: no turn fails, and what does not come up changes nothing."""

from __future__ import annotations

import asyncio
from collections.abc import Callable, Generator
from contextlib import contextmanager
from pathlib import Path

import httpx
import pytest

from cluster import apply, status
from cluster.call import Utterance, place, report
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
            answer = await http.post(f"{parley.page}/v1/chat/completions", json=body)
        assert answer.status_code == 200, answer.text
        assert answer.json()["model"] == "llm-sleeper"
        assert len(parley.replicas("llm-sleeper")) == 1
