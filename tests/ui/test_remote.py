from __future__ import annotations

import io
import zipfile
from collections.abc import Iterator
from pathlib import Path

import pytest
from PIL import Image

from imagine.errors import Busy, ConsentMissing, InvalidInput, KeyRefused, NotStored, PromptBlocked
from imagine.provenance import Provenance
from imagine.service.auth import Caller, scopes_of
from imagine.service.wiring import Service
from imagine.storage.consent import ConsentForm, Purpose
from imagine.ui.gallery import zip_pictures
from imagine.ui.remote import RemoteStudio, RemoteStudios
from imagine.ui.studio import OpenWish, Stage, Studio, Studios
from tests.ui.conftest import AGREED, selfie
from tests.ui.house import make_service, until


@pytest.fixture(scope="module")
def service(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Service]:
    made = make_service(tmp_path_factory.mktemp("service"))
    for tenant in ("acme", "other"):
        made.people.add_tenant(tenant, tenant)
    made.start()
    yield made
    made.close()


def studio_of(
    service: Service, account: str, tenant: str = "acme", role: str = "user"
) -> RemoteStudio:
    return RemoteStudios(service).open_for(Caller(tenant, account, scopes_of(role)))


@pytest.fixture
def ada(service: Service) -> Iterator[RemoteStudio]:
    """Somebody enrolled, whose things are gone at the end."""
    studio = studio_of(service, "key_ada")
    studio.add_photo(selfie(), "me.jpg")
    studio.enrol("Ada", AGREED)
    yield studio
    studio.forget()


def finished(studio: RemoteStudio) -> Stage:
    def final() -> Stage | None:
        moment = studio.drawing()
        return moment.stage if moment is not None and moment.is_final else None

    stage: Stage = until(final)
    return stage


def test_a_studio_of_the_service_is_a_studio(service: Service, ada: RemoteStudio) -> None:
    assert isinstance(ada, Studio) and isinstance(RemoteStudios(service), Studios)


def test_a_person_is_kept_with_the_words_they_agreed_to(
    service: Service, ada: RemoteStudio
) -> None:
    again = studio_of(service, "key_ada").person()
    assert again is not None and again.name == "Ada" and again.photo_count == 1
    assert again.consent.statements == AGREED.statements


def test_each_picture_is_a_job_and_arrives_by_itself(ada: RemoteStudio) -> None:
    ada.draw(OpenWish("in a forest", count=3, seed=5, num_inference_steps=4))
    with pytest.raises(Busy):
        ada.draw(OpenWish("in a forest"))
    arrived = set()

    def done() -> bool:
        moment = ada.drawing()
        assert moment is not None
        arrived.add(len(moment.pictures))
        return moment.is_final

    until(done)
    assert arrived >= {1, 3} and finished(ada) is Stage.DONE
    cards = ada.pictures()
    assert sorted(card.recipe.seed for card in cards) == [5, 6, 7]
    assert ada.picture(cards[0].id).startswith(b"\x89PNG")


def test_another_account_of_the_same_tenant_finds_nothing(
    service: Service, ada: RemoteStudio
) -> None:
    ada.draw(OpenWish("in a forest", num_inference_steps=2))
    finished(ada)
    (card,) = ada.pictures()
    person = ada.person()
    assert person is not None
    for stranger in (studio_of(service, "key_bob"), studio_of(service, "key_ada", "other")):
        assert stranger.pictures() == () and stranger.person() is None
        assert stranger.drawing() is None
        for name, *given in (
            ("picture", card.id),
            ("star", card.id, True),
            ("delete_picture", card.id),
            ("choose_person", person.id),
            ("withdraw", person.id),
            ("draw", OpenWish("in a forest", person=person.id)),
        ):
            with pytest.raises(NotStored):
                getattr(stranger, name)(*given)
    assert ada.picture(card.id)


def test_a_second_visit_finds_the_running_wish_and_can_stop_it(
    service: Service, ada: RemoteStudio
) -> None:
    ada.draw(OpenWish("in a forest", count=4, num_inference_steps=20))
    again = studio_of(service, "key_ada")
    moment = again.drawing()
    assert moment is not None and not moment.is_final and moment.count == 4
    again.stop()
    assert finished(ada) is Stage.STOPPED


def test_skipping_gives_up_one_picture_and_goes_on(ada: RemoteStudio) -> None:
    ada.draw(OpenWish("in a forest", count=2, num_inference_steps=10))
    ada.skip()
    assert finished(ada) is Stage.DONE
    moment = ada.drawing()
    assert moment is not None and moment.skipped == 1 and len(moment.pictures) == 1


def test_previews_belong_to_the_one_who_watches(service: Service, ada: RemoteStudio) -> None:
    ada.draw(OpenWish("in a forest", num_inference_steps=20))
    shown = until(lambda: (m := ada.drawing()) and m.preview)
    assert ada.preview(shown)[:4] == b"RIFF"
    with pytest.raises(NotStored):
        studio_of(service, "key_bob").preview(shown)
    ada.stop()
    finished(ada)


def test_a_blocked_wish_leaves_no_job(service: Service, ada: RemoteStudio) -> None:
    with pytest.raises(PromptBlocked):
        ada.draw(OpenWish("naked on a beach"))
    assert ada.drawing() is None


