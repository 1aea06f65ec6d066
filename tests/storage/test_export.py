import io
import json
import zipfile
from collections.abc import Callable, Iterator
from datetime import timedelta
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from safetensors.numpy import load as load_arrays
from safetensors.numpy import save as save_arrays

from imagine.errors import (
    ConsentMissing,
    EnrolmentRefused,
    InvalidInput,
    NotStored,
    StorageError,
    UnusableArchive,
)
from imagine.storage.consent import Purpose
from imagine.storage.database import open_database
from imagine.storage.export import ImportLimits, Porter
from imagine.storage.verified import Standing
from tests.storage.house import JPEG, PNG, TENANT, House, form, make_face, make_recipe

OWN = Purpose.OWN_ACCESS
Members = dict[str, bytes]


def _exported(house: House, person_id: str) -> bytes:
    file = io.BytesIO()
    house.porter.export_person(TENANT, person_id, file)
    return file.getvalue()


def _with_everything(house: House) -> str:
    person_id, identity_id = house.add_active(Purpose.GENERATE, Purpose.KEEP_PHOTOS)
    house.add_draft(person_id=person_id)
    house.add_image(person_id, identity_id)
    house.add_image(person_id, None, PNG + b"of nobody", "a hill")
    return person_id


def _members(archive: bytes) -> Members:
    with zipfile.ZipFile(io.BytesIO(archive)) as opened:
        return {name: opened.read(name) for name in opened.namelist()}


def _zipped(members: Members, compression: int = zipfile.ZIP_STORED) -> io.BytesIO:
    file = io.BytesIO()
    with zipfile.ZipFile(file, "w", compression) as archive:
        for name, data in members.items():
            archive.writestr(name, data)
    return file


@pytest.fixture
def elsewhere(tmp_path: Path, migrated_sqlite: Path) -> Iterator[House]:
    """Another installation with keys and consents of its own."""
    path = tmp_path / "elsewhere.db"
    path.write_bytes(migrated_sqlite.read_bytes())
    with open_database(f"sqlite:///{path}") as database:
        yield House(database)


def test_everything_about_a_person_is_in_the_zip(house: House) -> None:
    person_id = _with_everything(house)
    members = _members(_exported(house, person_id))
    index = json.loads(members["index.json"])
    enrolled, draft = index["identities"]
    assert index["person"] == {"id": person_id, "name": "Ada Canary"}
    assert enrolled["name"] == "holiday face"
    assert [members[photo["file"]] for photo in enrolled["photos"]] != []
    assert all(members[photo["file"]].startswith(JPEG) for photo in enrolled["photos"])
    arrays = load_arrays(members[enrolled["face"]["file"]])
    assert (arrays["crops"] == make_face().crops).all()
    assert (arrays["embedding"] == make_face().embedding).all()
    assert enrolled["consents"][0]["purposes"] == ["generate", "keep_photos"]
    assert draft["face"] is None
    assert sorted(image["recipe"]["prompt"] for image in index["images"]) == ["a hill", "at sea"]
    assert {members[image["file"]] for image in index["images"]} == {PNG, PNG + b"of nobody"}
    assert "person.exported" in house.events.kinds()


def test_what_the_audit_log_says_of_the_person_is_in_the_zip(house: House) -> None:
    person_id, identity_id = house.add_active()

    def entries(tenant_id: str, ids: Any) -> list[dict[str, object]]:
        assert (tenant_id, list(ids)) == (TENANT, [person_id, identity_id])
        return [{"kind": "identity.enrolled"}]

    house.porter = Porter(
        house.people,
        house.consents,
        house.events,
        entries,
        house.standings,
        house.signing_key,
        house.gate,
        house.eraser.erase_person,
        clock=house.clock,
    )
    index = json.loads(_members(_exported(house, person_id))["index.json"])
    assert index["log"] == [{"kind": "identity.enrolled"}]


