"""Stand-ins for faces and people, so that tests of the story need no face weights."""

from __future__ import annotations

import numpy as np
from PIL import Image

from imagine.core import CROP_SIZE, Face, FloatArray, Identity, ImageArray
from imagine.settings import Settings


class DoubleDetector:
    """Sees one face in the middle of every picture that is not of one colour."""

    name = "double"
    licence = "none"

    @classmethod
    def load(cls, settings: Settings) -> DoubleDetector:
        return cls()

    def detect(self, image: ImageArray) -> list[Face]:
        if image.std() < 1.0:
            return []
        height, width = image.shape[:2]
        box = (0.1 * width, 0.1 * height, 0.9 * width, 0.9 * height)
        landmarks = np.array([[0.4, 0.4], [0.6, 0.4], [0.5, 0.55], [0.4, 0.7], [0.6, 0.7]])
        return [Face(box, (landmarks * [width, height]).astype(np.float32), 1.0)]


class SideBySideDetector(DoubleDetector):
    """Sees one face in each square of a picture, from left to right."""

    def detect(self, image: ImageArray) -> list[Face]:
        side, one = image.shape[0], DoubleDetector()
        starts = range(0, image.shape[1] - side + 1, side)
        return [
            Face(
                (face.box[0] + start, face.box[1], face.box[2] + start, face.box[3]),
                face.landmarks + np.array([start, 0], np.float32),
                face.score,
            )
            for start in starts
            for face in one.detect(image[:, start : start + side])
        ]


class DoubleEncoder:
    """Knows a face by its colours: a 3 by 3 thumbnail of it, in [0, 1]."""

    name = "double"
    licence = "none"
    same_person_distance = 0.5

    @classmethod
    def load(cls, settings: Settings) -> DoubleEncoder:
        return cls()

    def embed(self, image: ImageArray, face: Face) -> FloatArray:
        left, top, right, bottom = (round(side) for side in face.box)
        thumbnail = Image.fromarray(image[top:bottom, left:right]).resize((3, 3))
        return np.asarray(thumbnail, dtype=np.float32).ravel() / 255.0

    def distance(self, first: FloatArray, second: FloatArray) -> float:
        return float(np.linalg.norm(first - second))


def double_crops(person: int = 0, photos: int = 2) -> ImageArray:
    """Crops of somebody: big patches of the person's own colours, with a little noise."""
    colours = np.random.default_rng(person).integers(0, 256, (3, 3, 3), dtype=np.uint8)
    patches = np.asarray(Image.fromarray(colours).resize((CROP_SIZE, CROP_SIZE)), dtype=np.float32)
    noise = np.random.default_rng(1000 + person).normal(0, 8, (photos, CROP_SIZE, CROP_SIZE, 3))
    return np.clip(patches + noise, 0, 255).astype(np.uint8)


def double_identity(person: int = 0, photos: int = 2) -> Identity:
    """Somebody the doubles know."""
    crops = double_crops(person, photos)
    detector, encoder = DoubleDetector(), DoubleEncoder()
    embeddings = np.stack([encoder.embed(crop, detector.detect(crop)[0]) for crop in crops])
    return Identity(
        crops=crops,
        embeddings=embeddings,
        embedding=embeddings.mean(axis=0),
        recogniser="double",
        reports=(),
        fingerprint=f"{person:02d}" * 32,
    )
