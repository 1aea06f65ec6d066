"""What reviewers work with: what is queued for them, how they see it, what they take out.

Everything that leaves here is marked. What a reviewer sees first is grey and blurred; what they
see in clear, release or export carries all marks. The worker hands in every picture it made or
held back; what is queued is decided here, by the checks and by chance.
"""

from __future__ import annotations

import logging
import random
import re
import threading
from collections.abc import Callable, Mapping, Sequence
from contextlib import suppress
from dataclasses import dataclass, field, replace
from io import BytesIO
from typing import TYPE_CHECKING

import numpy as np
from PIL import Image, ImageFilter
from sqlalchemy.orm import Session

from imagine.core import ImageArray, Recipe
from imagine.errors import ImagineError, InvalidInput, NotStored, ReviewRefused
from imagine.identity.photos import decode_photo
from imagine.provenance import (
    MARKS_FOLDER,
    HashRegistry,
    MarkedImage,
    PerceptualHash,
    RecipeNote,
    open_verifier,
    perceptual_hash,
)
from imagine.provenance.registry import NEAR, hashes_of_all_positions
from imagine.safety import CheckReport, Outcome
from imagine.storage.acts import Act, ActKind, Reason
from imagine.storage.audit_log import AuditEntry, AuditLog
from imagine.storage.cases import CaseBook
from imagine.storage.evidence import EvidenceFile, EvidenceMaker
from imagine.storage.jobs import Job, JobState, JobStore
from imagine.storage.reviews import (
    Decision,
    MarkedFile,
    MarkPicture,
    NewReview,
    OpenedPicture,
    Queue,
    Review,
    ReviewStore,
    Ruling,
    Withheld,
)
from imagine.storage.takedowns import Notice, Takedown, TakedownStore

if TYPE_CHECKING:
    from imagine.settings import Settings

logger = logging.getLogger(__name__)

MAX_HELD = 16  # withheld pictures of one job that are kept for reviewers
_BLUR = 0.05  # radius of the blur as a share of the longer side: shapes stay, faces go
_PLAIN = 50  # below this quality of a hash, looking alike means nothing
_CLOCK_SECONDS = 60.0
_IMAGE_ID = re.compile(r"\bimage_[0-9a-f]{32}\b")
# Blocked by these is always looked at: a mistake here weighs most, either way.
_GRAVE = ("apparent_minors", "do_not_generate")
_SUFFIXES = {"image/png": ".png", "image/jpeg": ".jpg", "image/webp": ".webp"}

Mark = Callable[[ImageArray, Recipe | None], MarkedImage]
# tenant id, identity id -> share of its pictures that people look at, 0 to 1
SampleRate = Callable[[str, str], float]


@dataclass(frozen=True, slots=True, eq=False)
class HeldBack:
    """A drawn picture that may not leave.

    Attributes:
        image: (h, w, 3) uint8 RGB.
        recipe: how to make it again.
        report: why it may not leave.
    """

    image: ImageArray = field(repr=False)
    recipe: Recipe = field(repr=False)
    report: CheckReport


@dataclass(frozen=True, slots=True)
class PictureFile:
    """A marked picture as a file."""

    data: bytes = field(repr=False)
    media_type: str


@dataclass(frozen=True, slots=True)
class Sweep:
    """What a look for near duplicates found at the reviewer's own tenant.

    Attributes:
        queued: reviews of pictures that look the same, new or known.
        removed: how many of them were withheld at once.
    """

    queued: tuple[Review, ...]
    removed: int


@dataclass(frozen=True, slots=True)
class Stores:
    """The rooms of storage that reviewers work with."""

    reviews: ReviewStore
    takedowns: TakedownStore
    cases: CaseBook
    evidence: EvidenceMaker
    jobs: JobStore
    log: AuditLog


