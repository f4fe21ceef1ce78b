"""`parley bench ...`: a command for each figure of docs/performance.md."""

from __future__ import annotations

import asyncio
from collections.abc import Coroutine, Sequence
from typing import TYPE_CHECKING, Annotated, Any, Literal

import typer

from cluster.bench import api_command, sse_command
from cluster.bench.telling import say as _say
from cluster.bench.telling import show as _show

if TYPE_CHECKING:
    import psutil

    from cluster.bench.report import Report
    from cluster.profile import Profile
    from cluster.state import State

app = typer.Typer(
    no_args_is_help=True,
    rich_markup_mode=None,
    help="Measure what is up; every figure of docs/performance.md is one of these commands.",
)

JSON = Annotated[bool, typer.Option("--json", help="Print the figures as JSON.")]
CALLS = Annotated[int, typer.Option("--calls", min=1, max=64, help="Callers at once.")]
TURNS = Annotated[int, typer.Option("--turns", min=1, max=500, help="Turns of each caller.")]
TIMES = Annotated[int, typer.Option("--times", min=1, max=2000, help="How often.")]


@app.command("voice")
def voice_(
    calls: CALLS = 1,
    turns: TURNS = 30,
    compare: Annotated[bool, typer.Option("--compare", help="Then the same with a stock worker.")] = False,
    as_json: JSON = False,
) -> None:
    """Voice to voice, by robot callers; every fifth question has a pause of 400 ms in the middle.

    Example: parley bench voice --calls 2 --turns 15 --compare
    """
    from cluster.bench import compare as comparison
    from cluster.bench import voice

    run, profile = _up()
    page = run.addresses["page"] or ""
    if compare:
        _show(_run(comparison.compare(page, profile, _keys(run), _say, calls=calls, turns=turns)), as_json)
    else:
        _show([_run(voice.voice(page, _say, calls=calls, turns=turns))], as_json)


@app.command("barge-in")
def barge_in_(times: TIMES = 10, as_json: JSON = False) -> None:
    """From the caller's first sound over an answer to the silence the caller hears, and to the model's last token.

    Example: parley bench barge-in --times 20
    """
    from cluster.bench import voice

    run, profile = _up()
    _connect(run)
    from cluster.bench import writing  # imports ray, which reads the environment that _connect sets

    stopped = writing.Writing(writing.recent(profile))
    _show([_run(voice.barge_in(run.addresses["page"] or "", _say, times=times, writing=stopped))], as_json)


@app.command("turns")
def turns_(
    rounds: Annotated[int, typer.Option("--rounds", min=1, max=50, help="Times the whole set is tried.")] = 1,
    only: Annotated[str | None, typer.Option("--only", help="One kind, as cluster/bench/turns.yaml names it.")] = None,
    as_json: JSON = False,
) -> None:
    """Pauses, corrections, back-channels, noise and interruptions: how many turns are taken rightly.

    Example: parley bench turns --only back-channel
    """
    from cluster.bench import turns

    run, _ = _up()
    _show([_run(turns.turns(run.addresses["page"] or "", _say, rounds=rounds, only=only))], as_json)


@app.command("join")
def join_(times: TIMES = 10, as_json: JSON = False) -> None:
    """From joining the room to the agent's first audible sample.

    Example: parley bench join
    """
    from cluster.bench import voice

    run, _ = _up()
    _show([_run(voice.join(run.addresses["page"] or "", _say, times=times))], as_json)


@app.command("hop")
def hop_(times: TIMES = 200, as_json: JSON = False) -> None:
    """The first chunk of speech over a Serve handle, less the same engine in this process.

    Example: parley bench hop --times 500
    """
    run, profile = _up()
    _connect(run)
    from cluster.bench import models  # imports ray, which reads the environment that _connect sets

    _show([_run(models.hop(profile, _say, times=times))], as_json)


@app.command("wer")
def wer_(as_json: JSON = False) -> None:
    """Word error rate on sentences spoken by the embedded voice.

    Example: parley bench wer
    """
    run, profile = _up()
    _connect(run)
    from cluster.bench import models  # imports ray, which reads the environment that _connect sets

    _show([_run(models.wer(profile, _say))], as_json)


