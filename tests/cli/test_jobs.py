"""`imagine-me jobs`: what an operator sees of jobs, and can do about them."""

from __future__ import annotations

import json
import threading
from collections.abc import Iterator
from pathlib import Path

import pytest
from sqlalchemy import insert

from imagine.storage.database import open_database, utc_now
from imagine.storage.jobs import JobError, JobState, JobStore, NewJob
from imagine.storage.migrations import upgrade
from imagine.storage.tables import TenantRow
from tests.cli.conftest import Run


@pytest.fixture
def jobs(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[JobStore]:
    """The store of a data folder with the tenant "a"."""
    folder = tmp_path / "kept"
    monkeypatch.setenv("IMAGINE_DATA_DIR", str(folder))
    monkeypatch.delenv("IMAGINE_DATABASE_URL", raising=False)
    monkeypatch.setenv("COLUMNS", "200")
    with open_database(f"sqlite:///{folder / 'imagine.db'}") as database:
        upgrade(database)
        with database.writing() as session:
            values = {"id": "a", "name": "a", "created_at": utc_now()}
            session.execute(insert(TenantRow).values(values))
        yield JobStore(database)


def ask(jobs: JobStore, identity_id: str | None = None) -> str:
    return jobs.submit(NewJob("a", "128px", b"a secret wish", identity_id)).job.id


def test_jobs_are_listed_without_what_was_wished_for(run: Run, jobs: JobStore) -> None:
    asked = ask(jobs)
    table, facts = run("jobs", "list"), run("jobs", "list", "--json")
    assert table.status == 0 and asked in table.out and "queued" in table.out
    assert json.loads(facts.out)[0]["state"] == "queued"
    assert "secret" not in table.out + facts.out


def test_jobs_are_listed_by_state_and_tenant(run: Run, jobs: JobStore) -> None:
    first, second = ask(jobs), ask(jobs)
    jobs.cancel("a", first)
    found = json.loads(run("jobs", "list", "--state", "canceled", "--json").out)
    assert [job["id"] for job in found] == [first]
    assert json.loads(run("jobs", "list", "--tenant", "b", "--json").out) == []
    assert second in run("jobs", "list", "--state", "queued").out
    refused = run("jobs", "list", "--state", "sleeping")
    assert refused.status == 2 and "Known: queued, running" in refused.err


def test_a_job_is_canceled_by_name(run: Run, jobs: JobStore) -> None:
    waiting = ask(jobs)
    assert run("jobs", "cancel", waiting).out == f"{waiting}: canceled\n"
    running = ask(jobs)
    jobs.claim("w")
    assert run("jobs", "cancel", running).out == f"{running}: stopping after this step\n"
    assert jobs.get("a", running).cancel_requested


def test_nothing_is_canceled_when_one_of_the_names_is_wrong(run: Run, jobs: JobStore) -> None:
    asked = ask(jobs)
    done = run("jobs", "cancel", asked, "job_0")
    assert done.status == 2 and "no job 'job_0'" in done.err
    assert jobs.get("a", asked).state == JobState.QUEUED


def test_watching_a_job_tells_its_steps_and_ends_with_it(run: Run, jobs: JobStore) -> None:
    asked = ask(jobs)
    lease = jobs.claim("w")[0].lease
    jobs.heartbeat([lease], {lease: (3, 8)})
    ender = threading.Timer(0.3, lambda: jobs.finish(lease, {"images": []}))
    ender.start()
    done = run("jobs", "watch", asked, "--interval", "0.05")
    ender.join()
    assert done.status == 0
    assert done.out.splitlines() == [f"{asked}: running 3/8", f"{asked}: succeeded"]


@pytest.mark.parametrize(("end", "status"), [("fail", 8), ("block", 4), ("cancel", 130)])
def test_watching_ends_as_the_job_does(run: Run, jobs: JobStore, end: str, status: int) -> None:
    asked = ask(jobs)
    lease = jobs.claim("w")[0].lease
    why = JobError("why", "This is the reason.")
    if end == "fail":
        jobs.fail(lease, why)
    elif end == "block":
        jobs.block(lease, "output", why)
    else:
        jobs.cancel("a", asked)
        jobs.finish(lease, {})
    done = run("jobs", "watch", asked)
    assert done.status == status
    assert ("This is the reason." in done.err) == (end != "cancel")


def test_watching_all_ends_when_all_have_ended(run: Run, jobs: JobStore) -> None:
    first, second, forgotten = ask(jobs), ask(jobs), ask(jobs, "identity_1")

    def end_all() -> None:
        jobs.cancel("a", first)
        jobs.forget_identity("a", "identity_1")
        jobs.finish(jobs.claim("w")[0].lease, {})

    ender = threading.Timer(1.0, end_all)
    ender.start()
    done = run("jobs", "watch", "--interval", "0.05")
    ender.join()
    lines = done.out.splitlines()
    assert done.status == 0
    assert lines[:3] == [f"{name}: queued" for name in (first, second, forgotten)]
    assert f"{first}: canceled" in lines and f"{second}: succeeded" in lines
    assert f"{forgotten}: forgotten" in lines


@pytest.mark.parametrize("command", ["list", "watch", "cancel"])
def test_every_jobs_command_has_help(run: Run, command: str) -> None:
    done = run("jobs", command, "--help")
    assert done.status == 0 and f"Usage: imagine-me jobs {command}" in done.out
