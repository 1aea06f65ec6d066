from __future__ import annotations

import json
from collections.abc import Iterator
from datetime import timedelta
from typing import Any

import numpy as np
import pytest
from cryptography.hazmat.primitives.asymmetric.ed25519 import Ed25519PrivateKey
from fastapi.testclient import TestClient

from imagine.identity import decode_photo
from imagine.provenance import open_marker
from imagine.safety.do_not_generate import sign_list
from imagine.service.auth import Doorkeeper
from imagine.service.wiring import Service
from imagine.storage.database import utc_now
from imagine.storage.protected import EVERYBODY
from tests.doubles import double_identity
from tests.service.camera import Clock, camera, frames
from tests.service.conftest import House, MakeHouse, blank, chosen, selfie

__all__ = ["camera"]
AGREED = {"declared_self": "true", "agreed": "true"}
ISSUER = Ed25519PrivateKey.generate()


@pytest.fixture(autouse=True)
def empty_again(service: Service) -> Iterator[None]:
    """Whoever a test put on the list is off it afterwards: all tests share one service."""
    yield
    from sqlalchemy import delete

    from imagine.storage.protected import ProtectedRow

    with service.database.writing() as session:
        session.execute(delete(ProtectedRow))


def register(http: TestClient, person: int = 0, **fields: Any) -> Any:
    photos = [("photos", ("a.jpg", selfie(person), "image/jpeg"))]
    files = [*photos, *fields.pop("files", [])]
    return http.post("/v1/do_not_generate", files=files, data={**AGREED, **fields})


def test_anybody_may_register_and_cannot_be_enrolled_any_more(
    http: TestClient, house: House
) -> None:
    answer = register(http, 0)
    assert answer.status_code == 201 and answer.json()["method"] == "declaration"
    refused = house.post_photos([selfie(0, 1)])
    assert refused.status_code == 422
    assert refused.json()["reason"] == "do_not_generate"
    assert house.ask("GET", "/v1/identities").json()["data"] == []
    assert house.post_photos([selfie(3)]).status_code == 201  # somebody else


def test_a_picture_that_shows_somebody_on_the_list_is_not_handed_out(house: House) -> None:
    identity = house.enrol(0)
    drawn = house.generate(identity)
    assert drawn["status"] == "succeeded"
    shown = decode_photo(
        house.ask("GET", drawn["images"][0]["urls"]["content"]).content, None, house.service.limits
    )
    detector, encoder = house.service.models.faces
    (face,) = detector.detect(shown)
    house.service.protected.register("double", encoder.embed(shown, face), "declaration")
    again = house.generate(identity)
    assert again["status"] == "blocked" and again["images"] == []
    assert "asked not to be shown" in again["error"]["message"]


def test_the_token_takes_somebody_off_again_and_destroys_the_key(
    http: TestClient, house: House
) -> None:
    made = register(http, 0).json()
    gone = http.post("/v1/do_not_generate/withdraw", json={"token": made["token"]})
    assert gone.status_code == 200
    assert house.post_photos([selfie(0)]).status_code == 201
    again = http.post("/v1/do_not_generate/withdraw", json={"token": made["token"]})
    assert again.status_code == 404
    keys = house.service.protected._keys
    assert keys.destroyed_at(EVERYBODY, f"protected_{made['id']}") is not None


@pytest.mark.parametrize("token", ["", "x", "imdng_" + "0" * 32 + "_" + "0" * 64])
def test_a_wrong_token_takes_nobody_off(http: TestClient, token: str) -> None:
    assert register(http, 0).status_code == 201
    answer = http.post("/v1/do_not_generate/withdraw", json={"token": token})
    assert answer.status_code in (404, 422)


def test_the_token_of_one_entry_does_not_open_another(http: TestClient) -> None:
    one, other = register(http, 0).json(), register(http, 1).json()
    mixed = f"imdng_{one['id']}_{other['token'].rpartition('_')[2]}"
    assert http.post("/v1/do_not_generate/withdraw", json={"token": mixed}).status_code == 404


@pytest.mark.parametrize(("field", "value"), [("declared_self", "false"), ("agreed", "false")])
def test_without_both_declarations_nothing_is_kept(
    http: TestClient, service: Service, field: str, value: str
) -> None:
    refused = register(http, 0, **{field: value})
    assert refused.status_code == 422 and refused.json()["error"]["param"] == field
    assert service.protected.counts() == {}


def test_a_photo_without_a_face_registers_nobody(http: TestClient, service: Service) -> None:
    files = [("photos", ("a.jpg", blank(), "image/jpeg"))]
    answer = http.post("/v1/do_not_generate", files=files, data=AGREED)
    assert answer.status_code == 422 and answer.json()["error"]["code"] == "no_face_found"
    assert service.protected.counts() == {}


