"""Console: calls as they go on and as they were, before a database that the test filled; no cluster."""

from __future__ import annotations

import json
import re
import time
from collections.abc import AsyncGenerator
from typing import Any
from urllib.parse import parse_qs, urlsplit

import httpx
import pytest
import pytest_asyncio
from playwright.async_api import Locator, Page, expect

from api.db.types import now

from .console import TOLD, Console, bulk, calls, console, many

pytestmark = [pytest.mark.browser, pytest.mark.timeout(120), pytest.mark.asyncio(loop_scope="module")]

MANY = 100_000
LIVE = "call-live"
TIMES = [
    "End of turn430 ms",
    "Speech to text220 ms",
    "First word150 ms",
    "First sound80 ms",
    "From the caller’s last word to the first sound680 ms",
]
PAINTED = "() => new Promise((done) => requestAnimationFrame(() => setTimeout(done, 20)))"
LOADED = "() => performance.getEntriesByType('resource').map((entry) => entry.name)"
INDICES = "(rows) => rows.map((row) => Number(row.dataset.index))"


@pytest.fixture
def lines_are_free() -> None:
    """Nobody calls here: there is no cluster."""


@pytest_asyncio.fixture(scope="module", loop_scope="module")
async def here(tmp_path_factory: pytest.TempPathFactory) -> AsyncGenerator[Console]:
    async with console(tmp_path_factory.mktemp("console")) as opened:
        yield opened


def asked(page: Page) -> dict[str, list[str]]:
    return parse_qs(urlsplit(page.url).query)


def past(page: Page) -> Locator:
    return page.get_by_role("region", name="Past calls").get_by_role("listitem")


async def test_filters_stand_in_the_address(here: Console) -> None:
    async with here.visit("/console/calls?assistant=orders") as page:
        await expect(past(page).first).to_be_visible()
        assert set(await page.locator(".cell-assistant").all_inner_texts()) == {"orders"}
        await page.get_by_role("combobox", name="By", exact=True).select_option("Phone")
        await page.get_by_role("searchbox", name="Caller").fill("Grace")
        await expect(page).to_have_url(re.compile("caller=Grace"))
        assert asked(page) == {"assistant": ["orders"], "medium": ["sip"], "caller": ["Grace"]}
        await expect(page.locator(".cell-caller").first).to_have_text("Grace Phone")
        await expect(page.get_by_role("region", name="Past calls")).to_have_attribute("aria-busy", "false")
        shown = await page.locator(".cell-caller").all_inner_texts()
        assert set(shown) == {"Grace Phone"}
        await page.reload()
        await expect(page.locator(".cell-caller").first).to_have_text("Grace Phone")
        assert await page.locator(".cell-caller").all_inner_texts() == shown
        await page.get_by_role("searchbox", name="Caller").fill("nobody of this name")
        await expect(page.get_by_role("heading", name="No call is like this")).to_be_visible()
        await page.get_by_role("button", name="Clear").click()
        await expect(past(page).first).to_be_visible()
        assert asked(page) == {}


async def test_a_call_shows_its_words_beside_its_times(here: Console) -> None:
    async with here.visit("/console/calls") as page:
        await past(page).filter(has_text="Ada Lovelace").get_by_role("link").click()
        await expect(page).to_have_url(re.compile(f"/console/calls/{TOLD}$"))
        turns = page.locator(".turns").get_by_role("listitem").filter(has=page.locator(".turn-meta"))
        await expect(turns).to_have_count(6)
        first, third, fourth, fifth = (turns.nth(number) for number in (0, 2, 3, 4))
        await expect(first).to_contain_text("When do you open on Saturday?")
        await expect(first).to_contain_text("We open at nine on Saturdays.")
        await expect(first.get_by_text(re.compile("Language model: llm-small, Voice: tts-small"))).to_be_visible()
        await expect(first.locator(".turn-cost")).to_have_text("€0.50")
        await expect(third.locator(".turn-cost")).to_have_count(0)
        stages = first.locator(".turn-times ol").get_by_role("listitem")
        await expect(stages).to_have_text(TIMES)
        await expect(third.get_by_text("Interrupted")).to_be_visible()
        await expect(fourth.get_by_text("1 retry")).to_be_visible()
        await expect(fourth).to_contain_text("fell back to")
        await expect(fifth.get_by_text("No answer")).to_be_visible()
        await expect(page.locator(".facts")).to_contain_text("0.8 s")
        await expect(page.get_by_role("region", name="Models and cost")).to_contain_text("llm-small")
        await page.locator(".events summary").click()
        await expect(page.locator(".event-list").get_by_role("listitem")).to_have_count(3)
        await page.get_by_role("combobox", name="Show").select_option("track_subscribed")
        await expect(page.locator(".event-list").get_by_role("listitem")).to_have_count(1)
        kinds = {"text": "text/plain", "WebVTT": "text/vtt", "JSON": "application/json"}
        async with httpx.AsyncClient(base_url=here.base) as http:
            for name, kind in kinds.items():
                address = await page.get_by_role("link", name=name, exact=True).get_attribute("href")
                answer = await http.get(str(address))
                assert answer.status_code == 200, answer.text
                assert answer.headers["content-type"].startswith(kind)
                assert "parking near the shop" in answer.text


