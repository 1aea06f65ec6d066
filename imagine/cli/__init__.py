"""The command line: one file per command, assembled here.

Errors raised on purpose end in one sentence on stderr and their own exit status; results go to
stdout, everything else to stderr. Nothing heavy is imported before a command needs it.
"""

from __future__ import annotations

import sys
import traceback
from collections.abc import Sequence
from typing import Annotated

import typer

from imagine import __version__
from imagine.cli import (
    audit,
    check,
    db,
    demo,
    doctor,
    evaluate,
    generate,
    identity,
    jobs,
    keys,
    models,
    policy,
    protect,
    replay,
    reviews,
    serve,
    verify,
)
from imagine.cli.console import say
from imagine.errors import ImagineError

EXIT_STATUS_HELP = (
    "Exit status: 0 done, 1 unexpected error, 2 wrong usage, argument or file, 3 no usable face, "
    "several faces or several people, 4 prompt blocked by policy or photo or person refused, "
    "5 weights, package or approval of the policy missing or corrupt, 6 output not written, 7 busy "
    "or too late, 8 generation failed, 9 storage unusable, 10 audit log changed or no consent, "
    "11 API key or reviewer refused, 12 picture not marked, 13 licence refused, 14 service "
    "unreachable, 130 cancelled."
)

app = typer.Typer(
    name="imagine-me",
    help="Pictures of you in any scene, from a few selfies.",
    epilog=EXIT_STATUS_HELP,
    no_args_is_help=True,
    pretty_exceptions_enable=False,
    rich_markup_mode="rich",
    context_settings={"help_option_names": ["-h", "--help"]},
)
app.command("generate", epilog=EXIT_STATUS_HELP)(generate.generate)
app.command("check", epilog=EXIT_STATUS_HELP)(check.check)
app.command("replay", epilog=EXIT_STATUS_HELP)(replay.replay)
app.command("demo", epilog=EXIT_STATUS_HELP)(demo.demo)
app.command("eval", epilog=EXIT_STATUS_HELP)(evaluate.evaluate)
app.command("verify", epilog=EXIT_STATUS_HELP)(verify.verify)
app.command("serve", epilog=EXIT_STATUS_HELP)(serve.serve)
app.command("worker", epilog=EXIT_STATUS_HELP)(serve.worker)
app.command("doctor", epilog=EXIT_STATUS_HELP)(doctor.doctor)
app.add_typer(models.app, name="models")
app.add_typer(identity.app, name="identity")
app.add_typer(keys.app, name="keys")
app.add_typer(db.app, name="db")
app.add_typer(jobs.app, name="jobs")
app.add_typer(audit.app, name="audit")
app.add_typer(reviews.app, name="reviews")
app.command("takedown", epilog=EXIT_STATUS_HELP)(reviews.takedown)
app.add_typer(policy.app, name="policy")
app.add_typer(protect.app, name="protect")


def _show_version(wanted: bool) -> None:
    if wanted:
        typer.echo(f"imagine-me {__version__}")
        raise typer.Exit


@app.callback()
def _options_of_every_command(
    version: Annotated[
        bool,
        typer.Option("--version", callback=_show_version, is_eager=True, help="Show the version."),
    ] = False,
    debug: Annotated[
        bool, typer.Option("--debug", help="Show the traceback of an error; works anywhere.")
    ] = False,
) -> None:
    pass


def main(arguments: Sequence[str] | None = None) -> int:
    """Run one command and return its exit status."""
    given = list(sys.argv[1:] if arguments is None else arguments)
    debug = "--debug" in given
    try:
        app([word for word in given if word != "--debug"], prog_name="imagine-me")
    except SystemExit as ending:
        if ending.code == 130:
            say("Cancelled; nothing half-written was left.")
        return ending.code if isinstance(ending.code, int) else 0
    except KeyboardInterrupt:
        say("Cancelled; nothing half-written was left.")
        return 130
    except ImagineError as error:
        return _end(error, str(error), error.exit_code, debug)
    except Exception as error:
        sentence = f"Unexpected {type(error).__name__}: {error} Add --debug to see where."
        return _end(error, sentence, 1, debug)
    return 0


def _end(error: Exception, sentence: str, exit_code: int, debug: bool) -> int:
    if debug:
        traceback.print_exception(error)
    say(sentence)
    return exit_code
