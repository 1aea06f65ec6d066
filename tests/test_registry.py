from __future__ import annotations

import sys
from decimal import Decimal

import pytest

from imagine.errors import UnknownName
from imagine.registry import Registry


@pytest.fixture
def numbers() -> Registry[object]:
    registry = Registry[object]("number")
    registry.add("decimal", "decimal:Decimal")
    registry.add("absent", "no_such_module:Thing")
    return registry


def test_a_chosen_name_gives_its_class(numbers: Registry[object]) -> None:
    assert numbers.get("decimal") is Decimal


def test_names_keep_their_order_and_import_nothing(numbers: Registry[object]) -> None:
    assert numbers.names() == ["decimal", "absent"]
    numbers.check("absent")
    assert "no_such_module" not in sys.modules


def test_an_unknown_name_lists_the_known_ones(numbers: Registry[object]) -> None:
    with pytest.raises(UnknownName, match=r"no number called 'pi'. Known: decimal, absent"):
        numbers.get("pi")


def test_one_name_cannot_mean_two_things(numbers: Registry[object]) -> None:
    numbers.add("decimal", "decimal:Decimal")
    with pytest.raises(ValueError, match="already"):
        numbers.add("decimal", "fractions:Fraction")
