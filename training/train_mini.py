"""The embedded model from nothing: renders, teachers, four stages, upsampler, export.

GPU:  python -m training.train_mini --device cuda --model base --hours 0.8 --workers 16
CPU:  python -m training.train_mini --hours 3            (two cores; what `make train-mini` runs)
CPU, two minutes a stage, to see it work:  python -m training.train_mini --hours 0.2 --people 64

Every part is also a command of its own; this one only calls them in order and splits the time.
"""

from __future__ import annotations

import argparse
import subprocess
import sys
from pathlib import Path

# Half of the people, so that a judge can be taught on the others. The last stage is rewarded.
ATTRIBUTE_TEACHER = "training.attributes --half first --seed 1"
REWARDED = ["--rewarded", "20", "--critic-weight", "0.1"]
# The upsampler learns from fewer photos, at the full size: what it adds is the same in every face.
LARGE_PHOTOS = "training.people.cache --size 256 --photos 4"
# Share of the hours of each part, by the start of its command.
SHARES = {
    "training.people.cache": 0.22,
    "training.recogniser": 0.06,
    ATTRIBUTE_TEACHER: 0.05,
    "training.stages.reconstruct": 0.06,
    "training.stages.pairs": 0.26,
    "training.stages.quality_reconstruct": 0.04,
    "training.stages.quality_pairs": 0.18,
    LARGE_PHOTOS: 0.05,
    "training.stages.upsample": 0.08,
}
LARGE_SHARE = 0.25  # of the people are photographed at the full size


def commands(arguments: argparse.Namespace) -> list[list[str]]:
    """The command line of every part, in order."""
    data, large = arguments.run / "people", arguments.run / "people-256"
    run, export = arguments.run / "imagine-mini", arguments.run / "export"
    recogniser, teacher = arguments.run / "recogniser.pt", arguments.run / "attribute-teacher"
    result = []
    for command, share in SHARES.items():
        module, *words = command.split()
        minutes = f"{share * arguments.hours * 60:.2f}"
        line = [sys.executable, "-m", module, *words, "--minutes", minutes]
        is_large = command == LARGE_PHOTOS or module.endswith("upsample")
        if module == "training.people.cache":
            people = max(2, round(arguments.people * LARGE_SHARE)) if is_large else arguments.people
            line += ["--out", str(large if is_large else data), "--people", str(people)]
            line += ["--workers", str(arguments.workers)]
        else:
            line += ["--data", str(large if is_large else data)]
        if module in ("training.recogniser", "training.attributes"):
            line += ["--out", str(recogniser if module == "training.recogniser" else teacher)]
        if module not in ("training.people.cache", "training.attributes"):
            line += ["--device", arguments.device]
        if module.startswith("training.stages"):
            line += ["--run", str(run), "--model", str(export if is_large else arguments.model)]
            line += ["--recogniser", str(recogniser)]
            last = module.endswith("quality_pairs")
            line += [] if is_large else ["--decay", "0.9" if last else "0.02"]
            if last:
                line += [*REWARDED, "--reward-recognisers", str(recogniser)]
                line += ["--attribute-teacher", str(teacher)]
            line += ["--export", str(export)] if last or is_large else []
        result.append(line)
    return result


def main() -> None:
    """Run all parts; stop at the first that fails."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--run", type=Path, default=Path("runs/mini"))
    parser.add_argument("--hours", type=float, default=3.0)
    parser.add_argument("--people", type=int, default=4000)
    parser.add_argument("--workers", type=int, default=2)
    parser.add_argument("--model", default="mini")
    parser.add_argument("--device", choices=("cpu", "cuda"), default="cpu")
    for line in commands(parser.parse_args()):
        print(" ".join(line[2:]), flush=True)
        subprocess.run(line, check=True)
    print("The model is in the export folder of the run; compare it with the shipped one:")
    print("  imagine-me eval embedded")


if __name__ == "__main__":
    main()
