"""`imagine-me audit`: check the log of what happened, export it, keep a checkpoint of it."""

from __future__ import annotations

import os
import sys
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from imagine.cli.console import ForceOption, JsonOption, print_json, say
from imagine.cli.stored import DatabaseOption, existing_database
from imagine.errors import AuditLogBroken, InvalidInput, OutputNotWritten, UnreadableAuditLog

if TYPE_CHECKING:
    from imagine.storage.audit_check import Verification
    from imagine.storage.checkpoints import Checkpoint, VerifierKey
    from imagine.storage.database import Database

app = typer.Typer(help="The log of what happened, which nobody can rewrite unnoticed.")


@app.callback()
def _audit() -> None:
    pass


@app.command("verify")
def verify(
    file: Annotated[
        Path | None,
        typer.Argument(help="An exported log; without it the database.", show_default=False),
    ] = None,
    database: DatabaseOption = None,
    checkpoint: Annotated[
        list[Path] | None,
        typer.Option(
            "--checkpoint",
            "-c",
            help="A checkpoint kept elsewhere; repeatable.",
            show_default=False,
        ),
    ] = None,
    public_key: Annotated[
        str | None,
        typer.Option(
            "--public-key",
            help="The line `audit key` printed, or a file with it.",
            show_default=False,
        ),
    ] = None,
    json: JsonOption = False,
) -> None:
    """Check every entry, offline, and name the first one that is not as it was signed.

    Exit status 10 when something was changed. Kept checkpoints also catch a log that was cut
    back or written anew.
    """
    from imagine.storage.audit_check import verify_export

    kept = [_read_checkpoint(path) for path in checkpoint or ()]
    key = None if public_key is None else read_public_key(public_key)
    if file is not None and database is not None:
        raise InvalidInput("Give a file or --database, not both.")
    if file is not None:
        if key is None:
            say("Checked against the key that the file names itself; --public-key is safer.")
        found = verify_export(file, key, kept)
    else:
        with existing_database(database) as opened:
            found = _verify_database(opened, key, kept)
    if json:
        print_json(_facts(found))
    if not found.is_intact:
        raise AuditLogBroken(found.finding)
    if not json:
        print(found.finding)


@app.command("export")
def export(
    output: Annotated[
        Path | None,
        typer.Option("--output", "-o", help="File name; without it stdout.", show_default=False),
    ] = None,
    database: DatabaseOption = None,
    force: ForceOption = False,
) -> None:
    """Write the whole log as lines of JSON, to be checked elsewhere without the database."""
    from imagine.storage.audit_log import export_log

    with existing_database(database) as opened:
        if output is None:
            export_log(opened, sys.stdout)
            return
        if output.exists() and not force:
            raise OutputNotWritten(f"{str(output)!r} exists. Add --force to replace it.")
        size = _export_to(opened, output)
    print(f"{output}: {size} entries")


@app.command("checkpoint")
def show_checkpoint(database: DatabaseOption = None) -> None:
    """Check the log and print its signed state: keep this where this machine cannot reach it."""
    with existing_database(database) as opened:
        found = _verify_database(opened, None, [])
    if not found.is_intact:
        raise AuditLogBroken(found.finding)
    if found.checkpoint is None:
        raise UnreadableAuditLog("This database has no audit log yet; there is nothing to keep.")
    print(found.checkpoint, end="")


@app.command("key")
def show_key(database: DatabaseOption = None) -> None:
    """Print the public key of the log: with it anybody can check an export."""
    from imagine.storage.audit_log import verifier_key_of

    with existing_database(database) as opened:
        print(verifier_key_of(opened))


def _verify_database(
    database: Database, key: VerifierKey | None, kept: list[Checkpoint]
) -> Verification:
    from imagine.settings import Settings
    from imagine.storage.audit_log import verify_database
    from imagine.storage.checkpoints import KEY_FILE_NAME, SigningKey

    if key is not None:
        return verify_database(database, key.public_bytes, kept)
    ours = Settings().secrets_directory / KEY_FILE_NAME
    if ours.exists():
        return verify_database(database, SigningKey.load_or_create(ours).public_bytes, kept)
    say("Checked against the key that the database names itself; --public-key is safer.")
    return verify_database(database, None, kept)


def _read_checkpoint(path: Path) -> Checkpoint:
    from imagine.storage.checkpoints import parse_checkpoint

    return parse_checkpoint(_read_text(path))


def read_public_key(text: str) -> VerifierKey:
    """The public key of a log, from its line or a file with it."""
    from imagine.storage.checkpoints import VerifierKey

    return VerifierKey.parse(text if text.count("+") >= 2 else _read_text(Path(text)))


def _read_text(path: Path) -> str:
    try:
        return path.read_text(encoding="utf-8")
    except (OSError, UnicodeDecodeError) as error:
        raise UnreadableAuditLog(
            f"{str(path)!r} cannot be read as text ({type(error).__name__}). "
            "Check the name of the file."
        ) from error


def _export_to(database: Database, output: Path) -> int:
    """Write the export whole or not at all; how many entries it has."""
    from imagine.storage.audit_log import export_log

    draft = output.with_name(f".{output.name}.{os.getpid()}")
    try:
        with draft.open("w", encoding="utf-8", newline="\n") as file:
            size = export_log(database, file).size
        draft.replace(output)
    except OSError as error:
        raise OutputNotWritten(
            f"{str(output)!r} was not written ({error.strerror}). Check the folder."
        ) from error
    finally:
        draft.unlink(missing_ok=True)
    return size


def _facts(found: Verification) -> dict[str, object]:
    return {
        "intact": found.is_intact,
        "entries_confirmed": found.size,
        "first_bad": found.first_bad,
        "finding": found.finding,
        "checkpoint": None if found.checkpoint is None else str(found.checkpoint),
    }
