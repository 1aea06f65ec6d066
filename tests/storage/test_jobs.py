"""Jobs: accepted once, shared out fairly, ended exactly once, whatever happens in between."""

from __future__ import annotations

import time
from collections import Counter
from concurrent.futures import ThreadPoolExecutor
from datetime import UTC, datetime, timedelta
from pathlib import Path

import pytest
from sqlalchemy import insert, text
from sqlalchemy.orm import Session

from imagine.errors import (
    IdempotencyConflict,
    InvalidInput,
    JobStillRunning,
    LeaseLost,
    NotStored,
)
from imagine.storage.database import Database, open_database
from imagine.storage.jobs import (
    Claim,
    Job,
    JobError,
    JobState,
    JobStore,
    Lease,
    NewJob,
)
from imagine.storage.tables import TenantRow

NOON = datetime(2026, 11, 22, 12, tzinfo=UTC)
LEASE = timedelta(seconds=30)
BODY = "ab" * 32
BROKEN = JobError("generation_failed", "The model failed on this picture.")


class Clock:
    """A clock that moves when it is told to."""

    def __init__(self) -> None:
        self.now = NOON

    def __call__(self) -> datetime:
        return self.now

    def pass_time(self, **amount: float) -> None:
        self.now += timedelta(**amount)


@pytest.fixture
def clock() -> Clock:
    return Clock()


@pytest.fixture
def jobs(database: Database, clock: Clock) -> JobStore:
    """A store with the tenants "a" and "b"."""
    return store_of(database, clock)


@pytest.fixture
def lite(sqlite_url: str, clock: Clock) -> object:
    """As `jobs`, for what the kind of database does not matter to."""
    with open_database(sqlite_url) as database:
        yield store_of(database, clock)


def store_of(database: Database, clock: Clock) -> JobStore:
    with database.writing() as session:
        for tenant in ("a", "b"):
            values = {"id": tenant, "name": tenant, "created_at": NOON}
            session.execute(insert(TenantRow).values(values))
    return JobStore(database, clock, LEASE)


def ask(jobs: JobStore, tenant: str = "a", key: str = "128px", **more: object) -> Job:
    payload = more.pop("sealed_payload", b"sealed")
    new = NewJob(tenant, key, payload, **more)  # type: ignore[arg-type]
    return jobs.submit(new).job


def one(claims: list[Claim]) -> Claim:
    assert len(claims) == 1
    return claims[0]


def test_a_job_is_kept_as_it_was_asked_for(jobs: JobStore) -> None:
    asked = ask(jobs, identity_id="identity_1", priority=3, deadline_at=NOON + timedelta(hours=1))
    assert jobs.get("a", asked.id) == asked
    assert (asked.state, asked.priority, asked.attempts) == (JobState.QUEUED, 3, 0)
    assert asked.sealed_payload == b"sealed" and asked.created_at == NOON
    assert asked.deadline_at == NOON + timedelta(hours=1) and not asked.has_ended


def test_the_life_of_a_job_that_goes_well(jobs: JobStore, clock: Clock) -> None:
    asked = ask(jobs)
    claim = one(jobs.claim("worker-1"))
    assert (claim.job.state, claim.job.attempts) == (JobState.RUNNING, 1)
    assert claim.job.sealed_payload == b"sealed" and claim.job.started_at == NOON
    clock.pass_time(seconds=5)
    assert jobs.heartbeat([claim.lease], {claim.lease: (3, 8)}) == set()
    assert (jobs.get("a", asked.id).step, jobs.get("a", asked.id).num_steps) == (3, 8)
    assert jobs.finish(claim.lease, {"images": ["image_1"]}) == JobState.SUCCEEDED
    ended = jobs.get("a", asked.id)
    assert ended.has_ended and ended.result == {"images": ["image_1"]}
    assert ended.ended_at == NOON + timedelta(seconds=5) and ended.error is None
    assert jobs.claim("worker-1") == []


