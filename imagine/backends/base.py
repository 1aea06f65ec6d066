"""The contract of an image model, shaped so that an engine can batch over steps.

A backend turns a request into a state, moves many states one denoising step at a time (rows may
stand at different steps and belong to different people), and turns a finished state into pixels.
"""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, ClassVar, Protocol, runtime_checkable

from imagine.core import FloatArray, ImageArray, Request
from imagine.errors import InvalidInput


@dataclass(frozen=True, slots=True)
class BackendInfo:
    """What a caller may know about a loaded backend.

    Attributes:
        name: the registry name.
        model_revision: short content hash or version of the weights.
        licence: SPDX expression of the weights.
        image_size: height and width of its pictures, pixels.
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
