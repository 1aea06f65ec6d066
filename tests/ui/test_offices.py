"""The pages around the studio without a browser: who sees what, and what a press does."""

from __future__ import annotations

import io
import re
import zipfile
from datetime import timedelta
from html import unescape
from pathlib import Path

import pytest

pytest.importorskip("gradio", reason="needs the extra ui: pip install -e '.[ui]'")

from PIL import Image
from starlette.testclient import TestClient

from imagine.service.auth import Caller, scopes_of
from imagine.service.wiring import Service
from imagine.storage.jobs import JobRow
from imagine.storage.reviews import NewReview, Queue, ReviewState, Withheld
from imagine.ui import routes
from imagine.ui.remote import RemoteStudio, RemoteStudios
from imagine.ui.sessions import COOKIE
from imagine.ui.studio import Consent, OpenWish, Stage
from imagine.ui.together import OneAddress, create_app
from tests.ui.conftest import AGREED, selfie
from tests.ui.house import make_key, make_service, until

NUDE = {"outcome": "block", "checks": {"nudity": {"outcome": "block", "score": 0.93}}}
CALM = {"outcome": "pass", "checks": {"nudity": {"outcome": "pass", "score": 0.01}}}


class Guest:
    """Somebody with a browser of their own, signed in with a key."""

    def __init__(self, app: OneAddress, service: Service, tenant: str, role: str) -> None:
        self.service = service
        self.http = TestClient(app, base_url="http://testserver", follow_redirects=False)
        self.token = make_key(service, tenant, role)
        self.account = f"key_{self.token.split('_')[1]}"
        self.tenant = tenant
        self.role = role
        answer = self.http.post("/sign-in", data={"key": self.token})
        assert answer.status_code == 303, answer.text

    @property
    def studio(self) -> RemoteStudio:
        caller = Caller(self.tenant, self.account, scopes_of(self.role))
        return RemoteStudios(self.service).open_for(caller)

    def read(self, path: str) -> str:
        answer = self.http.get(path)
        assert answer.status_code == 200, answer.text
        return unescape(answer.text)

    def enrol_and_draw(self, prompt: str = "in a forest") -> str:
        """A finished picture; returns its id."""
        studio = self.studio
        studio.add_photo(selfie(), "me.jpg")
        agreed = Consent(AGREED.statements, "en", AGREED.given_at, frozenset({"review"}))
        studio.enrol("Ada", agreed)
        studio.draw(OpenWish(prompt, num_inference_steps=1))
        until(lambda: (moment := studio.drawing()) and moment.is_final)
        return studio.pictures()[0].id


@pytest.fixture
def guest(app: OneAddress, service: Service, request: pytest.FixtureRequest) -> Guest:
    return Guest(app, service, re.sub(r"\W", "_", f"tenant_{request.node.name[-40:]}"), "user")


@pytest.fixture
def anybody(app: OneAddress) -> TestClient:
    return TestClient(app, base_url="http://testserver", follow_redirects=False)


# Signing in


def test_without_an_account_the_studio_asks_to_sign_in(anybody: TestClient) -> None:
    answer = anybody.get("/")
    assert answer.status_code == 303 and answer.headers["location"] == "/sign-in"
    assert "set-cookie" not in answer.headers
    assert anybody.post("/private/session").json()["known"] is False
    assert anybody.get("/private/pictures/image_1").status_code == 404


def test_a_wrong_key_is_refused_in_words(anybody: TestClient) -> None:
    wrong = f"imk_{'0' * 16}_{'a' * 43}"
    answer = anybody.post("/sign-in", data={"key": wrong})
    assert answer.status_code == 401 and "not known" in answer.text and wrong not in answer.text
    assert "set-cookie" not in answer.headers


