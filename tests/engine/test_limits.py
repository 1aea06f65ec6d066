from __future__ import annotations

from typing import Any

import pytest

from imagine.engine.limits import MAX_STEPS, SEED_LIMIT, check_figure, check_interval, check_request
from imagine.errors import InvalidInput
from tests.engine.doubles import wish


@pytest.mark.parametrize(
    ("name", "value"),
    [
        ("num_inference_steps", 1),
        ("num_inference_steps", MAX_STEPS),
        ("seed", 0),
        ("seed", SEED_LIMIT - 1),
        ("guidance_scale", 1),
        ("guidance_scale", 30.0),
        ("likeness", 0.0),
    ],
)
def test_figures_at_their_limits_are_taken(name: str, value: float) -> None:
    check_figure(name, value)


@pytest.mark.parametrize(
    ("name", "value", "limits"),
    [
        ("num_inference_steps", 2.5, "a whole number, 1 to 200"),
        ("num_inference_steps", True, "a whole number, 1 to 200"),
        ("seed", SEED_LIMIT, "a whole number, 0 to"),
        ("guidance_scale", float("inf"), "a number from 1 to 30"),
        ("guidance_scale", "2", "a number from 1 to 30"),
        ("likeness", -0.1, "a number from 0 to 1"),
    ],
)
def test_what_is_no_figure_or_beyond_its_limits_is_refused_by_name(
    name: str, value: Any, limits: str
) -> None:
    with pytest.raises(InvalidInput, match=f"{name} is {value!r}; it must be {limits}"):
        check_figure(name, value)


@pytest.mark.parametrize("interval", [(0.5, 0.2), (-0.1, 1.0), (0.0, 1.5), (0.0, float("nan"))])
def test_a_share_of_the_schedule_that_is_none_is_refused(interval: tuple[float, float]) -> None:
    with pytest.raises(InvalidInput, match="guidance_interval is"):
        check_interval(interval)


def test_a_usual_request_is_taken() -> None:
    check_request(wish())
