"""What the upsampler learns from and what it is told: photos at full size, small soft versions.

Photos come from a cache of the full size (`training.people.cache --size 256`), soft versions from
`training.estimates`; a share of the inputs is just the photo shrunk and roughened, so that a good
small picture is not painted over.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import torch
from numpy.typing import NDArray
from PIL import Image
from torch import Tensor
from torch.nn import functional

from imagine.errors import InvalidInput
from imagine.models.face_recogniser import FaceRecogniser, aligned
from imagine.models.upsampler import SCALE
from training.datasets import face_theta, reference_crop, to_unit_range
from training.estimates import estimates_path, read_estimates, shrink
from training.people.cache import PhotoRecord, finished_shards, read_shard
from training.recogniser import map_difference

CROP = 80  # side of a training window of the small picture; most faces fit in
PLAIN_SHARE = 0.2  # of the inputs are the photo shrunk, without the denoiser's hand
AT_THE_FACE = 0.75  # of the windows look at the face, the others anywhere
KEPT_BACK = 20  # every so-manieth person is not trained on and measures progress
FACE_WEIGHT, EYE_WEIGHT = 3.0, 6.0
SEEN_SIZE = 128  # side of the aligned face whose feature maps are compared, pixels


@dataclass(frozen=True)
class UpsamplingBatch:
    """Windows of one batch, on the training device.

    Attributes:
        small: (batch, 3, s, s) float in [-1, 1], inputs.
        large: (batch, 3, 2 s, 2 s) float in [-1, 1], what they should become.
        weights: (batch, 1, 2 s, 2 s) float, more at the face and most at the eyes.
        crops: (batch * references, 3, 96, 96) float in [-1, 1], other photos of the person.
        thetas: (batch, 2, 3) sampling transforms of the aligned faces within `large`.
    """

    small: Tensor
    large: Tensor
    weights: Tensor
    crops: Tensor
    thetas: Tensor


class UpsamplingPhotos:
    """All photos of a cache that have an estimate, drawn as (small, large, references) windows.

    Args:
        data: cache of photos of the full size.
        revision: of the model whose estimates are used, see `estimates.base_revision`.
        device: of the batches.
        seed: of what is drawn.

    Raises:
        InvalidInput: no shard has estimates.
    """

    def __init__(self, data: Path, revision: str, device: str, seed: int) -> None:
        self._device = device
        self._random = np.random.default_rng(seed)
        self._images: list[NDArray[np.uint8]] = []
        self._estimates: list[NDArray[np.uint8]] = []
        self._crops: list[NDArray[np.uint8]] = []
        self._records: list[PhotoRecord] = []
        self._people: dict[int, list[int]] = {}
        for name in finished_shards(data):
            path = estimates_path(data, name, revision)
            if path.exists():
                self._add(*read_shard(data, name), read_estimates(path).pictures)
        seeds = [seed for seed, photos in self._people.items() if len(photos) > 1]
        # By order, not by seed: seeds may start anywhere and be few.
        kept_back = set(seeds[KEPT_BACK - 1 :: KEPT_BACK] or seeds[-1:])
        self.kept_back = [p for seed in seeds if seed in kept_back for p in self._people[seed]]
        self._targets = [p for seed in seeds if seed not in kept_back for p in self._people[seed]]
        if not self._targets:
            raise InvalidInput(
                f"{data} holds no estimates by the model {revision} to train on. Make them with: "
                f"python -m training.estimates --data {data} --model FOLDER"
            )

    def __len__(self) -> int:
        """Photos trained on."""
        return len(self._targets)

    @property
    def person_count(self) -> int:
        """How many people have at least two usable photos, those kept back among them."""
        return sum(len(photos) > 1 for photos in self._people.values())

    def _add(
        self,
        images: NDArray[np.uint8],
        records: Sequence[PhotoRecord],
        estimates: NDArray[np.uint8],
    ) -> None:
        for image, record, estimate in zip(images, records, estimates, strict=True):
            if not estimate.any():
                continue  # its landmarks could not be trusted
            self._people.setdefault(record.person_seed, []).append(len(self._records))
            self._images.append(image)
            self._estimates.append(estimate)
            self._crops.append(reference_crop(image, record))
            self._records.append(record)

    def sample(self, batch_size: int) -> UpsamplingBatch:
        """Draw one batch of windows."""
        chosen = [int(p) for p in self._random.choice(self._targets, batch_size)]
        plain = self._random.random(batch_size) < PLAIN_SHARE
        return self._batch(chosen, plain, CROP)

    def whole(self, chosen: Sequence[int], *, plain: bool) -> UpsamplingBatch:
        """Whole photos, for measuring; `plain` has them shrunk only."""
        side = self._estimates[0].shape[0]
        return self._batch(chosen, np.full(len(chosen), plain), side, roughened=False)

    def _batch(
        self,
        chosen: Sequence[int],
        plain: NDArray[np.bool_],
        side: int,
        *,
        roughened: bool = True,
    ) -> UpsamplingBatch:
        references = int(self._random.choice([1, 2]))
        small, large, weights, crops, thetas = [], [], [], [], []
        for photo, is_plain in zip(chosen, plain, strict=True):
            record = self._records[photo]
            image, estimate = self._images[photo], self._estimates[photo]
            if is_plain:
                estimate = shrink(image, len(estimate))
                estimate = roughen(estimate, self._random) if roughened else estimate
            top, left = self._window(record, len(estimate), side)
            small.append(estimate[top : top + side, left : left + side])
            wide = (
                slice(SCALE * top, SCALE * (top + side)),
                slice(SCALE * left, SCALE * (left + side)),
            )
            large.append(np.array(image[wide]))
            weights.append(importance(record, len(image))[wide])
            theta = face_theta(np.asarray(record.landmarks, np.float32), len(image))
            thetas.append(theta_within(theta, len(image), SCALE * left, SCALE * top, SCALE * side))
            others = [p for p in self._people[record.person_seed] if p != photo]
            crops += [self._crops[p] for p in self._random.choice(others, references)]
        return UpsamplingBatch(
            small=to_unit_range(np.stack(small)).to(self._device),
            large=to_unit_range(np.stack(large)).to(self._device),
            weights=torch.from_numpy(np.stack(weights))[:, None].to(self._device),
            crops=to_unit_range(np.stack(crops)).to(self._device),
            thetas=torch.from_numpy(np.stack(thetas)).to(self._device),
        )

    def _window(self, record: PhotoRecord, whole: int, side: int) -> tuple[int, int]:
        """Top and left of a training window in pixels of the small picture."""
        room = whole - side
        if self._random.random() >= AT_THE_FACE:
            return int(self._random.integers(room + 1)), int(self._random.integers(room + 1))
        box = np.array(record.face_box) / SCALE
        middle = np.array([box[1] + box[3], box[0] + box[2]]) / 2 - side / 2
        top, left = np.clip(np.rint(middle + self._random.uniform(-8, 8, 2)), 0, room)
        return int(top), int(left)


def roughen(picture: NDArray[np.uint8], random: np.random.Generator) -> NDArray[np.uint8]:
    """A small picture as a worse camera or a careless file would have it."""
    rough = Image.fromarray(picture)
    if random.random() < 0.5:
        side = round(len(picture) * random.uniform(0.4, 0.9))
        small = rough.resize((side, side), Image.Resampling.BOX)
        rough = small.resize(rough.size, Image.Resampling.BICUBIC)
    values = np.asarray(rough, np.float64)
    if random.random() < 0.5:
        values = values + random.normal(0.0, random.uniform(0.0, 8.0), values.shape)
    return np.clip(np.rint(values), 0, 255).astype(np.uint8)


def importance(record: PhotoRecord, size: int) -> NDArray[np.float32]:
    """(size, size) how much each pixel of a photo counts: 1, more in the face, most at the eyes."""
    weights = np.ones((size, size), np.float32)
    left, top, right, bottom = (int(max(0, min(size, edge))) for edge in record.face_box)
    weights[top:bottom, left:right] = FACE_WEIGHT
    landmarks = np.asarray(record.landmarks)
    reach = 0.35 * np.hypot(*(landmarks[1] - landmarks[0]))
    y, x = np.mgrid[:size, :size]
    for eye in landmarks[:2]:
        weights[np.hypot(x - eye[0], y - eye[1]) < reach] = EYE_WEIGHT
    return weights


def theta_within(
    theta: NDArray[np.float32], size: int, left: int, top: int, side: int
) -> NDArray[np.float32]:
    """The sampling transform of a whole square picture as one of a square window of it.

    Args:
        theta: (2, 3), for `affine_grid` with align_corners=False.
        size: of the whole picture, pixels.
        left: of the window.
        top: of the window.
        side: of the window.
    """
    zoom = size / side
    shift = (np.array([size, size]) - 2 * np.array([left, top])) / side - 1.0
    moved = theta * zoom
    moved[:, 2] += shift
    return moved.astype(np.float32)


def upsampling_loss(
    drawn: Tensor,
    batch: UpsamplingBatch,
    recogniser: FaceRecogniser | None = None,
    likeness_weight: float = 0.1,
) -> Tensor:
    """How far windows are from what they should be: pixels, detail, and the face as it is seen.

    Args:
        drawn: shape of `batch.large`.
        batch: the truth.
        recogniser: the training recogniser; without it the face counts by its pixels only.
        likeness_weight: of the recogniser's share.
    """
    error = drawn - batch.large
    loss = weighted_mean(error.abs(), batch.weights)
    for level in laplacian_levels(error, 3):
        weights = functional.interpolate(batch.weights, size=level.shape[2:], mode="area")
        loss = loss + weighted_mean(level.abs(), weights)
    if recogniser is not None:
        loss = loss + likeness_weight * seen_difference(
            recogniser, drawn, batch.large, batch.thetas
        )
    return loss


def weighted_mean(values: Tensor, weights: Tensor) -> Tensor:
    """Mean of (batch, channels, h, w) under (batch, 1, h, w) weights."""
    return (values * weights).mean() / weights.mean()


def laplacian_levels(image: Tensor, count: int) -> list[Tensor]:
    """The finest levels of a Laplacian pyramid, finest first; linear in the image.

    Source: Burt and Adelson 1983, with a box filter for the smaller picture.
    """
    levels = []
    for _ in range(count):
        smaller = functional.avg_pool2d(image, 2)
        levels.append(image - functional.interpolate(smaller, scale_factor=2, mode="bilinear"))
        image = smaller
    return levels


def seen_difference(
    recogniser: FaceRecogniser, drawn: Tensor, true: Tensor, thetas: Tensor
) -> Tensor:
    """How differently the recogniser sees two faces, by embedding and by its first feature maps.

    The maps are of a larger aligned face than it was trained on, since what is restored here is
    finer than its crops show (in the manner of LPIPS, arXiv 1801.03924).
    """
    with torch.no_grad():
        wanted, _ = recogniser(recogniser.cut(true, thetas))
        wanted_maps = first_maps(recogniser, aligned(true, thetas, SEEN_SIZE))
    found, _ = recogniser(recogniser.cut(drawn, thetas))
    difference: Tensor = 1.0 - (found * wanted).sum(1).mean()
    found_maps = first_maps(recogniser, aligned(drawn, thetas, SEEN_SIZE))
    for one, two in zip(found_maps, wanted_maps, strict=True):
        difference = difference + map_difference(one, two).mean()
    return difference


def first_maps(recogniser: FaceRecogniser, faces: Tensor) -> list[Tensor]:
    """What a recogniser's first three stages make of (batch, 3, s, s) faces of any side."""
    maps = []
    for stage in recogniser.stages[:3]:
        faces = stage(faces)
        maps.append(faces)
    return maps
