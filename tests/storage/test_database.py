import threading
import time
from collections.abc import Iterator
from datetime import UTC, datetime, timedelta, timezone
from pathlib import Path

import pytest
from sqlalchemy import event, text
from sqlalchemy.exc import IntegrityError

from imagine.errors import DatabaseUnusable, InvalidInput
from imagine.storage import database as database_module
from imagine.storage.database import Database, new_id, open_database
from imagine.storage.migrations import upgrade
from imagine.storage.tables import PersonRow, TenantRow

NOON = datetime(2027, 1, 4, 12, 0, tzinfo=timezone(timedelta(hours=2)))


def _add_tenant(database: Database, name: str) -> None:
    with database.writing() as session:
        session.add(TenantRow(id=name, name=name, created_at=NOON))


def test_moments_come_back_in_utc(database: Database) -> None:
    _add_tenant(database, "a")
    with database.reading() as session:
        found = session.get_one(TenantRow, "a").created_at
    assert found == NOON
    assert found.tzinfo is UTC or found.utcoffset() == timedelta(0)


def test_a_moment_without_a_zone_is_refused(database: Database) -> None:
    with pytest.raises(Exception, match="has no zone"), database.writing() as session:
        session.add(TenantRow(id="a", name="a", created_at=datetime(2027, 1, 4)))


def test_an_error_undoes_the_whole_transaction(database: Database) -> None:
    with pytest.raises(RuntimeError), database.writing() as session:
        session.add(TenantRow(id="a", name="a", created_at=NOON))
        session.flush()
        raise RuntimeError
    with database.reading() as session:
        assert session.get(TenantRow, "a") is None


def test_changes_made_while_reading_are_thrown_away(database: Database) -> None:
    with database.reading() as session:
        session.add(TenantRow(id="a", name="a", created_at=NOON))
        session.flush()
    with database.reading() as session:
        assert session.get(TenantRow, "a") is None


def test_a_row_cannot_belong_to_a_tenant_that_is_not_there(database: Database) -> None:
    with pytest.raises(IntegrityError), database.writing() as session:
        session.add(PersonRow(tenant_id="nobody", id="p", created_at=NOON))


