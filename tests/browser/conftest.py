"""A real Chromium with a WAV as its microphone, on a network that ends at loopback.

The cluster comes from the session's `parley` fixture (`page`: the page's address; `speech(text)`: a WAV of it spoken).
A Chromium is started per test, because its microphone is set on its command line.
"""

from __future__ import annotations

import asyncio
import re
import shutil
import wave
from collections.abc import AsyncIterator, Awaitable, Callable
from contextlib import AsyncExitStack
from dataclasses import dataclass, field
from pathlib import Path
from typing import Literal, Protocol
from urllib.parse import urlsplit

import pytest
from playwright.async_api import ConsoleMessage, Locator, Page, Request, async_playwright, expect

ARTIFACTS = Path(__file__).parents[2] / "artifacts" / "browser"
LOOPBACK = {"127.0.0.1", "localhost", "::1"}
SAY_MS = 40_000  # from a question to the end of its answer, on a machine of two busy cores
STEP_MS = 15_000
THERE = re.compile(r"^(Listening|Thinking|Speaking|Muted|Ready)$")

FLAGS = [
    "--no-sandbox",
    "--autoplay-policy=no-user-gesture-required",
    "--disable-background-networking",
    "--disable-component-update",
    "--disable-sync",
    "--disable-quic",
    "--no-first-run",
    "--host-resolver-rules=MAP * ~NOTFOUND, EXCLUDE 127.0.0.1, EXCLUDE localhost",
]

Microphone = Path | Literal["silent", "refused", "absent"]


Question = Callable[[str], Awaitable[Path]]


class Parley(Protocol):
    """What these tests need of the running cluster."""

    @property
    def page(self) -> str: ...

    def speech(self, text: str) -> Path: ...

    async def until_calls(self, count: int, seconds: float = 20) -> None: ...


@dataclass
class Caller:
    """A person at the page: what they see, by the names that a screen reader would say."""

    page: Page
    complaints: list[str] = field(default_factory=list[str])
    strangers: list[str] = field(default_factory=list[str])
    expected: tuple[str, ...] = ()

    @property
    def state(self) -> Locator:
        return self.page.get_by_role("status")

    @property
    def alert(self) -> Locator:
        return self.page.get_by_role("alert")

    @property
    def message(self) -> Locator:
        return self.page.get_by_label("Your message")

    def button(self, name: str) -> Locator:
        return self.page.get_by_role("button", name=name, exact=True)

    def said_by(self, who: Literal["You", "Parley"]) -> Locator:
        heading = self.page.get_by_role("heading", name=who, exact=True)
        return self.page.get_by_role("article").filter(has=heading).get_by_role("paragraph")

    @property
    def answered(self) -> Locator:
        return self.page.get_by_role("button", name="Answered in")

    async def start(self) -> None:
        await self.button("Start talking").click()

    async def talking(self) -> None:
        """Start, and wait until the assistant is there."""
        await self.start()
        await self.there()

    async def there(self) -> None:
        await expect(self.page.get_by_role("list", name="Steps of connecting")).to_have_count(0, timeout=STEP_MS)
        await expect(self.state).to_have_text(THERE, timeout=STEP_MS)

    async def write(self, text: str) -> None:
        await self.message.fill(text)
        await self.message.press("Enter")

    async def shot(self, name: str) -> None:
        ARTIFACTS.mkdir(parents=True, exist_ok=True)
        await self.page.screenshot(path=ARTIFACTS / f"{name}.png")

    def expect_complaints(self, *parts: str) -> None:
        """Console errors that belong to the trouble under test."""
        self.expected = parts

    def check(self) -> None:
        unexpected = [text for text in self.complaints if not any(part in text for part in self.expected)]
        assert not unexpected, f"console: {unexpected}"
        assert not self.strangers, f"requests beyond loopback: {self.strangers}"


class OpenPage(Protocol):
    async def __call__(
        self,
        microphone: Microphone = "silent",
        *,
        size: tuple[int, int] = (1280, 800),
        scheme: Literal["light", "dark"] = "light",
        still: bool = False,
        prepare: Callable[[Page], object] | None = None,
    ) -> Caller: ...


