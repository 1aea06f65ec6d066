"""Forgetting somebody for good, with a signed certificate of it.

The data key goes first: from then on nothing that was sealed can be read, wherever copies lie.
Then job payloads, caches, blobs and rows follow. Every step may be done twice, so an erasure that
was cut off is finished by asking again, or by `resume` at the next start.
"""

from __future__ import annotations

import base64
import binascii
import hashlib
import json
import re
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from datetime import datetime
from enum import StrEnum
from typing import cast

import rfc8785
from cryptography.exceptions import InvalidSignature
from cryptography.hazmat.primitives.asymmetric.ed25519 import Ed25519PrivateKey, Ed25519PublicKey
from sqlalchemy import ColumnElement, delete, func, or_, select
from sqlalchemy.orm import Session

from imagine.errors import CertificateInvalid, InvalidInput, NotStored
from imagine.storage.consent import CancelJobs
from imagine.storage.database import Database, new_id, utc_now
from imagine.storage.events import RecordEvent
from imagine.storage.people import PeopleStore
from imagine.storage.tables import (
    ConsentRow,
    ErasureRow,
    IdentityRow,
    IdentityState,
    ImageRow,
    PersonRow,
    PhotoRow,
)
from imagine.storage.vault import Vault

SCRUBBED = (
    "photos",
    "images",
    "withheld_pictures",
    "reviews",
    "review_decisions",
    "consents",
    "identities",
    "people",
)
CERTIFICATE_FORMAT = "imagine deletion certificate 1"
_COUNTED = re.compile(r"[a-z][a-z_]{0,40}")
# the last transaction of an erasure, tenant id, "identity" or "person", id of what is gone
OnErased = Callable[[Session, str, str, str], None]
ErasableRow = PhotoRow | ImageRow | ConsentRow | IdentityRow | PersonRow
# tenant id, id of the identity or person -> how much was forgotten; may be called twice
Forget = Callable[[str, str], int]


class Outputs(StrEnum):
    """What becomes of the pictures made of an identity."""

    DELETE = "delete"
    KEEP = "keep"  # they pass to the person's own key; they still show the person


@dataclass(frozen=True, slots=True)
class Certificate:
    """What was erased and when, as read from a certificate whose signature is right.

    Attributes:
        id: of the erasure.
        tenant_id: whose service did it.
        subject_kind: "identity" or "person".
        subject_id: what was erased; a random id.
        outputs: what became of the pictures.
        counts: how many of each kind were erased ("images_kept" were not).
        requested_at, key_destroyed_at, completed_at: moments in UTC.
    """

    id: str
    tenant_id: str
    subject_kind: str
    subject_id: str
    outputs: Outputs
    counts: Mapping[str, int]
    requested_at: datetime
    key_destroyed_at: datetime
    completed_at: datetime