def test_a_camera_check_can_be_taken_without_an_account(
    http: TestClient, service: Service, camera: None, monkeypatch: pytest.MonkeyPatch
) -> None:
    clock = Clock(utc_now())
    monkeypatch.setattr(service.standings, "_clock", clock)
    challenge = http.post("/v1/do_not_generate/challenges").json()
    clock.now += timedelta(seconds=20)
    taken = [("frames", ("f.png", one, "image/png")) for one in frames(challenge["poses"])]
    fields = {"challenge_id": challenge["id"], "nonce": challenge["nonce"]}
    somebody_else = register(http, 3, files=taken, **fields)
    assert somebody_else.status_code == 422
    assert somebody_else.json()["reason"] == "not_the_uploads"
    assert register(http, 0, files=taken, **fields).status_code == 404  # used up
    challenge = http.post("/v1/do_not_generate/challenges").json()
    clock.now += timedelta(seconds=20)
    taken = [("frames", ("f.png", one, "image/png")) for one in frames(challenge["poses"])]
    fields = {"challenge_id": challenge["id"], "nonce": challenge["nonce"]}
    assert register(http, 0, files=taken, **fields).json()["method"] == "camera"


def test_what_is_kept_is_sealed_and_the_log_names_nobody(
    http: TestClient, service: Service
) -> None:
    made = register(http, 0).json()
    vector = double_identity(0).embedding.astype("<f4").tobytes()
    secret = made["token"].rpartition("_")[2].encode()
    data = service.limits.data_directory
    for path in data.rglob("*"):
        if path.is_file():
            content = path.read_bytes()
            assert vector[:16] not in content and secret not in content
    log = service.log.entries_about(EVERYBODY, f"protected_{made['id']}")
    assert [entry.facts["kind"] for entry in log] == ["protected.registered"]
    assert made["id"] not in log[0].text


def test_an_address_may_register_only_now_and_then(
    http: TestClient, service: Service, monkeypatch: pytest.MonkeyPatch
) -> None:
    few = Doorkeeper(service.api_keys, chosen(registrations_per_hour=2))
    monkeypatch.setattr(service, "doorkeeper", few)
    statuses = [register(http, 0).status_code for _ in range(3)]
    assert statuses == [201, 201, 429]


def test_a_signed_list_is_taken_over_from_a_trusted_key_alone(
    make_house: MakeHouse, monkeypatch: pytest.MonkeyPatch
) -> None:
    admin = make_house("admin")
    people = {"x": double_identity(0).embedding, "y": double_identity(1).embedding}
    content = sign_list(people, "double", ISSUER, "a registry")
    path = "/v1/do_not_generate/import"
    assert admin.ask("POST", path, content=content).status_code == 422
    trusted = (ISSUER.public_key(),)
    monkeypatch.setattr(admin.service.admission, "_trusted", trusted)
    assert admin.ask("POST", path, content=content).json() == {"entries": 2}
    assert admin.ask("POST", path, content=content).json() == {"entries": 0}
    assert admin.post_photos([selfie(1)]).json()["reason"] == "do_not_generate"
    short = sign_list({"z": np.ones(5, np.float32)}, "double", ISSUER, "a registry")
    refused = admin.ask("POST", path, content=short)
    assert refused.status_code == 422 and "5 numbers" in refused.json()["detail"]


def test_our_own_picture_is_no_selfie_neither_here_nor_there(
    http: TestClient, house: House, service: Service
) -> None:
    marker, _ = open_marker(service.limits.data_directory / "marks")
    from io import BytesIO

    from PIL import Image

    pixels = np.asarray(Image.open(BytesIO(selfie(0))).convert("RGB"))
    buffer = BytesIO()
    Image.fromarray(marker.mark_pixels(pixels, 7)).save(buffer, "JPEG", quality=90)
    service.models._door._verifier = None  # the keys were made just now
    photos = [("photos", ("a.jpg", buffer.getvalue(), "image/jpeg"))]
    for refused in (
        house.post_photos([buffer.getvalue()]),
        http.post("/v1/do_not_generate", files=photos, data=AGREED),
    ):
        assert (refused.status_code, refused.json()["reason"]) == (422, "own_output")
    (report,) = house.ask("POST", "/v1/photo_checks", files=photos).json()
    assert report["verdict"] == "refuse" and report["codes"][0] == "own_output"


def test_a_photo_that_says_ai_made_it_is_refused_and_the_refusal_recorded(house: House) -> None:
    claim = b"http://cv.iptc.org/newscodes/digitalsourcetype/trainedAlgorithmicMedia"
    from io import BytesIO

    from PIL import Image

    buffer = BytesIO()
    picture = Image.open(BytesIO(selfie(0)))
    picture.save(buffer, "JPEG", quality=92, xmp=b"<x:xmpmeta>" + claim + b"</x:xmpmeta>")
    refused = house.post_photos([buffer.getvalue()])
    assert (refused.status_code, refused.json()["reason"]) == (422, "machine_made")
    with house.service.database.reading() as session:
        from sqlalchemy import text

        mine = text("SELECT entry FROM audit_entries WHERE tenant_id = :tenant")
        entries = [json.loads(row[0]) for row in session.execute(mine, {"tenant": house.tenant_id})]
    assert ("enrolment.refused", {"code": "machine_made"}) in [
        (entry["kind"], entry["details"]) for entry in entries
    ]
