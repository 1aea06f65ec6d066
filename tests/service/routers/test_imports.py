"""An export of one service taken in by another, and archives that may not come in."""

from __future__ import annotations

import io
import json
import zipfile
from collections.abc import Callable, Iterator
from typing import Any

import numpy as np
import pytest
from fastapi.testclient import TestClient
from PIL import Image
from safetensors.numpy import load as load_arrays
from safetensors.numpy import save as save_arrays

from imagine.core import Identity
from imagine.identity.fuse import fingerprint
from imagine.safety.enrolment import Origin
from imagine.service.api import create_app
from imagine.service.loaded_models import LoadedModels
from imagine.service.wiring import build_service
from imagine.storage.audit_log import AuditLog
from imagine.storage.consent import Purpose
from tests.doubles import double_crops
from tests.service.conftest import CONSENT, House, MakeHouse, blank, chosen, places_in, selfie

Members = dict[str, bytes]
Change = Callable[[Members], object]


@pytest.fixture(scope="module")
def elsewhere(doubles: None, tmp_path_factory: pytest.TempPathFactory) -> Iterator[House]:
    """Another installation: a data folder, keys and a log of its own."""
    service = build_service(chosen(), places_in(tmp_path_factory.mktemp("elsewhere")))
    with TestClient(create_app(service), base_url="http://127.0.0.1") as client:
        yield House(service, client)


@pytest.fixture
def there(elsewhere: House) -> Iterator[House]:
    """A tenant of its own there, with nothing of anybody."""
    yield House(elsewhere.service, elsewhere.http)


@pytest.fixture(scope="module")
def exported(home: House) -> bytes:
    """Somebody with photos and a picture, as a zip."""
    me = home.enrol(consent_purposes=["generate", "keep_photos"], name="Ada")
    home.generate(me)
    return zip_of(home, me)


def zip_of(house: House, identity: str) -> bytes:
    answer = house.ask("GET", f"/v1/identities/{identity}/export")
    assert answer.status_code == 200
    data: bytes = answer.content
    return data


def take_in(house: House, archive: bytes, **fields: Any) -> Any:
    files = [("archive", ("me.zip", archive, "application/zip"))]
    return house.ask("POST", "/v1/identities/imports", files=files, data={**CONSENT, **fields})


def changed(archive: bytes, change: Change) -> bytes:
    with zipfile.ZipFile(io.BytesIO(archive)) as opened:
        members = {name: opened.read(name) for name in opened.namelist()}
    change(members)
    file = io.BytesIO()
    with zipfile.ZipFile(file, "w") as again:
        for name, data in members.items():
            again.writestr(name, data)
    return file.getvalue()


def face_changed(tells_it: bool = True, **arrays: Any) -> Change:
    """Other arrays in the face; the index says so too where it tells."""

    def change(members: Members) -> None:
        (name,) = [name for name in members if name.startswith("faces/")]
        members[name] = save_arrays(load_arrays(members[name]) | arrays)
        if tells_it and "crops" in arrays:
            index = json.loads(members["index.json"])
            index["identities"][0]["face"]["fingerprint"] = fingerprint(arrays["crops"])
            members["index.json"] = json.dumps(index).encode()

    return change


def swapped(folder: str, data: bytes) -> Change:
    def change(members: Members) -> None:
        members[next(name for name in members if name.startswith(folder))] = data

    return change


def unmarked_picture() -> bytes:
    file = io.BytesIO()
    Image.new("RGB", (128, 128), "green").save(file, "PNG")
    return file.getvalue()


def kept(house: House) -> tuple[list[Any], list[Any], list[Any]]:
    """What this tenant has: people, pictures, and files of the whole service."""
    people = house.service.people
    blobs = house.service.limits.data_directory / "blobs"
    files = sorted(path for path in blobs.rglob("*") if path.is_file())
    return people.identities(house.tenant_id), people.images(house.tenant_id), files


def kinds(log: AuditLog, tenant_id: str, subject: str) -> list[object]:
    return [entry.facts["kind"] for entry in log.entries_about(tenant_id, subject)]


def test_somebody_exported_here_is_drawn_there(exported: bytes, there: House) -> None:
    answer = take_in(there, exported)
    assert answer.status_code == 201, answer.text
    told = answer.json()
    (one,) = told["identities"]
    assert (one["state"], one["name"], one["verification"]) == ("active", "Ada", "unverified")
    assert one["person_id"] == told["person_id"] and not one["waits_for_review"]
    (picture,) = there.ask("GET", "/v1/images").json()["data"]
    assert there.ask("GET", picture["urls"]["content"]).status_code == 200
    assert there.generate(one["id"])["status"] == "succeeded"
    log = there.service.log
    assert "person.imported" in kinds(log, there.tenant_id, told["person_id"])


def test_the_consent_is_the_one_given_there(exported: bytes, there: House) -> None:
    (one,) = take_in(there, exported, consent_text="I agree there.").json()["identities"]
    (consent,) = there.service.consents.history(there.tenant_id, one["id"])
    assert (consent.text, consent.purposes) == ("I agree there.", {Purpose.GENERATE})
    assert there.service.people.photos(there.tenant_id, one["id"]) == []
    ticks = ["generate", "keep_photos"]
    (kept_too,) = take_in(there, exported, consent_purposes=ticks).json()["identities"]
    assert len(there.service.people.photos(there.tenant_id, kept_too["id"])) == 2


