"""Jobs: wishes of people that survive a crash, from the queue to exactly one end.

The table is the queue. A worker claims many jobs at once under a lease, renews the lease while it
works, and ends each job with the number of its claim: a worker that lost its lease, however late
it wakes up, can end nothing any more. Which claimed job steps next, and the ageing of priorities,
is left to the engine; what a payload says is known only to those who hold its key.
"""

from __future__ import annotations

import re
from collections.abc import Callable, Collection, Iterable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import asdict, dataclass, field
from datetime import datetime, timedelta
from enum import StrEnum
from typing import Any, cast

from sqlalchemy import (
    CTE,
    JSON,
    BigInteger,
    ColumnElement,
    Index,
    LargeBinary,
    Row,
    Select,
    String,
    Table,
    UniqueConstraint,
    and_,
    case,
    delete,
    func,
    literal,
    not_,
    null,
    or_,
    select,
    tuple_,
    update,
)
from sqlalchemy.dialects import postgresql, sqlite
from sqlalchemy.exc import IntegrityError
from sqlalchemy.orm import Mapped, Session, mapped_column
from sqlalchemy.sql.dml import ReturningUpdate

from imagine.errors import (
    IdempotencyConflict,
    InvalidInput,
    JobStillRunning,
    LeaseLost,
    NotStored,
)
from imagine.storage.database import Base, Database, Instant, new_id, utc_now
from imagine.storage.keys import check_id
from imagine.storage.tables import Id, Tenanted

MAX_PAYLOAD_BYTES = 1024 * 1024  # photos and pictures are blobs; a payload names them
MAX_CLAIM = 256
_LOOK_AHEAD = 2 * MAX_CLAIM  # of each tenant's line; more than one claim, for several workers
_ASKED_AT_ONCE = 500  # SQLite takes 999 variables in one statement
MAX_PRIORITY = 100
MAX_ATTEMPTS = 1000
_KEY = re.compile(r"[\x21-\x7e]{1,255}")
_DIGEST = re.compile(r"[0-9a-f]{64}")
_WORD = re.compile(r"[a-z][a-z0-9_]{0,31}")
_FACTS = JSON(none_as_null=True)
_RANKED_BY = ("state", "batch_key", "tenant_id", "priority", "created_at", "id", "available_at")


class JobState(StrEnum):
    """Where a job stands."""

    QUEUED = "queued"
    RUNNING = "running"
    SUCCEEDED = "succeeded"
    FAILED = "failed"
    CANCELED = "canceled"
    BLOCKED = "blocked"  # policy stopped it; `stage` says where


ENDED = frozenset(JobState) - {JobState.QUEUED, JobState.RUNNING}


class JobRow(Tenanted, Base):
    """A job. It has no foreign key to its identity: the record of it outlives the identity.

    Attributes:
        batch_key: jobs of one key may share a batch; the engine's word for it.
        body_digest: keyed digest of the request, to tell a repeat from another request.
        sealed_payload: the wish, encrypted by the caller; None once the job has ended.
        available_at: not claimed before this moment.
        fence: counts the claims; only the holder of the last one may change the job.
    """

    __tablename__ = "jobs"
    __table_args__ = (
        UniqueConstraint("tenant_id", "idempotency_key"),
        # Holds all that ranking needs, so that a claim reads no payload: 10,000 waiting jobs are
        # ranked in 20 ms instead of 58 (SQLite, one core).
        Index("ix_jobs_queue", *_RANKED_BY),
        Index("ix_jobs_leases", "state", "leased_until"),
        Index("ix_jobs_deadlines", "state", "deadline_at"),
    )

    state: Mapped[str] = mapped_column(String(16))
    stage: Mapped[str | None] = mapped_column(String(32))
    batch_key: Mapped[str] = mapped_column(String(255))
    priority: Mapped[int]
    identity_id: Mapped[str | None] = mapped_column(Id, index=True)
    beside_id: Mapped[str | None] = mapped_column(Id, index=True)
    idempotency_key: Mapped[str | None] = mapped_column(String(255))
    body_digest: Mapped[str | None] = mapped_column(String(64))
    sealed_payload: Mapped[bytes | None] = mapped_column(LargeBinary)
    created_at: Mapped[datetime] = mapped_column(Instant, index=True)
    available_at: Mapped[datetime] = mapped_column(Instant)
    started_at: Mapped[datetime | None] = mapped_column(Instant)
    ended_at: Mapped[datetime | None] = mapped_column(Instant, index=True)
    deadline_at: Mapped[datetime | None] = mapped_column(Instant)
    attempts: Mapped[int]
    max_attempts: Mapped[int]
    worker: Mapped[str | None] = mapped_column(String(200))
    leased_until: Mapped[datetime | None] = mapped_column(Instant)
    fence: Mapped[int] = mapped_column(BigInteger)
    cancel_requested: Mapped[bool]
    step: Mapped[int]
    num_steps: Mapped[int]
    result: Mapped[dict[str, Any] | None] = mapped_column(_FACTS)
    error: Mapped[dict[str, Any] | None] = mapped_column(_FACTS)


