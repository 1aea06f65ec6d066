from __future__ import annotations

import http.server
import threading
import time
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest

from imagine.errors import UnsafeAddress
from imagine.service import webhook_sender
from imagine.service.webhook_sender import AddressGuard, Sender
from imagine.service.webhook_signatures import WebhookVerifier, new_secret
from imagine.storage.blobs import open_blobs
from imagine.storage.database import open_database, utc_now
from imagine.storage.keys import DataKeys, LocalMasterKey
from imagine.storage.migrations import upgrade
from imagine.storage.tables import TenantRow
from imagine.storage.webhooks import Delivery, DeliveryState, EventKind, Webhooks

HERE = ("127.0.0.0/8",)


class Receiver:
    """Somebody who is called: answers what he is told to and keeps what came."""

    def __init__(self) -> None:
        self.status = 204
        self.headers: dict[str, str] = {}
        self.pause = 0.0
        self.came: list[tuple[str, dict[str, str], bytes]] = []
        receiver = self

        class Handler(http.server.BaseHTTPRequestHandler):
            def do_POST(self) -> None:
                body = self.rfile.read(int(self.headers["content-length"]))
                receiver.came.append((self.path, dict(self.headers), body))
                time.sleep(receiver.pause)
                self.send_response(receiver.status)
                for name, value in receiver.headers.items():
                    self.send_header(name, value)
                self.end_headers()

            def log_message(self, *words: object) -> None:
                pass

        self.server = http.server.ThreadingHTTPServer(("127.0.0.1", 0), Handler)
        self.port = self.server.server_address[1]
        threading.Thread(target=self.server.serve_forever, daemon=True).start()

    @property
    def url(self) -> str:
        return f"http://127.0.0.1:{self.port}/hooks?a=b"


@pytest.fixture
def receiver() -> Iterator[Receiver]:
    made = Receiver()
    yield made
    made.server.shutdown()
    made.server.server_close()


@pytest.fixture
def hooks(tmp_path: Path) -> Iterator[Webhooks]:
    with open_database(f"sqlite:///{tmp_path / 'a.db'}") as database:
        upgrade(database)
        with database.writing() as session:
            session.add(TenantRow(id="house", name="A house", created_at=utc_now()))
        keys = DataKeys(open_blobs("memory://"), LocalMasterKey(b"k" * 32))
        yield Webhooks(database, keys, new_secret)


def sent(hooks: Webhooks, url: str, guard: AddressGuard) -> tuple[Delivery, str]:
    """One event, sent once; what became of it, and the secret."""
    made, secret = hooks.add("house", url, {EventKind.IDENTITY_DELETED})
    hooks.publish("house", EventKind.IDENTITY_DELETED, {"id": "identity_1"})
    assert Sender(hooks, guard).send_due() == 1
    return hooks.deliveries("house", made.id)[0], secret


def test_a_call_is_signed_and_says_what_it_is(hooks: Webhooks, receiver: Receiver) -> None:
    told, secret = sent(hooks, receiver.url, AddressGuard(HERE))
    assert (told.state, told.status, told.attempts) == (DeliveryState.DELIVERED, 204, 1)
    ((path, headers, body),) = receiver.came
    event = WebhookVerifier(secret).verify(body, headers)
    assert (event.id, event.kind) == (told.message_id, "identity.deleted")
    assert path == "/hooks?a=b" and headers["Host"] == f"127.0.0.1:{receiver.port}"


@pytest.mark.parametrize("status", [301, 400, 404, 500])
def test_an_answer_that_is_no_success_is_tried_again(
    hooks: Webhooks, receiver: Receiver, status: int
) -> None:
    receiver.status, receiver.headers = status, {"Location": receiver.url}
    told, _ = sent(hooks, receiver.url, AddressGuard(HERE))
    assert (told.state, told.error) == (DeliveryState.PENDING, f"status_{status}")
    assert len(receiver.came) == 1  # a redirection is not followed


def test_nobody_there_is_tried_again(hooks: Webhooks, receiver: Receiver) -> None:
    url = receiver.url
    receiver.server.shutdown()
    receiver.server.server_close()
    told, _ = sent(hooks, url, AddressGuard(HERE))
    assert (told.state, told.error) == (DeliveryState.PENDING, "no_answer")


