"""What the denoiser makes of known photos: soft pictures to sharpen, drawn faces to refine.

    python -m training.estimates --data runs/people-256 --model runs/export
    python -m training.estimates --data runs/people --model runs/export --kind drawn

A photo is shrunk to the denoiser's size, noised to some step of a schedule, and drawn to
the end from there with its own caption, default guidance and other photos of a person. That
keeps the photo's composition and has the faults of the product's pictures: the more noise, the
more of the face is the model's own. Kept beside each shard as `SHARD.KIND-REVISION.npz`.
"""

from __future__ import annotations

import argparse
import hashlib
import logging
import os
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from pathlib import Path

import numpy as np
import torch
from numpy.typing import NDArray
from PIL import Image
from tqdm import tqdm

from imagine.backends.base import RowState
from imagine.backends.embedded import (
    DEFAULT_GUIDANCE_INTERVAL,
    DEFAULT_GUIDANCE_SCALE,
    EmbeddedBackend,
)
from imagine.core import CROP_SIZE, ImageArray, Request
from training.clock import Stopwatch
from training.datasets import reference_crop, to_unit_range
from training.people.cache import SWITCHED_SUFFIX, PhotoRecord, finished_shards, read_shard

logger = logging.getLogger(__name__)

LIKENESS = 0.7  # the product's default


@dataclass(frozen=True)
class EstimateKind:
    """How much of a photo is left to the denoiser.

    Attributes:
        name: in file names.
        steps: of the whole schedule.
        steps_left: how many of the last steps are drawn, and how often.
        stranger_share: of the photos are drawn as somebody else.
        nobody_share: of the photos are drawn as nobody in particular.
    """

    name: str
    steps: int
    steps_left: Mapping[int, float]
    stranger_share: float = 0.0
    nobody_share: float = 0.0


# For the upsampler. Finer steps than the default of the product, whose last step is a large one.
# Even one step leaves the picture as soft as one drawn from nothing; from four on eyes and mouth
# are no longer where the photo has them, and an upsampler taught on such pairs blurs
# (training/LOG.md).
SOFT = EstimateKind("estimates", 12, {3: 0.25, 2: 0.4, 1: 0.35})
# For the refiner, whose drawn and true faces are set upright each by itself. Half of them are not
# drawn as the person they show, so that the selfies alone say who it is.
DRAWN = EstimateKind(
    "drawn", 6, {5: 0.2, 4: 0.35, 3: 0.3, 2: 0.15}, stranger_share=0.35, nobody_share=0.15
)
KINDS = {kind.name: kind for kind in (SOFT, DRAWN)}
ROWS_AT_ONCE = 8


def estimates_path(data: Path, shard: str, revision: str, kind: EstimateKind = SOFT) -> Path:
    """Where the estimates of a shard by a model are kept."""
    return data / f"{shard}.{kind.name}-{revision}.npz"


def base_revision(model: Path) -> str:
    """First twelve hex digits of the hash of the weights that make estimates.

    Not `model_revision`: the upsampler in the same folder takes no part in its own inputs.
    """
    digest = hashlib.sha256()
    for part in ("denoiser", "identity_adapter"):
        for path in sorted((model / part).glob("*.safetensors")):
            digest.update(path.read_bytes())
    return digest.hexdigest()[:12]


@dataclass(frozen=True)
class Estimates:
    """Of all photos of a shard, in its order.

    Attributes:
        pictures: (photos, side, side, 3) uint8.
        steps_left: (photos,) int, how many steps were drawn; 0 where there is no estimate.
    """

    pictures: NDArray[np.uint8]
    steps_left: NDArray[np.int64]


def read_estimates(path: Path) -> Estimates:
    """What `make_estimates` wrote."""
    with np.load(path) as stored:
        return Estimates(stored["pictures"], stored["steps_left"])


def make_estimates(
    data: Path, model: Path, minutes: float = 1e9, seed: int = 0, kind: EstimateKind = SOFT
) -> int:
    """Make what is missing, at least one shard, until all are done or time is over.

    Returns:
        How many shards were added.
    """
    revision = base_revision(model)
    missing = [
        name
        for name in finished_shards(data)
        if not estimates_path(data, name, revision, kind).exists()
    ]
    if not missing:
        return 0
    backend = EmbeddedBackend.load(model, candidates=1)
    watch, added = Stopwatch(60 * minutes), 0
    for name in tqdm(missing, unit="shard", desc=kind.name, mininterval=5):
        if watch.is_over and added:
            break
        made = estimate_photos(backend, read_shard(data, name), _selfies(data, name), seed, kind)
        path = estimates_path(data, name, revision, kind)
        partial = path.with_suffix(f".{os.getpid()}.tmp.npz")
        np.savez(partial, pictures=made.pictures, steps_left=made.steps_left)
        partial.replace(path)
        added += 1
    return added


