"""Reviews: what people look at before or after a picture leaves, and what they decide about it.

A review names a picture that was handed out (an image) or one that was not (withheld). Withheld
pictures are sealed like images, under the key of whom they show, and go when that key goes. Every
look and every decision is an entry of the audit log, written with the deed or not at all. How a
picture is blurred and marked before a reviewer sees it is left to the service; which acts need two
reviewers stands in `acts.py`.
"""

from __future__ import annotations

import json
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager, nullcontext
from dataclasses import asdict, dataclass, field
from datetime import datetime, timedelta
from enum import StrEnum
from typing import Any

from sqlalchemy import ColumnElement, and_, delete, func, literal, or_, select, tuple_, update
from sqlalchemy.orm import Session

from imagine.core import Recipe
from imagine.errors import InvalidInput, NotStored, ReviewRefused
from imagine.storage.acts import Act, ActBook, ActKind, Reason, check_clause
from imagine.storage.audit_log import AuditLog
from imagine.storage.consent import ConsentBook, Purpose
from imagine.storage.database import Database, Instant, new_id, utc_now
from imagine.storage.events import acting
from imagine.storage.tables import (
    ActRow,
    DecisionRow,
    IdentityRow,
    ImageRow,
    ReviewRow,
    TakedownRow,
    WithheldRow,
)
from imagine.storage.vault import Grant, Kind, Vault

MAX_NOTE_CHARACTERS = 4000
_TWO_TO_OPEN = ("nudity", "apparent_minors")  # checks whose doubt shields a picture from one eye


class Queue(StrEnum):
    """Why something waits for a reviewer."""

    TAKEDOWN = "takedown"  # somebody who is shown wants it gone; 48 hours
    APPEAL = "appeal"  # the person whose picture was blocked or removed disagrees
    REPORT = "report"  # the person reports a picture of theirs
    BORDERLINE = "borderline"  # a check was in doubt
    BLOCKED = "blocked"  # a sample of what the checks blocked
    RANDOM = "random"  # a sample of what left; all of it for unverified identities


# Somebody asked for a decision: their pictures are opened without the tick for reviews.
ASKED_FOR = frozenset({Queue.TAKEDOWN, Queue.APPEAL, Queue.REPORT})
DUE = {
    Queue.TAKEDOWN: timedelta(hours=48),
    Queue.APPEAL: timedelta(days=7),
    Queue.REPORT: timedelta(days=7),
}


class ReviewState(StrEnum):
    """How far a review has come."""

    OPEN = "open"
    NEEDS_SECOND = "needs_second"  # one reviewer decided; the ruling needs another one
    DECIDED = "decided"


class Ruling(StrEnum):
    """What becomes of the picture."""

    LEAVE = "leave"  # it stays as it is: handed out, or withheld
    RELEASE = "release"  # a withheld picture is handed out, marked; needs two reviewers
    REMOVE = "remove"  # a picture that was handed out is withheld


_NEEDS_TWO = frozenset({Ruling.RELEASE})


@dataclass(frozen=True, slots=True)
class Withheld:
    """A picture on its way under seal.

    Attributes:
        data: a lossless file, without marks unless it had left.
        size: width, height in pixels.
        recipe: how to make it again; sealed, since it holds the prompt.
        checks: outcomes and scores, as `CheckReport.facts` has them.
        perceptual_hash: 64 hex digits; None when unknown.
        beside_id: the identity that is shown beside the one it is sealed for, if any.
    """

    data: bytes = field(repr=False)
    size: tuple[int, int]
    recipe: Recipe = field(repr=False)
    checks: Mapping[str, Any]
    perceptual_hash: str | None = None
    beside_id: str | None = None


@dataclass(frozen=True, slots=True)
class NewReview:
    """Something to be decided; one of `image_id` and `withheld_id`, or neither.

    Attributes:
        reason: why it waits, in a word, e.g. "sampled", "unverified", "nudity".
        image_id: of a picture that was handed out.
        withheld_id: of one that was not.
        identity_id: whom it is about, where there is no picture (any more).
        job_id: the job that made it.
        takedown_id: the notice that asks for it.
        checks: outcomes and scores of the output checks, where known.
        filed_by: who asks, as a pseudonym; None for the service itself.
        note: what they say; sealed.
        due_at: when it must be decided; None leaves that to the queue.
    """

    tenant_id: str
    queue: Queue
    reason: str
    image_id: str | None = None
    withheld_id: str | None = None
    identity_id: str | None = None
    job_id: str | None = None
    takedown_id: str | None = None
    checks: Mapping[str, Any] = field(default_factory=dict)
    filed_by: str | None = None
    note: str = field(default="", repr=False)
    due_at: datetime | None = None


@dataclass(frozen=True, slots=True)
class Review:
    """A review as it stands. It never names the person: ids are random.

    Attributes:
        checks: as of `NewReview`; empty when unknown.
        due_at: when it must be decided, if there is a time.
        ruling: the final one, once it is decided.
    """

    tenant_id: str
    id: str
    queue: Queue
    state: ReviewState
    reason: str
    identity_id: str | None
    image_id: str | None
    withheld_id: str | None
    job_id: str | None
    takedown_id: str | None
    checks: Mapping[str, Any]
    filed_by: str | None
    created_at: datetime
    due_at: datetime | None
    decided_at: datetime | None
    ruling: Ruling | None
    owner_id: str

    @property
    def has_picture(self) -> bool:
        """Whether there is anything to look at."""
        return self.image_id is not None or self.withheld_id is not None

    @property
    def needs_two_to_open(self) -> bool:
        """Whether one reviewer alone sees it blurred only."""
        told = self.checks.get("checks", {})
        return any(told.get(name, {}).get("outcome", "pass") != "pass" for name in _TWO_TO_OPEN)

    def is_overdue(self, now: datetime) -> bool:
        """Whether its time is over and nobody has decided."""
        is_late = self.due_at is not None and self.due_at <= now
        return is_late and self.state is not ReviewState.DECIDED


