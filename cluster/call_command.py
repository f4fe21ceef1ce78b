"""What `parley call` does: find the cluster, find the words, place the calls, show what came of it."""

from __future__ import annotations

import asyncio
import sys
from collections.abc import Sequence
from pathlib import Path
from typing import Any

from rich.table import Table

from cluster import call, console, status
from serve.errors import BadRequest, Unavailable


def run(
    wavs: Sequence[Path],
    texts: Sequence[str],
    *,
    calls: int,
    turns: int | None,
    out: Path | None,
    wait: float,
    as_json: bool,
) -> None:
    """Place calls and print what was measured; exits with 1 when a turn got no answer."""
    if wavs and texts:
        raise BadRequest("--wav", "give recordings or --text, not both")
    spoken = [call.read_wav(path) for path in wavs]
    page = status.current().addresses["page"]
    if not page:
        raise Unavailable("the cluster is still starting; `parley status` shows it")
    results = asyncio.run(_place(page, spoken, texts or (call.DEFAULT_QUESTION,), calls, turns, out, wait))
    report = call.report(results)
    if as_json:
        console.print_json(report)
    else:
        show(report)
    if report["summary"]["failed"]:
        sys.exit(1)


async def _place(
    page: str,
    spoken: Sequence[call.Utterance],
    texts: Sequence[str],
    calls: int,
    turns: int | None,
    out: Path | None,
    wait: float,
) -> list[call.CallResult]:
    utterances = list(spoken) or await call.speak(texts)
    return await call.place(page, utterances, calls=calls, turns=turns, wait=wait, out=out)


def show(report: dict[str, Any]) -> None:
    """Print calls as tables."""
    out = console.out()
    for placed in report["calls"]:
        table = Table(title=f"call {placed['room'] or placed['call']}", title_justify="left", show_edge=False)
        for name in ("heard", "answered"):
            table.add_column(name, overflow="fold")
        table.add_column("voice to voice", justify="right")
        for turn in placed["turns"]:
            answer = f"[red]{turn['error']}[/]" if turn["error"] else turn["answer"]
            time = "-" if turn["voice_to_voice_ms"] is None else f"{turn['voice_to_voice_ms'] / 1000:.2f} s"
            table.add_row(turn["heard"] or turn["sent"] or "-", answer, time)
        out.print(table)
        if placed["recording"]:
            out.print(f"recorded in {placed['recording']}")
        out.print()
    summary = report["summary"]
    times = summary["voice_to_voice_ms"]
    line = f"{summary['calls']} calls, {summary['turns']} turns, {summary['failed']} failed"
    if times["p50"] is not None:
        line += f"; voice to voice p50 {times['p50']} ms, p95 {times['p95']} ms"
    out.print(line)
