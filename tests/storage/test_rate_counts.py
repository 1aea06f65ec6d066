import threading

import pytest

from imagine.service.rate_limits import Quota, SharedRateLimiter
from imagine.storage import rate_counts
from imagine.storage.database import Database
from imagine.storage.rate_counts import RateCounts


class Clock:
    now = 1000.0

    def __call__(self) -> float:
        return self.now


@pytest.fixture
def clock() -> Clock:
    return Clock()


def test_a_bucket_is_emptied_by_all_together_and_refills(database: Database, clock: Clock) -> None:
    here, there = RateCounts(database, clock), RateCounts(database, clock)
    assert here.reserve("a", 4, 10.0, 60.0) == (4, 40.0)
    assert there.reserve("a", 4, 10.0, 60.0) == (2, 60.0)
    assert here.reserve("a", 1, 10.0, 60.0) == (0, 60.0)
    clock.now += 10.0
    assert there.reserve("a", 4, 10.0, 60.0)[0] == 1
    assert here.reserve("b", 1, 10.0, 60.0)[0] == 1


def test_what_was_taken_and_not_used_goes_back(database: Database, clock: Clock) -> None:
    counts = RateCounts(database, clock)
    counts.reserve("a", 6, 10.0, 60.0)
    assert counts.reserve("a", 6, 10.0, 60.0, give_back_seconds=30.0) == (3, 60.0)


def test_full_buckets_are_forgotten_and_names_are_not_kept(
    database: Database, clock: Clock, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(rate_counts, "_SWEEP_ONE_IN", 1)
    counts = RateCounts(database, clock)
    counts.reserve("192.0.2.7", 1, 10.0, 60.0)
    clock.now += 200.0
    counts.reserve("b", 1, 10.0, 60.0)
    with database.reading() as session:
        rows = session.query(rate_counts.RateCountRow).all()
    assert len(rows) == 1 and "192.0" not in rows[0].name_sha256


def test_two_processes_together_allow_no_more_than_the_quota(
    database: Database, clock: Clock
) -> None:
    quota = Quota("key", 60, 60.0)
    limiters = [SharedRateLimiter(quota, RateCounts(database, clock), clock) for _ in range(2)]
    allowed: list[int] = []

    def ask(number: int) -> None:
        limiter = limiters[number % 2]
        allowed.append(sum(limiter.take("a").is_allowed for _ in range(25)))

    threads = [threading.Thread(target=ask, args=(n,)) for n in range(4)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert 56 <= sum(allowed) <= 60  # a few may lie at hand in the other process
    refused = [limiter.take("a") for limiter in limiters for _ in range(3)][-1]
    assert not refused.is_allowed and refused.retry_after_seconds > 0


def test_most_requests_ask_nobody(database: Database, clock: Clock) -> None:
    counts = RateCounts(database, clock)
    asked = []
    plain = counts.reserve
    counts.reserve = lambda *words: asked.append(words) or plain(*words)  # type: ignore[func-returns-value,method-assign]
    limiter = SharedRateLimiter(Quota("key", 300, 60.0), counts, clock)
    assert not limiter.is_at_once("a")
    left = [limiter.take("a").remaining for _ in range(30)]
    assert left == list(range(299, 269, -1)) and len(asked) == 3
    clock.now += 0.5
    assert limiter.take("a").is_allowed and limiter.is_at_once("a")


def test_what_lies_at_hand_for_long_goes_back(database: Database, clock: Clock) -> None:
    limiter = SharedRateLimiter(Quota("key", 60, 60.0), RateCounts(database, clock), clock)
    for _ in range(3):
        assert limiter.take("a").is_allowed
        clock.now += 5.0
        assert not limiter.is_at_once("a")
    assert limiter.take("a").remaining == 59
