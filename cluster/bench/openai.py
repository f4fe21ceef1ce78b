"""What HTTP costs: the first token of a chat completion over Parley's API, in-process, and over llama.cpp's own server.

The three run the same model, with the same options and prompt, in turns: what else the machine does falls on all alike.
"""

from __future__ import annotations

import asyncio
import importlib
import json
import secrets
import socket
import time
from collections.abc import AsyncGenerator, Awaitable, Callable
from contextlib import aclosing, asynccontextmanager
from typing import Any, cast

import httpx

from cluster.bench.report import Report
from cluster.profile import Profile
from serve import registry
from serve.contracts import ChatRequest, LanguageModel
from serve.errors import Unavailable
from serve.llm.llamacpp import Options, parameters

Progress = Callable[[str], None]

_MESSAGES = [
    {"role": "system", "content": "You are a friendly voice assistant. Answer in one or two short spoken sentences."},
    {"role": "user", "content": "What can you do?"},
]
_TOKENS = 4
_WARM = 5
_SECONDS = 30.0


async def openai(api: str, key: str | None, profile: Profile, say: Progress, *, times: int) -> Report:
    """Measure the first token three ways.

    Args:
        api: Address of the API, with /v1.
        key: Its key, where it has one.
        profile: Names the language model; it must be llama.cpp's.
        say: Told what is being done.
        times: Measured rounds.

    Raises:
        Unavailable: Another engine serves the role, or a server does not answer.
    """
    config = profile.model(profile.routes.model("llm"))
    if config.engine != "llamacpp":
        raise Unavailable(
            f"{config.name} runs on {config.engine}; this benchmark compares llamacpp with its own server"
        )
    options = Options.model_validate(config.options)
    say("loading the model twice: in this process, and behind llama.cpp's own server")
    engine = cast(LanguageModel, registry.create(config.engine, config.options))
    found: dict[str, list[float]] = {"parley": [], "inside": [], "stock": []}
    async with (
        _loaded(engine),
        _llamacpp_server(options) as (url, secret),
        _client(key) as ours,
        _client(secret) as theirs,
    ):
        ways: list[tuple[str, Callable[[], Awaitable[float]]]] = [
            ("parley", lambda: _over_http(ours, api, config.name)),
            ("inside", lambda: _in_process(engine)),
            ("stock", lambda: _over_http(theirs, url, config.name)),
        ]
        say(f"{times} rounds of three")
        for number in range(times + _WARM):
            first = number % len(ways)  # each is first as often as the others
            for name, way in ways[first:] + ways[:first]:
                value = await way()
                if number >= _WARM:  # the first ones read the prompt into each cache
                    found[name].append(value)
    parley, inside, stock = found.values()
    report = Report(f"openai --times {times}")
    report.add("first token over Parley's /v1", "ms", parley, "ingress, API, handle, engine")
    report.add("first token in-process", "ms", inside, "the same engine in this process")
    report.add("first token over llama.cpp's server", "ms", stock, "the same model and options")
    report.add("Parley less in-process", "ms", _differences(parley, inside), "difference of each round")
    report.add("llama.cpp's server less in-process", "ms", _differences(stock, inside), "difference of each round")
    report.add("Parley over llama.cpp's server", "x", [a / b for a, b in zip(parley, stock, strict=True)], "ratio")
    return report


def _differences(one: list[float], other: list[float]) -> list[float]:
    return [a - b for a, b in zip(one, other, strict=True)]


async def _over_http(http: httpx.AsyncClient, url: str, model: str) -> float:
    body = {"model": model, "messages": _MESSAGES, "max_tokens": _TOKENS, "temperature": 0, "stream": True}
    started, first = time.perf_counter(), None
    async with http.stream("POST", f"{url}/chat/completions", json=body) as answer:
        if answer.is_error:
            raise Unavailable(f"{url} answers {answer.status_code}")
        async for line in answer.aiter_lines():
            if first is None and line.startswith("data: {") and _said(line):
                first = (time.perf_counter() - started) * 1000
    if first is None:
        raise Unavailable(f"{url} gave no token")
    return first  # the rest has been read: the next one finds the model at rest


def _said(line: str) -> bool:
    choices: list[dict[str, Any]] = json.loads(line.removeprefix("data: ")).get("choices") or []
    return any((choice.get("delta") or {}).get("content") for choice in choices)


async def _in_process(engine: LanguageModel) -> float:
    started, first = time.perf_counter(), None
    request = ChatRequest([dict(message) for message in _MESSAGES], max_tokens=_TOKENS, temperature=0.0)
    async with aclosing(engine.chat(request)) as chunks:
        async for chunk in chunks:
            if first is None and chunk.text:
                first = (time.perf_counter() - started) * 1000
    if first is None:
        raise Unavailable("the model in this process gave no token")
    return first


def _client(key: str | None) -> httpx.AsyncClient:
    headers = {"authorization": f"Bearer {key}"} if key else {}
    return httpx.AsyncClient(timeout=_SECONDS, headers=headers, trust_env=False)


@asynccontextmanager
async def _loaded(engine: LanguageModel) -> AsyncGenerator[None]:
    await engine.load()
    try:
        yield
    finally:
        await engine.close()


@asynccontextmanager
async def _llamacpp_server(options: Options) -> AsyncGenerator[tuple[str, str]]:
    """Run llama.cpp's HTTP server as it comes with xllamacpp; yields its address and key."""
    secret = secrets.token_hex(16)
    params = parameters(options)
    params.port, params.api_keys = _free_port(), [secret]
    holder = [await asyncio.to_thread(importlib.import_module("xllamacpp").Server, params)]
    try:
        yield f"{holder[0].listening_address}/v1", secret
    finally:
        await asyncio.to_thread(holder.clear)  # its destructor joins threads


def _free_port() -> int:
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        return int(probe.getsockname()[1])
