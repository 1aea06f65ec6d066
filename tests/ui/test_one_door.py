"""Every route of the page, alone and in a service: no picture comes out that is not marked.

The person's own photos come back to them as they are, and the thumbnails of the styles are renders
no model had a part in; everything else that is a picture carries its marks.
"""

from __future__ import annotations

import io
import re
from collections.abc import Iterator
from typing import Any

import pytest

pytest.importorskip("gradio", reason="needs the extra ui: pip install -e '.[ui]'")

from fastapi import FastAPI
from starlette.responses import Response
from starlette.routing import Route
from starlette.testclient import TestClient

from imagine.provenance import MARKS_FOLDER, Provenance, open_verifier
from imagine.service.wiring import Service
from imagine.settings import Settings
from imagine.storage.reviews import NewReview, Queue
from imagine.ui.local import LocalStudios
from imagine.ui.server import build_app
from imagine.ui.sessions import COOKIE, Sessions
from imagine.ui.studio import OpenWish
from imagine.ui.together import create_app
from tests.one_door import Watched, pictures_in
from tests.ui.conftest import AGREED, selfie
from tests.ui.house import until
from tests.ui.test_offices import CALM, NUDE, Guest, held_back

SUFFIXES = (".png", ".jpg", ".webp")
# What each of our routes can answer with. A new route needs a line here, and a call in a walk when
# pictures can be in its answer.
PICTURE, OWN_PHOTO, RENDER, WORDS = "picture", "own photo", "render", "words"
KINDS = {
    "GET /private/pictures/{picture_id}": PICTURE,
    "GET /private/previews/{preview_id}": PICTURE,
    "GET /private/pictures.zip": PICTURE,
    "GET /private/export.zip": PICTURE,
    "GET /review/{review_id}/picture": PICTURE,
    "POST /review/{review_id}/clear": PICTURE,
    "GET /review/cases/{case_id}/pictures/{picture_id}": PICTURE,
    "GET /review/{kind}/{target_id}/evidence.zip": PICTURE,
    "GET /private/photos/{photo_id}": OWN_PHOTO,
    "GET /look/{name}.webp": RENDER,
}
# Pages, forms and JSON; the watch looks into what of it is walked, and none may name an image.
_WORDS = re.compile(
    r"(GET|POST|DELETE|PUT) /(private/(session|leave|photos|reports|places)|verify|verify/picture"
    r"|look/.*|sign-in|sign-out|developers.*|reference.*|review.*|report.*|appeals.*|camera-check.*|)$"
)


def routes_of(app: Any) -> list[str]:
    """Method and path of every route of an application or router, those of its routers too."""
    found = []
    for route in app.routes:
        inner = getattr(route, "original_router", None)
        if inner is not None:
            found += routes_of(inner)
        elif isinstance(route, Route):
            methods = sorted((route.methods or set()) - {"HEAD"})
            found += [f"{method} {route.path}" for method in methods]
    return found


class Page:
    """Somebody at the page of this machine, under watch."""

    def __init__(self, studios: LocalStudios) -> None:
        self.sessions = Sessions(studios)
        self.app = build_app(studios, self.sessions)
        self.watched = Watched(self.app)
        self.http = TestClient(self.watched, base_url="http://testserver")
        self.http.post("/private/session")

    def get(self, path: str) -> bytes:
        answer = self.http.get(path)
        assert answer.status_code == 200, (path, answer.text[:200])
        return answer.content


@pytest.fixture(scope="module")
def page(surroundings: None) -> Iterator[Page]:
    studios = LocalStudios("fake", "double", "double", preview_seconds=0.05)
    made = Page(studios)
    yield made
    made.sessions.close()