def test_the_cookie_is_out_of_reach_of_scripts_and_other_sites(
    anybody: TestClient, service: Service
) -> None:
    answer = anybody.post("/sign-in", data={"key": make_key(service, "cookies")})
    cookie = answer.headers["set-cookie"]
    assert cookie.startswith(COOKIE) and "HttpOnly" in cookie and "SameSite=strict" in cookie
    headers = {"Origin": "http://elsewhere.example"}
    assert anybody.post("/developers/keys", headers=headers).status_code == 403


def test_signing_out_ends_the_visit(guest: Guest) -> None:
    secret = guest.http.cookies[COOKIE]
    assert guest.http.post("/sign-out").status_code == 303
    guest.http.cookies.set(COOKIE, secret)
    assert guest.http.get("/").status_code == 303


def test_revoking_a_key_ends_its_visit_at_once(guest: Guest) -> None:
    assert guest.http.get("/appeals").status_code == 200
    guest.service.api_keys.revoke(guest.tenant, guest.account.removeprefix("key_"))
    assert guest.http.get("/appeals").status_code == 403
    assert guest.http.get("/").status_code == 303


def test_a_visit_outlives_the_server(guest: Guest, service: Service) -> None:
    restarted = TestClient(create_app(service, start=False), base_url="http://testserver")
    restarted.cookies.set(COOKIE, guest.http.cookies[COOKIE])
    assert restarted.post("/private/session").json() | {"words": 0} == {
        "boot": "kept", "known": True, "photos": 0, "reports": True, "words": 0,
    }  # fmt: skip


def test_the_api_still_answers_in_its_own_way(anybody: TestClient) -> None:
    missing = anybody.get("/v1/nothing")
    assert missing.status_code == 404
    assert missing.headers["content-type"] == "application/problem+json"
    assert anybody.get("/healthz").json()["status"] == "ok"
    assert anybody.get("/v1/identities").status_code == 401


# Private things


def test_somebody_elses_picture_does_not_exist(app: OneAddress, guest: Guest) -> None:
    image = guest.enrol_and_draw()
    path = f"/private/pictures/{image}"
    shown = guest.http.get(path)
    assert shown.status_code == 200 and shown.headers["cache-control"] == "no-store"
    for stranger in (
        Guest(app, guest.service, guest.tenant, "user"),
        Guest(app, guest.service, guest.tenant, "admin"),
        Guest(app, guest.service, "other", "user"),
    ):
        assert stranger.http.get(path).status_code == 404
        told = stranger.http.get("/private/pictures.zip", params={"ids": image})
        assert told.status_code == 404
        assert stranger.http.post(f"/review/{image}/clear").status_code in (403, 404)


def test_offices_are_closed_to_those_who_have_no_business_there(
    app: OneAddress, guest: Guest, anybody: TestClient
) -> None:
    for path in ("/review", "/review/figures", "/review/audit", "/developers"):
        assert guest.http.get(path).status_code == 403
        assert anybody.get(path).status_code == 403
    nav = guest.read("/appeals")
    assert "/developers" not in nav and "/review" not in nav


@pytest.mark.parametrize("comes_back", [False, True])
def test_closing_the_page_stops_the_wish_unless_it_was_a_reload(
    guest: Guest, monkeypatch: pytest.MonkeyPatch, comes_back: bool
) -> None:
    monkeypatch.setattr(routes, "LEAVE_SECONDS", 0.5)
    studio = guest.studio
    studio.add_photo(selfie(), "me.jpg")
    studio.enrol("Ada", AGREED)
    studio.draw(OpenWish("in a forest", num_inference_steps=30))
    assert guest.http.post("/private/leave").status_code == 204
    if comes_back:
        guest.http.post("/private/session")
    until(lambda: (moment := studio.drawing()) and moment.is_final, 120)
    moment = studio.drawing()
    assert moment is not None
    assert moment.stage is (Stage.DONE if comes_back else Stage.STOPPED)


# Developers


