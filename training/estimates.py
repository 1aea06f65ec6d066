"""What the denoiser makes of known photos: the soft pictures the upsampler learns to sharpen.

    python -m training.estimates --data runs/people-256 --model runs/export

A photo is shrunk to the denoiser's size, noised to some step of a schedule, and drawn to
the end from there with its own caption, default guidance and other photos of the same person. That
keeps the photo's composition and has the faults of the product's pictures: the more noise, the
more of the face is the model's own. Kept beside each shard as `SHARD.estimates-REVISION.npz`.
"""

from __future__ import annotations

import argparse
import hashlib
import logging
import os
from collections.abc import Sequence
from dataclasses import replace
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
from training.people.cache import PhotoRecord, finished_shards, read_shard

logger = logging.getLogger(__name__)

LIKENESS = 0.7  # the product's default
STEPS = 12  # finer than the default of the product, whose last step is a large one
# How many of the last steps are drawn, and how often. Even one leaves the picture as soft as one
# drawn from nothing; from four on eyes and mouth are no longer where the photo has them, and an
# upsampler taught on such pairs blurs (training/LOG.md).
STEPS_LEFT = {3: 0.25, 2: 0.4, 1: 0.35}
ROWS_AT_ONCE = 8


def estimates_path(data: Path, shard: str, revision: str) -> Path:
    """Where the estimates of a shard by a model are kept."""
    return data / f"{shard}.estimates-{revision}.npz"


def base_revision(model: Path) -> str:
    """First twelve hex digits of the hash of the weights that make estimates.

    Not `model_revision`: the upsampler in the same folder takes no part in its own inputs.
    """
    digest = hashlib.sha256()
    for part in ("denoiser", "identity_adapter"):
        for path in sorted((model / part).glob("*.safetensors")):
            digest.update(path.read_bytes())
    return digest.hexdigest()[:12]


def read_estimates(path: Path) -> NDArray[np.uint8]:
    """(photos, side, side, 3), in the order of the shard; all zero where a photo had none."""
    with np.load(path) as stored:
        estimates: NDArray[np.uint8] = stored["estimates"]
    return estimates


def make_estimates(data: Path, model: Path, minutes: float = 1e9, seed: int = 0) -> int:
    """Make what is missing, at least one shard, until all are done or time is over.

    Returns:
        How many shards were added.
    """
    revision = base_revision(model)
    missing = [
        name for name in finished_shards(data) if not estimates_path(data, name, revision).exists()
    ]
    if not missing:
        return 0
    backend = EmbeddedBackend.load(model)
    watch, added = Stopwatch(60 * minutes), 0
    for name in tqdm(missing, unit="shard", desc="estimates", mininterval=5):
        if watch.is_over and added:
            break
        images, records = read_shard(data, name)
        estimates = estimate_photos(backend, images, records, seed)
        path = estimates_path(data, name, revision)
        partial = path.with_suffix(f".{os.getpid()}.tmp.npz")
        np.savez(partial, estimates=estimates)
        partial.replace(path)
        added += 1
    return added


def estimate_photos(
    backend: EmbeddedBackend,
    images: NDArray[np.uint8],
    records: Sequence[PhotoRecord],
    seed: int = 0,
) -> NDArray[np.uint8]:
    """(photos, side, side, 3) estimates of the photos of a shard.

    Photos whose landmarks cannot be trusted, or of whom there is no other photo, stay zero.
    """
    rng = np.random.default_rng([seed, records[0].person_seed])
    crops = [
        reference_crop(image, record, CROP_SIZE) if record.visible else None
        for image, record in zip(images, records, strict=True)
    ]
    states: list[RowState] = []
    owners: list[int] = []
    estimates = np.zeros((len(images), backend.side, backend.side, 3), np.uint8)
    for index, record in enumerate(records):
        others = [
            other
            for place, other in enumerate(crops)
            if other is not None
            and place != index
            and records[place].person_seed == record.person_seed
        ]
        if not record.visible or not others:
            continue
        count = min(len(others), int(rng.integers(1, 4)))
        chosen = [others[place] for place in rng.choice(len(others), count, replace=False)]
        left = int(rng.choice(list(STEPS_LEFT), p=list(STEPS_LEFT.values())))
        noise_seed = int(rng.integers(2**31))
        states.append(
            _noised(backend, images[index], record.caption, np.stack(chosen), left, noise_seed)
        )
        owners.append(index)
        if len(states) == ROWS_AT_ONCE:
            _finish(backend, states, owners, estimates)
            states, owners = [], []
    _finish(backend, states, owners, estimates)
    return estimates


def shrink(image: NDArray[np.uint8], side: int) -> ImageArray:
    """A photo at the denoiser's size; each pixel is the mean of those it stands for."""
    small = Image.fromarray(np.array(image)).resize((side, side), Image.Resampling.BOX)
    return np.array(small)


def _noised(
    backend: EmbeddedBackend,
    image: NDArray[np.uint8],
    caption: str,
    crops: ImageArray,
    left: int,
    seed: int,
) -> RowState:
    """The state of a picture that happens to have come near to a photo."""
    request = Request(
        caption,
        crops,
        seed,
        STEPS,
        DEFAULT_GUIDANCE_SCALE,
        LIKENESS,
        DEFAULT_GUIDANCE_INTERVAL,
    )
    state = backend.prepare(request)
    step = state.num_steps - left
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
    parser.add_argument("--minutes", type=float, default=1e9)
    given = parser.parse_args()
    logging.basicConfig(level=logging.INFO, format="%(message)s")
    logger.info("%d shards added", make_estimates(given.data, given.model, given.minutes))


if __name__ == "__main__":
    torch.set_grad_enabled(False)
    main()