def estimate_photos(
    backend: EmbeddedBackend,
    shard: tuple[NDArray[np.uint8], Sequence[PhotoRecord]],
    selfies: Mapping[tuple[int, int], ImageArray],
    seed: int = 0,
    kind: EstimateKind = SOFT,
) -> Estimates:
    """Estimates of the photos of a shard.

    Photos whose landmarks cannot be trusted, or of whom there is no other photo, stay zero.

    Args:
        backend: draws every wish once.
        shard: photos and records.
        selfies: crops of the people, by person seed and number of the photo.
        seed: of what is drawn at random.
        kind: how much is drawn.
    """
    images, records = shard
    rng = np.random.default_rng([seed, records[0].person_seed])
    crops: dict[int, dict[int, ImageArray]] = {}
    for (person, photo), crop in selfies.items():
        crops.setdefault(person, {})[photo] = crop
    pictures = np.zeros((len(images), backend.side, backend.side, 3), np.uint8)
    lefts = np.zeros(len(images), np.int64)
    shares = [kind.stranger_share, kind.nobody_share]
    states: list[RowState] = []
    owners: list[int] = []
    for index, record in enumerate(records):
        others = [
            crop
            for photo, crop in crops.get(record.person_seed, {}).items()
            if photo != record.photo
        ]
        if not record.visible or not others:
            continue
        drawn_as = rng.choice(["self", "stranger", "nobody"], p=[1.0 - sum(shares), *shares])
        if drawn_as == "stranger":
            others = list(crops[int(rng.choice(list(crops)))].values())
        count = min(len(others), int(rng.integers(1, 4)))
        chosen = np.stack(
            [others[place] for place in rng.choice(len(others), count, replace=False)]
        )
        lefts[index] = rng.choice(list(kind.steps_left), p=list(kind.steps_left.values()))
        states.append(
            _noised(
                backend,
                images[index],
                record.caption,
                None if drawn_as == "nobody" else chosen,
                (kind.steps, int(lefts[index])),
                int(rng.integers(2**31)),
            )
        )
        owners.append(index)
        if len(states) == ROWS_AT_ONCE:
            _finish(backend, states, owners, pictures)
            states, owners = [], []
    _finish(backend, states, owners, pictures)
    return Estimates(pictures, lefts)


def _selfies(data: Path, name: str) -> dict[tuple[int, int], ImageArray]:
    """Crops of the people of a shard; those of switched photos look otherwise there."""
    images, records = read_shard(data, name.removesuffix(SWITCHED_SUFFIX))
    return {
        (record.person_seed, record.photo): reference_crop(image, record, CROP_SIZE)
        for image, record in zip(images, records, strict=True)
        if record.visible
    }


def shrink(image: NDArray[np.uint8], side: int) -> ImageArray:
    """A photo at the denoiser's size; each pixel is the mean of those it stands for."""
    small = Image.fromarray(np.array(image)).resize((side, side), Image.Resampling.BOX)
    return np.array(small)


def _noised(
    backend: EmbeddedBackend,
    image: NDArray[np.uint8],
    caption: str,
    crops: ImageArray | None,
    steps: tuple[int, int],
    seed: int,
) -> RowState:
    """The state of a picture that happens to have come near to a photo; steps in all, and left."""
    request = Request(
        caption,
        crops,
        seed,
        steps[0],
        DEFAULT_GUIDANCE_SCALE,
        LIKENESS,
        DEFAULT_GUIDANCE_INTERVAL,
    )
    state = backend.prepare(request)
    step = state.num_steps - steps[1]
    sigma = state.sigmas[step]
    clean = to_unit_range(shrink(image, backend.side)[None])[0].to(state.image.device)
    return replace(state, step=step, image=(1.0 - sigma) * clean + sigma * state.image)


def _finish(
    backend: EmbeddedBackend,
    states: list[RowState],
    owners: list[int],
    estimates: NDArray[np.uint8],
) -> None:
    """Draw states to their ends, several rows to a step, and put them in their places."""
    under_way = list(zip(owners, states, strict=True))
    while under_way:
        moved = backend.denoise_step([state for _, state in under_way])
        paired = list(zip([owner for owner, _ in under_way], moved, strict=True))
        for owner, state in paired:
            if state.step == state.num_steps:
                estimates[owner] = backend.preview(state)
        under_way = [(owner, state) for owner, state in paired if state.step < state.num_steps]


def main() -> None:
    """Run from the command line."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--data", type=Path, default=Path("runs/people-256"))
    parser.add_argument("--model", type=Path, default=Path("assets/models/imagine-mini"))
    parser.add_argument("--kind", choices=sorted(KINDS), default=SOFT.name)
    parser.add_argument("--minutes", type=float, default=1e9)
    given = parser.parse_args()
    logging.basicConfig(level=logging.INFO, format="%(message)s")
    added = make_estimates(given.data, given.model, given.minutes, kind=KINDS[given.kind])
    logger.info("%d shards added", added)


if __name__ == "__main__":
    torch.set_grad_enabled(False)
    main()
