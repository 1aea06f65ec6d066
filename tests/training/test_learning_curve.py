import pytest
from PIL import Image

from training.learning_curve import fit, plot, read_points, words


def test_a_power_law_is_found_again():
    law = fit([1e4, 1e5, 1e6], [1 - 5 * n**-0.3 for n in (1e4, 1e5, 1e6)])
    assert law.exponent == pytest.approx(0.3)
    assert law.value(1e7) == pytest.approx(1 - 5 * 1e7**-0.3)
    assert law.value(law.pictures_for(0.96)) == pytest.approx(0.96)


def test_a_curve_that_does_not_rise_never_reaches_its_goal():
    assert fit([1e4, 1e5], [0.6, 0.5]).pictures_for(0.96) == float("inf")


def test_the_points_rise_in_pictures_and_their_figures_are_shares():
    points = read_points()
    counts = [point["pictures"] for point in points]
    assert counts == sorted(set(counts))
    assert all(0 < point[name] < 1 for point in points for name in ("auc", "prompt"))


def test_the_plot_and_the_words_are_made_of_the_points(tmp_path):
    points = read_points()
    plot(tmp_path / "curve.png", points)
    with Image.open(tmp_path / "curve.png") as drawn:
        assert drawn.size == (700, 360)
    assert f"{points[-1]['pictures']:,.0f} pictures" in words(points)
