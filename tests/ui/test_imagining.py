from __future__ import annotations

from dataclasses import replace
from pathlib import Path

import pytest

pytest.importorskip("gradio", reason="needs the extra ui: pip install -e '.[ui]'")

from imagine.core import LikenessVerdict, PairVerdict, Recipe
from imagine.errors import InvalidInput
from imagine.traits import TRAITS
from imagine.ui.imagining import (
    EXAMPLES,
    KEEP,
    Form,
    ending,
    fill_form,
    more_like_me,
    picture_html,
    read_form,
    shape_choices,
    trait_choices,
    variations,
)
from imagine.ui.studio import Moment, OpenWish, PictureCard, Stage
from imagine.ui.styles import STYLES, TAUGHT
from imagine.ui.words import LANGUAGES, Words, table

EN = Words("en")
LOOK = Path(__file__).parent.parent.parent / "imagine" / "ui" / "look"


def card(wish: OpenWish, seed: int = 7, likeness: float = 0.7) -> PictureCard:
    recipe = Recipe(wish.prompt, seed, 12, 2.0, likeness, "embedded", "abc", "f" * 64, "0.1.0")
    verdict = LikenessVerdict(True, 0.5, 0.9, None, "This looks like you.")
    return PictureCard("id", recipe, verdict, "The only one.", False, 128, 128, wish)


@pytest.mark.parametrize("style", STYLES)
def test_a_recipe_fills_the_form_it_came_from(style: str) -> None:
    wish = read_form(EN, Form(" in a forest. ", style, 2, 70, "", None, "7", 1))
    filled = fill_form(card(wish))
    assert filled["prompt"] == ("in a forest" if style != "plain" else "in a forest.")
    assert filled["style"] == style
    figures = [filled[name] for name in ("likeness", "steps", "guidance", "seed", "best_of")]
    assert figures == [70, "12", "2", "7", 1]


def test_a_shape_travels_with_the_wish_and_comes_back() -> None:
    wish = read_form(EN, Form("in a forest", shape="3:4"))
    assert wish.aspect_ratio == "3:4" and read_form(EN, Form("x", shape="")).aspect_ratio == "1:1"
    made = card(wish)
    made = replace(made, recipe=replace(made.recipe, aspect_ratio="3:4"))
    assert fill_form(made)["shape"] == "3:4" and more_like_me(made).aspect_ratio == "3:4"
    assert "Portrait 3:4" in picture_html(made, EN)
    assert "Square" not in picture_html(card(OpenWish("in a forest")), EN)


@pytest.mark.parametrize("language", LANGUAGES)
def test_every_shape_has_a_name(language: str) -> None:
    shapes = ("1:1", "3:4", "4:3", "9:16", "16:9")
    assert len({name for name, _ in shape_choices(Words(language), shapes)}) == len(shapes)


def test_traits_are_kept_changed_or_left_alone() -> None:
    first, second, *_ = TRAITS
    value = TRAITS[second][0]
    chosen = (KEEP, value, *[""] * (len(TRAITS) - 2))
    wish = read_form(EN, Form("in a forest", left="a", right="b", traits=chosen))
    assert (wish.keep, dict(wish.change)) == ((first,), {second: value})
    assert (wish.person, wish.beside) == ("a", "b")
    filled = fill_form(card(wish))
    assert [filled[f"trait_{trait}"] for trait in TRAITS] == list(chosen)
    assert (filled["left"], filled["right"]) == ("a", "b")


@pytest.mark.parametrize("language", LANGUAGES)
def test_every_value_of_every_trait_has_a_name(language: str) -> None:
    for trait in TRAITS:
        names = [name for name, _ in trait_choices(trait, Words(language))]
        assert len(set(names)) == len(TRAITS[trait]) + 2
        keys = {f"trait.{trait}.{v.replace(' ', '_').replace('-', '_')}" for v in TRAITS[trait]}
        assert keys | {f"trait.{trait}"} <= set(table())


