"""The visible label: a small "AI" in a bottom corner, where no face is.

The letters are drawn here as shapes, so that they look the same on every machine.
"""

from __future__ import annotations

from dataclasses import dataclass
from enum import StrEnum

import numpy as np
from PIL import Image, ImageDraw

from imagine.core import FloatArray, ImageArray

_SHARE = 0.055  # height of the label as a share of the picture's shorter side
_LEAST_HEIGHT = 14  # pixels; letters of eight pixels are the smallest that everybody reads
_FINER = 8  # drawn so many times larger, then reduced: smooth edges
_PLATE, _LETTERS = 24, 255  # grey levels
# x, y in tenths of the label's height, y down from its top.
_LETTER_A = ((3.0, 7.8), (5.1, 2.2), (6.5, 2.2), (8.6, 7.8), (7.1, 7.8), (5.8, 4.1), (4.5, 7.8))
_BAR_OF_A = ((4.3, 5.6), (7.3, 5.6), (7.3, 6.8), (4.3, 6.8))
_LETTER_I = ((9.9, 2.2), (11.4, 2.2), (11.4, 7.8), (9.9, 7.8))
_WIDTH = 14.4


class Corner(StrEnum):
    """Where the label stands."""

    BOTTOM_LEFT = "bottom left"
    BOTTOM_RIGHT = "bottom right"


@dataclass(frozen=True, slots=True)
class Badge:
    """The label as policy wants it; to leave it out, hand over None instead.

    Attributes:
        corner: which bottom corner.
        opacity: of the dark plate behind the letters, 0.5 to 1; the letters are always solid.
    """

    corner: Corner = Corner.BOTTOM_RIGHT
    opacity: float = 0.85

    def box(self, height: int, width: int) -> tuple[int, int, int, int]:
        """Left, top, right, bottom in pixels of a picture of this size."""
        tall = max(_LEAST_HEIGHT, round(_SHARE * min(height, width)))
        wide, margin = round(tall * _WIDTH / 10), max(2, tall // 4)
        left = margin if self.corner is Corner.BOTTOM_LEFT else width - margin - wide
        return left, height - margin - tall, left + wide, height - margin

    def draw(self, pixels: ImageArray) -> ImageArray:
        """A copy of the picture with the label; one too small for it stays as it is."""
        height, width = pixels.shape[:2]
        left, top, right, bottom = self.box(height, width)
        if left < 0 or top < height // 2:
            return pixels.copy()
        plate, letters = _shapes(bottom - top, right - left)
        labelled = pixels.copy()
        under = labelled[top:bottom, left:right].astype(np.float32)
        dark = np.clip(self.opacity, 0.5, 1) * plate
        over = under * (1 - dark) + _PLATE * dark
        over = over * (1 - letters) + _LETTERS * letters
        labelled[top:bottom, left:right] = np.rint(over)
        return labelled


def _shapes(tall: int, wide: int) -> tuple[FloatArray, FloatArray]:
    """Coverage 0 to 1 of plate and letters, each (tall, wide, 1)."""
    unit = tall * _FINER / 10
    layers = []
    for polygons in ((), (_LETTER_A, _BAR_OF_A, _LETTER_I)):
        layer = Image.new("L", (wide * _FINER, tall * _FINER))
        pen = ImageDraw.Draw(layer)
        if not polygons:
            pen.rounded_rectangle((0, 0, *(side - 1 for side in layer.size)), 2.5 * unit, fill=255)
        for polygon in polygons:
            pen.polygon([(x * unit, y * unit) for x, y in polygon], fill=255)
        small = layer.resize((wide, tall), Image.Resampling.BOX)
        coverage: FloatArray = np.asarray(small, np.float32)[:, :, None] / np.float32(255)
        layers.append(coverage)
    return layers[0], layers[1]
