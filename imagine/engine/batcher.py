"""Who steps next. Pure: facts about the requests in, positions out."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from enum import IntEnum
from itertools import pairwise

LEAST_SAVING = 0.05  # of the time of a row; where twice the rows save less, passes stay small
TRUSTED_PASSES = 8  # passes of a size before its time is believed


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


@dataclass
class PassTimes:
    """How long passes take by the number of their rows, to find out how many are worth it.

    A pass of more rows lets everybody in it wait for the others; that pays only while a row
    becomes cheaper by it. On a GPU that goes on for long, on two cores it soon ends.
    """

    _known: dict[tuple[object, ...], dict[int, tuple[int, float]]] = field(default_factory=dict)

    def record(self, key: tuple[object, ...], rows: int, seconds: float) -> None:
        """Learn from a pass; `key` is its rows' batch key."""
        sizes = self._known.setdefault(key, {})
        count, per_row = sizes.get(_size(rows), (0, 0.0))
        weight = max(1.0 / (count + 1), 1.0 / TRUSTED_PASSES)  # old figures fade
        sizes[_size(rows)] = count + 1, per_row + weight * (seconds / rows - per_row)

    def useful_rows(self, key: tuple[object, ...], most: int) -> int:
        """Rows beyond which a pass only takes longer, at most `most`."""
        sizes = self._known.get(key, {})
        trusted = sorted(size for size, (count, _) in sizes.items() if count >= TRUSTED_PASSES)
        for small, large in pairwise(trusted):
            wanted = sizes[small][1] * (1.0 - LEAST_SAVING) ** (large - small)
            if sizes[large][1] > wanted:
                return min(1 << small, most)
        return most


def _size(rows: int) -> int:
    """Exponent of the power of two that holds so many rows."""
    return (rows - 1).bit_length()


def choose_rows(
    entries: Sequence[Entry],
    service: Mapping[str, float],
    now: float,
    max_forward_rows: int,
    ageing_seconds: float,
    useful_rows: Callable[[tuple[object, ...]], int] | None = None,
) -> list[int]:
    """Positions of the requests that take the next step together, most urgent first.

    The most urgent request names the batch key; the rest of the pass is filled with requests of
    that key. Urgency is the priority class, one better for every `ageing_seconds` waited (so a
    steady stream of interactive requests starves nobody), then the tenant that has had the least
    service, then the nearest deadline, then the order of arrival: shortest first would help the
    mean by a twentieth and p95 not at all (training/LOG.md). The head always runs, even when it
    alone needs more rows than allowed.

    Args:
        entries: unfinished requests.
        service: forward rows each tenant has been given so far.
        now: the engine's clock.
        max_forward_rows: rows of one pass.
        ageing_seconds: wait that is worth one priority class.
        useful_rows: batch key -> rows worth taking; None takes as many as allowed.
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
            if useful_rows is not None:
                max_forward_rows = min(max_forward_rows, useful_rows(key))
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
