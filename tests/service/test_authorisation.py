"""Every route, asked by every role with the ids of somebody else: 401, 403 or 404, never more."""

from __future__ import annotations

import io
import json
import zipfile
from collections.abc import Iterator
from typing import Any

import pytest
from fastapi import FastAPI
from fastapi.testclient import TestClient

from imagine.service.api import ROUTERS, build_app
from imagine.service.auth import ROLES, Doorkeeper
from imagine.service.wiring import Service
from imagine.storage.export import EXPORT_FORMAT
from imagine.storage.webhooks import EventKind
from tests.service.conftest import CONSENT, House, MakeHouse, chosen, selfie

OPEN = {"/healthz", "/readyz"}
# Whoever asks never to be shown needs no account; `routers/test_do_not_generate.py` looks at these.
NEEDS_NO_ACCOUNT = {
    "/v1/do_not_generate",
    "/v1/do_not_generate/challenges",
    "/v1/do_not_generate/withdraw",
}
# Nor does whoever is shown; `routers/test_takedowns.py` and `test_transparency.py` look at these.
NEEDS_NO_ACCOUNT |= {
    "/v1/takedowns",
    "/v1/takedowns/{takedown_id}",
    "/v1/transparency",
    "/v1/transparency/{document_name}",
}
# Nor does whoever is about to sign in; `test_sign_in.py` looks at these.
NEEDS_NO_ACCOUNT |= {"/auth/login", "/auth/callback", "/v1/provenance_checks"}
OPEN |= NEEDS_NO_ACCOUNT
FOREIGN = {"identity_id", "generation_id", "image_id", "review_id", "act_id", "case_id"}
FOREIGN |= {"webhook_id", "delivery_id", "person_id"}


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
        "POST /v1/identities/{identity_id}/photos": {"files": photos, "data": CONSENT},
        "POST /v1/identities/imports": {
            "files": [("archive", ("a.zip", nobody(), "application/zip"))],
            "data": CONSENT,
        },
        "POST /v1/consent_tokens": {"json": {"text": "I agree."}},
        "POST /v1/webhooks": {"json": {"url": "https://1.1.1.1/", "events": ["identity.deleted"]}},
        "PATCH /v1/webhooks/{webhook_id}": {"json": {"state": "disabled"}},
        "POST /v1/photo_checks": {"files": photos},
        "POST /v1/identities/{identity_id}/challenges/{challenge_id}": {
            "files": [("frames", ("f.jpg", selfie(), "image/jpeg"))] * 5,
            "data": {"nonce": "0" * 32},
        },
        "POST /v1/do_not_generate/import": {"content": b"{}"},
        "POST /v1/images/edits": {"files": [("image", ("a.jpg", selfie()))], "data": CONSENT},
        **review_bodies(identity),
    }


def nobody() -> bytes:
    """An export in which nobody is."""
    person = {"id": "person_1", "name": ""}
    index = {"format": EXPORT_FORMAT, "person": person, "identities": [], "images": []}
    file = io.BytesIO()
    with zipfile.ZipFile(file, "w") as archive:
        archive.writestr("index.json", json.dumps(index))
    return file.getvalue()


def review_bodies(identity: str) -> dict[str, dict[str, Any]]:
    """Of the routes of reviewers, and of those who ask them."""
    why = {"reason": "legal_request", "clause": "9.2"}
    act = {"json": {"act": "export_evidence", **why}}
    return {
        "POST /v1/reviews/{review_id}/decisions": {"json": {"ruling": "leave", **why}},
        "POST /v1/reviews/{review_id}/acts": act,
        "POST /v1/reviews/{review_id}/pictures": {"json": {"image": "image_1"}},
        "POST /v1/reviews/{review_id}/sweep": {"json": {}},
        "POST /v1/cases": {"json": {"identity": identity or "identity_1", **why}},
        "POST /v1/cases/{case_id}/evidence": act,
        "POST /v1/reports": {"json": {"image": "image_of_somebody_else", "reason": "nudity"}},
        "POST /v1/appeals": {"json": {"generation": "job_of_somebody_else"}},
    }


