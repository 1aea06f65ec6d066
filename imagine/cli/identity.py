"""`imagine-me identity`: the people a service knows; talks to it over HTTP."""

from __future__ import annotations

import json as jsonlib
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from imagine.cli.console import (
    FaceOption,
    ForceOption,
    JsonOption,
    PhotoOption,
    advise,
    as_dict,
    chosen_faces,
    print_json,
    say,
    stdout_console,
    waiting,
)
from imagine.errors import Cancelled, ConsentMissing, UnusableArchive

if TYPE_CHECKING:
    from imagine.service.client import ImagineClient
    from imagine.storage.consent import ConsentForm

app = typer.Typer(help="People the service knows.", no_args_is_help=True)

UrlOption = Annotated[
    str | None,
    typer.Option("--url", envvar="IMAGINE_URL", help="Where the service is.", show_default=False),
]
KeepPhotosOption = Annotated[
    bool, typer.Option("--keep-photos", help="Keep the photos too, encrypted.")
]
AgreeOption = Annotated[
    bool, typer.Option("--agree", help="I have read the consent text and agree; do not ask me.")
]
KeyOption = Annotated[
    str | None,
    typer.Option(
        "--key",
        envvar="IMAGINE_API_KEY",
        help="API key; a single-user service on this machine needs none.",
        show_default=False,
    ),
]
IdArgument = Annotated[str, typer.Argument(help="The id that `identity list` shows.")]


@app.callback()
def _identity() -> None:
    pass


@app.command("add")
def add(
    photo: PhotoOption = None,
    face: FaceOption = None,
    name: Annotated[str, typer.Option("--name", help="What you call it.")] = "",
    keep_photos: KeepPhotosOption = False,
    agree: AgreeOption = False,
    url: UrlOption = None,
    key: KeyOption = None,
    json: JsonOption = False,
) -> None:
    """Make yourself known from one to five photos, after you have agreed.

    Example: imagine-me identity add -p a.jpg -p b.jpg --name me
    """
    photos = list(photo or ())
    choose = chosen_faces(face, photos)
    form = _agreed(agree, keep_photos)
    with _client(url, key) as im:
        with waiting("Looking at the photos"):
            made = im.identity(photos, choose, consent=form, name=name)
        advise(made.reports)
        if json:
            photos_said = [as_dict(report) for report in made.reports]
            print_json({"id": made.id, "name": made.name, "photos": photos_said})
        else:
            print(made.id)


@app.command("list")
def list_identities(url: UrlOption = None, key: KeyOption = None, json: JsonOption = False) -> None:
    """List the people you enrolled, newest first."""
    with _client(url, key) as im:
        people = im.identities()
    if json:
        print_json([one.facts for one in people])
        return
    from rich.table import Table

    table = Table("identity", "name", "state", "made")
    for one in people:
        table.add_row(one.id, one.name, one.facts["state"], one.facts["created_at"][:10])
    stdout_console().print(table)


@app.command("show")
def show(
    identity: IdArgument, url: UrlOption = None, key: KeyOption = None, json: JsonOption = False
) -> None:
    """Say what is kept about somebody, and what they agreed to."""
    with _client(url, key) as im:
        one = im.find_identity(identity)
        consents = im.consents(identity)
    if json:
        print_json({**one.facts, "consents": consents})
        return
    for name in ("id", "name", "state", "version", "encoder", "model", "created_at"):
        print(f"{name}: {one.facts[name]}")
    for consent in consents:
        ended = f"withdrawn {consent['withdrawn_at'][:10]}" if consent["withdrawn_at"] else ""
        until = ended or f"until {consent['expires_at'][:10]}"
        print(f"consent {consent['given_at'][:10]}: {', '.join(consent['purposes'])}, {until}")


