"""The contract of an image model, shaped so that an engine can batch over steps.

A backend turns a request into a state, moves many states one denoising step at a time (rows may
stand at different steps and belong to different people), and turns a finished state into pixels.
"""

from __future__ import annotations

import re
from abc import ABC, abstractmethod
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from math import log
from pathlib import Path
from typing import Any, ClassVar, Protocol, runtime_checkable

from imagine.core import SQUARE, FloatArray, ImageArray, Request
from imagine.errors import InvalidInput

# What people ask for beside squares, width to height.
ASPECT_RATIOS = ("3:4", "4:3", "2:3", "3:2", "9:16", "16:9")
# A model draws in blocks of pixels; a size further than this from a ratio is not called by it.
NEAR_ENOUGH = 0.07
_RATIO = re.compile(r"([1-9][0-9]?):([1-9][0-9]?)")


@dataclass(frozen=True, slots=True)
class BackendInfo:
    """What a caller may know about a loaded backend.

    Attributes:
        name: the registry name.
        model_revision: short content hash or version of the weights.
        licence: SPDX expression of the weights.
        image_size: height and width of its square pictures, pixels.
        default_steps: denoising steps when the caller names none.
        default_guidance_scale: text guidance when the caller names none.
        device: "cpu", "cuda", ...
        conditioned_by: the face recogniser whose vectors shape its pictures, as named in
            FACE_ENCODERS; likeness must be judged by another. None where no recogniser takes part.
        default_guidance_interval: share of the schedule in which guidance works when the caller
            names none.
        traits: how switched traits are obeyed: "trained", by conditions measured on held-out people
            (training/LOG.md), or "words", by words added to the prompt and nothing more.
        draws_two: whether `Request.beside` is understood; where not, such a request is refused.
        other_sizes: aspect ratio, such as "3:4", -> height and width of pictures that are no
            squares, pixels; `sizes` has the square as well.
        pair_size: height and width of a picture of two people; None where none is drawn.
    """

    name: str
    model_revision: str
    licence: str
    image_size: tuple[int, int]
    default_steps: int
    default_guidance_scale: float
    device: str
    conditioned_by: str | None = None
    default_guidance_interval: tuple[float, float] = (0.0, 1.0)
    traits: str = "words"
    draws_two: bool = False
    other_sizes: Mapping[str, tuple[int, int]] = field(default_factory=dict)
    pair_size: tuple[int, int] | None = None

    @property
    def sizes(self) -> Mapping[str, tuple[int, int]]:
        """Aspect ratio -> height and width in pixels, of everything offered; the square first."""
        return {SQUARE: self.image_size, **self.other_sizes}

    def size_of(self, aspect_ratio: str, *, two: bool = False) -> tuple[int, int]:
        """Height and width of a picture of that shape, pixels.

        Args:
            aspect_ratio: width to height, such as "3:4".
            two: whether two people are to be on it.

        Raises:
            InvalidInput: not offered; the message lists what is.
        """
        if two:
            if aspect_ratio != SQUARE:
                raise InvalidInput(
                    f"aspect_ratio is {aspect_ratio[:20]!r}, but two people are drawn in one shape "
                    f"only{_by(self.pair_size)}. Leave it out."
                )
            return self.pair_size or self.image_size
        if aspect_ratio not in self.sizes:
            raise InvalidInput(
                f"aspect_ratio is {aspect_ratio[:20]!r}, which the backend {self.name!r} does not "
                f"draw. Choose one of: {self.sizes_in_words()}."
            )
        return self.sizes[aspect_ratio]

    def ratio_of(self, width: int, height: int) -> str:
        """The aspect ratio whose pictures have exactly this size in pixels.

        Raises:
            InvalidInput: none has; the message lists the sizes there are.
        """
        for aspect_ratio, size in self.sizes.items():
            if size == (height, width):
                return aspect_ratio
        raise InvalidInput(
            f"The backend {self.name!r} draws no pictures of {width}x{height} pixels. Choose one "
            f"of: {self.sizes_in_words()}."
        )

    def sizes_in_words(self) -> str:
        """What is offered, as "1:1 (128x128), 3:4 (96x128)", width first."""
        return ", ".join(
            f"{aspect_ratio} ({width}x{height})"
            for aspect_ratio, (height, width) in self.sizes.items()
        )


class RowState(Protocol):
    """One picture in the making; everything else about it belongs to its backend."""

    @property
    def step(self) -> int:
        """Denoising steps done so far."""

    @property
    def num_steps(self) -> int:
        """Denoising steps in all."""

    @property
    def batch_key(self) -> tuple[object, ...]:
        """Rows with equal keys may share a forward pass."""


