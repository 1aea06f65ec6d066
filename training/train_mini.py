"""The embedded model from nothing: renders, the training recogniser, four stages, the export.

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

# share of the hours of each part; renders get what is left when stages have theirs
SHARES = {
    "training.people.cache": 0.30,
    "training.recogniser": 0.08,
    "training.stages.reconstruct": 0.08,
    "training.stages.pairs": 0.34,
    "training.stages.quality_reconstruct": 0.06,
    "training.stages.quality_pairs": 0.14,
}


def commands(arguments: argparse.Namespace) -> list[list[str]]:
    """The command line of every part, in order."""
    data, run = arguments.run / "people", arguments.run / "imagine-mini"
    recogniser = arguments.run / "recogniser.pt"
    result = []
    for module, share in SHARES.items():
        minutes = f"{share * arguments.hours * 60:.2f}"
        line = [sys.executable, "-m", module, "--minutes", minutes]
        if module == "training.people.cache":
            line += ["--out", str(data), "--people", str(arguments.people)]
            line += ["--workers", str(arguments.workers)]
        else:
            line += ["--data", str(data), "--device", arguments.device]
        if module == "training.recogniser":
            line += ["--out", str(recogniser)]
        if module.startswith("training.stages"):
            line += ["--run", str(run), "--model", arguments.model]
            line += ["--recogniser", str(recogniser)]
            last = module.endswith("quality_pairs")
            line += ["--decay", "0.9" if last else "0.02"]
            line += ["--export", str(arguments.run / "export")] if last else []
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
