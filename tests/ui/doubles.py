"""Stand-ins for what the page needs of models: slow paint, so that there is something to watch."""

from __future__ import annotations

import time
from collections.abc import Sequence
from pathlib import Path

from imagine.backends import RowState
from imagine.backends.fake import FakeBackend

SECONDS_PER_STEP = 0.1


class SlowFakeBackend(FakeBackend):
    """Paints like the fake one, and takes its time."""

    @classmethod
    def load(cls, source: Path | None = None, device: str = "cpu") -> SlowFakeBackend:
        return cls(device)

    def denoise_step(self, states: Sequence[RowState]) -> list[RowState]:
        time.sleep(SECONDS_PER_STEP)
        return super().denoise_step(states)
