"""The audit log: it keeps order, hides people, and every way of changing it is found."""

from __future__ import annotations

import base64
import io
import json
import subprocess
import sys
import threading
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from datetime import UTC, datetime, timedelta
from pathlib import Path

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as some
from sqlalchemy import delete, select, text, update

from imagine.errors import (
    AuditLogBroken,
    DataKeyDestroyed,
    ImagineError,
    InvalidInput,
    NotStored,
    SigningKeyUnusable,
    UnreadableAuditLog,
)
from imagine.storage.audit_check import canonical, verify_export
from imagine.storage.audit_log import (
    AuditEntryRow,
    AuditHeadRow,
    AuditLog,
    Person,
    Private,
    commitment,
    export_log,
    verify_database,
)
from imagine.storage.blobs import open_blobs
from imagine.storage.checkpoints import Checkpoint, SigningKey, VerifierKey
from imagine.storage.database import Database, open_database
from imagine.storage.keys import DataKeys, LocalMasterKey
from imagine.storage.merkle import (
    Frontier,
    leaf_hash,
    root_of,
    verify_consistency,
    verify_inclusion,
)

TENANT = "acme"
KEY = SigningKey.generate()
NOON = datetime(2026, 11, 22, 12, tzinfo=UTC)


class Keys:
    """Keys of people in memory; `destroyed` ones are refused like the real ones are."""

    def __init__(self) -> None:
        self.destroyed: set[str] = set()

    def commitment_key(self, tenant_id: str, subject: str) -> bytes:
        if subject in self.destroyed:
            raise DataKeyDestroyed(f"{subject} was erased.")
        return f"secret of {tenant_id} and {subject}".encode()


class Clock:
    """A clock that goes on one second with each look."""

    def __init__(self) -> None:
        self.now = NOON

    def __call__(self) -> datetime:
        self.now += timedelta(seconds=1)
        return self.now


def log_of(database: Database, key: SigningKey = KEY, keys: Keys | None = None) -> AuditLog:
    return AuditLog(database, key, keys or Keys(), Clock())


@pytest.fixture
def log(database: Database) -> AuditLog:
    """A log of eight entries about two people."""
    log = log_of(database)
    write_eight(log)
    return log


def write_eight(log: AuditLog, about: str = "identity_") -> None:
    for number in range(8):
        details = {"number": number, "prompt": Private(f"a wish {number}")}
        log.append("image.made", f"{about}{number % 2}", details, "worker-1", tenant_id=TENANT)


def test_an_entry_says_what_happened_and_nothing_of_whom(database: Database) -> None:
    log = log_of(database)
    details = {"purpose": "generate", "photos": 3, "prompt": Private("Ann on a beach")}
    entry = log.append("identity.read", "identity_ann", details, Person("ann"), tenant_id=TENANT)
    facts = entry.facts
    assert (facts["sequence"], facts["kind"], facts["tenant"]) == (0, "identity.read", TENANT)
    assert facts["time"] == "2026-11-22T12:00:01.000000+00:00"
    assert facts["details"]["purpose"] == "generate" and facts["details"]["photos"] == 3
    assert "ann" not in entry.text.lower() and "beach" not in entry.text


def test_whoever_has_the_key_can_find_entries_and_show_what_was_logged(log: AuditLog) -> None:
    about = log.entries_about(TENANT, "identity_1")
    assert [entry.sequence for entry in about] == [1, 3, 5, 7]
    assert log.reveals(about[1], "identity_1", "prompt", "a wish 3")
    assert not log.reveals(about[1], "identity_1", "prompt", "a wish 4")


def test_destroying_a_key_ends_what_the_log_says_of_somebody_but_not_the_tree(
    database: Database,
) -> None:
    keys = Keys()
    log = log_of(database, keys=keys)
    write_eight(log)
    keys.destroyed.add("identity_1")
    with pytest.raises(DataKeyDestroyed, match="erased"):
        log.entries_about(TENANT, "identity_1")
    with pytest.raises(DataKeyDestroyed, match="erased"):
        log.append("identity.read", "identity_1", {}, "worker-1", tenant_id=TENANT)
    assert log.append("erasure.done", None, {"erasure": "erasure_1"}, "worker-1").sequence == 8
    assert log.verify().is_intact


