"""How few steps are enough: likeness, prompt accuracy and seconds against denoising steps.

    python -m training.steps_curve --out runs/steps-curve            (about 15 minutes on two cores)
    python -m training.steps_curve --people 10 --steps 4 12          (a quick look)

Each number of steps gets the evaluation of `training.evaluation` on the same held-out people,
wishes and seeds. Writes `steps-curve.json`, a Markdown table and a plot.
"""

from __future__ import annotations

import argparse
import json
import logging
import time
from collections.abc import Sequence
from dataclasses import asdict, dataclass
from pathlib import Path
from statistics import median

import numpy as np

from imagine.backends import BACKENDS
from imagine.backends.base import Backend, draw_alone
from imagine.core import ImageArray, Request
from imagine.errors import InvalidInput
from training.evaluation import CACHE, drawing_settings, evaluate
from training.held_out import WISHES

STEPS = (3, 4, 6, 8, 12, 20, 30)
REPEATS = 5  # of the timing; the median counts
ALLOWED_AUC_LOSS = 0.01
ALLOWED_PROMPT_LOSS = 0.02


@dataclass(frozen=True)
class Point:
    """What one number of steps is worth.

    Attributes:
        steps: denoising steps a picture.
        auc: likeness, pictures without a face counted as lost.
        auc_standard_error: over people.
        face_found_at_once: share of pictures with a face at the first drawing.
        prompt: mean prompt accuracy.
        seconds: of one picture alone, preparing and decoding included.
    """

    steps: int
    auc: float
    auc_standard_error: float
    face_found_at_once: float
    prompt: float
    seconds: float


def measure(
    backend_name: str,
    out: Path,
    steps: Sequence[int],
    people: int,
    model: Path | None,
    cache: Path,
    workers: int,
) -> list[Point]:
    """Evaluate a backend once for each number of steps.

    Args:
        backend_name: a registered image model.
        out: every evaluation gets a folder here.
        steps: numbers of denoising steps.
        people: how many held-out people.
        model: folder of weights; None takes the backend's own.
        cache: where renders and their embeddings are kept.
        workers: processes that find faces.
    """
    backend = BACKENDS.get(backend_name).load(model)
    points = []
    for count in sorted(steps):
        folder = out / f"{count:02d}-steps"
        evaluate(
            backend_name, folder, people, model=model, steps=count, cache=cache, workers=workers
        )
        row = json.loads((folder / "evaluation.json").read_text())["rows"]["generated"]
        points.append(
            Point(
                steps=count,
                auc=row["auc"],
                auc_standard_error=row["auc_standard_error"],
                face_found_at_once=row["face_found_at_once"],
                prompt=row["prompt"]["mean"],
                seconds=seconds_a_picture(backend, count),
            )
        )
    return points


def seconds_a_picture(backend: Backend, steps: int) -> float:
    """Median wall-clock seconds of one picture, drawn alone."""
    crop: ImageArray = np.full((1, 128, 128, 3), 127, np.uint8)
    settings = drawing_settings(backend, steps, 0.7, None)
    request = Request(prompt=WISHES[0].prompt, crops=crop, seed=0, **settings)
    taken = []
    for _ in range(1 + REPEATS):
        started = time.perf_counter()
        draw_alone(backend, request)
        taken.append(time.perf_counter() - started)
    return median(taken[1:])


def fewest_steps(points: Sequence[Point]) -> int:
    """The smallest number of steps that loses no more than is allowed against the largest."""
    best = max(points, key=lambda point: point.steps)
    good = [
        point.steps
        for point in points
        if point.auc >= best.auc - ALLOWED_AUC_LOSS
        and point.prompt >= best.prompt - ALLOWED_PROMPT_LOSS
    ]
    return min(good)


def table(points: Sequence[Point]) -> str:
    """The points as Markdown."""
    lines = [
        "| steps | AUC | standard error | face found at once | prompt accuracy | seconds |",
        "| --- | --- | --- | --- | --- | --- |",
    ]
    for point in points:
        lines.append(
            f"| {point.steps} | {point.auc:.3f} | {point.auc_standard_error:.3f} | "
            f"{point.face_found_at_once:.3f} | {point.prompt:.3f} | {point.seconds:.2f} |"
        )
    return "\n".join(lines) + "\n"


def plot(path: Path, points: Sequence[Point]) -> None:
    """Likeness and prompt accuracy on the left axis, seconds on the right."""
    import matplotlib

    matplotlib.use("agg")
    from matplotlib import pyplot

    steps = [point.steps for point in points]
    figure, axes = pyplot.subplots(figsize=(7, 3.6))
    axes.errorbar(
        steps,
        [point.auc for point in points],
        [point.auc_standard_error for point in points],
        marker="o",
        capsize=3,
        label="likeness (AUC)",
    )
    axes.plot(steps, [point.prompt for point in points], marker="s", label="prompt accuracy")
    axes.set(xlabel="denoising steps", ylabel="share", ylim=(0, 1), xscale="log")
    axes.set_xticks(steps, [str(count) for count in steps])
    axes.minorticks_off()
    clock = axes.twinx()
    clock.plot(
        steps, [point.seconds for point in points], color="grey", ls="--", label="seconds a picture"
    )
    clock.set(ylabel="seconds a picture", ylim=(0, None))
    lines = [*axes.get_legend_handles_labels()[0], *clock.get_legend_handles_labels()[0]]
    labels = [*axes.get_legend_handles_labels()[1], *clock.get_legend_handles_labels()[1]]
    axes.legend(lines, labels, loc="lower right", frameon=False)
    axes.grid(alpha=0.2)
    figure.tight_layout()
    figure.savefig(path, dpi=100)
    pyplot.close(figure)


def main() -> None:
    """Run from the command line."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("backend", nargs="?", default="embedded", choices=BACKENDS.names())
    parser.add_argument("--out", type=Path, default=Path("runs/steps-curve"))
    parser.add_argument("--steps", type=int, nargs="+", default=list(STEPS))
    parser.add_argument("--people", type=int, default=40)
    parser.add_argument("--model", type=Path, default=None, help="folder of weights")
    parser.add_argument("--workers", type=int, default=2)
    parser.add_argument("--cache", type=Path, default=CACHE)
    given = parser.parse_args()
    logging.basicConfig(level=logging.INFO, format="%(message)s")
    if min(given.steps) < 1:
        raise InvalidInput(f"--steps has {min(given.steps)}; a picture needs at least 1.")
    points = measure(
        given.backend,
        given.out,
        given.steps,
        given.people,
        given.model,
        given.cache,
        given.workers,
    )
    (given.out / "steps-curve.json").write_text(
        json.dumps([asdict(point) for point in points], indent=1) + "\n"
    )
    (given.out / "steps-curve.md").write_text(table(points))
    plot(given.out / "steps-curve.png", points)
    print(table(points))
    print(f"{fewest_steps(points)} steps are enough.")


if __name__ == "__main__":
    main()
