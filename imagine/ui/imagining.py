"""The page "Imagine": a wish, its progress, and the pictures as they come."""

from __future__ import annotations

from html import escape
from typing import Any, TypeVar

import gradio as gr

from imagine.core import Recipe
from imagine.errors import ConsentMissing, InvalidInput
from imagine.ui.desk import Visitor, note
from imagine.ui.regions import button
from imagine.ui.studio import Moment, OpenWish, PictureCard, Stage
from imagine.ui.words import Words, grade

# Style -> words put behind the wish; the embedded model was taught these very words.
STYLES = {
    "plain": "",
    "black_and_white": "black and white",
    "warm_film": "warm film",
    "cool_film": "cool film",
    "high_contrast": "high contrast",
    "faded": "faded colours",
    "sepia": "sepia",
}
EXAMPLES = (
    "smiling in a forest at dawn",
    "laughing on a beach, wearing sunglasses",
    "looking calm in a library, wearing round glasses",
    "surprised, wearing a red hat, in a city at night",
    "close-up, with a soft smile, in the snow",
)
Number = TypeVar("Number", int, float)
MORE_LIKE_ME = 0.15  # added to the likeness by one press
_GRADES = {"looks": "good", "something": "some", "not": "poor", "copy": "some", "no_face": "poor"}


def examples_html(words: Words) -> str:
    """Wishes to begin with."""
    chips = "".join(
        f'<button type="button" class="chip" data-js="example" lang="en">{escape(example)}</button>'
        for example in EXAMPLES
    )
    said = escape(words("wish.examples"))
    return f'<p class="examples"><span class="muted">{said}</span> {chips}</p>'


def style_choices(words: Words) -> list[tuple[str, str]]:
    """Names for people, ids for us."""
    return [(words(f"style.{style}"), style) for style in STYLES]


def progress_template() -> str:
    """What the script fills in; it is never drawn anew, so nothing flickers or loses focus."""
    return """<div class="progress" hidden>
<div class="bar" role="progressbar" aria-valuemin="0" aria-valuemax="100"><span></span></div>
<p class="says"></p><img class="preview" hidden alt="" width="256" height="256"></div>"""


def progress_facts(moment: Moment | None, words: Words) -> dict[str, Any]:
    """What the script shows of a drawing."""
    if moment is None:
        return {"active": False}
    done = moment.step / moment.num_steps if moment.num_steps else 0.0
    return {
        "active": not moment.is_final,
        "percent": round(100 * done),
        "text": _says(moment, words),
        "label": words("draw.progress"),
        "preview": f"/private/previews/{moment.preview}" if moment.preview else "",
        "alt": words("draw.preview_alt"),
        "announce": _announcement(moment, words),
    }


def results_html(moment: Moment | None, words: Words) -> str:
    """The pictures of the newest wish."""
    if moment is None or not moment.pictures:
        return f'<p class="muted empty">{escape(words("draw.none"))}</p>'
    cards = "".join(picture_html(card, words) for card in moment.pictures)
    return f'<div class="pictures">{cards}</div>'


def picture_html(card: PictureCard, words: Words, chooser: str = "") -> str:
    """A picture, its verdict in words, its recipe, and what can be done with it."""
    recipe = card.recipe
    alt = escape(words("picture.alt", prompt=recipe.prompt))
    kind = _GRADES[grade(card.verdict)]
    pressed = str(card.is_starred).lower()
    seed = escape(words("picture.seed", seed=recipe.seed))
    star = words("picture.starred" if card.is_starred else "picture.star")
    return f"""<article class="picture">
<img src="/private/pictures/{card.id}" alt="{alt}" width="{card.width}" height="{card.height}">
<p class="verdict {kind}">{escape(words.likeness(card.verdict))}</p>
<p class="row">
{button("star", card.id, star, "second star", aria_pressed=pressed)}
<a class="small second" href="/private/pictures/{card.id}?download=1"
 download>{escape(words("picture.download"))}</a>
{button("delete", card.id, words("picture.delete"), "second")}
{chooser}</p>
<details><summary>{escape(words("picture.recipe"))} · {seed}</summary>
{recipe_html(recipe, words)}
<p class="row">
{button("same-seed", card.id, words("picture.same_seed"), "second")}
{button("more", card.id, words("picture.more_like_me"), "second")}
{button("variations", card.id, words("picture.variations"), "second")}
{button("recall", card.id, words("picture.recall"), "second")}
</p></details></article>"""


