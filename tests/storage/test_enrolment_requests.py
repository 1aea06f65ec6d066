import pytest

from imagine.errors import IdempotencyConflict, JobStillRunning
from imagine.storage.enrolment_requests import (
    KEPT,
    LEASE,
    EnrolmentRequestRow,
    EnrolmentRequests,
    service_key,
)
from tests.storage.house import TENANT, House


@pytest.fixture
def requests(house: House) -> EnrolmentRequests:
    return EnrolmentRequests(house.database, house.keys, house.clock)


def test_a_request_that_comes_again_finds_what_it_made(requests: EnrolmentRequests) -> None:
    begun = requests.begin(TENANT, "key-1", b"photos")
    assert begun.identity_id is None
    with pytest.raises(JobStillRunning, match="being worked on"):
        requests.begin(TENANT, "key-1", b"photos")
    requests.end(TENANT, begun.id, "identity_1")
    assert requests.begin(TENANT, "key-1", b"photos").identity_id == "identity_1"
    with pytest.raises(IdempotencyConflict, match="choose a new key"):
        requests.begin(TENANT, "key-1", b"other photos")


def test_a_request_that_made_nothing_frees_its_name(requests: EnrolmentRequests) -> None:
    requests.end(TENANT, requests.begin(TENANT, "key-1", b"a").id, None)
    assert requests.begin(TENANT, "key-1", b"b").identity_id is None


def test_a_process_that_died_frees_it_too_and_a_day_later_all_is_forgotten(
    house: House, requests: EnrolmentRequests
) -> None:
    requests.begin(TENANT, "key-1", b"a")
    house.clock.now += LEASE
    begun = requests.begin(TENANT, "key-1", b"a")
    requests.end(TENANT, begun.id, "identity_1")
    house.clock.now += KEPT
    house.clock.pass_(seconds=1)
    assert requests.begin(TENANT, "key-1", b"b").identity_id is None


def test_tenants_do_not_share_names(house: House, requests: EnrolmentRequests) -> None:
    house.people.add_tenant("other", "Another")
    requests.begin(TENANT, "key-1", b"a")
    assert requests.begin("other", "key-1", b"b").identity_id is None


def test_nothing_of_a_request_is_kept_in_clear_and_it_goes_with_its_identity(
    house: House, requests: EnrolmentRequests
) -> None:
    begun = requests.begin(TENANT, "canary", b"canary")
    requests.end(TENANT, begun.id, "identity_1")
    with house.database.reading() as session:
        (row,) = session.query(EnrolmentRequestRow).all()
    assert "canary" not in f"{row.id}{row.body_digest}"
    assert requests.forget(TENANT, "identity_1") == 1
    assert requests.forget(TENANT, "identity_1") == 0


def test_a_key_of_the_service_stays_the_same(house: House) -> None:
    assert service_key(house.keys, "one") == service_key(house.keys, "one")
    assert service_key(house.keys, "one") != service_key(house.keys, "two")
