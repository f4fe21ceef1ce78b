"""Files in a real call: sent by a caller or over the API, shown to the model, kept when the agent dies."""

from __future__ import annotations

import asyncio
import json
from collections.abc import AsyncGenerator, Generator
from contextlib import AsyncExitStack
from pathlib import Path
from typing import Any

import httpx
import pytest
from livekit import rtc

from cluster import apply, status
from cluster.profile import Profile
from cluster.robot import Access, Robot
from cluster.up import Step
from serve.config import ModelConfig, Route
from tests.conftest import Parley

pytestmark = [pytest.mark.room, pytest.mark.timeout(240)]

ECHO = ModelConfig.model_validate({"name": "llm-echo", "engine": "fake-llm"})
"""Says the last message of its prompt: what it was shown is what the caller hears."""

BOOK = "\n\n".join(
    f"Chapter {number}. {topic} {'All of it is told at length here. ' * 14}"
    for number, topic in enumerate(("The harbour closes at midnight.", "The zebra sleeps up north.", "Rent is due."), 1)
)


def deploy(profile: Profile) -> None:
    def ignore(step: Step) -> None:
        pass

    apply.apply(profile, status.current().profile, ignore)


@pytest.fixture(scope="module")
def echo(parley: Parley) -> Generator[None]:
    """Let the echo answer, while the tests of this file run."""
    before = Profile.model_validate(status.current().settings)
    routes = before.routes.model_copy(update={"llm": Route(default=ECHO.name)})
    deploy(before.model_copy(update={"models": [*before.models, ECHO], "routes": routes}))
    yield
    deploy(before)


@pytest.fixture(autouse=True)
async def all_lines_free(parley: Parley) -> AsyncGenerator[None]:
    """Each test begins, and ends, with no call in progress."""
    await parley.until_calls(0)
    yield
    await parley.until_calls(0)


class Sender(Robot):
    """A robot that sends files, and keeps what it is told of them."""

    def __init__(self, page: str, access: Access | None = None) -> None:
        super().__init__(page, access)
        self.told: asyncio.Queue[dict[str, Any]] = asyncio.Queue()
        self.room.register_text_stream_handler("parley.file", self._on_told)

    async def __aenter__(self) -> Sender:
        await super().__aenter__()
        return self

    def _on_told(self, reader: rtc.TextStreamReader, _: str) -> None:
        self._read(reader, lambda text: self.told.put_nowait(json.loads(text)))

    async def settled(self) -> None:
        """Wait until the agent is there and has greeted."""
        await self.answered()
        await self.heard_after(self.joined, 10)
        await self.quiet(0.5, 15)

    async def ask(self, text: str) -> dict[str, Any]:
        """Type a question; return its turn."""
        await self.type(text)
        while True:
            turn = await asyncio.wait_for(self.turns.get(), 60)
            if turn["heard"] == text:
                return turn


async def test_a_callers_file_is_read_and_asked_about(parley: Parley, echo: None, tmp_path: Path) -> None:
    book = tmp_path / "book.txt"
    book.write_text(BOOK)
    async with Sender(parley.page) as caller:
        await caller.settled()
        sounds = len(caller.sounds)
        sent = await caller.room.local_participant.send_file(str(book), topic="parley.file")
        told = await asyncio.wait_for(caller.told.get(), 20)
        assert (told["name"], told["status"], told["id"]) == ("book.txt", "read", sent.stream_id)
        await caller.until(lambda: len(caller.sounds) > sounds, 10, "word that the file was read")
        await caller.quiet(0.5, 15)
        turn = await caller.ask("Where is the zebra?")
        assert "From the file book.txt" in turn["answer"]
        assert "zebra sleeps up north" in turn["answer"]
        assert "Rent" not in turn["answer"]


async def test_a_file_that_is_not_read_says_why(parley: Parley, tmp_path: Path) -> None:
    junk = tmp_path / "report.pdf"
    junk.write_bytes(b"%PDF-1.7\n" + bytes(range(256)) * 8)
    async with Sender(parley.page) as caller:
        await caller.answered()
        # As livekit-client sends what is attached to a typed message.
        await caller.room.local_participant.send_file(str(junk), topic="lk.chat")
        told = await asyncio.wait_for(caller.told.get(), 20)
        assert (told["name"], told["status"], told["code"]) == ("report.pdf", "refused", "unreadable")
        assert "send its text" in told["reason"]


