"""`imagine-me replay`: a saved picture and its photos in, the same picture out."""

from __future__ import annotations

from contextlib import ExitStack
from pathlib import Path
from typing import Annotated

import typer

from imagine.cli.console import (
    BesideOption,
    DetectorOption,
    DeviceOption,
    EncoderOption,
    FaceOption,
    ForceOption,
    JsonOption,
    LicenceOption,
    PhotoOption,
    WeightsOption,
    chosen_faces,
    image_facts,
    print_image,
    print_json,
    progress_bar,
    waiting,
)


def replay(
    picture: Annotated[
        Path, typer.Argument(help="A picture saved by this program.", show_default=False)
    ],
    photo: PhotoOption = None,
    face: FaceOption = None,
    beside: BesideOption = None,
    output: Annotated[Path, typer.Option("--output", "-o", help="File name.")] = Path("replay.png"),
    detector: DetectorOption = "dlib",
    encoder: EncoderOption = "dlib",
    device: DeviceOption = "cpu",
    weights: WeightsOption = None,
    licence: LicenceOption = "permissive",
    force: ForceOption = False,
    json: JsonOption = False,
) -> None:
    """Make a picture again from the recipe inside it and the same photos, in the same order."""
    from imagine.api import Imagine
    from imagine.provenance import read_recipe, refuse_unwritable

    recipe = read_recipe(picture)
    photos = list(photo or ())
    refuse_unwritable(output, force)
    im = Imagine(recipe.backend, detector, encoder, device, weights=weights, licence=licence)
    with ExitStack() as until_drawn:
        with waiting("Reading the photos"):
            me = until_drawn.enter_context(im.identity(photos, chosen_faces(face, photos)))
            them = until_drawn.enter_context(im.identity(beside)) if beside else None
        on_progress = until_drawn.enter_context(progress_bar("Drawing", quiet=json))
        image = im.replay(recipe, me, on_progress, beside=them)
    image.save(output, overwrite=force)
    if json:
        print_json({"images": [image_facts(image, output)]})
    else:
        print_image(image, output)