@app.command("cpu")
def cpu_(
    calls: CALLS = 4,
    seconds: Annotated[float, typer.Option("--seconds", min=2, max=600, help="How long each stretch is.")] = 20,
    as_json: JSON = False,
) -> None:
    """Processor time of the agent for a silent call.

    Example: parley bench cpu --calls 4
    """
    from cluster.bench import resources

    run, _ = _up()
    page = run.addresses["page"] or ""
    _show([_run(resources.silent_calls(page, _members(run), _say, calls=calls, seconds=seconds))], as_json)


@app.command("calls")
def calls_(
    calls: Annotated[
        list[int] | None, typer.Option("--calls", min=1, max=64, help="At once; again for more; none: 1, 4 and 8.")
    ] = None,
    seconds: Annotated[float, typer.Option("--seconds", min=5, max=600, help="How long each state lasts.")] = 42,
    rounds: Annotated[int, typer.Option("--rounds", min=1, max=20, help="Times everything is measured.")] = 1,
    threads: Annotated[bool, typer.Option("--threads", help="Stock calls in threads, not processes.")] = False,
    alone: Annotated[bool, typer.Option("--alone", help="Without the stock worker.")] = False,
    as_json: JSON = False,
) -> None:
    """Processor time and memory of a call without any model, beside a stock worker; needs the profile plumbing.

    Example: parley bench calls --rounds 3
    """
    from cluster.bench import calls as plumbing

    run, profile = _up()
    measured = plumbing.calls(
        run.addresses["page"] or "",
        profile,
        lambda: _members(run),
        _keys(run),
        _say,
        counts=sorted(set(calls or (1, 4, 8))),
        seconds=seconds,
        rounds=rounds,
        executor="thread" if threads else "process",
        alone=alone,
    )
    _show([_run(measured)], as_json)


@app.command("preemptive")
def preemptive_(
    turns: TURNS = 10,
    rounds: Annotated[int, typer.Option("--rounds", min=1, max=50, help="Pairs of on and off.")] = 3,
    as_json: JSON = False,
) -> None:
    """Voice to voice with answers begun before the turn is over, and without; the cluster is put back as it was.

    Example: parley bench preemptive --turns 10 --rounds 3
    """
    from cluster.bench import preemptive

    run, profile = _up()
    page = run.addresses["page"] or ""
    _show([_run(preemptive.preemptive(page, profile, _say, turns=turns, rounds=rounds))], as_json)


@app.command("traces")
def traces_(
    turns: TURNS = 10,
    rounds: Annotated[int, typer.Option("--rounds", min=1, max=50, help="Pairs of on and off.")] = 3,
    as_json: JSON = False,
) -> None:
    """Voice to voice with traces and without, in turns; the cluster is put back as it was. This is the collector: set
    OTEL_EXPORTER_OTLP_ENDPOINT=http://127.0.0.1:4318 for `parley up` and for this.

    Example: parley bench traces --turns 10 --rounds 3
    """
    from cluster.bench import traces

    run, profile = _up()
    page = run.addresses["page"] or ""
    _show([_run(traces.traces(page, profile, _say, turns=turns, rounds=rounds))], as_json)


@app.command("memory")
def memory_(as_json: JSON = False) -> None:
    """Memory of everything that `up` started (proportional set size).

    Example: parley bench memory
    """
    from cluster.bench import resources

    run, _ = _up()
    _show([resources.memory(_members(run))], as_json)


@app.command("engines")
def engines_(
    profile: Annotated[str, typer.Option("--profile", "-p", help="A profile's name, or a path.")] = "local",
    as_json: JSON = False,
) -> None:
    """Memory and loading time of each self-hosted engine of a profile, by itself; needs no cluster.

    Example: parley bench engines --profile hub
    """
    from cluster import profile as profiles
    from cluster.bench import engines

    _show([engines.engines(profiles.load(profile), _say)], as_json)


@app.command("start")
def start_(times: Annotated[int, typer.Option("--times", min=1, max=20)] = 3, as_json: JSON = False) -> None:
    """Start a cluster from nothing to its first answered call, again and again; needs that none is up.

    Example: parley bench start --times 5
    """
    from cluster.bench import start

    _show([start.start(_say, times=times)], as_json)


@app.command("swap")
def swap_(calls: CALLS = 2, turns: TURNS = 6, as_json: JSON = False) -> None:
    """Change the language model under live calls, in place and for another model; the cluster is put back as it was.

    Example: parley bench swap --calls 2
    """
    from cluster.bench import changes

    run, profile = _up()
    _show([_run(changes.swap(run.addresses["page"] or "", profile, _say, calls=calls, turns=turns))], as_json)


