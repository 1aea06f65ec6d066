import json
from datetime import timedelta

import pytest
from sqlalchemy import select, text

from imagine.errors import DataKeyDestroyed, InvalidInput, NotStored
from imagine.service.webhook_signatures import new_secret
from imagine.storage.database import Database
from imagine.storage.jobs import JobError, JobState, JobStore, NewJob
from imagine.storage.webhooks import (
    GIVE_UP_ON_ENDPOINT,
    MAX_ENDPOINTS,
    PAUSES,
    SECRET_OVERLAP,
    DeliveryState,
    EndpointState,
    EventKind,
    Outcome,
    WebhookEndpointRow,
    Webhooks,
)
from tests.storage.house import TENANT, House

URL = "https://example.com/hooks"
ALL = frozenset(EventKind)
REFUSED = Outcome(500, "status_500")


@pytest.fixture
def hooks(house: House) -> Webhooks:
    return Webhooks(house.database, house.keys, new_secret, house.clock)


def _published(hooks: Webhooks, kind: EventKind = EventKind.IDENTITY_DELETED) -> None:
    hooks.publish(TENANT, kind, {"object": "identity", "id": "identity_1"})


def test_who_asked_for_an_event_is_told_with_ids_alone(hooks: Webhooks) -> None:
    made, secret = hooks.add(TENANT, URL, {EventKind.IDENTITY_DELETED})
    hooks.add(TENANT, URL, {EventKind.GENERATION_FAILED})
    _published(hooks)
    (call,) = hooks.take(10)
    told = json.loads(call.delivery.body)
    assert call.delivery.endpoint_id == made.id and call.secrets == (secret,)
    assert told["type"] == "identity.deleted"
    assert told["data"] == {"object": "identity", "id": "identity_1"}
    assert secret not in repr(call)


def test_the_secret_is_not_in_the_database(hooks: Webhooks, database: Database) -> None:
    _, secret = hooks.add(TENANT, URL, ALL)
    with database.reading() as session:
        (row,) = session.scalars(select(WebhookEndpointRow))
    assert secret.encode() not in row.sealed_secret


def test_a_delivery_is_for_one_sender_at_a_time(house: House, hooks: Webhooks) -> None:
    hooks.add(TENANT, URL, ALL)
    _published(hooks)
    assert len(hooks.take(10)) == 1
    assert hooks.take(10) == []
    house.clock.pass_(minutes=3)  # the first one died
    assert len(hooks.take(10)) == 1


def test_a_failure_is_tried_again_later_and_later_until_it_is_given_up(
    house: House, hooks: Webhooks
) -> None:
    made, _ = hooks.add(TENANT, URL, ALL)
    _published(hooks)
    states = []
    for pause in (*PAUSES, None):
        (call,) = hooks.take(10)
        states.append(hooks.ended(call, REFUSED))
        assert hooks.take(10) == []
        if pause is not None:
            house.clock.now += pause * 1.21
    assert states == [DeliveryState.PENDING] * len(PAUSES) + [DeliveryState.FAILED]
    (told,) = hooks.deliveries(TENANT, made.id)
    assert (told.attempts, told.status, told.error) == (len(PAUSES) + 1, 500, "status_500")


def test_a_success_ends_a_delivery_and_forgives_the_endpoint(house: House, hooks: Webhooks) -> None:
    made, _ = hooks.add(TENANT, URL, ALL)
    _published(hooks)
    hooks.ended(hooks.take(1)[0], REFUSED)
    assert hooks.get(TENANT, made.id).failing_since == house.clock.now
    house.clock.pass_(seconds=10)
    assert hooks.ended(hooks.take(1)[0], Outcome(204)) is DeliveryState.DELIVERED
    assert hooks.get(TENANT, made.id).failing_since is None
    house.clock.pass_(days=1)
    assert hooks.take(1) == []


