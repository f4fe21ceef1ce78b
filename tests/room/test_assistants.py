"""Assistants in a real room: the one that is asked for answers, uses a tool of a package, and hangs up."""

from __future__ import annotations

import asyncio
from collections.abc import Generator

import httpx
import pytest

from cluster.robot import Access, Robot
from serve.assistant import Assistant
from serve.config import ModelConfig
from tests.conftest import Parley
from tests.room.doors import Door
from tests.room.test_changes import Say, deploy, here, put_back

pytestmark = [pytest.mark.room, pytest.mark.timeout(300)]

FAKE = ModelConfig(name="llm-tools", engine="fake-llm")
"""Calls its first tool when it is asked to, and repeats the last message otherwise."""

NUMBER = "+4930123450"


@pytest.fixture(scope="module")
def staff(parley: Parley) -> Generator[Parley]:
    """Add two assistants to the cluster, for the tests of this module."""
    before, _ = here()
    clerk = Assistant.model_validate(
        {"greeting": "The clerk speaks.", "tools": ["opening_hours"], "models": {"llm": FAKE.name}, "numbers": [NUMBER]}
    )
    porter = clerk.model_copy(update={"greeting": "The porter speaks.", "tools": ("end_call",), "numbers": ()})
    guide = clerk.model_copy(update={"greeting": "The guide speaks.", "tools": ("hand_over",), "numbers": ()})
    agent = before.agent.model_copy(update={"assistants": {"clerk": clerk, "porter": porter, "guide": guide}})
    after = before.model_copy(update={"models": [*before.models, FAKE], "agent": agent})
    with put_back(before):
        deploy(after)
        yield parley


def asking_for(parley: Parley, assistant: str) -> Access:
    async def access() -> tuple[str, str]:
        async with httpx.AsyncClient(timeout=10) as http:
            answer = await http.post(f"{parley.page}/api/v1/token", json={"assistant": assistant})
            answer.raise_for_status()
        return answer.json()["server_url"], answer.json()["participant_token"]

    return access


async def greeted(robot: Robot, words: str) -> None:
    await robot.answered()
    await said(robot, words)
    await robot.quiet(0.5, 15)


async def said(robot: Robot, words: str) -> None:
    async with asyncio.timeout(20):
        while words not in " ".join(robot.captions.values()):  # noqa: ASYNC110  # captions wake nobody
            await asyncio.sleep(0.05)


async def test_the_assistant_that_is_asked_for_answers_with_a_tool(staff: Parley) -> None:
    async with Robot(staff.page, asking_for(staff, "clerk")) as robot:
        await greeted(robot, "The clerk speaks.")
        await robot.type("Please call the shop.")
        turn = await asyncio.wait_for(robot.turns.get(), 20)
        assert turn["answer"] == "The shop is open from nine to five today."
        assert turn["models"]["llm"] == FAKE.name
        assert turn["error"] is None


async def test_the_number_that_was_called_says_who_answers(staff: Parley) -> None:
    door = Door(staff)
    phone = door.access("sip_1", kind="sip", attributes={"sip.trunkPhoneNumber": NUMBER})
    async with Robot(staff.page, phone) as robot:
        await greeted(robot, "The clerk speaks.")


async def test_the_dispatch_says_who_answers_and_the_assistant_hangs_up(staff: Parley) -> None:
    door = Door(staff)
    async with Robot(staff.page, door.access("caller", metadata='{"assistant": "porter"}')) as robot:
        await greeted(robot, "The porter speaks.")
        gone = asyncio.Event()
        robot.room.on("disconnected", lambda *_: gone.set())
        await robot.type("Please call it a day.")
        await said(robot, "Goodbye.")
        await asyncio.wait_for(gone.wait(), 20)
    await staff.until_calls(0)


async def test_another_assistant_takes_over_and_hears_the_caller(staff: Parley, say: Say) -> None:
    async with Robot(staff.page, asking_for(staff, "guide")) as robot:
        await greeted(robot, "The guide speaks.")
        await robot.type("Please call somebody else.")
        turn = await asyncio.wait_for(robot.turns.get(), 30)
        assert turn["models"]["llm"] != FAKE.name
        assert turn["answer"]
        await robot.quiet(0.5, 30)
        await robot.say(say("What is the capital of France?").samples)
        turn = await asyncio.wait_for(robot.turns.get(), 30)
        assert "france" in turn["heard"].lower() or "capital" in turn["heard"].lower(), turn
        assert (turn["error"], turn["typed"]) == (None, False)


async def test_who_is_not_there_is_refused_with_the_choices(staff: Parley) -> None:
    async with httpx.AsyncClient(timeout=10) as http:
        answer = await http.post(f"{staff.page}/api/v1/token", json={"assistant": "nobody"})
    assert answer.status_code == 422
    assert "default, clerk, porter, guide" in answer.json()["detail"]
