"""Faces by dlib: HOG detector, five-point landmarks, ResNet embedding; permissive and offline.

The default pair. Weights come inside the package `face-recognition-models` (public domain, CC0,
by Davis King). The package also holds a 68-point predictor trained on pictures that allow no
commercial use; it is never opened here.
"""

from __future__ import annotations

import math
from importlib.util import find_spec
from pathlib import Path
from threading import Lock
from typing import Any

import numpy as np
from numpy.typing import NDArray
from PIL import Image

from imagine.core import Face, FloatArray, ImageArray
from imagine.errors import CorruptWeights, MissingExtra, MissingWeights
from imagine.identity.align import similarity_transform, warp
from imagine.settings import Settings

LICENCE = "CC0-1.0 (dlib-models, public domain)"
LANDMARK_FILE = "shape_predictor_5_face_landmarks.dat"
EMBEDDING_FILE = "dlib_face_recognition_resnet_model_v1.dat"

# The detector sees faces of 80 pixels and more. 1024 pixels on the long side cost 0.1 s; six faces
# of 90 to 130 pixels in a group photo of 1280 pixels are still found at that size.
WORKING_SIDE = 1024
RETRY_SIDE = 640
# Smaller pictures are enlarged twice first. Enlarging all up to 1024 found more of a shrunk group
# photo (6 of 6 faces instead of 3 at 640 pixels) but false faces scoring 1.3 beside the astronaut.
SMALL_SIDE = 400
MINIMUM_SIDE = 16  # nothing smaller can show a face; dlib is not asked
# False faces score up to 0.5 at first sight (a helmet beside the astronaut), real ones in a group
# photo down to 0.2. Looked at again at three sizes, real ones averaged 0.35 and more, false ones
# 0.25 and less. What scores under 0.1 at first sight is not looked at again.
CERTAIN_SCORE = 0.6
MINIMUM_SCORE = 0.1
DOUBTFUL_SCORE = 0.3
_SECOND_LOOK_SIDES = (110, 140, 180)  # face box, pixels
# HOG loses faces tilted by more than about 15 degrees; tried in this order until a face is found.
TILTS_DEGREES = ((20.0, -20.0), (40.0, -40.0), (90.0, -90.0), (180.0,))

# In units of the eye distance, below the middle between the eyes: ArcFace's template has the nose
# tip at 0.57 and the mouth at 1.16 (corners 0.41 to each side); dlib's mean shape has the base of
# the nose at 0.77. In a turned face the tip, which stands out further, moves half as far again.
_TIP_DOWN_PER_BASE = 0.57 / 0.77
_TIP_ASIDE_PER_BASE = 1.5
_MOUTH_PER_BASE = 1.16 / 0.77
_MOUTH_HALF_WIDTH = 0.41

_EMBEDDING_SQUARE = 260  # side of the upright square the embedding is made from, pixels
_EMBEDDING_FACE = 130  # side of the face box inside it; the network reads a 150-pixel chip


class DlibDetector:
    """HOG face detector with five landmarks; tilted faces are looked for when none is upright."""

    name = "dlib"
    licence = LICENCE

    def __init__(self, landmark_weights: Path) -> None:
        dlib = _import_dlib()
        self._dlib = dlib
        self._hog = dlib.get_frontal_face_detector()
        self._landmarks = _open(dlib.shape_predictor, landmark_weights)
        self._lock = Lock()  # dlib objects keep scratch memory and are not safe to share

    @classmethod
    def load(cls, settings: Settings) -> DlibDetector:
        """Open the weights of the installed package; `settings` is not needed."""
        return cls(weights_path(LANDMARK_FILE))

    def detect(self, image: ImageArray) -> list[Face]:
        """Find faces, left to right; see `FaceDetector`.

        Upright first, then enlarged twice, then tilted; it stops at the first that finds any.
        Landmarks of a tilted face keep the face's own order, so that its crop comes out upright.
        The nose tip is estimated from the nose's base, the mouth from both.
        """
        if min(image.shape[:2]) < MINIMUM_SIDE:
            return []
        faces = self._detect_upright(image) or self._detect_tilted(image)
        return sorted(_without_doubles(faces), key=lambda face: face.box[0] + face.box[2])

    def _detect_upright(self, image: ImageArray) -> list[Face]:
        picture, scale = _resized(image, WORKING_SIDE)
        faces = self._run(picture, 0, MINIMUM_SCORE)
        if not faces:
            faces = self._run(picture, 1, DOUBTFUL_SCORE)
        return [_scaled(face, 1.0 / scale) for face in faces]

    def _detect_tilted(self, image: ImageArray) -> list[Face]:
        picture, scale = _resized(image, RETRY_SIDE)
        for tilts in TILTS_DEGREES:
            found = [self._detect_at(picture, degrees) for degrees in tilts]
            best = max(found, key=lambda faces: max((f.score for f in faces), default=-1.0))
            if best:
                return [_scaled(face, 1.0 / scale) for face in best]
        return []

    def _detect_at(self, picture: ImageArray, degrees: float) -> list[Face]:
        turned, forward = _turned(picture, degrees)
        back = _inverse(forward)
        return [_mapped(face, back) for face in self._run(turned, 0, DOUBTFUL_SCORE)]

    def _run(self, picture: ImageArray, upsample: int, minimum_score: float) -> list[Face]:
        with self._lock:
            boxes, scores, _ = self._hog.run(picture, upsample, minimum_score)
            shapes = [self._landmarks(picture, box) for box in boxes]
        faces = [
            _face(box, shape, score)
            for box, shape, score in zip(boxes, shapes, scores, strict=True)
        ]
        return [
            face
            for face in faces
            if face.score >= CERTAIN_SCORE or self._second_look(picture, face) >= DOUBTFUL_SCORE
        ]

    def _second_look(self, picture: ImageArray, face: Face) -> float:
        """Mean score of a doubtful face when looked at alone, at several sizes."""
        looks = [self._look_again(picture, face, side) for side in _SECOND_LOOK_SIDES]
        return sum(looks) / len(looks)

    def _look_again(self, picture: ImageArray, face: Face, side: int) -> float:
        scale = side / max(face.width, 1.0)
        centre = np.array([face.box[0] + face.box[2], face.box[1] + face.box[3]]) / 2
        shift = side - scale * centre
        forward = np.array([[scale, 0.0, shift[0]], [0.0, scale, shift[1]]])
        with self._lock:
            boxes, scores, _ = self._hog.run(warp(picture, forward, 2 * side), 0, 0.0)
        in_place = [
            float(score)
            for box, score in zip(boxes, scores, strict=True)
            if math.hypot(box.center().x - side, box.center().y - side) < side / 4
        ]
        return max(in_place, default=0.0)


