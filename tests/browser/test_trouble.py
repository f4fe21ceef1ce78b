"""Browser: what goes wrong is told in a person's words, with the way out."""

from __future__ import annotations

import json

import pytest
from playwright.async_api import Page, Route, expect

from .conftest import SAY_MS, STEP_MS, OpenPage
from .signals import SignalWire

pytestmark = [pytest.mark.browser, pytest.mark.timeout(150)]

TOKEN = "**/api/v1/token"


async def test_a_refused_microphone_leaves_the_keyboard(open_page: OpenPage) -> None:
    caller = await open_page("refused")
    await caller.start()
    await expect(caller.alert).to_contain_text("Your microphone is blocked for this page")
    await expect(caller.alert).to_contain_text("Click the lock beside the address")
    await caller.there()
    await caller.shot("microphone-refused")
    await caller.write("Hello")
    await expect(caller.answered).to_be_visible(timeout=SAY_MS)


async def test_a_microphone_allowed_later_is_used(open_page: OpenPage) -> None:
    caller = await open_page("refused", size=(390, 844))
    await caller.start()
    await expect(caller.button("Try the microphone again")).to_be_visible()
    await caller.there()
    await caller.page.context.grant_permissions(["microphone"])
    await caller.button("Try the microphone again").click()
    await expect(caller.button("Mute")).to_be_visible()
    await expect(caller.alert).to_be_empty()


async def test_an_absent_microphone_leaves_the_keyboard(open_page: OpenPage) -> None:
    caller = await open_page("absent", scheme="dark")
    await caller.start()
    await expect(caller.alert).to_contain_text("No microphone was found")
    await caller.there()
    await caller.shot("microphone-absent")
    await caller.write("Hello")
    await expect(caller.answered).to_be_visible(timeout=SAY_MS)


async def test_a_refusal_is_told_in_the_servers_words(open_page: OpenPage) -> None:
    caller = await open_page(size=(390, 844))
    caller.expect_complaints("503")
    problem = {"title": "Parley is still starting", "detail": "Its models are loading.", "status": 503}

    async def refuse(route: Route) -> None:
        await route.fulfill(status=503, content_type="application/problem+json", body=json.dumps(problem))

    await caller.page.route(TOKEN, refuse)
    await caller.start()
    await expect(caller.alert).to_contain_text("Parley is still starting")
    await expect(caller.alert).to_contain_text("Its models are loading.")
    await caller.shot("refused-by-server")
    await caller.page.unroute(TOKEN)
    await caller.button("Try again").click()
    await caller.there()
    await expect(caller.alert).to_be_empty()


async def test_no_server_is_said(open_page: OpenPage) -> None:
    caller = await open_page()
    caller.expect_complaints("net::ERR")
    await caller.page.route(TOKEN, lambda route: route.abort("connectionrefused"))
    await caller.start()
    await expect(caller.alert).to_contain_text("Parley does not answer")
    await expect(caller.button("Try again")).to_be_visible()


async def test_a_cut_connection_comes_back_by_itself(open_page: OpenPage) -> None:
    wire = SignalWire()
    caller = await open_page(prepare=wire.install)
    caller.expect_complaints("ebsocket", "signal", "reconnect")
    await caller.talking()
    wire.refusing = True
    await wire.cut()
    await expect(caller.alert).to_contain_text("The connection broke: coming back")
    await expect(caller.state).to_have_text("Coming back")
    await caller.shot("coming-back")
    wire.refusing = False
    await caller.there()
    await expect(caller.alert).to_be_empty()
    assert wire.opened >= 2


async def test_a_lost_room_is_called_again(open_page: OpenPage) -> None:
    tokens: list[str] = []
    wire = SignalWire()

    async def prepare(page: Page) -> None:
        await wire.install(page)
        page.on("request", lambda request: tokens.append(request.url) if "/api/v1/token" in request.url else None)

    caller = await open_page(prepare=prepare)
    await caller.talking()
    await caller.button("Mute").click()
    assert len(tokens) == 1
    wire.remove_caller()
    await expect(caller.alert).to_contain_text("coming back")
    await caller.there()
    assert len(tokens) == 2
    await expect(caller.button("Unmute")).to_be_visible()


async def test_busy_lines_are_waited_for(open_page: OpenPage) -> None:
    wire = SignalWire(hold_agents=True)
    caller = await open_page(prepare=wire.install, scheme="dark")
    caller.expect_complaints("participant", "track")
    await caller.start()
    await expect(caller.state).to_have_text("Waiting for the assistant")
    wire.room_metadata({"parley": {"status": "busy", "position": 2}})
    await expect(caller.alert).to_contain_text("All lines are busy: we ring as soon as one is free")
    await expect(caller.alert).to_contain_text("You are number 2 in line")
    await expect(caller.state).to_have_text("In line")
    await caller.shot("busy")
    wire.room_metadata({"parley": {"status": "busy", "position": 1}})
    await expect(caller.alert).to_contain_text("You are next")
    await caller.button("Stop waiting").click()
    await expect(caller.state).to_have_text("Call ended")


async def test_a_free_line_rings(open_page: OpenPage) -> None:
    wire = SignalWire(hold_agents=True)
    caller = await open_page(prepare=wire.install)
    caller.expect_complaints("participant", "track")
    await caller.start()
    await expect(caller.state).to_have_text("Waiting for the assistant")
    wire.room_metadata({"parley": {"status": "busy", "position": 1}})
    await expect(caller.state).to_have_text("In line")
    wire.room_metadata({"parley": {"status": "answered"}})
    wire.release_agents()
    await caller.there()
    await expect(caller.alert).to_be_empty()


async def test_an_assistant_who_does_not_come_is_not_hidden(open_page: OpenPage) -> None:
    wire = SignalWire(hold_agents=True)
    caller = await open_page(prepare=wire.install, size=(390, 844))
    caller.expect_complaints("participant", "track")
    await caller.start()
    await expect(caller.alert).to_contain_text("no assistant has come", timeout=STEP_MS)
    await expect(caller.state).to_have_text("Nobody there")
    await caller.shot("nobody-there")
    wire.room_metadata({"parley": {"status": "failed"}})
    await expect(caller.alert).to_contain_text("This call cannot go on")
    wire.release_agents()
    await caller.there()
