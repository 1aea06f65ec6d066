from __future__ import annotations

from typing import Any

import pytest

from imagine.errors import NoFaceFound
from tests.service.conftest import CONSENT, House, blank, selfie


def add(house: House, identity: str, photos: list[bytes], **more: Any) -> Any:
    files = [("photos", (f"{i}.jpg", photo, "image/jpeg")) for i, photo in enumerate(photos)]
    headers = more.pop("headers", {})
    data = {**CONSENT, **more}
    path = f"/v1/identities/{identity}/photos"
    return house.ask("POST", path, files=files, data=data, headers=headers)


def test_more_photos_make_the_next_version_and_the_old_one_stays(house: House) -> None:
    first = house.enrol(name="Ada")
    answer = add(house, first, [selfie(0, 2)])
    told = answer.json()
    assert (answer.status_code, told["version"], told["name"]) == (201, 2, "Ada")
    assert len(told["photos"]) == 3  # two from before
    for identity in (first, told["id"]):
        assert house.generate(identity)["status"] == "succeeded"
    (person,) = house.ask("GET", "/v1/people").json()["data"]
    assert person["id"] == told["person_id"]
    assert (person["identity"], person["identities"]) == (told["id"], [told["id"], first])
    assert house.ask("GET", f"/v1/people/{person['id']}").json() == person


def test_the_oldest_photos_are_left_out_where_there_are_too_many(house: House) -> None:
    first = house.enrol()
    told = add(house, first, [selfie(0, take) for take in range(4)]).json()
    assert len(told["photos"]) == 5


def test_photos_of_somebody_else_are_refused_and_nothing_is_kept(house: House) -> None:
    first = house.enrol(0)
    for photos, code in (([selfie(1)], "different_people"), ([blank()], "no_face_found")):
        answer = add(house, first, photos)
        assert (answer.status_code, answer.json()["error"]["code"]) == (422, code)
    assert [one["id"] for one in house.ask("GET", "/v1/identities").json()["data"]] == [first]


def test_a_person_who_took_their_consent_back_gets_no_next_version(house: House) -> None:
    first = house.enrol()
    house.ask("POST", f"/v1/identities/{first}/withdraw")
    answer = add(house, first, [selfie(0, 2)])
    assert (answer.status_code, answer.json()["error"]["code"]) == (403, "consent_missing")


def test_an_enrolment_that_is_sent_twice_enrols_once(house: House) -> None:
    photos = [selfie(0), selfie(0, 1)]
    files = [("photos", (f"{i}.jpg", photo, "image/jpeg")) for i, photo in enumerate(photos)]
    words: dict[str, Any] = {"files": files, "data": CONSENT, "headers": {"Idempotency-Key": "a"}}
    first, again = (house.ask("POST", "/v1/identities", **words) for _ in range(2))
    assert first.status_code == again.status_code == 201
    assert first.json()["id"] == again.json()["id"]
    assert again.headers["idempotent-replayed"] == "true"
    words["files"] = files[:1]
    other = house.ask("POST", "/v1/identities", **words)
    assert (other.status_code, other.json()["error"]["code"]) == (422, "idempotency_conflict")
    assert len(house.ask("GET", "/v1/identities").json()["data"]) == 1


def test_an_enrolment_that_is_still_worked_on_is_409(
    house: House, monkeypatch: pytest.MonkeyPatch
) -> None:
    seen: list[Any] = []
    headers = {"Idempotency-Key": "a"}
    files = [("photos", ("a.jpg", selfie(), "image/jpeg"))]

    def enrol(*words: Any) -> Any:
        monkeypatch.undo()
        seen.append(house.ask("POST", "/v1/identities", files=files, data=CONSENT, headers=headers))
        raise NoFaceFound("No face.")

    monkeypatch.setattr(house.service.enrolment, "enrol", enrol)
    refused = house.ask("POST", "/v1/identities", files=files, data=CONSENT, headers=headers)
    assert refused.json()["error"]["code"] == "no_face_found"
    assert (seen[0].status_code, seen[0].json()["error"]["code"]) == (409, "request_in_progress")
    # What made nothing may be tried again under its name.
    again = house.ask("POST", "/v1/identities", files=files, data=CONSENT, headers=headers)
    assert again.status_code == 201


def test_an_erased_person_frees_the_name_of_their_enrolment(house: House) -> None:
    files = [("photos", ("a.jpg", selfie(), "image/jpeg"))]
    words: dict[str, Any] = {"files": files, "data": CONSENT, "headers": {"Idempotency-Key": "a"}}
    first = house.ask("POST", "/v1/identities", **words).json()["id"]
    house.ask("DELETE", f"/v1/identities/{first}")
    assert house.ask("POST", "/v1/identities", **words).json()["id"] != first


def token(house: House, text: str = CONSENT["consent_text"]) -> str:
    answer = house.ask("POST", "/v1/consent_tokens", json={"text": text})
    assert answer.status_code == 201
    issued: str = answer.json()["token"]
    return issued


def test_a_consent_token_is_good_for_one_enrolment(house: House) -> None:
    issued = token(house)
    assert house.post_photos([blank()], consent_token=issued).status_code == 422
    assert house.post_photos([selfie()], consent_token=issued).status_code == 201
    replayed = house.post_photos([selfie()], consent_token=issued)
    assert (replayed.status_code, replayed.json()["error"]["code"]) == (422, "consent_token_used")
    for wrong in ("ict_nonsense", token(house, "Another text.")):
        refused = house.post_photos([selfie()], consent_token=wrong)
        assert refused.json()["error"]["code"] == "consent_token_invalid"
    assert len(house.ask("GET", "/v1/identities").json()["data"]) == 1


def test_a_consent_by_itself_takes_a_token_too(house: House) -> None:
    identity, issued = house.enrol(), token(house, "I agree.")
    body = {
        "text": "I agree.",
        "purposes": ["review"],
        "declared_adult": True,
        "declared_self": True,
        "token": issued,
    }
    path = f"/v1/identities/{identity}/consents"
    answers = [house.ask("POST", path, json=body) for _ in range(2)]
    assert [one.status_code for one in answers] == [201, 422]
    assert answers[1].json()["error"]["code"] == "consent_token_used"


def test_where_a_token_is_wanted_none_is_refused_by_name(
    house: House, monkeypatch: pytest.MonkeyPatch
) -> None:
    from dataclasses import replace

    strict = replace(house.service.settings, needs_consent_token=True)
    monkeypatch.setattr(house.service, "settings", strict)
    refused = house.post_photos([selfie()])
    assert (refused.status_code, refused.json()["error"]["param"]) == (422, "consent_token")
    assert house.post_photos([selfie()], consent_token=token(house)).status_code == 201


def test_withdrawing_stops_what_waits_and_freezes_at_once(house: House) -> None:
    identity = house.enrol()
    told = house.ask("POST", f"/v1/identities/{identity}/withdraw").json()
    assert told["state"] == "frozen"
    wish = {"prompt": "in a forest", "identity": identity}
    assert house.ask("POST", "/v1/generations", json=wish).status_code == 403
    again = house.ask("POST", f"/v1/identities/{identity}/withdraw")
    assert again.status_code == 200
