"""What is kept about tenants, people, identities, photos, consents, images, reviews and keys.

Every row that is somebody's has its tenant in the primary key, so a look-up without a tenant
cannot be written by accident: `session.get(PhotoRow, (tenant_id, photo_id))`. Foreign keys carry
the tenant too: a row cannot point into another tenant. What could name or show a person is sealed
(`sealed_...`, see `keys.py`); pictures and face crops are blobs, sealed as well.

Jobs stand in `jobs.py`, audit entries and checkpoints in `audit_log.py`, on the same `Base`.
"""

from __future__ import annotations

from datetime import datetime
from enum import StrEnum
from typing import Any

from sqlalchemy import (
    JSON,
    BigInteger,
    ForeignKey,
    ForeignKeyConstraint,
    Index,
    LargeBinary,
    String,
    UniqueConstraint,
)
from sqlalchemy.orm import Mapped, declared_attr, mapped_column

from imagine.storage.database import Base, Instant

ID_LENGTH = 64
Id = String(ID_LENGTH)


class IdentityState(StrEnum):
    """How far the life of an identity has come."""

    DRAFT = "draft"  # waits for consent and photos
    ACTIVE = "active"  # its material is here and may be read for a purpose consented to
    FROZEN = "frozen"  # consent was withdrawn: nothing may be read
    ERASING = "erasing"  # its key is being or has been destroyed


class Tenanted:
    """Mixin: a row of one tenant, named by (tenant_id, id)."""

    @declared_attr
    def tenant_id(cls) -> Mapped[str]:
        return mapped_column(Id, ForeignKey("tenants.id"), primary_key=True, sort_order=-2)

    @declared_attr
    def id(cls) -> Mapped[str]:
        return mapped_column(Id, primary_key=True, sort_order=-1)

    def __repr__(self) -> str:
        return f"{type(self).__name__}({self.tenant_id!r}, {self.id!r})"


class TenantRow(Base):
    """An organisation, or the only one of a local installation."""

    __tablename__ = "tenants"

    id: Mapped[str] = mapped_column(Id, primary_key=True)
    name: Mapped[str] = mapped_column(String(200))
    created_at: Mapped[datetime] = mapped_column(Instant)


class PersonRow(Tenanted, Base):
    """Somebody whose face may be here. The name is sealed under the person's own data key."""

    __tablename__ = "people"

    created_at: Mapped[datetime] = mapped_column(Instant)
    sealed_name: Mapped[bytes | None] = mapped_column(LargeBinary)


class IdentityRow(Tenanted, Base):
    """One version of a person's face: made once, never changed, replaced by the next version.

    Attributes:
        version: 1, 2, 3 and so on, of this person.
        encoder: name of the recogniser that made the embeddings; None while a draft.
        model: revision of the image model the crops were made for; None while a draft.
        licence: licence of the recogniser's weights; None while a draft.
        last_used_at: the idle clock of retention starts here.
        sealed_name: what the person calls it.
        sealed_embeddings: the recogniser's vectors; face crops are a blob.
        sealed_facts: JSON of what belongs to them: fingerprint and photo reports.
    """

    __tablename__ = "identities"
    __table_args__ = (
        ForeignKeyConstraint(["tenant_id", "person_id"], ["people.tenant_id", "people.id"]),
        UniqueConstraint("tenant_id", "person_id", "version"),
    )

    person_id: Mapped[str] = mapped_column(Id, index=True)
    version: Mapped[int]
    state: Mapped[str] = mapped_column(String(16), index=True)
    encoder: Mapped[str | None] = mapped_column(String(100))
    model: Mapped[str | None] = mapped_column(String(200))
    licence: Mapped[str | None] = mapped_column(String(200))
    created_at: Mapped[datetime] = mapped_column(Instant)
    last_used_at: Mapped[datetime] = mapped_column(Instant, index=True)
    expires_at: Mapped[datetime | None] = mapped_column(Instant, index=True)
    sealed_name: Mapped[bytes | None] = mapped_column(LargeBinary)
    sealed_embeddings: Mapped[bytes | None] = mapped_column(LargeBinary)
    sealed_facts: Mapped[bytes | None] = mapped_column(LargeBinary)