async def test_the_api_sends_a_file_into_a_call_though_every_line_is_taken(parley: Parley) -> None:
    async with AsyncExitStack() as stack:
        callers = [await stack.enter_async_context(Sender(parley.page)) for _ in range(parley.profile_calls)]
        for caller in callers:
            await caller.answered()
        http = await stack.enter_async_context(httpx.AsyncClient(base_url=f"{parley.page}/api/v1", timeout=60))
        for caller in callers:
            answer = await http.post(f"/calls/{caller.name}/files", files={"file": ("note.md", b"# The code is 4711")})
            assert answer.status_code == 201, answer.text
            assert (answer.json()["media_type"], answer.json()["stored"]) == ("text/markdown", True)
        for caller in callers:
            assert (await asyncio.wait_for(caller.told.get(), 10))["status"] == "read"
        refused = await http.post(f"/calls/{callers[0].name}/files", files={"file": ("a.txt", bytes(range(256)) * 9)})
        assert refused.status_code == 415
        assert refused.headers["content-type"] == "application/problem+json"
        large = await http.post(f"/calls/{callers[0].name}/files", files={"file": ("a.txt", bytes(11 * 2**20))})
        assert large.status_code == 413
        unknown = await http.post("/calls/call-nowhere/files", files={"file": ("a.txt", b"hello")})
        assert unknown.status_code == 404


async def test_a_file_outlives_the_replica_that_read_it(parley: Parley, echo: None, tmp_path: Path) -> None:
    book = tmp_path / "book.txt"
    book.write_text(BOOK)
    async with Sender(parley.page) as caller:
        await caller.settled()
        await caller.room.local_participant.send_file(str(book), topic="parley.file")
        assert (await asyncio.wait_for(caller.told.get(), 20))["status"] == "read"
        await caller.quiet(0.5, 15)
        # WebRTC's sockets are those of the replica that carries the call.
        carries = max(parley.replicas("agent"), key=lambda each: len(each.net_connections("udp")))
        carries.kill()
        # What the one who is gone has said of itself does not count.
        caller.state = ""
        await caller.until(lambda: caller.state == "listening", 40, "agent on another replica")
        turn = await caller.ask("Where is the zebra?")
        assert "zebra sleeps up north" in turn["answer"]


async def test_an_assistant_of_the_database_knows_its_files_and_keeps_its_version(
    parley: Parley, echo: None, tmp_path: Path
) -> None:
    async with httpx.AsyncClient(base_url=f"{parley.page}/api/v1", timeout=60) as http:
        definition = {"greeting": "The archive speaks."}
        made = await http.post("/assistants", json={"name": "Archive", "definition": definition})
        assert made.status_code == 201, made.text
        id = made.json()["id"]
        read = await http.post(f"/assistants/{id}/files", files={"file": ("book.txt", BOOK.encode())})
        assert read.status_code == 201, read.text

        async def access() -> tuple[str, str]:
            answer = await http.post("/token", json={"assistant": id})
            answer.raise_for_status()
            return answer.json()["server_url"], answer.json()["participant_token"]

        async with Sender(parley.page, access) as caller:
            await caller.settled()
            assert "The archive speaks." in " ".join(caller.captions.values())
            turn = await caller.ask("Where is the zebra?")
            assert "zebra sleeps up north" in turn["answer"]
            assert "Rent" not in turn["answer"]
            note = tmp_path / "note.txt"
            note.write_text("The code is 4711.")
            await caller.room.local_participant.send_file(str(note), topic="parley.file")
            told = await asyncio.wait_for(caller.told.get(), 20)
            assert told["status"] == "read"
            await caller.quiet(0.5, 15)
            # It is deleted while the call goes on, and its replica is lost: the call keeps whom it began with.
            assert (await http.delete(f"/assistants/{id}")).status_code == 204
            carries = max(parley.replicas("agent"), key=lambda each: len(each.net_connections("udp")))
            carries.kill()
            caller.state = ""
            await caller.until(lambda: caller.state == "listening", 40, "agent on another replica")
            assert "zebra sleeps up north" in (await caller.ask("Where is the zebra?"))["answer"]
            # What came over LiveKit can be downloaded, by a link.
            at = f"/files/{told['file']}"
            async with asyncio.timeout(20):
                while not (await http.get(at)).json().get("stored"):  # noqa: ASYNC110  # it is stored beside the call
                    await asyncio.sleep(0.2)
            link = (await http.post(f"{at}/link")).json()["url"]
            assert (await http.get(link)).content == b"The code is 4711."
        assert (await http.post("/token", json={"assistant": id})).status_code == 422