def test_an_endpoint_that_only_fails_for_days_is_called_no_more(
    house: House, hooks: Webhooks
) -> None:
    made, _ = hooks.add(TENANT, URL, ALL)
    _published(hooks)
    hooks.ended(hooks.take(1)[0], REFUSED)
    house.clock.now += GIVE_UP_ON_ENDPOINT
    assert hooks.ended(hooks.take(1)[0], REFUSED) is DeliveryState.FAILED
    told = hooks.get(TENANT, made.id)
    assert (told.state, told.disabled_reason) == (EndpointState.DISABLED, "failing")
    _published(hooks)
    assert hooks.take(1) == []
    again = hooks.change(TENANT, made.id, state=EndpointState.ACTIVE)
    assert again.failing_since is None and again.disabled_reason is None


def test_an_endpoint_that_says_it_is_gone_is_called_no_more(hooks: Webhooks) -> None:
    made, _ = hooks.add(TENANT, URL, ALL)
    _published(hooks)
    _published(hooks)
    first, second = hooks.take(2)
    hooks.ended(first, Outcome(410, "status_410"))
    assert hooks.get(TENANT, made.id).disabled_reason == "gone"
    assert hooks.ended(second, REFUSED) is DeliveryState.FAILED


def test_after_a_rotation_both_secrets_sign_for_a_day(house: House, hooks: Webhooks) -> None:
    made, old = hooks.add(TENANT, URL, ALL)
    _, new = hooks.rotate(TENANT, made.id)
    _published(hooks)
    (call,) = hooks.take(1)
    assert call.secrets == (new, old)
    house.clock.now += SECRET_OVERLAP + timedelta(seconds=1)
    assert hooks.take(1)[0].secrets == (new,)


def test_a_delivery_can_be_sent_again_under_its_old_name(hooks: Webhooks) -> None:
    made, _ = hooks.add(TENANT, URL, ALL)
    _published(hooks)
    (call,) = hooks.take(1)
    hooks.ended(call, Outcome(200))
    again = hooks.replay(TENANT, made.id, call.delivery.id)
    assert again.id != call.delivery.id and again.message_id == call.delivery.message_id
    assert hooks.take(1)[0].delivery.body == call.delivery.body
    hooks.change(TENANT, made.id, state=EndpointState.DISABLED)
    with pytest.raises(InvalidInput, match="active first"):
        hooks.replay(TENANT, made.id, call.delivery.id)


def test_the_log_comes_in_pages_newest_first(house: House, hooks: Webhooks) -> None:
    made, _ = hooks.add(TENANT, URL, ALL)
    for _ in range(5):
        _published(hooks)
        house.clock.pass_(seconds=1)
    first = hooks.deliveries(TENANT, made.id, limit=3)
    rest = hooks.deliveries(TENANT, made.id, limit=3, before=first[-1].id)
    assert [one.created_at for one in first] == sorted(
        (one.created_at for one in first), reverse=True
    )
    assert len({one.id for one in (*first, *rest)}) == 5
    assert hooks.deliveries(TENANT, made.id, [DeliveryState.FAILED]) == []


def test_old_deliveries_are_forgotten_and_waiting_ones_are_not(
    house: House, hooks: Webhooks
) -> None:
    hooks.add(TENANT, URL, ALL)
    _published(hooks)
    hooks.ended(hooks.take(1)[0], Outcome(200))
    _published(hooks)
    assert hooks.forget_before(house.clock.pass_(days=31)) == 1
    assert len(hooks.take(5)) == 1


def test_a_deleted_endpoint_leaves_nothing_and_its_key_is_destroyed(
    house: House, hooks: Webhooks, database: Database
) -> None:
    made, _ = hooks.add(TENANT, URL, ALL)
    _published(hooks)
    (call,) = hooks.take(1)
    hooks.delete(TENANT, made.id)
    assert hooks.ended(call, REFUSED) is DeliveryState.FAILED
    with database.reading() as session:
        assert session.scalar(text("SELECT count(*) FROM webhook_deliveries")) == 0
    with pytest.raises(DataKeyDestroyed):
        house.keys.commitment_key(TENANT, made.id)


