"""`kill -9` in the middle of generation, twenty times: every job still ends exactly once."""

from __future__ import annotations

import hashlib
import json
import os
import signal
import subprocess
import sys
from collections import Counter
from collections.abc import Iterator

import pytest
from sqlalchemy import insert, text

from imagine.backends.fake import FakeBackend
from imagine.storage.database import Database, utc_now
from imagine.storage.jobs import JobState, JobStore, NewJob
from imagine.storage.tables import TenantRow
from tests.storage.job_worker import POINTS, request_of

pytestmark = pytest.mark.skipif(os.name != "posix", reason="kill -9 is POSIX")

JOBS = 12
KILLS = 20
LEASE_SECONDS = 31  # each worker's clock is so much later: its predecessor's leases are over

# The database itself counts how often a job ends, and is left as it was found.
TABLES = [
    "CREATE TABLE ends (job VARCHAR(64), state VARCHAR(16))",
    "CREATE TABLE pictures (job VARCHAR(64), sha256 VARCHAR(64))",
]
COUNT_ENDS = {
    "sqlite": [
        "CREATE TRIGGER count_ends AFTER UPDATE OF state ON jobs WHEN NEW.state NOT IN "
        "('queued', 'running') BEGIN INSERT INTO ends VALUES (NEW.id, NEW.state); END"
    ],
    "postgresql": [
        "CREATE FUNCTION count_end() RETURNS trigger LANGUAGE plpgsql AS "
        "'BEGIN INSERT INTO ends VALUES (NEW.id, NEW.state); RETURN NEW; END'",
        "CREATE TRIGGER count_ends AFTER UPDATE OF state ON jobs FOR EACH ROW WHEN "
        "(NEW.state NOT IN ('queued', 'running')) EXECUTE FUNCTION count_end()",
    ],
}
CLEAN_UP = {
    "sqlite": ["DROP TRIGGER count_ends", "DROP TABLE ends", "DROP TABLE pictures"],
    "postgresql": ["DROP FUNCTION count_end() CASCADE", "DROP TABLE ends", "DROP TABLE pictures"],
}


@pytest.fixture
def counting(database: Database) -> Iterator[Database]:
    """A database that counts ends and keeps pictures."""
    kind = database.engine.dialect.name
    run_all(database, TABLES + COUNT_ENDS[kind])
    yield database
    run_all(database, CLEAN_UP[kind])


def run_all(database: Database, statements: list[str]) -> None:
    with database.changing_schema() as connection:
        for statement in statements:
            connection.exec_driver_sql(statement)


class Nursery:
    """Starts workers one after the other, and kills them where they stand."""

    def __init__(self, url: str) -> None:
        command = [sys.executable, "-m", "tests.storage.job_worker", url]
        pipe = subprocess.PIPE
        self._process = subprocess.Popen(command, stdin=pipe, stdout=pipe, text=True)
        self._worker: int | None = None

    def start(self, point: str, clock_seconds: int) -> None:
        assert self._process.stdin is not None
        self._process.stdin.write(f"{point} {clock_seconds}\n")
        self._process.stdin.flush()
        self._worker = int(self._line().removeprefix("pid "))

    def kill_at(self, point: str) -> int:
        """Let the worker come to its point and kill it there; its exit status."""
        assert self._line() == f"at {point}"
        self._kill()
        return self.ended()

    def ended(self) -> int:
        """Wait for the end of the worker; its exit status."""
        status = int(self._line().removeprefix("ended "))
        self._worker = None
        return status

    def close(self) -> None:
        self._kill()
        assert self._process.stdin is not None and self._process.stdout is not None
        self._process.stdin.close()
        self._process.stdout.close()
        self._process.wait(30)

    def _kill(self) -> None:
        if self._worker is not None:
            os.kill(self._worker, signal.SIGKILL)

    def _line(self) -> str:
        assert self._process.stdout is not None
        return self._process.stdout.readline().strip()


@pytest.fixture
def nurseries(counting: Database, database_url: str) -> Iterator[list[Nursery]]:
    """Two, for workers that work at the same time."""
    nurseries = [Nursery(database_url), Nursery(database_url)]
    yield nurseries
    for nursery in nurseries:
        nursery.close()


def accept_jobs(database: Database) -> dict[str, bytes]:
    with database.writing() as session:
        tenant = {"id": "a", "name": "a", "created_at": utc_now()}
        session.execute(insert(TenantRow).values(tenant))
    jobs, accepted = JobStore(database), {}
    for seed in range(JOBS):
        wish = {"prompt": f"scene {seed}", "seed": seed, "num_inference_steps": 4}
        new = NewJob("a", "128px", json.dumps(wish).encode(), max_attempts=KILLS + 2)
        accepted[jobs.submit(new).job.id] = new.sealed_payload
    return accepted


def undisturbed(payload: bytes) -> str:
    """The picture of a job drawn alone, without any kill."""
    backend = FakeBackend()
    rows = [backend.prepare(request_of(payload))]
    while rows[0].step < rows[0].num_steps:
        rows = backend.denoise_step(rows)  # type: ignore[assignment]
    return hashlib.sha256(backend.decode(rows[0]).tobytes()).hexdigest()


def check_every_job_ended_once(database: Database, payloads: dict[str, bytes]) -> None:
    jobs = JobStore(database)
    assert jobs.counts()[JobState.SUCCEEDED] == len(payloads)
    with database.reading() as session:
        ends = Counter(tuple(row) for row in session.execute(text("SELECT * FROM ends")))
        pictures = session.execute(text("SELECT job, sha256 FROM pictures")).all()
    assert ends == {(job, "succeeded"): 1 for job in payloads}
    assert sorted(row.job for row in pictures) == sorted(payloads)
    for job, sha256 in pictures:
        assert sha256 == undisturbed(payloads[job])
        assert jobs.get("a", job).result == {"sha256": sha256}


def test_every_job_ends_once_with_the_same_picture_although_its_workers_are_killed(
    counting: Database, nurseries: list[Nursery]
) -> None:
    payloads = accept_jobs(counting)
    jobs = JobStore(counting)
    for kill in range(KILLS):
        point = POINTS[kill % len(POINTS)]
        nurseries[kill % 2].start(point, kill * LEASE_SECONDS)
        assert nurseries[kill % 2].kill_at(point) == -signal.SIGKILL
        assert jobs.counts()[JobState.RUNNING] > 0  # it was in the middle of something
    for nursery in nurseries:
        nursery.start("never", KILLS * LEASE_SECONDS)
    assert [nursery.ended() for nursery in nurseries] == [0, 0]
    assert max(job.attempts for job in jobs.find()) > 3
    check_every_job_ended_once(counting, payloads)