@dataclass(frozen=True, slots=True)
class NewJob:
    """What somebody asks for.

    Attributes:
        tenant_id: whose job.
        batch_key: jobs of one key may share a batch.
        sealed_payload: the wish, encrypted; at most MAX_PAYLOAD_BYTES.
        identity_id: whose face it uses, if anybody's.
        beside_id: whose face it uses as well.
        priority: higher goes first among the jobs of the same tenant.
        deadline_at: if it has not begun by then, it fails.
        max_attempts: how often it may be claimed before we give up on it.
        idempotency_key: the client's name for this request, to send it twice safely.
        body_digest: keyed digest (hex of 32 bytes) of the request; needed with the key.
        id: its own name; made beforehand so that the payload can be sealed for it.
    """

    tenant_id: str
    batch_key: str
    sealed_payload: bytes = field(repr=False)
    identity_id: str | None = None
    beside_id: str | None = None
    priority: int = 0
    deadline_at: datetime | None = None
    max_attempts: int = 5
    idempotency_key: str | None = None
    body_digest: str | None = None
    id: str = field(default_factory=lambda: new_id("job"))


@dataclass(frozen=True, slots=True)
class JobError:
    """Why a job failed or was blocked: a stable code, and a sentence without anything personal."""

    code: str
    message: str


@dataclass(frozen=True, slots=True)
class Job:
    """A job as it stood when it was read.

    Attributes:
        stage: where policy stopped it, of a blocked job.
        attempts: how often it was claimed.
        cancel_requested: somebody wants it stopped; its worker will see that between two steps.
        step, num_steps: how far it has come; 0 of 0 before the first report.
        result: of a job that succeeded: ids and figures.
        sealed_payload: None once it has ended.
    """

    tenant_id: str
    id: str
    state: JobState
    stage: str | None
    batch_key: str
    priority: int
    identity_id: str | None
    created_at: datetime
    started_at: datetime | None
    ended_at: datetime | None
    deadline_at: datetime | None
    attempts: int
    cancel_requested: bool
    step: int
    num_steps: int
    result: dict[str, Any] | None
    error: JobError | None
    sealed_payload: bytes | None = field(repr=False)

    @property
    def has_ended(self) -> bool:
        """Whether nothing will happen to it any more."""
        return self.state in ENDED


@dataclass(frozen=True, slots=True)
class EndedJob:
    """A job at its end, for those who are told of it."""

    tenant_id: str
    id: str
    identity_id: str | None
    state: JobState
    stage: str | None


# Called in the transaction that ends jobs: what it writes is kept exactly when they end.
OnEnd = Callable[[Session, Sequence[EndedJob]], None]


@dataclass(frozen=True, slots=True)
class Submission:
    """A job that was asked for; `is_repeat` when the same request had come before."""

    job: Job
    is_repeat: bool


@dataclass(frozen=True, slots=True)
class Lease:
    """The right to work on a job: of this worker, from its claim number `fence`."""

    tenant_id: str
    job_id: str
    worker: str
    fence: int


@dataclass(frozen=True, slots=True)
class Claim:
    """A job with the lease on it."""

    job: Job
    lease: Lease


@dataclass(frozen=True, slots=True)
class Sweep:
    """What a look at forgotten jobs did with them, by the state they have now."""

    requeued: int
    failed: int
    canceled: int