@dataclass(frozen=True, slots=True)
class Decision:
    """What a reviewer decided.

    Attributes:
        is_final: False for a proposal that waits for a second reviewer, or that they overruled.
        note: why, in the reviewer's words.
        entry: its place in the audit log.
    """

    id: str
    review_id: str
    ruling: Ruling
    reason: Reason
    clause: str
    decided_by: str
    decided_at: datetime
    is_final: bool
    note: str = field(repr=False)
    entry: int


@dataclass(frozen=True, slots=True)
class QueueFacts:
    """How a queue stands: reviews that wait, those past their time, and the next time."""

    queue: Queue
    waiting: int
    overdue: int
    next_due_at: datetime | None


@dataclass(frozen=True, slots=True)
class OpenedPicture:
    """A picture out of its seal; only the service's marking may pass it on.

    Attributes:
        data: the file.
        media_type: of the file.
        is_marked: whether it carries its marks.
        recipe: how it was made; None if that was not stored.
    """

    data: bytes = field(repr=False)
    media_type: str
    is_marked: bool
    recipe: Recipe | None = field(repr=False)


@dataclass(frozen=True, slots=True)
class MarkedFile:
    """A marked picture as a file, ready to be stored as an image."""

    data: bytes = field(repr=False)
    media_type: str
    size: tuple[int, int]
    recipe: Recipe | None = field(repr=False)


# Gives a withheld picture its marks, the last thing before it may leave.
MarkPicture = Callable[[OpenedPicture], MarkedFile]


@dataclass(frozen=True, slots=True)
class HashedImage:
    """A picture that was handed out, by how it looks."""

    tenant_id: str
    image_id: str
    perceptual_hash: str


