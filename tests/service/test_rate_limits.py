from __future__ import annotations

import pytest
from fastapi.testclient import TestClient

from imagine.errors import InvalidInput
from imagine.service.auth import Doorkeeper
from imagine.service.rate_limits import Quota, RateLimiter, rate_headers, refuse
from imagine.service.wiring import Service
from tests.service.conftest import House, chosen


class Clock:
    now = 100.0

    def __call__(self) -> float:
        return self.now


def test_a_quota_may_be_used_at_once_and_fills_up_steadily() -> None:
    clock = Clock()
    limiter = RateLimiter(Quota("key", 3, 30.0), clock)
    assert [limiter.take("a").remaining for _ in range(3)] == [2, 1, 0]
    refused = limiter.take("a")
    assert not refused.is_allowed and refused.retry_after_seconds == pytest.approx(10.0)
    clock.now += 10.0
    assert limiter.take("a").is_allowed
    assert not limiter.take("a").is_allowed


def test_a_refused_request_costs_nothing() -> None:
    clock = Clock()
    limiter = RateLimiter(Quota("key", 1, 10.0), clock)
    limiter.take("a")
    waits = [limiter.take("a").retry_after_seconds for _ in range(5)]
    assert waits == [pytest.approx(10.0)] * 5


def test_everybody_has_a_bucket_of_their_own() -> None:
    limiter = RateLimiter(Quota("key", 1, 10.0), Clock())
    assert limiter.take("a").is_allowed and limiter.take("b").is_allowed


def test_the_headers_name_every_quota_and_the_tightest_in_the_old_form() -> None:
    clock = Clock()
    wide, tight = (RateLimiter(Quota(n, q, 60.0), clock).take("a") for n, q in (("t", 9), ("k", 2)))
    headers = rate_headers((wide, tight))
    assert headers["RateLimit-Policy"] == '"t";q=9;w=60, "k";q=2;w=60'
    assert headers["RateLimit"] == '"t";r=8;t=7, "k";r=1;t=30'
    assert headers["x-ratelimit-remaining-requests"] == "1"


def test_a_quota_of_nothing_is_refused() -> None:
    with pytest.raises(InvalidInput, match="at least one"):
        Quota("key", 0)


def test_the_refusal_says_how_long() -> None:
    limiter = RateLimiter(Quota("key", 1, 10.0), Clock())
    limiter.take("a")
    assert "in 10 seconds" in str(refuse(limiter.take("a"), "This key"))


def test_asking_too_often_is_429_with_the_time_to_come_back(
    service: Service,
    http: TestClient,
    house: House,
    tmp_path: object,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    strict = chosen(requests_per_minute=2)
    monkeypatch.setattr(service, "doorkeeper", Doorkeeper(service.api_keys, strict))
    answers = [house.ask("GET", "/v1/styles") for _ in range(3)]
    assert [answer.status_code for answer in answers] == [200, 200, 429]
    assert int(answers[2].headers["retry-after"]) >= 1
    assert answers[2].headers["x-ratelimit-remaining-requests"] == "0"
    assert answers[0].headers["ratelimit"].startswith('"key";r=1')


def test_guessing_keys_is_slowed_down(
    service: Service, http: TestClient, monkeypatch: pytest.MonkeyPatch
) -> None:
    settings = chosen()
    monkeypatch.setattr(service, "doorkeeper", Doorkeeper(service.api_keys, settings))
    guess = {"Authorization": "Bearer imk_0000000000000000_" + "a" * 43}
    statuses = [http.get("/v1/styles", headers=guess).status_code for _ in range(70)]
    assert statuses[0] == 401 and statuses[-1] == 429
