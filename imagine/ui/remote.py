"""Studios whose people, pictures and jobs the service keeps: encrypted, bound to one account.

A `RemoteStudio` acts for one caller and asks the same domain objects as the HTTP API, in this
process. What it shows is looked up each time, so a second tab, a refresh and a restart of the
server find the same things. Photos that were not agreed to yet stay in memory, in a `Tray`.
"""

from __future__ import annotations

import asyncio
import base64
import io
import secrets
import threading
import zipfile
from collections.abc import AsyncIterator, Mapping
from dataclasses import dataclass, field, replace
from datetime import timedelta
from typing import Any

from starlette.concurrency import run_in_threadpool

from imagine.api import MAX_BEST_OF, SEED_LIMIT
from imagine.core import SQUARE, LikenessVerdict, PairVerdict, Recipe
from imagine.engine.limits import MAX_GUIDANCE, MAX_STEPS
from imagine.errors import (
    Busy,
    ConsentMissing,
    DataKeyDestroyed,
    ImagineError,
    InvalidInput,
    KeyRefused,
    NotStored,
)
from imagine.provenance import MARKS_FOLDER, RecipeNote, open_verifier
from imagine.safety.enrolment import ChallengeState
from imagine.safety.policy_set import weakened
from imagine.service.admission import Answer
from imagine.service.auth import LOCAL_TENANT, SCOPES, Caller, check_scope
from imagine.service.schemas import GenerationRequest
from imagine.service.wire import check_ended_well
from imagine.service.wiring import Service
from imagine.storage.acts import Reason
from imagine.storage.consent import ConsentForm, Purpose
from imagine.storage.erasure import Outputs
from imagine.storage.jobs import Job, JobState
from imagine.storage.people import IdentityFacts, ImageFacts
from imagine.storage.reviews import Review
from imagine.storage.tables import IdentityState
from imagine.storage.verified import StoredChallenge
from imagine.storage.visits import Desks
from imagine.ui.origin import find_recipe
from imagine.ui.studio import (
    REPORT_REASONS,
    Consent,
    Moment,
    OpenWish,
    Origin,
    Person,
    PhotoCard,
    PictureCard,
    Stage,
    StudioLimits,
    check_figures,
)
from imagine.ui.styles import styles_of
from imagine.ui.tray import Tray

MAX_PEOPLE = 4
CONSENT_LIFETIME = timedelta(days=365)
_POLL_SECONDS = 0.25
_KEPT_PREVIEWS = 4
_LONGEST_QUEUE = 200  # more than that are not counted for anybody
_UNJUDGED = LikenessVerdict(
    False, None, 0.0, None, "It was judged when it was made, and that record is gone."
)
_NEWCOMER = ""  # at a desk that was cleared for somebody; None is one nobody came to yet
_SOMEBODY_ELSE = ("not_me", "somebody_else")
_MEDIA_TYPES = {".png": "image/png", ".jpg": "image/jpeg", ".webp": "image/webp"}


class RemoteStudios:
    """Opens studios for callers of one service. Satisfies `Studios`.

    Args:
        service: from `wiring.build_service`; whoever started it closes it.
    """

    def __init__(self, service: Service) -> None:
        self.service = service
        self.desks = Desks(service.database)

    def open(self) -> RemoteStudio:
        """A studio for whoever sits at this machine.

        Raises:
            KeyRefused: this service is for people with accounts.
        """
        if not self.service.settings.single_user:
            raise KeyRefused("Sign in first: this service is for people with an account.")
        return self.open_for(Caller(LOCAL_TENANT, "local", SCOPES))

    def open_for(self, caller: Caller) -> RemoteStudio:
        """A studio of one account."""
        return RemoteStudio(self.service, self.desks, caller)

    def verify(self, data: bytes, name: str) -> Origin:
        """As `Studios.verify`."""
        limits = self.service.limits
        weak = weakened(limits)
        verifier = open_verifier(limits.data_directory / MARKS_FOLDER, weakened=weak)
        return Origin(verifier.verify(data), find_recipe(data))

    def close(self) -> None:
        """Nothing: the service outlives the page."""