def test_a_shape_is_drawn_and_every_format_of_it_keeps_its_marks(
    service: Service, ada: RemoteStudio
) -> None:
    assert ada.limits.shapes[0] == "1:1" and "3:4" in ada.limits.shapes
    ada.draw(OpenWish("in a forest", num_inference_steps=1, aspect_ratio="3:4"))
    assert finished(ada) is Stage.DONE
    (card,) = ada.pictures()
    assert card.height > card.width and card.recipe.aspect_ratio == "3:4"
    for suffix, kind in ((".png", "PNG"), (".jpg", "JPEG"), (".webp", "WEBP")):
        data = ada.picture(card.id, suffix)
        with Image.open(io.BytesIO(data)) as file:
            assert (file.format, file.size) == (kind, (card.width, card.height))
        report = RemoteStudios(service).verify(data, f"p{suffix}").report
        assert report.verdict is Provenance.UNTOUCHED, suffix
    zipped = zip_pictures(ada, [card.id], ".jpg")
    names = zipfile.ZipFile(io.BytesIO(zipped)).namelist()
    assert names == [f"imagine-001-seed-{card.recipe.seed}.jpg"]


def test_stars_outlive_the_visit(service: Service, ada: RemoteStudio) -> None:
    ada.draw(OpenWish("in a forest", num_inference_steps=2))
    finished(ada)
    (card,) = ada.pictures()
    ada.star(card.id, True)
    assert studio_of(service, "key_ada").pictures()[0].is_starred


def test_withdrawing_destroys_the_face_and_keeps_the_pictures(ada: RemoteStudio) -> None:
    ada.draw(OpenWish("in a forest", num_inference_steps=2))
    finished(ada)
    person = ada.person()
    assert person is not None
    ada.withdraw(person.id)
    assert ada.person() is None and ada.people() == ()
    (card,) = ada.pictures()
    assert ada.picture(card.id)
    with pytest.raises(ConsentMissing):
        ada.draw(OpenWish("in a forest"))


def test_enrolling_again_replaces_the_face_and_keeps_the_pictures(ada: RemoteStudio) -> None:
    ada.draw(OpenWish("in a forest", num_inference_steps=2))
    finished(ada)
    before = ada.person()
    ada.remove_photo(ada.photos()[0].id)
    ada.add_photo(selfie("a", 2), "me.jpg")
    after = ada.enrol("Ada L.", AGREED)
    assert before is not None and after.id != before.id and len(ada.people()) == 1
    assert len(ada.pictures()) == 1 and after.name == "Ada L."


def test_forgetting_leaves_nothing(service: Service, ada: RemoteStudio) -> None:
    ada.draw(OpenWish("in a forest", num_inference_steps=2))
    finished(ada)
    ada.forget()
    for studio in (ada, studio_of(service, "key_ada")):
        assert (studio.person(), studio.pictures(), studio.drawing()) == (None, (), None)


def test_an_export_holds_one_archive_a_person(ada: RemoteStudio) -> None:
    with zipfile.ZipFile(io.BytesIO(ada.export())) as archive:
        (name,) = archive.namelist()
        with zipfile.ZipFile(io.BytesIO(archive.read(name))) as inner:
            assert "index.json" in inner.namelist()


def test_two_people_take_turns_at_the_desk(ada: RemoteStudio) -> None:
    first = ada.person()
    ada.add_person()
    assert ada.person() is None
    ada.add_photo(selfie("b"), "bob.jpg")
    second = ada.enrol("Bob", AGREED)
    assert first is not None and [p.name for p in ada.people()] == ["Ada", "Bob"]
    ada.choose_person(first.id)
    assert ada.person() == first and second.id != first.id


def test_a_key_without_the_scope_changes_nothing(service: Service) -> None:
    reviewer = studio_of(service, "key_rev", role="reviewer")
    with pytest.raises(KeyRefused):
        reviewer.add_photo(selfie(), "me.jpg")
    with pytest.raises(KeyRefused):
        reviewer.draw(OpenWish("in a forest"))


def test_a_wish_out_of_range_is_refused_by_name(ada: RemoteStudio) -> None:
    with pytest.raises(InvalidInput, match="count"):
        ada.draw(OpenWish("in a forest", count=0))


def test_without_an_account_only_the_machines_own_user_gets_a_studio(
    service: Service, tmp_path: Path
) -> None:
    with pytest.raises(KeyRefused):
        RemoteStudios(service).open()


def test_a_restart_loses_nothing_and_goes_on_drawing(tmp_path: Path) -> None:
    before = make_service(tmp_path)
    before.people.add_tenant("acme", "acme")
    before.start()
    studio = studio_of(before, "key_ada")
    studio.add_photo(selfie(), "me.jpg")
    studio.enrol("Ada", AGREED)
    studio.draw(OpenWish("in a forest", count=2, seed=5, num_inference_steps=6))
    until(lambda: (moment := studio.drawing()) and moment.step)
    before.close()
    after = make_service(tmp_path)
    after.start()
    try:
        again = studio_of(after, "key_ada")
        assert finished(again) is Stage.DONE
        assert sorted(card.recipe.seed for card in again.pictures()) == [5, 6]
        person = again.person()
        assert person is not None and person.name == "Ada"
    finally:
        after.close()


def test_the_machines_own_user_sees_whom_a_command_enrolled_and_can_add_somebody(
    tmp_path: Path,
) -> None:
    alone = make_service(tmp_path, single_user=True)
    alone.start()
    try:
        form = ConsentForm("I agree.", "en", {Purpose.GENERATE}, True, True, "cli")
        alone.enrolment.enrol("local", [selfie()], form, "Ada")
        studio = RemoteStudios(alone).open()
        person = studio.person()
        assert person is not None and person.name == "Ada"
        studio.add_person()
        assert studio.person() is None and [one.name for one in studio.people()] == ["Ada"]
        studio.choose_person(person.id)
        assert studio.person() == person
    finally:
        alone.close()
