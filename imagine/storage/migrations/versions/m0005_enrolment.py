"""Who may be enrolled: verified identities and people who are never drawn."""

import sqlalchemy as sa
from alembic import op

from imagine.storage.database import Instant

revision = "m0005"
down_revision = "m0004"


def upgrade() -> None:
    op.create_table(
        "standings",
        *_named("standings"),
        sa.Column("verified_at", Instant, nullable=True),
        sa.Column("held_at", Instant, nullable=True),
        sa.Column("cleared_at", Instant, nullable=True),
    )
    op.create_index(op.f("ix_standings_held_at"), "standings", ["held_at"])
    op.create_table(
        "challenges",
        *_named("challenges"),
        sa.Column("subject_id", sa.String(length=64), nullable=True),
        sa.Column("nonce_sha256", sa.String(length=64), nullable=False),
        sa.Column("poses", sa.JSON(), nullable=False),
        sa.Column("issued_at", Instant, nullable=False),
        sa.Column("deadline_at", Instant, nullable=False),
        sa.Column("ended_at", Instant, nullable=True),
        sa.Column("outcome", sa.String(length=32), nullable=True),
    )
    for column in ("subject_id", "deadline_at"):
        op.create_index(op.f(f"ix_challenges_{column}"), "challenges", [column])
    op.create_table(
        "picture_counts",
        *_named("picture_counts"),
        sa.Column("day", sa.String(length=10), nullable=False),
        sa.Column("pictures", sa.Integer(), nullable=False),
    )
    op.create_table(
        "protected_people",
        sa.Column("id", sa.String(length=64), nullable=False),
        sa.Column("recogniser", sa.String(length=100), nullable=False),
        sa.Column("method", sa.String(length=32), nullable=False),
        sa.Column("token_sha256", sa.String(length=64), nullable=True),
        sa.Column("key_owner_id", sa.String(length=64), nullable=False),
        sa.Column("sealed_embedding", sa.LargeBinary(), nullable=False),
        sa.Column("created_at", Instant, nullable=False),
        sa.PrimaryKeyConstraint("id", name=op.f("pk_protected_people")),
    )
    op.create_index(op.f("ix_protected_people_recogniser"), "protected_people", ["recogniser"])


def _named(table: str) -> list[sa.schema.SchemaItem]:
    """The tenant and id of every row, and what they are bound to."""
    return [
        sa.Column("tenant_id", sa.String(length=64), nullable=False),
        sa.Column("id", sa.String(length=64), nullable=False),
        sa.ForeignKeyConstraint(["tenant_id"], ["tenants.id"], name=op.f(f"fk_{table}_tenant_id")),
        sa.PrimaryKeyConstraint("tenant_id", "id", name=op.f(f"pk_{table}")),
    ]