# Makes or ends something of one's own.
MAKES_OWN = {"POST /v1/webhooks", "POST /v1/consent_tokens", "POST /auth/logout"}
MAKES_OWN |= {"POST /v1/identities/imports"}  # `routers/test_imports.py` looks at who may
# Takes no id either, and not everybody may.
OPERATORS_ONLY = {"POST /v1/do_not_generate/import"}
# These take no id of anybody; who may use them sees only their own.
OWN_ONLY = {
    "GET /v1/identities",
    "GET /v1/generations",
    "GET /v1/images",
    "GET /v1/models",
    "GET /v1/models/{model_id}",
    "GET /v1/styles",
    "GET /v1/people",
    "GET /v1/session",
    "GET /v1/webhooks",
    "GET /metrics",
    "GET /v1/review_queues",
    "GET /v1/reviews",
    "GET /v1/review_acts",
    "GET /v1/cases",
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
        "challenge_id": house.ask("POST", f"/v1/identities/{identity}/challenges").json()["id"],
        "person_id": house.ask("GET", f"/v1/identities/{identity}").json()["person_id"],
        **called_back(house, identity),
        "model_id": "fake",
        **to_be_reviewed(house, identity, wish["images"][0]["id"]),
    }
    assert house.ask("GET", f"/v1/identities/{identity}").json()["state"] == "active"
    assert house.ask("GET", wish["images"][0]["urls"]["content"]).status_code == 200


def called_back(house: House, identity: str) -> dict[str, str]:
    """Somebody's webhook, and what was sent there."""
    body = {"url": "https://1.1.1.1/", "events": ["consent.withdrawn"]}
    webhook = house.ask("POST", "/v1/webhooks", json=body).json()["id"]
    house.service.webhooks.publish(
        house.tenant_id, EventKind.CONSENT_WITHDRAWN, {"object": "identity", "id": identity}
    )
    (delivery,) = house.service.webhooks.deliveries(house.tenant_id, webhook)
    return {"webhook_id": webhook, "delivery_id": delivery.id}


def to_be_reviewed(house: House, identity: str, image: str) -> dict[str, str]:
    """Somebody's report, a case on them, and an act that waits."""
    reviewer = {"Authorization": f"Bearer {house.key('reviewer')}"}
    why = {"reason": "legal_request", "clause": "9.2"}
    report = {"image": image, "reason": "nudity"}
    review = house.ask("POST", "/v1/reports", json=report).json()["decisions"][0]["id"]
    case = house.http.post("/v1/cases", json={"identity": identity, **why}, headers=reviewer).json()
    return {
        "review_id": review,
        "case_id": case["id"],
        "act_id": case["id"],
        "picture_id": image,
        "takedown_id": "takedown_of_somebody_else",
        "generation_or_image_id": image,
        "document_name": "policy.md",
    }


def every_route() -> list[tuple[str, str]]:
    """Method and path of every route, known before there is a service."""
    app = FastAPI()
    for router in ROUTERS:
        app.include_router(router)
    return routes(app)


def test_without_a_key_no_route_tells_anything(
    http: TestClient, victim: dict[str, str], service: Service, monkeypatch: pytest.MonkeyPatch
) -> None:
    for method, path in every_route():
        if path not in OPEN:
            # Another one each time: there are more routes than refusals an address is told.
            monkeypatch.setattr(service, "doorkeeper", Doorkeeper(service.api_keys, chosen()))
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
        if path in OPEN or name in OWN_ONLY | OPERATORS_ONLY | MAKES_OWN:
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


@pytest.mark.parametrize("role", sorted(set(ROLES) - {"admin"}))
@pytest.mark.parametrize("name", sorted(OPERATORS_ONLY))
def test_what_operators_do_is_closed_to_others(make_house: MakeHouse, role: str, name: str) -> None:
    method, path = name.split(" ")
    assert make_house(role).ask(method, path, **bodies("")[name]).status_code == 403


def test_a_wish_beside_somebody_elses_person_is_not_there(
    make_house: MakeHouse, victim: dict[str, str]
) -> None:
    house = make_house()
    body = {"prompt": "a", "identity": house.enrol(), "beside": victim["identity_id"]}
    assert house.ask("POST", "/v1/generations", json=body).status_code == 404
