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


@pytest.mark.parametrize(
    ("query", "accept", "media_type"),
    [
        ("", "*/*", "image/png"),
        ("", "application/json", "image/png"),  # what a client of an API says by habit
        ("", "image/webp,image/*;q=0.8,*/*;q=0.5", "image/webp"),
        ("", "image/avif, image/*, */*;q=0.8", "image/png"),
        ("", "image/png;q=0.3, image/jpeg;q=0.9", "image/jpeg"),
        ("", "image/jpeg;q=0, image/webp;q=nonsense", "image/png"),
        ("?format=jpeg", "image/png", "image/jpeg"),
        ("?format=webp", "*/*", "image/webp"),
        ("?format=png", "image/webp", "image/png"),
    ],
)
def test_a_picture_comes_in_the_format_that_is_asked_for(
    home: House, image: dict[str, Any], query: str, accept: str, media_type: str
) -> None:
    answer = home.ask("GET", image["urls"]["content"] + query, headers={"Accept": accept})
    assert answer.status_code == 200 and answer.headers["content-type"] == media_type
    assert f".{media_type[6:]}" in answer.headers["content-disposition"]
    begins = {"image/png": b"\x89PNG", "image/jpeg": b"\xff\xd8", "image/webp": b"RIFF"}
    assert answer.content.startswith(begins[media_type])
    assert b"rainedAlgorithmicMedia" in answer.content and b"in a forest" not in answer.content


def test_a_format_nobody_writes_is_refused(home: House, image: dict[str, Any]) -> None:
    answer = home.ask("GET", image["urls"]["content"] + "?format=gif")
    assert answer.status_code == 422 and "gif" not in answer.headers["content-type"]


def test_the_owner_may_have_the_recipe_inside_and_a_reviewer_may_not(house: House) -> None:
    made = house.post_photos([selfie(1)], consent_purposes=["generate", "review"])
    image = house.generate(made.json()["id"], seed=8)["images"][0]
    asked = image["urls"]["content"] + "?recipe=open&format=jpeg"
    inside = house.ask("GET", asked)
    assert read_recipe(inside.content).prompt == "in a forest"
    house.token = house.key("reviewer")
    assert house.ask("GET", image["urls"]["content"] + "?format=jpeg").status_code == 200
    assert house.ask("GET", asked).status_code == 403


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
