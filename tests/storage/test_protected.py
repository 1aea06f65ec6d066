from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest

from imagine.core import FloatArray
from imagine.errors import InvalidInput, NotStored, SealBroken
from imagine.storage.database import Database
from imagine.storage.protected import EVERYBODY, ProtectedPeople, ProtectedRow
from tests.storage.house import House


@pytest.fixture
def house(database: Database) -> House:
    return House(database)


def opened(house: House) -> ProtectedPeople:
    return ProtectedPeople(house.database, lambda: house.keys, house.events, house.clock)


def vector(value: float) -> FloatArray:
    return np.full(128, value, np.float32)


def values(people: ProtectedPeople, recogniser: str = "dlib") -> list[float]:
    return sorted(float(entry[0]) for entry in people.embeddings(recogniser))


def test_a_new_list_is_empty_and_needs_no_key(database: Database) -> None:
    def no_key() -> None:
        raise AssertionError("a key was asked for")

    people = ProtectedPeople(database, no_key, lambda *a, **k: None)  # type: ignore[arg-type]
    assert people.embeddings("dlib") == [] and people.counts() == {}


def test_whoever_registers_is_found_again_after_a_restart(house: House) -> None:
    made = opened(house).register("dlib", vector(1.0), "declaration")
    opened(house).register("dlib", vector(2.0), "camera")
    opened(house).register("arcface", vector(3.0), "camera")
    people = opened(house)
    assert values(people) == [1.0, 2.0]
    assert people.counts() == {"dlib": 2, "arcface": 1}
    assert made.token not in repr(made) and made.created_at == house.clock.now


def test_another_process_sees_what_comes_and_goes(house: House) -> None:
    reader, writer = opened(house), opened(house)
    assert values(reader) == []
    made = writer.register("dlib", vector(1.0), "camera")
    assert values(reader) == [1.0]
    writer.withdraw(made.token)
    assert values(reader) == []


def test_the_token_takes_the_entry_off_and_destroys_its_key(house: House) -> None:
    people = opened(house)
    made, other = (people.register("dlib", vector(n), "camera") for n in (1.0, 2.0))
    assert people.withdraw(f" {made.token}\n") == house.clock.now
    assert values(people) == [2.0]
    assert house.keys.destroyed_at(EVERYBODY, f"protected_{made.id}") is not None
    for wrong in (made.token, "", "imdng_", f"imdng_{other.id}_{'0' * 64}"):
        with pytest.raises(NotStored, match="token"):
            people.withdraw(wrong)
    kinds = ["protected.registered"] * 2 + ["protected.withdrawn"]
    assert house.events.kinds() == kinds


def test_an_entry_that_came_back_from_a_backup_opens_no_more(house: House) -> None:
    people = opened(house)
    made = people.register("dlib", vector(1.0), "camera")
    with house.database.reading() as session:
        kept = session.get_one(ProtectedRow, made.id)
        facts = {c.name: getattr(kept, c.name) for c in ProtectedRow.__table__.columns}
    people.withdraw(made.token)
    with house.database.writing() as session:
        session.add(ProtectedRow(**facts))
    assert values(opened(house)) == []


def test_a_list_is_taken_over_once_and_its_entries_have_no_token(house: House) -> None:
    people = opened(house)
    listed = {"a": vector(1.0), "b": vector(2.0)}
    assert people.add_list("dlib", listed, "0123456789abcdef", "key_1") == 2
    assert people.add_list("dlib", listed | {"c": vector(3.0)}, "0123456789abcdef", "key_1") == 1
    assert people.add_list("dlib", listed, "fedcba9876543210", "key_1") == 2  # another maker's
    assert values(people) == [1.0, 1.0, 2.0, 2.0, 3.0]
    with house.database.reading() as session:
        assert {row.token_sha256 for row in session.query(ProtectedRow)} == {None}


@pytest.mark.parametrize("bad", [vector(0.0), vector(np.inf), np.zeros((2, 2), np.float32)])
def test_what_is_no_vector_is_not_listed(house: House, bad: FloatArray) -> None:
    with pytest.raises(InvalidInput, match="cannot be listed"):
        opened(house).register("dlib", bad, "camera")
    assert opened(house).counts() == {}


def test_a_changed_entry_is_an_error_not_a_stranger(house: House) -> None:
    made = opened(house).register("dlib", vector(1.0), "camera")
    with house.database.writing() as session:
        row = session.get_one(ProtectedRow, made.id)
        row.sealed_embedding = row.sealed_embedding[:-1] + bytes([row.sealed_embedding[-1] ^ 1])
    with pytest.raises(SealBroken):
        opened(house).embeddings("dlib")


def test_nothing_of_a_vector_or_token_can_be_read_in_the_database(
    sqlite_url: str, tmp_path: Path
) -> None:
    from imagine.storage.database import open_database

    with open_database(sqlite_url) as database:
        house = House(database)
        made = opened(house).register("dlib", vector(1.0), "camera")
        database.scrub()
    for path in Path(sqlite_url.removeprefix("sqlite:///")).parent.iterdir():
        content = path.read_bytes()
        assert vector(1.0).tobytes()[:32] not in content
        assert made.token.rpartition("_")[2].encode() not in content
