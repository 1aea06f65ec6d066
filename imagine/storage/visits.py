"""Who is at the page, and what lies on their desk: what must outlive a restart of the server.

A visit is found by the hash of a secret that only one browser has. A desk belongs to an account,
the pseudonym behind an API key or a login; it holds nothing but ids: which people are theirs,
which pictures have a star, which jobs are their newest wish.
"""

from __future__ import annotations

import hashlib
import secrets
from collections.abc import Callable, Collection, Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass, field
from datetime import datetime, timedelta
from typing import Any

from sqlalchemy import JSON, ForeignKey, String, delete
from sqlalchemy.orm import Mapped, Session, mapped_column

from imagine.storage.database import Base, Database, Instant, utc_now
from imagine.storage.keys import check_id
from imagine.storage.tables import Id, Tenanted

LONGEST_VISIT = timedelta(hours=12)
LONGEST_PAUSE = timedelta(hours=2)
_SEEN_AGAIN = timedelta(minutes=1)  # a write for every request would cost more than it tells
_MOST_STARS = 10_000


class VisitRow(Base):
    """A browser that was let in. The secret itself is not here, only its hash."""

    __tablename__ = "visits"

    secret_sha256: Mapped[str] = mapped_column(String(64), primary_key=True)
    tenant_id: Mapped[str] = mapped_column(Id, ForeignKey("tenants.id"))
    account: Mapped[str] = mapped_column(Id)
    key_id: Mapped[str | None] = mapped_column(Id)
    scopes: Mapped[list[str]] = mapped_column(JSON)
    seen_at: Mapped[datetime] = mapped_column(Instant)
    expires_at: Mapped[datetime] = mapped_column(Instant, index=True)


class DeskRow(Tenanted, Base):
    """What an account left; `id` is the account."""

    __tablename__ = "desks"

    people: Mapped[dict[str, int]] = mapped_column(JSON)
    at_desk: Mapped[str | None] = mapped_column(Id)
    stars: Mapped[list[str]] = mapped_column(JSON)
    drawing: Mapped[dict[str, Any] | None] = mapped_column(JSON(none_as_null=True))


@dataclass(frozen=True, slots=True)
class Visit:
    """Somebody who was let in.

    Attributes:
        tenant_id: whose data they may see.
        account: their pseudonym, also in the audit log.
        key_id: the API key they came with; it must still be good. None for another way in.
        scopes: what they may do.
        id: the hash of their secret; names the visit, opens nothing.
    """

    tenant_id: str
    account: str
    key_id: str | None
    scopes: frozenset[str]
    id: str


@dataclass(frozen=True, slots=True)
class Desk:
    """What an account left; ids of things that are gone meanwhile may be among them.

    Attributes:
        people: persons who are theirs, and from how many photos each was made.
        at_desk: the identity they look at; "" for a newcomer, None before the first look.
        stars: pictures they want to find again.
        drawing: their newest wish, as whoever wrote it understands it.
    """

    people: Mapping[str, int] = field(default_factory=dict)
    at_desk: str | None = None
    stars: frozenset[str] = frozenset()
    drawing: Mapping[str, Any] | None = None


class Visits:
    """The visits of all tenants."""

    def __init__(self, database: Database, clock: Callable[[], datetime] = utc_now) -> None:
        self._database = database
        self._clock = clock

    def begin(
        self, tenant_id: str, account: str, scopes: Collection[str], key_id: str | None = None
    ) -> str:
        """Let somebody in; returns the secret, which is told to them and kept nowhere."""
        check_id(account)
        secret = secrets.token_urlsafe(32)
        now = self._clock()
        with self._database.writing() as session:
            session.execute(delete(VisitRow).where(VisitRow.expires_at <= now))
            session.add(
                VisitRow(
                    secret_sha256=_hash(secret),
                    tenant_id=tenant_id,
                    account=account,
                    key_id=key_id,
                    scopes=sorted(scopes),
                    seen_at=now,
                    expires_at=now + LONGEST_VISIT,
                )
            )
        return secret

    def find(self, secret: str) -> Visit | None:
        """The visit of a secret; None for one nobody has, or that is over."""
        now = self._clock()
        with self._database.reading() as session:
            row = session.get(VisitRow, _hash(secret))
        if row is None or row.expires_at <= now or now - row.seen_at > LONGEST_PAUSE:
            return None
        if now - row.seen_at > _SEEN_AGAIN:
            with self._database.writing() as session:
                again = session.get(VisitRow, row.secret_sha256)
                if again is None:
                    return None
                again.seen_at = now
        return Visit(
            row.tenant_id, row.account, row.key_id, frozenset(row.scopes), row.secret_sha256
        )

    def end(self, secret: str) -> None:
        """End a visit, everywhere at once."""
        with self._database.writing() as session:
            session.execute(delete(VisitRow).where(VisitRow.secret_sha256 == _hash(secret)))


class Desks:
    """The desks of all accounts. Changes are read and written in one transaction."""

    def __init__(self, database: Database) -> None:
        self._database = database

    def of(self, tenant_id: str, account: str) -> Desk:
        """What an account left; an empty desk where it has left nothing."""
        with self._database.reading() as session:
            row = session.get(DeskRow, (tenant_id, account))
        if row is None:
            return Desk()
        return Desk(dict(row.people), row.at_desk, frozenset(row.stars), row.drawing)

    def add_person(
        self, tenant_id: str, account: str, person_id: str, identity_id: str, photo_count: int
    ) -> None:
        """Somebody is theirs, and is looked at."""
        with self._row(tenant_id, account) as row:
            row.people = {**row.people, person_id: photo_count}
            row.at_desk = identity_id

    def remove_person(self, tenant_id: str, account: str, person_id: str) -> None:
        """Somebody is gone."""
        with self._row(tenant_id, account) as row:
            row.people = {known: n for known, n in row.people.items() if known != person_id}

    def look_at(self, tenant_id: str, account: str, identity_id: str | None) -> None:
        """Another identity is at the desk, or nobody."""
        with self._row(tenant_id, account) as row:
            row.at_desk = identity_id

    def star(self, tenant_id: str, account: str, image_id: str, starred: bool) -> None:
        """Set or take away a star."""
        with self._row(tenant_id, account) as row:
            others = [known for known in row.stars if known != image_id]
            row.stars = [*others, image_id][-_MOST_STARS:] if starred else others

    def draw(self, tenant_id: str, account: str, drawing: Mapping[str, Any] | None) -> None:
        """Remember the newest wish."""
        with self._row(tenant_id, account) as row:
            row.drawing = None if drawing is None else dict(drawing)

    def clear(self, tenant_id: str, account: str) -> None:
        """Forget everything that lies there."""
        with self._database.writing() as session:
            row = session.get(DeskRow, (tenant_id, account))
            if row is not None:
                session.delete(row)

    @contextmanager
    def _row(self, tenant_id: str, account: str) -> Iterator[DeskRow]:
        with self._database.writing() as session:
            yield _desk_row(session, tenant_id, account)


def _desk_row(session: Session, tenant_id: str, account: str) -> DeskRow:
    row = session.get(DeskRow, (tenant_id, account), with_for_update=True)
    if row is None:
        row = DeskRow(tenant_id=tenant_id, id=account, people={}, stars=[])
        session.add(row)
    return row


def _hash(secret: str) -> str:
    return hashlib.sha256(b"imagine visit\0" + secret.encode()).hexdigest()
