import math

import numpy as np
import pytest

from training.metrics import (
    angle,
    area_under_curve,
    copy_paste,
    prompt_accuracy,
    true_accept_rate,
)

INFINITE = float("inf")


@pytest.mark.parametrize(
    ("genuine", "impostor", "expected"),
    [
        ([0.1, 0.2], [0.5, 0.6], 1.0),
        ([0.5, 0.6], [0.1, 0.2], 0.0),
        ([0.3], [0.3], 0.5),
        ([0.1, 0.55], [0.5, 0.6], 0.75),
    ],
)
def test_area_under_curve_counts_won_comparisons(genuine, impostor, expected):
    assert area_under_curve(np.array(genuine), np.array(impostor)) == pytest.approx(expected)


def test_a_picture_without_a_face_loses_every_comparison():
    assert area_under_curve(np.array([0.1, INFINITE]), np.array([0.5, 0.6])) == 0.5


def test_a_picture_without_a_face_is_no_easy_impostor():
    with_failure = area_under_curve(np.array([0.4]), np.array([0.3, 0.5, INFINITE]))
    assert with_failure == area_under_curve(np.array([0.4]), np.array([0.3, 0.5]))


def test_no_pairs_give_no_figure():
    assert math.isnan(area_under_curve(np.array([]), np.array([0.5])))
    assert math.isnan(true_accept_rate(np.array([0.2]), np.array([INFINITE])))


def test_true_accept_rate_lets_one_impostor_in_a_hundred_pass():
    impostor = np.arange(1, 101) / 100  # at 1 % only the nearest, 0.01, may pass
    genuine = np.array([0.005, 0.015, 0.025, INFINITE])
    assert true_accept_rate(genuine, impostor, 0.01) == 0.5


def test_true_accept_rate_of_few_impostors_lets_none_pass():
    assert true_accept_rate(np.array([0.3, 0.5]), np.array([0.4, 0.6]), 0.01) == 0.5


def turned(degrees):
    return np.array([np.cos(np.radians(degrees)), np.sin(np.radians(degrees))], np.float32)


def test_angle_ignores_length():
    assert angle(turned(0) * 3, turned(60)) == pytest.approx(np.pi / 3, abs=1e-6)


@pytest.mark.parametrize(
    ("generated", "expected"), [(0, 1.0), (40, -1.0), (20, 0.0), (10, 0.5), (-30, 1.0)]
)
def test_copy_score_runs_from_the_target_to_the_reference(generated, expected):
    score = copy_paste(turned(generated), reference=turned(0), target=turned(40))
    assert score == pytest.approx(expected, abs=1e-5)


def test_two_nearly_equal_selfies_do_not_inflate_the_copy_score():
    score = copy_paste(turned(30), reference=turned(0.02), target=turned(0))
    assert abs(score) < 0.01


def test_prompt_accuracy_averages_attributes_and_counts_no_face_as_wrong():
    shown = {"place": {"park": 0.9, "city": 0.1}, "hat": {"none": 0.2, "fedora": 0.8}}
    wishes = [{"place": ("park",), "hat": ("none",)}, {"place": ("park", "city")}]
    shares = prompt_accuracy([shown, None], wishes)
    assert shares == {"place": 0.5, "hat": 0.0, "mean": 0.25}
