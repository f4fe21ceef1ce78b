"""The console in a real Chromium, before the application under uvicorn with a filled database; no cluster."""

from __future__ import annotations

import asyncio
import datetime
import random
from collections.abc import AsyncGenerator
from contextlib import AsyncExitStack, asynccontextmanager
from dataclasses import dataclass, field
from decimal import Decimal
from pathlib import Path
from typing import Any, Literal

import axe_playwright_python  # pyright: ignore[reportMissingTypeStubs]
import pytest
import uvicorn
from fastapi import FastAPI, Request
from playwright.async_api import Browser, BrowserContext, Page, async_playwright
from sqlalchemy import insert, text

from api.access.principal import Principal
from api.access.scopes import ROLES, Role
from api.db import Database, session_of
from api.db.tables import Call, CallEvent, Participant, Person, Turn, Usage, WebhookEndpoint, WebhookMessage
from api.db.tables.accounts import DEFAULT_TENANT
from api.db.types import now
from api.openai.catalog import CatalogModel
from serve.config import Route, Routes
from serve.settings import settings
from tests.unit.api.backend import backend
from tests.unit.api.fake_dispatchers import FakeDispatchers

from .conftest import FLAGS, Caller, chromium, watch

STEP_MS = 10_000
SIZES = {"wide": (1280, 800), "phone": (390, 844)}
TOOLS = ["end_call", "hand_over", "transfer_to_person"]
MODELS = [
    ("stt", "stt-small", "fake-stt"),
    ("llm", "llm-small", "fake-llm"),
    ("llm", "llm-new", "fake-llm"),
    ("tts", "tts-small", "fake-tts"),
]
TOLD = "call-000000000001"
"""The call of which everything is known."""

ENVIRONMENT = {"LIVEKIT_URL": "ws://127.0.0.1:1", "LIVEKIT_API_KEY": "key", "LIVEKIT_API_SECRET": "s" * 32}
"""Nobody listens there: no other cluster of this machine is reached."""

AXE = Path(axe_playwright_python.__file__).with_name("axe.min.js")
LOOK = """async () => {
    const { violations } = await window.axe.run(document, { resultTypes: ["violations"], iframes: false });
    return violations.flatMap((each) => each.nodes.map((node) => `${each.id}: ${node.html}`));
}"""

OWNER = "per_ada"
HOOK, DEAD = "hook_one", "msg_dead"


class FakeReaders(FakeDispatchers):
    """Reads files, too: what is in them, as text."""

    async def answer(self, method: str, *args: Any) -> Any:
        """Answer as a dispatcher does."""
        if method != "read":
            return await super().answer(method, *args)
        name, data = args
        return {"status": "read", "name": name, "kind": "text/plain", "text": data.decode(), "note": ""}


class FakeDoor:
    """Lets in a person with a role; None: nobody."""

    def __init__(self) -> None:
        self.role: Role | None = "owner"

    async def __call__(self, request: Request, database: Database) -> Principal | None:
        """Return who asks; whoever shows a key is not this person."""
        if self.role is None or "authorization" in request.headers:
            return None
        return Principal(OWNER, DEFAULT_TENANT, "person", ROLES[self.role], "Ada", self.role)


@dataclass
class Console:
    """The application and a browser before it.

    Attributes:
        base: Address, without a slash at its end.
        door: Says who is signed in.
        complaints: What the browser said in its console; a test takes away what it expects.
    """

    app: FastAPI
    base: str
    browser: Browser
    dispatchers: FakeReaders
    door: FakeDoor = field(default_factory=FakeDoor)
    visitors: list[Caller] = field(default_factory=list[Caller])

    @asynccontextmanager
    async def visit(
        self,
        path: str,
        size: str = "wide",
        scheme: Literal["light", "dark"] = "light",
        *,
        still: bool = True,
        expect: tuple[str, ...] = (),
    ) -> AsyncGenerator[Page]:
        """Yield a page of the console; what its browser complains of and is not expected fails the test."""
        width, height = SIZES[size]
        context: BrowserContext = await self.browser.new_context(
            viewport={"width": width, "height": height},
            color_scheme=scheme,
            reduced_motion="reduce" if still else "no-preference",
            locale="en-GB",
            permissions=["clipboard-read", "clipboard-write"],
        )
        try:
            page = await context.new_page()
            page.set_default_timeout(STEP_MS)
            visitor = Caller(page)
            visitor.expect_complaints(*expect)
            watch(visitor)
            await page.goto(f"{self.base}{path}")
            yield page
            visitor.check()
        finally:
            await context.close()