class DlibEncoder:
    """The 128-number ResNet embedding; L2 distance, vectors are not of unit length (about 1.47)."""

    name = "dlib"
    licence = LICENCE
    # The network was trained to put one person's photos within 0.6 (dlib-models README; 0.9938 on
    # LFW). Measured here: one face under crops, blur, light and compression at most 0.38; two of
    # eight real people at least 0.63.
    same_person_distance = 0.6

    def __init__(self, landmark_weights: Path, embedding_weights: Path) -> None:
        dlib = _import_dlib()
        self._dlib = dlib
        self._landmarks = _open(dlib.shape_predictor, landmark_weights)
        self._network = _open(dlib.face_recognition_model_v1, embedding_weights)
        self._lock = Lock()

    @classmethod
    def load(cls, settings: Settings) -> DlibEncoder:
        """Open the weights of the installed package; `settings` is not needed."""
        return cls(weights_path(LANDMARK_FILE), weights_path(EMBEDDING_FILE))

    def embed(self, image: ImageArray, face: Face) -> FloatArray:
        """Describe one face as (128,) float32; see `FaceEncoder`.

        The face is set upright by its eyes first and the five points are found again there, so
        that faces of any detector and any tilt are cut the way the network was taught.
        """
        square = warp(image, _upright_square(face), _EMBEDDING_SQUARE)
        low = (_EMBEDDING_SQUARE - _EMBEDDING_FACE) // 2
        box = self._dlib.rectangle(low, low, low + _EMBEDDING_FACE, low + _EMBEDDING_FACE)
        with self._lock:
            shape = self._landmarks(square, box)
            vector = self._network.compute_face_descriptor(square, shape)
        return np.array(vector, dtype=np.float32)

    def distance(self, first: FloatArray, second: FloatArray) -> float:
        """L2 distance; 0 is the same picture, beyond 0.6 somebody else."""
        return float(np.linalg.norm(first - second))


def _without_doubles(faces: list[Face]) -> list[Face]:
    """Drop a face whose middle lies inside a better one: dlib sometimes sees one at two sizes."""
    kept: list[Face] = []
    for face in sorted(faces, key=lambda face: -face.score):
        x, y = (face.box[0] + face.box[2]) / 2, (face.box[1] + face.box[3]) / 2
        if not any(k.box[0] < x < k.box[2] and k.box[1] < y < k.box[3] for k in kept):
            kept.append(face)
    return kept


def _import_dlib() -> Any:
    try:
        import dlib
    except ImportError as error:
        raise MissingExtra("dlib is not installed. Run: pip install dlib-bin") from error
    return dlib


def weights_path(file_name: str) -> Path:
    """Find a weight file without importing its package, which needs the retired pkg_resources."""
    spec = find_spec("face_recognition_models")
    folders = spec.submodule_search_locations if spec else None
    path = Path(folders[0]) / "models" / file_name if folders else None
    if path is None or not path.is_file():
        raise MissingWeights(
            f"The face weights {file_name} are not installed. "
            "Run: pip install face-recognition-models==0.3.0"
        )
    return path