def test_the_keys_of_erased_people_take_their_entries_with_them(database: Database) -> None:
    keys = DataKeys(open_blobs("memory://"), LocalMasterKey(bytes(32)))
    keys.create(TENANT, "identity_1")
    log = AuditLog(database, KEY, keys)
    details = {"prompt": Private("Ann on a beach")}
    entry = log.append("image.made", "identity_1", details, "worker-1", tenant_id=TENANT)
    assert log.reveals(entry, "identity_1", "prompt", "Ann on a beach")
    keys.destroy(TENANT, "identity_1")
    with pytest.raises(DataKeyDestroyed):
        log.reveals(entry, "identity_1", "prompt", "Ann on a beach")
    assert log.verify().is_intact


def test_equal_private_values_do_not_look_equal(database: Database) -> None:
    log = log_of(database)
    one, two = (
        log.append("image.made", "identity_1", {"prompt": Private("x")}, "w", tenant_id=TENANT)
        for _ in range(2)
    )
    assert one.facts["details"] != two.facts["details"]
    assert one.facts["subject"] == two.facts["subject"]


@pytest.mark.parametrize(
    ("details", "said"),
    [
        ({"prompt": "Ann on a beach"}, "'prompt' is not a plain word"),
        ({"mail": "ann@example.org"}, "'mail' is not a plain word"),
        ({"embedding": [0.1, 0.2]}, "'embedding' is not a plain word"),
        ({"more": {"nested": "Ann"}}, "'more' is not a plain word"),
        ({"more": {"Ann Bee": 1}}, "'more' is not a plain word"),
        ({"more": ["fine", "Ann Bee"]}, "'more' is not a plain word"),
        ({"Ann Bee": 1}, "not a name of a detail"),
    ],
)
def test_words_of_a_person_cannot_slip_in(
    sqlite_log: AuditLog, details: dict[str, object], said: str
) -> None:
    with pytest.raises(InvalidInput, match=said) as refused:
        sqlite_log.append("image.made", "identity_1", details, "worker-1", tenant_id=TENANT)
    assert "beach" not in str(refused.value) and "@" not in str(refused.value)
    assert sqlite_log.checkpoint().size == 8


@pytest.mark.parametrize(
    ("change", "said"),
    [
        ({"kind": "Image made"}, "not a kind of event"),
        ({"actor": "Ann Bee"}, "wrap people in Person"),
        ({"tenant_id": None}, "needs the tenant_id"),
        ({"subject": None}, "needs a subject"),
        ({"details": {"seed": 2**60}}, "big numbers as text"),
        ({"details": {f"word_{i}": "x" * 120 for i in range(80)}}, "too long"),
    ],
)
def test_entries_that_would_not_last_are_refused(
    sqlite_log: AuditLog, change: dict[str, object], said: str
) -> None:
    entry = {
        "kind": "image.made",
        "subject": "identity_1",
        "details": {"prompt": Private("x")},
        "actor": "worker-1",
        "tenant_id": TENANT,
    }
    with pytest.raises(InvalidInput, match=said):
        sqlite_log.append(**{**entry, **change})  # type: ignore[arg-type]
    assert sqlite_log.verify().size == 8


def test_people_do_not_show_in_repr() -> None:
    assert "ann" not in repr(Person("ann")) and "beach" not in repr(Private("beach"))


def test_a_commitment_under_a_guessable_key_is_refused() -> None:
    with pytest.raises(ValueError, match="guessable"):
        commitment(b"short", "value")


def test_an_entry_falls_with_the_deed_it_belongs_to(database: Database, log: AuditLog) -> None:
    with pytest.raises(RuntimeError, match="power cut"), database.writing() as session:
        log.append("image.made", None, {}, "worker-1", within=session)
        raise RuntimeError("power cut")
    assert log.checkpoint().size == 8
    with database.writing() as session:
        first = log.append("image.made", None, {}, "worker-1", within=session)
        second = log.append("image.shown", None, {}, "worker-1", within=session)
    assert (first.sequence, second.sequence) == (8, 9)
    assert log.verify().is_intact


def test_appends_of_many_threads_get_one_order(database: Database) -> None:
    logs = [log_of(database) for _ in range(4)]

    def write(number: int) -> int:
        return logs[number % 4].append("tick", None, {"number": number}, "worker-1").sequence

    with ThreadPoolExecutor(4) as threads:
        assert sorted(threads.map(write, range(40))) == list(range(40))
    assert logs[0].verify() == logs[1].verify()
    assert logs[0].verify().is_intact and logs[0].verify().size == 40


