from __future__ import annotations

from datetime import timedelta
from typing import Any

import pytest

from imagine.core import Identity
from imagine.service import admission
from imagine.service.loaded_models import LoadedModels
from imagine.storage.database import utc_now
from tests.service.camera import Clock, camera, frame, frames
from tests.service.conftest import House, MakeHouse, selfie

__all__ = ["camera"]
pytestmark = pytest.mark.usefixtures("camera")


@pytest.fixture
def clock(house: House, monkeypatch: pytest.MonkeyPatch) -> Clock:
    clock = Clock(utc_now())
    monkeypatch.setattr(house.service.standings, "_clock", clock)
    return clock


def begin(house: House, identity: str) -> dict[str, Any]:
    answer = house.ask("POST", f"/v1/identities/{identity}/challenges")
    assert answer.status_code == 201
    told: dict[str, Any] = answer.json()
    return told


def send(
    house: House, identity: str, challenge: dict[str, Any], taken: list[bytes], nonce: str = ""
) -> Any:
    files = [("frames", ("f.png", one, "image/png")) for one in taken]
    path = f"/v1/identities/{identity}/challenges/{challenge['id']}"
    return house.ask("POST", path, files=files, data={"nonce": nonce or challenge["nonce"]})


def test_following_the_poses_verifies_the_identity(house: House, clock: Clock) -> None:
    identity = house.enrol()
    assert house.ask("GET", f"/v1/identities/{identity}").json()["verification"] == "unverified"
    assert house.service.standings.sample_rate(house.tenant_id, identity) == 1.0
    challenge = begin(house, identity)
    assert challenge["poses"][0] == challenge["poses"][-1] == "ahead"
    clock.now += timedelta(seconds=20)
    told = send(house, identity, challenge, frames(challenge["poses"])).json()
    assert (told["status"], told["verification"]) == ("passed", "verified"), told
    assert house.ask("GET", f"/v1/identities/{identity}").json()["verification"] == "verified"
    assert house.service.standings.sample_rate(house.tenant_id, identity) == 0.01


def test_a_check_is_answered_once_and_only_with_its_nonce(house: House, clock: Clock) -> None:
    identity = house.enrol()
    challenge = begin(house, identity)
    clock.now += timedelta(seconds=20)
    taken = frames(challenge["poses"])
    assert send(house, identity, challenge, taken, nonce="0" * 32).status_code == 404
    assert send(house, identity, challenge, taken[:6]).json()["code"] == "unfinished"
    replayed = send(house, identity, challenge, taken)
    assert replayed.status_code == 404 and "not open" in replayed.json()["detail"]


def test_a_new_check_voids_the_old_one(house: House, clock: Clock) -> None:
    identity = house.enrol()
    old, new = begin(house, identity), begin(house, identity)
    clock.now += timedelta(seconds=20)
    assert send(house, identity, old, frames(old["poses"])).status_code == 404
    assert send(house, identity, new, frames(new["poses"])).json()["status"] == "passed"


@pytest.mark.parametrize(
    ("poses", "person", "seconds", "code"),
    [
        (None, 3, 20, "not_the_uploads"),
        (None, 0, 300, "late"),
        (None, 0, 0.5, "unfinished wrong_way"),  # which of them, the turns decide
        (["ahead"] * 20, 0, 20, "unfinished"),
        (["left", "right"] * 5, 0, 20, "wrong_way"),
    ],
)
def test_an_answer_that_does_not_hold_leaves_the_identity_unverified(
    house: House, clock: Clock, poses: list[str] | None, person: int, seconds: float, code: str
) -> None:
    identity = house.enrol()
    challenge = begin(house, identity)
    if poses and poses[0] == "left":  # go the other way than asked
        poses = ["ahead", "right" if challenge["poses"][1] == "left" else "left"]
    clock.now += timedelta(seconds=seconds)
    told = send(house, identity, challenge, frames(poses or challenge["poses"], person)).json()
    assert told["status"] == "failed" and told["code"] in code.split()
    assert told["verification"] == "unverified" and told["words"]


def test_a_deck_of_photos_is_seen_at_the_jump(house: House, clock: Clock) -> None:
    identity = house.enrol()
    challenge = begin(house, identity)
    clock.now += timedelta(seconds=20)
    yaws = {"ahead": 0.0, "left": 25.0, "right": -25.0}
    deck = [frame(yaws[pose]) for pose in challenge["poses"]]
    assert send(house, identity, challenge, deck).json()["code"] == "jump"


