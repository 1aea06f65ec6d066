"""A contact sheet of people, one a row: `python -m training.people.preview --out sheet.png`."""

from __future__ import annotations

import argparse
import time
from pathlib import Path

import numpy as np
from PIL import Image

from training.people.person import sample_person
from training.people.renderer import Renderer
from training.people.scene import sample_scene


def main() -> None:
    """Draw the sheet and say how long a picture took."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--people", type=int, default=6)
    parser.add_argument("--photos", type=int, default=6)
    parser.add_argument("--start-seed", type=int, default=0)
    parser.add_argument("--size", type=int, default=192)
    parser.add_argument("--out", type=Path, default=Path("sheet.png"))
    given = parser.parse_args()
    renderer = Renderer(size=given.size)
    rows, started = [], time.perf_counter()
    for seed in range(given.start_seed, given.start_seed + given.people):
        person = sample_person(seed)
        kinds = ["selfie" if i < given.photos // 2 else "scene" for i in range(given.photos)]
        scenes = [sample_scene(person, i, kind) for i, kind in enumerate(kinds)]
        rows.append(np.concatenate([renderer.render(person, s, given.size) for s in scenes], 1))
    seconds = (time.perf_counter() - started) / (given.people * given.photos)
    Image.fromarray(np.concatenate(rows)).save(given.out)
    print(f"{given.out}: {seconds:.3f} s a picture")


if __name__ == "__main__":
    main()
