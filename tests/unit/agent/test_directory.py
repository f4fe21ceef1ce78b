"""Tenants' assistants in a call: had from the API, kept through a move, handed over to; and their files."""

from __future__ import annotations

import asyncio
from types import SimpleNamespace
from typing import Any, cast

import pytest
from livekit import rtc

from agent import directory
from agent.assistants import Assistants, wanted
from agent.config import AgentConfig
from agent.directory import Directory
from agent.documents import Document
from agent.library import Library
from serve.errors import Unavailable

pytestmark = pytest.mark.unit

REF = "asst_1@3"
METADATA = f'{{"assistant": "{REF}", "tenant": "ten_a"}}'
ROOM = cast(rtc.Room, SimpleNamespace(remote_participants={"a": SimpleNamespace(attributes={})}))
FILES = [
    {"name": "hours.txt", "kind": "text/plain", "size": 9, "text": "Closed on Mondays."},
    {"name": "old.txt", "kind": "text/plain", "size": 9, "text": "Older."},
]


def told(ref: str = REF, name: str = "Desk", **definition: Any) -> dict[str, Any]:
    others = [{"ref": "asst_2@1", "name": "Kitchen", "description": "Cooks."}]
    return {"ref": ref, "name": name, "definition": definition, "files": FILES, "others": others}


class FakeApi:
    """Answers as the API does, by what is asked."""

    def __init__(self, **answers: Any) -> None:
        self.answers = answers or {REF: told(greeting="Desk here.")}
        self.away = False
        self.asked: list[tuple[Any, ...]] = []
        self.kept: asyncio.Queue[tuple[Any, ...]] = asyncio.Queue()
        self.unknown = 0

    async def __call__(self, method: str, *args: Any) -> Any:
        if self.away:
            raise ConnectionError
        if method == "keep":
            if self.unknown:
                self.unknown -= 1
                return False
            self.kept.put_nowait(args)
            return True
        self.asked.append(args)
        return self.answers.get(args[0])


