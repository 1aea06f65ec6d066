"""The page "Imagine": a wish, its progress, and the pictures as they come."""

from __future__ import annotations

from dataclasses import dataclass, replace
from html import escape
from typing import Any, TypeVar

import gradio as gr

from imagine.core import SQUARE, Recipe
from imagine.errors import InvalidInput
from imagine.traits import TRAITS
from imagine.ui.desk import Visitor, note
from imagine.ui.me import NotAgreed, has_ended, name_of
from imagine.ui.regions import button
from imagine.ui.studio import Moment, OpenWish, PictureCard, Stage
from imagine.ui.styles import STYLES
from imagine.ui.words import Spoken, Words, grade, table

# Places, faces, clothes and looks that the small model's training captions know.
EXAMPLES = (
    "laughing in a sunny park, wearing sunglasses",
    "looking surprised, on a city square, wearing a red jacket",
    "with a soft smile, by the water at dusk, wearing a hat",
    "close-up with a serious face, under studio lights",
    "smiling in a forest, wearing a green t-shirt",
)
_FIRST_EXAMPLES = 2
Number = TypeVar("Number", int, float)
MORE_LIKE_ME = 0.15  # added to the likeness by one press
KEEP = "keep"  # the choice of a trait that is neither left alone nor changed
NOBODY = ""  # the choice of nobody on the right
# The fields of the form in the order they are handed over; `Form` holds them.
FIELDS = (
    "prompt", "style", "shape", "count", "likeness", "steps", "guidance", "seed", "best_of",
    "left", "right",
    *(f"trait_{trait}" for trait in TRAITS),
)  # fmt: skip
_GRADES = {"looks": "good", "something": "some", "not": "poor", "copy": "some", "no_face": "poor"}
_FORMATS = {".png": "PNG", ".jpg": "JPEG", ".webp": "WebP"}
_ICONS = {
    "star": "M12 3.500l2.700 5.600 6.100.800-4.500 4.200 1.100 6.100L12 17.200l-5.400 3 1.100-6.100"
    "-4.500-4.200 6.100-.800z",
    "download": "M12 4v11m-5-5 5 5 5-5M5 20h14",
    "delete": "M5 7h14M10 7V4h4v3m3 0-1 13H8L7 7m3.500 4v5m3-5v5",
}


class FormIncomplete(Spoken, InvalidInput):
    """Something of the form is missing or no number; says so in the visitor's language."""


def examples_html(words: Words) -> str:
    """Wishes to begin with: a few, and the others at a press."""
    chips = "".join(
        f'<button type="button" class="chip" data-js="example" lang="en"'
        f"{' hidden' if number >= _FIRST_EXAMPLES else ''}>{escape(example)}</button>"
        for number, example in enumerate(EXAMPLES)
    )
    said, more = escape(words("wish.examples")), escape(words("wish.more_examples"))
    return (
        f'<p class="examples"><span class="muted">{said}</span> {chips}'
        f'<button type="button" class="chip more" data-js="more-examples">{more}</button></p>'
    )


def style_search_html(words: Words) -> str:
    """Finds a style by its name; the script hides the others."""
    label = escape(words("style.search"))
    return (
        f'<p class="finder-head" aria-hidden="true">{escape(words("wish.style"))}</p>'
        f'<input type="search" id="style-search" data-finds="style" placeholder="{label}" '
        f'aria-label="{label}" autocomplete="off">'
    )


def style_choices(words: Words, styles: tuple[str, ...]) -> list[tuple[str, str]]:
    """Names for people, ids for us."""
    return [(words(f"style.{style}"), style) for style in styles]


def shape_choices(words: Words, shapes: tuple[str, ...]) -> list[tuple[str, str]]:
    """Aspect ratios in words: square, portrait, landscape."""
    return [(shape_name(shape, words), shape) for shape in shapes]


def shape_name(aspect_ratio: str, words: Words) -> str:
    """What a shape is called, with its ratio where it is no square."""
    across, down = (int(part) for part in aspect_ratio.split(":"))
    if across == down:
        return words("shape.square")
    kind = "portrait" if across < down else "landscape"
    return words(f"shape.{kind}", ratio=aspect_ratio)


