"""What an agent tells those who follow its call: gathered, never waited for, ended once."""

from __future__ import annotations

import asyncio
from collections.abc import Sequence
from typing import Any

import pytest

from agent import events, live
from agent.live import TENANT, Live, tenant_of
from agent.state import Record
from agent.state.memory import Memory
from serve.errors import Unavailable

pytestmark = [pytest.mark.unit, pytest.mark.timeout(20)]


class CountingState(Memory):
    """Memory that says how often events were published, and may be away."""

    def __init__(self) -> None:
        super().__init__()
        self.published: list[list[Record]] = []
        self.away = False
        self.news = asyncio.Event()
        self.begun = asyncio.Event()
        self.may_go_on = asyncio.Event()
        self.may_go_on.set()

    async def publish(self, call: str, events: Sequence[Record]) -> None:
        if self.away:
            raise Unavailable("away")
        self.begun.set()
        await self.may_go_on.wait()
        self.published.append(list(events))
        self.news.set()
        await super().publish(call, events)


@pytest.fixture
def state(monkeypatch: pytest.MonkeyPatch) -> CountingState:
    monkeypatch.setattr(live, "GATHER_SECONDS", 0.01)
    return CountingState()


def heard(text: str, *, final: bool = False) -> events.Event:
    about: dict[str, Any] = {"call": "room", "time": 1.0, "sequence": 1}
    return events.UserInputTranscribed(**about, transcript=text, is_final=final, language="en")


def event(kind: type[events.Event], **fields: Any) -> events.Event:
    return kind(call="room", time=1.0, sequence=1, **fields)


async def told(state: CountingState) -> list[Record]:
    return [each for _, each in await state.live("room")]


async def test_what_comes_together_goes_together_and_captions_that_grew_go_once(state: CountingState) -> None:
    follower = Live(state, "room", '{"tenant": "ten_1", "assistant": "sales"}')
    for text in ("a", "a b", "a b c"):
        follower.hear(heard(text))
    follower.hear(event(events.AgentStateChanged, old_state="listening", new_state="thinking"))
    await state.news.wait()
    assert len(state.published) == 1
    caption, changed = await told(state)
    assert (caption["who"], caption["text"], caption["final"]) == ("caller", "a b c", False)
    assert (changed["type"], changed["assistant"], changed["caller"]) == ("state", "thinking", "listening")
    (now,) = await state.living()
    assert (now["tenant"], now["assistant"], now["assistant_state"]) == ("ten_1", "sales", "thinking")
    await follower.aclose()


async def test_the_assistants_captions_grow_with_what_is_heard(state: CountingState) -> None:
    follower = Live(state, "room")
    captions = follower.captions
    await captions.capture_text("We open ")
    await captions.capture_text("at nine.")
    captions.flush()
    captions.flush()
    await captions.capture_text("Bye.")
    await follower.aclose()
    assert [(each["text"], each["final"]) for each in await told(state)] == [
        ("We open at nine.", True),
        ("Bye.", False),
    ]


@pytest.mark.parametrize(("reason", "over"), [("caller left", True), ("moved", False)])
async def test_a_call_ends_for_followers_only_where_it_goes_on_nowhere(
    state: CountingState, reason: str, over: bool
) -> None:
    follower = Live(state, "room")
    follower.hear(event(events.Cleanup, reason=reason, seconds=1.0))
    await follower.aclose()
    (last,) = await told(state)
    assert (last["type"] == "ended") is over
    assert bool(await state.living()) is not over


async def test_an_end_that_is_on_its_way_when_the_call_is_freed_arrives(state: CountingState) -> None:
    follower = Live(state, "room")
    state.may_go_on.clear()
    follower.hear(event(events.Cleanup, reason="caller left", seconds=1.0))
    await state.begun.wait()
    closing = asyncio.create_task(follower.aclose())
    await asyncio.sleep(0)  # it waits for what is on its way
    state.may_go_on.set()
    await closing
    assert [each["type"] for each in await told(state)] == ["ended"]
    assert not await state.living()


async def test_nothing_is_told_after_the_end(state: CountingState) -> None:
    follower = Live(state, "room")
    follower.hear(event(events.Cleanup, reason="caller left", seconds=1.0))
    follower.hear(heard("late", final=True))
    await follower.aclose()
    assert [each["type"] for each in await told(state)] == ["ended"]


async def test_words_are_in_captions_and_turns_alone(state: CountingState) -> None:
    follower = Live(state, "room")
    follower.hear(event(events.Turn, turn={"turn": 1, "heard": "secret?", "answer": "no"}))
    follower.hear(event(events.ConversationItemAdded, role="user", interrupted=False))
    follower.hear(event(events.ActiveSpeakersChanged, identities=("a",)))
    await follower.aclose()
    assert [each["type"] for each in await told(state)] == ["turn", "event"]


async def test_a_state_that_is_away_costs_followers_what_was_said_meanwhile(state: CountingState) -> None:
    follower = Live(state, "room")
    state.away = True
    follower.hear(heard("lost", final=True))
    async with asyncio.timeout(5):
        while follower._waiting:  # pyright: ignore[reportPrivateUsage]  # noqa: ASYNC110
            await asyncio.sleep(0.01)
    state.away = False
    follower.hear(heard("seen", final=True))
    await state.news.wait()
    await follower.aclose()
    assert [each["text"] for each in await told(state)] == ["seen"]


@pytest.mark.parametrize(
    ("metadata", "attributes", "tenant"),
    [
        ('{"tenant": "ten_1"}', {TENANT: "ten_2"}, "ten_1"),
        ("", {TENANT: "ten_2"}, "ten_2"),
        ("not json", {TENANT: "ten_2"}, "ten_2"),
        ("[]", {}, ""),
        ('{"tenant": 5}', {}, ""),
    ],
)
def test_the_dispatch_says_whose_call_it_is_else_the_callers_token(
    metadata: str, attributes: dict[str, str], tenant: str
) -> None:
    assert tenant_of(metadata, attributes) == tenant
