"""Takes jobs from the queue, draws their pictures, keeps them: the hands of the service.

Several workers, in several processes and hosts, may serve one queue. A worker renews the leases
of what it holds; a job it lost, or that was cancelled, is dropped between two steps, and whatever
was made for it is thrown away.
"""

from __future__ import annotations

import base64
import hashlib
import logging
import os
import secrets
import socket
import threading
import time
from concurrent.futures import ThreadPoolExecutor
from dataclasses import asdict, dataclass, field
from datetime import timedelta
from typing import TYPE_CHECKING, Protocol

from imagine.core import Identity
from imagine.engine import Status
from imagine.errors import (
    Busy,
    Cancelled,
    DataKeyDestroyed,
    ImagineError,
    LeaseLost,
    NotMarked,
    NotStored,
    OutOfMemory,
    PictureWithheld,
    PromptBlocked,
    StorageError,
)
from imagine.identity import wipe
from imagine.pipeline import Audience, Candidate, Picture, Progress, make_pictures, recipe_of
from imagine.provenance import RecipeNote, mark_image
from imagine.service.errors import problem_of
from imagine.service.feeds import Feeds
from imagine.service.loaded_models import LoadedModels
from imagine.service.oversight import HeldBack, Oversight, looks_of
from imagine.service.payloads import MEDIA_TYPES, SUFFIXES, Payload, PayloadSealer
from imagine.storage.consent import Purpose
from imagine.storage.jobs import Claim, JobError, JobState, JobStore, Lease
from imagine.storage.people import PeopleStore

if TYPE_CHECKING:
    from collections.abc import Sequence

    from sqlalchemy.orm import Session

    from imagine.safety import CheckReport

logger = logging.getLogger(__name__)

LEASE = timedelta(seconds=30)
_LOOK_SECONDS = 1.0  # between two looks for jobs of other processes, and for cancellations
_TELL_SECONDS = 0.1  # between two words on how far a job is; nobody reads faster
_RETRY = timedelta(seconds=5)
_ACTOR = "worker"


@dataclass(eq=False)
class _Task:
    """A claimed job in work."""

    claim: Claim
    stop: threading.Event = field(default_factory=threading.Event)
    progress: tuple[int, int] = (0, 0)
    withheld: list[str] = field(default_factory=list)
    held: list[HeldBack] = field(default_factory=list)


class Hands(Protocol):
    """What a service wants of whoever works for it: `Worker`, or `WorkerProcess`."""

    name: str

    @property
    def is_alive(self) -> bool:
        """Whether it looks for work."""

    def start(self) -> None:
        """Begin to work."""

    def stop(self) -> None:
        """Stop between two steps; unfinished jobs go back to the queue unharmed."""

    def wake(self) -> None:
        """There is something to do: look now."""

    def cancel(self, tenant_id: str, job_id: str) -> None:
        """Stop a job that is in work there; the queue must know already."""


