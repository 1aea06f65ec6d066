"""The real detector and encoder, loaded once for all tests of the room."""

from __future__ import annotations

from functools import cache

from imagine.identity.dlib_faces import DlibDetector, DlibEncoder
from imagine.settings import Settings


@cache
def detector() -> DlibDetector:
    return DlibDetector.load(Settings())


@cache
def encoder() -> DlibEncoder:
    return DlibEncoder.load(Settings())
