"""What is kept about tenants, people, identities, photos, consents, images and keys.

Every row that is somebody's has its tenant in the primary key, so a look-up without a tenant
cannot be written by accident: `session.get(PhotoRow, (tenant_id, photo_id))`. Foreign keys carry
the tenant too: a row cannot point into another tenant. What could name or show a person is sealed
(`sealed_...`, see `keys.py`); pictures and face crops are blobs, sealed as well.

Jobs stand in `jobs.py`, audit entries and checkpoints in `audit_log.py`, on the same `Base`.
"""

from __future__ import annotations

from datetime import datetime
from enum import StrEnum

from sqlalchemy import JSON, ForeignKey, ForeignKeyConstraint, LargeBinary, String, UniqueConstraint
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
        key_owner_id: the identity or person whose data key seals this picture.
        job_id: the job that made it, if any; no foreign key, jobs have clocks of their own.
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
