"""The contracts of finding a face and of knowing one again.

Detectors and encoders are chosen apart: any encoder takes the faces of any detector, because both
speak through `imagine.core.Face`.
"""

from __future__ import annotations

from typing import Protocol, runtime_checkable

from imagine.core import Face, FloatArray, ImageArray
from imagine.settings import Settings


@runtime_checkable
class FaceDetector(Protocol):
    """Finds faces and their five landmarks."""

    @property
    def name(self) -> str:
        """The registry name."""

    @property
    def licence(self) -> str:
        """Licence of the weights, in words."""

    @classmethod
    def load(cls, settings: Settings) -> FaceDetector:
        """Open the weights; nothing is ever downloaded.

        Raises:
            MissingExtra: the package is not installed.
            MissingWeights: the weights are not on this machine.
            CorruptWeights: the weights cannot be used.
        """

    def detect(self, image: ImageArray) -> list[Face]:
        """Find the faces of a picture, sorted left to right; an empty list where there is none.

        Safe to call from several threads. `image` is (height, width, 3) uint8 RGB of any size.
        """


@runtime_checkable
class FaceEncoder(Protocol):
    """Turns a face into a vector that is near for one person and far for two."""

    @property
    def name(self) -> str:
        """The registry name."""

    @property
    def licence(self) -> str:
        """Licence of the weights, in words."""

    @property
    def same_person_distance(self) -> float:
        """Faces at most this far apart are taken to be one person."""

    @classmethod
    def load(cls, settings: Settings) -> FaceEncoder:
        """Open the weights; nothing is ever downloaded. Raises as `FaceDetector.load`."""

    def embed(self, image: ImageArray, face: Face) -> FloatArray:
        """Describe one face of `image` as a (d,) float32 vector, the same every time.

        Safe to call from several threads. `image` is (height, width, 3) uint8 RGB.
        """

    def distance(self, first: FloatArray, second: FloatArray) -> float:
        """How far apart two (d,) vectors of this encoder are, at least 0, symmetric."""