def recipe_html(recipe: Recipe, words: Words) -> str:
    """All that makes a picture again, in a list."""
    rows = (
        (words("recipe.prompt"), recipe.prompt),
        (words("wish.seed"), str(recipe.seed)),
        (words("recipe.likeness"), f"{100 * recipe.likeness:.0f}"),
        (words("wish.steps"), str(recipe.num_inference_steps)),
        (words("wish.guidance"), f"{recipe.guidance_scale:g}"),
        (words("recipe.model"), f"{recipe.backend} {recipe.model_revision}"),
    )
    items = "".join(f"<dt>{escape(name)}</dt><dd>{escape(value)}</dd>" for name, value in rows)
    return f'<dl class="recipe">{items}</dl>'


def read_form(
    words: Words,
    prompt: str,
    style: str,
    count: float,
    likeness: float,
    steps: str | None,
    guidance: str | None,
    seed: str | None,
    best_of: float | None,
) -> OpenWish:
    """The wish in the form.

    Raises:
        InvalidInput: no words yet, or something that is no number where one belongs.
    """
    if not (prompt or "").strip():
        raise InvalidInput(words("wish.empty"))
    suffix = STYLES.get(style or "plain", "")
    return OpenWish(
        prompt=f"{prompt.strip().rstrip(' ,.')}, {suffix}" if suffix else prompt.strip(),
        count=int(count or 1),
        likeness=float(likeness or 0) / 100,
        seed=_number(words, "wish.seed", seed, int),
        num_inference_steps=_number(words, "wish.steps", steps, int),
        guidance_scale=_number(words, "wish.guidance", guidance, float),
        best_of=int(best_of or 1),
    )


def _number(words: Words, name: str, typed: str | None, kind: type[Number]) -> Number | None:
    """What was typed as a number; None where nothing was."""
    text = (typed or "").strip().replace(",", ".")
    if not text:
        return None
    try:
        return kind(text)
    except ValueError as error:
        said = words("wish.not_a_number", name=words(name), typed=text[:20])
        raise InvalidInput(said) from error


def begin(visitor: Visitor, *form: Any) -> tuple[Any, ...]:
    """Message, progress, results, stop button: begin to draw what the form says."""
    wish = read_form(visitor.words, *form)
    return begin_wish(visitor, wish)


def begin_wish(visitor: Visitor, wish: OpenWish) -> tuple[Any, ...]:
    """As `begin`, for a wish that is complete."""
    words, studio = visitor.words, visitor.studio
    if studio.person() is None:
        raise ConsentMissing(words("wish.nobody"))
    studio.draw(wish)
    moment = studio.drawing()
    return "", progress_facts(moment, words), results_html(moment, words), gr.update(visible=True)


def fill_form(recipe: Recipe) -> tuple[Any, ...]:
    """Form values of a recipe: prompt, style, likeness, steps, guidance, seed, best of."""
    prompt, style = recipe.prompt, "plain"
    for name, suffix in STYLES.items():
        if suffix and prompt.endswith(f", {suffix}"):
            prompt, style = prompt.removesuffix(f", {suffix}"), name
    return (
        prompt,
        style,
        round(100 * recipe.likeness),
        str(recipe.num_inference_steps),
        f"{recipe.guidance_scale:g}",
        str(recipe.seed),
        1,
    )


def ending(moment: Moment, words: Words) -> str:
    """The message at the end of a drawing."""
    if moment.stage is Stage.FAILED and moment.error is not None:
        return note(words.error(moment.error), "bad")
    return note(words("draw.stopped")) if moment.stage is Stage.STOPPED else ""


def _says(moment: Moment, words: Words) -> str:
    match moment.stage:
        case Stage.DONE:
            return words("draw.done")
        case Stage.STOPPED | Stage.FAILED:
            return ""
        case Stage.WAITING if moment.num_steps == 0:
            return words("draw.opening")
        case Stage.WAITING:
            return words("draw.waiting", ahead=moment.ahead)
    said = words("draw.step", step=moment.step, steps=moment.num_steps)
    if moment.eta_seconds is not None:
        said += " · " + words("draw.eta", seconds=max(1, round(moment.eta_seconds)))
    return said


def _announcement(moment: Moment, words: Words) -> str:
    """What a screen reader hears: the beginning, each picture, the end; not every step."""
    if moment.stage is Stage.DONE:
        return words("draw.done")
    if moment.stage is Stage.STOPPED:
        return words("draw.stopped")
    if moment.pictures:
        said = words.likeness(moment.pictures[-1].verdict)
        number = len(moment.pictures)
        return words("draw.arrived", number=number, count=moment.count, verdict=said)
    return words("draw.started") if moment.stage is Stage.DRAWING else ""
