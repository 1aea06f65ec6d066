"""Who steps next. Pure: facts about the requests in, positions out."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from enum import IntEnum


class Priority(IntEnum):
    """How urgent a request is; smaller goes first."""

    INTERACTIVE = 0
    NORMAL = 1
    BATCH = 2


@dataclass(frozen=True, slots=True)
class Entry:
    """What the batcher knows of a request.

    Attributes:
        number: order of arrival.
        tenant: who pays; tenants of one class get equal shares of the forward rows.
        priority: class of the request.
        submitted: when it came, seconds of the engine's clock.
        deadline: when its result is worthless, same clock, or None.
        batch_key: requests with equal keys may share a forward pass.
        forward_rows: rows its next step takes.
    """

    number: int
    tenant: str
    priority: Priority
    submitted: float
    deadline: float | None
    batch_key: tuple[object, ...]
    forward_rows: int


def choose_rows(
    entries: Sequence[Entry],
    service: Mapping[str, float],
    now: float,
    max_forward_rows: int,
    ageing_seconds: float,
) -> list[int]:
    """Positions of the requests that take the next step together, most urgent first.

    The most urgent request names the batch key; the rest of the pass is filled with requests of
    that key. Urgency is the priority class, one better for every `ageing_seconds` waited (so a
    steady stream of interactive requests starves nobody), then the tenant that has had the least
    service, then the nearest deadline, then the order of arrival. The head always runs, even
    when it alone needs more rows than allowed.

    Args:
        entries: unfinished requests.
        service: forward rows each tenant has been given so far.
        now: the engine's clock.
        max_forward_rows: rows of one pass.
        ageing_seconds: wait that is worth one priority class.
    """
    given = {entry.tenant: service.get(entry.tenant, 0.0) for entry in entries}
    left = set(range(len(entries)))
    chosen: list[int] = []
    rows, key = 0, None
    while left:
        best = min(left, key=lambda index: _urgency(entries[index], given, now, ageing_seconds))
        entry = entries[best]
        left.discard(best)
        if not chosen:
            key = entry.batch_key
        elif entry.batch_key != key or rows + entry.forward_rows > max_forward_rows:
            continue
        chosen.append(best)
        rows += entry.forward_rows
        given[entry.tenant] += entry.forward_rows
        if rows >= max_forward_rows:
            break
    return chosen


def _urgency(
    entry: Entry, given: Mapping[str, float], now: float, ageing_seconds: float
) -> tuple[int, float, float, int]:
    classes_waited = int((now - entry.submitted) / ageing_seconds)
    deadline = float("inf") if entry.deadline is None else entry.deadline
    return (
        max(entry.priority - classes_waited, 0),
        given[entry.tenant],
        deadline,
        entry.number,
    )


def welcome(service: dict[str, float], tenant: str, active: Sequence[str]) -> None:
    """Let a tenant who was away start level with the least served, not with a saved-up claim.

    Source: start-time fair queueing, Goyal et al. 1996, section 2.
    """
    floor = min((service[name] for name in active if name in service), default=0.0)
    service[tenant] = max(service.get(tenant, 0.0), floor)
