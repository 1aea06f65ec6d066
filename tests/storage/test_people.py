import os
import subprocess
import sys
from concurrent.futures import ThreadPoolExecutor
from dataclasses import replace

import pytest

from imagine.errors import BlobStoreUnusable, InvalidInput, NotStored
from imagine.storage.blobs import BlobStore
from imagine.storage.consent import Purpose
from imagine.storage.tables import IdentityState
from tests.storage.house import JPEG, PNG, TENANT, House, form, make_face, make_recipe

OWN = Purpose.OWN_ACCESS


def test_names_are_sealed_and_come_back(house: House) -> None:
    person_id, identity_id = house.add_draft()
    assert house.people.read_person_name(TENANT, person_id) == "Ada Canary"
    assert house.people.read_identity_name(TENANT, identity_id) == "holiday face"
    nameless = house.people.add_person(TENANT)
    assert house.people.read_person_name(TENANT, nameless) == ""


def test_versions_of_a_person_count_up(house: House) -> None:
    person_id, first = house.add_active()
    _, second = house.add_active(person_id=person_id)
    house.add_draft()
    found = house.people.identities(TENANT, person_id)
    assert [(facts.id, facts.version) for facts in found] == [(first, 1), (second, 2)]
    assert len(house.people.identities(TENANT)) == 3


def test_enrolling_makes_a_draft_active_and_says_by_what(house: House) -> None:
    _, identity_id = house.add_draft()
    assert house.people.identity(TENANT, identity_id).state == IdentityState.DRAFT
    facts = house.people.enrol(TENANT, identity_id, make_face(), "mini-1", "CC0-1.0")
    assert facts.state == IdentityState.ACTIVE
    assert (facts.encoder, facts.model, facts.licence) == ("dlib", "mini-1", "CC0-1.0")
    assert house.people.identity(TENANT, identity_id) == facts


def test_a_face_is_never_replaced(house: House) -> None:
    _, identity_id = house.add_active()
    with pytest.raises(InvalidInput, match="a version is never changed"):
        house.people.enrol(TENANT, identity_id, make_face(seed=1), "mini-1", "CC0-1.0")
    face = house.people.read_identity(TENANT, identity_id, purpose=Purpose.GENERATE)
    assert (face.crops == make_face().crops).all()


def test_a_draft_has_no_face_to_read(house: House) -> None:
    _, identity_id = house.add_draft()
    with pytest.raises(NotStored, match="draft without a face"):
        house.people.read_identity(TENANT, identity_id, purpose=Purpose.GENERATE)


def test_photos_go_when_the_face_is_made_unless_the_person_keeps_them(house: House) -> None:
    _, without = house.add_active(Purpose.GENERATE)
    _, keeping = house.add_active(Purpose.GENERATE, Purpose.KEEP_PHOTOS)
    assert house.people.photos(TENANT, without) == []
    assert house.vault.count(TENANT, without) == {"crops": 1}
    assert len(house.people.photos(TENANT, keeping)) == 2


def test_a_photo_comes_back_and_can_be_deleted(house: House) -> None:
    _, identity_id = house.add_active(Purpose.GENERATE, Purpose.KEEP_PHOTOS)
    photo, _ = house.people.photos(TENANT, identity_id)
    assert house.people.read_photo(TENANT, photo.id, purpose=OWN).startswith(JPEG)
    house.people.delete_photo(TENANT, photo.id)
    with pytest.raises(NotStored):
        house.people.read_photo(TENANT, photo.id, purpose=OWN)


def test_a_picture_comes_back_with_its_recipe(house: House) -> None:
    person_id, identity_id = house.add_active()
    image_id = house.add_image(person_id, identity_id)
    assert house.people.read_image(TENANT, image_id, purpose=OWN) == PNG
    assert house.people.read_recipe(TENANT, image_id, purpose=OWN) == make_recipe()
    [facts] = house.people.images(TENANT, person_id)
    assert (facts.width, facts.height, facts.byte_count) == (64, 48, len(PNG))
    house.people.delete_image(TENANT, image_id)
    assert house.people.images(TENANT) == []
    assert house.vault.count(TENANT, identity_id) == {"crops": 1}


def test_a_picture_of_nobody_belongs_to_who_asked_for_it(house: House) -> None:
    person_id = house.people.add_person(TENANT)
    image_id = house.add_image(person_id, None)
    assert house.people.read_image(TENANT, image_id, purpose=OWN) == PNG


def test_a_picture_cannot_join_one_person_with_the_face_of_another(house: House) -> None:
    _, identity_id = house.add_active()
    other = house.people.add_person(TENANT)
    with pytest.raises(NotStored, match="has no identity"):
        house.add_image(other, identity_id)
    assert house.vault.count(TENANT, identity_id) == {"crops": 1}


def test_pictures_are_found_by_job(house: House) -> None:
    person_id = house.people.add_person(TENANT)
    size = (8, 8)
    mine = house.people.add_image(TENANT, person_id, PNG, "image/png", size, job_id="job_1")
    house.people.add_image(TENANT, person_id, PNG, "image/png", size, job_id="job_2")
    assert [image.id for image in house.people.images(TENANT, job_id="job_1")] == [mine]


@pytest.mark.parametrize(("data", "media"), [(b"", "image/png"), (PNG, "text/html")])
def test_what_is_no_picture_is_refused(house: House, data: bytes, media: str) -> None:
    person_id, identity_id = house.add_draft()
    with pytest.raises(InvalidInput):
        house.people.add_photo(TENANT, identity_id, data, media)
    with pytest.raises(InvalidInput):
        house.people.add_image(TENANT, person_id, data, media, (8, 8))


