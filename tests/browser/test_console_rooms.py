"""Console: assistants, keys, webhooks, people, money and who may see them, before a database that the test filled."""

from __future__ import annotations

import re
from collections.abc import AsyncGenerator
from pathlib import Path
from typing import Any, Literal

import httpx
import pytest
import pytest_asyncio
from playwright.async_api import Page, expect

from tests.unit.api.receiver import receiving

from .console import HOOK, SIZES, TOLD, Console, console, faults

pytestmark = [pytest.mark.browser, pytest.mark.timeout(120), pytest.mark.asyncio(loop_scope="module")]

SETTINGS = "/console/settings"
NEW = {"name": "Night desk", "definition": {"greeting": "Good night.", "instructions": "Answer shortly."}}


@pytest.fixture
def lines_are_free() -> None:
    """Nobody calls here: there is no cluster."""


@pytest_asyncio.fixture(scope="module", loop_scope="module")
async def here(tmp_path_factory: pytest.TempPathFactory) -> AsyncGenerator[Console]:
    async with console(tmp_path_factory.mktemp("console")) as opened:
        yield opened


@pytest_asyncio.fixture(loop_scope="module")
async def http(here: Console) -> AsyncGenerator[httpx.AsyncClient]:
    async with httpx.AsyncClient(base_url=here.base) as opened:
        yield opened


async def made(http: httpx.AsyncClient, name: str) -> dict[str, Any]:
    answer = await http.post("/api/v1/assistants", json=NEW | {"name": name})
    assert answer.status_code == 201, answer.text
    return answer.json()


async def test_an_assistant_is_made_and_changed_and_told_what_is_wrong(here: Console, http: httpx.AsyncClient) -> None:
    async with here.visit("/console/assistants", expect=("409", "422")) as page:
        await expect(page.get_by_text("Profile, read-only")).to_have_count(2)
        await page.get_by_role("link", name="New assistant").click()
        name, save = page.get_by_label("Name", exact=True), page.get_by_role("button", name="Save", exact=True)
        await name.fill("default")
        await page.get_by_role("button", name="Create assistant").click()
        await expect(name).to_be_focused()
        await expect(name).to_have_accessible_description(re.compile("is taken"))
        await name.fill("Order desk")
        await page.get_by_label("Language model", exact=True).select_option("llm-new")
        await page.get_by_role("checkbox", name="end_call").check()
        await page.get_by_role("button", name="Create assistant").click()
        await expect(page.get_by_role("heading", name="Order desk", level=1)).to_be_visible()
        await expect(save).to_be_disabled()

        longest = page.get_by_role("textbox", name="Longest call")
        await longest.fill("nine")
        await save.click()
        await expect(longest).to_have_accessible_description(re.compile("valid number"))
        await expect(longest).to_be_focused()
        await longest.fill("9")
        await page.get_by_role("textbox", name="Greeting").fill("Hello, this is the shop.")
        await save.click()
        await expect(page.get_by_role("status")).to_contain_text(["Saved: version 2"])
        id = page.url.rsplit("/", 1)[1]
        found = (await http.get(f"/api/v1/assistants/{id}")).json()
        assert (found["version"], found["definition"]["limits"]["max_minutes"]) == (2, 9)
        assert found["definition"]["models"] == {"llm": "llm-new"}
        assert found["definition"]["tools"] == ["end_call"]

        await page.get_by_role("link", name="Version 1", exact=True).click()
        await expect(page.get_by_text("Differs from version 2 in: greeting, limits.")).to_be_visible()
        await expect(page.get_by_role("textbox", name="Greeting")).not_to_be_editable()
        await page.get_by_role("button", name="Restore this version").click()
        await expect(page.get_by_role("listitem").filter(has_text="Version 3")).to_contain_text("(now)")
        await expect(longest).not_to_have_value("9")


async def test_who_saves_second_chooses(here: Console, http: httpx.AsyncClient) -> None:
    desk = await made(http, "Night desk")
    at = f"/api/v1/assistants/{desk['id']}"

    async def meanwhile(greeting: str) -> None:
        etag = (await http.get(at)).headers["etag"]
        change = {"name": "Night desk", "definition": NEW["definition"] | {"greeting": greeting}}  # type: ignore[operator]
        assert (await http.put(at, json=change, headers={"if-match": etag})).status_code == 200

    async with here.visit(f"/console/assistants/{desk['id']}", expect=("412",)) as page:
        greeting = page.get_by_role("textbox", name="Greeting")
        save = page.get_by_role("button", name="Save", exact=True)
        conflict = page.get_by_role("alert").filter(has_text="It was changed meanwhile")
        await greeting.fill("Mine.")
        await meanwhile("Theirs.")
        await save.click()
        await expect(conflict).to_be_visible()
        assert (await http.get(at)).json()["definition"]["greeting"] == "Theirs."
        await conflict.get_by_role("button", name="Reload").click()
        await expect(greeting).to_have_value("Theirs.")
        await expect(conflict).to_be_hidden()
        await greeting.fill("Mine.")
        await meanwhile("Theirs again.")
        await save.click()
        await conflict.get_by_role("button", name="Overwrite").click()
        await expect(conflict).to_be_hidden()
        await expect(page.get_by_role("status")).to_contain_text(["Saved"])
        assert (await http.get(at)).json()["definition"]["greeting"] == "Mine."


