from __future__ import annotations

from hypothesis import given
from hypothesis import strategies as st

from imagine.engine.batcher import (
    TRUSTED_PASSES,
    Entry,
    PassTimes,
    Priority,
    choose_rows,
    welcome,
)


def entry(
    number: int,
    tenant: str = "t",
    priority: Priority = Priority.NORMAL,
    submitted: float = 0.0,
    deadline: float | None = None,
    key: str = "a",
    rows: int = 1,
) -> Entry:
    return Entry(number, tenant, priority, submitted, deadline, (key,), rows)


def choose(entries: list[Entry], rows: int = 4, now: float = 0.0, **service: float) -> list[int]:
    return [entries[i].number for i in choose_rows(entries, service, now, rows, 30.0)]


def test_nothing_to_do_chooses_nobody() -> None:
    assert choose([]) == []


def test_interactive_work_goes_before_batch_work() -> None:
    entries = [entry(1, priority=Priority.BATCH), entry(2, priority=Priority.INTERACTIVE)]
    assert choose(entries, rows=1) == [2]


def test_batch_work_that_waited_long_enough_catches_up() -> None:
    old = entry(1, priority=Priority.BATCH, submitted=0.0)
    new = entry(2, priority=Priority.INTERACTIVE, submitted=61.0)
    assert choose([old, new], rows=1, now=59.0) == [2]
    assert choose([old, new], rows=1, now=61.0) == [1]


def test_the_pass_is_filled_with_rows_of_one_batch_key_only() -> None:
    entries = [entry(1, key="a"), entry(2, key="b"), entry(3, key="a")]
    assert choose(entries) == [1, 3]


def test_no_pass_takes_more_rows_than_allowed() -> None:
    entries = [entry(1, rows=3), entry(2, rows=3), entry(3, rows=1)]
    assert choose(entries, rows=4) == [1, 3]


def test_a_request_bigger_than_a_pass_still_runs_alone() -> None:
    assert choose([entry(1, rows=9), entry(2)], rows=4) == [1]


def test_tenants_share_a_pass_whoever_asks_for_more() -> None:
    entries = [entry(n, tenant="greedy") for n in range(10)] + [entry(10, tenant="modest")]
    assert choose(entries, rows=2) == [0, 10]


def test_a_tenant_who_was_served_more_waits() -> None:
    entries = [entry(1, tenant="served"), entry(2, tenant="waiting")]
    assert choose(entries, rows=1, served=10.0, waiting=3.0) == [2]


def test_the_nearer_deadline_goes_first_within_a_tenant() -> None:
    entries = [entry(1), entry(2, deadline=9.0), entry(3, deadline=5.0)]
    assert choose(entries, rows=3) == [3, 2, 1]


def test_among_equals_the_order_of_arrival_decides() -> None:
    assert choose([entry(2, submitted=1.0), entry(1)], rows=1) == [1]


def learned(per_row: dict[int, float], passes: int = TRUSTED_PASSES) -> PassTimes:
    times = PassTimes()
    for rows, seconds in per_row.items():
        for _ in range(passes):
            times.record(("a",), rows, rows * seconds)
    return times


def test_passes_grow_while_a_row_becomes_cheaper_and_no_further() -> None:
    times = learned({1: 1.0, 2: 0.8, 4: 0.7, 8: 0.69, 16: 0.69})
    assert times.useful_rows(("a",), 64) == 4


def test_on_a_device_that_is_never_full_passes_are_as_large_as_allowed() -> None:
    assert learned({1: 1.0, 2: 0.5, 4: 0.3, 8: 0.2}).useful_rows(("a",), 24) == 24


def test_a_size_nobody_saw_is_judged_by_the_next_larger_one() -> None:
    assert learned({2: 1.0, 16: 0.97}).useful_rows(("a",), 64) == 2
    assert learned({2: 1.0, 16: 0.5}).useful_rows(("a",), 64) == 64


def test_a_few_passes_or_another_batch_key_prove_nothing() -> None:
    times = learned({1: 1.0, 8: 5.0}, passes=TRUSTED_PASSES - 1)
    assert times.useful_rows(("a",), 64) == 64
    assert learned({1: 1.0, 8: 5.0}).useful_rows(("b",), 64) == 64


def test_old_figures_fade() -> None:
    times = learned({1: 1.0, 2: 1.5})
    assert times.useful_rows(("a",), 64) == 1
    for _ in range(6 * TRUSTED_PASSES):
        times.record(("a",), 2, 2 * 0.5)
    assert times.useful_rows(("a",), 64) == 64


def test_a_pass_takes_no_more_rows_than_are_useful_for_its_key() -> None:
    entries = [entry(1, key="a"), entry(2, key="b"), entry(3, key="a"), entry(4, key="a")]
    chosen = choose_rows(entries, {}, 0.0, 8, 30.0, lambda key: 2 if key == ("a",) else 8)
    assert [entries[n].number for n in chosen] == [1, 3]


def test_who_comes_back_does_not_bring_a_saved_up_claim() -> None:
    service = {"busy": 100.0, "away": 1.0}
    welcome(service, "away", ["busy"])
    assert service["away"] == 100.0


@given(
    st.lists(
        st.tuples(st.sampled_from("ab"), st.integers(1, 3), st.sampled_from(["x", "y"])),
        min_size=1,
        max_size=12,
    ),
    st.integers(1, 8),
)
def test_every_choice_is_one_key_within_the_rows_and_never_empty(
    work: list[tuple[str, int, str]], rows: int
) -> None:
    entries = [entry(n, tenant=t, rows=r, key=k) for n, (k, r, t) in enumerate(work)]
    chosen = [entries[n] for n in choose(entries, rows=rows)]
    assert chosen
    assert len({e.batch_key for e in chosen}) == 1
    assert len(chosen) == 1 or sum(e.forward_rows for e in chosen) <= rows
