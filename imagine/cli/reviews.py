"""`imagine-me reviews`: the queues of reviewers at this machine; `imagine-me takedown`: a notice.

Whoever is signed in to this machine is the reviewer: where two are needed, they are two accounts
of the system.
"""

from __future__ import annotations

import getpass
import re
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from imagine.cli.console import ForceOption, JsonOption, print_json, say, stdout_console
from imagine.cli.serve import built_service, need_serve_extra
from imagine.errors import InvalidInput, OutputNotWritten

if TYPE_CHECKING:
    from imagine.service.wiring import Service
    from imagine.storage.acts import Reason
    from imagine.storage.reviews import Review

app = typer.Typer(help="What waits for a person's decision.", no_args_is_help=True)

TenantOption = Annotated[str, typer.Option("--tenant", help="Whose reviews.")]
ReasonOption = Annotated[
    str, typer.Option("--reason", help="Why, as a code; a wrong one lists all.")
]
ClauseOption = Annotated[str, typer.Option("--clause", help="Of the policy, e.g. 9.1.")]
ReviewArgument = Annotated[str, typer.Argument(help="A review, as `list` shows it.")]
OutputOption = Annotated[Path, typer.Option("--output", "-o", help="File to write.")]


@app.callback()
def _reviews() -> None:
    pass


@app.command("list")
def list_reviews(
    queue: Annotated[
        str | None,
        typer.Option("--queue", help="Only of this queue.", show_default=False),
    ] = None,
    everything: Annotated[bool, typer.Option("--all", help="Decided ones too.")] = False,
    limit: Annotated[int, typer.Option("--limit", min=1, max=10_000)] = 50,
    tenant: TenantOption = "local",
    json: JsonOption = False,
) -> None:
    """List what waits, the longest waiting first."""
    from imagine.storage.reviews import Queue, ReviewState

    chosen = None if queue is None else Queue(_one_of("queue", queue, [one.value for one in Queue]))
    states = () if everything else (ReviewState.OPEN, ReviewState.NEEDS_SECOND)
    service = _service()
    with service.database:
        found = service.reviews.find(tenant, chosen, states, limit)
        waiting = service.reviews.acts.find(tenant, waiting=True)
    if json:
        print_json([_facts(review) for review in found])
        return
    from rich.table import Table

    table = Table()
    table.add_column("review", no_wrap=True, min_width=39)
    for name in ("queue", "state", "reason", "asked", "due"):
        table.add_column(name)
    for review in found:
        due = "" if review.due_at is None else f"{review.due_at:%Y-%m-%d %H:%M}"
        asked = f"{review.created_at:%Y-%m-%d %H:%M}"
        table.add_row(review.id, review.queue, review.state, review.reason, asked, due)
    stdout_console().print(table)
    for act in waiting:
        target = act.number or act.target_id
        say(f"{act.id}: {act.kind.value} of {target} waits for another reviewer's approval.")


@app.command("show")
def show(
    review: ReviewArgument,
    picture: Annotated[
        Path | None,
        typer.Option("--picture", help="Write the picture here, blurred.", show_default=False),
    ] = None,
    clear: Annotated[bool, typer.Option("--clear", help="Not blurred; logged as such.")] = False,
    force: ForceOption = False,
    tenant: TenantOption = "local",
) -> None:
    """Show a review as JSON, and write its picture, grey and blurred unless asked for in clear."""
    service = _service()
    with service.database:
        found = service.reviews.get(tenant, review)
        history = service.reviews.history(tenant, review)
        notice = service.takedowns.read_statement(found)
        note = service.reviews.read_note(tenant, review)
        if picture is not None:
            file = service.oversight.look(tenant, review, _me(), in_clear=clear)
            _write(picture, file.data, force)
    told: dict[str, object] = {**_facts(found), "note": note}
    if notice is not None:
        told |= {"statement": notice.statement, "where": notice.where}
    told["decisions"] = [
        {
            "ruling": one.ruling.value,
            "reason": one.reason.value,
            "clause": one.clause,
            "decided_by": one.decided_by,
            "decided_at": one.decided_at.isoformat(),
            "is_final": one.is_final,
            "note": one.note,
        }
        for one in history
    ]
    print_json(told)


