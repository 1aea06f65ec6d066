"""`imagine-me keys`: who may use the service of this machine, and no longer."""

from __future__ import annotations

from datetime import datetime, timedelta
from typing import Annotated

import typer

from imagine.cli.console import JsonOption, print_json, say, stdout_console
from imagine.cli.serve import built_service, need_serve_extra
from imagine.cli.stored import DatabaseOption, existing_database

app = typer.Typer(help="API keys of the service on this machine.", no_args_is_help=True)

TenantOption = Annotated[str, typer.Option("--tenant", help="Whose key.")]


@app.callback()
def _keys() -> None:
    pass


@app.command("create")
def create(
    label: Annotated[str, typer.Argument(help="What it is for, in your words.")],
    role: Annotated[
        str, typer.Option("--role", help="user, developer, reviewer or admin.")
    ] = "developer",
    tenant: TenantOption = "local",
    days: Annotated[
        int | None,
        typer.Option("--days", min=1, help="How long it works; else until revoked."),
    ] = None,
    json: JsonOption = False,
) -> None:
    """Make a key. It is shown now and never again; only its hash is kept.

    Example: imagine-me keys create "web shop" --role developer --days 90
    """
    need_serve_extra()
    from imagine.service.auth import scopes_of

    scopes = scopes_of(role)
    lifetime = None if days is None else timedelta(days=days)
    service = built_service()
    with service.database:
        service.people.add_tenant(tenant, tenant)
        made = service.api_keys.create(tenant, label, scopes, lifetime)
    if json:
        print_json({"id": made.key.id, "tenant": tenant, "role": role, "token": made.token})
        return
    print(made.token)
    say(f"Key {made.key.id} of tenant {tenant}, role {role}. It is not shown again: keep it safe.")


@app.command("list")
def list_keys(
    tenant: TenantOption = "local", database: DatabaseOption = None, json: JsonOption = False
) -> None:
    """List the keys of a tenant; never their secrets."""
    from imagine.storage.api_keys import ApiKeys

    with existing_database(database) as opened:
        keys = ApiKeys(opened).of_tenant(tenant)
    if json:
        print_json(
            [
                {
                    "id": key.id,
                    "label": key.label,
                    "scopes": sorted(key.scopes),
                    "created_at": key.created_at.isoformat(),
                    "expires_at": key.expires_at.isoformat() if key.expires_at else None,
                    "revoked_at": key.revoked_at.isoformat() if key.revoked_at else None,
                }
                for key in keys
            ]
        )
        return
    from rich.table import Table

    table = Table("key", "label", "made", "ends", "last used", "scopes")
    for key in keys:
        ends = (
            "revoked" if key.revoked_at else f"{key.expires_at:%Y-%m-%d}" if key.expires_at else ""
        )
        used = f"{key.last_used_at:%Y-%m-%d %H:%M}" if key.last_used_at else "never"
        made = _day(key.created_at)
        table.add_row(key.id, key.label, made, ends, used, " ".join(sorted(key.scopes)))
    stdout_console().print(table)


@app.command("revoke")
def revoke(
    key_id: Annotated[str, typer.Argument(help="The id that `keys list` shows.")],
    tenant: TenantOption = "local",
    database: DatabaseOption = None,
) -> None:
    """End a key at once; again is harmless."""
    from imagine.storage.api_keys import ApiKeys

    with existing_database(database) as opened:
        key = ApiKeys(opened).revoke(tenant, key_id)
    print(f"Key {key.id} ({key.label}) is refused from now on.")


def _day(moment: datetime | None) -> str:
    return f"{moment:%Y-%m-%d}" if moment else ""
