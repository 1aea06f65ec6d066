"""A wish from its first check to its pictures: what every door of the service does with it."""

from __future__ import annotations

import asyncio
import math
import secrets
import time
from dataclasses import dataclass
from datetime import timedelta

from starlette.concurrency import run_in_threadpool

from imagine.backends import BackendInfo
from imagine.backends.base import refuse_two
from imagine.core import REDRAWS
from imagine.engine.limits import check_interval
from imagine.errors import (
    Busy,
    ConsentMissing,
    InvalidInput,
    NotStored,
    PromptBlocked,
    StorageError,
)
from imagine.pipeline import Wish
from imagine.safety import allow_prompt
from imagine.safety.prompt_policy import TextRole
from imagine.service.admission import Admission
from imagine.service.auth import Caller
from imagine.service.errors import BadParameter
from imagine.service.feeds import FeedEvent, Feeds
from imagine.service.loaded_models import LoadedModels
from imagine.service.payloads import Payload, PayloadSealer
from imagine.service.schemas import SEED_LIMIT, GenerationRequest
from imagine.service.styles import style
from imagine.service.worker import Hands
from imagine.storage.consent import ConsentBook, Purpose
from imagine.storage.database import new_id, utc_now
from imagine.storage.events import RecordEvent
from imagine.storage.jobs import Job, JobState, JobStore, NewJob
from imagine.storage.people import ImageFacts, PeopleStore
from imagine.traits import check_traits

MAX_WAITING_JOBS = 200  # of one tenant; a queue longer than that helps nobody
_BUSY_SECONDS = 30.0
_COUNT_SECONDS = 2.0
_LOOK_SECONDS = 1.0  # between two looks at jobs that other processes may work on
QUIET_SECONDS = 15.0  # after which whoever watches is told that nothing is new


@dataclass(frozen=True, slots=True)
class Accepted:
    """A wish that is in the queue.

    Attributes:
        job: as it stands.
        seed: of the first picture; None when the request had come before.
        is_repeat: the same request, by its idempotency key, had come before.
    """

    job: Job
    seed: int | None
    is_repeat: bool