def test_the_payload_is_gone_from_the_file_when_the_job_ends(
    sqlite_url: str, tmp_path: Path, clock: Clock
) -> None:
    with open_database(sqlite_url) as database:
        jobs = store_of(database, clock)
        asked = ask(jobs, sealed_payload=b"canary of a prompt")
        jobs.finish(one(jobs.claim("worker-1")).lease, {})
        assert jobs.get("a", asked.id).sealed_payload is None
        database.scrub()
        for path in (tmp_path / "data").iterdir():
            assert b"canary" not in path.read_bytes()


def test_payloads_do_not_show_in_repr(lite: JobStore) -> None:
    new = NewJob("a", "128px", b"secret")
    assert "secret" not in repr(new) and "secret" not in repr(lite.submit(new))


def test_a_job_blocked_by_policy_says_at_which_stage(jobs: JobStore) -> None:
    asked = ask(jobs)
    why = JobError("nudity", "The picture is not one we show.")
    assert jobs.block(one(jobs.claim("w")).lease, "output", why) == JobState.BLOCKED
    ended = jobs.get("a", asked.id)
    assert (ended.state, ended.stage, ended.error) == (JobState.BLOCKED, "output", why)


def test_a_stage_is_one_word(lite: JobStore) -> None:
    ask(lite)
    lease = one(lite.claim("w")).lease
    with pytest.raises(InvalidInput, match="one word"):
        lite.block(lease, "The output!", BROKEN)


def test_a_failed_job_keeps_its_reason(jobs: JobStore) -> None:
    asked = ask(jobs)
    assert jobs.fail(one(jobs.claim("w")).lease, BROKEN) == JobState.FAILED
    assert jobs.get("a", asked.id).error == BROKEN


def test_a_failed_job_may_wait_and_try_again_until_its_last_attempt(
    jobs: JobStore, clock: Clock
) -> None:
    asked = ask(jobs, max_attempts=2)
    first = one(jobs.claim("w")).lease
    assert jobs.fail(first, BROKEN, retry_after=timedelta(seconds=10)) == JobState.QUEUED
    assert jobs.claim("w") == []
    clock.pass_time(seconds=10)
    second = one(jobs.claim("w"))
    assert second.job.sealed_payload == b"sealed" and second.job.error is None
    assert jobs.fail(second.lease, BROKEN, retry_after=timedelta(0)) == JobState.FAILED
    assert jobs.get("a", asked.id).error == BROKEN


# Asking twice


def test_the_same_request_under_the_same_key_is_the_same_job(jobs: JobStore) -> None:
    first = jobs.submit(NewJob("a", "k", b"sealed once", idempotency_key="r1", body_digest=BODY))
    again = jobs.submit(NewJob("a", "k", b"sealed anew", idempotency_key="r1", body_digest=BODY))
    assert (first.is_repeat, again.is_repeat) == (False, True)
    assert again.job == first.job
    jobs.finish(one(jobs.claim("w")).lease, {"images": []})
    later = jobs.submit(NewJob("a", "k", b"sealed anew", idempotency_key="r1", body_digest=BODY))
    assert later.job.state == JobState.SUCCEEDED and later.job.id == first.job.id


def test_another_request_under_the_same_key_is_refused(jobs: JobStore) -> None:
    ask(jobs, idempotency_key="r1", body_digest=BODY)
    with pytest.raises(IdempotencyConflict, match="'r1' was used for another request"):
        ask(jobs, idempotency_key="r1", body_digest="cd" * 32)
    assert jobs.counts()[JobState.QUEUED] == 1


def test_a_repeat_while_the_job_is_worked_on_is_told_so(jobs: JobStore) -> None:
    asked = ask(jobs, idempotency_key="r1", body_digest=BODY)
    jobs.claim("w")
    with pytest.raises(JobStillRunning, match=asked.id) as refused:
        ask(jobs, idempotency_key="r1", body_digest=BODY)
    assert refused.value.job_id == asked.id
    with pytest.raises(IdempotencyConflict):
        ask(jobs, idempotency_key="r1", body_digest="cd" * 32)


def test_keys_of_two_tenants_do_not_meet(jobs: JobStore) -> None:
    mine = ask(jobs, "a", idempotency_key="r1", body_digest=BODY)
    yours = ask(jobs, "b", idempotency_key="r1", body_digest="cd" * 32)
    assert mine.id != yours.id


