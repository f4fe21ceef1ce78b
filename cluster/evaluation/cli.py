"""`parley eval`. Thin, as `cluster/cli.py`."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

import typer


def evaluate(
    suite: Annotated[
        str, typer.Option("--suite", "-s", metavar="S", help="A suite's name, or a path to its YAML.")
    ] = "basic",
    model: Annotated[
        str | None, typer.Option("--model", "-m", metavar="M", help="Straight at one model that runs, without calls.")
    ] = None,
    profile: Annotated[
        str | None, typer.Option("--profile", "-p", metavar="F", help="Start a cluster for it, and take it down.")
    ] = None,
    overrides: Annotated[
        list[str] | None, typer.Option("--set", metavar="KEY=VALUE", help="Override a key of --profile; repeatable.")
    ] = None,
    case: Annotated[list[str] | None, typer.Option("--case", metavar="NAME", help="Only this one; repeatable.")] = None,
    rounds: Annotated[int, typer.Option("--rounds", min=1, max=100, help="Times each case is tried.")] = 1,
    judge: Annotated[
        str | None, typer.Option("--judge", metavar="M", help="A model of the cluster; none: PARLEY_JUDGE_URL's.")
    ] = None,
    against: Annotated[
        Path | None, typer.Option("--against", metavar="OLD.json", help="A report to compare with.")
    ] = None,
    gate: Annotated[
        Path | None, typer.Option("--gate", metavar="FILE", help="Limits in YAML; see docs/evaluation.md.")
    ] = None,
    out: Annotated[
        Path | None, typer.Option("--out", metavar="FOLDER", help="For report.json and report.html.")
    ] = None,
    as_json: Annotated[bool, typer.Option("--json", help="Print the report as JSON.")] = False,
) -> None:
    """Try spoken cases, over calls to the cluster that is up or straight at a model; exits with 1 by --gate.

    Example: parley eval --profile local --suite basic --gate limits.yaml --against last/report.json
    """
    from cluster.evaluation import command

    wish = command.Wish(
        suite, model, profile, tuple(overrides or ()), tuple(case or ()), rounds, judge, against, gate, out
    )
    command.run(wish, as_json)


def add_to(app: typer.Typer) -> None:
    """Add the command."""
    app.command("eval")(evaluate)