def test_embeddings_of_the_archive_are_never_used(exported: bytes, there: House) -> None:
    claims = face_changed(
        embedding=np.full(27, 9, np.float32), embeddings=np.full((2, 27), 9, np.float32)
    )
    (one,) = take_in(there, changed(exported, claims)).json()["identities"]
    face = there.service.people.read_identity(there.tenant_id, one["id"], purpose=Purpose.GENERATE)
    assert face.embedding.max() <= 1.0 and face.embeddings.max() <= 1.0


def test_whoever_asked_never_to_be_shown_does_not_come_in_under_another_embedding(
    home: House, there: House
) -> None:
    archive = zip_of(home, home.enrol(7))
    measured: list[Identity] = []
    (one,) = take_in(there, archive).json()["identities"]
    measured.append(
        there.service.people.read_identity(there.tenant_id, one["id"], purpose=Purpose.GENERATE)
    )
    there.service.protected.register("double", measured[0].embedding, "declaration")
    fresh = House(there.service, there.http)
    before = kept(fresh)
    harmless = face_changed(
        embedding=np.full(27, 9, np.float32), embeddings=np.full((2, 27), 9, np.float32)
    )
    for tried in (archive, changed(archive, harmless)):
        refused = take_in(fresh, tried)
        assert (refused.status_code, refused.json()["reason"]) == (422, "do_not_generate")
    assert kept(fresh) == before


def test_a_face_that_looks_young_waits_for_a_reviewer(
    exported: bytes, there: House, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(LoadedModels, "apparent_ages", lambda self, face: [21.0])
    (one,) = take_in(there, exported).json()["identities"]
    assert one["waits_for_review"] is True
    wish = {"prompt": "in a forest", "identity": one["id"]}
    refused = there.ask("POST", "/v1/generations", json=wish)
    assert (refused.status_code, refused.json()["error"]["code"]) == (403, "review_pending")


OTHERS = double_crops(3)
REFUSED: dict[str, tuple[Change, str]] = {
    "no index": (lambda members: members.pop("index.json"), "unusable_archive"),
    "another face": (face_changed(False, crops=OTHERS), "unusable_archive"),
    "no face": (face_changed(crops=np.full_like(OTHERS, 90)), "no_face_found"),
    "two people": (
        face_changed(crops=np.stack([OTHERS[0], double_crops(0)[0]])),
        "different_people",
    ),
    "an unmarked picture": (swapped("images/", unmarked_picture()), "unusable_archive"),
    "a page for a photo": (swapped("photos/", b"<html>"), "unusable_archive"),
}


@pytest.mark.parametrize("case", REFUSED)
def test_a_refused_archive_leaves_nothing_behind(exported: bytes, there: House, case: str) -> None:
    change, code = REFUSED[case]
    before = kept(there)
    answer = take_in(there, changed(exported, change))
    assert (answer.status_code, answer.json()["error"]["code"]) == (422, code), answer.text
    assert kept(there) == before


@pytest.mark.parametrize("data", [b"", b"not a zip", blank()])
def test_a_file_that_is_no_zip_is_refused(there: House, data: bytes) -> None:
    before = kept(there)
    answer = take_in(there, data)
    assert (answer.status_code, answer.json()["error"]["code"]) == (422, "unusable_archive")
    assert kept(there) == before


def test_a_zip_that_was_cut_off_or_damaged_is_refused(exported: bytes, there: House) -> None:
    before = kept(there)
    broken = bytearray(exported)
    broken[exported.index(b"\xff\xd8\xff") + 40] ^= 1
    for data in (exported[:-100], bytes(broken)):
        assert take_in(there, data).json()["error"]["code"] == "unusable_archive"
    assert kept(there) == before


@pytest.mark.parametrize(
    ("origin", "reason"),
    [(Origin.OWN_OUTPUT, "own_output"), (Origin.TRAINED_ALGORITHMIC_MEDIA, "machine_made")],
)
def test_a_face_of_a_picture_that_a_machine_made_is_refused(
    exported: bytes, there: House, monkeypatch: pytest.MonkeyPatch, origin: Origin, reason: str
) -> None:
    photo = selfie(0)
    real = LoadedModels.origin
    monkeypatch.setattr(
        LoadedModels,
        "origin",
        lambda self, data: (
            origin if isinstance(data, bytes) and data == photo else real(self, data)
        ),
    )
    before = kept(there)
    refused = take_in(there, changed(exported, swapped("photos/", photo)))
    assert (refused.status_code, refused.json()["reason"]) == (422, reason)
    assert kept(there) == before


@pytest.mark.parametrize(
    ("change", "param"),
    [
        ({"declared_adult": "false"}, "declared_adult"),
        ({"declared_self": "false"}, "declared_self"),
        ({"consent_purposes": "keep photos"}, "consent_purposes"),
    ],
)
def test_without_a_consent_given_there_nothing_comes_in(
    exported: bytes, there: House, change: dict[str, str], param: str
) -> None:
    before = kept(there)
    answer = take_in(there, exported, **change)
    assert (answer.status_code, answer.json()["error"]["param"]) == (422, param)
    assert kept(there) == before


def test_an_upload_that_is_too_large_is_refused(there: House) -> None:
    answer = take_in(there, b"PK" + bytes(77 * 2**20))
    assert answer.status_code == 413
    assert "zip" in answer.json()["detail"]


def test_who_may_enrol_nobody_may_import_nobody(exported: bytes, make_house: MakeHouse) -> None:
    house = make_house("reviewer")
    assert take_in(house, exported).status_code == 403
