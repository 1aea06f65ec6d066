from __future__ import annotations

from dataclasses import replace

import numpy as np
import pytest

from imagine.core import ImageArray
from imagine.errors import InvalidInput
from imagine.provenance import AuditReference, Marker, WatermarkReading
from imagine.provenance.watermark_report import drawing


class Corner:
    """A learned watermark's double: paints a corner."""

    def embed(self, pixels: ImageArray, record: int) -> ImageArray:
        marked = pixels.copy()
        marked[:8, :8] = record
        return marked

    def read(self, pixels: ImageArray) -> WatermarkReading | None:
        return WatermarkReading(20 * round(pixels[:8, :8].mean() / 20))


def test_the_label_is_drawn_unless_policy_leaves_it_out(marker: Marker) -> None:
    pixels = drawing(1, 128)
    with_label, without = (
        replace(marker, badge=badge).mark_pixels(pixels, 1).astype(int)
        for badge in (marker.badge, None)
    )
    apart = np.abs(with_label - pixels).max(axis=2) > 60
    assert apart.any() and not (np.abs(without - pixels).max(axis=2) > 60).any()


def test_the_watermark_reads_through_the_label(marker: Marker) -> None:
    for size in (128, 512):
        found = marker.watermark.read(marker.mark_pixels(drawing(3, size), 77))
        assert found is not None and found.record == 77


def test_a_learned_watermark_goes_in_first(marker: Marker) -> None:
    seen: list[int] = []

    class First(Corner):
        def embed(self, pixels: ImageArray, record: int) -> ImageArray:
            seen.append(record)
            return super().embed(pixels, record)

    marked = replace(marker, learned=First()).mark_pixels(drawing(1, 128), 120)
    found = marker.watermark.read(marked)
    assert seen == [120] and found is not None and found.record == 120


@pytest.mark.parametrize("record", [-1, 2**32])
def test_an_audit_record_that_does_not_fit_is_refused(record: int) -> None:
    with pytest.raises(InvalidInput, match=str(record)):
        AuditReference(record, "", "")