def chromium() -> str | None:
    """Chromium on PATH; None is playwright's own."""
    names = ("chromium", "chromium-browser", "google-chrome-stable", "google-chrome")
    return next((path for name in names if (path := shutil.which(name))), None)


def padded(speech: Path, target: Path, before_s: float, after_s: float) -> Path:
    """The speech with silence round it. Chromium repeats it, so a question that met the greeting is asked again."""
    with wave.open(str(speech)) as source:
        params, frames = source.getparams(), source.readframes(source.getnframes())
    second = bytes(params.framerate * params.nchannels * params.sampwidth)
    with wave.open(str(target), "wb") as sink:
        sink.setparams(params)
        sink.writeframes(second * int(before_s) + frames + second * int(after_s))
    return target


def microphone_flags(microphone: Microphone, scratch: Path) -> list[str]:
    if microphone == "absent":
        return []
    if microphone == "refused":  # a device is there, and nobody says yes to the prompt
        return ["--use-fake-device-for-media-stream"]
    if microphone == "silent":
        microphone = scratch / "silence.wav"
        with wave.open(str(microphone), "wb") as sink:
            sink.setnchannels(1)
            sink.setsampwidth(2)
            sink.setframerate(16_000)
            sink.writeframes(bytes(2 * 16_000 * 2))
    return [
        "--use-fake-device-for-media-stream",
        "--use-fake-ui-for-media-stream",
        f"--use-file-for-fake-audio-capture={microphone}",
    ]


@pytest.fixture
async def open_page(parley: Parley, tmp_path: Path) -> AsyncIterator[OpenPage]:
    async with AsyncExitStack() as stack:
        callers: list[Caller] = []
        driver = await stack.enter_async_context(async_playwright())

        async def opened(
            microphone: Microphone = "silent",
            *,
            size: tuple[int, int] = (1280, 800),
            scheme: Literal["light", "dark"] = "light",
            still: bool = False,
            prepare: Callable[[Page], object] | None = None,
        ) -> Caller:
            flags = FLAGS + microphone_flags(microphone, tmp_path)
            browser = await driver.chromium.launch(executable_path=chromium(), args=flags, timeout=STEP_MS)
            stack.push_async_callback(browser.close)
            page = await browser.new_page(
                viewport={"width": size[0], "height": size[1]},
                color_scheme=scheme,
                reduced_motion="reduce" if still else "no-preference",
            )
            page.set_default_timeout(STEP_MS)
            caller = Caller(page)
            callers.append(caller)
            watch(caller)
            if prepare is not None and (waiting := prepare(page)) is not None:
                await waiting  # type: ignore[misc]
            await page.goto(parley.page)
            # A key that is pressed before the page has come alive is lost, and no person is that quick.
            await expect(page.get_by_role("button", name="Start talking")).to_be_visible()
            # A person who closes the page hangs up; a browser that is ended does not, and holds the line for a while.
            stack.push_async_callback(page.goto, "about:blank")
            return caller

        yield opened
        for caller in callers:
            caller.check()


def watch(caller: Caller) -> None:
    def console(message: ConsoleMessage) -> None:
        if message.type == "error":
            caller.complaints.append(message.text)

    def request(sent: Request) -> None:
        parts = urlsplit(sent.url)
        if parts.scheme in {"http", "https", "ws", "wss"} and parts.hostname not in LOOPBACK:
            caller.strangers.append(sent.url)

    caller.page.on("console", console)
    caller.page.on("pageerror", lambda error: caller.complaints.append(str(error)))
    caller.page.on("request", request)


@pytest.fixture
def question(parley: Parley, tmp_path: Path) -> Question:
    """A microphone that is silent while the assistant greets, then asks, then listens."""

    async def asked(text: str) -> Path:
        # In a thread: the voice may run an event loop of its own.
        speech = await asyncio.to_thread(parley.speech, text)
        return padded(speech, tmp_path / "question.wav", before_s=6, after_s=20)

    return asked


@pytest.fixture(autouse=True)
async def lines_are_free(parley: Parley) -> None:
    """Begin when the call of the test before has ended, so that nobody is told that all lines are busy."""
    # LiveKit misses a caller who was cut off, rather than hung up, only after a while.
    await parley.until_calls(0, 60)
