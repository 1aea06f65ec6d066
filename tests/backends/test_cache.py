from __future__ import annotations

from hypothesis import given
from hypothesis import strategies as st

from imagine.backends.cache import ByteLRU


def cache(max_bytes: int = 10) -> ByteLRU[str, bytes]:
    return ByteLRU(max_bytes, len)


def test_a_value_is_made_once() -> None:
    kept, made = cache(), []
    for _ in range(3):
        assert kept.get_or_make("a", lambda: made.append(1) or b"xyz") == b"xyz"  # type: ignore[func-returns-value]
    assert len(made) == 1
    assert (kept.hits, kept.misses) == (2, 1)


def test_what_was_used_longest_ago_goes_first() -> None:
    kept = cache(4)
    for key in ("a", "b", "a", "c"):
        kept.get_or_make(key, lambda: b"xx")
    kept.get_or_make("a", lambda: b"new")
    assert kept.hits == 2  # "a" twice; "b" made room for "c"


def test_a_value_that_is_too_large_is_given_but_not_kept() -> None:
    kept = cache(2)
    assert kept.get_or_make("a", lambda: b"long") == b"long"
    assert len(kept) == 0


def test_forgetting_leaves_nothing() -> None:
    kept = cache()
    kept.get_or_make("a", lambda: b"xx")
    assert kept.forget("a") and not kept.forget("a")
    assert kept.bytes == 0


@given(st.lists(st.tuples(st.sampled_from("abcdef"), st.integers(0, 8)), max_size=40))
def test_the_bytes_held_are_those_of_the_values_and_never_too_many(
    uses: list[tuple[str, int]],
) -> None:
    kept = cache()
    for key, size in uses:
        kept.get_or_make(key, lambda size=size: b"x" * size)  # type: ignore[misc]
        assert kept.bytes <= 10
    for key in "abcdef":
        kept.forget(key)
    assert kept.bytes == 0
