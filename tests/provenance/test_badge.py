from __future__ import annotations

import numpy as np
import pytest

from imagine.provenance.badge import Badge, Corner


def luminance(grey: float) -> float:
    """Relative luminance of a grey, WCAG 2."""
    share = grey / 255
    return share / 12.92 if share <= 0.04045 else ((share + 0.055) / 1.055) ** 2.4


@pytest.mark.parametrize("corner", list(Corner))
@pytest.mark.parametrize("size", [(128, 128), (512, 512), (1024, 768)])
def test_only_a_small_bottom_corner_changes(corner: Corner, size: tuple[int, int]) -> None:
    before = np.full((*size, 3), 130, np.uint8)
    changed = (Badge(corner).draw(before) != before).any(axis=2)
    rows, columns = np.nonzero(changed)
    height, width = size
    assert 0 < changed.mean() < 0.025
    assert rows.min() > 0.8 * height  # a face in the middle, or low, stays free
    side = columns.max() < 0.25 * width if "left" in corner else columns.min() > 0.75 * width
    assert side


@pytest.mark.parametrize("grey", [0, 128, 255])
@pytest.mark.parametrize("side", [128, 512])
def test_the_letters_stand_out_on_any_picture(grey: int, side: int) -> None:
    badge = Badge()
    left, top, right, bottom = badge.box(side, side)
    label = badge.draw(np.full((side, side, 3), grey, np.uint8))[top:bottom, left:right, 0]
    inside = label[2:-2, 3:-3]
    letters, plate = float(np.percentile(inside, 97)), float(np.percentile(inside, 25))
    contrast = (luminance(letters) + 0.05) / (luminance(plate) + 0.05)
    assert contrast >= 4.5  # the least the web guidelines ask of text
    assert 0.1 < (inside > 160).mean() < 0.5  # letters, neither a blot nor a hair


def test_the_label_is_at_least_14_pixels_high_and_grows_with_the_picture() -> None:
    heights = []
    for side in (128, 256, 1024):
        _, top, _, bottom = Badge().box(side, side)
        heights.append(bottom - top)
    assert heights == [14, 14, 56]


def test_the_given_picture_is_not_drawn_on() -> None:
    before = np.zeros((128, 128, 3), np.uint8)
    Badge().draw(before)
    assert not before.any()


def test_a_picture_too_small_for_the_label_stays_as_it_is() -> None:
    before = np.zeros((20, 20, 3), np.uint8)
    assert np.array_equal(Badge().draw(before), before)