async def test_deleting_a_call_is_asked_for(here: Console) -> None:
    gone = "call-000000000003"
    async with here.visit(f"/console/calls/{gone}") as page:
        ask = page.get_by_role("dialog", name="Delete this call?")
        opener = page.get_by_role("button", name="Delete")
        await opener.click()
        await ask.get_by_role("button", name="Cancel").click()
        await expect(ask).to_be_hidden()
        await expect(opener).to_be_focused()
        await opener.click()
        await ask.get_by_role("button", name="Delete").click()
        await expect(page).to_have_url(re.compile("/console/calls$"))
        await expect(past(page).first).to_be_visible()
        await expect(page.locator(f'a[href$="{gone}"]')).to_have_count(0)
    async with httpx.AsyncClient(base_url=here.base) as http:
        assert (await http.get(f"/api/v1/calls/{gone}")).status_code == 404


async def test_live_calls_and_captions_are_followed(here: Console) -> None:
    doing: dict[str, Any] = {"call": LIVE, "tenant": "", "assistant": "orders", "began": time.time() - 75}
    doing |= {"name": "Mary", "medium": "sip", "caller": "speaking", "assistant_state": "listening", "turns": 3}
    row = calls(1, now())[0] | {"id": LIVE, "status": "live", "caller": "Mary", "ended_at": None, "reason": ""}
    await bulk(here.app, [row | {"turns": 0, "answered_at": now(), "seen_at": now()}])

    def caption(who: str, text: str) -> dict[str, Any]:
        return {"type": "caption", "who": who, "text": text, "final": False}

    async with here.visit("/console/calls") as page:
        live = page.get_by_role("region", name=re.compile("^Live"))
        await expect(live.get_by_text("Nobody is calling")).to_be_visible()
        await here.dispatchers.tell(LIVE, now=doing)
        await expect(live.get_by_role("link", name=re.compile("Mary"))).to_contain_text("Caller speaks")
        await expect(live.get_by_role("link", name=re.compile("Mary"))).to_contain_text(re.compile(r"1:[12]\d min"))
        await live.get_by_role("link", name=re.compile("Mary")).click()
        await here.dispatchers.tell(LIVE, caption("caller", "Is the kettle"))
        said = page.get_by_label("What is being said")
        await expect(said).to_contain_text("Is the kettle")
        await here.dispatchers.tell(LIVE, caption("caller", "Is the kettle there?"), caption("assistant", "It is"))
        await expect(said).to_contain_text("Is the kettle there?")
        await expect(said).to_contain_text("It is")
        state = {"type": "state", "caller": "listening", "assistant": "speaking"}
        await here.dispatchers.tell(LIVE, state)
        await expect(page.get_by_text("Assistant: speaking")).to_be_visible()
        here.dispatchers.calls = [LIVE]
        await page.get_by_role("button", name="End call").click()
        await expect(page.get_by_text("Ended from here")).to_be_visible()
        assert here.dispatchers.ended[-1][0] == LIVE
        await here.dispatchers.state.note(LIVE, None)


async def test_a_hundred_thousand_calls_scroll_like_ten(here: Console) -> None:
    await many(here.app, MANY)
    async with here.visit("/console/calls") as page:
        await expect(past(page).first).to_be_visible()
        most = 0
        deep = 0
        # As far down as a person scrolls in a while: more than two thousand calls.
        for _ in range(200):
            await page.evaluate("window.scrollTo(0, document.documentElement.scrollHeight)")
            await page.evaluate(PAINTED)
            rows = await page.locator(".calls-link").evaluate_all(INDICES)
            most, deep = max(most, len(rows)), max([deep, *rows])
            if deep > 2000:
                break
        assert deep > 2000
        assert most < 60, "rows beyond what is seen are in the page"
        # One is in the middle of it, by keyboard as well, and a call leads back to where it was.
        link = page.locator(f'.calls-link[data-index="{deep - 15}"]')
        await link.focus()
        await page.keyboard.press("ArrowDown")
        await expect(page.locator(f'.calls-link[data-index="{deep - 14}"]')).to_be_focused()
        assert await page.evaluate("document.querySelectorAll('*').length") < 1500


async def test_what_cannot_be_read_says_so_and_comes_back(here: Console) -> None:
    body = json.dumps({"title": "Busy", "status": 503, "detail": "Something behind this server does not answer"})
    async with here.visit("/console/models", expect=("503",)) as page:
        await expect(page.get_by_role("heading", name="Models", exact=True)).to_be_visible()
        await page.route(re.compile("/api/v1/calls[?]"), lambda route: route.fulfill(status=503, body=body))
        await page.get_by_role("link", name="Calls", exact=True).click()
        await expect(page.get_by_role("alert")).to_contain_text("Busy", timeout=15_000)
        await page.unroute_all()
        await page.get_by_role("button", name="Try again").click()
        await expect(past(page).first).to_be_visible()


async def test_the_description_of_the_api_is_shown_with_nothing_from_elsewhere(here: Console) -> None:
    async with here.visit("/api/docs") as page:
        await expect(page.locator("#operations-calls-list_calls")).to_be_visible(timeout=20_000)
        loaded: list[str] = await page.evaluate(LOADED)
        assert {urlsplit(each).netloc for each in loaded} == {urlsplit(page.url).netloc}
