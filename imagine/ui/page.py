"""The one page of the product, put together: four tabs, what their controls do, what they show.

A handler returns what changed as name -> value; `Page.parts` knows which control has the name.
"""

from __future__ import annotations

import asyncio
import json
from collections.abc import AsyncIterator, Callable, Sequence
from contextvars import ContextVar
from dataclasses import replace
from typing import Any

import gradio as gr

from imagine.core import SQUARE
from imagine.errors import ImagineError
from imagine.traits import TRAITS
from imagine.ui import gallery, imagining, me, verifying
from imagine.ui.desk import Desk, Visitor, note, sorry, words_of
from imagine.ui.regions import region
from imagine.ui.sessions import Sessions
from imagine.ui.studio import REPORT_REASONS, Moment
from imagine.ui.styles import STYLES
from imagine.ui.theme import MARK
from imagine.ui.words import LANGUAGES, Words, table

Answer = dict[str, Any]
SPOKEN: ContextVar[str] = ContextVar("spoken", default="en")  # language of the present request
_SHOWN_EVERY_SECONDS = 0.2
# Never on a list of endpoints, never more than one at a time of the same press.
_QUIET: dict[str, Any] = {
    "api_visibility": "private",
    "show_progress": "hidden",
    "concurrency_limit": None,
}
_STATIC_HTML: dict[str, Callable[[Words], str]] = {
    "html.masthead": lambda words: _masthead_html(words),
    "html.upload": me.upload_html,
    "html.privacy": me.privacy_html,
    "html.consent": lambda words: f"<h2>{words('consent.heading')}</h2>",
    "html.wish": lambda words: f"<h2>{words('wish.heading')}</h2>",
    "html.examples": imagining.examples_html,
    "html.style_search": imagining.style_search_html,
    "html.gallery": gallery.intro_html,
    "html.verify": verifying.intro_html,
}
_TRAITS = tuple(f"trait_{trait}" for trait in TRAITS)
_TICKS = tuple(f"tick_{number}" for number in range(len(me.SENTENCES)))
# What the pages show of photos and people, of the drawing, and all that depends on a session.
_PEOPLE = ("photos", "who", "people", "agreement", "left", "right", "together", "shape")
_DRAWING = ("progress", "results", "stop", "skip")
_FOLLOWED = ("wish_note", "progress", "results", "stop", "skip", "gallery", "who", "agreement")
_SESSION = (*_PEOPLE, *_DRAWING, "gallery", "style", "name", *_TICKS)


class _Spoken(dict[str, dict[str, str]]):
    """The words of the language of the present request, and of no other.

    Gradio's script chooses among the languages it has words of its own for, and Italian is not one
    of them; so what was asked for also takes the place of English, to which the script falls back.
    Gradio copies its configuration for every page it sends: that is when the language is chosen.
    """

    def __init__(self, languages: dict[str, dict[str, str]]) -> None:
        self._languages = languages
        words = languages[SPOKEN.get()]
        super().__init__({"en": words, SPOKEN.get(): words})

    def __deepcopy__(self, memo: dict[int, Any]) -> _Spoken:
        return _Spoken(self._languages)


class Translations(gr.I18n):
    """Labels and fixed pieces of HTML in every language; a page gets its own."""

    @property
    def translations_dict(self) -> dict[str, dict[str, str]]:
        """What a page is sent."""
        return _Spoken(self.translations)


def translations(house: str = "") -> Translations:
    """Labels and fixed pieces of HTML in every language."""
    spoken: dict[str, dict[str, str]] = {}
    for language in LANGUAGES:
        words = Words(language, house)
        spoken[language] = {
            key: words.raw(key)
            for key, entry in table().items()
            if "en" in entry and "@" not in key
        }
        spoken[language] |= {key: make(words) for key, make in _STATIC_HTML.items()}
    return Translations(**spoken)


