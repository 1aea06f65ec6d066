"""How much a tenant asked for, day by day, from the jobs that are remembered."""

from __future__ import annotations

from collections import Counter
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from datetime import date, datetime, timedelta

from sqlalchemy import select

from imagine.storage.database import Database, utc_now
from imagine.storage.jobs import JobRow, JobState

_MOST_JOBS = 100_000  # of one question; more than that are no longer counted


@dataclass(frozen=True, slots=True)
class Day:
    """One day in UTC: how many generations ended how."""

    day: date
    states: Mapping[JobState, int] = field(default_factory=dict)

    @property
    def total(self) -> int:
        """All of them."""
        return sum(self.states.values())


class Usage:
    """Counts the jobs of a tenant."""

    def __init__(self, database: Database, clock: Callable[[], datetime] = utc_now) -> None:
        self._database = database
        self._clock = clock

    def by_day(self, tenant_id: str, days: int = 30) -> list[Day]:
        """The last days, oldest first, those without a generation too."""
        today = self._clock().date()
        first = today - timedelta(days=days - 1)
        start = self._clock() - timedelta(days=days)
        chosen = (
            select(JobRow.created_at, JobRow.state)
            .where(JobRow.tenant_id == tenant_id, JobRow.created_at >= start)
            .limit(_MOST_JOBS)
        )
        counts: dict[date, Counter[JobState]] = {}
        with self._database.reading() as session:
            for created_at, state in session.execute(chosen):
                counts.setdefault(created_at.date(), Counter())[JobState(state)] += 1
        return [
            Day(day, dict(counts.get(day, {})))
            for day in (first + timedelta(days=number) for number in range(days))
        ]
