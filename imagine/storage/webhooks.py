"""Who is to be called when something happens, and every call: made, failed, or still to be made.

A delivery is a row, written in the transaction of what it tells of, and lives until it has gone out
or was given up. What it holds are ids; who receives it asks the service for the rest. Making the
call is the sender's work (`service/webhook_sender.py`); several may share one table.
"""

from __future__ import annotations

import json
import random
from collections.abc import Callable, Collection, Mapping, Sequence
from dataclasses import dataclass, field
from datetime import datetime, timedelta
from enum import StrEnum
from typing import Any, cast

from sqlalchemy import (
    JSON,
    Index,
    LargeBinary,
    String,
    Table,
    Text,
    and_,
    delete,
    func,
    or_,
    select,
)
from sqlalchemy.orm import Mapped, Session, mapped_column

from imagine.errors import InvalidInput, NotStored
from imagine.storage.database import Base, Database, Instant, new_id, utc_now
from imagine.storage.jobs import EndedJob, JobState
from imagine.storage.keys import DataKeys
from imagine.storage.tables import Id, Tenanted

MAX_ENDPOINTS = 20  # of one tenant
MAX_URL_CHARACTERS = 2000
MAX_DESCRIPTION_CHARACTERS = 200
SECRET_OVERLAP = timedelta(hours=24)  # in which deliveries carry the signature of the old one too
GIVE_UP_ON_ENDPOINT = timedelta(days=5)  # of nothing but failure
KEPT = timedelta(days=30)  # the log of deliveries
LEASE = timedelta(minutes=2)  # of a sender on a delivery; far longer than a call may take

# Between one attempt and the next; the first is made at once. Each is lengthened by chance, so that
# a receiver that comes back is not met by everything at the same moment.
PAUSES = tuple(
    timedelta(seconds=seconds)
    for seconds in (5, 60, 300, 1800, 7200, 18_000, 36_000, 50_400, 72_000, 86_400)
)
_JITTER = 0.2


class EventKind(StrEnum):
    """What can be told."""

    GENERATION_SUCCEEDED = "generation.succeeded"
    GENERATION_FAILED = "generation.failed"
    GENERATION_CANCELED = "generation.canceled"
    GENERATION_BLOCKED = "generation.blocked"
    IDENTITY_DELETED = "identity.deleted"
    CONSENT_WITHDRAWN = "consent.withdrawn"


_OF_JOB = {
    JobState.SUCCEEDED: EventKind.GENERATION_SUCCEEDED,
    JobState.FAILED: EventKind.GENERATION_FAILED,
    JobState.CANCELED: EventKind.GENERATION_CANCELED,
    JobState.BLOCKED: EventKind.GENERATION_BLOCKED,
}


class EndpointState(StrEnum):
    """Whether an endpoint is called."""

    ACTIVE = "active"
    DISABLED = "disabled"


class DeliveryState(StrEnum):
    """Where a delivery stands."""

    PENDING = "pending"
    DELIVERED = "delivered"
    FAILED = "failed"


class WebhookEndpointRow(Tenanted, Base):
    """Where to call. Its secrets are sealed under a data key of its own.

    Attributes:
        events: sorted `EventKind` values.
        failing_since: of the first failure after the last success.
        disabled_reason: a word, of one that is not called any more.
        old_secret_until: how long the secret before the present one is still used as well.
    """

    __tablename__ = "webhook_endpoints"

    url: Mapped[str] = mapped_column(String(MAX_URL_CHARACTERS))
    description: Mapped[str] = mapped_column(String(MAX_DESCRIPTION_CHARACTERS))
    events: Mapped[list[str]] = mapped_column(JSON)
    state: Mapped[str] = mapped_column(String(16))
    created_at: Mapped[datetime] = mapped_column(Instant)
    failing_since: Mapped[datetime | None] = mapped_column(Instant)
    disabled_reason: Mapped[str | None] = mapped_column(String(64))
    sealed_secret: Mapped[bytes] = mapped_column(LargeBinary)
    sealed_old_secret: Mapped[bytes | None] = mapped_column(LargeBinary)
    old_secret_until: Mapped[datetime | None] = mapped_column(Instant)


