from __future__ import annotations

import logging
from datetime import timedelta
from io import BytesIO
from typing import Any

import numpy as np
import pytest
from PIL import Image

from imagine.core import Request
from imagine.errors import DatabaseUnusable, PictureWithheld
from imagine.pipeline import Audience, Candidate, make_pictures
from imagine.safety import CheckReport, Outcome, Thresholds, Verdict
from imagine.service import worker as worker_module
from imagine.service.oversight import Oversight, blurred, looks_of, pixels_of
from imagine.service.wiring import Service
from imagine.storage.database import utc_now
from imagine.storage.takedowns import Notice
from tests.service.conftest import House, MakeHouse
from tests.service.reviewing import Reviewer, two

NOTICE = Notice("Ann", "ann@example.org", "That is me.", "", True)


def report_of(check: str, outcome: Outcome) -> CheckReport:
    passed = Verdict("expected_faces", Outcome.PASS, 0.0, Thresholds(1, 2), "Fine.")
    return CheckReport(
        (passed, Verdict(check, outcome, 0.9, Thresholds(0.1, 0.2), "It shows too much."))
    )


def queued(reviewer: Reviewer) -> list[dict[str, Any]]:
    """What is looked at of what left: doubtful pictures, as the doubles draw them, or samples."""
    return reviewer.reviews("borderline") + reviewer.reviews("random")


@pytest.fixture
def blocking(monkeypatch: pytest.MonkeyPatch) -> None:
    """Every picture is blocked by the age check."""

    def nothing_leaves(wish: Any, face: Any, tools: Any, audience: Audience, *more: Any) -> Any:
        for picture in make_pictures(wish, face, tools, Audience(), *more):
            request = Request(wish.prompt, None, wish.seed, 4, 2.0, 0.7)
            candidate = Candidate(picture.marked.pixels, request, picture.verdict, None)
            audience.withheld(candidate, report_of("apparent_minors", Outcome.BLOCK))
        raise PictureWithheld("Nothing was handed out.")

    monkeypatch.setattr(worker_module, "make_pictures", nothing_leaves)


def test_what_is_blocked_gravely_is_always_looked_at_and_can_be_appealed(
    house: House, blocking: None
) -> None:
    wish = house.generate(house.enrol(), n=2)
    assert wish["status"] == "blocked" and wish["images"] == []
    waiting = Reviewer(house).reviews("blocked")
    assert [one["reason"] for one in waiting] == ["apparent_minors"] * 2
    assert {one["generation"] for one in waiting} == {wish["id"]}
    assert all(one["is_withheld"] and one["needs_two_to_open"] for one in waiting)
    appeal = house.ask("POST", "/v1/appeals", json={"generation": wish["id"], "note": "Why?"})
    assert appeal.status_code == 201 and len(appeal.json()["decisions"]) == 2
    again = house.ask("POST", "/v1/appeals", json={"generation": wish["id"]})
    assert again.json() == appeal.json()
    assert house.ask("GET", f"/v1/appeals/{wish['id']}").json() == appeal.json()


def test_an_erasure_takes_the_withheld_pictures_along(
    house: House, service: Service, blocking: None
) -> None:
    identity = house.enrol()
    wish = house.generate(identity)
    folder = service.limits.data_directory / "blobs" / house.tenant_id
    assert len(list(folder.rglob("withheld/*"))) == 1
    assert house.ask("DELETE", f"/v1/identities/{identity}").status_code == 200
    assert [path for path in folder.rglob("*") if path.is_file()] == []
    assert Reviewer(house).reviews("blocked") == []
    assert service.reviews.withheld_of(house.tenant_id, wish["id"]) == []


def test_a_blocked_picture_is_handed_out_when_two_reviewers_agree(
    house: House, blocking: None
) -> None:
    identity = house.enrol(consent_purposes=["generate", "review"])
    wish = house.generate(identity)
    first, second = two(house)
    [review] = first.reviews("blocked")
    assert first.decide(review["id"], "release").json()["state"] == "needs_second"
    alone = first.decide(review["id"], "release")
    assert (alone.status_code, alone.json()["reason"]) == (403, "same_reviewer")
    done = second.decide(review["id"], "release").json()
    assert (done["state"], done["is_withheld"]) == ("decided", False)
    late = first.decide(review["id"], "leave")
    assert (late.status_code, late.json()["reason"]) == (409, "already_decided")
    content = house.ask("GET", f"/v1/images/{done['image']}/content")
    assert content.status_code == 200 and b"rainedAlgorithmicMedia" in content.content
    facts = house.ask("GET", f"/v1/images/{done['image']}").json()
    assert facts["generation"] == wish["id"]


