"""Faces by insightface: SCRFD detector and ArcFace embedding from a pack folder on this machine.

Nothing is ever downloaded: the folder is looked for first, and insightface is only given paths
that exist. The code of insightface is MIT; its packs have licences of their own, shown by
`licence`. BGR and the library's other customs stop at this file.
"""

from __future__ import annotations

from importlib import import_module
from pathlib import Path
from threading import Lock
from typing import Any

import numpy as np

from imagine.core import CROP_SIZE, Face, FloatArray, ImageArray
from imagine.errors import CorruptWeights, MissingExtra, MissingWeights
from imagine.identity.align import TEMPLATE, similarity_transform, warp
from imagine.identity.base import FaceEncoder
from imagine.settings import Settings

DEFAULT_PACK = "buffalo_l"
NON_COMMERCIAL = "non-commercial research only"
# As stated by the packs' publishers; the name of the folder decides.
PACK_LICENCES = {
    "buffalo_l": NON_COMMERCIAL,
    "buffalo_m": NON_COMMERCIAL,
    "buffalo_s": NON_COMMERCIAL,
    "buffalo_sc": NON_COMMERCIAL,
    "antelopev2": NON_COMMERCIAL,
    "raccoon": NON_COMMERCIAL,
    "cheetah": NON_COMMERCIAL,
    "auraface": "Apache-2.0",
}
UNKNOWN_LICENCE = "unknown; ask whoever made the pack"

DETECTION_SIDE = 640  # side of the square SCRFD looks at, pixels
DETECTION_SCORE = 0.5
# Where ArcFace wants the five landmarks in its 112-pixel crop (Deng et al. 2019, arXiv 1801.07698).
ARCFACE_TEMPLATE = np.array(
    [
        [38.2946, 51.6963],
        [73.5318, 51.5014],
        [56.0252, 71.7366],
        [41.5493, 92.3655],
        [70.7299, 92.2041],
    ],
    dtype=np.float32,
)
ARCFACE_SIDE = 112


class InsightFaceDetector:
    """The SCRFD detector of a pack, with its five landmarks as they are."""

    name = "insightface"

    def __init__(self, pack: Path) -> None:
        self.licence = pack_licence(pack)
        self._model = _open_pack(pack, ["detection"])["detection"]
        self._lock = Lock()  # SCRFD keeps its anchor tables between calls

    @classmethod
    def load(cls, settings: Settings) -> InsightFaceDetector:
        """Open `settings.insightface_pack`, or the default pack in insightface's own folder."""
        return cls(find_pack(settings))

    def detect(self, image: ImageArray) -> list[Face]:
        """Find faces, left to right; see `FaceDetector`."""
        bgr = np.ascontiguousarray(image[..., ::-1])
        with self._lock:
            boxes, landmarks = self._model.detect(bgr)
        if landmarks is None:
            raise CorruptWeights(
                "The insightface pack's detector gives no landmarks. Use a pack with a "
                "five-point detector such as buffalo_l, antelopev2 or AuraFace."
            )
        faces = [_face(box, points) for box, points in zip(boxes, landmarks, strict=True)]
        return sorted(faces, key=lambda face: face.box[0] + face.box[2])


def embed_crops(crops: ImageArray, encoder: FaceEncoder) -> FloatArray:
    """Describe aligned crops, which need no detection: their landmarks are known.

    Args:
        crops: (photos, CROP_SIZE, CROP_SIZE, 3) uint8, aligned by `identity.align`.
        encoder: whose vectors are wanted.

    Returns:
        (photos, d) float32.
    """
    to_crop = similarity_transform(ARCFACE_TEMPLATE[:3] / ARCFACE_SIDE, TEMPLATE)
    points = ARCFACE_TEMPLATE / ARCFACE_SIDE @ to_crop[:, :2].T + to_crop[:, 2]
    landmarks = (points * CROP_SIZE).astype(np.float32)
    left, top = (float(edge) for edge in landmarks.min(axis=0))
    right, bottom = (float(edge) for edge in landmarks.max(axis=0))
    face = Face((left, top, right, bottom), landmarks, 1.0)
    return np.stack([encoder.embed(crop, face) for crop in crops])