class WebhookDeliveryRow(Tenanted, Base):
    """One message to one endpoint.

    Attributes:
        message_id: names the event; the same at every endpoint and when it is sent again.
        body: JSON of ids, as it is sent.
        due_at: of the next attempt, or of the last one.
        leased_until: a sender is at it.
        status: of the last answer; None when there was none.
        error: a word, of the last attempt that failed.
    """

    __tablename__ = "webhook_deliveries"
    __table_args__ = (
        Index("ix_webhook_deliveries_due", "state", "due_at"),
        Index("ix_webhook_deliveries_endpoint", "tenant_id", "endpoint_id", "created_at"),
    )

    endpoint_id: Mapped[str] = mapped_column(Id)
    message_id: Mapped[str] = mapped_column(Id)
    event: Mapped[str] = mapped_column(String(64))
    body: Mapped[str] = mapped_column(Text)
    state: Mapped[str] = mapped_column(String(16))
    created_at: Mapped[datetime] = mapped_column(Instant, index=True)
    due_at: Mapped[datetime] = mapped_column(Instant)
    leased_until: Mapped[datetime | None] = mapped_column(Instant)
    attempts: Mapped[int]
    status: Mapped[int | None]
    error: Mapped[str | None] = mapped_column(String(64))
    ended_at: Mapped[datetime | None] = mapped_column(Instant)


_ENDPOINTS = cast("Table", WebhookEndpointRow.__table__)
_DELIVERIES = cast("Table", WebhookDeliveryRow.__table__)


@dataclass(frozen=True, slots=True)
class Endpoint:
    """What may be told about an endpoint; never a secret."""

    tenant_id: str
    id: str
    url: str
    description: str
    events: tuple[EventKind, ...]
    state: EndpointState
    created_at: datetime
    failing_since: datetime | None
    disabled_reason: str | None


@dataclass(frozen=True, slots=True)
class Delivery:
    """A message and what became of it."""

    tenant_id: str
    id: str
    endpoint_id: str
    message_id: str
    event: EventKind
    body: str
    state: DeliveryState
    created_at: datetime
    due_at: datetime
    attempts: int
    status: int | None
    error: str | None
    ended_at: datetime | None


@dataclass(frozen=True, slots=True)
class Call:
    """A delivery that a sender has taken, with all it needs to make it."""

    delivery: Delivery
    url: str
    secrets: tuple[str, ...] = field(repr=False)


@dataclass(frozen=True, slots=True)
class Outcome:
    """What came of a call.

    Attributes:
        status: of the answer; None when there was none.
        error: a word; None when it was taken.
    """

    status: int | None
    error: str | None = None


