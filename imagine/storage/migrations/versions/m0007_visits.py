"""Visits to the page, by the hash of their secret, and what an account left on its desk."""

import sqlalchemy as sa
from alembic import op

from imagine.storage.database import Instant

revision = "m0007"
down_revision = "m0006"


def upgrade() -> None:
    op.create_table(
        "visits",
        sa.Column("secret_sha256", sa.String(length=64), nullable=False),
        sa.Column("tenant_id", sa.String(length=64), nullable=False),
        sa.Column("account", sa.String(length=64), nullable=False),
        sa.Column("key_id", sa.String(length=64), nullable=True),
        sa.Column("scopes", sa.JSON(), nullable=False),
        sa.Column("seen_at", Instant, nullable=False),
        sa.Column("expires_at", Instant, nullable=False),
        sa.ForeignKeyConstraint(["tenant_id"], ["tenants.id"], name=op.f("fk_visits_tenant_id")),
        sa.PrimaryKeyConstraint("secret_sha256", name=op.f("pk_visits")),
    )
    op.create_index(op.f("ix_visits_expires_at"), "visits", ["expires_at"])
    op.create_table(
        "desks",
        sa.Column("tenant_id", sa.String(length=64), nullable=False),
        sa.Column("id", sa.String(length=64), nullable=False),
        sa.Column("people", sa.JSON(), nullable=False),
        sa.Column("at_desk", sa.String(length=64), nullable=True),
        sa.Column("stars", sa.JSON(), nullable=False),
        sa.Column("drawing", sa.JSON(), nullable=True),
        sa.ForeignKeyConstraint(["tenant_id"], ["tenants.id"], name=op.f("fk_desks_tenant_id")),
        sa.PrimaryKeyConstraint("tenant_id", "id", name=op.f("pk_desks")),
    )