@app.command("delete")
def delete(
    identity: IdArgument,
    keep_pictures: Annotated[
        bool, typer.Option("--keep-pictures", help="Keep the pictures made of them.")
    ] = False,
    receipt: Annotated[
        Path | None, typer.Option("--receipt", help="Write the signed certificate to this file.")
    ] = None,
    yes: Annotated[bool, typer.Option("--yes", help="Do not ask.")] = False,
    url: UrlOption = None,
    key: KeyOption = None,
) -> None:
    """Forget somebody for good. Prints the signed certificate of it."""
    if not yes and not typer.confirm(f"Forget {identity} for good?", err=True):
        raise Cancelled("Nothing was deleted.")
    with _client(url, key) as im:
        certificate = im.forget(identity, "keep" if keep_pictures else "delete")
    text = jsonlib.dumps(certificate, indent=2)
    if receipt is not None:
        write_file(receipt, (text + "\n").encode(), overwrite=False)
        say(f"Deleted. The certificate is in {receipt}.")
    else:
        print(text)


@app.command("export")
def export(
    identity: IdArgument,
    output: Annotated[
        Path | None, typer.Option("--output", "-o", help="The zip; else <id>.zip here.")
    ] = None,
    force: ForceOption = False,
    url: UrlOption = None,
    key: KeyOption = None,
) -> None:
    """Write everything about somebody into a zip: facts, photos, face, pictures, log."""
    target = output or Path(f"{identity}.zip")
    with _client(url, key) as im:
        data = im.export(identity)
    write_file(target, data, overwrite=force)
    print(target)
    say("The zip is not encrypted: keep it where only you can read it.")


@app.command("import")
def import_person(
    file: Annotated[
        Path,
        typer.Argument(help="The zip that `identity export` wrote.", exists=True, dir_okay=False),
    ],
    keep_photos: KeepPhotosOption = False,
    agree: AgreeOption = False,
    url: UrlOption = None,
    key: KeyOption = None,
    json: JsonOption = False,
) -> None:
    """Take somebody in from the zip of an export, after they have agreed anew.

    Example: imagine-me identity import me.zip
    """
    archive = _archive(file)
    form = _agreed(agree, keep_photos)
    with _client(url, key) as im, waiting("Looking at the faces"):
        made = im.import_person(archive, consent=form)
    if json:
        print_json([one.facts for one in made])
        return
    for one in made:
        print(one.id)
        if one.facts["waits_for_review"]:
            say(f"{one.id} waits for a reviewer: nothing can be made of it before.")
    if not made:
        say("There was no identity in the zip; its pictures were taken in.")


def _archive(file: Path) -> bytes:
    try:
        return file.read_bytes()
    except OSError as error:
        raise UnusableArchive(
            f"{file.name} could not be read: {error.strerror}. Check its path."
        ) from error


def write_file(target: Path, data: bytes, overwrite: bool) -> None:
    """Write a private file whole or not at all.

    Raises:
        OutputNotWritten: it is there already, or the disk refused.
    """
    from imagine.errors import OutputNotWritten
    from imagine.service.wire import write_whole

    if target.exists() and not overwrite:
        raise OutputNotWritten(
            f"{str(target)!r} exists already and was left alone. Choose another name, or --force."
        )
    write_whole(target, data)
    target.chmod(0o600)


def _client(url: str | None, key: str | None) -> ImagineClient:
    from imagine.service.client import ImagineClient
    from imagine.service.wire import DEFAULT_URL

    return ImagineClient(url or DEFAULT_URL, key)


def _agreed(agree: bool, keep_photos: bool) -> ConsentForm:
    """The consent of whoever types.

    Raises:
        ConsentMissing: they did not agree; nothing was sent.
    """
    from imagine.service.consent_text import CONSENT_LOCALE, CONSENT_TEXT
    from imagine.storage.consent import ConsentForm, Purpose

    if not agree:
        say(CONSENT_TEXT)
        if not typer.confirm("Do you agree?", err=True):
            raise ConsentMissing("Without your consent nothing was sent.")
    purposes = {Purpose.GENERATE, *([Purpose.KEEP_PHOTOS] if keep_photos else [])}
    return ConsentForm(CONSENT_TEXT, CONSENT_LOCALE, purposes, True, True, "command-line")
