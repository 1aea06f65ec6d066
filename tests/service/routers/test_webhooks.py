from __future__ import annotations

import json
import time
from collections.abc import Iterator
from typing import Any

import pytest

from imagine.service.client import WebhookVerifier
from imagine.service.webhook_sender import AddressGuard
from imagine.service.wiring import Service
from tests.service.conftest import House
from tests.service.test_webhook_sender import HERE, Receiver, receiver

__all__ = ["receiver"]  # a fixture is found by its name in the file

ALL = [
    "generation.succeeded",
    "generation.failed",
    "generation.canceled",
    "generation.blocked",
    "identity.deleted",
    "consent.withdrawn",
]


@pytest.fixture
def open_guard(service: Service, monkeypatch: pytest.MonkeyPatch) -> Iterator[None]:
    """This machine may be called; only the tests send."""
    guard = AddressGuard(HERE)
    monkeypatch.setattr(service, "address_guard", guard)
    monkeypatch.setattr(service.sender, "_guard", guard)
    yield


def made(house: House, url: str, events: list[str] | None = None) -> dict[str, Any]:
    body = {"url": url, "events": events or ALL}
    answer = house.ask("POST", "/v1/webhooks", json=body)
    assert answer.status_code == 201, answer.text
    told: dict[str, Any] = answer.json()
    return told


def came(receiver: Receiver, count: int, seconds: float = 30.0) -> list[tuple[str, Any, bytes]]:
    give_up = time.monotonic() + seconds
    while len(receiver.came) < count:
        assert time.monotonic() < give_up, receiver.came
        time.sleep(0.02)
    return receiver.came


def test_a_picture_an_erasure_and_a_withdrawal_are_told(
    house: House, receiver: Receiver, open_guard: None
) -> None:
    hook = made(house, receiver.url)
    identity = house.enrol()
    wish = house.generate(identity, prompt="in a canary forest")
    house.ask("POST", f"/v1/identities/{identity}/withdraw")
    house.ask("DELETE", f"/v1/identities/{identity}")
    verifier = WebhookVerifier(hook["secret"])
    told = [verifier.verify(body, headers) for _, headers, body in came(receiver, 3)]
    by_kind = {event.kind: event.data for event in told}
    assert by_kind == {
        "generation.succeeded": {"object": "generation", "id": wish["id"], "identity": identity},
        "consent.withdrawn": {"object": "identity", "id": identity},
        "identity.deleted": {"object": "identity", "id": identity},
    }
    assert not [body for _, _, body in receiver.came if b"canary" in body]


def test_the_log_says_what_became_of_a_call_and_it_can_be_made_again(
    house: House, receiver: Receiver, open_guard: None
) -> None:
    hook = made(house, receiver.url, ["identity.deleted"])
    identity = house.enrol()
    house.ask("DELETE", f"/v1/identities/{identity}")
    came(receiver, 1)
    path = f"/v1/webhooks/{hook['id']}/deliveries"
    give_up = time.monotonic() + 30
    while house.ask("GET", path).json()["data"][0]["state"] == "pending":
        assert time.monotonic() < give_up
        time.sleep(0.02)
    (told,) = house.ask("GET", path).json()["data"]
    assert (told["state"], told["status"], told["event"]) == ("delivered", 204, "identity.deleted")
    again = house.ask("POST", f"{path}/{told['id']}/replay")
    assert (again.status_code, again.json()["message_id"]) == (202, told["message_id"])
    ids = [headers["webhook-id"] for _, headers, _ in came(receiver, 2)]
    assert ids == [told["message_id"]] * 2
    page = house.ask("GET", f"{path}?limit=1").json()
    assert page["has_more"] and page["data"][0]["id"] == again.json()["id"]


def test_the_secret_is_shown_once_and_again_when_it_is_new(house: House) -> None:
    hook = made(house, "https://1.1.1.1/hooks")
    assert hook["secret"].startswith("whsec_")
    path = f"/v1/webhooks/{hook['id']}"
    assert house.ask("GET", path).json()["secret"] is None
    new = house.ask("POST", f"{path}/rotate").json()["secret"]
    assert new.startswith("whsec_") and new != hook["secret"]
    listed = house.ask("GET", "/v1/webhooks").json()["data"]
    assert [one["id"] for one in listed] == [hook["id"]]
    assert "whsec_" not in json.dumps(listed)


def test_a_webhook_can_be_changed_disabled_and_deleted(house: House) -> None:
    path = f"/v1/webhooks/{made(house, 'https://1.1.1.1/hooks')['id']}"
    change = {"events": ["identity.deleted"], "description": "mine", "state": "disabled"}
    told = house.ask("PATCH", path, json=change).json()
    assert {name: told[name] for name in change} == change
    assert told["disabled_reason"] == "by_request" and told["url"] == "https://1.1.1.1/hooks"
    assert house.ask("PATCH", path, json={"state": "active"}).json()["disabled_reason"] is None
    assert house.ask("DELETE", path).status_code == 204
    assert house.ask("GET", path).status_code == 404


@pytest.mark.parametrize(
    ("url", "code"),
    [
        ("https://127.0.0.1/hooks", "unsafe_address"),
        ("https://[::ffff:10.0.0.1]/", "unsafe_address"),
        ("https://169.254.169.254/latest", "unsafe_address"),
        ("http://1.1.1.1/hooks", "unsafe_address"),
        ("https://user:word@1.1.1.1/", "unsafe_address"),
        ("gopher://1.1.1.1/", "unsafe_address"),
        ("", "invalid_input"),
    ],
)
def test_an_address_that_may_not_be_called_is_refused_by_name(
    house: House, url: str, code: str
) -> None:
    answer = house.ask("POST", "/v1/webhooks", json={"url": url, "events": ALL})
    assert (answer.status_code, answer.json()["error"]["code"]) == (422, code)
    path = f"/v1/webhooks/{made(house, 'https://1.1.1.1/')['id']}"
    assert house.ask("PATCH", path, json={"url": url}).status_code == 422
    assert house.ask("GET", path).json()["url"] == "https://1.1.1.1/"


@pytest.mark.parametrize("events", [[], ["generation.begun"], "all", None])
def test_events_nobody_knows_are_refused(house: House, events: Any) -> None:
    body = {"url": "https://1.1.1.1/", "events": events}
    assert house.ask("POST", "/v1/webhooks", json=body).status_code == 422


def test_a_user_may_not_have_webhooks(house: House) -> None:
    house.token = house.key("user")
    assert house.ask("GET", "/v1/webhooks").status_code == 403
