from __future__ import annotations

from typing import Any

import pytest
from fastapi.testclient import TestClient

from imagine.service.auth import Doorkeeper
from imagine.service.wiring import Service
from tests.service.conftest import House, MakeHouse, chosen
from tests.service.reviewing import Reviewer

NOTICE = {
    "name": "Ann Example",
    "contact": "ann@example.org",
    "statement": "That is me.",
    "in_good_faith": "true",
}


def filed(http: TestClient, files: Any = None, **words: str) -> Any:
    return http.post("/v1/takedowns", data={**NOTICE, **words}, files=files)


def test_a_takedown_needs_no_account_and_has_48_hours(house: House, http: TestClient) -> None:
    image = house.generate(house.enrol())["images"][0]
    content = house.ask("GET", image["urls"]["content"]).content
    answer = filed(http, {"picture": ("copy.png", content, "image/png")})
    assert answer.status_code == 201, answer.text
    told = answer.json()
    assert (told["state"], told["removed"], told["is_overdue"]) == ("open", 0, False)
    assert "matches" not in told and image["id"] not in answer.text
    reviewer = Reviewer(house)
    review = next(one for one in reviewer.reviews("takedown") if one["image"] == image["id"])
    assert (review["takedown"], review["due_at"]) == (told["id"], told["due_at"])
    whole = reviewer.ask("GET", f"/v1/reviews/{review['id']}")
    assert whole.json()["statement"] == "That is me."
    assert "Ann" not in whole.text and "ann@" not in whole.text
    contact = reviewer.ask("GET", f"/v1/takedowns/{told['id']}/contact")
    if contact.status_code == 200:  # another tenant's picture may look more alike
        assert contact.json()["contact"] == "ann@example.org"
    reviewer.decide(review["id"], "remove", reason="not_agreed", clause="8.1")
    assert house.ask("GET", f"/v1/images/{image['id']}/content").status_code == 404
    assert http.get(f"/v1/takedowns/{told['id']}").json()["removed"] >= 1


def test_a_picture_that_is_not_found_goes_to_the_operator(
    http: TestClient, service: Service
) -> None:
    told = filed(http, where="on a wall").json()
    [review] = service.reviews.find("local", takedown_id=told["id"])
    assert review.reason == "not_found" and not review.has_picture
    assert http.get("/v1/takedowns/takedown_nobody_filed").status_code == 404


@pytest.mark.parametrize("name", ["name", "contact", "statement", "in_good_faith"])
def test_an_incomplete_notice_is_refused_and_says_what_is_missing(
    http: TestClient, name: str
) -> None:
    refused = filed(http, **{name: "false" if name == "in_good_faith" else " "})
    assert refused.status_code == 422 and name in refused.json()["detail"]


def test_a_copy_that_is_no_picture_is_an_error_and_no_crash(http: TestClient) -> None:
    for content in (b"GIF89a", b"\x89PNG\r\n\x1a\n", b"PK\x03\x04" * 100):
        refused = filed(http, {"picture": ("copy.png", content, "image/png")})
        assert refused.status_code == 422, refused.text


def test_notices_are_counted_by_address(
    http: TestClient, service: Service, monkeypatch: pytest.MonkeyPatch
) -> None:
    few = Doorkeeper(service.api_keys, chosen(registrations_per_hour=2))
    monkeypatch.setattr(service, "doorkeeper", few)
    statuses = [filed(http).status_code for _ in range(3)]
    assert statuses == [201, 201, 429]


def test_reports_and_appeals_are_for_the_owner(house: House, make_house: MakeHouse) -> None:
    wish = house.generate(house.enrol())
    stranger = make_house()
    report = {"image": wish["images"][0]["id"], "reason": "nudity"}
    assert stranger.ask("POST", "/v1/reports", json=report).status_code == 404
    appeal = {"generation": wish["id"]}
    assert stranger.ask("POST", "/v1/appeals", json=appeal).status_code == 404
    assert stranger.ask("GET", f"/v1/appeals/{wish['id']}").status_code == 404
    nothing = house.ask("POST", "/v1/appeals", json=appeal)
    assert nothing.status_code == 422 and "nothing to appeal" in nothing.json()["detail"]
    both = house.ask("POST", "/v1/appeals", json={**appeal, "image": report["image"]})
    assert both.status_code == 422
    assert Reviewer(house).ask("POST", "/v1/reports", json=report).status_code == 403
    first = house.ask("POST", "/v1/reports", json=report).json()
    assert house.ask("POST", "/v1/reports", json=report).json() == first