class InsightFaceEncoder:
    """The ArcFace embedding of a pack: unit vectors, compared by L2 distance."""

    name = "insightface"
    # Cosine 0.30 between unit vectors is L2 sqrt(2 - 0.6) = 1.18, near the middle of what users
    # of ArcFace packs report. Not calibrated here: no pack may be shipped with us.
    same_person_distance = 1.18

    def __init__(self, pack: Path) -> None:
        self.licence = pack_licence(pack)
        models = _open_pack(pack, ["detection", "recognition"])
        if "recognition" not in models:
            raise CorruptWeights(
                f"The insightface pack {pack.name!r} has no recognition model. "
                "Use a complete pack such as buffalo_l, antelopev2 or AuraFace."
            )
        self._model = models["recognition"]

    @classmethod
    def load(cls, settings: Settings) -> InsightFaceEncoder:
        """Open `settings.insightface_pack`, or the default pack in insightface's own folder."""
        return cls(find_pack(settings))

    def embed(self, image: ImageArray, face: Face) -> FloatArray:
        """Describe one face as (d,) float32 of unit length; see `FaceEncoder`."""
        # Our own warp: insightface's norm_crop does the same through a call that scikit-image is
        # about to remove, and warns each time.
        side = int(self._model.input_size[0])
        template = ARCFACE_TEMPLATE * np.float32(side / ARCFACE_SIDE)
        crop = warp(image, similarity_transform(face.landmarks, template), side)
        vector = np.asarray(self._model.get_feat(np.ascontiguousarray(crop[..., ::-1])))
        flat = vector.ravel().astype(np.float32)
        return flat / max(np.float32(np.linalg.norm(flat)), np.float32(1e-12))

    def distance(self, first: FloatArray, second: FloatArray) -> float:
        """L2 distance of unit vectors, 0 to 2; its square is 2 - 2 cos."""
        return float(np.linalg.norm(first - second))


def find_pack(settings: Settings) -> Path:
    """Find the pack folder: a path, or a name inside `~/.insightface/models`.

    Raises:
        MissingWeights: no such folder, or no .onnx file in it; says how to get one.
    """
    chosen = settings.insightface_pack or Path(DEFAULT_PACK)
    home = Path.home() / ".insightface" / "models"
    for folder in (chosen.expanduser(), home / chosen):
        # Some packs unpack into a folder of their own name inside the folder.
        for pack in (folder, folder / folder.name):
            if pack.is_dir() and any(pack.glob("*.onnx")):
                return pack
    raise MissingWeights(
        f"There is no insightface pack with .onnx files at {str(chosen)!r} nor in {str(home)!r}. "
        f"Fetch one with: insightface-cli model.download {DEFAULT_PACK} ({NON_COMMERCIAL}), "
        "or put a pack folder on this machine and name it in IMAGINE_INSIGHTFACE_PACK. "
        'The face encoder "dlib" needs no pack.'
    )


def pack_licence(pack: Path) -> str:
    """What is known of a pack's licence, by the name of its folder."""
    name = pack.name.lower()
    return f"{pack.name}: {PACK_LICENCES.get(name, UNKNOWN_LICENCE)}"


def _open_pack(pack: Path, tasks: list[str]) -> dict[str, Any]:
    face_analysis = _import_insightface()
    try:
        app = face_analysis(
            name=str(pack), allowed_modules=tasks, providers=["CPUExecutionProvider"]
        )
        app.prepare(
            ctx_id=-1, det_thresh=DETECTION_SCORE, det_size=(DETECTION_SIDE, DETECTION_SIDE)
        )
    # insightface asserts, ONNX Runtime raises its own types: whatever it is, the pack is no good.
    except Exception as error:
        raise CorruptWeights(
            f"The insightface pack in {str(pack)!r} cannot be loaded: {_in_short(error)}. "
            "It needs one detection and one recognition .onnx file; fetch the pack again."
        ) from error
    models: dict[str, Any] = app.models
    return models


def _import_insightface() -> Any:
    try:
        return import_module("insightface.app").FaceAnalysis
    except ImportError as error:
        raise MissingExtra(
            'insightface is not installed. Run: pip install "imagine-yourself[insightface]"'
        ) from error


def _in_short(error: Exception) -> str:
    if isinstance(error, AssertionError):
        return str(error) or "it has no detection model"
    return (str(error).splitlines() or [""])[0][:200] or type(error).__name__


def _face(box: FloatArray, landmarks: FloatArray) -> Face:
    left, top, right, bottom, score = (float(value) for value in box[:5])
    return Face((left, top, right, bottom), np.array(landmarks, dtype=np.float32), score)
