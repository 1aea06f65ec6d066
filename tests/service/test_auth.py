from __future__ import annotations

from collections.abc import Iterator

import pytest
from fastapi.testclient import TestClient

from imagine.errors import InvalidInput
from imagine.service.auth import ROLES, SCOPES, Doorkeeper, check_bound_to_loopback, scopes_of
from imagine.service.wiring import Service
from tests.service.conftest import House, MakeHouse, chosen


@pytest.fixture
def single_user(service: Service, http: TestClient) -> Iterator[TestClient]:
    """The same service, opened to whoever sits at this machine."""
    mode = chosen(single_user=True)
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(service, "doorkeeper", Doorkeeper(service.api_keys, mode))
        app = http.app
        yield TestClient(app, base_url="http://127.0.0.1:8765", client=("127.0.0.1", 50000))


def test_without_a_key_nothing_is_told(http: TestClient) -> None:
    answer = http.get("/v1/identities")
    assert answer.status_code == 401
    assert answer.headers["www-authenticate"] == "Bearer"
    assert answer.json()["error"]["code"] == "key_refused"


@pytest.mark.parametrize("key", ["", "nonsense", "imk_00_aa", "imk_0000000000000000_" + "a" * 43])
def test_a_key_nobody_made_is_refused(http: TestClient, key: str) -> None:
    assert http.get("/v1/styles", headers={"X-Api-Key": key}).status_code == 401


def test_a_key_may_come_in_either_header(house: House) -> None:
    for headers in (house.headers, {"X-Api-Key": house.token}):
        assert house.http.get("/v1/styles", headers=headers).status_code == 200


def test_a_revoked_key_is_refused_at_its_next_use(house: House) -> None:
    assert house.ask("GET", "/v1/styles").status_code == 200
    house.service.api_keys.revoke(house.tenant_id, house.token.split("_")[1])
    refused = house.ask("GET", "/v1/styles")
    assert refused.status_code == 401 and "revoked" in refused.json()["detail"]


def test_a_key_may_only_do_what_its_role_may(make_house: MakeHouse) -> None:
    reviewer = make_house("reviewer")
    refused = reviewer.ask("GET", "/v1/identities")
    assert refused.status_code == 403
    assert refused.json()["error"]["code"] == "scope_missing"
    assert reviewer.ask("GET", "/v1/generations").status_code == 200


def test_figures_of_the_service_are_not_for_users(make_house: MakeHouse) -> None:
    assert make_house("user").ask("GET", "/metrics").status_code == 403
    assert make_house("developer").ask("GET", "/metrics").status_code == 200


def test_every_role_has_known_scopes_and_an_admin_has_all() -> None:
    assert all(scopes <= SCOPES for scopes in ROLES.values())
    assert scopes_of("admin") == SCOPES
    with pytest.raises(InvalidInput, match="user, developer, reviewer, admin"):
        scopes_of("king")


def test_whoever_sits_at_the_machine_needs_no_key(single_user: TestClient) -> None:
    assert single_user.get("/v1/identities").status_code == 200
    assert single_user.get("/metrics").status_code == 200


@pytest.mark.parametrize(
    "headers",
    [
        {"Host": "evil.example"},
        {"Host": "evil.example:8765"},
        {"Origin": "http://evil.example"},
        {"Origin": "null"},
        {"Origin": "http://127.0.0.1:9999"},
        {"Sec-Fetch-Site": "cross-site"},
        {"X-Forwarded-For": "127.0.0.1"},
    ],
)
def test_pages_of_others_cannot_use_the_machine(
    single_user: TestClient, headers: dict[str, str]
) -> None:
    assert single_user.get("/v1/identities", headers=headers).status_code == 401


def test_our_own_page_may_ask(single_user: TestClient) -> None:
    headers = {"Origin": "http://127.0.0.1:8765", "Sec-Fetch-Site": "same-origin"}
    assert single_user.get("/v1/identities", headers=headers).status_code == 200


def test_another_machine_needs_a_key(single_user: TestClient, http: TestClient) -> None:
    elsewhere = TestClient(http.app, base_url="http://127.0.0.1", client=("10.0.0.9", 50000))
    assert elsewhere.get("/v1/identities").status_code == 401


@pytest.mark.parametrize("host", ["0.0.0.0", "::", "192.168.1.5", "example.org", ""])
def test_a_service_without_accounts_is_not_opened_to_a_network(host: str) -> None:
    with pytest.raises(InvalidInput, match="keys create"):
        check_bound_to_loopback(host)


@pytest.mark.parametrize("host", ["127.0.0.1", "::1", "localhost"])
def test_loopback_is_fine(host: str) -> None:
    check_bound_to_loopback(host)
