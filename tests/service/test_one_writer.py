from __future__ import annotations

import threading
from pathlib import Path

import pytest
from sqlalchemy import text

from imagine.errors import DatabaseUnusable
from imagine.service import one_writer
from imagine.service.one_writer import OneWriterDatabase
from imagine.storage.database import open_database


@pytest.fixture
def database(tmp_path: Path) -> OneWriterDatabase:
    made = OneWriterDatabase(open_database(f"sqlite:///{tmp_path / 'a.db'}"))
    with made.writing() as session:
        session.execute(text("CREATE TABLE counts (n INTEGER)"))
        session.execute(text("INSERT INTO counts VALUES (0)"))
    return made


def test_many_writers_take_turns_and_lose_nothing(database: OneWriterDatabase) -> None:
    def add() -> None:
        for _ in range(5):
            with database.writing() as session:
                session.execute(text("UPDATE counts SET n = n + 1"))

    threads = [threading.Thread(target=add) for _ in range(8)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    with database.reading() as session:
        assert session.scalar(text("SELECT n FROM counts")) == 40
    database.close()


def test_a_writer_that_fails_gives_its_turn_on(database: OneWriterDatabase) -> None:
    with pytest.raises(ValueError, match="mine"), database.writing():
        raise ValueError("mine")
    with database.writing() as session:
        session.execute(text("UPDATE counts SET n = 1"))
    database.close()


def test_nobody_waits_for_ever(
    database: OneWriterDatabase, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(one_writer, "BUSY_TIMEOUT_SECONDS", 0.05)
    with (
        database.writing(),
        pytest.raises(DatabaseUnusable, match="try again"),
        database.writing(),
    ):
        pass
    database.close()