class Worker:
    """Works on jobs in threads of its own until it is stopped."""

    def __init__(
        self,
        jobs: JobStore,
        people: PeopleStore,
        payloads: PayloadSealer,
        models: LoadedModels,
        feeds: Feeds,
        concurrent_jobs: int,
        oversight: Oversight,
    ) -> None:
        self.name = f"{socket.gethostname()[:60]}:{os.getpid()}:{secrets.token_hex(4)}"
        self._jobs = jobs
        self._people = people
        self._payloads = payloads
        self._models = models
        self._feeds = feeds
        self._slots = concurrent_jobs
        self._oversight = oversight
        self._lock = threading.Lock()
        self._active: dict[Lease, _Task] = {}
        self._wake = threading.Event()
        self._stopping = threading.Event()
        self._threads: list[threading.Thread] = []
        self._pool: ThreadPoolExecutor | None = None
        self._swept = -_LOOK_SECONDS  # when lost jobs were looked for

    @property
    def is_alive(self) -> bool:
        """Whether it looks for work."""
        return bool(self._threads) and all(thread.is_alive() for thread in self._threads)

    def start(self) -> None:
        """Begin to work."""
        self._pool = ThreadPoolExecutor(self._slots, "imagine-job")
        for run in (self._claim_for_ever, self._look_after_leases):
            thread = threading.Thread(target=run, name=f"imagine{run.__name__}", daemon=True)
            self._threads.append(thread)
            thread.start()

    def stop(self) -> None:
        """Stop between two steps; unfinished jobs go back to the queue unharmed."""
        self._stopping.set()
        self._wake.set()
        with self._lock:
            for task in self._active.values():
                task.stop.set()
        for thread in self._threads:
            thread.join()
        if self._pool is not None:
            self._pool.shutdown(wait=True)
        self._threads = []

    def wake(self) -> None:
        """There is something to do: look now."""
        self._wake.set()

    def cancel(self, tenant_id: str, job_id: str) -> None:
        """Stop a job that is in work here; the queue must know already."""
        with self._lock:
            for task in self._active.values():
                if (task.claim.job.tenant_id, task.claim.job.id) == (tenant_id, job_id):
                    task.stop.set()

    def _claim_for_ever(self) -> None:
        while not self._stopping.is_set():
            self._wake.clear()
            if not self._claim_some():
                self._wake.wait(_LOOK_SECONDS)

    def _claim_some(self) -> bool:
        """Claim what there is room for; False when there was nothing, or no room."""
        with self._lock:
            free = self._slots - len(self._active)
        if free < 1:
            return False
        try:
            sweeps = time.monotonic() - self._swept >= _LOOK_SECONDS
            claims = self._jobs.claim(self.name, self._models.name, free, sweeps)
            if sweeps:
                self._swept = time.monotonic()
        except Exception as error:  # whatever it is, the next look may go better
            logger.warning("worker %s cannot claim jobs: %s", self.name, type(error).__name__)
            return False
        assert self._pool is not None
        for claim in claims:
            task = _Task(claim)
            with self._lock:
                self._active[claim.lease] = task
            self._pool.submit(self._work, task)
        return bool(claims)

    def _look_after_leases(self) -> None:
        """Renew leases, report progress, and stop what is cancelled or lost."""
        renewed = time.monotonic()
        while not self._stopping.wait(_LOOK_SECONDS):
            with self._lock:
                progress = {lease: task.progress for lease, task in self._active.items()}
            if not progress:
                renewed = time.monotonic()
                continue
            try:
                if time.monotonic() - renewed >= LEASE.total_seconds() / 5:
                    stop = self._jobs.heartbeat(progress, progress)
                    renewed = time.monotonic()
                else:
                    stop = self._jobs.stopping(progress.keys())
            except Exception as error:
                # Whether a lease still holds is asked again when the job ends.
                kind = type(error).__name__
                logger.warning("worker %s lost sight of its leases: %s", self.name, kind)
                continue
            with self._lock:
                for lease in stop & self._active.keys():
                    self._active[lease].stop.set()

    def _work(self, task: _Task) -> None:
        job, lease = task.claim.job, task.claim.lease
        self._feeds.open(job.tenant_id, job.id, job.identity_id)
        try:
            state = self._end_of(task)
        except (LeaseLost, NotStored):
            state = None  # somebody else has it, or it was erased
        except ImagineError as error:
            # The database does not answer: the lease runs out, and the job is done again.
            logger.error("job %s could not be ended: %s", job.id, type(error).__name__)
            state = None
        finally:
            with self._lock:
                self._active.pop(lease, None)
            self._wake.set()
        if state is None or state is JobState.QUEUED:
            return
        self._feeds.publish(job.tenant_id, job.id, "ended", {"status": state.value})

    def _end_of(self, task: _Task) -> JobState:
        """Do the job, and end it one way or the other."""
        job, lease = task.claim.job, task.claim.lease
        try:
            return self._pictures(task)
        except (LeaseLost, NotStored):
            raise
        except Cancelled as error:
            if self._stopping.is_set():
                return self._jobs.give_back(lease)
            return self._jobs.fail(lease, _told(error))
        except PromptBlocked as error:
            return self._jobs.block(lease, "prompt", _told(error))
        except PictureWithheld as error:
            state = self._jobs.block(lease, "output", _told(error))
            if state is not JobState.BLOCKED:  # cancelled meanwhile: nobody will appeal
                self._oversight.discard(job)
            return state
        except NotMarked as error:
            logger.error("job %s: a picture could not be marked (%s)", job.id, type(error).__name__)
            return self._jobs.block(lease, "output", _told(error))
        except DataKeyDestroyed as error:
            return self._jobs.fail(lease, _told(error))
        except (Busy, StorageError, OutOfMemory) as error:
            logger.warning("job %s will be tried again: %s", job.id, type(error).__name__)
            return self._jobs.fail(lease, _told(error), retry_after=_RETRY)
        except ImagineError as error:
            return self._jobs.fail(lease, _told(error))
        except Exception as error:
            logger.error("job %s failed unexpectedly: %s", job.id, type(error).__name__)
            return self._jobs.fail(lease, _told(error))

    def _pictures(self, task: _Task) -> JobState:
        """Read the person, draw, keep the pictures, end the job well."""
        job = task.claim.job
        assert job.identity_id is not None
        payload = self._payloads.open(job)
        if task.claim.lease.fence > 1:
            self._clear_up(task.claim, payload)
        owner = (job.tenant_id, job.identity_id)
        person_id = self._people.identity(*owner).person_id
        face = self._people.read_identity(*owner, purpose=Purpose.GENERATE, actor=_ACTOR)
        other: Identity | None = None
        try:
            if payload.beside is not None:  # they agree by themselves, or not
                beside = (job.tenant_id, payload.beside)
                other = self._people.read_identity(*beside, purpose=Purpose.GENERATE, actor=_ACTOR)
            try:
                pictures = self._drawn(task, payload, face, other)
            except PictureWithheld:
                # Before the job ends: whoever reads that it was blocked may appeal at once.
                self._hold_back(task, payload)
                raise
            if task.stop.is_set():
                raise Cancelled("Cancelled when the pictures were drawn; nothing was kept.")
            return self._kept(task, payload, pictures, person_id)
        finally:
            wipe(face)
            if other is not None:
                wipe(other)

    def _hold_back(self, task: _Task, payload: Payload) -> None:
        """Keep what may not leave for reviewers, all of it or nothing."""
        try:
            self._oversight.hold(task.claim.job, task.held, payload.beside)
        except BaseException:
            self._oversight.discard(task.claim.job)
            raise

    def _drawn(
        self, task: _Task, payload: Payload, face: Identity, other: Identity | None
    ) -> list[Picture]:
        job = task.claim.job
        tools = self._models.tools(job.tenant_id)
        count = payload.wish.count
        seen: dict[int, int] = {}  # candidate -> previews shown of it
        told = -_TELL_SECONDS

        def progress(progress: Progress) -> None:
            nonlocal told
            task.progress = (progress.step, progress.num_steps)
            now = time.monotonic()
            if now - told >= _TELL_SECONDS or progress.step == progress.num_steps:
                told = now
                self._feeds.publish(job.tenant_id, job.id, "progress", asdict(progress))

        def status(number: int, status: Status) -> None:
            if status.preview is None or status.previews <= seen.get(number, 0):
                return
            seen[number] = status.previews
            shown = _preview(status, number % count)
            if shown is not None:
                self._feeds.publish(job.tenant_id, job.id, "preview", shown, about=str(number))

        def withheld(candidate: Candidate, report: CheckReport) -> None:
            task.withheld.append(report.words)
            task.held.append(HeldBack(candidate.image, recipe_of(candidate, face, tools), report))

        audience = Audience(progress, task.stop.is_set, withheld, status)
        return make_pictures(payload.wish, face, tools, audience, other)

    def _kept(
        self, task: _Task, payload: Payload, pictures: Sequence[Picture], person_id: str
    ) -> JobState:
        """Store the pictures in the transaction that ends the job: both, or neither."""
        job, lease = task.claim.job, task.claim.lease
        kept: list[dict[str, object]] = []
        checks: dict[str, CheckReport] = {}
        state: JobState | None = None
        try:
            self._hold_back(task, payload)
            with self._people.new_images(job.tenant_id) as images:
                for number, picture in enumerate(pictures):
                    image_id = images.add(
                        person_id,
                        # The recipe is stored beside it, sealed under the person's own key.
                        picture.marked.to_bytes(SUFFIXES[payload.output_format], RecipeNote.NONE),
                        MEDIA_TYPES[payload.output_format],
                        (picture.marked.pixels.shape[1], picture.marked.pixels.shape[0]),
                        picture.recipe,
                        job.identity_id,
                        job.id,
                        picture.recipe.record or None,
                        looks_of(picture.marked.pixels),
                        payload.beside,
                        _image_id(job.id, lease.fence, number),
                    )
                    checks[image_id] = picture.checks
                    kept.append(_facts(image_id, picture))
                news = self._oversight.sample(job, checks)

                def keep(session: Session) -> None:
                    images.keep(session)
                    self._oversight.queue(news, session)

                result = {
                    "seed": payload.wish.seed,
                    "num_steps": task.progress[1],
                    "images": kept,
                    "withheld": task.withheld,
                }
                state = self._jobs.finish(lease, result, also=keep)
            return state
        finally:
            if state is not JobState.SUCCEEDED:
                self._oversight.discard(job)

    def _clear_up(self, claim: Claim, payload: Payload) -> None:
        """Delete what earlier attempts left that died: nobody else can know of it."""
        job = claim.job
        assert job.identity_id is not None
        self._oversight.discard(job)
        for fence in range(1, claim.lease.fence):
            for number in range(payload.wish.count):
                name = _image_id(job.id, fence, number)
                self._people.drop_image_file(job.tenant_id, job.identity_id, name)


