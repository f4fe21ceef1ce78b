"""A real call with marked secrets and words; afterwards everything that it left behind is searched for them.

Where content keys are set, the words of callers and files are in no file but the bytes of what was sent; secrets are
nowhere but in the environment of the processes that need them.
"""

from __future__ import annotations

import asyncio
import json
import re
from collections.abc import AsyncGenerator, Generator, Iterable
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import httpx
import pytest
import pytest_asyncio

from cluster import processes
from cluster.call import read_wav
from cluster.profile import Profile
from serve.config import ModelConfig, Route
from tests.conftest import Parley
from tests.room.test_changes import deploy, here, put_back
from tests.room.test_files import Sender

pytestmark = [pytest.mark.apart, pytest.mark.room, pytest.mark.timeout(300), pytest.mark.asyncio(loop_scope="module")]

ECHO = ModelConfig.model_validate({"name": "llm-echo", "engine": "fake-llm"})
"""Says what it was asked: the marked words are in the answer, too."""

TYPED, FILED, SENT, CALLER, HOOK = "xyzzyquokka", "plughwombat", "fooblenumbat", "grueada", "twistyhook"
"""Marked words: typed, in a file over the room, in a file over the API, the caller's name, in a webhook's address."""

ALLOWED_WORDS = re.compile(r"^/api/v1/(calls|files)\b|^/api/v1/export|^/api/v1/webhooks\b")
"""Where a key that may read calls, files or webhooks reads them."""

OURS = {"records.jsonl", "events.jsonl"}
"""Content that the tests have written into files: by the profile's `agent.backend: jsonl` before, and by their hook."""


@dataclass
class Left:
    """What one call has left.

    Attributes:
        secrets: That were in use, by what they are.
        words: Of the caller, of the file, of the answer.
        call: Its id.
        ids: For addresses of the API, by the part of the path before.
        answers: What the API answered to mistakes.
    """

    secrets: dict[str, str]
    words: dict[str, str]
    call: str
    ids: dict[str, str]
    answers: list[str] = field(default_factory=list[str])


@pytest.fixture(scope="module")
def backed(parley: Parley) -> Generator[Parley]:
    """Let calls tell the API, and the echo answer, for the tests of this file."""
    before, _ = here()
    routes = before.routes.model_copy(update={"llm": Route(default=ECHO.name)})
    agent = before.agent.model_copy(update={"backend": "api"})
    after: Profile = before.model_copy(update={"models": [*before.models, ECHO], "routes": routes, "agent": agent})
    with put_back(before):
        deploy(after)
        yield parley


@pytest_asyncio.fixture(scope="module", loop_scope="module")
async def left(backed: Parley, tmp_path_factory: pytest.TempPathFactory) -> AsyncGenerator[Left]:
    """Make one of everything, call, send files, ask wrongly, and wait until all of it is stored."""
    folder: Path = tmp_path_factory.mktemp("files")
    async with httpx.AsyncClient(base_url=backed.page, timeout=60) as http:
        again = {"idempotency-key": "once"}
        key = (await http.post("/api/v1/keys", json={"name": "k", "scopes": ["calls:read"]}, headers=again)).json()
        hook = {"url": f"https://hooks.invalid/{HOOK}", "events": ["call.ended"]}
        hook = (await http.post("/api/v1/webhooks", json=hook)).json()
        # Nothing is to be sent to it.
        headers = {"if-match": "*"}
        assert (await http.patch(f"/api/v1/webhooks/{hook['id']}", json={"enabled": False}, headers=headers)).is_success
        made = (await http.post("/api/v1/calls", json={"participant_name": CALLER})).json()
        path = f"/api/v1/calls/{made['id']}"
        token = made["participant_token"]
        heard = await _call(backed, made, folder, http)
        files = (await _settled(http, "/api/v1/files", lambda all: len(all["items"]) >= 2))["items"]
        file = next(each["id"] for each in files if each["name"] == "api.txt")
        link = (await http.post(f"/api/v1/files/{file}/link")).json()["url"]
        assert SENT in (await http.get(link)).text
        said = await _settled(http, f"{path}/turns", lambda all: len(all["items"]) >= 2)
        assert {TYPED, heard} <= {word for each in said["items"] for word in (each["heard"].split()[-1], each["heard"])}
        found = Left(
            {
                **backed.secrets,
                "LIVEKIT_API_SECRET": backed.keys.secret,
                "participant's token": token,
                "API key": key["key"],
                "webhook's secret": hook["secret"],
                "link to a file": link.partition("token=")[2],
            },
            {name: name for name in (TYPED, FILED, SENT)} | {"what was understood": heard},
            made["id"],
            {"calls": made["id"], "files": file, "keys": key["id"], "webhooks": hook["id"]},
        )
        found.answers = await _mistakes(http, found)
        yield found


