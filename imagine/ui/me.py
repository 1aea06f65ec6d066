"""The page "Me": photos by upload or camera, advice for each, agreement, and the way back out."""

from __future__ import annotations

from datetime import UTC, datetime
from html import escape
from typing import Any

from imagine.core import PhotoVerdict
from imagine.errors import ConsentMissing
from imagine.ui.desk import Visitor, note
from imagine.ui.regions import button
from imagine.ui.studio import Consent, Person, PhotoCard
from imagine.ui.words import Spoken, Words

STATEMENTS = ("consent.me", "consent.face")
# What a service may also be allowed: name of the tick -> the sentence beside it.
OPTIONAL = {"keep_photos": "consent.keep_photos", "review": "consent.review"}
SENTENCES = (*STATEMENTS, *OPTIONAL.values())
POSES = ("straight", "left", "right", "smile")
_KINDS = {
    PhotoVerdict.KEEP: "good",
    PhotoVerdict.KEEP_WITH_ADVICE: "advice",
    PhotoVerdict.REFUSE: "refused",
}
# A face of a few strokes for each pose: how far its features move, and its mouth.
_FEATURES = {"straight": 0, "left": -4, "right": 4, "smile": 0}
_MOUTHS = {"smile": "M11 19q5 5 10 0"}


class NotAgreed(Spoken, ConsentMissing):
    """Nobody agreed, or not any more; says so in the visitor's language."""


def upload_html(words: Words) -> str:
    """Where photos come in: files or camera. The script does the rest."""
    say = _escaped(words)
    poses = "".join(_pose_html(pose, words) for pose in POSES)
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
<section class="camera" hidden aria-label="{say("me.camera_label")}">
  <div class="stage"><video playsinline muted aria-label="{say("me.camera_label")}"></video>
    <svg class="oval" viewBox="0 0 400 300" aria-hidden="true"><ellipse cx="200" cy="145" rx="82"
      ry="110"/></svg></div>
  <p class="pose"></p>
  <ol class="poses">{poses}</ol>
  <p class="answer" hidden></p>
  <p class="row">
    <button type="button" data-js="take" data-first="{say("me.take")}"
      data-again="{say("me.retake")}">{say("me.take")}</button>
    <button type="button" data-js="close-camera" class="second">{say("me.close")}</button>
  </p>
