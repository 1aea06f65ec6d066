from dataclasses import replace

import numpy as np
import pytest

from training.people.person import sample_person
from training.people.skin import HEAD_BOX, SkinMap, beard_growth, fur_coat, hair_growth, paint_skin

SIZE = 128


@pytest.fixture
def regions() -> SkinMap:
    """The lower half of the head's box is jaw, the upper half scalp."""
    position = np.zeros((SIZE, SIZE, 3), np.float32)
    rows = slice(int(HEAD_BOX[0][0] * SIZE), int(HEAD_BOX[0][1] * SIZE))
    columns = slice(int(HEAD_BOX[1][0] * SIZE), int(HEAD_BOX[1][1] * SIZE))
    height = np.linspace(8.4, 6.0, rows.stop - rows.start)[:, None]
    position[rows, columns, 1] = height
    position[rows, columns, 2] = 1.4
    position[rows, columns, 0] = np.linspace(-0.9, 0.9, columns.stop - columns.start)
    nothing = np.zeros((SIZE, SIZE), np.float32)
    jaw = np.where((position[..., 1] > 5) & (position[..., 1] < 6.5), 1.0, 0.0).astype(np.float32)
    scalp = (position[..., 1] > 8.0).astype(np.float32)
    face = ((position[..., 1] > 6) & (position[..., 1] < 8)).astype(np.float32)
    return SkinMap(position, face, nothing, nothing, nothing, scalp, jaw, nothing, jaw * 0.5,
                   nothing, nothing, nothing)  # fmt: skip


@pytest.fixture
def person():
    return replace(sample_person(2), sex="man", beard="beard", beard_density=1.0,
                   beard_length=0.05, hair_style="crop", hairline=0.1, crown=0.0)  # fmt: skip


def test_a_beard_grows_on_the_jaw_and_a_goatee_on_less_of_it(regions, person) -> None:
    full = beard_growth(person, regions)
    goatee = beard_growth(replace(person, beard="goatee"), regions)
    assert (full > 0).sum() == (regions.jaw > 0).sum()
    assert goatee.sum() < full.sum()


def test_a_receding_hairline_and_a_wreath_leave_less_hair(regions, person) -> None:
    usual = hair_growth(person, regions).sum()
    receding = hair_growth(replace(person, hairline=0.9), regions).sum()
    wreath = hair_growth(replace(person, hair_style="wreath"), regions)
    assert receding < 0.8 * usual
    assert wreath[regions.position[..., 1] > 8.2].max() == 0


def test_the_coat_is_longest_where_most_grows_and_nothing_elsewhere(regions, person) -> None:
    coat = fur_coat(person, regions, "beard")
    assert coat[regions.jaw > 0, 0].mean() > 120
    assert coat[regions.face * (regions.position[..., 1] > 7) > 0, 0].max() == 0


def test_skin_has_the_persons_colour_and_is_the_same_each_time(regions, person) -> None:
    detail = np.ones((SIZE, SIZE, 3), np.float32)
    pale = replace(person, skin_rgb=(0.7, 0.5, 0.4), beard="none", beard_density=0.0)
    dark = replace(pale, skin_rgb=(0.15, 0.08, 0.06))
    first = paint_skin(pale, regions, detail, (0.02, 0.02, 0.02))
    assert (first == paint_skin(pale, regions, detail, (0.02, 0.02, 0.02))).all()
    assert first.shape == (SIZE, SIZE, 4)
    face = regions.face > 0
    other = paint_skin(dark, regions, detail, (0.02, 0.02, 0.02))
    assert first[face, :3].mean() > 1.5 * other[face, :3].mean()
    red, green, blue = first[face, :3].mean(0)
    assert red > green > blue
