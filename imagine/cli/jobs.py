"""`imagine-me jobs`: the jobs of this machine, for its operator."""

from __future__ import annotations

import time
from typing import TYPE_CHECKING, Annotated

import typer

from imagine.cli.console import JsonOption, print_json, stdout_console
from imagine.cli.stored import DatabaseOption, existing_database
from imagine.errors import Cancelled, GenerationFailed, InvalidInput, NotStored, PromptBlocked

if TYPE_CHECKING:
    from imagine.storage.jobs import Job, JobState, JobStore

app = typer.Typer(help="Jobs: wishes that wait, are worked on, or have ended.")

TenantOption = Annotated[
    str | None, typer.Option("--tenant", help="Only of this tenant.", show_default=False)
]


@app.callback()
def _jobs() -> None:
    pass


@app.command("list")
def list_jobs(
    state: Annotated[
        list[str] | None,
        typer.Option("--state", help="Only in this state; repeatable.", show_default=False),
    ] = None,
    tenant: TenantOption = None,
    limit: Annotated[int, typer.Option("--limit", min=1, max=10_000, help="At most so many.")] = 50,
    database: DatabaseOption = None,
    json: JsonOption = False,
) -> None:
    """List jobs, newest first: what they are, never what was wished for."""
    from imagine.storage.jobs import JobStore

    states = [_state(name) for name in state or ()]
    with existing_database(database) as opened:
        jobs = JobStore(opened).find(tenant, states, limit)
    if json:
        print_json([_facts(job) for job in jobs])
        return
    from rich.table import Table

    table = Table("job", "tenant", "state", "step", "attempts", "asked", "because")
    for job in jobs:
        steps = f"{job.step}/{job.num_steps}" if job.num_steps else ""
        asked = f"{job.created_at:%Y-%m-%d %H:%M:%S}"
        why = job.error.code if job.error else ""
        table.add_row(job.id, job.tenant_id, _words(job), steps, str(job.attempts), asked, why)
    stdout_console().print(table)


@app.command("watch")
def watch(
    job: Annotated[
        str | None,
        typer.Argument(help="A job; without it all that have not ended.", show_default=False),
    ] = None,
    tenant: TenantOption = None,
    interval: Annotated[
        float, typer.Option("--interval", min=0.05, help="Seconds between two looks.")
    ] = 1.0,
    database: DatabaseOption = None,
) -> None:
    """Print a line whenever a job moves, until it ends or, without a name, all have ended.

    A job that is watched alone ends the command: 0 succeeded, 4 blocked, 8 failed, 130 canceled.
    """
    from imagine.storage.jobs import JobStore

    with existing_database(database) as opened:
        store = JobStore(opened)
        if job is None:
            _watch_all(store, tenant, interval)
        else:
            _end_like(_watch_one(store, job, interval))


@app.command("cancel")
def cancel(
    job: Annotated[list[str], typer.Argument(help="Jobs to stop.", show_default=False)],
    database: DatabaseOption = None,
    json: JsonOption = False,
) -> None:
    """Stop jobs: at once while they wait, between two steps while they run."""
    from imagine.storage.jobs import JobStore

    with existing_database(database) as opened:
        store = JobStore(opened)
        found = [store.locate(name) for name in job]  # all names are right before one is stopped
        stopped = [store.cancel(one.tenant_id, one.id) for one in found]
    if json:
        print_json([_facts(one) for one in stopped])
        return
    for one in stopped:
        print(f"{one.id}: {_words(one)}")


def _watch_one(store: JobStore, name: str, interval: float) -> Job:
    shown = ""
    while True:
        job = store.locate(name)
        shown = _show(job, shown)
        if job.has_ended:
            return job
        time.sleep(interval)


def _watch_all(store: JobStore, tenant: str | None, interval: float) -> None:
    from imagine.storage.jobs import JobState

    moving = [JobState.QUEUED, JobState.RUNNING]
    shown: dict[str, str] = {}
    while True:
        unfinished = {job.id: job for job in store.find(tenant, moving, limit=10_000)}
        for name in [name for name in shown if name not in unfinished]:
            _show_end(store, name)
            del shown[name]
        for job in reversed(unfinished.values()):
            shown[job.id] = _show(job, shown.get(job.id, ""))
        if not unfinished:
            return
        time.sleep(interval)


def _show(job: Job, shown: str) -> str:
    """Print the line of a job unless it is the one shown last; the line."""
    steps = f" {job.step}/{job.num_steps}" if job.num_steps and not job.has_ended else ""
    why = f": {job.error.message}" if job.error else ""
    line = f"{job.id}: {_words(job)}{steps}{why}"
    if line != shown:
        print(line, flush=True)
    return line


def _show_end(store: JobStore, name: str) -> None:
    try:
        _show(store.locate(name), "")
    except NotStored:
        print(f"{name}: forgotten", flush=True)


def _end_like(job: Job) -> None:
    """End the command with the exit status that fits the end of the job."""
    from imagine.storage.jobs import JobState

    why = job.error.message if job.error else f"Job {job.id} {_words(job)}."
    match job.state:
        case JobState.FAILED:
            raise GenerationFailed(why)
        case JobState.BLOCKED:
            raise PromptBlocked(why)
        case JobState.CANCELED:
            raise Cancelled(f"Job {job.id} was canceled.")


def _words(job: Job) -> str:
    if job.stage is not None:
        return f"{job.state.value} ({job.stage})"
    if job.cancel_requested and not job.has_ended:
        return "stopping after this step"
    return job.state.value


def _state(name: str) -> JobState:
    from imagine.storage.jobs import JobState

    try:
        return JobState(name)
    except ValueError as error:
        known = ", ".join(state.value for state in JobState)
        raise InvalidInput(f"{name!r} is not a state of a job. Known: {known}.") from error


def _facts(job: Job) -> dict[str, object]:
    """A job as JSON values, without its payload."""
    moments = {
        name: None if moment is None else moment.isoformat()
        for name, moment in (
            ("created_at", job.created_at),
            ("started_at", job.started_at),
            ("ended_at", job.ended_at),
            ("deadline_at", job.deadline_at),
        )
    }
    error = None if job.error is None else {"code": job.error.code, "message": job.error.message}
    return {
        "id": job.id,
        "tenant_id": job.tenant_id,
        "identity_id": job.identity_id,
        "state": job.state.value,
        "stage": job.stage,
        "batch_key": job.batch_key,
        "priority": job.priority,
        "attempts": job.attempts,
        "cancel_requested": job.cancel_requested,
        "step": job.step,
        "num_steps": job.num_steps,
        "result": job.result,
        "error": error,
        **moments,
    }
