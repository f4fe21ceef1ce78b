"""Parley and the obvious alternative in one run: the same sentences, the same robot, the same livekit-server."""

from __future__ import annotations

import asyncio
import contextlib
import datetime
import json
import os
import socket
import subprocess
import sys
import threading
import uuid
from collections.abc import AsyncGenerator, Callable
from typing import Any, Literal

import httpx
from livekit import api
from livekit.protocol.agent_dispatch import RoomAgentDispatch
from livekit.protocol.room import RoomConfiguration

from cluster.bench.report import Report
from cluster.bench.stock import AGENT_NAME, REGISTERED
from cluster.bench.voice import voice
from cluster.profile import Profile
from serve.contracts import ROLES
from serve.errors import Unavailable

Progress = Callable[[str], None]
Executor = Literal["process", "thread"]
START_SECONDS = 90.0


async def compare(
    page: str, profile: Profile, livekit: dict[str, str], say: Progress, *, calls: int, turns: int
) -> list[Report]:
    """Measure voice to voice with Parley, then with the stock worker.

    Args:
        page: Address of the page.
        profile: Names the engines.
        livekit: LIVEKIT_URL, LIVEKIT_API_KEY and LIVEKIT_API_SECRET of the running cluster.
        say: Told what is being done.
        calls: Callers at once.
        turns: Turns of each.
    """
    ours = await voice(page, say, calls=calls, turns=turns, name=f"voice --calls {calls} --turns {turns}: Parley")
    async with stock(profile, livekit, say):
        theirs = await voice(
            page,
            say,
            calls=calls,
            turns=turns,
            access=lambda: stock_access(livekit),
            name=f"voice --calls {calls} --turns {turns}: HTTP servers and a stock worker",
        )
    return [ours, theirs]


async def stock_access(livekit: dict[str, str]) -> tuple[str, str]:
    """Return LiveKit's url and a token for a call that the stock worker takes."""
    room = f"stock-{uuid.uuid4().hex[:8]}"
    config = RoomConfiguration(name=room, agents=[RoomAgentDispatch(agent_name=AGENT_NAME)])
    token = (
        api.AccessToken(livekit["LIVEKIT_API_KEY"], livekit["LIVEKIT_API_SECRET"])
        .with_identity("caller")
        .with_grants(api.VideoGrants(room_join=True, room=room))
        .with_ttl(datetime.timedelta(minutes=10))
        .with_room_config(config)
    )
    return livekit["LIVEKIT_URL"], token.to_jwt()


@contextlib.asynccontextmanager
async def stock(
    profile: Profile, livekit: dict[str, str], say: Progress, *, executor: Executor = "thread"
) -> AsyncGenerator[subprocess.Popen[bytes]]:
    """Run the alternative's four processes; yields the worker, whose children are its calls.

    Args:
        profile: Names the engines.
        livekit: LIVEKIT_URL, LIVEKIT_API_KEY and LIVEKIT_API_SECRET of the running cluster.
        say: Told what is being done.
        executor: What the worker runs a call in; livekit-agents itself takes processes.
    """
    say("starting HTTP servers and a stock worker")
    assistant = profile.agent.assistant
    examples = [
        {"role": role, "content": text}
        for each in assistant.examples
        for role, text in (("user", each.user), ("assistant", each.assistant))
    ]
    worker: dict[str, Any] = {
        "instructions": assistant.instructions,
        "examples": examples,
        "greeting": assistant.greeting,
        "max_tokens": assistant.max_tokens,
        "rate": 16000,
        "executor": executor,
    }
    processes: list[subprocess.Popen[bytes]] = []
    try:
        urls: list[str] = []
        for role in ROLES:
            model = profile.model(profile.routes.model(role))
            port = _free_port()
            processes.append(_start(["engine", model.engine, str(port)], model.options, livekit))
            urls.append(f"http://127.0.0.1:{port}")
        for url in urls:
            await _ready(url)
        worker["urls"] = urls
        processes.append(_start(["worker"], worker, livekit))
        await asyncio.to_thread(_registered, processes[-1])
        yield processes[-1]
    finally:
        for process in processes:
            process.terminate()
        for process in processes:
            try:
                await asyncio.to_thread(process.wait, 10)
            except subprocess.TimeoutExpired:
                process.kill()


def _start(arguments: list[str], config: object, livekit: dict[str, str]) -> subprocess.Popen[bytes]:
    environment = {**os.environ, **livekit, "PARLEY_STOCK": json.dumps(config)}
    command = [sys.executable, "-m", "cluster.bench.stock", *arguments]
    # What goes wrong in it is shown: a comparison with something broken would be worth nothing.
    return subprocess.Popen(command, env=environment, stdout=subprocess.PIPE)  # noqa: S603


def _registered(worker: subprocess.Popen[bytes]) -> None:
    """Wait until the worker says that LiveKit knows it, or ends."""
    watchdog = threading.Timer(START_SECONDS, worker.kill)
    watchdog.start()
    try:
        assert worker.stdout
        for line in worker.stdout:
            if line.strip() == REGISTERED.encode():
                return
        raise Unavailable(f"the stock worker did not register within {START_SECONDS:.0f} s")
    finally:
        watchdog.cancel()


def _free_port() -> int:
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        return int(probe.getsockname()[1])


async def _ready(url: str) -> None:
    async with httpx.AsyncClient(timeout=2) as http:
        try:
            async with asyncio.timeout(START_SECONDS):
                while True:
                    with contextlib.suppress(httpx.HTTPError):
                        if (await http.get(f"{url}/ready")).is_success:
                            return
                    await asyncio.sleep(0.2)  # it tells no event of its start
        except TimeoutError:
            raise Unavailable(f"the engine at {url} did not start within {START_SECONDS:.0f} s") from None