@dataclass(frozen=True, slots=True)
class _Wish:
    """The newest wish of an account, as it lies on its desk: one job a picture."""

    jobs: tuple[str, ...]
    steps: int
    is_stopped: bool = False
    skipped: tuple[str, ...] = ()

    @classmethod
    def of(cls, stored: Mapping[str, Any] | None) -> _Wish | None:
        if stored is None:
            return None
        return cls(
            tuple(stored["jobs"]),
            int(stored["steps"]),
            bool(stored.get("is_stopped")),
            tuple(stored.get("skipped", ())),
        )

    def to_json(self) -> dict[str, Any]:
        return {
            "jobs": list(self.jobs),
            "steps": self.steps,
            "is_stopped": self.is_stopped,
            "skipped": list(self.skipped),
        }


@dataclass(eq=False)
class _Seen:
    """What was looked up and does not change: ended jobs, cards, the newest previews."""

    jobs: dict[str, Job] = field(default_factory=dict)
    cards: dict[str, PictureCard] = field(default_factory=dict)
    previews: dict[str, bytes] = field(default_factory=dict)
    preview_of: dict[str, str] = field(default_factory=dict)  # event id -> id of its preview


class RemoteStudio:
    """What one account has with the service. Satisfies `Studio`."""

    def __init__(self, service: Service, desks: Desks, caller: Caller) -> None:
        self.service = service
        self.caller = caller
        self._desks = desks
        self._tray = Tray(service.enrolment.check, service.limits)
        self._seen = _Seen()
        self._lock = threading.RLock()

    @property
    def limits(self) -> StudioLimits:
        """As `Studio.limits`."""
        settings, models = self.service.limits, self.service.models
        return StudioLimits(
            max_photos=settings.max_photos,
            max_photo_bytes=settings.max_photo_bytes,
            max_prompt_characters=settings.max_prompt_characters,
            max_images=settings.max_images,
            max_steps=MAX_STEPS,
            max_guidance=MAX_GUIDANCE,
            max_best_of=MAX_BEST_OF,
            max_people=MAX_PEOPLE,
            styles=styles_of(models.name),
            draws_two=not models.is_loaded or models.info.draws_two,
            takes_reports=True,
            shapes=tuple(models.info.sizes) if models.is_loaded else (SQUARE,),
        )

    # Photos

    def add_photo(self, data: bytes, name: str, replaces: str | None = None) -> PhotoCard:
        """As `Studio.add_photo`."""
        self._may("identities:write")
        return self._tray.add(data, name, replaces)

    def compare_photos(self) -> tuple[PhotoCard, ...]:
        """As `Studio.compare_photos`."""
        return self._tray.compare()

    def choose_face(self, photo_id: str, face: int) -> PhotoCard:
        """As `Studio.choose_face`."""
        return self._tray.choose_face(photo_id, face)

    def remove_photo(self, photo_id: str) -> None:
        """As `Studio.remove_photo`."""
        self._tray.remove(photo_id)

    def photos(self) -> tuple[PhotoCard, ...]:
        """As `Studio.photos`: those that were given and not agreed to yet, or just now."""
        return self._tray.cards()

    def photo(self, photo_id: str) -> bytes:
        """As `Studio.photo`."""
        return self._tray.thumbnail(photo_id)

    # People

    def enrol(self, name: str, consent: Consent) -> Person:
        """As `Studio.enrol`. An earlier version of the same person goes; the pictures stay."""
        self._may("identities:write")
        if not consent.statements:
            raise ConsentMissing("Nothing was agreed to. Tick the boxes first.")
        self._tray.compare()
        photos, faces = self._tray.usable()
        if not photos:
            raise InvalidInput("There is no photo that can be used yet. Add one first.")
        before = self._at_desk()
        if before is None:
            self._refuse_too_many_people()
        enrolled = self.service.enrolment.enrol(
            self._tenant,
            photos,
            _form(consent),
            name.strip()[:60],
            None if before is None else before.person_id,
            faces or None,
            self.caller.actor,
        ).facts
        self._desks.add_person(*self._whose, enrolled.person_id, enrolled.id, len(photos))
        if before is not None:
            self._erase(before.id)
        return self._person(enrolled)

    def person(self) -> Person | None:
        """As `Studio.person`."""
        facts = self._at_desk()
        return None if facts is None else self._person(facts)

    def people(self) -> tuple[Person, ...]:
        """As `Studio.people`."""
        return tuple(self._person(facts) for facts in self._identities())

    def add_person(self) -> None:
        """As `Studio.add_person`."""
        self._refuse_too_many_people()
        self._tray.clear()
        self._desks.look_at(*self._whose, _NEWCOMER)

    def choose_person(self, person_id: str) -> None:
        """As `Studio.choose_person`."""
        facts = self._identity(person_id)
        self._tray.clear()
        self._desks.look_at(*self._whose, facts.id)

    def withdraw(self, person_id: str) -> None:
        """As `Studio.withdraw`: face data goes at once, with a certificate on record."""
        self._may("identities:write")
        facts = self._identity(person_id)
        self.service.consents.withdraw(self._tenant, facts.id, actor=self.caller.actor)
        self.service.worker.wake()
        self._erase(facts.id)
        others = self._identities()
        self._desks.look_at(*self._whose, others[0].id if others else None)
        self._tray.clear()

    def begin_check(self, person_id: str) -> StoredChallenge:
        """A new camera check of somebody; an older one is void.

        Raises:
            NotStored: the person is not here.
        """
        self._may("identities:write")
        return self.service.admission.issue(self._tenant, self._identity(person_id).id)

    def answer_check(self, person_id: str, answer: Answer) -> ChallengeState:
        """What the camera saw; passing verifies the person.

        Raises:
            NotStored: the person is not here, or the check is not open.
            ConsentMissing, InvalidInput, Busy: as `Admission.answer`.
        """
        self._may("identities:write")
        facts = self._identity(person_id)
        return self.service.admission.answer(self._tenant, facts.id, answer, self.caller.actor)

    def export(self) -> bytes:
        """As `Studio.export`: one archive a person, in one zip."""
        self._may("identities:write")
        buffer = io.BytesIO()
        with zipfile.ZipFile(buffer, "w", zipfile.ZIP_STORED) as archive:
            for number, person_id in enumerate(self._persons(), 1):
                one = io.BytesIO()
                try:
                    self.service.porter.export_person(
                        self._tenant, person_id, one, self.caller.actor
                    )
                except NotStored:
                    continue  # erased meanwhile
                archive.writestr(f"person-{number}.zip", one.getvalue())
        return buffer.getvalue()

    def forget(self) -> None:
        """As `Studio.forget`: keys are destroyed, so that backups say nothing either."""
        self._may("identities:write")
        self.stop()
        for person_id in self._persons():
            try:
                self.service.eraser.erase_person(self._tenant, person_id)
            except NotStored:
                continue  # erased before, e.g. when the last consent ended
        self._tray.clear()
        self._desks.clear(*self._whose)
        with self._lock:
            self._seen = _Seen()

    def close(self) -> None:
        """As `Studio.close`: what the service keeps stays; photos not agreed to go."""
        self._tray.clear()

    # Drawing

    def draw(self, wish: OpenWish) -> None:
        """As `Studio.draw`: one job a picture, so that each comes when it is done."""
        self._may("generations:write")
        check_figures(wish, self.limits)
        facts = self._identity(wish.person) if wish.person else self._at_desk()
        if facts is None:
            raise ConsentMissing("There is nobody to draw yet. Add your photos on the first page.")
        moment = self.drawing()
        if moment is not None and not moment.is_final:
            raise Busy("Your last wish is still being drawn. Wait for it, or stop it.", 5.0)
        first = secrets.randbelow(2**32) if wish.seed is None else wish.seed
        jobs: list[str] = []
        try:
            for index in range(wish.count):
                seed = (first + index * wish.best_of) % SEED_LIMIT
                request = self._request(wish, facts, seed)
                jobs.append(self.service.generations.submit(self.caller, request).job.id)
        except BaseException:
            for job_id in jobs:
                self.service.generations.cancel(self._tenant, job_id)
            raise
        steps = wish.num_inference_steps or self.service.models.info.default_steps
        drawn = _Wish(tuple(jobs), steps * wish.best_of)
        self._desks.draw(*self._whose, drawn.to_json())

    def drawing(self) -> Moment | None:
        """As `Studio.drawing`."""
        wish = self._wish()
        if wish is None:
            return None
        jobs = [job for job in map(self._job, wish.jobs) if job is not None]
        return self._moment(wish, jobs) if jobs else None

    async def watch(self) -> AsyncIterator[Moment]:
        """As `Studio.watch`."""
        seen: Moment | None = None
        while True:
            moment = await run_in_threadpool(self.drawing)
            if moment is None:
                return
            if moment != seen:
                seen = moment
                yield moment
            if moment.is_final:
                return
            await asyncio.sleep(_POLL_SECONDS)

    def stop(self) -> None:
        """As `Studio.stop`."""
        wish = self._wish()
        unfinished = [] if wish is None else self._unfinished(wish)
        if wish is None or not unfinished:
            return
        self._desks.draw(*self._whose, replace(wish, is_stopped=True).to_json())
        for job_id in unfinished:
            self.service.generations.cancel(self._tenant, job_id)

    def skip(self) -> None:
        """As `Studio.skip`."""
        wish = self._wish()
        unfinished = [] if wish is None else self._unfinished(wish)
        if wish is None or not unfinished:
            return
        skipped = replace(wish, skipped=(*wish.skipped, unfinished[0]))
        self._desks.draw(*self._whose, skipped.to_json())
        self.service.generations.cancel(self._tenant, unfinished[0])

    def preview(self, preview_id: str) -> bytes:
        """As `Studio.preview`."""
        with self._lock:
            shown = self._seen.previews.get(preview_id)
        if shown is None:
            raise NotStored("This preview is gone; a newer one is shown.")
        return shown

    # Pictures

    def pictures(self) -> tuple[PictureCard, ...]:
        """As `Studio.pictures`."""
        stars = self._desks.of(*self._whose).stars
        facts = [
            one
            for person_id in self._persons()
            for one in self.service.people.images(self._tenant, person_id)
        ]
        newest = sorted(facts, key=lambda one: (one.created_at, one.id), reverse=True)
        cards = (self._card(one, one.id in stars) for one in newest)
        return tuple(card for card in cards if card is not None)

    def picture(self, picture_id: str, suffix: str = ".png") -> bytes:
        """As `Studio.picture`; the stored file byte for byte, or with the same marks as another."""
        facts = self._picture(picture_id)
        why = (Purpose.OWN_ACCESS, self.caller.actor)
        data = self.service.people.read_image(
            self._tenant, picture_id, purpose=why[0], actor=why[1]
        )
        if facts.media_type == _MEDIA_TYPES.get(suffix):
            return data
        # Who may read the recipe in it is what the installation says, as in the stored file.
        recipe = self.service.people.read_recipe(
            self._tenant, picture_id, purpose=why[0], actor=why[1]
        )
        note = RecipeNote(self.service.limits.recipe_in_files)
        return self.service.marking.rewrite(data, suffix, recipe, note)

    def recipe_of(self, record: int) -> Recipe | None:
        """As `Studio.recipe_of`."""
        tenant_id, picture_id = self.service.reviews.image_of_record(record) or ("", "")
        if tenant_id != self._tenant:
            return None
        try:
            facts = self._picture(picture_id)
        except NotStored:
            return None
        return self.service.people.read_recipe(
            self._tenant, facts.id, purpose=Purpose.OWN_ACCESS, actor=self.caller.actor
        )

    def star(self, picture_id: str, starred: bool) -> PictureCard:
        """As `Studio.star`."""
        facts = self._picture(picture_id)
        self._desks.star(*self._whose, picture_id, starred)
        card = self._card(facts, starred)
        if card is None:
            raise NotStored("This picture is not here any more.")
        return card

    def delete_picture(self, picture_id: str) -> None:
        """As `Studio.delete_picture`."""
        self._may("images:write")
        self._picture(picture_id)
        self.service.people.delete_image(self._tenant, picture_id)
        with self._lock:
            self._seen.cards.pop(picture_id, None)

    def report(self, picture_id: str, reason: str, details: str) -> str:
        """As `Studio.report`: a reviewer looks at it, whatever else was agreed to."""
        self._may("images:write")
        self._picture(picture_id)
        if reason not in REPORT_REASONS:
            raise InvalidInput(f"There is no reason {reason[:40]!r}: {', '.join(REPORT_REASONS)}.")
        kind = Reason.ANOTHER_PERSON if reason in _SOMEBODY_ELSE else Reason.CANNOT_TELL
        words = f"{reason}: {details.strip()}" if details.strip() else reason
        filed = self.service.oversight.report(
            self._tenant, picture_id, kind, words, self.caller.actor
        )
        return filed.id

    def held_back(self) -> list[Job]:
        """The newest wishes of which something was held back, newest first."""
        mine = {facts.id for facts in self._identities()}
        ended = (JobState.BLOCKED, JobState.SUCCEEDED)
        jobs = self.service.jobs.find(self._tenant, ended, _LONGEST_QUEUE)
        return [
            job
            for job in jobs
            if job.identity_id in mine
            and (job.state is JobState.BLOCKED or (job.result or {}).get("withheld"))
        ]

    def appeal(self, job_id: str, words: str) -> list[Review]:
        """Disagree with what was held back; somebody who did not decide it looks.

        Raises:
            NotStored: nothing of theirs was held back under this id.
        """
        self._may("images:write")
        if job_id not in {job.id for job in self.held_back()}:
            raise NotStored("There is no such wish of yours of which anything was held back.")
        return self.service.oversight.appeal_job(self._tenant, job_id, words, self.caller.actor)

    # Whose

    @property
    def _tenant(self) -> str:
        return self.caller.tenant_id

    @property
    def _whose(self) -> tuple[str, str]:
        return self.caller.tenant_id, self.caller.actor

    @property
    def _is_alone(self) -> bool:
        """Whether everybody of this tenant is theirs: they sit at the machine."""
        return self.service.settings.single_user and self._whose == (LOCAL_TENANT, "local")

    def _may(self, scope: str) -> None:
        check_scope(self.caller, scope)

    def _persons(self) -> tuple[str, ...]:
        """Ids of those who are theirs; some may be erased meanwhile."""
        mine = tuple(self._desks.of(*self._whose).people)
        if not self._is_alone:
            return mine
        found = (facts.person_id for facts in self.service.people.identities(self._tenant))
        return tuple(dict.fromkeys((*mine, *found)))

    def _identities(self) -> list[IdentityFacts]:
        """The newest version of everybody who can be drawn, in the order they came."""
        mine = self._persons()
        newest: dict[str, IdentityFacts] = {}
        for facts in self.service.people.identities(self._tenant):
            if facts.person_id in mine and facts.state == IdentityState.ACTIVE:
                newest[facts.person_id] = facts
        return [newest[person_id] for person_id in mine if person_id in newest]

    def _identity(self, identity_id: str) -> IdentityFacts:
        for facts in self._identities():
            if facts.id == identity_id:
                return facts
        raise NotStored("This person is not here any more.")

    def _at_desk(self) -> IdentityFacts | None:
        chosen = self._desks.of(*self._whose).at_desk
        known = self._identities()
        found = next((facts for facts in known if facts.id == chosen), None)
        if chosen is None and self._is_alone:  # somebody whom a command enrolled
            return next(iter(known), None)
        return found

    def _person(self, facts: IdentityFacts) -> Person:
        history = self.service.consents.history(self._tenant, facts.id)
        name = self.service.people.read_identity_name(self._tenant, facts.id)
        count = self._desks.of(*self._whose).people.get(facts.person_id)
        if count is None:
            count = len(self.service.people.photos(self._tenant, facts.id))
        given = history[-1]
        further = frozenset(given.purposes - {Purpose.GENERATE})
        agreed = Consent(
            tuple(given.text.splitlines()), given.locale, given.given_at, further, given.expires_at
        )
        standing = self.service.standings.of(self._tenant, facts.id)
        return Person(
            name,
            count,
            agreed,
            facts.id,
            can_be_checked=True,
            verified_at=standing.verified_at,
            waits_for_review=standing.waits_for_review,
        )

    def _refuse_too_many_people(self) -> None:
        if len(self._identities()) >= MAX_PEOPLE:
            raise InvalidInput(f"There are {MAX_PEOPLE} people already. Withdraw one first.")

    def _erase(self, identity_id: str) -> None:
        """Destroy a face and its measurements; the pictures stay with the person."""
        try:
            self.service.eraser.erase_identity(self._tenant, identity_id, Outputs.KEEP)
        except NotStored:
            return  # retention was quicker
        with self._lock:
            self._seen.cards.clear()

    # Jobs

    def _request(self, wish: OpenWish, facts: IdentityFacts, seed: int) -> GenerationRequest:
        beside = None if wish.beside is None else self._identity(wish.beside).id
        if beside == facts.id:
            raise InvalidInput("The same person was chosen twice. Choose two people, or one.")
        return GenerationRequest(
            prompt=wish.prompt,
            identity=facts.id,
            beside=beside,
            keep=list(wish.keep),
            change=dict(wish.change),
            n=1,
            seed=seed,
            likeness=wish.likeness,
            num_inference_steps=wish.num_inference_steps,
            guidance_scale=wish.guidance_scale,
            best_of=wish.best_of,
            aspect_ratio=wish.aspect_ratio,
        )

    def _wish(self) -> _Wish | None:
        return _Wish.of(self._desks.of(*self._whose).drawing)

    def _job(self, job_id: str) -> Job | None:
        with self._lock:
            known = self._seen.jobs.get(job_id)
        if known is not None:
            return known
        try:
            job = self.service.generations.get(self._tenant, job_id)
        except NotStored:
            return None  # forgotten with its person, or by retention
        if job.has_ended:
            with self._lock:
                self._seen.jobs[job_id] = job
        return job

    def _unfinished(self, wish: _Wish) -> list[str]:
        jobs = [self._job(job_id) for job_id in wish.jobs]
        return [job.id for job in jobs if job is not None and not job.has_ended]

    def _moment(self, wish: _Wish, jobs: list[Job]) -> Moment:
        pictures = tuple(card for job in jobs for card in self._cards(job))
        waiting = [job for job in jobs if not job.has_ended]
        running = next((job for job in waiting if job.state is JobState.RUNNING), None)
        ended = len(jobs) - len(waiting)
        step, eta, preview = self._progress(wish, running, len(waiting))
        moment = Moment(
            stage=Stage.DRAWING if running is not None or ended else Stage.WAITING,
            count=len(wish.jobs),
            ahead=self._ahead(jobs[0]) if running is None and waiting else 0,
            step=ended * wish.steps + step,
            num_steps=wish.steps * len(wish.jobs),
            eta_seconds=eta,
            preview=preview,
            pictures=pictures,
            skipped=len(wish.skipped),
            withheld=sum(job.stage == "output" for job in jobs),
        )
        if waiting:
            return moment
        error = None if pictures else _error_of(jobs)
        if error is not None and not wish.is_stopped:
            return replace(moment, stage=Stage.FAILED, error=error)
        gave_up = len(wish.skipped) == len(wish.jobs)
        stage = Stage.STOPPED if wish.is_stopped or gave_up else Stage.DONE
        return replace(moment, stage=stage)

    def _progress(
        self, wish: _Wish, running: Job | None, waiting: int
    ) -> tuple[int, float | None, str | None]:
        """Steps of the picture being drawn, seconds until all are, id of its newest preview."""
        if running is None:
            return 0, None, None
        step, eta, preview = running.step, None, None
        for event in self.service.feeds.after(self._tenant, running.id, None):
            if event.kind == "progress":
                told = event.data
                step = min(int(str(told["step"])), wish.steps)
                each = float(str(told["elapsed_seconds"])) + float(str(told["eta_seconds"]))
                eta = float(str(told["eta_seconds"])) + each * (waiting - 1)
            elif event.kind == "preview":
                preview = self._shown(event.id, str(event.data["data"]))
        return step, eta, preview

    def _shown(self, event_id: str, data: str) -> str:
        with self._lock:
            known = self._seen.preview_of.get(event_id)
            if known is not None and known in self._seen.previews:
                return known
            preview_id = secrets.token_urlsafe(12)
            kept = list(self._seen.previews.items())[1 - _KEPT_PREVIEWS :]
            self._seen.previews = {**dict(kept), preview_id: base64.b64decode(data)}
            self._seen.preview_of = {event_id: preview_id}
            return preview_id

    def _ahead(self, mine: Job) -> int:
        """How many requests of anybody come before this one."""
        states = (JobState.QUEUED, JobState.RUNNING)
        others = self.service.jobs.find(None, states, _LONGEST_QUEUE)
        before = (job for job in others if job.created_at < mine.created_at)
        return sum(job.batch_key == mine.batch_key for job in before)

    def _cards(self, job: Job) -> list[PictureCard]:
        if job.state is not JobState.SUCCEEDED:
            return []
        stars = self._desks.of(*self._whose).stars
        found = (self._card(f, f.id in stars) for f in self.service.generations.images(job))
        return [card for card in found if card is not None]

    def _picture(self, image_id: str) -> ImageFacts:
        facts = self.service.pictures.facts(self._tenant, image_id)
        if facts.person_id not in self._persons():
            raise NotStored("This picture is not here any more.")
        return facts

    def _card(self, facts: ImageFacts, starred: bool) -> PictureCard | None:
        """A picture as the page shows it; None of one that was erased just now."""
        with self._lock:
            known = self._seen.cards.get(facts.id)
        if known is None:
            try:
                recipe = self.service.people.read_recipe(
                    self._tenant, facts.id, purpose=Purpose.OWN_ACCESS, actor=self.caller.actor
                )
            except (NotStored, DataKeyDestroyed):
                return None
            if recipe is None:
                return None
            known = _card_of(facts, recipe, self._judged(facts))
            with self._lock:
                self._seen.cards[facts.id] = known
        return replace(known, is_starred=starred)

    def _judged(self, facts: ImageFacts) -> Mapping[str, Any]:
        """What the result of its job says of a picture; nothing once the job was forgotten."""
        job = self._job(facts.job_id) if facts.job_id is not None else None
        told = [] if job is None else (job.result or {}).get("images", [])
        return next((one for one in told if one["id"] == facts.id), {})