class Webhooks:
    """Endpoints and deliveries of all tenants.

    Args:
        database: where they are kept.
        keys: seal the secrets.
        new_secret: makes one.
        clock: the time, with a zone.
        wake: there is something to send.
    """

    def __init__(
        self,
        database: Database,
        keys: DataKeys,
        new_secret: Callable[[], str],
        clock: Callable[[], datetime] = utc_now,
        wake: Callable[[], object] = lambda: None,
    ) -> None:
        self._database = database
        self._keys = keys
        self._new_secret = new_secret
        self._clock = clock
        self._wake = wake

    def call_when_due(self, wake: Callable[[], object]) -> None:
        """Have this called whenever something is to be sent."""
        self._wake = wake

    # Endpoints

    def add(
        self, tenant_id: str, url: str, events: Collection[EventKind], description: str = ""
    ) -> tuple[Endpoint, str]:
        """Make an endpoint; returns it and its secret, which is told here and never again.

        Raises:
            InvalidInput: no event, a field too long, or too many endpoints.
        """
        _check(url, events, description)
        endpoint_id, secret = new_id("webhook"), self._new_secret()
        mine = WebhookEndpointRow.tenant_id == tenant_id
        with self._database.reading() as session:
            count = session.scalar(select(func.count()).select_from(_ENDPOINTS).where(mine)) or 0
        if count >= MAX_ENDPOINTS:
            raise InvalidInput(
                f"There are {count} webhooks already; {MAX_ENDPOINTS} are allowed. Delete one."
            )
        self._keys.create(tenant_id, endpoint_id)
        row = WebhookEndpointRow(
            tenant_id=tenant_id,
            id=endpoint_id,
            url=url,
            description=description,
            events=sorted(events),
            state=EndpointState.ACTIVE,
            created_at=self._clock(),
            sealed_secret=self._sealed(tenant_id, endpoint_id, secret),
        )
        with self._database.writing() as session:
            session.add(row)
        return _endpoint(row), secret

    def of_tenant(self, tenant_id: str) -> list[Endpoint]:
        """The endpoints of a tenant, newest first."""
        mine = select(WebhookEndpointRow).where(WebhookEndpointRow.tenant_id == tenant_id)
        newest = mine.order_by(WebhookEndpointRow.created_at.desc(), WebhookEndpointRow.id.desc())
        with self._database.reading() as session:
            return [_endpoint(row) for row in session.scalars(newest)]

    def get(self, tenant_id: str, endpoint_id: str) -> Endpoint:
        """One endpoint.

        Raises:
            NotStored: this tenant has no such endpoint.
        """
        with self._database.reading() as session:
            return _endpoint(_found(session, tenant_id, endpoint_id))

    def change(
        self,
        tenant_id: str,
        endpoint_id: str,
        url: str | None = None,
        events: Collection[EventKind] | None = None,
        description: str | None = None,
        state: EndpointState | None = None,
    ) -> Endpoint:
        """Change what is given; making it active again forgives its failures.

        Raises:
            InvalidInput: as `add`.
            NotStored: this tenant has no such endpoint.
        """
        with self._database.writing() as session:
            row = _found(session, tenant_id, endpoint_id, lock=True)
            row.url = row.url if url is None else url
            row.events = row.events if events is None else sorted(events)
            row.description = row.description if description is None else description
            _check(row.url, row.events, row.description)
            if state is not None:
                row.state, row.failing_since = state, None
                row.disabled_reason = None if state == EndpointState.ACTIVE else "by_request"
            return _endpoint(row)

    def delete(self, tenant_id: str, endpoint_id: str) -> None:
        """Delete an endpoint with its secrets and its deliveries.

        Raises:
            NotStored: this tenant has no such endpoint.
        """
        with self._database.writing() as session:
            session.delete(_found(session, tenant_id, endpoint_id, lock=True))
            session.execute(delete(_DELIVERIES).where(_sent_to(tenant_id, endpoint_id)))
        self._keys.destroy(tenant_id, endpoint_id)

    def rotate(self, tenant_id: str, endpoint_id: str) -> tuple[Endpoint, str]:
        """Give an endpoint a new secret, told here and never again.

        For a day deliveries are signed with both, so that the receiver can change over in peace.

        Raises:
            NotStored: this tenant has no such endpoint.
        """
        secret = self._new_secret()
        self.get(tenant_id, endpoint_id)
        sealed = self._sealed(tenant_id, endpoint_id, secret)
        with self._database.writing() as session:
            row = _found(session, tenant_id, endpoint_id, lock=True)
            row.sealed_old_secret, row.sealed_secret = row.sealed_secret, sealed
            row.old_secret_until = self._clock() + SECRET_OVERLAP
            return _endpoint(row), secret

    # Events

    def publish(
        self,
        tenant_id: str,
        kind: EventKind,
        data: Mapping[str, str | None],
        within: Session | None = None,
    ) -> int:
        """Write down a delivery to every endpoint that wants this event; says how many.

        Args:
            tenant_id: whose event.
            kind: what happened.
            data: ids, nothing else.
            within: the transaction of what happened; they stand or fall together.
        """
        if within is not None:
            return self._written(within, tenant_id, kind, data)
        return self._database.write(lambda session: self._written(session, tenant_id, kind, data))

    def jobs_ended(self, session: Session, ended: Sequence[EndedJob]) -> None:
        """Tell of jobs at their end, in the transaction that ends them; for `JobStore`."""
        for job in ended:
            data = {"object": "generation", "id": job.id, "identity": job.identity_id}
            self._written(session, job.tenant_id, _OF_JOB[job.state], data)

    def erased(self, session: Session, tenant_id: str, kind: str, subject_id: str) -> None:
        """Tell of somebody who was erased, in the transaction that completes it; for `Eraser`."""
        if kind == "identity":
            data = {"object": "identity", "id": subject_id}
            self._written(session, tenant_id, EventKind.IDENTITY_DELETED, data)

    def _written(
        self, session: Session, tenant_id: str, kind: EventKind, data: Mapping[str, str | None]
    ) -> int:
        mine = and_(
            _ENDPOINTS.c.tenant_id == tenant_id, _ENDPOINTS.c.state == EndpointState.ACTIVE.value
        )
        chosen = select(_ENDPOINTS.c.id, _ENDPOINTS.c.events).where(mine)
        wanted = [row.id for row in session.execute(chosen) if kind.value in row.events]
        if not wanted:
            return 0
        now, message_id = self._clock(), new_id("msg")
        body = json.dumps({"type": kind.value, "timestamp": now.isoformat(), "data": dict(data)})
        new = [_first(tenant_id, endpoint, message_id, kind, body, now) for endpoint in wanted]
        session.execute(_DELIVERIES.insert(), new)
        self._wake()
        return len(new)

    # Deliveries

    def deliveries(
        self,
        tenant_id: str,
        endpoint_id: str,
        states: Collection[DeliveryState] = (),
        limit: int = 50,
        before: str | None = None,
    ) -> list[Delivery]:
        """The log of an endpoint, newest first, behind the delivery called `before`.

        Raises:
            NotStored: no such endpoint, or no such delivery to go on from.
        """
        place = (WebhookDeliveryRow.created_at, WebhookDeliveryRow.id)
        chosen = select(WebhookDeliveryRow).where(
            WebhookDeliveryRow.tenant_id == tenant_id,
            WebhookDeliveryRow.endpoint_id == endpoint_id,
        )
        if states:
            chosen = chosen.where(WebhookDeliveryRow.state.in_([one.value for one in states]))
        with self._database.reading() as session:
            _found(session, tenant_id, endpoint_id)
            if before is not None:
                last = _delivery_row(session, tenant_id, endpoint_id, before)
                earlier = WebhookDeliveryRow.created_at < last.created_at
                same = and_(
                    WebhookDeliveryRow.created_at == last.created_at,
                    WebhookDeliveryRow.id < last.id,
                )
                chosen = chosen.where(or_(earlier, same))
            newest = chosen.order_by(*(column.desc() for column in place)).limit(limit)
            return [_delivery(row) for row in session.scalars(newest)]

    def replay(self, tenant_id: str, endpoint_id: str, delivery_id: str) -> Delivery:
        """Send a message again, as a delivery of its own; its message id stays the same.

        Raises:
            InvalidInput: the endpoint is disabled.
            NotStored: no such endpoint or delivery.
        """
        now = self._clock()
        with self._database.writing() as session:
            endpoint = _found(session, tenant_id, endpoint_id)
            if endpoint.state != EndpointState.ACTIVE:
                raise InvalidInput(f"Webhook {endpoint_id} is disabled. Make it active first.")
            old = _delivery_row(session, tenant_id, endpoint_id, delivery_id)
            kind = EventKind(old.event)
            again = WebhookDeliveryRow(
                **_first(tenant_id, endpoint_id, old.message_id, kind, old.body, now)
            )
            session.add(again)
            session.flush()
            told = _delivery(again)
        self._wake()
        return told

    # For senders

    def take(self, limit: int) -> list[Call]:
        """Deliveries that are due, each for this sender alone while its lease lasts."""
        now = self._clock()
        free = or_(_DELIVERIES.c.leased_until.is_(None), _DELIVERIES.c.leased_until <= now)
        due = and_(
            _DELIVERIES.c.state == DeliveryState.PENDING.value, _DELIVERIES.c.due_at <= now, free
        )
        with self._database.reading() as session:  # most looks find nothing and need no turn
            if session.execute(select(_DELIVERIES.c.id).where(due).limit(1)).first() is None:
                return []
        with self._database.writing() as session:
            chosen = select(WebhookDeliveryRow).where(due).order_by(WebhookDeliveryRow.due_at)
            rows = list(session.scalars(chosen.limit(limit).with_for_update(skip_locked=True)))
            calls = []
            for row in rows:
                endpoint = session.get(WebhookEndpointRow, (row.tenant_id, row.endpoint_id))
                if endpoint is None or endpoint.state != EndpointState.ACTIVE:
                    row.state, row.error, row.ended_at = DeliveryState.FAILED, "disabled", now
                    continue
                row.leased_until = now + LEASE
                calls.append((row, endpoint))
        return [Call(_delivery(row), end.url, self._secrets(end, now)) for row, end in calls]

    def ended(self, call: Call, outcome: Outcome) -> DeliveryState:
        """Write down what came of a call; plans the next attempt, or gives up.

        An endpoint that answers 410, or has done nothing but fail for days, is called no more.
        """
        taken = call.delivery
        now = self._clock()
        with self._database.writing() as session:
            row = session.get(WebhookDeliveryRow, (taken.tenant_id, taken.id))
            endpoint = session.get(WebhookEndpointRow, (taken.tenant_id, taken.endpoint_id))
            if row is None or endpoint is None or row.state != DeliveryState.PENDING:
                return DeliveryState.FAILED  # deleted meanwhile, or another sender was faster
            row.attempts += 1
            row.status, row.error, row.leased_until = outcome.status, outcome.error, None
            if outcome.error is None:
                row.state, row.ended_at = DeliveryState.DELIVERED, now
                endpoint.failing_since = None
                return DeliveryState.DELIVERED
            endpoint.failing_since = endpoint.failing_since or now
            is_gone = outcome.status == 410
            if is_gone or now - endpoint.failing_since >= GIVE_UP_ON_ENDPOINT:
                endpoint.state = EndpointState.DISABLED
                endpoint.disabled_reason = "gone" if is_gone else "failing"
            if endpoint.state != EndpointState.ACTIVE or row.attempts > len(PAUSES):
                row.state, row.ended_at = DeliveryState.FAILED, now
                return DeliveryState.FAILED
            pause = PAUSES[row.attempts - 1]
            row.due_at = now + pause * (1 + _JITTER * random.random())
            return DeliveryState.PENDING

    def forget_before(self, moment: datetime) -> int:
        """Remove deliveries that ended before a moment; says how many."""
        old = and_(_DELIVERIES.c.ended_at.is_not(None), _DELIVERIES.c.ended_at < moment)
        with self._database.writing() as session:
            gone = session.execute(delete(_DELIVERIES).where(old).returning(_DELIVERIES.c.id))
            return len(gone.all())

    def _secrets(self, endpoint: WebhookEndpointRow, now: datetime) -> tuple[str, ...]:
        sealed = [endpoint.sealed_secret]
        until = endpoint.old_secret_until
        if endpoint.sealed_old_secret is not None and until is not None and until > now:
            sealed.append(endpoint.sealed_old_secret)
        name = f"{endpoint.id}/secret"
        return tuple(
            self._keys.open(endpoint.tenant_id, endpoint.id, name, one).decode() for one in sealed
        )

    def _sealed(self, tenant_id: str, endpoint_id: str, secret: str) -> bytes:
        return self._keys.seal(tenant_id, endpoint_id, f"{endpoint_id}/secret", secret.encode())