class Eraser:
    """Erases identities and people, and signs that it did."""

    def __init__(
        self,
        database: Database,
        vault: Vault,
        people: PeopleStore,
        signing_key: Ed25519PrivateKey,
        record_event: RecordEvent,
        cancel_jobs: CancelJobs,
        forget: Mapping[str, Forget],
        clock: Callable[[], datetime] = utc_now,
        on_erased: OnErased = lambda session, tenant_id, kind, subject_id: None,
    ) -> None:
        """Be ready to erase.

        Args:
            database: rows.
            vault: keys and blobs.
            people: carries over pictures that are kept.
            signing_key: signs certificates; publish its public half.
            record_event: takes what happened to the audit log.
            cancel_jobs: stops the work on an identity.
            forget: everything else that remembers, by its lower-case name in the certificate,
                e.g. {"jobs": payloads in the queue, "cached": models' caches in memory}. Called
                with identities and with people; may be called twice.
            clock: the time, with a zone.
            on_erased: told once of each erasure, in the transaction that completes it.

        Raises:
            InvalidInput: a name in `forget` the audit log would not take.
        """
        unfit = [name for name in forget if _COUNTED.fullmatch(name) is None]
        if unfit:
            raise InvalidInput(f"{unfit[0]!r} cannot be counted; use lower-case letters and '_'.")
        self._database = database
        self._vault = vault
        self._people = people
        self._signing_key = signing_key
        self._record_event = record_event
        self._cancel_jobs = cancel_jobs
        self._forget = dict(forget)
        self._clock = clock
        self._on_erased = on_erased

    def erase_identity(
        self,
        tenant_id: str,
        identity_id: str,
        outputs: Outputs = Outputs.DELETE,
        rebuild: bool = True,
    ) -> str:
        """Erase one identity: photos, face, consents, jobs, and the pictures unless kept.

        Args:
            tenant_id: whose.
            identity_id: what to erase.
            outputs: what becomes of the pictures; what was asked for first holds.
            rebuild: as `Database.scrub`; who erases many does that once at the end.

        Returns:
            The signed certificate, the same one when asked again.

        Raises:
            NotStored: this tenant never had such an identity.
            BlobStoreUnusable, DatabaseUnusable: something did not answer. The identity is frozen
                or gone already; ask again to finish.
        """
        erasure = self._begun(tenant_id, "identity", identity_id, outputs)
        if erasure.certificate is not None:
            return erasure.certificate
        self._cancel_jobs(tenant_id, identity_id)
        if erasure.outputs == Outputs.KEEP and erasure.key_destroyed_at is None:
            self._people.keep_images_without_identity(tenant_id, identity_id)
        return self._finished(erasure, rebuild)

    def erase_person(self, tenant_id: str, person_id: str) -> str:
        """Erase a person with every identity and every picture.

        Returns:
            The signed certificate, the same one when asked again.

        Raises:
            NotStored: this tenant never had such a person.
            BlobStoreUnusable, DatabaseUnusable: as `erase_identity`.
        """
        erasure = self._begun(tenant_id, "person", person_id, Outputs.DELETE)
        if erasure.certificate is not None:
            return erasure.certificate
        with self._database.reading() as session:
            mine = (IdentityRow.tenant_id == tenant_id, IdentityRow.person_id == person_id)
            identities = list(session.scalars(select(IdentityRow.id).where(*mine)))
        for identity_id in identities:
            self.erase_identity(tenant_id, identity_id, rebuild=False)
        return self._finished(erasure, rebuild=True)

    def unfinished(self) -> list[tuple[str, str]]:
        """Tenant and subject of every erasure that was begun and cut off, oldest first."""
        cut_off = select(ErasureRow).where(ErasureRow.completed_at.is_(None))
        with self._database.reading() as session:
            rows = session.scalars(cut_off.order_by(ErasureRow.requested_at))
            return [(row.tenant_id, row.subject_id) for row in rows]

    def finish(self, tenant_id: str, subject_id: str) -> str:
        """Go on with an erasure that was begun, as it was asked for; returns the certificate.

        Raises:
            NotStored: this tenant never began to erase such a thing.
            BlobStoreUnusable, DatabaseUnusable: as `erase_identity`.
        """
        with self._database.reading() as session:
            erasure = _erasure(session, tenant_id, subject_id)
        if erasure is None:
            raise NotStored(f"No erasure of {subject_id!r} is known here.")
        if erasure.subject_kind == "person":
            return self.erase_person(tenant_id, subject_id)
        return self.erase_identity(tenant_id, subject_id)

    def resume(self) -> int:
        """Finish every erasure that was begun and cut off; says how many there were."""
        cut_off = self.unfinished()
        for tenant_id, subject_id in cut_off:
            self.finish(tenant_id, subject_id)
        return len(cut_off)

    def certificate(self, tenant_id: str, subject_id: str) -> str | None:
        """The certificate of a finished erasure; None while it goes on.

        Raises:
            NotStored: this tenant never erased such a thing.
        """
        with self._database.reading() as session:
            erasure = _erasure(session, tenant_id, subject_id)
        if erasure is None:
            raise NotStored(f"No erasure of {subject_id!r} is known here.")
        return erasure.certificate

    def _begun(self, tenant_id: str, kind: str, subject_id: str, outputs: Outputs) -> ErasureRow:
        """Block every read and write of the subject, and remember that it is to be erased."""
        with self._database.writing() as session:
            table = IdentityRow if kind == "identity" else PersonRow
            subject = session.get(table, (tenant_id, subject_id), with_for_update=True)
            erasure = _erasure(session, tenant_id, subject_id)
            if erasure is not None:
                return erasure
            if subject is None:
                raise NotStored(f"There is no {kind} {subject_id!r} here to erase.")
            if isinstance(subject, IdentityRow):
                subject.state = IdentityState.ERASING
            kept = 0
            if outputs == Outputs.KEEP:
                kept = _count(session, ImageRow, tenant_id, ImageRow.key_owner_id == subject_id)
            erasure = ErasureRow(
                tenant_id=tenant_id,
                id=new_id("erasure"),
                subject_kind=kind,
                subject_id=subject_id,
                outputs=outputs,
                requested_at=self._clock(),
                counts={"images_kept": kept} if kept else {},
            )
            session.add(erasure)
        return erasure

    def _finished(self, erasure: ErasureRow, rebuild: bool) -> str:
        tenant_id, subject_id = erasure.tenant_id, erasure.subject_id
        destroyed_at = self._key_destroyed(erasure)
        for name, forget in self._forget.items():
            self._add_count(erasure, name, forget(tenant_id, subject_id))
        self._vault.delete_all(tenant_id, subject_id)
        self._delete_rows(tenant_id, subject_id)
        self._database.scrub(SCRUBBED, rebuild)
        return self._signed_off(erasure, destroyed_at)

    def _key_destroyed(self, erasure: ErasureRow) -> datetime:
        """Destroy the data key, after counting what it sealed."""
        tenant_id, subject_id = erasure.tenant_id, erasure.subject_id
        counts = dict(erasure.counts)
        if erasure.key_destroyed_at is None:
            if self._vault.keys.destroyed_at(tenant_id, subject_id) is None:
                # The log can speak of the subject only while its key lives.
                self._record("begun", erasure, subject_id, {"outputs": erasure.outputs})
            counts["files"] = self._vault.count(tenant_id, subject_id).total()
            counts |= self._row_counts(tenant_id, subject_id)
        destroyed_at = self._vault.keys.destroy(tenant_id, subject_id)
        with self._database.writing() as session:
            row = session.get_one(ErasureRow, (tenant_id, erasure.id))
            row.key_destroyed_at, row.counts = destroyed_at, counts
        return destroyed_at

    def _row_counts(self, tenant_id: str, subject_id: str) -> dict[str, int]:
        with self._database.reading() as session:
            return {
                name: _count(session, table, tenant_id, condition)
                for name, table, condition in _rows_of(subject_id)
            }

    def _add_count(self, erasure: ErasureRow, name: str, number: int) -> None:
        with self._database.writing() as session:
            row = session.get_one(ErasureRow, (erasure.tenant_id, erasure.id))
            row.counts = {**row.counts, name: row.counts.get(name, 0) + number}

    def _delete_rows(self, tenant_id: str, subject_id: str) -> None:
        with self._database.writing() as session:
            for _, table, condition in _rows_of(subject_id):
                session.execute(delete(table).where(table.tenant_id == tenant_id, condition))

    def _signed_off(self, erasure: ErasureRow, destroyed_at: datetime) -> str:
        completed_at = self._clock()
        with self._database.reading() as session:
            row = session.get_one(ErasureRow, (erasure.tenant_id, erasure.id))
        if row.certificate is not None:  # another process was faster
            return row.certificate
        facts: dict[str, object] = {
            "format": CERTIFICATE_FORMAT,
            "id": row.id,
            "tenant_id": row.tenant_id,
            "subject_kind": row.subject_kind,
            "subject_id": row.subject_id,
            "outputs": row.outputs,
            "counts": dict(row.counts),
            "requested_at": row.requested_at.isoformat(),
            "key_destroyed_at": destroyed_at.isoformat(),
            "completed_at": completed_at.isoformat(),
        }
        certificate = _signed(facts, self._signing_key)
        digest = hashlib.sha256(certificate.encode()).hexdigest()
        # Before the commit: after a crash in between the event comes twice rather than never.
        counts = {f"count_{name}": number for name, number in row.counts.items()}
        self._record("completed", row, None, {"certificate_sha256": digest, **counts})
        with self._database.writing() as session:
            stored = session.get_one(ErasureRow, (row.tenant_id, row.id), with_for_update=True)
            if stored.certificate is None:
                stored.certificate, stored.completed_at = certificate, completed_at
                self._on_erased(session, row.tenant_id, row.subject_kind, row.subject_id)
            return stored.certificate

    def _record(
        self, what: str, erasure: ErasureRow, subject: str | None, details: Mapping[str, object]
    ) -> None:
        self._record_event(
            f"erasure.{what}",
            subject,
            {"erasure_id": erasure.id, "subject_kind": erasure.subject_kind, **details},
            tenant_id=erasure.tenant_id,
            actor="eraser",
        )


