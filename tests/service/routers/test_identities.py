from __future__ import annotations

import io
import json
import tempfile
import zipfile
from pathlib import Path
from typing import Any

import pytest
from cryptography.hazmat.primitives.serialization import load_pem_private_key
from PIL import Image

from imagine.core import PhotoVerdict
from imagine.service.wiring import CERTIFICATE_KEY
from imagine.storage.erasure import verify_certificate
from tests.service.conftest import CONSENT, House, blank, selfie


def files_of(folder: Path) -> set[Path]:
    return {path for path in folder.rglob("*") if path.is_file()}


def test_photos_and_a_consent_make_an_identity(house: House) -> None:
    answer = house.post_photos([selfie(0), selfie(0, 1)], name="Ada")
    told = answer.json()
    assert answer.status_code == 201
    assert (told["state"], told["name"], told["version"]) == ("active", "Ada", 1)
    assert len(told["photos"]) == 2
    assert told["photos"][0]["verdict"] in set(PhotoVerdict)
    assert house.ask("GET", f"/v1/identities/{told['id']}").json()["name"] == "Ada"


def test_nothing_of_a_face_is_ever_told(home: House, me: str) -> None:
    told = home.ask("GET", f"/v1/identities/{me}").json()
    assert not {"embedding", "embeddings", "crops", "fingerprint"} & set(told)


@pytest.mark.parametrize(
    ("change", "code", "param"),
    [
        ({"declared_adult": "false"}, "invalid_input", "declared_adult"),
        ({"declared_self": "false"}, "invalid_input", "declared_self"),
        ({"consent_purposes": "keep photos"}, "invalid_input", "consent_purposes"),
        ({"consent_purposes": "everything"}, "invalid_input", "purposes"),
        ({"consent_days": "9999"}, "invalid_input", "consent_days"),
        ({"consent_locale": "not a language"}, "invalid_input", None),
        ({"consent_method": "Mister X's form!"}, "invalid_input", None),
        ({"consent_text": "   "}, "invalid_input", None),
        ({"choose": "[1]"}, "invalid_input", "choose"),
        ({"choose": '{"7": 0}'}, "invalid_input", "choose"),
        ({"person_id": "person_of_nobody"}, "not_found", None),
    ],
)
def test_a_refused_enrolment_keeps_nothing(
    house: House, change: dict[str, str], code: str, param: str | None
) -> None:
    answer = house.post_photos([selfie()], **change)
    assert answer.json()["error"]["code"] == code
    assert answer.json()["error"]["param"] == param
    assert house.ask("GET", "/v1/identities").json()["data"] == []


@pytest.mark.parametrize(
    ("photos", "code"),
    [
        ([blank()], "no_face_found"),
        ([b"not a photo"], "unreadable_photo"),
        ([b""], "unreadable_photo"),
        ([selfie(0), selfie(3)], "different_people"),
        ([selfie()] * 6, "invalid_input"),
    ],
)
def test_photos_that_cannot_be_used_are_refused_by_name_and_kept_nowhere(
    house: House, photos: list[bytes], code: str
) -> None:
    before = files_of(house.service.limits.data_directory / "blobs")
    answer = house.post_photos(photos)
    assert answer.status_code == 422 and answer.json()["error"]["code"] == code
    assert files_of(house.service.limits.data_directory / "blobs") == before


def test_a_photo_of_more_than_15_mb_is_refused(house: House) -> None:
    answer = house.post_photos([selfie() + b"\0" * (15 * 2**20)])
    assert answer.status_code == 422
    assert "15 MB" in answer.json()["detail"]


def test_no_consent_means_no_look_at_the_photos(
    house: House, monkeypatch: pytest.MonkeyPatch
) -> None:
    def looked(*anything: object) -> None:
        raise AssertionError("a photo was looked at before there was a consent")

    monkeypatch.setattr(house.service.models, "describe", looked)
    assert house.post_photos([selfie()], declared_self="false").status_code == 422


def test_uploads_are_never_spooled_to_a_file(house: House, monkeypatch: pytest.MonkeyPatch) -> None:
    def rolled(self: Any) -> None:
        raise AssertionError("a photo went to a temporary file in clear")

    monkeypatch.setattr(tempfile.SpooledTemporaryFile, "rollover", rolled)
    buffer = io.BytesIO()
    Image.open(io.BytesIO(selfie())).resize((1500, 1500)).save(buffer, "PNG")
    assert len(buffer.getvalue()) > 2**20
    assert house.post_photos([buffer.getvalue()]).status_code == 201