class JobStore:
    """The jobs of a database, for those who ask and for those who work.

    Every change is one statement that names the state it expects, so workers on several hosts
    need no other lock. Their clocks should agree better than half a lease; where they do not,
    work is done twice but no job ends twice.
    """

    def __init__(
        self,
        database: Database,
        clock: Callable[[], datetime] = utc_now,
        lease_duration: timedelta = timedelta(seconds=30),
        on_end: OnEnd | None = None,
    ) -> None:
        self._database = database
        self._clock = clock
        self._lease_duration = lease_duration
        self._on_end = on_end

    def submit(
        self,
        new: NewJob,
        within: Session | None = None,
        also: Callable[[Session], object] = lambda session: None,
    ) -> Submission:
        """Accept a job; when this returns (and `within`, if given, commits) it is kept.

        Args:
            new: what somebody asks for.
            within: a writing session to take part in.
            also: what is done in the same transaction if the job is a new one; what it raises
                undoes the job.

        Raises:
            InvalidInput: a field is malformed or too large.
            IdempotencyConflict: the key came before with another body.
            JobStillRunning: the key came before, and its job is being worked on right now.
            NotStored: there is no such tenant.
        """
        _check(new)
        values = _first_values(new, self._clock())

        def submitted(session: Session) -> Submission:
            while True:
                job = self._inserted(session, values)
                if job is not None:
                    also(session)
                    return Submission(job, is_repeat=False)
                earlier = self._same_key(session, new)
                if earlier is not None:
                    return Submission(earlier, is_repeat=True)
                # The earlier job was forgotten between the two looks: its key is free again.

        return self._database.write(submitted) if within is None else submitted(within)

    def get(self, tenant_id: str, job_id: str) -> Job:
        """One job of a tenant.

        Raises:
            NotStored: this tenant has no such job.
        """
        with self._database.reading() as session:
            return self._read(session, tenant_id, job_id)

    def locate(self, job_id: str) -> Job:
        """A job of whatever tenant: for the operator at this machine, never for a request.

        Raises:
            NotStored: there is no such job.
        """
        with self._database.reading() as session:
            row = session.execute(select(_JOBS).where(_JOBS.c.id == job_id)).first()
        if row is None:
            raise NotStored(f"There is no job {job_id!r} here.")
        return _job(row)

    def find(
        self,
        tenant_id: str | None = None,
        states: Iterable[JobState] = (),
        limit: int = 50,
        before: Job | None = None,
    ) -> list[Job]:
        """Jobs, newest first.

        Args:
            tenant_id: of one tenant; None for all, which only the operator may see.
            states: only these; none given means all.
            limit: at most so many.
            before: go on after this job, the last of the page before.
        """
        chosen = select(_JOBS).order_by(_JOBS.c.created_at.desc(), _JOBS.c.id.desc()).limit(limit)
        if tenant_id is not None:
            chosen = chosen.where(_JOBS.c.tenant_id == tenant_id)
        if wanted := [state.value for state in states]:
            chosen = chosen.where(_JOBS.c.state.in_(wanted))
        if before is not None:
            place = tuple_(_JOBS.c.created_at, _JOBS.c.id)
            chosen = chosen.where(
                place < tuple_(literal(before.created_at, Instant), literal(before.id))
            )
        with self._database.reading() as session:
            return [_job(row) for row in session.execute(chosen)]

    def waiting(self, tenant_id: str) -> int:
        """How many jobs of a tenant wait; only they are looked at, however many have ended."""
        mine = select(func.count()).where(_WAITING, _JOBS.c.tenant_id == tenant_id)
        with self._database.reading() as session:
            return session.scalar(mine) or 0

    def counts(self, tenant_id: str | None = None) -> dict[JobState, int]:
        """How many jobs stand in each state."""
        chosen = select(_JOBS.c.state, func.count()).group_by(_JOBS.c.state)
        if tenant_id is not None:
            chosen = chosen.where(_JOBS.c.tenant_id == tenant_id)
        with self._database.reading() as session:
            found = {JobState(state): count for state, count in session.execute(chosen)}
        return {state: found.get(state, 0) for state in JobState}

    def ended_among(self, jobs: Collection[tuple[str, str]]) -> dict[tuple[str, str], JobState]:
        """Which of many jobs, each named by tenant and id, have ended or are gone, and how.

        A job that is gone counts as canceled: whoever was shown on it was erased.
        """
        found: dict[tuple[str, str], JobState] = {}
        names = list(jobs)
        with self._database.reading() as session:
            for start in range(0, len(names), _ASKED_AT_ONCE):
                part = names[start : start + _ASKED_AT_ONCE]
                chosen = select(_JOBS.c.tenant_id, _JOBS.c.id, _JOBS.c.state)
                wanted = chosen.where(_JOBS.c.id.in_([job_id for _, job_id in part]))
                for tenant_id, job_id, state in session.execute(wanted):
                    found[tenant_id, job_id] = JobState(state)
        told = {name: found.get(name, JobState.CANCELED) for name in names}
        return {name: state for name, state in told.items() if state in ENDED}

    def cancel(self, tenant_id: str, job_id: str, within: Session | None = None) -> Job:
        """Stop a job: at once while it waits, between two steps while it runs.

        A job that has ended stays as it is; what it says now is returned either way.

        Raises:
            NotStored: this tenant has no such job.
        """
        with self._writing(within) as session:
            self._announce(
                session, session.execute(_canceling(_is(tenant_id, job_id), self._clock()))
            )
            return self._read(session, tenant_id, job_id)

    def cancel_identity(
        self, tenant_id: str, identity_id: str, within: Session | None = None
    ) -> int:
        """Stop every job that uses an identity; says how many were not yet at their end."""
        of_identity = _uses(tenant_id, identity_id)
        with self._writing(within) as session:
            return self._announce(session, session.execute(_canceling(of_identity, self._clock())))

    def forget_identity(
        self, tenant_id: str, identity_id: str, within: Session | None = None
    ) -> int:
        """Stop and remove every job that uses an identity; says how many there were.

        A worker in the middle of one finds its lease lost, and throws away what it made.
        """
        of_identity = _uses(tenant_id, identity_id)
        gone = delete(_JOBS).where(_among(_locked(of_identity))).returning(_JOBS.c.id)
        with self._writing(within) as session:
            return len(session.execute(gone).all())

    def beside(self, tenant_id: str, identity_id: str) -> list[Job]:
        """The jobs that show an identity beside somebody else."""
        mine = and_(_JOBS.c.tenant_id == tenant_id, _JOBS.c.beside_id == identity_id)
        with self._database.reading() as session:
            return [_job(row) for row in session.execute(select(_JOBS).where(mine))]

    def forget_ended_before(self, moment: datetime) -> int:
        """Remove the jobs that ended before a moment; says how many."""
        old = and_(_JOBS.c.state.in_([state.value for state in ENDED]), _JOBS.c.ended_at < moment)
        gone = delete(_JOBS).where(_among(_locked(old, skip_locked=True))).returning(_JOBS.c.id)
        with self._writing(None) as session:
            return len(session.execute(gone).all())

    def claim(
        self,
        worker: str,
        batch_key: str | None = None,
        limit: int = 1,
        sweeps: bool = True,
    ) -> list[Claim]:
        """Take up to `limit` jobs that may share a batch; first put lost ones back (`sweep`).

        Tenants take turns: the next job is one of the tenant with the fewest running and taken.
        Within a tenant the highest priority goes first, then the oldest.

        Args:
            worker: name of this worker, unique among those alive.
            batch_key: only jobs of this key; None means the key of whoever is next in turn.
            limit: at most so many, 1 to MAX_CLAIM.
            sweeps: False leaves lost jobs alone, for whoever claims many times a second.

        Returns:
            The claims; empty when nothing waits, or when other workers were faster.

        Raises:
            InvalidInput: no name, or another limit.
        """
        if not 1 <= limit <= MAX_CLAIM or not 1 <= len(worker) <= 200:
            raise InvalidInput(
                f"Worker {worker[:40]!r} cannot claim {limit} jobs. Give a name of 1 to 200 "
                f"characters and ask for 1 to {MAX_CLAIM} jobs."
            )
        now = self._clock()
        with self._writing(None) as session:
            if sweeps:
                self._sweep(session, now)
            until = now + self._lease_duration
            rows = session.execute(_claiming(worker, batch_key, limit, now, until)).all()
        in_order = sorted(rows, key=lambda row: (-row.priority, row.created_at, row.id))
        return [
            Claim(_job(row), Lease(row.tenant_id, row.id, worker, row.fence)) for row in in_order
        ]

    def heartbeat(
        self, leases: Iterable[Lease], progress: Mapping[Lease, tuple[int, int]] | None = None
    ) -> set[Lease]:
        """Renew leases, and report how far each has come as (step, num_steps).

        Returns:
            The leases to stop work on: canceled, taken over by another worker, or ended.
        """
        until = self._clock() + self._lease_duration
        renewing, stop = list(leases), set()
        with self._writing(None) as session:
            if renewing and not self._database.is_sqlite:
                session.execute(_locking(or_(*(_holds(lease) for lease in renewing))))
            for lease in renewing:
                values: dict[str, object] = {"leased_until": until}
                if progress and lease in progress:
                    values["step"], values["num_steps"] = progress[lease]
                renewed = update(_JOBS).where(_holds(lease)).values(values)
                canceled = session.scalar(renewed.returning(_JOBS.c.cancel_requested))
                if canceled is not False:  # None: no row is held by this lease any more
                    stop.add(lease)
        return stop

    def stopping(self, leases: Collection[Lease]) -> set[Lease]:
        """The leases to stop work on, as `heartbeat` has it, but only read: between two steps."""
        if not leases:
            return set()
        held = or_(*(_holds(lease) for lease in leases))
        chosen = select(_JOBS.c.tenant_id, _JOBS.c.id, _JOBS.c.worker, _JOBS.c.fence)
        wanted = chosen.where(held, _JOBS.c.cancel_requested.is_(False))
        with self._database.reading() as session:
            return set(leases) - {Lease(*row) for row in session.execute(wanted)}

    def finish(
        self,
        lease: Lease,
        result: Mapping[str, object],
        within: Session | None = None,
        also: Callable[[Session], object] = lambda session: None,
    ) -> JobState:
        """End a job well, once; a job that was canceled meanwhile ends as canceled.

        Args:
            lease: from the claim.
            result: ids and figures as JSON; nothing that shows or names somebody.
            within: a writing session to take part in.
            also: what is done in the same transaction if the job succeeds, such as keeping its
                pictures; what it raises leaves the job as it was.

        Raises:
            LeaseLost: the job is another worker's, has ended or is gone; nothing was changed.
        """

        def finished(session: Session) -> JobState:
            state = self._end(lease, JobState.SUCCEEDED, session, result=dict(result))
            if state is JobState.SUCCEEDED:
                also(session)
            return state

        return self._database.write(finished) if within is None else finished(within)

    def fail(
        self,
        lease: Lease,
        error: JobError,
        retry_after: timedelta | None = None,
        within: Session | None = None,
    ) -> JobState:
        """End a job badly; with `retry_after`, let it wait and try again while it may.

        Raises:
            LeaseLost: as `finish`.
        """
        if retry_after is None:
            return self._end(lease, JobState.FAILED, within, error=error)
        now = self._clock()
        again = {**_again_or_over(now, _facts(error)), "available_at": now + retry_after}
        return self._change(lease, again, within)

    def block(
        self, lease: Lease, stage: str, error: JobError, within: Session | None = None
    ) -> JobState:
        """End a job because policy does not allow it, at a stage such as "prompt" or "output".

        Raises:
            LeaseLost: as `finish`.
            InvalidInput: the stage is not one word.
        """
        if not _WORD.fullmatch(stage):
            raise InvalidInput(f"{stage!r} is not a stage: write it as one word, like 'output'.")
        return self._end(lease, JobState.BLOCKED, within, error=error, stage=stage)

    def give_back(self, lease: Lease) -> JobState:
        """Return a job unharmed to the queue, because this worker shuts down.

        Raises:
            LeaseLost: as `finish`.
        """
        # This attempt does not count, so it was not the last one either.
        back = _again_or_over(self._clock(), _facts(_LATE), attempts=_JOBS.c.attempts - 1)
        return self._change(lease, back, None)

    def sweep(self) -> Sweep:
        """Look after jobs nobody looks after: lost workers and deadlines that have passed.

        A job of a lost worker returns to the queue; it fails after its last attempt, and ends as
        canceled if somebody wanted that. `claim` does this too; a service without a worker at
        hand calls it now and then.
        """
        with self._writing(None) as session:
            return self._sweep(session, self._clock())

    def _end(
        self,
        lease: Lease,
        state: JobState,
        within: Session | None,
        *,
        result: dict[str, object] | None = None,
        error: JobError | None = None,
        stage: str | None = None,
    ) -> JobState:
        unless_canceled = _JOBS.c.cancel_requested.is_(False)
        values = {
            "state": case((unless_canceled, state.value), else_=JobState.CANCELED.value),
            "stage": case((unless_canceled, literal(stage, String)), else_=null()),
            "result": case((unless_canceled, literal(result, _FACTS)), else_=null()),
            "error": case((unless_canceled, _facts(error)), else_=null()),
            "ended_at": self._clock(),
            "sealed_payload": None,
            "worker": None,
            "leased_until": None,
        }
        return self._change(lease, values, within)

    def _change(
        self, lease: Lease, values: Mapping[str, object], within: Session | None
    ) -> JobState:
        changed = update(_JOBS).where(_holds(lease)).values(values).returning(*_END)
        with self._writing(within) as session:
            row = session.execute(changed).one_or_none()
            if row is None:
                raise LeaseLost(
                    f"Worker {lease.worker!r} does not hold job {lease.job_id} any more (claim "
                    f"{lease.fence}): another worker has it, or it has ended. Discard what was "
                    "made for it."
                )
            self._announce(session, [row])
            return JobState(row.state)

    def _sweep(self, session: Session, now: datetime) -> Sweep:
        rows = session.execute(_sweeping(now)).all()
        self._announce(session, rows)
        states = [row.state for row in rows]
        return Sweep(
            requeued=states.count(JobState.QUEUED.value),
            failed=states.count(JobState.FAILED.value),
            canceled=states.count(JobState.CANCELED.value),
        )

    def _announce(self, session: Session, rows: Iterable[Row[Any]]) -> int:
        """Tell of the jobs that have ended by a change; says how many it changed."""
        changed = list(rows)
        ended = [
            EndedJob(row.tenant_id, row.id, row.identity_id, JobState(row.state), row.stage)
            for row in changed
            if JobState(row.state) in ENDED
        ]
        if ended and self._on_end is not None:
            self._on_end(session, ended)
        return len(changed)

    def _inserted(self, session: Session, values: Mapping[str, object]) -> Job | None:
        dialect = sqlite if self._database.is_sqlite else postgresql
        new = dialect.insert(_JOBS).values(values)
        same_key = ["tenant_id", "idempotency_key"]
        inserted = new.on_conflict_do_nothing(index_elements=same_key).returning(*_JOBS.c)
        try:
            row = session.execute(inserted).one_or_none()
            return None if row is None else _job(row)
        except IntegrityError as error:
            raise NotStored(
                f"Job {values['id']} of tenant {values['tenant_id']!r} was not accepted: there is "
                "no such tenant, or a job of this name exists. Make the tenant, or a new name."
            ) from error

    def _same_key(self, session: Session, new: NewJob) -> Job | None:
        """The job that has the key already, if this is the same request and it may be shown."""
        mine = and_(
            _JOBS.c.tenant_id == new.tenant_id, _JOBS.c.idempotency_key == new.idempotency_key
        )
        row = session.execute(select(_JOBS).where(mine)).one_or_none()
        if row is None:
            return None
        if row.body_digest != new.body_digest:
            raise IdempotencyConflict(
                f"The idempotency key {new.idempotency_key!r} was used for another request. "
                "Send the first request again unchanged, or choose a new key."
            )
        if row.state == JobState.RUNNING.value:
            raise JobStillRunning(
                f"The request of idempotency key {new.idempotency_key!r} is being worked on. "
                f"Ask for job {row.id}, or send it again when that has ended.",
                row.id,
            )
        return _job(row)

    def _read(self, session: Session, tenant_id: str, job_id: str) -> Job:
        row = session.execute(select(_JOBS).where(_is(tenant_id, job_id))).one_or_none()
        if row is None:
            raise NotStored(f"There is no job {job_id!r} here.")
        return _job(row)

    @contextmanager
    def _writing(self, within: Session | None) -> Iterator[Session]:
        if within is not None:
            yield within
        else:
            with self._database.writing() as session:
                yield session


