"""Databases for the tests of this room: every test that takes `database` runs on both kinds.

PostgreSQL is started once, in a temporary folder of its own, reached over a unix socket, and
stopped at the end. Where it is not installed, those tests are skipped and say why.
"""

from __future__ import annotations

import os
import shutil
import subprocess
import tempfile
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path

import pytest
from sqlalchemy import text
from sqlalchemy.engine import Connection

from imagine.storage.database import Database, open_database
from imagine.storage.migrations import newest_revision, upgrade
from tests.storage.house import House


@dataclass(frozen=True)
class PostgresServer:
    """A running server; `url(name)` reaches one of its databases."""

    socket_folder: Path

    def url(self, name: str) -> str:
        return f"postgresql://postgres@/{name}?host={self.socket_folder}"

    def create(self, name: str) -> str:
        """Make an empty database; returns its url."""
        with self._connected("postgres") as connection:
            connection.execute(text(f'CREATE DATABASE "{name}"'))
        return self.url(name)

    def empty(self, name: str) -> None:
        """Throw out whoever is still connected, then every row."""
        with self._connected(name) as connection:
            others = "datname = current_database() AND pid <> pg_backend_pid()"
            connection.execute(
                text(f"SELECT pg_terminate_backend(pid) FROM pg_stat_activity WHERE {others}")
            )
            kept = "schemaname = 'public' AND tablename <> 'alembic_version'"
            tables = connection.scalars(text(f"SELECT tablename FROM pg_tables WHERE {kept}"))
            # One round trip, without triggers and foreign keys. For these few rows DELETE is far
            # quicker than TRUNCATE, which makes a new file for every table and index.
            statements = ["SET session_replication_role = replica"]
            statements += [f"DELETE FROM {table}" for table in tables]
            statements += [f"UPDATE alembic_version SET version_num = '{newest_revision()}'"]
            connection.exec_driver_sql("; ".join(statements))

    @contextmanager
    def _connected(self, name: str) -> Iterator[Connection]:
        with open_database(self.url(name)) as database, database.engine.connect() as connection:
            yield connection.execution_options(isolation_level="AUTOCOMMIT")


@pytest.fixture(scope="session")
def postgres() -> Iterator[PostgresServer]:
    """A real PostgreSQL with a migrated database called "migrated"."""
    pytest.importorskip("psycopg", reason="psycopg is not installed")
    binaries = _postgres_binaries()
    if binaries is None:
        pytest.skip("PostgreSQL is not installed (Debian package postgresql)")
    if os.geteuid() == 0 and shutil.which("runuser") is None:
        pytest.skip("PostgreSQL refuses to run as root and there is no runuser to leave root with")
    # pytest's own temporary paths are too long for the name of a unix socket (107 bytes).
    with tempfile.TemporaryDirectory(prefix="pg-", ignore_cleanup_errors=True) as name:
        folder = Path(name)
        if os.geteuid() == 0:
            shutil.chown(folder, "postgres")
        options = ["-U", "postgres", "-A", "trust", "-E", "UTF8", "--no-locale", "--no-sync"]
        _as_postgres([binaries / "initdb", "-D", folder / "data", *options])
        # Nothing here outlives the test, so nothing has to reach the disk.
        settings = (
            f"-k {folder} -c listen_addresses= -c fsync=off -c synchronous_commit=off "
            "-c full_page_writes=off -c shared_buffers=16MB -c max_connections=60"
        )
        control = [binaries / "pg_ctl", "-D", folder / "data", "-w"]
        _as_postgres([*control, "-l", folder / "log", "-o", settings, "start"])
        server = PostgresServer(folder)
        try:
            with open_database(server.create("migrated")) as database:
                upgrade(database)
            yield server
        finally:
            _as_postgres([*control, "-m", "immediate", "stop"])


@pytest.fixture(scope="session")
def migrated_sqlite(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A migrated SQLite file to copy from: cheaper than migrating for every test."""
    path = tmp_path_factory.mktemp("migrated") / "imagine.db"
    with open_database(f"sqlite:///{path}") as database:
        upgrade(database)
        database.scrub()
    return path


@pytest.fixture(params=["sqlite", "postgresql"])
def database_url(request: pytest.FixtureRequest, tmp_path: Path) -> Iterator[str]:
    """The url of a fresh, migrated database of each kind."""
    if request.param == "sqlite":
        yield _copy_of(request.getfixturevalue("migrated_sqlite"), tmp_path)
        return
    server: PostgresServer = request.getfixturevalue("postgres")
    yield server.url("migrated")
    server.empty("migrated")


@pytest.fixture
def database(database_url: str) -> Iterator[Database]:
    """A fresh, migrated, open database of each kind."""
    with open_database(database_url) as opened:
        yield opened


@pytest.fixture
def sqlite_url(migrated_sqlite: Path, tmp_path: Path) -> str:
    """The url of a fresh, migrated SQLite file, for what is SQLite's alone."""
    return _copy_of(migrated_sqlite, tmp_path)


def _copy_of(migrated: Path, tmp_path: Path) -> str:
    folder = tmp_path / "data"
    folder.mkdir()
    shutil.copy(migrated, folder / "imagine.db")
    return f"sqlite:///{folder / 'imagine.db'}"


def _postgres_binaries() -> Path | None:
    """The folder of initdb and pg_ctl; Debian keeps it out of PATH, one folder per version."""
    found = shutil.which("pg_ctl")
    if found is not None:
        return Path(found).resolve().parent
    folders = sorted(Path("/usr/lib/postgresql").glob("*/bin/pg_ctl"))
    return folders[-1].parent if folders else None


def _as_postgres(command: list[str | Path]) -> None:
    words = [str(word) for word in command]
    if os.geteuid() == 0:  # the server refuses to run as root
        words = ["runuser", "-u", "postgres", "--", *words]
    # A file, not a pipe: the server inherits it and would keep a pipe open for ever.
    with tempfile.TemporaryFile() as output:
        done = subprocess.run(words, stdout=output, stderr=output, cwd="/", check=False)
        output.seek(0)
        assert done.returncode == 0, output.read().decode(errors="replace")


@pytest.fixture
def house(database: Database) -> House:
    """The whole room on each kind of database, blobs and keys in memory."""
    return House(database)
