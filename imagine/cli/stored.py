"""Opening what is kept on this machine, for commands that look at it."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from imagine.errors import DatabaseUnusable

if TYPE_CHECKING:
    from imagine.storage.database import Database

DatabaseOption = Annotated[
    str | None,
    typer.Option(
        "--database",
        help="Url of the database; without it the one of IMAGINE_DATABASE_URL, or the file in "
        "the data folder.",
        show_default=False,
    ),
]


@contextmanager
def existing_database(url: str | None) -> Iterator[Database]:
    """The database at `url`, or of the settings; never a new one made by looking.

    Raises:
        DatabaseUnusable: there is none, or it was made by another version.
    """
    from sqlalchemy.engine import make_url
    from sqlalchemy.exc import ArgumentError

    from imagine.settings import Settings
    from imagine.storage.database import open_database
    from imagine.storage.migrations import current_revision, newest_revision

    place = url or Settings().database_place
    try:
        file = make_url(place).database if place.startswith("sqlite") else None
    except ArgumentError:  # `open_database` says what is wrong with it
        file = None
    if file is not None and not Path(file).exists():
        raise DatabaseUnusable(
            f"There is no database {file!r} yet. Name another with --database, or set "
            "IMAGINE_DATA_DIR to the folder where it is."
        )
    with open_database(place) as database:
        if current_revision(database) != newest_revision():
            raise DatabaseUnusable(
                f"The database is at revision {current_revision(database)}, and this version "
                f"needs {newest_revision()}. Run: imagine-me db upgrade"
            )
        yield database