@pytest.fixture(autouse=True)
def quick(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(directory, "FIND_SECONDS", 0.2)
    monkeypatch.setattr(directory, "KNOWN_SECONDS", 0.2)
    monkeypatch.setattr(directory, "PAUSE_SECONDS", 0.01)
    monkeypatch.setattr(directory, "KEEP_PAUSES", (0.01, 0.01))


def staff(api: FakeApi, desk: Directory | None = None) -> Assistants:
    return Assistants(AgentConfig(), desk or Directory(api))


async def test_the_assistant_that_is_asked_for_answers_with_what_it_knows() -> None:
    api = FakeApi()
    assistants = staff(api)
    name = await assistants.of(METADATA, ROOM)
    assert (name, assistants[name].greeting) == ("Desk", "Desk here.")
    assert api.asked == [(REF, "ten_a")]
    library = Library()
    library.add(Document("sent.txt", "text/plain", 4, "Mine."))
    library.know(assistants.shelf(name))
    prompt = str(library.into([], [{"role": "user", "content": "When are you closed?"}]))
    assert (
        prompt.index("Older.") < prompt.index("Use what stands in hours.txt") < prompt.index("I send you the file sent")
    )
    assert len(library) == 1, "what the assistant knows is no file of the caller's"
    assert [each["name"] for each in library.json()] == ["sent.txt"]
    library.know(())
    assert library.names == ["sent.txt"]


async def test_the_callers_token_asks_where_the_dispatch_does_not() -> None:
    caller = SimpleNamespace(attributes={"parley.assistant": REF, "parley.tenant": "ten_a"})
    assert wanted("", [cast(Any, caller)]) == (REF, "ten_a")
    assert wanted('{"assistant": "x"}', [cast(Any, caller)]) == ("x", "ten_a")
    assert wanted("[]", []) == ("", "")


async def test_the_default_one_answers_where_nobody_says(caplog: pytest.LogCaptureFixture) -> None:
    api = FakeApi()
    assert await staff(api).of('{"assistant": "asst_9@1"}', ROOM) == "default"
    api.away = True
    began = asyncio.get_running_loop().time()
    assert await staff(api).of(METADATA, ROOM) == "default"
    assert asyncio.get_running_loop().time() - began < 1
    api.away, api.answers = False, {REF: {**told(), "definition": {"greting": "?"}}}
    assert await staff(api).of(METADATA, ROOM) == "default", "what cannot be read is nobody"
    assert "ten_a" not in caplog.text


async def test_what_a_replica_knows_stands_in_while_the_api_is_away() -> None:
    api = FakeApi()
    desk = Directory(api)
    await staff(api, desk).of(METADATA, ROOM)
    api.away = True
    assistants = staff(api, desk)
    assert assistants[await assistants.of(METADATA, ROOM)].greeting == "Desk here."


async def test_an_api_that_is_replaced_is_asked_again() -> None:
    api = FakeApi()
    api.away = True
    asyncio.get_running_loop().call_later(0.05, setattr, api, "away", False)
    assert await staff(api).of(METADATA, ROOM) == "Desk"


async def test_a_call_keeps_the_version_it_began_with_on_another_replica() -> None:
    api = FakeApi()
    before = staff(api)
    name = await before.of(METADATA, ROOM)
    kept = before.kept(name)
    assert "files" not in kept
    # Changed and deleted meanwhile, and the API is away: the record says who answers.
    api.away = True
    after = staff(api)
    assert await after.again(name, kept) == "Desk"
    assert after["Desk"].greeting == "Desk here."
    assert after.kept("Desk") == kept
    # The API is there: it is asked for that version, not for the newest.
    api.away, api.asked = False, []
    third = staff(api)
    await third.again(name, kept)
    assert api.asked == [(REF, "ten_a")]
    assert [each.document.name for each in third.shelf("Desk")] == ["old.txt", "hours.txt"]
    assert await third.again("nobody", {}) == "default"


async def test_another_one_of_the_tenant_takes_over() -> None:
    kitchen: dict[str, Any] = {**told("asst_2@1", "Kitchen", greeting="Kitchen here."), "files": []}
    api = FakeApi(**{REF: told(), "asst_2@1": kitchen})
    assistants = staff(api)
    await assistants.of(METADATA, ROOM)
    assert list(assistants.named) == ["default", "Kitchen", "Desk"]
    await assistants.ready("Kitchen")
    assert assistants["Kitchen"].greeting == "Kitchen here."
    assert assistants.shelf("Kitchen") == ()
    assert assistants.kept("Kitchen")["ref"] == "asst_2@1"
    await assistants.ready("default")
    gone = staff(FakeApi())
    await gone.of(METADATA, ROOM)
    with pytest.raises(Unavailable):
        await gone.ready("Kitchen")


async def test_bytes_are_kept_beside_the_call_and_tried_again() -> None:
    api = FakeApi()
    desk = Directory(api)
    api.unknown = 2
    desk.keep("room", "ten_a", "file_1", Document("a.txt", "text/plain", 5), b"hello")
    async with asyncio.timeout(5):
        assert await api.kept.get() == ("ten_a", "room", "file_1", "a.txt", "text/plain", b"hello")


async def test_bytes_that_cannot_be_kept_are_left(caplog: pytest.LogCaptureFixture) -> None:
    api = FakeApi()
    api.away = True
    desk = Directory(api)
    for number in range(directory.KEEPING + 1):
        desk.keep("room", "ten_a", f"file_{number}", Document("secret.txt", "text/plain", 5), b"hello")
    async with asyncio.timeout(5):
        await asyncio.gather(*desk._keeping)  # pyright: ignore[reportPrivateUsage]
    assert "too many wait" in caplog.text
    assert "ConnectionError" in caplog.text
    assert "secret" not in caplog.text
