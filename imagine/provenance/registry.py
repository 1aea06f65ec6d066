"""Which pictures were made here, recognised by how they look: near duplicates by PDQ hash.

Survives re-encoding, scaling and small edits; blind to crops, which the watermark survives. A hash
tells nothing about a face, but it is data about its picture and goes with it: what is left then is
the record number beside zeros. `HashFile` keeps the registry between runs.
"""

from __future__ import annotations

import logging
import os
import secrets
import struct
import threading
from collections.abc import Iterable
from dataclasses import dataclass
from pathlib import Path

import numpy as np
from numpy.typing import NDArray
from PIL import Image

from imagine.core import FloatArray, ImageArray
from imagine.errors import InvalidInput, NotMarked, StorageError

NEAR = 31  # of 256 bits; the distance PDQ's authors recommend for "the same picture"
HASH_BITS = 256
_SIDE = 64
_LARGEST = 512  # larger pictures are first reduced to this side
_MAGIC = b"imagine-pdq-1\n"
_ENTRY = struct.Struct("<I32s")
_ROWS = np.dtype([("record", "<u4"), ("words", "<u8", (4,))])  # the same for numpy
logger = logging.getLogger(__name__)


@dataclass(frozen=True, slots=True)
class PerceptualHash:
    """A PDQ hash.

    Attributes:
        value: 256 bits, written in hex as other PDQ tools write it.
        quality: 0 to 100; below 50 the picture is so plain that matches mean little.
    """

    value: int
    quality: int = 100

    @property
    def hex(self) -> str:
        """64 hex digits."""
        return f"{self.value:064x}"

    @classmethod
    def from_hex(cls, text: str, quality: int = 100) -> PerceptualHash:
        """Read `hex` back.

        Raises:
            InvalidInput: not 64 hex digits.
        """
        if len(text) != HASH_BITS // 4 or not set(text.lower()) <= set("0123456789abcdef"):
            raise InvalidInput(f"A perceptual hash has 64 hex digits, not {text[:80]!r}.")
        return cls(int(text, 16), quality)

    def distance(self, other: PerceptualHash) -> int:
        """How many of the 256 bits differ; 31 or less is the same picture, 128 is chance."""
        return (self.value ^ other.value).bit_count()


@dataclass(frozen=True, slots=True)
class NearDuplicate:
    """A picture in the registry that looks the same: its audit record and the bits between."""

    record: int
    distance: int


def perceptual_hash(pixels: ImageArray) -> PerceptualHash:
    """PDQ of a picture of any size.

    Source: "The TMK+PDQF Video-Hashing Algorithm and the PDQ Image-Hashing Algorithm", Facebook
    2019: luma, two passes of box blur, 64 x 64 samples, the 16 x 16 lowest cosine terms without the
    constant ones, each compared with their median.
    """
    samples = _samples(pixels)
    terms = _COSINES @ samples @ _COSINES.T
    bits = (terms > np.median(terms)).ravel()
    value = int.from_bytes(np.packbits(bits, bitorder="little").tobytes(), "little")
    return PerceptualHash(value, _quality(samples))


def hashes_of_all_positions(pixels: ImageArray) -> list[PerceptualHash]:
    """Of the picture, its quarter turns and their mirror images: eight hashes, as given first."""
    turned = [np.rot90(side, turns) for side in (pixels, pixels[:, ::-1]) for turns in range(4)]
    return [perceptual_hash(np.ascontiguousarray(view)) for view in turned]


