"""What more training would bring: likeness and prompt accuracy against pictures trained on.

    python -m training.learning_curve --out runs/learning-curve.png

The points are in `learning_curve.json`, one for each evaluation of weights in `training/LOG.md`,
all at the first drawing (no picture drawn again), lost faces counted as zero. The line is a power
law through what is missing to 1, the form that losses follow over wide ranges (arXiv 2001.08361);
through so few points it is a hint, not a promise.
"""

from __future__ import annotations

import argparse
import json
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np

POINTS = Path(__file__).with_suffix(".json")
GOALS = {"auc": 0.96, "prompt": 0.85}
NAMES = {"auc": "likeness (AUC)", "prompt": "prompt accuracy"}


@dataclass(frozen=True)
class PowerLaw:
    """What is missing to 1 after n pictures: scale * n ** -exponent."""

    scale: float
    exponent: float

    def value(self, pictures: float) -> float:
        """The figure expected after so many pictures."""
        return float(1.0 - self.scale * pictures**-self.exponent)

    def pictures_for(self, value: float) -> float:
        """Pictures after which the figure is expected; infinite if it does not rise."""
        if self.exponent <= 0:
            return float("inf")
        return float((self.scale / (1.0 - value)) ** (1.0 / self.exponent))


def fit(pictures: Sequence[float], values: Sequence[float]) -> PowerLaw:
    """Least squares on logarithms.

    Args:
        pictures: at least two different counts.
        values: figures below 1, one a count.
    """
    slope, offset = np.polyfit(np.log(pictures), np.log1p(-np.asarray(values)), 1)
    return PowerLaw(float(np.exp(offset)), float(-slope))


def read_points(path: Path = POINTS) -> list[dict[str, float]]:
    """The points, by rising count of pictures."""
    points: list[dict[str, float]] = json.loads(path.read_text(encoding="utf-8"))
    return sorted(points, key=lambda point: point["pictures"])


def words(points: Sequence[dict[str, float]]) -> str:
    """Where the curves lead, a sentence a figure."""
    counts = [point["pictures"] for point in points]
    sentences = []
    for name, goal in GOALS.items():
        law = fit(counts, [point[name] for point in points])
        sentences.append(
            f"{NAMES[name]}: {points[-1][name]:.3f} after {counts[-1]:,.0f} pictures; "
            f"{goal} would need about {law.pictures_for(goal):,.0f} by the power law "
            f"(what is missing falls as n^-{law.exponent:.2f})."
        )
    return "\n".join(sentences)


def plot(path: Path, points: Sequence[dict[str, float]]) -> None:
    """Points, power laws and goals on a logarithmic axis of pictures."""
    import matplotlib

    matplotlib.use("agg")
    from matplotlib import pyplot

    counts = [point["pictures"] for point in points]
    laws = {name: fit(counts, [point[name] for point in points]) for name in GOALS}
    reach = [law.pictures_for(GOALS[name]) for name, law in laws.items()]
    end = min(max([*reach, 10 * counts[-1]]), 1000 * counts[-1])
    line = np.geomspace(counts[0], end, 100)
    figure, axes = pyplot.subplots(figsize=(7, 3.6))
    for colour, (name, law) in zip(("tab:blue", "tab:orange"), laws.items(), strict=True):
        values = [point[name] for point in points]
        axes.plot(counts, values, "o", color=colour, label=NAMES[name])
        axes.plot(line, [law.value(count) for count in line], "--", color=colour, lw=1)
        axes.axhline(GOALS[name], color=colour, lw=0.6, ls=":")
    axes.set(xscale="log", xlabel="pictures trained on", ylabel="share", ylim=(0, 1))
    axes.legend(loc="lower right", frameon=False)
    axes.grid(alpha=0.2)
    figure.tight_layout()
    figure.savefig(path, dpi=100)
    pyplot.close(figure)


def main() -> None:
    """Run from the command line."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--out", type=Path, default=Path("runs/learning-curve.png"))
    given = parser.parse_args()
    points = read_points()
    given.out.parent.mkdir(parents=True, exist_ok=True)
    plot(given.out, points)
    print(words(points))


if __name__ == "__main__":
    main()
