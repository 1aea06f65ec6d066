from __future__ import annotations

import pytest

pytest.importorskip("gradio", reason="needs the extra ui: pip install -e '.[ui]'")

from imagine.core import Recipe
from imagine.errors import InvalidInput
from imagine.ui.imagining import EXAMPLES, STYLES, fill_form, read_form
from imagine.ui.words import Words, table

EN = Words("en")


def recipe(prompt: str) -> Recipe:
    return Recipe(prompt, 7, 12, 2.0, 0.7, "embedded", "abc", "f" * 64, "0.1.0")


@pytest.mark.parametrize("style", STYLES)
def test_a_recipe_fills_the_form_it_came_from(style: str) -> None:
    wish = read_form(EN, " in a forest. ", style, 2, 70, "", None, "7", 1)
    prompt, again, likeness, steps, guidance, seed, best_of = fill_form(recipe(wish.prompt))
    assert (prompt, again) == ("in a forest" if style != "plain" else "in a forest.", style)
    assert (likeness, steps, guidance, seed, best_of) == (70, "12", "2", "7", 1)


def test_what_is_left_empty_is_left_to_the_model() -> None:
    wish = read_form(EN, "in a forest", "plain", 1, 50, "", " ", None, None)
    assert (wish.seed, wish.num_inference_steps, wish.guidance_scale) == (None, None, None)
    assert wish.likeness == 0.5 and wish.best_of == 1


def test_a_seed_of_zero_is_a_seed() -> None:
    assert read_form(EN, "x", "plain", 1, 0, "", "", "0", 1).seed == 0


@pytest.mark.parametrize("typed", ["seven", "1e3", "nan?", "0x10"])
def test_a_seed_that_is_no_number_is_named(typed: str) -> None:
    with pytest.raises(InvalidInput, match=r"Seed: .* is not a number"):
        read_form(EN, "x", "plain", 1, 50, "", "", typed, 1)


def test_a_large_seed_keeps_every_digit() -> None:
    seed = 2**63 - 1
    assert read_form(EN, "x", "plain", 1, 50, "", "2,5", str(seed), 1).seed == seed


def test_a_wish_without_words_is_refused_kindly() -> None:
    with pytest.raises(InvalidInput, match="Write a wish first"):
        read_form(EN, "  ", "plain", 1, 50, None, None, None, 1)


def test_the_styles_are_words_the_embedded_model_was_taught() -> None:
    captions = pytest.importorskip("training.people.captions")
    taught = {word for words in captions.STYLE_SUFFIXES.values() for word in words}
    assert {suffix for suffix in STYLES.values() if suffix} <= taught
    assert {f"style.{style}" for style in STYLES} <= set(table())


def test_the_examples_pass_the_policy() -> None:
    from imagine.safety import allow_prompt
    from imagine.settings import Settings

    for example in EXAMPLES:
        assert allow_prompt(example, Settings()) == example
