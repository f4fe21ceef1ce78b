"""Typed messages that are sent again, because nobody was there or somebody may not have been."""

from __future__ import annotations

from types import SimpleNamespace
from typing import Any, cast

import pytest
from livekit.agents import AgentSession, llm
from livekit.agents.voice import room_io

from agent.adapters import LanguageModel, Voice
from agent.continuity import Continuity
from agent.keeper import Keeper
from agent.mouth import Mouth
from agent.state.memory import Memory

pytestmark = pytest.mark.unit


class FakeSession:
    """Takes typed messages into its history at once."""

    def __init__(self) -> None:
        self.history = llm.ChatContext.empty()
        self.told: list[str] = []


async def opened(state: Memory, over: int | None = None) -> tuple[Continuity, FakeSession, Keeper]:
    lease = await state.claim("room", f"after {over}", "dispatcher", 10.0, over=over)
    assert lease is not None
    keeper, session = await Keeper.open(state, lease), FakeSession()
    model = cast(LanguageModel, SimpleNamespace(called=False))
    continuity = Continuity(keeper, cast("AgentSession[None]", session), model, cast(Voice, None), cast(Mouth, None))
    return continuity, session, keeper


@pytest.fixture(autouse=True)
def taken(monkeypatch: pytest.MonkeyPatch) -> None:
    async def take(session: Any, message: room_io.TextInputEvent) -> None:
        session.told.append(message.text)
        session.history.add_message(role="user", content=message.text)

    monkeypatch.setattr("agent.continuity._take", take)


async def typed(to: tuple[Continuity, FakeSession, Keeper], text: str, name: str, who: str = "ada") -> None:
    continuity, session, _ = to
    info = SimpleNamespace(attributes={"parley.message": name} if name else None)
    message = cast(Any, SimpleNamespace(text=text, info=info, participant=SimpleNamespace(identity=who)))
    before = len(session.told)
    await continuity.typed(cast("AgentSession[None]", session), message)
    if len(session.told) > before:
        continuity.said(session.history.items[-1])


async def test_the_next_replica_knows_which_typed_messages_were_taken() -> None:
    state = Memory()
    first = await opened(state)
    await typed(first, "one", "typed-1")
    await typed(first, "one", "typed-1")
    assert first[1].told == ["one"]
    await first[2].aclose()
    second = await opened(state, over=1)
    await typed(second, "one", "typed-1")
    await typed(second, "two", "typed-2")
    await typed(second, "one", "typed-1", who="bert")
    assert second[1].told == ["two", "one"], "ids are their sender's own"
    await second[2].aclose()


async def test_messages_without_an_id_are_all_taken() -> None:
    only = await opened(Memory())
    await typed(only, "yes", "")
    await typed(only, "yes", "")
    assert only[1].told == ["yes", "yes"]
    await only[2].aclose()
