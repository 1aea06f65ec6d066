"""Signatures of webhooks: how the service makes them and how a receiver checks them.

    from imagine.service.client import WebhookVerifier

    verifier = WebhookVerifier("whsec_...")
    event = verifier.verify(request.body, request.headers)   # raises unless it is ours and new

Source: the Standard Webhooks specification, version 1.0.0, symmetric signatures (v1).
"""

from __future__ import annotations

import base64
import binascii
import hashlib
import hmac
import json
import re
import secrets
import threading
import time
from collections import OrderedDict
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any

from imagine.errors import InvalidInput, WebhookInvalid, WebhookReplayed

SECRET_PREFIX = "whsec_"
TOLERANCE_SECONDS = 300
_SECRET_BYTES = 32
_MOST_REMEMBERED = 100_000
_TIMESTAMP = re.compile(r"[0-9]{1,12}")


def new_secret() -> str:
    """A secret for one receiver: "whsec_" and base64 of 32 random bytes."""
    return SECRET_PREFIX + base64.b64encode(secrets.token_bytes(_SECRET_BYTES)).decode()


def signed_headers(
    message_id: str, timestamp: int, body: bytes, signing_secrets: Sequence[str]
) -> dict[str, str]:
    """The headers of a webhook, signed with each secret; a receiver needs to know one of them."""
    made = [_signature(_key(secret), message_id, timestamp, body) for secret in signing_secrets]
    return {
        "webhook-id": message_id,
        "webhook-timestamp": str(timestamp),
        "webhook-signature": " ".join(f"v1,{one}" for one in made),
    }


@dataclass(frozen=True, slots=True)
class WebhookEvent:
    """What a webhook tells.

    Attributes:
        id: names the message; the same one when it is sent again.
        kind: e.g. "generation.succeeded".
        data: ids of what it is about; ask the service for the rest.
    """

    id: str
    kind: str
    data: Mapping[str, Any] = field(repr=False)


class WebhookVerifier:
    """Checks webhooks of one sender. Safe to use from several threads.

    It remembers what it has seen for as long as a message counts as new; several processes of one
    receiver should also remember the ids of the messages they have acted on.

    Args:
        secrets: as shown when the webhook was made; two while one takes the place of the other.
        tolerance_seconds: how old, or how far ahead of this clock, a message may be.
        clock: seconds since 1970.

    Raises:
        InvalidInput: a secret is malformed, or none was given.
    """

    def __init__(
        self,
        *secrets: str,
        tolerance_seconds: float = TOLERANCE_SECONDS,
        clock: Callable[[], float] = time.time,
    ) -> None:
        if not secrets:
            raise InvalidInput("Give the secret of the webhook, whsec_...")
        self._keys = [_key(secret) for secret in secrets]
        self._tolerance = tolerance_seconds
        self._clock = clock
        self._lock = threading.Lock()
        self._seen: OrderedDict[str, float] = OrderedDict()  # signed words -> when to forget them

    def __repr__(self) -> str:
        return f"WebhookVerifier({len(self._keys)} secrets)"

    def verify(self, body: bytes | str, headers: Mapping[str, str]) -> WebhookEvent:
        """The event, if it was signed by the sender and has not come before.

        Args:
            body: exactly as it came.
            headers: of the request; names in any case.

        Raises:
            WebhookInvalid: a header is missing, or the signature or the time is wrong.
            WebhookReplayed: it came before, or is older than any first delivery can be.
        """
        data = body.encode() if isinstance(body, str) else body
        found = {name.lower(): value for name, value in headers.items()}
        message_id, stamp, signatures = (
            found.get(f"webhook-{name}", "") for name in ("id", "timestamp", "signature")
        )
        if not message_id or not signatures or not _TIMESTAMP.fullmatch(stamp):
            raise WebhookInvalid(
                "This is no webhook of ours: webhook-id, webhook-timestamp or webhook-signature "
                "is missing or malformed. Answer 400 and do nothing."
            )
        if not self._is_signed(message_id, int(stamp), data, signatures):
            raise WebhookInvalid(
                f"Webhook {message_id[:80]!r} was not signed with this secret, or was changed on "
                "its way. Answer 400 and do nothing; check that the secret is the present one."
            )
        self._check_new(message_id, int(stamp))
        try:
            told = json.loads(data)
            return WebhookEvent(message_id, told["type"], told["data"])
        except (ValueError, KeyError, TypeError) as error:
            raise WebhookInvalid(
                f"Webhook {message_id[:80]!r} is signed, but its body holds no event."
            ) from error

    def _is_signed(self, message_id: str, stamp: int, body: bytes, signatures: str) -> bool:
        given = [one.removeprefix("v1,") for one in signatures.split() if one.startswith("v1,")]
        wanted = [_signature(key, message_id, stamp, body) for key in self._keys]
        return any(hmac.compare_digest(a.encode(), b.encode()) for a in given for b in wanted)

    def _check_new(self, message_id: str, stamp: int) -> None:
        now = self._clock()
        if stamp > now + self._tolerance:
            raise WebhookInvalid(
                f"Webhook {message_id[:80]!r} is dated {stamp - now:.0f} seconds ahead. Check the "
                "clock of this machine."
            )
        if stamp < now - self._tolerance:
            raise WebhookReplayed(
                f"Webhook {message_id[:80]!r} is {now - stamp:.0f} seconds old; it was sent then "
                "and comes again now. Answer 400 and do nothing."
            )
        name = f"{stamp}.{message_id}"  # a retry of the sender is dated anew
        with self._lock:
            while self._seen and next(iter(self._seen.values())) < now:
                self._seen.popitem(last=False)
            if name in self._seen:
                raise WebhookReplayed(
                    f"Webhook {message_id[:80]!r} came before, in this very delivery. Answer 400 "
                    "and do nothing."
                )
            self._seen[name] = now + 2 * self._tolerance
            while len(self._seen) > _MOST_REMEMBERED:
                self._seen.popitem(last=False)


def _key(secret: str) -> bytes:
    try:
        key = base64.b64decode(secret.removeprefix(SECRET_PREFIX), validate=True)
    except (binascii.Error, ValueError):
        key = b""
    if not 24 <= len(key) <= 64:
        # Not repeated: it is a secret, if a wrong one.
        raise InvalidInput("A webhook secret is whsec_ and base64 of 24 to 64 bytes.")
    return key


def _signature(key: bytes, message_id: str, timestamp: int, body: bytes) -> str:
    signed = f"{message_id}.{timestamp}.".encode() + body
    return base64.b64encode(hmac.digest(key, signed, hashlib.sha256)).decode()