def test_jobs_without_a_key_are_never_repeats(jobs: JobStore) -> None:
    assert ask(jobs).id != ask(jobs).id


def test_many_who_send_the_same_request_at_once_get_one_job(jobs: JobStore) -> None:
    def send(_: int) -> str:
        return ask(jobs, idempotency_key="r1", body_digest=BODY).id

    with ThreadPoolExecutor(6) as threads:
        assert len(set(threads.map(send, range(12)))) == 1
    assert jobs.counts()[JobState.QUEUED] == 1


@pytest.mark.parametrize(
    ("change", "said"),
    [
        ({"sealed_payload": bytes(1024 * 1024 + 1)}, "payload has 1048577 bytes"),
        ({"key": ""}, "batch key has 0 characters"),
        ({"priority": 101}, "priority is 101"),
        ({"max_attempts": 0}, "tried 0 times"),
        ({"idempotency_key": "a b", "body_digest": BODY}, "visible ASCII"),
        ({"idempotency_key": "r1"}, "needs a body digest"),
        ({"tenant": "../a"}, "is not an id"),
        ({"identity_id": "x y"}, "is not an id"),
    ],
)
def test_a_malformed_job_is_refused_and_nothing_kept(
    lite: JobStore, change: dict[str, object], said: str
) -> None:
    with pytest.raises(InvalidInput, match=said):
        ask(lite, **change)  # type: ignore[arg-type]
    assert sum(lite.counts().values()) == 0


def test_a_job_of_an_unknown_tenant_is_refused(jobs: JobStore) -> None:
    with pytest.raises(NotStored, match="no such tenant"):
        ask(jobs, "nobody")


def test_a_job_stands_or_falls_with_the_transaction_it_is_part_of(
    jobs: JobStore, database: Database
) -> None:
    with pytest.raises(RuntimeError, match="power cut"), database.writing() as session:
        jobs.submit(NewJob("a", "k", b""), within=session)
        raise RuntimeError("power cut")
    assert jobs.counts()[JobState.QUEUED] == 0


# Who gets which job


def test_a_claim_takes_many_jobs_that_may_share_a_batch(jobs: JobStore, clock: Clock) -> None:
    for key in ("128px", "128px", "256px", "128px"):
        ask(jobs, key=key)
        clock.pass_time(seconds=1)
    assert [claim.job.batch_key for claim in jobs.claim("w", limit=8)] == ["128px"] * 3
    assert [claim.job.batch_key for claim in jobs.claim("w", limit=8)] == ["256px"]


def test_a_worker_may_ask_for_one_kind_of_job(jobs: JobStore) -> None:
    for key in ("128px", "256px"):
        ask(jobs, key=key)
    assert one(jobs.claim("w", "256px", limit=8)).job.batch_key == "256px"
    assert jobs.claim("w", "256px", limit=8) == []


def test_the_highest_priority_goes_first_then_the_oldest(jobs: JobStore, clock: Clock) -> None:
    asked = []
    for priority in (0, 0, 5, 5):
        asked.append(ask(jobs, priority=priority).id)
        clock.pass_time(seconds=1)
    claimed = [one(jobs.claim("w")).job.id for _ in range(4)]
    assert claimed == [asked[2], asked[3], asked[0], asked[1]]


def test_tenants_take_turns_whatever_their_priorities(jobs: JobStore, clock: Clock) -> None:
    for _ in range(6):
        ask(jobs, "a", priority=9)
    clock.pass_time(seconds=1)
    for _ in range(2):
        ask(jobs, "b")
    taken = Counter(claim.job.tenant_id for claim in jobs.claim("w", limit=4))
    assert taken == {"a": 2, "b": 2}


def test_a_tenant_with_jobs_running_lets_others_go_first(jobs: JobStore, clock: Clock) -> None:
    for _ in range(5):
        ask(jobs, "a")
    jobs.claim("w", limit=3)
    clock.pass_time(seconds=1)
    late = ask(jobs, "b").id
    assert one(jobs.claim("w")).job.id == late


