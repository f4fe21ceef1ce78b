"""Rooms of a test's own: tokens signed by the test, and what the agent recorded there."""

from __future__ import annotations

import asyncio
import json
import uuid
from collections.abc import Callable
from typing import Any, Literal

from livekit import api
from livekit.protocol.agent_dispatch import RoomAgentDispatch
from livekit.protocol.room import RoomConfiguration

from agent.carrier import MOVE_TOPIC
from cluster.robot import Access
from tests.conftest import Parley

Event = dict[str, Any]


class Door:
    """The way into one room, into which the agent is dispatched with the first caller."""

    def __init__(self, parley: Parley, prefix: str = "door-") -> None:
        self.room = f"{prefix}{uuid.uuid4().hex[:8]}"
        self._parley = parley

    def access(
        self,
        identity: str,
        *,
        kind: Literal["standard", "sip", "egress"] = "standard",
        attributes: dict[str, str] | None = None,
        metadata: str = "",
        first: bool = True,
    ) -> Access:
        """Return the way in for one participant; `first`: the agent is to come."""
        keys = self._parley.keys
        grants = api.VideoGrants(room_join=True, room=self.room, can_update_own_metadata=True)
        token = api.AccessToken(keys.key, keys.secret).with_identity(identity).with_kind(kind).with_grants(grants)
        token = token.with_attributes(attributes or {})
        if first:
            dispatch = RoomAgentDispatch(agent_name="parley", metadata=metadata)
            token = token.with_room_config(
                RoomConfiguration(name=self.room, empty_timeout=20, departure_timeout=5, agents=[dispatch])
            )

        async def enter() -> tuple[str, str]:
            return self._parley.addresses["livekit"] or "", token.to_jwt()

        return enter

    async def dispatch(self) -> None:
        """Send the agent into the room that is there."""
        async with self._livekit() as livekit:
            await livekit.agent_dispatch.create_dispatch(
                api.CreateAgentDispatchRequest(agent_name="parley", room=self.room)
            )

    async def move(self) -> None:
        """Ask the agent to let the call go, as a dispatcher does whose replicas are about to end."""
        async with self._livekit() as livekit:
            packet = api.SendDataRequest(
                room=self.room, data=b"{}", kind=api.DataPacket.Kind.RELIABLE, topic=MOVE_TOPIC
            )
            await livekit.room.send_data(packet)

    def _livekit(self) -> api.LiveKitAPI:
        url = (self._parley.addresses["livekit"] or "").replace("ws://", "http://")
        return api.LiveKitAPI(url, self._parley.keys.key, self._parley.keys.secret)

    def events(self) -> list[Event]:
        """Return what the agent has recorded so far, as a hook was told it."""
        return [each for each in _lines(self._parley, "events.jsonl") if each["call"] == self.room]

    def records(self) -> list[Event]:
        """Return what the backend was told so far."""
        return [each for each in _lines(self._parley, "records.jsonl") if each["call"] == self.room]

    async def until(self, ready: Callable[[list[Event]], bool], seconds: float = 15) -> list[Event]:
        """Wait until the events are so; return them."""
        try:
            async with asyncio.timeout(seconds):
                while not ready(self.events()):  # noqa: ASYNC110  # another process writes them
                    await asyncio.sleep(0.1)
        except TimeoutError:
            raise AssertionError([each["type"] for each in self.events()]) from None
        return self.events()


def has(kind: str, **fields: Any) -> Callable[[list[Event]], bool]:
    """Say whether there is an event of a type, with these values."""
    return lambda events: any(matches(each, kind, fields) for each in events)


def matches(event: Event, kind: str, fields: dict[str, Any]) -> bool:
    return event["type"] == kind and all(event.get(name) == value for name, value in fields.items())


def _lines(parley: Parley, name: str) -> list[Event]:
    path = parley.home / name
    text = path.read_text() if path.exists() else ""
    return [json.loads(line) for line in text[: text.rfind("\n") + 1].splitlines()]
