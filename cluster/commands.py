"""What each command of `parley` does."""

from __future__ import annotations

import asyncio
import contextlib
import json
import os
import signal
import subprocess
import sys
import threading
import time
from dataclasses import asdict
from typing import Any

from cluster import choice, console, needs, state
from cluster import doctor as doctor_
from cluster import fetch as fetch_
from cluster import profile as profiles
from cluster import status as status_
from cluster.console import Story
from cluster.up import Cluster, Step
from serve import hub
from serve.errors import ParleyError

CALL_SECONDS = 60.0
START_SECONDS = 1500.0


def overview() -> None:
    """Show what is up and the commands one needs."""
    out = console.out()
    try:
        _show(status_.gather(status_.current()))
    except ParleyError as error:
        out.print(str(error))
    out.print()
    for command, meaning in console.ADVICE:
        out.print(f"  {command:<16}{meaning}", markup=False)
    out.print("\n  every command has --help")


def up(profile: str | None, overrides: list[str], *, detach: bool, as_json: bool, call: bool) -> None:
    """Start a cluster and stay, or return when it answers.

    Raises:
        ParleyError: It did not start; nothing is left running.
    """
    start = time.monotonic()
    story = Story(quiet=as_json)
    cluster: Cluster | None = None
    # Both ask for an end in order; the handler is there before anything is started.
    end = threading.Event()
    _on_signals(end)
    try:
        name = choice.choose(profile, story, end)
        settings = profiles.load(name, overrides, here=True)
        fetch_.fetch(fetch_.wanted(needs.references(settings)), story, end)
        if detach:
            _start_detached(name, overrides, story, end)
        else:
            cluster = Cluster(settings, name, story)
            cluster.start(end)
        run = status_.current()
        result = _self_call(run.addresses["page"] or "", story) if call else {"skipped": "--no-call"}
        story.close()
        facts = {"profile": name, **status_.gather(run), "call": result, "seconds": round(time.monotonic() - start, 1)}
        if as_json:
            console.print_json(facts)
        else:
            _show(facts)
            console.out().print(f"\nready after {facts['seconds']} s" + ("" if detach else "; Ctrl-C stops it"))
        sys.stdout.flush()
        if cluster:
            _stay(cluster, end)
    finally:
        story.close()
        if cluster:
            began, ended = time.monotonic(), cluster.stop()
            if ended and not as_json:
                story(Step("stopped", time.monotonic() - began, f"{ended} processes"))


def down(as_json: bool) -> None:
    """Stop what `up` started."""
    run = state.load()
    if run is None:
        if as_json:
            console.print_json({"stopped": False, "processes": 0})
        else:
            console.out().print("nothing is up")
        return
    ended = 0
    if run.alive:
        # The supervisor ends its own; only what it leaves is ours to end.
        with contextlib.suppress(ProcessLookupError):
            os.kill(run.supervisor.pid, signal.SIGTERM)
        deadline = time.monotonic() + 30
        while run.alive and time.monotonic() < deadline:
            time.sleep(0.1)  # not our child: nothing to wait on
    with state.lock():
        left = state.load()
        if left and left.run_id == run.run_id:
            ended = state.clean_up(left)
    if as_json:
        console.print_json({"stopped": True, "processes": ended})
    else:
        console.out().print("stopped" + (f"; {ended} processes were left over from a crash" if ended else ""))


def fetch(profile: str, overrides: list[str], as_json: bool) -> None:
    """Bring what a profile needs from the hub onto this machine.

    Raises:
        ParleyError: Something does not come; what came is kept.
    """
    story = Story(quiet=as_json)
    references = needs.references(profiles.load(profile, overrides))
    wanted = fetch_.wanted(references)
    try:
        fetch_.fetch(wanted, story)
    finally:
        story.close()
    if as_json:
        here = {reference: str(hub.cached(reference)) for reference in references}
        console.print_json({"profile": profile, "fetched_bytes": wanted.size, "files": here})
    elif not references:
        console.out().print(f"profile {profile} needs nothing of a hub")
    elif not wanted.sizes:
        console.out().print(f"everything of profile {profile} is here", markup=False)


def status(as_json: bool) -> None:
    """Show addresses, models, routes and calls.

    Raises:
        ParleyError: Nothing is up.
    """
    facts = status_.gather(status_.current())
    if as_json:
        console.print_json(facts)
    else:
        _show(facts)


