"""What happens to a photo after the camera: black and white, film colours, grain, vignette."""

from __future__ import annotations

from typing import Any

import numpy as np
from numpy.typing import NDArray

FloatArray = NDArray[np.floating[Any]]


def apply_style(
    image: NDArray[np.uint8],
    style: str,
    grain: float,
    vignette: float,
    generator: np.random.Generator,
) -> NDArray[np.uint8]:
    """Give a photo its style.

    Args:
        image: (h, w, 3) sRGB.
        style: one of `scene.STYLES`.
        grain: standard deviation of noise in 0..1.
        vignette: darkening of the corners in 0..1.
        generator: source of the noise.

    Returns:
        The same shape.
    """
    colour: FloatArray = image.astype(np.float32) / 255
    grey = (colour @ np.array([0.299, 0.587, 0.114], np.float32))[..., None]
    if style == "black and white":
        colour = np.repeat(_contrast(grey, 1.08), 3, 2)
    elif style == "sepia":
        colour = grey * np.array([1.10, 0.93, 0.70], np.float32) + 0.02
    elif style == "warm film":
        colour = _contrast(colour, 1.05) * np.array([1.08, 1.0, 0.82], np.float32)
        colour = colour + np.array([0.03, 0.012, 0.0], np.float32)
    elif style == "cool film":
        colour = _contrast(colour, 1.05) * np.array([0.88, 0.99, 1.08], np.float32)
        colour = colour + np.array([0.0, 0.012, 0.04], np.float32)
    elif style == "high contrast":
        colour = _contrast(grey + (colour - grey) * 1.15, 1.45)
    elif style == "faded":
        colour = 0.13 + 0.74 * (grey + (colour - grey) * 0.65)
    height, width = image.shape[:2]
    if vignette > 0:
        y = np.linspace(-1, 1, height, dtype=np.float32)[:, None]
        x = np.linspace(-1, 1, width, dtype=np.float32)[None]
        colour = colour * (1 - vignette * 0.5 * (x * x + y * y)[..., None] ** 1.5)
    if grain > 0:
        channels = 1 if style in ("black and white", "sepia") else 3
        noise = generator.standard_normal((height, width, channels), np.float32)
        colour = colour + grain * noise
    return np.asarray(np.clip(colour * 255 + 0.5, 0, 255), np.uint8)


def _contrast(colour: FloatArray, amount: float) -> FloatArray:
    return np.asarray(np.clip((colour - 0.48) * amount + 0.48, 0, 1), np.float32)
