from __future__ import annotations

import time
from pathlib import Path

import numpy as np
import pytest
import skimage
from PIL import Image

from imagine.core import ImageArray
from imagine.errors import InvalidInput, WatermarkNotKept
from imagine.provenance.spread_spectrum import SpreadSpectrumWatermark, Strength
from imagine.provenance.watermark import WATERMARKS, Watermark
from imagine.provenance.watermark_report import ATTACKS, drawing, psnr

KEY = b"k" * 32
REQUIRED = [
    "untouched",
    "JPEG q75",
    "JPEG q50",
    "0.5x",
    "WebP 80",
    "brightness +15 %",
    "screenshot 0.75x q80",
    "mirrored",
    "turned 90 degrees",
    "crop to 90 %, q75",
    "crop, mirrored, q75",
    "rotated by 1 degree",
    "rotated by -2 degrees",
    "straightened by 1.3",
]


@pytest.fixture(scope="module")
def watermark() -> SpreadSpectrumWatermark:
    return SpreadSpectrumWatermark(KEY)


@pytest.fixture(scope="module")
def marked(watermark: Watermark) -> list[tuple[ImageArray, ImageArray]]:
    """Clouds, gradient, ellipses and lights: before, and carrying their number plus a thousand."""
    before = [drawing(number, 256) for number in range(4)]
    return [(p, watermark.embed(p, 1000 + number)) for number, p in enumerate(before)]


@pytest.mark.parametrize("name", REQUIRED)
def test_the_record_survives(
    watermark: Watermark, marked: list[tuple[ImageArray, ImageArray]], name: str
) -> None:
    rng = np.random.default_rng(0)
    for number, (_, after) in enumerate(marked):
        found = watermark.read(np.asarray(ATTACKS[name](Image.fromarray(after), rng)))
        assert found is not None and found.record == 1000 + number


def test_the_mark_costs_at_most_38_decibels_and_leaves_the_original_alone(
    marked: list[tuple[ImageArray, ImageArray]],
) -> None:
    assert all(psnr(before, after) >= 38 for before, after in marked)
    assert np.array_equal(marked[0][0], drawing(0, 256))


@pytest.mark.parametrize("size", [(128, 128), (200, 333), (512, 512), (900, 96)])
def test_pictures_of_other_sizes_and_shapes_carry_it_too(
    watermark: Watermark, size: tuple[int, int]
) -> None:
    pixels = np.asarray(Image.fromarray(drawing(2, 512)).resize((size[1], size[0])))
    after = watermark.embed(pixels, 5)
    found = watermark.read(np.asarray(ATTACKS["JPEG q75"](Image.fromarray(after), None)))  # type: ignore[arg-type]
    assert after.shape == pixels.shape and found is not None and found.record == 5


@pytest.mark.parametrize("grey", [0, 128, 255])
def test_even_an_empty_picture_carries_it(watermark: Watermark, grey: int) -> None:
    after = watermark.embed(np.full((256, 256, 3), grey, np.uint8), 9)
    found = watermark.read(np.asarray(ATTACKS["JPEG q75"](Image.fromarray(after), None)))  # type: ignore[arg-type]
    assert found is not None and found.record == 9


def test_the_reading_tells_what_was_done(
    watermark: Watermark, marked: list[tuple[ImageArray, ImageArray]]
) -> None:
    after = marked[2][1]
    crop = watermark.read(np.ascontiguousarray(after[10:240, 20:250]))
    mirror = watermark.read(np.ascontiguousarray(after[:, ::-1]))
    turned = watermark.read(np.ascontiguousarray(np.rot90(after)))
    canvas = np.full((300, 300, 3), 200, np.uint8)
    canvas[20:276, 30:286] = after
    larger = watermark.read(canvas)
    assert crop and not crop.is_whole and crop.scale == pytest.approx(0.9, abs=0.01)
    assert mirror and mirror.mirrored and mirror.is_whole
    assert turned and turned.quarter_turns == 3
    assert larger and larger.scale == pytest.approx(300 / 256, abs=0.01)