class PhotoRow(Tenanted, Base):
    """A selfie as it was given; its bytes are a sealed blob."""

    __tablename__ = "photos"
    __table_args__ = (
        ForeignKeyConstraint(
            ["tenant_id", "identity_id"], ["identities.tenant_id", "identities.id"]
        ),
    )

    identity_id: Mapped[str] = mapped_column(Id, index=True)
    media_type: Mapped[str] = mapped_column(String(64))
    byte_count: Mapped[int]
    created_at: Mapped[datetime] = mapped_column(Instant, index=True)


class ConsentRow(Tenanted, Base):
    """What somebody agreed to, in the words they saw. Never changed; withdrawal is dated.

    Attributes:
        text: the exact text that was shown.
        text_sha256: hex SHA-256 of the text in UTF-8.
        locale: language of the text, e.g. "de-DE".
        purposes: one tick each, as a sorted list of `consent.Purpose` values.
        declared_adult: "I am of age" was ticked.
        declared_self: "this is me" was ticked.
        method: how it was given, e.g. "web form".
    """

    __tablename__ = "consents"
    __table_args__ = (
        ForeignKeyConstraint(["tenant_id", "person_id"], ["people.tenant_id", "people.id"]),
        ForeignKeyConstraint(
            ["tenant_id", "identity_id"], ["identities.tenant_id", "identities.id"]
        ),
    )

    person_id: Mapped[str] = mapped_column(Id, index=True)
    identity_id: Mapped[str] = mapped_column(Id, index=True)
    text: Mapped[str]
    text_sha256: Mapped[str] = mapped_column(String(64))
    locale: Mapped[str] = mapped_column(String(35))
    purposes: Mapped[list[str]] = mapped_column(JSON)
    declared_adult: Mapped[bool]
    declared_self: Mapped[bool]
    method: Mapped[str] = mapped_column(String(64))
    given_at: Mapped[datetime] = mapped_column(Instant)
    expires_at: Mapped[datetime] = mapped_column(Instant)
    withdrawn_at: Mapped[datetime | None] = mapped_column(Instant)


class ImageRow(Tenanted, Base):
    """A picture we made; its bytes are a sealed blob.

    Attributes:
        identity_id: who is shown; None for a picture of nobody in particular, and after the
            identity was erased and the picture kept.
        beside_id: who is shown beside them; that identity's erasure takes the picture along.
        key_owner_id: the identity or person whose data key seals this picture.
        job_id: the job that made it, if any; no foreign key, jobs have clocks of their own.
        record: number of the audit entry its marks lead to; None without one.
        perceptual_hash: 64 hex digits of its PDQ hash, to find near duplicates; None if unknown.
        sealed_recipe: JSON of the recipe, which holds the prompt.
    """

    __tablename__ = "images"
    __table_args__ = (
        ForeignKeyConstraint(["tenant_id", "person_id"], ["people.tenant_id", "people.id"]),
        ForeignKeyConstraint(
            ["tenant_id", "identity_id"], ["identities.tenant_id", "identities.id"]
        ),
    )

    person_id: Mapped[str] = mapped_column(Id, index=True)
    identity_id: Mapped[str | None] = mapped_column(Id, index=True)
    key_owner_id: Mapped[str] = mapped_column(Id)
    job_id: Mapped[str | None] = mapped_column(Id, index=True)
    media_type: Mapped[str] = mapped_column(String(64))
    byte_count: Mapped[int]
    width: Mapped[int]
    height: Mapped[int]
    created_at: Mapped[datetime] = mapped_column(Instant, index=True)
    record: Mapped[int | None] = mapped_column(BigInteger, index=True)
    perceptual_hash: Mapped[str | None] = mapped_column(String(64))
    beside_id: Mapped[str | None] = mapped_column(Id, index=True)
    sealed_recipe: Mapped[bytes | None] = mapped_column(LargeBinary)


