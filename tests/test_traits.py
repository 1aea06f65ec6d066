from __future__ import annotations

import pytest

from imagine.errors import InvalidInput
from imagine.traits import (
    TRAITS,
    check_traits,
    parse_traits,
    read_traits,
    with_traits,
    without_words,
    write_traits,
)


def test_a_trait_there_is_not_is_refused_with_those_there_are() -> None:
    with pytest.raises(InvalidInput, match=r"'nose'.*glasses, hair_colour, age, expression"):
        check_traits(["nose"], None)


def test_a_value_there_is_not_is_refused_with_those_there_are() -> None:
    with pytest.raises(InvalidInput, match=r"'pink'.*none, round, square, sunglasses"):
        check_traits((), {"glasses": "pink"})


def test_a_trait_cannot_be_kept_and_changed() -> None:
    with pytest.raises(InvalidInput, match="Ask for one"):
        check_traits(["age"], {"age": "old"})


def test_one_word_for_a_list_is_refused() -> None:
    with pytest.raises(InvalidInput, match="expected"):
        check_traits("age", None)


@pytest.mark.parametrize("said", ["glasses", "=none", "glasses=", "glasses=monocle"])
def test_what_is_no_trait_and_value_is_refused(said: str) -> None:
    with pytest.raises(InvalidInput):
        read_traits([said])


def test_the_same_trait_twice_is_refused() -> None:
    with pytest.raises(InvalidInput, match="twice"):
        read_traits(["age=old", "age=young"])


@pytest.mark.parametrize("trait", TRAITS)
def test_every_value_survives_a_recipe(trait: str) -> None:
    for value in TRAITS[trait]:
        assert parse_traits(write_traits({trait: value})) == {trait: value}
    assert parse_traits("") == {}


def test_a_recipe_names_traits_in_one_order() -> None:
    assert write_traits({"age": "old", "glasses": "none"}) == "glasses=none; age=old"


@pytest.mark.parametrize(
    ("trait", "said", "left"),
    [
        ("glasses", "smiling, wearing round glasses and a red top", "smiling, wearing a red top"),
        ("glasses", "a red top and round glasses, in a forest", "a red top, in a forest"),
        ("glasses", "in a hat, sunglasses and a blue suit", "in a hat and a blue suit"),
        ("glasses", "me without glasses in the park", "me in the park"),
        ("glasses", "in dark sunglasses, city", "city"),
        ("glasses", "glasses of wine on a table", "glasses of wine on a table"),
        ("hair_colour", "my new look: bright blue hair and a green top",
         "my new look: hair and a green top"),
        ("hair_colour", "with long blonde hair", "with long hair"),
        ("hair_colour", "a park, with pink hair", "a park"),
        ("hair_colour", "with pink hair and a hat", "with a hat"),
        ("hair_colour", "surprised, hair dyed pink, in a studio", "surprised, in a studio"),
        ("hair_colour", "a redhead in a blue top", "a person in a blue top"),
        ("age", "an old man on an old square", "a man on an old square"),
        ("age", "an old sepia portrait of a young woman", "an old sepia portrait of a woman"),
        ("age", "at 70 years old in a park", "in a park"),
        ("expression", "laughing out loud in the woods", "in the woods"),
        ("expression", "with a wide open smile, in a forest", "in a forest"),
        ("expression", "on the waterfront, totally astonished", "on the waterfront"),
        ("expression", "a happy man in a forest", "a man in a forest"),
        ("expression", "smiling softly and wearing a red top", "wearing a red top"),
    ],
)  # fmt: skip
def test_a_prompt_loses_what_it_says_of_a_trait_and_nothing_else(
    trait: str, said: str, left: str
) -> None:
    assert without_words(said, trait) == left


def test_a_switch_beats_the_prompt() -> None:
    asked = {"hair_colour": "blue", "glasses": "none"}
    assert with_traits("in a park with pink hair and round glasses", asked) == (
        "in a park, with blue hair, without glasses"
    )


def test_no_switch_leaves_the_prompt_as_typed() -> None:
    assert with_traits("  Odd ,, prompt ", {}) == "  Odd ,, prompt "


def test_an_empty_rest_is_no_comma() -> None:
    assert with_traits("smiling", {"expression": "sad"}) == "looking sad"
