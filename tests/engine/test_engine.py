from __future__ import annotations

import asyncio
import gc
import threading
import time
import weakref
from collections.abc import Iterator, Sequence
from dataclasses import replace

import numpy as np
import pytest

from imagine.backends import BackendInfo, RowState
from imagine.backends.fake import FakeBackend, FakeState
from imagine.core import Request
from imagine.engine import Engine, Limits, Phase, Priority
from imagine.errors import (
    Busy,
    Cancelled,
    CorruptWeights,
    DeadlineExceeded,
    GenerationFailed,
    ImagineError,
    InvalidInput,
    OutOfMemory,
)
from tests.doubles import double_crops
from tests.engine.doubles import Count, CountingBackend, Gate, counting_wish, wish


class Clock:
    now = 0.0

    def __call__(self) -> float:
        return self.now


@pytest.fixture
def backend() -> CountingBackend:
    return CountingBackend()


@pytest.fixture
def gate(backend: CountingBackend) -> Gate:
    backend.before_step = Gate()
    return backend.before_step


@pytest.fixture
def engine(backend: CountingBackend) -> Iterator[Engine]:
    engine = Engine(backend)
    yield engine
    if isinstance(backend.before_step, Gate):
        backend.before_step.let(1000)
    engine.close()


def outcome(ticket: object) -> str:
    try:
        ticket.result(10)  # type: ignore[attr-defined]
    except ImagineError as error:
        return type(error).__name__
    return "picture"


def test_a_picture_comes_back_after_its_steps(engine: Engine) -> None:
    image = engine.submit(counting_wish(1, steps=5)).result(10)
    assert image[0, 0, 0] == 5


def test_a_request_joins_between_the_steps_of_another(
    engine: Engine, backend: CountingBackend, gate: Gate
) -> None:
    first = engine.submit(counting_wish(1, steps=4))
    gate.wait()
    second = engine.submit(counting_wish(2, steps=2))
    gate.let(10)
    assert (outcome(first), outcome(second)) == ("picture", "picture")
    assert backend.passes == [[1], [1, 2], [1, 2], [1]]


def test_requests_of_different_batch_keys_take_turns(
    engine: Engine, backend: CountingBackend, gate: Gate
) -> None:
    first = engine.submit(counting_wish(1, steps=1, key="a"))
    gate.wait()
    others = [engine.submit(counting_wish(n, steps=1, key="bab"[n - 2])) for n in (2, 3, 4)]
    gate.let(10)
    assert [outcome(t) for t in (first, *others)] == ["picture"] * 4
    assert backend.passes == [[1], [2, 4], [3]]


def test_cancelling_stops_within_one_step_and_spares_the_others(
    engine: Engine, backend: CountingBackend, gate: Gate
) -> None:
    mine, yours = engine.submit_all([counting_wish(1, steps=9), counting_wish(2, steps=3)])
    gate.wait()
    mine.cancel()
    gate.let(10)
    assert (outcome(mine), outcome(yours)) == ("Cancelled", "picture")
    assert mine.status.phase is Phase.CANCELED
    assert sum(1 in seeds for seeds in backend.passes) == 1


def test_a_waiting_request_can_be_cancelled_too(backend: CountingBackend) -> None:
    backend.before_step = gate = Gate()
    with Engine(backend, Limits(max_active=1)) as engine:
        running = engine.submit(counting_wish(1))
        gate.wait()
        waiting = engine.submit(counting_wish(2))
        waiting.cancel()
        gate.let(10)
        assert (outcome(running), outcome(waiting)) == ("picture", "Cancelled")
    assert all(2 not in seeds for seeds in backend.passes)


def test_a_missed_deadline_is_told_and_hurts_nobody(backend: CountingBackend) -> None:
    clock, backend.before_step = Clock(), Gate()
    with Engine(backend, clock=clock) as engine:
        late = engine.submit(counting_wish(1, steps=3), timeout_seconds=5.0)
        calm = engine.submit(counting_wish(2, steps=3))
        backend.before_step.wait()
        clock.now = 6.0
        backend.before_step.let(10)
        with pytest.raises(DeadlineExceeded, match=r"6\.0 seconds"):
            late.result(10)
        assert outcome(calm) == "picture"


