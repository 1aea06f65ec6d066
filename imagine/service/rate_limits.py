"""How often somebody may ask, and the headers that say how often is left.

`RateLimiter` counts in this process. Where several processes answer for one address,
`SharedRateLimiter` keeps the counts in their database (`storage/rate_counts.py`): each process
takes a few requests from a bucket at a time and serves those without asking anybody.
"""

from __future__ import annotations

import math
import threading
import time
from collections import OrderedDict
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from typing import Protocol

from imagine.errors import InvalidInput, RateLimited
from imagine.storage.rate_counts import RateCounts

_SHARE = 30  # a process takes this part of a quota at a time, at least one request
_HELD_SECONDS = 1.0  # what it took and did not use goes back when it next asks
_MOST_BUCKETS = 10_000  # of keys and addresses remembered at once; the longest unseen go first


@dataclass(frozen=True, slots=True)
class Quota:
    """So many requests in so many seconds, all at once or spread."""

    name: str
    requests: int
    window_seconds: float = 60.0

    def __post_init__(self) -> None:
        if self.requests < 1 or self.window_seconds <= 0:
            raise InvalidInput(
                f"The quota {self.name!r} allows {self.requests} requests in "
                f"{self.window_seconds:g} s; it must allow at least one in a time above 0."
            )

    @property
    def policy(self) -> str:
        """As in the header RateLimit-Policy."""
        return f'"{self.name}";q={self.requests};w={math.ceil(self.window_seconds)}'


@dataclass(frozen=True, slots=True)
class Allowance:
    """What is left to somebody after a request.

    Attributes:
        quota: the rule.
        remaining: whole requests left now; negative never.
        reset_seconds: until all of the quota is there again.
        retry_after_seconds: until the next request is allowed; 0 when it was.
    """

    quota: Quota
    remaining: int
    reset_seconds: float
    retry_after_seconds: float

    @property
    def is_allowed(self) -> bool:
        """Whether the request may be answered."""
        return self.retry_after_seconds == 0.0


class Limiter(Protocol):
    """Counts the requests of everybody, each name by itself."""

    def take(self, name: str) -> Allowance:
        """Count a request of `name`, unless it is refused."""

    def is_at_once(self, name: str) -> bool:
        """Whether `take` would answer without asking a database."""


class RateLimiter:
    """A bucket for each name, refilled at a steady rate. Safe to use from many threads."""

    def __init__(self, quota: Quota, clock: Callable[[], float] = time.monotonic) -> None:
        self.quota = quota
        self._clock = clock
        self._lock = threading.Lock()
        self._full_at: OrderedDict[str, float] = OrderedDict()

    def is_at_once(self, name: str) -> bool:
        """Always: everything is in memory."""
        return True

    def take(self, name: str) -> Allowance:
        """Count a request of `name`, unless it is refused.

        Source: the generic cell rate algorithm, ITU-T I.371, in its virtual scheduling form.
        """
        seconds_each = self.quota.window_seconds / self.quota.requests
        now = self._clock()
        with self._lock:
            full_at = max(self._full_at.get(name, now), now)
            # A hair more than the window, so that sums of floats do not cost a request.
            allowed = full_at - now + seconds_each <= self.quota.window_seconds * (1 + 1e-9)
            if allowed:
                full_at += seconds_each
                self._full_at[name] = full_at
                self._full_at.move_to_end(name)
                while len(self._full_at) > _MOST_BUCKETS:
                    self._full_at.popitem(last=False)
        return _allowance(self.quota, full_at - now, allowed)


@dataclass(slots=True)
class _Held:
    """What this process has taken of a bucket and not yet used."""

    requests: int
    until: float  # monotonic
    spent_seconds: float  # of the bucket, when it was asked, without what is held


