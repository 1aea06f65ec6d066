"""How well a face recogniser tells the rendered people apart: the most a model can be scored.

    python -m training.people.ceiling --people 30 --photos 4

Uses dlib's detector and recogniser as they are, without the retries of `imagine.identity`: renders
that need a second look should count against the renderer.
"""

from __future__ import annotations

import argparse
import json
import time
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray
from PIL import Image

from imagine.identity.dlib_faces import EMBEDDING_FILE, LANDMARK_FILE, weights_path
from training.metrics import area_under_curve, true_accept_rate
from training.people.cache import choose_scenes
from training.people.person import sample_person
from training.people.scene import facts


class DlibFaces:
    """dlib's detector, landmarks and face descriptor."""

    def __init__(self) -> None:
        """Load the three models."""
        import dlib

        self.detector: Any = dlib.get_frontal_face_detector()
        predictor = weights_path(LANDMARK_FILE)
        recogniser = weights_path(EMBEDDING_FILE)
        self.predictor: Any = dlib.shape_predictor(str(predictor))
        self.recogniser: Any = dlib.face_recognition_model_v1(str(recogniser))

    def describe(self, image: NDArray[np.uint8]) -> tuple[NDArray[np.float64], Any] | None:
        """(128,) descriptor and five landmarks in pixels of the picture, or None."""
        side = image.shape[0]
        method = Image.Resampling.BICUBIC
        large = np.asarray(Image.fromarray(image).resize((2 * side, 2 * side), method))
        boxes = self.detector(large, 1)
        if not boxes:
            return None
        box = max(boxes, key=lambda b: b.area())
        shape = self.predictor(large, box)
        points = np.array([[p.x, p.y] for p in shape.parts()]) / 2
        return np.array(self.recogniser.compute_face_descriptor(large, shape)), points


def separation(descriptors: NDArray[np.float64], people: NDArray[np.int64]) -> dict[str, float]:
    """AUC, TAR at FAR 1 %, and mean distances of same and different people."""
    distances = np.linalg.norm(descriptors[:, None] - descriptors[None], axis=2)
    upper = np.triu(np.ones(len(people), bool), 1)
    same = distances[upper & (people[:, None] == people[None])]
    other = distances[upper & (people[:, None] != people[None])]
    return {
        "auc": area_under_curve(same, other),
        "tar_at_far_1_percent": true_accept_rate(same, other),
        "same_distance": float(same.mean()),
        "different_distance": float(other.mean()),
    }


def main() -> None:
    """Print the figures as JSON."""
    from training.people.renderer import Renderer

    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--people", type=int, default=30)
    parser.add_argument("--photos", type=int, default=4)
    parser.add_argument("--start-seed", type=int, default=100_000)
    parser.add_argument("--size", type=int, default=128)
    parser.add_argument("--missed", type=Path, help="write a sheet of the faces not found")
    given = parser.parse_args()
    renderer, faces = Renderer(size=given.size), DlibFaces()
    descriptors, people, missed, lost = [], [], [], []
    offsets: list[float] = []
    seconds = 0.0
    total = given.people * given.photos
    for seed in range(given.start_seed, given.start_seed + given.people):
        person = sample_person(seed)
        for scene in choose_scenes(seed, given.photos):
            started = time.perf_counter()
            photo = renderer.photograph(person, scene, given.size)
            seconds += time.perf_counter() - started
            found = faces.describe(photo.image)
            if found is None:
                missed.append(photo.image)
                words = facts(person, scene)
                lost.append([seed, person.hair_style, words["skin_tone"], scene.framing,
                             words["expression"], words["glasses"], words["view"]])  # fmt: skip
                continue
            descriptors.append(found[0])
            people.append(seed)
            eyes = np.array([found[1][2:4].mean(0), found[1][0:2].mean(0)])
            offsets.append(float(np.abs(eyes - photo.landmarks[:2]).mean()))
    figures = separation(np.stack(descriptors), np.array(people))
    print(json.dumps({
        "people": given.people, "photos": total, "found": len(people) / total, **figures,
        "eye_offset_pixels": float(np.mean(offsets)), "seconds_per_photo": seconds / total,
        "missed": lost}, indent=1))  # fmt: skip
    if given.missed and missed:
        Image.fromarray(np.concatenate(missed, 1)).save(given.missed)


if __name__ == "__main__":
    main()
