"""How long each class of things is kept, the sweep that ends it, and the schedule that says so.

The published schedule is made from the same configuration the sweep obeys, so the two cannot
drift apart.
"""

from __future__ import annotations

import threading
from collections import Counter
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from datetime import datetime, timedelta
from functools import partial

from sqlalchemy import or_, select
from sqlalchemy.orm import Session

from imagine.errors import ImagineError, InvalidInput, NotStored
from imagine.storage.consent import Purpose, consent_ended_at, has_live_tick
from imagine.storage.database import Database, utc_now
from imagine.storage.erasure import SCRUBBED, Eraser, Outputs
from imagine.storage.people import PeopleStore
from imagine.storage.tables import (
    ConsentRow,
    IdentityRow,
    IdentityState,
    ImageRow,
    PhotoRow,
)

# forget everything of this class that is older than the moment; says how much that was
ForgetBefore = Callable[[datetime], int]


_TIMES = ("photos", "drafts", "tokens", "after_consent", "outputs", "jobs", "logs", "reviews")


@dataclass(frozen=True, slots=True)
class RetentionPolicy:
    """How long each class is kept.

    Attributes:
        photos: selfies that the person agreed to keep, since they were given. Others go as soon
            as the face is made.
        drafts: identities without a face, with their photos, since they were begun.
        tokens: a face (crops and embeddings), since it was last used to generate.
        after_consent: an identity, since its last consent was withdrawn or ran out.
        outputs: pictures, since they were made.
        jobs: finished jobs with their prompts.
        logs: records without personal data.
        reviews: withheld pictures and samples since they were made, what somebody asked to be
            decided since that was done.
        outputs_of_idle: what becomes of the pictures when an idle face is erased.
        outputs_after_consent: what becomes of them when consent has ended.
    """

    photos: timedelta = timedelta(days=30)
    drafts: timedelta = timedelta(days=1)
    tokens: timedelta = timedelta(days=30)
    after_consent: timedelta = timedelta(0)
    outputs: timedelta = timedelta(days=30)
    jobs: timedelta = timedelta(days=30)
    logs: timedelta = timedelta(days=3 * 365)
    reviews: timedelta = timedelta(days=30)
    outputs_of_idle: Outputs = Outputs.KEEP
    outputs_after_consent: Outputs = Outputs.DELETE

    def __post_init__(self) -> None:
        for name in _TIMES:
            if getattr(self, name) < timedelta(0):
                raise InvalidInput(f"The retention of {name} is negative; 0 means at once.")

    def schedule(self) -> list[tuple[str, str, str, str]]:
        """The published schedule: what, kept for, counted from, then."""
        idle = _words_for_outputs(self.outputs_of_idle)
        ended = _words_for_outputs(self.outputs_after_consent)
        return [
            (
                "photos not agreed to be kept",
                _span(timedelta(0)),
                "the face made",
                "deleted",
            ),
            ("photos kept by consent", _span(self.photos), "given", "deleted"),
            ("unfinished enrolments", _span(self.drafts), "begun", "key destroyed, deleted"),
            ("face data", _span(self.tokens), "last used", f"key destroyed, deleted; {idle}"),
            ("identities given an end", _span(timedelta(0)), "their end", f"as face data; {idle}"),
            (
                "identities without consent",
                _span(self.after_consent),
                "consent withdrawn or expired",
                f"key destroyed, deleted; {ended}",
            ),
            ("pictures made", _span(self.outputs), "made", "deleted"),
            ("jobs and prompts", _span(self.jobs), "finished", "deleted"),
            ("withheld pictures, samples for reviewers", _span(self.reviews), "made", "deleted"),
            (
                "reports, appeals and takedown notices",
                _span(self.reviews),
                "decided",
                "deleted; the key of a notice is destroyed",
            ),
            ("logs without personal data", _span(self.logs), "written", "deleted"),
        ]

    def schedule_markdown(self) -> str:
        """The published schedule as a Markdown table."""
        lines = ["| what | kept for | counted from | then |", "|---|---|---|---|"]
        return "\n".join([*lines, *(f"| {' | '.join(row)} |" for row in self.schedule())]) + "\n"


@dataclass(frozen=True, slots=True)
class SweepReport:
    """What a sweep removed.

    Attributes:
        removed: how many of each class.
        failures: what could not be removed this time, in words without personal data; the next
            sweep tries again.
    """

    removed: Mapping[str, int]
    failures: tuple[str, ...] = field(default=())


