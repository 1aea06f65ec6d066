"""Teach an exported model which selfies look aside.

    python -m training.turning runs/export --data runs/people

Least squares with a ridge, from what is no mirror of itself in upright crops to how far the nose is
off the middle of the eyes, which renders know.
"""

from __future__ import annotations

import argparse
from pathlib import Path

import numpy as np
import torch
from torch import Tensor

from imagine.backends.embedded import save_turn
from imagine.models.face_turn import FaceTurn, differences
from training.datasets import reference_crop, to_unit_range
from training.people.cache import PhotoCache, PhotoRecord

PHOTOS = 6000
RIDGE = 1000.0
KEPT_ASIDE = 5  # every fifth photo tells how well it is read


def true_turn(record: PhotoRecord) -> float:
    """How far the nose is off the middle of the eyes along their line, in eye distances."""
    left, right, nose = np.asarray(record.landmarks)[:3]
    eyes = right - left
    return float((nose - (left + right) / 2) @ eyes / (eyes @ eyes))


def teach(seen: Tensor, turns: Tensor) -> FaceTurn:
    """The best linear reading.

    Args:
        seen: (photos, d) of `differences`.
        turns: (photos,).
    """
    exact = seen.double()
    squares = exact.T @ exact + RIDGE * torch.eye(exact.shape[1], dtype=torch.float64)
    turn: FaceTurn = FaceTurn()
    with torch.no_grad():
        turn.read.weight.copy_(torch.linalg.solve(squares, exact.T @ turns.double())[None])
    return turn


def add_turn(model: Path, data: Path, photos: int = PHOTOS) -> float:
    """Teach on photos of a cache and write the result into the model's folder.

    Returns:
        Correlation with the truth on photos that were kept aside.

    Raises:
        ValueError: too few photos show a face that can be read.
    """
    cache = PhotoCache(data)
    shown = [index for index, record in enumerate(cache.records) if record.visible][:photos]
    if len(shown) < 2 * KEPT_ASIDE:
        raise ValueError(
            f"{data} has {len(shown)} photos with a face; render some: "
            f"python -m training.people.cache --out {data}"
        )
    crops = [reference_crop(cache.image(index), cache.records[index]) for index in shown]
    seen = torch.cat([differences(to_unit_range(crop[None])) for crop in crops])
    turns = torch.tensor([true_turn(cache.records[index]) for index in shown])
    aside = torch.arange(len(shown)) % KEPT_ASIDE == 0
    turn = teach(seen[~aside], turns[~aside])
    save_turn(model, turn)
    with torch.inference_mode():
        read = turn.read(seen[aside]).squeeze(1)
    return float(torch.corrcoef(torch.stack([read, turns[aside]]))[0, 1])


def main() -> None:
    """Run from the command line."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("model", type=Path, help="exported model")
    parser.add_argument("--data", type=Path, default=Path("runs/people"))
    given = parser.parse_args()
    print(f"correlation on photos kept aside: {add_turn(given.model, given.data):.3f}")


if __name__ == "__main__":
    main()
