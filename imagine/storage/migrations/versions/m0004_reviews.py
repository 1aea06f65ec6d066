"""Reviews: what people look at before or after a picture leaves, and what they decide."""

import sqlalchemy as sa
from alembic import op

from imagine.storage.database import Instant

revision = "m0004"
down_revision = "m0003"


def upgrade() -> None:
    op.add_column("images", sa.Column("record", sa.BigInteger(), nullable=True))
    op.add_column("images", sa.Column("perceptual_hash", sa.String(length=64), nullable=True))
    op.create_index(op.f("ix_images_record"), "images", ["record"])
    op.create_table(
        "withheld_pictures",
        *_names("withheld_pictures"),
        sa.Column("person_id", sa.String(length=64), nullable=False),
        sa.Column("identity_id", sa.String(length=64), nullable=True),
        sa.Column("key_owner_id", sa.String(length=64), nullable=False),
        sa.Column("beside_id", sa.String(length=64), nullable=True),
        sa.Column("job_id", sa.String(length=64), nullable=True),
        sa.Column("image_id", sa.String(length=64), nullable=True),
        sa.Column("media_type", sa.String(length=64), nullable=False),
        sa.Column("byte_count", sa.Integer(), nullable=False),
        sa.Column("width", sa.Integer(), nullable=False),
        sa.Column("height", sa.Integer(), nullable=False),
        sa.Column("is_marked", sa.Boolean(), nullable=False),
        sa.Column("checks", sa.JSON(), nullable=False),
        sa.Column("made_at", Instant, nullable=False),
        sa.Column("created_at", Instant, nullable=False),
        sa.Column("record", sa.BigInteger(), nullable=True),
        sa.Column("perceptual_hash", sa.String(length=64), nullable=True),
        sa.Column("sealed_recipe", sa.LargeBinary(), nullable=True),
    )
    _index("withheld_pictures", "identity_id", "key_owner_id", "beside_id")
    _index("withheld_pictures", "job_id", "image_id", "created_at")
    op.create_table(
        "reviews",
        *_names("reviews"),
        sa.Column("queue", sa.String(length=16), nullable=False),
        sa.Column("state", sa.String(length=16), nullable=False),
        sa.Column("reason", sa.String(length=64), nullable=False),
        sa.Column("identity_id", sa.String(length=64), nullable=True),
        sa.Column("owner_id", sa.String(length=64), nullable=True),
        sa.Column("image_id", sa.String(length=64), nullable=True),
        sa.Column("withheld_id", sa.String(length=64), nullable=True),
        sa.Column("job_id", sa.String(length=64), nullable=True),
        sa.Column("takedown_id", sa.String(length=64), nullable=True),
        sa.Column("checks", sa.JSON(), nullable=False),
        sa.Column("filed_by", sa.String(length=200), nullable=True),
        sa.Column("created_at", Instant, nullable=False),
        sa.Column("due_at", Instant, nullable=True),
        sa.Column("decided_at", Instant, nullable=True),
        sa.Column("ruling", sa.String(length=16), nullable=True),
        sa.Column("sealed_note", sa.LargeBinary(), nullable=True),
    )
    _index("reviews", "identity_id", "owner_id", "image_id", "withheld_id", "job_id")
    _index("reviews", "takedown_id", "created_at", "due_at")
    op.create_index("ix_reviews_waiting", "reviews", ["tenant_id", "queue", "state", "created_at"])
    op.create_table(
        "review_decisions",
        *_names("review_decisions"),
        sa.Column("review_id", sa.String(length=64), nullable=False),
        sa.Column("ruling", sa.String(length=16), nullable=False),
        sa.Column("reason", sa.String(length=64), nullable=False),
        sa.Column("clause", sa.String(length=16), nullable=False),
        sa.Column("decided_by", sa.String(length=200), nullable=False),
        sa.Column("decided_at", Instant, nullable=False),
        sa.Column("is_final", sa.Boolean(), nullable=False),
        sa.Column("sealed_note", sa.LargeBinary(), nullable=True),
        sa.Column("entry", sa.BigInteger(), nullable=False),
        sa.ForeignKeyConstraint(
            ["tenant_id", "review_id"],
            ["reviews.tenant_id", "reviews.id"],
            name=op.f("fk_review_decisions_tenant_id_review_id"),
            ondelete="CASCADE",
        ),
    )
    _index("review_decisions", "review_id")
    op.create_table(
        "review_acts",
        *_names("review_acts"),
        sa.Column("kind", sa.String(length=32), nullable=False),
        sa.Column("target_id", sa.String(length=64), nullable=False),
        sa.Column("number", sa.String(length=32), nullable=True),
        sa.Column("reason", sa.String(length=64), nullable=False),
        sa.Column("clause", sa.String(length=16), nullable=False),
        sa.Column("asked_by", sa.String(length=200), nullable=False),
        sa.Column("asked_at", Instant, nullable=False),
        sa.Column("approved_by", sa.String(length=200), nullable=True),
        sa.Column("approved_at", Instant, nullable=True),
        sa.Column("expires_at", Instant, nullable=False),
        sa.UniqueConstraint("tenant_id", "number", name=op.f("uq_review_acts_tenant_id_number")),
    )
    _index("review_acts", "target_id")
    op.create_table(
        "takedowns",
        *_names("takedowns"),
        sa.Column("state", sa.String(length=16), nullable=False),
        sa.Column("matches", sa.Integer(), nullable=False),
        sa.Column("created_at", Instant, nullable=False),
        sa.Column("due_at", Instant, nullable=False),
        sa.Column("closed_at", Instant, nullable=True),
        sa.Column("sealed_notice", sa.LargeBinary(), nullable=False),
    )
    _index("takedowns", "due_at", "closed_at")


def _names(table: str) -> list[sa.Column[str] | sa.Constraint]:
    """What every row of a tenant begins with."""
    return [
        sa.Column("tenant_id", sa.String(length=64), nullable=False),
        sa.Column("id", sa.String(length=64), nullable=False),
        sa.ForeignKeyConstraint(["tenant_id"], ["tenants.id"], name=op.f(f"fk_{table}_tenant_id")),
        sa.PrimaryKeyConstraint("tenant_id", "id", name=op.f(f"pk_{table}")),
    ]


def _index(table: str, *columns: str) -> None:
    for column in columns:
        op.create_index(op.f(f"ix_{table}_{column}"), table, [column])
