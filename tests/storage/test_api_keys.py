from datetime import timedelta

import pytest
from sqlalchemy import select

from imagine.errors import InvalidInput, KeyRefused, NotStored
from imagine.storage.api_keys import ApiKeys
from imagine.storage.tables import ApiKeyRow
from tests.storage.house import TENANT, House


@pytest.fixture
def api_keys(house: House) -> ApiKeys:
    return ApiKeys(house.database, house.clock)


def test_a_key_works_for_its_scopes(api_keys: ApiKeys) -> None:
    made = api_keys.create(TENANT, "shop", {"images:read", "generations:write"})
    found = api_keys.check(made.token, "images:read")
    assert (found.id, found.tenant_id) == (made.key.id, TENANT)


def test_a_key_without_the_scope_is_told_so(api_keys: ApiKeys) -> None:
    made = api_keys.create(TENANT, "shop", {"images:read"})
    with pytest.raises(KeyRefused, match="may not 'identities:write'") as caught:
        api_keys.check(made.token, "identities:write")
    assert caught.value.lacks_scope


def test_a_revoked_key_is_refused_at_once(api_keys: ApiKeys) -> None:
    made = api_keys.create(TENANT, "shop", {"images:read"})
    api_keys.check(made.token, "images:read")
    first = api_keys.revoke(TENANT, made.key.id)
    assert api_keys.revoke(TENANT, made.key.id) == first
    with pytest.raises(KeyRefused, match="was revoked"):
        api_keys.check(made.token, "images:read")


def test_an_expired_key_is_refused(api_keys: ApiKeys, house: House) -> None:
    made = api_keys.create(TENANT, "shop", {"images:read"}, lifetime=timedelta(hours=1))
    house.clock.pass_(minutes=59)
    api_keys.check(made.token, "images:read")
    house.clock.pass_(minutes=1)
    with pytest.raises(KeyRefused, match="expired"):
        api_keys.check(made.token, "images:read")


def test_unknown_and_wrong_keys_get_the_same_answer(api_keys: ApiKeys) -> None:
    made = api_keys.create(TENANT, "shop", {"images:read"})
    right_id = made.token[:-1] + ("A" if made.token[-1] != "A" else "B")
    unknown_id = f"imk_{'0' * 16}_{made.token[-43:]}"
    answers = set()
    for token in (right_id, unknown_id, "", "Bearer x", made.token + "x", made.token + "\n"):
        with pytest.raises(KeyRefused) as caught:
            api_keys.check(token, "images:read")
        answers.add(str(caught.value))
    assert len(answers) == 1


def test_the_secret_is_stored_nowhere_and_shown_once(api_keys: ApiKeys, house: House) -> None:
    made = api_keys.create(TENANT, "shop", {"images:read"})
    secret = made.token[-43:]
    with house.database.reading() as session:
        row = session.scalars(select(ApiKeyRow)).one()
    assert secret not in " ".join(str(value) for value in vars(row).values())
    assert secret not in repr(made) + repr(api_keys.of_tenant(TENANT))


def test_a_tenant_sees_and_revokes_only_its_own(api_keys: ApiKeys, house: House) -> None:
    house.people.add_tenant("rival", "Rival")
    made = api_keys.create(TENANT, "shop", {"images:read"})
    assert api_keys.of_tenant("rival") == []
    with pytest.raises(NotStored):
        api_keys.revoke("rival", made.key.id)
    api_keys.check(made.token, "images:read")


def test_last_use_is_kept_to_the_minute(api_keys: ApiKeys, house: House) -> None:
    made = api_keys.create(TENANT, "shop", {"images:read"})
    first = api_keys.check(made.token, "images:read").last_used_at
    house.clock.pass_(seconds=30)
    assert api_keys.check(made.token, "images:read").last_used_at == first
    house.clock.pass_(seconds=30)
    assert api_keys.check(made.token, "images:read").last_used_at == house.clock.now


@pytest.mark.parametrize(
    ("label", "scopes", "lifetime"),
    [
        ("", {"a:b"}, None),
        ("x" * 201, {"a:b"}, None),
        ("shop", set(), None),
        ("shop", {"Images Read"}, None),
        ("shop", {"a:b"}, timedelta(0)),
    ],
)
def test_a_malformed_key_is_not_made(
    api_keys: ApiKeys, label: str, scopes: set[str], lifetime: timedelta | None
) -> None:
    with pytest.raises(InvalidInput):
        api_keys.create(TENANT, label, scopes, lifetime)
    assert api_keys.of_tenant(TENANT) == []


def test_a_key_for_no_tenant_is_not_made(api_keys: ApiKeys) -> None:
    with pytest.raises(NotStored):
        api_keys.create("nobody", "shop", {"a:b"})
