"""`imagine-me db`: the database of the service."""

from __future__ import annotations

import typer

from imagine.cli.stored import DatabaseOption

app = typer.Typer(help="The database of the service.", no_args_is_help=True)


@app.callback()
def _db() -> None:
    pass


@app.command("upgrade")
def upgrade(database: DatabaseOption = None) -> None:
    """Bring the database to this version, all of it or nothing; again changes nothing.

    A file on this machine is upgraded whenever the service starts; a PostgreSQL only here.
    """
    from imagine.settings import Settings
    from imagine.storage.database import open_database
    from imagine.storage.migrations import upgrade as bring_up

    with open_database(database or Settings().database_place) as opened:
        print(f"The database is at revision {bring_up(opened)}.")
