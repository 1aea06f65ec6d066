"""The loop: takes requests from anywhere, moves the most urgent ones a step, hands out pictures.

One thread owns the backend, so a backend needs no locks. Requests join and leave between steps.
The thread ends when nothing has come for a while and starts again with the next request.
"""

from __future__ import annotations

import hashlib
import logging
import math
import threading
import time
from collections import OrderedDict, deque
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from types import TracebackType
from typing import cast

import numpy as np
from PIL import Image

from imagine.backends.base import (
    Backend,
    PairEncoder,
    PersonEncoder,
    RowState,
    is_out_of_memory,
    refuse_two,
)
from imagine.backends.cache import ByteLRU
from imagine.core import ImageArray, Request
from imagine.engine.batcher import Entry, PassTimes, Priority, choose_rows, welcome
from imagine.engine.limits import Limits, check_request
from imagine.engine.ticket import Phase, Ticket
from imagine.errors import (
    Busy,
    Cancelled,
    DeadlineExceeded,
    GenerationFailed,
    ImagineError,
    InvalidInput,
    OutOfMemory,
)

logger = logging.getLogger(__name__)

IDLE_SECONDS = 2.0  # the thread waits so long for more work before it ends
PREPARED_PER_STEP = 4  # prompts encoded between two steps, so that running pictures keep moving
PASSES_BEFORE_GROWING = 64  # good passes after which a batch halved by lack of memory grows again
PASSES_BEFORE_TRYING = (
    64  # one pass of so many may be larger than worthwhile, to see if it still is
)
KNOWN_TENANTS = 1000
KEPT_INCIDENTS = 100
SMOOTHING = 0.2  # of the running averages of speed


@dataclass(frozen=True, slots=True)
class Incident:
    """A pass that went wrong for some and not for the others.

    Attributes:
        kind: "out of memory" or "not finite".
        at: seconds of the engine's clock.
        recipes: of the pictures concerned, without prompt and person.
    """

    kind: str
    at: float
    recipes: tuple[str, ...]


@dataclass(frozen=True, slots=True)
class EngineStats:
    """What the engine has done and has to do.

    Attributes:
        waiting: requests not yet prepared.
        active: requests between steps.
        passes: forward passes so far.
        rows: forward rows so far; rows / passes is how full passes were.
        finished: pictures delivered.
        out_of_memory_events: passes that had to be split.
        seconds_per_pass: smoothed; 0 before the first.
        incidents: the last `KEPT_INCIDENTS`, the oldest first.
    """

    waiting: int
    active: int
    passes: int
    rows: int
    finished: int
    out_of_memory_events: int
    seconds_per_pass: float
    incidents: tuple[Incident, ...] = ()


@dataclass(eq=False)
class _Work:
    """A request inside the engine; `state` is None until it is prepared."""

    ticket: Ticket
    request: Request = field(repr=False)
    tenant: str
    priority: Priority
    submitted: float
    deadline: float | None
    state: RowState | None = field(default=None, repr=False)
    last_preview: float = -math.inf
    previews: int = 0

    def entry(self, forward_rows: int) -> Entry:
        key = () if self.state is None else self.state.batch_key
        return Entry(
            self.ticket.number,
            self.tenant,
            self.priority,
            self.submitted,
            self.deadline,
            key,
            forward_rows,
        )


