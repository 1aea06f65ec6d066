"""Every route of a service with its real marks: no picture comes out that does not carry them."""

from __future__ import annotations

import base64
import json
import re
from collections.abc import Iterator
from typing import Any

import pytest
from fastapi.testclient import TestClient
from starlette.responses import Response
from starlette.routing import Route

from imagine.provenance import MARKS_FOLDER, Provenance, Verifier, open_verifier
from imagine.service import wiring
from imagine.service.api import ROUTERS, create_app
from imagine.service.wiring import build_service
from tests.one_door import Watched, pictures_in
from tests.service.conftest import CONSENT, REAL_MARKING, House, chosen, places_in, selfie

# Routes that answer with bytes of their own making: pictures of this test's walk, pictures that the
# tests of reviews ask for under the watch of `conftest.py`, or none at all. A new one needs a
# line here, and a call in `walk` when pictures can be in it.
WALKED, UNDER_WATCH, NO_PICTURE = "walked", "under watch", "no picture"
RAW = {
    "GET /v1/identities/{identity_id}/export": WALKED,
    "POST /v1/generations": WALKED,
    "GET /v1/generations/{generation_id}/events": WALKED,
    "POST /v1/images/generations": WALKED,
    "POST /v1/images/edits": WALKED,
    "GET /v1/images/{image_id}/content": WALKED,
    "POST /hf/{model_id}": WALKED,
    "GET /v1/reviews/{review_id}/picture": UNDER_WATCH,
    "GET /v1/reviews/{review_id}/picture/clear": UNDER_WATCH,
    "GET /v1/reviews/{review_id}/evidence": UNDER_WATCH,
    "GET /v1/cases/{case_id}/pictures/{picture_id}": UNDER_WATCH,
    "GET /v1/cases/{case_id}/evidence": UNDER_WATCH,
    "DELETE /v1/images/{image_id}": NO_PICTURE,
    "DELETE /v1/webhooks/{webhook_id}": NO_PICTURE,
    "GET /readyz": NO_PICTURE,
    "GET /metrics": NO_PICTURE,
    "GET /auth/login": NO_PICTURE,
    "GET /auth/callback": NO_PICTURE,
    "POST /auth/logout": NO_PICTURE,
    "GET /v1/transparency/{document_name}": NO_PICTURE,
}


@pytest.fixture(scope="module")
def watched(doubles: None, tmp_path_factory: pytest.TempPathFactory) -> Iterator[Watched]:
    limits = places_in(tmp_path_factory.mktemp("marked"))
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(wiring, "make_marking", REAL_MARKING)
        service = build_service(chosen(), limits)
    app = Watched(create_app(service))
    app.service = service  # type: ignore[attr-defined]
    yield app


@pytest.fixture(scope="module")
def house(watched: Watched) -> Iterator[House]:
    with TestClient(watched, base_url="http://127.0.0.1") as client:
        yield House(watched.service, client, "admin")  # type: ignore[attr-defined]


@pytest.fixture(scope="module")
def verifier(house: House) -> Verifier:
    return open_verifier(house.service.limits.data_directory / MARKS_FOLDER)


@pytest.fixture(scope="module")
def walk(house: House) -> dict[str, bytes]:
    """Every answer that should hold finished pictures, by what was asked."""
    me = house.enrol(consent_purposes=["generate", "keep_photos", "review"])
    answers: dict[str, bytes] = {}
    ids = {"identity_id": me, "model_id": "fake", "style_id": "none"}
    for output_format in ("png", "jpeg", "webp"):
        made = house.generate(me, output_format=output_format)
        image = made["images"][0]
        ids |= {"generation_id": made["id"], "image_id": image["id"]}
        answers[f"content {output_format}"] = house.ask("GET", image["urls"]["content"]).content
        for other in ("png", "jpeg", "webp"):
            asked = f"{image['urls']['content']}?format={other}"
            answers[f"{output_format} as {other}"] = house.ask("GET", asked).content
    answers["events"] = house.ask("GET", f"/v1/generations/{ids['generation_id']}/events").content
    wish = {"prompt": "in a forest", "identity": me, "seed": 3}
    posted = house.ask("POST", "/v1/images/generations", json=wish)
    answers["openai"] = posted.content
    streamed = {**wish, "stream": True, "partial_images": 3}
    answers["openai stream"] = house.ask("POST", "/v1/images/generations", json=streamed).content
    files = [("image", ("0.jpg", selfie(), "image/jpeg"))]
    form = {**CONSENT, "prompt": "in a forest"}
    edited = house.ask("POST", "/v1/images/edits", files=files, data=form)
    answers["openai edit"] = edited.content
    task = {"inputs": "in a forest", "parameters": {"identity": me, "seed": 5}}
    answers["hugging face"] = house.ask("POST", "/hf/fake", json=task).content
    for method, path in routes():
        if method == "GET" and set(re.findall(r"{(\w+)}", path)) <= ids.keys():
            if path.endswith("/events"):
                continue
            house.ask(method, path.format(**ids))
    answers["export"] = house.ask("GET", f"/v1/identities/{me}/export").content
    archive = [("archive", ("me.zip", answers["export"], "application/zip"))]
    house.ask("POST", "/v1/identities/imports", files=archive, data=CONSENT)
    newest = house.ask("GET", "/v1/images").json()["data"][0]
    assert newest["id"] != ids["image_id"]
    answers["imported"] = house.ask("GET", newest["urls"]["content"]).content
    return answers