class ReviewStore:
    """The reviews of all tenants, the withheld pictures, and the decisions."""

    def __init__(
        self,
        database: Database,
        vault: Vault,
        consents: ConsentBook,
        log: AuditLog,
        mark: MarkPicture,
        clock: Callable[[], datetime] = utc_now,
    ) -> None:
        """Open the queues.

        Args:
            database: rows.
            vault: keys and blobs.
            consents: the one door to a picture.
            log: takes every look and every decision.
            mark: marks a withheld picture that is released.
            clock: the time, with a zone.
        """
        self._database = database
        self._vault = vault
        self._consents = consents
        self._log = log
        self._mark = mark
        self._clock = clock
        self.acts = ActBook(database, log, clock)

    # What may not leave

    def withhold(
        self, tenant_id: str, identity_id: str, job_id: str | None, picture: Withheld
    ) -> str:
        """Seal a drawn picture that may not leave, under the key of whom it shows.

        Returns:
            Its id.

        Raises:
            ConsentMissing: consent ended while it was drawn; nothing was stored.
            NotStored: this tenant has no such identity.
        """
        withheld_id, now = new_id("withheld"), self._clock()
        for shown in (identity_id, picture.beside_id):
            if shown is not None:
                self._consents.grant(tenant_id, shown, Purpose.GENERATE)
        with (
            self._blob(tenant_id, identity_id, Kind.WITHHELD, withheld_id, picture.data),
            self._consents.allowed(tenant_id, identity_id, Purpose.GENERATE) as (session, owner, _),
        ):
            session.add(
                WithheldRow(
                    tenant_id=tenant_id,
                    id=withheld_id,
                    person_id=owner.person_id,
                    identity_id=identity_id,
                    key_owner_id=identity_id,
                    beside_id=picture.beside_id,
                    job_id=job_id,
                    media_type="image/png",
                    byte_count=len(picture.data),
                    width=picture.size[0],
                    height=picture.size[1],
                    is_marked=False,
                    checks=dict(picture.checks),
                    made_at=now,
                    created_at=now,
                    perceptual_hash=picture.perceptual_hash,
                    sealed_recipe=self._sealed_recipe(
                        tenant_id, identity_id, withheld_id, picture.recipe
                    ),
                )
            )
        return withheld_id

    def withheld_of(self, tenant_id: str, job_id: str) -> list[str]:
        """Ids of the withheld pictures of a job, oldest first."""
        mine = (WithheldRow.tenant_id == tenant_id, WithheldRow.job_id == job_id)
        chosen = select(WithheldRow.id).where(*mine)
        with self._database.reading() as session:
            return list(session.scalars(chosen.order_by(WithheldRow.created_at, WithheldRow.id)))

    def removed_image(self, tenant_id: str, image_id: str) -> str | None:
        """The withheld picture that was handed out under this id before; None if there is none."""
        mine = (WithheldRow.tenant_id == tenant_id, WithheldRow.image_id == image_id)
        with self._database.reading() as session:
            return session.scalar(select(WithheldRow.id).where(*mine))

    def discard(self, tenant_id: str, job_id: str) -> int:
        """Delete what an attempt at a job left: withheld pictures and samples; says how many.

        For a job that did not end, and is done again or not at all.
        """
        gone = self.withheld_of(tenant_id, job_id)
        for withheld_id in gone:
            self._delete_withheld(tenant_id, withheld_id)
        samples = (
            ReviewRow.tenant_id == tenant_id,
            ReviewRow.job_id == job_id,
            ReviewRow.queue.not_in(list(ASKED_FOR)),
        )
        with self._database.reading() as session:
            if session.scalars(select(ReviewRow.id).where(*samples)).first() is None:
                return len(gone)
        with self._database.writing() as session:
            session.execute(delete(ReviewRow).where(*samples))
        return len(gone)

    # Queues

    def add(self, new: NewReview, within: Session | None = None) -> Review:
        """Put something into its queue; `within` a writing session, its end decides about that.

        Raises:
            InvalidInput: two pictures, a note that is too long, or nothing it could be about.
            NotStored: this tenant has no such picture.
            DataKeyDestroyed: whom it is about was erased.
        """
        if len(new.note) > MAX_NOTE_CHARACTERS or "\0" in new.note:
            raise InvalidInput(
                f"The note has {len(new.note)} characters; {MAX_NOTE_CHARACTERS} are allowed, "
                "without zero bytes."
            )
        now = self._clock()
        row = ReviewRow(
            tenant_id=new.tenant_id,
            id=new_id("review"),
            queue=new.queue,
            state=ReviewState.OPEN,
            reason=new.reason,
            identity_id=new.identity_id,
            image_id=new.image_id,
            withheld_id=new.withheld_id,
            job_id=new.job_id,
            takedown_id=new.takedown_id,
            checks=dict(new.checks),
            filed_by=new.filed_by,
            created_at=now,
            due_at=new.due_at or (now + DUE[new.queue] if new.queue in DUE else None),
        )
        self._complete(row, within)
        if new.note:
            assert row.owner_id is not None
            row.sealed_note = self._vault.seal(
                new.tenant_id, row.owner_id, f"{row.id}/note", new.note.encode()
            )
        with self._writing(within) as session:
            session.add(row)
            session.flush()
            review = _review(row)
            details = {"queue": new.queue.value, "reason": new.reason}
            self._write(session, "queued", review, new.filed_by or "service", details)
        return review

    def add_all(self, news: Sequence[NewReview], within: Session | None = None) -> list[Review]:
        """Several reviews together, or none of them. Arguments and errors as `add`."""
        if not news:
            return []
        with self._writing(within) as session:
            return [self.add(new, within=session) for new in news]

    def get(self, tenant_id: str, review_id: str) -> Review:
        """One review.

        Raises:
            NotStored: this tenant has none of this name.
        """
        with self._database.reading() as session:
            return _review(_row(session, tenant_id, review_id))

    def find(
        self,
        tenant_id: str,
        queue: Queue | None = None,
        states: Sequence[ReviewState] = (ReviewState.OPEN, ReviewState.NEEDS_SECOND),
        limit: int = 50,
        after: Review | None = None,
        **about: str,
    ) -> list[Review]:
        """Reviews of a tenant, oldest first, so that nobody waits for ever.

        Args:
            tenant_id: whose.
            queue: only of this queue.
            states: only in these states; none given means all.
            limit: at most so many.
            after: go on after this one, the last of the page before.
            about: only about this, e.g. `identity_id="..."`, `takedown_id`, `job_id`, `image_id`.
        """
        chosen = select(ReviewRow).where(ReviewRow.tenant_id == tenant_id)
        if queue is not None:
            chosen = chosen.where(ReviewRow.queue == queue)
        if states:
            chosen = chosen.where(ReviewRow.state.in_(list(states)))
        for name, value in about.items():
            chosen = chosen.where(getattr(ReviewRow, name) == value)
        if after is not None:
            place = tuple_(literal(after.created_at, Instant), literal(after.id))
            chosen = chosen.where(tuple_(ReviewRow.created_at, ReviewRow.id) > place)
        in_order = chosen.order_by(ReviewRow.created_at, ReviewRow.id).limit(limit)
        with self._database.reading() as session:
            return [_review(row) for row in session.scalars(in_order)]

    def queues(self, tenant_id: str) -> list[QueueFacts]:
        """How every queue of a tenant stands, the most urgent kind first."""
        late = func.count().filter(ReviewRow.due_at <= self._clock())
        chosen = (
            select(ReviewRow.queue, func.count(), late, func.min(ReviewRow.due_at))
            .where(ReviewRow.tenant_id == tenant_id, ReviewRow.state != ReviewState.DECIDED)
            .group_by(ReviewRow.queue)
        )
        with self._database.reading() as session:
            found = {queue: rest for queue, *rest in session.execute(chosen)}
        return [QueueFacts(queue, *found.get(queue, (0, 0, None))) for queue in Queue]

    def overdue(self) -> list[Review]:
        """Reviews of every tenant whose time is over, the longest waiting first."""
        late = (ReviewRow.due_at <= self._clock(), ReviewRow.state != ReviewState.DECIDED)
        with self._database.reading() as session:
            rows = session.scalars(select(ReviewRow).where(*late).order_by(ReviewRow.due_at))
            return [_review(row) for row in rows]

    def read_note(self, tenant_id: str, review_id: str) -> str:
        """What was said by whoever filed a review; "" if nothing."""
        with self._database.reading() as session:
            row = _row(session, tenant_id, review_id)
        return self._opened_note(row.owner_id, row.id, tenant_id, row.sealed_note)

    def history(self, tenant_id: str, review_id: str) -> list[Decision]:
        """What was decided, oldest first, proposals included.

        Raises:
            NotStored: this tenant has no such review.
        """
        with self._database.reading() as session:
            review = _row(session, tenant_id, review_id)
            rows = _decisions(session, tenant_id, review_id)
        return [
            _decision(row, self._opened_note(review.owner_id, row.id, tenant_id, row.sealed_note))
            for row in rows
        ]

    # Looking

    def open_picture(
        self, tenant_id: str, review_id: str, actor: str, in_clear: bool
    ) -> OpenedPicture:
        """The picture of a review, to be blurred or marked and shown; written down either way.

        Raises:
            ConsentMissing: sampled, and the person did not agree that reviewers look.
            NotStored: no such review, or its picture is gone.
            ReviewRefused: in clear a flagged picture needs two reviewers (`acts`).
        """
        review = self.get(tenant_id, review_id)
        if in_clear and review.needs_two_to_open:
            self.acts.require(tenant_id, ActKind.OPEN_IN_CLEAR, review_id, actor)
        grant = self._grant(review, actor)
        opened = self._opened(review, grant)
        details = {"rendition": "clear" if in_clear else "blurred", "purpose": grant.purpose}
        with self._database.writing() as session:
            self._write(session, "opened", review, actor, details)
        return opened

    def open_for_act(
        self, act: Act, image_id: str | None, withheld_id: str | None
    ) -> OpenedPicture:
        """A picture that an approved act reaches: of a case, or as evidence. The caller logs it.

        Raises:
            NotStored: no such picture, or it is gone.
            ReviewRefused: the act was not approved, or its time is over.
        """
        if not act.may_be_done(self._clock()):
            raise ReviewRefused(
                f"Act {act.id} is not approved, or its time is over. Ask for it again.",
                code="second_reviewer_needed",
            )
        with self._database.reading() as session:
            owner_id = _owner_of(session, act.tenant_id, image_id, withheld_id)
        grant = self._consents.grant_for_decision(act.tenant_id, owner_id)
        return self._open(act.tenant_id, image_id, withheld_id, grant)

    # Deciding

    def decide(
        self,
        tenant_id: str,
        review_id: str,
        ruling: Ruling,
        reason: Reason,
        clause: str,
        actor: str,
        note: str = "",
    ) -> Review:
        """Decide a review, and do what was decided.

        A release needs two reviewers: the first proposes it, and it happens when another one
        decides the same. If the other one decides otherwise, that holds.

        Args:
            tenant_id: whose reviewers.
            review_id: what is decided.
            ruling: what becomes of the picture.
            reason: why, as a code.
            clause: of the policy, a key of `acts.POLICY_CLAUSES`.
            actor: the reviewer, as a pseudonym.
            note: why, in words; sealed.

        Raises:
            InvalidInput: no such clause, or there is nothing to release or remove.
            NotStored: this tenant has no such review, or its picture is gone.
            ConsentMissing: a release to somebody whose consent has ended.
            ReviewRefused: `code` says why: "already_decided", "same_reviewer", "first_decider"
                (an appeal goes to somebody else), "own_matter" (they filed it themselves).
        """
        check_clause(clause)
        if len(note) > MAX_NOTE_CHARACTERS or "\0" in note:
            raise InvalidInput(f"The note is longer than {MAX_NOTE_CHARACTERS} characters.")
        with self._database.reading() as session:
            row = _row(session, tenant_id, review_id)
            is_final = self._check_decider(session, row, ruling, actor)
            _check_ruling(row, ruling)
        review = _review(row)
        decision = DecisionRow(
            tenant_id=tenant_id,
            id=new_id("decision"),
            review_id=review_id,
            ruling=ruling,
            reason=reason,
            clause=clause,
            decided_by=actor,
            is_final=is_final,
        )
        if note:
            decision.sealed_note = self._vault.seal(
                tenant_id, review.owner_id, f"{decision.id}/note", note.encode()
            )
        if not is_final or ruling is Ruling.LEAVE:
            with self._database.writing() as session:
                self._record(session, decision)
        elif ruling is Ruling.REMOVE:
            self._remove(review, decision)
        else:
            self._release(review, decision, actor)
        return self.get(tenant_id, review_id)

    def remove_overdue(self, review: Review) -> Review:
        """Withhold the picture of a takedown nobody decided in time; the review stays open.

        Raises:
            NotStored: it is gone already.
        """
        if review.image_id is None or review.withheld_id is not None:
            return review
        self._remove(review, None)
        return self.get(review.tenant_id, review.id)

    def attach(
        self,
        review: Review,
        tenant_id: str,
        image_id: str,
        actor: str,
        reason: str = "found_by_reviewer",
    ) -> Review:
        """Queue another picture for what is already asked for: found by a reviewer, or alike.

        It shares the notice and its clock. Where there is no notice it is a doubtful picture.

        Args:
            review: what it belongs to.
            tenant_id: whose picture; its own reviewers decide.
            image_id: the picture.
            actor: who found it.
            reason: how, in a word.

        Returns:
            The new review, or the one that is there already.

        Raises:
            NotStored: no such picture.
        """
        queue = Queue.TAKEDOWN if review.takedown_id is not None else Queue.BORDERLINE
        for known in self.find(tenant_id, queue, (), image_id=image_id):
            if known.takedown_id == review.takedown_id:
                return known
        new = NewReview(tenant_id, queue, reason, image_id=image_id, takedown_id=review.takedown_id)
        with self._database.writing() as session:
            made = self.add(new, within=session)
            _row(session, tenant_id, made.id).due_at = review.due_at
            self._write(session, "attached", made, actor, {"from_review": review.id})
        return self.get(tenant_id, made.id)

    def hashed_images(self) -> list[HashedImage]:
        """Every picture of every tenant that is handed out, by how it looks: for the sweep."""
        chosen = select(ImageRow.tenant_id, ImageRow.id, ImageRow.perceptual_hash).where(
            ImageRow.perceptual_hash.is_not(None)
        )
        with self._database.reading() as session:
            found = session.execute(chosen)
            return [HashedImage(tenant, name, looks or "") for tenant, name, looks in found]

    def tenant_of_image(self, image_id: str) -> str | None:
        """Whose a picture is; None where there is none. For notices, whose senders have no tenant.

        Never to be told to anybody: it would say which ids exist.
        """
        with self._database.reading() as session:
            return session.scalar(select(ImageRow.tenant_id).where(ImageRow.id == image_id))

    def image_of_record(self, record: int) -> tuple[str, str] | None:
        """Tenant and id of the picture whose marks lead to an audit entry; None if it is gone."""
        chosen = select(ImageRow.tenant_id, ImageRow.id).where(ImageRow.record == record)
        with self._database.reading() as session:
            found = session.execute(chosen).first()
        return None if found is None else (found[0], found[1])

    def hash_of(self, review: Review) -> str | None:
        """The perceptual hash of the picture of a review; None when it has none (any more)."""
        with self._database.reading() as session:
            row: ImageRow | WithheldRow | None = None
            if review.withheld_id is not None:
                row = session.get(WithheldRow, (review.tenant_id, review.withheld_id))
            elif review.image_id is not None:
                row = session.get(ImageRow, (review.tenant_id, review.image_id))
        return None if row is None else row.perceptual_hash

    # Forgetting

    def forget(self, tenant_id: str, subject_id: str) -> int:
        """Forget what is kept of an identity or person that is being erased; says how much.

        Pictures the person keeps have passed to the person's own key before: their reviews go
        with them, without what was sealed under the key that is gone.
        """
        forgotten = self._forget_beside(tenant_id, subject_id)
        mine = (ReviewRow.tenant_id == tenant_id, ReviewRow.owner_id == subject_id)
        with self._database.writing() as session:
            for row in session.scalars(select(ReviewRow).where(*mine)).all():
                kept = session.get(ImageRow, (tenant_id, row.image_id)) if row.image_id else None
                if kept is not None and kept.key_owner_id != subject_id:
                    row.owner_id, row.identity_id = kept.key_owner_id, None
                    row.sealed_note = None
                    session.execute(
                        update(DecisionRow)
                        .where(DecisionRow.tenant_id == tenant_id, DecisionRow.review_id == row.id)
                        .values(sealed_note=None)
                    )
                else:
                    session.delete(row)
                    forgotten += 1
            sealed = delete(WithheldRow).where(
                WithheldRow.tenant_id == tenant_id, WithheldRow.key_owner_id == subject_id
            )
            gone = session.execute(sealed.returning(WithheldRow.id)).all()
        # The blobs go with all blobs of the owner.
        return forgotten + len(gone)

    def _forget_beside(self, tenant_id: str, subject_id: str) -> int:
        """Delete withheld pictures of others on which an identity is shown too."""
        beside = (WithheldRow.tenant_id == tenant_id, WithheldRow.beside_id == subject_id)
        with self._database.reading() as session:
            names = list(session.scalars(select(WithheldRow.id).where(*beside)))
        for withheld_id in names:
            self._delete_withheld(tenant_id, withheld_id)
        if names:
            about = (ReviewRow.tenant_id == tenant_id, ReviewRow.withheld_id.in_(names))
            with self._database.writing() as session:
                session.execute(delete(ReviewRow).where(*about))
        return len(names)

    def forget_before(self, moment: datetime) -> int:
        """Delete withheld pictures and reviews whose time was over at a moment; says how many.

        What somebody asked to be decided stays until it is; samples go whether or not anybody
        has looked.
        """
        asked = ReviewRow.queue.in_(list(ASKED_FOR))
        waits = and_(asked, ReviewRow.state != ReviewState.DECIDED)
        over = or_(ReviewRow.decided_at <= moment, and_(~asked, ReviewRow.created_at <= moment))
        needed = (
            select(ReviewRow.id)
            .where(
                ReviewRow.tenant_id == WithheldRow.tenant_id,
                ReviewRow.withheld_id == WithheldRow.id,
                waits,
            )
            .exists()
        )
        old = select(WithheldRow.tenant_id, WithheldRow.id).where(
            WithheldRow.created_at <= moment, ~needed
        )
        with self._database.reading() as session:
            pictures = [(tenant_id, name) for tenant_id, name in session.execute(old)]
        for tenant_id, withheld_id in pictures:
            self._delete_withheld(tenant_id, withheld_id)
        with self._database.writing() as session:
            reviews = session.execute(delete(ReviewRow).where(over).returning(ReviewRow.id)).all()
            # Cases stay: their numbers count through, and a missing one should be noticed.
            done = (ActRow.kind != ActKind.COLLECT, ActRow.expires_at <= moment)
            session.execute(delete(ActRow).where(*done))
        return len(pictures) + len(reviews)

    def _complete(self, row: ReviewRow, within: Session | None) -> None:
        """Fill in what the picture of a new review says of it."""
        if row.image_id is not None and row.withheld_id is not None:
            raise InvalidInput("A review is about an image or a withheld picture, not both.")
        with self._database.reading() if within is None else nullcontext(within) as session:
            if row.image_id is not None:
                image = session.get(ImageRow, (row.tenant_id, row.image_id))
                if image is None:
                    raise NotStored(f"There is no picture {row.image_id[:80]!r} here.")
                row.identity_id, row.job_id = image.identity_id, image.job_id
                row.owner_id = image.key_owner_id
            elif row.withheld_id is not None:
                held = session.get(WithheldRow, (row.tenant_id, row.withheld_id))
                if held is None:
                    raise NotStored(f"There is no withheld picture {row.withheld_id[:80]!r} here.")
                row.identity_id, row.job_id = held.identity_id, held.job_id
                row.owner_id, row.image_id = held.key_owner_id, held.image_id
                row.checks = row.checks or held.checks
            elif row.identity_id is not None:
                if session.get(IdentityRow, (row.tenant_id, row.identity_id)) is None:
                    raise NotStored(f"There is no identity {row.identity_id[:80]!r} here.")
                row.owner_id = row.identity_id
            elif row.takedown_id is not None:
                row.owner_id = row.takedown_id
            else:
                raise InvalidInput("A review must be about a picture, an identity or a takedown.")

    def _check_decider(self, session: Session, row: ReviewRow, ruling: Ruling, actor: str) -> bool:
        """Whether this reviewer's ruling would be final; refuses who may not decide at all."""
        if row.state == ReviewState.DECIDED:
            raise ReviewRefused(
                f"Review {row.id} was decided already: {row.ruling}. See its history.",
                code="already_decided",
            )
        if row.filed_by == actor:
            raise ReviewRefused(
                "Whoever filed a review cannot decide it. Leave it to another reviewer.",
                code="own_matter",
            )
        proposals = _decisions(session, row.tenant_id, row.id)
        if any(one.decided_by == actor for one in proposals):
            raise ReviewRefused(
                f"You have decided review {row.id} already; it waits for another reviewer.",
                code="same_reviewer",
            )
        if row.queue == Queue.APPEAL and actor in _first_deciders(session, row):
            raise ReviewRefused(
                "An appeal goes to somebody who did not decide the first time. Leave it to "
                "another reviewer.",
                code="first_decider",
            )
        return ruling not in _NEEDS_TWO or any(one.ruling == ruling for one in proposals)

    def _record(self, session: Session, decision: DecisionRow) -> ReviewRow:
        """Write a decision down, in the review, the history and the audit log."""
        row = _row(session, decision.tenant_id, decision.review_id, lock=True)
        # Somebody may have been faster since the check.
        ruling = Ruling(decision.ruling)
        is_final = self._check_decider(session, row, ruling, decision.decided_by)
        if is_final != decision.is_final:
            raise ReviewRefused(
                f"Review {row.id} moved on meanwhile. Look at it again.", code="already_decided"
            )
        decision.decided_at = self._clock()
        row.state = ReviewState.DECIDED if is_final else ReviewState.NEEDS_SECOND
        if is_final:
            row.ruling, row.decided_at = ruling, decision.decided_at
        if is_final and row.takedown_id is not None:
            _close_takedown(session, row, decision.decided_at)
        details = {
            "decision_id": decision.id,
            "ruling": decision.ruling,
            "reason": decision.reason,
            "clause": decision.clause,
        }
        session.flush()
        what = "decided" if is_final else "proposed"
        decision.entry = self._write(session, what, _review(row), decision.decided_by, details)
        session.add(decision)
        return row

    def _remove(self, review: Review, decision: DecisionRow | None) -> None:
        """Take back a picture that was handed out: it becomes a withheld one."""
        tenant_id, image_id = review.tenant_id, review.image_id
        assert image_id is not None
        withheld_id = new_id("withheld")
        grant = self._consents.grant_for_decision(tenant_id, review.owner_id)
        opened = self._open(tenant_id, image_id, None, grant)
        owner = review.owner_id
        with (
            self._blob(tenant_id, owner, Kind.WITHHELD, withheld_id, opened.data),
            self._database.writing() as session,
        ):
            image = session.get(ImageRow, (tenant_id, image_id), with_for_update=True)
            if image is None or image.key_owner_id != owner:
                raise NotStored(f"Picture {image_id} is gone already.")
            session.add(
                WithheldRow(
                    tenant_id=tenant_id,
                    id=withheld_id,
                    person_id=image.person_id,
                    identity_id=image.identity_id,
                    key_owner_id=owner,
                    beside_id=image.beside_id,
                    job_id=image.job_id,
                    image_id=image_id,
                    media_type=image.media_type,
                    byte_count=image.byte_count,
                    width=image.width,
                    height=image.height,
                    is_marked=True,
                    checks=dict(review.checks),
                    made_at=image.created_at,
                    created_at=self._clock(),
                    record=image.record,
                    perceptual_hash=image.perceptual_hash,
                    sealed_recipe=self._sealed_recipe(tenant_id, owner, withheld_id, opened.recipe),
                )
            )
            session.delete(image)
            _point(session, tenant_id, ReviewRow.image_id == image_id, withheld_id=withheld_id)
            session.flush()
            if decision is not None:
                self._record(session, decision)
            else:
                now_held = _review(_row(session, tenant_id, review.id))
                self._write(session, "removed_in_time", now_held, "service", {})
        self._vault.delete(tenant_id, owner, Kind.IMAGE, image_id)

    def _release(self, review: Review, decision: DecisionRow, actor: str) -> None:
        """Hand out a withheld picture; one that had left before comes back under its name."""
        tenant_id, withheld_id, owner = review.tenant_id, review.withheld_id, review.owner_id
        assert withheld_id is not None
        grant = self._consents.grant_for_decision(tenant_id, owner)
        opened = self._open(tenant_id, None, withheld_id, grant)
        with self._database.reading() as session:
            held = _withheld(session, tenant_id, withheld_id)
        if opened.is_marked:
            size = (held.width, held.height)
            marked = MarkedFile(opened.data, opened.media_type, size, opened.recipe)
        else:
            marked = self._mark(opened)
        image_id = held.image_id or new_id("image")
        with (
            self._blob(tenant_id, owner, Kind.IMAGE, image_id, marked.data),
            self._still_consented(held, actor) as session,
        ):
            locked = _withheld(session, tenant_id, withheld_id, lock=True)
            session.add(
                ImageRow(
                    tenant_id=tenant_id,
                    id=image_id,
                    person_id=held.person_id,
                    identity_id=held.identity_id,
                    key_owner_id=owner,
                    beside_id=held.beside_id,
                    job_id=held.job_id,
                    media_type=marked.media_type,
                    byte_count=len(marked.data),
                    width=marked.size[0],
                    height=marked.size[1],
                    created_at=held.made_at,
                    record=(marked.recipe.record or None) if marked.recipe else None,
                    perceptual_hash=held.perceptual_hash,
                    sealed_recipe=self._sealed_recipe(tenant_id, owner, image_id, marked.recipe),
                )
            )
            session.delete(locked)
            held_by = ReviewRow.withheld_id == withheld_id
            _point(session, tenant_id, held_by, withheld_id=None, image_id=image_id)
            session.flush()
            self._record(session, decision)
        self._vault.delete(tenant_id, owner, Kind.WITHHELD, withheld_id)

    @contextmanager
    def _writing(self, within: Session | None) -> Iterator[Session]:
        if within is not None:
            yield within
        else:
            with self._database.writing() as session:
                yield session

    @contextmanager
    def _still_consented(self, held: WithheldRow, actor: str) -> Iterator[Session]:
        """A write transaction in which whom the picture shows still agrees to pictures."""
        if held.beside_id is not None:
            self._consents.grant(held.tenant_id, held.beside_id, Purpose.GENERATE, actor)
        if held.identity_id is None:  # kept by the person when the identity was erased
            with self._database.writing() as session:
                yield session
            return
        allowed = self._consents.allowed(held.tenant_id, held.identity_id, Purpose.GENERATE, actor)
        with allowed as (session, _, _):
            yield session

    @contextmanager
    def _blob(
        self, tenant_id: str, owner_id: str, kind: Kind, object_id: str, data: bytes
    ) -> Iterator[None]:
        """A blob that stays only if the block, which stores its row, succeeds."""
        self._vault.put(tenant_id, owner_id, kind, object_id, data)
        try:
            yield
        except BaseException:
            self._vault.delete(tenant_id, owner_id, kind, object_id)
            raise

    def _grant(self, review: Review, actor: str) -> Grant:
        tenant_id = review.tenant_id
        if review.queue in ASKED_FOR:
            return self._consents.grant_for_decision(tenant_id, review.owner_id)
        if review.identity_id is not None:
            return self._consents.grant(tenant_id, review.identity_id, Purpose.REVIEW, actor)
        return self._consents.grant_person(tenant_id, review.owner_id, Purpose.REVIEW, actor)

    def _opened(self, review: Review, grant: Grant) -> OpenedPicture:
        image_id = None if review.withheld_id is not None else review.image_id
        if not review.has_picture:
            raise NotStored(f"Review {review.id} has no picture: none was kept, or none was found.")
        return self._open(review.tenant_id, image_id, review.withheld_id, grant)

    def _open(
        self, tenant_id: str, image_id: str | None, withheld_id: str | None, grant: Grant
    ) -> OpenedPicture:
        with self._database.reading() as session:
            if withheld_id is not None:
                held = _withheld(session, tenant_id, withheld_id)
                kind, object_id, sealed = Kind.WITHHELD, held.id, held.sealed_recipe
                media_type, is_marked = held.media_type, held.is_marked
            else:
                image = session.get(ImageRow, (tenant_id, image_id or ""))
                if image is None:
                    raise NotStored(f"Picture {image_id} is gone: its owner deleted it.")
                kind, object_id, sealed = Kind.IMAGE, image.id, image.sealed_recipe
                media_type, is_marked = image.media_type, True
        recipe = None
        if sealed is not None:
            told = self._vault.open(grant, f"{object_id}/recipe", sealed)
            recipe = Recipe(**json.loads(told))
        return OpenedPicture(self._vault.get(grant, kind, object_id), media_type, is_marked, recipe)

    def _sealed_recipe(
        self, tenant_id: str, owner_id: str, object_id: str, recipe: Recipe | None
    ) -> bytes | None:
        if recipe is None:
            return None
        told = json.dumps(asdict(recipe)).encode()
        return self._vault.seal(tenant_id, owner_id, f"{object_id}/recipe", told)

    def _opened_note(
        self, owner_id: str | None, object_id: str, tenant_id: str, sealed: bytes | None
    ) -> str:
        if sealed is None or owner_id is None:
            return ""
        grant = self._consents.grant_for_decision(tenant_id, owner_id)
        return self._vault.open(grant, f"{object_id}/note", sealed).decode()

    def _delete_withheld(self, tenant_id: str, withheld_id: str) -> None:
        with self._database.writing() as session:
            row = session.get(WithheldRow, (tenant_id, withheld_id))
            if row is None:
                return
            owner_id = row.key_owner_id
            session.delete(row)
        self._vault.delete(tenant_id, owner_id, Kind.WITHHELD, withheld_id)

    def _write(
        self, session: Session, what: str, review: Review, actor: str, details: Mapping[str, object]
    ) -> int:
        """An entry of the audit log, in this transaction; returns its place."""
        told: dict[str, object] = {"review_id": review.id, **details}
        for name in ("image_id", "withheld_id", "takedown_id"):
            if (value := getattr(review, name)) is not None:
                told[name] = value
        entry = self._log.append(
            f"review.{what}",
            review.owner_id,
            told,
            acting(actor),
            tenant_id=review.tenant_id,
            within=session,
        )
        return entry.sequence


