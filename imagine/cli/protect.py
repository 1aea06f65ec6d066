"""`imagine-me protect`: people who ask never to be shown by this installation."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from imagine.cli.console import PhotoOption, say, waiting
from imagine.cli.serve import built_service, need_serve_extra
from imagine.errors import Cancelled, InvalidInput, UnreadablePhoto

if TYPE_CHECKING:
    from imagine.service.wiring import Service

app = typer.Typer(help="People who are never shown.", no_args_is_help=True)


@app.callback()
def _protect() -> None:
    pass


@app.command("add")
def add(
    photo: PhotoOption = None,
    yes: Annotated[bool, typer.Option("--yes", help="It is me and I agree; do not ask.")] = False,
) -> None:
    """Put yourself on the list, by selfies. Prints the token that takes you off again.

    Example: imagine-me protect add -p me.jpg
    """
    if not photo:
        raise InvalidInput("Name at least one selfie: --photo me.jpg")
    question = (
        "These photos show me, and a description of my face may be kept for nothing but to "
        "refuse pictures of me. Agreed?"
    )
    if not yes and not typer.confirm(question, err=True):
        raise Cancelled("Nothing was kept.")
    service = _service()
    with service.database, waiting("Looking at the photos"):
        made = service.admission.protect([_read(path) for path in photo], None)
    print(made.token)
    say("You are on the list. Keep the token: only it takes you off again.")


@app.command("withdraw")
def withdraw(
    token: Annotated[str, typer.Argument(help="The token you were given.")],
) -> None:
    """Take yourself off the list; the key of your entry is destroyed."""
    service = _service()
    with service.database:
        service.protected.withdraw(token)
    print("You are off the list.")


@app.command("import")
def import_list(
    file: Annotated[Path, typer.Argument(help="A signed list.", exists=True, dir_okay=False)],
    trust: Annotated[
        list[str] | None,
        typer.Option("--trust", help="Public key of its maker, 64 hex digits; else the settings'."),
    ] = None,
) -> None:
    """Take over a list that somebody you trust has signed."""
    service = _service(tuple(trust or ()))
    with service.database:
        print(f"{service.admission.import_list(file.read_bytes(), 'command-line')} new entries.")


@app.command("count")
def count() -> None:
    """Say how many people are on the list; nothing of them can be shown."""
    service = _service()
    with service.database:
        counts = service.protected.counts()
    for recogniser, number in sorted(counts.items()):
        print(f"{recogniser}: {number}")
    if not counts:
        print("Nobody is on the list.")


def _service(trusted: tuple[str, ...] = ()) -> Service:
    need_serve_extra()
    return built_service(**({"trusted_list_keys": trusted} if trusted else {}))


def _read(path: Path) -> bytes:
    try:
        return path.read_bytes()
    except OSError as error:
        raise UnreadablePhoto(f"{path.name} could not be read: {error.strerror}.") from error