def test_photos_are_kept_only_with_that_tick_and_without_their_metadata(house: House) -> None:
    exif = Image.Exif()
    exif[0x010E] = "canary-place"  # ImageDescription
    buffer = io.BytesIO()
    Image.open(io.BytesIO(selfie())).save(buffer, "JPEG", exif=exif.tobytes(), quality=92)
    ticks = {"consent_purposes": ["generate", "keep_photos"]}
    kept, gone = house.enrol(), house.post_photos([buffer.getvalue()], **ticks).json()["id"]
    archive = zipfile.ZipFile(io.BytesIO(house.ask("GET", f"/v1/identities/{gone}/export").content))
    (photo,) = [name for name in archive.namelist() if name.startswith("photos/")]
    assert b"canary" in buffer.getvalue() and b"canary" not in archive.read(photo)
    assert house.service.people.photos(house.tenant_id, kept) == []


def test_checking_photos_keeps_nothing_and_reports_each(house: House) -> None:
    files = [("photos", ("a.jpg", photo, "image/jpeg")) for photo in (selfie(), blank())]
    answer = house.ask("POST", "/v1/photo_checks", files=files)
    good, bad = answer.json()
    assert good["verdict"].startswith("keep") and bad["verdict"] == "refuse"
    assert house.ask("GET", "/v1/identities").json()["data"] == []


def test_a_list_is_cut_into_pages(house: House) -> None:
    made = [house.enrol(person) for person in range(3)]
    first = house.ask("GET", "/v1/identities?limit=2").json()
    rest = house.ask("GET", f"/v1/identities?limit=2&before={first['last_id']}").json()
    assert [one["id"] for one in first["data"] + rest["data"]] == made[::-1]
    assert (first["has_more"], rest["has_more"]) == (True, False)


def test_a_person_may_have_a_newer_version(house: House) -> None:
    first = house.ask("GET", f"/v1/identities/{house.enrol()}").json()
    second = house.post_photos([selfie(0, 2)], person_id=first["person_id"]).json()
    assert second["version"] == 2 and second["person_id"] == first["person_id"]


def test_deleting_gives_a_certificate_that_can_be_checked(house: House) -> None:
    identity = house.enrol()
    image = house.generate(identity)["images"][0]["id"]
    answer = house.ask("DELETE", f"/v1/identities/{identity}")
    told = answer.json()
    pem = (house.service.limits.secrets_directory / CERTIFICATE_KEY).read_bytes()
    key = load_pem_private_key(pem, None).public_key()
    facts = verify_certificate(json.dumps(told["certificate"]), key)  # type: ignore[arg-type]
    assert (facts.subject_id, facts.counts["images"]) == (identity, 1)
    assert told["person_certificate"]["certificate"]["subject_kind"] == "person"
    assert house.ask("GET", f"/v1/identities/{identity}").status_code == 404
    assert house.ask("GET", f"/v1/images/{image}/content").status_code == 404
    again = house.ask("DELETE", f"/v1/identities/{identity}").json()
    assert again["certificate"] == told["certificate"]


def test_pictures_may_outlive_the_face(house: House) -> None:
    identity = house.enrol()
    image = house.generate(identity)["images"][0]
    content = house.ask("GET", image["urls"]["content"]).content
    told = house.ask("DELETE", f"/v1/identities/{identity}?pictures=keep").json()
    assert told["person_certificate"] is None
    assert house.ask("GET", image["urls"]["content"]).content == content


def test_consents_are_told_with_their_hash_and_can_be_added(house: House) -> None:
    identity = house.enrol()
    more = {
        "text": "You may show me to reviewers.",
        "purposes": ["review"],
        "declared_adult": True,
        "declared_self": True,
    }
    added = house.ask("POST", f"/v1/identities/{identity}/consents", json=more)
    assert added.status_code == 201
    listed = house.ask("GET", f"/v1/identities/{identity}/consents").json()["data"]
    assert [consent["purposes"] for consent in listed] == [["review"], ["generate"]]
    assert len(listed[0]["text_sha256"]) == 64 and "text" not in listed[0]


def test_withdrawing_stops_everything_at_once(house: House) -> None:
    identity = house.enrol()
    answer = house.ask("POST", f"/v1/identities/{identity}/withdraw")
    assert answer.json()["state"] == "frozen"
    refused = house.ask("POST", "/v1/generations", json={"prompt": "x", "identity": identity})
    assert refused.status_code == 403
    assert refused.json()["error"]["code"] == "consent_missing"


def test_the_export_holds_the_consent_and_the_face(house: House) -> None:
    identity = house.enrol(name="Ada")
    answer = house.ask("GET", f"/v1/identities/{identity}/export")
    archive = zipfile.ZipFile(io.BytesIO(answer.content))
    index = archive.read("index.json").decode()
    assert answer.headers["content-type"] == "application/zip"
    assert CONSENT["consent_text"] in index and '"Ada"' in index
    assert f"faces/{identity}.safetensors" in archive.namelist()