def test_what_one_house_exports_another_imports(house: House, elsewhere: House) -> None:
    archive = io.BytesIO(_exported(house, _with_everything(house)))
    ticks = form(Purpose.GENERATE, Purpose.KEEP_PHOTOS)
    person_id = elsewhere.porter.import_person(TENANT, archive, ticks)
    people = elsewhere.people
    assert people.read_person_name(TENANT, person_id) == "Ada Canary"
    enrolled, draft = people.identities(TENANT, person_id)
    assert (enrolled.encoder, enrolled.model, enrolled.licence) == ("dlib", "mini-1", "CC0-1.0")
    assert draft.encoder is None
    face = people.read_identity(TENANT, enrolled.id, purpose=Purpose.GENERATE)
    assert (face.crops == make_face().crops).all()
    assert face.reports == make_face().reports
    assert len(people.photos(TENANT, enrolled.id)) == 2
    pictures = {
        people.read_image(TENANT, image.id, purpose=OWN): image
        for image in people.images(TENANT, person_id)
    }
    assert pictures[PNG].identity_id == enrolled.id
    assert pictures[PNG + b"of nobody"].identity_id is None
    recipe = people.read_recipe(TENANT, pictures[PNG].id, purpose=OWN)
    assert recipe == make_recipe()


def test_an_import_takes_no_id_and_no_consent_from_the_archive(
    house: House, elsewhere: House
) -> None:
    person_id = _with_everything(house)
    archive = io.BytesIO(_exported(house, person_id))
    imported = elsewhere.porter.import_person(TENANT, archive, form(Purpose.GENERATE))
    assert imported != person_id
    old_ids = {facts.id for facts in house.people.identities(TENANT)}
    for facts in elsewhere.people.identities(TENANT, imported):
        assert facts.id not in old_ids
        [consent] = elsewhere.consents.history(TENANT, facts.id)
        assert consent.purposes == {Purpose.GENERATE}
        # keeping photos was agreed to there, not here
        assert elsewhere.people.photos(TENANT, facts.id) == []


def test_an_import_without_a_complete_consent_stores_nothing(
    house: House, elsewhere: House
) -> None:
    archive = io.BytesIO(_exported(house, _with_everything(house)))
    with pytest.raises(InvalidInput, match="of age"):
        elsewhere.porter.import_person(TENANT, archive, form(declared_adult=False))
    _assert_empty(elsewhere)


def test_whoever_may_not_come_in_leaves_nothing_behind(house: House, elsewhere: House) -> None:
    archive = _exported(house, _with_everything(house))
    elsewhere.gate.refuses = EnrolmentRefused("Asked never to be shown.", code="do_not_generate")
    with pytest.raises(EnrolmentRefused):
        elsewhere.porter.import_person(TENANT, io.BytesIO(archive), form())
    _assert_empty(elsewhere)


def test_a_picture_that_does_not_say_a_machine_made_it_is_refused(
    house: House, elsewhere: House
) -> None:
    archive = _exported(house, _with_everything(house))
    elsewhere.gate.unmarked = PNG
    with pytest.raises(UnusableArchive, match="machine made it"):
        elsewhere.porter.import_person(TENANT, io.BytesIO(archive), form())
    _assert_empty(elsewhere)


def test_an_import_that_breaks_half_way_is_erased(
    house: House, elsewhere: House, monkeypatch: pytest.MonkeyPatch
) -> None:
    archive = _exported(house, _with_everything(house))

    def full(*anything: object, **more: object) -> str:
        raise StorageError("The disk is full.")

    monkeypatch.setattr(elsewhere.people, "add_image", full)
    with pytest.raises(StorageError, match="full"):
        elsewhere.porter.import_person(TENANT, io.BytesIO(archive), form())
    assert elsewhere.people.identities(TENANT) == []
    assert not list(elsewhere.blobs.names(""))


def test_a_face_that_looks_young_here_waits_for_a_reviewer_here(
    house: House, elsewhere: House
) -> None:
    person_id, identity_id = house.add_active()
    archive = _exported(house, person_id)
    elsewhere.gate.needs_review = True
    assert standing_after(elsewhere, elsewhere.porter, archive).waits_for_review
    house.standings.hold(TENANT, identity_id)
    house.standings.clear(TENANT, identity_id)
    cleared = _exported(house, person_id)
    assert not standing_after(elsewhere, trusting(elsewhere, house), cleared).waits_for_review


def test_an_import_needs_a_tenant(house: House, elsewhere: House) -> None:
    archive = io.BytesIO(_exported(house, _with_everything(house)))
    with pytest.raises(NotStored):
        elsewhere.porter.import_person("nobody", archive, form())


