from __future__ import annotations

import os
import signal
import time
from collections.abc import Callable, Iterator
from functools import partial
from pathlib import Path
from typing import Any

import pytest

from imagine.backends.fake import FakeBackend
from imagine.errors import Busy, InvalidInput
from imagine.service import worker_process
from imagine.service.feeds import Feeds
from imagine.service.schemas import GenerationRequest
from imagine.service.wiring import Service, build_service
from imagine.service.worker_process import WorkerProcess
from imagine.storage.jobs import Job, JobState
from imagine.storage.keys import LocalMasterKey
from tests.service.conftest import chosen, places_in, selfie
from tests.service.test_worker import CALLER, FORM, ended
from tests.service.two_hundred_clients import build

SLOW_STEPS = 200


def until(is_so: Callable[[], bool], seconds: float = 120.0) -> None:
    """Wait, however slow this machine is."""
    give_up = time.monotonic() + seconds
    while not is_so():
        assert time.monotonic() < give_up
        time.sleep(0.05)


def build_slow(folder: str, feeds: Feeds) -> Service:
    """The service of the other process; long jobs take long there."""
    service: Service = build(folder, False, feeds)
    plain = FakeBackend.denoise_step

    def step(self: FakeBackend, states: Any) -> Any:
        if max(state.num_steps for state in states) == SLOW_STEPS:
            time.sleep(0.05)
        return plain(self, states)

    FakeBackend.denoise_step = step  # type: ignore[method-assign]
    return service


def process_of(service: Service) -> WorkerProcess:
    assert isinstance(service.worker, WorkerProcess)
    return service.worker


@pytest.fixture(scope="module")
def apart(doubles: None, tmp_path_factory: pytest.TempPathFactory) -> Iterator[Service]:
    """A service with one person, whose worker is a process of its own."""
    folder = tmp_path_factory.mktemp("data")
    service = build_service(chosen(worker_process=True), places_in(folder))
    service.people.add_tenant("house", "A house")
    process_of(service).build = partial(build_slow, str(folder))
    with pytest.raises(Busy, match="being opened"):
        _ = service.models.info
    assert "worker" in service.waiting_for()
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(worker_process, "_AGAIN_SECONDS", (0.1,))
        service.start()
        until(lambda: service.waiting_for() == [])
        yield service
        process = process_of(service)._process
        service.close()
        assert process is not None and not process.is_alive()


@pytest.fixture(scope="module")
def somebody(apart: Service) -> str:
    return apart.enrolment.enrol("house", [selfie()], FORM).facts.id


def asked(service: Service, identity: str, steps: int = 4) -> Job:
    body = GenerationRequest(
        prompt="in a forest", identity=identity, seed=7, num_inference_steps=steps
    )
    return service.generations.submit(CALLER, body).job


def kinds(service: Service, job: Job) -> list[str]:
    return [event.kind for event in service.feeds.after("house", job.id, None)]


def test_another_process_draws_and_watchers_hear_of_it(apart: Service, somebody: str) -> None:
    assert apart.models.info == FakeBackend().info
    job = asked(apart, somebody)
    assert ended(apart, job, 60).state is JobState.SUCCEEDED
    until(lambda: "ended" in kinds(apart, job))
    [picture] = apart.people.images("house", job_id=job.id)
    assert picture.identity_id == somebody
    with pytest.raises(AttributeError):  # nothing was opened here that only drawing needs
        _ = apart.models._engine.backend  # type: ignore[union-attr]
    until(lambda: (stats := apart.models.stats) is not None and stats.finished >= 1)


def test_a_job_is_cancelled_in_the_other_process(apart: Service, somebody: str) -> None:
    job = asked(apart, somebody, steps=SLOW_STEPS)
    until(lambda: "progress" in kinds(apart, job))
    apart.generations.cancel("house", job.id)
    assert ended(apart, job, 60).state is JobState.CANCELED
    assert apart.people.images("house", job_id=job.id) == []


def test_a_worker_that_dies_is_started_again_and_the_queue_goes_on(
    apart: Service, somebody: str, caplog: pytest.LogCaptureFixture
) -> None:
    first = process_of(apart)._process
    assert first is not None and first.pid is not None
    os.kill(first.pid, signal.SIGKILL)
    job = asked(apart, somebody)
    assert ended(apart, job, 120).state is JobState.SUCCEEDED
    assert process_of(apart)._process is not first
    assert "the worker process has died" in caplog.text


def test_a_key_service_in_hand_is_not_given_to_another_process(tmp_path: Path) -> None:
    with pytest.raises(InvalidInput, match="worker_process"):
        build_service(chosen(worker_process=True), places_in(tmp_path), LocalMasterKey(b"\1" * 32))
    assert list(tmp_path.iterdir()) == []


def test_words_to_a_worker_that_is_not_there_are_dropped() -> None:
    worker = WorkerProcess(lambda feeds: None, Feeds(), None)  # type: ignore[arg-type,return-value]
    worker.wake()
    worker.cancel("house", "job_1")
    worker.stop()
    assert not worker.is_alive
