"""How often somebody may ask, and the headers that say how often is left.

Counts live in this process: several processes behind one address each allow their own share.
"""

from __future__ import annotations

import math
import threading
import time
from collections import OrderedDict
from collections.abc import Callable, Mapping
from dataclasses import dataclass

from imagine.errors import InvalidInput, RateLimited

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


class RateLimiter:
    """A bucket for each name, refilled at a steady rate. Safe to use from many threads."""

    def __init__(self, quota: Quota, clock: Callable[[], float] = time.monotonic) -> None:
        self.quota = quota
        self._clock = clock
        self._lock = threading.Lock()
        self._full_at: OrderedDict[str, float] = OrderedDict()

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
        spent_seconds = full_at - now
        left = (self.quota.window_seconds - spent_seconds) / seconds_each
        wait = 0.0 if allowed else spent_seconds + seconds_each - self.quota.window_seconds
        return Allowance(self.quota, max(0, math.floor(left + 1e-6)), spent_seconds, wait)


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