class Retention:
    """Runs the clocks of a policy."""

    def __init__(
        self,
        database: Database,
        people: PeopleStore,
        eraser: Eraser,
        policy: RetentionPolicy,
        forget_jobs: ForgetBefore,
        forget_logs: ForgetBefore,
        forget_reviews: ForgetBefore = lambda moment: 0,
    ) -> None:
        """Be ready to sweep.

        Args:
            database: rows of every tenant.
            people: deletes photos and pictures.
            eraser: destroys keys of identities.
            policy: how long what is kept.
            forget_jobs: deletes jobs that finished before a moment.
            forget_logs: deletes records written before a moment.
            forget_reviews: deletes withheld pictures, reviews and notices whose time was over.
        """
        self._database = database
        self._people = people
        self._eraser = eraser
        self.policy = policy
        self._forget_jobs = forget_jobs
        self._forget_logs = forget_logs
        self._forget_reviews = forget_reviews

    def sweep(self, now: datetime) -> SweepReport:
        """Remove everything whose time is over at `now`. Doing it twice is harmless.

        One thing that cannot be removed does not keep the others; it stands in the report.
        """
        removed: Counter[str] = Counter()
        failures: list[str] = []

        def attempt(kind: str, subject: str, remove: Callable[[], int]) -> None:
            try:
                removed[kind] += remove()
            except NotStored:
                return  # somebody else removed it since it was listed
            except ImagineError as error:
                failures.append(f"{kind} {subject}: {error}")

        for tenant_id, subject_id in self._eraser.unfinished():
            attempt("erasures finished", subject_id, partial(self._finish, tenant_id, subject_id))
        for kind, tenant_id, identity_id, outputs in self._identities_over(now):
            attempt(kind, identity_id, partial(self._erase, tenant_id, identity_id, outputs))
        for tenant_id, photo_id in self._photos_over(now):
            attempt("photos", photo_id, partial(self._delete_photo, tenant_id, photo_id))
        for tenant_id, image_id in self._images_over(now):
            attempt("outputs", image_id, partial(self._delete_image, tenant_id, image_id))
        if removed:
            attempt("files rebuilt", "all", self._rebuild)
        attempt("jobs", "all", lambda: self._forget_jobs(now - self.policy.jobs))
        attempt("reviews", "all", lambda: self._forget_reviews(now - self.policy.reviews))
        attempt("logs", "all", lambda: self._forget_logs(now - self.policy.logs))
        return SweepReport({kind: n for kind, n in removed.items() if n}, tuple(failures))

    def run(
        self,
        stop: threading.Event,
        report: Callable[[SweepReport], None],
        interval: timedelta = timedelta(minutes=10),
        clock: Callable[[], datetime] = utc_now,
    ) -> None:
        """Sweep now and after every interval, until `stop` is set; meant for a thread."""
        while not stop.is_set():
            try:
                done = self.sweep(clock())
            except ImagineError as error:  # the clocks must outlive a database that is away
                done = SweepReport({}, (str(error),))
            report(done)
            stop.wait(interval.total_seconds())

    def _identities_over(self, now: datetime) -> list[tuple[str, str, str, Outputs]]:
        consented = (
            select(ConsentRow.id)
            .where(
                ConsentRow.tenant_id == IdentityRow.tenant_id,
                ConsentRow.identity_id == IdentityRow.id,
                ConsentRow.withdrawn_at.is_(None),
                ConsentRow.expires_at > now,
            )
            .exists()
        )
        candidates = select(IdentityRow).where(
            IdentityRow.state != IdentityState.ERASING,
            or_(
                ~consented,
                IdentityRow.state == IdentityState.DRAFT,
                IdentityRow.expires_at <= now,
                IdentityRow.last_used_at <= now - self.policy.tokens,
            ),
        )
        over = []
        with self._database.reading() as session:
            for row in session.scalars(candidates):
                verdict = self._verdict(session, row, now)
                if verdict is not None:
                    kind, outputs = verdict
                    over.append((kind, row.tenant_id, row.id, outputs))
        return over

    def _verdict(
        self, session: Session, row: IdentityRow, now: datetime
    ) -> tuple[str, Outputs] | None:
        ended_at = consent_ended_at(session, row, now)
        if ended_at is None and row.state == IdentityState.FROZEN:
            ended_at = row.created_at  # frozen before any consent was given
        if ended_at is not None and now - ended_at >= self.policy.after_consent:
            return "identities without consent", self.policy.outputs_after_consent
        if row.state == IdentityState.DRAFT:
            is_over = now - row.created_at >= self.policy.drafts
            return ("drafts", Outputs.DELETE) if is_over else None
        if row.expires_at is not None and row.expires_at <= now:
            return "expired identities", self.policy.outputs_of_idle
        if now - row.last_used_at >= self.policy.tokens:
            return "tokens", self.policy.outputs_of_idle
        return None

    def _photos_over(self, now: datetime) -> list[tuple[str, str]]:
        joined = select(PhotoRow, IdentityRow).where(
            PhotoRow.tenant_id == IdentityRow.tenant_id,
            PhotoRow.identity_id == IdentityRow.id,
            IdentityRow.state != IdentityState.ERASING,
        )
        over = []
        with self._database.reading() as session:
            for photo, identity in session.execute(joined):
                is_draft = identity.state == IdentityState.DRAFT
                is_old = now - photo.created_at >= self.policy.photos
                if is_old or not (
                    is_draft or has_live_tick(session, identity, Purpose.KEEP_PHOTOS, now)
                ):
                    over.append((photo.tenant_id, photo.id))
        return over

    def _images_over(self, now: datetime) -> list[tuple[str, str]]:
        old = select(ImageRow.tenant_id, ImageRow.id).where(
            ImageRow.created_at <= now - self.policy.outputs
        )
        with self._database.reading() as session:
            return [(tenant_id, image_id) for tenant_id, image_id in session.execute(old)]

    def _finish(self, tenant_id: str, subject_id: str) -> int:
        self._eraser.finish(tenant_id, subject_id)
        return 1

    def _rebuild(self) -> int:
        self._database.scrub(SCRUBBED)
        return 0

    def _erase(self, tenant_id: str, identity_id: str, outputs: Outputs) -> int:
        self._eraser.erase_identity(tenant_id, identity_id, outputs, rebuild=False)
        return 1

    def _delete_photo(self, tenant_id: str, photo_id: str) -> int:
        self._people.delete_photo(tenant_id, photo_id)
        return 1

    def _delete_image(self, tenant_id: str, image_id: str) -> int:
        self._people.delete_image(tenant_id, image_id)
        return 1


def _span(time: timedelta) -> str:
    if not time:
        return "not at all"
    if time % timedelta(days=1):
        return f"{time / timedelta(hours=1):g} hours"
    return "1 day" if time.days == 1 else f"{time.days} days"


def _words_for_outputs(outputs: Outputs) -> str:
    return "pictures are kept" if outputs == Outputs.KEEP else "pictures too"
