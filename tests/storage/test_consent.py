import threading
from datetime import timedelta

import pytest

from imagine.errors import ConsentMissing, InvalidInput, NotStored
from imagine.storage.audit_log import AuditLog
from imagine.storage.checkpoints import SigningKey
from imagine.storage.consent import TICKS, ConsentBook, Purpose, text_sha256
from imagine.storage.database import Database
from imagine.storage.events import recorder
from imagine.storage.people import PeopleStore
from tests.storage.house import JPEG, TENANT, TEXT, House, form, make_face


def test_a_face_is_read_for_the_purpose_it_was_given_for(house: House) -> None:
    _, identity_id = house.add_active(Purpose.GENERATE)
    face = house.people.read_identity(TENANT, identity_id, purpose=Purpose.GENERATE)
    assert (face.crops == make_face().crops).all()
    assert (face.embeddings == make_face().embeddings).all()
    assert face.reports == make_face().reports


@pytest.mark.parametrize("purpose", [Purpose.REVIEW, Purpose.IMPROVE, Purpose.KEEP_PHOTOS])
def test_a_face_is_not_read_for_another_purpose_and_the_attempt_is_recorded(
    house: House, purpose: Purpose
) -> None:
    _, identity_id = house.add_active(Purpose.GENERATE)
    with pytest.raises(ConsentMissing, match=purpose.value):
        house.people.read_identity(TENANT, identity_id, purpose=purpose, actor="console")
    told = {"purpose": purpose.value, "tenant_id": TENANT, "actor": "console"}
    assert house.events.told[-1] == ("consent.missing", identity_id, told)


def test_every_read_of_a_face_is_recorded(house: House) -> None:
    _, identity_id = house.add_active(Purpose.GENERATE)
    house.people.read_identity(TENANT, identity_id, purpose=Purpose.GENERATE, actor="worker")
    told = {"purpose": "generate", "tenant_id": TENANT, "actor": "worker"}
    assert house.events.told[-1] == ("identity.read", identity_id, told)


def test_nothing_is_stored_before_a_consent(house: House) -> None:
    person_id = house.people.add_person(TENANT)
    identity = house.people.add_identity(TENANT, person_id)
    with pytest.raises(ConsentMissing):
        house.people.add_photo(TENANT, identity.id, JPEG, "image/jpeg")
    with pytest.raises(ConsentMissing):
        house.people.enrol(TENANT, identity.id, make_face(), "mini-1", "CC0-1.0")
    with pytest.raises(ConsentMissing):
        house.add_image(person_id, identity.id)
    assert list(house.blobs.names()) == []
    assert house.people.photos(TENANT, identity.id) == []
    assert house.people.images(TENANT) == []


def test_an_expired_consent_counts_no_more(house: House) -> None:
    _, identity_id = house.add_active(Purpose.GENERATE)
    house.clock.pass_(days=364)
    house.people.read_identity(TENANT, identity_id, purpose=Purpose.GENERATE)
    house.clock.pass_(days=1)
    with pytest.raises(ConsentMissing, match="no live consent"):
        house.people.read_identity(TENANT, identity_id, purpose=Purpose.GENERATE)


def test_an_expired_identity_is_not_read(house: House) -> None:
    person_id = house.people.add_person(TENANT)
    end = house.clock.now + timedelta(hours=1)
    identity = house.people.add_identity(TENANT, person_id, expires_at=end)
    house.consents.give(TENANT, identity.id, form())
    house.people.enrol(TENANT, identity.id, make_face(), "mini-1", "CC0-1.0")
    house.clock.pass_(hours=1)
    with pytest.raises(ConsentMissing, match="expired"):
        house.people.read_identity(TENANT, identity.id, purpose=Purpose.GENERATE)


