from __future__ import annotations

from collections.abc import Sequence
from typing import cast

import numpy as np
import pytest

from imagine.backends.prompt_judge import AttributePromptJudge
from imagine.backends.selfie_traits import read_selfies
from imagine.core import ImageArray

CROPS = np.full((2, 128, 128, 3), 100, np.uint8)


class Opinion:
    """A judge that sees the same on every photo."""

    def __init__(self, **seen: dict[str, float]) -> None:
        self.seen = seen
        self.shown: Sequence[ImageArray] = ()

    def probabilities(self, images: Sequence[ImageArray]) -> list[dict[str, dict[str, float]]]:
        self.shown = images
        return [self.seen] * len(images)


def read(trait: str, opinion: Opinion, years: float = 30.0) -> tuple[str | None, str]:
    judge = cast("AttributePromptJudge", opinion)
    (reading,) = read_selfies(CROPS, [trait], judge, lambda crop: years)
    return reading.value, reading.words


def test_what_is_seen_clearly_is_kept_and_said() -> None:
    opinion = Opinion(hair_colour={"red": 0.7, "brown": 0.3})
    assert read("hair_colour", opinion) == ("red", "Kept from the selfies: hair colour red.")


def test_what_is_unsure_is_said_and_not_asked_for() -> None:
    value, words = read("hair_colour", Opinion(hair_colour={"red": 0.35, "brown": 0.3}))
    assert value is None and "cannot be told" in words


def test_a_bald_head_has_no_hair_colour_to_keep() -> None:
    assert read("hair_colour", Opinion(hair_colour={"none": 0.9, "red": 0.1}))[0] is None


@pytest.mark.parametrize(
    ("years", "value"), [(25.0, "young"), (47.0, "middle-aged"), (70.0, "old"), (37.0, None)]
)
def test_age_is_told_in_bands_and_not_near_their_borders(years: float, value: str | None) -> None:
    assert read("age", Opinion(), years)[0] == value


def test_the_judge_is_shown_a_portrait_and_not_the_bare_crop() -> None:
    opinion = Opinion(glasses={"none": 1.0})
    read("glasses", opinion)
    assert len(opinion.shown) == 2
    assert opinion.shown[0][127, 0].tolist() == [128, 128, 128]  # grey beside the head