async def _call(backed: Parley, made: dict[str, Any], folder: Path, http: httpx.AsyncClient) -> str:
    """Type, speak and send files; return what was understood of the speech."""

    async def enter() -> tuple[str, str]:
        return made["server_url"], made["participant_token"]

    caller = Sender(backed.page)
    caller._access = enter  # pyright: ignore[reportPrivateUsage]
    async with caller:
        await caller.settled()
        (folder / "room.txt").write_text(f"The word is {FILED}.")
        await caller.room.local_participant.send_file(str(folder / "room.txt"), topic="parley.file")
        await asyncio.wait_for(caller.told.get(), 30)
        await caller.quiet(0.5, 20)
        bearer = {"authorization": f"Bearer {made['participant_token']}"}
        form = {"file": ("api.txt", f"The word is {SENT}.".encode())}
        sent = await http.post(f"/api/v1/calls/{made['id']}/files", files=form, headers=bearer)
        assert sent.status_code == 201, sent.text
        await caller.quiet(0.5, 20)
        await caller.ask(f"The word is {TYPED}")
        await caller.quiet(0.5, 20)
        await caller.say(read_wav(backed.speech("Please tell me about the ocean and the sea.")).samples)
        turn = await asyncio.wait_for(caller.turns.get(), 30)
        assert len(turn["heard"].split()) > 3, turn
    return str(turn["heard"])


async def _settled(http: httpx.AsyncClient, path: str, ready: Any, seconds: float = 40) -> Any:
    """Return an answer once it is so: records arrive a moment later."""
    body: Any = None
    try:
        async with asyncio.timeout(seconds):
            while not ready(body := (await http.get(path)).json()):  # noqa: ASYNC110  # nobody tells when a row is written
                await asyncio.sleep(0.2)
    except TimeoutError:
        raise AssertionError(body) from None
    return body


async def _mistakes(http: httpx.AsyncClient, left: Left) -> list[str]:
    """Send secrets and words where they do not belong; return the answers, which are to name neither."""
    secret, words = left.secrets["PARLEY_API_KEYS"], left.words[TYPED]
    wrong = {"authorization": f"Bearer parley_{'0' * 16}_{secret[:43]:_<43}"}
    chat = {"model": "parley-llm", "messages": [{"role": "user", "content": words}], "temperature": "hot"}
    key = {"authorization": f"Bearer {secret}"}
    asked = [
        http.get("/api/v1/keys", headers=wrong),
        http.get("/v1/models", headers={"authorization": f"Bearer {secret}x"}),
        http.post("/v1/chat/completions", json=chat, headers=key),
        http.post("/v1/chat/completions", content=f'{{"messages": "{words}', headers=key),
        http.post("/api/v1/calls", json={"participant_name": {"text": words}}),
        http.post("/api/v1/webhooks", json={"url": left.secrets["webhook's secret"], "events": [words]}),
        http.post("/webhooks/livekit", content=words, headers={"authorization": left.secrets["participant's token"]}),
        http.get("/api/v1/files/file_0/content", params={"token": left.secrets["link to a file"]}),
        http.post(f"/api/v1/calls/{left.call}/files", content=words, headers={"content-type": "multipart/form-data"}),
    ]
    answers = await asyncio.gather(*asked)
    assert all(400 <= answer.status_code < 500 for answer in answers), [answer.status_code for answer in answers]
    return [f"{answer.request.method} {answer.request.url.path}: {answer.text} {answer.headers}" for answer in answers]


def found(where: str, data: str | bytes, marks: dict[str, str]) -> list[str]:
    """Say what of the marks is in something; never the mark itself."""
    raw = data.encode() if isinstance(data, str) else data
    return [f"{name} in {where}" for name, mark in marks.items() if mark.encode() in raw]


def files_under(folder: Path) -> Iterable[Path]:
    return (each for each in sorted(folder.rglob("*")) if each.is_file() and not each.is_symlink())


async def test_no_log_has_any_of_it(left: Left, backed: Parley) -> None:
    """Ray's, Serve's, the ingress' (with its access log), LiveKit's, Parley's: all under the folder of the run."""
    folder = backed.logs.resolve().parents[2]
    names, wrong, told = set[str](), list[str](), list[str]()
    for path in files_under(folder):
        names.add(path.name)
        wrong += found(str(path.relative_to(folder)), path.read_bytes(), {**left.secrets, **left.words})
        told += found(path.name, path.read_bytes(), {"the call": left.call, "the link": "/content"})
    assert {"livekit.log", "ray.log", "gcs_server.out"} <= names
    assert len(names) > 40
    assert any("agent" in name for name in names)
    assert any("Api" in name for name in names)
    assert len(told) >= 3, f"they are the logs of this call, and of its requests: {told}"
    assert wrong == []