def test_other_pictures_like_one_keep_everything_else() -> None:
    wish = OpenWish("in a forest", count=4, best_of=3, change={"glasses": "none"}, person="a")
    more = more_like_me(card(wish, seed=9))
    assert (more.likeness, more.seed, more.count, more.best_of) == (0.85, 9, 1, 1)
    assert more_like_me(card(wish, likeness=0.95)).likeness == 1.0
    others = variations(card(wish, seed=9), 3)
    assert (others.seed, others.count, others.change) == (None, 3, {"glasses": "none"})
    assert others.person == "a" and others.num_inference_steps == 12
    unknown = replace(card(wish), wish=None)
    assert variations(unknown, 1).prompt == "in a forest"


def test_what_a_person_typed_cannot_become_markup() -> None:
    html = picture_html(card(OpenWish('<script>alert(1)</script> "><b>')), EN)
    assert "<script>" not in html and "<b>" not in html


def test_each_of_two_people_is_judged_where_they_stand() -> None:
    one = card(OpenWish("in a forest"))
    stranger = LikenessVerdict(True, 0.9, 0.1, None, "This does not look like you.")
    html = picture_html(replace(one, pair=PairVerdict(one.verdict, stranger, 0.2)), EN)
    assert "On the left: This looks like you." in html
    assert "On the right: This does not look like you." in html
    assert "mixed" not in html
    html = picture_html(replace(one, pair=PairVerdict(one.verdict, stranger, 0.7)), EN)
    assert "mixed" in html


def test_what_was_read_from_the_selfies_is_said_and_escaped() -> None:
    read = replace(card(OpenWish("in a forest")), notes=("Hair: <brown>.",))
    assert "Hair: &lt;brown&gt;." in picture_html(read, EN)


def test_the_end_says_what_is_missing_and_why() -> None:
    moment = Moment(Stage.DONE, 4, skipped=1, withheld=2)
    said = ending(moment, EN)
    assert "Skipped: 1" in said and "check did not let it pass: 2" in said
    assert ending(Moment(Stage.DONE, 4), EN) == ""


def test_what_is_left_empty_is_left_to_the_model() -> None:
    wish = read_form(EN, Form("in a forest", "plain", 1, 50, "", " ", None, None))
    assert (wish.seed, wish.num_inference_steps, wish.guidance_scale) == (None, None, None)
    assert wish.likeness == 0.5 and wish.best_of == 1


def test_a_seed_of_zero_is_a_seed() -> None:
    assert read_form(EN, Form("x", "plain", 1, 0, "", "", "0", 1)).seed == 0


@pytest.mark.parametrize("typed", ["seven", "1e3", "nan?", "0x10"])
def test_a_seed_that_is_no_number_is_named(typed: str) -> None:
    with pytest.raises(InvalidInput, match=r"Seed: .* is not a number"):
        read_form(EN, Form("x", seed=typed))


def test_a_large_seed_keeps_every_digit() -> None:
    seed = 2**63 - 1
    assert read_form(EN, Form("x", guidance="2,5", seed=str(seed))).seed == seed


def test_a_wish_without_words_is_refused_kindly() -> None:
    with pytest.raises(InvalidInput, match="Write a wish first"):
        read_form(EN, Form("  "))


def test_the_styles_are_words_the_embedded_model_was_taught() -> None:
    captions = pytest.importorskip("training.people.captions")
    taught = {word for words in captions.STYLE_SUFFIXES.values() for word in words}
    assert {suffix for suffix in TAUGHT.values() if suffix} <= taught
    assert {f"style.{style}" for style in STYLES} <= set(table())


def test_every_style_has_a_small_thumbnail() -> None:
    css = (LOOK / "page.css").read_text(encoding="utf-8")
    sizes = []
    for style in STYLES:
        sizes.append((LOOK / f"style-{style}.webp").stat().st_size)
        assert f"/look/style-{style}.webp" in css
    assert sum(sizes) <= 200_000


def test_the_examples_are_of_places_the_small_model_has_met() -> None:
    from training.people.scene import PLACES

    met = {place for names in PLACES.values() for place in names}
    for example in EXAMPLES:
        assert any(place in example for place in met), example


def test_the_examples_pass_the_policy() -> None:
    from imagine.safety import allow_prompt
    from imagine.settings import Settings

    for example in (*EXAMPLES, EN("wish.placeholder")):
        assert allow_prompt(example, Settings()) == example