_JOBS = cast("Table", JobRow.__table__)
_WAITING = _JOBS.c.state == JobState.QUEUED.value
_WORKED_ON = _JOBS.c.state == JobState.RUNNING.value
_END = (_JOBS.c.tenant_id, _JOBS.c.id, _JOBS.c.identity_id, _JOBS.c.state, _JOBS.c.stage)

_LOST = JobError(
    "worker_lost", "The machine stopped in the middle of it, more than once. Ask again."
)
_LATE = JobError("deadline_exceeded", "It was not done before its deadline. Ask again.")


def _claiming(
    worker: str, batch_key: str | None, limit: int, now: datetime, until: datetime
) -> ReturningUpdate[Any]:
    """One statement: rank what waits, lock the first `limit` that nobody else has, take them."""
    running = (
        select(_JOBS.c.tenant_id, func.count().label("jobs"))
        .where(_WORKED_ON)
        .group_by(_JOBS.c.tenant_id)
        .subquery("running")
    )
    in_tenant = func.row_number().over(
        partition_by=(_JOBS.c.tenant_id, _JOBS.c.batch_key),
        order_by=(_JOBS.c.priority.desc(), _JOBS.c.created_at, _JOBS.c.id),
    )
    waiting = select(
        _JOBS.c.tenant_id,
        _JOBS.c.id,
        _JOBS.c.batch_key,
        _JOBS.c.priority,
        _JOBS.c.created_at,
        in_tenant.label("place"),
    ).where(_WAITING, _JOBS.c.available_at <= now, _in_time(now))
    if batch_key is not None:
        waiting = waiting.where(_JOBS.c.batch_key == batch_key)
    line = waiting.subquery("line")
    turn = line.c.place + func.coalesce(running.c.jobs, 0)
    ranked = (
        select(line, turn.label("turn"))
        .outerjoin(running, running.c.tenant_id == line.c.tenant_id)
        .where(line.c.place <= _LOOK_AHEAD)
        .cte("ranked")
    )
    order = (ranked.c.turn, ranked.c.priority.desc(), ranked.c.created_at, ranked.c.id)
    first = select(ranked.c.batch_key).order_by(*order).limit(1)
    same = and_(ranked.c.tenant_id == _JOBS.c.tenant_id, ranked.c.id == _JOBS.c.id)
    taken = (
        select(_JOBS.c.tenant_id, _JOBS.c.id)
        .join(ranked, same)
        .where(_WAITING, ranked.c.batch_key == first.scalar_subquery())
        .order_by(*order)
        .limit(limit)
        .with_for_update(of=_JOBS, skip_locked=True)
        .cte("taken")
    )
    return (
        update(_JOBS)
        .where(_among(taken))
        .values(
            state=JobState.RUNNING.value,
            worker=worker,
            leased_until=until,
            fence=_JOBS.c.fence + 1,
            attempts=_JOBS.c.attempts + 1,
            started_at=func.coalesce(_JOBS.c.started_at, literal(now, Instant)),
        )
        .returning(*_JOBS.c)
    )


