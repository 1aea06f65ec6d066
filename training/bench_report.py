"""The figures of `bench_engine` as tables and plots."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import Any


def as_markdown(results: dict[str, Any]) -> str:
    """Whatever was measured, as tables."""
    lines = [
        f"Weights {results['weights']}. Load average {results['load_average_before']} before, "
        f"{results['load_average_after']} after; {results['machine']['threads']} threads.",
    ]
    if "single" in results:
        lines += _single(results["single"], results["features"])
        lines += _saturation(results["saturation"])
        lines += _load(results["load"])
        cancel = results["cancel"]
        lines += [
            "",
            f"Cancelled within {cancel['most_steps']} step(s), {cancel['median_seconds']:.3f} s "
            "in the median.",
        ]
    if "isolation" in results:
        isolation = results["isolation"]
        lines += [
            "",
            f"{isolation['requests']} mixed requests together and alone: largest difference "
            f"{isolation['largest_difference_levels']} levels of 255, "
            f"{isolation['above_tolerance']} above the tolerance of "
            f"{isolation['tolerance_levels']} (another person would differ by "
            f"{isolation['another_person_differs_by_levels']}).",
        ]
    if "endurance" in results:
        endurance = results["endurance"]
        lines += [
            "",
            f"Memory over {endurance['requests']} requests, after {endurance['warm_up_requests']} "
            f"to warm up: {endurance['early_mb']} MB to {endurance['late_mb']} MB, "
            f"{endurance['growth']:+.1%}.",
        ]
    return "\n".join(lines) + "\n"


def _single(single: dict[str, Any], features: dict[str, Any]) -> list[str]:
    rates = features["images_per_second"]
    rows = [
        f"| {name} | {seconds:.3f} | {single['spread'][name][0]:.3f} to "
        f"{single['spread'][name][1]:.3f} | {single['times_as_fast'][name]:.2f} | "
        f"{f'{rates[name]:.2f}' if name in rates else '-'} |"
        for name, seconds in single["seconds"].items()
    ]
    return [
        "",
        "| one request of 20 steps | seconds | spread | times as fast as stock | "
        f"images/s, {features['requests']} at once |",
        "| --- | --- | --- | --- | --- |",
        *rows,
        "",
        f"Largest difference between stock and engine: {single['largest_difference_levels']} "
        f"levels of 255 (tolerance {single['tolerance_levels']}).",
    ]


def _saturation(full: dict[str, Any]) -> list[str]:
    return [
        "",
        f"| {full['requests']} requests at once | images/s | spread | engine is faster by |",
        "| --- | --- | --- | --- |",
        *(
            f"| {name} | {rate:.2f} | {full['spread'][name][0]:.2f} to "
            f"{full['spread'][name][1]:.2f} | {full['engine_over'][name]:.2f} |"
            for name, rate in full["images_per_second"].items()
        ),
    ]


def _load(rows: Sequence[dict[str, Any]]) -> list[str]:
    by_place = {(row["load"], row["arm"]): row for row in rows}
    lines = [
        "",
        "| load | arm | requests | images/s | p50 s | p95 s | wait p50 s | wait p95 s | "
        "first preview s | p95 against dynamic |",
        "| --- | --- | --- | --- | --- | --- | --- | --- | --- | --- |",
    ]
    for row in rows:
        against = row["p95_seconds"] / by_place[row["load"], "dynamic"]["p95_seconds"]
        preview = row["first_preview_p50_seconds"]
        lines.append(
            f"| {row['load']} | {row['arm']} | {row['requests']} | "
            f"{row['images_per_second']:.2f} | {row['p50_seconds']:.2f} | "
            f"{row['p95_seconds']:.2f} | {row['wait_p50_seconds']:.2f} | "
            f"{row['wait_p95_seconds']:.2f} | {'-' if preview is None else f'{preview:.2f}'} | "
            f"{against:.2f} |"
        )
    return lines


def plot_load(path: Path, rows: Sequence[dict[str, Any]]) -> None:
    """Latency against load, one colour an arm."""
    pyplot = _pyplot()
    figure, axes = pyplot.subplots(figsize=(6, 4))
    for arm in dict.fromkeys(row["arm"] for row in rows):
        own = [row for row in rows if row["arm"] == arm]
        loads = [row["load"] for row in own]
        (line,) = axes.plot(loads, [row["p50_seconds"] for row in own], label=f"{arm} p50")
        axes.plot(
            loads,
            [row["p95_seconds"] for row in own],
            "--",
            color=line.get_color(),
            label=f"{arm} p95",
        )
    axes.set(xlabel="load, share of fifo's capacity", ylabel="seconds", yscale="log")
    axes.legend()
    figure.tight_layout()
    figure.savefig(path, dpi=110)
    pyplot.close(figure)


def plot_features(path: Path, features: dict[str, Any]) -> None:
    """Images per second of the engine with one feature changed at a time."""
    pyplot = _pyplot()
    rates = features["images_per_second"]
    figure, axes = pyplot.subplots(figsize=(6, 3))
    axes.barh(list(rates)[::-1], list(rates.values())[::-1])
    axes.set(xlabel="images per second, all requests at once")
    figure.tight_layout()
    figure.savefig(path, dpi=110)
    pyplot.close(figure)


def _pyplot() -> Any:
    import matplotlib

    matplotlib.use("agg")
    from matplotlib import pyplot

    return pyplot