def test_claims_of_many_workers_never_overlap(database: Database, clock: Clock) -> None:
    jobs = store_of(database, clock)
    asked = {ask(jobs, "a" if number % 3 else "b").id for number in range(60)}

    def work(worker: str) -> list[str]:
        mine: list[str] = []
        while jobs.counts()[JobState.QUEUED]:
            for claim in jobs.claim(worker, limit=4):
                assert jobs.finish(claim.lease, {}) == JobState.SUCCEEDED
                mine.append(claim.job.id)
        return mine

    with ThreadPoolExecutor(4) as threads:
        shares = list(threads.map(work, [f"worker-{number}" for number in range(4)]))
    claimed = [job for share in shares for job in share]
    assert len(claimed) == 60 and set(claimed) == asked


def test_a_claim_never_waits_for_rows_another_worker_has_locked(
    database: Database, clock: Clock
) -> None:
    if database.is_sqlite:
        pytest.skip("SQLite has one writer at a time and no row locks")
    jobs = store_of(database, clock)
    first = ask(jobs).id
    clock.pass_time(seconds=1)
    second = ask(jobs).id
    with database.writing() as session:
        session.execute(text("SELECT 1 FROM jobs WHERE id = :id FOR UPDATE"), {"id": first})
        assert one(jobs.claim("w", limit=2)).job.id == second
    assert one(jobs.claim("w", limit=2)).job.id == first


@pytest.mark.parametrize(("worker", "limit"), [("w", 0), ("w", 257), ("", 1), ("w" * 201, 1)])
def test_a_claim_without_a_name_or_a_sensible_number_is_refused(
    lite: JobStore, worker: str, limit: int
) -> None:
    with pytest.raises(InvalidInput, match="cannot claim"):
        lite.claim(worker, limit=limit)


# Workers that are lost


def test_a_job_of_a_lost_worker_returns_to_the_queue(jobs: JobStore, clock: Clock) -> None:
    ask(jobs)
    lost = one(jobs.claim("w1")).lease
    jobs.heartbeat([lost], {lost: (4, 8)})
    clock.pass_time(seconds=29)
    assert jobs.claim("w2") == []
    clock.pass_time(seconds=1)
    taken = one(jobs.claim("w2"))
    assert (taken.job.attempts, taken.job.step) == (2, 0)
    assert taken.job.sealed_payload == b"sealed"


def test_a_worker_whose_lease_was_taken_over_can_change_nothing(
    jobs: JobStore, clock: Clock
) -> None:
    asked = ask(jobs)
    late = one(jobs.claim("w1")).lease
    clock.pass_time(seconds=31)
    taken = one(jobs.claim("w2")).lease
    assert jobs.heartbeat([late]) == {late} and jobs.stopping([late, taken]) == {late}
    with pytest.raises(LeaseLost, match="claim 1"):
        jobs.finish(late, {"images": ["wrong"]})
    with pytest.raises(LeaseLost):
        jobs.fail(late, BROKEN)
    with pytest.raises(LeaseLost):
        jobs.fail(late, BROKEN, retry_after=timedelta(0))
    with pytest.raises(LeaseLost):
        jobs.block(late, "output", BROKEN)
    with pytest.raises(LeaseLost):
        jobs.give_back(late)
    assert jobs.finish(taken, {"images": ["right"]}) == JobState.SUCCEEDED
    with pytest.raises(LeaseLost):
        jobs.finish(taken, {"images": ["twice"]})
    assert jobs.get("a", asked.id).result == {"images": ["right"]}


def test_the_same_worker_name_does_not_revive_an_old_lease(jobs: JobStore, clock: Clock) -> None:
    ask(jobs)
    before_restart = one(jobs.claim("w1")).lease
    clock.pass_time(seconds=31)
    after_restart = one(jobs.claim("w1")).lease
    with pytest.raises(LeaseLost):
        jobs.finish(before_restart, {})
    assert jobs.finish(after_restart, {}) == JobState.SUCCEEDED