def test_the_record_holds_what_was_shown_and_ticked(house: House) -> None:
    _, identity_id = house.add_draft(Purpose.GENERATE, Purpose.REVIEW)
    [consent] = house.consents.history(TENANT, identity_id)
    assert (consent.text, consent.text_sha256) == (TEXT, text_sha256(TEXT))
    assert consent.purposes == {Purpose.GENERATE, Purpose.REVIEW}
    assert consent.given_at == house.clock.now
    assert consent.expires_at == house.clock.now + timedelta(days=365)
    assert (consent.locale, consent.method) == ("en", "web-form")
    assert TEXT not in repr(consent)


def test_a_new_text_stops_everything_until_the_person_agrees_again(
    house: House, database: Database
) -> None:
    _, identity_id = house.add_active(Purpose.GENERATE)
    new_text = TEXT + " For a year."
    book = ConsentBook(
        database, house.events, house.jobs.cancel, house.clock, [text_sha256(new_text)]
    )
    with pytest.raises(ConsentMissing, match="with the present text"):
        book.grant(TENANT, identity_id, Purpose.GENERATE)
    with pytest.raises(InvalidInput, match="Show the present text"):
        book.give(TENANT, identity_id, form())
    book.give(TENANT, identity_id, form(text=new_text))
    assert book.grant(TENANT, identity_id, Purpose.GENERATE).owner_id == identity_id


@pytest.mark.parametrize(
    ("changes", "advice"),
    [
        ({"declared_adult": False}, "Minors cannot enrol"),
        ({"declared_self": False}, "this is me"),
        ({"purposes": ()}, "tick at least one"),
        ({"purposes": (Purpose.OWN_ACCESS,)}, "tick at least one"),
        ({"text": "  "}, "exactly what was shown"),
        ({"text": "x" * 50_001}, "50001 characters"),
        ({"locale": "English, please"}, "write it like en"),
        ({"method": "Ada filled in the form"}, "web-form"),
        ({"lifetime": timedelta(0)}, "0 days"),
        ({"lifetime": timedelta(days=1096)}, "1096 days"),
    ],
)
def test_an_incomplete_form_is_refused_with_advice(
    house: House, changes: dict[str, object], advice: str
) -> None:
    person_id = house.people.add_person(TENANT)
    identity = house.people.add_identity(TENANT, person_id)
    with pytest.raises(InvalidInput, match=advice):
        house.consents.give(TENANT, identity.id, form(**changes))
    assert house.consents.history(TENANT, identity.id) == []


def test_withdrawing_freezes_at_once_and_cancels_jobs(house: House) -> None:
    person_id, identity_id = house.add_active(*TICKS)
    assert house.consents.withdraw(TENANT, identity_id) == 3
    assert house.jobs.cancelled == [(TENANT, identity_id)]
    for purpose in TICKS:
        with pytest.raises(ConsentMissing, match="was withdrawn"):
            house.people.read_identity(TENANT, identity_id, purpose=purpose)
    with pytest.raises(ConsentMissing):  # the job that was running may not leave its picture
        house.add_image(person_id, identity_id)
    assert "consent.withdrawn" in house.events.kinds()


def test_withdrawing_twice_cancels_again_what_a_crash_left(house: House) -> None:
    _, identity_id = house.add_active(Purpose.GENERATE)
    house.consents.withdraw(TENANT, identity_id)
    house.consents.withdraw(TENANT, identity_id)
    assert len(house.jobs.cancelled) == 2
    assert len(house.consents.history(TENANT, identity_id)) == 1


def test_taking_back_one_tick_leaves_the_others(house: House) -> None:
    _, identity_id = house.add_active(Purpose.GENERATE, Purpose.REVIEW)
    house.consents.withdraw(TENANT, identity_id, [Purpose.REVIEW])
    assert house.jobs.cancelled == []
    assert house.consents.grant(TENANT, identity_id, Purpose.GENERATE)
    with pytest.raises(ConsentMissing):
        house.consents.grant(TENANT, identity_id, Purpose.REVIEW)
    old, new = house.consents.history(TENANT, identity_id)
    assert old.withdrawn_at == house.clock.now
    assert old.purposes == {Purpose.GENERATE, Purpose.REVIEW}
    assert new.purposes == {Purpose.GENERATE}