def _row(session: Session, tenant_id: str, review_id: str, lock: bool = False) -> ReviewRow:
    row = session.get(ReviewRow, (tenant_id, review_id), with_for_update=lock or None)
    if row is None:
        raise NotStored(f"There is no review {review_id[:80]!r} here.")
    return row


def _withheld(
    session: Session, tenant_id: str, withheld_id: str, lock: bool = False
) -> WithheldRow:
    row = session.get(WithheldRow, (tenant_id, withheld_id), with_for_update=lock or None)
    if row is None:
        raise NotStored(f"Withheld picture {withheld_id} is gone: its time was over.")
    return row


def _owner_of(
    session: Session, tenant_id: str, image_id: str | None, withheld_id: str | None
) -> str:
    if withheld_id is not None:
        return _withheld(session, tenant_id, withheld_id).key_owner_id
    image = session.get(ImageRow, (tenant_id, image_id or ""))
    if image is None:
        raise NotStored(f"There is no picture {image_id!r} here.")
    return image.key_owner_id


def _decisions(session: Session, tenant_id: str, review_id: str) -> list[DecisionRow]:
    mine = (DecisionRow.tenant_id == tenant_id, DecisionRow.review_id == review_id)
    chosen = select(DecisionRow).where(*mine)
    return list(session.scalars(chosen.order_by(DecisionRow.entry)))


