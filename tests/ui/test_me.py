from __future__ import annotations

from collections.abc import Iterator
from datetime import UTC, datetime, timedelta
from html import unescape
from typing import Any, cast

import pytest

pytest.importorskip("gradio", reason="needs the extra ui: pip install -e '.[ui]'")

from imagine.errors import ConsentMissing, InvalidInput
from imagine.ui import me
from imagine.ui.desk import Visitor
from imagine.ui.imagining import Form, begin_wish, read_form
from imagine.ui.local import LocalStudio, LocalStudios
from imagine.ui.studio import Consent, OpenWish, Person
from imagine.ui.words import LANGUAGES, Words
from tests.ui.conftest import selfie


@pytest.fixture
def visitor(studios: LocalStudios) -> Iterator[Visitor]:
    """Ada, enrolled, at the page."""
    somebody = Visitor(studios.open(), Words("en"))
    somebody.studio.add_photo(selfie(), "me.jpg")
    me.enrol(somebody, "<Ada>", True, True)
    yield somebody
    somebody.studio.close()


def test_nobody_is_enrolled_before_both_boxes_are_ticked(studios: LocalStudios) -> None:
    somebody = Visitor(studios.open(), Words("en"))
    somebody.studio.add_photo(selfie(), "me.jpg")
    for ticks in ((True, False), (False, True), (), (True,)):
        with pytest.raises(ConsentMissing, match="Tick both"):
            me.enrol(somebody, "Ada", *ticks)
    assert me.people_html(somebody) == ""


def test_what_was_agreed_to_is_shown_with_its_date_and_its_way_out(visitor: Visitor) -> None:
    html = me.agreement_html(visitor)
    person = visitor.studio.person()
    assert person is not None
    assert str(person.consent.given_at.year) in html and "These photos show me" in html
    assert f'data-action="withdraw" data-id="{person.id}"' in html
    assert "/private/export.zip" in html
    answer = me.press_agreement(visitor, "withdraw", person.id)
    assert "has ended" in answer["me_note"]
    assert "withdraw" not in answer["agreement"] and visitor.studio.people() == ()


def test_a_newcomer_ticks_for_themselves(visitor: Visitor) -> None:
    answer = me.press_person(visitor, "add-person", "")
    assert (answer["tick_0"], answer["tick_1"], answer["name"]) == (False, False, "")
    assert "read and tick the boxes themselves" in answer["people"]
    (ada,) = visitor.studio.people()
    answer = me.press_person(visitor, "choose-person", ada.id)
    assert answer["name"] == "<Ada>" and answer["tick_0"] is False
    assert me.press_person(visitor, "else", "") == {}


def test_a_name_cannot_become_markup(visitor: Visitor) -> None:
    html = me.people_html(visitor) + me.who_html(visitor)
    assert "&lt;Ada&gt;" in html and "<Ada>" not in html


def test_a_studio_for_one_offers_no_second_person(
    visitor: Visitor, monkeypatch: pytest.MonkeyPatch
) -> None:
    from dataclasses import replace

    alone = replace(visitor.studio.limits, max_people=1)
    monkeypatch.setattr(LocalStudio, "limits", alone)
    assert me.people_html(visitor) == ""


def test_the_camera_hears_at_once_what_we_think(visitor: Visitor) -> None:
    card = visitor.studio.add_photo(b"milk", "camera-1.jpg")
    facts = me.photo_facts(card, visitor.words)
    assert facts["kind"] == "refused" and facts["verdict"] == "Left out" and facts["advice"]


@pytest.mark.parametrize("language", LANGUAGES)
def test_the_camera_guides_through_four_poses_in_every_language(language: str) -> None:
    html = me.upload_html(Words(language))
    assert html.count('data-js="pose"') == len(me.POSES) == 4


class Ended:
    """A studio of somebody whose agreement has run out; it draws nobody."""

    def __init__(self) -> None:
        yesterday = datetime.now(UTC) - timedelta(days=1)
        agreed = Consent(("It is me.",), "en", yesterday - timedelta(days=365), ends_at=yesterday)
        self.ada = Person("Ada", 2, agreed, "p1", can_be_checked=True)

    def person(self) -> Person:
        return self.ada

    def people(self) -> tuple[Person, ...]:
        return (self.ada,)

    def photos(self) -> tuple[object, ...]:
        return ()

    pictures = photos


@pytest.mark.parametrize("language", LANGUAGES)
def test_an_agreement_that_ran_out_is_said_and_asked_for_anew(language: str) -> None:
    visitor = Visitor(cast("Any", Ended()), Words(language, "service"))
    said = visitor.words("consent.ended", name="Ada")
    page = unescape(me.agreement_html(visitor))
    assert said in page and "camera-check" not in page and 'data-js="imagine"' not in page
    for wish in (OpenWish("in a forest"), OpenWish("in a forest", person="p1")):
        with pytest.raises(ConsentMissing) as caught:
            begin_wish(visitor, wish)
        # The very sentence and not what is said of any missing consent.
        assert visitor.words.error(caught.value) == said


@pytest.mark.parametrize("language", LANGUAGES)
def test_what_a_form_lacks_is_said_in_the_visitors_language(language: str) -> None:
    words = Words(language)
    with pytest.raises(InvalidInput) as caught:
        read_form(words, Form("  "))
    assert words.error(caught.value) == words("wish.empty")