@pytest.fixture(scope="module")
def walk(page: Page) -> dict[str, bytes]:
    """What somebody gets who enrols, draws, looks, downloads and takes everything along."""
    answers: dict[str, bytes] = {}
    photo = page.http.post("/private/photos", content=selfie(), headers={"X-Name": "me.jpg"})
    page.get(f"/private/photos/{photo.json()['id']}")
    studio = page.sessions.studio(page.http.cookies[COOKIE])
    assert studio is not None
    studio.enrol("Ada", AGREED)
    studio.draw(OpenWish("in a forest", count=2, num_inference_steps=10))

    def previews() -> bool:
        moment = studio.drawing()
        assert moment is not None
        if moment.preview is not None:
            answer = page.http.get(f"/private/previews/{moment.preview}")
            if answer.status_code == 200:
                answers["preview"] = answer.content
        return moment.is_final

    until(previews)
    for number, card in enumerate(studio.pictures()):
        for suffix in SUFFIXES:
            for download in (0, 1):
                path = f"/private/pictures/{card.id}?suffix={suffix}&download={download}"
                answers[f"{number}{suffix} {download}"] = page.get(path)
    answers["zip"] = page.get("/private/pictures.zip")
    answers["jpeg zip"] = page.get("/private/pictures.zip?suffix=.jpg")
    answers["export"] = page.get("/private/export.zip")
    page.get("/")
    page.get("/config")
    page.http.post("/verify/picture", content=answers["0.png 0"], headers={"X-Name": "a.png"})
    return answers


def test_every_picture_of_the_page_is_signed_watermarked_and_untouched(
    walk: dict[str, bytes],
) -> None:
    verifier = open_verifier(Settings().data_directory / MARKS_FOLDER)
    for name, body in walk.items():
        finished = [(n, data) for n, data in pictures_in(body, name) if "/photos/" not in n]
        assert finished, name
        if name == "preview":
            continue
        for place, data in finished:
            report = verifier.verify(data)
            assert (report.verdict, report.watermark_found) == (Provenance.UNTOUCHED, True), place


def test_no_answer_of_the_page_holds_an_unmarked_picture(
    walk: dict[str, bytes], page: Page
) -> None:
    assert page.watched.unmarked == []
    seen = {place for place in page.watched.pictures_seen if "/private/" in place}
    wanted = {place for place, kind in KINDS.items() if kind is PICTURE and "/review" not in place}
    assert wanted <= seen, wanted - seen
    previews = [data for _, data in pictures_in(walk["preview"])]
    assert previews and all(b"rainedAlgorithmicMedia" in data for data in previews)


# In a service: the same page for its accounts, with the offices of its reviewers


@pytest.fixture(scope="module")
def watched(service: Service) -> Watched:
    return Watched(create_app(service, start=False))


@pytest.fixture(scope="module")
def office(watched: Watched, service: Service) -> dict[str, bytes]:
    """Every answer with a picture that owner and reviewers of a tenant get."""
    owner = Guest(watched, service, "looked_at", "user")  # type: ignore[arg-type]
    first, second = (
        Guest(watched, service, "looked_at", "reviewer")  # type: ignore[arg-type]
        for _ in range(2)
    )
    image = owner.enrol_and_draw()
    answers = {
        f"picture{suffix}": owner.http.get(f"/private/pictures/{image}?suffix={suffix}").content
        for suffix in SUFFIXES
    }
    answers["zip"] = owner.http.get("/private/pictures.zip").content
    answers["webp zip"] = owner.http.get("/private/pictures.zip?suffix=.webp").content
    answers["export"] = owner.http.get("/private/export.zip").content
    withheld, _ = held_back(owner)
    add = service.reviews.add
    sampled = add(NewReview("looked_at", Queue.RANDOM, "s", image_id=image, checks=CALM))
    flagged = add(
        NewReview("looked_at", Queue.BLOCKED, "nudity", withheld_id=withheld, checks=NUDE)
    )
    first.http.post(f"/review/{flagged.id}/ask-clear")
    first.http.post(f"/review/reviews/{sampled.id}/evidence")
    person = owner.studio.person()
    assert person is not None
    asked = {"identity": person.id, "reason": "not_agreed", "clause": "8.1"}
    first.http.post("/review/cases", data=asked)
    for act in service.reviews.acts.find("looked_at", waiting=True):
        second.http.post(f"/review/approvals/{act.id}")
    case = service.cases.find("looked_at")[0]
    second.http.post(f"/review/approvals/{case.id}")
    for name, review in (("sampled", sampled), ("flagged", flagged)):
        page = first.http.get(f"/review/{review.id}").content
        answers[f"{name} page"] = page
        answers[f"{name} veiled"] = first.http.get(f"/review/{review.id}/picture").content
        answers[f"{name} clear"] = first.http.post(f"/review/{review.id}/clear").content
    evidence = f"/review/reviews/{sampled.id}/evidence.zip"
    answers["evidence"] = first.http.get(evidence).content
    shown = re.search(
        rf"/review/cases/{case.id}/pictures/\w+", first.read(f"/review/cases/{case.id}")
    )
    assert shown is not None
    answers["case"] = first.http.get(shown[0]).content
    return answers