def test_a_late_worker_may_finish_what_nobody_took_over(jobs: JobStore, clock: Clock) -> None:
    ask(jobs)
    lease = one(jobs.claim("w1")).lease
    clock.pass_time(minutes=5)
    assert jobs.heartbeat([lease]) == set()
    assert jobs.finish(lease, {}) == JobState.SUCCEEDED


def test_a_heartbeat_keeps_the_lease(jobs: JobStore, clock: Clock) -> None:
    ask(jobs)
    lease = one(jobs.claim("w1")).lease
    for _ in range(5):
        clock.pass_time(seconds=20)
        assert jobs.heartbeat([lease]) == set()
    assert jobs.claim("w2") == []


def test_a_job_that_loses_every_worker_fails_in_the_end(jobs: JobStore, clock: Clock) -> None:
    asked = ask(jobs, max_attempts=2)
    for _ in range(2):
        assert len(jobs.claim("w")) == 1
        clock.pass_time(seconds=31)
    assert jobs.claim("w") == []
    ended = jobs.get("a", asked.id)
    assert ended.state == JobState.FAILED and ended.error is not None
    assert ended.error.code == "worker_lost" and ended.sealed_payload is None


def test_a_worker_that_shuts_down_gives_its_jobs_back_unharmed(jobs: JobStore) -> None:
    ask(jobs, max_attempts=1)
    assert jobs.give_back(one(jobs.claim("w1")).lease) == JobState.QUEUED
    again = one(jobs.claim("w2"))
    assert again.job.attempts == 1
    assert jobs.finish(again.lease, {}) == JobState.SUCCEEDED


def test_a_sweep_says_what_became_of_forgotten_jobs(jobs: JobStore, clock: Clock) -> None:
    stopped = ask(jobs)
    ask(jobs)
    ask(jobs, max_attempts=1)
    jobs.claim("w", limit=3)
    jobs.cancel("a", stopped.id)
    ask(jobs, deadline_at=NOON + timedelta(seconds=10))
    clock.pass_time(seconds=31)
    found = jobs.sweep()
    assert (found.requeued, found.failed, found.canceled) == (1, 2, 1)
    assert (jobs.sweep().requeued, jobs.counts()[JobState.QUEUED]) == (0, 1)


def test_a_job_past_its_deadline_is_not_begun_between_two_sweeps(
    jobs: JobStore, clock: Clock
) -> None:
    ask(jobs, deadline_at=NOON + timedelta(seconds=10))
    clock.pass_time(seconds=11)
    assert jobs.claim("worker-a", sweeps=False) == []


def test_a_job_that_waited_past_its_deadline_fails_unclaimed(jobs: JobStore, clock: Clock) -> None:
    asked = ask(jobs, deadline_at=NOON + timedelta(seconds=10))
    clock.pass_time(seconds=10)
    assert jobs.claim("w") == []
    ended = jobs.get("a", asked.id)
    assert ended.state == JobState.FAILED and ended.error is not None
    assert ended.error.code == "deadline_exceeded" and ended.attempts == 0


def test_changes_of_many_jobs_lock_them_in_one_order_and_never_wait_in_a_circle(
    database: Database, clock: Clock
) -> None:
    if database.is_sqlite:
        pytest.skip("SQLite has one writer at a time and no row locks")
    jobs = store_of(database, clock)
    for name in ("job_b", "job_a"):  # on the disk they lie in this order
        ask(jobs, identity_id="identity_1", id=name)
    lock = text("SELECT 1 FROM jobs WHERE id = :id FOR UPDATE NOWAIT")
    with ThreadPoolExecutor(1) as threads:
        with database.writing() as session:
            session.execute(lock, {"id": "job_a"})
            canceling = threads.submit(jobs.cancel_identity, "a", "identity_1")
            wait_until_somebody_waits(database)
            session.execute(lock, {"id": "job_b"})  # free: whoever waits for "a" has no "b" yet
        assert canceling.result(30) == 2


def wait_until_somebody_waits(database: Database) -> None:
    waiting = text("SELECT count(*) FROM pg_locks WHERE NOT granted")
    for _ in range(1000):
        with database.reading() as session:
            if session.execute(waiting).scalar():
                return
        time.sleep(0.01)
    raise AssertionError("Nobody waits for a lock.")


