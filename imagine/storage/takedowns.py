"""Takedowns: somebody who is shown wants a picture gone. Needs no account; has 48 hours.

What they write is sealed under a key of the notice's own, so that it can be forgotten for good
when its time is over. Finding the pictures it means is left to the service; what becomes of them
is decided in `reviews.py`.
"""

from __future__ import annotations

import json
from collections.abc import Callable
from contextlib import suppress
from dataclasses import asdict, dataclass, field
from datetime import datetime
from enum import StrEnum

from sqlalchemy import func, select
from sqlalchemy.orm import Session

from imagine.errors import InvalidInput, NotStored
from imagine.storage.audit_log import AuditLog
from imagine.storage.consent import ConsentBook
from imagine.storage.database import Database, new_id, utc_now
from imagine.storage.reviews import DUE, NewReview, Queue, Review, ReviewStore
from imagine.storage.tables import ReviewRow, TakedownRow
from imagine.storage.vault import Vault

MAX_FIELD_CHARACTERS = 4000
MAX_MATCHES = 50  # pictures of one notice that are queued one by one


class TakedownState(StrEnum):
    """How far a notice has come."""

    OPEN = "open"
    CLOSED = "closed"


@dataclass(frozen=True, slots=True)
class Notice:
    """What somebody wrote; sealed, and shown to reviewers without name and contact.

    Attributes:
        name: their signature.
        contact: how they are told what was decided.
        statement: what is wrong with the picture.
        where: where it was seen, or its id.
        in_good_faith: they believe that the picture shows them, or whom they speak for, without
            their agreement.
    """

    name: str = field(repr=False)
    contact: str = field(repr=False)
    statement: str = field(repr=False)
    where: str = field(default="", repr=False)
    in_good_faith: bool = False


@dataclass(frozen=True, slots=True)
class Takedown:
    """A notice as it stands; its id is known to nobody but the sender and the reviewers.

    Attributes:
        matches: pictures that were found and queued when it came.
        due_at: when it must be answered; pictures nobody decided about are withheld then.
        removed: how many of its pictures were withheld.
    """

    tenant_id: str
    id: str
    state: TakedownState
    matches: int
    created_at: datetime
    due_at: datetime
    closed_at: datetime | None
    removed: int

    def is_overdue(self, now: datetime) -> bool:
        """Whether its time is over without an answer."""
        return self.state is TakedownState.OPEN and self.due_at <= now


