"""The seam of invisible watermarks: what any of them does, and which there are.

`spread` is always on. A learned watermark is a second backend behind the same two methods; it is
added to `WATERMARKS` by whoever brings its weights.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Protocol

from imagine.core import ImageArray
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
    """

    record: int
    mirrored: bool = False
    quarter_turns: int = 0
    scale: float = 1.0

    @property
    def is_whole(self) -> bool:
        """Whether nothing was cut off or added around it, as far as the watermark tells."""
        return abs(self.scale - 1) < 0.01


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
