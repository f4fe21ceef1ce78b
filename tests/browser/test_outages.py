"""Browser: what a person sees when the call server is started again, and that they see nothing of a planned move."""

from __future__ import annotations

import asyncio
import base64
import json

import pytest
from playwright.async_api import Response, expect

from tests.chaos.watch import process
from tests.conftest import Parley
from tests.room.doors import Door, has

from .conftest import SAY_MS, OpenPage

pytestmark = [pytest.mark.apart, pytest.mark.browser, pytest.mark.timeout(150)]


def room_of(token: str) -> str:
    """Return the room that a token is for."""
    claims = token.split(".")[1]
    return json.loads(base64.urlsafe_b64decode(claims + "=" * (-len(claims) % 4)))["video"]["room"]


async def test_the_call_server_is_started_again_and_the_assistant_moves(open_page: OpenPage, parley: Parley) -> None:
    rooms: list[str] = []

    async def note(response: Response) -> None:
        if "/api/v1/token" in response.url:
            rooms.append(room_of((await response.json())["participant_token"]))

    caller = await open_page(prepare=lambda page: page.on("response", note))
    caller.expect_complaints("ebsocket", "signal", "reconnect", "ERR_CONNECTION")
    await caller.talking()
    process(parley, "livekit-server").kill()
    await expect(caller.alert).to_contain_text("coming back")
    await caller.there()
    await expect(caller.alert).to_be_empty()
    assert len(rooms) == 1, "the same call"
    door = Door(parley)
    door.room = rooms[0]
    await expect(caller.state).to_have_text("Listening", timeout=SAY_MS)
    await door.move()
    # Typed while nobody is there; and nothing on the page says that anything is wrong.
    await door.until(has("call_moved"))
    await caller.write("What is your name?")
    for _ in range(20):
        await expect(caller.alert).to_be_empty()
        await asyncio.sleep(0.1)  # as long as a move may take
    await expect(caller.answered).to_have_count(1, timeout=SAY_MS)
    await door.until(lambda events: sum(each["type"] == "process" for each in events) == 2)
    heard = [each["turn"]["heard"] for each in door.events() if each["type"] == "turn"]
    assert heard == ["What is your name?"], "answered once"
