from __future__ import annotations

from datetime import UTC, datetime, timedelta

import pytest
from sqlalchemy import text

from imagine.errors import InvalidInput
from imagine.storage.database import Database
from imagine.storage.tables import TenantRow
from imagine.storage.visits import LONGEST_PAUSE, LONGEST_VISIT, Desk, Desks, Visits

NOON = datetime(2026, 11, 22, 12, tzinfo=UTC)


@pytest.fixture
def tenant(database: Database) -> str:
    with database.writing() as session:
        session.add(TenantRow(id="acme", name="Acme", created_at=NOON))
    return "acme"


def test_a_visit_is_found_by_its_secret_alone(database: Database, tenant: str) -> None:
    visits = Visits(database)
    secret = visits.begin(tenant, "key_a", {"images:read"}, "a")
    found = visits.find(secret)
    assert found is not None
    assert (found.tenant_id, found.account, found.key_id) == (tenant, "key_a", "a")
    assert found.scopes == {"images:read"} and found.id not in secret
    assert visits.find("guess") is None and visits.find(found.id) is None


def test_the_secret_itself_is_not_kept(database: Database, tenant: str) -> None:
    secret = Visits(database).begin(tenant, "key_a", ())
    with database.reading() as session:
        kept = session.execute(text("SELECT * FROM visits")).all()
    assert len(kept) == 1 and secret not in str(kept)


def test_a_visit_ends_when_told_when_unused_and_after_half_a_day(
    database: Database, tenant: str
) -> None:
    now = [NOON]
    visits = Visits(database, lambda: now[0])
    told, unused, long = (visits.begin(tenant, f"key_{name}", ()) for name in "abc")
    visits.end(told)
    assert visits.find(told) is None
    while now[0] < NOON + LONGEST_VISIT - timedelta(hours=1):
        now[0] += timedelta(hours=1)
        assert visits.find(long) is not None
    assert now[0] - NOON > LONGEST_PAUSE and visits.find(unused) is None
    now[0] = NOON + LONGEST_VISIT
    assert visits.find(long) is None
    visits.begin(tenant, "key_d", ())
    with database.reading() as session:
        assert session.execute(text("SELECT count(*) FROM visits")).scalar() == 1


def test_an_account_must_be_a_pseudonym(database: Database, tenant: str) -> None:
    with pytest.raises(InvalidInput):
        Visits(database).begin(tenant, "ada@example.org", ())


def test_a_desk_holds_what_was_left_on_it(database: Database, tenant: str) -> None:
    desks = Desks(database)
    assert desks.of(tenant, "key_a") == Desk()
    desks.add_person(tenant, "key_a", "person_1", "identity_1", 3)
    desks.add_person(tenant, "key_a", "person_2", "identity_2", 1)
    desks.star(tenant, "key_a", "image_1", True)
    desks.star(tenant, "key_a", "image_2", True)
    desks.star(tenant, "key_a", "image_1", False)
    desks.draw(tenant, "key_a", {"jobs": ["job_1"]})
    left = Desks(database).of(tenant, "key_a")
    assert left == Desk(
        {"person_1": 3, "person_2": 1}, "identity_2", frozenset({"image_2"}), {"jobs": ["job_1"]}
    )
    assert desks.of(tenant, "key_b") == Desk()
    desks.remove_person(tenant, "key_a", "person_1")
    assert desks.of(tenant, "key_a").people == {"person_2": 1}
    desks.clear(tenant, "key_a")
    assert desks.of(tenant, "key_a") == Desk()
