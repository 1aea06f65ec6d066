"""`imagine-me check`: what we think of your photos, before any picture is made."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

import typer

from imagine.cli.console import (
    DetectorOption,
    EncoderOption,
    FaceOption,
    JsonOption,
    LicenceOption,
    as_dict,
    chosen_faces,
    print_json,
    waiting,
)

REFUSED = 3  # exit status when at least one photo cannot be used


def check(
    photo: Annotated[list[Path], typer.Argument(help="Selfies.", show_default=False)],
    face: FaceOption = None,
    detector: DetectorOption = "dlib",
    encoder: EncoderOption = "dlib",
    licence: LicenceOption = "permissive",
    json: JsonOption = False,
) -> None:
    """Say of each photo whether it can be used and how to take a better one.

    Ends with status 3 if a photo is refused.
    """
    from imagine.api import Imagine
    from imagine.core import PhotoVerdict

    im = Imagine(detector=detector, encoder=encoder, licence=licence)
    with waiting("Reading the photos"):
        reports = im.check(photo, chosen_faces(face, photo))
    if json:
        print_json([as_dict(report) for report in reports])
    else:
        for report in reports:
            print(f"{report.name}: {report.verdict.value}. {' '.join(report.sentences)}")
    if any(report.verdict is PhotoVerdict.REFUSE for report in reports):
        raise typer.Exit(REFUSED)
