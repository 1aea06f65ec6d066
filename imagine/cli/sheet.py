"""One picture that shows selfies on top and what was made of them below."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, field

import numpy as np
from PIL import Image, ImageDraw, ImageFont, ImageOps

from imagine.core import ImageArray, LikenessVerdict
from imagine.identity.likeness import LOOKS_LIKE, SOMETHING_OF

PICTURE = 288  # side of a generated picture on the sheet, pixels
SELFIE = 176
MARGIN = 40
GAP = 24
PAPER = (250, 249, 246)
INK = (34, 34, 38)
FAINT = (120, 118, 114)
# Verdict colours readable on PAPER: green, amber, red; contrast at least 4.5 to 1.
GOOD, MIDDLING, BAD = (24, 112, 60), (146, 88, 0), (170, 40, 40)


@dataclass(frozen=True, slots=True)
class Entry:
    """One picture of the sheet: (height, width, 3) uint8 RGB, its prompt and its verdict."""

    image: ImageArray = field(repr=False)
    prompt: str
    verdict: LikenessVerdict


def draw_sheet(
    selfies: Sequence[ImageArray], entries: Sequence[Entry], caption: str, footer: str
) -> ImageArray:
    """Lay selfies and pictures out on one page.

    Args:
        selfies: one to five photos, cut square from the middle.
        entries: the pictures, in one row.
        caption: the words above the selfies.
        footer: the small print.

    Returns:
        (height, width, 3) uint8 RGB.
    """
    width = 2 * MARGIN + len(entries) * PICTURE + (len(entries) - 1) * GAP
    width = max(width, 2 * MARGIN + len(selfies) * (SELFIE + GAP))
    # Drawn on a page with room to spare, then cut where the words end.
    page = Image.new("RGB", (width, 1200), PAPER)
    pen = ImageDraw.Draw(page)
    top = _line(pen, MARGIN, MARGIN - 6, "Imagine yourself", 30, INK) + 14
    top = _line(pen, MARGIN, top, caption, 17, FAINT) + 8
    for index, selfie in enumerate(selfies):
        page.paste(_square(selfie, SELFIE), (MARGIN + index * (SELFIE + GAP), top))
    top = _line(pen, MARGIN, top + SELFIE + 28, "New pictures of that person", 17, FAINT) + 8
    bottoms = [
        _entry(page, pen, entry, MARGIN + index * (PICTURE + GAP), top)
        for index, entry in enumerate(entries)
    ]
    small_print = f"Made by a machine. {footer}. Likeness is judged by a face recogniser."
    bottom = _line(pen, MARGIN, max(bottoms) + 24, small_print, 14, FAINT)
    return np.asarray(page.crop((0, 0, width, bottom + MARGIN - 10)), dtype=np.uint8)


def verdict_line(verdict: LikenessVerdict) -> str:
    """The verdict as it stands under a picture."""
    if not verdict.face_found:
        return verdict.words
    return f"{verdict.words} Likeness {verdict.score:.2f}."


def _entry(page: Image.Image, pen: ImageDraw.ImageDraw, entry: Entry, left: int, top: int) -> int:
    page.paste(_square(entry.image, PICTURE), (left, top))
    below = _paragraph(pen, left, top + PICTURE + 10, entry.prompt, 17, INK)
    colour = _colour(entry.verdict.score)
    return _paragraph(pen, left, below + 4, verdict_line(entry.verdict), 16, colour)


def _colour(score: float) -> tuple[int, int, int]:
    return GOOD if score >= LOOKS_LIKE else MIDDLING if score >= SOMETHING_OF else BAD


def _square(image: ImageArray, side: int) -> Image.Image:
    return ImageOps.fit(Image.fromarray(image), (side, side), Image.Resampling.LANCZOS)


def _line(
    pen: ImageDraw.ImageDraw, left: int, top: int, text: str, size: int, ink: tuple[int, int, int]
) -> int:
    """Write one line and return where the next may begin."""
    pen.text((left, top), text, fill=ink, font=ImageFont.load_default(size))
    return top + round(size * 1.3)


def _paragraph(
    pen: ImageDraw.ImageDraw, left: int, top: int, text: str, size: int, ink: tuple[int, int, int]
) -> int:
    """Write words wrapped to a picture's width, at most four lines."""
    for line in wrapped(pen, text, size, PICTURE)[:4]:
        top = _line(pen, left, top, line, size, ink)
    return top


def wrapped(pen: ImageDraw.ImageDraw, text: str, size: int, width: int) -> list[str]:
    """Break text into lines of at most `width` pixels; a longer word stands alone."""
    font = ImageFont.load_default(size)
    lines = [""]
    for word in text.split():
        longer = f"{lines[-1]} {word}".strip()
        if lines[-1] and pen.textlength(longer, font=font) > width:
            lines.append(word)
        else:
            lines[-1] = longer
    return lines