def shape_shown(visitor: Visitor, beside: str | None = None) -> dict[str, Any]:
    """The choice of a shape, where the model draws more than one; two people have no choice."""
    shapes = visitor.studio.limits.shapes
    chosen = {"value": SQUARE} if beside else {}
    shown = len(shapes) > 1 and not beside
    choices = shape_choices(visitor.words, shapes)
    return {"shape": gr.update(choices=choices, visible=shown, **chosen)}


def trait_choices(trait: str, words: Words) -> list[tuple[str, str]]:
    """Leave a trait alone, keep it, or any value it can be changed to."""
    values = [(value_name(trait, value, words), value) for value in TRAITS[trait]]
    return [(words("trait.open"), ""), (words("trait.keep"), KEEP), *values]


def trait_name(trait: str, words: Words) -> str:
    """What a trait is called; in plain English where the table has no words yet."""
    key = f"trait.{trait}"
    return words(key) if key in table() else trait.replace("_", " ").capitalize()


def value_name(trait: str, value: str, words: Words) -> str:
    """What a value of a trait is called."""
    key = f"trait.{trait}.{value.replace(' ', '_').replace('-', '_')}"
    return words(key) if key in table() else value


def people_choices(visitor: Visitor) -> dict[str, Any]:
    """Who stands left and who right, once there are two to choose from."""
    words, studio = visitor.words, visitor.studio
    people = [(name_of(person, words), person.id) for person in studio.people()]
    at_desk = studio.person()
    first = at_desk.id if at_desk is not None else (people[0][1] if people else None)
    several = len(people) > 1
    return {
        **shape_shown(visitor),
        "left": gr.update(choices=people, value=first if people else None),
        "together": gr.update(visible=several),
        "right": gr.update(
            choices=[(words("together.nobody"), NOBODY), *people],
            value=NOBODY,
            visible=studio.limits.draws_two,
        ),
    }


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
    return f'<p class="row bulk">{format_html(words)}</p><div class="pictures">{cards}</div>'


def format_html(words: Words) -> str:
    """What kind of file a download is; the script remembers it and puts it into the addresses."""
    options = "".join(
        f'<option value="{suffix}">{name}</option>' for suffix, name in _FORMATS.items()
    )
    label = escape(words("picture.format"))
    return f'<label class="format">{label} <select data-format>{options}</select></label>'


def picture_html(card: PictureCard, words: Words, chooser: str = "") -> str:
    """A picture, its verdict in words, its recipe, and what can be done with it."""
    recipe = card.recipe
    alt = escape(words("picture.alt", prompt=recipe.prompt))
    pressed = str(card.is_starred).lower()
    seed = escape(words("picture.seed", seed=recipe.seed))
    star = words("picture.starred" if card.is_starred else "picture.star")
    download = escape(words("picture.download"))
    return f"""<article class="picture" data-words="{escape(recipe.prompt)}">
<div class="frame">
<img src="/private/pictures/{card.id}" alt="{alt}" width="{card.width}" height="{card.height}">
{_icon_button("star", card.id, star, aria_pressed=pressed)}</div>
{_verdict_html(card, words)}
<p class="row">
{button("more", card.id, words("picture.more_like_me"), "second")}
{button("variations", card.id, words("picture.variations"), "second")}
</p><p class="row tools">
<button type="button" class="small second" data-js="compare"
 data-id="{card.id}">{escape(words("picture.compare"))}</button>
<a class="small second icon" href="/private/pictures/{card.id}?download=1" download
 data-js="download" data-id="{card.id}" aria-label="{download}"
 title="{download}">{_icon("download")}</a>
{_icon_button("delete", card.id, words("picture.delete"))}
{chooser}</p>
<details><summary>{escape(words("picture.recipe"))} · {seed}</summary>
{recipe_html(recipe, words)}{_notes_html(card)}
<p class="row">
{button("same-seed", card.id, words("picture.same_seed"), "second")}
{button("recall", card.id, words("picture.recall"), "second")}
<button type="button" class="small second" data-js="report" data-id="{card.id}"
 data-seed="{recipe.seed}" data-model="{escape(recipe.backend)} {escape(recipe.model_revision)}"
>{escape(words("picture.report"))}</button>
</p></details></article>"""


