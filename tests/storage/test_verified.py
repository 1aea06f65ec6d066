from __future__ import annotations

from datetime import timedelta

import pytest

from imagine.errors import NotStored
from imagine.storage.database import Database
from imagine.storage.verified import ONE_SHOTS, Standing, Standings
from tests.storage.house import TENANT, House

POSES = ("ahead", "left", "ahead")


@pytest.fixture
def house(database: Database) -> House:
    return House(database)


@pytest.fixture
def standings(house: House) -> Standings:
    return Standings(house.database, clock=house.clock)


def test_a_new_identity_is_unverified_and_all_of_its_pictures_are_looked_at(
    house: House, standings: Standings
) -> None:
    _, identity = house.add_active()
    assert standings.of(TENANT, identity) == Standing()
    assert standings.sample_rate(TENANT, identity) == 1.0


def test_verifying_lowers_the_share_that_is_looked_at(house: House, standings: Standings) -> None:
    _, identity = house.add_active()
    assert standings.verify(TENANT, identity).is_verified
    assert standings.sample_rate(TENANT, identity) == 0.01


def test_a_held_identity_waits_until_it_is_cleared(house: House, standings: Standings) -> None:
    (_, first), (_, second) = house.add_active(), house.add_active()
    for identity in (first, second):
        standings.hold(TENANT, identity)
        house.clock.pass_(minutes=1)
    assert standings.waiting() == standings.waiting(TENANT) == [(TENANT, first), (TENANT, second)]
    assert standings.of(TENANT, first).waits_for_review
    assert not standings.clear(TENANT, first).waits_for_review
    assert standings.waiting() == [(TENANT, second)]
    assert standings.waiting("somebody_else") == []


def test_identities_of_others_are_not_there(house: House, standings: Standings) -> None:
    _, identity = house.add_active()
    house.people.add_tenant("other", "Another")
    for ask in (
        lambda: standings.of("other", identity),
        lambda: standings.verify("other", identity),
        lambda: standings.clear("other", identity),
        lambda: standings.issue("other", identity, POSES, 60),
        lambda: standings.sample_rate("other", identity),
    ):
        with pytest.raises(NotStored):
            ask()


# Challenges


def test_a_challenge_is_taken_once_by_its_subject_with_its_nonce(
    house: House, standings: Standings
) -> None:
    (_, mine), (_, other) = house.add_active(), house.add_active()
    issued = standings.issue(TENANT, mine, POSES, 60)
    assert issued.deadline_at - issued.issued_at == timedelta(seconds=60)
    assert len(issued.nonce) == 32 and issued.nonce not in repr(issued)
    for subject, nonce in ((mine, "0" * 32), (other, issued.nonce), (None, issued.nonce)):
        with pytest.raises(NotStored, match="not open"):
            standings.take(TENANT, issued.id, subject, nonce)
    taken = standings.take(TENANT, issued.id, mine, issued.nonce)
    assert (taken.poses, taken.issued_at, taken.nonce) == (POSES, issued.issued_at, "")
    standings.end(TENANT, issued.id, "passed")
    with pytest.raises(NotStored, match="not open"):
        standings.take(TENANT, issued.id, mine, issued.nonce)


def test_a_new_challenge_voids_the_older_ones_of_its_identity_alone(
    house: House, standings: Standings
) -> None:
    (_, mine), (_, other) = house.add_active(), house.add_active()
    old, theirs = (standings.issue(TENANT, one, POSES, 60) for one in (mine, other))
    new = standings.issue(TENANT, mine, POSES, 60)
    with pytest.raises(NotStored):
        standings.take(TENANT, old.id, mine, old.nonce)
    standings.take(TENANT, new.id, mine, new.nonce)
    standings.take(TENANT, theirs.id, other, theirs.nonce)


def test_challenges_without_an_account_do_not_void_one_another(standings: Standings) -> None:
    one, other = (standings.issue(TENANT, None, POSES, 60) for _ in range(2))
    for issued in (one, other):
        standings.take(TENANT, issued.id, None, issued.nonce)


def test_old_challenges_are_deleted(house: House, standings: Standings) -> None:
    _, identity = house.add_active()
    old = standings.issue(TENANT, identity, POSES, 60)
    house.clock.pass_(days=2)
    standings.issue(TENANT, None, POSES, 60)
    with pytest.raises(NotStored):
        standings.take(TENANT, old.id, identity, old.nonce)
    assert standings.forget(TENANT, identity) == 0


# Counts


def test_pictures_are_counted_all_or_none_and_anew_each_day(
    house: House, standings: Standings
) -> None:
    _, identity = house.add_active()
    assert standings.take_pictures(TENANT, identity, 3, 5)
    assert not standings.take_pictures(TENANT, identity, 3, 5)
    assert standings.take_pictures(TENANT, identity, 2, 5)
    assert not standings.take_pictures(TENANT, "somebody-else", 6, 5)
    assert standings.take_pictures(TENANT, ONE_SHOTS, 5, 5)  # counted apart
    assert standings.until_tomorrow() == 15 * 3600  # it is nine o'clock
    house.clock.pass_(hours=15)
    assert standings.take_pictures(TENANT, identity, 5, 5)


def test_pictures_of_a_request_that_was_not_kept_do_not_count(
    house: House, standings: Standings, database: Database
) -> None:
    _, identity = house.add_active()
    with pytest.raises(ZeroDivisionError), database.writing() as session:
        assert standings.take_pictures(TENANT, identity, 5, 5, session)
        raise ZeroDivisionError
    assert standings.take_pictures(TENANT, identity, 5, 5)


def test_forgetting_leaves_nothing_of_an_identity(house: House, standings: Standings) -> None:
    _, identity = house.add_active()
    standings.hold(TENANT, identity)
    standings.issue(TENANT, identity, POSES, 60)
    standings.take_pictures(TENANT, identity, 1, 5)
    assert standings.forget(TENANT, identity) == 3
    assert standings.of(TENANT, identity) == Standing()
