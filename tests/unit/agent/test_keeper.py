"""What a call leaves behind, and what another replica makes of it."""

from __future__ import annotations

import asyncio
from typing import Any, ClassVar, cast

import pytest

from agent.keeper import Answer, Keeper
from agent.state import Lease, Record, State
from agent.state.contract import Part
from agent.state.memory import Memory
from serve.errors import Unavailable

pytestmark = pytest.mark.unit


async def claimed(state: State, owner: str = "one", over: int | None = None) -> Lease:
    lease = await state.claim("room", owner, "dispatcher", 10.0, over=over)
    assert lease is not None
    return lease


async def test_a_new_call_has_nothing_left() -> None:
    state = Memory()
    keeper = await Keeper.open(state, await claimed(state))
    assert keeper.left is None
    await keeper.aclose()


async def test_the_next_replica_finds_the_open_question_and_how_far_its_answer_was_heard() -> None:
    state = Memory()
    lease = await claimed(state)
    keeper = await Keeper.open(state, lease)
    answer = Answer("The sea is wide. It is deep too.", False, [(16, 1.2), (32, 2.5)], played=1.9)
    question = {"role": "user", "content": "The sea?"}
    keeper.note(greeted=True, history=[question], question="The sea?", answer=answer.json(), turns=3)
    await keeper.aclose()
    after = await Keeper.open(state, await claimed(state, "two", over=lease.epoch))
    assert after.left is not None
    assert (after.left.question, after.left.turns) == ("The sea?", 3)
    assert after.left.answer == answer
    assert answer.written[: after.left.answer.heard] == "The sea is wide."
    await after.aclose()


async def test_the_sound_of_a_sentence_is_left_until_it_is_understood() -> None:
    state = Memory()
    lease = await claimed(state)
    keeper = await Keeper.open(state, lease)
    keeper.note(greeted=True)
    keeper.begin()
    keeper.speaking(b"\1\0" * 10)
    keeper.speaking(b"\2\0" * 10)
    await keeper.aclose()
    second = await Keeper.open(state, await claimed(state, "two", over=lease.epoch))
    assert second.left is not None
    assert second.left.audio == b"\1\0" * 10 + b"\2\0" * 10
    second.begin()
    second.speaking(b"\3\0")
    second.understood()
    await second.aclose()
    third = await Keeper.open(state, await claimed(state, "three", over=lease.epoch + 1))
    assert third.left is not None
    assert third.left.audio == b""
    await third.aclose()


async def test_files_are_written_with_their_turn_and_not_with_each_word() -> None:
    class Counting(Memory):
        parts: ClassVar[list[str]] = []

        async def save(self, lease: Lease, record: Record, ttl: float, part: Part = "record") -> bool:
            self.parts.append(part)
            return await super().save(lease, record, ttl, part)

    state = Counting()
    keeper = await Keeper.open(state, lease := await claimed(state))
    for change in ({"files": [{"name": "a.txt"}]}, *({"answer": Answer(played=n / 4).json()} for n in range(8))):
        keeper.note(**change)
        await asyncio.sleep(0)
        await asyncio.sleep(0)
    assert state.parts.count("files") == 1
    assert state.parts.count("record") > 5
    keeper.note(history=[])
    await keeper.aclose()
    assert state.parts.count("files") == 2
    after = await Keeper.open(state, await claimed(state, "two", over=lease.epoch))
    assert after.left is not None
    assert after.left.files == [{"name": "a.txt"}]
    await after.aclose()


async def test_who_has_lost_the_lease_leaves_nothing() -> None:
    state = Memory()
    old = await Keeper.open(state, lease := await claimed(state))
    new = await Keeper.open(state, await claimed(state, "two", over=lease.epoch))
    new.note(question="new")
    await new.aclose()
    old.note(question="old")
    await old.aclose()
    assert (await state.load("room") or {})["question"] == "new"


async def test_a_state_that_is_away_costs_the_call_nothing() -> None:
    class Away:
        def __getattr__(self, name: str) -> Any:
            async def fail(*args: Any) -> Any:
                raise Unavailable("away")

            return fail

    keeper = await Keeper.open(cast(State, Away()), Lease("room", "one", "d", 1, 10.0))
    keeper.note(question="kept nowhere")
    keeper.begin()
    keeper.speaking(b"\0\0")
    await keeper.aclose()
    assert keeper.left is None