class Page:
    """The blocks and their handlers. Build it once; `blocks` is what gets mounted.

    Attributes:
        i18n: labels in every language.
        parts: every control that a handler reads or changes, by name.
        blocks: the page.
    """

    def __init__(self, sessions: Sessions) -> None:
        self.i18n = translations(sessions.house)
        self.parts: dict[str, Any] = {}
        self._desk = Desk(sessions)
        with gr.Blocks(
            title="Imagine yourself", analytics_enabled=False, fill_width=True
        ) as blocks:
            self._lay_out()
            self._connect(blocks)
        blocks.queue(api_open=False, max_size=256)
        self.blocks = blocks

    def _lay_out(self) -> None:
        say, parts = self.i18n, self.parts
        with gr.Row(elem_id="masthead"):
            gr.HTML(say("html.masthead"), apply_default_css=False)
            parts["who"] = region("who")
        with gr.Tabs(elem_id="pages") as parts["tabs"]:
            with gr.Tab(say("tab.me"), id="me"):
                self._lay_out_me()
            with gr.Tab(say("tab.imagine"), id="imagine") as parts["tab_imagine"]:
                self._lay_out_imagine()
            with gr.Tab(say("tab.gallery"), id="gallery"):
                gr.HTML(say("html.gallery"), apply_default_css=False)
                parts["starred_only"] = gr.Checkbox(
                    label=say("gallery.starred_only"), container=False, elem_id="starred-only"
                )
                parts["gallery_note"] = region("gallery-note")
                parts["gallery"] = region("gallery")
            with gr.Tab(say("tab.verify"), id="verify"):
                gr.HTML(say("html.verify"), apply_default_css=False)
                region("verify-result")

    def _lay_out_me(self) -> None:
        say, parts = self.i18n, self.parts
        parts["people"] = region("people")
        with gr.Row(elem_classes="columns"):
            with gr.Column(scale=3, min_width=320):
                parts["upload"] = region("upload", say("html.upload"))
                parts["photos"] = region("photos")
                parts["agreement"] = region("agreement")
            with gr.Column(scale=2, min_width=320):
                gr.HTML(say("html.privacy"), apply_default_css=False)
                with gr.Column(elem_classes="card"):
                    gr.HTML(say("html.consent"), apply_default_css=False)
                    for name, key in zip(_TICKS, me.SENTENCES, strict=True):
                        asked = key in me.STATEMENTS or self._desk.sessions.house == "service"
                        parts[name] = gr.Checkbox(label=say(key), container=False, visible=asked)
                    parts["name"] = gr.Textbox(
                        label=say("consent.name"), max_length=60, elem_id="name"
                    )
                    parts["save"] = gr.Button(
                        say("consent.save"), variant="primary", elem_id="save"
                    )
                    parts["me_note"] = region("me-note")

    def _lay_out_imagine(self) -> None:
        say, parts = self.i18n, self.parts
        with gr.Row(elem_classes="columns"):
            with gr.Column(scale=2, min_width=320, elem_classes="card"):
                gr.HTML(say("html.wish"), apply_default_css=False)
                parts["prompt"] = gr.Textbox(
                    label=say("wish.prompt"),
                    info=say("wish.prompt_hint"),
                    placeholder=say("wish.placeholder"),
                    lines=3,
                    max_lines=8,
                    elem_id="prompt",
                )
                gr.HTML(say("html.examples"), apply_default_css=False, elem_id="examples")
                with gr.Row(elem_id="go"):
                    parts["draw"] = gr.Button(say("wish.draw"), variant="primary", elem_id="draw")
                    parts["skip"] = gr.Button(say("wish.skip"), visible=False, elem_id="skip")
                    parts["stop"] = gr.Button(say("wish.stop"), visible=False, elem_id="stop")
                parts["wish_note"] = region("wish-note")
                self._lay_out_people()
                self._lay_out_style()
                parts["shape"] = gr.Radio(
                    [("", SQUARE)],
                    value=SQUARE,
                    label=say("wish.shape"),
                    visible=False,
                    elem_id="shape",
                )
                parts["likeness"] = gr.Slider(
                    0,
                    100,
                    70,
                    step=1,
                    label=say("wish.likeness"),
                    info=say("wish.likeness_hint"),
                    buttons=[],
                    elem_id="likeness",
                )
                parts["count"] = gr.Slider(
                    1, 8, 2, step=1, label=say("wish.count"), buttons=[], elem_id="count"
                )
                self._lay_out_traits()
                self._lay_out_expert()
            with gr.Column(scale=3, min_width=320, elem_id="canvas"):
                parts["progress"] = region("progress", {}, imagining.progress_template())
                parts["results"] = region("results")

    def _lay_out_people(self) -> None:
        """Who is in the picture; shown once two are enrolled."""
        say, parts = self.i18n, self.parts
        with gr.Group(visible=False, elem_id="together") as parts["together"]:
            parts["left"] = gr.Radio([], label=say("together.left"), elem_id="left")
            parts["right"] = gr.Radio(
                [("", imagining.NOBODY)],
                value=imagining.NOBODY,
                label=say("together.right"),
                info=say("together.hint"),
                elem_id="right",
            )

    def _lay_out_style(self) -> None:
        gr.HTML(self.i18n("html.style_search"), apply_default_css=False, elem_id="style-finder")
        self.parts["style"] = gr.Radio(
            imagining.style_choices(Words("en"), tuple(STYLES)),
            value="plain",
            label=self.i18n("wish.style"),
            elem_id="style",
        )

    def _lay_out_traits(self) -> None:
        say = self.i18n
        with gr.Accordion(say("trait.heading"), open=False, elem_id="traits"):
            for trait in TRAITS:
                self.parts[f"trait_{trait}"] = gr.Dropdown(
                    imagining.trait_choices(trait, Words("en")),
                    value="",
                    label=say(f"trait.{trait}"),
                    filterable=False,
                    elem_id=f"trait-{trait}",
                )

    def _lay_out_expert(self) -> None:
        say, parts = self.i18n, self.parts
        with gr.Accordion(say("wish.expert"), open=False, elem_id="expert"):
            # Text and not numbers: Gradio makes 0 of an empty number, and a browser
            # cannot hold every digit of a large seed.
            for name in ("steps", "guidance", "seed"):
                parts[name] = gr.Textbox(
                    label=say(f"wish.{name}"), info=say("wish.auto"), max_length=20, elem_id=name
                )
            parts["best_of"] = gr.Slider(
                1, 8, 1, step=1, label=say("wish.best_of"),
                info=say("wish.best_of_hint"), buttons=[], elem_id="best-of",
            )  # fmt: skip
            # Kept by `look/visit.js`, which also says when the page is closed.
            gr.Checkbox(label=say("wish.stop_on_leave"), container=False, elem_id="stop-on-leave")

    def _connect(self, blocks: gr.Blocks) -> None:
        parts = self.parts
        # Opening fills the form where the session knows better; a tick leaves it as it is.
        for trigger in (blocks.load, parts["who"].tick):
            self._follow_after(self._on(trigger, _arrive, ("wish_note", *_SESSION, *_TRAITS)))

        people = ("me_note", *_PEOPLE)
        for event in (
            self._on(parts["upload"].upload, me.show_photos, people, trigger_mode="multiple"),
            self._on(parts["photos"].click, me.press_photo, people, pressed=True),
        ):
            self._on(event.then, me.compare, people, trigger_mode="multiple")
        self._on(parts["save"].click, _enrol, people, ("name", *_TICKS))
        # What the model can draw is known once it is open, which may be after the page was.
        for trigger in (parts["right"].change, parts["tab_imagine"].select):
            self._on(trigger, _beside, ("wish_note", "shape"), ("right",))
        desk = (*people, "name", *_TICKS)
        self._on(parts["people"].click, _choose, desk, pressed=True)
        self._on(parts["agreement"].click, _withdraw, desk, pressed=True)
        everything = ("wish_note", *_SESSION, "me_note", "gallery_note")
        self._on(parts["who"].click, _forget, everything, pressed=True)

        shown = ("wish_note", *_DRAWING)
        begun = self._on(parts["draw"].click, imagining.begin, shown, imagining.FIELDS)
        begun.failure(self._say_form_failed, None, [parts["wish_note"]], **_QUIET)
        self._follow_after(begun)
        self._on(parts["stop"].click, _stop, ("wish_note",))
        self._on(parts["skip"].click, _skip, ("wish_note",))

        pressed = (*shown, "gallery", "tabs", *imagining.FIELDS, "gallery_note")
        for pictures in ("results", "gallery"):
            click, inputs = parts[pictures].click, ("starred_only", "count")
            self._follow_after(self._on(click, _press_picture, pressed, inputs, pressed=True))
        self._on(
            parts["starred_only"].change, _show_gallery, ("gallery_note", "gallery"),
            ("starred_only",),
        )  # fmt: skip

    def _on(
        self,
        trigger: Callable[..., Any],
        act: Callable[..., Answer],
        outputs: Sequence[str],
        inputs: Sequence[str] = (),
        pressed: bool = False,
        **more: Any,
    ) -> Any:
        """Call `act` when `trigger` happens.

        Args:
            trigger: an event of a control.
            act: gets the visitor, for a press inside a region its action and id, and the inputs.
            outputs: names of all that may change; the first is the place for a message.
            inputs: names of the values handed over.
            pressed: whether it is a press inside a region.
            more: for Gradio.
        """

        def filled(*values: Any) -> Any:
            answer = act(*values)
            unknown = set(answer) - set(outputs)
            assert not unknown, f"{act.__name__} changes {sorted(unknown)}, which is not connected"
            values = tuple(answer.get(name, gr.skip()) for name in outputs)
            return values[0] if len(values) == 1 else values

        wrap = self._desk.answer_event if pressed else self._desk.answer
        handler = wrap(filled, len(outputs))
        ins = [self.parts[name] for name in inputs] or None
        return trigger(handler, ins, [self.parts[name] for name in outputs], **_QUIET, **more)

    def _follow_after(self, event: Any) -> None:
        outputs = [self.parts[name] for name in _FOLLOWED]
        event.then(self._follow, [self.parts["starred_only"]], outputs, **_QUIET)

    async def _follow(self, request: gr.Request, starred_only: bool) -> AsyncIterator[Any]:
        """Show the newest drawing until it ends; nothing when none is under way."""
        nothing = (gr.skip(),) * len(_FOLLOWED)
        try:
            visitor = self._desk.visitor(request)
        except ImagineError as error:
            words = words_of(request, self._desk.sessions.house)
            yield sorry(error, words, len(_FOLLOWED))
            return
        pictures: object = None
        async for moment in visitor.studio.watch():
            arrived = moment.pictures != pictures
            pictures = moment.pictures
            yield _seen(visitor, moment, arrived, starred_only)
            if not moment.is_final:
                await asyncio.sleep(_SHOWN_EVERY_SECONDS)
        if pictures is None:
            yield nothing

    def _say_form_failed(self, request: gr.Request) -> str:
        """Gradio itself refused a value of the form before we saw it."""
        return note(words_of(request, self._desk.sessions.house)("wish.failed"), "bad")