def test_a_row_that_cannot_be_stored_leaves_no_blob(house: House) -> None:
    _, identity_id = house.add_draft()

    class WithdrawsInBetween(BlobStore):
        def __init__(self) -> None:
            super().__init__(house.blobs._store, "memory")

        def put(self, name: str, data: bytes, overwrite: bool = True) -> bool:
            house.consents.withdraw(TENANT, identity_id)
            return super().put(name, data, overwrite)

    house.vault._blobs = WithdrawsInBetween()
    with pytest.raises(Exception, match="was withdrawn"):
        house.people.add_photo(TENANT, identity_id, JPEG, "image/jpeg")
    assert list(house.blobs.names()) == []
    assert house.people.photos(TENANT, identity_id) == []


def test_a_store_that_fails_leaves_no_row(house: House) -> None:
    _, identity_id = house.add_draft()

    class Full(BlobStore):
        def __init__(self) -> None:
            super().__init__(house.blobs._store, "memory")

        def put(self, name: str, data: bytes, overwrite: bool = True) -> bool:
            raise BlobStoreUnusable("no room")

    house.vault._blobs = Full()
    with pytest.raises(BlobStoreUnusable):
        house.people.add_photo(TENANT, identity_id, JPEG, "image/jpeg")
    with pytest.raises(BlobStoreUnusable):
        house.people.enrol(TENANT, identity_id, make_face(), "mini-1", "CC0-1.0")
    assert house.people.photos(TENANT, identity_id) == []
    assert house.people.identity(TENANT, identity_id).state == IdentityState.DRAFT


def test_use_moves_the_idle_clock_and_looking_does_not(house: House) -> None:
    _, identity_id = house.add_active()
    begun = house.clock.now
    house.clock.pass_(days=2)
    house.people.read_identity(TENANT, identity_id, purpose=OWN)
    assert house.people.identity(TENANT, identity_id).last_used_at == begun
    house.people.read_identity(TENANT, identity_id, purpose=Purpose.GENERATE)
    assert house.people.identity(TENANT, identity_id).last_used_at == house.clock.now


def test_ids_of_another_tenant_answer_like_ids_of_nobody(house: House) -> None:
    house.people.add_tenant("rival", "Rival")
    person_id, identity_id = house.add_active(Purpose.GENERATE, Purpose.KEEP_PHOTOS)
    image_id = house.add_image(person_id, identity_id)
    photo_id = house.people.photos(TENANT, identity_id)[0].id
    people = house.people
    attempts = {
        person_id: lambda one: people.read_person_name("rival", one),
        identity_id: lambda one: people.identity("rival", one),
        photo_id: lambda one: people.read_photo("rival", one, purpose=OWN),
        image_id: lambda one: people.read_image("rival", one, purpose=OWN),
    }
    for theirs, attempt in attempts.items():
        answers = set()
        for one in (theirs, theirs[:-1] + "x"):
            with pytest.raises(NotStored) as caught:
                attempt(one)
            answers.add(str(caught.value).replace(one, "ID"))
        assert len(answers) == 1
    assert people.identities("rival") == people.images("rival") == []
    assert people.photos("rival", identity_id) == []
    with pytest.raises(NotStored):
        people.delete_photo("rival", photo_id)
    with pytest.raises(NotStored):
        people.delete_image("rival", image_id)
    with pytest.raises(NotStored):
        people.add_identity("rival", person_id)
    with pytest.raises(NotStored):
        people.add_photo("rival", identity_id, JPEG, "image/jpeg")
    with pytest.raises(NotStored):
        people.add_image("rival", person_id, PNG, "image/png", (8, 8), make_recipe())
    with pytest.raises(NotStored):
        people.enrol("rival", identity_id, make_face(), "mini-1", "CC0-1.0")
    own_person = people.add_person("rival")
    with pytest.raises(NotStored):
        people.add_image("rival", own_person, PNG, "image/png", (8, 8), identity_id=identity_id)
    assert not any(name.startswith("rival/") for name in house.blobs.names())


def test_a_person_needs_a_tenant_and_a_name_that_fits(house: House) -> None:
    with pytest.raises(NotStored):
        house.people.add_person("nobody")
    with pytest.raises(InvalidInput, match="201 characters"):
        house.people.add_person(TENANT, "x" * 201)


def test_making_a_tenant_twice_changes_nothing(house: House) -> None:
    house.people.add_tenant(TENANT, "Another name")
    assert house.people.identities(TENANT) == []


def test_two_enrolments_of_one_person_at_once_get_two_versions(house: House) -> None:
    person_id = house.people.add_person(TENANT)
    with ThreadPoolExecutor(4) as pool:
        made = pool.map(lambda _: house.people.add_identity(TENANT, person_id), range(4))
    assert sorted(facts.version for facts in made) == [1, 2, 3, 4]


def test_importing_the_room_loads_no_torch() -> None:
    code = "import sys, imagine.storage.export; print('torch' in sys.modules)"
    # A process of its own: this one may have loaded torch for another test.
    done = subprocess.run(
        [sys.executable, "-c", code], capture_output=True, env=os.environ, check=True
    )
    assert done.stdout.strip() == b"False"


def test_repr_of_rows_and_facts_shows_nothing_sealed(house: House) -> None:
    person_id, identity_id = house.add_active()
    house.add_image(person_id, identity_id, prompt="canary prompt")
    shown = repr(house.people.identities(TENANT)) + repr(house.people.images(TENANT))
    face = house.people.read_identity(TENANT, identity_id, purpose=OWN)
    shown += repr(face) + repr(replace(form(), text="canary text")) + repr(house.vault)
    assert "canary" not in shown.lower()
    assert "[[" not in shown