def verify_certificate(text: str, public_key: Ed25519PublicKey) -> Certificate:
    """Check a certificate against the public key of the service, offline.

    Raises:
        CertificateInvalid: malformed, changed, or signed by another key.
    """
    try:
        outer = json.loads(text)
        facts, signature = outer["certificate"], base64.b64decode(outer["signature"], validate=True)
        public_key.verify(signature, rfc8785.dumps(facts))
        if facts["format"] != CERTIFICATE_FORMAT:
            raise ValueError("format")
        return Certificate(
            id=facts["id"],
            tenant_id=facts["tenant_id"],
            subject_kind=facts["subject_kind"],
            subject_id=facts["subject_id"],
            outputs=Outputs(facts["outputs"]),
            counts=facts["counts"],
            requested_at=datetime.fromisoformat(facts["requested_at"]),
            key_destroyed_at=datetime.fromisoformat(facts["key_destroyed_at"]),
            completed_at=datetime.fromisoformat(facts["completed_at"]),
        )
    except InvalidSignature as error:
        raise CertificateInvalid(
            "The deletion certificate was changed, or signed by another key. Compare it with the "
            "one that was handed out, and the key with the one that was published."
        ) from error
    except (
        KeyError,
        TypeError,
        ValueError,
        RecursionError,
        binascii.Error,
        rfc8785.CanonicalizationError,
    ) as error:
        raise CertificateInvalid(
            "This is not a deletion certificate: a part of it is missing or malformed. Give the "
            "whole text that was handed out."
        ) from error