def test_nan_fails_its_own_row_and_names_the_recipe(
    engine: Engine, backend: CountingBackend
) -> None:
    poisoned = counting_wish(13, steps=3)
    plain = backend.denoise_step

    def step(states: Sequence[Count]) -> list[object]:
        moved = plain(states)
        return [replace(s, value=np.nan) if s.seed == 13 else s for s in moved]  # type: ignore[type-var]

    backend.denoise_step = step  # type: ignore[method-assign, assignment]
    bad, good = engine.submit_all([poisoned, counting_wish(2, steps=3)])
    with pytest.raises(GenerationFailed, match="NaN at step 1 of 3 \\(seed 13"):
        bad.result(10)
    assert outcome(good) == "picture"
    (incident,) = engine.stats.incidents
    assert incident.kind == "not finite"
    assert incident.recipes == ("seed 13, 3 steps, guidance 1, likeness 0.7",)


def test_a_row_that_breaks_the_pass_fails_alone(engine: Engine, backend: CountingBackend) -> None:
    def refuse(states: Sequence[Count]) -> None:
        if any(state.seed == 13 for state in states):
            raise RuntimeError("shapes do not match")

    backend.before_step = refuse
    tickets = engine.submit_all([counting_wish(n) for n in (1, 13, 2)])
    assert [outcome(t) for t in tickets] == ["picture", "GenerationFailed", "picture"]


def test_an_error_while_preparing_fails_that_request_alone(
    engine: Engine, backend: CountingBackend
) -> None:
    def refuse(request: object) -> None:
        if getattr(request, "seed", 0) == 13:
            raise CorruptWeights("half a file")

    backend.before_prepare = refuse  # type: ignore[assignment]
    tickets = engine.submit_all([counting_wish(n) for n in (1, 13, 2)])
    assert [outcome(t) for t in tickets] == ["picture", "CorruptWeights", "picture"]


def test_a_backend_that_breaks_its_contract_leaves_nobody_waiting(
    engine: Engine, backend: CountingBackend
) -> None:
    backend.forward_rows = lambda state: None  # type: ignore[method-assign, assignment, return-value]
    tickets = engine.submit_all([counting_wish(n) for n in (1, 2)])
    assert [outcome(t) for t in tickets] == ["GenerationFailed"] * 2


def test_even_an_interrupt_inside_the_thread_leaves_nobody_waiting(
    engine: Engine, backend: CountingBackend
) -> None:
    def interrupt(states: Sequence[Count]) -> None:
        raise KeyboardInterrupt

    backend.before_step = interrupt
    assert outcome(engine.submit(counting_wish(1))) == "GenerationFailed"


def test_without_memory_the_pass_is_split_once_and_the_event_recorded(
    engine: Engine, backend: CountingBackend
) -> None:
    def no_room(states: Sequence[Count]) -> None:
        if len(states) > 2:
            raise MemoryError

    backend.before_step = no_room
    tickets = engine.submit_all([counting_wish(n, steps=2) for n in range(4)])
    assert [outcome(t) for t in tickets] == ["picture"] * 4
    assert engine.stats.out_of_memory_events == 1
    (incident,) = engine.stats.incidents
    assert incident.kind == "out of memory" and len(incident.recipes) == 4
    assert [len(seeds) for seeds in backend.passes] == [4, 2, 2, 2, 2]


def test_a_picture_that_never_fits_is_refused_in_words(
    engine: Engine, backend: CountingBackend
) -> None:
    def no_room(states: Sequence[Count]) -> None:
        raise RuntimeError("DefaultCPUAllocator: can't allocate memory: you tried 9 bytes")

    backend.before_step = no_room
    with pytest.raises(OutOfMemory, match="smaller pictures"):
        engine.submit(counting_wish(1)).result(10)


def test_too_much_work_is_refused_with_a_time_to_come_back(backend: CountingBackend) -> None:
    backend.before_step = gate = Gate()
    with Engine(backend, Limits(max_active=1, max_waiting=2)) as engine:
        tickets = engine.submit_all([counting_wish(n) for n in range(3)])
        with pytest.raises(Busy) as refused:
            engine.submit(counting_wish(9))
        assert refused.value.retry_after_seconds >= 1
        gate.let(100)
        assert [outcome(t) for t in tickets] == ["picture"] * 3
        assert outcome(engine.submit(counting_wish(9))) == "picture"


def test_a_full_house_of_batch_work_leaves_room_for_somebody_who_waits(
    backend: CountingBackend,
) -> None:
    backend.before_step = gate = Gate()
    with Engine(backend, Limits(max_active=4)) as engine:
        work = [counting_wish(n, steps=5) for n in range(8)]
        background = engine.submit_all(work, priority=Priority.BATCH)
        gate.wait()
        urgent = engine.submit(counting_wish(99, steps=1))
        gate.let(100)
        assert outcome(urgent) == "picture"
        assert [outcome(t) for t in background] == ["picture"] * 8
    first = next(i for i, seeds in enumerate(backend.passes) if 99 in seeds)
    assert first == 1


