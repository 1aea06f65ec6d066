"""How much of their quotas everybody has used, where several processes must agree on it.

One row a bucket; its name is kept as a hash, since it may hold an address. The clocks of the
processes should agree to a fraction of a second; one that runs ahead refills everybody sooner.
"""

from __future__ import annotations

import hashlib
import secrets
import time
from collections.abc import Callable
from typing import cast

from sqlalchemy import Float, String, Table, delete, select
from sqlalchemy.dialects import postgresql, sqlite
from sqlalchemy.orm import Mapped, Session, mapped_column

from imagine.storage.database import Base, Database

_SWEEP_ONE_IN = 500


class RateCountRow(Base):
    """A bucket that is not full; `full_at` is when it will be, in seconds since 1970."""

    __tablename__ = "rate_counts"

    name_sha256: Mapped[str] = mapped_column(String(64), primary_key=True)
    full_at: Mapped[float] = mapped_column(Float(53), index=True)


_COUNTS = cast("Table", RateCountRow.__table__)


class RateCounts:
    """The buckets of all processes that share a database."""

    def __init__(self, database: Database, clock: Callable[[], float] = time.time) -> None:
        self._database = database
        self._clock = clock

    def reserve(
        self,
        name: str,
        requests: int,
        seconds_each: float,
        window_seconds: float,
        give_back_seconds: float = 0.0,
    ) -> tuple[int, float]:
        """Take up to `requests` of a bucket.

        Args:
            name: of the bucket.
            requests: how many would be welcome, at least 1.
            seconds_each: in which one request refills.
            window_seconds: in which an empty bucket refills.
            give_back_seconds: what was taken before and not used, in seconds of refilling.

        Returns:
            How many were granted, 0 when the bucket is empty, and how many seconds of refilling
            are spent now.

        Raises:
            DatabaseUnusable: it does not answer.

        Source: the generic cell rate algorithm, ITU-T I.371, in its virtual scheduling form.
        """
        key = hashlib.sha256(b"imagine rate\0" + name.encode()).hexdigest()
        now = self._clock()

        def taken(session: Session) -> tuple[int, float]:
            full_at = max(self._locked(session, key, now) - give_back_seconds, now)
            room = window_seconds * (1 + 1e-9) - (full_at - now)
            granted = max(0, min(requests, int(room / seconds_each + 1e-9)))
            full_at += granted * seconds_each
            changed = _COUNTS.update().where(_COUNTS.c.name_sha256 == key)
            session.execute(changed.values(full_at=full_at))
            return granted, full_at - now

        told = self._database.write(taken)
        if secrets.randbelow(_SWEEP_ONE_IN) == 0:
            self._database.write(lambda session: self._sweep(session, now))
        return told

    def _locked(self, session: Session, key: str, now: float) -> float:
        dialect = sqlite if self._database.is_sqlite else postgresql
        new = dialect.insert(_COUNTS).values(name_sha256=key, full_at=now)
        session.execute(new.on_conflict_do_nothing(index_elements=["name_sha256"]))
        row = select(_COUNTS.c.full_at).where(_COUNTS.c.name_sha256 == key).with_for_update()
        full_at: float = session.execute(row).scalar_one()
        return full_at

    def _sweep(self, session: Session, now: float) -> None:
        # A minute of grace: the clock of another process may be a little behind.
        session.execute(delete(_COUNTS).where(_COUNTS.c.full_at < now - 60.0))
