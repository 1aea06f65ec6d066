"""One door to the database: SQLite by default, PostgreSQL by url.

Knows connections and transactions; what is kept stands in `tables.py`, and how an older database
becomes a newer one in `migrations`.
"""

from __future__ import annotations

import secrets
import sqlite3
import threading
import time
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from datetime import UTC, datetime
from pathlib import Path
from typing import Any, Generic, TypeVar

from sqlalchemy import DateTime, MetaData, create_engine, event, text
from sqlalchemy.engine import URL, Connection, Dialect, Engine, make_url
from sqlalchemy.exc import ArgumentError, DatabaseError, OperationalError
from sqlalchemy.orm import DeclarativeBase, Session, sessionmaker
from sqlalchemy.types import TypeDecorator

from imagine.errors import DatabaseUnusable, InvalidInput, MissingExtra

BUSY_TIMEOUT_SECONDS = 30  # how long a writer waits for another writer of the same SQLite file
_BUSY_TIMEOUT = f"PRAGMA busy_timeout={BUSY_TIMEOUT_SECONDS * 1000}"
_LOOK_SECONDS = 0.002  # between two looks whether another process still writes
_MOST_TOGETHER = 256  # pieces of work that share one commit
# Connections to a SQLite file that stay open. The library's five are too few for the threads of a
# server: each one more is opened, prepared and closed again for every request.
_KEPT_OPEN = 16
_MORE = 32
_CACHE_KIB = 512  # of each connection; the pages are in the memory of the system anyway
Result = TypeVar("Result")

_NAMES = {
    "ix": "ix_%(table_name)s_%(column_0_N_name)s",
    "uq": "uq_%(table_name)s_%(column_0_N_name)s",
    "ck": "ck_%(table_name)s_%(constraint_name)s",
    "fk": "fk_%(table_name)s_%(column_0_N_name)s",
    "pk": "pk_%(table_name)s",
}


class Base(DeclarativeBase):
    """The one base of every table of this package; constraints get the same name everywhere."""

    metadata = MetaData(naming_convention=_NAMES)


class Instant(TypeDecorator[datetime]):
    """A moment, always with a time zone in Python and always UTC in the database.

    SQLite has no time zones: there the zone is dropped on the way in and put back on the way out.
    """

    impl = DateTime(timezone=True)
    cache_ok = True

    def process_bind_param(self, value: datetime | None, dialect: Dialect) -> datetime | None:
        if value is None:
            return None
        if value.tzinfo is None:
            raise InvalidInput(f"The time {value.isoformat()} has no zone. Use datetime.now(UTC).")
        moment = value.astimezone(UTC)
        return moment.replace(tzinfo=None) if dialect.name == "sqlite" else moment

    def process_result_value(self, value: datetime | None, dialect: Dialect) -> datetime | None:
        if value is None:
            return None
        return value.replace(tzinfo=UTC) if value.tzinfo is None else value.astimezone(UTC)


@dataclass(eq=False)
class _Piece(Generic[Result]):
    """Work that waits for a commit it may share; `outcome` is there when `is_done`."""

    work: Callable[[Session], Result]
    is_done: bool = False
    result: Result | None = None
    error: BaseException | None = None

    def do(self, session: Session) -> None:
        self.result = self.work(session)

    @property
    def outcome(self) -> Result:
        if self.error is not None:
            raise self.error
        return self.result  # type: ignore[return-value]  # done without an error: it is there


