"""`parley db`: work on the database itself. Thin, as `cluster/cli.py`."""

from __future__ import annotations

from typing import Annotated

import typer

db = typer.Typer(no_args_is_help=True, rich_markup_mode=None, help="Work on the database itself.")


@db.callback()
def group() -> None:
    """Make the commands a group, though there is one."""


@db.command("reencrypt")
def reencrypt(
    batch: Annotated[int, typer.Option("--batch", min=1, max=10_000, help="Rows of a transaction.")] = 200,
    as_json: Annotated[bool, typer.Option("--json", help="Print facts as JSON.")] = False,
) -> None:
    """Write all content anew with the newest of PARLEY_CONTENT_KEYS, while calls go on; then the old keys can go.

    Start all replicas of the API with the new key first. It may be stopped and begun again at any time.

    Example: PARLEY_CONTENT_KEYS=$NEW,$OLD parley db reencrypt
    """
    from cluster import reencrypt as work

    work.run(batch, as_json)
