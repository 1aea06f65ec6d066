from __future__ import annotations

import asyncio
import io
import json
import time
import zipfile
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from PIL import Image

from imagine.core import PhotoVerdict
from imagine.errors import (
    Busy,
    ConsentMissing,
    InvalidInput,
    NotStored,
    PictureWithheld,
    PromptBlocked,
    UnreadablePhoto,
)
from imagine.pipeline import Picture
from imagine.provenance import HASHES_FILE, MARKS_FOLDER, HashFile, perceptual_hash
from imagine.ui import local
from imagine.ui.local import LocalStudio, LocalStudios
from imagine.ui.studio import Moment, OpenWish, Stage, Studio, Studios
from imagine.ui.styles import styles_of
from tests.ui.conftest import AGREED, selfie

FLAT = io.BytesIO()
Image.new("RGB", (300, 300), "grey").save(FLAT, "PNG")
NO_FACE = FLAT.getvalue()


@pytest.fixture
def studio(studios: LocalStudios) -> LocalStudio:
    return studios.open()


@pytest.fixture
def me(studio: LocalStudio) -> LocalStudio:
    """A studio whose person is enrolled."""
    studio.add_photo(selfie(), "me.jpg")
    studio.enrol("Ada", AGREED)
    return studio


def watched(studio: LocalStudio) -> list[Moment]:
    async def collect() -> list[Moment]:
        return [moment async for moment in studio.watch()]

    return asyncio.run(collect())


def wait_for(true: Callable[[], bool]) -> None:
    until = time.monotonic() + 120
    while not true():
        assert time.monotonic() < until
        time.sleep(0.02)


def drawn(studio: LocalStudio, wish: OpenWish) -> Moment:
    studio.draw(wish)
    return watched(studio)[-1]


def test_it_is_what_the_pages_ask_for(studios: LocalStudios) -> None:
    assert isinstance(studios, Studios)
    assert isinstance(studios.open(), Studio)


def test_a_photo_is_judged_at_once_and_by_its_own_name(studio: LocalStudio) -> None:
    good, bad = studio.add_photo(selfie(), "me.jpg"), studio.add_photo(NO_FACE, "wall.png")
    assert good.is_usable and good.report.name == "me.jpg"
    assert bad.report.verdict is PhotoVerdict.REFUSE and "no_face" in bad.report.codes
    unreadable = studio.add_photo(b"milk", "list.jpg")
    assert not unreadable.has_thumbnail and "list.jpg" in unreadable.report.sentences[0]


def test_two_photos_of_one_name_are_told_apart(studio: LocalStudio) -> None:
    names = [studio.add_photo(selfie(number=n), "me.jpg").report.name for n in (1, 2)]
    assert names == ["me.jpg", "me.jpg (2)"]


def test_photos_are_compared_with_each_other(studio: LocalStudio) -> None:
    for number in (1, 1, 1):
        studio.add_photo(selfie(number=number), "me.jpg")
    stranger = studio.add_photo(selfie("c", 4), "other.jpg")
    assert stranger.is_usable
    compared = {card.report.name: card for card in studio.compare_photos()}
    assert all(card.is_compared for card in compared.values())
    assert "different_person" in compared["other.jpg"].report.codes
    assert "other.jpg" in compared["other.jpg"].report.sentences[0]


def test_more_photos_than_are_used_are_refused(studio: LocalStudio) -> None:
    cards = [studio.add_photo(selfie(number=1 + i % 4), f"{i}.jpg") for i in range(5)]
    with pytest.raises(InvalidInput, match="5 photos already"):
        studio.add_photo(selfie(), "six.jpg")
    new = studio.add_photo(selfie("b"), "new.jpg", replaces=cards[2].id)
    assert [card.id for card in studio.photos()][2] == new.id
    assert len(studio.photos()) == 5