def _open(kind: Any, path: Path) -> Any:
    try:
        return kind(str(path))
    except RuntimeError as error:
        raise CorruptWeights(
            f"The face weights {path.name} cannot be read ({path.stat().st_size} bytes). "
            "Run: pip install --force-reinstall face-recognition-models==0.3.0"
        ) from error


def _resized(image: ImageArray, longest: int) -> tuple[ImageArray, float]:
    """Bring a picture to working size; also the scale it was multiplied by."""
    height, width = image.shape[:2]
    side = max(height, width)
    scale = longest / side if side > longest else 2.0 if side < SMALL_SIDE else 1.0
    if scale == 1.0:
        return np.ascontiguousarray(image), 1.0
    size = (max(1, round(width * scale)), max(1, round(height * scale)))
    picture = Image.fromarray(image).resize(size, Image.Resampling.BICUBIC, reducing_gap=2.0)
    return np.array(picture, dtype=np.uint8), scale


def _turned(picture: ImageArray, degrees: float) -> tuple[ImageArray, NDArray[np.float64]]:
    """Rotate clockwise into a square that holds everything; also the (2, 3) matrix that did it."""
    height, width = picture.shape[:2]
    side = math.ceil(math.hypot(width, height)) if degrees % 90 else max(width, height)
    angle = math.radians(degrees)
    cos, sin = math.cos(angle), math.sin(angle)
    rotation = np.array([[cos, -sin], [sin, cos]])
    shift = np.full(2, side / 2) - rotation @ np.array([width / 2, height / 2])
    forward = np.concatenate([rotation, shift[:, None]], axis=1)
    return warp(picture, forward, side), forward


def _inverse(forward: NDArray[np.float64]) -> NDArray[np.float64]:
    inverse: NDArray[np.float64] = np.linalg.inv(np.vstack([forward, [0.0, 0.0, 1.0]]))[:2]
    return inverse


def _face(box: Any, shape: Any, score: float) -> Face:
    """From dlib's types and order: right eye outer, inner, left eye outer, inner, nose base."""
    points = np.array([[part.x, part.y] for part in shape.parts()], dtype=np.float32)
    left_eye, right_eye = points[2:4].mean(axis=0), points[0:2].mean(axis=0)
    middle, across = (left_eye + right_eye) / 2, right_eye - left_eye
    base = points[4] - middle
    aside = across * (base @ across) / max(float(across @ across), 1e-6)
    down = base - aside
    mouth = middle + _MOUTH_PER_BASE * base
    landmarks = np.stack(
        [
            left_eye,
            right_eye,
            middle + _TIP_DOWN_PER_BASE * down + _TIP_ASIDE_PER_BASE * aside,
            mouth - _MOUTH_HALF_WIDTH * across,
            mouth + _MOUTH_HALF_WIDTH * across,
        ]
    )
    corners = (box.left(), box.top(), box.right() + 1, box.bottom() + 1)
    left, top, right, bottom = (float(corner) for corner in corners)
    return Face((left, top, right, bottom), landmarks.astype(np.float32), float(score))


def _scaled(face: Face, factor: float) -> Face:
    left, top, right, bottom = (side * factor for side in face.box)
    return Face((left, top, right, bottom), face.landmarks * np.float32(factor), face.score)


def _mapped(face: Face, matrix: NDArray[np.float64]) -> Face:
    """Carry a face through a rotation; the box keeps its size and stays axis-aligned."""
    centre = np.array([face.box[0] + face.box[2], face.box[1] + face.box[3]]) / 2
    x, y = matrix[:, :2] @ centre + matrix[:, 2]
    landmarks = (face.landmarks @ matrix[:, :2].T + matrix[:, 2]).astype(np.float32)
    half_width, half_height = face.width / 2, face.height / 2
    box = (x - half_width, y - half_height, x + half_width, y + half_height)
    return Face((float(box[0]), float(box[1]), float(box[2]), float(box[3])), landmarks, face.score)


def _upright_square(face: Face) -> NDArray[np.float64]:
    """The similarity that levels the eyes and puts the face box in the middle of the square."""
    across = face.landmarks[1] - face.landmarks[0]
    across = across / max(float(np.linalg.norm(across)), 1e-6)
    centre = np.array([face.box[0] + face.box[2], face.box[1] + face.box[3]]) / 2
    half = math.sqrt(max(face.width, 1.0) * max(face.height, 1.0)) / 2
    source = np.stack([centre - half * across, centre + half * across])
    low, middle = (_EMBEDDING_SQUARE - _EMBEDDING_FACE) / 2, _EMBEDDING_SQUARE / 2
    target = np.array([[low, middle], [low + _EMBEDDING_FACE, middle]])
    return similarity_transform(source.astype(np.float32), target.astype(np.float32))
