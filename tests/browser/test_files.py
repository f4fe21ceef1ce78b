"""Browser: a file is dropped or chosen, and what became of it is said."""

from __future__ import annotations

from pathlib import Path

import pytest
from axe_playwright_python.async_playwright import Axe  # pyright: ignore[reportMissingTypeStubs]
from playwright.async_api import expect

from .conftest import STEP_MS, Caller, OpenPage

pytestmark = [pytest.mark.browser, pytest.mark.timeout(150)]

# A person drags a file over the page and lets it fall; Playwright has no mouse that carries files.
DRAG = """([name, text, kinds]) => {
  const carried = new DataTransfer();
  carried.items.add(new File([text], name, { type: "text/plain" }));
  for (const kind of kinds) {
    const event = new DragEvent(kind, { dataTransfer: carried, bubbles: true, cancelable: true });
    document.querySelector("main").dispatchEvent(event);
  }
}"""


async def drag(caller: Caller, name: str, text: str, *kinds: str) -> None:
    await caller.page.evaluate(DRAG, [name, text, list(kinds)])


async def test_a_file_is_dropped_anywhere_and_another_is_chosen(open_page: OpenPage, tmp_path: Path) -> None:
    caller = await open_page()
    await caller.button("Type instead").click()
    await caller.there()
    await drag(caller, "shopping.txt", "Bread, milk and a zebra.", "dragenter", "dragover")
    await expect(caller.page.get_by_text("Drop the file: Parley reads it")).to_be_visible()
    await caller.shot("file-drag")
    await drag(caller, "shopping.txt", "Bread, milk and a zebra.", "drop")
    await expect(caller.page.get_by_text("Drop the file: Parley reads it")).to_have_count(0)
    log = caller.page.get_by_role("log")
    await expect(log.get_by_text("shopping.txt was read", exact=True)).to_be_visible(timeout=STEP_MS)
    # Said to those who do not see it, too.
    await expect(caller.page.locator("[aria-live=polite]", has_text="shopping.txt was read")).to_have_count(1)

    broken = tmp_path / "report.pdf"
    broken.write_bytes(b"%PDF-1.7\n" + bytes(range(256)) * 200)
    async with caller.page.expect_file_chooser() as chooser:
        await caller.button("File").focus()
        await caller.page.keyboard.press("Enter")
    await (await chooser.value).set_files(broken)
    await expect(log.get_by_text("report.pdf is a PDF that is broken")).to_be_visible(timeout=STEP_MS)
    large = tmp_path / "film.bin"
    large.write_bytes(bytes(10 * 2**20 + 1))
    async with caller.page.expect_file_chooser() as chooser:
        await caller.button("File").click()
    await (await chooser.value).set_files(large)
    await expect(log.get_by_text("film.bin is larger than 10 MB")).to_be_visible()
    await caller.shot("files")
    results = await Axe().run(caller.page)  # pyright: ignore[reportUnknownMemberType, reportUnknownVariableType]
    serious = [each for each in results.response["violations"] if each["impact"] in {"serious", "critical"}]  # pyright: ignore[reportUnknownMemberType, reportUnknownVariableType]
    assert serious == []


async def test_a_file_dropped_outside_a_call_leaves_the_page_where_it_is(open_page: OpenPage) -> None:
    caller = await open_page(size=(390, 844), scheme="dark")
    await drag(caller, "note.txt", "hello", "dragenter", "dragover")
    await expect(caller.page.get_by_text("Start a call first, then drop the file")).to_be_visible()
    await caller.shot("file-drag-idle")
    await drag(caller, "note.txt", "hello", "drop")
    await expect(caller.button("Start talking")).to_be_visible()