@app.command("decide")
def decide(
    review: ReviewArgument,
    ruling: Annotated[str, typer.Option("--ruling", help="leave, release or remove.")],
    reason: ReasonOption,
    clause: ClauseOption,
    note: Annotated[str, typer.Option("--note", help="In words; kept sealed.")] = "",
    tenant: TenantOption = "local",
) -> None:
    """Decide a review. A release happens when a second reviewer decides the same.

    Example: imagine-me reviews decide review_1f --ruling leave --reason nudity --clause 2.1
    """
    from imagine.storage.reviews import Ruling

    chosen = Ruling(_one_of("ruling", ruling, [one.value for one in Ruling]))
    service = _service()
    with service.database:
        words = (chosen, _reason(reason), clause, _me(), note)
        decided = service.reviews.decide(tenant, review, *words)
    if decided.ruling is None:
        print(f"{decided.id}: proposed; another reviewer must decide the same.")
    else:
        print(f"{decided.id}: {decided.ruling.value}")


@app.command("sweep")
def sweep(
    review: ReviewArgument,
    distance: Annotated[
        int, typer.Option("--distance", min=0, max=31, help="Bits of 256 that may differ.")
    ] = 31,
    remove: Annotated[bool, typer.Option("--remove", help="Withhold them at once.")] = False,
    tenant: TenantOption = "local",
) -> None:
    """Find every picture that looks like this one, and queue or withhold it."""
    service = _service()
    with service.database:
        found = service.oversight.sweep(tenant, review, _me(), remove, distance)
    for one in found.queued:
        print(f"{one.id}: {one.image_id}")
    say(f"{len(found.queued)} pictures look the same; {found.removed} were withheld.")


@app.command("ask")
def ask(
    target: Annotated[str, typer.Argument(help="A review; with --act collect an identity.")],
    act: Annotated[str, typer.Option("--act", help="open_in_clear, export_evidence or collect.")],
    reason: ReasonOption,
    clause: ClauseOption,
    tenant: TenantOption = "local",
) -> None:
    """Ask for a dangerous act; another reviewer approves it within a day."""
    from imagine.storage.acts import ActKind

    kind = ActKind(_one_of("act", act, [one.value for one in ActKind]))
    service = _service()
    with service.database:
        words = (_reason(reason), clause, _me())
        if kind is ActKind.COLLECT:
            made = service.cases.ask(tenant, target, *words)
        elif target.startswith("case_"):
            subject = service.cases.get(tenant, target).target_id
            made = service.reviews.acts.ask(tenant, kind, target, *words, subject)
        else:
            subject = service.reviews.get(tenant, target).owner_id
            made = service.reviews.acts.ask(tenant, kind, target, *words, subject)
    print(made.id)
    number = f" It is case {made.number}." if made.number else ""
    say(f"Another reviewer approves it with: imagine-me reviews approve {made.id}.{number}")


@app.command("approve")
def approve(
    act: Annotated[str, typer.Argument(help="The act, as `ask` printed it.")],
    tenant: TenantOption = "local",
) -> None:
    """Agree to what another reviewer asked for; both may do it for an hour."""
    service = _service()
    with service.database:
        approved = service.oversight.approve(tenant, act, _me())
    print(f"{approved.id}: approved until {approved.expires_at:%H:%M} UTC")


@app.command("evidence")
def evidence(
    target: Annotated[str, typer.Argument(help="A review or a case.")],
    output: OutputOption,
    force: ForceOption = False,
    tenant: TenantOption = "local",
) -> None:
    """Write pictures, decisions and proofs as a zip that is checked offline; needs two reviewers.

    Example: imagine-me reviews evidence review_1f --output evidence.zip
    """
    service = _service()
    with service.database:
        if target.startswith("case_"):
            data = service.oversight.evidence_of_case(tenant, target, _me())
        else:
            data = service.oversight.evidence_of_review(tenant, target, _me())
    _write(output, data, force)
    print(f"{output}: {len(data)} bytes")


