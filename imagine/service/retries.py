"""Clients that send a request again because the answer was lost, and say so, get the first one.

The client of OpenAI repeats without an idempotency key, but counts its repeats in a header.
"""

from __future__ import annotations

import threading
import time
from collections import OrderedDict
from collections.abc import Callable

REMEMBERED_SECONDS = 600.0
_MOST = 10_000


class RecentRequests:
    """Which job a request began, by a digest of it; in memory, for some minutes."""

    def __init__(self, clock: Callable[[], float] = time.monotonic) -> None:
        self._clock = clock
        self._lock = threading.Lock()
        self._jobs: OrderedDict[str, tuple[float, str]] = OrderedDict()

    def remember(self, digest: str, job_id: str) -> None:
        """A request with this digest began this job."""
        with self._lock:
            self._jobs[digest] = (self._clock(), job_id)
            self._jobs.move_to_end(digest)
            while len(self._jobs) > _MOST:
                self._jobs.popitem(last=False)

    def job_of(self, digest: str) -> str | None:
        """The job that the same request began a moment ago."""
        with self._lock:
            since, job_id = self._jobs.get(digest, (0.0, ""))
        is_recent = bool(job_id) and self._clock() - since <= REMEMBERED_SECONDS
        return job_id if is_recent else None