class SharedRateLimiter:
    """Buckets in a database, for all processes together. Safe to use from many threads.

    Which process gets the last requests of a bucket is a matter of chance, but no more than the
    quota is ever given out.
    """

    def __init__(
        self, quota: Quota, counts: RateCounts, clock: Callable[[], float] = time.monotonic
    ) -> None:
        self.quota = quota
        self._counts = counts
        self._clock = clock
        self._lock = threading.Lock()
        self._held: OrderedDict[str, _Held] = OrderedDict()
        self._seconds_each = quota.window_seconds / quota.requests

    def is_at_once(self, name: str) -> bool:
        """Whether some requests of this bucket are at hand."""
        with self._lock:
            held = self._held.get(name)
            return held is not None and held.requests > 0 and held.until >= self._clock()

    def take(self, name: str) -> Allowance:
        """Count a request of `name`, unless it is refused.

        Raises:
            DatabaseUnusable: the counts cannot be reached.
        """
        at_hand = self._from_hand(name)
        if at_hand is not None:
            return at_hand
        with self._lock:
            old = self._held.pop(name, None)
        back = 0.0 if old is None else old.requests * self._seconds_each
        quota = self.quota
        granted, spent = self._counts.reserve(
            f"{quota.name}/{name}",
            max(1, quota.requests // _SHARE),
            self._seconds_each,
            quota.window_seconds,
            back,
        )
        if granted == 0:
            return _allowance(quota, spent, False)
        spare = granted - 1
        spent -= spare * self._seconds_each
        with self._lock:
            known = self._held.get(name)  # another thread may have asked meanwhile
            requests = spare + (known.requests if known is not None else 0)
            self._held[name] = _Held(requests, self._clock() + _HELD_SECONDS, spent)
            while len(self._held) > _MOST_BUCKETS:
                self._held.popitem(last=False)
        return _allowance(quota, spent, True)

    def _from_hand(self, name: str) -> Allowance | None:
        with self._lock:
            held = self._held.get(name)
            if held is None or held.requests < 1 or held.until < self._clock():
                return None
            held.requests -= 1
            held.spent_seconds += self._seconds_each
            return _allowance(self.quota, held.spent_seconds, True)


def _allowance(quota: Quota, spent_seconds: float, is_allowed: bool) -> Allowance:
    """What to tell of a bucket of which so many seconds of refilling are spent."""
    seconds_each = quota.window_seconds / quota.requests
    left = (quota.window_seconds - spent_seconds) / seconds_each
    wait = 0.0 if is_allowed else max(1e-3, spent_seconds + seconds_each - quota.window_seconds)
    return Allowance(quota, max(0, math.floor(left + 1e-6)), spent_seconds, wait)


def rate_headers(allowances: tuple[Allowance, ...]) -> Mapping[str, str]:
    """The headers of an answer: those of the IETF draft, and the older ones clients know.

    Source: draft-ietf-httpapi-ratelimit-headers-11; the older names are OpenAI's.
    """
    if not allowances:
        return {}
    tightest = min(allowances, key=lambda a: (a.remaining, -a.reset_seconds))
    limits = (
        f'"{a.quota.name}";r={a.remaining};t={math.ceil(a.reset_seconds)}' for a in allowances
    )
    return {
        "RateLimit-Policy": ", ".join(a.quota.policy for a in allowances),
        "RateLimit": ", ".join(limits),
        "x-ratelimit-limit-requests": str(tightest.quota.requests),
        "x-ratelimit-remaining-requests": str(tightest.remaining),
        "x-ratelimit-reset-requests": f"{math.ceil(tightest.reset_seconds)}s",
    }


def refuse(allowance: Allowance, whose: str) -> RateLimited:
    """The error for a request too many."""
    quota = allowance.quota
    return RateLimited(
        f"{whose} may ask {quota.requests} times in {quota.window_seconds:g} seconds and has done "
        f"so. Try again in {max(1, math.ceil(allowance.retry_after_seconds))} seconds.",
        allowance.retry_after_seconds,
    )