@app.command("verify-evidence")
def verify(
    file: Annotated[Path, typer.Argument(help="A zip made by `evidence`.")],
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
    """Check evidence offline: every file, every entry of the log, and who signed it.

    Needs neither a service nor a database. Exit status 10 when something was changed.
    """
    from imagine.cli.audit import read_public_key
    from imagine.storage.evidence import verify_evidence

    key = None if public_key is None else read_public_key(public_key)
    found = verify_evidence(file, key)
    if json:
        print_json(
            {
                "pictures": list(found.pictures),
                "entries": found.entries,
                "key": found.key,
                "key_was_given": found.is_key_known,
                "exported_at": found.exported_at,
                "about": dict(found.about),
            }
        )
    else:
        print(
            f"{file}: {len(found.pictures)} pictures and {found.entries} entries of the audit log "
            f"are as they were when it was exported, {found.exported_at}."
        )
    if not found.is_key_known:
        say(f"Checked against the key in the file; --public-key is safer. It is: {found.key}")


def takedown(
    name: Annotated[str, typer.Option("--name", help="Who asks.")],
    contact: Annotated[str, typer.Option("--contact", help="How to answer them.")],
    statement: Annotated[str, typer.Option("--statement", help="What is wrong.")],
    in_good_faith: Annotated[
        bool,
        typer.Option(
            "--in-good-faith",
            help="They believe the picture shows them, or whom they speak for, unagreed.",
        ),
    ] = False,
    where: Annotated[str, typer.Option("--where", help="Where it was seen, or its id.")] = "",
    picture: Annotated[
        Path | None,
        typer.Option("--picture", help="A copy of the picture; not kept.", show_default=False),
    ] = None,
) -> None:
    """Take in somebody's wish that a picture of them be removed; it has 48 hours.

    Example: imagine-me takedown --name "A. B." --contact a@example.org --statement "That is me."
    --in-good-faith --picture copy.jpg
    """
    from imagine.storage.takedowns import Notice

    copy = None if picture is None else _read(picture)
    service = _service()
    with service.database:
        notice = Notice(name, contact, statement, where, in_good_faith)
        made = service.oversight.file_takedown(notice, copy)
    print(made.id)
    say(f"Found and queued: {made.matches}. To be decided before {made.due_at:%Y-%m-%d %H:%M} UTC.")


def _service() -> Service:
    need_serve_extra()
    return built_service()


def _me() -> str:
    """Whoever is signed in to this machine, as one word of the audit log."""
    return "user_" + re.sub(r"[^A-Za-z0-9_.-]", "_", getpass.getuser())[:64]


def _reason(word: str) -> Reason:
    from imagine.storage.acts import Reason

    return Reason(_one_of("reason", word, [one.value for one in Reason]))


def _one_of(what: str, word: str, known: list[str]) -> str:
    if word not in known:
        raise InvalidInput(f"{word!r} is no {what}. Known: {', '.join(known)}.")
    return word


def _read(path: Path) -> bytes:
    try:
        return path.read_bytes()
    except OSError as error:
        raise InvalidInput(
            f"{str(path)!r} cannot be read ({error.strerror}). Check its name."
        ) from error


def _write(path: Path, data: bytes, force: bool) -> None:
    if path.exists() and not force:
        raise OutputNotWritten(f"{str(path)!r} exists. Add --force to replace it.")
    try:
        path.write_bytes(data)
    except OSError as error:
        path.unlink(missing_ok=True)
        raise OutputNotWritten(
            f"{str(path)!r} was not written ({error.strerror}). Check the folder."
        ) from error


def _facts(review: Review) -> dict[str, object]:
    return {
        "id": review.id,
        "queue": review.queue.value,
        "state": review.state.value,
        "reason": review.reason,
        "identity": review.identity_id,
        "image": review.image_id,
        "withheld": review.withheld_id is not None,
        "generation": review.job_id,
        "takedown": review.takedown_id,
        "checks": dict(review.checks),
        "created_at": review.created_at.isoformat(),
        "due_at": review.due_at.isoformat() if review.due_at else None,
        "ruling": review.ruling.value if review.ruling else None,
    }
