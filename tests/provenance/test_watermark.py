from __future__ import annotations

from pathlib import Path

import pytest

from imagine.core import ImageArray
from imagine.errors import MissingExtra, UnknownName, WatermarkNotKept
from imagine.provenance import AuditReference, mark_image, open_marker, open_verifier
from imagine.provenance.watermark import ABSENT, WATERMARKS, WatermarkReading, open_learned
from imagine.provenance.watermark_report import drawing


class OnePixel:
    """A learned watermark for the test: paints a corner, and knows it again."""

    def __init__(self, key: bytes, weights: Path) -> None:
        self.colour = key[0]

    def embed(self, pixels: ImageArray, record: int) -> ImageArray:
        marked = pixels.copy()
        marked[:8, :8] = record
        return marked

    def read(self, pixels: ImageArray) -> WatermarkReading | None:
        # The first watermark lies over it: what stands there is near what was painted.
        return WatermarkReading(20 * round(pixels[:8, :8].mean() / 20))


@pytest.mark.parametrize("name", sorted(ABSENT))
def test_a_learned_watermark_that_is_not_shipped_says_which_weights_and_why(
    name: str, tmp_path: Path
) -> None:
    with pytest.raises(MissingExtra, match=r"MIT[\s\S]*pip install"):
        open_learned(name, b"k" * 32, tmp_path)


def test_an_unknown_one_is_refused_and_none_is_none(tmp_path: Path) -> None:
    assert open_learned("", b"k" * 32, tmp_path) is None
    with pytest.raises(UnknownName, match="spread"):
        open_learned("magic", b"k" * 32, tmp_path)


def test_one_that_somebody_adds_is_put_in_first_and_asked_second(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(WATERMARKS, "_targets", dict(WATERMARKS._targets))
    WATERMARKS.add("one-pixel", f"{__name__}:OnePixel")
    marker, _ = open_marker(tmp_path / "marks", learned="one-pixel")
    marked = mark_image(drawing(2, 128), None, marker, AuditReference(200, "", ""))
    assert marker.learned is not None
    found = marker.learned.read(marked.pixels)
    assert found is not None and found.record == 200
    verifier = open_verifier(tmp_path / "marks", learned="one-pixel")
    assert isinstance(verifier.learned, OnePixel)
    assert verifier.verify(marked.to_bytes(".png")).record == 200


def test_a_learned_watermark_that_the_first_one_covers_stops_the_picture(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(WATERMARKS, "_targets", dict(WATERMARKS._targets))
    WATERMARKS.add("one-pixel", f"{__name__}:OnePixel")
    marker, _ = open_marker(tmp_path / "marks", learned="one-pixel")
    monkeypatch.setattr(OnePixel, "read", lambda self, pixels: None)
    with pytest.raises(WatermarkNotKept, match="learned"):
        mark_image(drawing(2, 128), None, marker, AuditReference(200, "", ""))