def test_what_owner_and_reviewers_get_is_marked(
    office: dict[str, bytes], watched: Watched, service: Service
) -> None:
    verifier = open_verifier(service.limits.data_directory / MARKS_FOLDER)
    for name, body in office.items():
        pictures = [one for one in pictures_in(body, name) if "/photos/" not in one[0]]
        assert bool(pictures) == (not name.endswith("page")), (name, body[:200])
        for place, data in pictures:
            report = verifier.verify(data)
            assert report.verdict is Provenance.UNTOUCHED, (place, report.sentences)
    assert watched.unmarked == []
    seen = {re.sub(r"\{.*?\}", "{}", place) for place in watched.pictures_seen}
    for place, kind in KINDS.items():
        if kind is PICTURE and "previews" not in place:
            assert re.sub(r"\{.*?\}", "{}", place) in seen, (place, seen)


def test_formats_lead_to_one_record(office: dict[str, bytes], service: Service) -> None:
    verifier = open_verifier(service.limits.data_directory / MARKS_FOLDER)
    records = {verifier.verify(office[f"picture{suffix}"]).record for suffix in SUFFIXES}
    assert len(records) == 1 and None not in records


def test_every_route_of_the_page_is_looked_at(watched: Watched) -> None:
    both = watched._app._page  # type: ignore[attr-defined]
    ours = [place for place in routes_of(both) if "gradio" not in place]
    strange = [one for one in ours if one not in KINDS and not _WORDS.match(one)]
    of_gradio = [one for one in strange if not one.split(" /")[1].startswith(PREFIXES)]
    assert of_gradio == [], f"{of_gradio}: say what they answer with, and walk pictures"
    assert set(KINDS) <= set(ours), set(KINDS) - set(ours)


# Places of our own; what is outside of them belongs to Gradio, whose ways for files are closed.
PREFIXES = ("theme.css", "config", "robots.txt", "manifest.json", "static", "assets", "svelte",
            "custom_component", "heartbeat", "login", "logout", "favicon", "pwa_icon", "token",
            "user", "app_id", "queue", "reset", "startup-events", "monitoring", "deep_link",
            "upload", "file", "proxy", "stream", "api", "call", "run", "info", "component",
            "process_recording", "dev", "vibe", "cancel", "theme", "docs", "openapi")  # fmt: skip


def test_a_page_that_shows_plain_pixels_would_be_seen() -> None:
    """The watch itself, in an archive as the downloads are."""
    import zipfile

    app = FastAPI()
    buffer = io.BytesIO()
    with zipfile.ZipFile(buffer, "w") as archive:
        archive.writestr("imagine-001.png", selfie())

    @app.get("/private/pictures.zip")
    def download() -> Response:
        return Response(buffer.getvalue(), media_type="application/zip")

    watched = Watched(app)
    with TestClient(watched) as client:
        client.get("/private/pictures.zip")
    assert watched.unmarked == ["GET /private/pictures.zip/imagine-001.png"]