def _in_time(now: datetime) -> ColumnElement[bool]:
    """Too late to begin is never begun, also between two sweeps."""
    return or_(_JOBS.c.deadline_at.is_(None), _JOBS.c.deadline_at > now)


def _sweeping(now: datetime) -> ReturningUpdate[Any]:
    lost = and_(_WORKED_ON, _JOBS.c.leased_until <= now)
    late = and_(_WAITING, _JOBS.c.deadline_at <= now)
    # Rows that others hold are being looked after.
    rows = _locked(or_(lost, late), skip_locked=True)
    error = case((_JOBS.c.deadline_at <= now, _facts(_LATE)), else_=_facts(_LOST))
    over = update(_JOBS).where(_among(rows)).values(_again_or_over(now, error))
    return over.returning(*_END)


def _canceling(which: ColumnElement[bool], now: datetime) -> ReturningUpdate[Any]:
    rows = _locked(and_(which, or_(_WAITING, _WORKED_ON)))
    return (
        update(_JOBS)
        .where(_among(rows))
        .values(
            state=case((_WAITING, JobState.CANCELED.value), else_=_JOBS.c.state),
            ended_at=case((_WAITING, literal(now, Instant)), else_=null()),
            sealed_payload=case((_WAITING, null()), else_=_JOBS.c.sealed_payload),
            cancel_requested=True,
        )
        .returning(*_END)
    )