def _image_id(job_id: str, fence: int, number: int) -> str:
    """The name of a picture of an attempt: whoever takes the job up later can find and delete it.

    Attempts share no names, so that one that is late takes nothing away from one that succeeded.
    """
    told = f"imagine image 1\0{job_id}\0{fence}\0{number}"
    return f"image_{hashlib.sha256(told.encode()).hexdigest()[:32]}"


def _facts(image_id: str, picture: Picture) -> dict[str, object]:
    """What the result of a job says of a picture."""
    return {
        "id": image_id,
        "seed": picture.recipe.seed,
        "likeness": asdict(picture.verdict),
        "prompt_fit": picture.prompt_fit,
        "why": picture.why,
        "pair": None if picture.pair is None else asdict(picture.pair),
        "notes": list(picture.notes),
    }


def _preview(status: Status, picture: int) -> dict[str, object] | None:
    """What is shown of an unfinished picture; None of one too small for the marks of today."""
    assert status.preview is not None
    try:
        data = mark_image(status.preview, None).to_bytes(".webp")
    except NotMarked:
        return None
    return {
        "picture": picture,
        "step": status.step,
        "num_steps": status.num_steps,
        "media_type": "image/webp",
        "data": base64.b64encode(data).decode(),
    }


def _told(error: Exception) -> JobError:
    problem = problem_of(error)
    return JobError(problem.code, problem.detail)
