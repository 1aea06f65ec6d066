"""What the engine takes on: how much at once, from a memory model, and which figures of a request.

Every door asks here, so that a figure refused at one is refused at all in the same words.
"""

from __future__ import annotations

from dataclasses import dataclass
from math import isfinite

from imagine.core import Request
from imagine.errors import InvalidInput

MAX_STEPS = 200
MAX_GUIDANCE = 30.0
SEED_LIMIT = 2**63

WHOLE = {"num_inference_steps": (1, MAX_STEPS), "seed": (0, SEED_LIMIT - 1)}
NUMBERS = {"guidance_scale": (1.0, MAX_GUIDANCE), "likeness": (0.0, 1.0)}


@dataclass(frozen=True, slots=True)
class Limits:
    """Bounds that keep the engine from running out of memory, and when it looks at a picture.

    Attributes:
        max_forward_rows: most rows in one forward pass; a picture with guidance takes two or three.
        max_active: most pictures prepared at once; the rest wait as they came, without tensors.
        max_waiting: most pictures that wait; more are refused with a time to come back.
        preview_seconds: least time between two previews of one picture; None shows none.
        preview_size: longest side of a preview, pixels.
        ageing_seconds: after so long a wait a request counts as one priority class higher.
    """

    max_forward_rows: int = 16
    max_active: int = 32
    max_waiting: int = 256
    preview_seconds: float | None = None
    preview_size: int = 64
    ageing_seconds: float = 30.0

    def __post_init__(self) -> None:
        """Refuse limits under which nothing could run."""
        for name in ("max_forward_rows", "max_active", "max_waiting", "preview_size"):
            if getattr(self, name) < 1:
                raise InvalidInput(f"{name} is {getattr(self, name)}; it must be at least 1.")

    @classmethod
    def for_memory(
        cls,
        budget_bytes: int,
        bytes_per_forward_row: int,
        bytes_per_picture: int,
        max_forward_rows: int = 64,
    ) -> Limits:
        """Limits under which active pictures and one forward pass fit a memory budget.

        Half of the budget is for the activations of a forward pass, half for what prepared
        pictures hold between steps (latents, projected prompt and person).

        Args:
            budget_bytes: memory left after the weights are loaded.
            bytes_per_forward_row: peak activations of one row, measured or from the memory plan.
            bytes_per_picture: what one prepared picture keeps.
            max_forward_rows: more rows than this bring no speed.

        Raises:
            InvalidInput: not even one picture fits; the message says what is missing.
        """
        rows = budget_bytes // 2 // max(bytes_per_forward_row, 1)
        active = budget_bytes // 2 // max(bytes_per_picture, 1)
        if rows < 1 or active < 1:
            needed = 2 * max(bytes_per_forward_row, bytes_per_picture)
            raise InvalidInput(
                f"{budget_bytes / 1e9:.2f} GB is left for pictures and one needs "
                f"{needed / 1e9:.2f} GB. Choose smaller pictures, offload, or a bigger device."
            )
        return cls(
            max_forward_rows=int(min(rows, max_forward_rows)),
            max_active=int(min(active, 4 * max_forward_rows)),
        )


def check_figure(name: str, value: float) -> None:
    """Refuse a figure of a request that no picture can be made with.

    Args:
        name: of the field, one of WHOLE or NUMBERS.
        value: what was asked for.

    Raises:
        InvalidInput: names the figure, its value and its limits.
    """
    if name in WHOLE:
        check_whole(name, value, *WHOLE[name])
        return
    low, high = NUMBERS[name]
    is_number = isinstance(value, int | float) and not isinstance(value, bool)
    if not is_number or not isfinite(value) or not low <= value <= high:
        raise InvalidInput(f"{name} is {value!r}; it must be a number from {low:g} to {high:g}.")


def check_whole(name: str, value: float, low: int, high: int) -> None:
    """Refuse what is no whole number within its limits.

    Raises:
        InvalidInput: names the figure, its value and its limits.
    """
    # bool is an int to Python, and never meant as a number of anything
    if isinstance(value, bool) or not isinstance(value, int) or not low <= value <= high:
        raise InvalidInput(f"{name} is {value!r}; it must be a whole number, {low} to {high}.")


def check_interval(interval: tuple[float, float]) -> None:
    """Refuse a share of the schedule that is none.

    Raises:
        InvalidInput: not two numbers with 0 <= from <= until <= 1.
    """
    start, end = interval
    if not (isfinite(start) and isfinite(end) and 0.0 <= start <= end <= 1.0):
        raise InvalidInput(
            f"guidance_interval is {start:g} to {end:g}; it must lie within 0 to 1, such as "
            "(0.0, 0.5) for guidance in the first half."
        )


def check_request(request: Request) -> None:
    """Refuse figures no picture can be made with.

    Raises:
        InvalidInput: names the argument, its value and its limits.
    """
    for name in (*WHOLE, *NUMBERS):
        check_figure(name, getattr(request, name))
    check_interval(request.guidance_interval)
