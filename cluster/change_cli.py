"""`parley deploy`, `swap`, `routes` and `rollback`: changes of the cluster that is up. Thin, as `cluster/cli.py`."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated, Literal

import typer

JSON = typer.Option("--json", help="Print facts as JSON.")
YES = typer.Option("--yes", "-y", help="Do not ask; nobody is asked either where there is no terminal.")
DRY = typer.Option("--dry-run", help="Show the difference, and change nothing.")


def deploy(
    profile: Annotated[str, typer.Argument(metavar="PROFILE", help="A profile's name, or a path to its YAML.")],
    overrides: Annotated[
        list[str] | None,
        typer.Option("--set", metavar="KEY=VALUE", help="Override a key of the profile; may be repeated."),
    ] = None,
    yes: Annotated[bool, YES] = False,
    dry_run: Annotated[bool, DRY] = False,
    as_json: Annotated[bool, JSON] = False,
) -> None:
    """Change the cluster that is up to a profile, without breaking a call; shows the difference and asks first.

    Example: parley deploy my.yaml --dry-run
    """
    from cluster import change_commands

    change_commands.deploy(profile, list(overrides or ()), yes=yes, dry_run=dry_run, as_json=as_json)


def swap(
    role: Annotated[Literal["stt", "llm", "tts"], typer.Argument(metavar="ROLE", help="stt, llm or tts.")],
    model: Annotated[str, typer.Argument(metavar="MODEL", help="One that runs, or one of --profile.")],
    canary: Annotated[str, typer.Option("--canary", metavar="SHARE", help="Of calls, to begin with.")] = "10%",
    gate: Annotated[
        Path | None, typer.Option("--gate", metavar="FILE", help="A YAML file; see docs/models.md.")
    ] = None,
    profile: Annotated[
        str | None, typer.Option("--profile", "-p", metavar="F", help="Where the model is described.")
    ] = None,
    keep: Annotated[bool, typer.Option("--keep", help="The old model stays loaded, and stands by.")] = False,
    as_json: Annotated[bool, JSON] = False,
) -> None:
    """Give a role to another model, a share of the calls at a time, as long as it is not worse; else all goes back.

    Exits with 1 when it was rolled back.

    Example: parley swap llm llm-new --profile my.yaml --canary 10%
    """
    from cluster import change_commands

    change_commands.swap(role, model, canary=share(canary), gate_file=gate, profile=profile, keep=keep, as_json=as_json)


def routes(as_json: Annotated[bool, JSON] = False) -> None:
    """Show which models serve each role now, and who changed what, when.

    Example: parley routes
    """
    from cluster import change_commands

    change_commands.routes(as_json)


def rollback(
    change: Annotated[
        int | None,
        typer.Argument(metavar="CHANGE", help="As `parley routes` numbers them; none: the last one is undone."),
    ] = None,
    yes: Annotated[bool, YES] = False,
    dry_run: Annotated[bool, DRY] = False,
    as_json: Annotated[bool, JSON] = False,
) -> None:
    """Bring back what ran before the last change, or after the one with this number; no call breaks.

    Example: parley rollback 3
    """
    from cluster import change_commands

    change_commands.rollback(change, yes=yes, dry_run=dry_run, as_json=as_json)


def share(text: str) -> float:
    """Return a share that is written as `10%` or `0.1`.

    Raises:
        typer.BadParameter: It is none above 0 and below 1.
    """
    try:
        value = float(text.removesuffix("%")) / (100 if text.endswith("%") else 1)
    except ValueError:
        value = 0.0
    if not 0 < value < 1:
        raise typer.BadParameter(
            "write a share of the calls as 10% or 0.1, above 0 and below all", param_hint="--canary"
        )
    return value


def add_to(app: typer.Typer) -> None:
    """Add the commands."""
    for command in (deploy, swap, routes, rollback):
        app.command()(command)
