from __future__ import annotations

from pathlib import Path

import pytest

from imagine.core import ImageArray
from imagine.errors import MissingExtra, UnknownName
from imagine.provenance import AuditReference, mark_image, open_marker, open_verifier
from imagine.provenance.watermark import ABSENT, WATERMARKS, WatermarkReading, open_learned
from imagine.provenance.watermark_report import drawing


class OnePixel:
    """A learned watermark for the test: paints a corner, and knows it again."""

    def __init__(self, key: bytes) -> None:
        self.colour = key[0]

    def embed(self, pixels: ImageArray, record: int) -> ImageArray:
        marked = pixels.copy()
        marked[:8, :8] = record
        return marked

    def read(self, pixels: ImageArray) -> WatermarkReading | None:
        return WatermarkReading(int(pixels[4, 4, 0]))


@pytest.mark.parametrize("name", sorted(ABSENT))
def test_a_learned_watermark_that_is_not_shipped_says_which_weights_and_why(name: str) -> None:
    with pytest.raises(MissingExtra, match=r"MIT[\s\S]*pip install"):
        open_learned(name, b"k" * 32)


def test_an_unknown_one_is_refused_and_none_is_none() -> None:
    assert open_learned("", b"k" * 32) is None
    with pytest.raises(UnknownName, match="spread"):
        open_learned("magic", b"k" * 32)


def test_one_that_somebody_adds_is_put_in_first_and_asked_second(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(WATERMARKS, "_targets", dict(WATERMARKS._targets))
    WATERMARKS.add("one-pixel", f"{__name__}:OnePixel")
    marker, _ = open_marker(tmp_path / "marks", learned="one-pixel")
    marked = mark_image(drawing(2, 128), None, marker, AuditReference(200, "", ""))
    assert marker.learned is not None
    found = marker.learned.read(marked.pixels)
    assert found is not None and abs(found.record - 200) < 12  # under the first one's noise
    verifier = open_verifier(tmp_path / "marks", learned="one-pixel")
    assert isinstance(verifier.learned, OnePixel)
    assert verifier.verify(marked.to_bytes(".png")).record == 200
