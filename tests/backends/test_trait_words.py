from __future__ import annotations

import pytest

from imagine.backends.trait_words import caption, contrary, with_named_expression
from imagine.traits import TRAITS


@pytest.mark.parametrize("trait", TRAITS)
def test_every_value_has_a_caption_of_its_own(trait: str) -> None:
    captions = [caption("in a park", {trait: value}) for value in TRAITS[trait]]
    assert len(set(captions)) == len(captions)


def test_without_glasses_is_said_by_silence_because_captions_never_deny() -> None:
    said = caption("in a park, wearing round glasses", {"glasses": "none"})
    assert said == contrary("in a park, wearing round glasses", {"glasses": "none"}) == "in a park"


def test_the_contrary_says_nothing_of_what_is_wished_for() -> None:
    traits = {"hair_colour": "pink", "expression": "angry"}
    assert caption("smiling in a park", traits) == "in a park, with pink hair, looking angry"
    assert contrary("smiling in a park", traits) == "in a park"


def test_what_lies_next_to_another_value_is_pulled_away_from_it() -> None:
    assert contrary("in a park", {"expression": "soft smile"}) == "in a park, laughing"
    assert contrary("in a park", {"hair_colour": "white"}) == "in a park, with black hair"
    assert contrary("in a park", {"hair_colour": "pink"}) == "in a park"


def test_glasses_are_drawn_by_words_alone() -> None:
    for value in TRAITS["glasses"]:
        worn = {"glasses": value}
        assert caption("in a park", worn) == contrary("in a park", worn)


@pytest.mark.parametrize(
    "prompt", ["furious because nothing works", "looking angry", "scowling in the rain"]
)
def test_anger_in_a_prompt_is_drawn_like_its_switch(prompt: str) -> None:
    assert with_named_expression(prompt, {"age": "old"}) == {"age": "old", "expression": "angry"}


def test_a_switched_expression_counts_more_than_one_in_the_prompt() -> None:
    assert with_named_expression("furious", {"expression": "sad"}) == {"expression": "sad"}


@pytest.mark.parametrize(
    "prompt", ["me, smiling", "about to cross the street", "in the glaring sun", "feeling sad"]
)
def test_other_words_are_left_to_the_prompt(prompt: str) -> None:
    assert with_named_expression(prompt, {}) == {}