class HashRegistry:
    """Hashes of what was made here, in memory; one audit record may have several.

    A hash of zeros stands for a picture that was forgotten; an all-flat picture, which looks like
    every other one, is never remembered in the first place.

    A linear search: a million hashes take some 20 ms, and nothing has to be tuned.
    """

    def __init__(self, entries: Iterable[tuple[int, PerceptualHash]] = ()) -> None:
        self._words: NDArray[np.uint64] = np.zeros((16, 4), np.uint64)
        self._records: NDArray[np.uint32] = np.zeros(16, np.uint32)
        self._count = 0
        for record, hashed in entries:
            self.add(record, hashed)

    def __len__(self) -> int:
        return int(self._words[: self._count].any(axis=1).sum())

    def add(self, record: int, hashed: PerceptualHash) -> None:
        """Remember a picture under the number of its audit record, 0 to 2**32 - 1."""
        if self._count == len(self._records):
            self._words = np.concatenate([self._words, np.zeros_like(self._words)])
            self._records = np.concatenate([self._records, np.zeros_like(self._records)])
        self._records[self._count] = record
        self._words[self._count] = _to_words(hashed)
        self._count += 1

    def remove(self, record: int) -> int:
        """Forget how the pictures of a record looked; how many hashes went."""
        rows = self._rows(record)
        self._words[rows] = 0
        return len(rows)

    def is_forgotten(self, record: int) -> bool:
        """Whether there was a picture under this record whose looks are not known any more."""
        return bool((self._records[: self._count] == record).any()) and not len(self._rows(record))

    def _rows(self, record: int) -> NDArray[np.intp]:
        """Rows of a record that hold a hash."""
        known = self._words[: self._count].any(axis=1)
        return np.flatnonzero(known & (self._records[: self._count] == record))

    def search(self, hashed: PerceptualHash, distance: int = NEAR) -> list[NearDuplicate]:
        """Everything within `distance` bits, nearest first."""
        words = self._words[: self._count]
        apart = np.bitwise_count(words ^ _to_words(hashed)).sum(axis=1)
        near = np.flatnonzero((apart <= distance) & words.any(axis=1))
        found = [NearDuplicate(int(self._records[i]), int(apart[i])) for i in near]
        return sorted(found, key=lambda item: (item.distance, item.record))

    def hashes_of(self, record: int) -> list[PerceptualHash]:
        """What is remembered under a record; empty when nothing is."""
        rows = self._rows(record)
        return [PerceptualHash(int.from_bytes(self._words[i].tobytes(), "little")) for i in rows]

    def to_bytes(self) -> bytes:
        """The whole registry; `from_bytes` reads it back."""
        rows = zip(self._records[: self._count], self._words[: self._count], strict=True)
        return _MAGIC + b"".join(_ENTRY.pack(int(r), words.tobytes()) for r, words in rows)

    @classmethod
    def from_bytes(cls, data: bytes) -> HashRegistry:
        """Read `to_bytes` back.

        Raises:
            InvalidInput: not written by `to_bytes`, or cut off.
        """
        body = data[len(_MAGIC) :]
        if not data.startswith(_MAGIC) or len(body) % _ENTRY.size:
            raise InvalidInput(
                f"These {len(data)} bytes are no registry of picture hashes, or a part of one. "
                "Restore it from a backup."
            )
        rows = np.frombuffer(body, _ROWS)
        registry = cls()
        if len(rows):
            registry._records = rows["record"].astype(np.uint32)
            registry._words = np.ascontiguousarray(rows["words"].astype(np.uint64))
            registry._count = len(rows)
        return registry