def _seen(visitor: Visitor, moment: Moment, arrived: bool, starred_only: bool) -> tuple[Any, ...]:
    """Values of `_FOLLOWED`; what did not change is left alone."""
    words, studio = visitor.words, visitor.studio
    shown: Answer = {
        "progress": imagining.progress_facts(moment, words),
        **imagining.under_way(not moment.is_final),
    }
    if moment.is_final and (said := imagining.ending(moment, words)):
        shown["wish_note"] = said
    if arrived:
        shown["results"] = imagining.results_html(_with_stars(visitor, moment), words)
        shown["gallery"] = gallery.gallery_html(studio.pictures(), words, starred_only)
        shown["who"] = me.who_html(visitor)
        shown["agreement"] = me.agreement_html(visitor)
    return tuple(shown.get(name, gr.skip()) for name in _FOLLOWED)


def _arrive(visitor: Visitor) -> Answer:
    """Everything as it stands: the page was opened, opened again, or its session begun anew."""
    words, studio = visitor.words, visitor.studio
    styles = imagining.style_choices(words, studio.limits.styles)
    traits = {
        f"trait_{trait}": gr.update(choices=imagining.trait_choices(trait, words))
        for trait in TRAITS
    }
    person = studio.person()
    name = {"name": person.name} if person is not None else {}
    return {
        "wish_note": "",
        **me.shown(visitor),
        **imagining.people_choices(visitor),
        **_drawing(visitor),
        "gallery": gallery.gallery_html(studio.pictures(), words, False),
        "style": gr.update(choices=styles),
        **traits,
        **name,
    }