class Database:
    """An open database. Read in `reading()`, change in `writing()`; both give a `Session`.

    SQLite lets one write at a time; connections that find it taken sleep and look again, up to a
    tenth of a second each time, so that with many threads the lock lies idle most of the time. The
    writers of this process therefore queue up before they ask (the median submit of two hundred
    clients on two busy cores took 6.6 s without that and 0.18 s with it, see
    `tests/service/two_hundred_clients.py`); for writers of other processes they look often.
    """

    def __init__(self, engine: Engine) -> None:
        self.engine = engine
        # A SQLite transaction that reads first and writes later fails at once, without waiting,
        # when somebody wrote in between; taking the write lock at the start waits its turn.
        self._writers = engine.execution_options(sqlite_begin="IMMEDIATE")
        self._read_session = sessionmaker(engine, expire_on_commit=False)
        self._write_session = sessionmaker(self._writers, expire_on_commit=False)
        self._turn = threading.Lock()
        self._pieces: list[_Piece[Any]] = []
        self._pieces_lock = threading.Lock()

    def __repr__(self) -> str:
        return f"Database({self.engine.url.render_as_string(hide_password=True)!r})"

    @property
    def is_sqlite(self) -> bool:
        """Whether this is SQLite: one writer at a time, no row locks, no SKIP LOCKED."""
        return self.engine.dialect.name == "sqlite"

    @contextmanager
    def reading(self) -> Iterator[Session]:
        """A session whose changes are thrown away; on SQLite it never waits for writers."""
        with self._translated(), self._read_session() as session:
            yield session

    @contextmanager
    def writing(self) -> Iterator[Session]:
        """A session that commits at the end of the block, or undoes all of it on an error."""
        with self._translated(), self._my_turn(), self._write_session.begin() as session:
            yield session

    def write(self, work: Callable[[Session], Result]) -> Result:
        """Do a small piece of work in a transaction that it may share with others who wait.

        Returns when it is committed. On SQLite whoever gets the turn does the work of all who wait
        and commits once, since a commit waits for the disk; each of several pieces keeps to a
        savepoint of its own, so that one that fails undoes nothing of the others. PostgreSQL does
        the like itself.

        Raises:
            DatabaseUnusable: as `writing`; and whatever `work` raises.
        """
        if not self.is_sqlite:
            with self.writing() as session:
                return work(session)
        piece = _Piece(work)
        with self._pieces_lock:
            self._pieces.append(piece)
        try:
            with self._my_turn():
                while not piece.is_done:
                    self._do_waiting_pieces()
        except DatabaseUnusable:
            with self._pieces_lock:
                if piece in self._pieces:
                    self._pieces.remove(piece)
                    raise
            with self._turn:  # somebody has just begun with it: it will be done
                pass
        return piece.outcome

    def _do_waiting_pieces(self) -> None:
        with self._pieces_lock:
            pieces = self._pieces[:_MOST_TOGETHER]
            del self._pieces[:_MOST_TOGETHER]
        try:
            with self._translated(), self._write_session.begin() as session:
                if len(pieces) == 1:
                    pieces[0].do(session)
                    return
                for piece in pieces:
                    try:
                        with self._translated(), session.begin_nested():
                            piece.do(session)
                    except Exception as error:
                        piece.error = error
        except BaseException as error:  # then nothing of all this was kept
            for piece in pieces:
                piece.error = piece.error or error
        finally:
            for piece in pieces:
                piece.is_done = True

    @contextmanager
    def _my_turn(self) -> Iterator[None]:
        if not self.is_sqlite:
            yield
            return
        if not self._turn.acquire(timeout=BUSY_TIMEOUT_SECONDS):
            raise DatabaseUnusable(
                f"{self!r} was being written to for {BUSY_TIMEOUT_SECONDS} seconds. Nothing was "
                "lost; try again in a moment."
            )
        try:
            yield
        finally:
            self._turn.release()

    @contextmanager
    def changing_schema(self) -> Iterator[Connection]:
        """A connection in a write transaction, for migrations and tests."""
        with self._translated(), self._my_turn(), self._writers.begin() as connection:
            yield connection

    def scrub(self, tables: Sequence[str] = (), rebuild: bool = True) -> None:
        """Leave no deleted row behind in the files of the database.

        On SQLite deleted cells are zeroed already (`secure_delete`); this moves the write-ahead
        log into the file and cuts it to nothing. `secure_delete` does not reach copies that a
        page kept when its rows were moved around: rebuilding the file does. On PostgreSQL,
        rebuilding is a vacuum of `tables`, or of all that this user owns.

        Args:
            tables: which ones, where the database can choose.
            rebuild: also do what takes time in proportion to all that is stored.

        Raises:
            DatabaseUnusable: another connection kept the log busy; call again later.
        """
        if not self.is_sqlite:
            if rebuild:
                with self._translated(), self.engine.connect() as connection:
                    connection.execution_options(isolation_level="AUTOCOMMIT")
                    connection.execute(text(f"VACUUM {', '.join(tables)}"))
            return
        outside = self.engine.execution_options(sqlite_begin="")  # VACUUM wants no transaction
        with self._translated(), outside.connect() as connection:
            if rebuild:
                connection.execute(text("VACUUM"))
            busy = connection.execute(text("PRAGMA wal_checkpoint(TRUNCATE)")).one()[0]
        if busy:
            raise DatabaseUnusable(
                "The write-ahead log of the database is in use, so deleted rows may still be in "
                "it. Nothing is lost; ask again when the other connection is done."
            )

    @contextmanager
    def _translated(self) -> Iterator[None]:
        try:
            yield
        except OperationalError as error:
            # The driver's text can quote a row; its kind is enough to act on.
            raise DatabaseUnusable(
                f"{self!r} did not answer in time or refused ({type(error.orig).__name__}). "
                "Check that it is up, has room on its disk, and is not held by a long write."
            ) from error

    def close(self) -> None:
        """Close every connection."""
        self.engine.dispose()

    def __enter__(self) -> Database:
        return self

    def __exit__(self, *exception: object) -> None:
        self.close()