class HashFile:
    """The registry in a file that several processes may add to.

    Args:
        path: the file; made with the first picture.
    """

    def __init__(self, path: Path) -> None:
        self._path = path
        self._lock = threading.Lock()

    def add(self, record: int, hashed: PerceptualHash) -> None:
        """Remember a picture under the number of its audit record.

        Raises:
            NotMarked: it could not be written; a picture nobody can recognise must not leave.
        """
        entry = _ENTRY.pack(record, hashed.value.to_bytes(32, "little"))
        try:
            with self._lock:
                if not self._path.exists():
                    self._begin()
                # One write: entries of several processes stand behind one another, whole.
                with self._path.open("ab", buffering=0) as file:
                    file.write(entry)
        except OSError as error:
            raise NotMarked(
                f"The registry of pictures {self._path} could not be written: "
                f"{error.strerror or error}. Make room, or allow writing there."
            ) from error

    def _begin(self) -> None:
        partial = self._partial(_MAGIC)
        try:
            os.link(partial, self._path)  # unlike a rename, leaves the one of another process be
        except FileExistsError:
            pass
        finally:
            partial.unlink()

    def _partial(self, content: bytes) -> Path:
        partial = self._path.with_name(f".{self._path.name}.{secrets.token_hex(6)}.part")
        partial.touch(0o600)
        partial.write_bytes(content)
        return partial

    def read(self) -> HashRegistry:
        """What is remembered now; empty before the first picture.

        Raises:
            InvalidInput: the file is damaged.
        """
        try:
            data = self._path.read_bytes()
        except FileNotFoundError:
            return HashRegistry()
        except OSError as error:
            raise InvalidInput(
                f"The registry of pictures {self._path} could not be read: "
                f"{error.strerror or error}. Allow reading it."
            ) from error
        whole = _whole(data)
        if len(data) > whole > 0:  # a power cut, or somebody is writing right now
            logger.info("%s ends within an entry, which is left out", self._path)
        return HashRegistry.from_bytes(data[: max(whole, 0)])

    def remove(self, *records: int) -> int:
        """Overwrite the hashes of these records with zeros; how many that were.

        In place, so other processes may add meanwhile, and what was there is gone from the file.

        Raises:
            StorageError: the file is damaged, or may not be written; nothing is forgotten then.
        """
        wanted = np.array(sorted(set(records)), np.uint32)
        zeros = bytes(_ENTRY.size - 4)
        with self._lock:
            try:
                with self._path.open("r+b") as file:
                    data = file.read()
                    HashRegistry.from_bytes(data[: _whole(data)])
                    rows = np.frombuffer(data[len(_MAGIC) : _whole(data)], _ROWS)
                    known = np.isin(rows["record"], wanted) & rows["words"].any(axis=1)
                    places = np.flatnonzero(known).tolist()
                    for place in places:
                        file.seek(len(_MAGIC) + place * _ENTRY.size + 4)
                        file.write(zeros)
                    file.flush()
                    os.fsync(file.fileno())
            except FileNotFoundError:
                return 0
            except (OSError, InvalidInput) as error:
                reason = getattr(error, "strerror", None) or error
                raise StorageError(
                    f"How a deleted picture looked could not be forgotten: the registry of "
                    f"pictures {self._path} could not be changed ({reason}). Allow writing it, or "
                    "restore it from a backup, then delete again."
                ) from error
        return len(places)


def _whole(data: bytes) -> int:
    """How many bytes are whole entries and what stands before them."""
    return (len(data) - len(_MAGIC)) // _ENTRY.size * _ENTRY.size + len(_MAGIC)


def _to_words(hashed: PerceptualHash) -> NDArray[np.uint64]:
    return np.frombuffer(hashed.value.to_bytes(32, "little"), "<u8").astype(np.uint64)


def _cosines() -> FloatArray:
    rows, columns = np.arange(1, 17)[:, None], np.arange(_SIDE)[None]
    wave = np.cos(np.pi / (2 * _SIDE) * rows * (2 * columns + 1))
    return np.asarray(np.sqrt(2 / _SIDE) * wave, np.float32)


_COSINES = _cosines()


def _samples(pixels: ImageArray) -> FloatArray:
    """(64, 64) luma after two box blurs in each direction."""
    picture = Image.fromarray(pixels)
    if max(picture.size) > _LARGEST:
        sides = [max(1, round(side * _LARGEST / max(picture.size))) for side in picture.size]
        picture = picture.resize((sides[0], sides[1]), Image.Resampling.BILINEAR)
    luma = np.asarray(picture, np.float32) @ np.array([0.299, 0.587, 0.114], np.float32)
    for _ in range(2):
        luma = _box_blur(_box_blur(luma).T).T
    rows, columns = (((np.arange(_SIDE) + 0.5) * side / _SIDE).astype(int) for side in luma.shape)
    return np.ascontiguousarray(luma[np.ix_(rows, columns)])


def _box_blur(luma: FloatArray) -> FloatArray:
    """Mean over a window down each column; at the edge over the part that is there."""
    height = len(luma)
    window = (height + 2 * _SIDE - 1) // (2 * _SIDE)
    after = (window + 2) // 2
    sums = np.concatenate([np.zeros((1, luma.shape[1])), luma.cumsum(axis=0, dtype=np.float64)])
    ends = np.minimum(np.arange(height) + after, height)
    starts = np.maximum(np.arange(height) + after - window, 0)
    return np.asarray((sums[ends] - sums[starts]) / (ends - starts)[:, None], np.float32)


def _quality(samples: FloatArray) -> int:
    """0 to 100: the sum of steps between neighbouring samples, scaled as PDQ scales it."""
    steps = 0.0
    for axis in (0, 1):
        steps += float(np.abs(np.trunc(np.diff(samples, axis=axis) * 100 / 255)).sum())
    return min(100, int(steps / 90))