def test_one_who_never_answers_is_left(
    hooks: Webhooks, receiver: Receiver, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(webhook_sender, "CALL_SECONDS", 0.2)
    receiver.pause = 3.0
    told, _ = sent(hooks, receiver.url, AddressGuard(HERE))
    assert told.state is DeliveryState.PENDING and told.error in ("no_answer", "timeout")


def test_a_private_address_is_never_called(hooks: Webhooks, receiver: Receiver) -> None:
    told, _ = sent(hooks, receiver.url, AddressGuard())
    assert (told.error, receiver.came) == ("unsafe_address", [])


def test_a_name_that_changes_its_mind_gains_nothing(hooks: Webhooks, receiver: Receiver) -> None:
    answers = [["127.0.0.1"], ["10.0.0.1"]]  # a second look-up would lead elsewhere
    guard = AddressGuard(HERE, find=lambda host, port: answers.pop(0))
    told, _ = sent(hooks, f"http://rebind.example:{receiver.port}/", guard)
    assert told.state is DeliveryState.DELIVERED and len(answers) == 1
    assert receiver.came[0][1]["Host"] == f"rebind.example:{receiver.port}"
    with pytest.raises(UnsafeAddress):
        guard.target(f"http://rebind.example:{receiver.port}/")


@pytest.mark.parametrize(
    "address",
    [
        "127.0.0.1",
        "10.1.2.3",
        "172.16.0.1",
        "192.168.1.1",
        "169.254.169.254",
        "100.64.0.1",
        "0.0.0.0",
        "224.0.0.1",
        "255.255.255.255",
        "::1",
        "::",
        "fe80::1",
        "fe80::1%eth0",
        "fc00::1",
        "::ffff:10.0.0.1",
        "2002:0a00:0001::1",
        "64:ff9b::a00:1",
        "ff02::1",
    ],
)
def test_an_address_that_is_not_public_is_refused_without_naming_it(address: str) -> None:
    for found in ([address], ["93.184.215.14", address]):
        guard = AddressGuard(find=lambda host, port, found=found: found)  # type: ignore[misc]
        with pytest.raises(UnsafeAddress, match="not public") as refused:
            guard.target("https://name.example/")
        assert address not in str(refused.value)


def public(host: str, port: int) -> list[str]:
    return ["93.184.215.14"]


@pytest.mark.parametrize(
    "url",
    [
        "",
        "name.example",
        "ftp://name.example/",
        "file:///etc/passwd",
        "https:///path",
        "https://user:word@name.example/",
        "https://name.example:99999/",
        "https://name.example/a b",
        "https://name.example/\r\nX: y",
        "https://[::1/",
        "https://" + "a" * 80 + ".example/",
        "http://name.example/",
    ],
)
def test_a_url_that_cannot_be_called_safely_is_refused(url: str) -> None:
    with pytest.raises(UnsafeAddress):
        AddressGuard(find=public).target(url)


def test_a_public_https_url_is_fine() -> None:
    target = AddressGuard(find=public).target("https://name.example/a?b=c")
    assert (target.address, target.port, target.host) == ("93.184.215.14", 443, "name.example")
    assert (target.path, target.is_secure) == ("/a?b=c", True)


def test_a_name_without_an_address_is_refused() -> None:
    def nobody(host: str, port: int) -> list[str]:
        raise OSError("no such name")

    with pytest.raises(UnsafeAddress, match="no address"):
        AddressGuard(find=nobody).target("https://nobody.example/")


def test_a_sender_sends_by_itself_until_it_is_stopped(hooks: Webhooks, receiver: Receiver) -> None:
    sender = Sender(hooks, AddressGuard(HERE))
    sender.start()
    hooks.add("house", receiver.url, {EventKind.IDENTITY_DELETED})
    for _ in range(3):
        hooks.publish("house", EventKind.IDENTITY_DELETED, {"id": "identity_1"})
    until(lambda: len(receiver.came) == 3)
    sender.stop()
    hooks.publish("house", EventKind.IDENTITY_DELETED, {"id": "identity_1"})
    assert len(receiver.came) == 3


def until(happened: Callable[[], Any], seconds: float = 30.0) -> None:
    give_up = time.monotonic() + seconds
    while not happened():
        assert time.monotonic() < give_up
        time.sleep(0.02)
