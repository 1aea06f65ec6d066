"""Which shapes can be cut out of a finished square without losing the face, and where to cut.

    python -m training.evaluation_shapes --people 20

Every held-out person is drawn once per wish; each square is cut to each shape, and a cut loses
where the detector finds a face in the square and none in the cut. Takes about two minutes on two
cores.
"""

from __future__ import annotations

import argparse
import logging
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path

import numpy as np

from imagine.backends.base import ASPECT_RATIOS
from imagine.backends.embedded import CUT_AT_TOP, EmbeddedBackend, cut_size
from imagine.core import ImageArray
from training.evaluation import CACHE, draw, drawing_settings
from training.held_out import WISHES, FaceJudge, HeldOutStudio, held_out_seeds

AT_TOP = (0.25, 0.375, 0.5)  # of what a wide shape leaves out; nothing of an upright one
LIKENESS = 0.7

logger = logging.getLogger(__name__)


def cut_at(picture: ImageArray, aspect_ratio: str, at_top: float = CUT_AT_TOP) -> ImageArray:
    """The part of a square that a shape keeps, with another share cut off at the top."""
    side = picture.shape[0]
    height, width = cut_size(side, aspect_ratio)
    top, left = round((side - height) * at_top), (side - width) // 2
    return np.ascontiguousarray(picture[top : top + height, left : left + width])


def found_shares(
    pictures: Sequence[ImageArray], has_face: Callable[[ImageArray], bool]
) -> dict[tuple[str, float], tuple[int, int]]:
    """Faces lost and gained by each cut, as numbers of pictures.

    Args:
        pictures: (side, side, 3) uint8 each.
        has_face: whether a face is found.

    Returns:
        (aspect ratio, share cut at the top) -> (lost, gained); 0 for upright shapes.
    """
    before = [has_face(picture) for picture in pictures]
    changes = {}
    for aspect_ratio in ASPECT_RATIOS:
        height, width = cut_size(100, aspect_ratio)
        for at_top in AT_TOP if height < width else (0.0,):
            after = [has_face(cut_at(picture, aspect_ratio, at_top)) for picture in pictures]
            pairs = list(zip(before, after, strict=True))
            changes[aspect_ratio, at_top] = pairs.count((True, False)), pairs.count((False, True))
    return changes


def as_markdown(
    changes: Mapping[tuple[str, float], tuple[int, int]], found: int, total: int
) -> str:
    """The table of a report; shares of all pictures."""
    lines = [
        f"Face found in {found} of {total} squares ({found / total:.3f}).",
        "",
        "| shape | cut at the top | lost | found instead | face found |",
        "| --- | --- | --- | --- | --- |",
    ]
    for (aspect_ratio, at_top), (lost, gained) in changes.items():
        share = (found - lost + gained) / total
        lines.append(f"| {aspect_ratio} | {at_top:g} | {lost} | {gained} | {share:.3f} |")
    return "\n".join(lines) + "\n"


def squares(
    backend: EmbeddedBackend, studio: HeldOutStudio, people: int, prompts: int
) -> list[ImageArray]:
    """One square per held-out person and wish, drawn once."""
    settings = drawing_settings(backend, None, LIKENESS, None)
    pictures: list[ImageArray] = []
    for seed in held_out_seeds(people):
        person = studio.person(seed)
        if person is not None:  # too few photos of some are accepted
            wishes = WISHES[:prompts]
            pictures += draw(
                backend, person.crops, person.seed, wishes, settings, range(len(wishes))
            )
            logger.info("%d pictures", len(pictures))
    return pictures


def main() -> None:
    """Run from the command line."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--people", type=int, default=20)
    parser.add_argument("--prompts", type=int, default=len(WISHES))
    parser.add_argument("--model", type=Path, default=None, help="folder of weights")
    parser.add_argument("--assets", type=Path, default=None)
    parser.add_argument("--cache", type=Path, default=CACHE)
    given = parser.parse_args()
    logging.basicConfig(level=logging.INFO, format="%(message)s")
    backend, judge = EmbeddedBackend.load(given.model), FaceJudge()
    side = backend.info.image_size[0]
    studio = HeldOutStudio(given.cache, given.assets, side, judge)
    pictures = squares(backend, studio, given.people, given.prompts)

    def has_face(picture: ImageArray) -> bool:
        return bool(judge.detector.detect(picture))

    found = sum(map(has_face, pictures))
    print(f"Weights {backend.info.model_revision}, {side} pixels.")
    print(as_markdown(found_shares(pictures, has_face), found, len(pictures)), end="")


if __name__ == "__main__":
    main()
