"""`parley tenants` and `parley keys`: the first steps, where nobody can sign in yet. Thin, as `cluster/cli.py`."""

from __future__ import annotations

from typing import Annotated

import typer

JSON = typer.Option("--json", help="Print facts as JSON.")
TENANT = typer.Option("--tenant", metavar="ID", help="Whose; without: the default tenant.")

tenants = typer.Typer(no_args_is_help=True, rich_markup_mode=None, help="Make and list tenants, and give them limits.")
keys = typer.Typer(no_args_is_help=True, rich_markup_mode=None, help="Make, list and revoke API keys.")

Calls = Annotated[int | None, typer.Option("--calls", min=0, max=100_000, help="Calls at once.")]
Minutes = Annotated[float | None, typer.Option("--minutes", min=0, help="Minutes of calls in a month.")]
Uploads = Annotated[int | None, typer.Option("--uploads", min=1, max=1000, help="Files that come in at once.")]
Requests = Annotated[int | None, typer.Option("--requests", min=1, max=100_000, help="Requests in a second.")]


@tenants.command("add")
def add_tenant(
    name: str,
    calls: Calls = None,
    minutes: Minutes = None,
    uploads: Uploads = None,
    requests: Requests = None,
    as_json: Annotated[bool, JSON] = False,
) -> None:
    """Make a tenant.

    Example: parley tenants add "Example Ltd" --calls 20 --minutes 10000
    """
    from cluster import accounts

    limits = accounts.limits(calls=calls, minutes=minutes, uploads=uploads, requests=requests)
    accounts.run(accounts.add_tenant(name, limits), as_json)


@tenants.command("list")
def list_tenants(as_json: Annotated[bool, JSON] = False) -> None:
    """Show the tenants.

    Example: parley tenants list --json
    """
    from cluster import accounts

    accounts.run(accounts.list_tenants(), as_json)


@tenants.command("set")
def set_tenant(
    tenant: Annotated[str, typer.Argument(metavar="ID")],
    calls: Calls = None,
    minutes: Minutes = None,
    uploads: Uploads = None,
    requests: Requests = None,
    default: Annotated[bool, typer.Option("--default", help="First forget what it was given before.")] = False,
    as_json: Annotated[bool, JSON] = False,
) -> None:
    """Give a tenant other limits than the profile's `api.limits`; they hold within five seconds.

    Example: parley tenants set ten_default --requests 500
    """
    from cluster import accounts

    limits = accounts.limits(calls=calls, minutes=minutes, uploads=uploads, requests=requests)
    accounts.run(accounts.set_tenant(tenant, limits, default), as_json)


@keys.command("add")
def add_key(
    name: str,
    scopes: Annotated[
        list[str] | None, typer.Option("--scope", metavar="SCOPE", help="What it may do; may be repeated; none: all.")
    ] = None,
    tenant: Annotated[str, TENANT] = "ten_default",
    days: Annotated[int | None, typer.Option("--days", min=1, max=36_500, help="It expires after so many.")] = None,
    as_json: Annotated[bool, JSON] = False,
) -> None:
    """Make an API key and show it, this once.

    Example: parley keys add reports --scope calls:read --scope usage:read --days 90
    """
    from cluster import accounts

    accounts.run(accounts.add_key(name, list(scopes or ()), tenant, days), as_json)


@keys.command("list")
def list_keys(tenant: Annotated[str, TENANT] = "ten_default", as_json: Annotated[bool, JSON] = False) -> None:
    """Show a tenant's keys, without their secrets.

    Example: parley keys list
    """
    from cluster import accounts

    accounts.run(accounts.list_keys(tenant), as_json)


@keys.command("revoke")
def revoke_key(
    key: Annotated[str, typer.Argument(metavar="ID")],
    tenant: Annotated[str, TENANT] = "ten_default",
    as_json: Annotated[bool, JSON] = False,
) -> None:
    """Let a key in no more.

    Example: parley keys revoke key_0190f3a1b2c3d4e5f60718293a4b5c6d
    """
    from cluster import accounts

    accounts.run(accounts.revoke_key(key, tenant), as_json)


@keys.command("content")
def content_key(as_json: Annotated[bool, JSON] = False) -> None:
    """Make a key for PARLEY_CONTENT_KEYS, which encrypts what people said where it is stored.

    To change keys, put the new one before the old one; once `parley db reencrypt` is done, the old one can go.

    Example: export PARLEY_CONTENT_KEYS=$(parley keys content)
    """
    from cluster import accounts

    accounts.content_key(as_json)