def _found(
    session: Session, tenant_id: str, endpoint_id: str, lock: bool = False
) -> WebhookEndpointRow:
    row = session.get(WebhookEndpointRow, (tenant_id, endpoint_id), with_for_update=lock or None)
    if row is None:
        raise NotStored(f"There is no webhook {endpoint_id[:80]!r} here.")
    return row


def _delivery_row(
    session: Session, tenant_id: str, endpoint_id: str, delivery_id: str
) -> WebhookDeliveryRow:
    row = session.get(WebhookDeliveryRow, (tenant_id, delivery_id))
    if row is None or row.endpoint_id != endpoint_id:
        raise NotStored(f"There is no delivery {delivery_id[:80]!r} here.")
    return row


def _sent_to(tenant_id: str, endpoint_id: str) -> Any:
    return and_(_DELIVERIES.c.tenant_id == tenant_id, _DELIVERIES.c.endpoint_id == endpoint_id)


def _first(
    tenant_id: str, endpoint_id: str, message_id: str, kind: EventKind, body: str, now: datetime
) -> dict[str, Any]:
    return {
        "tenant_id": tenant_id,
        "id": new_id("delivery"),
        "endpoint_id": endpoint_id,
        "message_id": message_id,
        "event": kind.value,
        "body": body,
        "state": DeliveryState.PENDING.value,
        "created_at": now,
        "due_at": now,
        "attempts": 0,
    }