def _first_deciders(session: Session, appeal: ReviewRow) -> set[str]:
    """Who has decided, or proposed, about the picture or the job of an appeal before."""
    about: list[ColumnElement[bool]] = []
    for column, value in (
        (ReviewRow.image_id, appeal.image_id),
        (ReviewRow.withheld_id, appeal.withheld_id),
        (ReviewRow.job_id, appeal.job_id),
    ):
        if value is not None:
            about.append(column == value)
    if not about:
        return set()
    chosen = (
        select(DecisionRow.decided_by)
        .join(
            ReviewRow,
            and_(
                ReviewRow.tenant_id == DecisionRow.tenant_id, ReviewRow.id == DecisionRow.review_id
            ),
        )
        .where(ReviewRow.tenant_id == appeal.tenant_id, ReviewRow.id != appeal.id, or_(*about))
    )
    return set(session.scalars(chosen))


def _check_ruling(row: ReviewRow, ruling: Ruling) -> None:
    if ruling is Ruling.RELEASE and row.withheld_id is None:
        raise InvalidInput(f"Review {row.id} is not about a withheld picture; nothing to release.")
    if ruling is Ruling.REMOVE and (row.image_id is None or row.withheld_id is not None):
        raise InvalidInput(f"Review {row.id} is not about a picture that is out; leave it instead.")


