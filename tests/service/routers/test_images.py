from __future__ import annotations

import hashlib
from pathlib import Path
from typing import Any

import pytest

from imagine import InvalidInput, read_recipe
from tests.service.conftest import CONSENT, House, selfie


@pytest.fixture(scope="module")
def image(home: House, me: str) -> dict[str, Any]:
    told: dict[str, Any] = home.generate(me, seed=5)["images"][0]
    return told


def test_the_content_is_the_marked_file(home: House, image: dict[str, Any], tmp_path: Path) -> None:
    answer = home.ask("GET", image["urls"]["content"])
    (tmp_path / "me.png").write_bytes(answer.content)
    assert answer.headers["content-type"] == "image/png"
    assert len(answer.content) == image["bytes"]
    with pytest.raises(InvalidInput, match="keeps recipes apart"):
        read_recipe(tmp_path / "me.png")
    assert b"in a forest" not in answer.content


@pytest.mark.parametrize(("asked", "begins"), [("jpeg", b"\xff\xd8"), ("webp", b"RIFF")])
def test_other_formats_are_marked_as_well(home: House, me: str, asked: str, begins: bytes) -> None:
    image = home.generate(me, output_format=asked)["images"][0]
    answer = home.ask("GET", image["urls"]["content"])
    assert image["media_type"] == answer.headers["content-type"] == f"image/{asked}"
    assert answer.content.startswith(begins)
    assert b"rainedAlgorithmicMedia" in answer.content


def test_the_recipe_is_kept_apart_from_the_file(home: House, image: dict[str, Any]) -> None:
    recipe = home.ask("GET", image["urls"]["recipe"]).json()
    assert (recipe["seed"], recipe["backend"]) == (5, "fake")
    told = home.ask("GET", image["urls"]["recipe"]).content
    assert read_recipe(told).prompt == "in a forest"


def test_provenance_says_what_the_file_carries(home: House, image: dict[str, Any]) -> None:
    content = home.ask("GET", image["urls"]["content"]).content
    told = home.ask("GET", image["urls"]["provenance"]).json()
    assert told["sha256"] == hashlib.sha256(content).hexdigest()
    assert told["digital_source_type"] == "trainedAlgorithmicMedia"
    assert told["carries_recipe"] is False


def test_the_picture_itself_is_sealed_on_disk(home: House, image: dict[str, Any]) -> None:
    content = home.ask("GET", image["urls"]["content"]).content
    for path in home.service.limits.data_directory.rglob("*"):
        if path.is_file():
            assert content[1000:1064] not in path.read_bytes()


def test_pictures_are_listed_newest_first_and_can_be_deleted(house: House) -> None:
    made = house.generate(house.enrol(), n=3)["images"]
    first = house.ask("GET", "/v1/images?limit=2").json()
    rest = house.ask("GET", f"/v1/images?limit=2&before={first['last_id']}").json()
    listed = [one["id"] for one in first["data"] + rest["data"]]
    assert sorted(listed) == sorted(one["id"] for one in made) and not rest["has_more"]
    assert listed[0] == made[-1]["id"]
    assert house.ask("DELETE", made[0]["urls"]["self"]).status_code == 204
    assert house.ask("GET", made[0]["urls"]["content"]).status_code == 404


def test_a_reviewer_sees_a_picture_only_where_the_person_agreed(house: House) -> None:
    shy = house.generate(house.enrol())["images"][0]
    answer = house.post_photos([selfie(1)], consent_purposes=["generate", "review"])
    open_ = house.generate(answer.json()["id"])["images"][0]
    house.token = house.key("reviewer")
    assert house.ask("GET", open_["urls"]["content"]).status_code == 200
    refused = house.ask("GET", shy["urls"]["content"])
    assert refused.status_code == 403
    assert refused.json()["error"]["code"] == "consent_missing"
    assert house.ask("GET", open_["urls"]["recipe"]).status_code == 403
    assert CONSENT["consent_text"] not in refused.text