@pytest.mark.parametrize(
    ("change", "named"),
    [
        ({"num_inference_steps": 0}, "num_inference_steps is 0"),
        ({"num_inference_steps": 10**9}, "1 to 200"),
        ({"guidance_scale": float("nan")}, "guidance_scale is nan"),
        ({"guidance_scale": 1e6}, "1 to 30"),
        ({"likeness": 2.0}, "likeness is 2"),
        ({"seed": -1}, "seed is -1"),
    ],
)
def test_absurd_figures_are_refused_by_name_and_limit(
    engine: Engine, change: dict[str, float], named: str
) -> None:
    with pytest.raises(InvalidInput, match=named):
        engine.submit(replace(wish(), **change))  # type: ignore[arg-type]


def test_previews_come_at_a_bounded_rate_and_small(backend: CountingBackend) -> None:
    clock, backend.before_step = Clock(), Gate()
    limits = Limits(preview_seconds=10.0, preview_size=32)
    with Engine(backend, limits, clock=clock) as engine:
        ticket = engine.submit(counting_wish(1, steps=6))
        for _ in range(6):
            backend.before_step.wait()
            clock.now += 4.0
            backend.before_step.let()
        ticket.result(10)
    assert ticket.status.previews == 2


def test_a_preview_is_small(backend: CountingBackend) -> None:
    with Engine(backend, Limits(preview_seconds=0.0, preview_size=32)) as engine:
        ticket = engine.submit(counting_wish(1, steps=40))
        shapes = {s.preview.shape for s in ticket.events() if s.preview is not None}
    assert shapes <= {(32, 32, 3)}


def test_every_step_is_told_in_order_and_the_last_state_is_final(engine: Engine) -> None:
    states = list(engine.submit(counting_wish(1, steps=4)).events(poll_seconds=5.0))
    steps = [state.step for state in states if state.phase is Phase.RUNNING]
    assert sorted(set(steps)) == [0, 1, 2, 3, 4]
    assert states[-1].phase is Phase.SUCCEEDED


def test_asyncio_can_wait_watch_and_cancel(engine: Engine, gate: Gate) -> None:
    async def story() -> None:
        ticket = engine.submit(counting_wish(1, steps=3))
        gate.let(3)
        assert (await ticket.aresult())[0, 0, 0] == 3
        slow = engine.submit(counting_wish(2, steps=100))
        waiting = asyncio.create_task(slow.aresult())
        await asyncio.sleep(0.05)
        waiting.cancel()
        with pytest.raises(asyncio.CancelledError):
            await waiting
        gate.let(2)
        with pytest.raises(Cancelled):
            await asyncio.to_thread(slow.result, 10)

    asyncio.run(story())


def test_many_threads_each_get_their_own_picture() -> None:
    with Engine(FakeBackend()) as engine:
        pictures: dict[int, np.ndarray] = {}

        def ask(seed: int) -> None:
            pictures[seed] = engine.submit(wish(seed, person=seed)).result(30)

        threads = [threading.Thread(target=ask, args=(seed,)) for seed in range(12)]
        for thread in threads:
            thread.start()
        for thread in threads:
            thread.join()
        for seed, picture in pictures.items():
            alone = engine.submit(wish(seed, person=seed)).result(30)
            assert np.array_equal(picture, alone)
    assert len(pictures) == 12


def test_nothing_of_a_person_outlives_the_request() -> None:
    engine = Engine(FakeBackend())
    request = wish()
    crops = weakref.ref(request.crops)
    ticket = engine.submit(request)
    ticket.result(10)
    del request
    gc.collect()
    assert crops() is None
    engine.close()


def test_a_person_is_encoded_once_when_asked_to_and_forgotten_on_request() -> None:
    encoded: list[int] = []

    class Encoding(FakeBackend):
        def encode_person(self, crops: object) -> object:
            encoded.append(1)
            return np.zeros(8)

        def prepare(self, request: Request, person: object | None = None) -> FakeState:
            assert isinstance(person, np.ndarray)
            return super().prepare(request)

    with Engine(Encoding(), people_bytes=1000) as engine:
        request = wish()
        for _ in range(3):
            engine.submit(request).result(10)
        assert len(encoded) == 1
        assert request.crops is not None
        assert engine.forget_person(request.crops)
        engine.submit(request).result(10)
        assert len(encoded) == 2