def test_writers_that_read_first_wait_for_each_other(database: Database) -> None:
    _add_tenant(database, "a")
    with database.writing() as session:
        session.get_one(TenantRow, "a").name = "0"

    def count_up() -> None:
        for _ in range(10):
            with database.writing() as session:
                row = session.get_one(TenantRow, "a", with_for_update=True)
                row.name = str(int(row.name) + 1)

    threads = [threading.Thread(target=count_up) for _ in range(4)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    with database.reading() as session:
        assert session.get_one(TenantRow, "a").name == "40"


def test_a_reader_does_not_wait_for_a_writer(sqlite_url: str) -> None:
    with open_database(sqlite_url) as database:
        _add_tenant(database, "a")
        with database.writing() as writer:
            writer.get_one(TenantRow, "a").name = "changed"
            writer.flush()
            with database.reading() as reader:
                assert reader.get_one(TenantRow, "a").name == "a"


def test_sqlite_is_set_up_to_be_safe(sqlite_url: str) -> None:
    expected = {"journal_mode": "wal", "foreign_keys": 1, "secure_delete": 1, "synchronous": 2}
    with open_database(sqlite_url) as database, database.reading() as session:
        for name, value in expected.items():
            assert session.execute(text(f"PRAGMA {name}")).scalar() == value
        assert session.execute(text("PRAGMA busy_timeout")).scalar() == 30_000


def test_scrubbing_leaves_no_deleted_text_in_any_file(sqlite_url: str) -> None:
    folder = Path(sqlite_url.removeprefix("sqlite:///")).parent
    with open_database(sqlite_url) as database:
        _add_tenant(database, "canary-name")
        with database.writing() as session:
            session.delete(session.get_one(TenantRow, "canary-name"))
        assert any(b"canary-name" in file.read_bytes() for file in folder.iterdir())
        database.scrub()
        assert not any(b"canary-name" in file.read_bytes() for file in folder.iterdir())


def test_postgresql_can_be_scrubbed(database: Database) -> None:
    database.scrub(("people", "photos"))
    database.scrub()


def test_scrubbing_under_a_reader_says_so(sqlite_url: str, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("imagine.storage.database.BUSY_TIMEOUT_SECONDS", 0)
    with open_database(sqlite_url) as database, database.reading() as reader:
        _add_tenant(database, "a")
        reader.execute(text("SELECT * FROM tenants")).all()
        _add_tenant(database, "b")
        with pytest.raises(DatabaseUnusable, match="in use"):
            database.scrub()


def test_a_database_that_stays_locked_is_named(
    sqlite_url: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("imagine.storage.database.BUSY_TIMEOUT_SECONDS", 0)
    with open_database(sqlite_url) as one, one.writing() as writer:
        writer.execute(text("SELECT 1"))  # the lock is taken at the first statement
        with open_database(sqlite_url) as other, pytest.raises(DatabaseUnusable, match="in time"):
            _add_tenant(other, "a")


def test_a_new_database_is_private(tmp_path: Path) -> None:
    with open_database(f"sqlite:///{tmp_path / 'new' / 'imagine.db'}") as database:
        upgrade(database)
        files = [tmp_path / "new", *(tmp_path / "new").iterdir()]
        assert len(files) == 4  # the folder, the file, its log and the index of the log
        assert all(file.stat().st_mode & 0o077 == 0 for file in files)


@pytest.mark.parametrize(
    ("url", "advice"),
    [("mysql://host/name", "sqlite or postgresql"), ("not a url", "Write sqlite:////folder")],
)
def test_an_unknown_url_is_refused_with_advice(url: str, advice: str) -> None:
    with pytest.raises(InvalidInput, match=advice):
        open_database(url)


def test_a_file_that_is_no_database_is_refused(tmp_path: Path) -> None:
    (tmp_path / "letter.db").write_bytes(b"Dear Sir or Madam, " * 100)
    with pytest.raises(DatabaseUnusable, match="cannot be opened"):
        open_database(f"sqlite:///{tmp_path / 'letter.db'}")


def test_a_server_that_is_not_there_is_named_without_its_password() -> None:
    with pytest.raises(DatabaseUnusable) as caught:
        open_database("postgresql://me:secret-word@127.0.0.1:1/none?connect_timeout=2")
    assert "127.0.0.1" in str(caught.value)
    assert "secret-word" not in str(caught.value)


def test_the_password_is_masked_in_repr(database: Database) -> None:
    shown = database.engine.url.set(password="secret-word")
    assert "secret-word" not in repr(Database(database.engine.execution_options()))
    assert "secret-word" not in shown.render_as_string()


def test_ids_are_random_and_say_what_they_name() -> None:
    ids = {new_id("photo") for _ in range(100)}
    assert len(ids) == 100
    assert all(one.startswith("photo_") and len(one) == 38 for one in ids)


def test_a_folder_that_cannot_be_made_is_refused(tmp_path: Path) -> None:
    (tmp_path / "file").touch()
    with pytest.raises(DatabaseUnusable, match="cannot be made"):
        open_database(f"sqlite:///{tmp_path / 'file' / 'imagine.db'}")


@pytest.fixture
def counting(database: Database) -> Iterator[Database]:
    with database.changing_schema() as connection:
        connection.execute(text("CREATE TABLE counts (n INTEGER UNIQUE)"))
    yield database
    with database.changing_schema() as connection:
        connection.execute(text("DROP TABLE counts"))


def _numbers(database: Database) -> list[int]:
    with database.reading() as session:
        return sorted(session.scalars(text("SELECT n FROM counts")))


def _insert(number: int):  # type: ignore[no-untyped-def]
    def work(session):  # type: ignore[no-untyped-def]
        session.execute(text("INSERT INTO counts VALUES (:n)"), {"n": number})
        return number

    return work


def test_many_writers_take_turns_and_lose_nothing(counting: Database) -> None:
    _in_threads(8, lambda n: [counting.write(_insert(n * 5 + i)) for i in range(5)])
    assert _numbers(counting) == list(range(40))


def test_work_that_fails_undoes_nothing_of_the_others(counting: Database) -> None:
    counting.write(_insert(0))
    refused: list[int] = []

    def add(n: int) -> None:
        try:
            assert counting.write(_insert(n // 2)) == n // 2
        except IntegrityError:
            refused.append(n)

    _in_threads(12, add)
    assert _numbers(counting) == list(range(6)) and len(refused) == 7


def test_those_who_wait_together_share_one_commit(sqlite_url: str) -> None:
    with open_database(sqlite_url) as database:
        begun: list[object] = []
        event.listen(database.engine, "begin", lambda connection: begun.append(connection))
        with database.changing_schema() as connection:
            connection.execute(text("CREATE TABLE counts (n INTEGER UNIQUE)"))
        with database.writing():
            threads = [
                threading.Thread(target=database.write, args=(_insert(n),)) for n in range(10)
            ]
            for thread in threads:
                thread.start()
            while len(database._pieces) < 10:
                time.sleep(0.01)
            begun.clear()
        for thread in threads:
            thread.join()
        assert len(begun) == 1 and _numbers(database) == list(range(10))


def test_a_writer_that_fails_gives_its_turn_on(counting: Database) -> None:
    with pytest.raises(ValueError, match="mine"), counting.writing():
        raise ValueError("mine")
    counting.write(_insert(1))
    assert _numbers(counting) == [1]


def test_nobody_waits_for_ever(sqlite_url: str, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(database_module, "BUSY_TIMEOUT_SECONDS", 0.05)
    with open_database(sqlite_url) as database:
        with (
            database.writing(),
            pytest.raises(DatabaseUnusable, match="try again"),
            database.writing(),
        ):
            pass
        with database.writing(), pytest.raises(DatabaseUnusable, match="try again"):
            database.write(_insert(1))
        assert database._pieces == []


def _in_threads(count: int, work) -> None:  # type: ignore[no-untyped-def]
    threads = [threading.Thread(target=work, args=(n,)) for n in range(count)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()


def test_a_writer_of_another_process_is_waited_for(sqlite_url: str) -> None:
    begun, order = threading.Event(), []

    def hold() -> None:
        with other.writing() as session:  # another door to the file, as another process has
            session.execute(text("SELECT 1"))  # the lock is taken at the first statement
            begun.set()
            time.sleep(0.3)
            order.append("other")

    with open_database(sqlite_url) as database, open_database(sqlite_url) as other:
        holding = threading.Thread(target=hold)
        holding.start()
        begun.wait()
        database.write(lambda session: session.execute(text("SELECT 1")))
        order.append("mine")
        holding.join()
    assert order == ["other", "mine"]


def test_a_connection_keeps_waiting_for_others_after_it_wrote(sqlite_url: str) -> None:
    with open_database(sqlite_url) as database, database.writing() as session:
        patience = session.scalar(text("PRAGMA busy_timeout"))
    assert patience == 1000 * database_module.BUSY_TIMEOUT_SECONDS
