"""A wish on its way through the queue: sealed under the key of the person it is about.

Once that person is erased, a payload that lies in a backup says nothing any more.
"""

from __future__ import annotations

import hashlib
import hmac
import json
from dataclasses import asdict, dataclass, field

from imagine.pipeline import Wish
from imagine.storage.consent import ConsentBook, Purpose
from imagine.storage.jobs import Job
from imagine.storage.vault import Vault

SUFFIXES = {"png": ".png", "jpeg": ".jpg", "webp": ".webp"}
MEDIA_TYPES = {"png": "image/png", "jpeg": "image/jpeg", "webp": "image/webp"}


@dataclass(frozen=True, slots=True)
class Payload:
    """What a worker must know.

    Attributes:
        wish: complete, with its seed, so that a second attempt draws the same pictures.
        output_format: "png", "jpeg" or "webp".
        beside: identity of somebody who stands to the right, if anybody does.
    """

    wish: Wish = field(repr=False)
    output_format: str
    beside: str | None = None


class PayloadSealer:
    """Seals payloads and opens them, for a purpose the person agreed to."""

    def __init__(self, vault: Vault, consents: ConsentBook) -> None:
        self._vault = vault
        self._consents = consents

    def seal(self, tenant_id: str, identity_id: str, job_id: str, payload: Payload) -> bytes:
        """Encrypt for one job."""
        text = json.dumps(asdict(payload))
        return self._vault.seal(tenant_id, identity_id, f"{job_id}/payload", text.encode())

    def open(self, job: Job) -> Payload:
        """Decrypt what a claimed job holds.

        Raises:
            ConsentMissing: consent to generate has ended.
            DataKeyDestroyed: the person was erased.
        """
        assert job.identity_id is not None and job.sealed_payload is not None
        grant = self._consents.grant(job.tenant_id, job.identity_id, Purpose.GENERATE, "worker")
        facts = json.loads(self._vault.open(grant, f"{job.id}/payload", job.sealed_payload))
        return Payload(Wish(**facts["wish"]), facts["output_format"], facts.get("beside"))

    def digest(self, tenant_id: str, identity_id: str, request: str) -> str:
        """Keyed digest of a request, to tell a repeat from another one; hex of 32 bytes."""
        key = self._vault.keys.commitment_key(tenant_id, identity_id)
        return hmac.digest(key, b"imagine request 1\0" + request.encode(), hashlib.sha256).hex()
