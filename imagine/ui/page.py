"""The one page of the product, put together: four tabs, what their controls do, what they show."""

from __future__ import annotations

import asyncio
import json
from collections.abc import AsyncIterator, Callable
from dataclasses import replace
from typing import Any

import gradio as gr

from imagine.errors import ImagineError
from imagine.ui import gallery, imagining, me, verifying
from imagine.ui.desk import Desk, Visitor, note, sorry, words_of
from imagine.ui.regions import region
from imagine.ui.sessions import Sessions
from imagine.ui.studio import Moment, OpenWish
from imagine.ui.words import LANGUAGES, Words, table

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
    "html.gallery": gallery.intro_html,
    "html.verify": verifying.intro_html,
}


def translations() -> gr.I18n:
    """Labels and fixed pieces of HTML in every language, chosen by the browser."""
    spoken: dict[str, dict[str, str]] = {}
    for language in LANGUAGES:
        words = Words(language)
        spoken[language] = {
            key: entry.get(language, entry["en"]) for key, entry in table().items() if "en" in entry
        }
        spoken[language] |= {key: make(words) for key, make in _STATIC_HTML.items()}
    return gr.I18n(**spoken)


class Page:
    """The blocks and their handlers. Build it once; `blocks` is what gets mounted."""

    def __init__(self, sessions: Sessions) -> None:
        self.i18n = translations()
        self._desk = Desk(sessions)
        with gr.Blocks(
            title="Imagine yourself", analytics_enabled=False, fill_width=True
        ) as blocks:
            self._lay_out()
            self._connect(blocks)
        blocks.queue(api_open=False, max_size=256)
        self.blocks = blocks

    def _lay_out(self) -> None:
        say = self.i18n
        with gr.Row(elem_id="masthead"):
            gr.HTML(say("html.masthead"), apply_default_css=False)
            self.who = region("who")
        with gr.Tabs(elem_id="pages") as self.tabs:
            with gr.Tab(say("tab.me"), id="me"):
                self._lay_out_me()
            with gr.Tab(say("tab.imagine"), id="imagine"):
                self._lay_out_imagine()
            with gr.Tab(say("tab.gallery"), id="gallery"):
                gr.HTML(say("html.gallery"), apply_default_css=False)
                self.starred_only = gr.Checkbox(
                    label=say("gallery.starred_only"), container=False, elem_id="starred-only"
                )
                self.gallery_note = region("gallery-note")
                self.gallery = region("gallery")
            with gr.Tab(say("tab.verify"), id="verify"):
                gr.HTML(say("html.verify"), apply_default_css=False)
                region("verify-result")

    def _lay_out_me(self) -> None:
        say = self.i18n
        with gr.Row(elem_classes="columns"):
            with gr.Column(scale=3, min_width=320):
                self.upload = region("upload", say("html.upload"))
                self.photos = region("photos")
            with gr.Column(scale=2, min_width=320):
                gr.HTML(say("html.privacy"), apply_default_css=False)
                with gr.Column(elem_classes="card"):
                    gr.HTML(say("html.consent"), apply_default_css=False)
                    self.ticks = [
                        gr.Checkbox(label=say(key), container=False) for key in me.STATEMENTS
                    ]
                    self.name = gr.Textbox(label=say("consent.name"), max_length=60)
                    self.save = gr.Button(say("consent.save"), variant="primary", elem_id="save")
                    self.me_note = region("me-note")

    def _lay_out_imagine(self) -> None:
        say = self.i18n
        with gr.Row(elem_classes="columns"):
            with gr.Column(scale=2, min_width=320, elem_classes="card"):
                gr.HTML(say("html.wish"), apply_default_css=False)
                self.prompt = gr.Textbox(
                    label=say("wish.prompt"),
                    info=say("wish.prompt_hint"),
                    placeholder=say("wish.placeholder"),
                    lines=3,
                    max_lines=8,
                    elem_id="prompt",
                )
                gr.HTML(say("html.examples"), apply_default_css=False, elem_id="examples")
                with gr.Row():
                    self.draw = gr.Button(say("wish.draw"), variant="primary", elem_id="draw")
                    self.stop = gr.Button(say("wish.stop"), visible=False, elem_id="stop")
                self.wish_note = region("wish-note")
                self.style = gr.Radio(
                    imagining.style_choices(Words("en")),
                    value="plain",
                    label=say("wish.style"),
                    elem_id="style",
                )
                self.likeness = gr.Slider(
                    0,
                    100,
                    70,
                    step=1,
                    label=say("wish.likeness"),
                    info=say("wish.likeness_hint"),
                    buttons=[],
                    elem_id="likeness",
                )
                self.count = gr.Slider(
                    1, 8, 2, step=1, label=say("wish.count"), buttons=[], elem_id="count"
                )
                with gr.Accordion(say("wish.expert"), open=False, elem_id="expert"):
                    # Text and not numbers: Gradio makes 0 of an empty number, and a browser
                    # cannot hold every digit of a large seed.
                    self.steps, self.guidance, self.seed = (
                        gr.Textbox(
                            label=say(f"wish.{name}"),
                            info=say("wish.auto"),
                            max_length=20,
                            elem_id=name,
                        )
                        for name in ("steps", "guidance", "seed")
                    )
                    self.best_of = gr.Slider(
                        1, 8, 1, step=1, label=say("wish.best_of"),
                        info=say("wish.best_of_hint"), buttons=[], elem_id="best-of",
                    )  # fmt: skip
            with gr.Column(scale=3, min_width=320, elem_id="canvas"):
                self.progress = region("progress", {}, imagining.progress_template())
                self.results = region("results")

    def _connect(self, blocks: gr.Blocks) -> None:
        desk = self._desk
        photos = [self.me_note, self.photos, self.who]
        shown = [self.wish_note, self.progress, self.results, self.stop]
        form = [
            self.prompt, self.style, self.count, self.likeness,
            self.steps, self.guidance, self.seed, self.best_of,
        ]  # fmt: skip
        everything = [
            self.wish_note, self.photos, self.who, self.progress, self.results, self.stop,
            self.gallery, self.style,
        ]  # fmt: skip
        pressed = [
            *shown, self.gallery, self.tabs, self.prompt, self.style, self.likeness,
            self.steps, self.guidance, self.seed, self.best_of, self.gallery_note,
        ]  # fmt: skip

        def follow_after(event: Any) -> None:
            event.then(
                self._follow,
                [self.starred_only],
                [*shown, self.gallery, self.who],
                **_QUIET,
            )

        arrive = desk.answer(_arrive, len(everything))
        for trigger in (blocks.load, self.who.tick):
            follow_after(trigger(arrive, None, everything, **_QUIET))

        show = desk.answer(me.show_photos, len(photos))
        compare = desk.answer(me.compare, len(photos))
        press_photo = desk.answer_event(me.press_photo, len(photos))
        for event in (
            self.upload.upload(show, None, photos, trigger_mode="multiple", **_QUIET),
            self.photos.click(press_photo, None, photos, **_QUIET),
        ):
            event.then(compare, None, photos, trigger_mode="multiple", **_QUIET)
        enrol = desk.answer(me.enrol, len(photos))
        self.save.click(enrol, [self.name, *self.ticks], photos, **_QUIET)

        forget = desk.answer_event(_forget, len(everything) + 2)
        self.who.click(forget, None, [*everything, self.me_note, self.gallery_note], **_QUIET)

        begin = desk.answer(imagining.begin, len(shown))
        begun = self.draw.click(begin, form, shown, **_QUIET)
        begun.failure(_say_form_failed, None, [self.wish_note], **_QUIET)
        follow_after(begun)
        stop = desk.answer(_stop, 1)
        self.stop.click(stop, None, [self.wish_note], **_QUIET)

        press_picture = desk.answer_event(_press_picture, len(pressed))
        for pictures in (self.results, self.gallery):
            inputs = [self.starred_only, self.count]
            follow_after(pictures.click(press_picture, inputs, pressed, **_QUIET))
        show_gallery = desk.answer(_show_gallery, 2)
        self.starred_only.change(
            show_gallery, [self.starred_only], [self.gallery_note, self.gallery], **_QUIET
        )

    async def _follow(self, request: gr.Request, starred_only: bool) -> AsyncIterator[Any]:
        """Show the newest drawing until it ends; nothing when none is under way."""
        try:
            visitor = self._desk.visitor(request)
        except ImagineError as error:
            yield sorry(error, words_of(request), 6)
            return
        pictures: object = None
        async for moment in visitor.studio.watch():
            arrived = moment.pictures != pictures
            pictures = moment.pictures
            yield self._shown(visitor, moment, arrived, starred_only)
            if not moment.is_final:
                await asyncio.sleep(_SHOWN_EVERY_SECONDS)
        if pictures is None:
            yield (gr.skip(),) * 6

    def _shown(
        self, visitor: Visitor, moment: Moment, arrived: bool, starred_only: bool
    ) -> tuple[Any, ...]:
        words, studio = visitor.words, visitor.studio
        skip = gr.skip()
        message = imagining.ending(moment, words) if moment.is_final else skip
        return (
            message or skip,
            imagining.progress_facts(moment, words),
            imagining.results_html(moment, words) if arrived else skip,
            gr.update(visible=not moment.is_final),
            gallery.gallery_html(studio.pictures(), words, starred_only) if arrived else skip,
            me.who_html(studio.person(), words, me.has_anything(visitor)) if arrived else skip,
        )