def test_two_people_of_one_picture_are_each_encoded_once_and_forgotten_one_by_one() -> None:
    encoded: list[object] = []
    ready: list[tuple[object, object]] = []

    class Encoding(FakeBackend):
        def encode_person(self, crops: object) -> object:
            encoded.append(crops)
            return np.full(8, len(encoded))

        def prepare(  # type: ignore[override]
            self, request: Request, person: object = None, beside: object = None
        ) -> FakeState:
            ready.append((person, beside))
            return super().prepare(request)

    with Engine(Encoding(), people_bytes=1000) as engine:
        together = replace(wish(person=1), beside=double_crops(2))
        engine.submit(together).result(10)
        engine.submit(wish(person=2)).result(10)
        assert len(encoded) == 2 and ready[1][0] is ready[0][1] is not ready[0][0]
        assert engine.forget_person(double_crops(2))
        engine.submit(together).result(10)
        assert len(encoded) == 3


def test_a_backend_that_draws_one_person_fails_a_request_for_two_by_name() -> None:
    class Lonely(FakeBackend):
        @property
        def info(self) -> BackendInfo:
            return replace(super().info, name="lonely", draws_two=False)

    with Engine(Lonely()) as engine:
        ticket = engine.submit(replace(wish(), beside=double_crops(2)))
        with pytest.raises(InvalidInput, match="'lonely' draws one person"):
            ticket.result(10)


def test_pictures_of_different_shapes_never_share_a_pass() -> None:
    class Watched(FakeBackend):
        passes: list[set[tuple[int, ...]]]

        def denoise_step(self, states: Sequence[RowState]) -> list[RowState]:
            shapes = {state.latents.shape for state in states if isinstance(state, FakeState)}
            self.passes.append(shapes)
            gate(())
            return super().denoise_step(states)

    backend, gate = Watched(), Gate()
    backend.passes = []
    ratios = ["1:1", "3:4", "16:9"] * 3
    with Engine(backend) as engine:
        first = engine.submit(wish(99))
        gate.wait()  # the others come while a pass is on
        tickets = [
            engine.submit(replace(wish(seed), aspect_ratio=ratio))
            for seed, ratio in enumerate(ratios)
        ]
        gate.let(1000)
        sizes = [ticket.result(30).shape[:2] for ticket in tickets]
        assert first.result(30).shape[:2] == (128, 128)
    assert sizes == [backend.info.sizes[ratio] for ratio in ratios]
    assert all(len(shapes) == 1 for shapes in backend.passes)
    assert len(backend.passes) < 3 * len(ratios)  # those of one shape did share theirs


def test_a_shape_that_is_not_offered_is_refused_before_it_waits(engine: Engine) -> None:
    with pytest.raises(InvalidInput, match=r"'21:9'.*Choose one of: 1:1 \(128x128\), 3:4"):
        engine.submit(replace(counting_wish(1), aspect_ratio="21:9"))
    assert engine.stats.waiting == 0


def test_a_closed_engine_cancels_what_it_had_and_takes_nothing_more(
    backend: CountingBackend,
) -> None:
    backend.before_step = gate = Gate()
    engine = Engine(backend)
    tickets = engine.submit_all([counting_wish(n, steps=50) for n in range(3)])
    gate.wait()
    threading.Timer(0.05, gate.let, [1]).start()
    engine.close()
    assert [outcome(t) for t in tickets] == ["Cancelled"] * 3
    with pytest.raises(InvalidInput, match="closed"):
        engine.submit(counting_wish(1))


def test_the_thread_ends_when_idle_and_comes_back(
    backend: CountingBackend, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("imagine.engine.engine.IDLE_SECONDS", 0.01)
    engine = Engine(backend)
    assert outcome(engine.submit(counting_wish(1))) == "picture"
    until = time.monotonic() + 10
    while any(t.name == "imagine-engine" for t in threading.enumerate()):
        assert time.monotonic() < until
        time.sleep(0.01)
    assert outcome(engine.submit(counting_wish(2))) == "picture"


def test_limits_from_a_memory_budget_leave_room_for_both_kinds() -> None:
    limits = Limits.for_memory(1000, bytes_per_forward_row=100, bytes_per_picture=50)
    assert (limits.max_forward_rows, limits.max_active) == (5, 10)
    with pytest.raises(InvalidInput, match="smaller pictures"):
        Limits.for_memory(1000, bytes_per_forward_row=600, bytes_per_picture=1)