def _point(
    session: Session, tenant_id: str, which: ColumnElement[bool], **where: str | None
) -> None:
    """Let every review of a picture follow it to where it is now."""
    session.execute(
        update(ReviewRow).where(ReviewRow.tenant_id == tenant_id, which).values(**where)
    )


def _close_takedown(session: Session, decided: ReviewRow, now: datetime) -> None:
    """A notice is answered when nothing of it waits any more, at no tenant."""
    others = select(func.count()).where(
        ReviewRow.takedown_id == decided.takedown_id,
        ReviewRow.state != ReviewState.DECIDED,
        ReviewRow.id != decided.id,
    )
    if session.scalar(others):
        return
    notice = session.scalar(select(TakedownRow).where(TakedownRow.id == decided.takedown_id))
    if notice is not None:
        notice.state, notice.closed_at = "closed", now


def _review(row: ReviewRow) -> Review:
    assert row.owner_id is not None
    return Review(
        tenant_id=row.tenant_id,
        id=row.id,
        queue=Queue(row.queue),
        state=ReviewState(row.state),
        reason=row.reason,
        identity_id=row.identity_id,
        image_id=row.image_id,
        withheld_id=row.withheld_id,
        job_id=row.job_id,
        takedown_id=row.takedown_id,
        checks=row.checks,
        filed_by=row.filed_by,
        created_at=row.created_at,
        due_at=row.due_at,
        decided_at=row.decided_at,
        ruling=None if row.ruling is None else Ruling(row.ruling),
        owner_id=row.owner_id,
    )


def _decision(row: DecisionRow, note: str) -> Decision:
    return Decision(
        id=row.id,
        review_id=row.review_id,
        ruling=Ruling(row.ruling),
        reason=Reason(row.reason),
        clause=row.clause,
        decided_by=row.decided_by,
        decided_at=row.decided_at,
        is_final=row.is_final,
        note=note,
        entry=row.entry,
    )