def _verdict_html(card: PictureCard, words: Words) -> str:
    """How much it looks like the person, or like each of the two, and what was read."""
    each = [("", card.verdict)]
    if card.pair is not None:
        left, right = words("together.on_left"), words("together.on_right")
        each = [(left, card.pair.left), (right, card.pair.right)]
    said = [
        f'<p class="verdict {_GRADES[grade(verdict)]}" title="{escape(card.why)}">'
        f"{escape(' '.join((where, words.likeness(verdict))).strip())}</p>"
        for where, verdict in each
    ]
    if card.pair is not None and card.pair.blending is not None and not card.pair.is_assigned:
        said.append(f'<p class="muted">{escape(words("together.mixed"))}</p>')
    return "".join(said)


def _icon(name: str) -> str:
    return f'<svg viewBox="0 0 24 24" aria-hidden="true"><path d="{_ICONS[name]}"/></svg>'


def _notes_html(card: PictureCard) -> str:
    """What was read from the selfies; the room that reads them speaks English."""
    said = " ".join(card.notes)
    return f'<p class="muted" lang="en">{escape(said)}</p>' if said else ""


def _icon_button(action: str, id: str, label: str, **attributes: str) -> str:
    more = "".join(f' {name.replace("_", "-")}="{escape(v)}"' for name, v in attributes.items())
    return (
        f'<button type="button" class="small second icon {action}" data-action="{action}" '
        f'data-id="{escape(id)}" aria-label="{escape(label)}" title="{escape(label)}"{more}>'
        f"{_icon(action)}</button>"
    )


def recipe_html(recipe: Recipe, words: Words) -> str:
    """All that makes a picture again, in a list."""
    rows = [
        (words("recipe.prompt"), recipe.prompt),
        *([(words("recipe.traits"), recipe.traits)] if recipe.traits else []),
        (words("wish.seed"), str(recipe.seed)),
        (words("recipe.likeness"), f"{100 * recipe.likeness:.0f}"),
        (words("wish.steps"), str(recipe.num_inference_steps)),
        (words("wish.guidance"), f"{recipe.guidance_scale:g}"),
        *_shape_row(recipe, words),
        (words("recipe.model"), f"{recipe.backend} {recipe.model_revision}"),
    ]
    items = "".join(f"<dt>{escape(name)}</dt><dd>{escape(value)}</dd>" for name, value in rows)
    return f'<dl class="recipe">{items}</dl>'


def _shape_row(recipe: Recipe, words: Words) -> list[tuple[str, str]]:
    if recipe.aspect_ratio == SQUARE:
        return []
    return [(words("wish.shape"), shape_name(recipe.aspect_ratio, words))]


@dataclass(frozen=True, slots=True)
class Form:
    """The form as it was sent, field by field.

    Attributes:
        prompt: as typed.
        style: one of `STYLES`.
        count: how many pictures.
        likeness: 0 to 100.
        steps: as typed, empty for the model's own.
        guidance: likewise.
        seed: likewise.
        best_of: candidates a picture.
        left: id of who is drawn; None or empty is whoever is at the desk.
        right: id of who stands beside; None or empty is nobody.
        shape: an aspect ratio; None or empty is a square.
        traits: one choice for each of `TRAITS`: empty, `KEEP`, or a value.
    """

    prompt: str
    style: str | None = "plain"
    count: float | None = 1
    likeness: float | None = 70
    steps: str | None = ""
    guidance: str | None = ""
    seed: str | None = ""
    best_of: float | None = 1
    left: str | None = None
    right: str | None = None
    shape: str | None = SQUARE
    traits: tuple[str | None, ...] = ()


