import json
import logging
import shutil
import tempfile
from collections.abc import Callable, Iterator
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
from cryptography.hazmat.primitives.asymmetric.ed25519 import Ed25519PrivateKey
from sqlalchemy import select, text

from imagine.errors import (
    CertificateInvalid,
    ConsentMissing,
    DataKeyDestroyed,
    InvalidInput,
    NotStored,
)
from imagine.storage.audit_log import AuditLog
from imagine.storage.blobs import open_blobs
from imagine.storage.checkpoints import SigningKey
from imagine.storage.consent import TICKS, Purpose
from imagine.storage.database import Base, Database, new_id, open_database
from imagine.storage.erasure import Eraser, Outputs, verify_certificate
from imagine.storage.events import recorder
from imagine.storage.jobs import JobStore, NewJob
from imagine.storage.tables import ErasureRow
from tests.storage.house import JPEG, PNG, TENANT, House, form, make_face, make_recipe

OWN = Purpose.OWN_ACCESS
CANARIES = (b"canary-photo", b"canary-name", b"canary-prompt", b"canary-file", b"canary-image")


def _add_canaries(house: House) -> tuple[str, str, bytes]:
    """Somebody with a canary in every place; returns ids of person and identity, and the bytes
    of the embedding."""
    person_id = house.people.add_person(TENANT, "canary-name of a person")
    identity_id = house.people.add_identity(TENANT, person_id, "canary-name of a face").id
    house.consents.give(TENANT, identity_id, form(*TICKS))
    house.people.add_photo(TENANT, identity_id, JPEG + b"canary-photo" * 500, "image/jpeg")
    face = make_face(photo_name="canary-file.jpg")
    house.people.enrol(TENANT, identity_id, face, "mini-1", "CC0-1.0")
    house.add_image(person_id, identity_id, PNG + b"canary-image", "canary-prompt")
    return person_id, identity_id, np.ascontiguousarray(face.embedding).tobytes()[:64]


def _files_with(canary: bytes, folder: Path) -> list[str]:
    return [str(f) for f in folder.rglob("*") if f.is_file() and canary in f.read_bytes()]


def _everything_in(database: Database) -> str:
    with database.reading() as session:
        return "\n".join(
            repr(tuple(row))
            for table in Base.metadata.sorted_tables
            for row in session.execute(select(table))
        )


@pytest.fixture
def local_house(database: Database, tmp_path: Path) -> House:
    """A house whose blobs and keys are folders."""
    data = tmp_path / "data"
    return House(database, open_blobs(str(data / "blobs")), open_blobs(str(tmp_path / "keys")))