class Engine:
    """Continuous batching over one backend. Safe to use from many threads and from asyncio.

    Args:
        backend: the model; from now on only the engine calls it.
        limits: how much at once.
        people_bytes: how much to keep of people's identity tokens between requests; 0 keeps
            nothing, and then nothing of a person outlives the request.
        clock: monotonic seconds; tests hand in their own.
    """

    def __init__(
        self,
        backend: Backend,
        limits: Limits | None = None,
        *,
        people_bytes: int = 0,
        clock: Callable[[], float] = time.monotonic,
    ) -> None:
        self._backend = backend
        self._limits = limits or Limits()
        self._clock = clock
        self._people: ByteLRU[str, object] = ByteLRU(people_bytes, _nbytes)
        self._changed = threading.Condition()
        self._thread: threading.Thread | None = None
        self._closed = False
        self._numbers = 0
        self._waiting: list[_Work] = []
        self._active: list[_Work] = []
        self._service: OrderedDict[str, float] = OrderedDict()
        self._rows_cap = self._limits.max_forward_rows
        self._good_passes = 0
        self._passes = self._rows = self._finished = self._splits = 0
        self._pass_seconds = self._pictures_per_second = 0.0
        self._pass_times = PassTimes()
        self._incidents: deque[Incident] = deque(maxlen=KEPT_INCIDENTS)

    def __enter__(self) -> Engine:
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        trace: TracebackType | None,
    ) -> None:
        self.close()

    @property
    def backend(self) -> Backend:
        """The model; call it only while the engine is idle."""
        return self._backend

    @property
    def stats(self) -> EngineStats:
        """A snapshot."""
        with self._changed:
            return EngineStats(
                waiting=len(self._waiting),
                active=len(self._active),
                passes=self._passes,
                rows=self._rows,
                finished=self._finished,
                out_of_memory_events=self._splits,
                seconds_per_pass=self._pass_seconds,
                incidents=tuple(self._incidents),
            )

    def submit(
        self,
        request: Request,
        *,
        tenant: str = "local",
        priority: Priority = Priority.INTERACTIVE,
        timeout_seconds: float | None = None,
    ) -> Ticket:
        """Ask for one picture; returns at once.

        Args:
            request: what to draw.
            tenant: who asks; tenants share fairly.
            priority: class of urgency.
            timeout_seconds: after so long it fails with `DeadlineExceeded`; None waits for ever.

        Raises:
            InvalidInput: steps, guidance or likeness out of range, or a shape that is not offered;
                names the limit.
            Busy: too much work waits; has `retry_after_seconds`.
        """
        (ticket,) = self.submit_all(
            [request], tenant=tenant, priority=priority, timeout_seconds=timeout_seconds
        )
        return ticket

    def submit_all(
        self,
        requests: Sequence[Request],
        *,
        tenant: str = "local",
        priority: Priority = Priority.INTERACTIVE,
        timeout_seconds: float | None = None,
    ) -> list[Ticket]:
        """Ask for several pictures, all or none. Arguments and errors as for `submit`."""
        for request in requests:
            check_request(request)
            self._check_shape(request)
        with self._changed:
            if self._closed:
                raise InvalidInput("The engine is closed; make another one.")
            self._refuse_too_much(len(requests))
            now = self._clock()
            deadline = None if timeout_seconds is None else now + timeout_seconds
            tickets = []
            welcome(self._service, tenant, [w.tenant for w in (*self._active, *self._waiting)])
            self._service.move_to_end(tenant)
            while len(self._service) > KNOWN_TENANTS:
                self._service.popitem(last=False)
            for request in requests:
                self._numbers += 1
                ticket = Ticket(self._numbers, request.num_inference_steps)
                ticket.advance(ahead=len(self._waiting))
                self._waiting.append(_Work(ticket, request, tenant, priority, now, deadline))
                tickets.append(ticket)
            self._ensure_thread()
            self._changed.notify_all()
        return tickets

    def _check_shape(self, request: Request) -> None:
        # Two people where one is drawn are refused when the request is prepared, by their own name.
        info, two = self._backend.info, request.beside is not None
        info.size_of(request.aspect_ratio, two=two and info.draws_two)

    def forget_person(self, crops: ImageArray) -> bool:
        """Drop what is kept of a person; whether there was anything."""
        return self.forget_key(person_key(crops))

    def forget_key(self, key: str) -> bool:
        """As `forget_person`, for a caller who has the `person_key` only."""
        return self._people.forget(key)

    def close(self) -> None:
        """Cancel what waits and runs, and end the thread."""
        with self._changed:
            self._closed = True
            for work in (*self._waiting, *self._active):
                work.ticket.cancel()
            self._changed.notify_all()
            thread = self._thread
        self._people.clear()
        if thread is not None and thread is not threading.current_thread():
            thread.join()

    def _refuse_too_much(self, count: int) -> None:
        room = self._limits.max_waiting + self._limits.max_active
        if len(self._waiting) + len(self._active) + count <= room:
            return
        steps = sum(
            work.request.num_inference_steps - (work.state.step if work.state else 0)
            for work in (*self._waiting, *self._active)
        )
        seconds = steps / self._pictures_per_second if self._pictures_per_second else 1.0
        # Half of the backlog: by then there is room again, not yet nothing to do.
        retry = max(1.0, math.ceil(seconds / 2))
        raise Busy(
            f"{len(self._waiting)} pictures wait already and {count} more were asked for. "
            f"Try again in {retry:.0f} seconds.",
            retry,
        )

    def _ensure_thread(self) -> None:
        if self._thread is None or not self._thread.is_alive():
            self._thread = threading.Thread(target=self._run, name="imagine-engine", daemon=True)
            self._thread.start()

    def _run(self) -> None:
        while self._wait_for_work():
            try:
                self._turn()
            except BaseException as error:  # whatever it is, nobody may wait for ever
                logger.exception("the engine's turn failed; its requests fail with it")
                with self._changed:
                    everything = [*self._waiting, *self._active]
                while everything:
                    work = everything.pop()
                    self._end(work, _as_our_error(error, work.request))
                    del work

    def _turn(self) -> None:
        # Apart from `_run`, so that no local name keeps a person while the thread waits.
        self._drop_unwanted()
        self._prepare_some()
        chosen = self._choose()
        if chosen:
            self._step(chosen)

    def _wait_for_work(self) -> bool:
        """False when the thread should end; decided under the lock, so no request is missed."""
        with self._changed:
            idle = not self._waiting and not self._active
            if idle and not self._closed:
                self._changed.wait_for(lambda: self._waiting or self._closed, IDLE_SECONDS)
                idle = not self._waiting
            if idle:
                self._thread = None
            return not idle

    def _drop_unwanted(self) -> None:
        """Forget what was cancelled or is too late."""
        now = self._clock()
        with self._changed:
            everything = [*self._waiting, *self._active]
        for work in everything:
            if work.ticket.wants_cancel:
                message = "Cancelled before the picture was finished; nothing was kept."
                self._end(work, Cancelled(message))
            elif work.deadline is not None and now >= work.deadline:
                waited = now - work.submitted
                self._end(
                    work,
                    DeadlineExceeded(
                        f"The picture was not finished after {waited:.1f} seconds, the time it was "
                        "given. Ask again with more time or fewer steps."
                    ),
                )

    def _prepare_some(self) -> None:
        """Prepare the most urgent waiting requests while there is room for their tensors."""
        for _ in range(PREPARED_PER_STEP):
            with self._changed:
                work = self._next_waiting()
                if work is None:
                    return
                self._waiting.remove(work)
                self._active.append(work)
                for ahead, other in enumerate(self._waiting):
                    other.ticket.advance(ahead=ahead)
            try:
                work.state = self._prepare(work.request)
                work.ticket.advance(phase=Phase.RUNNING, ahead=0)
            except Exception as error:
                self._end(work, _as_our_error(error, work.request))

    def _prepare(self, request: Request) -> RowState:
        backend, crops = self._backend, request.crops
        if request.beside is not None:
            refuse_two(backend.info)
        if crops is None or not self._people.max_bytes or not isinstance(backend, PersonEncoder):
            return backend.prepare(request)
        person = self._person(backend, crops)
        if request.beside is None:
            return backend.prepare(request, person)
        # Whoever draws two takes both ready made; `refuse_two` has turned the others away.
        together = cast("PairEncoder", backend)
        return together.prepare(request, person, self._person(backend, request.beside))

    def _person(self, backend: PersonEncoder, crops: ImageArray) -> object:
        return self._people.get_or_make(person_key(crops), lambda: backend.encode_person(crops))

    def _next_waiting(self) -> _Work | None:
        limits = self._limits
        if not self._waiting or len(self._active) >= limits.max_active:
            return None
        now = self._clock()
        (first,) = choose_rows(
            [work.entry(1) for work in self._waiting],
            self._service,
            now,
            1,
            limits.ageing_seconds,
        )
        work = self._waiting[first]
        # Work nobody waits for may not take the last quarter of the places: somebody in front of
        # a screen must not wait for a whole picture to finish.
        background = work.priority is Priority.BATCH
        if background and len(self._active) >= max(1, limits.max_active * 3 // 4):
            return None
        return work

    def _choose(self) -> list[_Work]:
        with self._changed:
            ready = [work for work in self._active if work.state is not None]
        entries = [work.entry(self._forward_rows(work)) for work in ready]
        chosen = choose_rows(
            entries,
            self._service,
            self._clock(),
            self._rows_cap,
            self._limits.ageing_seconds,
            self._useful_rows,
        )
        for index in chosen:
            tenant = entries[index].tenant
            self._service[tenant] = self._service.get(tenant, 0.0) + entries[index].forward_rows
        return [ready[index] for index in chosen]

    def _useful_rows(self, key: tuple[object, ...]) -> int:
        rows = self._pass_times.useful_rows(key, self._rows_cap)
        # What a busy machine taught must not hold for ever.
        return 2 * rows if self._passes % PASSES_BEFORE_TRYING == 0 else rows

    def _forward_rows(self, work: _Work) -> int:
        assert work.state is not None
        return self._backend.forward_rows(work.state)

    def _step(self, chosen: Sequence[_Work]) -> None:
        started = time.perf_counter()
        rows = sum(self._forward_rows(work) for work in chosen)
        moved = self._move(chosen)
        seconds = time.perf_counter() - started
        if moved and len(moved) == len(chosen):
            self._pass_times.record(moved[0][1].batch_key, rows, seconds)
        with self._changed:
            self._passes += 1
            self._rows += rows
            self._pass_seconds = _smoothed(self._pass_seconds, seconds)
            self._pictures_per_second = _smoothed(self._pictures_per_second, len(chosen) / seconds)
            self._grow_again()
            crowd = sum(1 for work in self._active if work.state is not None)
        turns = math.ceil(crowd / max(len(chosen), 1))
        for work, state in moved:
            self._after_step(work, state, turns)

    def _grow_again(self) -> None:
        self._good_passes += 1
        if self._good_passes >= PASSES_BEFORE_GROWING:
            self._good_passes = 0
            self._rows_cap = min(2 * self._rows_cap, self._limits.max_forward_rows)

    def _move(self, chosen: Sequence[_Work]) -> list[tuple[_Work, RowState]]:
        """One step for all; whatever fails is found out alone, so that nobody pays for others."""
        try:
            return self._forward(chosen)
        except Exception as error:
            if len(chosen) == 1:
                self._end(chosen[0], _as_our_error(error, chosen[0].request))
                return []
            if is_out_of_memory(error):
                return self._split(chosen)
            logger.warning("a pass of %d pictures failed (%s); one by one", len(chosen), error)
            return [pair for work in chosen for pair in self._move([work])]

    def _split(self, chosen: Sequence[_Work]) -> list[tuple[_Work, RowState]]:
        """No room: half the rows, once, and smaller passes for a while."""
        middle = len(chosen) // 2
        halves = (chosen[:middle], chosen[middle:])
        with self._changed:
            self._splits += 1
            self._good_passes = 0
            rows = max(sum(self._forward_rows(work) for work in half) for half in halves)
            self._rows_cap = max(1, rows)
        self._note("out of memory", chosen)
        moved = []
        for half in halves:
            try:
                moved += self._forward(half)
            except Exception as error:
                for work in half:
                    self._end(work, _as_our_error(error, work.request))
        return moved

    def _note(self, kind: str, concerned: Sequence[_Work]) -> None:
        recipes = tuple(_facts(work.request) for work in concerned)
        with self._changed:
            self._incidents.append(Incident(kind, self._clock(), recipes))
        logger.warning("%s in a pass: %s", kind, "; ".join(recipes))

    def _forward(self, chosen: Sequence[_Work]) -> list[tuple[_Work, RowState]]:
        states = [work.state for work in chosen if work.state is not None]
        moved = self._backend.denoise_step(states)
        assert len(moved) == len(states) == len(chosen)
        return list(zip(chosen, moved, strict=True))

    def _after_step(self, work: _Work, state: RowState, turns: int) -> None:
        if not self._backend.is_finite(state):
            self._note("not finite", [work])
            self._end(work, _not_finite(work.request, state.step))
            return
        work.state = state
        if state.step >= state.num_steps:
            self._deliver(work, state)
            return
        eta = (state.num_steps - state.step) * turns * self._pass_seconds
        work.ticket.advance(step=state.step, eta_seconds=eta)
        self._preview(work, state)

    def _deliver(self, work: _Work, state: RowState) -> None:
        try:
            image = self._backend.decode(state)
        except Exception as error:
            self._end(work, _as_our_error(error, work.request))
            return
        work.ticket.advance(step=state.step)
        self._finished += 1
        self._forget(work)
        work.ticket.succeed(image)

    def _preview(self, work: _Work, state: RowState) -> None:
        every, now = self._limits.preview_seconds, self._clock()
        if every is None or now - work.last_preview < every or work.ticket.wants_cancel:
            return
        work.last_preview = now
        work.previews += 1
        image = Image.fromarray(self._backend.preview(state))
        image.thumbnail((self._limits.preview_size, self._limits.preview_size))
        work.ticket.advance(preview=np.asarray(image), previews=work.previews)

    def _end(self, work: _Work, error: ImagineError) -> None:
        self._forget(work)
        work.ticket.fail(error)

    def _forget(self, work: _Work) -> None:
        with self._changed:
            for places in (self._waiting, self._active):
                if work in places:
                    places.remove(work)
        work.state = None  # nothing of a person outlives the request


def person_key(crops: ImageArray) -> str:
    """Names a person by the content of the crops."""
    return hashlib.sha256(np.ascontiguousarray(crops).tobytes()).hexdigest()


def _not_finite(request: Request, step: int) -> GenerationFailed:
    return GenerationFailed(
        f"The picture turned into NaN at step {step} of {request.num_inference_steps} "
        f"({_facts(request)}). Try another seed or less guidance."
    )


def _as_our_error(error: BaseException, request: Request) -> ImagineError:
    if isinstance(error, ImagineError):
        return error
    if is_out_of_memory(error):
        ours: ImagineError = OutOfMemory(
            f"The device has no memory for this picture ({_facts(request)}). "
            "Close other programs, choose smaller pictures or another device."
        )
    else:
        ours = GenerationFailed(
            f"The model failed on this picture with {type(error).__name__} ({_facts(request)})."
        )
    ours.__cause__ = error
    return ours


def _facts(request: Request) -> str:
    """The recipe without prompt and person, for messages and logs."""
    return (
        f"seed {request.seed}, {request.num_inference_steps} steps, "
        f"guidance {request.guidance_scale:g}, likeness {request.likeness:g}"
    )


def _nbytes(person: object) -> int:
    return int(getattr(person, "nbytes", 0))


def _smoothed(old: float, new: float) -> float:
    return new if old == 0.0 else (1 - SMOOTHING) * old + SMOOTHING * new