@asynccontextmanager
async def console(folder: Path) -> AsyncGenerator[Console]:
    """Serve the application with a filled database, and yield it with a browser."""
    dispatchers = FakeReaders()
    async with AsyncExitStack() as stack:
        stack.callback(settings.cache_clear)
        patch = stack.enter_context(pytest.MonkeyPatch.context())
        for name, value in ENVIRONMENT.items():
            patch.setenv(name, value)
        patch.setenv("PARLEY_HOME", str(folder))
        settings.cache_clear()
        app = await stack.enter_async_context(
            backend(folder, dispatchers, webhooks={"allow_private": True}, assistants={"mcp": [], "people": []})
        )
        door = FakeDoor()
        app.state.doormen = [app.state.keys, door]
        app.state.staff.update({"default": {"description": "Talks about anything."}, "orders": {}}, TOOLS)
        models = [CatalogModel(name=name, role=role, engine=engine) for role, name, engine in MODELS]  # pyright: ignore[reportArgumentType]
        routes = {role: Route(default=f"{role}-small") for role in ("stt", "llm", "tts")}
        routes["llm"] = Route(default="llm-small", weights={"llm-new": 0.1})
        app.state.catalog.update(models, Routes.model_validate(routes))
        await fill(app)
        server = uvicorn.Server(uvicorn.Config(app, port=0, log_level="warning", timeout_graceful_shutdown=1))
        serving = asyncio.create_task(server.serve())
        stack.push_async_callback(_stop, server, serving)
        async with asyncio.timeout(30):
            while not server.started:  # uvicorn tells no event
                assert not serving.done(), "the application did not start"
                await asyncio.sleep(0.01)
        port = server.servers[0].sockets[0].getsockname()[1]
        driver = await stack.enter_async_context(async_playwright())
        browser = await driver.chromium.launch(executable_path=chromium(), args=FLAGS, timeout=STEP_MS)
        stack.push_async_callback(browser.close)
        yield Console(app, f"http://127.0.0.1:{port}", browser, dispatchers, door)


async def _stop(server: uvicorn.Server, serving: asyncio.Task[None]) -> None:
    server.should_exit = True
    async with asyncio.timeout(10):
        await serving


def calls(count: int, before: datetime.datetime, first: int = 0) -> list[dict[str, Any]]:
    """Return rows of ended calls, the newest first, seven minutes apart."""
    chance = random.Random(7)
    rows: list[dict[str, Any]] = []
    for number in range(first, first + count):
        at = before - datetime.timedelta(minutes=7 * (number + 1))
        turns = chance.randint(0, 9)
        row = {"id": f"call-{number:012x}", "tenant_id": DEFAULT_TENANT, "created_at": at, "status": "ended"}
        row |= {"assistant": chance.choice(["default", "orders"]), "medium": chance.choice(["standard", "sip"])}
        row |= {"caller": chance.choice(["Ada", "Grace", "Linus", "+49 30 1234567"])}
        row |= {"answered_at": at, "ended_at": at + datetime.timedelta(seconds=chance.randint(8, 400)), "seen_at": at}
        row |= {"reason": "CLIENT_INITIATED", "turns": turns, "errors": int(chance.random() < 0.06), "epoch": 0}
        row |= {"interruptions": chance.randint(0, 2), "median_ms": chance.randint(450, 1400) if turns else None}
        row |= {"cost": Decimal(chance.randint(0, 90_000)) / 10**6, "currency": "EUR", "annotations": {}}
        rows.append(row)
    return rows


async def bulk(app: FastAPI, rows: list[dict[str, Any]]) -> None:
    """Write calls as quickly as the database takes them."""
    async with app.state.database.system() as session:
        await session.execute(insert(Call), rows)
        await session.commit()


async def many(app: FastAPI, count: int) -> None:
    """Write so many more calls, copies of those that are there, each older than the one before."""
    same = [column.name for column in Call.__table__.columns if column.name not in ("id", "created_at")]
    statement = f"""
        INSERT INTO calls (id, created_at, {", ".join(same)})
        WITH RECURSIVE counted(number) AS (SELECT 1 UNION ALL SELECT number + 1 FROM counted WHERE number < {count})
        SELECT printf('call-copy-%x', number),
            strftime('%Y-%m-%d %H:%M:%f000', created_at, '-' || (7 * number) || ' minutes'), {", ".join(same)}
        FROM counted JOIN (SELECT * FROM calls WHERE status = 'ended' ORDER BY created_at LIMIT 1)
    """  # names of columns and a number
    async with app.state.database.system() as session:
        await session.execute(text(statement))
        await session.commit()


