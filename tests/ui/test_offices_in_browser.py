"""The page of a service in a real browser: accounts, a refresh, reviewers and developers."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from dataclasses import replace
from typing import Any

import pytest

pytest.importorskip("gradio", reason="needs the extra ui: pip install -e '.[ui]'")
pytest.importorskip("playwright.sync_api", reason="needs playwright: pip install -e '.[dev]'")

from playwright.sync_api import Page, expect

from imagine.safety.enrolment import FrameMeasure
from imagine.service import admission
from imagine.service.admission import Admission
from imagine.service.auth import Caller, scopes_of
from imagine.storage.reviews import NewReview, Queue, ReviewState
from imagine.storage.takedowns import Notice
from imagine.storage.verified import StoredChallenge
from imagine.ui import checking
from imagine.ui.remote import RemoteStudio, RemoteStudios
from imagine.ui.studio import Consent, OpenWish
from tests.service.camera import turning_head
from tests.ui.conftest import AGREED, camera_frame, is_ours, selfie
from tests.ui.house import Open, make_key, make_service, serving, until

# A busy machine of two cores takes its time; nothing here measures how much.
WAIT = 120_000
expect.set_options(timeout=WAIT)
CALM = {"outcome": "pass", "checks": {"nudity": {"outcome": "pass", "score": 0.01}}}
CAMERA_SEES = camera_frame()
SignIn = Callable[..., Page]


@pytest.fixture(scope="module")
def house(tmp_path_factory: pytest.TempPathFactory, surroundings: None) -> Iterator[Open]:
    with serving(make_service(tmp_path_factory.mktemp("house"))) as opened:
        yield opened


@pytest.fixture
def sign_in(browser: Any, house: Open) -> Iterator[SignIn]:
    """Opens a browser of its own, signed in with a key; its page notes foreign requests."""
    contexts = []

    def come(token: str, where: str = "/appeals", **options: Any) -> Page:
        context = browser.new_context(**{"locale": "en-GB", "reduced_motion": "reduce", **options})
        contexts.append(context)
        context.set_default_timeout(WAIT)
        page = context.new_page()
        page.strangers = []
        page.on(
            "request",
            lambda request: (
                None if is_ours(request.url, house.url) else page.strangers.append(request.url)
            ),
        )
        answer = context.request.post(f"{house.url}/sign-in", form={"key": token}, max_redirects=0)
        assert answer.status == 303
        page.goto(f"{house.url}{where}")
        return page

    yield come
    for context in contexts:
        context.close()


def studio_of(house: Open, token: str, tenant: str) -> RemoteStudio:
    caller = Caller(tenant, f"key_{token.split('_')[1]}", scopes_of("user"))
    return RemoteStudios(house.service).open_for(caller)


def enrol(house: Open, token: str, tenant: str) -> RemoteStudio:
    studio = studio_of(house, token, tenant)
    studio.add_photo(selfie(), "me.jpg")
    further = frozenset({"review"})
    studio.enrol("Ada", Consent(AGREED.statements, "en", AGREED.given_at, further))
    return studio


def draw(studio: RemoteStudio) -> str:
    studio.draw(OpenWish("in a forest", num_inference_steps=1))
    until(lambda: (moment := studio.drawing()) and moment.is_final, 120)
    return studio.pictures()[0].id


def test_a_refresh_finds_the_running_wish_and_a_stranger_does_not(
    house: Open, sign_in: SignIn
) -> None:
    token = make_key(house.service, "homes", "user")
    studio = enrol(house, token, "homes")
    first = draw(studio)
    studio.draw(OpenWish("in the snow", count=4, num_inference_steps=40))
    page = sign_in(token, "/")
    page.get_by_role("tab", name="Imagine", exact=True).click()
    expect(page.locator("#progress .bar")).to_be_visible()
    page.reload()
    page.get_by_role("tab", name="Imagine", exact=True).click()
    expect(page.locator("#progress .bar")).to_be_visible()
    page.locator("#stop").click()
    expect(page.locator("#progress .bar")).to_be_hidden()
    until(lambda: (moment := studio.drawing()) and moment.is_final, 120)
    mine = page.request.get(f"{house.url}/private/pictures/{first}")
    assert mine.status == 200 and mine.headers["cache-control"] == "no-store"
    assert page.strangers == []  # type: ignore[attr-defined]

    stranger = sign_in(make_key(house.service, "homes", "user"))
    foreign = stranger.request.get(f"{house.url}/private/pictures/{first}")
    assert foreign.status == 404
    shown = stranger.evaluate(
        "path => new Promise(done => { const i = new Image(); i.onload = () => done(true); "
        "i.onerror = () => done(false); i.src = path; })",
        f"/private/pictures/{first}",
    )
    assert shown is False


def test_reviewers_decide_with_one_key_and_an_owner_appeals(house: Open, sign_in: SignIn) -> None:
    service = house.service
    token = make_key(service, "court", "user")
    studio = enrol(house, token, "court")
    image = draw(studio)
    review = service.reviews.add(
        NewReview("court", Queue.RANDOM, "sampled", image_id=image, checks=CALM)
    )
    page = sign_in(make_key(service, "court", "reviewer"), "/review")
    # It may have been sampled by chance as well: go to the one we know of.
    page.goto(f"{house.url}/review/{review.id}")
    picture = page.locator("#picture")
    expect(picture).to_have_class("veiled")
    page.keyboard.press("u")
    expect(picture).not_to_have_class("veiled")
    page.keyboard.press("4")
    page.wait_for_url("**/review**said=*")
    assert service.reviews.get("court", review.id).state is ReviewState.DECIDED
    assert studio.pictures() == ()
    (appeal,) = service.oversight.appeal_image("court", image, "It is me.", studio.caller.actor)
    page.goto(f"{house.url}/review/{appeal.id}")
    expect(page.locator("blockquote")).to_have_text("It is me.")
    page.keyboard.press("1")
    # Whoever took it back does not decide the appeal.
    expect(page.locator("#said .bad")).to_be_visible()
    assert service.reviews.get("court", appeal.id).state is ReviewState.OPEN
    for _ in range(2):
        other = sign_in(make_key(service, "court", "reviewer"), f"/review/{appeal.id}")
        other.keyboard.press("1")
        other.wait_for_url("**/review**said=*")
    assert service.reviews.get("court", appeal.id).state is ReviewState.DECIDED
    assert [card.id for card in studio.pictures()] == [image]


def test_a_developer_makes_a_key_and_the_code_follows_the_form(
    house: Open, sign_in: SignIn
) -> None:
    page = sign_in(make_key(house.service, "tools", "developer"), "/developers")
    page.locator("#label").fill("nightly run")
    page.get_by_role("button", name="Make the key").click()
    token = page.locator("#token").inner_text()
    assert house.service.api_keys.check(token, "images:read").label == "nightly run"
    page.get_by_label("What would you like to see yourself as?").fill('it\'s "me"')
    expect(page.locator("#code-curl")).to_contain_text('"it\'\\\'\'s \\"me\\""')
    expect(page.locator("#code-python")).to_contain_text('"it\'s \\"me\\""')
    page.get_by_role("button", name="Revoke: nightly run").click()
    expect(page.locator("#said")).to_contain_text("refused from now on")
    assert page.strangers == []  # type: ignore[attr-defined]


def test_the_camera_check_refuses_a_still_face_and_lets_a_turning_one_pass(
    house: Open, sign_in: SignIn, monkeypatch: pytest.MonkeyPatch
) -> None:
    token = make_key(house.service, "mirror", "user")
    studio = studio_of(house, token, "mirror")
    studio.add_photo(CAMERA_SEES, "me.jpg")
    studio.enrol("Ben", AGREED)
    page = sign_in(token, "/", permissions=["camera"])
    page.get_by_role("link", name="Take the camera check").click()
    # Of a machine that is busy with other things nobody asks for ten pictures a second.
    monkeypatch.setattr(admission, "RULES", replace(admission.RULES, seconds=900.0))
    monkeypatch.setattr(checking, "POSE_SECONDS", 0.2)
    page.get_by_role("button", name="Turn the camera on").press("Enter")
    begin = page.get_by_role("button", name="Begin the check")
    expect(begin).to_be_focused()
    for scheme in ("light", "dark"):
        page.evaluate("name => { document.body.className = `office ${name}`; }", scheme)
        assert looks_of(page) == []
    begin.press("Enter")
    expect(page.locator(".asks")).to_contain_text("your")  # left or right
    page.keyboard.press("Escape")
    expect(page.locator(".answer")).to_contain_text("Nothing was sent")
    page.get_by_role("button", name="Try again").click()
    # The doubles see every face from the front.
    expect(page.locator(".answer.bad")).to_contain_text("Not every turn could be seen")
    assert studio.people()[0].verified_at is None

    monkeypatch.setattr(checking, "POSE_SECONDS", 0.5)
    house_turns(house, monkeypatch)
    page.get_by_role("button", name="Try again").click()
    expect(page.locator(".answer.good")).to_contain_text("that was you")
    expect(page.locator("video")).to_be_hidden()
    assert page.evaluate("document.querySelector('video').srcObject") is None
    assert studio.people()[0].verified_at is not None
    page.get_by_role("link", name="Studio").last.click()
    expect(page.locator("#agreement")).to_contain_text("Camera check passed on")
    assert page.strangers == []  # type: ignore[attr-defined]


def house_turns(house: Open, monkeypatch: pytest.MonkeyPatch) -> None:
    """From now on the head in the frames turns as the newest check asks, steadily."""
    issue, measure = house.service.standings.issue, Admission._measures
    asked: list[tuple[str, ...]] = []

    def issued(*told: Any) -> StoredChallenge:
        challenge = issue(*told)
        asked.append(challenge.poses)
        return challenge

    def turning(self: Admission, frames: Sequence[bytes]) -> Iterator[FrameMeasure]:
        yaws = list(turning_head(asked[-1]))
        assert len(frames) >= len(yaws), "the browser took too few pictures to turn steadily"
        for number, seen in enumerate(measure(self, frames)):
            yaw = yaws[number * len(yaws) // len(frames)]
            embedding = seen.embedding if yaw == 0 else None
            yield replace(seen, yaw_degrees=yaw, embedding=embedding)

    monkeypatch.setattr(house.service.standings, "issue", issued)
    monkeypatch.setattr(Admission, "_measures", turning)


def looks_of(page: Page) -> list[tuple[str, Any]]:
    """What axe finds, of every impact."""
    from axe_playwright_python.sync_playwright import Axe

    found = Axe().run(page).response["violations"]
    return [(one["id"], one["nodes"][0]["target"]) for one in found]


@pytest.mark.parametrize("scheme", ["light", "dark"])
def test_the_studio_of_a_service_can_be_used_by_everybody(
    house: Open, sign_in: SignIn, scheme: str
) -> None:
    token = make_key(house.service, f"studio_{scheme}", "user")
    draw(enrol(house, token, f"studio_{scheme}"))
    page = sign_in(token, "/", color_scheme=scheme, viewport={"width": 1440, "height": 900})
    expect(page.locator("#agreement")).to_contain_text("Take the camera check")
    expect(page.locator("#places a").first).to_be_visible()
    for tab in ("Me", "Imagine", "Gallery", "Verify"):
        page.get_by_role("tab", name=tab, exact=True).click()
        expect(page.get_by_role("tabpanel").locator("visible=true").first).to_be_visible()
        for width in (1440, 390):
            page.set_viewport_size({"width": width, "height": 900})
            assert looks_of(page) == [], (tab, width)
            assert page.evaluate("document.documentElement.scrollWidth") <= width, (tab, width)
    assert page.strangers == []  # type: ignore[attr-defined]


@pytest.mark.parametrize(("scheme", "width"), [("light", 1440), ("dark", 390)])
def test_every_office_can_be_used_by_everybody(
    house: Open, sign_in: SignIn, scheme: str, width: int
) -> None:
    service = house.service
    tenant = f"looks_{scheme}"
    token = make_key(service, tenant, "user")
    image = draw(enrol(house, token, tenant))
    review = service.reviews.add(
        NewReview(tenant, Queue.RANDOM, "sampled", image_id=image, checks=CALM)
    )
    service.oversight.file_takedown(Notice("Eve", "eve@example.org", "That is me.", image, True))
    page = sign_in(
        make_key(service, tenant, "admin"),
        "/review",
        color_scheme=scheme,
        viewport={"width": width, "height": 900},
    )
    for path in (
        "/review", f"/review/{review.id}", "/review/takedowns", "/review/approvals",
        "/review/cases", "/review/figures", "/review/audit", "/developers", "/reference",
        "/appeals", "/camera-check", "/report", "/verify", "/sign-in",
    ):  # fmt: skip
        page.goto(f"{house.url}{path}")
        assert looks_of(page) == [], path
        too_wide = page.evaluate("document.documentElement.scrollWidth > innerWidth")
        assert not too_wide, path
    assert page.strangers == []  # type: ignore[attr-defined]
