from __future__ import annotations

from hypothesis import given
from hypothesis import strategies as st

from imagine.engine.batcher import Entry, Priority, choose_rows, welcome


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