def test_a_picture_straightened_by_hand_says_so(
    watermark: Watermark, marked: list[tuple[ImageArray, ImageArray]]
) -> None:
    turned = Image.fromarray(marked[2][1]).rotate(2, Image.Resampling.BICUBIC)
    found = watermark.read(np.asarray(turned))
    assert found and found.degrees == pytest.approx(-2, abs=0.5) and not found.is_whole


def test_marks_of_the_first_version_are_still_read(watermark: Watermark) -> None:
    """Written by version 0.1 with this key, before crops and rotations were thought of."""
    with Image.open(Path(__file__).with_name("data") / "marked-by-0.1.png") as picture:
        old = np.asarray(picture.convert("RGB"))
    whole, crop = watermark.read(old), watermark.read(np.ascontiguousarray(old[4:122, 6:124]))
    assert whole is not None and whole.record == 20261122
    assert crop is not None and crop.record == 20261122


def test_grass_survives_crops(watermark: Watermark) -> None:
    """Coarse noise drowns a mark, and a crop brings back what was cancelled of it in the margins.

    The recipe of version 0.1 read one of twelve such crops.
    """
    grass = Image.open(Path(skimage.__file__).parent / "data" / "grass.png").convert("RGB")
    pixels = np.asarray(grass.resize((256, 256), Image.Resampling.LANCZOS))
    after = watermark.embed(pixels, 77)
    crops = [after[top : top + 230, left : left + 230] for left, top in ((2, 3), (15, 12), (24, 8))]
    found = [watermark.read(np.ascontiguousarray(crop)) for crop in crops]
    assert sum(one is not None and one.record == 77 for one in found) >= 2


def test_unmarked_pictures_and_other_keys_read_nothing(
    watermark: Watermark, marked: list[tuple[ImageArray, ImageArray]]
) -> None:
    assert all(watermark.read(before) is None for before, _ in marked)
    assert SpreadSpectrumWatermark(b"x" * 32).read(marked[0][1]) is None


@pytest.mark.parametrize("size", [(1, 1), (1, 500), (40, 40), (2, 3000)])
def test_tiny_pictures_are_read_as_unmarked_and_refused_for_marking(
    watermark: Watermark, size: tuple[int, int]
) -> None:
    pixels = np.zeros((*size, 3), np.uint8)
    assert watermark.read(pixels) is None
    with pytest.raises(InvalidInput, match="at least 64 pixels"):
        watermark.embed(pixels, 1)


@pytest.mark.parametrize("record", [-1, 2**32])
def test_a_record_out_of_range_is_refused(watermark: Watermark, record: int) -> None:
    with pytest.raises(InvalidInput, match="4294967295"):
        watermark.embed(drawing(1, 128), record)


def test_a_mark_that_does_not_read_back_is_an_error_not_a_picture() -> None:
    whisper = SpreadSpectrumWatermark(KEY, (Strength(psnr=80),))
    with pytest.raises(WatermarkNotKept, match="256x256"):
        whisper.embed(drawing(0, 256), 1)


def test_a_short_key_is_refused_and_a_key_never_shows() -> None:
    with pytest.raises(InvalidInput, match="at least 16"):
        SpreadSpectrumWatermark(b"short")
    assert "kkk" not in repr(SpreadSpectrumWatermark(KEY))


def test_the_registry_knows_it() -> None:
    assert WATERMARKS.get("spread") is SpreadSpectrumWatermark


def test_marking_and_reading_512_pixels_stays_within_its_time(watermark: Watermark) -> None:
    pixels = drawing(3, 512)
    embedding, reading = [], []
    for _ in range(3):  # processor time: other work on the machine does not count
        start = time.process_time()
        after = watermark.embed(pixels, 3)
        embedding.append(time.process_time() - start)
        start = time.process_time()
        watermark.read(np.ascontiguousarray(after[20:490, 30:500]))
        reading.append(time.process_time() - start)
    # The promise is 60 ms and 1.5 s; twice that here, for slower machines than ours.
    assert min(embedding) < 0.12 and min(reading) < 3