def _arrive(visitor: Visitor) -> tuple[Any, ...]:
    """Everything as it stands: the page was opened, opened again, or its session begun anew."""
    words, studio = visitor.words, visitor.studio
    moment = studio.drawing()
    return (
        "",
        me.photos_html(studio.photos(), words),
        me.who_html(studio.person(), words, me.has_anything(visitor)),
        imagining.progress_facts(moment, words),
        imagining.results_html(moment, words),
        gr.update(visible=moment is not None and not moment.is_final),
        gallery.gallery_html(studio.pictures(), words, False),
        gr.update(choices=imagining.style_choices(words)),
    )


def _forget(visitor: Visitor, action: str, id: str) -> tuple[Any, ...]:
    if action != "forget":
        return (gr.skip(),) * 10
    visitor.studio.forget()
    said = note(visitor.words("forgotten"), "good")
    return *_arrive(visitor), said, ""


def _stop(visitor: Visitor) -> Any:
    visitor.studio.stop()
    return gr.skip()


def _say_form_failed(request: gr.Request) -> str:
    """Gradio itself refused a value of the form before we saw it."""
    return note(words_of(request)("wish.failed"), "bad")


def _show_gallery(visitor: Visitor, starred_only: bool) -> tuple[Any, ...]:
    pictures = visitor.studio.pictures()
    return "", gallery.gallery_html(pictures, visitor.words, starred_only)