def read_form(words: Words, form: Form) -> OpenWish:
    """The wish in the form.

    Raises:
        InvalidInput: no words yet, or something that is no number where one belongs.
    """
    prompt = (form.prompt or "").strip()
    if not prompt:
        raise FormIncomplete(words("wish.empty"))
    suffix = STYLES.get(form.style or "plain", "")
    chosen = {trait: value for trait, value in zip(TRAITS, form.traits, strict=False) if value}
    return OpenWish(
        prompt=f"{prompt.rstrip(' ,.')}, {suffix}" if suffix else prompt,
        count=int(form.count or 1),
        likeness=float(form.likeness or 0) / 100,
        seed=_number(words, "wish.seed", form.seed, int),
        num_inference_steps=_number(words, "wish.steps", form.steps, int),
        guidance_scale=_number(words, "wish.guidance", form.guidance, float),
        best_of=int(form.best_of or 1),
        keep=tuple(trait for trait, value in chosen.items() if value == KEEP),
        change={trait: value for trait, value in chosen.items() if value != KEEP},
        person=form.left or None,
        beside=form.right or None,
        aspect_ratio=form.shape or SQUARE,
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
        raise FormIncomplete(said) from error


def begin(visitor: Visitor, *values: Any) -> dict[str, Any]:
    """Begin to draw what the form says: a value for each of `FIELDS`."""
    named: dict[str, Any] = dict(zip(FIELDS, values, strict=True))
    traits = tuple(named.pop(f"trait_{trait}") for trait in TRAITS)
    return begin_wish(visitor, read_form(visitor.words, Form(**named, traits=traits)))


def begin_wish(visitor: Visitor, wish: OpenWish) -> dict[str, Any]:
    """As `begin`, for a wish that is complete."""
    words, studio = visitor.words, visitor.studio
    if not studio.people():
        raise NotAgreed(words("wish.nobody"))
    if wish.person is None and studio.person() is None:
        # A newcomer is at the desk: whoever came first is drawn meanwhile.
        raise NotAgreed(words("wish.newcomer"))
    drawn = (wish.person, wish.beside)
    for person in studio.people():
        at_desk = wish.person is None and person == studio.person()
        if (at_desk or person.id in drawn) and has_ended(person):
            raise NotAgreed(words("consent.ended", name=name_of(person, words)))
    studio.draw(wish)
    moment = studio.drawing()
    return {
        "wish_note": "",
        "progress": progress_facts(moment, words),
        "results": results_html(moment, words),
        **under_way(True),
    }


def under_way(is_drawing: bool) -> dict[str, Any]:
    """The buttons that interrupt a drawing."""
    return {"stop": gr.update(visible=is_drawing), "skip": gr.update(visible=is_drawing)}


def wish_of(card: PictureCard) -> OpenWish:
    """The wish of one picture like this one: same person, words and figures, its own seed."""
    recipe = card.recipe
    wish = card.wish or OpenWish(recipe.prompt)
    return replace(
        wish,
        count=1,
        best_of=1,
        seed=recipe.seed,
        likeness=recipe.likeness,
        num_inference_steps=recipe.num_inference_steps,
        guidance_scale=recipe.guidance_scale,
        aspect_ratio=recipe.aspect_ratio,
    )


def more_like_me(card: PictureCard) -> OpenWish:
    """The same picture with more of the person."""
    wish = wish_of(card)
    return replace(wish, likeness=min(1.0, wish.likeness + MORE_LIKE_ME))


def variations(card: PictureCard, count: int) -> OpenWish:
    """The same wish from other seeds."""
    return replace(wish_of(card), count=count, seed=None)


def fill_form(card: PictureCard) -> dict[str, Any]:
    """Form values of the wish behind a picture."""
    recipe, wish = card.recipe, wish_of(card)
    prompt, style = wish.prompt, "plain"
    for name, suffix in STYLES.items():
        if suffix and prompt.endswith(f", {suffix}"):
            prompt, style = prompt.removesuffix(f", {suffix}"), name
    return {
        "prompt": prompt,
        "style": style,
        "shape": recipe.aspect_ratio,
        "likeness": round(100 * recipe.likeness),
        "steps": str(recipe.num_inference_steps),
        "guidance": f"{recipe.guidance_scale:g}",
        "seed": str(recipe.seed),
        "best_of": 1,
        "left": gr.skip() if wish.person is None else wish.person,
        "right": wish.beside or NOBODY,
        **{
            f"trait_{trait}": KEEP if trait in wish.keep else wish.change.get(trait, "")
            for trait in TRAITS
        },
    }


def ending(moment: Moment, words: Words) -> str:
    """The message at the end of a drawing."""
    said = []
    if moment.stage is Stage.FAILED and moment.error is not None:
        return note(words.error(moment.error), "bad")
    if moment.stage is Stage.STOPPED:
        said.append(words("draw.stopped"))
    if moment.skipped:
        said.append(words("draw.skipped", count=moment.skipped))
    if moment.withheld:
        said.append(words("draw.withheld", count=moment.withheld))
    return note(" ".join(said))


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
    if moment.count > 1:
        number = min(moment.count, len(moment.pictures) + moment.skipped + moment.withheld + 1)
        said = words("draw.picture", number=number, count=moment.count) + " · " + said
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