</section>"""


def _pose_html(pose: str, words: Words) -> str:
    x = _FEATURES[pose]
    mouth = _MOUTHS.get(pose, "M12 20h8")
    face = (
        '<svg viewBox="0 0 32 32" aria-hidden="true"><ellipse cx="16" cy="16" rx="10.5" ry="13"/>'
        f'<g transform="translate({x} 0)"><circle cx="12" cy="13" r="1.2"/>'
        f'<circle cx="20" cy="13" r="1.2"/><path d="M16 13v4"/><path d="{mouth}"/></g></svg>'
    )
    said = escape(words(f"me.pose.{pose}"))
    short = escape(words(f"me.pose_name.{pose}"))
    return (
        f'<li><button type="button" data-js="pose" data-says="{said}">{face}<span>{short}</span>'
        '<span class="mark" aria-hidden="true"></span></button></li>'
    )


def privacy_html(words: Words) -> str:
    """Where photos live, who sees them, when they go, what they are never used for."""
    say = _escaped(words)
    points = "".join(
        f"<li>{say(f'privacy.{key}')}</li>" for key in ("where", "who", "when", "never")
    )
    return f'<section class="card"><h2>{say("privacy.heading")}</h2><ul>{points}</ul></section>'


def who_html(visitor: Visitor) -> str:
    """Who is enrolled, and the button that ends it all."""
    studio, words = visitor.studio, visitor.words
    person = studio.person()
    if person is None:
        name, count = words("who.nobody"), ""
    else:
        name = person.name or words("who.unnamed")
        count = f'<span class="muted">{words("who.photos", count=person.photo_count)}</span>'
    forget = ""
    if has_anything(visitor):
        forget = button("forget", "", words("forget"), "danger")
    return f'<div class="who"><span class="name">{escape(name)}</span>{count}{forget}</div>'


def people_html(visitor: Visitor) -> str:
    """Everybody enrolled, whose photos are shown, and a place for one more."""
    studio, words = visitor.studio, visitor.words
    people, at_desk = studio.people(), studio.person()
    if studio.limits.max_people < 2 or not people:
        return ""
    buttons = [
        button(
            "choose-person",
            person.id,
            name_of(person, words),
            "second chip",
            aria_pressed=str(at_desk is not None and person.id == at_desk.id).lower(),
        )
        for person in people
    ]
    hint = words("people.hint")
    if at_desk is None:
        buttons.append(button("", "", words("people.new"), "second chip", aria_pressed="true"))
        hint = words("people.themselves")
    elif len(people) < studio.limits.max_people:
        buttons.append(button("add-person", "", "+ " + words("people.add"), "second chip"))
    return (
        f'<section class="people" aria-label="{escape(words("people.heading"))}">'
        f'<p class="row">{"".join(buttons)}</p><p class="muted">{escape(hint)}</p></section>'
    )


def has_ended(person: Person) -> bool:
    """Whether the agreement has run out."""
    ends_at = person.consent.ends_at
    return ends_at is not None and ends_at <= datetime.now(UTC)


def name_of(person: Person, words: Words) -> str:
    """What a person is called on the page."""
    return person.name or words("who.unnamed")


def agreement_html(visitor: Visitor) -> str:
    """What was agreed to and when, the way out of it, and all of it to take along."""
    words, person = visitor.words, visitor.studio.person()
    parts = []
    if person is not None:
        given = person.consent.given_at.astimezone().strftime("%Y-%m-%d %H:%M")
        statements = "".join(f"<li>{escape(each)}</li>" for each in person.consent.statements)
        withdraw = button("withdraw", person.id, words("consent.withdraw"), "danger")
        parts.append(
            f"{_greeting_html(person, words)}"
            f"<p><strong>{escape(words('consent.given', when=given))}</strong></p>"
            f'<ul lang="{person.consent.language}">{statements}</ul>'
            f"{_end_html(person, words)}"
            f'<p class="muted">{escape(words("consent.withdraw_hint"))}</p>'
            f'<p class="row">{withdraw}</p>'
        )
    if has_anything(visitor):
        parts.append(
            f'<p class="muted">{escape(words("export.hint"))}</p>'
            f'<p class="row"><a class="small second" href="/private/export.zip" download>'
            f"{escape(words('export.all'))}</a></p>"
        )
    return f'<div class="card agreement">{"".join(parts)}</div>' if parts else ""


def _greeting_html(person: Person, words: Words) -> str:
    """What comes next: a wish, or a new agreement."""
    name = name_of(person, words)
    if has_ended(person):
        return note(words("consent.ended", name=name), "bad")
    return (
        f'<div class="greeting"><h2>{escape(words("me.ready", name=name))}</h2>'
        f'<button type="button" data-js="imagine">{escape(words("me.imagine"))}</button></div>'
        f"{standing_html(person, words)}"
    )


def _end_html(person: Person, words: Words) -> str:
    ends_at = person.consent.ends_at
    if ends_at is None or has_ended(person):
        return ""
    when = ends_at.astimezone().strftime("%Y-%m-%d")
    return f'<p class="muted">{escape(words("consent.ends", when=when))}</p>'


def standing_html(person: Person, words: Words) -> str:
    """On the page "Me": passed, or the way there; nothing where there is no such check."""
    if person.verified_at is None and person.can_be_checked:
        link = f"/camera-check?person={escape(person.id)}"
        body = (
            f'<p class="muted">{escape(words("check.hint"))}</p><p class="row">'
            f'<a class="small second" href="{link}">{escape(words("check.take"))}</a></p>'
        )
    elif person.verified_at is not None:
        when = person.verified_at.astimezone().strftime("%Y-%m-%d")
        said = escape(words("check.passed_on", when=when))
        body = f'<p><span class="badge good">\u2713 {said}</span></p>'
    else:
        return ""
    if person.waits_for_review:
        body = f'<p class="note">{escape(words("check.held"))}</p>{body}'
    return f'<div class="standing">{body}</div>'


def photos_html(cards: tuple[PhotoCard, ...], words: Words, is_enrolled: bool = False) -> str:
    """Every photo with its verdict, and what the comparison says."""
    if not cards:
        said = words("me.none_but_enrolled" if is_enrolled else "me.none")
        return f'<p class="muted empty">{escape(said)}</p>'
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
    return f"""<li class="photo {kind}" data-photo="{card.id}">{shown}<div>
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