def test_a_date_of_expiry_travels_while_it_lies_ahead(house: House, elsewhere: House) -> None:
    person_id = house.people.add_person(TENANT)
    end = house.clock.now + timedelta(days=3)
    house.people.add_identity(TENANT, person_id, expires_at=end)
    archive = _exported(house, person_id)
    elsewhere.porter.import_person(TENANT, io.BytesIO(archive), form())
    assert elsewhere.people.identities(TENANT)[-1].expires_at == end
    elsewhere.clock.pass_(days=4)
    elsewhere.porter.import_person(TENANT, io.BytesIO(archive), form())
    assert elsewhere.people.identities(TENANT)[-1].expires_at is None


def trusting(elsewhere: House, house: House) -> Porter:
    """The porter of another installation that takes the word of this one."""
    return Porter(
        elsewhere.people,
        elsewhere.consents,
        elsewhere.events,
        lambda tenant, ids: [],
        elsewhere.standings,
        elsewhere.signing_key,
        elsewhere.gate,
        elsewhere.eraser.erase_person,
        [house.signing_key.public_key()],
        elsewhere.clock,
    )


def standing_after(house: House, porter: Porter, archive: bytes) -> Standing:
    """How the one identity of an archive stands where it was taken in."""
    person_id = porter.import_person(TENANT, io.BytesIO(archive), form())
    [facts] = house.people.identities(TENANT, person_id)
    return house.standings.of(TENANT, facts.id)


def test_a_passed_camera_check_travels_to_who_trusts_us(house: House, elsewhere: House) -> None:
    person_id, identity_id = house.add_active()
    here = house.standings.verify(TENANT, identity_id)
    archive = _exported(house, person_id)
    assert here.is_verified
    assert standing_after(elsewhere, trusting(elsewhere, house), archive) == here
    assert standing_after(house, house.porter, archive) == here  # back where it came from


def test_the_word_of_a_stranger_verifies_nobody(house: House, elsewhere: House) -> None:
    person_id, identity_id = house.add_active()
    house.standings.verify(TENANT, identity_id)
    archive = _exported(house, person_id)
    assert standing_after(elsewhere, elsewhere.porter, archive) == Standing()
    kind, _, details = elsewhere.events.told[-1]
    assert (kind, details["standings_not_believed"]) == ("person.imported", 1)


@pytest.mark.parametrize("change", ["claim", "another face"])
def test_a_changed_archive_verifies_nobody(house: House, elsewhere: House, change: str) -> None:
    person_id, identity_id = house.add_active()
    if change == "another face":
        house.standings.verify(TENANT, identity_id)
    members = _members(_exported(house, person_id))
    index = json.loads(members["index.json"])
    [identity] = index["identities"]
    if change == "another face":
        face = make_face(seed=1)
        arrays = {"crops": face.crops, "embeddings": face.embeddings, "embedding": face.embedding}
        members[identity["face"]["file"]] = save_arrays(arrays)
    else:
        identity["standing"]["verified_at"] = house.clock.now.isoformat()
    members["index.json"] = json.dumps(index).encode()
    changed = _zipped(members).getvalue()
    assert standing_after(elsewhere, trusting(elsewhere, house), changed) == Standing()


def test_whoever_waits_for_a_reviewer_waits_elsewhere_too(house: House, elsewhere: House) -> None:
    person_id, identity_id = house.add_active()
    house.standings.hold(TENANT, identity_id)
    held = _exported(house, person_id)
    house.standings.clear(TENANT, identity_id)
    cleared = _exported(house, person_id)
    for archive in (held, cleared):  # who cleared them is a stranger there
        assert standing_after(elsewhere, elsewhere.porter, archive).waits_for_review
    assert not standing_after(elsewhere, trusting(elsewhere, house), cleared).waits_for_review


def test_an_archive_of_before_there_were_standings_is_taken(house: House, elsewhere: House) -> None:
    person_id, _ = house.add_active()
    members = _members(_exported(house, person_id))
    index = json.loads(members["index.json"])
    del index["identities"][0]["standing"]
    members["index.json"] = json.dumps(index).encode()
    old = _zipped(members).getvalue()
    assert standing_after(elsewhere, elsewhere.porter, old) == Standing()