def test_appends_of_several_processes_get_one_order(database_url: str, tmp_path: Path) -> None:
    pem = tmp_path / "audit.pem"
    command = [sys.executable, "-m", "tests.storage.audit_writer", database_url, str(pem), "10"]
    workers = [subprocess.Popen(command) for _ in range(2)]
    assert [worker.wait(60) for worker in workers] == [0, 0]
    with open_database(database_url) as database:
        found = verify_database(database, SigningKey.load_or_create(pem).public_bytes)
    assert found.is_intact and found.size == 20


def test_a_log_is_checked_while_it_grows(database: Database, log: AuditLog) -> None:
    stop = threading.Event()

    def grow() -> None:
        while not stop.is_set():
            log.append("tick", None, {}, "worker-1")

    writer = threading.Thread(target=grow)
    writer.start()
    try:
        findings = [log.verify() for _ in range(10)]
    finally:
        stop.set()
        writer.join()
    assert [found.finding for found in findings if not found.is_intact] == []


def test_a_log_that_was_never_begun_is_intact_and_empty(database: Database) -> None:
    assert log_of(database).verify().finding == "All 0 entries are as they were signed."
    with pytest.raises(UnreadableAuditLog, match="no audit log yet"):
        export_log(database, io.StringIO())


def test_another_signing_key_cannot_continue_a_log(database: Database, log: AuditLog) -> None:
    stranger = log_of(database, SigningKey.generate())
    with pytest.raises(SigningKeyUnusable, match="another signing key"):
        stranger.append("tick", None, {}, "worker-1")
    assert stranger.verify().first_bad == 0
    assert log.verify().is_intact


def test_an_entry_is_proven_to_a_stranger(log: AuditLog) -> None:
    proof, key = log.prove(5), log.verifier_key
    assert proof.convinces(key)
    assert not proof.convinces(SigningKey.generate().verifier_key(key.name))
    assert verify_inclusion(
        leaf_hash(proof.entry.text.encode()), 5, 8, proof.path, proof.checkpoint.root
    )
    with pytest.raises(NotStored, match="no entry 8"):
        log.prove(8)


def test_a_log_is_proven_to_extend_an_older_checkpoint(log: AuditLog) -> None:
    old = log.checkpoint()
    log.append("tick", None, {}, "worker-1")
    path, new = log.prove_extends(old)
    assert verify_consistency(old.size, new.size, old.root, new.root, path)
    with pytest.raises(AuditLogBroken, match="10 entries, the log has 9"):
        log.prove_extends(KEY.sign(new.origin, 10, new.root))


# What somebody can do who may write to the database but has no signing key: each tampering, and
# the entry that must be named.


def flip(database: Database) -> None:
    with database.writing() as session:
        row = session.get_one(AuditEntryRow, 3)
        row.entry = row.entry.replace('"number":3', '"number":4')


def flip_bytes(database: Database) -> None:
    with database.writing() as session:
        row = session.get_one(AuditEntryRow, 3)
        row.entry = row.entry.replace('"number":3', '"number": 3')


def flip_and_rehash(database: Database) -> None:
    """Change an entry and make the head fit the changed tree, with the old signature."""
    flip(database)
    set_head(database, 8)


def flip_signature(database: Database) -> None:
    with database.writing() as session:
        row = session.get_one(AuditEntryRow, 3)
        row.signature = bytes([row.signature[0] ^ 1]) + row.signature[1:]


def delete_one(database: Database) -> None:
    with database.writing() as session:
        session.execute(delete(AuditEntryRow).where(AuditEntryRow.sequence == 3))


def delete_and_close_the_gap(database: Database) -> None:
    delete_one(database)
    with database.writing() as session:
        for sequence in range(4, 8):
            row = AuditEntryRow.sequence
            moved = update(AuditEntryRow).where(row == sequence).values(sequence=sequence - 1)
            session.execute(moved)


def reorder(database: Database) -> None:
    with database.writing() as session:
        one, two = session.get_one(AuditEntryRow, 3), session.get_one(AuditEntryRow, 4)
        one.entry, two.entry = two.entry, one.entry
        one.signature, two.signature = two.signature, one.signature
        one.subject, two.subject = two.subject, one.subject