def photo_facts(card: PhotoCard, words: Words) -> dict[str, str]:
    """What the camera says of the photo it just took."""
    return {
        "id": card.id,
        "kind": _KINDS[card.report.verdict],
        "verdict": words.verdict(card.report.verdict),
        "advice": " ".join(words.advice(card.report)),
    }


# What the handlers do; each returns what changed, by the names in `page.py`.


def show_photos(visitor: Visitor) -> dict[str, Any]:
    """The photos as they are now."""
    return {"me_note": "", **shown(visitor)}


def compare(visitor: Visitor) -> dict[str, Any]:
    """The photos after they were compared."""
    cards = visitor.studio.photos()
    if all(card.is_compared for card in cards) or len(cards) < 2:
        return {}
    visitor.studio.compare_photos()
    return shown(visitor)


def press_photo(visitor: Visitor, action: str, id: str) -> dict[str, Any]:
    """A button of a photo: remove it, or say which face is meant."""
    if action == "remove":
        visitor.studio.remove_photo(id)
    elif action.startswith("face-") and action[5:].isdigit():
        visitor.studio.choose_face(id, int(action[5:]))
    return {"me_note": "", **shown(visitor)}


def press_person(visitor: Visitor, action: str, id: str) -> dict[str, Any]:
    """Somebody else comes to the desk, or a newcomer does; they tick for themselves."""
    studio = visitor.studio
    if action == "add-person":
        studio.add_person()
    elif action == "choose-person":
        studio.choose_person(id)
    else:
        return {}
    return {"me_note": "", **shown(visitor), **fresh_agreement(visitor)}


def enrol(visitor: Visitor, name: str, *ticks: bool) -> dict[str, Any]:
    """Make the photos a person."""
    words, studio = visitor.words, visitor.studio
    needed, further = ticks[: len(STATEMENTS)], ticks[len(STATEMENTS) :]
    if len(needed) != len(STATEMENTS) or not all(needed):
        raise NotAgreed(words("consent.missing"))
    allowed = tuple(name for name, ticked in zip(OPTIONAL, further, strict=False) if ticked)
    sentences = (*STATEMENTS, *(OPTIONAL[name] for name in allowed))
    shown_words = tuple(words(key) for key in sentences)
    consent = Consent(shown_words, words.language, datetime.now(UTC), frozenset(allowed))
    person = studio.enrol(name or "", consent)
    said = words("consent.saved", count=person.photo_count)
    left_out = len(studio.photos()) - person.photo_count
    if left_out > 0:
        said += " " + words("consent.left_out", count=left_out)
    return {"me_note": note(said, "good"), **shown(visitor)}


def press_agreement(visitor: Visitor, action: str, id: str) -> dict[str, Any]:
    """End the agreement of whoever is at the desk."""
    if action != "withdraw":
        return {}
    visitor.studio.withdraw(id)
    said = note(visitor.words("consent.withdrawn"), "good")
    return {"me_note": said, **shown(visitor), **fresh_agreement(visitor)}


def has_anything(visitor: Visitor) -> bool:
    """Whether there is something to forget."""
    studio = visitor.studio
    return bool(studio.people() or studio.photos() or studio.pictures())


def shown(visitor: Visitor) -> dict[str, Any]:
    """Everything of this page that depends on photos and people, as it stands."""
    studio = visitor.studio
    return {
        "photos": photos_html(studio.photos(), visitor.words, studio.person() is not None),
        "who": who_html(visitor),
        "people": people_html(visitor),
        "agreement": agreement_html(visitor),
    }


def fresh_agreement(visitor: Visitor) -> dict[str, Any]:
    """Nobody ticks for somebody else: empty boxes, and the name of whoever is at the desk."""
    person = visitor.studio.person()
    ticks = {f"tick_{number}": False for number in range(len(SENTENCES))}
    return {**ticks, "name": person.name if person is not None else ""}


def _escaped(words: Words) -> Any:
    return lambda key: escape(words(key))