def test_a_key_is_shown_once_works_and_can_be_revoked(app: OneAddress, service: Service) -> None:
    developer = Guest(app, service, "keys", "developer")
    made = developer.http.post(
        "/developers/keys", data={"label": "<b>nightly</b>", "role": "user", "days": "7"}
    )
    token = re.search(r"imk_[0-9a-f]{16}_[\w-]{43}", made.text)
    assert token is not None and made.headers["cache-control"] == "no-store"
    headers = {"Authorization": f"Bearer {token[0]}"}
    assert developer.http.get("/v1/identities", headers=headers).status_code == 200
    page = developer.http.get("/developers").text
    assert token[0] not in page and "&lt;b&gt;nightly" in page and "<b>nightly" not in page
    key_id = token[0].split("_")[1]
    assert developer.http.post(f"/developers/keys/{key_id}/revoke").status_code == 303
    until(lambda: developer.http.get("/v1/identities", headers=headers).status_code == 401, 10)


def test_nobody_makes_a_key_that_may_do_more_than_they(app: OneAddress, service: Service) -> None:
    developer = Guest(app, service, "modest", "developer")
    answer = developer.http.post("/developers/keys", data={"label": "x", "role": "admin"})
    assert answer.status_code == 403
    assert len(service.api_keys.of_tenant("modest")) == 1
    assert 'value="admin"' not in developer.read("/developers")


def test_another_tenants_key_cannot_be_revoked(app: OneAddress, service: Service) -> None:
    developer = Guest(app, service, "here", "developer")
    foreign = make_key(service, "there").split("_")[1]
    answer = developer.http.post(f"/developers/keys/{foreign}/revoke")
    assert answer.status_code == 404
    assert service.api_keys.of_tenant("there")[0].revoked_at is None


def test_the_reference_needs_nothing_from_elsewhere(anybody: TestClient) -> None:
    page = anybody.get("/reference")
    assert (
        "POST /v1/generations" in page.text
        and "script-src 'self';" in (page.headers["content-security-policy"])
    )
    addresses = re.findall(r'(?:src|href)="([^"]+)"', page.text)
    assert all(a.startswith(("/", "#", "data:")) for a in addresses)


# Reviewers


@pytest.fixture(scope="module")
def house(app: OneAddress, service: Service) -> tuple[Guest, Guest, Guest]:
    """Somebody with a picture, and two reviewers of the same tenant."""
    owner = Guest(app, service, "reviewed", "user")
    return owner, *(Guest(app, service, "reviewed", "reviewer") for _ in range(2))


def held_back(owner: Guest) -> tuple[str, str]:
    """A withheld picture of a wish; returns its id and that of its job."""
    facts = owner.service.people.images(owner.tenant)
    image = facts[-1]
    assert image.identity_id is not None
    buffer = io.BytesIO()
    Image.open(io.BytesIO(owner.studio.picture(image.id))).convert("RGB").save(buffer, "PNG")
    recipe = owner.studio.pictures()[0].recipe
    picture = Withheld(buffer.getvalue(), (image.width, image.height), recipe, NUDE)
    job_id = image.job_id
    assert job_id is not None
    reviews = owner.service.reviews
    return reviews.withhold(owner.tenant, image.identity_id, job_id, picture), job_id


def test_a_sampled_picture_is_veiled_then_taken_back_with_one_decision(
    house: tuple[Guest, Guest, Guest], service: Service
) -> None:
    owner, reviewer, _ = house
    image = owner.enrol_and_draw()
    review = service.reviews.add(
        NewReview("reviewed", Queue.RANDOM, "sampled", image_id=image, checks=CALM)
    )
    page = reviewer.read(f"/review/{review.id}")
    assert "Random sample" in page and f"/review/{review.id}/picture" in page
    veiled = Image.open(io.BytesIO(reviewer.http.get(f"/review/{review.id}/picture").content))
    red, green, blue = (veiled.convert("RGB").getchannel(c).getextrema() for c in "RGB")
    assert red[1] - green[1] < 12 and green[1] - blue[1] < 12  # grey, up to the file format
    clear = reviewer.http.post(f"/review/{review.id}/clear")
    assert clear.status_code == 200 and clear.headers["content-type"].startswith("image/")
    decided = reviewer.http.post(
        f"/review/{review.id}/decide",
        data={"decision": "remove|another_person|7.1", "note": "a stranger"},
    )
    assert decided.headers["location"].startswith("/review/next?said=decided")
    assert owner.studio.pictures() == ()
    assert owner.http.get(f"/private/pictures/{image}").status_code == 404
    told = reviewer.read(f"/review/{review.id}")
    assert "Decided: take it back." in told and "a stranger" in told
    kinds = [e.facts["kind"] for e in service.log.entries_about("reviewed", review.owner_id)]
    assert kinds.count("review.opened") == 2


