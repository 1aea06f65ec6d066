"""The page "Me": photos by upload or camera, advice for each, agreement, and the way back out."""

from __future__ import annotations

from datetime import UTC, datetime
from html import escape
from typing import Any

import gradio as gr

from imagine.core import PhotoVerdict
from imagine.errors import ConsentMissing
from imagine.ui.desk import Visitor, note
from imagine.ui.regions import button
from imagine.ui.studio import Consent, Person, PhotoCard
from imagine.ui.words import Words

STATEMENTS = ("consent.me", "consent.face")
_KINDS = {
    PhotoVerdict.KEEP: "good",
    PhotoVerdict.KEEP_WITH_ADVICE: "advice",
    PhotoVerdict.REFUSE: "refused",
}


def upload_html(words: Words) -> str:
    """Where photos come in: files or camera. The script does the rest."""
    say = _escaped(words)
    return f"""
<h2>{say("me.heading")}</h2>
<p class="lead">{say("me.intro")}</p>
<div class="drop" data-drop="photos">
  <p><strong>{say("me.drop")}</strong></p>
  <p class="muted">{say("me.formats")}</p>
  <p class="row">
    <input type="file" id="photo-files" class="offscreen" tabindex="-1" multiple
      aria-label="{say("me.choose")}" accept="image/*,.heic,.heif">
    <button type="button" data-js="choose" data-for="photo-files">{say("me.choose")}</button>
    <button type="button" data-js="camera" class="second">{say("me.camera")}</button>
  </p>
</div>
<div class="camera" hidden>
  <video playsinline muted aria-label="{say("me.camera_label")}"></video>
  <p class="pose" data-poses="{say("me.poses")}"></p>
  <p class="row">
    <button type="button" data-js="take">{say("me.take")}</button>
    <button type="button" data-js="pose" class="second">{say("me.next_pose")}</button>
    <button type="button" data-js="close-camera" class="second">{say("me.close")}</button>
  </p>
</div>"""


def privacy_html(words: Words) -> str:
    """Where photos live, who sees them, when they go, what they are never used for."""
    say = _escaped(words)
    points = "".join(
        f"<li>{say(f'privacy.{key}')}</li>" for key in ("where", "who", "when", "never")
    )
    return f'<section class="card"><h2>{say("privacy.heading")}</h2><ul>{points}</ul></section>'


def who_html(person: Person | None, words: Words, has_anything: bool) -> str:
    """Who is enrolled, and the button that ends it."""
    if person is None:
        name, count = words("who.nobody"), ""
    else:
        name = person.name or words("who.unnamed")
        count = f'<span class="muted">{words("who.photos", count=person.photo_count)}</span>'
    forget = ""
    if has_anything:
        forget = button("forget", "", words("forget"), "danger")
    return f'<div class="who"><span class="name">{escape(name)}</span>{count}{forget}</div>'


def photos_html(cards: tuple[PhotoCard, ...], words: Words) -> str:
    """Every photo with its verdict, and what the comparison says."""
    if not cards:
        return f'<p class="muted empty">{escape(words("me.none"))}</p>'
    items = "".join(_photo_html(card, words) for card in cards)
    return f'{_comparison_html(cards, words)}<ul class="photos">{items}</ul>'


def _photo_html(card: PhotoCard, words: Words) -> str:
    report = card.report
    name = escape(report.name)
    kind = _KINDS[report.verdict]
    shown = f'<div class="nothing">{escape(words("me.no_thumbnail"))}</div>'
    if card.has_thumbnail:
        alt = escape(words("me.photo_alt", name=report.name))
        shown = f'<img src="/private/photos/{card.id}" alt="{alt}" width="120" height="120">'
    advice = " ".join(escape(sentence) for sentence in words.advice(report))
    faces = ""
    if "several_faces" in report.codes or "no_such_face" in report.codes:
        choices = "".join(
            button(f"face-{number}", card.id, words("me.face", number=number + 1), "second")
            for number in range(min(report.face_count, 12))
        )
        faces = (
            f'<p class="faces">{escape(words("me.which_face"))} '
            f'<span class="muted">({escape(words("me.from_left"))})</span> {choices}</p>'
        )
    replace = (
        f'<button type="button" class="small second" data-js="replace" data-id="{card.id}" '
        f'aria-label="{escape(words("me.replace"))}: {name}">{escape(words("me.replace"))}</button>'
    )
    remove = button(
        "remove",
        card.id,
        words("me.remove"),
        "second",
        aria_label=f"{words('me.remove')}: {report.name}",
    )
    return f"""<li class="photo {kind}">{shown}<div>
<p class="file">{name} <span class="badge {kind}">{escape(words.verdict(report.verdict))}</span></p>
<p>{advice}</p>{faces}<p class="row">{replace}{remove}</p></div></li>"""


def _comparison_html(cards: tuple[PhotoCard, ...], words: Words) -> str:
    if len(cards) < 2:
        return ""
    if not all(card.is_compared for card in cards):
        return note(words("me.comparing"))
    if any("different_person" in card.report.codes for card in cards):
        return note(words("me.other_person"), "bad")
    usable = sum(card.is_usable for card in cards)
    return note(words("me.same_person"), "good") if usable > 1 else ""


# What the handlers do; each returns one value per output named in `page.py`.


def show_photos(visitor: Visitor) -> tuple[Any, ...]:
    """Message, photos, who: as they are now."""
    return "", *_now(visitor)


def compare(visitor: Visitor) -> tuple[Any, ...]:
    """Message, photos, who: after the photos were compared."""
    cards = visitor.studio.photos()
    if all(card.is_compared for card in cards) or len(cards) < 2:
        return gr.skip(), gr.skip(), gr.skip()
    visitor.studio.compare_photos()
    return gr.skip(), *_now(visitor)


def press_photo(visitor: Visitor, action: str, id: str) -> tuple[Any, ...]:
    """A button of a photo: remove it, or say which face is meant."""
    if action == "remove":
        visitor.studio.remove_photo(id)
    elif action.startswith("face-") and action[5:].isdigit():
        visitor.studio.choose_face(id, int(action[5:]))
    return "", *_now(visitor)


def enrol(visitor: Visitor, name: str, *ticks: bool) -> tuple[Any, ...]:
    """Message, photos, who: make the photos a person."""
    words, studio = visitor.words, visitor.studio
    if len(ticks) != len(STATEMENTS) or not all(ticks):
        raise ConsentMissing(words("consent.missing"))
    consent = Consent(tuple(words(key) for key in STATEMENTS), words.language, datetime.now(UTC))
    person = studio.enrol(name or "", consent)
    said = words("consent.saved", count=person.photo_count)
    left_out = len(studio.photos()) - person.photo_count
    if left_out:
        said += " " + words("consent.left_out", count=left_out)
    return note(said, "good"), *_now(visitor)


def has_anything(visitor: Visitor) -> bool:
    """Whether there is something to forget."""
    studio = visitor.studio
    return bool(studio.person() or studio.photos() or studio.pictures())


def _now(visitor: Visitor) -> tuple[str, str]:
    studio, words = visitor.studio, visitor.words
    return (
        photos_html(studio.photos(), words),
        who_html(studio.person(), words, has_anything(visitor)),
    )


def _escaped(words: Words) -> Any:
    return lambda key: escape(words(key))