def test_a_thumbnail_carries_no_metadata(studio: LocalStudio) -> None:
    picture = Image.open(io.BytesIO(selfie()))
    exif = picture.getexif()
    exif[0x010E] = "at home"
    exif.get_ifd(0x8825)[1] = "N"
    with_place = io.BytesIO()
    picture.save(with_place, "JPEG", exif=exif)
    assert b"at home" in with_place.getvalue()
    card = studio.add_photo(with_place.getvalue(), "me.jpg")
    shown = studio.photo(card.id)
    assert b"at home" not in shown and not Image.open(io.BytesIO(shown)).getexif()


def test_nobody_is_enrolled_without_agreeing(studio: LocalStudio) -> None:
    studio.add_photo(selfie(), "me.jpg")
    with pytest.raises(ConsentMissing, match="Tick"):
        studio.enrol("Ada", replace(AGREED, statements=()))
    assert studio.person() is None


def test_refused_photos_take_no_part(studio: LocalStudio) -> None:
    studio.add_photo(NO_FACE, "wall.png")
    with pytest.raises(InvalidInput, match="no photo that can be used"):
        studio.enrol("Ada", AGREED)
    studio.add_photo(selfie(), "me.jpg")
    person = studio.enrol("  Ada  ", AGREED)
    assert (person.name, person.photo_count) == ("Ada", 1)
    assert "Ada" not in repr(person)


def test_pictures_arrive_one_by_one(me: LocalStudio) -> None:
    me.draw(OpenWish("in a forest", count=2, seed=7))
    moments = watched(me)
    counts = [len(moment.pictures) for moment in moments]
    assert counts == sorted(counts) and set(counts) == {0, 1, 2}
    assert moments[-1].stage is Stage.DONE
    assert any(moment.preview for moment in moments)
    steps = [moment.step for moment in moments]
    assert steps == sorted(steps) and steps[-1] == moments[-1].num_steps
    assert [card.recipe.seed for card in moments[-1].pictures] == [7, 8]


def test_candidates_of_different_pictures_are_different(me: LocalStudio) -> None:
    wish = OpenWish("in a forest", count=2, seed=7, best_of=2, num_inference_steps=1)
    seeds = [card.recipe.seed for card in drawn(me, wish).pictures]
    assert seeds[0] in (7, 8) and seeds[1] in (9, 10)


def test_a_preview_is_a_small_picture_for_a_moment(me: LocalStudio) -> None:
    me.draw(OpenWish("in a forest"))
    until = time.monotonic() + 120
    while not (moment := me.drawing()) or not moment.preview:
        assert time.monotonic() < until
        time.sleep(0.02)
    shown = Image.open(io.BytesIO(me.preview(moment.preview)))
    assert max(shown.size) <= 128
    watched(me)
    with pytest.raises(NotStored):
        me.preview(moment.preview)


def test_stopping_keeps_what_is_finished(me: LocalStudio) -> None:
    me.draw(OpenWish("in a forest", count=8))
    until = time.monotonic() + 120
    while not (moment := me.drawing()) or not moment.pictures:
        assert time.monotonic() < until
        time.sleep(0.02)
    me.stop()
    last = watched(me)[-1]
    assert last.stage is Stage.STOPPED
    assert 1 <= len(last.pictures) == len(me.pictures()) < 8


def test_one_wish_at_a_time(me: LocalStudio) -> None:
    me.draw(OpenWish("in a forest", count=4))
    with pytest.raises(Busy, match="stop it"):
        me.draw(OpenWish("on a beach"))
    me.stop()


@pytest.mark.parametrize(
    ("wish", "kind", "says"),
    [
        (OpenWish("me naked"), PromptBlocked, "."),
        (OpenWish("x", count=0), InvalidInput, "count is 0"),
        (OpenWish("x", likeness=1.5), InvalidInput, "likeness is 1.5"),
        (OpenWish("x", seed=-1), InvalidInput, "seed is -1"),
        (OpenWish("x", num_inference_steps=9999), InvalidInput, "num_inference_steps"),
        (OpenWish("x", guidance_scale=99), InvalidInput, "guidance_scale"),
        (OpenWish("x", best_of=99), InvalidInput, "best_of"),
        (OpenWish("x" * 5000), InvalidInput, "1000"),
    ],
)
def test_a_wish_out_of_bounds_is_refused_before_anything_is_drawn(
    me: LocalStudio, wish: OpenWish, kind: type[Exception], says: str
) -> None:
    with pytest.raises(kind, match=says):
        me.draw(wish)
    assert me.drawing() is None