def test_an_appeal_goes_round_and_a_release_needs_two(
    house: tuple[Guest, Guest, Guest], service: Service
) -> None:
    owner, first, second = house
    owner.enrol_and_draw("at a lake")
    _, job_id = held_back(owner)
    with service.database.writing() as session:  # as the worker notes it
        job = session.get_one(JobRow, ("reviewed", job_id))
        job.result = {**(job.result or {}), "withheld": ["It seems to show nudity."]}
    assert "It seems to show nudity." in owner.read("/appeals")
    assert first.http.post(f"/appeals/{job_id}").status_code in (303, 404)
    answer = owner.http.post(f"/appeals/{job_id}", data={"note": "It is my swimsuit."})
    assert answer.headers["location"] == "/appeals?said=taken"
    assert "has not decided yet" in owner.read("/appeals")
    (review,) = service.oversight.appeals("reviewed", job_id=job_id)
    assert "It is my swimsuit." in first.read(f"/review/{review.id}")
    data = {"decision": "release|within_policy|9.1", "queue": "appeal"}
    answer = first.http.post(f"/review/{review.id}/decide", data=data)
    assert "said=needs_second" in answer.headers["location"]
    again = first.http.post(f"/review/{review.id}/decide", data=data)
    assert again.status_code == 400
    assert "One reviewer proposed" in second.read(f"/review/{review.id}")
    answer = second.http.post(f"/review/{review.id}/decide", data=data)
    assert "said=decided" in answer.headers["location"]
    assert service.reviews.get("reviewed", review.id).state is ReviewState.DECIDED
    assert "in your gallery now" in owner.read("/appeals")
    assert len(owner.studio.pictures()) >= 2


def test_a_flagged_picture_is_seen_in_clear_only_when_two_agree(
    house: tuple[Guest, Guest, Guest], service: Service
) -> None:
    owner, first, second = house
    owner.enrol_and_draw("in the snow")
    withheld, _ = held_back(owner)
    review = service.reviews.add(
        NewReview("reviewed", Queue.BLOCKED, "nudity", withheld_id=withheld, checks=NUDE)
    )
    refused = first.http.post(f"/review/{review.id}/clear")
    assert refused.status_code == 409 and "two reviewers" in refused.json()["message"]
    first.http.post(f"/review/{review.id}/ask-clear")
    (act,) = [
        one
        for one in service.reviews.acts.find("reviewed", waiting=True)
        if one.target_id == review.id
    ]
    assert first.http.post(f"/review/approvals/{act.id}").status_code == 400
    assert "approves it" in first.read("/review/approvals")
    assert second.http.post(f"/review/approvals/{act.id}").status_code == 303
    assert first.http.post(f"/review/{review.id}/clear").status_code == 200


def test_evidence_leaves_with_two_signatures_and_can_be_checked(
    house: tuple[Guest, Guest, Guest], service: Service
) -> None:
    from imagine.storage.evidence import verify_evidence

    owner, first, second = house
    image = owner.enrol_and_draw("in a library")
    review = service.reviews.add(
        NewReview("reviewed", Queue.RANDOM, "sampled", image_id=image, checks=CALM)
    )
    path = f"/review/reviews/{review.id}/evidence"
    assert first.http.get(f"{path}.zip").status_code == 400
    first.http.post(path)
    (act,) = [
        one
        for one in service.reviews.acts.find("reviewed", waiting=True)
        if one.target_id == review.id
    ]
    second.http.post(f"/review/approvals/{act.id}")
    data = first.http.get(f"{path}.zip").content
    report = verify_evidence(data, service.log.verifier_key)
    assert len(report.pictures) == 1 and zipfile.is_zipfile(io.BytesIO(data))


