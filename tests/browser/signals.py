"""LiveKit's signal connection held in the test's hand: cut it, refuse it, or say what a server would say."""

from __future__ import annotations

import asyncio
import json
import re

from livekit.protocol import models, rtc
from playwright.async_api import Page, WebSocketRoute

SIGNAL = re.compile(r"/rtc(/v\d+)?(\?|$)")


class SignalWire:
    """Between the page and livekit-server. Install it before the page is opened."""

    def __init__(self, hold_agents: bool = False) -> None:
        self.refusing = False
        self.opened = 0
        self._hold_agents = hold_agents
        self._held: list[bytes] = []
        self._page_side: WebSocketRoute | None = None
        self._server_side: WebSocketRoute | None = None

    async def install(self, page: Page) -> None:
        await page.route_web_socket(SIGNAL, self._route)

    async def _route(self, page_side: WebSocketRoute) -> None:
        if self.refusing:
            # Opened, then closed, as a proxy with nothing behind it does.
            asyncio.get_running_loop().call_later(0.05, lambda: asyncio.ensure_future(page_side.close(code=1011)))
            return
        self.opened += 1
        self._page_side = page_side
        server_side = page_side.connect_to_server()
        self._server_side = server_side
        page_side.on_message(server_side.send)
        server_side.on_message(self._from_server)

    def _from_server(self, message: str | bytes) -> None:
        if self._page_side is None:
            return
        if self._hold_agents and isinstance(message, bytes):
            passed, held = without_agents(message)
            self._held += held
        else:
            passed = message
        if passed is not None:
            self._page_side.send(passed)

    async def cut(self) -> None:
        assert self._page_side is not None
        assert self._server_side is not None
        await self._server_side.close(code=3001, reason="cut by the test")
        await self._page_side.close(code=3001, reason="cut by the test")

    def release_agents(self) -> None:
        self._hold_agents = False
        for message in self._held:
            self._say(message)
        self._held.clear()

    def remove_caller(self) -> None:
        """What livekit-server says to a participant whom its API removes."""
        leave = rtc.LeaveRequest(
            action=rtc.LeaveRequest.Action.DISCONNECT, reason=models.DisconnectReason.PARTICIPANT_REMOVED
        )
        self._say(rtc.SignalResponse(leave=leave).SerializeToString())

    def room_metadata(self, metadata: dict[str, object]) -> None:
        room = models.Room(metadata=json.dumps(metadata))
        self._say(rtc.SignalResponse(room_update=rtc.RoomUpdate(room=room)).SerializeToString())

    def _say(self, message: bytes) -> None:
        assert self._page_side is not None
        self._page_side.send(message)


def without_agents(message: bytes) -> tuple[bytes | None, list[bytes]]:
    """What the page may see now, and the updates that bring agents, for later."""
    response = rtc.SignalResponse.FromString(message)
    if response.HasField("update"):
        brings = any(is_agent(person) for person in response.update.participants)
        return (None, [message]) if brings else (message, [])
    if not response.HasField("join"):
        return message, []
    people = list(response.join.other_participants)
    agents = [person for person in people if is_agent(person)]
    if not agents:
        return message, []
    del response.join.other_participants[:]
    response.join.other_participants.extend(person for person in people if not is_agent(person))
    update = rtc.SignalResponse(update=rtc.ParticipantUpdate(participants=agents))
    return response.SerializeToString(), [update.SerializeToString()]


def is_agent(person: models.ParticipantInfo) -> bool:
    return person.kind == models.ParticipantInfo.Kind.AGENT
