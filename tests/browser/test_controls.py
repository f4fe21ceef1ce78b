"""Browser: every control works, by pointer and by keyboard."""

from __future__ import annotations

import pytest
from playwright.async_api import expect

from .conftest import OpenPage

pytestmark = [pytest.mark.browser, pytest.mark.timeout(120)]

MICROPHONE_IS_LIVE = "() => window.microphones.some((track) => track.readyState === 'live')"
KEEP_MICROPHONES = """
  window.microphones = [];
  const open = navigator.mediaDevices.getUserMedia.bind(navigator.mediaDevices);
  navigator.mediaDevices.getUserMedia = async (wanted) => {
    const stream = await open(wanted);
    window.microphones.push(...stream.getAudioTracks());
    return stream;
  };
"""


async def test_mute_by_button_and_by_space(open_page: OpenPage) -> None:
    caller = await open_page()
    await caller.talking()
    await caller.button("Mute").click()
    await expect(caller.button("Unmute")).to_be_visible()
    await expect(caller.state).to_have_text("Muted", timeout=15_000)
    await caller.button("Unmute").click()
    await expect(caller.button("Mute")).to_be_visible()

    await caller.page.get_by_role("log").focus()
    await caller.page.keyboard.press("Space")
    await expect(caller.button("Unmute")).to_be_visible()
    await caller.page.keyboard.press("Space")
    await expect(caller.button("Mute")).to_be_visible()


async def test_space_held_while_muted_is_push_to_talk(open_page: OpenPage) -> None:
    caller = await open_page()
    await caller.talking()
    await caller.page.keyboard.press("Space")
    await expect(caller.button("Unmute")).to_be_visible()
    await caller.page.keyboard.down("Space")
    await expect(caller.button("Mute")).to_be_visible()
    await caller.page.wait_for_timeout(500)
    await caller.page.keyboard.up("Space")
    await expect(caller.button("Unmute")).to_be_visible()


async def test_space_starts_and_escape_ends(open_page: OpenPage) -> None:
    caller = await open_page(prepare=lambda page: page.add_init_script(KEEP_MICROPHONES))
    await caller.page.keyboard.press("Space")
    await caller.there()
    await caller.page.wait_for_function(MICROPHONE_IS_LIVE, timeout=5000)
    await caller.page.keyboard.press("Escape")
    await expect(caller.state).to_have_text("Call ended")
    await caller.page.wait_for_function(f"() => !({MICROPHONE_IS_LIVE})()", timeout=5000)


async def test_space_and_escape_while_typing_are_for_the_text(open_page: OpenPage) -> None:
    caller = await open_page()
    await caller.talking()
    await caller.button("Keyboard").click()
    await expect(caller.message).to_be_focused()
    await caller.message.press_sequentially("one two")
    await expect(caller.message).to_have_value("one two")
    await expect(caller.button("Mute")).to_be_visible()
    await caller.message.press("Escape")
    await expect(caller.message).to_have_count(0)
    await caller.there()


async def test_devices_can_be_chosen(open_page: OpenPage) -> None:
    caller = await open_page()
    await caller.talking()
    await caller.button("Devices").click()
    menu = caller.page.get_by_role("dialog", name="Devices")
    choices = menu.get_by_role("group", name="Microphone").get_by_role("radio")
    await expect(choices.nth(1)).to_be_visible()
    await expect(choices.first).to_be_checked()
    await choices.nth(1).check()
    await expect(choices.nth(1)).to_be_checked()
    await caller.shot("devices")
    await caller.page.keyboard.press("Escape")
    await expect(menu).to_have_count(0)
    await expect(caller.button("Devices")).to_be_focused()
    await caller.there()


async def test_the_whole_page_works_by_keyboard(open_page: OpenPage) -> None:
    caller = await open_page()
    press = caller.page.keyboard.press
    await press("Tab")
    await expect(caller.button("Start talking")).to_be_focused()
    await press("Enter")
    await caller.there()
    seen: list[str] = []
    for _ in range(6):
        await press("Tab")
        seen.append(await caller.page.evaluate("document.activeElement.innerText || document.activeElement.ariaLabel"))
    assert [name.strip() for name in seen[-5:]] == ["Mute", "Keyboard", "File", "Devices", "End call"]
    await press("Enter")
    await expect(caller.state).to_have_text("Call ended")


async def test_end_gives_the_microphone_back(open_page: OpenPage) -> None:
    caller = await open_page(prepare=lambda page: page.add_init_script(KEEP_MICROPHONES))
    await caller.talking()
    await caller.button("End call").click()
    await expect(caller.state).to_have_text("Call ended")
    await caller.page.wait_for_function(f"() => !({MICROPHONE_IS_LIVE})()", timeout=5000)