def test_nobody_exports_a_person_of_another_tenant(house: House) -> None:
    house.people.add_tenant("rival", "Rival")
    person_id, _ = house.add_active()
    with pytest.raises(NotStored):
        house.porter.export_person("rival", person_id, io.BytesIO())


def test_a_person_who_withdrew_can_still_take_everything_along(house: House) -> None:
    person_id, identity_id = house.add_active()
    house.consents.withdraw(TENANT, identity_id)
    assert "index.json" in _members(_exported(house, person_id))
    with pytest.raises(ConsentMissing):
        house.consents.grant(TENANT, identity_id, Purpose.GENERATE)


def _edit_index(change: Callable[[dict[str, Any]], object]) -> Callable[[Members], None]:
    def edit(members: Members) -> None:
        index = json.loads(members["index.json"])
        change(index)
        members["index.json"] = json.dumps(index).encode()

    return edit


def _face_with(**arrays: Any) -> Callable[[Members], None]:
    def edit(members: Members) -> None:
        [name] = [name for name in members if name.startswith("faces/")]
        members[name] = save_arrays(load_arrays(members[name]) | arrays)

    return edit


def _outside(index: dict[str, Any]) -> None:
    index["images"][0]["file"] = "../../../etc/passwd"


def _photo_as(data: bytes) -> Callable[[Members], None]:
    def edit(members: Members) -> None:
        name = next(name for name in members if name.startswith("photos/"))
        members[name] = data

    return edit


HARM: dict[str, Callable[[Members], object]] = {
    "no index": lambda members: members.pop("index.json"),
    "index is no json": lambda members: members.update({"index.json": b"{"}),
    "index is a list": lambda members: members.update({"index.json": b"[]"}),
    "index too deep": lambda members: members.update({"index.json": b"[" * 200_000}),
    "another format": _edit_index(lambda index: index.update(format="imagine export 99")),
    "a missing member": lambda members: members.pop(next(n for n in members if "photos/" in n)),
    "a path that leaves": _edit_index(_outside),
    "a name that is no text": _edit_index(lambda index: index["person"].update(name=7)),
    "a name without end": _edit_index(lambda index: index["person"].update(name="x" * 201)),
    "an unknown media type": _edit_index(lambda i: i["images"][0].update(media_type="text/html")),
    "a size below zero": _edit_index(lambda index: index["images"][0].update(width=-1)),
    "a size that is true": _edit_index(lambda index: index["images"][0].update(width=True)),
    "a recipe with more": _edit_index(lambda index: index["images"][0]["recipe"].update(run="x")),
    "a recipe of words": _edit_index(lambda index: index["images"][0]["recipe"].update(seed="x")),
    "a version that is no number": _edit_index(lambda i: i["identities"][0].update(version="1")),
    "a time without a zone": _edit_index(
        lambda index: index["identities"][0].update(expires_at="2027-01-01T00:00:00")
    ),
    "html for a photo": _photo_as(b"<html><script>alert(1)</script></html>"),
    "an empty photo": _photo_as(b""),
    "pickle for a face": lambda members: members.update(
        {next(n for n in members if n.startswith("faces/")): b"\x80\x04cos\nsystem\n."}
    ),
    "crops of another size": _face_with(crops=np.zeros((2, 8, 8, 3), np.uint8)),
    "no crops": _face_with(
        crops=np.zeros((0, 128, 128, 3), np.uint8), embeddings=np.zeros((0, 128), np.float32)
    ),
    "crops of another kind": _face_with(crops=np.zeros((2, 128, 128, 3), np.float32)),
    "embeddings that are no numbers": _face_with(embedding=np.full(128, np.nan, np.float32)),
    "an embedding of another length": _face_with(embedding=np.zeros(4, np.float32)),
    "a list of embeddings for one": _face_with(embedding=np.zeros((1, 128), np.float32)),
}


@pytest.fixture(scope="module")
def archive(migrated_sqlite: Path, tmp_path_factory: pytest.TempPathFactory) -> bytes:
    path = tmp_path_factory.mktemp("source") / "source.db"
    path.write_bytes(migrated_sqlite.read_bytes())
    with open_database(f"sqlite:///{path}") as database:
        house = House(database)
        return _exported(house, _with_everything(house))


