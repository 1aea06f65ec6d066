from __future__ import annotations

import logging

import pytest
from fastapi.testclient import TestClient

from imagine.service.wiring import Service
from tests.service.conftest import House


def test_every_answer_has_a_request_id(http: TestClient) -> None:
    first, second = (http.get("/healthz").headers["x-request-id"] for _ in range(2))
    assert first != second and first.startswith("req_")


def test_a_harmless_id_of_the_client_is_taken_over(http: TestClient) -> None:
    answer = http.get("/healthz", headers={"X-Request-Id": "trace-12345678"})
    assert answer.headers["x-request-id"] == "trace-12345678"


@pytest.mark.parametrize("given", ["short", "a" * 65, "with blank 123", "line\tbreak1"])
def test_any_other_id_is_replaced(http: TestClient, given: str) -> None:
    answer = http.get("/healthz", headers={"X-Request-Id": given})
    assert answer.headers["x-request-id"] != given


def test_no_answer_may_be_kept_by_a_shared_cache(http: TestClient, home: House, me: str) -> None:
    for answer in (http.get("/healthz"), home.ask("GET", f"/v1/identities/{me}")):
        assert answer.headers["cache-control"] == "no-store"
        assert answer.headers["x-content-type-options"] == "nosniff"


def test_a_fault_is_told_and_logged_without_what_somebody_wrote(
    home: House,
    me: str,
    service: Service,
    monkeypatch: pytest.MonkeyPatch,
    caplog: pytest.LogCaptureFixture,
) -> None:
    def broken(*anything: object) -> None:
        raise RuntimeError("canary: the prompt was in a forest, /srv/data/blobs")

    monkeypatch.setattr(service.generations, "submit", broken)
    with caplog.at_level(logging.DEBUG):
        answer = home.ask("POST", "/v1/generations", json={"prompt": "in a forest", "identity": me})
    assert answer.status_code == 500
    assert answer.json()["error"]["code"] == "internal_error"
    assert "canary" not in answer.text + caplog.text and "Traceback" not in caplog.text
    assert answer.headers["x-request-id"] in caplog.text and "RuntimeError" in caplog.text


def test_an_upload_that_is_too_large_is_a_problem_like_any_other(home: House) -> None:
    huge = b"x" * (77 * 2**20)
    answer = home.ask("POST", "/v1/identities", files=[("photos", ("a.jpg", huge, "image/jpeg"))])
    assert answer.status_code == 413
    assert answer.json()["error"]["code"] == "body_too_large"