async def test_an_assistant_knows_files_is_tried_and_goes(
    here: Console, http: httpx.AsyncClient, tmp_path: Path
) -> None:
    desk = await made(http, "Book desk")
    large, prices = tmp_path / "large.txt", tmp_path / "prices.txt"
    large.write_bytes(b"x" * (10 * 2**20 + 1))
    prices.write_text("A kettle is 34 euros.")
    async with here.visit(f"/console/assistants/{desk['id']}") as page:
        await expect(page.get_by_text("10 MB each, 0 of 20 files")).to_be_visible()
        await page.get_by_label("Files to add").set_input_files([large, prices])
        await expect(page.get_by_text("a file may have 10 MB")).to_be_visible()
        await expect(page.get_by_text("prices.txt: 21 characters read.")).to_be_visible()
        file = page.get_by_role("listitem").filter(has_text="prices.txt")
        async with page.expect_download() as saved:
            await file.get_by_role("link", name="prices.txt").click()
        assert (await (await saved.value).path()).read_text() == prices.read_text()
        await file.get_by_role("button", name="Delete prices.txt").click()
        await page.get_by_role("dialog").get_by_role("button", name="Delete").click()
        await expect(page.get_by_text("Nothing yet: add a file")).to_be_visible()

        async with page.context.expect_page() as opened:
            await page.get_by_role("link", name="Try Book desk by voice").click()
        voice = await opened.value
        async with voice.expect_request("**/api/v1/token") as request:
            await voice.get_by_role("button", name="Type instead").click()
        assert (await request.value).post_data_json == {"assistant": desk["ref"]}
        await voice.close()

        await page.get_by_role("button", name="Delete", exact=True).click()
        await page.get_by_role("dialog").get_by_role("button", name="Delete").click()
        await expect(page).to_have_url(re.compile("/console/assistants$"))
        await expect(page.get_by_role("link", name="Book desk", exact=True)).to_have_count(0)


async def test_a_key_is_shown_once_and_let_in_until_it_is_revoked(here: Console, http: httpx.AsyncClient) -> None:
    async with here.visit(f"{SETTINGS}/keys", expect=("422",)) as page:
        await expect(page.get_by_role("heading", name="No key is in use")).to_be_visible()
        await page.get_by_role("button", name="New key").click()
        await page.get_by_label("Name", exact=True).fill("billing service")
        await page.get_by_role("button", name="Create key").click()
        scopes = page.get_by_role("group", name="Scopes")
        await expect(scopes).to_contain_text("at least 1 item")
        await scopes.get_by_label("usage:read").check()
        await page.get_by_role("button", name="Create key").click()
        shown = page.get_by_role("region", name="The key billing service")
        await shown.get_by_role("button", name="Copy").click()
        await expect(shown.get_by_role("button", name="Copied")).to_be_visible()
        key = await page.evaluate("navigator.clipboard.readText()")
        assert key == await shown.locator("code").last.inner_text()
        secret = {"authorization": f"Bearer {key}"}
        assert (await http.get("/api/v1/usage/summary", headers=secret)).status_code == 200
        assert (await http.get("/api/v1/calls", headers=secret)).status_code == 403
        await shown.get_by_role("button", name="I have put it away").click()
        await expect(page.get_by_text(key)).to_have_count(0)

        row = page.get_by_role("listitem").filter(has_text="billing service")
        await row.get_by_role("button", name="Rotate").click()
        await expect(shown).to_be_visible()
        await expect(row).to_have_count(2)
        await row.last.get_by_role("button", name="Revoke").click()
        await page.get_by_role("dialog").get_by_role("button", name="Revoke").click()
        await expect(row).to_have_count(1)
        assert (await http.get("/api/v1/usage/summary", headers=secret)).status_code == 401
        await page.get_by_label("Show revoked and expired ones").check()
        await expect(row.filter(has_text="Revoked")).to_have_count(1)