def reorder_and_renumber(database: Database) -> None:
    with database.writing() as session:
        one, two = session.get_one(AuditEntryRow, 3), session.get_one(AuditEntryRow, 4)
        first = one.entry.replace('"sequence":3', '"sequence":4')
        one.entry = two.entry.replace('"sequence":4', '"sequence":3')
        two.entry = first
        one.subject, two.subject = two.subject, one.subject


def truncate(database: Database) -> None:
    with database.writing() as session:
        session.execute(delete(AuditEntryRow).where(AuditEntryRow.sequence >= 3))


def insert_one(database: Database) -> None:
    with database.writing() as session:
        last = session.get_one(AuditEntryRow, 7)
        entry = last.entry.replace('"sequence":7', '"sequence":8')
        session.add(
            AuditEntryRow(
                sequence=8,
                tenant_id=TENANT,
                subject=last.subject,
                entry=entry,
                signature=last.signature,
            )
        )


def change_a_column(database: Database) -> None:
    with database.writing() as session:
        session.get_one(AuditEntryRow, 3).tenant_id = "other"


TAMPERINGS: list[tuple[Callable[[Database], None], int, str]] = [
    (flip, 3, "Entry 3 was changed"),
    (flip_bytes, 3, "Entry 3 was changed: it is not canonical"),
    (flip_and_rehash, 3, "Entry 3 was changed"),
    (flip_signature, 3, "Entry 3 was changed"),
    (delete_one, 3, "Entry 3 is missing; entry 4"),
    (delete_and_close_the_gap, 3, "Entry 3 was replaced by entry 4"),
    (reorder, 3, "Entry 3 was replaced by entry 4"),
    (reorder_and_renumber, 3, "Entry 3 was changed"),
    (truncate, 3, "Entries 3-7 are missing"),
    (insert_one, 8, "Entry 8 was changed"),
    (change_a_column, 3, "The column tenant of entry 3"),
]


@pytest.mark.parametrize(("tamper", "first_bad", "said"), TAMPERINGS)
def test_tampering_is_found_and_the_first_bad_entry_named(
    database: Database,
    log: AuditLog,
    tamper: Callable[[Database], None],
    first_bad: int,
    said: str,
) -> None:
    assert log.verify().is_intact
    tamper(database)
    found = log.verify()
    assert (found.is_intact, found.first_bad) == (False, first_bad)
    assert found.finding.startswith(said)
    assert found.checkpoint is None or found.checkpoint.size <= first_bad


@pytest.mark.parametrize("tamper", [flip, delete_one, reorder, truncate])
def test_tampering_is_found_in_an_export_too(
    sqlite_log: AuditLog,
    sqlite_database: Database,
    tmp_path: Path,
    tamper: Callable[[Database], None],
) -> None:
    key = sqlite_log.verifier_key
    tamper(sqlite_database)
    found = verify_export(exported(sqlite_database, tmp_path), key)
    assert found.first_bad == 3


def test_a_damaged_head_is_never_signed_again(database: Database, log: AuditLog) -> None:
    flip_and_rehash(database)
    with pytest.raises(AuditLogBroken, match="head of the audit log"):
        log.append("tick", None, {}, "worker-1")
    with pytest.raises(AuditLogBroken, match="head of the audit log"):
        log.checkpoint()
    with database.writing() as session:
        session.execute(update(AuditHeadRow).values(peaks=b"too short"))
    with pytest.raises(AuditLogBroken, match="head of the audit log"):
        log.append("tick", None, {}, "worker-1")
    assert log.verify().first_bad == 3


def test_a_lost_head_does_not_begin_a_second_log(database: Database, log: AuditLog) -> None:
    with database.writing() as session:
        session.execute(delete(AuditHeadRow))
    with pytest.raises(AuditLogBroken, match="head of the audit log is gone"):
        log.append("tick", None, {}, "worker-1")
    assert log.verify().first_bad == 0


def test_a_log_cut_back_to_an_older_signed_state_is_caught_by_a_kept_checkpoint(
    database: Database, log: AuditLog
) -> None:
    kept = log.checkpoint()
    truncate(database)
    with database.reading() as session:
        signature = session.scalars(select(AuditEntryRow.signature)).all()[-1]
    set_head(database, 3, signature)
    assert log.verify().is_intact  # nothing inside the database can tell
    found = log.verify([kept])
    assert found.first_bad == 3 and "Entries 3-7 are missing" in found.finding