def test_there_must_be_somebody_to_draw(studio: LocalStudio) -> None:
    with pytest.raises(ConsentMissing, match="Add your photos"):
        studio.draw(OpenWish("in a forest"))


def test_a_failing_model_is_told_and_not_quoted(
    me: LocalStudio, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    def broken(*args: object, **more: object) -> None:
        raise RuntimeError("secret words of the wish")

    monkeypatch.setattr("imagine.ui.local.make_pictures", broken)
    last = drawn(me, OpenWish("in a forest"))
    assert last.stage is Stage.FAILED and "another seed" in str(last.error)
    assert "secret words" not in caplog.text + str(last.error)


def test_stars_and_deletion(me: LocalStudio) -> None:
    (card,) = drawn(me, OpenWish("in a forest", num_inference_steps=1)).pictures
    assert me.star(card.id, True).is_starred and me.pictures()[0].is_starred
    me.delete_picture(card.id)
    assert me.pictures() == ()
    moment = me.drawing()
    assert moment is not None and moment.pictures == ()
    with pytest.raises(NotStored):
        me.picture(card.id)


@pytest.mark.parametrize("way", ["delete", "forget"])
def test_what_was_deleted_is_no_longer_known_by_its_looks(me: LocalStudio, way: str) -> None:
    (card,) = drawn(me, OpenWish("in a forest", num_inference_steps=1)).pictures
    folder = me._models.settings.data_directory / MARKS_FOLDER
    folder.mkdir(parents=True, exist_ok=True)
    looks = HashFile(folder / HASHES_FILE)
    looks.add(card.recipe.record, perceptual_hash(np.asarray(Image.open(io.BytesIO(selfie())))))
    assert looks.read().hashes_of(card.recipe.record)
    me.delete_picture(card.id) if way == "delete" else me.forget()
    assert not looks.read().hashes_of(card.recipe.record)


def test_a_picture_leaves_marked(me: LocalStudio, studios: LocalStudios) -> None:
    (card,) = drawn(me, OpenWish("in a forest, sepia", seed=3)).pictures
    for suffix in (".png", ".jpg", ".webp"):
        origin = studios.verify(me.picture(card.id, suffix), f"p{suffix}")
        assert origin.recipe == card.recipe
        assert origin.report.says_generated


def test_a_shape_is_drawn_where_the_model_has_it(me: LocalStudio) -> None:
    me._models.load()
    assert me.limits.shapes[0] == "1:1" and "4:3" in me.limits.shapes
    (card,) = drawn(me, OpenWish("in a forest", num_inference_steps=1, aspect_ratio="4:3")).pictures
    assert card.width > card.height and card.recipe.aspect_ratio == "4:3"
    moment = drawn(me, OpenWish("in a forest", aspect_ratio="7:5"))
    assert moment.stage is Stage.FAILED and "7:5" in str(moment.error)


def test_a_picture_without_a_recipe_is_read_too(studios: LocalStudios) -> None:
    assert studios.verify(selfie(), "me.jpg").recipe is None
    with pytest.raises(UnreadablePhoto):
        studios.verify(b"not a picture", "me.jpg")


def test_forgetting_overwrites_the_person_and_the_pictures(me: LocalStudio) -> None:
    drawn(me, OpenWish("in a forest", num_inference_steps=1))
    identity = me._desk.identity
    pixels = [kept.picture.marked.pixels for kept in me._kept.values()]
    assert identity is not None and identity.crops.any() and pixels[0].any()
    me.forget()
    assert not identity.crops.any() and not identity.embeddings.any()
    assert not pixels[0].any()
    assert not (me.photos() or me.person() or me.pictures() or me.drawing())


def test_forgetting_while_drawing_keeps_nothing(me: LocalStudio) -> None:
    me.draw(OpenWish("in a forest", count=4))
    drawing = me._drawing
    assert drawing is not None
    me.forget()
    until = time.monotonic() + 120
    while not drawing.moment.is_final:
        assert time.monotonic() < until
        time.sleep(0.02)
    assert drawing.moment.stage is Stage.STOPPED
    assert me.pictures() == ()
    # The thread says that it has ended and then wipes its copies.
    wait_for(lambda: not any(copy.crops.any() for copy in drawing._people))


def test_skipping_gives_up_one_picture_and_goes_on_with_the_next(me: LocalStudio) -> None:
    me.draw(OpenWish("in a forest", count=3, seed=7, num_inference_steps=8))
    wait_for(lambda: (moment := me.drawing()) is not None and moment.step >= 1)
    me.skip()
    last = watched(me)[-1]
    assert last.stage is Stage.DONE and last.skipped == 1
    assert [card.recipe.seed for card in last.pictures] == [8, 9]
    assert last.step == last.num_steps


def test_skipping_when_nothing_is_drawn_skips_nothing_later(me: LocalStudio) -> None:
    me.skip()
    drawn(me, OpenWish("in a forest", num_inference_steps=1))
    me.skip()
    last = drawn(me, OpenWish("in a forest", num_inference_steps=1))
    assert last.skipped == 0 and len(last.pictures) == 1


def test_a_picture_that_may_not_leave_does_not_end_the_others(
    me: LocalStudio, monkeypatch: pytest.MonkeyPatch
) -> None:
    make, calls = local.make_pictures, []

    def first_is_withheld(*args: Any) -> list[Picture]:
        calls.append(args)
        if len(calls) == 1:
            raise PictureWithheld("Not this one.")
        return make(*args)

    monkeypatch.setattr(local, "make_pictures", first_is_withheld)
    last = drawn(me, OpenWish("in a forest", count=2, num_inference_steps=1))
    assert last.stage is Stage.DONE and last.withheld == 1 and len(last.pictures) == 1
    calls.clear()
    last = drawn(me, OpenWish("in a forest", count=1, num_inference_steps=1))
    assert last.stage is Stage.FAILED and isinstance(last.error, PictureWithheld)


def test_everybody_has_photos_and_an_agreement_of_their_own(me: LocalStudio) -> None:
    (ada,) = me.people()
    photo = me.photos()[0].id
    me.add_person()
    assert me.person() is None and me.photos() == ()
    with pytest.raises(ConsentMissing):
        me.draw(OpenWish("in a forest"))
    me.add_photo(selfie("b"), "ben.jpg")
    ben = me.enrol("Ben", AGREED)
    assert [person.name for person in me.people()] == ["Ada", "Ben"]
    assert me.person() == ben and len(me.photos()) == 1
    assert me.photo(photo)  # of Ada, to compare with
    me.choose_person(ada.id)
    assert me.person() == ada and me.photos()[0].id == photo
    prints = {
        drawn(me, OpenWish("x", num_inference_steps=1, person=person.id))
        .pictures[0]
        .recipe.identity_fingerprint
        for person in (ada, ben)
    }
    assert len(prints) == 2


def test_a_newcomer_who_does_not_stay_is_forgotten(me: LocalStudio) -> None:
    (ada,) = me.people()
    me.add_person()
    photo = me.add_photo(selfie("b"), "ben.jpg")
    me.choose_person(ada.id)
    with pytest.raises(NotStored):
        me.photo(photo.id)
    for person in ("nobody", photo.id):
        with pytest.raises(NotStored):
            me.choose_person(person)


def test_only_so_many_people_are_taken(me: LocalStudio) -> None:
    while len(me.people()) < me.limits.max_people:
        me.add_person()
        me.add_photo(selfie("b"), "ben.jpg")
        me.enrol("", AGREED)
    with pytest.raises(InvalidInput, match="people already"):
        me.add_person()


def test_a_person_does_not_stand_beside_themselves(me: LocalStudio) -> None:
    (ada,) = me.people()
    with pytest.raises(InvalidInput, match="chosen twice"):
        me.draw(OpenWish("in a forest", beside=ada.id))
    with pytest.raises(NotStored):
        me.draw(OpenWish("in a forest", beside="nobody"))


def test_two_people_stand_in_one_picture_and_each_is_judged(me: LocalStudio) -> None:
    me.add_person()
    me.add_photo(selfie("b"), "ben.jpg")
    ben = me.enrol("Ben", AGREED)
    ada = me.people()[0]
    wish = OpenWish("in a forest", person=ada.id, beside=ben.id, num_inference_steps=2)
    (card,) = drawn(me, wish).pictures
    assert card.pair is not None and card.pair.left == card.verdict
    prints = [card.recipe.identity_fingerprint, card.recipe.beside_fingerprint]
    swapped = OpenWish("in a forest", person=ben.id, beside=ada.id, num_inference_steps=2)
    (other,) = drawn(me, swapped).pictures
    assert [other.recipe.beside_fingerprint, other.recipe.identity_fingerprint] == prints


def test_switched_traits_reach_the_recipe_and_impossible_ones_are_refused(me: LocalStudio) -> None:
    wish = OpenWish("in a forest", change={"glasses": "none"}, num_inference_steps=1)
    (card,) = drawn(me, wish).pictures
    assert card.recipe.traits == "glasses=none" and card.wish == wish
    for bad in ({"change": {"glasses": "monocle"}}, {"keep": ("beard",)}):
        with pytest.raises(InvalidInput, match="trait"):
            me.draw(OpenWish("in a forest", **bad))  # type: ignore[arg-type]


def test_withdrawing_destroys_the_person_and_keeps_the_pictures(me: LocalStudio) -> None:
    drawn(me, OpenWish("in a forest", num_inference_steps=1))
    (ada,), identity = me.people(), me._desk.identity
    assert identity is not None
    me.withdraw(ada.id)
    assert not identity.crops.any() and not identity.embeddings.any()
    assert (me.people(), me.person(), me.photos()) == ((), None, ())
    assert len(me.pictures()) == 1
    with pytest.raises(ConsentMissing):
        me.draw(OpenWish("in a forest"))
    with pytest.raises(NotStored):
        me.withdraw(ada.id)


def test_everything_can_be_taken_along(me: LocalStudio) -> None:
    drawn(me, OpenWish("in a forest", seed=3, num_inference_steps=1))
    me.add_person()
    me.add_photo(selfie("b"), "..\\my/photo?.jpg")
    archive = zipfile.ZipFile(io.BytesIO(me.export()))
    names = archive.namelist()
    assert "photos/person-1/1-me.jpg" in names and "pictures/001-seed-3.png" in names
    assert all(".." not in Path(name).parts for name in names)
    assert archive.read("photos/person-1/1-me.jpg") == selfie()
    ada, newcomer = json.loads(archive.read("people.json"))
    assert ada["name"] == "Ada" and ada["agreement"]["statements"] == list(AGREED.statements)
    assert newcomer["agreement"] is None and len(newcomer["photos"]) == 1
    (picture,) = json.loads(archive.read("pictures.json"))
    assert picture["recipe"]["prompt"] == "in a forest"
    assert Image.open(archive.open("pictures/001-seed-3.png")).size == (128, 128)


def test_nobody_takes_reports_on_ones_own_computer(me: LocalStudio) -> None:
    assert not me.limits.takes_reports
    with pytest.raises(InvalidInput, match="own computer"):
        me.report("any", "other", "")


def test_the_styles_are_those_the_model_can_draw(studio: LocalStudio) -> None:
    assert studio.limits.styles == styles_of("embedded")
    assert set(styles_of("embedded")) < set(styles_of("sdxl_faceid"))
