"""Workers to be killed: `job_worker URL` forks one for each line "POINT CLOCK_SECONDS" it reads.

A worker claims jobs and draws them with the fake backend. At its POINT it says so and waits for
its end; "never" lets it work until no job is left. All libraries are loaded once, before the
forks, so that twenty workers cost little more than one.
"""

from __future__ import annotations

import hashlib
import json
import os
import signal
import sys
import time
from collections.abc import Callable
from datetime import timedelta

from sqlalchemy import text

from imagine.backends.fake import FakeBackend
from imagine.core import Request
from imagine.storage.database import open_database, utc_now
from imagine.storage.jobs import Claim, JobState, JobStore

POINTS = (
    "claimed",  # nothing drawn yet
    "first step",
    "middle step",
    "last step",
    "drawn",  # the picture is there, the job has not ended
    "before commit",  # the end is written, not committed
    "after commit",  # one job of the batch has ended, the others have not
)
Reach = Callable[[str], None]


def request_of(payload: bytes) -> Request:
    facts = json.loads(payload)
    steps = facts["num_inference_steps"]
    return Request(facts["prompt"], None, facts["seed"], steps, 2.0, 0.0)


def draw_all(jobs: JobStore, keep: Callable[[Claim, str], None], reach: Reach) -> None:
    """Claim and draw until no job is left."""
    backend = FakeBackend()
    counts = jobs.counts()
    while counts[JobState.QUEUED] + counts[JobState.RUNNING]:
        claims = jobs.claim(f"worker-{os.getpid()}", limit=4)
        if claims:
            reach("claimed")
        else:
            time.sleep(0.02)
        rows = [backend.prepare(request_of(claim.job.sealed_payload or b"")) for claim in claims]
        while rows and rows[0].step < rows[0].num_steps:
            rows = backend.denoise_step(rows)  # type: ignore[assignment]
            progress = {claim.lease: (rows[0].step, rows[0].num_steps) for claim in claims}
            assert jobs.heartbeat(progress, progress) == set()
            reach(
                {1: "first step", rows[0].num_steps: "last step"}.get(rows[0].step, "middle step")
            )
        for claim, row in zip(claims, rows, strict=True):
            digest = hashlib.sha256(backend.decode(row).tobytes()).hexdigest()
            reach("drawn")
            keep(claim, digest)
            reach("after commit")
        counts = jobs.counts()


def work(url: str, point: str, clock_seconds: float) -> None:
    def reach(here: str) -> None:
        if here == point:
            print(f"at {here}", flush=True)
            signal.pause()

    with open_database(url) as database:
        jobs = JobStore(database, lambda: utc_now() + timedelta(seconds=clock_seconds))

        def keep(claim: Claim, digest: str) -> None:
            with database.writing() as session:
                jobs.finish(claim.lease, {"sha256": digest}, within=session)
                row = {"job": claim.job.id, "sha256": digest}
                session.execute(text("INSERT INTO pictures VALUES (:job, :sha256)"), row)
                session.flush()
                reach("before commit")

        draw_all(jobs, keep, reach)


def main(url: str) -> None:
    heavy = {"torch", "diffusers", "transformers"} & set(sys.modules)
    assert not heavy, f"A worker that is killed twenty times must be light, but loads {heavy}."
    for line in sys.stdin:
        point, _, seconds = line.strip().rpartition(" ")
        worker = os.fork()
        if worker == 0:
            status = 1
            try:
                work(url, point, float(seconds))
                status = 0
            finally:
                sys.stdout.flush()
                os._exit(status)
        print(f"pid {worker}", flush=True)
        _, status = os.waitpid(worker, 0)
        print(f"ended {os.waitstatus_to_exitcode(status)}", flush=True)


if __name__ == "__main__":
    main(sys.argv[1])
