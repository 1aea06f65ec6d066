"""The seam of invisible watermarks: what any of them does, and which there are.

`spread` is always on. A learned watermark is a second backend behind the same two methods, made
with the installation's key like the first; whoever brings its weights adds it to `WATERMARKS` and
names it in the settings. None is shipped, and `open_learned` says why.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from typing import Protocol

from imagine.core import ImageArray
from imagine.errors import MissingExtra
from imagine.registry import Registry


@dataclass(frozen=True, slots=True)
class WatermarkReading:
    """A watermark that was found and whose authentication code is right.

    Attributes:
        record: number of the audit record the picture was made under, 0 to 2**32 - 1.
        mirrored: the picture was mirrored since.
        quarter_turns: how often it was turned by 90 degrees since, 0 to 3.
        scale: side of this picture over that of the marked one, same pixels per feature; 1.0 is
            the whole picture, 0.9 a crop that kept nine tenths, 1.1 one on a larger canvas.
        degrees: turned clockwise by about so much since, besides the quarter turns.
    """

    record: int
    mirrored: bool = False
    quarter_turns: int = 0
    scale: float = 1.0
    degrees: float = 0.0

    @property
    def is_whole(self) -> bool:
        """Whether nothing was cut off or added around it, as far as the watermark tells."""
        return abs(self.scale - 1) < 0.01 and not self.degrees


class Watermark(Protocol):
    """Writes a record number into the pixels, invisibly, and reads it back."""

    def embed(self, pixels: ImageArray, record: int) -> ImageArray:
        """The same picture carrying `record`; the given array stays as it is.

        Raises:
            InvalidInput: too small, or `record` out of range.
            WatermarkNotKept: this picture cannot hold a mark that reads back.
        """
        ...

    def read(self, pixels: ImageArray) -> WatermarkReading | None:
        """What the picture carries, or None; only an authenticated record is ever returned."""
        ...


WATERMARKS = Registry[Watermark]("watermark")
WATERMARKS.add("spread", "imagine.provenance.spread_spectrum:SpreadSpectrumWatermark")

# Looked at and not shipped: name, why, and what whoever wants it would do.
ABSENT = {
    "trustmark": (
        "its weights (MIT, like the code) are in no package: `pip install trustmark` brings the "
        "code, which fetches them when first used. Fetch them, wrap `TrustMark` in a class with "
        "`embed` and `read` that puts our authenticated number into its 61 bits, and add that "
        "class to `imagine.provenance.watermark.WATERMARKS`"
    ),
    "rivagan": (
        "its weights (MIT) come with `pip install invisible-watermark`, but it carries 32 bits "
        "without a key: too few for a number that proves itself, and anybody can write or erase "
        "them. It can only hint, and a hint is not what a watermark of ours says"
    ),
}


def open_learned(name: str, key: bytes) -> Watermark | None:
    """The learned watermark of the settings, made with the installation's key; "" is none.

    Raises:
        MissingExtra: a known one that is not shipped; says which weights, licence and command.
        UnknownName: nobody added one of this name.
    """
    if not name:
        return None
    if name in ABSENT and name not in WATERMARKS.names():
        raise MissingExtra(f"The learned watermark {name!r} is not here: {ABSENT[name]}.")
    chosen: Callable[[bytes], Watermark] = WATERMARKS.get(name)
    return chosen(key)