class TakedownStore:
    """Notices: taken in, looked up, forgotten."""

    def __init__(
        self,
        database: Database,
        vault: Vault,
        consents: ConsentBook,
        reviews: ReviewStore,
        log: AuditLog,
        clock: Callable[[], datetime] = utc_now,
    ) -> None:
        self._database = database
        self._vault = vault
        self._consents = consents
        self._reviews = reviews
        self._log = log
        self._clock = clock

    def file(self, notice: Notice, found: list[tuple[str, str]], operator: str) -> Takedown:
        """Take a notice in and queue every picture it means.

        Args:
            notice: what was written.
            found: tenant and id of the pictures it means; those of other tenants than the first
                one's go to the reviewers of those tenants, under the same notice.
            operator: tenant whose reviewers look for the picture when none was found.

        Raises:
            InvalidInput: a part is missing or too long.
            NotStored: there is no such tenant, or a picture went meanwhile.
        """
        _check(notice)
        tenant_id = found[0][0] if found else operator
        takedown_id, now = new_id("takedown"), self._clock()
        self._vault.keys.create(tenant_id, takedown_id)
        told = json.dumps(asdict(notice)).encode()
        row = TakedownRow(
            tenant_id=tenant_id,
            id=takedown_id,
            state=TakedownState.OPEN,
            matches=len(found),
            created_at=now,
            due_at=now + DUE[Queue.TAKEDOWN],
            sealed_notice=self._vault.seal(tenant_id, takedown_id, f"{takedown_id}/notice", told),
        )
        with self._database.writing() as session:
            session.add(row)
            session.flush()
            self._log.append(
                "takedown.filed",
                takedown_id,
                {"takedown_id": takedown_id, "matches": len(found)},
                "public",
                tenant_id=tenant_id,
                within=session,
            )
            # Together or not at all: a notice that no reviewer sees would miss its 48 hours.
            if not self._queued(session, row, found[:MAX_MATCHES]):
                nothing = NewReview(
                    tenant_id,
                    Queue.TAKEDOWN,
                    "not_found",
                    takedown_id=takedown_id,
                    due_at=row.due_at,
                )
                self._reviews.add(nothing, within=session)
        return self.locate(takedown_id)

    def locate(self, takedown_id: str) -> Takedown:
        """A notice by its id, which only who sent it and the reviewers know.

        Raises:
            NotStored: there is none, or its time is over.
        """
        with self._database.reading() as session:
            row = session.scalar(select(TakedownRow).where(TakedownRow.id == takedown_id))
            if row is None:
                raise NotStored(f"There is no takedown {takedown_id[:80]!r} here (any more).")
            held = select(func.count()).where(
                ReviewRow.takedown_id == takedown_id, ReviewRow.withheld_id.is_not(None)
            )
            return _takedown(row, session.scalar(held) or 0)

    def find(self, tenant_id: str, is_open: bool = True, limit: int = 100) -> list[Takedown]:
        """Notices of a tenant, the most urgent first."""
        chosen = select(TakedownRow.id).where(TakedownRow.tenant_id == tenant_id)
        if is_open:
            chosen = chosen.where(TakedownRow.state == TakedownState.OPEN)
        with self._database.reading() as session:
            found = session.scalars(chosen.order_by(TakedownRow.due_at).limit(limit)).all()
        return [self.locate(takedown_id) for takedown_id in found]

    def read_statement(self, review: Review) -> Notice | None:
        """What the notice of a review says, without who sent it; None where there is no notice.

        For the reviewer: names and addresses change no decision.
        """
        if review.takedown_id is None:
            return None
        notice = self._opened(review.takedown_id)
        return Notice("", "", notice.statement, notice.where, notice.in_good_faith)

    def read_contact(self, tenant_id: str, takedown_id: str, actor: str) -> Notice:
        """All of a notice, to tell its sender what was decided; written down.

        Raises:
            NotStored: this tenant has no such notice.
        """
        takedown = self.locate(takedown_id)
        if takedown.tenant_id != tenant_id:
            raise NotStored(f"There is no takedown {takedown_id[:80]!r} here (any more).")
        notice = self._opened(takedown_id)
        details = {"takedown_id": takedown_id}
        self._log.append("takedown.contact_read", takedown_id, details, actor, tenant_id=tenant_id)
        return notice

    def forget_before(self, moment: datetime) -> int:
        """Destroy the keys of notices that were answered before a moment; says how many."""
        over = select(TakedownRow.tenant_id, TakedownRow.id).where(TakedownRow.closed_at <= moment)
        with self._database.reading() as session:
            found = [(tenant_id, takedown_id) for tenant_id, takedown_id in session.execute(over)]
        for tenant_id, takedown_id in found:
            self._vault.keys.destroy(tenant_id, takedown_id)
            with self._database.writing() as session:
                row = session.get(TakedownRow, (tenant_id, takedown_id))
                if row is not None:
                    session.delete(row)
        return len(found)

    def _queued(self, session: Session, notice: TakedownRow, found: list[tuple[str, str]]) -> int:
        """How many of the pictures were still there and wait for a reviewer now."""
        queued = 0
        for tenant_id, image_id in found:
            new = NewReview(
                tenant_id,
                Queue.TAKEDOWN,
                "notice",
                image_id=image_id,
                takedown_id=notice.id,
                due_at=notice.due_at,
            )
            with suppress(NotStored):
                self._reviews.add(new, within=session)
                queued += 1
        return queued

    def _opened(self, takedown_id: str) -> Notice:
        with self._database.reading() as session:
            row = session.scalar(select(TakedownRow).where(TakedownRow.id == takedown_id))
        if row is None:
            raise NotStored(f"There is no takedown {takedown_id[:80]!r} here (any more).")
        grant = self._consents.grant_for_decision(row.tenant_id, row.id)
        told = self._vault.open(grant, f"{row.id}/notice", row.sealed_notice)
        return Notice(**json.loads(told))


def _check(notice: Notice) -> None:
    if not notice.in_good_faith:
        raise InvalidInput(
            "Confirm that you believe in good faith that the picture shows you, or whom you speak "
            "for, without agreement: set in_good_faith."
        )
    for name in ("name", "contact", "statement", "where"):
        text = getattr(notice, name)
        if name != "where" and not text.strip():
            raise InvalidInput(f"The {name} is missing. It is kept sealed, and needed to answer.")
        if len(text) > MAX_FIELD_CHARACTERS or "\0" in text:
            raise InvalidInput(
                f"The {name} has {len(text)} characters; {MAX_FIELD_CHARACTERS} are allowed."
            )


def _takedown(row: TakedownRow, removed: int) -> Takedown:
    return Takedown(
        tenant_id=row.tenant_id,
        id=row.id,
        state=TakedownState(row.state),
        matches=row.matches,
        created_at=row.created_at,
        due_at=row.due_at,
        closed_at=row.closed_at,
        removed=removed,
    )