@pytest.mark.parametrize(
    "taken",
    [[frame(0)] * 2, [frame(0)] * (admission.MAX_FRAMES + 1), [frame(0)] * 5 + [b"\0" * 400_000]],
)
def test_an_answer_of_the_wrong_size_uses_nothing_up(
    house: House, clock: Clock, taken: list[bytes]
) -> None:
    identity = house.enrol()
    challenge = begin(house, identity)
    refused = send(house, identity, challenge, taken)
    assert refused.status_code == 422 and refused.json()["error"]["param"] == "frames"
    clock.now += timedelta(seconds=20)
    assert send(house, identity, challenge, frames(challenge["poses"])).json()["status"] == "passed"


def test_frames_that_are_no_pictures_are_refused_by_number(house: House, clock: Clock) -> None:
    identity = house.enrol()
    challenge = begin(house, identity)
    clock.now += timedelta(seconds=20)
    refused = send(house, identity, challenge, [*[frame(0)] * 5, b"not a picture"])
    assert refused.status_code == 422 and "Frame 6" in refused.json()["detail"]


def test_erasing_somebody_takes_their_standing_along(house: House, clock: Clock) -> None:
    identity = house.enrol()
    begin(house, identity)
    house.generate(identity)
    certificate = house.ask("DELETE", f"/v1/identities/{identity}").json()["certificate"]
    assert certificate["certificate"]["counts"]["standings"] == 2  # the check and today's count
    assert house.service.standings.forget(house.tenant_id, identity) == 0


# Rules at the door


def young(self: LoadedModels, face: Identity) -> list[float]:
    return [31.0, 21.0]


def test_a_young_looking_face_waits_until_a_reviewer_cleared_it(
    make_house: MakeHouse, monkeypatch: pytest.MonkeyPatch
) -> None:
    house = make_house("admin")
    monkeypatch.setattr(LoadedModels, "apparent_ages", young)
    told = house.post_photos([selfie(0), selfie(0, 1)]).json()
    assert told["waits_for_review"] is True
    wish = {"prompt": "in a forest", "identity": told["id"]}
    refused = house.ask("POST", "/v1/generations", json=wish)
    assert (refused.status_code, refused.json()["error"]["code"]) == (403, "review_pending")
    assert house.service.standings.waiting(house.tenant_id) == [(house.tenant_id, told["id"])]
    user = {"Authorization": f"Bearer {house.key('user')}"}
    path = f"/v1/identities/{told['id']}/clearance"
    assert house.ask("POST", path, headers=user).status_code == 403
    assert house.ask("POST", path).json()["waits_for_review"] is False
    assert house.ask("POST", "/v1/generations", json=wish).status_code in (200, 201, 202)


@pytest.mark.parametrize(
    ("field", "most"), [("unverified_pictures_per_day", 3), ("one_shot_pictures_per_day", 2)]
)
def test_the_numbers_of_a_day_come_from_the_settings(field: str, most: int) -> None:
    from imagine.service.settings import ServiceSettings

    environment = {f"IMAGINE_SERVICE_{field.upper()}": str(most)}
    assert getattr(ServiceSettings.from_environment(environment), field) == most


def test_an_unverified_identity_has_fewer_pictures_a_day_than_a_verified_one(
    house: House, clock: Clock, monkeypatch: pytest.MonkeyPatch
) -> None:
    from dataclasses import replace

    from imagine.safety.enrolment import Allowance

    rules = house.service.admission._rules
    few = replace(rules, unverified=Allowance(2, 1.0), verified=Allowance(5, 0.01))
    monkeypatch.setattr(house.service.admission, "_rules", few)
    identity = house.enrol()
    wish = {"prompt": "in a forest", "identity": identity, "n": 2}
    assert house.ask("POST", "/v1/generations", json=wish).status_code < 300
    refused = house.ask("POST", "/v1/generations", json={**wish, "n": 1})
    assert refused.status_code == 429 and "camera check" in refused.json()["detail"]
    assert 0 < int(refused.headers["Retry-After"]) <= 86_400
    challenge = begin(house, identity)
    clock.now += timedelta(seconds=20)
    send(house, identity, challenge, frames(challenge["poses"]))
    assert house.ask("POST", "/v1/generations", json=wish).status_code < 300
    clock.now += timedelta(days=1)
    assert house.ask("POST", "/v1/generations", json={**wish, "n": 5}).status_code < 300


def test_a_request_that_is_repeated_counts_once(house: House) -> None:
    identity = house.enrol()
    wish = {"prompt": "in a forest", "identity": identity}
    key = {"Idempotency-Key": "once", "Prefer": "wait=20"}
    for _ in range(2):
        assert house.ask("POST", "/v1/generations", json=wish, headers=key).status_code == 200
    assert house.service.standings.take_pictures(house.tenant_id, identity, 1, 2)
    assert not house.service.standings.take_pictures(house.tenant_id, identity, 1, 2)
