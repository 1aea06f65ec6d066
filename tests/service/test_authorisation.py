"""Every route, asked by every role with the ids of somebody else: 401, 403 or 404, never more."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any

import pytest
from fastapi import FastAPI
from fastapi.testclient import TestClient

from imagine.service.api import ROUTERS, build_app
from imagine.service.auth import ROLES, Doorkeeper
from imagine.service.wiring import Service
from tests.service.conftest import CONSENT, House, MakeHouse, chosen, selfie

OPEN = {"/healthz", "/readyz"}
FOREIGN = {"identity_id", "generation_id", "image_id"}


def routes(app: FastAPI) -> list[tuple[str, str]]:
    """Method and path of every route of ours."""
    paths = app.openapi()["paths"]
    return [(method.upper(), path) for path, told in paths.items() for method in told]


def bodies(identity: str) -> dict[str, dict[str, Any]]:
    """A body that a route would accept if the ids were one's own, by method and path."""
    wish = {"prompt": "in a forest", "identity": identity}
    photos = [("photos", ("a.jpg", selfie(), "image/jpeg"))]
    consent = {
        "text": "I agree.",
        "purposes": ["generate"],
        "declared_adult": True,
        "declared_self": True,
    }
    task = {"inputs": "in a forest", "parameters": {"identity": identity}}
    return {
        "POST /v1/generations": {"json": wish},
        "POST /v1/images/generations": {"json": wish},
        "POST /hf/{model_id}": {"json": task},
        "POST /v1/identities": {
            "files": photos,
            "data": {**CONSENT, "person_id": "person_of_somebody_else"},
        },
        "POST /v1/identities/{identity_id}/consents": {"json": consent},
        "POST /v1/photo_checks": {"files": photos},
        "POST /v1/images/edits": {"files": [("image", ("a.jpg", selfie()))], "data": CONSENT},
    }


# These take no id of anybody; who may use them sees only their own.
OWN_ONLY = {
    "GET /v1/identities",
    "GET /v1/generations",
    "GET /v1/images",
    "GET /v1/models",
    "GET /v1/models/{model_id}",
    "GET /v1/styles",
    "GET /metrics",
    "POST /v1/photo_checks",
    "POST /v1/images/edits",
}


@pytest.fixture(scope="module")
def victim(service: Service, http: TestClient) -> Iterator[dict[str, str]]:
    """Somebody's person, wish and picture."""
    house = House(service, http)
    identity = house.enrol()
    wish = house.generate(identity)
    yield {
        "identity_id": identity,
        "generation_id": wish["id"],
        "image_id": wish["images"][0]["id"],
        "model_id": "fake",
    }
    assert house.ask("GET", f"/v1/identities/{identity}").json()["state"] == "active"
    assert house.ask("GET", wish["images"][0]["urls"]["content"]).status_code == 200


def every_route() -> list[tuple[str, str]]:
    """Method and path of every route, known before there is a service."""
    app = FastAPI()
    for router in ROUTERS:
        app.include_router(router)
    return routes(app)


def test_without_a_key_no_route_tells_anything(
    http: TestClient, victim: dict[str, str], service: Service, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(service, "doorkeeper", Doorkeeper(service.api_keys, chosen()))
    for method, path in every_route():
        if path not in OPEN:
            words = bodies(victim["identity_id"]).get(f"{method} {path}", {})
            answer = http.request(method, path.format(**victim), **words)
            assert answer.status_code == 401, (method, path)


@pytest.mark.parametrize("role", sorted(ROLES))
def test_what_is_somebody_elses_is_not_there(
    make_house: MakeHouse, victim: dict[str, str], role: str
) -> None:
    house, asked = make_house(role), 0
    for method, path in every_route():
        name = f"{method} {path}"
        if path in OPEN or name in OWN_ONLY:
            continue
        words = bodies(victim["identity_id"]).get(name, {})
        answer = house.ask(method, path.format(**victim), **words)
        assert answer.status_code in (403, 404), (name, answer.text)
        asked += 1
    assert asked >= 18


@pytest.mark.parametrize("name", sorted(OWN_ONLY - {"POST /v1/images/edits"}))
def test_what_takes_no_id_shows_nothing_of_others(
    make_house: MakeHouse, victim: dict[str, str], name: str
) -> None:
    method, path = name.split(" ")
    words = bodies(victim["identity_id"]).get(name, {})
    answer = make_house("admin").ask(method, path.format(**victim), **words)
    assert answer.status_code == 200
    ids = [value for key, value in victim.items() if key in FOREIGN]
    assert not [one for one in ids if one in answer.text]


def test_every_route_of_the_app_is_in_this_matrix(service: Service) -> None:
    app = build_app(service, start=False)
    assert {path for _, path in routes(app)} == {path for _, path in every_route()}