class Generations:
    """Accepts wishes, watches over them, finds their pictures."""

    def __init__(
        self,
        jobs: JobStore,
        people: PeopleStore,
        consents: ConsentBook,
        payloads: PayloadSealer,
        models: LoadedModels,
        worker: Hands,
        feeds: Feeds,
        record_event: RecordEvent,
        admission: Admission,
    ) -> None:
        self._jobs = jobs
        self._people = people
        self._consents = consents
        self._payloads = payloads
        self._models = models
        self._worker = worker
        self._feeds = feeds
        self._record_event = record_event
        self._admission = admission
        self._waiting: dict[str, tuple[float, int]] = {}  # tenant -> when counted, how many
        self._looking: asyncio.Task[None] | None = None

    def submit(
        self,
        caller: Caller,
        request: GenerationRequest,
        idempotency_key: str | None = None,
        route: str = "generations",
        one_shot_most: int | None = None,
    ) -> Accepted:
        """Check a wish and put it in the queue.

        Args:
            caller: who asks.
            request: what for.
            idempotency_key: the caller's name for this request, to send it twice safely.
            route: the same key means another request at another door.
            one_shot_most: for an identity that lives for one call: how many pictures of all of
                them the tenant may have a day.

        Raises:
            PromptBlocked: policy does not allow the prompt; nothing is kept of it.
            ConsentMissing: the person does not agree to this, or not any more.
            NotStored: this tenant has no such identity.
            ReviewPending: a reviewer has to look at this identity first.
            RateLimited: this identity has had its pictures for today.
            Busy: too many jobs wait.
            JobStillRunning, IdempotencyConflict: as `JobStore.submit`.
        """
        owner = (caller.tenant_id, request.identity)
        grant = self._consents.grant
        # The person comes first: to whom they are not known nothing is said of the prompt.
        refusal: ConsentMissing | None = None
        try:
            grant(*owner, Purpose.GENERATE, caller.actor)
        except ConsentMissing as error:
            refusal = error
        prompt = self._allowed_prompt(caller, request)
        if refusal is not None:
            raise refusal
        self._check_count(request)
        self._check_room(caller.tenant_id)
        self._check_beside(caller, request)
        self._check_shape(request)
        wish = self._wish(caller, request, prompt)
        job_id = new_id("job")
        payload = Payload(wish, request.output_format, request.beside)
        told = f"{route}\0{request.model_dump_json()}"
        wait = request.timeout_seconds
        job = NewJob(
            tenant_id=caller.tenant_id,
            batch_key=self._models.name,
            sealed_payload=self._payloads.seal(*owner, job_id, payload),
            identity_id=request.identity,
            beside_id=request.beside,
            deadline_at=None if wait is None else utc_now() + timedelta(seconds=wait),
            idempotency_key=idempotency_key,
            body_digest=self._payloads.digest(*owner, told) if idempotency_key else None,
            id=job_id,
        )
        submission = self._jobs.submit(
            job,
            also=lambda session: self._admission.take_pictures(
                session, *owner, request.n, one_shot_most
            ),
        )
        repeat = submission.is_repeat
        self._worker.wake()
        return Accepted(submission.job, None if repeat else wish.seed, repeat)

    def get(self, tenant_id: str, job_id: str) -> Job:
        """A job of this tenant.

        Raises:
            NotStored: it has none of this name.
        """
        try:
            return self._jobs.get(tenant_id, job_id)
        except NotStored as error:
            raise NotStored(f"There is no generation {job_id[:80]!r} here.") from error

    def find(
        self, tenant_id: str, states: list[JobState], limit: int, before: str | None
    ) -> list[Job]:
        """Jobs of this tenant, newest first; `before` names the last of the page before."""
        last = None if before is None else self.get(tenant_id, before)
        return self._jobs.find(tenant_id, states, limit, last)

    def images(self, job: Job) -> list[ImageFacts]:
        """The pictures of a job that succeeded; of another there are none to see."""
        if job.state is not JobState.SUCCEEDED:
            return []
        return self._people.images(job.tenant_id, job_id=job.id)

    def cancel(self, tenant_id: str, job_id: str) -> Job:
        """Stop a job: at once while it waits, between two steps while it runs.

        Raises:
            NotStored: this tenant has none of this name.
        """
        self.get(tenant_id, job_id)
        job = self._jobs.cancel(tenant_id, job_id)
        self._worker.cancel(tenant_id, job_id)
        if job.has_ended:
            self._feeds.publish(tenant_id, job_id, "ended", {"status": job.state.value})
        return job

    async def news(self, job: Job, last_id: str | None) -> list[FeedEvent]:
        """What has happened since an event; an empty list when nothing has, for a while.

        What this process does is told at once; of jobs of other processes the database is asked
        now and then, for all who watch any together.
        """
        looking = self._looking
        if (
            looking is None
            or looking.done()
            or looking.get_loop() is not asyncio.get_running_loop()
        ):
            self._looking = asyncio.create_task(self._look_for_ends())
        return await self._feeds.changed(job.tenant_id, job.id, last_id, QUIET_SECONDS)

    async def _look_for_ends(self) -> None:
        while True:
            await asyncio.sleep(_LOOK_SECONDS)
            watched = self._feeds.watched()
            if not watched:
                return  # whoever watches next begins anew
            try:
                ended = await run_in_threadpool(self._jobs.ended_among, watched)
            except StorageError:
                continue  # the next look may go better
            for (tenant_id, job_id), state in ended.items():
                self._feeds.publish(tenant_id, job_id, "ended", {"status": state.value})

    async def ended(self, job: Job, timeout_seconds: float) -> Job:
        """The job when it has ended, or as it is when the time is over."""
        loop = asyncio.get_running_loop()
        give_up = loop.time() + timeout_seconds
        last_id: str | None = None
        while not job.has_ended and (left := give_up - loop.time()) > 0:
            try:
                events = await asyncio.wait_for(self.news(job, last_id), left)
            except TimeoutError:
                events = []
            last_id = events[-1].id if events else last_id
            if not events or events[-1].is_last:
                job = await run_in_threadpool(self.get, job.tenant_id, job.id)
        return job

    def check_prompt(
        self,
        caller: Caller,
        prompt: str,
        identity_id: str | None = None,
        role: TextRole = "prompt",
    ) -> str:
        """The prompt, cleaned, if policy allows it; a refusal is recorded without its words.

        Raises:
            PromptBlocked: policy does not allow it.
            BadParameter: empty or too long.
        """
        try:
            return allow_prompt(prompt, self._models.settings, role)
        except PromptBlocked as error:
            details = {
                "category": error.category or "unknown",
                "rule": error.rule or "unknown",
                "incident": error.incident,
            }
            self._record_event(
                "prompt.blocked",
                identity_id,
                details,
                tenant_id=caller.tenant_id,
                actor=caller.actor,
            )
            raise
        except InvalidInput as error:
            raise BadParameter("prompt", str(error)) from error

    def _allowed_prompt(self, caller: Caller, request: GenerationRequest) -> str:
        # What was typed is looked at by itself: a style must not water down what it says.
        allowed = self.check_prompt(caller, request.prompt, request.identity)
        if request.style is None:
            return allowed
        styled = style(request.style).applied_to(request.prompt)
        return self.check_prompt(caller, styled, request.identity)

    def _check_count(self, request: GenerationRequest) -> None:
        most = self._models.settings.max_images
        if request.n > most:
            raise BadParameter("n", f"n is {request.n}; it must be a whole number, 1 to {most}.")

    def _check_room(self, tenant_id: str) -> None:
        """Refuse what would wait too long; counted now and then, since counting costs."""
        now = time.monotonic()
        since, waiting = self._waiting.get(tenant_id, (-math.inf, 0))
        if now - since > _COUNT_SECONDS:
            waiting = self._jobs.waiting(tenant_id)
            self._waiting[tenant_id] = (now, waiting)
        if waiting >= MAX_WAITING_JOBS:
            raise Busy(
                f"{waiting} generations wait already. Try again in {_BUSY_SECONDS:.0f} seconds.",
                _BUSY_SECONDS,
            )

    def _interval(self, request: GenerationRequest, info: BackendInfo) -> tuple[float, float]:
        if request.guidance_interval is None:
            return info.default_guidance_interval
        chosen = (float(request.guidance_interval[0]), float(request.guidance_interval[1]))
        try:
            check_interval(chosen)
        except InvalidInput as error:
            raise BadParameter("guidance_interval", str(error)) from error
        return chosen

    def _check_beside(self, caller: Caller, request: GenerationRequest) -> None:
        """Whoever stands beside agrees for themselves, and is somebody else."""
        if request.beside is None:
            return
        if request.beside == request.identity:
            raise BadParameter("beside", "Nobody stands beside themselves. Name somebody else.")
        self._consents.grant(caller.tenant_id, request.beside, Purpose.GENERATE, caller.actor)
        try:
            refuse_two(self._models.info)
        except InvalidInput as error:
            raise BadParameter("beside", str(error)) from error

    def _check_shape(self, request: GenerationRequest) -> None:
        try:
            self._models.info.size_of(request.aspect_ratio, two=request.beside is not None)
        except InvalidInput as error:
            raise BadParameter("aspect_ratio", str(error)) from error

    def _wish(self, caller: Caller, request: GenerationRequest, prompt: str) -> Wish:
        info = self._models.info
        return Wish(
            prompt=prompt,
            seed=secrets.randbelow(2**32) if request.seed is None else request.seed % SEED_LIMIT,
            count=request.n,
            num_inference_steps=request.num_inference_steps or info.default_steps,
            guidance_scale=float(request.guidance_scale or info.default_guidance_scale),
            guidance_interval=self._interval(request, info),
            likeness=request.likeness,
            best_of=request.best_of,
            record=self._record_of(caller, request),
            redraws=0 if request.record else REDRAWS,  # a replay is that very picture
            keep=tuple(request.keep),
            change=self._changes(request),
            aspect_ratio=request.aspect_ratio,
        )

    def _changes(self, request: GenerationRequest) -> dict[str, str]:
        try:
            return check_traits(request.keep, request.change)
        except InvalidInput as error:
            raise BadParameter("change" if request.change else "keep", str(error)) from error

    def _record_of(self, caller: Caller, request: GenerationRequest) -> int:
        """The audit entry a replay leads to, if it is that of a picture of this very person."""
        mine = (caller.tenant_id, request.identity, request.record)
        if request.record and not self._people.has_record(*mine):
            raise BadParameter(
                "record",
                f"No picture of this person leads to record {request.record}. Leave it out: the "
                "new picture gets a record of its own.",
            )
        return request.record
