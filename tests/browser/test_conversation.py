"""Browser: a person asks aloud, or types, and is answered in sound and in words."""

from __future__ import annotations

import re

import pytest
from playwright.async_api import Page, expect

from .conftest import SAY_MS, OpenPage, Question

pytestmark = [pytest.mark.browser, pytest.mark.timeout(150)]

# The loudest RMS on any playing audio element within the time, measured by the browser's own analyser.
LOUDEST = """async (ms) => {
  const context = new AudioContext();
  const analysers = [...document.querySelectorAll("audio")].filter((a) => a.srcObject).map((audio) => {
    const analyser = context.createAnalyser();
    context.createMediaStreamSource(audio.srcObject).connect(analyser);
    return analyser;
  });
  const samples = new Float32Array(2048);
  let loudest = 0;
  for (const end = performance.now() + ms; performance.now() < end && loudest < 0.01; ) {
    for (const analyser of analysers) {
      analyser.getFloatTimeDomainData(samples);
      loudest = Math.max(loudest, Math.sqrt(samples.reduce((sum, s) => sum + s * s, 0) / samples.length));
    }
    await new Promise((done) => setTimeout(done, 40));
  }
  await context.close();
  return loudest;
}"""


async def loudest(page: Page, ms: int) -> float:
    return float(await page.evaluate(LOUDEST, ms))


async def test_a_spoken_question_is_heard_and_answered(open_page: OpenPage, question: Question) -> None:
    caller = await open_page(await question("What is the capital of France?"))
    await caller.talking()
    await caller.shot("talking")
    await expect(caller.said_by("You").first).not_to_be_empty(timeout=SAY_MS)
    await expect(caller.state).to_have_text("Speaking", timeout=SAY_MS)
    assert await loudest(caller.page, 8000) >= 0.01, "the assistant's voice is silent"
    await caller.shot("speaking")
    await expect(caller.said_by("Parley").last).not_to_be_empty(timeout=SAY_MS)
    await expect(caller.answered.first).to_be_visible(timeout=SAY_MS)
    await expect(caller.answered.first).to_have_text(re.compile(r"\d+(\.\d)? s"))


async def test_a_typed_question_is_answered_and_its_turn_opens(open_page: OpenPage) -> None:
    caller = await open_page()
    await caller.button("Type instead").click()
    await caller.there()
    await caller.write("Say one short sentence about the sea.")
    await expect(caller.said_by("You").first).to_have_text("Say one short sentence about the sea.")
    await expect(caller.message).to_be_empty()
    await expect(caller.answered).to_be_visible(timeout=SAY_MS)
    await expect(caller.said_by("Parley").last).not_to_be_empty()
    details = caller.page.get_by_role("group", name="Details of this turn")
    await expect(details).to_be_hidden()
    await caller.answered.click()
    await expect(details).to_be_visible()
    await expect(details.get_by_role("list", name="Stages of the answer").get_by_role("listitem").first).to_be_visible()
    await expect(details.get_by_text("Language model")).to_be_visible()
    await expect(details.get_by_text("Retries")).to_be_visible()
    await caller.shot("turn")
    await caller.answered.click()
    await expect(details).to_be_hidden()


async def test_what_is_typed_before_the_assistant_is_there_is_answered(open_page: OpenPage) -> None:
    caller = await open_page()
    await caller.button("Type instead").click()
    await caller.write("Hello")
    await expect(caller.answered).to_be_visible(timeout=SAY_MS)


async def test_the_conversation_stays_when_the_call_ends(open_page: OpenPage) -> None:
    caller = await open_page()
    await caller.button("Type instead").click()
    await caller.there()
    await caller.write("Hello")
    await expect(caller.answered).to_be_visible(timeout=SAY_MS)
    await caller.button("End call").click()
    await expect(caller.state).to_have_text("Call ended")
    await expect(caller.said_by("You").first).to_have_text("Hello")
    await caller.shot("ended")
    await caller.button("Talk again").click()
    await caller.there()
    await expect(caller.said_by("You").first).to_have_text("Hello")
    await expect(caller.page.get_by_text("New call")).to_be_visible()
