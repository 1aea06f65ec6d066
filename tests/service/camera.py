"""Somebody before a camera: frames whose first pixel says how far the head is turned."""

from __future__ import annotations

import math
from collections.abc import Iterator, Sequence
from datetime import datetime
from io import BytesIO

import numpy as np
import pytest
from PIL import Image

from imagine.core import ImageArray
from imagine.safety.enrolment import FrameMeasure
from imagine.service.loaded_models import LoadedModels
from tests.doubles import DoubleDetector, DoubleEncoder, double_crops

YAW = {"ahead": 0.0, "left": 25.0, "right": -25.0}


def frame(yaw: float, person: int = 0) -> bytes:
    """A PNG of somebody the doubles know, turned so far."""
    pixels = np.asarray(Image.fromarray(double_crops(person)[0]).resize((96, 96))).copy()
    pixels[0, 0] = round(yaw) + 128
    buffer = BytesIO()
    Image.fromarray(pixels).save(buffer, "PNG")
    return buffer.getvalue()


def frames(poses: list[str], person: int = 0) -> list[bytes]:
    """Frames of a head that turns steadily from pose to pose."""
    return [frame(yaw, person) for yaw in turning_head(poses)]


def turning_head(poses: Sequence[str]) -> Iterator[float]:
    """Degrees of a head that turns steadily from pose to pose and rests for a frame in each."""
    now = 0.0
    for pose in poses:
        while abs(now - YAW[pose]) > 1e-6:
            step = min(9.0, abs(YAW[pose] - now))
            now += math.copysign(step, YAW[pose] - now)
            yield now
        yield now


def measure(self: LoadedModels, image: ImageArray, ahead_degrees: float) -> FrameMeasure:
    """In place of `LoadedModels.measure_frame`: the doubles see no turned heads."""
    yaw = float(image[0, 0, 0]) - 128.0
    (face,) = DoubleDetector().detect(image)
    is_straight = abs(yaw) <= ahead_degrees
    return FrameMeasure(1, yaw, DoubleEncoder().embed(image, face) if is_straight else None)


class Clock:
    """The clock of the standings, moved by hand."""

    def __init__(self, start: datetime) -> None:
        self.now = start

    def __call__(self) -> datetime:
        return self.now


@pytest.fixture
def camera(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(LoadedModels, "measure_frame", measure)