def _drawing(visitor: Visitor) -> Answer:
    """The newest drawing as it stands."""
    moment = _with_stars(visitor, visitor.studio.drawing())
    return {
        "progress": imagining.progress_facts(moment, visitor.words),
        "results": imagining.results_html(moment, visitor.words),
        **imagining.under_way(moment is not None and not moment.is_final),
    }


def _enrol(visitor: Visitor, name: str, *ticks: bool) -> Answer:
    return {**me.enrol(visitor, name, *ticks), **imagining.people_choices(visitor)}


def _beside(visitor: Visitor, right: str | None) -> Answer:
    """Two people are drawn in one shape only."""
    return imagining.shape_shown(visitor, right)


def _choose(visitor: Visitor, action: str, id: str) -> Answer:
    answer = me.press_person(visitor, action, id)
    return {**answer, **imagining.people_choices(visitor)} if answer else {}


def _withdraw(visitor: Visitor, action: str, id: str) -> Answer:
    answer = me.press_agreement(visitor, action, id)
    return {**answer, **imagining.people_choices(visitor)} if answer else {}


def _forget(visitor: Visitor, action: str, id: str) -> Answer:
    if action != "forget":
        return {}
    visitor.studio.forget()
    arrived = _arrive(visitor)
    said = note(visitor.words("forgotten"), "good")
    shown = {name: arrived[name] for name in _SESSION if name in arrived}
    return {**shown, **me.fresh_agreement(visitor), "me_note": said, "gallery_note": ""}


