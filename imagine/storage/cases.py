"""Cases: everything ever made of an identity, for two reviewers, under a number.

Such a list is as telling as a look into somebody's album, so a case is asked for by one reviewer
and approved by another (`acts.py`), is counted through, and every look into it is written down.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from datetime import datetime

from sqlalchemy import or_, select

from imagine.errors import NotStored
from imagine.storage.acts import Act, ActKind, Reason
from imagine.storage.audit_log import AuditEntry, AuditLog
from imagine.storage.database import Database, utc_now
from imagine.storage.events import acting
from imagine.storage.jobs import JobRow
from imagine.storage.people import PeopleStore
from imagine.storage.reviews import OpenedPicture, Review, ReviewStore
from imagine.storage.tables import ImageRow, WithheldRow


@dataclass(frozen=True, slots=True)
class CasePicture:
    """A picture of a case. `id` is of an image, or of a withheld picture when `is_withheld`."""

    id: str
    is_withheld: bool
    job_id: str | None
    made_at: datetime
    record: int | None


@dataclass(frozen=True, slots=True)
class CaseJob:
    """A wish of a case: that it was, and how it ended; never what was wished for."""

    id: str
    state: str
    created_at: datetime


@dataclass(frozen=True, slots=True)
class CaseContents:
    """Everything ever made of an identity that is still here.

    Attributes:
        act: the case itself; its number names it.
        pictures: handed out and withheld, oldest first.
        jobs: every wish that is remembered.
        reviews: everything that was or is to be decided.
        entries: what the audit log says about the identity.
    """

    act: Act
    pictures: tuple[CasePicture, ...]
    jobs: tuple[CaseJob, ...]
    reviews: tuple[Review, ...]
    entries: tuple[AuditEntry, ...]


class CaseBook:
    """Cases of all tenants."""

    def __init__(
        self,
        database: Database,
        people: PeopleStore,
        reviews: ReviewStore,
        log: AuditLog,
        clock: Callable[[], datetime] = utc_now,
    ) -> None:
        self._database = database
        self._people = people
        self._reviews = reviews
        self._log = log
        self._clock = clock

    def ask(self, tenant_id: str, identity_id: str, reason: Reason, clause: str, actor: str) -> Act:
        """Open a case on an identity; it gets its number, and shows nothing before approval.

        Raises:
            InvalidInput: no such clause.
            NotStored: this tenant has no such identity.
        """
        self._people.identity(tenant_id, identity_id)
        act = ActKind.COLLECT
        return self._reviews.acts.ask(
            tenant_id, act, identity_id, reason, clause, actor, subject=identity_id
        )

    def approve(self, tenant_id: str, case_id: str, actor: str) -> Act:
        """Agree to a case, as another reviewer than the one who asked.

        Raises:
            NotStored, ReviewRefused: as `ActBook.approve`.
        """
        identity_id = self.get(tenant_id, case_id).target_id
        return self._reviews.acts.approve(tenant_id, case_id, actor, subject=identity_id)

    def get(self, tenant_id: str, case_id: str) -> Act:
        """A case, without what is in it.

        Raises:
            NotStored: this tenant has no such case.
        """
        act = self._reviews.acts.get(tenant_id, case_id)
        if act.kind is not ActKind.COLLECT:
            raise NotStored(f"There is no case {case_id[:80]!r} here.")
        return act

    def find(self, tenant_id: str, waiting: bool = False) -> list[Act]:
        """The cases of a tenant, newest first."""
        return self._reviews.acts.find(tenant_id, ActKind.COLLECT, waiting)

    def contents(self, tenant_id: str, case_id: str, actor: str) -> CaseContents:
        """Everything ever made of the identity of a case; the look is written down first.

        Raises:
            NotStored: no such case, or the identity was erased since.
            ReviewRefused: not approved, not theirs, or its time is over.
        """
        act = self.get(tenant_id, case_id)
        identity_id = act.target_id
        self._people.identity(tenant_id, identity_id)
        self._reviews.acts.require(tenant_id, ActKind.COLLECT, identity_id, actor)
        self._write(act, "opened", actor, {})
        about = self._reviews.find(tenant_id, states=(), limit=10_000, identity_id=identity_id)
        return CaseContents(
            act=act,
            pictures=tuple(self._pictures(tenant_id, identity_id)),
            jobs=tuple(self._jobs(tenant_id, identity_id)),
            reviews=tuple(about),
            entries=tuple(self._log.entries_about(tenant_id, identity_id)),
        )

    def open_picture(
        self, tenant_id: str, case_id: str, picture_id: str, actor: str, in_clear: bool
    ) -> OpenedPicture:
        """A picture of a case, to be blurred or marked and shown; written down.

        Raises:
            NotStored: the case has no such picture.
            ReviewRefused: as `contents`.
        """
        act = self.get(tenant_id, case_id)
        self._reviews.acts.require(tenant_id, ActKind.COLLECT, act.target_id, actor)
        found = [one for one in self._pictures(tenant_id, act.target_id) if one.id == picture_id]
        if not found:
            raise NotStored(f"Case {act.number} has no picture {picture_id[:80]!r}.")
        image_id, withheld_id = (None, picture_id) if found[0].is_withheld else (picture_id, None)
        opened = self._reviews.open_for_act(act, image_id, withheld_id)
        rendition = "clear" if in_clear else "blurred"
        self._write(act, "picture_opened", actor, {"picture": picture_id, "rendition": rendition})
        return opened

    def _pictures(self, tenant_id: str, identity_id: str) -> list[CasePicture]:
        images = select(ImageRow).where(
            ImageRow.tenant_id == tenant_id,
            or_(ImageRow.identity_id == identity_id, ImageRow.beside_id == identity_id),
        )
        withheld = select(WithheldRow).where(
            WithheldRow.tenant_id == tenant_id,
            or_(WithheldRow.identity_id == identity_id, WithheldRow.beside_id == identity_id),
        )
        with self._database.reading() as session:
            found = [
                CasePicture(row.id, False, row.job_id, row.created_at, row.record)
                for row in session.scalars(images)
            ] + [
                CasePicture(row.id, True, row.job_id, row.made_at, row.record)
                for row in session.scalars(withheld)
            ]
        return sorted(found, key=lambda one: (one.made_at, one.id))

    def _jobs(self, tenant_id: str, identity_id: str) -> list[CaseJob]:
        chosen = select(JobRow.id, JobRow.state, JobRow.created_at).where(
            JobRow.tenant_id == tenant_id, JobRow.identity_id == identity_id
        )
        with self._database.reading() as session:
            return [CaseJob(*row) for row in session.execute(chosen.order_by(JobRow.created_at))]

    def _write(self, act: Act, what: str, actor: str, details: dict[str, object]) -> None:
        told = {"act_id": act.id, "case_number": act.number, **details}
        self._log.append(
            f"case.{what}", act.target_id, told, acting(actor), tenant_id=act.tenant_id
        )
