from __future__ import annotations

from datetime import timedelta

import pytest

from imagine.errors import NotStored, ReviewRefused
from imagine.storage.acts import ActKind, Reason
from imagine.storage.database import Database
from tests.storage.house import TENANT
from tests.storage.office import ANN, BEN, CLEO, DRAWN, Office

WHY = (Reason.LEGAL_REQUEST, "9.2")


@pytest.fixture
def office(database: Database) -> Office:
    return Office(database)


def test_a_case_shows_everything_ever_made_of_an_identity(office: Office) -> None:
    review = office.blocked()
    image = office.house.add_image(office.person_id, office.identity_id)
    office.house.add_image(office.person_id, None)  # shows nobody: not of this identity
    case = office.cases.ask(TENANT, office.identity_id, *WHY, ANN)
    office.cases.approve(TENANT, case.id, BEN)
    found = office.cases.contents(TENANT, case.id, ANN)
    assert {(one.id, one.is_withheld) for one in found.pictures} == {
        (image, False),
        (review.withheld_id, True),
    }
    assert [one.id for one in found.reviews] == [review.id]
    kinds = [entry.facts["kind"] for entry in found.entries]
    assert kinds == [
        "review.queued",
        "review_act.asked",
        "review_act.approved",
        "case.opened",
    ]
    held = review.withheld_id or ""
    assert office.cases.open_picture(TENANT, case.id, held, BEN, in_clear=False).data == DRAWN
    with pytest.raises(NotStored):
        office.cases.open_picture(TENANT, case.id, "image_of_another", BEN, in_clear=False)


def test_cases_have_numbers_without_gaps_and_everybody_their_own(office: Office) -> None:
    office.house.people.add_tenant("rival", "Rivals")
    person = office.house.people.add_person("rival")
    theirs = office.house.people.add_identity("rival", person).id
    numbers = [
        office.cases.ask(TENANT, office.identity_id, *WHY, ANN).number,
        office.cases.ask(TENANT, office.identity_id, *WHY, BEN).number,
        office.cases.ask("rival", theirs, *WHY, ANN).number,
    ]
    assert numbers == ["2027-0001", "2027-0002", "2027-0001"]
    with pytest.raises(NotStored):
        office.cases.ask("rival", office.identity_id, *WHY, ANN)


def test_nobody_looks_into_a_case_alone(office: Office) -> None:
    case = office.cases.ask(TENANT, office.identity_id, *WHY, ANN)
    with pytest.raises(ReviewRefused):
        office.cases.contents(TENANT, case.id, ANN)
    with pytest.raises(ReviewRefused, match="cannot approve") as refused:
        office.cases.approve(TENANT, case.id, ANN)
    assert refused.value.code == "same_reviewer"
    office.cases.approve(TENANT, case.id, BEN)
    with pytest.raises(ReviewRefused):
        office.cases.contents(TENANT, case.id, CLEO)
    office.clock.pass_(hours=1)
    with pytest.raises(ReviewRefused, match="two reviewers"):
        office.cases.contents(TENANT, case.id, ANN)


def test_an_approval_comes_in_time_and_once(office: Office) -> None:
    case = office.cases.ask(TENANT, office.identity_id, *WHY, ANN)
    assert [one.id for one in office.reviews.acts.find(TENANT, waiting=True)] == [case.id]
    office.cases.approve(TENANT, case.id, BEN)
    with pytest.raises(ReviewRefused, match="approved already"):
        office.cases.approve(TENANT, case.id, CLEO)
    late = office.cases.ask(TENANT, office.identity_id, *WHY, ANN)
    office.clock.now += timedelta(hours=24)
    with pytest.raises(NotStored):
        office.cases.approve(TENANT, late.id, BEN)
    assert office.reviews.acts.find(TENANT, waiting=True) == []


def test_acts_of_others_are_not_there(office: Office) -> None:
    office.house.people.add_tenant("rival", "Rivals")
    case = office.cases.ask(TENANT, office.identity_id, *WHY, ANN)
    for look in (office.cases.get, office.reviews.acts.get):
        with pytest.raises(NotStored):
            look("rival", case.id)
    with pytest.raises(NotStored):
        office.reviews.acts.approve("rival", case.id, BEN)
    other = office.reviews.acts.ask(TENANT, ActKind.OPEN_IN_CLEAR, "review_1", *WHY, ANN)
    with pytest.raises(NotStored, match="no case"):
        office.cases.get(TENANT, other.id)


def test_a_case_ends_with_the_identity(office: Office) -> None:
    case = office.cases.ask(TENANT, office.identity_id, *WHY, ANN)
    office.cases.approve(TENANT, case.id, BEN)
    office.house.eraser.erase_identity(TENANT, office.identity_id)
    with pytest.raises(NotStored):
        office.cases.contents(TENANT, case.id, ANN)