async def fill(app: FastAPI, count: int = 60) -> None:
    """Write calls, one of them with all that hangs on it, their usage, people, and a webhook with its messages."""
    await bulk(app, calls(count, now()))
    async with session_of(app.state.database, DEFAULT_TENANT) as session:
        await _tell(session)
        _use(session)
        people = [(OWNER, "Ada Lovelace", "owner"), ("per_grace", "Grace Hopper", "viewer")]
        for id, name, role in people:
            email = f"{name.split()[0].lower()}@example.com"
            issuer = "https://login.example.com"
            session.add(Person(id=id, issuer=issuer, subject=id, name=name, email=email, role=role, seen_at=now()))
        events = ["call.ended", "file.ready"]
        url = "https://example.com/hooks/parley"
        session.add(
            WebhookEndpoint(id=HOOK, url=url, events=events, description="The CRM", secret="whsec_x", disabled_at=now())
        )
        await session.flush()
        dead: dict[str, Any] = {"endpoint_id": HOOK, "payload": {}, "next_at": now()}
        session.add(
            WebhookMessage(
                id=DEAD, event="call.ended", status="dead", attempts=8, answer=500, problem="answered 500", **dead
            )
        )
        session.add(
            WebhookMessage(id="msg_done", event="file.ready", status="delivered", attempts=1, answer=204, **dead)
        )
        await session.commit()


async def _tell(session: Any) -> None:
    call = await session.get(Call, TOLD)
    call.caller, call.turns, call.interruptions, call.errors, call.assistant = "Ada Lovelace", 6, 1, 1, "orders"
    call.medium, call.median_ms, call.cost, call.ended_at = "standard", 760, Decimal("0.0084"), None
    call.ended_at = call.created_at + datetime.timedelta(seconds=74)
    questions = [
        ("When do you open on Saturday?", "We open at nine on Saturdays."),
        ("And is there parking near the shop?", "There is a car park behind the shop, free for the first hour."),
        ("Do you have the blue kettle?", "We do, the one with"),
        ("How much is it?", "It is thirty-four euros."),
        ("Can you put one aside for me?", ""),
        ("My name is Ada, I come at ten.", "It is put aside for you, Ada. See you at ten."),
    ]
    for number, (heard, answer) in enumerate(questions, 1):
        late, began = number * 30, call.created_at.timestamp() + 11 * number
        timeline = [
            ("endpointing", 0, 430),
            ("stt", 20, 240),
            ("llm", 440, 560 + late),
            ("tts", 570 + late, 650 + late),
        ]
        measures = {
            "times": {"question": [began, began + 2], "answer": [began + 3, began + 6]},
            "stages": {"stt_ms": 240, "llm_first_token_ms": 120 + late, "tts_first_byte_ms": 80},
            "timeline": [{"stage": stage, "from_ms": start, "to_ms": end} for stage, start, end in timeline],
            "models": {"stt": "stt-small", "llm": "llm-small", "tts": "tts-small"},
            "fallback": {"llm": "llm-new"} if number == 4 else None,
            "retries": int(number == 4),
        }
        session.add(
            Turn(
                id=f"turn-{number}",
                call_id=TOLD,
                number=number,
                at=call.created_at + datetime.timedelta(seconds=11 * number),
                heard=heard,
                answer=answer,
                interrupted=number == 3,
                typed=number == 6,
                error=None if answer else "Unavailable",
                voice_ms=650 + late if answer else None,
                measures=measures,
            )
        )
    for number, event in enumerate(["participant_connected", "track_subscribed", "user_state_changed"]):
        at = call.created_at + datetime.timedelta(seconds=number)
        session.add(CallEvent(id=f"evt-{number}", call_id=TOLD, at=at, event=event, fields={"identity": "caller-1"}))
    session.add(
        Participant(id="one", call_id=TOLD, identity="caller-1", name="Ada Lovelace", joined_at=call.created_at)
    )


def _use(session: Any) -> None:
    """Three days' usage: 12 minutes, 3 EUR."""
    amounts: dict[str, dict[str, float]] = {
        "llm-small": {"prompt_tokens": 900, "completion_tokens": 120},
        "tts-small": {"characters": 500},
        "call": {"minutes": 4},
    }
    for day in range(3):
        for model, used in amounts.items():
            session.add(
                Usage(
                    id=f"usage-{day}-{model}",
                    call_id=TOLD if day == 0 else f"call-{day + 1:012x}",
                    turn_id="turn-1" if day == 0 and model == "llm-small" else None,
                    day=now().date() - datetime.timedelta(days=day),
                    role="call" if model == "call" else model.split("-")[0],
                    model=model,
                    assistant="orders",
                    amounts=used,
                    cost=Decimal("0.5"),
                    currency="EUR" if model != "tts-small" else "",
                    price_date=now().date() if model != "tts-small" else None,
                )
            )


async def faults(page: Page) -> list[str]:
    """Return what axe finds, of any weight."""
    if not await page.evaluate("'axe' in window"):
        await page.evaluate(AXE.read_text())
    return await page.evaluate(LOOK)