def test_everything_of_unverified_identities_is_queued_and_hardly_anything_of_others(
    house: House, service: Service, monkeypatch: pytest.MonkeyPatch
) -> None:
    identity = house.enrol()
    wish = house.generate(identity, n=2)
    job = service.jobs.get(house.tenant_id, wish["id"])
    fine = report_of("nudity", Outcome.PASS)
    made = {image["id"]: fine for image in wish["images"]}
    monkeypatch.setattr(service.oversight, "_draw", lambda: 0.5)
    service.oversight.queue(service.oversight.sample(job, made))
    sampled = Reviewer(house).reviews("random")
    assert [one["image"] for one in sampled] == list(made)
    assert {one["reason"] for one in sampled} == {"sampled"}
    service.standings.verify(house.tenant_id, identity)
    assert service.standings.sample_rate(house.tenant_id, identity) == 0.01
    service.oversight.queue(service.oversight.sample(job, made))
    assert len(Reviewer(house).reviews("random")) == 2


def test_a_doubtful_picture_that_leaves_is_borderline(house: House, service: Service) -> None:
    wish = house.generate(house.enrol())
    job = service.jobs.get(house.tenant_id, wish["id"])
    doubtful = report_of("person_match", Outcome.REVIEW)
    made = {wish["images"][0]["id"]: doubtful}
    service.oversight.queue(service.oversight.sample(job, made))
    review = Reviewer(house).reviews("borderline")[-1]
    assert review["reason"] == "person_match" and not review["needs_two_to_open"]
    assert review["checks"]["checks"]["person_match"]["score"] == 0.9


def test_a_sample_that_fails_costs_the_sample_and_never_the_job(
    house: House,
    service: Service,
    monkeypatch: pytest.MonkeyPatch,
    caplog: pytest.LogCaptureFixture,
) -> None:
    def broken(tenant: str, identity: str) -> float:
        raise ZeroDivisionError("a canary")

    monkeypatch.setattr(service.oversight, "_sample_rate", broken)
    with caplog.at_level(logging.ERROR):
        assert house.generate(house.enrol())["status"] == "succeeded"
    assert "was not sampled: ZeroDivisionError" in caplog.text and "canary" not in caplog.text


