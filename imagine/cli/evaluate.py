"""`imagine-me eval`: does it look like them? Measured on people never trained on."""

from __future__ import annotations

from importlib import import_module
from pathlib import Path
from typing import Annotated

import typer

from imagine.errors import InvalidInput, MissingExtra


def evaluate(
    backend: Annotated[str, typer.Argument(help="Image model.")] = "embedded",
    out: Annotated[Path, typer.Option("--output", "-o", help="Folder for the report.")] = Path(
        "runs/evaluation"
    ),
    people: Annotated[int, typer.Option("--people", help="How many held-out people.")] = 100,
    assets: Annotated[
        Path | None, typer.Option("--assets", help="Folder of the people renderer's assets.")
    ] = None,
) -> None:
    """Measure likeness, copying and prompt accuracy of a backend; needs a clone of the project."""
    from imagine.backends import BACKENDS

    BACKENDS.check(backend)
    if people < 2:
        raise InvalidInput(f"--people is {people}; comparing people needs at least 2.")
    try:
        run = import_module("training.evaluation").evaluate
    except ModuleNotFoundError as error:
        raise _explained(error) from error
    status = run(backend_name=backend, out=out, people=people, assets=assets)
    print((out / "evaluation.md").read_text())
    raise typer.Exit(status)


def _explained(error: ModuleNotFoundError) -> MissingExtra:
    missing = error.name or "a package"
    if missing.partition(".")[0] == "training":
        return MissingExtra(
            f"The evaluation code ({missing}) is not installed: it belongs to the repository. "
            "Clone it and run `pip install -e '.[train]'` there."
        )
    return MissingExtra(
        f"The evaluation needs the package {missing!r}. Run: pip install 'imagine-yourself[train]'"
    )
