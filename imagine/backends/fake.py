"""A backend without weights: it paints in milliseconds, and keeps every promise of the contract.

Tests and dry runs use it in place of the real models. The person is pasted from the selfies, so
that everything which looks for a face in the picture has one to find. It learns nothing and shows
nothing of what the real models can do.
"""

from __future__ import annotations

import hashlib
from collections.abc import Sequence
from dataclasses import dataclass, field, replace
from pathlib import Path

import numpy as np
from PIL import Image

from imagine.backends.base import BackendInfo, RowState, sizes_by_blocks
from imagine.core import FloatArray, ImageArray, Request
from imagine.errors import MissingWeights
from imagine.traits import with_traits

SIZE = 128  # side of the square pictures, pixels
SIZES = sizes_by_blocks(SIZE, 4)  # of the others


@dataclass(frozen=True, slots=True)
class FakeState:
    """One picture on its way from noise to paint.

    Attributes:
        latents: (height, width, 3) float32 in [-1, 1] and beyond; here they are pixels.
        target: (height, width, 3) float32 in [-1, 1], where the last step arrives.
        step: steps done.
        num_steps: steps in all.
        shows_person: whether a person is in the picture.
    """

    latents: FloatArray = field(repr=False)
    target: FloatArray = field(repr=False)
    step: int
    num_steps: int
    shows_person: bool

    @property
    def batch_key(self) -> tuple[object, ...]:
        """Pictures with and without a person do not share a pass, as in the real models."""
        return ("fake", self.shows_person, self.latents.shape)


class FakeBackend:
    """Paints colours chosen by the prompt, noise chosen by the seed, and the face of a selfie."""

    def __init__(self, device: str = "cpu") -> None:
        self._device = device

    @classmethod
    def load(cls, source: Path | None = None, device: str = "cpu") -> FakeBackend:
        """Be ready at once; a folder that does not exist is refused like a real backend would."""
        if source is not None and not source.is_dir():
            raise MissingWeights(
                f"There is no weights folder {str(source)!r}. "
                "The fake backend needs none: leave the folder out."
            )
        return cls(device)

    @property
    def info(self) -> BackendInfo:
        """Facts about this backend."""
        return BackendInfo(
            name="fake",
            model_revision="fake-1",
            licence="Apache-2.0",
            image_size=(SIZE, SIZE),
            default_steps=4,
            default_guidance_scale=2.0,
            device=self._device,
            draws_two=True,
            other_sizes=SIZES,
            pair_size=(SIZE, 2 * SIZE),
        )

    def prepare(self, request: Request) -> FakeState:
        """Paint the target, twice as wide for two people, and draw the seed's noise.

        Raises:
            InvalidInput: an aspect ratio that is not offered.
        """
        people = [crops for crops in (request.crops, request.beside) if crops is not None]
        size = self.info.size_of(request.aspect_ratio, two=len(people) > 1)
        noise = np.random.default_rng(request.seed).standard_normal((*size, 3), dtype=np.float32)
        prompt = with_traits(request.prompt, request.traits)
        target = _scene(prompt, request.guidance_scale, size) + np.float32(0.03) * noise
        if request.likeness > 0 and people:
            own = size[1] // len(people)
            for place, crops in enumerate(people):
                place_of_one = slice(place * own, (place + 1) * own)
                target[:, place_of_one] = _paste_face(
                    target[:, place_of_one], crops, request.likeness
                )
        return FakeState(
            latents=noise,
            target=np.clip(target, -1.0, 1.0).astype(np.float32),
            step=0,
            num_steps=request.num_inference_steps,
            shows_person=request.crops is not None,
        )

    def denoise_step(self, states: Sequence[RowState]) -> list[RowState]:
        """Move every row one step along the straight line from noise to target.

        Raises:
            ValueError: the rows do not share a `batch_key`, or one of them is finished.
        """
        rows = [_own(state) for state in states]
        if not rows:
            return []
        if len({row.batch_key for row in rows}) > 1:
            raise ValueError("Rows with different batch keys cannot share a step: group them.")
        if any(row.step >= row.num_steps for row in rows):
            raise ValueError("A finished row was given another step: decode it instead.")
        latents = np.stack([row.latents for row in rows])
        targets = np.stack([row.target for row in rows])
        remaining = np.array([row.num_steps - row.step for row in rows], dtype=np.float32)
        moved = latents + (targets - latents) / remaining[:, None, None, None]
        return [
            replace(row, latents=after, step=row.step + 1)
            for row, after in zip(rows, moved, strict=True)
        ]

    def decode(self, state: RowState) -> ImageArray:
        """Pixels of a state, (height, width, 3) uint8 RGB."""
        pixels: FloatArray = np.clip(np.rint((_own(state).latents + 1.0) * 127.5), 0, 255)
        return pixels.astype(np.uint8)

    def preview(self, state: RowState) -> ImageArray:
        """The pixels so far."""
        return self.decode(state)

    def forward_rows(self, state: RowState) -> int:
        """Paint needs one row."""
        _own(state)
        return 1

    def is_finite(self, state: RowState) -> bool:
        """Whether the latents are numbers."""
        return bool(np.isfinite(_own(state).latents).all())


def _own(state: RowState) -> FakeState:
    if not isinstance(state, FakeState):
        raise TypeError(f"The fake backend cannot use a {type(state).__name__}.")
    return state


def _scene(prompt: str, guidance_scale: float, size: tuple[int, int]) -> FloatArray:
    """A sky, a ground and their colours from the prompt; more guidance, more contrast."""
    colours = np.frombuffer(hashlib.sha256(prompt.encode()).digest()[:6], dtype=np.uint8)
    sky, ground = colours.reshape(2, 3).astype(np.float32) / 127.5 - 1.0
    height = np.linspace(0.0, 1.0, size[0], dtype=np.float32)[:, None, None]
    contrast = np.float32(min(0.4 + 0.1 * guidance_scale, 1.0))
    painted = contrast * (sky * (1.0 - height) + ground * height)
    return np.broadcast_to(painted, (*size, 3)).astype(np.float32)


def _paste_face(scene: FloatArray, crops: ImageArray, likeness: float) -> FloatArray:
    """Put the first selfie's head in the middle, as opaque as the wished likeness."""
    height, width = scene.shape[:2]
    side = min(height, width) - 16
    head = Image.fromarray(crops[0]).resize((side, side), Image.Resampling.BICUBIC)
    face = np.asarray(head, dtype=np.float32) / 127.5 - 1.0
    y, x = np.mgrid[-1 : 1 : side * 1j, -1 : 1 : side * 1j]
    alpha = likeness * np.clip((1.0 - np.hypot(x, y)) / 0.1, 0.0, 1.0)[..., None]
    pasted = scene.copy()
    top, left = (height - side) // 2, (width - side) // 2
    middle = slice(top, top + side), slice(left, left + side)
    pasted[middle] = alpha * face + (1.0 - alpha) * scene[middle]
    return pasted
