import pytest

from training.bench_report import as_markdown, plot_features, plot_load

SINGLE = {
    "seconds": {"stock": 1.0, "engine": 0.4},
    "spread": {"stock": [0.9, 1.1], "engine": [0.3, 0.5]},
    "times_as_fast": {"stock": 1.0, "engine": 2.5},
    "largest_difference_levels": 1,
    "tolerance_levels": 2,
}
RATES = {
    "requests": 4,
    "images_per_second": {"dynamic": 1.0, "engine": 2.0},
    "spread": {"dynamic": [0.9, 1.1], "engine": [1.9, 2.1]},
    "engine_over": {"dynamic": 2.0, "engine": 1.0},
}
LOAD = [
    {
        "load": 0.8,
        "arm": arm,
        "requests": 9,
        "images_per_second": 0.8,
        "p50_seconds": p95 / 2,
        "p95_seconds": p95,
        "wait_p50_seconds": 0.1,
        "wait_p95_seconds": 0.2,
        "first_preview_p50_seconds": preview,
    }
    for arm, p95, preview in (("dynamic", 4.0, None), ("engine", 1.0, 0.3))
]
RESULTS = {
    "weights": "abc",
    "machine": {"cores": 2, "threads": 2},
    "load_average_before": 1.0,
    "load_average_after": 2.0,
    "single": SINGLE,
    "features": RATES,
    "saturation": RATES,
    "load": LOAD,
    "cancel": {"most_steps": 1, "median_seconds": 0.03},
    "endurance": {
        "requests": 5,
        "early_mb": 100.0,
        "late_mb": 101.0,
        "growth": 0.01,
        "warm_up_requests": 2,
    },
}


def test_a_report_says_how_much_faster_and_how_busy_the_machine_was():
    text = as_markdown(RESULTS)
    assert "Load average 1.0 before" in text
    assert "| engine | 0.400 | 0.300 to 0.500 | 2.50 | 2.00 |" in text
    assert "| 0.8 | engine | 9 | 0.80 | 0.50 | 1.00 | 0.10 | 0.20 | 0.30 | 0.25 |" in text
    assert "100.0 MB to 101.0 MB, +1.0%" in text


def test_a_part_measured_alone_is_a_report_too():
    alone = {key: RESULTS[key] for key in RESULTS if key not in ("single", "load", "features")}
    assert "stock" not in as_markdown(alone)


def test_plots_are_written(tmp_path):
    pytest.importorskip("matplotlib")
    plot_load(tmp_path / "load.png", LOAD)
    plot_features(tmp_path / "features.png", RATES)
    assert all(path.stat().st_size > 5000 for path in tmp_path.iterdir())
