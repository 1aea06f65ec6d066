from __future__ import annotations

import io
import zipfile

import pytest

from imagine.service.wiring import Service
from imagine.storage.evidence import verify_evidence
from tests.service.conftest import House, MakeHouse
from tests.service.reviewing import WHY, Reviewer, two


def reported(house: House, **words: str) -> tuple[str, str]:
    """A reported picture: ids of the review and the picture."""
    image = house.generate(house.enrol())["images"][0]["id"]
    body = {"image": image, "reason": "another_person", **words}
    answer = house.ask("POST", "/v1/reports", json=body)
    assert answer.status_code == 201, answer.text
    return answer.json()["decisions"][0]["id"], image


@pytest.mark.parametrize("role", ["user", "developer"])
def test_only_reviewers_see_the_queues(house: House, role: str) -> None:
    review, _ = reported(house)
    somebody = Reviewer(house, role)
    for path in ("/v1/reviews", f"/v1/reviews/{review}", "/v1/review_queues", "/v1/cases"):
        refused = somebody.ask("GET", path)
        assert (refused.status_code, refused.json()["error"]["code"]) == (403, "scope_missing")
    assert Reviewer(house, "admin").ask("GET", f"/v1/reviews/{review}").status_code == 200


def test_reviews_of_another_tenant_are_not_there(house: House, make_house: MakeHouse) -> None:
    review, _ = reported(house)
    stranger = Reviewer(make_house())
    place = f"/v1/reviews/{review}"
    assert stranger.ask("GET", place).status_code == 404
    assert stranger.ask("GET", f"{place}/picture").status_code == 404
    assert stranger.ask("GET", f"{place}/evidence").status_code == 404
    assert stranger.decide(review, "remove").status_code == 404
    assert (
        stranger.ask("POST", f"{place}/acts", json={"act": "open_in_clear", **WHY}).status_code
        == 404
    )
    assert stranger.ask("GET", "/v1/reviews").json()["data"] == []


def test_a_review_is_read_decided_and_answered(house: House) -> None:
    review, image = reported(house, note="Not me.")
    reviewer = Reviewer(house)
    read = reviewer.ask("GET", f"/v1/reviews/{review}").json()
    assert (read["note"], read["queue"], read["image"]) == ("Not me.", "report", image)
    done = reviewer.decide(review, "remove", reason="another_person", clause="7.1", note="Right.")
    assert done.status_code == 200, done.text
    [decision] = done.json()["decisions"]
    assert (decision["clause"], decision["note"], decision["is_final"]) == ("7.1", "Right.", True)
    assert house.ask("GET", f"/v1/images/{image}").status_code == 404
    decided = reviewer.ask("GET", "/v1/reviews", params={"queue": "report", "state": "decided"})
    assert [one["id"] for one in decided.json()["data"]] == [review]


def test_pages_of_reviews_go_on_where_the_last_one_ended(house: House) -> None:
    ids = [reported(house)[0] for _ in range(3)]
    reviewer = Reviewer(house)
    words = {"queue": "report", "limit": 2}
    first = reviewer.ask("GET", "/v1/reviews", params=words).json()
    rest = reviewer.ask("GET", "/v1/reviews", params={**words, "before": first["last_id"]}).json()
    assert [one["id"] for one in first["data"] + rest["data"]] == ids
    assert (first["has_more"], rest["has_more"]) == (True, False)
    queues = reviewer.ask("GET", "/v1/review_queues").json()["data"]
    assert {one["queue"]: one["waiting"] for one in queues}["report"] == 3


@pytest.mark.parametrize(
    ("words", "param"),
    [
        ({"ruling": "burn"}, "ruling"),
        ({"reason": "mood"}, "reason"),
        ({"clause": "x" * 20}, "clause"),
    ],
)
def test_a_decision_with_unknown_words_is_refused(
    house: House, words: dict[str, str], param: str
) -> None:
    review, _ = reported(house)
    body = {"ruling": "leave", "reason": "cannot_tell", "clause": "9.1", **words}
    refused = Reviewer(house).ask("POST", f"/v1/reviews/{review}/decisions", json=body)
    assert (refused.status_code, refused.json()["error"]["param"]) == (422, param)