async def test_usage_adds_up(here: Console, http: httpx.AsyncClient) -> None:
    summary = (await http.get("/api/v1/usage/summary")).json()
    assert summary["totals"]
    async with here.visit("/console/usage?days=7") as page:
        facts = page.locator(".facts")
        await expect(facts).to_contain_text("12 min")
        await expect(facts).to_contain_text("2,700 tokens read, 360 written")
        await expect(facts).to_contain_text("€3.00")
        await expect(page.get_by_text("tts-small: counted as 0")).to_be_visible()
        rows = page.get_by_role("region", name="By model").get_by_role("row")
        await expect(rows.filter(has_text="llm-small")).to_contain_text("€1.50")
        await expect(rows.filter(has_text="Calls themselves")).to_contain_text("12 min")
        days = page.get_by_role("table", name=re.compile("Cost by day")).get_by_role("row")
        assert await days.count() == 1 + 3


async def test_a_webhook_is_tried_and_what_was_given_up_is_sent_again(here: Console) -> None:
    async with receiving() as hears, here.visit(f"{SETTINGS}/webhooks", expect=("422",)) as page:
        await page.get_by_role("button", name="New endpoint").click()
        address = page.get_by_label("Address")
        await address.fill("ftp://example.com")
        await page.get_by_role("button", name="Create endpoint").click()
        await expect(address).to_have_accessible_description(re.compile("http"))
        await address.fill(hears.url)
        await page.get_by_role("button", name="Create endpoint").click()
        await expect(page.get_by_role("region", name="Its secret")).to_contain_text("whsec_")
        await page.get_by_role("link", name=hears.url).click()
        await page.get_by_role("button", name="Send a test").click()
        await hears.until(1)
        message = page.get_by_role("listitem").filter(has_text="webhook.test")
        await expect(message).to_contain_text("Delivered")
        await expect(message).to_contain_text("answered 204")

        await page.goto(f"{here.base}{SETTINGS}/webhooks/{HOOK}?status=dead")
        dead = page.get_by_role("listitem").filter(has_text="call.ended")
        await expect(dead).to_contain_text("8 attempts, answered 500")
        await dead.get_by_role("button", name="Send again").click()
        await expect(page.get_by_text("None is like this.")).to_be_visible()
        await page.get_by_role("combobox", name="Show").select_option("On their way")
        await expect(dead).to_contain_text("0 attempts")
        await page.get_by_label("Description").fill("The CRM of the shop")
        await page.get_by_role("button", name="Save", exact=True).click()
        await expect(page.get_by_role("status").filter(has_text="Saved")).to_be_visible()


async def test_people_and_the_tenant_are_changed_within_their_limits(here: Console, http: httpx.AsyncClient) -> None:
    async with here.visit(f"{SETTINGS}/people", expect=("409", "422")) as page:
        grace = page.get_by_role("listitem").filter(has_text="Grace")
        await grace.get_by_role("combobox", name="Role of Grace Hopper").select_option("engineer")
        await grace.get_by_role("button", name="Make engineer").click()
        await expect(grace.get_by_role("button", name="Make engineer")).to_have_count(0)
        await grace.get_by_role("button", name="Disable").click()
        await page.get_by_role("dialog").get_by_role("button", name="Disable").click()
        await expect(grace).to_contain_text("Not let in")
        found = (await http.get("/api/v1/people/per_grace")).json()
        assert (found["role"], found["disabled_at"] is None) == ("engineer", False)
        ada = page.get_by_role("listitem").filter(has_text="Ada")
        await ada.get_by_role("button", name="Disable").click()
        await page.get_by_role("dialog").get_by_role("button", name="Disable").click()
        await expect(ada.get_by_role("alert")).to_contain_text("keeps one owner")

        await page.get_by_role("link", name="Tenant", exact=True).click()
        at_once = page.get_by_label("Calls, at once")
        await at_once.fill("1000")
        await page.get_by_role("button", name="Save", exact=True).click()
        await expect(at_once).to_have_accessible_description(re.compile("may be 100 at most"))
        await at_once.fill("5")
        await page.get_by_label("Calls are kept").fill("30")
        await page.get_by_role("button", name="Save", exact=True).click()
        await expect(page.get_by_text("Now: 5")).to_be_visible()
        tenant = (await http.get("/api/v1/tenant")).json()
        assert (tenant["own_limits"], tenant["keep_days"]) == ({"calls": 5}, 30)

        await page.get_by_role("link", name="Audit log").click()
        await page.get_by_role("combobox", name="Act").select_option("person.change")
        await expect(page.get_by_role("listitem").first).to_contain_text("on Grace Hopper")
        await expect(page).to_have_url(re.compile("action=person.change"))