def _again_or_over(
    now: datetime, error: ColumnElement[Any], attempts: ColumnElement[int] | None = None
) -> dict[str, object]:
    """What a job becomes that nobody works on any more: queued while it may, else over."""
    attempts = _JOBS.c.attempts if attempts is None else attempts
    canceled = _JOBS.c.cancel_requested
    again = and_(canceled.is_(False), attempts < _JOBS.c.max_attempts, _in_time(now))
    failed = and_(canceled.is_(False), not_(again))
    return {
        "state": case(
            (again, JobState.QUEUED.value),
            (failed, JobState.FAILED.value),
            else_=JobState.CANCELED.value,
        ),
        "ended_at": case((again, null()), else_=literal(now, Instant)),
        "sealed_payload": case((again, _JOBS.c.sealed_payload), else_=null()),
        "error": case((failed, error), else_=null()),
        "attempts": attempts,
        "step": 0,
        "num_steps": 0,
        "worker": None,
        "leased_until": None,
    }


def _locked(which: ColumnElement[bool], skip_locked: bool = False) -> CTE:
    return _locking(which, skip_locked).cte("locked")


def _locking(which: ColumnElement[bool], skip_locked: bool = False) -> Select[tuple[str, str]]:
    """The keys of some rows, locked in one order so that nobody waits in a circle.

    SQLite leaves the locking out: there the writing session holds the only write lock.
    """
    keys = select(_JOBS.c.tenant_id, _JOBS.c.id).where(which)
    in_order = keys.order_by(_JOBS.c.tenant_id, _JOBS.c.id)
    return in_order.with_for_update(of=_JOBS, skip_locked=skip_locked)


