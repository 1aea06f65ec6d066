"""`imagine-me generate`: photos and a prompt in, picture files out."""

from __future__ import annotations

import secrets
from contextlib import ExitStack
from pathlib import Path
from typing import Annotated

import typer

from imagine.cli.console import (
    BackendOption,
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
    advise,
    as_dict,
    chosen_faces,
    image_facts,
    print_image,
    print_json,
    progress_bar,
    say,
    waiting,
)
from imagine.errors import InvalidInput, OutputNotWritten

PICTURE_SUFFIXES = {".png", ".jpg", ".jpeg", ".webp"}


def generate(
    prompt: Annotated[str, typer.Argument(help="What the pictures show.", show_default=False)],
    photo: PhotoOption = None,
    face: FaceOption = None,
    output: Annotated[
        Path, typer.Option("--output", "-o", help="A folder, or for one picture a file name.")
    ] = Path("outputs"),
    n: Annotated[int, typer.Option("-n", help="How many pictures.")] = 1,
    seed: Annotated[
        int | None,
        typer.Option("--seed", help="Picture i is drawn from seed + i; random if not given."),
    ] = None,
    likeness: Annotated[
        float,
        typer.Option("--likeness", help="0: only the prompt speaks; 1: as alike as possible."),
    ] = 0.7,
    steps: Annotated[int | None, typer.Option("--steps", help="Denoising steps.")] = None,
    guidance: Annotated[
        float | None, typer.Option("--guidance", help="How strongly the prompt pulls; 1 is not.")
    ] = None,
    guidance_interval: Annotated[
        tuple[float, float] | None,
        typer.Option(
            "--guidance-interval",
            help="Share of the steps, from and up to, in which guidance works; 0 0.5 is faster.",
        ),
    ] = None,
    best_of: Annotated[
        int, typer.Option("--best-of", help="Draw so many candidates per picture, keep the best.")
    ] = 1,
    aspect_ratio: Annotated[
        str,
        typer.Option(
            "--aspect-ratio",
            help="Width to height, such as 3:4; another one than the model draws is refused with "
            "the list of those it does.",
        ),
    ] = "1:1",
    keep: Annotated[
        list[str] | None,
        typer.Option(
            "--keep",
            help="Keep a trait of the photos: glasses, hair_colour, age, expression. Repeatable.",
            show_default=False,
        ),
    ] = None,
    change: Annotated[
        list[str] | None,
        typer.Option(
            "--change",
            help="Change a trait, e.g. glasses=none or hair_colour=red. Repeatable.",
            show_default=False,
        ),
    ] = None,
    beside: BesideOption = None,
    backend: BackendOption = "embedded",
    detector: DetectorOption = "dlib",
    encoder: EncoderOption = "dlib",
    device: DeviceOption = "cpu",
    weights: WeightsOption = None,
    licence: LicenceOption = "permissive",
    force: ForceOption = False,
    json: JsonOption = False,
) -> None:
    """Make pictures of the person on your photos.

    Example: imagine-me generate -p me.jpg "smiling, in a forest at dawn" -n 4 -o forest
    """
    from imagine.api import Imagine
    from imagine.backends.base import shape_of
    from imagine.safety import allow_prompt
    from imagine.traits import check_traits, read_traits

    photos = list(photo or ())
    shape_of(aspect_ratio)
    changes = read_traits(change or ())
    check_traits(keep or (), changes)
    im = Imagine(backend, detector, encoder, device, weights=weights, licence=licence)
    allow_prompt(prompt, im.settings)  # refuse before photos are read
    if not 1 <= n <= im.settings.max_images:
        raise InvalidInput(f"-n is {n}; it must be a whole number, 1 to {im.settings.max_images}.")
    first_seed = secrets.randbelow(2**32) if seed is None else seed
    paths = output_paths(output, n, first_seed, force)
    with ExitStack() as until_drawn:
        with waiting("Reading the photos"):
            handle = im.identity(photos, chosen_faces(face, photos))
            me = until_drawn.enter_context(handle)
            other = im.identity(beside) if beside else None
            them = until_drawn.enter_context(other) if other else None
        reports = (*handle.reports, *(other.reports if other else ()))
        advise(reports)
        on_progress = until_drawn.enter_context(progress_bar("Drawing", quiet=json))
        result = im.generate(
            prompt,
            identity=me,
            n=n,
            seed=first_seed,
            likeness=likeness,
            num_inference_steps=steps,
            guidance_scale=guidance,
            guidance_interval=guidance_interval,
            best_of=best_of,
            aspect_ratio=aspect_ratio,
            keep=keep or (),
            change=changes,
            beside=them,
            on_progress=on_progress,
        )
    make_folder(paths[0].parent, output)
    # A withheld picture leaves a place free, so there may be more paths than pictures.
    saved = list(zip(result.images, paths, strict=False))
    for image, path in saved:
        image.save(path, overwrite=force)
        if not json:
            print_image(image, path)
    if json:
        images = [image_facts(image, path) for image, path in saved]
        photos_said = [as_dict(report) for report in reports]
        withheld = list(result.withheld)
        print_json(
            {"seed": result.seed, "images": images, "withheld": withheld, "photos": photos_said}
        )
    else:
        for sentence in result.withheld:
            say(f"One picture was not handed out: {sentence}")


def output_paths(output: Path, n: int, seed: int, force: bool) -> list[Path]:
    """Where the pictures will go; refused now rather than after the work is done.

    Raises:
        InvalidInput: one file name for several pictures.
        OutputNotWritten: a file is there already, or the place takes none.
    """
    from imagine.provenance import refuse_unwritable

    names_a_file = output.suffix.lower() in PICTURE_SUFFIXES and not output.is_dir()
    if names_a_file and n > 1:
        raise InvalidInput(f"-o names one file, {output.name!r}, for {n} pictures: name a folder.")
    if names_a_file:
        refuse_unwritable(output, force)
        return [output]
    if output.exists() and not output.is_dir():
        raise OutputNotWritten(f"{str(output)!r} is neither a folder nor a .png file name.")
    paths = [output / f"imagine-{seed + index}.png" for index in range(n)]
    if output.is_dir():
        for path in paths:
            refuse_unwritable(path, force)
    return paths


def make_folder(folder: Path, output: Path) -> None:
    """Make the output folder if it was named as one.

    Raises:
        OutputNotWritten: it cannot be made.
    """
    if folder != output:
        return
    try:
        folder.mkdir(parents=True, exist_ok=True)
    except OSError as error:
        raise OutputNotWritten(
            f"The folder {str(folder)!r} cannot be made: {error.strerror}. Choose another one."
        ) from error
