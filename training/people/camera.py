"""What a camera makes of a picture: focus, sharpness, colour, noise and the file it is stored in.

Everything here is drawn per photo; nothing of it belongs to the person. Styles that a caption
names (black and white, sepia) are another thing: see `styles.py`.
"""

from __future__ import annotations

import io
from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray
from PIL import Image
from scipy import ndimage

FloatArray = NDArray[np.floating[Any]]
LUMA = np.array([0.299, 0.587, 0.114], np.float32)


@dataclass(frozen=True)
class Lens:
    """One camera and its settings.

    Attributes:
        aperture: blur of something far behind the face, as a share of the picture's width.
        fringe: how much larger red is drawn than blue, as a share; colour at the edges.
        softness: blur of the whole picture, in thousandths of its width.
        sharpening: what the camera adds to edges, 0 to 1.
        contrast: 1 leaves it; above is harder.
        saturation: 1 leaves it.
        cast: red and blue, each a factor near 1.
        lift: how far black is from black, 0 to 0.08.
        noise: standard deviation at mid grey, in 0..1.
        coarse: 0 noise of single pixels to 1 of clumps, as film has.
        glow: share of the light that spreads around bright places.
        quality: of the JPEG file; 100 leaves the file out.
    """

    aperture: float = 0.0
    fringe: float = 0.0
    softness: float = 0.0
    sharpening: float = 0.0
    contrast: float = 1.0
    saturation: float = 1.0
    cast: tuple[float, float] = (1.0, 1.0)
    lift: float = 0.0
    noise: float = 0.0
    coarse: float = 0.0
    glow: float = 0.0
    quality: int = 100


def sample_lens(g: np.random.Generator, selfie: bool) -> Lens:
    """Invent a camera: mostly a good one, sometimes an old telephone."""
    poor = g.random() < 0.12
    return Lens(
        aperture=float(g.uniform(0.0, 0.006) if selfie else g.uniform(0.0, 0.02)),
        fringe=float(abs(g.normal(0, 0.0012))),
        softness=float(g.uniform(1.0, 3.5) if poor else g.uniform(0.0, 1.6)),
        sharpening=float(g.uniform(0.0, 0.6)),
        contrast=float(np.clip(g.normal(1.05, 0.07), 0.88, 1.22)),
        saturation=float(np.clip(g.normal(1.02, 0.13), 0.6, 1.3)),
        cast=(float(g.normal(1.0, 0.025)), float(g.normal(1.0, 0.035))),
        lift=float(max(0.0, g.normal(0.0, 0.025))),
        noise=float(min(abs(g.normal(0, 0.014 if poor else 0.007)), 0.03)),
        coarse=float(g.random()),
        glow=float(max(0.0, g.normal(0.01, 0.03))),
        quality=int(g.uniform(50, 78) if poor else g.uniform(72, 98)),
    )


def take(
    image: NDArray[np.uint8], depth: FloatArray, lens: Lens, generator: np.random.Generator
) -> NDArray[np.uint8]:
    """Photograph what was drawn.

    Args:
        image: (size, size, 3) sRGB, sharp everywhere.
        depth: (size, size) 0 where the face is in focus, 1 infinitely far; below 0 nearer.
        lens: the camera.
        generator: source of the noise.

    Returns:
        (size, size, 3) uint8 sRGB.
    """
    size = image.shape[0]
    colour: FloatArray = image.astype(np.float32) / 255
    if lens.aperture > 0:
        colour = _focus(colour, depth, lens.aperture * size)
    if lens.softness > 0.4:
        sigma = lens.softness * size / 1000
        colour = ndimage.gaussian_filter(colour, (sigma, sigma, 0))
    if lens.glow > 0.005:
        bright = np.maximum(colour - 0.7, 0)
        reach = size / 24
        colour = colour + lens.glow * 3 * ndimage.gaussian_filter(bright, (reach, reach, 0))
    if lens.fringe * size > 0.05:
        colour = _fringe(colour, lens.fringe)
    colour = _tone(colour, lens)
    if lens.sharpening > 0.05:
        soft = ndimage.gaussian_filter(colour, (0.8, 0.8, 0))
        colour = colour + lens.sharpening * (colour - soft)
    if lens.noise > 0.001:
        colour = colour + _noise(colour, lens, generator)
    taken = np.asarray(np.clip(colour * 255 + 0.5, 0, 255), np.uint8)
    return taken if lens.quality >= 100 else _stored(taken, lens.quality)


def _focus(colour: FloatArray, depth: FloatArray, widest: float) -> FloatArray:
    """Blur what lies behind the face, without letting the face run out into it."""
    result = colour
    for nearest, share in ((0.5, 1.0), (0.05, 0.35)):  # what is far behind, then shoulders and ears
        sigma = widest * share
        if sigma < 0.4:
            continue
        behind = (depth > nearest).astype(np.float32)[..., None]
        spread = ndimage.gaussian_filter(result * behind, (sigma, sigma, 0), truncate=2.5)
        weight = ndimage.gaussian_filter(behind, (sigma, sigma, 0), truncate=2.5)
        edge = ndimage.gaussian_filter(behind, (0.5, 0.5, 0), truncate=2)
        soft = spread / np.maximum(weight, 1e-3)
        result = result * (1 - edge) + soft * edge
    return np.asarray(result, np.float32)


def _fringe(colour: FloatArray, amount: float) -> FloatArray:
    """Draw red a little larger and blue a little smaller about the centre."""
    size = colour.shape[0]
    middle = (size - 1) / 2
    result = colour.copy()
    for channel, factor in ((0, 1 - amount), (2, 1 + amount)):
        offset = middle - middle * factor
        result[..., channel] = ndimage.affine_transform(
            colour[..., channel], np.array([factor, factor]), offset, order=1, mode="nearest"
        )
    return result


def _tone(colour: FloatArray, lens: Lens) -> FloatArray:
    """Colour cast, saturation, contrast and how black black is."""
    cast = np.array([lens.cast[0], 1.0, lens.cast[1]], np.float32)
    colour = colour * (cast / float(cast @ LUMA))
    grey = (colour @ LUMA)[..., None]
    colour = grey + (colour - grey) * lens.saturation
    colour = (colour - 0.45) * lens.contrast + 0.45
    return np.asarray(lens.lift + np.clip(colour, 0, 1) * (1 - lens.lift), np.float32)


def _noise(colour: FloatArray, lens: Lens, generator: np.random.Generator) -> FloatArray:
    """Noise of the sensor or film: most in the mid-tones, partly coloured, partly in clumps."""
    height, width = colour.shape[:2]
    fine = generator.standard_normal((height, width, 4), np.float32)
    clumps = ndimage.gaussian_filter(fine, (0.7, 0.7, 0)) * 2.4
    mixed = fine * (1 - lens.coarse) + clumps * lens.coarse
    grey = (colour @ LUMA)[..., None]
    amount = lens.noise * (0.4 + 2.4 * np.clip(grey, 0, 1) * (1 - np.clip(grey, 0, 1)))
    return np.asarray(amount * (0.8 * mixed[..., :1] + 0.45 * mixed[..., 1:]), np.float32)


def _stored(image: NDArray[np.uint8], quality: int) -> NDArray[np.uint8]:
    """What a JPEG file of this quality gives back."""
    file = io.BytesIO()
    Image.fromarray(image).save(file, "JPEG", quality=quality)
    with Image.open(file) as opened:
        return np.asarray(opened.convert("RGB"), np.uint8)