def test_a_storage_that_is_away_makes_the_job_wait_and_loses_nothing(
    house: House, service: Service, blocking: None, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(worker_module, "_RETRY", timedelta(0))
    plain, left = service.reviews.add_all, [DatabaseUnusable("away")]

    def sometimes(*words: Any) -> Any:
        if left:
            raise left.pop()
        return plain(*words)

    monkeypatch.setattr(service.reviews, "add_all", sometimes)
    wish = house.generate(house.enrol())
    assert wish["status"] == "blocked" and left == []
    assert len(Reviewer(house).reviews("blocked")) == 1
    assert len(service.reviews.withheld_of(house.tenant_id, wish["id"])) == 1


def test_what_a_reviewer_sees_first_is_grey_and_shows_no_face() -> None:
    noise = np.random.default_rng(7).integers(0, 256, (96, 128, 3), dtype=np.uint8)
    soft = blurred(noise)
    assert soft.shape == noise.shape and soft.dtype == np.uint8
    assert (soft[..., 0] == soft[..., 1]).all() and (soft[..., 1] == soft[..., 2]).all()
    assert np.abs(np.diff(soft[..., 0].astype(int), axis=1)).max() <= 8


def test_every_rendition_is_marked(house: House, service: Service) -> None:
    ticks = ["generate", "review"]
    wish = house.generate(house.enrol(consent_purposes=ticks))
    reviewer = Reviewer(house)
    [review] = queued(reviewer)
    place = f"/v1/reviews/{review['id']}/picture"
    first, clear = reviewer.ask("GET", place), reviewer.ask("GET", f"{place}/clear")
    assert (first.status_code, clear.status_code) == (200, 200)
    for answer in (first, clear):
        assert b"rainedAlgorithmicMedia" in answer.content
    seen = pixels_of(first.content).astype(int)
    assert np.abs(seen[..., 0] - seen[..., 2]).max() <= 2
    assert clear.content == house.ask("GET", wish["images"][0]["urls"]["content"]).content
    kinds = [
        entry.facts["details"].get("rendition")
        for entry in service.log.entries_about(house.tenant_id, wish["identity"])
        if entry.facts["kind"] == "review.opened"
    ]
    assert kinds == ["blurred", "clear"]


def test_a_sample_of_somebody_who_did_not_agree_shows_figures_only(house: House) -> None:
    house.generate(house.enrol())
    reviewer = Reviewer(house)
    [review] = queued(reviewer)
    refused = reviewer.ask("GET", f"/v1/reviews/{review['id']}/picture")
    assert (refused.status_code, refused.json()["error"]["code"]) == (403, "consent_missing")


def _reported(house: House, image: str) -> str:
    body = {"image": image, "reason": "another_person"}
    report = house.ask("POST", "/v1/reports", json=body)
    assert report.status_code == 201, report.text
    review: str = report.json()["decisions"][0]["id"]
    return review


def test_a_sweep_finds_and_removes_what_looks_the_same(house: House, make_house: MakeHouse) -> None:
    identity, other = house.enrol(), make_house()
    pictures = [house.generate(identity, seed=11)["images"][0]["id"] for _ in range(2)]
    theirs = other.generate(other.enrol(), seed=11)["images"][0]["id"]
    reviewer = Reviewer(house)
    review = _reported(house, pictures[0])
    sweep = f"/v1/reviews/{review}/sweep"
    early = reviewer.ask("POST", sweep, json={"remove": True})
    assert (early.status_code, early.json()["reason"]) == (403, "not_decided")
    reviewer.decide(review, "remove", reason="another_person", clause="7.1")
    assert house.ask("GET", f"/v1/images/{pictures[0]}/content").status_code == 404
    found = reviewer.ask("POST", sweep, json={"remove": True}).json()
    assert (found["found"], found["removed"]) == (1, 1)
    assert found["reviews"][0]["image"] == pictures[1]
    assert house.ask("GET", f"/v1/images/{pictures[1]}/content").status_code == 404
    assert other.ask("GET", f"/v1/images/{theirs}/content").status_code == 200
    assert "near_duplicate" not in {one["reason"] for one in queued(Reviewer(other))}
    appeal = house.ask("POST", "/v1/appeals", json={"image": pictures[1]})
    assert appeal.status_code == 201


def test_a_notice_finds_its_picture_by_a_copy_that_was_saved_anew_and_turned(
    house: House, service: Service
) -> None:
    wish = house.generate(house.enrol(), seed=23)
    image = wish["images"][0]
    stored = pixels_of(house.ask("GET", image["urls"]["content"]).content)
    buffer = BytesIO()
    Image.fromarray(np.rot90(stored).copy()).save(buffer, "JPEG", quality=80)
    takedown = service.oversight.file_takedown(NOTICE, buffer.getvalue())
    found = service.reviews.find(house.tenant_id, takedown_id=takedown.id)
    assert image["id"] in [review.image_id for review in found]


def test_near_duplicates_of_a_noticed_picture_reach_the_reviewers_of_their_tenants(
    house: House, make_house: MakeHouse, service: Service
) -> None:
    other = make_house()
    mine = house.generate(house.enrol(), seed=37)["images"][0]["id"]
    theirs = other.generate(other.enrol(), seed=37)["images"][0]["id"]
    notice = Notice("Ann", "ann@example.org", "Me.", f"see {mine}", True)
    takedown = service.oversight.file_takedown(notice)
    [review] = service.reviews.find(house.tenant_id, takedown_id=takedown.id)
    found = service.oversight.sweep(house.tenant_id, review.id, "key_a")
    assert found.queued == ()  # nothing is told of other tenants
    [alike] = service.reviews.find(other.tenant_id, takedown_id=takedown.id)
    assert (alike.image_id, alike.due_at) == (theirs, takedown.due_at)


def test_pictures_of_notices_nobody_answers_in_48_hours_are_withheld(
    house: House, service: Service, monkeypatch: pytest.MonkeyPatch
) -> None:
    image = house.generate(house.enrol())["images"][0]["id"]
    notice = Notice("Ann", "ann@example.org", "Me.", image, True)
    takedown = service.oversight.file_takedown(notice)
    monkeypatch.setattr(service.reviews, "_clock", lambda: utc_now() + timedelta(hours=47))
    service.oversight.keep_time()
    assert house.ask("GET", f"/v1/images/{image}/content").status_code == 200
    monkeypatch.setattr(service.reviews, "_clock", lambda: utc_now() + timedelta(hours=49))
    assert service.oversight.keep_time() >= 1
    assert house.ask("GET", f"/v1/images/{image}/content").status_code == 404
    assert service.takedowns.locate(takedown.id).removed == 1
    assert service.oversight.keep_time() == 0


def test_a_plain_picture_has_no_looks_to_be_found_by() -> None:
    assert looks_of(np.full((256, 256, 3), 90, np.uint8)) is None
    drawn = np.random.default_rng(1).integers(0, 256, (8, 8, 3), dtype=np.uint8)
    assert looks_of(np.kron(drawn, np.ones((32, 32, 1), np.uint8))) is not None


def test_the_shares_decide_what_is_queued(service: Service) -> None:
    facts: dict[str, Any] = {"blocked_share": 0.5, "borderline_share": 0.0}
    oversight = service.oversight
    asked = Oversight(_stores(oversight), oversight._mark, service.limits, **facts)
    assert [asked._shares[queue] for queue in sorted(asked._shares)] == [0.5, 0.0]


def _stores(oversight: Oversight) -> Any:
    from imagine.service.oversight import Stores

    return Stores(
        oversight._reviews,
        oversight._takedowns,
        oversight._cases,
        oversight._evidence,
        oversight._jobs,
        oversight._log,
    )
