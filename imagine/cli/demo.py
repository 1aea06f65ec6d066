"""`imagine-me demo`: four selfies, four prompts, one sheet."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

import typer

from imagine.cli.console import (
    BackendOption,
    DeviceOption,
    FaceOption,
    PhotoOption,
    WeightsOption,
    advise,
    chosen_faces,
    print_image,
    progress_bar,
    waiting,
)
from imagine.errors import MissingWeights

PROMPTS = (
    "smiling, in a forest",
    "wearing a red shirt, on a city square, with a soft smile",
    "laughing, with round glasses, under a blue sky",
    "a black and white portrait in a studio",
)
SELFIES = 4
# Of the three, the one with both eyes free: a fringe over one eye, as of person-a, is what the
# detector and the embedded model find hardest.
SAMPLE = "person-b"


def demo(
    photo: PhotoOption = None,
    face: FaceOption = None,
    output: Annotated[
        Path, typer.Option("--output", "-o", help="Folder; an earlier demo in it is replaced.")
    ] = Path("demo-output"),
    seed: Annotated[int, typer.Option("--seed", help="Of the first picture.")] = 7,
    best_of: Annotated[int, typer.Option("--best-of", help="Candidates per picture.")] = 8,
    backend: BackendOption = "embedded",
    device: DeviceOption = "cpu",
    weights: WeightsOption = None,
) -> None:
    """Make a sheet of four pictures of a sample person, or of you with --photo."""
    from imagine.api import Imagine
    from imagine.cli.generate import make_folder
    from imagine.cli.sheet import Entry, draw_sheet
    from imagine.identity.photos import decode_photo
    from imagine.provenance import mark_image

    im = Imagine(backend, device=device, weights=weights)
    photos = list(photo) if photo else sample_selfies(im.settings.assets_directory)
    make_folder(output, output)
    with waiting("Reading the photos"):
        handle = im.identity(photos, chosen_faces(face, photos))
    advise(handle.reports)
    entries = []
    with handle as me:
        for index, prompt in enumerate(PROMPTS):
            with progress_bar(f"Picture {index + 1} of {len(PROMPTS)}") as on_progress:
                (image,) = im.generate(
                    prompt,
                    identity=me,
                    seed=seed + index,
                    best_of=best_of,
                    on_progress=on_progress,
                ).images
            path = image.save(output / f"picture-{index + 1}.png")
            print_image(image, path)
            entries.append(Entry(image.array, prompt, image.likeness))
    selfies = [decode_photo(source, None, im.settings) for source in photos]
    caption = "Your photos" if photo else "Selfies of a sample person, who does not exist"
    sheet = draw_sheet(
        selfies, entries, caption, f"{backend} {im.info.model_revision}, seed {seed}"
    )
    path = mark_image(sheet, None).save(output / "sheet.png")
    print(f"The sheet is {path.resolve()}")


def sample_selfies(assets: Path) -> list[Path]:
    """Four selfies of the sample person.

    Raises:
        MissingWeights: the sample people are not on this machine.
    """
    folder = assets / "people" / SAMPLE
    selfies = sorted(folder.glob("selfie_*.jpg"))[:SELFIES]
    if len(selfies) < SELFIES:
        raise MissingWeights(
            f"There is no sample person with {SELFIES} selfies in {str(folder)!r}. "
            "Use your own photos with --photo, or run this in a clone of the project."
        )
    return selfies
