"""What reviewers' work looks like in figures: how much waits, why things were stopped, how long.

Counted from rows that name nobody. What a prompt was stopped for is read from the audit log, since
nothing else is kept of it.
"""

from __future__ import annotations

import json
from collections import Counter
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from datetime import date, datetime, timedelta
from statistics import median

from sqlalchemy import func, select

from imagine.storage.audit_log import AuditEntryRow
from imagine.storage.database import Database, utc_now
from imagine.storage.jobs import JobRow
from imagine.storage.reviews import Queue
from imagine.storage.tables import ReviewRow, WithheldRow

_MOST = 20_000  # rows of one question


@dataclass(frozen=True, slots=True)
class ReviewFigures:
    """Figures of one tenant over the last days.

    Attributes:
        days: oldest first.
        queued: of each queue, how many came on each day.
        decided: how many decisions were final.
        rulings: how they went.
        minutes: median minutes from coming in to the decision, by queue; only queues with any.
        late: decisions and open reviews past their time.
        asked: generations asked for, refused prompts included.
        refused_prompts: why prompts were refused, by category.
        held_back: why drawn pictures were held back, by check.
    """

    days: tuple[date, ...]
    queued: Mapping[Queue, tuple[int, ...]]
    decided: int
    rulings: Mapping[str, int]
    minutes: Mapping[Queue, float]
    late: int
    asked: int
    refused_prompts: Mapping[str, int] = field(default_factory=dict)
    held_back: Mapping[str, int] = field(default_factory=dict)


def review_figures(
    database: Database,
    tenant_id: str,
    days: int = 30,
    clock: Callable[[], datetime] = utc_now,
) -> ReviewFigures:
    """Count for one tenant; `days` includes today, in UTC."""
    now = clock()
    span = tuple(now.date() - timedelta(days=back) for back in reversed(range(days)))
    since = now - timedelta(days=days)
    columns = (
        ReviewRow.queue,
        ReviewRow.created_at,
        ReviewRow.decided_at,
        ReviewRow.due_at,
        ReviewRow.ruling,
    )
    mine = (ReviewRow.tenant_id == tenant_id, ReviewRow.created_at >= since)
    with database.reading() as session:
        rows = session.execute(select(*columns).where(*mine).limit(_MOST)).all()
        jobs = select(func.count()).where(JobRow.tenant_id == tenant_id, JobRow.created_at >= since)
        asked = session.scalar(jobs) or 0
        held = session.scalars(
            select(WithheldRow.checks)
            .where(WithheldRow.tenant_id == tenant_id, WithheldRow.created_at >= since)
            .limit(_MOST)
        ).all()
        told = session.scalars(
            select(AuditEntryRow.entry)
            .where(
                AuditEntryRow.tenant_id == tenant_id,
                AuditEntryRow.entry.contains('"kind":"prompt.blocked"'),
            )
            .order_by(AuditEntryRow.sequence.desc())
            .limit(_MOST)
        ).all()
    queued: dict[Queue, Counter[date]] = {queue: Counter() for queue in Queue}
    waited: dict[Queue, list[float]] = {}
    rulings: Counter[str] = Counter()
    late = 0
    for queue, created_at, decided_at, due_at, ruling in rows:
        queued[Queue(queue)][created_at.date()] += 1
        late += due_at is not None and (decided_at or now) > due_at
        if decided_at is not None and ruling is not None:
            rulings[ruling] += 1
            minutes = (decided_at - created_at).total_seconds() / 60
            waited.setdefault(Queue(queue), []).append(minutes)
    refused = _refusals(told, since)
    return ReviewFigures(
        days=span,
        queued={queue: tuple(found[day] for day in span) for queue, found in queued.items()},
        decided=sum(rulings.values()),
        rulings=rulings,
        minutes={queue: median(found) for queue, found in waited.items()},
        late=late,
        asked=asked + sum(refused.values()),
        refused_prompts=refused,
        held_back=Counter(_worst(checks) for checks in held),
    )


def _refusals(entries: object, since: datetime) -> Counter[str]:
    """Categories of refused prompts in entries of the audit log, newest first."""
    found: Counter[str] = Counter()
    assert isinstance(entries, list | tuple)
    for text in entries:
        facts = json.loads(text)
        if datetime.fromisoformat(facts["time"]) < since:
            break
        found[str(facts["details"].get("category", "unknown"))] += 1
    return found


def _worst(checks: Mapping[str, object]) -> str:
    """Name of the check that held a picture back."""
    told = checks.get("checks", {})
    named = told.items() if isinstance(told, Mapping) else ()
    for outcome in ("block", "review"):
        for name, one in named:
            if isinstance(one, Mapping) and one.get("outcome") == outcome:
                return str(name)
    return "removed"
