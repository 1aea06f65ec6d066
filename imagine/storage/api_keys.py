"""Keys of programs: shown once, stored as a hash, good for the scopes they were given.

A key reads "imk_<id>_<secret>". The id finds the row, also in a log line; the secret is 256
random bits, so a plain SHA-256 of it is as hard to turn back as any slower hash.
"""

from __future__ import annotations

import hashlib
import hmac
import re
import secrets
from collections.abc import Callable, Collection
from dataclasses import dataclass, field
from datetime import datetime, timedelta

from sqlalchemy import select

from imagine.errors import InvalidInput, KeyRefused, NotStored
from imagine.storage.database import Database, utc_now
from imagine.storage.tables import ApiKeyRow, TenantRow

_TOKEN = re.compile(r"imk_([0-9a-f]{16})_([A-Za-z0-9_-]{43})")
_SCOPE = re.compile(r"[a-z]+(:[a-z]+)?")
_SEEN_AGAIN = timedelta(minutes=1)  # a write for every request would cost more than it tells


@dataclass(frozen=True, slots=True)
class ApiKey:
    """What is known of a key; never the secret."""

    id: str
    tenant_id: str
    label: str
    scopes: frozenset[str]
    created_at: datetime
    expires_at: datetime | None
    revoked_at: datetime | None
    last_used_at: datetime | None


@dataclass(frozen=True, slots=True)
class NewApiKey:
    """A key just made. `token` is told here and never again."""

    key: ApiKey
    token: str = field(repr=False)


class ApiKeys:
    """The keys of all tenants. Nothing is cached: a revoked key is refused at its next use.

    Attributes:
        revocations: how many keys were revoked through this object; who remembers keys for a
            moment looks here.
    """

    def __init__(self, database: Database, clock: Callable[[], datetime] = utc_now) -> None:
        self._database = database
        self._clock = clock
        self.revocations = 0

    def create(
        self,
        tenant_id: str,
        label: str,
        scopes: Collection[str],
        lifetime: timedelta | None = None,
    ) -> NewApiKey:
        """Make a key.

        Args:
            tenant_id: whose.
            label: what it is for, in words the tenant chooses.
            scopes: what it may do, e.g. {"generations:write", "images:read"}.
            lifetime: how long it works; None: until it is revoked.

        Raises:
            InvalidInput: no label, no scope, or one that is malformed.
            NotStored: there is no such tenant.
        """
        _check(label, scopes, lifetime)
        now = self._clock()
        key_id, secret = secrets.token_hex(8), secrets.token_urlsafe(32)
        row = ApiKeyRow(
            tenant_id=tenant_id,
            id=key_id,
            label=label,
            secret_sha256=_hash(secret),
            scopes=sorted(set(scopes)),
            created_at=now,
            expires_at=None if lifetime is None else now + lifetime,
        )
        with self._database.writing() as session:
            if session.get(TenantRow, tenant_id) is None:
                raise NotStored(f"There is no tenant {tenant_id!r}. Make it first.")
            session.add(row)
        return NewApiKey(_key(row), f"imk_{key_id}_{secret}")

    def check(self, token: str, scope: str) -> ApiKey:
        """The key behind a token, if it may do `scope` now.

        Raises:
            KeyRefused: unknown, revoked, expired (the message does not tell unknown from wrong),
                or without the scope (`lacks_scope` is set then).
        """
        parsed = _TOKEN.fullmatch(token)
        now = self._clock()
        row = None
        if parsed is not None:
            with self._database.reading() as session:
                row = session.scalars(select(ApiKeyRow).where(ApiKeyRow.id == parsed[1])).first()
        # Compared even when no row was found, so that time tells nothing about ids.
        known = _hash("") if row is None else row.secret_sha256
        is_right = hmac.compare_digest(known, _hash("-" if parsed is None else parsed[2]))
        if row is None or not is_right:
            raise KeyRefused("This API key is not known here. Check that it was copied whole.")
        _refuse_ended(row, now)
        if scope not in row.scopes:
            raise KeyRefused(
                f"API key {row.id} may not {scope!r}; it may {', '.join(row.scopes)}. "
                "Ask for a key with this scope.",
                lacks_scope=True,
            )
        if row.last_used_at is None or now - row.last_used_at >= _SEEN_AGAIN:
            self._saw(row, now)
        return _key(row)

    def still_good(self, tenant_id: str, key_id: str) -> ApiKey:
        """A key whose secret was checked before, if it has not ended since.

        Raises:
            KeyRefused: revoked or expired meanwhile, or not of this tenant.
        """
        with self._database.reading() as session:
            row = session.get(ApiKeyRow, (tenant_id, key_id))
        if row is None:
            raise KeyRefused("This API key is not known here any more. Ask for a new one.")
        _refuse_ended(row, self._clock())
        return _key(row)

    def revoke(self, tenant_id: str, key_id: str) -> ApiKey:
        """End a key at once; again is harmless.

        Raises:
            NotStored: this tenant has no such key.
        """
        with self._database.writing() as session:
            row = session.get(ApiKeyRow, (tenant_id, key_id))
            if row is None:
                raise NotStored(f"There is no API key {key_id!r} here.")
            if row.revoked_at is None:
                row.revoked_at = self._clock()
            key = _key(row)
        self.revocations += 1
        return key

    def of_tenant(self, tenant_id: str) -> list[ApiKey]:
        """The keys of a tenant, oldest first, ended ones too."""
        with self._database.reading() as session:
            mine = select(ApiKeyRow).where(ApiKeyRow.tenant_id == tenant_id)
            rows = session.scalars(mine.order_by(ApiKeyRow.created_at, ApiKeyRow.id))
            return [_key(row) for row in rows]

    def _saw(self, row: ApiKeyRow, now: datetime) -> None:
        with self._database.writing() as session:
            session.get_one(ApiKeyRow, (row.tenant_id, row.id)).last_used_at = now
        row.last_used_at = now


def _refuse_ended(row: ApiKeyRow, now: datetime) -> None:
    if row.revoked_at is not None:
        raise KeyRefused(f"API key {row.id} was revoked. Ask for a new one.")
    if row.expires_at is not None and row.expires_at <= now:
        raise KeyRefused(
            f"API key {row.id} expired on {row.expires_at:%Y-%m-%d}. Ask for a new one."
        )


def _check(label: str, scopes: Collection[str], lifetime: timedelta | None) -> None:
    if not label.strip() or len(label) > 200:
        raise InvalidInput(f"The label has {len(label)} characters; give 1 to 200.")
    malformed = [scope for scope in scopes if _SCOPE.fullmatch(scope) is None]
    if not scopes or malformed:
        raise InvalidInput(
            f"scopes is {sorted(scopes)!r}; give at least one, each like images:read."
        )
    if lifetime is not None and lifetime <= timedelta(0):
        raise InvalidInput(f"A key with a lifetime of {lifetime} would never work.")


def _hash(secret: str) -> str:
    return hashlib.sha256(b"imagine api key\0" + secret.encode()).hexdigest()


def _key(row: ApiKeyRow) -> ApiKey:
    return ApiKey(
        id=row.id,
        tenant_id=row.tenant_id,
        label=row.label,
        scopes=frozenset(row.scopes),
        created_at=row.created_at,
        expires_at=row.expires_at,
        revoked_at=row.revoked_at,
        last_used_at=row.last_used_at,
    )