def test_a_log_rebuilt_with_the_stolen_key_is_caught_by_a_kept_checkpoint(
    database: Database, log: AuditLog
) -> None:
    early, late = KEY.sign(log.checkpoint().origin, 2, root_at(database, 2)), log.checkpoint()
    rebuild(database, log.checkpoint().origin, KEY)
    assert log.verify().is_intact  # every signature is right
    found = log.verify([late, early])
    assert found.first_bad == 2
    assert "written anew" in found.finding and "entries 2-7" in found.finding
    assert log.verify([early]).is_intact


def test_a_log_rebuilt_with_another_key_is_caught_by_a_kept_checkpoint_or_the_public_key(
    database: Database, log: AuditLog
) -> None:
    kept, other = log.checkpoint(), SigningKey.generate()
    rebuild(database, kept.origin, other)
    assert verify_database(database).is_intact  # with the key it names itself
    assert verify_database(database, KEY.public_bytes).first_bad == 0
    found = verify_database(database, kept=[kept])
    assert found.first_bad == 0 and "another key" in found.finding


def test_two_kept_checkpoints_that_contradict_each_other_are_found(
    database: Database, log: AuditLog
) -> None:
    kept = log.checkpoint()
    other = KEY.sign(kept.origin, 8, leaf_hash(b"another past"))
    assert log.verify([kept]).is_intact
    assert not log.verify([kept, other]).is_intact
    assert not log.verify([other, kept]).is_intact


def set_head(database: Database, size: int, signature: bytes | None = None) -> None:
    """Make the head fit the first `size` entries as they are."""
    with database.writing() as session:
        entries = session.scalars(select(AuditEntryRow.entry).order_by(AuditEntryRow.sequence))
        frontier = Frontier()
        for entry in list(entries)[:size]:
            frontier = frontier.append(leaf_hash(entry.encode()))
        head = session.get_one(AuditHeadRow, 1)
        head.size, head.peaks = frontier.size, frontier.to_bytes()
        head.signature = signature or head.signature


def root_at(database: Database, size: int) -> bytes:
    with database.reading() as session:
        entries = session.scalars(select(AuditEntryRow.entry).order_by(AuditEntryRow.sequence))
        return root_of([leaf_hash(entry.encode()) for entry in entries][:size])


def rebuild(database: Database, origin: str, key: SigningKey) -> None:
    """Change entry 3 and sign everything anew, as the owner of the key can."""
    flip(database)
    with database.writing() as session:
        frontier = Frontier()
        for row in session.scalars(select(AuditEntryRow).order_by(AuditEntryRow.sequence)):
            frontier = frontier.append(leaf_hash(row.entry.encode()))
            row.signature = key.sign(origin, frontier.size, frontier.root).signature
        head = session.get_one(AuditHeadRow, 1)
        head.public_key, head.peaks = key.public_bytes, frontier.to_bytes()
        head.signature = row.signature


@pytest.fixture
def sqlite_database(sqlite_url: str) -> object:
    with open_database(sqlite_url) as opened:
        yield opened


@pytest.fixture
def sqlite_log(sqlite_database: Database) -> AuditLog:
    """As `log`, for what the kind of database does not matter to."""
    log = log_of(sqlite_database)
    write_eight(log)
    return log


def exported(database: Database, tmp_path: Path) -> Path:
    path = tmp_path / "audit.jsonl"
    with path.open("w", encoding="utf-8", newline="\n") as file:
        export_log(database, file)
    return path


def test_an_export_is_checked_without_the_database(
    database: Database, log: AuditLog, tmp_path: Path
) -> None:
    path, kept = exported(database, tmp_path), log.checkpoint()
    database.close()
    for found in (verify_export(path), verify_export(path, log_key(path), [kept])):
        assert found.is_intact and found.size == 8 and found.checkpoint == kept
    assert verify_export(path, SigningKey.generate().verifier_key(kept.origin)).first_bad == 0


def test_every_line_of_an_export_is_canonical_json(
    sqlite_log: AuditLog, sqlite_database: Database, tmp_path: Path
) -> None:
    lines = exported(sqlite_database, tmp_path).read_text().splitlines()
    assert len(lines) == 1 + 8 + 1
    assert all(canonical(json.loads(line)).decode() == line for line in lines)


