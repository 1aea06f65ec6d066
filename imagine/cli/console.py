"""Talking to a person on stderr and to programs on stdout; options that commands share."""

from __future__ import annotations

import dataclasses
import json
import sys
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer

from imagine.errors import InvalidInput

if TYPE_CHECKING:
    from rich.console import Console

    from imagine.api import GeneratedImage, OnProgress
    from imagine.core import PhotoReport
    from imagine.pipeline import Progress

PhotoOption = Annotated[
    list[Path] | None,
    typer.Option("--photo", "-p", help="A selfie; repeat for up to five.", show_default=False),
]
FaceOption = Annotated[
    list[str] | None,
    typer.Option(
        "--face",
        help="Which face is yours when a photo has several, 0 is left. With several photos write "
        "PHOTO=FACE, photos counted from 1, e.g. 2=0. Repeatable.",
        show_default=False,
    ),
]
BesideOption = Annotated[
    list[Path] | None,
    typer.Option(
        "--beside",
        help="A selfie of a second person, who stands on the right; repeat for up to five.",
        show_default=False,
    ),
]
BackendOption = Annotated[str, typer.Option("--backend", help="Image model.")]
DetectorOption = Annotated[str, typer.Option("--detector", help="Face detector.")]
EncoderOption = Annotated[str, typer.Option("--encoder", help="Face recogniser.")]
DeviceOption = Annotated[str, typer.Option("--device", help="cpu or cuda.")]
WeightsOption = Annotated[
    Path | None,
    typer.Option("--weights", help="Folder of the model's weights, if not the shipped one."),
]
LicenceOption = Annotated[
    str,
    typer.Option(
        "--licence", help="permissive: only weights for commercial use; research: any weights."
    ),
]
ForceOption = Annotated[bool, typer.Option("--force", help="Replace existing files.")]
JsonOption = Annotated[bool, typer.Option("--json", help="Print the result as JSON.")]


def say(sentence: str) -> None:
    """One sentence on stderr, never wrapped and never read as markup."""
    print(sentence, file=sys.stderr)


def print_json(value: object) -> None:
    """One JSON document on stdout."""
    print(json.dumps(value, ensure_ascii=False, indent=2))


def as_dict(fact: Any) -> dict[str, object]:
    """A dataclass as plain JSON values."""
    return dataclasses.asdict(fact)


def stdout_console() -> Console:
    """A rich console on the stdout of this moment."""
    from rich.console import Console

    return Console(file=sys.stdout, highlight=False)


@contextmanager
def progress_bar(task: str, quiet: bool = False) -> Iterator[OnProgress]:
    """A live bar with steps and remaining time on stderr; yields the callback that feeds it."""
    from rich.console import Console
    from rich.progress import BarColumn, TextColumn
    from rich.progress import Progress as Bar

    columns = (
        TextColumn("{task.description}"),
        BarColumn(),
        TextColumn("{task.fields[said]}"),
    )
    with Bar(*columns, console=Console(stderr=True), disable=quiet) as bar:
        row = bar.add_task(task, total=None, said="opening the model")

        def advance(progress: Progress) -> None:
            said = _in_words(progress)
            bar.update(row, completed=progress.step, total=progress.num_steps, said=said)

        try:
            yield advance
        except BaseException:
            # The error's sentence stands alone: no bar, and in a log no empty line either.
            bar.remove_task(row)
            bar.console.quiet = not bar.console.is_interactive
            raise


def _in_words(progress: Progress) -> str:
    steps = f"{progress.step}/{progress.num_steps} steps"
    if progress.step < progress.num_steps:
        return f"{steps}, about {progress.eta_seconds:.0f} s left"
    return f"{steps} in {progress.elapsed_seconds:.1f} s"


@contextmanager
def waiting(sentence: str) -> Iterator[None]:
    """A spinner on stderr while something takes its time."""
    from rich.console import Console

    with Console(stderr=True).status(sentence):
        yield


def chosen_faces(faces: Sequence[str] | None, photos: Sequence[Path]) -> dict[int, int] | None:
    """Read `--face`: "0" for the only photo, "2=0" for face 0 of the second photo.

    Raises:
        InvalidInput: not of this form, or no such photo.
    """
    chosen: dict[int, int] = {}
    for text in faces or ():
        photo, equals, face = text.rpartition("=")
        if (not equals and len(photos) != 1) or not face.isdecimal():
            raise InvalidInput(_face_advice(text))
        if equals and not (photo.isdecimal() and 1 <= int(photo) <= len(photos)):
            raise InvalidInput(_face_advice(text))
        chosen[int(photo) - 1 if equals else 0] = int(face)
    return chosen or None


def _face_advice(text: str) -> str:
    return (
        f"--face {text!r} is not understood. Write --face 0 with one photo, or --face 2=0 for "
        "the leftmost face of the second photo."
    )


def advise(reports: Sequence[PhotoReport]) -> None:
    """Say on stderr what could be better about the photos that were kept."""
    for report in reports:
        if report.codes:
            say(f"{report.name}: {' '.join(report.sentences)}")


def image_facts(image: GeneratedImage, path: Path) -> dict[str, object]:
    """What `--json` says of one picture."""
    return {
        "path": str(path),
        "seed": image.seed,
        "num_inference_steps": image.num_inference_steps,
        "guidance_scale": image.recipe.guidance_scale,
        "model_revision": image.model_revision,
        "likeness": as_dict(image.likeness),
        "prompt_fit": image.prompt_fit,
        "why": image.why,
        "pair": None if image.pair is None else as_dict(image.pair),
        "notes": list(image.notes),
        "recipe": as_dict(image.recipe),
    }


def print_image(image: GeneratedImage, path: Path) -> None:
    """What a person reads of one picture."""
    likeness = image.likeness
    measured = f" (likeness {likeness.score:.2f})" if likeness.face_found else ""
    print(f"{path}: {likeness.words}{measured}")
    if image.pair is not None:
        right = image.pair.right
        measured = f" (likeness {right.score:.2f})" if right.face_found else ""
        print(f"  {right.words}{measured}")
    for note in image.notes:
        print(f"  {note}")
    if image.why:
        print(f"  seed {image.seed}, {image.num_inference_steps} steps. {image.why}")