@pytest.fixture
def temporary(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """A folder that stands in for the system's temporary one."""
    folder = tmp_path / "temporary"
    folder.mkdir()
    for variable in ("TMPDIR", "TEMP", "TMP", "SQLITE_TMPDIR"):
        monkeypatch.setenv(variable, str(folder))
    monkeypatch.setattr(tempfile, "tempdir", str(folder))
    return folder


def test_no_canary_is_ever_in_clear_and_none_survives_an_erasure(
    local_house: House,
    temporary: Path,
    tmp_path: Path,
    caplog: pytest.LogCaptureFixture,
    request: pytest.FixtureRequest,
) -> None:
    house = local_house
    folders = [tmp_path]
    if not house.database.is_sqlite:
        folders.append(request.getfixturevalue("postgres").socket_folder / "data")
    with caplog.at_level(logging.DEBUG):
        logging.getLogger("sqlalchemy").setLevel(logging.DEBUG)
        person_id, identity_id, embedding = _add_canaries(house)
        planted = (*CANARIES, embedding)
        face = house.people.read_identity(TENANT, identity_id, purpose=Purpose.GENERATE)
        assert embedding in face.embedding.tobytes()  # the canaries are really there
        [image] = house.people.images(TENANT)
        assert b"canary-image" in house.people.read_image(TENANT, image.id, purpose=OWN)
        house.database.scrub()  # also what was only in memory reaches the files
        assert [f for folder in folders for c in planted for f in _files_with(c, folder)] == []
        certificate = house.eraser.erase_person(TENANT, person_id)
        logging.getLogger("sqlalchemy").setLevel(logging.NOTSET)

    house.database.close()  # SQLite keeps its log while somebody is connected
    ids = (person_id.encode(), identity_id.encode())
    assert [f for folder in folders for c in planted for f in _files_with(c, folder)] == []
    for one in ids:  # even the ids are only in the key store's tombstones and the certificate
        assert all("/keys/destroyed/" in f or "imagine.db" in f for f in _files_with(one, tmp_path))
    assert list(temporary.iterdir()) == []
    assert "BEGIN" in caplog.text or "SELECT" in caplog.text  # the log was really captured
    for word in (canary.decode() for canary in CANARIES):
        assert word not in caplog.text
        assert word not in certificate
        assert word not in repr(house.events.told)
        assert word not in _everything_in(house.database)
    assert list(house.blobs.names()) == list(house.key_store.names("keys")) == []


def test_the_write_ahead_log_keeps_nothing_of_the_rows(sqlite_url: str, tmp_path: Path) -> None:
    with open_database(sqlite_url) as database:
        house = House(database)
        person_id, _, _ = _add_canaries(house)
        sealed = _sealed_name(database)
        assert _files_with(sealed, tmp_path) != []
        house.eraser.erase_person(TENANT, person_id)
        assert _files_with(sealed, tmp_path) == []  # while the database is still open


def _sealed_name(database: Database) -> bytes:
    with database.reading() as session:
        return bytes(session.execute(text("SELECT sealed_name FROM people")).scalar_one())


def test_a_backup_of_last_week_opens_nothing_after_an_erasure(
    sqlite_url: str, tmp_path: Path
) -> None:
    data, backup = tmp_path / "data", tmp_path / "backup"
    key_store = open_blobs(str(tmp_path / "keys"))
    with open_database(sqlite_url) as database:
        house = House(database, open_blobs(str(data / "blobs")), key_store)
        _, identity_id, _ = _add_canaries(house)
        [image] = house.people.images(TENANT)
        database.scrub()
        shutil.copytree(data, backup)
        house.eraser.erase_identity(TENANT, identity_id)
    with open_database(f"sqlite:///{backup / 'imagine.db'}") as database:
        restored = House(database, open_blobs(str(backup / "blobs")), key_store)
        restored.keys._masters = house.keys._masters
        with pytest.raises(DataKeyDestroyed):
            restored.people.read_identity(TENANT, identity_id, purpose=Purpose.GENERATE)
        with pytest.raises(DataKeyDestroyed):
            restored.people.read_image(TENANT, image.id, purpose=OWN)


def test_the_key_is_destroyed_before_anything_is_unlinked(house: House) -> None:
    _, identity_id = house.add_active()
    order: list[str] = []
    _note(house.keys, "destroy", order)
    _note(house.vault, "delete_all", order)
    _note(house.eraser, "_delete_rows", order)
    _note(house.eraser, "_cancel_jobs", order)
    house.eraser.erase_identity(TENANT, identity_id)
    assert order == ["_cancel_jobs", "destroy", "delete_all", "_delete_rows"]


def _note(thing: object, name: str, order: list[str]) -> None:
    original = getattr(thing, name)

    def noted(*arguments: object) -> object:
        order.append(name)
        return original(*arguments)

    setattr(thing, name, noted)


def test_the_certificate_tells_what_is_gone_and_verifies(house: House) -> None:
    person_id, identity_id = house.add_active(Purpose.GENERATE, Purpose.KEEP_PHOTOS)
    house.add_image(person_id, identity_id)
    begun = house.clock.now
    text = house.eraser.erase_identity(TENANT, identity_id)
    certificate = verify_certificate(text, house.signing_key.public_key())
    assert certificate.counts == {
        "photos": 2,
        "images": 1,
        "consents": 1,
        "identities": 1,
        "people": 0,
        "files": 4,
        "jobs": 2,
    }
    assert (certificate.subject_kind, certificate.subject_id) == ("identity", identity_id)
    assert certificate.requested_at == certificate.key_destroyed_at == begun
    assert house.eraser.certificate(TENANT, identity_id) == text
    assert house.jobs.cancelled == house.jobs.forgotten == [(TENANT, identity_id)]


def test_erasing_again_gives_the_same_certificate(house: House) -> None:
    _, identity_id = house.add_active()
    first = house.eraser.erase_identity(TENANT, identity_id)
    house.clock.pass_(days=1)
    assert house.eraser.erase_identity(TENANT, identity_id, Outputs.KEEP) == first
    assert house.eraser.resume() == 0


CHANGES: dict[str, Callable[[str], str]] = {
    "a count": lambda text: text.replace('"photos":0', '"photos":9'),
    "the subject": lambda text: text.replace("identity_", "identity-"),
    "another signature": lambda text: text.replace('"signature":"', '"signature":"AAAA'),
    "no signature": lambda text: json.dumps({"certificate": json.loads(text)["certificate"]}),
    "no json": lambda text: text[:-3],
    "another thing": lambda text: "[1, 2]",
    "deep": lambda text: "[" * 100_000,
    "huge number": lambda text: text.replace('"photos":0', '"photos":' + "9" * 30),
    "not a number": lambda text: text.replace('"photos":0', '"photos":NaN'),
}


@pytest.mark.parametrize("change", CHANGES)
def test_a_changed_certificate_is_refused(house: House, change: str) -> None:
    _, identity_id = house.add_active()
    text = house.eraser.erase_identity(TENANT, identity_id)
    changed = CHANGES[change](text)
    assert changed != text
    with pytest.raises(CertificateInvalid):
        verify_certificate(changed, house.signing_key.public_key())


def test_a_certificate_of_another_service_is_refused(house: House) -> None:
    _, identity_id = house.add_active()
    text = house.eraser.erase_identity(TENANT, identity_id)
    with pytest.raises(CertificateInvalid, match="another key"):
        verify_certificate(text, Ed25519PrivateKey.generate().public_key())


def test_nothing_of_the_identity_can_be_reached_afterwards(house: House) -> None:
    person_id, identity_id = house.add_active(Purpose.GENERATE, Purpose.KEEP_PHOTOS)
    image_id = house.add_image(person_id, identity_id)
    house.eraser.erase_identity(TENANT, identity_id)
    for attempt in (
        lambda: house.people.read_identity(TENANT, identity_id, purpose=OWN),
        lambda: house.people.read_image(TENANT, image_id, purpose=OWN),
        lambda: house.consents.give(TENANT, identity_id, form()),
        lambda: house.consents.history(TENANT, identity_id),
        lambda: house.add_image(person_id, identity_id),
    ):
        with pytest.raises(NotStored):
            attempt()
    assert house.people.identities(TENANT) == []
    assert house.people.read_person_name(TENANT, person_id) == "Ada Canary"


def test_others_are_not_touched(house: House) -> None:
    person_id, identity_id = house.add_active()
    _, second = house.add_active(person_id=person_id)
    other_person, other = house.add_active(Purpose.GENERATE, Purpose.KEEP_PHOTOS)
    image_id = house.add_image(other_person, other)
    house.eraser.erase_identity(TENANT, identity_id)
    for kept in (second, other):
        assert house.people.read_identity(TENANT, kept, purpose=Purpose.GENERATE)
    assert house.people.read_image(TENANT, image_id, purpose=OWN) == PNG
    assert len(house.people.photos(TENANT, other)) == 2


def test_pictures_that_are_kept_outlive_the_face(house: House) -> None:
    person_id, identity_id = house.add_active()
    image_id = house.add_image(person_id, identity_id, prompt="by the sea")
    text = house.eraser.erase_identity(TENANT, identity_id, Outputs.KEEP)
    counts = verify_certificate(text, house.signing_key.public_key()).counts
    assert (counts["images_kept"], counts["images"]) == (1, 0)
    assert house.people.read_image(TENANT, image_id, purpose=OWN) == PNG
    assert house.people.read_recipe(TENANT, image_id, purpose=OWN) == make_recipe("by the sea")
    assert house.people.images(TENANT)[0].identity_id is None
    house.eraser.erase_person(TENANT, person_id)
    assert list(house.blobs.names()) == []


def test_erasing_a_person_reaches_everything(house: House) -> None:
    person_id, first = house.add_active()
    _, second = house.add_active(person_id=person_id)
    house.add_image(person_id, first)
    house.add_image(person_id, None)
    text = house.eraser.erase_person(TENANT, person_id)
    assert verify_certificate(text, house.signing_key.public_key()).subject_id == person_id
    assert list(house.blobs.names()) == list(house.key_store.names("keys")) == []
    assert house.people.identities(TENANT) == house.people.images(TENANT) == []
    assert set(house.jobs.forgotten) == {(TENANT, one) for one in (first, second, person_id)}
    with pytest.raises(NotStored):
        house.people.add_identity(TENANT, person_id)
    assert house.eraser.erase_person(TENANT, person_id) == text


def test_files_without_a_row_are_erased_too(house: House) -> None:
    _, identity_id = house.add_active()
    house.blobs.put(f"{TENANT}/{identity_id}/photos/orphan", b"left by a crash")
    house.eraser.erase_identity(TENANT, identity_id)
    assert list(house.blobs.names()) == []


def test_a_tenant_cannot_erase_what_is_not_its_own(house: House) -> None:
    house.people.add_tenant("rival", "Rival")
    person_id, identity_id = house.add_active()
    with pytest.raises(NotStored):
        house.eraser.erase_identity("rival", identity_id)
    with pytest.raises(NotStored):
        house.eraser.erase_person("rival", person_id)
    with pytest.raises(NotStored):
        house.eraser.certificate("rival", identity_id)
    assert house.people.read_identity(TENANT, identity_id, purpose=Purpose.GENERATE)


class PowerCutError(Exception):
    """Ends a test's process, as it were."""


# every step of an erasure, as (holder, method)
STEPS = [
    ("eraser", "_cancel_jobs"),
    ("people", "keep_images_without_identity"),
    ("vault", "count"),
    ("keys", "destroy"),
    ("jobs", "forget"),
    ("eraser", "_add_count"),
    ("vault", "delete_all"),
    ("eraser", "_delete_rows"),
    ("database", "scrub"),
    ("events", "__call__"),
    ("eraser", "_signed_off"),
]


@pytest.mark.parametrize("when", ["before", "after"])
@pytest.mark.parametrize(("holder", "method"), STEPS, ids=[f"{h}.{m}" for h, m in STEPS])
def test_an_erasure_cut_off_at_any_step_is_finished_later(
    sqlite_url: str, holder: str, method: str, when: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    with open_database(sqlite_url) as database:
        forget = {"jobs": lambda tenant, subject: house.jobs.forget(tenant, subject)}
        house = House(database, forget=forget)
        person_id, identity_id = house.add_active(Purpose.GENERATE, Purpose.KEEP_PHOTOS)
        image_id = house.add_image(person_id, identity_id)
        victim = type(getattr(house, holder))
        original = getattr(victim, method, None) or getattr(house.eraser, method)
        cuts = iter([True])

        def cut(*arguments: object, **named: object) -> object:
            is_cut = next(cuts, False)
            if is_cut and when == "before":
                raise PowerCutError
            result = original(*arguments, **named)
            if is_cut:
                raise PowerCutError
            return result

        if method == "_cancel_jobs":  # a function it was handed, not a method
            monkeypatch.setattr(house.eraser, method, cut)
        else:
            monkeypatch.setattr(victim, method, cut)
        with pytest.raises(PowerCutError):
            house.eraser.erase_identity(TENANT, identity_id, Outputs.KEEP)
        with pytest.raises(NotStored):  # nothing may be read in the meantime
            house.people.read_identity(TENANT, identity_id, purpose=OWN)
        finished = house.eraser.resume()
        assert finished == (0 if (method, when) == ("_signed_off", "after") else 1)
        text = house.eraser.erase_identity(TENANT, identity_id)
        counts = verify_certificate(text, house.signing_key.public_key()).counts
        assert (counts["photos"], counts["images"], counts["images_kept"]) == (2, 0, 1)
        assert house.people.read_image(TENANT, image_id, purpose=OWN) == PNG
        assert list(house.blobs.names(f"{TENANT}/{identity_id}")) == []
        assert house.keys.destroyed_at(TENANT, identity_id) is not None


def test_a_person_cut_off_between_two_identities_is_finished_later(
    house: House, monkeypatch: pytest.MonkeyPatch
) -> None:
    person_id, _ = house.add_active()
    house.add_active(person_id=person_id)
    calls = iter([False, True])
    original = Eraser._delete_rows

    def cut(eraser: Eraser, tenant_id: str, subject_id: str) -> None:
        if next(calls, False):
            raise PowerCutError
        original(eraser, tenant_id, subject_id)

    monkeypatch.setattr(Eraser, "_delete_rows", cut)
    with pytest.raises(PowerCutError):
        house.eraser.erase_person(TENANT, person_id)
    assert house.eraser.resume() == 2
    assert list(house.blobs.names()) == list(house.key_store.names("keys")) == []
    with house.database.reading() as session:
        assert all(row.certificate for row in session.scalars(select(ErasureRow)))


def test_what_forgets_must_have_a_name_the_log_takes(house: House) -> None:
    with pytest.raises(InvalidInput, match="cannot be counted"):
        House(house.database, forget={"The Cache": lambda tenant, subject: 0})


@pytest.fixture
def log(house: House) -> Iterator[AuditLog]:
    yield AuditLog(house.database, SigningKey.generate(), house.keys, house.clock)


def test_the_real_audit_log_keeps_the_erasure_and_forgets_the_person(
    house: House, log: AuditLog
) -> None:
    house.eraser._record_event = recorder(log)
    _, identity_id = house.add_active()
    house.eraser.erase_identity(TENANT, identity_id)
    with house.database.reading() as session:
        entries = list(session.scalars(text("SELECT entry FROM audit_entries ORDER BY sequence")))
    assert [json.loads(entry)["kind"] for entry in entries] == [
        "erasure.begun",
        "erasure.completed",
    ]
    assert not any(identity_id in entry for entry in entries)
    with pytest.raises(DataKeyDestroyed):
        log.entries_about(TENANT, identity_id)
    log.verify()


def test_waiting_jobs_are_cancelled_on_withdrawal_and_gone_after_the_erasure(
    database: Database, tmp_path: Path
) -> None:
    jobs = JobStore(database)
    house = House(database, forget={"jobs": jobs.forget_identity})
    house.consents._cancel_jobs = jobs.cancel_identity
    _, identity_id = house.add_active()
    new = NewJob(TENANT, "128px", b"", identity_id)
    sealed = house.vault.seal(TENANT, identity_id, new.id, b"canary-prompt of a job")
    jobs.submit(replace(new, sealed_payload=sealed))
    jobs.submit(replace(new, sealed_payload=sealed, id=new_id("job")))
    assert house.consents.withdraw(TENANT, identity_id) == 2
    with pytest.raises(ConsentMissing):
        house.consents.grant(TENANT, identity_id, Purpose.GENERATE)
    text = house.eraser.erase_identity(TENANT, identity_id)
    assert verify_certificate(text, house.signing_key.public_key()).counts["jobs"] == 2
    assert sum(jobs.counts().values()) == 0
    assert _files_with(b"canary-prompt", tmp_path) == _files_with(sealed, tmp_path) == []


def test_an_erasure_that_was_never_begun_cannot_be_finished(house: House) -> None:
    _, identity_id = house.add_active()
    with pytest.raises(NotStored, match="No erasure"):
        house.eraser.finish(TENANT, identity_id)
    assert house.people.read_identity(TENANT, identity_id, purpose=Purpose.GENERATE)