async def test_the_database_and_the_outbox_have_no_plain_text(left: Left, backed: Parley) -> None:
    """What was sent as a file stays a file; text of it, like all that was said, is encrypted."""
    marks = {**left.secrets, **left.words}
    async with asyncio.timeout(20):
        while found("", _outbox(backed.home), marks):  # noqa: ASYNC110  # another process wipes it
            await asyncio.sleep(0.2)
    wrong: list[str] = []
    sent = backed.home / "files"
    for path in files_under(backed.home):
        if path.name not in OURS:
            wrong += found(path.name, path.read_bytes(), left.secrets if path.is_relative_to(sent) else marks)
    assert wrong == []
    kept = [sent, *backed.home.glob("parley.db*"), *backed.home.glob("outbox.db*")]
    assert len(kept) >= 3
    assert [path.name for path in kept if path.stat().st_mode & 0o077] == [], "these are for their user only"
    assert b"fernet:" in b"".join(each.read_bytes() for each in backed.home.glob("parley.db*"))


def _outbox(home: Path) -> bytes:
    return b"".join(each.read_bytes() for each in home.glob("outbox.db*"))


async def test_no_process_shows_any_of_it(left: Left, backed: Parley) -> None:
    shown = {each.pid: [each.name(), *each.cmdline()] for each in processes.find(backed.run)}
    assert len(shown) > 8
    marks = {**left.secrets, **left.words}
    assert [each for pid, title in shown.items() for each in found(f"{pid} {title[0]}", " ".join(title), marks)] == []


async def test_no_answer_has_what_it_should_not(left: Left, backed: Parley) -> None:
    """Every GET of the API, as its owner: secrets are shown when they are made, and words to whoever reads calls."""
    wrong = [each for answer in left.answers for each in found(answer[:60], answer, {**left.secrets, **left.words})]
    async with httpx.AsyncClient(base_url=backed.page, timeout=30) as http:
        described = (await http.get("/api/openapi.json")).json()
        seen = 0
        for path, methods in described["paths"].items():
            parts = path.split("/")
            parts = [left.ids.get(parts[at - 1], "none") if part[:1] == "{" else part for at, part in enumerate(parts)]
            if "get" not in methods or path.endswith("/live"):
                continue
            answer = await http.get("/".join(parts), headers=backed.key if path.startswith("/v1/") else {})
            seen += answer.is_success
            marks = left.secrets if ALLOWED_WORDS.match(path) else {**left.secrets, **left.words}
            # The session's id in a header, too.
            wrong += found(path, f"{answer.headers} {answer.text}", marks)
        for path in ("/", "/api/docs", "/api/openapi.json", "/health/ready", "/nothing-here"):
            answer = await http.get(path)
            wrong += found(path, f"{answer.headers} {answer.text}", {**left.secrets, **left.words})
    assert seen > 20
    assert wrong == []


async def test_neither_metrics_nor_the_dashboard_show_any_of_it(left: Left, backed: Parley) -> None:
    profile, _ = here()
    dashboard = backed.addresses["dashboard"] or ""
    exported = (backed.logs.parent / "prom_metrics_service_discovery.json").read_text()
    targets = [f"http://{target}/metrics" for group in json.loads(exported) for target in group["targets"]]
    pages = [
        *targets,
        f"http://127.0.0.1:{profile.ray.haproxy_metrics_port}/metrics",
        f"http://127.0.0.1:{profile.ray.haproxy_stats_port}/stats",
        *(f"{dashboard}{path}" for path in ("/api/serve/applications/", "/api/jobs/", "/nodes?view=details")),
        *(f"{dashboard}/api/v0/{kind}?detail=1&limit=1000" for kind in ("actors", "tasks", "workers", "runtime_envs")),
        f"{dashboard}/logical/actors",
    ]
    wrong, length = list[str](), 0
    async with httpx.AsyncClient(timeout=30, trust_env=False) as http:
        for page in pages:
            try:
                answer = await http.get(page)
            except httpx.ConnectError:
                assert "stats" in page, page
                continue
            length += len(answer.text)
            wrong += found(page, f"{answer.headers} {answer.text}", {**left.secrets, **left.words})
    assert len(targets) >= 1
    assert length > 50_000
    assert wrong == []


async def test_the_search_finds_what_is_there(left: Left, tmp_path: Path) -> None:
    """Else all tests above would pass on nothing."""
    (tmp_path / "a" / "b").mkdir(parents=True)
    marks = {**left.secrets, **left.words}
    assert len(set(marks.values())) == len(marks) >= 14
    assert all(len(mark) > 8 for mark in marks.values())
    for number, mark in enumerate(marks.values()):
        (tmp_path / "a" / "b" / f"{number}.log").write_bytes(b"\0\xff" + mark.encode() + b"\n")
    hits = [each for path in files_under(tmp_path) for each in found(path.name, path.read_bytes(), marks)]
    assert len(hits) == len(marks)
