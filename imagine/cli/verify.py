"""`imagine-me verify`: where a picture comes from."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

import typer

from imagine.cli.console import JsonOption, as_dict, print_json, say


def verify(
    picture: Annotated[Path, typer.Argument(help="A PNG, JPEG or WebP file.", show_default=False)],
    json: JsonOption = False,
) -> None:
    """Say whether a picture was made here and whether it was changed since.

    Keeps nothing and never says whose face it is. Ends with status 0 whatever the answer.
    """
    from imagine.provenance import MARKS_FOLDER, open_verifier
    from imagine.safety.policy_set import weakened
    from imagine.settings import Settings

    settings = Settings()
    marks = settings.data_directory / MARKS_FOLDER
    verifier = open_verifier(marks, weakened=weakened(settings))
    if verifier.identity is None:
        say("This installation has no marking keys yet, so it recognises no picture as its own.")
    report = verifier.verify(picture)
    if json:
        print_json(as_dict(report))
    else:
        print(f"{picture.name}: {report.verdict.value}. {' '.join(report.sentences)}")
