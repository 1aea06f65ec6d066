from __future__ import annotations

import os
import signal
import subprocess
import sys
import threading
import time
from collections.abc import Iterator
from datetime import timedelta
from pathlib import Path
from typing import Any

import pytest

from imagine.core import Request
from imagine.errors import DatabaseUnusable, NotMarked, PictureWithheld, PromptBlocked
from imagine.pipeline import Audience, Candidate, make_pictures
from imagine.safety import CheckReport, Outcome, Thresholds, Verdict
from imagine.service import worker as worker_module
from imagine.service.auth import SCOPES, Caller
from imagine.service.schemas import GenerationRequest
from imagine.service.wiring import Service, build_service
from imagine.storage.consent import ConsentForm, Purpose
from imagine.storage.database import utc_now
from imagine.storage.jobs import Job, JobState, JobStore
from imagine.storage.people import NewImages
from imagine.storage.vault import Kind
from tests.service.conftest import chosen, places_in, selfie

CALLER = Caller("house", "key_1", SCOPES)
FORM = ConsentForm("I agree.", "en", {Purpose.GENERATE}, True, True, "test")


class Later:
    """A clock that runs ahead."""

    def __init__(self, ahead: timedelta) -> None:
        self.ahead = ahead

    def __call__(self) -> Any:
        return utc_now() + self.ahead


@pytest.fixture
def own(tmp_path: Path) -> Iterator[Service]:
    """A service of its own with one person; its worker is not started."""
    service = build_service(chosen(), places_in(tmp_path))
    service.people.add_tenant("house", "A house")
    service.models.load()
    yield service
    service.close()


@pytest.fixture
def me(own: Service) -> str:
    return own.enrolment.enrol("house", [selfie()], FORM).facts.id


def asked(service: Service, identity: str, **wish: Any) -> Job:
    body: dict[str, Any] = {"prompt": "in a forest", "identity": identity, "seed": 7, **wish}
    return service.generations.submit(CALLER, GenerationRequest(**body)).job


def ended(service: Service, job: Job, seconds: float = 20.0) -> Job:
    give_up = time.monotonic() + seconds
    while time.monotonic() < give_up:
        now = service.jobs.get(job.tenant_id, job.id)
        if now.has_ended:
            return now
        time.sleep(0.02)
    raise AssertionError(f"the job is still {now.state}")


def files_of(service: Service, job: Job) -> list[bytes]:
    return [
        service.people.read_image("house", facts.id, purpose=Purpose.OWN_ACCESS)
        for facts in service.people.images("house", job_id=job.id)
    ]


def test_a_job_whose_worker_died_is_done_again_and_its_leftovers_are_gone(
    own: Service, me: str
) -> None:
    job, model = asked(own, me, n=2), asked(own, me, n=2)
    died = JobStore(own.database, lease_duration=timedelta(0)).claim("ghost", limit=1)
    assert died[0].job.id == job.id
    leftover = worker_module._image_id(job.id, died[0].lease.fence, 1)
    own.people._vault.put("house", me, Kind.IMAGE, leftover, b"x")
    own.worker.start()
    done = ended(own, job)
    ended(own, model)
    assert done.state is JobState.SUCCEEDED and done.attempts == 2
    assert files_of(own, job) == files_of(own, model) and len(files_of(own, job)) == 2
    assert own.people._vault.count("house", me)[Kind.IMAGE] == 4


