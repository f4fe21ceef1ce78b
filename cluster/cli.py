"""The `parley` command. Thin: what a command needs is imported when it runs, so that `--help` is instant."""

from __future__ import annotations

import os
import sys
from pathlib import Path
from typing import Annotated, Any

import typer

from cluster.accounts_cli import keys, tenants
from cluster.bench.cli import app as bench
from cluster.change_cli import add_to as add_changes
from cluster.db_cli import db
from cluster.evaluation.cli import add_to as add_evaluation
from cluster.logs_cli import logs
from cluster.top_cli import top
from serve.errors import ParleyError

app = typer.Typer(
    add_completion=False,
    no_args_is_help=False,
    rich_markup_mode=None,
    pretty_exceptions_enable=False,
    help="Parley: a voice assistant's model cluster on Ray Serve.",
)

PROFILE = typer.Option("--profile", "-p", metavar="F", help="A profile's name, or a path to its YAML.")
SET = typer.Option("--set", metavar="KEY=VALUE", help="Override a key of the profile; may be repeated.")
JSON = typer.Option("--json", help="Print facts as JSON.")


@app.callback(invoke_without_command=True)
def overview(context: typer.Context) -> None:
    """Show what is up and the commands one needs."""
    if context.invoked_subcommand is None:
        from cluster import commands

        commands.overview()


@app.command()
def up(
    profile: Annotated[str | None, PROFILE] = None,
    detach: Annotated[bool, typer.Option("--detach", "-d", help="Return when the cluster answers.")] = False,
    overrides: Annotated[list[str] | None, SET] = None,
    as_json: Annotated[bool, JSON] = False,
    no_call: Annotated[bool, typer.Option("--no-call", help="Place no call to itself.")] = False,
    monitoring: Annotated[bool, typer.Option("--monitoring", help="With Prometheus, and Grafana if here.")] = False,
) -> None:
    """Start a cluster on this machine, place a call to it, and stay until Ctrl-C.

    Example: parley up --profile local --set api.port=9000
    """
    from cluster import commands

    given = [*(overrides or ()), *(["monitoring.enabled=true"] if monitoring else ())]
    commands.up(profile, given, detach=detach, as_json=as_json, call=not no_call)


@app.command()
def down(as_json: Annotated[bool, JSON] = False) -> None:
    """Stop what `up` started, also after a crash, and nothing else.

    Example: parley down
    """
    from cluster import commands

    commands.down(as_json)


add_changes(app)
app.command()(logs)
app.command()(top)


@app.command()
def models(
    profile: Annotated[str | None, PROFILE] = None,
    overrides: Annotated[list[str] | None, SET] = None,
    as_json: Annotated[bool, JSON] = False,
) -> None:
    """Show the engines there are, or what each model of a profile needs, what of it is here, and what it costs.

    Example: parley models --profile gpu
    """
    from cluster import models_command

    models_command.run(profile, list(overrides or ()), as_json)


@app.command()
def fetch(
    profile: Annotated[str, typer.Option("--profile", "-p", metavar="F", envvar="PROFILE", help="As for up.")] = "hub",
    overrides: Annotated[list[str] | None, SET] = None,
    as_json: Annotated[bool, JSON] = False,
) -> None:
    """Download what a profile's models need from the hub; what was cut off goes on.

    Example: parley fetch --profile gpu
    """
    from cluster import commands

    commands.fetch(profile, list(overrides or ()), as_json)


@app.command()
def status(as_json: Annotated[bool, JSON] = False) -> None:
    """Show addresses, models, routes and calls.

    Example: parley status --json
    """
    from cluster import commands

    commands.status(as_json)


@app.command()
def doctor(profile: Annotated[str, PROFILE] = "local", as_json: Annotated[bool, JSON] = False) -> None:
    """Show what this machine has, what it lacks, and what to do; exits with 1 when something needed is missing.

    Example: parley doctor
    """
    from cluster import commands

    commands.doctor(profile, as_json)


@app.command()
def call(
    wav: Annotated[list[Path] | None, typer.Option("--wav", help="A recording to say; may be repeated.")] = None,
    text: Annotated[list[str] | None, typer.Option("--text", help="Words to say; may be repeated.")] = None,
    calls: Annotated[int, typer.Option("--calls", min=1, max=64, help="Callers at once.")] = 1,
    turns: Annotated[int | None, typer.Option("--turns", min=1, max=500, help="Turns of each caller.")] = None,
    out: Annotated[Path | None, typer.Option("--out", help="A folder for recordings of both sides.")] = None,
    wait: Annotated[float, typer.Option("--wait", min=0, max=3600, help="Seconds to wait while all is busy.")] = 0,
    as_json: Annotated[bool, JSON] = False,
) -> None:
    """Call the cluster as a person would, and measure the answer from the audio; exits with 1 when a turn failed.

    Example: parley call --text "What is the capital of France?" --calls 2 --json
    """
    from cluster import call_command

    call_command.run(wav or (), text or (), calls=calls, turns=turns, out=out, wait=wait, as_json=as_json)


add_evaluation(app)
app.add_typer(bench, name="bench")
app.add_typer(tenants, name="tenants")
app.add_typer(keys, name="keys")
app.add_typer(db, name="db")


@app.command(hidden=True)
def supervise(profile: str, overrides: Annotated[list[str] | None, SET] = None) -> None:
    """Run a detached cluster; `up --detach` starts this."""
    from cluster import commands

    commands.supervise(profile, list(overrides or ()))


def main() -> Any:
    """Run the command; an error that is meant for a person is a message, never a traceback."""
    try:
        app()
    except ParleyError as error:
        if os.environ.get("PARLEY_DEBUG"):
            raise
        from cluster.console import fail

        fail(str(error))
        sys.exit(1)
    except KeyboardInterrupt:
        sys.exit(130)
    except Exception as error:  # a command ends with a sentence, not a traceback
        if os.environ.get("PARLEY_DEBUG"):
            raise
        from cluster.console import fail

        fail(f"{type(error).__name__}: {error}\nThis is a fault of parley's: PARLEY_DEBUG=1 shows where.")
        sys.exit(1)


if __name__ == "__main__":
    main()
