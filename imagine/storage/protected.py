"""People who asked never to be shown: face vectors kept for nothing but to refuse, each sealed.

Belongs to no tenant and needs no account: whoever registers gets a token that takes them off
again, which destroys the key of their entry. Entries that came in a signed list share one key.
Vectors of one recogniser cannot be compared with another's, so each entry names its own.
"""

from __future__ import annotations

import hashlib
import hmac
import re
import secrets
import threading
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from datetime import datetime
from functools import cached_property

import numpy as np
from sqlalchemy import LargeBinary, String, func, select
from sqlalchemy.orm import Mapped, mapped_column

from imagine.core import FloatArray
from imagine.errors import DataKeyDestroyed, InvalidInput, NotStored
from imagine.storage.database import Base, Database, Instant, new_id, utc_now
from imagine.storage.events import RecordEvent
from imagine.storage.keys import DataKeys
from imagine.storage.tables import Id, TenantRow

EVERYBODY = "everybody"  # the tenant of what belongs to no tenant
_TOKEN = re.compile(r"imdng_([0-9a-f]{32})_([0-9a-f]{64})")


class ProtectedRow(Base):
    """One entry of the list.

    Attributes:
        id: random; says nothing of anybody.
        recogniser: name of the face encoder the vector is of.
        method: how it came here: "camera", "declaration" or "list".
        token_sha256: hex hash of the token that takes it off; None for entries of a list.
        key_owner_id: under whose data key it is sealed.
        sealed_embedding: the vector.
    """

    __tablename__ = "protected_people"

    id: Mapped[str] = mapped_column(Id, primary_key=True)
    recogniser: Mapped[str] = mapped_column(String(100), index=True)
    method: Mapped[str] = mapped_column(String(32))
    token_sha256: Mapped[str | None] = mapped_column(String(64))
    key_owner_id: Mapped[str] = mapped_column(Id)
    sealed_embedding: Mapped[bytes] = mapped_column(LargeBinary)
    created_at: Mapped[datetime] = mapped_column(Instant)


@dataclass(frozen=True, slots=True)
class Registration:
    """What somebody who registered is given. The token is shown once and kept nowhere."""

    id: str
    token: str = field(repr=False)
    created_at: datetime