def routes() -> list[tuple[str, str]]:
    return [
        (method, route.path)
        for router in ROUTERS
        for route in router.routes
        if isinstance(route, Route)
        for method in sorted((route.methods or set()) - {"HEAD"})
    ]


def test_everything_a_person_gets_is_signed_watermarked_and_untouched(
    walk: dict[str, bytes], verifier: Verifier
) -> None:
    finished = {name: body for name, body in walk.items() if name not in ("events", "export")}
    for name, body in finished.items():
        pictures = list(pictures_in(body, name))
        assert pictures, f"{name} gave no picture: {body[:300]!r}"
        last = verifier.verify(pictures[-1][1])
        assert (last.verdict, last.watermark_found) == (Provenance.UNTOUCHED, True), name


@pytest.mark.parametrize("made", ["png", "jpeg", "webp"])
def test_a_picture_in_another_format_leads_to_the_same_record(
    walk: dict[str, bytes], verifier: Verifier, made: str
) -> None:
    first = verifier.verify(walk[f"content {made}"])
    for other in ("png", "jpeg", "webp"):
        report = verifier.verify(walk[f"{made} as {other}"])
        assert report.record == first.record is not None and report.manifest == "ours"
    assert walk[f"{made} as {made}"] == walk[f"content {made}"]


def test_no_answer_holds_an_unmarked_picture_and_previews_are_small(
    walk: dict[str, bytes], watched: Watched
) -> None:
    assert watched.unmarked == []
    assert len(watched.pictures_seen) >= 4
    previews = [data for _, data in pictures_in(walk["openai stream"])][:-1]
    assert all(b"rainedAlgorithmicMedia" in data for data in previews)


def test_nothing_that_comes_out_tells_the_prompt_or_ties_pictures_to_a_person(
    walk: dict[str, bytes],
) -> None:
    for name, body in walk.items():
        for place, picture in pictures_in(body, name):
            assert b"in a forest" not in picture, place
            assert b"fingerprint" not in picture and b"sealedRecipe" not in picture, place


def test_every_route_that_makes_its_own_bytes_is_looked_at() -> None:
    """A route that returns a model is JSON, and the walk and the watch look into that."""
    strange = []
    assert set(RAW.values()) == {WALKED, UNDER_WATCH, NO_PICTURE}
    for router in ROUTERS:
        for route in router.routes:
            endpoint = getattr(route, "endpoint", None)
            told = str(getattr(endpoint, "__annotations__", {}).get("return", ""))
            makes_bytes = "Response" in told or "bytes" in told
            for method in sorted((getattr(route, "methods", None) or set()) - {"HEAD"}):
                place = f"{method} {getattr(route, 'path', '')}"
                if makes_bytes and place not in RAW:
                    strange.append(place)
    assert not strange, f"{strange}: put them into RAW, and into the walk if they hold pictures"


def test_a_route_that_hands_out_plain_pixels_would_be_seen(house: House) -> None:
    """The watch itself: an answer with a plain picture, raw and in JSON."""
    from fastapi import FastAPI

    app = FastAPI()
    plain = selfie()

    @app.get("/raw")
    def raw() -> Response:
        return Response(plain, media_type="image/jpeg")

    @app.get("/json")
    def as_json() -> dict[str, Any]:
        return {"data": [{"b64_json": base64.b64encode(plain).decode()}]}

    watched = Watched(app)
    with TestClient(watched) as client:
        assert client.get("/raw").status_code == 200
        assert json.loads(client.get("/json").text)
    assert len(watched.unmarked) == 2
