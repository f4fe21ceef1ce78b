"""A call that breaks every replica that takes it is given up, and its caller told."""

from __future__ import annotations

from collections.abc import AsyncGenerator
from contextlib import asynccontextmanager
from dataclasses import dataclass, field
from typing import Any

import pytest

from agent import carrier
from agent.carrier import MOST_LOSSES, Carrier, Reservation
from agent.config import AgentConfig, CallRequest
from agent.state.memory import Memory

pytestmark = [pytest.mark.unit, pytest.mark.timeout(20)]

REQUEST = CallRequest("job", "room", "ws://127.0.0.1:1", "token", "agent-job")


@dataclass
class FakeLiveKit:
    """Notes who is taken out of a room, and what a room is told."""

    removed: list[str] = field(default_factory=list[str])
    told: list[str] = field(default_factory=list[str])

    @property
    def room(self) -> FakeLiveKit:
        return self

    async def remove_participant(self, who: Any) -> None:
        self.removed.append(who.identity)

    async def update_room_metadata(self, request: Any) -> None:
        self.told.append(request.metadata)


@dataclass(frozen=True)
class FakeSelection:
    replica_id: str


class FakeStream:
    """A call's events on one replica, and its end."""

    def __init__(self, events: AsyncGenerator[dict[str, Any]]) -> None:
        self._events = events

    def __aiter__(self) -> AsyncGenerator[dict[str, Any]]:
        return self._events

    def cancel(self) -> None:
        """Nothing to cancel."""


class FakeAgents:
    """Replicas that claim a call; each does what the list says of it: "breaks", "moves" or "ends"."""

    def __init__(self, state: Memory, fates: list[str]) -> None:
        self.requests: list[CallRequest] = []
        self._state, self._fates = state, fates

    def options(self, **_: Any) -> FakeAgents:
        return self

    @asynccontextmanager
    async def choose_replica(self) -> AsyncGenerator[FakeSelection]:
        yield FakeSelection(f"replica-{len(self.requests)}")

    def dispatch(self, selection: FakeSelection, request: CallRequest) -> FakeStream:
        self.requests.append(request)
        return FakeStream(self._carry(selection.replica_id, request, self._fates.pop(0)))

    async def _carry(self, replica: str, request: CallRequest, fate: str) -> AsyncGenerator[dict[str, Any]]:
        lease = await self._state.claim(request.room, replica, request.dispatcher, 10.0, over=request.over)
        assert lease is not None
        yield {"type": "claimed", "epoch": lease.epoch, "identity": request.identity}
        if fate == "breaks":
            await self._state.save(lease, {"history": []}, 60.0)
            raise RuntimeError("the process is gone")
        await self._state.release(lease)
        yield {"type": "cleanup", "reason": "moved" if fate == "moves" else "caller left"}


@pytest.fixture
def livekit(monkeypatch: pytest.MonkeyPatch) -> FakeLiveKit:
    fake = FakeLiveKit()

    @asynccontextmanager
    async def livekit_api() -> AsyncGenerator[FakeLiveKit]:
        yield fake

    monkeypatch.setattr(carrier, "livekit_api", livekit_api)
    monkeypatch.setattr(carrier, "PAUSE_SECONDS", 0.001)
    monkeypatch.setattr(carrier, "agent_token", lambda *_: "token")
    return fake


async def carried(state: Memory, *fates: str) -> tuple[str, FakeAgents]:
    agents = FakeAgents(state, list(fates))
    holder = Carrier("dispatcher", AgentConfig(), state, lambda: None)
    holder.agents = agents
    first: Reservation | None = await holder.reserve(1.0)
    assert first is not None
    outcome = await holder.carry(REQUEST, first)
    assert not holder.held
    return outcome, agents


async def test_a_call_that_breaks_every_replica_is_given_up_and_told(livekit: FakeLiveKit) -> None:
    state = Memory()
    outcome, agents = await carried(state, *["breaks"] * 20)
    assert outcome == "given up"
    assert len(agents.requests) == MOST_LOSSES + 1
    assert livekit.removed == [each.identity for each in agents.requests], "no ghost is left in the room"
    assert livekit.told == ['{"parley": {"status": "failed"}}']
    # Neither a lease that has run out nor a record brings it back.
    assert await state.leases() == []
    assert await state.load("room") is None


async def test_a_call_that_breaks_some_replicas_goes_on(livekit: FakeLiveKit) -> None:
    outcome, agents = await carried(Memory(), *["breaks"] * MOST_LOSSES, "ends")
    assert outcome == "ended"
    assert [each.over for each in agents.requests] == [None, 1, 2, 3, 4, 5]
    assert livekit.told == []


async def test_moves_are_no_losses(livekit: FakeLiveKit) -> None:
    outcome, agents = await carried(Memory(), *["moves"] * 3 * MOST_LOSSES, "ends")
    assert outcome == "ended"
    assert len(agents.requests) == 3 * MOST_LOSSES + 1
    assert livekit.removed == [], "who moves has left by itself"