class ApiKeyRow(Tenanted, Base):
    """A key of a program. The secret itself is not here, only its hash."""

    __tablename__ = "api_keys"
    __table_args__ = (UniqueConstraint("id"),)

    label: Mapped[str] = mapped_column(String(200))
    secret_sha256: Mapped[str] = mapped_column(String(64))
    scopes: Mapped[list[str]] = mapped_column(JSON)
    created_at: Mapped[datetime] = mapped_column(Instant)
    expires_at: Mapped[datetime | None] = mapped_column(Instant)
    revoked_at: Mapped[datetime | None] = mapped_column(Instant)
    last_used_at: Mapped[datetime | None] = mapped_column(Instant)


class ErasureRow(Tenanted, Base):
    """An erasure, begun or done. It outlives what it erased and names nobody.

    Attributes:
        subject_kind: "identity" or "person".
        subject_id: the id of what is erased; no foreign key, since that row goes.
        outputs: what becomes of the pictures, an `erasure.Outputs` value.
        counts: how many of each kind are gone, filled as the erasure goes on.
        certificate: the signed certificate; None until everything is gone.
    """

    __tablename__ = "erasures"
    __table_args__ = (UniqueConstraint("tenant_id", "subject_id"),)

    subject_kind: Mapped[str] = mapped_column(String(16))
    subject_id: Mapped[str] = mapped_column(Id)
    outputs: Mapped[str] = mapped_column(String(16))
    requested_at: Mapped[datetime] = mapped_column(Instant)
    key_destroyed_at: Mapped[datetime | None] = mapped_column(Instant)
    completed_at: Mapped[datetime | None] = mapped_column(Instant)
    counts: Mapped[dict[str, int]] = mapped_column(JSON)
    certificate: Mapped[str | None]


class WithheldRow(Tenanted, Base):
    """A picture that may not leave, or was taken back; its bytes are a sealed blob.

    Attributes:
        person_id: who asked for it.
        identity_id: who is shown; None for a picture that had outlived its identity.
        key_owner_id: the identity or person whose data key seals it.
        beside_id: who is shown beside them; that identity's erasure takes the picture along.
        job_id: the job that made it.
        image_id: the name it had while it was handed out; None if it never was.
        is_marked: whether the sealed file carries its marks already.
        checks: outcomes and scores of the output checks, as `CheckReport.facts` has them.
        made_at: when the picture was made; `created_at` is when it was withheld.
        sealed_recipe: JSON of the recipe, which holds the prompt.
    """

    __tablename__ = "withheld_pictures"

    person_id: Mapped[str] = mapped_column(Id)
    identity_id: Mapped[str | None] = mapped_column(Id, index=True)
    key_owner_id: Mapped[str] = mapped_column(Id, index=True)
    beside_id: Mapped[str | None] = mapped_column(Id, index=True)
    job_id: Mapped[str | None] = mapped_column(Id, index=True)
    image_id: Mapped[str | None] = mapped_column(Id, index=True)
    media_type: Mapped[str] = mapped_column(String(64))
    byte_count: Mapped[int]
    width: Mapped[int]
    height: Mapped[int]
    is_marked: Mapped[bool]
    checks: Mapped[dict[str, Any]] = mapped_column(JSON)
    made_at: Mapped[datetime] = mapped_column(Instant)
    created_at: Mapped[datetime] = mapped_column(Instant, index=True)
    record: Mapped[int | None] = mapped_column(BigInteger)
    perceptual_hash: Mapped[str | None] = mapped_column(String(64))
    sealed_recipe: Mapped[bytes | None] = mapped_column(LargeBinary)