def test_a_case_shows_everything_of_somebody_to_the_two_who_agreed(
    house: tuple[Guest, Guest, Guest], service: Service
) -> None:
    owner, first, second = house
    owner.enrol_and_draw("on a boat")
    person = owner.studio.person()
    assert person is not None
    data = {"identity": person.id, "reason": "not_agreed", "clause": "8.1"}
    assert first.http.post("/review/cases", data=data).status_code == 303
    case = service.cases.find("reviewed")[0]
    assert first.http.get(f"/review/cases/{case.id}").status_code == 400
    second.http.post(f"/review/approvals/{case.id}")
    page = first.read(f"/review/cases/{case.id}")
    assert f"Case {case.number}" in page and f"/review/cases/{case.id}/pictures/" in page
    shown = re.search(rf"/review/cases/{case.id}/pictures/[\w]+", page)
    assert shown is not None and first.http.get(shown[0]).status_code == 200


def test_figures_and_the_audit_log_can_be_seen_and_checked(
    house: tuple[Guest, Guest, Guest], service: Service
) -> None:
    _, reviewer, _ = house
    figures = reviewer.read("/review/figures")
    assert "skin tone: dark" in figures and "<svg" in figures
    assert "Verify every entry" in reviewer.read("/review/audit")
    checked = unescape(reviewer.http.post("/review/audit").text)
    assert re.search(r"All \d+ entries are as they were signed", checked)


# Everybody


def test_somebody_without_an_account_reports_a_picture_and_asks_what_came_of_it(
    house: tuple[Guest, Guest, Guest], anybody: TestClient, service: Service
) -> None:
    owner, reviewer, _ = house
    image = owner.enrol_and_draw("in a city")
    fields = {
        "name": "Eve", "contact": "eve@example.org", "statement": "That is me.",
        "where": image, "in_good_faith": "yes",
    }  # fmt: skip
    incomplete = anybody.post("/report", data={**fields, "in_good_faith": ""})
    assert incomplete.status_code == 400 and "eve@example.org" in incomplete.text
    taken = anybody.post("/report", data=fields)
    assert taken.status_code == 201, taken.text
    number = re.search(r"takedown_\w+", taken.text)
    assert number is not None
    status = anybody.post("/report/status", data={"number": number[0]})
    assert "being decided" in status.text
    assert anybody.post("/report/status", data={"number": "takedown_0"}).status_code == 404
    board = reviewer.read("/review/takedowns")
    assert number[0] in board and "left" in board and "eve@example.org" not in board
    contact = reviewer.http.post(f"/review/takedowns/{number[0]}/contact")
    assert "eve@example.org" in contact.text
    (review,) = service.reviews.find("reviewed", takedown_id=number[0])
    reviewer.http.post(f"/review/{review.id}/decide", data={"decision": "remove|not_agreed|8.1"})
    assert "decided" in anybody.post("/report/status", data={"number": number[0]}).text
    assert owner.http.get(f"/private/pictures/{image}").status_code == 404


def test_verifying_needs_no_account(anybody: TestClient) -> None:
    assert anybody.get("/verify").status_code == 200
    answer = anybody.post("/verify/picture", content=selfie(), headers={"X-Name": "me.jpg"})
    assert answer.status_code == 200