def _among(keys: CTE) -> ColumnElement[bool]:
    return tuple_(_JOBS.c.tenant_id, _JOBS.c.id).in_(select(keys.c.tenant_id, keys.c.id))


def _is(tenant_id: str, job_id: str) -> ColumnElement[bool]:
    return and_(_JOBS.c.tenant_id == tenant_id, _JOBS.c.id == job_id)


def _uses(tenant_id: str, identity_id: str) -> ColumnElement[bool]:
    shown = or_(_JOBS.c.identity_id == identity_id, _JOBS.c.beside_id == identity_id)
    return and_(_JOBS.c.tenant_id == tenant_id, shown)


def _holds(lease: Lease) -> ColumnElement[bool]:
    """Only the job of this lease, and only while its last claim is this one."""
    mine = and_(_JOBS.c.worker == lease.worker, _JOBS.c.fence == lease.fence)
    return and_(_is(lease.tenant_id, lease.job_id), _WORKED_ON, mine)


def _facts(error: JobError | None) -> ColumnElement[Any]:
    return literal(None if error is None else asdict(error), _FACTS)


def _job(row: Row[Any]) -> Job:
    return Job(
        tenant_id=row.tenant_id,
        id=row.id,
        state=JobState(row.state),
        stage=row.stage,
        batch_key=row.batch_key,
        priority=row.priority,
        identity_id=row.identity_id,
        created_at=row.created_at,
        started_at=row.started_at,
        ended_at=row.ended_at,
        deadline_at=row.deadline_at,
        attempts=row.attempts,
        cancel_requested=row.cancel_requested,
        step=row.step,
        num_steps=row.num_steps,
        result=row.result,
        error=None if row.error is None else JobError(**row.error),
        sealed_payload=row.sealed_payload,
    )