def test_an_appeal_goes_to_somebody_else(house: House) -> None:
    review, image = reported(house)
    first, second = two(house)
    first.decide(review, "remove")
    body = {"image": image, "note": "It is me."}
    appeal = house.ask("POST", "/v1/appeals", json=body).json()["decisions"][0]
    refused = first.decide(appeal["id"], "release")
    assert (refused.status_code, refused.json()["reason"]) == (403, "first_decider")
    assert second.decide(appeal["id"], "release").json()["state"] == "needs_second"
    third = Reviewer(house)
    assert third.decide(appeal["id"], "release").json()["ruling"] == "release"
    assert house.ask("GET", f"/v1/images/{image}/content").status_code == 200
    answer = house.ask("GET", f"/v1/appeals/{image}").json()["decisions"][0]
    assert (answer["ruling"], answer["image"]) == ("release", image)


def test_who_files_a_report_does_not_decide_it(house: House) -> None:
    house.token = house.key("admin")
    review, _ = reported(house)
    body = {"ruling": "leave", "reason": "within_policy", "clause": "9.1"}
    refused = house.ask("POST", f"/v1/reviews/{review}/decisions", json=body)
    assert (refused.status_code, refused.json()["reason"]) == (403, "own_matter")


def test_evidence_leaves_with_two_reviewers_and_is_checked_offline(
    house: House, service: Service
) -> None:
    review, image = reported(house)
    first, second = two(house)
    first.decide(review, "leave")
    place = f"/v1/reviews/{review}"
    alone = first.ask("GET", f"{place}/evidence")
    assert (alone.status_code, alone.json()["reason"]) == (403, "second_reviewer_needed")
    act = first.ask("POST", f"{place}/acts", json={"act": "export_evidence", **WHY}).json()
    assert first.ask("POST", f"/v1/review_acts/{act['id']}/approve").status_code == 403
    waiting = second.ask("GET", "/v1/review_acts").json()["data"]
    assert [one["id"] for one in waiting] == [act["id"]]
    assert second.ask("POST", f"/v1/review_acts/{act['id']}/approve").status_code == 200
    data = second.ask("GET", f"{place}/evidence").content
    found = verify_evidence(data, service.log.verifier_key)
    assert found.pictures == (f"pictures/{image}.png",) and found.entries >= 4
    assert found.about["decisions"][0]["ruling"] == "leave"
    with zipfile.ZipFile(io.BytesIO(data)) as archive:
        assert b"rainedAlgorithmicMedia" in archive.read(f"pictures/{image}.png")


def test_evidence_without_its_picture_says_so(house: House) -> None:
    review, image = reported(house)
    first, second = two(house)
    place = f"/v1/reviews/{review}"
    act = first.ask("POST", f"{place}/acts", json={"act": "export_evidence", **WHY}).json()
    second.ask("POST", f"/v1/review_acts/{act['id']}/approve")
    assert house.ask("DELETE", f"/v1/images/{image}").status_code == 204
    assert first.ask("GET", f"{place}/picture").status_code == 404
    found = verify_evidence(first.ask("GET", f"{place}/evidence").content)
    assert found.pictures == () and found.about["picture"] == "gone"


def test_a_case_shows_all_of_an_identity_to_the_two_who_agreed(
    house: House, service: Service
) -> None:
    identity = house.enrol()
    images = {one["id"] for one in house.generate(identity, n=2)["images"]}
    first, second = two(house)
    case = first.ask("POST", "/v1/cases", json={"identity": identity, **WHY}).json()
    place = f"/v1/cases/{case['id']}"
    assert case["number"] and first.ask("GET", place).status_code == 403
    second.ask("POST", f"/v1/review_acts/{case['id']}/approve")
    found = first.ask("GET", place).json()
    assert {one["id"] for one in found["pictures"]} == images
    assert len(found["generations"]) == 1 and found["entries"]
    assert Reviewer(house).ask("GET", place).status_code == 403  # not one of the two
    shown = first.ask("GET", found["pictures"][0]["url"])
    assert shown.status_code == 200 and b"rainedAlgorithmicMedia" in shown.content
    act = {"act": "export_evidence", **WHY}
    export = first.ask("POST", f"{place}/evidence", json=act).json()
    second.ask("POST", f"/v1/review_acts/{export['id']}/approve")
    data = first.ask("GET", f"{place}/evidence")
    assert data.status_code == 200, data.text
    assert len(verify_evidence(data.content, service.log.verifier_key).pictures) == 2


def test_a_look_into_a_case_of_somebody_erased_finds_nothing(house: House) -> None:
    identity = house.enrol()
    first, second = two(house)
    case = first.ask("POST", "/v1/cases", json={"identity": identity, **WHY}).json()
    second.ask("POST", f"/v1/review_acts/{case['id']}/approve")
    assert house.ask("DELETE", f"/v1/identities/{identity}").status_code in (200, 204)
    assert first.ask("GET", f"/v1/cases/{case['id']}").status_code == 404