class Oversight:
    """Queues pictures for reviewers, shows them, finds what looks the same, exports evidence."""

    def __init__(
        self,
        stores: Stores,
        mark: Mark,
        limits: Settings,
        sample_rate: SampleRate = lambda tenant_id, identity_id: 0.01,
        blocked_share: float = 0.1,
        borderline_share: float = 1.0,
        operator: str = "local",
        draw: Callable[[], float] = random.random,
    ) -> None:
        """Be ready to work.

        Args:
            stores: what is kept.
            mark: gives pictures their marks.
            limits: of uploads; and where the keys of the marks are.
            sample_rate: share of what an identity is handed that people look at.
            blocked_share: share of the blocked pictures that people look at.
            borderline_share: share of the doubtful ones.
            operator: tenant whose reviewers get notices about pictures that were not found.
            draw: a number from 0 up to 1.
        """
        self._reviews, self._takedowns = stores.reviews, stores.takedowns
        self._cases, self._evidence = stores.cases, stores.evidence
        self._jobs, self._log = stores.jobs, stores.log
        self._mark = mark
        self._limits = limits
        self._sample_rate = sample_rate
        self._shares = {Queue.BLOCKED: blocked_share, Queue.BORDERLINE: borderline_share}
        self._operator = operator
        self._draw = draw

    # From the worker

    def hold(self, job: Job, held: Sequence[HeldBack], beside_id: str | None = None) -> None:
        """Keep what may not leave under seal, and queue what a reviewer should see of it.

        Without a place to keep it there would be nothing to appeal about, so a storage that does
        not answer raises, and the job is done again: nothing of it leaves either way.

        Args:
            job: which one.
            held: its pictures that may not leave.
            beside_id: the second identity that they show, if any.

        Raises:
            StorageError: the storage does not answer.
            ConsentMissing, NotStored: consent or identity ended meanwhile; nothing was stored.
        """
        assert job.identity_id is not None
        news = []
        for one in held[:MAX_HELD]:
            facts = one.report.facts()
            picture = Withheld(
                _png(one.image),
                (one.image.shape[1], one.image.shape[0]),
                one.recipe,
                facts,
                looks_of(one.image),
                beside_id,
            )
            name = self._reviews.withhold(job.tenant_id, job.identity_id, job.id, picture)
            queue = Queue.BLOCKED if one.report.outcome is Outcome.BLOCK else Queue.BORDERLINE
            worst = _worst(one.report)
            if worst in _GRAVE or self._draw() < self._shares[queue]:
                news.append(NewReview(job.tenant_id, queue, worst, withheld_id=name, checks=facts))
        self._reviews.add_all(news)

    def sample(self, job: Job, made: Mapping[str, CheckReport]) -> list[NewReview]:
        """What reviewers should see of a job whose pictures leave: doubtful ones, a random share.

        Storage that does not answer raises, and the job is done again; any other fault is logged
        and costs the sample, never the job.

        Args:
            job: which one.
            made: id of each of its pictures -> what the checks said of it.

        Returns:
            For `queue`, in the transaction in which the pictures are stored.

        Raises:
            StorageError, NotStored: the storage does not answer, or the identity was erased.
        """
        assert job.identity_id is not None
        try:
            share = self._sample_rate(job.tenant_id, job.identity_id)
            news = []
            for image_id, report in made.items():
                is_doubtful = any(one.outcome is Outcome.REVIEW for one in report.verdicts)
                if is_doubtful and self._draw() < self._shares[Queue.BORDERLINE]:
                    queue, reason = Queue.BORDERLINE, _worst(report)
                elif self._draw() < share:
                    queue, reason = Queue.RANDOM, "sampled"
                else:
                    continue
                facts = report.facts()
                news.append(
                    NewReview(job.tenant_id, queue, reason, image_id=image_id, checks=facts)
                )
            return news
        except ImagineError:
            raise
        except Exception as error:  # a sample less is no reason to lose somebody's pictures
            logger.error("job %s was not sampled: %s", job.id, type(error).__name__)
            return []

    def queue(self, news: Sequence[NewReview], within: Session | None = None) -> None:
        """Put what `sample` chose into its queues, in a transaction."""
        self._reviews.add_all(news, within)

    def discard(self, job: Job) -> None:
        """Delete what an attempt at a job that did not end had queued."""
        self._reviews.discard(job.tenant_id, job.id)

    # From the people

    def file_takedown(self, notice: Notice, picture: bytes | None = None) -> Takedown:
        """Take in a notice; its pictures are found by file, by marks, by likeness and by id.

        Args:
            notice: what was written.
            picture: a copy of the picture, if the sender has one; not kept.

        Raises:
            InvalidInput: a part is missing or too long.
            UnreadablePhoto: the copy is not a picture we can decode safely.
        """
        found: dict[tuple[str, str], None] = {}
        for image_id in _IMAGE_ID.findall(notice.where):
            tenant_id = self._reviews.tenant_of_image(image_id)
            if tenant_id is not None:
                found[tenant_id, image_id] = None
        if picture is not None:
            found |= dict.fromkeys(self._recognised(picture))
        return self._takedowns.file(notice, list(found), self._operator)

    def report(
        self, tenant_id: str, image_id: str, reason: Reason, note: str, actor: str
    ) -> Review:
        """The owner of a picture says that something is wrong with it.

        Raises:
            NotStored: this tenant has no such picture.
        """
        for known in self._reviews.find(tenant_id, Queue.REPORT, image_id=image_id):
            return known
        return self._reviews.add(
            NewReview(
                tenant_id, Queue.REPORT, reason.value, image_id=image_id, filed_by=actor, note=note
            )
        )

    def appeal_job(self, tenant_id: str, job_id: str, note: str, actor: str) -> list[Review]:
        """The owner of a job disagrees with what was held back of it; once is enough.

        Returns:
            A review for each picture that was kept, or one without a picture.

        Raises:
            InvalidInput: nothing of this job was held back.
            NotStored: this tenant has no such job.
        """
        job = self._jobs.get(tenant_id, job_id)
        known = self.appeals(tenant_id, job_id=job_id)
        if known:
            return known
        held = self._reviews.withheld_of(tenant_id, job_id)
        if not held and job.state is not JobState.BLOCKED:
            raise InvalidInput(f"Nothing of generation {job_id} was held back; nothing to appeal.")
        new = NewReview(
            tenant_id,
            Queue.APPEAL,
            job.stage or "output",
            job_id=job_id,
            filed_by=actor,
            note=note,
        )
        if not held:
            return [self._reviews.add(replace(new, identity_id=job.identity_id))]
        return self._reviews.add_all([replace(new, withheld_id=name) for name in held])

    def appeal_image(self, tenant_id: str, image_id: str, note: str, actor: str) -> list[Review]:
        """The owner of a picture that was removed disagrees.

        Raises:
            NotStored: no picture of this name was removed from this tenant.
        """
        known = self.appeals(tenant_id, image_id=image_id)
        if known:
            return known
        held = self._reviews.removed_image(tenant_id, image_id)
        if held is None:
            raise NotStored(f"No picture {image_id[:80]!r} was removed here.")
        new = NewReview(
            tenant_id, Queue.APPEAL, "removed", withheld_id=held, filed_by=actor, note=note
        )
        return [self._reviews.add(new)]

    def appeals(
        self, tenant_id: str, job_id: str | None = None, image_id: str | None = None
    ) -> list[Review]:
        """The appeals about a job or a picture, decided ones too."""
        if job_id is not None:
            return self._reviews.find(tenant_id, Queue.APPEAL, (), job_id=job_id)
        return self._reviews.find(tenant_id, Queue.APPEAL, (), image_id=image_id or "")

    # For the reviewers

    def look(
        self, tenant_id: str, review_id: str, actor: str, in_clear: bool = False
    ) -> PictureFile:
        """The picture of a review, marked: grey and blurred unless asked for in clear.

        Raises:
            ConsentMissing, NotStored, ReviewRefused: as `ReviewStore.open_picture`.
            NotMarked: it cannot be marked, so nobody sees it.
        """
        opened = self._reviews.open_picture(tenant_id, review_id, actor, in_clear)
        return self._rendition(opened, in_clear)

    def look_into_case(
        self, tenant_id: str, case_id: str, picture_id: str, actor: str, in_clear: bool = False
    ) -> PictureFile:
        """A picture of a case, likewise. Errors as `CaseBook.open_picture`."""
        opened = self._cases.open_picture(tenant_id, case_id, picture_id, actor, in_clear)
        return self._rendition(opened, in_clear)

    def sweep(
        self,
        tenant_id: str,
        review_id: str,
        actor: str,
        remove: bool = False,
        distance: int = NEAR,
    ) -> Sweep:
        """Find every picture made here that looks like that of a review, and queue it.

        Those of other tenants go to their reviewers, and nothing of them is told here. Removing
        is reversible and an appeal brings a picture back, so one reviewer may do it.

        Args:
            tenant_id: whose reviewers.
            review_id: of the picture.
            actor: the reviewer.
            remove: withhold those of this tenant at once; the review must have been decided so.
            distance: bits of 256 that may differ, at most 31.

        Raises:
            InvalidInput: nothing to compare with, or a distance at which strangers look alike.
            NotStored: no such review.
            ReviewRefused: `remove` before the picture itself was removed.
        """
        if not 0 <= distance <= NEAR:
            raise InvalidInput(f"distance is {distance}; pictures differ in 0 to {NEAR} bits.")
        review = self._reviews.get(tenant_id, review_id)
        looks = self._reviews.hash_of(review)
        if looks is None:
            raise InvalidInput(
                f"Review {review_id} has no picture that could be compared: there is none, it is "
                "gone, or it is so plain that everything plain looks like it."
            )
        if remove and review.ruling is not Ruling.REMOVE:
            raise ReviewRefused(
                "Near duplicates are removed once the picture itself is: decide the review first.",
                code="not_decided",
            )
        mine: list[Review] = []
        for whose, image_id in self._looking_like([PerceptualHash.from_hex(looks)], distance):
            if (whose, image_id) == (tenant_id, review.image_id):
                continue
            if whose != tenant_id and review.takedown_id is None:
                continue  # what one tenant's reviewers doubt says nothing about another's
            found = self._reviews.attach(review, whose, image_id, actor, "near_duplicate")
            if whose == tenant_id:
                mine.append(found)
        removed = self._remove_alike(review, mine, actor) if remove else 0
        queued = tuple(self._reviews.get(tenant_id, one.id) for one in mine)
        details: dict[str, object] = {
            "review_id": review_id,
            "found": len(queued),
            "removed": removed,
        }
        self._log.append("review.swept", review.owner_id, details, actor, tenant_id=tenant_id)
        return Sweep(queued, removed)

    def approve(self, tenant_id: str, act_id: str, actor: str) -> Act:
        """Agree to a dangerous act of any kind, as another reviewer than the one who asked.

        Raises:
            NotStored, ReviewRefused: as `ActBook.approve`; also when what it is about is gone.
        """
        act = self._reviews.acts.get(tenant_id, act_id)
        if act.kind is ActKind.COLLECT:
            return self._cases.approve(tenant_id, act_id, actor)
        if act.target_id.startswith("case_"):
            subject = self._cases.get(tenant_id, act.target_id).target_id
        else:
            subject = self._reviews.get(tenant_id, act.target_id).owner_id
        return self._reviews.acts.approve(tenant_id, act_id, actor, subject)

    def evidence_of_review(self, tenant_id: str, review_id: str, actor: str) -> bytes:
        """A zip of a review's picture, decisions and log entries, to be checked offline.

        Raises:
            NotStored: no such review.
            ReviewRefused: two reviewers must have agreed to this export.
        """
        review = self._reviews.get(tenant_id, review_id)
        act = self._reviews.acts.require(tenant_id, ActKind.EXPORT_EVIDENCE, review_id, actor)
        pictures = []
        image_id = None if review.withheld_id else review.image_id
        if review.has_picture:
            # Without its picture, which the owner may delete, the rest is evidence all the same.
            with suppress(NotStored):
                opened = self._reviews.open_for_act(act, image_id, review.withheld_id)
                pictures.append(self._evidence_file(review.withheld_id or image_id or "", opened))
        names = {
            one
            for one in (review.id, review.image_id, review.withheld_id, review.takedown_id)
            if one is not None
        }
        entries = [
            entry
            for entry in self._log.entries_about(tenant_id, review.owner_id)
            if names & set(map(str, entry.facts["details"].values()))
        ]
        if review.takedown_id is not None and review.takedown_id != review.owner_id:
            notice = self._takedowns.locate(review.takedown_id)
            entries += self._log.entries_about(notice.tenant_id, notice.id)
        about = {
            "review": told(review),
            "decisions": self._decisions(review),
            "picture": "here" if pictures else "gone",
        }
        return self._evidence.make(
            tenant_id, review.owner_id, about, pictures, entries, act.id, actor
        )

    def evidence_of_case(self, tenant_id: str, case_id: str, actor: str) -> bytes:
        """A zip of everything in a case. Errors as `evidence_of_review` and `CaseBook.contents`."""
        contents = self._cases.contents(tenant_id, case_id, actor)
        act = self._reviews.acts.require(tenant_id, ActKind.EXPORT_EVIDENCE, case_id, actor)
        pictures = []
        for one in contents.pictures:
            where = (None, one.id) if one.is_withheld else (one.id, None)
            pictures.append(self._evidence_file(one.id, self._reviews.open_for_act(act, *where)))
        about = {
            "case": contents.act.number,
            "reason": contents.act.reason.value,
            "clause": contents.act.clause,
            "asked_by": contents.act.asked_by,
            "approved_by": contents.act.approved_by,
            "reviews": [
                {**told(review), "decisions": self._decisions(review)}
                for review in contents.reviews
            ],
            "jobs": [{"id": job.id, "state": job.state} for job in contents.jobs],
        }
        entries: list[AuditEntry] = list(contents.entries)
        subject = contents.act.target_id
        return self._evidence.make(tenant_id, subject, about, pictures, entries, act.id, actor)

    # The clock

    def keep_time(self) -> int:
        """Withhold the pictures of notices that nobody answered in time; says how many."""
        count = 0
        for review in self._reviews.overdue():
            if review.queue is not Queue.TAKEDOWN or review.image_id is None:
                continue
            if review.withheld_id is not None:
                continue
            try:
                self._reviews.remove_overdue(review)
                count += 1
            except NotStored:
                continue  # its owner deleted it: nothing is left to withhold
            except ImagineError as error:
                logger.error("takedown of review %s: %s", review.id, type(error).__name__)
        return count

    def run(self, stop: threading.Event) -> None:
        """Keep time every minute until `stop` is set; meant for a thread."""
        while not stop.is_set():
            try:
                if removed := self.keep_time():
                    logger.warning("%d pictures withheld: nobody decided in 48 hours", removed)
            except ImagineError as error:
                logger.error("the clock of takedowns failed: %s", type(error).__name__)
            stop.wait(_CLOCK_SECONDS)

    def _rendition(self, opened: OpenedPicture, in_clear: bool) -> PictureFile:
        if in_clear and opened.is_marked:
            return PictureFile(opened.data, opened.media_type)
        pixels = pixels_of(opened.data)
        marked = (
            self._mark(pixels, opened.recipe) if in_clear else self._mark(blurred(pixels), None)
        )
        return PictureFile(marked.to_bytes(".webp", RecipeNote.NONE), "image/webp")

    def _evidence_file(self, name: str, opened: OpenedPicture) -> EvidenceFile:
        file = self._rendition(opened, in_clear=True)
        return EvidenceFile(f"{name}{_SUFFIXES.get(file.media_type, '.bin')}", file.data)

    def _decisions(self, review: Review) -> list[dict[str, object]]:
        history: list[Decision] = self._reviews.history(review.tenant_id, review.id)
        return [
            {
                "id": one.id,
                "ruling": one.ruling.value,
                "reason": one.reason.value,
                "clause": one.clause,
                "decided_by": one.decided_by,
                "decided_at": one.decided_at.isoformat(),
                "is_final": one.is_final,
                "entry": one.entry,
            }
            for one in history
        ]

    def _remove_alike(self, review: Review, alike: Sequence[Review], actor: str) -> int:
        final = [one for one in self._reviews.history(review.tenant_id, review.id) if one.is_final]
        clause = final[-1].clause if final else "8.1"
        removed = 0
        for one in alike:
            if one.ruling is None and one.withheld_id is None:
                words = (Ruling.REMOVE, Reason.NEAR_DUPLICATE, clause, actor)
                self._reviews.decide(one.tenant_id, one.id, *words)
                removed += 1
        return removed

    def _recognised(self, picture: bytes) -> list[tuple[str, str]]:
        """Tenant and id of every picture made here that a file shows."""
        pixels = decode_photo(picture, "The copy", self._limits)
        found = []
        record = open_verifier(self._limits.data_directory / MARKS_FOLDER).verify(picture).record
        if record is not None and (marked := self._reviews.image_of_record(record)) is not None:
            found.append(marked)
        if perceptual_hash(pixels).quality >= _PLAIN:
            found += self._looking_like(hashes_of_all_positions(pixels), NEAR)
        return found

    def _looking_like(
        self, hashes: Sequence[PerceptualHash], distance: int
    ) -> list[tuple[str, str]]:
        """Tenant and id of every picture within `distance` bits, nearest first."""
        images = self._reviews.hashed_images()
        registry = HashRegistry(
            (number, PerceptualHash.from_hex(image.perceptual_hash))
            for number, image in enumerate(images)
        )
        near = {hit.record: None for one in hashes for hit in registry.search(one, distance)}
        return [(images[number].tenant_id, images[number].image_id) for number in near]