def test_a_sealed_recipe_is_read_to_whose_picture_it_is(app: OneAddress, service: Service) -> None:
    ada = Guest(app, service, "sealed", "user")
    picture = ada.studio.picture(ada.enrol_and_draw("in a forest at dawn"), ".webp")
    stranger = Guest(app, service, "sealed", "user")
    anybody = TestClient(app, base_url="http://testserver")

    def read_by(http: TestClient) -> str:
        answer = http.post("/verify/picture", content=picture, headers={"X-Name": "p.webp"})
        assert answer.status_code == 200
        return str(answer.json()["html"])

    assert "in a forest at dawn" in read_by(ada.http)
    for other in (stranger.http, anybody):
        assert "forest" not in read_by(other) and "not changed since" in read_by(other)


def test_a_picture_can_be_reported_from_the_gallery(
    house: tuple[Guest, Guest, Guest], service: Service
) -> None:
    owner, reviewer, _ = house
    image = owner.enrol_and_draw("in a garden")
    told = {"picture": image, "reason": "not_me", "details": "my sister"}
    answer = owner.http.post("/private/reports", json=told)
    assert answer.status_code == 200, answer.text
    assert "my sister" in reviewer.read(f"/review/{answer.json()['number']}")


def test_at_the_machine_itself_nobody_signs_in(tmp_path: Path) -> None:
    alone = make_service(tmp_path, single_user=True)
    try:
        app = create_app(alone, start=False)
        here = TestClient(app, base_url="http://127.0.0.1", client=("127.0.0.1", 5000))
        assert here.post("/private/session").status_code == 200
        assert here.post("/private/session").json()["known"] is True
        assert here.get("/review").status_code == 200
        renamed = TestClient(app, base_url="http://evil.example", client=("127.0.0.1", 5000))
        assert renamed.post("/private/session").status_code == 403
        far = TestClient(app, base_url="http://127.0.0.1", client=("10.0.0.9", 5000))
        assert far.post("/private/session").status_code == 403
    finally:
        alone.close()


def test_a_visit_ends_by_itself(service: Service) -> None:
    from imagine.storage.database import utc_now
    from imagine.storage.visits import LONGEST_PAUSE, LONGEST_VISIT, Visits

    now = [utc_now()]
    visits = Visits(service.database, lambda: now[0])
    service.people.add_tenant("clocks", "clocks")
    secret = visits.begin("clocks", "key_a", {"images:read"})
    now[0] += LONGEST_PAUSE - timedelta(minutes=1)
    assert visits.find(secret) is not None
    now[0] += LONGEST_PAUSE + timedelta(minutes=1)
    assert visits.find(secret) is None
    assert visits.find("guess") is None and LONGEST_VISIT > LONGEST_PAUSE


def test_a_webhook_tells_its_secret_once_and_keeps_a_log(app: OneAddress, service: Service) -> None:
    from imagine.storage.webhooks import EventKind

    developer = Guest(app, service, "hooks", "developer")
    inside = developer.http.post(
        "/developers/webhooks",
        data={"url": "https://127.0.0.1/hook", "event": EventKind.GENERATION_SUCCEEDED.value},
    )
    assert inside.status_code == 400 and "not public" in inside.text
    kinds = [EventKind.GENERATION_SUCCEEDED]
    endpoint, secret = service.webhooks.add("hooks", "https://hooks.example/in", kinds)
    service.webhooks.publish("hooks", EventKind.GENERATION_SUCCEEDED, {"id": "job_1"})
    page = developer.read("/developers")
    assert "https://hooks.example/in" in page and "generation.succeeded" in page
    assert secret not in page
    rotated = developer.http.post(f"/developers/webhooks/{endpoint.id}/rotate")
    assert rotated.status_code == 200 and "whsec_" in rotated.text
    assert "whsec_" not in developer.read("/developers")
    stranger = Guest(app, service, "elsewhere", "developer")
    for what in ("rotate", "disable", "delete"):
        answer = stranger.http.post(f"/developers/webhooks/{endpoint.id}/{what}")
        assert answer.status_code == 404
    assert developer.http.post(f"/developers/webhooks/{endpoint.id}/delete").status_code == 303
    assert service.webhooks.of_tenant("hooks") == []