# Stopping


def test_a_waiting_job_is_canceled_at_once(jobs: JobStore) -> None:
    asked = ask(jobs)
    canceled = jobs.cancel("a", asked.id)
    assert canceled.state == JobState.CANCELED and canceled.ended_at == NOON
    assert canceled.sealed_payload is None
    assert jobs.claim("w") == []


def test_a_running_job_is_canceled_between_two_steps(jobs: JobStore) -> None:
    asked, other = ask(jobs), ask(jobs)
    leases = {claim.job.id: claim.lease for claim in jobs.claim("w", limit=2)}
    assert jobs.stopping(leases.values()) == set()
    running = jobs.cancel("a", asked.id)
    assert running.state == JobState.RUNNING and running.cancel_requested
    assert jobs.stopping(leases.values()) == {leases[asked.id]}
    assert jobs.heartbeat(leases.values()) == {leases[asked.id]}
    assert jobs.finish(leases[asked.id], {}) == JobState.CANCELED
    assert jobs.finish(leases[other.id], {}) == JobState.SUCCEEDED


def test_what_was_made_for_a_canceled_job_is_not_kept(jobs: JobStore) -> None:
    asked = ask(jobs)
    lease = one(jobs.claim("w")).lease
    jobs.cancel("a", asked.id)
    assert jobs.finish(lease, {"images": ["image_1"]}) == JobState.CANCELED
    ended = jobs.get("a", asked.id)
    assert (ended.state, ended.result) == (JobState.CANCELED, None)


def test_canceling_a_job_that_has_ended_changes_nothing(jobs: JobStore) -> None:
    asked = ask(jobs)
    jobs.finish(one(jobs.claim("w")).lease, {"images": []})
    before = jobs.get("a", asked.id)
    assert jobs.cancel("a", asked.id) == before


def test_a_canceled_job_of_a_lost_worker_does_not_come_back(jobs: JobStore, clock: Clock) -> None:
    asked = ask(jobs)
    jobs.claim("w")
    jobs.cancel("a", asked.id)
    clock.pass_time(seconds=31)
    assert jobs.claim("w") == []
    assert jobs.get("a", asked.id).state == JobState.CANCELED


def test_withdrawing_an_identity_stops_its_jobs_and_no_others(jobs: JobStore) -> None:
    running = ask(jobs, identity_id="identity_1")
    lease = one(jobs.claim("w")).lease
    waiting = ask(jobs, identity_id="identity_1")
    others = [ask(jobs, identity_id="identity_2"), ask(jobs, "b", identity_id="identity_1")]
    assert jobs.cancel_identity("a", "identity_1") == 2
    assert jobs.get("a", waiting.id).state == JobState.CANCELED
    assert jobs.stopping([lease]) == {lease}
    assert jobs.get("a", running.id).cancel_requested
    assert [jobs.get(job.tenant_id, job.id).state for job in others] == [JobState.QUEUED] * 2


def test_forgetting_an_identity_removes_its_jobs_from_under_the_worker(jobs: JobStore) -> None:
    running = ask(jobs, identity_id="identity_1")
    lease = one(jobs.claim("w")).lease
    ask(jobs, identity_id="identity_1")
    kept = ask(jobs, identity_id="identity_2")
    assert jobs.forget_identity("a", "identity_1") == 2
    assert jobs.forget_identity("a", "identity_1") == 0
    with pytest.raises(NotStored):
        jobs.get("a", running.id)
    with pytest.raises(LeaseLost):
        jobs.finish(lease, {})
    assert jobs.get("a", kept.id).state == JobState.QUEUED


def test_pictures_are_kept_exactly_when_the_job_succeeds(
    jobs: JobStore, database: Database, clock: Clock
) -> None:
    ask(jobs)
    late = one(jobs.claim("w1")).lease
    clock.pass_time(seconds=31)
    taken = one(jobs.claim("w2")).lease
    for lease in (late, taken):
        try:
            with database.writing() as session:
                if jobs.finish(lease, {}, within=session) == JobState.SUCCEEDED:
                    values = {"id": lease.worker, "name": "a picture", "created_at": NOON}
                    session.execute(insert(TenantRow).values(values))
        except LeaseLost:
            pass
    with database.reading() as session:
        rows = session.execute(text("SELECT id FROM tenants WHERE name = 'a picture'")).all()
    assert [row.id for row in rows] == ["w2"]


