"""The thumbnails of the page's styles: `python -m training.people.style_pictures`.

One sample person, who does not exist, in every style the page offers. What the embedded model was
taught is drawn with the very filter it was taught with; paint and ink are imitated.
"""

from __future__ import annotations

import argparse
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray
from PIL import Image, ImageFilter, ImageOps

from training.people.person import sample_person
from training.people.renderer import Renderer
from training.people.samples import SAMPLES
from training.people.scene import sample_scene
from training.people.styles import apply_style

SIZE = 112  # pixels of a thumbnail; the page shows it at half of that
RENDERED = 448
FOLDER = Path("imagine/ui/look")
Pixels = NDArray[np.uint8]

# Style of the page -> style of the renderer.
TAUGHT = {
    "plain": "colour photo",
    "black_and_white": "black and white",
    "warm_film": "warm film",
    "cool_film": "cool film",
    "high_contrast": "high contrast",
    "faded": "faded",
    "sepia": "sepia",
}


def draw_thumbnails(folder: Path, renderer: Renderer) -> list[Path]:
    """Write `style-<name>.webp` for every style; returns the files."""
    pictures = {name: _taught(_portrait(renderer, "park"), style) for name, style in TAUGHT.items()}
    plain = pictures["plain"]
    pictures["studio"] = _portrait(renderer, "studio")
    low_sun = _taught(_portrait(renderer, "sunset"), "warm film")
    pictures["golden_hour"] = _bytes(low_sun / 255 * (1.18, 1.02, 0.78))
    pictures |= {name: imitate(plain) for name, imitate in IMITATED.items()}
    written = []
    for name, pixels in pictures.items():
        file = folder / f"style-{name}.webp"
        small = Image.fromarray(pixels).resize((SIZE, SIZE), Image.Resampling.LANCZOS)
        small.save(file, quality=72, method=6)
        written.append(file)
    return written


def _portrait(renderer: Renderer, place: str) -> Pixels:
    sample = SAMPLES[0]
    person = sample_person(sample.person_seed)
    scene = sample_scene(person, sample.scene_seeds[1], "selfie")
    scene = replace(scene, place=place, style="colour photo", grain=0.0, vignette=0.0)
    return np.asarray(renderer.render(person, scene, RENDERED), np.uint8)


def _taught(pixels: Pixels, style: str) -> Pixels:
    return apply_style(pixels, style, 0.02, 0.15, np.random.default_rng(0))


def _watercolour(pixels: Pixels) -> Pixels:
    image = Image.fromarray(pixels).filter(ImageFilter.MedianFilter(7))
    wash = np.asarray(image.filter(ImageFilter.ModeFilter(7)), np.float32) / 255
    paper = np.random.default_rng(1).normal(0, 0.03, pixels.shape[:2])[..., None]
    light = 0.22 + 0.84 * wash + paper
    y, x = np.mgrid[-1 : 1 : pixels.shape[0] * 1j, -1 : 1 : pixels.shape[1] * 1j]
    edge = np.clip((np.hypot(x, y) - 0.85) * 4, 0, 1)[..., None]  # the brush stops before the paper
    return _bytes(light * (1 - edge) + 0.97 * edge)


def _oil(pixels: Pixels) -> Pixels:
    image = ImageOps.posterize(Image.fromarray(pixels).filter(ImageFilter.ModeFilter(9)), 5)
    relief = np.asarray(image.convert("L").filter(ImageFilter.EMBOSS), np.float32) / 255 - 0.5
    paint = np.asarray(image.filter(ImageFilter.SMOOTH), np.float32) / 255
    return _bytes((paint - 0.45) * 1.2 + 0.47 + 0.45 * relief[..., None])


def _comic(pixels: Pixels) -> Pixels:
    image = Image.fromarray(pixels).filter(ImageFilter.MedianFilter(7))
    flat = np.asarray(ImageOps.posterize(image, 2).filter(ImageFilter.ModeFilter(7)), np.float32)
    soft = image.convert("L").filter(ImageFilter.GaussianBlur(2.5))
    softer = image.convert("L").filter(ImageFilter.GaussianBlur(6))
    ink = np.asarray(soft, np.float32) - np.asarray(softer, np.float32) < -9
    return _bytes(np.where(ink[..., None], 0.05, np.minimum(1, flat / 255 * 1.15 + 0.18)))


def _bytes(colour: NDArray[Any]) -> Pixels:
    return np.asarray(np.clip(colour * 255 + 0.5, 0, 255), np.uint8)


IMITATED: dict[str, Callable[[Pixels], Pixels]] = {
    "watercolour": _watercolour,
    "oil": _oil,
    "comic": _comic,
}


def main() -> None:
    """Write the thumbnails from the command line."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--out", type=Path, default=FOLDER)
    given = parser.parse_args()
    for file in draw_thumbnails(given.out, Renderer(size=RENDERED)):
        print(file, file.stat().st_size)


if __name__ == "__main__":
    main()