def open_database(url: str) -> Database:
    """Open the database at `url`; its tables are made by `migrations.upgrade`.

    Args:
        url: "sqlite:////folder/file.db", "sqlite://" (in memory, one for each thread) or
            "postgresql://user:password@host/name" (psycopg 3).

    Raises:
        InvalidInput: not a url we know.
        MissingExtra: PostgreSQL is asked for and psycopg is not installed.
        DatabaseUnusable: nothing answers there, or the file cannot be opened.
    """
    parsed = _parse(url)
    if parsed.get_backend_name() == "sqlite":
        engine = _sqlite_engine(parsed)
    else:
        engine = create_engine(parsed, pool_pre_ping=True, hide_parameters=True)
    database = Database(engine)
    try:
        with database.reading() as session:
            session.execute(text("SELECT 1"))
    except (DatabaseUnusable, DatabaseError, sqlite3.Error) as error:
        database.close()
        where = parsed.render_as_string(hide_password=True)
        raise DatabaseUnusable(
            f"The database {where} cannot be opened. Check that it exists, that it answers and "
            "that this user may use it."
        ) from error
    return database


def new_id(kind: str) -> str:
    """A random name for a new row, e.g. "photo_" and 32 hex digits (128 random bits)."""
    return f"{kind}_{secrets.token_hex(16)}"


def utc_now() -> datetime:
    """The clock of everything that is not handed another one."""
    return datetime.now(UTC)


def _parse(url: str) -> URL:
    try:
        parsed = make_url(url)
    except ArgumentError as error:
        # The url may hold a password, so it is not repeated here.
        raise InvalidInput(
            "The database url cannot be read. Write sqlite:////folder/file.db or "
            "postgresql://user:password@host/name."
        ) from error
    match parsed.get_backend_name():
        case "sqlite":
            return parsed.set(drivername="sqlite+pysqlite")
        case "postgresql":
            _need_psycopg()
            return parsed.set(drivername="postgresql+psycopg")
        case other:
            raise InvalidInput(
                f"There is no support for {other} databases. Use sqlite or postgresql."
            )


def _need_psycopg() -> None:
    try:
        import psycopg  # noqa: F401
    except ImportError as error:
        raise MissingExtra(
            "PostgreSQL needs the package psycopg, which is not installed. "
            "Run: pip install 'imagine-yourself[postgres]'"
        ) from error


def _sqlite_engine(url: URL) -> Engine:
    if url.database and url.database != ":memory:":
        # Nobody but the owner looks into the folder: the log and the file live in it.
        folder = Path(url.database).parent
        try:
            folder.mkdir(mode=0o700, parents=True, exist_ok=True)
            Path(url.database).touch(mode=0o600)  # SQLite gives its log the same rights
        except OSError as error:
            raise DatabaseUnusable(
                f"The database {url.database} cannot be made: {error.strerror}. "
                "Choose a folder this user may write to."
            ) from error
    options: dict[str, Any] = {}
    if url.database and url.database != ":memory:":
        options = {"pool_size": _KEPT_OPEN, "max_overflow": _MORE}
    engine = create_engine(
        url, hide_parameters=True, connect_args={"timeout": BUSY_TIMEOUT_SECONDS}, **options
    )
    event.listen(engine, "connect", _prepare_sqlite)
    event.listen(engine, "begin", _begin_sqlite)
    return engine


def _prepare_sqlite(connection: Any, record: object) -> None:
    # Python's sqlite3 would begin transactions by itself, late and not around reads or DDL.
    connection.isolation_level = None
    cursor = connection.cursor()
    cursor.execute(_BUSY_TIMEOUT)
    cursor.execute("PRAGMA journal_mode=WAL")
    # A power cut must not bring back a job that was reported finished, nor a row that was erased.
    cursor.execute("PRAGMA synchronous=FULL")
    cursor.execute("PRAGMA foreign_keys=ON")
    cursor.execute("PRAGMA secure_delete=ON")
    cursor.execute(f"PRAGMA cache_size=-{_CACHE_KIB}")
    cursor.execute("PRAGMA temp_store=MEMORY")  # sorted rows must not reach a temporary file
    cursor.close()


def _begin_sqlite(connection: Connection) -> None:
    kind = connection.get_execution_options().get("sqlite_begin", "DEFERRED")
    if kind == "IMMEDIATE":
        _take_write_lock(connection)
    elif kind:
        connection.exec_driver_sql(f"BEGIN {kind}")


def _take_write_lock(connection: Connection) -> None:
    """Begin to write; while another process does, look again every few milliseconds.

    SQLite itself would look again after up to a tenth of a second, and for a process that writes
    beside another one those sleeps become its slowest answers.
    """
    give_up = time.monotonic() + BUSY_TIMEOUT_SECONDS
    plain = connection.connection.driver_connection
    assert plain is not None
    plain.execute("PRAGMA busy_timeout=0")
    try:
        while True:
            try:
                connection.exec_driver_sql("BEGIN IMMEDIATE")
                return
            except OperationalError as error:
                code = getattr(error.orig, "sqlite_errorcode", 0) & 0xFF
                if code != sqlite3.SQLITE_BUSY or time.monotonic() > give_up:
                    raise
            time.sleep(_LOOK_SECONDS)
    finally:
        plain.execute(_BUSY_TIMEOUT)
