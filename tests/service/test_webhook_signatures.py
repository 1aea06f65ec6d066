from __future__ import annotations

import json
import time

import pytest
import standardwebhooks

from imagine.errors import InvalidInput, WebhookInvalid, WebhookReplayed
from imagine.service.webhook_signatures import WebhookVerifier, new_secret, signed_headers

BODY = json.dumps({"type": "identity.deleted", "data": {"id": "identity_1"}}).encode()
NOW = 1_900_000_000


class Clock:
    now = float(NOW)

    def __call__(self) -> float:
        return self.now


@pytest.fixture
def secret() -> str:
    return new_secret()


def test_what_was_signed_is_taken_whatever_the_case_of_the_headers(secret: str) -> None:
    headers = signed_headers("msg_1", NOW, BODY, [secret])
    shouted = {name.upper(): value for name, value in headers.items()}
    event = WebhookVerifier(secret, clock=Clock()).verify(BODY.decode(), shouted)
    assert (event.id, event.kind, event.data) == ("msg_1", "identity.deleted", {"id": "identity_1"})


def test_other_verifiers_of_the_standard_agree(secret: str) -> None:
    headers = signed_headers("msg_1", int(time.time()), BODY, [new_secret(), secret])
    told = standardwebhooks.Webhook(secret).verify(BODY.decode(), headers)
    assert told["type"] == "identity.deleted"


def test_the_signature_is_that_of_the_specification() -> None:
    headers = signed_headers(
        "msg_p5jXN8AQM9LWM0D4loKWxJek",
        1614265330,
        b'{"test": 2432232314}',
        ["whsec_MfKQ9r8GKYqrTwjUPD8ILPZIo2LaLaSw"],
    )
    assert headers["webhook-signature"] == "v1,g0hM9SsE+OTPJTGt/tmIKtSyZlE3uFJELVlNIOLJ1OE="


def test_while_one_secret_takes_the_place_of_another_both_are_good(secret: str) -> None:
    old = new_secret()
    headers = signed_headers("msg_1", NOW, BODY, [secret, old])
    for known in ([secret], [old], [old, secret]):
        assert WebhookVerifier(*known, clock=Clock()).verify(BODY, headers).id == "msg_1"


@pytest.mark.parametrize(
    "changes",
    [
        {"webhook-signature": "v1,AAAA"},
        {"webhook-signature": "v2,AAAA"},
        {"webhook-signature": ""},
        {"webhook-signature": "v1,\u00e9"},
        {"webhook-id": "msg_2"},
        {"webhook-id": ""},
        {"webhook-timestamp": str(NOW + 1)},
        {"webhook-timestamp": "soon"},
        {"webhook-timestamp": "1" * 40},
    ],
)
def test_what_was_not_signed_so_is_refused(secret: str, changes: dict[str, str]) -> None:
    headers = {**signed_headers("msg_1", NOW, BODY, [secret]), **changes}
    with pytest.raises(WebhookInvalid):
        WebhookVerifier(secret, clock=Clock()).verify(BODY, headers)


def test_another_body_and_another_secret_are_refused(secret: str) -> None:
    headers = signed_headers("msg_1", NOW, BODY, [secret])
    for body, known in ((BODY + b" ", secret), (BODY, new_secret())):
        with pytest.raises(WebhookInvalid, match="do nothing"):
            WebhookVerifier(known, clock=Clock()).verify(body, headers)


def test_a_webhook_that_comes_again_has_its_own_error(secret: str) -> None:
    verifier, headers = (
        WebhookVerifier(secret, clock=Clock()),
        signed_headers("msg_1", NOW, BODY, [secret]),
    )
    verifier.verify(BODY, headers)
    with pytest.raises(WebhookReplayed, match="came before"):
        verifier.verify(BODY, headers)


def test_an_attempt_of_the_sender_is_no_replay(secret: str) -> None:
    verifier = WebhookVerifier(secret, clock=Clock())
    for second in range(3):
        verifier.verify(BODY, signed_headers("msg_1", NOW + second, BODY, [secret]))


def test_an_old_webhook_is_a_replay_and_one_from_the_future_is_not_good(secret: str) -> None:
    verifier = WebhookVerifier(secret, clock=Clock())
    with pytest.raises(WebhookReplayed, match="301 seconds old"):
        verifier.verify(BODY, signed_headers("msg_1", NOW - 301, BODY, [secret]))
    with pytest.raises(WebhookInvalid, match="ahead") as refused:
        verifier.verify(BODY, signed_headers("msg_1", NOW + 301, BODY, [secret]))
    assert not isinstance(refused.value, WebhookReplayed)


def test_what_was_seen_is_forgotten_when_it_is_too_old_anyway(secret: str) -> None:
    clock = Clock()
    verifier = WebhookVerifier(secret, clock=clock)
    verifier.verify(BODY, signed_headers("msg_1", NOW, BODY, [secret]))
    clock.now += 601
    verifier.verify(BODY, signed_headers("msg_2", NOW + 601, BODY, [secret]))
    assert len(verifier._seen) == 1


def test_a_signed_body_without_an_event_is_refused(secret: str) -> None:
    for body in (b"[]", b"{", b"{}"):
        with pytest.raises(WebhookInvalid, match="no event"):
            headers = signed_headers("msg_1", NOW, body, [secret])
            WebhookVerifier(secret, clock=Clock()).verify(body, headers)


@pytest.mark.parametrize("given", ["", "whsec_", "whsec_!!", "whsec_YWJj", "whsec_" + "A" * 400])
def test_a_malformed_secret_is_not_repeated(given: str) -> None:
    with pytest.raises(InvalidInput, match="24 to 64"):
        WebhookVerifier(given)


def test_no_secret_at_all_is_refused() -> None:
    with pytest.raises(InvalidInput, match="Give the secret"):
        WebhookVerifier()


def test_the_verifier_masks_its_secrets(secret: str) -> None:
    assert secret not in repr(WebhookVerifier(secret)) and len(new_secret()) == len(secret)
