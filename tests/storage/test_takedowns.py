from __future__ import annotations

from dataclasses import replace
from datetime import timedelta

import pytest
from sqlalchemy import select

from imagine.errors import DataKeyDestroyed, InvalidInput, NotStored
from imagine.storage.consent import Purpose
from imagine.storage.database import Database
from imagine.storage.reviews import NewReview, Queue, ReviewState, Ruling
from imagine.storage.tables import TakedownRow
from imagine.storage.takedowns import Notice, TakedownState
from tests.storage.house import TENANT
from tests.storage.office import ANN, Office

NOTICE = Notice("Canary Name", "canary@example.org", "That is me.", "a forum", True)


@pytest.fixture
def office(database: Database) -> Office:
    return Office(database)


def test_a_notice_queues_the_picture_it_means_with_a_clock_of_48_hours(office: Office) -> None:
    image = office.house.add_image(office.person_id, office.identity_id)
    takedown = office.file(image)
    assert takedown.due_at - takedown.created_at == timedelta(hours=48)
    [review] = office.reviews.find(TENANT, Queue.TAKEDOWN)
    assert (review.image_id, review.due_at) == (image, takedown.due_at)
    office.clock.pass_(hours=47, minutes=59)
    assert not takedown.is_overdue(office.clock.now) and office.reviews.overdue() == []
    office.clock.pass_(minutes=1)
    assert takedown.is_overdue(office.clock.now)
    assert [one.id for one in office.reviews.overdue()] == [review.id]


def test_what_nobody_decides_in_time_is_withheld_until_somebody_does(office: Office) -> None:
    image = office.house.add_image(office.person_id, office.identity_id)
    takedown = office.file(image)
    office.clock.pass_(hours=48)
    [late] = office.reviews.overdue()
    held = office.reviews.remove_overdue(late)
    assert held.withheld_id is not None and held.state is ReviewState.OPEN
    assert office.reviews.remove_overdue(held) == held
    with pytest.raises(NotStored):
        office.house.people.read_image(TENANT, image, purpose=Purpose.OWN_ACCESS)
    assert office.takedowns.locate(takedown.id).removed == 1
    assert office.decide(held, Ruling.LEAVE).state is ReviewState.DECIDED
    assert office.takedowns.locate(takedown.id).state is TakedownState.CLOSED


def test_a_notice_is_answered_when_its_last_picture_is(office: Office) -> None:
    images = [office.house.add_image(office.person_id, office.identity_id) for _ in range(2)]
    takedown = office.file(*images)
    first, second = office.reviews.find(TENANT, Queue.TAKEDOWN)
    office.decide(first, Ruling.REMOVE)
    assert office.takedowns.locate(takedown.id).state is TakedownState.OPEN
    office.decide(second, Ruling.REMOVE)
    closed = office.takedowns.locate(takedown.id)
    assert (closed.state, closed.removed) == (TakedownState.CLOSED, 2)
    assert office.takedowns.find(TENANT) == []


def test_a_notice_about_several_tenants_reaches_the_reviewers_of_each(office: Office) -> None:
    people = office.house.people
    people.add_tenant("rival", "Rivals")
    person = people.add_person("rival")
    theirs = people.add_image("rival", person, b"x", "image/png", (1, 1))
    ours = office.house.add_image(office.person_id, office.identity_id)
    takedown = office.takedowns.file(NOTICE, [(TENANT, ours), ("rival", theirs)], TENANT)
    assert len(office.reviews.find(TENANT)) == len(office.reviews.find("rival")) == 1
    office.decide(office.reviews.find(TENANT)[0], Ruling.REMOVE)
    assert office.takedowns.locate(takedown.id).state is TakedownState.OPEN


def test_a_notice_without_a_match_waits_for_a_reviewer_who_finds_the_picture(
    office: Office,
) -> None:
    takedown = office.file()
    [review] = office.reviews.find(TENANT, Queue.TAKEDOWN)
    assert not review.has_picture and review.reason == "not_found"
    said = office.takedowns.read_statement(review)
    assert said is not None and (said.statement, said.name, said.contact) == ("That is me.", "", "")
    image = office.house.add_image(office.person_id, office.identity_id)
    office.clock.pass_(hours=5)
    found = office.reviews.attach(review, TENANT, image, ANN)
    assert (found.due_at, found.takedown_id) == (takedown.due_at, takedown.id)
    assert office.reviews.attach(review, TENANT, image, ANN).id == found.id
    report = office.of_image()
    doubtful = office.reviews.attach(report, TENANT, image, ANN, "near_duplicate")
    assert (doubtful.queue, doubtful.reason) == (Queue.BORDERLINE, "near_duplicate")


def test_who_sent_a_notice_is_sealed_and_reading_it_is_written_down(
    office: Office, database: Database
) -> None:
    takedown = office.file()
    assert "Canary" not in repr(NOTICE)
    with pytest.raises(NotStored):
        office.takedowns.read_contact("rival", takedown.id, ANN)
    assert office.takedowns.read_contact(TENANT, takedown.id, ANN) == NOTICE
    kinds = [entry.facts["kind"] for entry in office.log.entries_about(TENANT, takedown.id)]
    assert kinds == ["takedown.filed", "review.queued", "takedown.contact_read"]
    with database.reading() as session:
        assert b"anary" not in session.scalars(select(TakedownRow.sealed_notice)).one()


def test_an_answered_notice_is_forgotten_for_good(office: Office) -> None:
    takedown = office.file()
    [review] = office.reviews.find(TENANT)
    assert office.takedowns.forget_before(office.clock.pass_(days=60)) == 0
    office.decide(review, Ruling.LEAVE)
    assert office.takedowns.forget_before(office.clock.pass_(days=30)) == 1
    with pytest.raises(NotStored):
        office.takedowns.locate(takedown.id)
    with pytest.raises(DataKeyDestroyed):
        office.log.entries_about(TENANT, takedown.id)
    assert office.reviews.read_note(TENANT, review.id) == ""


@pytest.mark.parametrize(
    ("change", "advice"),
    [
        ({"in_good_faith": False}, "in_good_faith"),
        ({"name": " "}, "name is missing"),
        ({"contact": ""}, "contact is missing"),
        ({"statement": "x" * 4001}, "4001 characters"),
    ],
)
def test_an_incomplete_notice_is_refused_with_advice(
    office: Office, change: dict[str, object], advice: str
) -> None:
    with pytest.raises(InvalidInput, match=advice):
        office.takedowns.file(replace(NOTICE, **change), [], TENANT)  # type: ignore[arg-type]
    assert office.reviews.find(TENANT) == []


def test_a_picture_that_went_meanwhile_does_not_stop_a_notice(office: Office) -> None:
    office.file("image_gone")
    [review] = office.reviews.find(TENANT)
    assert review.reason == "not_found"


def test_a_report_says_what_the_owner_said(office: Office) -> None:
    image = office.house.add_image(office.person_id, office.identity_id)
    words = NewReview(TENANT, Queue.REPORT, "nudity", image_id=image, note="It shows too much.")
    review = office.reviews.add(words)
    assert office.reviews.read_note(TENANT, review.id) == "It shows too much."
    with pytest.raises(InvalidInput, match="4000"):
        office.reviews.add(replace(words, note="x" * 4001))
