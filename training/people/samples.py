"""The sample people that ship with the project: `python -m training.people.samples`.

They are drawn from the "sample" split, so no model was trained on them.
"""

from __future__ import annotations

import argparse
from dataclasses import dataclass
from pathlib import Path

from PIL import Image

from training.people.person import sample_person
from training.people.renderer import Renderer
from training.people.scene import sample_scene

SIZE = 512


@dataclass(frozen=True)
class Sample:
    """One shipped person: a neutral name, a person seed, and the seeds of four selfies."""

    name: str
    person_seed: int
    scene_seeds: tuple[int, ...]


SAMPLES = (
    Sample("person-a", 200042, (5, 1, 2, 0)),
    Sample("person-b", 200090, (5, 0, 2, 1)),
    Sample("person-c", 200113, (3, 0, 5, 4)),
)


def write_samples(folder: Path, renderer: Renderer) -> list[Path]:
    """Draw every sample as `<name>/selfie_<n>.jpg`; returns the files."""
    written = []
    for sample in SAMPLES:
        person = sample_person(sample.person_seed)
        (folder / sample.name).mkdir(parents=True, exist_ok=True)
        for number, seed in enumerate(sample.scene_seeds, 1):
            picture = renderer.render(person, sample_scene(person, seed, "selfie"), SIZE)
            file = folder / sample.name / f"selfie_{number}.jpg"
            Image.fromarray(picture).save(file, quality=93, subsampling=0)
            written.append(file)
    return written


def main() -> None:
    """Write the samples from the command line."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--out", type=Path, default=Path("assets/people"))
    given = parser.parse_args()
    for file in write_samples(given.out, Renderer(size=SIZE)):
        print(file, file.stat().st_size)


if __name__ == "__main__":
    main()