def test_what_belongs_to_a_job_is_done_with_it_or_not_at_all(jobs: JobStore) -> None:
    done: list[str] = []

    def broken(session: Session) -> None:
        done.append("broken")
        raise ZeroDivisionError

    def fine(session: Session) -> None:
        done.append("fine")

    new = NewJob("a", "sd", b"wish", idempotency_key="once", body_digest="0" * 64)
    with pytest.raises(ZeroDivisionError):
        jobs.submit(new, also=broken)
    assert jobs.find("a") == []
    assert not jobs.submit(new, also=fine).is_repeat
    assert jobs.submit(new, also=broken).is_repeat  # it came before: nothing is done again
    assert (done, jobs.waiting("a")) == (["broken", "fine"], 1)
    lease = one(jobs.claim("w")).lease
    with pytest.raises(ZeroDivisionError):
        jobs.finish(lease, {}, also=broken)
    assert jobs.get("a", lease.job_id).state == JobState.RUNNING
    assert jobs.finish(lease, {}, also=fine) == JobState.SUCCEEDED
    assert (done[2:], jobs.waiting("a")) == (["broken", "fine"], 0)


# Looking


def test_jobs_of_another_tenant_are_not_found(jobs: JobStore) -> None:
    asked = ask(jobs, "a")
    for act in (jobs.get, jobs.cancel):
        with pytest.raises(NotStored, match="no job"):
            act("b", asked.id)
    assert jobs.find("b") == [] and jobs.counts("b")[JobState.QUEUED] == 0
    assert jobs.get("a", asked.id).state == JobState.QUEUED


def test_jobs_are_listed_newest_first_page_by_page(jobs: JobStore, clock: Clock) -> None:
    asked = []
    for number in range(5):
        asked.append(ask(jobs, "ab"[number % 2]).id)
        clock.pass_time(seconds=number % 2)  # some at the same moment
    pages: list[Job] = []
    while page := jobs.find(limit=2, before=pages[-1] if pages else None):
        pages += page
    assert sorted(job.id for job in pages) == sorted(asked)
    assert [job.created_at for job in pages] == sorted((j.created_at for j in pages), reverse=True)
    assert {job.id for job in jobs.find("a")} == {asked[0], asked[2], asked[4]}


def test_jobs_are_listed_by_state(jobs: JobStore, clock: Clock) -> None:
    first = ask(jobs)
    clock.pass_time(seconds=1)
    second = ask(jobs)
    jobs.finish(one(jobs.claim("w")).lease, {})
    assert [job.id for job in jobs.find(states=[JobState.SUCCEEDED])] == [first.id]
    assert [job.id for job in jobs.find("a", [JobState.QUEUED])] == [second.id]
    counts = jobs.counts()
    assert counts[JobState.QUEUED] == counts[JobState.SUCCEEDED] == 1 == sum(counts.values()) - 1


def test_ended_jobs_are_forgotten_after_their_time(jobs: JobStore, clock: Clock) -> None:
    ended, waiting = ask(jobs), ask(jobs)
    clock.pass_time(seconds=1)
    jobs.cancel("a", ended.id)
    assert jobs.forget_ended_before(NOON + timedelta(seconds=1)) == 0
    assert jobs.forget_ended_before(NOON + timedelta(days=30)) == 1
    assert [job.id for job in jobs.find()] == [waiting.id]


def test_the_operator_finds_a_job_of_any_tenant(jobs: JobStore) -> None:
    asked = ask(jobs, "b")
    assert jobs.locate(asked.id) == asked
    with pytest.raises(NotStored, match="no job 'job_0'"):
        jobs.locate("job_0")


def test_a_lease_names_its_job_and_claim(lite: JobStore) -> None:
    asked = ask(lite)
    assert one(lite.claim("w")).lease == Lease("a", asked.id, "w", 1)
    assert lite.stopping([]) == set()