async def test_each_sees_what_they_may(here: Console) -> None:
    try:
        here.door.role = "viewer"
        async with here.visit("/console/assistants") as page:
            await expect(page.get_by_role("link", name="default", exact=True)).to_be_visible()
            await expect(page.get_by_role("link", name="New assistant")).to_have_count(0)
            await expect(page.get_by_role("link", name=re.compile("^Try"))).to_have_count(0)
            await page.get_by_role("link", name="Settings").click()
            await expect(page.get_by_label("Calls are kept")).not_to_be_editable()
            parts = page.get_by_role("navigation", name="Settings").get_by_role("link")
            assert await parts.all_inner_texts() == ["Tenant"]
            await page.goto(f"{here.base}{SETTINGS}/keys")
            await expect(page.get_by_role("heading", name="There is no such page")).to_be_visible()
            await page.goto(f"{here.base}/console/calls/{TOLD}")
            await expect(page.get_by_role("heading", name="Ada Lovelace")).to_be_visible()
            await expect(page.get_by_role("button", name="Delete")).to_have_count(0)
        async with here.visit("/console/assistants", expect=("401",)) as page:
            await expect(page.get_by_role("link", name="default", exact=True)).to_be_visible()
            here.door.role = None
            await page.get_by_role("link", name="Models").click()
            await expect(page.get_by_text("Nobody can sign in here yet")).to_be_visible()
        async with here.visit(f"/console/calls/{TOLD}", expect=("401",)) as page:
            await expect(page.get_by_text("Nobody can sign in here yet")).to_be_visible()
            here.app.state.issuer = object()
            await page.reload()
            way = page.get_by_role("link", name="Sign in")
            await expect(way).to_have_attribute("href", f"/api/v1/sign-in/openid?next=%2Fconsole%2Fcalls%2F{TOLD}")
            assert await faults(page) == []
    finally:
        here.door.role, here.app.state.issuer = "owner", None


PAGES = {
    "calls": "/console/calls",
    "call": f"/console/calls/{TOLD}",
    "assistants": "/console/assistants",
    "assistant": "/console/assistants/{assistant}",
    "version": "/console/assistants/{assistant}?version=1",
    "new": "/console/assistants/new",
    "models": "/console/models",
    "usage": "/console/usage",
    "keys": f"{SETTINGS}/keys",
    "people": f"{SETTINGS}/people",
    "webhooks": f"{SETTINGS}/webhooks",
    "webhook": f"{SETTINGS}/webhooks/{HOOK}",
    "tenant": f"{SETTINGS}/tenant",
    "audit": f"{SETTINGS}/audit",
}


LOOKS: list[tuple[str, Literal["light", "dark"]]] = [("wide", "light"), ("phone", "dark")]


async def settled(page: Page) -> None:
    await page.wait_for_function(
        "() => document.querySelector('h1') && !/(Loading|Reading).*…/.test(document.body.innerText)"
    )


async def looked(page: Page, size: str, scheme: Literal["light", "dark"]) -> list[str]:
    """Return what is wrong with a page in a window and a scheme."""
    width, height = SIZES[size]
    await page.set_viewport_size({"width": width, "height": height})
    await page.emulate_media(color_scheme=scheme, reduced_motion="reduce")
    await settled(page)
    found = await faults(page)
    if (beyond := await page.evaluate("document.documentElement.scrollWidth - innerWidth")) > 0:
        found.append(f"{beyond} px beyond the window")
    if await page.evaluate("document.getAnimations().some((each) => each.playState === 'running')"):
        found.append("it moves, though motion is to be reduced")
    return found


async def test_nothing_is_out_of_place_or_out_of_reach(here: Console, http: httpx.AsyncClient) -> None:
    desk = await made(http, "A desk to look at")
    etag = (await http.get(f"/api/v1/assistants/{desk['id']}")).headers["etag"]
    change = {"name": desk["name"], "definition": {"greeting": ""}}
    await http.put(f"/api/v1/assistants/{desk['id']}", json=change, headers={"if-match": etag})
    await http.post("/api/v1/keys", json={"name": "a key to look at", "scopes": ["calls:read"]})
    found: dict[str, list[str]] = {}
    async with here.visit("/console/calls") as page:
        await settled(page)
        await page.keyboard.press("Tab")
        await expect(page.get_by_role("link", name="Skip to content")).to_be_focused()
        for name, path in PAGES.items():
            await page.goto(f"{here.base}{path.format(assistant=desk['id'])}")
            # Colours do not know how wide a window is: each page in each scheme and in each width, not in all of both.
            for size, scheme in LOOKS:
                if wrong := await looked(page, size, scheme):
                    found[f"{name}, {size}, {scheme}"] = wrong
    assert found == {}