def _check(url: str, events: Collection[str], description: str) -> None:
    known = {kind.value for kind in EventKind}
    problem = None
    if not 1 <= len(url) <= MAX_URL_CHARACTERS:
        problem = f"its url has {len(url)} characters (1 to {MAX_URL_CHARACTERS})"
    elif not events or not known.issuperset(events):
        problem = f"its events are {sorted(events)}; choose from {', '.join(sorted(known))}"
    elif len(description) > MAX_DESCRIPTION_CHARACTERS:
        problem = f"its description is longer than {MAX_DESCRIPTION_CHARACTERS} characters"
    if problem is not None:
        raise InvalidInput(f"The webhook was not accepted: {problem}.")


def _endpoint(row: WebhookEndpointRow) -> Endpoint:
    return Endpoint(
        tenant_id=row.tenant_id,
        id=row.id,
        url=row.url,
        description=row.description,
        events=tuple(EventKind(kind) for kind in row.events),
        state=EndpointState(row.state),
        created_at=row.created_at,
        failing_since=row.failing_since,
        disabled_reason=row.disabled_reason,
    )


def _delivery(row: WebhookDeliveryRow) -> Delivery:
    return Delivery(
        tenant_id=row.tenant_id,
        id=row.id,
        endpoint_id=row.endpoint_id,
        message_id=row.message_id,
        event=EventKind(row.event),
        body=row.body,
        state=DeliveryState(row.state),
        created_at=row.created_at,
        due_at=row.due_at,
        attempts=row.attempts,
        status=row.status,
        error=row.error,
        ended_at=row.ended_at,
    )
