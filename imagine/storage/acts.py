"""Dual control: what one reviewer asks for and another one approves before it happens.

Dangerous is what shows much of somebody, or takes it out of the house: opening in clear a picture
that the nudity or the age check flagged, collecting everything ever made of an identity, exporting
evidence. Releasing a blocked picture needs two as well; there both decide (`reviews.py`). Two
means two actors: give each reviewer a key or an account of their own.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from datetime import datetime, timedelta
from enum import StrEnum

from sqlalchemy import func, or_, select
from sqlalchemy.orm import Session

from imagine.errors import InvalidInput, NotStored, ReviewRefused
from imagine.storage.audit_log import AuditLog
from imagine.storage.database import Database, new_id, utc_now
from imagine.storage.events import acting
from imagine.storage.tables import ActRow

APPROVE_WITHIN = timedelta(hours=24)  # an approval given later would be of something forgotten
ACT_WITHIN = timedelta(hours=1)  # how long the two may do what was approved

# The published policy: docs/transparency/policy.md says the same at length.
POLICY_CLAUSES = {
    "1.1": "No sexual content about minors.",
    "1.2": "Nobody is shown as a minor.",
    "2.1": "No nudity and no sexual content.",
    "3.1": "No gore and no cruelty.",
    "4.1": "No hate symbols and no hateful content.",
    "5.1": "No identity documents, money or papers that could pass for real.",
    "6.1": "No imitation of politicians and no faked political events.",
    "7.1": "Nobody but the enrolled person is shown.",
    "8.1": "Nobody is shown who did not agree to it.",
    "8.2": "Nobody is shown who asked never to be shown.",
    "9.1": "What breaks none of these clauses may leave.",
    "9.2": "Who is shown is answered within 48 hours.",
}


class Reason(StrEnum):
    """Why a reviewer decides or acts as they do."""

    WITHIN_POLICY = "within_policy"
    NUDITY = "nudity"
    APPARENT_MINOR = "apparent_minor"
    ANOTHER_PERSON = "another_person"
    NOT_AGREED = "not_agreed"  # the person shown did not agree
    ASKED_NOT_TO_BE_SHOWN = "asked_not_to_be_shown"
    GORE = "gore"
    HATE = "hate"
    FRAUD = "fraud"
    POLITICAL = "political"
    NEAR_DUPLICATE = "near_duplicate"
    CANNOT_TELL = "cannot_tell"
    NOT_IN_TIME = "not_in_time"  # the clock ran out before anybody decided
    LEGAL_REQUEST = "legal_request"


class ActKind(StrEnum):
    """Acts that need two reviewers."""

    OPEN_IN_CLEAR = "open_in_clear"  # of a review whose picture nudity or age check flagged
    COLLECT = "collect"  # everything ever made of an identity: a case, with a number
    EXPORT_EVIDENCE = "export_evidence"  # of a review or a case


@dataclass(frozen=True, slots=True)
class Act:
    """A dangerous act, asked for and perhaps approved.

    Attributes:
        target_id: the review, the identity (of a case) or the case (of its evidence).
        number: the case number, of a case.
        expires_at: until when it may be approved; once it is, until when it may be done.
    """

    tenant_id: str
    id: str
    kind: ActKind
    target_id: str
    number: str | None
    reason: Reason
    clause: str
    asked_by: str
    asked_at: datetime
    approved_by: str | None
    approved_at: datetime | None
    expires_at: datetime

    @property
    def is_approved(self) -> bool:
        """Whether a second reviewer agreed."""
        return self.approved_by is not None

    def may_be_done(self, now: datetime) -> bool:
        """Whether both agreed and their time is not over."""
        return self.is_approved and now < self.expires_at


class ActBook:
    """Acts of all tenants: asked for, approved, looked up before they are done."""

    def __init__(
        self, database: Database, log: AuditLog, clock: Callable[[], datetime] = utc_now
    ) -> None:
        self._database = database
        self._log = log
        self._clock = clock

    def ask(
        self,
        tenant_id: str,
        kind: ActKind,
        target_id: str,
        reason: Reason,
        clause: str,
        actor: str,
        subject: str | None = None,
    ) -> Act:
        """Ask for an act; another reviewer has `APPROVE_WITHIN` to approve it.

        Args:
            tenant_id: whose reviewers.
            kind: which act.
            target_id: what it is about.
            reason: why.
            clause: of the policy, a key of `POLICY_CLAUSES`.
            actor: the reviewer.
            subject: whom it is about, for the audit log.

        Raises:
            InvalidInput: no such clause.
        """
        check_clause(clause)
        now = self._clock()
        with self._database.writing() as session:
            row = ActRow(
                tenant_id=tenant_id,
                id=new_id("case" if kind is ActKind.COLLECT else "act"),
                kind=kind,
                target_id=target_id,
                number=_next_number(session, tenant_id, now) if kind is ActKind.COLLECT else None,
                reason=reason,
                clause=clause,
                asked_by=actor,
                asked_at=now,
                expires_at=now + APPROVE_WITHIN,
            )
            session.add(row)
            session.flush()
            act = _act(row)
            self._write(session, "asked", act, actor, subject)
        return act

    def approve(self, tenant_id: str, act_id: str, actor: str, subject: str | None = None) -> Act:
        """Agree to an act; both reviewers may do it for `ACT_WITHIN`.

        Raises:
            NotStored: this tenant has no such act, or its time is over.
            ReviewRefused: by the one who asked, or approved already.
        """
        now = self._clock()
        with self._database.writing() as session:
            row = session.get(ActRow, (tenant_id, act_id), with_for_update=True)
            if row is None or now >= row.expires_at:
                raise NotStored(f"There is no act {act_id[:80]!r} here that waits for approval.")
            if row.approved_by is not None:
                raise ReviewRefused(
                    f"Act {act_id} is approved already. Do it before {row.expires_at:%H:%M} UTC.",
                    code="already_decided",
                )
            if row.asked_by == actor:
                raise ReviewRefused(
                    "Whoever asks for a dangerous act cannot approve it. Ask another reviewer.",
                    code="same_reviewer",
                )
            row.approved_by, row.approved_at, row.expires_at = actor, now, now + ACT_WITHIN
            act = _act(row)
            self._write(session, "approved", act, actor, subject)
        return act

    def get(self, tenant_id: str, act_id: str) -> Act:
        """One act.

        Raises:
            NotStored: this tenant has none of this name.
        """
        with self._database.reading() as session:
            row = session.get(ActRow, (tenant_id, act_id))
        if row is None:
            raise NotStored(f"There is no act {act_id[:80]!r} here.")
        return _act(row)

    def find(
        self, tenant_id: str, kind: ActKind | None = None, waiting: bool = False, limit: int = 100
    ) -> list[Act]:
        """Acts of a tenant, newest first; `waiting`: only those another reviewer may approve."""
        chosen = select(ActRow).where(ActRow.tenant_id == tenant_id)
        if kind is not None:
            chosen = chosen.where(ActRow.kind == kind)
        if waiting:
            chosen = chosen.where(ActRow.approved_by.is_(None), ActRow.expires_at > self._clock())
        with self._database.reading() as session:
            rows = session.scalars(chosen.order_by(ActRow.asked_at.desc(), ActRow.id).limit(limit))
            return [_act(row) for row in rows]

    def require(self, tenant_id: str, kind: ActKind, target_id: str, actor: str) -> Act:
        """The approved act that lets this reviewer go on.

        Raises:
            ReviewRefused: nobody asked, nobody approved, the time is over, or others did.
        """
        now = self._clock()
        chosen = select(ActRow).where(
            ActRow.tenant_id == tenant_id,
            ActRow.kind == kind,
            ActRow.target_id == target_id,
            ActRow.approved_by.is_not(None),
            ActRow.expires_at > now,
            or_(ActRow.asked_by == actor, ActRow.approved_by == actor),
        )
        with self._database.reading() as session:
            row = session.scalars(chosen.order_by(ActRow.expires_at.desc())).first()
        if row is not None:
            return _act(row)
        raise ReviewRefused(
            f"{kind.value!r} needs two reviewers, and no approval of {target_id} holds for you "
            "now. Ask for the act, have another reviewer approve it, and do it within an hour.",
            code="second_reviewer_needed",
        )

    def _write(
        self, session: Session, what: str, act: Act, actor: str, subject: str | None
    ) -> None:
        details: dict[str, object] = {
            "act_id": act.id,
            "act": act.kind.value,
            "reason": act.reason.value,
            "clause": act.clause,
        }
        # Of a case the identity is the subject, which the log only commits to.
        if act.kind is ActKind.COLLECT:
            details["case_number"] = act.number
        else:
            details["target_id"] = act.target_id
        kind = f"review_act.{what}"
        self._log.append(
            kind, subject, details, acting(actor), tenant_id=act.tenant_id, within=session
        )


def check_clause(clause: str) -> str:
    """Refuse a clause that the policy does not have.

    Raises:
        InvalidInput: lists the known ones.
    """
    if clause not in POLICY_CLAUSES:
        known = ", ".join(POLICY_CLAUSES)
        raise InvalidInput(f"The policy has no clause {clause[:40]!r}. Known: {known}.")
    return clause


def _next_number(session: Session, tenant_id: str, now: datetime) -> str:
    """Cases of a tenant are counted through, so that a missing one is noticed."""
    # Two at once would take one number; the constraint on it lets only the first one pass.
    numbered = (ActRow.tenant_id == tenant_id, ActRow.kind == ActKind.COLLECT)
    count = session.scalar(select(func.count()).select_from(ActRow).where(*numbered)) or 0
    return f"{now:%Y}-{count + 1:04d}"


def _act(row: ActRow) -> Act:
    return Act(
        tenant_id=row.tenant_id,
        id=row.id,
        kind=ActKind(row.kind),
        target_id=row.target_id,
        number=row.number,
        reason=Reason(row.reason),
        clause=row.clause,
        asked_by=row.asked_by,
        asked_at=row.asked_at,
        approved_by=row.approved_by,
        approved_at=row.approved_at,
        expires_at=row.expires_at,
    )
