from __future__ import annotations

from dataclasses import replace

import pytest

from imagine.backends import BackendInfo
from imagine.backends.base import shape_of, sizes_by_blocks
from imagine.backends.fake import FakeBackend
from imagine.errors import InvalidInput


@pytest.fixture
def info() -> BackendInfo:
    sizes = {"3:4": (576, 448), "4:3": (448, 576)}
    return replace(FakeBackend().info, name="some", image_size=(512, 512), other_sizes=sizes)


def test_sdxl_is_asked_for_the_sizes_it_was_taught_on() -> None:
    # Height and width; rows of the table in appendix I of arXiv 2307.01952.
    assert sizes_by_blocks(1024, 64) == {
        "3:4": (1152, 896),
        "4:3": (896, 1152),
        "2:3": (1216, 832),
        "3:2": (832, 1216),
        "9:16": (1344, 768),
        "16:9": (768, 1344),
    }


def test_a_ratio_that_no_size_comes_near_to_is_not_offered() -> None:
    assert sizes_by_blocks(512, 64) == {
        "3:4": (576, 448),
        "4:3": (448, 576),
        "9:16": (640, 384),
        "16:9": (384, 640),
    }
    assert sizes_by_blocks(64, 64) == {}


def test_of_two_ratios_with_one_size_the_nearer_one_names_it() -> None:
    sizes = sizes_by_blocks(768, 64)
    assert sizes["3:4"] == (896, 640) and "2:3" not in sizes


def test_a_size_in_pixels_finds_its_ratio(info: BackendInfo) -> None:
    assert [info.ratio_of(512, 512), info.ratio_of(448, 576)] == ["1:1", "3:4"]
    with pytest.raises(InvalidInput, match=r"no pictures of 1024x1024 pixels.*4:3 \(576x448\)"):
        info.ratio_of(1024, 1024)


def test_the_list_of_sizes_tells_the_width_first(info: BackendInfo) -> None:
    assert info.sizes_in_words() == "1:1 (512x512), 3:4 (448x576), 4:3 (576x448)"


def test_a_backend_that_tells_no_other_sizes_draws_squares(info: BackendInfo) -> None:
    plain = replace(info, other_sizes={})
    assert plain.size_of("1:1") == (512, 512)
    with pytest.raises(InvalidInput, match=r"Choose one of: 1:1 \(512x512\)\.$"):
        plain.size_of("3:4")


@pytest.mark.parametrize(
    "wrong", ["", "3", "3:", "3x4", "0:1", "3:4:5", "-3:4", "9" * 5000, 3, None]
)
def test_what_is_no_ratio_is_refused_in_few_words(wrong: object) -> None:
    with pytest.raises(InvalidInput, match="must be width to height, such as '3:4'") as refused:
        shape_of(wrong)  # type: ignore[arg-type]
    assert len(str(refused.value)) < 120


def test_a_ratio_is_read_as_width_and_height() -> None:
    assert shape_of("16:9") == (16, 9)