def _card_of(facts: ImageFacts, recipe: Recipe, judged: Mapping[str, Any]) -> PictureCard:
    likeness = judged.get("likeness")
    return PictureCard(
        id=facts.id,
        recipe=recipe,
        verdict=_UNJUDGED if likeness is None else LikenessVerdict(**likeness),
        why=judged.get("why", ""),
        pair=_pair_of(judged.get("pair")),
        notes=tuple(judged.get("notes", ())),
        is_starred=False,
        width=facts.width,
        height=facts.height,
    )


def _pair_of(told: Mapping[str, Any] | None) -> PairVerdict | None:
    if told is None:
        return None
    left, right = LikenessVerdict(**told["left"]), LikenessVerdict(**told["right"])
    return PairVerdict(left, right, told["blending"])


def _form(consent: Consent) -> ConsentForm:
    """The sentences as they were shown are what is on record, word for word."""
    return ConsentForm(
        text="\n".join(consent.statements),
        locale=consent.language,
        purposes=frozenset({Purpose.GENERATE, *map(Purpose, consent.further)}),
        # The page takes no agreement without the sentences that say so.
        declared_adult=True,
        declared_self=True,
        method="web-form",
        lifetime=CONSENT_LIFETIME,
    )


def _error_of(jobs: list[Job]) -> ImagineError | None:
    """Why nothing came of a wish, if there was more to it than a stop."""
    for job in jobs:
        if job.state not in (JobState.FAILED, JobState.BLOCKED) or job.error is None:
            continue
        told = {"code": job.error.code, "message": job.error.message}
        try:
            check_ended_well({"status": job.state.value, "error": told})
        except ImagineError as error:
            return error
    return None