@pytest.mark.parametrize("harm", HARM)
def test_a_harmful_archive_is_refused_and_nothing_of_it_stored(
    archive: bytes, elsewhere: House, harm: str
) -> None:
    members = _members(archive)
    HARM[harm](members)
    with pytest.raises(UnusableArchive):
        elsewhere.porter.import_person(TENANT, _zipped(members), form())
    _assert_empty(elsewhere)


@pytest.mark.parametrize(
    "limits",
    [
        ImportLimits(members=3),
        ImportLimits(member_bytes=10_000),
        ImportLimits(total_bytes=50_000),
        ImportLimits(index_bytes=100),
        ImportLimits(identities=1),
    ],
)
def test_an_archive_above_a_limit_is_refused(
    archive: bytes, elsewhere: House, limits: ImportLimits
) -> None:
    with pytest.raises(UnusableArchive):
        elsewhere.porter.import_person(TENANT, io.BytesIO(archive), form(), limits)
    _assert_empty(elsewhere)


def test_a_bomb_that_lies_about_its_size_is_stopped_while_unpacking(
    archive: bytes, elsewhere: House
) -> None:
    members = _members(archive)
    name = next(name for name in members if name.startswith("photos/"))
    size = 8 * 1024 * 1024
    members[name] = JPEG + bytes(size - len(JPEG))
    bomb = _zipped(members, zipfile.ZIP_DEFLATED).getvalue()
    told = size.to_bytes(4, "little")
    assert bomb.count(told) >= 2
    lying = bomb.replace(told, (100).to_bytes(4, "little"))
    limits = ImportLimits(member_bytes=1024 * 1024)
    for file in (bomb, lying):
        with pytest.raises(UnusableArchive):
            elsewhere.porter.import_person(TENANT, io.BytesIO(file), form(), limits)
    _assert_empty(elsewhere)


def test_two_members_of_one_name_are_refused(archive: bytes, elsewhere: House) -> None:
    file = _zipped(_members(archive))
    with (
        pytest.warns(UserWarning, match="Duplicate name"),
        zipfile.ZipFile(file, "a") as again,
    ):
        again.writestr("index.json", b"{}")
    with pytest.raises(UnusableArchive, match="have one name"):
        elsewhere.porter.import_person(TENANT, file, form())


@pytest.mark.parametrize("length", [0, 10, 1000, -1])
def test_a_cut_or_foreign_file_is_refused(archive: bytes, elsewhere: House, length: int) -> None:
    with pytest.raises(UnusableArchive):
        elsewhere.porter.import_person(TENANT, io.BytesIO(archive[:length]), form())
    _assert_empty(elsewhere)


def test_a_flipped_byte_in_a_photo_is_noticed(archive: bytes, elsewhere: House) -> None:
    broken = bytearray(archive)
    broken[archive.index(JPEG) + len(JPEG) - 1] ^= 1
    with pytest.raises(UnusableArchive, match="damaged"):
        elsewhere.porter.import_person(TENANT, io.BytesIO(bytes(broken)), form())


@pytest.mark.parametrize("method", [zipfile.ZIP_BZIP2, zipfile.ZIP_LZMA])
def test_other_ways_of_packing_are_refused(archive: bytes, elsewhere: House, method: int) -> None:
    with pytest.raises(UnusableArchive, match="packed in a way"):
        elsewhere.porter.import_person(TENANT, _zipped(_members(archive), method), form())


def test_an_encrypted_member_is_refused(archive: bytes, elsewhere: House) -> None:
    broken = bytearray(archive)
    central = archive.rindex(b"PK\x01\x02")  # of index.json, which is written last
    broken[central + 8] |= 1
    with pytest.raises(UnusableArchive, match="encrypted"):
        elsewhere.porter.import_person(TENANT, io.BytesIO(bytes(broken)), form())


def test_nothing_is_written_to_disk_while_exporting_and_importing(
    sqlite_url: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("tempfile.tempdir", str(tmp_path / "no such folder"))
    with open_database(sqlite_url) as database:
        house = House(database)
        archive = io.BytesIO(_exported(house, _with_everything(house)))
        house.porter.import_person(TENANT, archive, form())
    for file in tmp_path.rglob("*"):
        assert not file.is_file() or b"a selfie" not in file.read_bytes()


def _assert_empty(house: House) -> None:
    assert house.people.identities(TENANT) == house.people.images(TENANT) == []
    assert list(house.blobs.names()) == list(house.key_store.names()) == []