@app.command("fallback")
def fallback_(times: TIMES = 20, as_json: JSON = False) -> None:
    """The first token where the model that is asked first never answers, and another stands by.

    Example: parley bench fallback
    """
    run, profile = _up()
    _connect(run)
    from cluster.bench import changes  # imports ray, which reads the environment that _connect sets

    _show([_run(changes.fallback(profile, _say, times=times))], as_json)


@app.command("zero")
def zero_(times: TIMES = 5, as_json: JSON = False) -> None:
    """From a request to the first token of a model that has no replica.

    Example: parley bench zero --times 5
    """
    run, profile = _up()
    _connect(run)
    from cluster.bench import changes  # imports ray, which reads the environment that _connect sets

    _show([_run(changes.zero(profile, _say, times=times))], as_json)


@app.command("openai")
def openai_(times: TIMES = 100, as_json: JSON = False) -> None:
    """The first token of a chat completion over HTTP, against the same engine in-process and llama.cpp's own server.

    Example: parley bench openai --times 200
    """
    from cluster.bench import openai
    from serve.settings import settings

    run, profile = _up()
    key = settings().parley_api_keys.get_secret_value().split(",")[0].strip()
    _show([_run(openai.openai(run.addresses["openai"] or "", key or None, profile, _say, times=times))], as_json)


app.command("api")(api_command.api_)
app.command("sse")(sse_command.sse_)


@app.command("batch")
def batch_(
    model: Annotated[
        str | None, typer.Option("--model", help="Name, folder or hf:// of a Whisper; none: random weights.")
    ] = None,
    size: Annotated[str, typer.Option("--size", help="Of random weights: tiny, base, small, medium.")] = "base",
    tokens: Annotated[int, typer.Option("--tokens", min=1, max=220, help="That random weights write.")] = 16,
    calls: CALLS = 8,
    times: Annotated[int, typer.Option("--times", min=1, max=200, help="Rounds.")] = 7,
    device: Annotated[str, typer.Option("--device", help="auto, cpu or cuda.")] = "auto",
    threads: Annotated[int, typer.Option("--threads", min=1, help="CPU threads.")] = 2,
    as_json: JSON = False,
) -> None:
    """Whisper on utterances of several calls in one pass, and on one at a time; needs no cluster.

    Example: parley bench batch --calls 8 --size base
    """
    from cluster.bench import batch, random_whisper

    if size not in random_whisper.SIZES:
        raise typer.BadParameter(f"--size is one of {', '.join(random_whisper.SIZES)}")
    options = {"device": device, "threads": threads}
    report = batch.batch(model, options, _say, size=size, tokens=tokens, calls=calls, rounds=times)
    _show([_run(report)], as_json)


@app.command("chaos")
def chaos_(
    times: TIMES = 20,
    only: Annotated[Literal["stt", "llm", "tts", "agent", "dispatcher"] | None, typer.Option(help="One kind.")] = None,
    as_json: JSON = False,
) -> None:
    """Kill a process of each kind in the middle of a caller's turn, and see what the caller notices.

    Example: parley bench chaos --times 20 --only agent
    """
    run, profile = _up()
    _connect(run)
    from cluster.bench import chaos  # imports ray, which reads the environment that _connect sets

    async def kill() -> Report:
        killer = chaos.Killer(run.addresses["page"] or "", run.addresses["dashboard"] or "", profile)
        return await chaos.chaos(killer, _say, times=times, only=only)

    _show([_run(kill())], as_json)


def _up() -> tuple[State, Profile]:
    from cluster import status
    from cluster.profile import Profile

    run = status.current()
    return run, Profile.model_validate(run.settings)


def _members(run: State) -> Sequence[psutil.Process]:
    from cluster import processes

    return processes.find(run.run_id, run.folder)


def _keys(run: State) -> dict[str, str]:
    """Read LiveKit's keys where they are: in the environment of the cluster's own processes."""
    for process in _members(run):
        environment = process.environ()
        if "LIVEKIT_API_SECRET" in environment:
            return {name: environment[name] for name in ("LIVEKIT_URL", "LIVEKIT_API_KEY", "LIVEKIT_API_SECRET")}
    raise typer.BadParameter("no process of the cluster knows LiveKit's keys")


def _connect(run: State) -> None:
    from cluster.connect import connect

    connect(run)


def _run(work: Coroutine[Any, Any, Any]) -> Any:
    return asyncio.run(work)