def doctor(profile: str, as_json: bool) -> None:
    """Show what is here and what is missing; exits with 1 when something needed is."""
    findings = doctor_.examine(profile)
    if as_json:
        console.print_json({"findings": [finding.json() for finding in findings]})
    else:
        out = console.out()
        marks = {"ok": "[green]✓[/]", "optional": "[yellow]-[/]", "missing": "[red]✗[/]"}
        for finding in findings:
            out.print(f"{marks[finding.status]} {finding.name:<12}{finding.found}")
            if finding.advice:
                for line in finding.advice.splitlines():
                    out.print(f"{'':<14}→ {line}", markup=False)
    if any(finding.status == "missing" for finding in findings):
        sys.exit(1)


def supervise(profile: str, overrides: list[str]) -> None:
    """Run a detached cluster: news as JSON lines on stdout until it answers, then silence."""

    def tell(step: Step) -> None:
        with contextlib.suppress(BrokenPipeError, ValueError):
            print(json.dumps(asdict(step)), flush=True)

    end = threading.Event()
    _on_signals(end)
    cluster = Cluster(profiles.load(profile, overrides), profile, tell)
    try:
        cluster.start(end)
        tell(Step("ready"))
        # Whoever started us goes away now: from here on, news go to the log of the run.
        log = (cluster.folder / "logs" / "supervisor.log").open("ab")
        for stream in (1, 2):
            os.dup2(log.fileno(), stream)
        _stay(cluster, end)
    finally:
        cluster.stop()


def _start_detached(name: str, overrides: list[str], story: Story, end: threading.Event) -> None:
    command = [sys.executable, "-m", "cluster.cli", "supervise", name]
    command += [part for override in overrides for part in ("--set", override)]
    with subprocess.Popen(  # noqa: S603
        command,
        stdin=subprocess.DEVNULL,
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        text=True,
        start_new_session=True,
    ) as process:
        assert process.stdout
        assert process.stderr
        watchdog = threading.Timer(START_SECONDS, process.terminate)
        watchdog.daemon = True
        watchdog.start()
        try:
            for line in process.stdout:
                if end.is_set():
                    process.terminate()
                step = Step(**json.loads(line))
                if step.name == "ready":
                    # Leaving the block would wait for it, and it is meant to go on.
                    process.wait = lambda timeout=None: 0
                    return
                story(step)
            message = process.stderr.read().strip()
            raise ParleyError(message or "the supervisor ended before the cluster was ready")
        finally:
            watchdog.cancel()


def _stay(cluster: Cluster, end: threading.Event) -> None:
    while not end.wait(0.5):
        problem = cluster.failure()
        if problem:
            raise ParleyError(problem)


def _on_signals(end: threading.Event) -> None:
    def ask(number: int, _: object) -> None:
        if end.is_set() and number == signal.SIGINT:
            raise KeyboardInterrupt
        end.set()

    for number in (signal.SIGTERM, signal.SIGINT, signal.SIGHUP):
        signal.signal(number, ask)


def _self_call(page: str, story: Story) -> dict[str, Any]:
    try:
        from cluster import call
    except ImportError:
        return {"skipped": "this installation cannot place calls"}
    story(Step("call"))
    start = time.monotonic()

    async def place() -> Any:
        async with asyncio.timeout(CALL_SECONDS):
            return await call.place(page, await call.speak([call.DEFAULT_QUESTION]))

    try:
        results = asyncio.run(place())
    except TimeoutError:
        return {"error": f"no answer within {CALL_SECONDS:.0f} s"}
    except ParleyError as error:
        return {"error": str(error)}
    turn = results[0].json()["turns"][0]
    story(Step("call", time.monotonic() - start))
    return turn


def _show(facts: dict[str, Any]) -> None:
    out = console.out()
    out.print()
    out.print(console.models_table(facts))
    call = facts.get("call")
    out.print()
    if call and call.get("error"):
        out.print(f"[red]the call to itself failed:[/] {call['error']}")
    elif call and "skipped" in call:
        out.print(f"no call was placed: {call['skipped']}", style="dim")
    elif call:
        seconds = (call["voice_to_voice_ms"] or 0) / 1000
        out.print(
            f"called itself: heard “{call['heard']}”, answered “{call['answer']}” in {seconds:.1f} s", markup=False
        )
    elif facts["calls"] is not None:
        out.print(f"{facts['calls']} calls in progress")
    out.print()
    out.print(console.addresses_table(facts["addresses"]))