def _first_values(new: NewJob, now: datetime) -> dict[str, object]:
    return {
        **asdict(new),
        "state": JobState.QUEUED.value,
        "created_at": now,
        "available_at": now,
        "attempts": 0,
        "fence": 0,
        "cancel_requested": False,
        "step": 0,
        "num_steps": 0,
    }


def _check(new: NewJob) -> None:
    """Refuse a job whose fields would not fit, before anything is written."""
    for value in filter(None, (new.tenant_id, new.id, new.identity_id, new.beside_id)):
        check_id(value)
    problem = None
    if len(new.sealed_payload) > MAX_PAYLOAD_BYTES:
        problem = f"its payload has {len(new.sealed_payload)} bytes (most: {MAX_PAYLOAD_BYTES})"
    elif not 1 <= len(new.batch_key) <= 255:
        problem = f"its batch key has {len(new.batch_key)} characters (1 to 255)"
    elif abs(new.priority) > MAX_PRIORITY:
        problem = f"its priority is {new.priority} (-{MAX_PRIORITY} to {MAX_PRIORITY})"
    elif not 1 <= new.max_attempts <= MAX_ATTEMPTS:
        problem = f"it may be tried {new.max_attempts} times (1 to {MAX_ATTEMPTS})"
    elif new.idempotency_key is not None:
        problem = _problem_of_key(new.idempotency_key, new.body_digest)
    if problem is not None:
        raise InvalidInput(f"The job was not accepted: {problem}.")


def _problem_of_key(key: str, body_digest: str | None) -> str | None:
    if not _KEY.fullmatch(key):
        return "its idempotency key is not 1 to 255 visible ASCII characters"
    if body_digest is None or not _DIGEST.fullmatch(body_digest):
        return "an idempotency key needs a body digest of 64 hex digits"
    return None
