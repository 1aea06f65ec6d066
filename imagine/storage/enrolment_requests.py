"""Enrolments by the client's own name for them, so that one that is sent twice enrols once.

What was sent is kept as a keyed digest alone, and goes with the identity it made.
"""

from __future__ import annotations

import hashlib
import hmac
from collections.abc import Callable
from contextlib import suppress
from dataclasses import dataclass
from datetime import datetime, timedelta

from sqlalchemy import String, delete
from sqlalchemy.orm import Mapped, mapped_column

from imagine.errors import IdempotencyConflict, InvalidInput, JobStillRunning
from imagine.storage.database import Base, Database, Instant, utc_now
from imagine.storage.keys import DataKeys
from imagine.storage.tables import Id, Tenanted

KEPT = timedelta(hours=24)
LEASE = timedelta(minutes=10)  # far longer than an enrolment takes; then its process has died
_KEY_TENANT, _KEY_OWNER = "local", "enrolment_requests"


class EnrolmentRequestRow(Tenanted, Base):
    """A request that came; `id` is a keyed digest of the client's name for it.

    Attributes:
        identity_id: what it made; None while it is worked on.
        leased_until: while it is worked on.
    """

    __tablename__ = "enrolment_requests"

    body_digest: Mapped[str] = mapped_column(String(64))
    identity_id: Mapped[str | None] = mapped_column(Id, index=True)
    leased_until: Mapped[datetime] = mapped_column(Instant)
    created_at: Mapped[datetime] = mapped_column(Instant, index=True)


@dataclass(frozen=True, slots=True)
class Begun:
    """A request that is ours to fulfil, or was fulfilled before.

    Attributes:
        id: of the request.
        identity_id: what it made before; None when it is to be made now.
    """

    id: str
    identity_id: str | None


class EnrolmentRequests:
    """The requests of all tenants; those older than a day are forgotten."""

    def __init__(
        self, database: Database, keys: DataKeys, clock: Callable[[], datetime] = utc_now
    ) -> None:
        self._database = database
        self._keys = keys
        self._clock = clock

    def begin(self, tenant_id: str, key: str, body: bytes) -> Begun:
        """Take a request on, unless it came before.

        Args:
            tenant_id: whose.
            key: the client's name for it.
            body: all that was asked; only a keyed digest of it is kept.

        Raises:
            JobStillRunning: it is being worked on.
            IdempotencyConflict: the name came before with another body.
        """
        secret = self._secret()
        request_id = _keyed(secret, b"name", key.encode())
        digest = _keyed(secret, b"body", body)
        now = self._clock()
        with self._database.writing() as session:
            old = EnrolmentRequestRow.created_at < now - KEPT
            session.execute(delete(EnrolmentRequestRow).where(old))
            row = session.get(EnrolmentRequestRow, (tenant_id, request_id), with_for_update=True)
            if row is not None and not hmac.compare_digest(row.body_digest, digest):
                raise IdempotencyConflict(
                    f"The idempotency key {key[:80]!r} was used for another enrolment. Send the "
                    "first one again unchanged, or choose a new key."
                )
            if row is not None and row.identity_id is not None:
                return Begun(request_id, row.identity_id)
            if row is not None and row.leased_until > now:
                raise JobStillRunning(
                    f"The enrolment of idempotency key {key[:80]!r} is being worked on. Send it "
                    "again in a moment.",
                    "",
                )
            if row is None:
                row = EnrolmentRequestRow(
                    tenant_id=tenant_id, id=request_id, body_digest=digest, created_at=now
                )
                session.add(row)
            row.leased_until = now + LEASE
        return Begun(request_id, None)

    def end(self, tenant_id: str, request_id: str, identity_id: str | None) -> None:
        """What a request made; None frees its name, since it made nothing."""
        with self._database.writing() as session:
            row = session.get(EnrolmentRequestRow, (tenant_id, request_id))
            if row is None:
                return
            if identity_id is None:
                session.delete(row)
            else:
                row.identity_id = identity_id

    def forget(self, tenant_id: str, subject_id: str) -> int:
        """Forget what made an identity; for `Eraser`."""
        mine = (
            EnrolmentRequestRow.tenant_id == tenant_id,
            EnrolmentRequestRow.identity_id == subject_id,
        )
        gone = delete(EnrolmentRequestRow).where(*mine).returning(EnrolmentRequestRow.id)
        with self._database.writing() as session:
            return len(session.execute(gone).all())

    def _secret(self) -> bytes:
        return service_key(self._keys, _KEY_OWNER)


def service_key(keys: DataKeys, owner: str) -> bytes:
    """A key of the service itself, made when it is first needed: 32 bytes."""
    with suppress(InvalidInput):  # it is there
        keys.create(_KEY_TENANT, owner)
    return keys.commitment_key(_KEY_TENANT, owner)


def _keyed(secret: bytes, what: bytes, data: bytes) -> str:
    return hmac.digest(secret, b"imagine enrolment " + what + b"\0" + data, hashlib.sha256).hex()
