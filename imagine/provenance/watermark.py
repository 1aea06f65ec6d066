"""The seam of invisible watermarks: what any of them does, and which there are.

`spread` is always on. A learned watermark is a second backend behind the same two methods, made
with the installation's key like the first and named in the settings. `trustmark` is known; its
weights are not shipped, and opening it without them says how to get them. Others may be added.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
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
        knows_place: whether `scale` and `degrees` were measured; learned ones cannot.
    """

    record: int
    mirrored: bool = False
    quarter_turns: int = 0
    scale: float = 1.0
    degrees: float = 0.0
    knows_place: bool = True

    @property
    def is_whole(self) -> bool:
        """Whether nothing was cut off or added around it, as far as the watermark tells."""
        return self.knows_place and abs(self.scale - 1) < 0.01 and not self.degrees


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

WATERMARKS.add("trustmark", "imagine.provenance.trustmark:TrustMarkWatermark")
WEIGHTS_FOLDER = "watermarks"  # in the data folder: a folder of weights for each learned one


@dataclass(frozen=True, slots=True)
class WatermarkLicence:
    """Whose work a watermark is and what it may be used for.

    Attributes:
        code: SPDX identifier of what the method was published under.
        weights: the same for its weights; "" where there are none.
        source: who says so.
        taught_on: what the weights learned from, as far as its authors say.
    """

    code: str
    weights: str
    source: str
    taught_on: str


LICENCES = {
    "spread": WatermarkLicence("Apache-2.0", "", "NOTICE of this project", ""),
    "trustmark": WatermarkLicence(
        "MIT",
        "MIT",
        "README of the package trustmark 0.9.2, section License: code and model files",
        "arXiv:2311.18297 names MIRFlickR 1M, photographs of Flickr under Creative Commons",
    ),
}
# Looked at and not shipped: name and why.
ABSENT = {
    "rivagan": (
        "its weights (MIT) come with `pip install invisible-watermark`, but it carries 32 bits "
        "without a key: too few for a number that proves itself, and anybody can write or erase "
        "them. It can only hint, and a hint is not what a watermark of ours says"
    ),
}


def open_learned(name: str, key: bytes, shelf: Path) -> Watermark | None:
    """The learned watermark of the settings, made with the installation's key; "" is none.

    Args:
        name: of the settings.
        key: of the installation.
        shelf: folder in which each learned watermark has a folder of weights by its name.

    Raises:
        MissingExtra: a known one that is not shipped; says why.
        MissingWeights, CorruptWeights: its weights are not here, or not to be used; says how to
            get them.
        UnknownName: nobody added one of this name.
    """
    if not name:
        return None
    if name in ABSENT and name not in WATERMARKS.names():
        raise MissingExtra(f"The learned watermark {name!r} is not here: {ABSENT[name]}.")
    chosen: Callable[[bytes, Path], Watermark] = WATERMARKS.get(name)
    return chosen(key, shelf / name)


def learned_for(marks: Path, named: str, key: bytes) -> Watermark | None:
    """What readers ask second: the one that is named, else one whose weights lie there.

    A watermark that was switched off is read as long as its weights are kept, so that pictures
    marked with it before stay known.

    Raises:
        As `open_learned`, for one that is named.
    """
    shelf = marks.parent / WEIGHTS_FOLDER
    kept = [name for name in WATERMARKS.names() if (shelf / name).is_dir()]
    return open_learned(named or (kept[0] if kept else ""), key, shelf)
