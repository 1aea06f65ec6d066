"""The threat table of SECURITY.md is true: each row names tests, and the tests are there."""

from __future__ import annotations

import re
from pathlib import Path

import pytest

HOME = Path(__file__).resolve().parent.parent
TEXT = (HOME / "SECURITY.md").read_text(encoding="utf-8")
ROW = re.compile(r"^\| (\d+) \|(.*)\|$", re.MULTILINE)
NAMED = re.compile(r"`(tests/[\w/]+\.py)::(test_\w+)`")
ROWS = {int(number): cells for number, cells in ROW.findall(TEXT)}
# What runs code from a file that is opened, unless told not to.
OPENS_CODE = re.compile(
    r"\b(pickle\.loads?|joblib|shelve|marshal|allow_pickle=True|torch\.load\((?!.*weights_only=True))"
)


def test_the_table_has_all_26_threats() -> None:
    assert sorted(ROWS) == list(range(1, 27))


@pytest.mark.parametrize("number", sorted(ROWS))
def test_each_threat_is_answered_by_tests_that_exist(number: int) -> None:
    named = NAMED.findall(ROWS[number])
    assert named, "this row names no test"
    for path, name in named:
        source = (HOME / path).read_text(encoding="utf-8")
        assert f"def {name}(" in source, f"{path}::{name}"


def test_what_is_not_defended_is_said() -> None:
    undefended = TEXT.partition("## Not defended")[2]
    assert undefended.count("\n- **") >= 5


@pytest.mark.parametrize("room", ["imagine", "training"])
def test_nothing_in_the_product_opens_a_pickle(room: str) -> None:
    found = [
        f"{path.name}: {line.strip()}"
        for path in (HOME / room).rglob("*.py")
        for line in path.read_text(encoding="utf-8").splitlines()
        if OPENS_CODE.search(line)
    ]
    assert found == []
