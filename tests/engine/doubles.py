"""A backend whose every step waits for the test, and can be told to fail."""

from __future__ import annotations

import threading
from collections.abc import Callable, Sequence
from dataclasses import dataclass, replace

import numpy as np

from imagine.backends import BackendInfo, RowState
from imagine.backends.fake import FakeBackend
from imagine.core import ImageArray, Request
from tests.doubles import double_crops


def wish(seed: int = 0, steps: int = 3, prompt: str = "in a forest", person: int = 0) -> Request:
    return Request(prompt, double_crops(person), seed, steps, 2.0, 0.7)


@dataclass(frozen=True)
class Count:
    """A picture that is only a number growing by one a step."""

    seed: int
    step: int
    num_steps: int
    key: str
    rows: int = 1
    value: float = 0.0

    @property
    def batch_key(self) -> tuple[object, ...]:
        return ("count", self.key)


class CountingBackend:
    """Counts steps; the prompt is the batch key, the guidance scale the forward rows."""

    def __init__(self) -> None:
        self.passes: list[list[int]] = []
        self.before_step: Callable[[Sequence[Count]], None] = lambda states: None
        self.before_prepare: Callable[[Request], None] = lambda request: None

    @classmethod
    def load(cls, source: object = None, device: str = "cpu") -> CountingBackend:
        return cls()

    @property
    def info(self) -> BackendInfo:
        return replace(FakeBackend().info, name="counting")

    def prepare(self, request: Request) -> Count:
        self.before_prepare(request)
        return Count(
            request.seed,
            0,
            request.num_inference_steps,
            request.prompt,
            int(request.guidance_scale),
        )

    def forward_rows(self, state: RowState) -> int:
        assert isinstance(state, Count)
        return state.rows

    def denoise_step(self, states: Sequence[RowState]) -> list[RowState]:
        counts = [state for state in states if isinstance(state, Count)]
        self.passes.append([state.seed for state in counts])
        self.before_step(counts)
        return [
            replace(state, step=state.step + 1, value=state.value + state.seed) for state in counts
        ]

    def is_finite(self, state: RowState) -> bool:
        assert isinstance(state, Count)
        return bool(np.isfinite(state.value))

    def preview(self, state: RowState) -> ImageArray:
        return self.decode(state)

    def decode(self, state: RowState) -> ImageArray:
        assert isinstance(state, Count)
        return np.full((128, 128, 3), state.step, dtype=np.uint8)


class Gate:
    """Holds every pass until the test lets it go."""

    def __init__(self) -> None:
        self._free = threading.Semaphore(0)
        self._reached = threading.Semaphore(0)

    def __call__(self, states: Sequence[Count]) -> None:
        self._reached.release()
        assert self._free.acquire(timeout=10)

    def wait(self) -> None:
        """Until the engine stands before a pass."""
        assert self._reached.acquire(timeout=10)

    def let(self, passes: int = 1) -> None:
        """Allow so many passes."""
        self._free.release(passes)


def counting_wish(seed: int, steps: int = 2, key: str = "a", rows: int = 1) -> Request:
    return Request(key, None, seed, steps, float(rows), 0.7)


__all__ = ["Count", "CountingBackend", "Gate", "counting_wish", "wish"]