class ProtectedPeople:
    """The list of one installation, read again whenever an entry came or went.

    Args:
        database: where it is kept.
        open_keys: gives the data keys; called when something is sealed or opened, so that an
            empty list needs no master key.
        record_event: takes what happened to the audit log.
        clock: the time, with a zone.
    """

    def __init__(
        self,
        database: Database,
        open_keys: Callable[[], DataKeys],
        record_event: RecordEvent,
        clock: Callable[[], datetime] = utc_now,
    ) -> None:
        self._database = database
        self._open_keys = open_keys
        self._record_event = record_event
        self._clock = clock
        self._lock = threading.Lock()
        self._opened: dict[str, dict[str, FloatArray]] = {}  # recogniser -> id -> vector

    def __repr__(self) -> str:
        return f"ProtectedPeople({self._database!r})"

    @cached_property
    def _keys(self) -> DataKeys:
        return self._open_keys()

    def register(self, recogniser: str, embedding: FloatArray, method: str) -> Registration:
        """Put somebody on the list.

        Args:
            recogniser: whose vector it is.
            embedding: (d,) float32, of their selfies.
            method: "camera" after a passed camera check, else "declaration".
        """
        entry_id, secret = secrets.token_hex(16), secrets.token_hex(32)
        owner_id = f"protected_{entry_id}"
        now = self._clock()
        self._make_key(owner_id)
        row = self._row(entry_id, owner_id, recogniser, embedding, method, now)
        row.token_sha256 = _hashed(secret)
        with self._database.writing() as session:
            session.add(row)
        self._record_event(
            "protected.registered",
            owner_id,
            {"method": method, "recogniser": recogniser},
            tenant_id=EVERYBODY,
            actor="anybody",
        )
        return Registration(entry_id, f"imdng_{entry_id}_{secret}", now)

    def withdraw(self, token: str) -> datetime:
        """Take somebody off the list and destroy the key of their entry; says when.

        Raises:
            NotStored: no entry has this token.
        """
        found = _TOKEN.fullmatch(token.strip())
        with self._database.reading() as session:
            row = session.get(ProtectedRow, found[1]) if found else None
        known = row.token_sha256 if row is not None else None
        if row is None or found is None or not known or not _fits(known, found[2]):
            raise NotStored("There is no registration with this token here. Check the token.")
        # The log can speak of the entry only while its key lives.
        self._record_event(
            "protected.withdrawn", row.key_owner_id, {}, tenant_id=EVERYBODY, actor="anybody"
        )
        destroyed_at = self._keys.destroy(EVERYBODY, row.key_owner_id)
        with self._database.writing() as session:
            gone = session.get(ProtectedRow, row.id)
            if gone is not None:
                session.delete(gone)
        self._database.scrub(("protected_people",), rebuild=False)
        return destroyed_at

    def add_list(
        self, recogniser: str, people: Mapping[str, FloatArray], issuer: str, actor: str
    ) -> int:
        """Take over the entries of a list whose signature was checked; says how many are new.

        Args:
            recogniser: whose vectors they are.
            people: id in the list -> (d,) float32.
            issuer: who signed, as the fingerprint of the key.
            actor: who imports, as a pseudonym.
        """
        # An entry keeps its id from list to list, so that a newer list adds only what is new.
        wanted = {_hashed(f"{issuer}\0{recogniser}\0{name}")[:32]: v for name, v in people.items()}
        with self._database.reading() as session:
            known = set(session.scalars(select(ProtectedRow.id)))
        new = {entry_id: vector for entry_id, vector in wanted.items() if entry_id not in known}
        if new:
            owner_id, now = new_id("list"), self._clock()
            self._make_key(owner_id)
            rows = [
                self._row(entry_id, owner_id, recogniser, vector, "list", now)
                for entry_id, vector in new.items()
            ]
            with self._database.writing() as session:
                session.add_all(rows)
        self._record_event(
            "protected.imported",
            None,
            {"issuer": issuer, "recogniser": recogniser, "entries": len(new)},
            tenant_id=EVERYBODY,
            actor=actor,
        )
        return len(new)

    def counts(self) -> dict[str, int]:
        """How many entries of each recogniser there are."""
        wanted = select(ProtectedRow.recogniser, func.count()).group_by(ProtectedRow.recogniser)
        with self._database.reading() as session:
            return {row[0]: row[1] for row in session.execute(wanted)}

    def embeddings(self, recogniser: str) -> list[FloatArray]:
        """The vectors of one recogniser, (d,) float32 each.

        Raises:
            MasterKeyUnusable, BlobStoreUnusable, SealBroken: an entry cannot be opened. A list
                that cannot be read is never taken for an empty one.
        """
        columns = (ProtectedRow.id, ProtectedRow.key_owner_id, ProtectedRow.sealed_embedding)
        mine = ProtectedRow.recogniser == recogniser
        with self._lock:
            opened = self._opened.setdefault(recogniser, {})
            with self._database.reading() as session:
                ids = set(session.scalars(select(ProtectedRow.id).where(mine)))
                unread = ids - opened.keys()
                rows = session.execute(select(*columns).where(mine)).all() if unread else []
            for withdrawn in opened.keys() - ids:
                del opened[withdrawn]
            for entry_id, owner_id, sealed in rows:
                vector = self._vector(entry_id, owner_id, sealed) if entry_id in unread else None
                if vector is not None:
                    opened[entry_id] = vector
            return list(opened.values())

    def _vector(self, entry_id: str, owner_id: str, sealed: bytes) -> FloatArray | None:
        try:
            plain = self._keys.open(EVERYBODY, owner_id, entry_id, sealed)
        except DataKeyDestroyed:
            return None  # withdrawn a moment ago; its row is about to go
        return np.frombuffer(plain, dtype="<f4").astype(np.float32)

    def _row(
        self,
        entry_id: str,
        owner_id: str,
        recogniser: str,
        embedding: FloatArray,
        method: str,
        now: datetime,
    ) -> ProtectedRow:
        plain = _checked(embedding).astype("<f4").tobytes()
        return ProtectedRow(
            id=entry_id,
            recogniser=recogniser,
            method=method,
            key_owner_id=owner_id,
            sealed_embedding=self._keys.seal(EVERYBODY, owner_id, entry_id, plain),
            created_at=now,
        )

    def _make_key(self, owner_id: str) -> None:
        add_everybody(self._database, self._clock())
        self._keys.create(EVERYBODY, owner_id)


def add_everybody(database: Database, now: datetime) -> None:
    """Make the tenant of what belongs to no tenant, once; no key opens it from outside."""
    with database.writing() as session:
        if session.get(TenantRow, EVERYBODY) is None:
            session.add(TenantRow(id=EVERYBODY, name="Nobody in particular", created_at=now))


def _checked(embedding: FloatArray) -> FloatArray:
    vector = np.asarray(embedding, dtype=np.float32)
    # A zero vector would be as near to everybody as to nobody.
    if vector.ndim != 1 or not np.isfinite(vector).all() or not vector.any():
        raise InvalidInput(
            f"A face vector of shape {vector.shape} cannot be listed. It must be one row of "
            "finite numbers, not all zero."
        )
    return vector


def _hashed(secret: str) -> str:
    return hashlib.sha256(secret.encode()).hexdigest()


def _fits(known: str, secret: str) -> bool:
    return hmac.compare_digest(known, _hashed(secret))
