from __future__ import annotations

from typing import Any

import pytest
from fastapi.testclient import TestClient

from imagine import errors
from imagine.service.errors import as_openai, problem_of, problem_of_validation
from tests.service.conftest import House

SECRET = "/home/ada/secret.png"
HTTP = {400, 401, 403, 404, 409, 422, 429, 500, 503, 504}


def every_error() -> list[errors.ImagineError]:
    def below(kind: type[errors.ImagineError]) -> list[type[errors.ImagineError]]:
        return [kind, *(deeper for child in kind.__subclasses__() for deeper in below(child))]

    made: list[errors.ImagineError] = []
    for kind in (kind for kind in below(errors.ImagineError) if kind.__module__ == errors.__name__):
        more: tuple[Any, ...] = ()
        if issubclass(kind, errors.Busy):
            more = (3.0,)
        elif issubclass(kind, errors.JobStillRunning):
            more = ("job_1",)
        made.append(kind(f"It went wrong at {SECRET}.", *more))
    return made


@pytest.mark.parametrize("error", every_error(), ids=lambda error: type(error).__name__)
def test_every_error_of_ours_has_a_status_and_a_code(error: errors.ImagineError) -> None:
    problem = problem_of(error)
    assert problem.status in HTTP
    body = problem.body("req_1")
    assert body["error"] == {
        "message": problem.detail,
        "type": problem.error_type,
        "param": problem.param,
        "code": problem.code,
    }


@pytest.mark.parametrize("error", every_error(), ids=lambda error: type(error).__name__)
def test_a_fault_of_ours_tells_nothing_of_its_message(error: errors.ImagineError) -> None:
    problem = problem_of(error)
    said_by_us = (errors.Busy, errors.GenerationFailed, errors.DeadlineExceeded)
    if problem.status >= 500 and not isinstance(error, said_by_us):
        assert SECRET not in str(problem.body("req_1"))


def test_an_error_nobody_foresaw_is_told_by_its_request_id_alone() -> None:
    problem = problem_of(ValueError(SECRET))
    assert (problem.status, problem.code) == (500, "internal_error")
    assert SECRET not in str(problem.body("req_1"))


@pytest.mark.parametrize(
    ("error", "status", "code"),
    [
        (errors.NoFaceFound("x"), 422, "no_face_found"),
        (errors.PromptBlocked("x"), 403, "moderation_blocked"),
        (errors.KeyRefused("x"), 401, "key_refused"),
        (errors.KeyRefused("x", lacks_scope=True), 403, "scope_missing"),
        (errors.ConsentMissing("x"), 403, "consent_missing"),
        (errors.NotStored("x"), 404, "not_found"),
        (errors.RateLimited("x", 2.5), 429, "rate_limit_exceeded"),
        (errors.Busy("x", 2.5), 503, "busy"),
        (errors.IdempotencyConflict("x"), 422, "idempotency_conflict"),
        (errors.JobStillRunning("x", "job_1"), 409, "request_in_progress"),
    ],
)
def test_the_kinds_a_client_tells_apart(error: Exception, status: int, code: str) -> None:
    problem = problem_of(error)
    assert (problem.status, problem.code) == (status, code)


def test_busy_says_when_to_come_back_in_whole_seconds() -> None:
    assert problem_of(errors.Busy("x", 2.1)).headers == {"Retry-After": "3"}
    assert problem_of(errors.RateLimited("x", 0.01)).headers == {"Retry-After": "1"}


def test_clients_of_openai_get_400_for_a_mistake_and_for_a_refusal() -> None:
    assert as_openai(problem_of(errors.PromptBlocked("x"))).status == 400
    assert as_openai(problem_of(errors.InvalidInput("x"))).status == 400
    assert as_openai(problem_of(errors.NotStored("x"))).status == 404


def test_a_validation_error_names_the_argument_and_not_its_value() -> None:
    problem = problem_of_validation(
        [{"loc": ("body", "prompt"), "msg": "too long", "input": SECRET, "ctx": {"x": SECRET}}]
    )
    assert problem.param == "prompt" and SECRET not in str(problem.body("r"))


def test_an_unknown_path_and_method_are_problems_too(http: TestClient) -> None:
    unknown, wrong = http.get("/v1/nothing"), http.put("/healthz")
    assert (unknown.status_code, wrong.status_code) == (404, 405)
    for answer in (unknown, wrong):
        assert answer.headers["content-type"] == "application/problem+json"
        assert answer.json()["request_id"] == answer.headers["x-request-id"]


def test_a_wrong_method_is_told_all_that_the_path_takes(http: TestClient) -> None:
    assert http.put("/v1/identities").headers["allow"] == "GET, POST"
    assert http.patch("/v1/images/image_1").headers["allow"] == "DELETE, GET"


@pytest.mark.parametrize(
    ("body", "content_type", "status"),
    [
        (b"{", "application/json", 422),
        (b"[]", "application/json", 422),
        (b"\xff\xfe", "application/json", 422),
        (b"prompt=x", "application/x-www-form-urlencoded", 422),
        (b"{}", "text/plain", 422),
        (b'{"prompt": "a", "identity": "i", "wish": 1}', "application/json", 422),
        (b'{"prompt": "a", "identity": "i", "n": 1e999}', "application/json", 422),
        (b'{"prompt": "a", "identity": "i\\u0000"}', "application/json", 422),
        (b"[" * 100_000, "application/json", 400),
        (b'{"prompt": "' + b"a" * 1_100_000 + b'"}', "application/json", 413),
    ],
)
def test_malformed_bodies_are_refused_by_name(
    home: House, body: bytes, content_type: str, status: int
) -> None:
    answer = home.ask(
        "POST", "/v1/generations", content=body, headers={"Content-Type": content_type}
    )
    assert answer.status_code == status
    assert answer.json()["error"]["code"]


def test_the_prompt_is_in_no_refusal(home: House, me: str) -> None:
    for body in (
        {"prompt": "canary-word naked", "identity": me},
        {"prompt": "canary-word", "identity": me, "n": 0},
        {"prompt": "canary-word" * 1000, "identity": me},
        {"prompt": ["canary-word"], "identity": me},
    ):
        answer = home.ask("POST", "/v1/generations", json=body)
        assert answer.status_code in (403, 422)
        assert "canary" not in answer.text


@pytest.mark.parametrize("odd", ["%00", "a%00b", "..%2f..%2fetc", "%2e%2e", "a" * 5000, "%ff"])
def test_an_id_that_nobody_could_have_is_not_found(home: House, odd: str) -> None:
    for path in ("/v1/identities/", "/v1/images/", "/v1/generations/"):
        assert home.ask("GET", path + odd).status_code == 404