def _stop(visitor: Visitor) -> Answer:
    visitor.studio.stop()
    return {}


def _skip(visitor: Visitor) -> Answer:
    visitor.studio.skip()
    return {}


def _show_gallery(visitor: Visitor, starred_only: bool) -> Answer:
    pictures = visitor.studio.pictures()
    return {
        "gallery_note": "",
        "gallery": gallery.gallery_html(pictures, visitor.words, starred_only),
    }


def _press_picture(
    visitor: Visitor, action: str, id: str, starred_only: bool, count: float
) -> Answer:
    """A button of a picture, or of several."""
    words, studio = visitor.words, visitor.studio
    shown: Answer = {"gallery_note": ""}
    if action == "delete-chosen":
        for each in id.split(","):
            studio.delete_picture(each)
    else:
        card = next((card for card in studio.pictures() if card.id == id), None)
        if card is None:
            studio.picture(id)  # raises what there is to say
            return {}
        if action == "star":
            studio.star(id, not card.is_starred)
        elif action == "delete":
            studio.delete_picture(id)
        elif action == "recall":
            shown |= imagining.fill_form(card)
            if shown["left"] not in [person.id for person in studio.people()]:
                del shown["left"], shown["right"]
            if shown["shape"] not in studio.limits.shapes:
                del shown["shape"]
            shown["wish_note"] = note(words("recall.done"), "good")
        elif action == "same-seed":
            shown |= {"seed": str(card.recipe.seed)}
            shown["wish_note"] = note(words("recall.seed"), "good")
        elif action == "more":
            shown |= imagining.begin_wish(visitor, imagining.more_like_me(card))
        elif action == "variations":
            wish = imagining.variations(card, int(count or 1))
            shown |= imagining.begin_wish(visitor, wish)
    if action in ("recall", "same-seed", "more", "variations"):
        shown["tabs"] = gr.Tabs(selected="imagine")
    else:
        shown["results"] = imagining.results_html(_with_stars(visitor, studio.drawing()), words)
    shown["gallery"] = gallery.gallery_html(studio.pictures(), words, starred_only)
    return shown


def _with_stars(visitor: Visitor, moment: Moment | None) -> Moment | None:
    """A drawing with its pictures as they are now, stars included."""
    if moment is None:
        return None
    now = {card.id: card for card in visitor.studio.pictures()}
    return replace(
        moment, pictures=tuple(now[card.id] for card in moment.pictures if card.id in now)
    )


def _masthead_html(words: Words) -> str:
    switch = words("theme.switch")
    return (
        f'<div class="brand"><div class="row">{MARK}<h1>{words("title")}</h1>'
        f'<button type="button" class="round second" data-js="theme" aria-label="{switch}" '
        f'title="{switch}">\u25d0</button></div><p>{words("tagline")}</p></div>'
    )


def script_words(words: Words) -> str:
    """What the script itself says, as JSON."""
    keys = [
        "net.lost", "net.back", "net.restarted", "net.failed", "net.too_large", "net.sent_again",
        "net.kept_photos", "me.looking", "me.no_camera", "verify.looking", "dialog.close",
        "gallery.found", *(key for key in table() if key.startswith(("compare.", "problem."))),
    ]  # fmt: skip
    said = {key: words.raw(key) for key in keys if "@" not in key}
    said["language"] = words.language
    return json.dumps({**said, "problem.reasons": "|".join(REPORT_REASONS)})
