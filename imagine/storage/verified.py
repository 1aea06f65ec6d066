"""How an identity stands: verified or not, waiting for a reviewer or not, used how often today.

Challenges stand here too, each good for one answer. Nothing of a face is kept: frames are measured
and dropped, and what remains is when a challenge was passed.
"""

from __future__ import annotations

import hashlib
import hmac
import secrets
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from datetime import datetime, timedelta

from sqlalchemy import JSON, ColumnElement, String, and_, case, delete, select
from sqlalchemy.dialects import postgresql, sqlite
from sqlalchemy.orm import Mapped, Session, mapped_column

from imagine.errors import NotStored
from imagine.storage.database import Base, Database, Instant, new_id, utc_now
from imagine.storage.tables import Id, IdentityRow, IdentityState, Tenanted

ONE_SHOTS = "one-shots"  # counted for: all identities of a tenant that live for one call
_CHALLENGES_KEPT = timedelta(days=1)  # after their deadline, to answer "used up" rather than "no"


class StandingRow(Tenanted, Base):
    """What is known of an identity besides its face; `id` is the identity's.

    Attributes:
        verified_at: a challenge was passed; None: unverified.
        held_at: the face looked too young, so a reviewer decides; None: nothing to decide.
        cleared_at: a reviewer has cleared it.
    """

    __tablename__ = "standings"

    verified_at: Mapped[datetime | None] = mapped_column(Instant)
    held_at: Mapped[datetime | None] = mapped_column(Instant, index=True)
    cleared_at: Mapped[datetime | None] = mapped_column(Instant)


class ChallengeRow(Tenanted, Base):
    """A challenge of somebody; neither frames nor faces are here.

    Attributes:
        subject_id: the identity it is for; None for somebody without an account.
        nonce_sha256: hex hash of the nonce that must come back with the answer.
        poses: where to look, in order.
        ended_at: when it was answered or replaced; None while it is open.
        outcome: "passed", "replaced", or why it failed.
    """

    __tablename__ = "challenges"

    subject_id: Mapped[str | None] = mapped_column(Id, index=True)
    nonce_sha256: Mapped[str] = mapped_column(String(64))
    poses: Mapped[list[str]] = mapped_column(JSON)
    issued_at: Mapped[datetime] = mapped_column(Instant)
    deadline_at: Mapped[datetime] = mapped_column(Instant, index=True)
    ended_at: Mapped[datetime | None] = mapped_column(Instant)
    outcome: Mapped[str | None] = mapped_column(String(32))


class PictureCountRow(Tenanted, Base):
    """How many pictures were asked for on a day; `id` is an identity's, or `ONE_SHOTS`."""

    __tablename__ = "picture_counts"

    day: Mapped[str] = mapped_column(String(10))
    pictures: Mapped[int]


@dataclass(frozen=True, slots=True)
class Standing:
    """How an identity stands; attributes as in `StandingRow`."""

    verified_at: datetime | None = None
    held_at: datetime | None = None
    cleared_at: datetime | None = None

    @property
    def is_verified(self) -> bool:
        """Whether the person before a camera was the one on the photos."""
        return self.verified_at is not None

    @property
    def waits_for_review(self) -> bool:
        """Whether nothing may be made before a reviewer has looked."""
        return self.held_at is not None and self.cleared_at is None


@dataclass(frozen=True, slots=True)
class StoredChallenge:
    """An open challenge. `nonce` is there only where it was just issued."""

    id: str
    poses: tuple[str, ...]
    issued_at: datetime
    deadline_at: datetime
    nonce: str = field(default="", repr=False)