def _signed(facts: dict[str, object], key: Ed25519PrivateKey) -> str:
    signature = base64.b64encode(key.sign(rfc8785.dumps(cast("dict[str, str]", facts)))).decode()
    outer = {"certificate": facts, "signature": signature}
    return rfc8785.dumps(cast("dict[str, str]", outer)).decode()


def _erasure(session: Session, tenant_id: str, subject_id: str) -> ErasureRow | None:
    wanted = (ErasureRow.tenant_id == tenant_id, ErasureRow.subject_id == subject_id)
    return session.scalars(select(ErasureRow).where(*wanted)).one_or_none()


def _rows_of(subject_id: str) -> list[tuple[str, type[ErasableRow], ColumnElement[bool]]]:
    """Kind, table, and which rows belong to an identity or person, in the order of deleting."""
    return [
        ("photos", PhotoRow, PhotoRow.identity_id == subject_id),
        ("images", ImageRow, ImageRow.key_owner_id == subject_id),
        (
            "consents",
            ConsentRow,
            or_(ConsentRow.identity_id == subject_id, ConsentRow.person_id == subject_id),
        ),
        (
            "identities",
            IdentityRow,
            or_(IdentityRow.id == subject_id, IdentityRow.person_id == subject_id),
        ),
        ("people", PersonRow, PersonRow.id == subject_id),
    ]


def _count(
    session: Session, table: type[ErasableRow], tenant_id: str, condition: ColumnElement[bool]
) -> int:
    wanted = select(func.count()).select_from(table).where(table.tenant_id == tenant_id, condition)
    return session.scalar(wanted) or 0