class ReviewRow(Tenanted, Base):
    """Something a person decides about.

    Attributes:
        queue, state, reason, ruling: values of `reviews.Queue`, `ReviewState`, a word, `Ruling`.
        owner_id: the identity or person whose key seals what belongs to it, or the takedown.
        image_id: a picture that was handed out; no foreign key, its owner may delete it.
        withheld_id: a picture that was not.
        takedown_id: the notice that asks for it.
        filed_by: who asked for it, as a pseudonym; they do not decide it.
        sealed_note: what they said.
    """

    __tablename__ = "reviews"
    __table_args__ = (Index("ix_reviews_waiting", "tenant_id", "queue", "state", "created_at"),)

    queue: Mapped[str] = mapped_column(String(16))
    state: Mapped[str] = mapped_column(String(16))
    reason: Mapped[str] = mapped_column(String(64))
    identity_id: Mapped[str | None] = mapped_column(Id, index=True)
    owner_id: Mapped[str | None] = mapped_column(Id, index=True)
    image_id: Mapped[str | None] = mapped_column(Id, index=True)
    withheld_id: Mapped[str | None] = mapped_column(Id, index=True)
    job_id: Mapped[str | None] = mapped_column(Id, index=True)
    takedown_id: Mapped[str | None] = mapped_column(Id, index=True)
    checks: Mapped[dict[str, Any]] = mapped_column(JSON)
    filed_by: Mapped[str | None] = mapped_column(String(200))
    created_at: Mapped[datetime] = mapped_column(Instant, index=True)
    due_at: Mapped[datetime | None] = mapped_column(Instant, index=True)
    decided_at: Mapped[datetime | None] = mapped_column(Instant)
    ruling: Mapped[str | None] = mapped_column(String(16))
    sealed_note: Mapped[bytes | None] = mapped_column(LargeBinary)


class DecisionRow(Tenanted, Base):
    """What a reviewer decided, or proposed to a second one; never changed.

    Attributes:
        is_final: False for a proposal that waits for another reviewer, or that they overruled.
        entry: its place in the audit log.
    """

    __tablename__ = "review_decisions"
    __table_args__ = (
        ForeignKeyConstraint(
            ["tenant_id", "review_id"], ["reviews.tenant_id", "reviews.id"], ondelete="CASCADE"
        ),
    )

    review_id: Mapped[str] = mapped_column(Id, index=True)
    ruling: Mapped[str] = mapped_column(String(16))
    reason: Mapped[str] = mapped_column(String(64))
    clause: Mapped[str] = mapped_column(String(16))
    decided_by: Mapped[str] = mapped_column(String(200))
    decided_at: Mapped[datetime] = mapped_column(Instant)
    is_final: Mapped[bool]
    sealed_note: Mapped[bytes | None] = mapped_column(LargeBinary)
    entry: Mapped[int] = mapped_column(BigInteger)


class ActRow(Tenanted, Base):
    """A dangerous act that one reviewer asks for and another one approves.

    Attributes:
        kind: a value of `acts.ActKind`.
        target_id: the review or identity it is about.
        number: the case number, of a case; None otherwise.
        expires_at: until when it may be approved, and once it is, be done.
    """

    __tablename__ = "review_acts"
    __table_args__ = (UniqueConstraint("tenant_id", "number"),)

    kind: Mapped[str] = mapped_column(String(32))
    target_id: Mapped[str] = mapped_column(Id, index=True)
    number: Mapped[str | None] = mapped_column(String(32))
    reason: Mapped[str] = mapped_column(String(64))
    clause: Mapped[str] = mapped_column(String(16))
    asked_by: Mapped[str] = mapped_column(String(200))
    asked_at: Mapped[datetime] = mapped_column(Instant)
    approved_by: Mapped[str | None] = mapped_column(String(200))
    approved_at: Mapped[datetime | None] = mapped_column(Instant)
    expires_at: Mapped[datetime] = mapped_column(Instant)


class TakedownRow(Tenanted, Base):
    """A notice by somebody who is shown, with or without an account.

    Attributes:
        tenant_id: whose reviewers decide it.
        state: a value of `takedowns.TakedownState`.
        due_at: the law's 48 hours.
        sealed_notice: JSON of what they wrote, under a data key of this notice alone.
    """

    __tablename__ = "takedowns"

    state: Mapped[str] = mapped_column(String(16))
    matches: Mapped[int]
    created_at: Mapped[datetime] = mapped_column(Instant)
    due_at: Mapped[datetime] = mapped_column(Instant, index=True)
    closed_at: Mapped[datetime | None] = mapped_column(Instant, index=True)
    sealed_notice: Mapped[bytes] = mapped_column(LargeBinary)
