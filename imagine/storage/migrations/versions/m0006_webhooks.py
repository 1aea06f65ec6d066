"""Webhooks, limits shared by processes, requests that come once, who stands beside whom."""

import sqlalchemy as sa
from alembic import op

from imagine.storage.database import Instant

revision = "m0006"
down_revision = "m0005"


def upgrade() -> None:
    for table in ("images", "jobs"):
        op.add_column(table, sa.Column("beside_id", sa.String(length=64), nullable=True))
        op.create_index(op.f(f"ix_{table}_beside_id"), table, ["beside_id"])
    op.create_table(
        "webhook_endpoints",
        *_named("webhook_endpoints"),
        sa.Column("url", sa.String(length=2000), nullable=False),
        sa.Column("description", sa.String(length=200), nullable=False),
        sa.Column("events", sa.JSON(), nullable=False),
        sa.Column("state", sa.String(length=16), nullable=False),
        sa.Column("created_at", Instant, nullable=False),
        sa.Column("failing_since", Instant, nullable=True),
        sa.Column("disabled_reason", sa.String(length=64), nullable=True),
        sa.Column("sealed_secret", sa.LargeBinary(), nullable=False),
        sa.Column("sealed_old_secret", sa.LargeBinary(), nullable=True),
        sa.Column("old_secret_until", Instant, nullable=True),
    )
    op.create_table(
        "webhook_deliveries",
        *_named("webhook_deliveries"),
        sa.Column("endpoint_id", sa.String(length=64), nullable=False),
        sa.Column("message_id", sa.String(length=64), nullable=False),
        sa.Column("event", sa.String(length=64), nullable=False),
        sa.Column("body", sa.Text(), nullable=False),
        sa.Column("state", sa.String(length=16), nullable=False),
        sa.Column("created_at", Instant, nullable=False),
        sa.Column("due_at", Instant, nullable=False),
        sa.Column("leased_until", Instant, nullable=True),
        sa.Column("attempts", sa.Integer(), nullable=False),
        sa.Column("status", sa.Integer(), nullable=True),
        sa.Column("error", sa.String(length=64), nullable=True),
        sa.Column("ended_at", Instant, nullable=True),
    )
    deliveries = "webhook_deliveries"
    op.create_index("ix_webhook_deliveries_due", deliveries, ["state", "due_at"])
    op.create_index(
        "ix_webhook_deliveries_endpoint", deliveries, ["tenant_id", "endpoint_id", "created_at"]
    )
    op.create_index(op.f("ix_webhook_deliveries_created_at"), deliveries, ["created_at"])
    op.create_table(
        "rate_counts",
        sa.Column("name_sha256", sa.String(length=64), nullable=False),
        sa.Column("full_at", sa.Float(53), nullable=False),
        sa.PrimaryKeyConstraint("name_sha256", name=op.f("pk_rate_counts")),
    )
    op.create_index(op.f("ix_rate_counts_full_at"), "rate_counts", ["full_at"])
    op.create_table(
        "consent_tokens",
        *_named("consent_tokens"),
        sa.Column("secret_sha256", sa.String(length=64), nullable=False),
        sa.Column("text_sha256", sa.String(length=64), nullable=False),
        sa.Column("expires_at", Instant, nullable=False),
        sa.Column("used_at", Instant, nullable=True),
    )
    op.create_index(op.f("ix_consent_tokens_expires_at"), "consent_tokens", ["expires_at"])
    op.create_table(
        "enrolment_requests",
        *_named("enrolment_requests"),
        sa.Column("body_digest", sa.String(length=64), nullable=False),
        sa.Column("identity_id", sa.String(length=64), nullable=True),
        sa.Column("leased_until", Instant, nullable=False),
        sa.Column("created_at", Instant, nullable=False),
    )
    for column in ("identity_id", "created_at"):
        name = op.f(f"ix_enrolment_requests_{column}")
        op.create_index(name, "enrolment_requests", [column])


def _named(table: str) -> tuple[sa.schema.SchemaItem, ...]:
    return (
        sa.Column("tenant_id", sa.String(length=64), nullable=False),
        sa.Column("id", sa.String(length=64), nullable=False),
        sa.ForeignKeyConstraint(["tenant_id"], ["tenants.id"], name=op.f(f"fk_{table}_tenant_id")),
        sa.PrimaryKeyConstraint("tenant_id", "id", name=op.f(f"pk_{table}")),
    )