class Standings:
    """The standings, challenges and daily counts of all tenants.

    Args:
        database: where they are kept.
        verified_share: share of the pictures of verified identities that people look at, 0 to 1.
        unverified_share: likewise of all others.
        clock: the time, with a zone.
    """

    def __init__(
        self,
        database: Database,
        verified_share: float = 0.01,
        unverified_share: float = 1.0,
        clock: Callable[[], datetime] = utc_now,
    ) -> None:
        self._database = database
        self._shares = (unverified_share, verified_share)
        self._clock = clock

    def of(self, tenant_id: str, identity_id: str, within: Session | None = None) -> Standing:
        """How an identity stands; one that nothing is known of is unverified.

        Args:
            tenant_id: whose.
            identity_id: which one.
            within: a session to look in; None looks in one of its own.

        Raises:
            NotStored: this tenant has no such identity.
        """
        if within is None:
            with self._database.reading() as session:
                return self.of(tenant_id, identity_id, session)
        mine = and_(
            StandingRow.tenant_id == IdentityRow.tenant_id, StandingRow.id == IdentityRow.id
        )
        chosen = (
            select(StandingRow.verified_at, StandingRow.held_at, StandingRow.cleared_at)
            .select_from(IdentityRow)
            .outerjoin(StandingRow, mine)
            .where(
                IdentityRow.tenant_id == tenant_id,
                IdentityRow.id == identity_id,
                IdentityRow.state != IdentityState.ERASING,
            )
        )
        found = within.execute(chosen).one_or_none()
        if found is None:
            raise NotStored(f"There is no identity {identity_id!r} here.")
        return Standing(*found)

    def sample_rate(self, tenant_id: str, identity_id: str) -> float:
        """Share of the pictures of an identity that people look at, 0 to 1.

        Raises:
            NotStored: this tenant has no such identity.
        """
        return self._shares[self.of(tenant_id, identity_id).is_verified]

    def hold(self, tenant_id: str, identity_id: str) -> None:
        """Nothing may be made of this identity before a reviewer has cleared it."""
        with self._database.writing() as session:
            row = _locked(session, tenant_id, identity_id)
            row.held_at = row.held_at or self._clock()

    def clear(self, tenant_id: str, identity_id: str) -> Standing:
        """A reviewer has looked at the identity and lets pictures be made.

        Raises:
            NotStored: this tenant has no such identity.
        """
        with self._database.writing() as session:
            row = _locked(session, tenant_id, identity_id)
            row.cleared_at = row.cleared_at or self._clock()
            return _standing(row)

    def verify(self, tenant_id: str, identity_id: str) -> Standing:
        """The person before the camera was the one on the photos.

        Raises:
            NotStored: this tenant has no such identity.
        """
        with self._database.writing() as session:
            row = _locked(session, tenant_id, identity_id)
            row.verified_at = self._clock()
            return _standing(row)

    def take_over(self, tenant_id: str, identity_id: str, standing: Standing) -> None:
        """Put a standing on record as it was elsewhere; for imports, which know whom to trust.

        Raises:
            NotStored: this tenant has no such identity.
        """
        with self._database.writing() as session:
            row = _locked(session, tenant_id, identity_id)
            row.verified_at, row.held_at = standing.verified_at, standing.held_at
            row.cleared_at = standing.cleared_at

    def waiting(self, tenant_id: str | None = None) -> list[tuple[str, str]]:
        """Tenant and id of every identity that waits for a reviewer, longest first."""
        wanted = select(StandingRow).where(
            StandingRow.held_at.is_not(None), StandingRow.cleared_at.is_(None)
        )
        if tenant_id is not None:
            wanted = wanted.where(StandingRow.tenant_id == tenant_id)
        with self._database.reading() as session:
            rows = session.scalars(wanted.order_by(StandingRow.held_at))
            return [(row.tenant_id, row.id) for row in rows]

    # Challenges

    def issue(
        self, tenant_id: str, subject_id: str | None, poses: Sequence[str], seconds: float
    ) -> StoredChallenge:
        """Put a challenge on record; an open one of the same identity is void from now on.

        Args:
            tenant_id: whose.
            subject_id: the identity it is for; None for somebody without an account.
            poses: where to look, in order.
            seconds: until it is too late to answer.

        Raises:
            NotStored: this tenant has no such identity.
        """
        now, nonce = self._clock(), secrets.token_hex(16)
        row = ChallengeRow(
            tenant_id=tenant_id,
            id=new_id("challenge"),
            subject_id=subject_id,
            nonce_sha256=_hashed(nonce),
            poses=list(poses),
            issued_at=now,
            deadline_at=now + timedelta(seconds=seconds),
        )
        with self._database.writing() as session:
            if subject_id is not None:
                _check_identity(session, tenant_id, subject_id)
                mine = ChallengeRow.subject_id == subject_id
                for older in session.scalars(select(ChallengeRow).where(_open(tenant_id), mine)):
                    older.ended_at, older.outcome = now, "replaced"
            stale = ChallengeRow.deadline_at < now - _CHALLENGES_KEPT
            session.execute(delete(ChallengeRow).where(ChallengeRow.tenant_id == tenant_id, stale))
            session.add(row)
            return _challenge(row, nonce)

    def take(
        self, tenant_id: str, challenge_id: str, subject_id: str | None, nonce: str
    ) -> StoredChallenge:
        """Use an open challenge up, whatever comes of it. A wrong nonce uses nothing up.

        Raises:
            NotStored: no such challenge of this identity, or used up, replaced, another nonce.
        """
        with self._database.writing() as session:
            row = session.get(ChallengeRow, (tenant_id, challenge_id), with_for_update=True)
            fits = (
                row is not None
                and row.subject_id == subject_id
                and row.ended_at is None
                and hmac.compare_digest(row.nonce_sha256, _hashed(nonce))
            )
            if row is None or not fits:
                raise NotStored(
                    "This camera check is not open: it was answered, replaced or never begun. "
                    "Start a new one."
                )
            row.ended_at, row.outcome = self._clock(), "unfinished"
            return _challenge(row)

    def end(self, tenant_id: str, challenge_id: str, outcome: str) -> None:
        """Write down what came of a challenge that was taken."""
        with self._database.writing() as session:
            row = session.get(ChallengeRow, (tenant_id, challenge_id))
            if row is not None:  # its identity may have been erased meanwhile
                row.outcome = outcome[:32]

    # Daily counts

    def take_pictures(
        self,
        tenant_id: str,
        counted_for: str,
        pictures: int,
        most: int,
        within: Session | None = None,
    ) -> bool:
        """Count pictures of today (UTC) if all of them are within `most`; else count none.

        With `within`, a writing session, they are counted only if that commits.
        """
        if pictures > most:
            return False
        table, day = PictureCountRow, self._clock().strftime("%Y-%m-%d")
        used = case((table.day == day, table.pictures), else_=0)
        dialect = sqlite if self._database.is_sqlite else postgresql
        new = dialect.insert(table).values(
            tenant_id=tenant_id, id=counted_for, day=day, pictures=pictures
        )
        counting = new.on_conflict_do_update(
            index_elements=["tenant_id", "id"],
            set_={"day": day, "pictures": used + pictures},
            where=used + pictures <= most,
        ).returning(table.pictures)

        def taken(session: Session) -> bool:
            return session.execute(counting).one_or_none() is not None

        return self._database.write(taken) if within is None else taken(within)

    def now(self) -> float:
        """Seconds of the clock by which challenges are issued."""
        return self._clock().timestamp()

    def until_tomorrow(self) -> float:
        """Seconds until counting begins anew."""
        now = self._clock()
        tomorrow = (now + timedelta(days=1)).replace(hour=0, minute=0, second=0, microsecond=0)
        return (tomorrow - now).total_seconds()

    def forget(self, tenant_id: str, subject_id: str) -> int:
        """Delete everything here about an identity; how many rows that were."""
        counted = 0
        with self._database.writing() as session:
            for table, owner in (
                (StandingRow, StandingRow.id),
                (ChallengeRow, ChallengeRow.subject_id),
                (PictureCountRow, PictureCountRow.id),
            ):
                mine = select(table).where(table.tenant_id == tenant_id, owner == subject_id)
                for row in session.scalars(mine):
                    session.delete(row)
                    counted += 1
        return counted


def _check_identity(session: Session, tenant_id: str, identity_id: str) -> None:
    row = session.get(IdentityRow, (tenant_id, identity_id))
    if row is None or row.state == IdentityState.ERASING:
        raise NotStored(f"There is no identity {identity_id!r} here.")


def _locked(session: Session, tenant_id: str, identity_id: str) -> StandingRow:
    _check_identity(session, tenant_id, identity_id)
    row = session.get(StandingRow, (tenant_id, identity_id), with_for_update=True)
    if row is None:
        row = StandingRow(tenant_id=tenant_id, id=identity_id)
        session.add(row)
    return row


def _open(tenant_id: str) -> ColumnElement[bool]:
    return (ChallengeRow.tenant_id == tenant_id) & ChallengeRow.ended_at.is_(None)


def _standing(row: StandingRow) -> Standing:
    return Standing(row.verified_at, row.held_at, row.cleared_at)


def _challenge(row: ChallengeRow, nonce: str = "") -> StoredChallenge:
    return StoredChallenge(row.id, tuple(row.poses), row.issued_at, row.deadline_at, nonce)


def _hashed(nonce: str) -> str:
    return hashlib.sha256(nonce.encode()).hexdigest()