def releasing(mark: Mark) -> MarkPicture:
    """How a withheld picture that is handed out after all gets its marks: all of them."""

    def release(opened: OpenedPicture) -> MarkedFile:
        marked = mark(pixels_of(opened.data), opened.recipe)
        size = (marked.pixels.shape[1], marked.pixels.shape[0])
        return MarkedFile(
            marked.to_bytes(".png", RecipeNote.NONE), "image/png", size, marked.recipe
        )

    return release


def blurred(pixels: ImageArray) -> ImageArray:
    """What a reviewer sees first: grey, and so soft that nobody can be recognised.

    Args:
        pixels: (height, width, 3) uint8 RGB.
    """
    height, width = pixels.shape[:2]
    grey = Image.fromarray(pixels).convert("L")
    soft = grey.filter(ImageFilter.GaussianBlur(_BLUR * max(height, width)))
    return np.asarray(soft.convert("RGB"))


def pixels_of(data: bytes) -> ImageArray:
    """(height, width, 3) uint8 RGB of a file that was made and sealed here."""
    with Image.open(BytesIO(data), formats=("PNG", "JPEG", "WEBP")) as picture:
        return np.asarray(picture.convert("RGB"))


def looks_of(pixels: ImageArray) -> str | None:
    """64 hex digits of the perceptual hash; None for a picture so plain that it means nothing."""
    looks = perceptual_hash(pixels)
    return looks.hex if looks.quality >= _PLAIN else None


def told(review: Review) -> dict[str, object]:
    """A review as JSON values, for evidence."""
    return {
        "id": review.id,
        "queue": review.queue.value,
        "state": review.state.value,
        "reason": review.reason,
        "checks": dict(review.checks),
        "created_at": review.created_at.isoformat(),
        "due_at": review.due_at.isoformat() if review.due_at else None,
        "decided_at": review.decided_at.isoformat() if review.decided_at else None,
        "ruling": review.ruling.value if review.ruling else None,
    }


def _worst(report: CheckReport) -> str:
    """Name of the check that speaks loudest against a picture."""
    worst = report.outcome
    return next(one.check for one in report.verdicts if one.outcome is worst)


def _png(pixels: ImageArray) -> bytes:
    buffer = BytesIO()
    Image.fromarray(pixels).save(buffer, "PNG", compress_level=1)
    return buffer.getvalue()