def test_a_worker_that_lost_its_job_throws_its_pictures_away(
    own: Service, me: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    job = asked(own, me)
    plain = NewImages.add

    def robbed(*words: Any, **more: Any) -> str:
        JobStore(own.database, Later(timedelta(hours=1))).claim("robber", limit=1)
        return plain(*words, **more)

    monkeypatch.setattr(NewImages, "add", robbed)
    own.worker.start()
    time.sleep(0.1)
    give_up = time.monotonic() + 10
    while own.worker._active or own.jobs.get("house", job.id).attempts < 2:
        assert time.monotonic() < give_up
        time.sleep(0.02)
    assert own.people.images("house", job_id=job.id) == []
    assert own.people._vault.count("house", me)[Kind.IMAGE] == 0
    assert own.jobs.get("house", job.id).state is JobState.RUNNING


def test_a_worker_that_stops_gives_its_jobs_back(
    own: Service, me: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    begun = threading.Event()
    backend = own.models.engine.backend
    plain = backend.denoise_step

    def slow(states: Any) -> Any:
        begun.set()
        time.sleep(0.05)
        return plain(states)

    monkeypatch.setattr(backend, "denoise_step", slow)
    job = asked(own, me, num_inference_steps=200)
    own.worker.start()
    assert begun.wait(10)
    own.worker.stop()
    back = own.jobs.get("house", job.id)
    assert (back.state, back.attempts) == (JobState.QUEUED, 0)
    assert own.people.images("house") == []


@pytest.mark.parametrize(
    ("error", "state", "stage"),
    [
        (NotMarked("no mark"), JobState.BLOCKED, "output"),
        (PromptBlocked("policy changed"), JobState.BLOCKED, "prompt"),
        (PictureWithheld("a check holds it"), JobState.BLOCKED, "output"),
        (ValueError("canary"), JobState.FAILED, None),
    ],
)
def test_every_end_has_its_state_and_says_nothing_it_should_not(
    own: Service,
    me: str,
    monkeypatch: pytest.MonkeyPatch,
    error: Exception,
    state: JobState,
    stage: str | None,
) -> None:
    def fails(*words: object) -> None:
        raise error

    monkeypatch.setattr(worker_module, "make_pictures", fails)
    job = asked(own, me)
    own.worker.start()
    done = ended(own, job)
    assert (done.state, done.stage) == (state, stage)
    assert done.error is not None and "canary" not in done.error.message


def test_pictures_that_may_not_leave_are_left_out_and_told(
    own: Service, me: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    plain = make_pictures
    report = CheckReport(
        (Verdict("nudity", Outcome.BLOCK, 1.0, Thresholds(0.1, 0.2), "It shows too much."),)
    )

    def one_less(wish: Any, face: Any, tools: Any, audience: Audience, *more: Any) -> Any:
        pictures = plain(wish, face, tools, audience, *more)
        image = pictures[0].marked.pixels
        request = Request("in a forest", None, 7, 4, 2.0, 0.7)
        audience.withheld(Candidate(image, request, pictures[0].verdict, None), report)
        return pictures[1:]

    monkeypatch.setattr(worker_module, "make_pictures", one_less)
    job = asked(own, me, n=3)
    own.worker.start()
    done = ended(own, job)
    assert done.result is not None and done.result["withheld"] == ["It shows too much."]
    assert len(files_of(own, job)) == 2


def test_a_database_that_is_away_for_a_moment_costs_nothing_but_time(
    own: Service, me: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(worker_module, "_RETRY", timedelta(0))
    plain, left = NewImages.add, [DatabaseUnusable("away")]

    def sometimes(*words: Any, **more: Any) -> str:
        if left:
            raise left.pop()
        return plain(*words, **more)

    monkeypatch.setattr(NewImages, "add", sometimes)
    job = asked(own, me)
    own.worker.start()
    assert ended(own, job).state is JobState.SUCCEEDED
    assert len(files_of(own, job)) == 1


def test_a_person_who_is_erased_while_they_are_drawn_leaves_nothing(
    own: Service, me: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    begun = threading.Event()
    backend = own.models.engine.backend
    plain = backend.denoise_step

    def slow(states: Any) -> Any:
        begun.set()
        time.sleep(0.02)
        return plain(states)

    monkeypatch.setattr(backend, "denoise_step", slow)
    asked(own, me, num_inference_steps=60)
    own.worker.start()
    assert begun.wait(10)
    own.enrolment.erase("house", me)
    give_up = time.monotonic() + 10
    while own.worker._active:
        assert time.monotonic() < give_up
        time.sleep(0.02)
    blobs = own.limits.data_directory / "blobs"
    assert [path for path in blobs.rglob("*") if path.is_file()] == []
    assert own.people.images("house") == []


WORKER = """
import sys, threading
from datetime import timedelta
from pathlib import Path
from imagine.identity import FACE_DETECTORS, FACE_ENCODERS
FACE_DETECTORS.add("double", "tests.doubles:DoubleDetector")
FACE_ENCODERS.add("double", "tests.doubles:DoubleEncoder")
from imagine.service import wiring, worker
wiring.LEASE = worker.LEASE = timedelta(seconds=1)
worker._LOOK_SECONDS = 0.1
from imagine.backends.fake import FakeBackend
plain = FakeBackend.denoise_step
def slow(self, states):
    threading.Event().wait(0.02)
    return plain(self, states)
FakeBackend.denoise_step = slow
from imagine import api
from tests.conftest import calm
from tests.service.conftest import PlainMarking, chosen, places_in
api.usual_checks = calm
wiring.make_marking = lambda *anything: PlainMarking()  # as in the process of the tests
service = wiring.build_service(chosen(), places_in(Path(sys.argv[1])))
service.models.load()
service.worker.start()
print("working", flush=True)
threading.Event().wait()
"""


@pytest.mark.slow
def test_jobs_survive_a_worker_that_is_killed_again_and_again(own: Service, me: str) -> None:
    jobs = [asked(own, me, n=2, seed=seed, num_inference_steps=20) for seed in range(6)]
    folder = str(own.limits.data_directory)
    environment = {**os.environ, "PYTHONPATH": str(Path(__file__).parents[2])}
    for pause in (0.3, 0.7, 1.1, None):
        with subprocess.Popen(
            [sys.executable, "-c", WORKER, folder],
            stdout=subprocess.PIPE,
            text=True,
            env=environment,
        ) as process:
            assert process.stdout is not None and process.stdout.readline() == "working\n"
            if pause is None:
                done = [ended(own, job, 120) for job in jobs]
            else:
                time.sleep(pause)
            process.send_signal(signal.SIGKILL)
    assert {job.state for job in done} == {JobState.SUCCEEDED}
    assert [len(files_of(own, job)) for job in jobs] == [2] * 6
    again = asked(own, me, n=2, seed=3, num_inference_steps=20)
    own.worker.start()
    ended(own, again, 60)
    assert files_of(own, again) == files_of(own, jobs[3])
