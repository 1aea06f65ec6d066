"""Time-boxes: training stops by the clock, so one command suits a laptop and a big GPU."""

from __future__ import annotations

import time


class Stopwatch:
    """Counts against a budget in seconds from the moment it is made."""

    def __init__(self, budget_seconds: float) -> None:
        self.budget_seconds = budget_seconds
        self._started = time.monotonic()

    @property
    def elapsed(self) -> float:
        """Seconds since the start."""
        return time.monotonic() - self._started

    @property
    def progress(self) -> float:
        """Share of the budget used, from 0 to 1."""
        return min(1.0, self.elapsed / self.budget_seconds)

    @property
    def is_over(self) -> bool:
        """Whether the budget is spent."""
        return self.elapsed >= self.budget_seconds
