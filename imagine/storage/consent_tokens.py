"""Forms of consent that this service showed: each is good once, for its text, for a while.

Whoever shows the form asks for a token beforehand and sends it along with what was ticked. So a
consent that was recorded once cannot be sent again as a new one, and a consent to one text cannot
be passed off as a consent to another.
"""

from __future__ import annotations

import hashlib
import hmac
import re
import secrets
from collections.abc import Callable
from dataclasses import dataclass, field
from datetime import datetime, timedelta

from sqlalchemy import String, delete
from sqlalchemy.orm import Mapped, mapped_column

from imagine.errors import ConsentTokenInvalid, ConsentTokenUsed
from imagine.storage.consent import text_sha256
from imagine.storage.database import Base, Database, Instant, utc_now
from imagine.storage.tables import Tenanted

LIFETIME = timedelta(hours=1)
_KEPT = timedelta(days=7)  # so that a replayed one is told from one nobody issued
_TOKEN = re.compile(r"ict_([0-9a-f]{32})_([A-Za-z0-9_-]{43})")


class ConsentTokenRow(Tenanted, Base):
    """A token. The secret is not here, only its hash; of the text too."""

    __tablename__ = "consent_tokens"

    secret_sha256: Mapped[str] = mapped_column(String(64))
    text_sha256: Mapped[str] = mapped_column(String(64))
    expires_at: Mapped[datetime] = mapped_column(Instant, index=True)
    used_at: Mapped[datetime | None] = mapped_column(Instant)


@dataclass(frozen=True, slots=True)
class ConsentToken:
    """A token just issued. `token` is told here and never again."""

    token: str = field(repr=False)
    text_sha256: str
    expires_at: datetime


class ConsentTokens:
    """The tokens of all tenants."""

    def __init__(self, database: Database, clock: Callable[[], datetime] = utc_now) -> None:
        self._database = database
        self._clock = clock

    def issue(self, tenant_id: str, text: str) -> ConsentToken:
        """A token for the form that shows this text."""
        now = self._clock()
        token_id, secret = secrets.token_hex(16), secrets.token_urlsafe(32)
        row = ConsentTokenRow(
            tenant_id=tenant_id,
            id=token_id,
            secret_sha256=_hash(secret),
            text_sha256=text_sha256(text),
            expires_at=now + LIFETIME,
        )
        old = delete(ConsentTokenRow).where(ConsentTokenRow.expires_at < now - _KEPT)
        with self._database.writing() as session:
            session.execute(old)
            session.add(row)
        return ConsentToken(f"ict_{token_id}_{secret}", row.text_sha256, row.expires_at)

    def use(self, tenant_id: str, token: str, text: str) -> Callable[[], None]:
        """Use a token up; returns what makes it good again, for a consent that was not recorded.

        Raises:
            ConsentTokenUsed: it was used before.
            ConsentTokenInvalid: not one of this tenant, expired, or issued for another text.
        """
        parsed = _TOKEN.fullmatch(token)
        now = self._clock()
        with self._database.writing() as session:
            row = None
            if parsed is not None:
                row = session.get(ConsentTokenRow, (tenant_id, parsed[1]), with_for_update=True)
            secret = "" if parsed is None else parsed[2]
            known = _hash("-") if row is None else row.secret_sha256
            if row is None or not hmac.compare_digest(known, _hash(secret)):
                raise ConsentTokenInvalid(
                    "This consent token was not issued here. Ask for one, show the form, and send "
                    "the token with it."
                )
            if row.used_at is not None:
                raise ConsentTokenUsed(
                    f"This consent token was used on {row.used_at:%Y-%m-%d %H:%M} UTC already. "
                    "Show the form again and ask for a new token."
                )
            if row.expires_at <= now:
                raise ConsentTokenInvalid(
                    f"This consent token expired on {row.expires_at:%Y-%m-%d %H:%M} UTC. Show the "
                    "form again and ask for a new token."
                )
            if not hmac.compare_digest(row.text_sha256, text_sha256(text)):
                raise ConsentTokenInvalid(
                    "This consent token was issued for another text than the one that was sent. "
                    "Send exactly the text that was shown."
                )
            row.used_at = now
            token_id = row.id
        return lambda: self._unused(tenant_id, token_id)

    def _unused(self, tenant_id: str, token_id: str) -> None:
        with self._database.writing() as session:
            row = session.get(ConsentTokenRow, (tenant_id, token_id), with_for_update=True)
            if row is not None:
                row.used_at = None


def _hash(secret: str) -> str:
    return hashlib.sha256(b"imagine consent token\0" + secret.encode()).hexdigest()