def test_taking_back_generation_alone_stops_jobs_but_does_not_freeze(house: House) -> None:
    _, identity_id = house.add_active(Purpose.GENERATE, Purpose.KEEP_PHOTOS)
    house.consents.withdraw(TENANT, identity_id, [Purpose.GENERATE])
    assert house.jobs.cancelled == [(TENANT, identity_id)]
    assert house.consents.grant(TENANT, identity_id, Purpose.KEEP_PHOTOS)


def test_a_frozen_identity_stays_frozen(house: House) -> None:
    _, identity_id = house.add_active(Purpose.GENERATE)
    house.consents.withdraw(TENANT, identity_id)
    with pytest.raises(ConsentMissing, match="final for this identity"):
        house.consents.give(TENANT, identity_id, form())


def test_people_still_see_their_own_pictures_after_withdrawing(house: House) -> None:
    person_id, identity_id = house.add_active(Purpose.GENERATE)
    image_id = house.add_image(person_id, identity_id, b"\x89PNG\r\n\x1a\n mine")
    house.consents.withdraw(TENANT, identity_id)
    own = Purpose.OWN_ACCESS
    assert house.people.read_image(TENANT, image_id, purpose=own).endswith(b"mine")
    with pytest.raises(ConsentMissing):
        house.people.read_image(TENANT, image_id, purpose=Purpose.REVIEW)


def test_another_tenant_gets_the_answer_for_what_is_not_there(house: House) -> None:
    house.people.add_tenant("rival", "Rival")
    _, identity_id = house.add_active(*TICKS)
    for attempt in (
        lambda: house.people.read_identity("rival", identity_id, purpose=Purpose.GENERATE),
        lambda: house.consents.grant("rival", identity_id, Purpose.OWN_ACCESS),
        lambda: house.consents.give("rival", identity_id, form()),
        lambda: house.consents.withdraw("rival", identity_id),
        lambda: house.consents.history("rival", identity_id),
    ):
        with pytest.raises(NotStored):
            attempt()


def test_a_reader_that_comes_during_a_withdrawal_waits_and_is_refused(house: House) -> None:
    _, identity_id = house.add_active(Purpose.GENERATE)
    started, refused = threading.Event(), []

    def read() -> None:
        started.set()
        try:
            house.people.read_identity(TENANT, identity_id, purpose=Purpose.GENERATE)
        except ConsentMissing as error:
            refused.append(error)

    reader = threading.Thread(target=read)
    allowed = house.consents.allowed(TENANT, identity_id, Purpose.GENERATE)
    with allowed as (_, identity, _):
        reader.start()
        started.wait()
        identity.state = "frozen"
    reader.join()
    assert len(refused) == 1


def test_the_real_audit_log_takes_every_event_of_a_life(house: House, database: Database) -> None:
    log = AuditLog(database, SigningKey.generate(), house.keys, house.clock)
    record = recorder(log)
    consents = ConsentBook(database, record, house.jobs.cancel, house.clock)
    people = PeopleStore(database, house.vault, consents, record, house.clock)
    person_id = people.add_person(TENANT)
    identity = people.add_identity(TENANT, person_id)
    consents.give(TENANT, identity.id, form(*TICKS), actor=person_id)
    photo_id = people.add_photo(TENANT, identity.id, JPEG, "image/jpeg")
    people.enrol(TENANT, identity.id, make_face(), "a model (2nd try)", "CC0-1.0")
    people.read_identity(TENANT, identity.id, purpose=Purpose.GENERATE, actor=person_id)
    people.read_photo(TENANT, photo_id, purpose=Purpose.REVIEW, actor="console")
    consents.withdraw(TENANT, identity.id, actor=person_id)
    with pytest.raises(ConsentMissing):
        people.read_identity(TENANT, identity.id, purpose=Purpose.GENERATE)
    kinds = [entry.facts["kind"] for entry in log.entries_about(TENANT, identity.id)]
    assert kinds == [
        "consent.given",
        "identity.enrolled",
        "identity.read",
        "photo.read",
        "consent.withdrawn",
        "consent.missing",
    ]