def _press_picture(
    visitor: Visitor, action: str, id: str, starred_only: bool, count: float
) -> tuple[Any, ...]:
    """A button of a picture.

    Returns:
        Message, progress, results, stop, gallery, tab, seven form values, message of the gallery.
    """
    words, studio = visitor.words, visitor.studio
    card = next((card for card in studio.pictures() if card.id == id), None)
    skip = gr.skip()
    if card is None:
        studio.picture(id)  # raises what there is to say
        return (skip,) * 14
    recipe = card.recipe
    shown: tuple[Any, ...] = (skip,) * 4
    form: tuple[Any, ...] = (skip,) * 7
    tab = skip
    if action == "star":
        studio.star(id, not card.is_starred)
    elif action == "delete":
        studio.delete_picture(id)
    elif action in ("recall", "same-seed"):
        tab = gr.Tabs(selected="imagine")
        form = (
            imagining.fill_form(recipe)
            if action == "recall"
            else (*[skip] * 5, str(recipe.seed), skip)
        )
        shown = (note(words("recall.done"), "good"), skip, skip, skip)
    elif action in ("more", "variations"):
        more = action == "more"
        likeness = min(1.0, recipe.likeness + imagining.MORE_LIKE_ME) if more else recipe.likeness
        wish = OpenWish(
            prompt=recipe.prompt,
            count=1 if more else int(count or 1),
            likeness=likeness,
            seed=recipe.seed if more else None,
            num_inference_steps=recipe.num_inference_steps,
            guidance_scale=recipe.guidance_scale,
        )
        tab = gr.Tabs(selected="imagine")
        shown = imagining.begin_wish(visitor, wish)
    if action in ("star", "delete"):
        results = imagining.results_html(_fresh(visitor), words)
        shown = (skip, skip, results, skip)
    pictures = gallery.gallery_html(studio.pictures(), words, starred_only)
    return *shown, pictures, tab, *form, ""


def _fresh(visitor: Visitor) -> Moment | None:
    """The newest drawing with its pictures as they are now, stars included."""
    moment = visitor.studio.drawing()
    if moment is None:
        return None
    now = {card.id: card for card in visitor.studio.pictures()}
    return replace(
        moment, pictures=tuple(now[card.id] for card in moment.pictures if card.id in now)
    )


def _masthead_html(words: Words) -> str:
    switch = words("theme.switch")
    return (
        f'<div class="brand"><div class="row"><h1>{words("title")}</h1>'
        f'<button type="button" class="round second" data-js="theme" aria-label="{switch}" '
        f'title="{switch}">\u25d0</button></div><p>{words("tagline")}</p></div>'
    )


def script_words(words: Words) -> str:
    """What the script itself says, as JSON."""
    keys = ("net.lost", "net.back", "net.restarted", "net.failed", "me.looking", "me.no_camera",
            "verify.looking", "net.too_large")  # fmt: skip
    return json.dumps({key: table()[key].get(words.language, table()[key]["en"]) for key in keys})