@runtime_checkable
class Backend(Protocol):
    """An image model that draws a person in a scene."""

    @classmethod
    def load(cls, source: Path | None = None, device: str = "cpu") -> Backend:
        """Load weights from a folder, or the backend's own default place.

        Raises:
            MissingWeights: nothing there; the message names the command that gets them.
            CorruptWeights: something there that cannot be used.
        """

    @property
    def info(self) -> BackendInfo:
        """Facts about the loaded model."""

    def prepare(self, request: Request) -> RowState:
        """Encode prompt and person once, draw the seed's noise, stand at step 0."""

    def denoise_step(self, states: Sequence[RowState]) -> list[RowState]:
        """Move every row one step; rows may stand at different steps.

        All rows must share one `batch_key` and none may be finished. Rows come back in order;
        the given states are not changed, so a caller may retry.
        """

    def decode(self, state: RowState) -> ImageArray:
        """Pixels of a state, (height, width, 3) uint8 RGB; mid-way states give a preview."""

    def preview(self, state: RowState) -> ImageArray:
        """A cheap look at a state under way, (h, w, 3) uint8 RGB of any size."""

    def forward_rows(self, state: RowState) -> int:
        """How many rows of the forward pass the next step of this state takes, at least 1."""

    def is_finite(self, state: RowState) -> bool:
        """Whether the state holds numbers only; NaN or infinity cannot become a picture."""


@runtime_checkable
class PersonEncoder(Protocol):
    """A backend whose work on a person can be kept for the next request of that person."""

    def encode_person(self, crops: ImageArray) -> object:
        """What `prepare` would compute from the crops; its `nbytes` says how large it is."""

    def prepare(self, request: Request, person: object | None = None) -> RowState:
        """As `Backend.prepare`, with the person already encoded."""


@runtime_checkable
class PairEncoder(PersonEncoder, Protocol):
    """A person encoder that draws two people in one picture."""

    def prepare(
        self, request: Request, person: object | None = None, beside: object | None = None
    ) -> RowState:
        """As `Backend.prepare`, with both people already encoded."""


def sizes_by_blocks(
    side: int, block: int, aspect_ratios: Sequence[str] = ASPECT_RATIOS
) -> dict[str, tuple[int, int]]:
    """Sizes for a model that was taught on squares and draws in whole blocks.

    None has more pixels than the square, so whatever holds the square in memory holds them all.
    At 1024 pixels in blocks of 64 they are those SDXL was taught on (arXiv 2307.01952, appendix I).

    Args:
        side: of the square, pixels.
        block: sides are multiples of this, pixels.
        aspect_ratios: wanted, width to height.

    Returns:
        Aspect ratio -> height and width; without ratios that no size comes near to, or that come
        out as another ratio which is nearer.
    """
    shorter = range(block, side, block)
    upright = [(side * side // width // block * block, width) for width in shorter]
    lying = [(width, height) for height, width in upright]
    nearest: dict[tuple[int, int], tuple[float, str]] = {}
    for aspect_ratio in aspect_ratios:
        across, down = shape_of(aspect_ratio)
        errors = [
            (abs(log(width / height / (across / down))), (height, width))
            for height, width in (upright if across < down else lying)
        ]
        error, size = min(errors, default=(NEAR_ENOUGH, (0, 0)))
        if error < min(NEAR_ENOUGH, nearest.get(size, (NEAR_ENOUGH, ""))[0]):
            nearest[size] = (error, aspect_ratio)
    return {aspect_ratio: size for size, (_, aspect_ratio) in nearest.items()}


def shape_of(aspect_ratio: str) -> tuple[int, int]:
    """Width and height of "3:4" as whole numbers.

    Raises:
        InvalidInput: not of this form.
    """
    found = _RATIO.fullmatch(aspect_ratio) if isinstance(aspect_ratio, str) else None
    if found is None:
        raise InvalidInput(
            f"aspect_ratio is {repr(aspect_ratio)[:20]}; it must be width to height, such as '3:4'."
        )
    return int(found[1]), int(found[2])


def _by(size: tuple[int, int] | None) -> str:
    return f", {size[1]}x{size[0]} pixels" if size else ""


def refuse_two(info: BackendInfo) -> None:
    """Refuse two people where a backend draws one.

    Raises:
        InvalidInput: names the backend.
    """
    if not info.draws_two:
        raise InvalidInput(
            f"The backend {info.name!r} draws one person in a picture and cannot put a second "
            "one beside. Leave `beside` out, or choose the backend 'embedded'."
        )


class FaceConditioned(ABC):
    """A backend that draws from a face recogniser's embedding, which is handed to it.

    Attributes:
        conditioned_by: name of that recogniser in `FACE_ENCODERS`; it may not judge likeness.
    """

    conditioned_by: ClassVar[str]

    @classmethod
    @abstractmethod
    def load(
        cls,
        source: Path | None = None,
        device: str = "cpu",
        *,
        embed_crops: Callable[[ImageArray], FloatArray] | None = None,
    ) -> Any:
        """As `Backend.load`; `embed_crops` maps (photos, s, s, 3) uint8 to (photos, d)."""


def is_out_of_memory(error: BaseException) -> bool:
    """Whether a library says that the device, or the machine, has no room left."""
    # torch raises OutOfMemoryError on CUDA and a bare RuntimeError from its CPU allocator.
    return (
        isinstance(error, MemoryError)
        or type(error).__name__ == "OutOfMemoryError"
        or (isinstance(error, RuntimeError) and "allocate memory" in str(error))
    )


def draw_alone(backend: Backend, request: Request) -> ImageArray:
    """One picture from the first step to the last, with nobody else's in the same pass."""
    state = backend.prepare(request)
    while state.step < state.num_steps:
        (state,) = backend.denoise_step([state])
    return backend.decode(state)
