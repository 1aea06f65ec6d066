"""The embedded model from nothing: renders, teachers, stages, upsampler, chooser, refiner, turn.

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

PEOPLE = "training.people.cache"
# The upsampler learns from fewer photos, at the full size: what it adds is the same in every face.
LARGE_PHOTOS = "training.people.cache --size 256 --photos 4"
SWITCHED = "training.people.cache --switched --photos 4"
RECOGNISER = "training.recogniser"
# Taught apart from the one that rewards: it ranks what the model draws at use.
CHOOSING_RECOGNISER = "training.recogniser --locator --seed 1"
CHOOSING = "training.choosing"
# Half of the people, so that a judge can be taught on the others.
ATTRIBUTE_TEACHER = "training.attributes --half first --seed 1"
PLAIN = "training.stages.quality_pairs"
REWARDED = "training.stages.quality_pairs --rewarded 20 --critic-weight 0.1"
BLEND = "training.blend"
UPSAMPLE = "training.stages.upsample"
REFINE = "training.stages.refine"
TURNING = "training.turning"
# Share of the hours of each part, by the start of its command, in order.
SHARES = {
    PEOPLE: 0.12,
    SWITCHED: 0.06,
    RECOGNISER: 0.05,
    CHOOSING_RECOGNISER: 0.03,
    ATTRIBUTE_TEACHER: 0.04,
    "training.stages.reconstruct": 0.05,
    "training.stages.pairs": 0.16,
    "training.stages.quality_reconstruct": 0.03,
    PLAIN: 0.06,
    REWARDED: 0.09,
    BLEND: 0.0,
    LARGE_PHOTOS: 0.04,
    UPSAMPLE: 0.06,
    CHOOSING: 0.0,
    REFINE: 0.21,
    TURNING: 0.0,
}
LARGE_SHARE = 0.25  # of the people are photographed at the full size
BLEND_SHARE = "0.5"  # of what the rewards changed is kept


def commands(arguments: argparse.Namespace) -> list[list[str]]:
    """The command line of every part, in order."""
    data, large = arguments.run / "people", arguments.run / "people-256"
    run, export = arguments.run / "imagine-mini", arguments.run / "export"
    plain, rewarded = arguments.run / "export-plain", arguments.run / "export-rewarded"
    recogniser, teacher = arguments.run / "recogniser", arguments.run / "attribute-teacher"
    choosing = arguments.run / "recogniser-choosing"
    device = ["--device", arguments.device]
    few = max(2, round(arguments.people * LARGE_SHARE))
    stage = ["--data", data, *device, "--run", run, "--model", arguments.model]
    stage += ["--recogniser", recogniser]
    flat, falling = ["--decay", "0.02"], ["--decay", "0.9"]
    teachers = ["--reward-recognisers", recogniser, "--attribute-teacher", teacher]
    everybody = ["--out", data, "--people", arguments.people, "--workers", arguments.workers]
    words: dict[str, list[object]] = {
        PEOPLE: everybody,
        SWITCHED: everybody,
        LARGE_PHOTOS: ["--out", large, "--people", few, "--workers", arguments.workers],
        RECOGNISER: ["--data", data, *device, "--out", recogniser],
        CHOOSING_RECOGNISER: ["--data", data, *device, "--out", choosing],
        ATTRIBUTE_TEACHER: ["--data", data, "--out", teacher],
        PLAIN: [*stage, *falling, "--export", plain],
        REWARDED: [*stage, *falling, *teachers, "--export", rewarded],
        BLEND: [plain, rewarded, "--share", BLEND_SHARE, "--out", export],
        UPSAMPLE: [
            "--data", large, *device, "--run", run, "--model", export, "--recogniser", recogniser,
            "--export", export,
        ],
        CHOOSING: [export, "--recogniser", choosing, "--attributes", teacher],
        REFINE: [
            "--data", data, *device, "--run", run, "--model", export, "--recognisers", recogniser,
            "--attribute-teacher", teacher, "--locator", choosing / "locator", "--export", export,
        ],
        TURNING: [export, "--data", data],
    }  # fmt: skip
    return [
        [
            *(sys.executable, "-m", *command.split()),
            *(["--minutes", f"{share * arguments.hours * 60:.2f}"] if share else []),
            *map(str, words.get(command, [*stage, *flat])),
        ]
        for command, share in SHARES.items()
    ]


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
