"""With a picture goes what tells how it looked: deletion, erasure, and what `verify` says then."""

from __future__ import annotations

from collections.abc import Iterator
from io import BytesIO

import pytest
from fastapi.testclient import TestClient
from PIL import Image, ImageFilter

from imagine.provenance import (
    HASHES_FILE,
    MARKS_FOLDER,
    HashFile,
    HashRegistry,
    Provenance,
    Verifier,
    open_verifier,
)
from imagine.service import wiring
from imagine.service.api import create_app
from imagine.service.wiring import build_service
from imagine.storage.erasure import Outputs, verify_certificate
from tests.service.conftest import REAL_MARKING, House, chosen, places_in


@pytest.fixture(scope="module")
def house(doubles: None, tmp_path_factory: pytest.TempPathFactory) -> Iterator[House]:
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(wiring, "make_marking", REAL_MARKING)
        service = build_service(chosen(), places_in(tmp_path_factory.mktemp("marked")))
    with TestClient(create_app(service), base_url="http://127.0.0.1") as client:
        yield House(service, client, "admin")


def known(house: House) -> HashRegistry:
    return HashFile(house.service.limits.data_directory / MARKS_FOLDER / HASHES_FILE).read()


def made(house: House, identity: str, seed: int) -> tuple[str, bytes, int]:
    """Id, file and record of a new picture, which the registry knows."""
    image = house.generate(identity, seed=seed)["images"][0]
    data = house.ask("GET", image["urls"]["content"]).content
    record = verifier(house).verify(data).record
    assert record is not None and known(house).hashes_of(record)
    return image["id"], data, record


def verifier(house: House) -> Verifier:
    return open_verifier(house.service.limits.data_directory / MARKS_FOLDER)


def test_a_deleted_picture_is_forgotten_and_the_others_stay(house: House) -> None:
    me = house.enrol()
    (gone, data, record), (_, _, other) = made(house, me, 1), made(house, me, 2)
    assert house.ask("DELETE", f"/v1/images/{gone}").status_code == 204
    assert known(house).hashes_of(record) == [] and known(house).is_forgotten(record)
    assert known(house).hashes_of(other)
    stripped = BytesIO()
    Image.open(BytesIO(data)).save(stripped, "JPEG", quality=90)
    report = verifier(house).verify(stripped.getvalue())
    # The mark is in the copy and the entry in the log; that the copy is no forgery is not known.
    assert (report.verdict, report.record) == (Provenance.STRIPPED, record)
    assert any("was deleted" in sentence for sentence in report.sentences)
    unmarked = BytesIO()
    Image.open(BytesIO(data)).filter(ImageFilter.GaussianBlur(4)).save(unmarked, "PNG")
    assert verifier(house).verify(unmarked.getvalue()).record is None


def test_somebody_who_is_erased_takes_the_looks_along_and_the_certificate_counts_them(
    house: House,
) -> None:
    me, other = house.enrol(), house.enrol(1)
    records = [made(house, me, seed)[2] for seed in (3, 4)]
    kept = made(house, other, 5)[2]
    text = house.service.eraser.erase_identity(house.tenant_id, me)
    assert all(known(house).is_forgotten(record) for record in records)
    assert known(house).hashes_of(kept)
    key = house.service.eraser._signing_key.public_key()
    assert verify_certificate(text, key).counts["looks"] == 2


def test_pictures_that_outlive_their_identity_keep_their_looks(house: House) -> None:
    me = house.enrol()
    _, _, record = made(house, me, 6)
    person = house.service.people.identity(house.tenant_id, me).person_id
    house.service.eraser.erase_identity(house.tenant_id, me, Outputs.KEEP)
    assert known(house).hashes_of(record)
    house.service.eraser.erase_person(house.tenant_id, person)
    assert known(house).is_forgotten(record)
