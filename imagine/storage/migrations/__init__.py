"""How an older database becomes a newer one: Alembic, with its revisions inside the package.

A revision is one file in `versions/`, numbered, written by hand: `m0002_add_something.py` with
`revision`, `down_revision` and `upgrade()`. `tests/storage/test_migrations.py` compares the
models with what the revisions build, and prints what is missing.
"""

from __future__ import annotations

from pathlib import Path

from alembic import command
from alembic.config import Config
from alembic.runtime.migration import MigrationContext
from alembic.script import ScriptDirectory
from alembic.util import CommandError
from sqlalchemy import text
from sqlalchemy.engine import Connection

from imagine.errors import DatabaseUnusable
from imagine.storage.database import Database

_UPGRADE_LOCK = 5_186_203_117  # any constant; PostgreSQL's lock for one upgrade at a time


def upgrade(database: Database, to: str = "head") -> str:
    """Bring the database to the newest version (or to `to`), all of it or nothing.

    Two processes that start together wait for each other. Running it again changes nothing.

    Returns:
        The revision the database has now.

    Raises:
        DatabaseUnusable: the database was made by a newer version of this package.
    """
    config = _config()
    with database.changing_schema() as connection:
        if not database.is_sqlite:  # SQLite's write lock is taken already
            connection.execute(text(f"SELECT pg_advisory_xact_lock({_UPGRADE_LOCK})"))
        try:
            config.attributes["connection"] = connection
            command.upgrade(config, to)
        except CommandError as error:
            raise DatabaseUnusable(
                f"The database is at revision {_revision(connection)}, which this version of the "
                f"package does not know (it knows up to {newest_revision()}). "
                "Install the newer version again, or restore a backup made before the upgrade."
            ) from error
        return _revision(connection) or "nothing"


def current_revision(database: Database) -> str | None:
    """The revision the database has; None before the first `upgrade`."""
    with database.engine.connect() as connection:
        return _revision(connection)


def newest_revision() -> str:
    """The revision this version of the package wants."""
    head = ScriptDirectory.from_config(_config()).get_current_head()
    assert head is not None
    return head


def _config() -> Config:
    config = Config()
    # Alembic reads this as an ini file, where a percent sign begins a variable.
    config.set_main_option("script_location", str(Path(__file__).parent).replace("%", "%%"))
    config.set_main_option("path_separator", "os")
    return config


def _revision(connection: Connection) -> str | None:
    return MigrationContext.configure(connection).get_current_revision()