def log_key(path: Path) -> VerifierKey:
    return VerifierKey.parse(json.loads(path.read_text().splitlines()[0])["key"])


@pytest.fixture(scope="module")
def export_bytes(migrated_sqlite: Path, tmp_path_factory: pytest.TempPathFactory) -> bytes:
    folder = tmp_path_factory.mktemp("export")
    (folder / "imagine.db").write_bytes(migrated_sqlite.read_bytes())
    with open_database(f"sqlite:///{folder / 'imagine.db'}") as database:
        write_eight(log_of(database))
        return exported(database, folder).read_bytes()


@given(data=some.data())
@settings(suppress_health_check=[HealthCheck.function_scoped_fixture], deadline=None)
def test_a_changed_byte_anywhere_in_an_export_is_noticed(
    export_bytes: bytes, tmp_path: Path, data: some.DataObject
) -> None:
    place = data.draw(some.integers(0, len(export_bytes) - 1))
    byte = data.draw(some.integers(0, 255).filter(lambda other: other != export_bytes[place]))
    path = tmp_path / "audit.jsonl"
    path.write_bytes(export_bytes[:place] + bytes([byte]) + export_bytes[place + 1 :])
    line = export_bytes[:place].count(b"\n")
    try:
        found = verify_export(path)
    except ImagineError:
        assert line in (0, 9)  # the lines that are not entries
        return
    assert found.first_bad is not None
    assert line in (0, 9) or found.first_bad == line - 1


def test_an_export_cut_off_anywhere_is_noticed(export_bytes: bytes, tmp_path: Path) -> None:
    path, lines = tmp_path / "audit.jsonl", export_bytes.split(b"\n")
    ends = [place for place, byte in enumerate(export_bytes[:-1]) if byte == ord("\n")]
    around_ends = {place + offset for place in ends for offset in (-1, 0, 1, 2)}
    for place in sorted(around_ends | set(range(0, len(export_bytes) - 1, 97))):
        cut = export_bytes[:place]
        path.write_bytes(cut)
        whole = sum(left == line for left, line in zip(cut.split(b"\n"), lines, strict=False))
        try:
            assert verify_export(path).first_bad == whole - 1
        except UnreadableAuditLog:
            assert whole == 0  # not even the first line is there


@pytest.mark.parametrize(
    ("content", "said"),
    [
        (b"", "is not an exported audit log"),
        (b"\x89PNG\r\n\x1a\n\x00\xff", "is not an exported audit log"),
        (b'{"format":"another","key":"x"}\n', "is not an exported audit log"),
    ],
)
def test_a_file_that_is_no_export_is_refused(tmp_path: Path, content: bytes, said: str) -> None:
    path = tmp_path / "file"
    path.write_bytes(content)
    with pytest.raises(UnreadableAuditLog, match=said):
        verify_export(path)


def test_a_missing_export_is_named(tmp_path: Path) -> None:
    with pytest.raises(UnreadableAuditLog, match=r"nowhere.jsonl.*No such file"):
        verify_export(tmp_path / "nowhere.jsonl")


def test_something_behind_the_checkpoint_is_noticed(export_bytes: bytes, tmp_path: Path) -> None:
    path = tmp_path / "audit.jsonl"
    path.write_bytes(export_bytes + b"more\n")
    with pytest.raises(UnreadableAuditLog, match="behind the checkpoint"):
        verify_export(path)


def test_an_export_repeats_a_damaged_entry_as_it_is(
    sqlite_log: AuditLog, sqlite_database: Database, tmp_path: Path
) -> None:
    with sqlite_database.writing() as session:
        session.execute(text("UPDATE audit_entries SET entry = 'gone' WHERE sequence = 3"))
    assert verify_export(exported(sqlite_database, tmp_path)).first_bad == 3


def test_checkpoints_of_a_growing_log_are_those_of_its_tree(log: AuditLog) -> None:
    first: Checkpoint = log.checkpoint()
    entry = log.append("tick", None, {}, "worker-1")
    second = log.checkpoint()
    assert (first.size, second.size, entry.sequence) == (8, 9, 8)
    assert base64.b64encode(second.root).decode() in str(second)
    assert log.checkpoint() == second