def test_what_is_another_tenants_is_not_there(house: House, hooks: Webhooks) -> None:
    made, _ = hooks.add(TENANT, URL, ALL)
    _published(hooks)
    delivery = hooks.deliveries(TENANT, made.id)[0]
    house.people.add_tenant("other", "Another house")
    for ask in (
        lambda: hooks.get("other", made.id),
        lambda: hooks.change("other", made.id, url=URL),
        lambda: hooks.rotate("other", made.id),
        lambda: hooks.delete("other", made.id),
        lambda: hooks.deliveries("other", made.id),
        lambda: hooks.replay("other", made.id, delivery.id),
    ):
        with pytest.raises(NotStored):
            ask()
    assert hooks.of_tenant("other") == []
    assert hooks.publish("other", EventKind.IDENTITY_DELETED, {"id": "x"}) == 0


@pytest.mark.parametrize(
    ("url", "events", "description", "advice"),
    [
        ("", ALL, "", "url"),
        ("https://" + "a" * 2000, ALL, "", "url"),
        (URL, set(), "", "events"),
        (URL, {"generation.begun"}, "", "generation.succeeded"),
        (URL, ALL, "a" * 201, "description"),
    ],
)
def test_a_malformed_webhook_is_refused(
    hooks: Webhooks, url: str, events: set[str], description: str, advice: str
) -> None:
    with pytest.raises(InvalidInput, match=advice):
        hooks.add(TENANT, url, events, description)  # type: ignore[arg-type]
    assert hooks.of_tenant(TENANT) == []


def test_a_tenant_has_only_so_many(hooks: Webhooks) -> None:
    for _ in range(MAX_ENDPOINTS):
        hooks.add(TENANT, URL, ALL)
    with pytest.raises(InvalidInput, match="Delete one"):
        hooks.add(TENANT, URL, ALL)


@pytest.fixture
def jobs(house: House, hooks: Webhooks) -> JobStore:
    hooks.add(TENANT, URL, ALL)
    return JobStore(house.database, house.clock, on_end=hooks.jobs_ended)


def _told(hooks: Webhooks) -> list[str]:
    return [call.delivery.event.value for call in hooks.take(10)]


def test_every_end_of_a_job_is_told_once(house: House, hooks: Webhooks, jobs: JobStore) -> None:
    for number in range(5):
        jobs.submit(NewJob(TENANT, "fake", b"", id=f"job_{number}"))
        house.clock.pass_(seconds=1)
    claims = jobs.claim("w", limit=4)
    jobs.cancel(TENANT, "job_4")
    jobs.finish(claims[0].lease, {})
    jobs.fail(claims[1].lease, JobError("x", "y"))
    jobs.block(claims[2].lease, "output", JobError("x", "y"))
    jobs.fail(claims[3].lease, JobError("x", "y"), retry_after=timedelta(seconds=1))
    assert sorted(_told(hooks)) == [
        "generation.blocked",
        "generation.canceled",
        "generation.failed",
        "generation.succeeded",
    ]
    jobs.cancel(TENANT, "job_4")
    assert _told(hooks) == []


def test_a_job_whose_worker_is_lost_for_good_is_told_too(
    house: House, hooks: Webhooks, jobs: JobStore
) -> None:
    jobs.submit(NewJob(TENANT, "fake", b"", max_attempts=1))
    jobs.claim("w")
    house.clock.pass_(minutes=1)
    assert jobs.sweep().failed == 1
    assert _told(hooks) == ["generation.failed"]


def test_an_end_that_is_undone_is_not_told(
    hooks: Webhooks, jobs: JobStore, database: Database
) -> None:
    jobs.submit(NewJob(TENANT, "fake", b"", id="job_1"))
    (claim,) = jobs.claim("w")
    with pytest.raises(RuntimeError), database.writing() as session:
        jobs.finish(claim.lease, {}, within=session)
        raise RuntimeError("power cut")
    assert jobs.get(TENANT, "job_1").state is JobState.RUNNING
    assert _told(hooks) == []
