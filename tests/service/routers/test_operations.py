from __future__ import annotations

import json
from typing import Any

import pytest
from fastapi.testclient import TestClient

from imagine.errors import DatabaseUnusable
from imagine.service.styles import STYLES
from imagine.service.wiring import Service
from tests.service.conftest import House


def test_the_model_is_told_as_openai_lists_models(home: House) -> None:
    (model,) = home.ask("GET", "/v1/models").json()["data"]
    assert (model["id"], model["object"], model["width"]) == ("fake", "model", 128)
    assert model["sizes"][:2] == [
        {"aspect_ratio": "1:1", "width": 128, "height": 128},
        {"aspect_ratio": "3:4", "width": 108, "height": 148},
    ]
    assert model["pair_size"] == {"aspect_ratio": None, "width": 256, "height": 128}
    assert home.ask("GET", "/v1/models/fake").json() == model
    assert home.ask("GET", "/v1/models/dall-e").status_code == 404


def test_styles_are_listed(home: House) -> None:
    told = home.ask("GET", "/v1/styles").json()["data"]
    assert [one["id"] for one in told] == [one.id for one in STYLES]


def test_health_and_readiness_need_no_key(http: TestClient) -> None:
    assert http.get("/healthz").json()["status"] == "ok"
    assert http.get("/readyz").json() == {"status": "ok", "waiting_for": []}


def test_readiness_names_what_is_missing(
    http: TestClient, service: Service, monkeypatch: pytest.MonkeyPatch
) -> None:
    def away() -> None:
        raise DatabaseUnusable("away")

    monkeypatch.setattr(service.database, "reading", away)
    monkeypatch.setattr(type(service.worker), "is_alive", False)
    answer = http.get("/readyz")
    assert answer.status_code == 503
    assert answer.json()["waiting_for"] == ["database", "worker"]


def test_figures_count_requests_jobs_and_pictures(home: House, me: str) -> None:
    home.generate(me)
    text = home.ask("GET", "/metrics").text
    route = 'imagine_http_requests_total{method="POST",route="/v1/generations",status="200"}'
    assert route in text
    assert 'imagine_jobs{state="succeeded"}' in text
    assert "imagine_engine_pictures_total" in text
    assert me not in text and home.tenant_id not in text


@pytest.fixture(scope="module")
def document(http: TestClient) -> dict[str, Any]:
    told: dict[str, Any] = http.get("/openapi.json").json()
    return told


def test_the_document_names_every_route_with_its_problems(document: dict[str, Any]) -> None:
    paths = document["paths"]
    assert {"/v1/identities", "/v1/generations/{generation_id}/events", "/readyz"} <= set(paths)
    problems = paths["/v1/generations"]["post"]["responses"]
    assert {"202", "200", "401", "403", "404", "409", "422", "429"} <= set(problems)


def test_the_document_has_examples_and_the_way_to_send_a_key(document: dict[str, Any]) -> None:
    wish = document["components"]["schemas"]["GenerationRequest"]
    assert wish["examples"][0]["prompt"]
    assert document["components"]["securitySchemes"]["API key"]["scheme"] == "bearer"


def test_nothing_in_the_document_is_fetched_from_elsewhere(
    http: TestClient, document: dict[str, Any]
) -> None:
    assert "http" not in json.dumps(document["paths"])
    assert http.get("/docs").status_code == 404
