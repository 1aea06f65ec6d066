"""The page "Gallery": the pictures of this session; stars, recipes, a zip, deletion."""

from __future__ import annotations

import io
import zipfile
from collections.abc import Sequence
from html import escape

from imagine.ui.imagining import format_html, picture_html
from imagine.ui.studio import PictureCard, Studio
from imagine.ui.words import Words


def intro_html(words: Words) -> str:
    """Heading, how long pictures live, a search in their wishes, a place to drop a picture."""
    say = {key: escape(words(f"gallery.{key}")) for key in ("heading", "intro", "search", "drop")}
    return f"""<h2>{say["heading"]}</h2><p class="lead">{say["intro"]}</p>
<div class="finder"><input type="search" id="gallery-search" data-finds="gallery"
 aria-label="{say["search"]}" placeholder="{say["search"]}" autocomplete="off">
<p class="drop small" id="gallery-drop" data-drop="verify">{say["drop"]}</p></div>"""


def gallery_html(pictures: Sequence[PictureCard], words: Words, starred_only: bool) -> str:
    """All pictures, newest first."""
    shown = [card for card in pictures if card.is_starred or not starred_only]
    if not shown:
        return f'<p class="muted empty">{escape(words("gallery.none"))}</p>'
    cards = "".join(picture_html(card, words, _chooser(card, words)) for card in shown)
    return f"""<p class="row bulk">{format_html(words)}<a class="small" data-js="zip" download
 href="/private/pictures.zip">{escape(words("gallery.zip"))}</a>
<span class="muted">{escape(words("gallery.zip_hint"))}</span>
<button type="button" class="small danger" data-js="delete-chosen" hidden
 data-says="{escape(words.raw("gallery.delete_chosen"))}"></button></p>
<p class="muted nothing-found" hidden>{escape(words("gallery.nothing_found"))}</p>
<div class="pictures">{cards}</div>"""


def zip_pictures(studio: Studio, ids: Sequence[str], suffix: str = ".png") -> bytes:
    """The marked files of pictures in one archive; all pictures when no id is given.

    Raises:
        NotStored: one of them is not here.
    """
    cards = {card.id: card for card in studio.pictures()}
    buffer = io.BytesIO()
    # Stored, not deflated: pictures are compressed already.
    with zipfile.ZipFile(buffer, "w", zipfile.ZIP_STORED) as archive:
        for number, picture_id in enumerate(ids or tuple(cards), 1):
            data = studio.picture(picture_id, suffix)
            archive.writestr(file_name(number, cards[picture_id], suffix), data)
    return buffer.getvalue()


def file_name(number: int, card: PictureCard, suffix: str = ".png") -> str:
    """A name that says nothing of the person or the wish."""
    return f"imagine-{number:03d}-seed-{card.recipe.seed}{suffix}"


def _chooser(card: PictureCard, words: Words) -> str:
    label = escape(words("picture.choose"))
    return f'<label class="choose"><input type="checkbox" data-choose="{card.id}"> {label}</label>'
