import numpy as np
import pytest
from PIL import Image

from imagine.backends.fake import FakeBackend
from training.steps_curve import Point, fewest_steps, plot, seconds_a_picture, table


def point(steps, auc, prompt):
    return Point(steps, auc, 0.01, 0.9, prompt, steps * 0.02)


POINTS = [
    point(4, 0.83, 0.61),
    point(8, 0.855, 0.59),
    point(12, 0.855, 0.61),
    point(30, 0.86, 0.62),
]


def test_the_fewest_steps_that_lose_too_little_to_matter_are_named():
    assert fewest_steps(POINTS) == 12  # 4 lose too much likeness, 8 too much of the prompt


def test_the_most_steps_are_always_enough():
    assert fewest_steps([point(4, 0.5, 0.5), point(30, 0.9, 0.9)]) == 30


def test_a_picture_takes_some_time():
    assert 0 < seconds_a_picture(FakeBackend(), 2) < 60


def test_table_and_plot_hold_every_point(tmp_path):
    plot(tmp_path / "curve.png", POINTS)
    with Image.open(tmp_path / "curve.png") as drawn:
        assert np.asarray(drawn).std() > 1
    assert table(POINTS).count("\n") == 2 + len(POINTS)
    assert "| 12 | 0.855 |" in table(POINTS)


@pytest.mark.parametrize("steps", [4, 30])
def test_a_single_point_is_its_own_best(steps):
    assert fewest_steps([point(steps, 0.1, 0.1)]) == steps
