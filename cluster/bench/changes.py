"""What changes of models cost callers: a swap under live calls, a dead provider, a model that sleeps."""

from __future__ import annotations

import asyncio
import contextlib
import time
from collections.abc import AsyncGenerator, Callable
from contextlib import aclosing, asynccontextmanager

from cluster import apply, status
from cluster.bench.report import Report
from cluster.bench.sentences import QUESTIONS
from cluster.call import CallResult, place, speak
from cluster.profile import Profile
from serve.client import Models
from serve.config import ModelConfig, Replicas, Route
from serve.contracts import ChatRequest, RequestContext
from serve.errors import ParleyError, Unavailable

Progress = Callable[[str], None]
PROMPT = ChatRequest([{"role": "user", "content": "Say hello to me please."}], max_tokens=8)
WAIT = 60.0


@asynccontextmanager
async def _running(profile: Profile) -> AsyncGenerator[None]:
    """Bring the cluster to a profile, and back to what it was in the end."""
    run = status.current()
    before, name = Profile.model_validate(run.settings), run.profile
    try:
        await asyncio.to_thread(apply.apply, profile, name, lambda step: None)
        yield
    finally:
        await asyncio.to_thread(apply.apply, before, name, lambda step: None)


async def swap(page: str, profile: Profile, say: Progress, *, calls: int, turns: int) -> Report:
    """Change the language model twice while callers talk: in place, and for another model."""
    name = profile.routes.model("llm")
    old = profile.model(name)
    in_place = old.model_copy(update={"options": {**old.options, "temperature": 0.3}})
    other = old.model_copy(update={"name": f"{name}-b"})
    edits = {
        "in place": _with(profile, in_place, drop=name),
        "for another model": _with(profile, other, drop=name, routes={"llm": Route(default=other.name)}),
    }
    questions = await speak(QUESTIONS)
    report = Report(f"swap --calls {calls} --turns {turns}")
    say(f"{calls} calls, {turns} turns each, nothing changes")
    _add(report, "nothing changes", await place(page, questions, calls=calls, turns=turns))
    for title, edited in edits.items():
        say(f"the same, and the language model is changed {title}")
        talking = asyncio.create_task(place(page, questions, calls=calls, turns=turns))
        await asyncio.sleep(8)  # callers are in conversation by then
        began = time.monotonic()
        async with _running(edited):
            report.facts[f"changed {title}, seconds"] = round(time.monotonic() - began, 1)
            _add(report, f"changed {title}", await talking)
    return report


def _with(profile: Profile, model: ModelConfig, drop: str = "", routes: dict[str, Route] | None = None) -> Profile:
    kept = [each for each in profile.models if each.name != drop]
    return profile.model_copy(
        update={"models": [*kept, model], "routes": profile.routes.model_copy(update=routes or {})}
    )


def _add(report: Report, title: str, results: list[CallResult]) -> None:
    turns = [turn for call in results for turn in call.turns]
    times = [float(turn.voice_to_voice_ms) for turn in turns if turn.voice_to_voice_ms is not None]
    report.add(f"voice to voice, {title}", "ms", times)
    report.facts[f"failed, {title}"] = f"{sum(turn.error is not None for turn in turns)} of {len(turns)}"


async def fallback(profile: Profile, say: Progress, *, times: int) -> Report:
    """Measure the first token where the model that is asked first accepts requests and never answers."""
    patience, name = 1.0, profile.routes.model("llm")
    async with _silent_server() as address:
        dead = ModelConfig(name="llm-dead", engine="openai-llm", options={"model": "dead", "base_url": address})
        route = Route(default="llm-dead", fallbacks=(name,), patience=patience)
        say("deploying a provider that never answers")
        async with _running(_with(profile, dead)):
            well = Models(profile.routes)
            without = [await _first_token(well) for _ in range(times)]
            # Each request of its own client first: none has learnt yet that the provider is dead.
            routes = profile.routes.model_copy(update={"llm": route})
            say(f"{times} requests")
            naive = [await _first_token(Models(routes)) for _ in range(times)]
            client = Models(routes)
            learnt = [await _first_token(client) for _ in range(times + 3)][3:]
    report = Report(f"fallback --times {times}")
    report.add("first token, the provider is well", "ms", without)
    report.add("first token, dead and not yet known", "ms", naive, f"its patience is {patience * 1000:.0f} ms")
    report.add("first token, dead and known", "ms", learnt, "its circuit is open")
    return report


async def zero(profile: Profile, say: Progress, *, times: int) -> Report:
    """Measure the first token of a model that has no replica, from request to answer."""
    base = profile.model(profile.routes.model("llm"))
    sleeper = base.model_copy(update={"name": "llm-sleeper", "replicas": Replicas(min=0, max=1, idle_seconds=1.0)})
    asleep: list[float] = []
    awake: list[float] = []
    async with _running(_with(profile, sleeper)):
        models = Models(profile.routes)
        for number in range(times):
            say(f"{number + 1} of {times}")
            await _until_asleep(sleeper.name)
            asleep.append(await _first_token(models, sleeper.name))
            awake.append(await _first_token(models, sleeper.name))
    report = Report(f"zero --times {times}")
    report.add("first token, asleep", "ms", asleep, "process, model and warm-up included")
    report.add("first token, awake", "ms", awake)
    return report


async def _first_token(models: Models, model: str | None = None) -> float:
    started = time.perf_counter()
    async with aclosing(models.chat(PROMPT, RequestContext(timeout=WAIT, model=model))) as chunks:
        async for chunk in chunks:
            if chunk.text:
                return (time.perf_counter() - started) * 1000
    raise Unavailable("no token came")


async def _until_asleep(model: str) -> None:
    from cluster.deploy import Serve

    serve = Serve(status.current().addresses["dashboard"] or "")
    try:
        async with asyncio.timeout(WAIT):
            while (await asyncio.to_thread(serve.applications))[model].replicas:  # noqa: ASYNC110
                await asyncio.sleep(0.2)  # Serve tells no event of it
    except TimeoutError:
        raise ParleyError(f"{model} did not go to sleep within {WAIT:.0f} s") from None
    finally:
        serve.close()


@asynccontextmanager
async def _silent_server() -> AsyncGenerator[str]:
    """Accept connections on loopback, and never answer."""

    async def silent(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        with contextlib.suppress(ConnectionError):
            while await reader.read(65536):
                pass
        writer.close()

    server = await asyncio.start_server(silent, "127.0.0.1", 0)
    try:
        yield f"http://127.0.0.1:{server.sockets[0].getsockname()[1]}/v1"
    finally:
        server.close()
