from __future__ import annotations

import re

import pytest

from imagine.ui.charts import Series, Span, named_bars, nice_top, spans, stacked_bars


@pytest.mark.parametrize(
    ("most", "top"), [(0, 1), (1, 1), (3, 5), (7, 10), (11, 20), (230, 500), (1001, 2000)]
)
def test_an_axis_ends_at_a_round_number(most: float, top: float) -> None:
    assert nice_top(most) == top


def test_columns_stand_on_each_other_and_fill_no_more_than_the_axis() -> None:
    drawn = stacked_bars(["a", "b"], [Series("x", "good", [3, 0]), Series("y", "bad", [2, 1])])
    heights = [float(h) for h in re.findall(r'height="([\d.]+)"/>', drawn)]
    assert heights[:3] == [24.0, 16.0, 8.0]


def test_bars_say_their_names_and_values_without_markup() -> None:
    drawn = named_bars(["<b>"], [2.0], ["2"])
    assert "&lt;b&gt;" in drawn and "<b>" not in drawn and 'width="100.00"' in drawn


def test_a_range_outside_the_scale_is_cut_at_its_ends() -> None:
    drawn = spans([Span("a", 0.75, 0.4, 1.2)], 0.5, 1.0)
    assert 'x="0.00"' in drawn and 'width="100.00"' in drawn


def test_nothing_at_all_is_drawn_as_nothing() -> None:
    assert "tone-good" in stacked_bars(["a"] * 30, [Series("x", "good", [0] * 30)])
    assert named_bars([], [], []).count("<li>") == 0
