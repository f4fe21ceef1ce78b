"""Calls, and what hangs on them."""

from __future__ import annotations

import sqlalchemy as sa
from alembic import op

from api.db import types

revision = "0002"
down_revision = "0001"
branch_labels = None
depends_on = None


def upgrade() -> None:
    """Make it."""
    op.create_table(
        "livekit_deliveries",
        sa.Column("id", sa.String(length=64), nullable=False),
        sa.Column("at", types.Time(), nullable=False),
        sa.PrimaryKeyConstraint("id", name=op.f("pk_livekit_deliveries")),
    )
    with op.batch_alter_table("livekit_deliveries", schema=None) as batch_op:
        batch_op.create_index(batch_op.f("ix_livekit_deliveries_at"), ["at"], unique=False)

    op.create_table(
        "calls",
        sa.Column("id", sa.String(length=64), nullable=False),
        sa.Column("status", sa.String(length=10), nullable=False),
        sa.Column("assistant_id", sa.String(length=64), nullable=True),
        sa.Column("assistant", sa.String(length=60), nullable=False),
        sa.Column("version", sa.Integer(), nullable=True),
        sa.Column("medium", sa.String(length=20), nullable=False),
        sa.Column("caller", sa.String(length=200), nullable=False),
        sa.Column("answered_at", types.Time(), nullable=True),
        sa.Column("live_at", types.Time(), nullable=True),
        sa.Column("ended_at", types.Time(), nullable=True),
        sa.Column("seen_at", types.Time(), nullable=True),
        sa.Column("reason", sa.String(length=100), nullable=False),
        sa.Column("epoch", sa.Integer(), nullable=False),
        sa.Column("turns", sa.Integer(), nullable=False),
        sa.Column("errors", sa.Integer(), nullable=False),
        sa.Column("interruptions", sa.Integer(), nullable=False),
        sa.Column("median_ms", sa.Integer(), nullable=True),
        sa.Column("cost", types.Money(), nullable=False),
        sa.Column("currency", sa.String(length=3), nullable=False),
        sa.Column("messages", types.ContentJson(), nullable=True),
        sa.Column("annotations", types.Json, nullable=False),
        sa.Column("tenant_id", sa.String(length=64), nullable=False),
        sa.Column("created_at", types.Time(), nullable=False),
        sa.ForeignKeyConstraint(
            ["tenant_id"], ["tenants.id"], name=op.f("fk_calls_tenant_id_tenants"), ondelete="CASCADE"
        ),
        sa.PrimaryKeyConstraint("id", name=op.f("pk_calls")),
    )
    with op.batch_alter_table("calls", schema=None) as batch_op:
        batch_op.create_index("ix_calls_status_seen_at", ["status", "seen_at"], unique=False)
        batch_op.create_index(
            batch_op.f("ix_calls_tenant_id_assistant_created_at_id"),
            ["tenant_id", "assistant", "created_at", "id"],
            unique=False,
        )
        batch_op.create_index(
            batch_op.f("ix_calls_tenant_id_created_at_id"), ["tenant_id", "created_at", "id"], unique=False
        )
        batch_op.create_index(
            batch_op.f("ix_calls_tenant_id_status_created_at_id"),
            ["tenant_id", "status", "created_at", "id"],
            unique=False,
        )

    op.create_table(
        "deleted_calls",
        sa.Column("id", sa.String(length=64), nullable=False),
        sa.Column("assistant", sa.String(length=60), nullable=False),
        sa.Column("at", types.Time(), nullable=False),
        sa.Column("tenant_id", sa.String(length=64), nullable=False),
        sa.ForeignKeyConstraint(
            ["tenant_id"], ["tenants.id"], name=op.f("fk_deleted_calls_tenant_id_tenants"), ondelete="CASCADE"
        ),
        sa.PrimaryKeyConstraint("id", name=op.f("pk_deleted_calls")),
    )
    with op.batch_alter_table("deleted_calls", schema=None) as batch_op:
        batch_op.create_index(batch_op.f("ix_deleted_calls_at"), ["at"], unique=False)

    op.create_table(
        "call_events",
        sa.Column("id", sa.String(length=64), nullable=False),
        sa.Column("at", types.Time(), nullable=False),
        sa.Column("event", sa.String(length=60), nullable=False),
        sa.Column("fields", types.Json, nullable=False),
        sa.Column("call_id", sa.String(length=64), nullable=False),
        sa.Column("tenant_id", sa.String(length=64), nullable=False),
        sa.ForeignKeyConstraint(
            ["call_id"], ["calls.id"], name=op.f("fk_call_events_call_id_calls"), ondelete="CASCADE"
        ),
        sa.ForeignKeyConstraint(
            ["tenant_id"], ["tenants.id"], name=op.f("fk_call_events_tenant_id_tenants"), ondelete="CASCADE"
        ),
        sa.PrimaryKeyConstraint("id", name=op.f("pk_call_events")),
    )
    with op.batch_alter_table("call_events", schema=None) as batch_op:
        batch_op.create_index(batch_op.f("ix_call_events_call_id"), ["call_id"], unique=False)
        batch_op.create_index(batch_op.f("ix_call_events_call_id_at_id"), ["call_id", "at", "id"], unique=False)

    op.create_table(
        "files",
        sa.Column("id", sa.String(length=64), nullable=False),
        sa.Column("call_id", sa.String(length=64), nullable=True),
        sa.Column("assistant_id", sa.String(length=64), nullable=True),
        sa.Column("name", sa.String(length=255), nullable=False),
        sa.Column("media_type", sa.String(length=127), nullable=False),
        sa.Column("size", sa.BigInteger(), nullable=False),
        sa.Column("sender", sa.String(length=200), nullable=False),
        sa.Column("location", sa.String(length=500), nullable=False),
        sa.Column("digest", sa.String(length=64), nullable=False),
        sa.Column("text", types.Content(), nullable=False),
        sa.Column("status", sa.String(length=10), nullable=False),
        sa.Column("problem", sa.String(length=300), nullable=False),
        sa.Column("tenant_id", sa.String(length=64), nullable=False),
        sa.Column("created_at", types.Time(), nullable=False),
        sa.ForeignKeyConstraint(
            ["assistant_id"], ["assistants.id"], name=op.f("fk_files_assistant_id_assistants"), ondelete="CASCADE"
        ),
        sa.ForeignKeyConstraint(["call_id"], ["calls.id"], name=op.f("fk_files_call_id_calls"), ondelete="CASCADE"),
        sa.ForeignKeyConstraint(
            ["tenant_id"], ["tenants.id"], name=op.f("fk_files_tenant_id_tenants"), ondelete="CASCADE"
        ),
        sa.PrimaryKeyConstraint("id", name=op.f("pk_files")),
    )
    with op.batch_alter_table("files", schema=None) as batch_op:
        batch_op.create_index(batch_op.f("ix_files_assistant_id"), ["assistant_id"], unique=False)
        batch_op.create_index(batch_op.f("ix_files_call_id"), ["call_id"], unique=False)
        batch_op.create_index(batch_op.f("ix_files_tenant_id_id"), ["tenant_id", "id"], unique=False)

    op.create_table(
        "participants",
        sa.Column("id", sa.String(length=64), nullable=False),
        sa.Column("identity", sa.String(length=200), nullable=False),
        sa.Column("name", sa.String(length=200), nullable=False),
        sa.Column("medium", sa.String(length=20), nullable=False),
        sa.Column("attributes", types.Json, nullable=False),
        sa.Column("joined_at", types.Time(), nullable=False),
        sa.Column("left_at", types.Time(), nullable=True),
        sa.Column("reason", sa.String(length=100), nullable=False),
        sa.Column("call_id", sa.String(length=64), nullable=False),
        sa.Column("tenant_id", sa.String(length=64), nullable=False),
        sa.ForeignKeyConstraint(
            ["call_id"], ["calls.id"], name=op.f("fk_participants_call_id_calls"), ondelete="CASCADE"
        ),
        sa.ForeignKeyConstraint(
            ["tenant_id"], ["tenants.id"], name=op.f("fk_participants_tenant_id_tenants"), ondelete="CASCADE"
        ),
        sa.PrimaryKeyConstraint("id", name=op.f("pk_participants")),
    )
    with op.batch_alter_table("participants", schema=None) as batch_op:
        batch_op.create_index(batch_op.f("ix_participants_call_id"), ["call_id"], unique=False)

    op.create_table(
        "stored_records",
        sa.Column("id", sa.String(length=64), nullable=False),
        sa.Column("call_id", sa.String(length=64), nullable=False),
        sa.Column("tenant_id", sa.String(length=64), nullable=False),
        sa.ForeignKeyConstraint(
            ["call_id"], ["calls.id"], name=op.f("fk_stored_records_call_id_calls"), ondelete="CASCADE"
        ),
        sa.ForeignKeyConstraint(
            ["tenant_id"], ["tenants.id"], name=op.f("fk_stored_records_tenant_id_tenants"), ondelete="CASCADE"
        ),
        sa.PrimaryKeyConstraint("id", name=op.f("pk_stored_records")),
    )
    with op.batch_alter_table("stored_records", schema=None) as batch_op:
        batch_op.create_index(batch_op.f("ix_stored_records_call_id"), ["call_id"], unique=False)

    op.create_table(
        "turns",
        sa.Column("id", sa.String(length=64), nullable=False),
        sa.Column("number", sa.Integer(), nullable=False),
        sa.Column("at", types.Time(), nullable=False),
        sa.Column("heard", types.Content(), nullable=False),
        sa.Column("answer", types.Content(), nullable=False),
        sa.Column("interrupted", sa.Boolean(), nullable=False),
        sa.Column("typed", sa.Boolean(), nullable=False),
        sa.Column("error", sa.String(length=100), nullable=True),
        sa.Column("voice_ms", sa.Integer(), nullable=True),
        sa.Column("measures", types.Json, nullable=False),
        sa.Column("call_id", sa.String(length=64), nullable=False),
        sa.Column("tenant_id", sa.String(length=64), nullable=False),
        sa.ForeignKeyConstraint(["call_id"], ["calls.id"], name=op.f("fk_turns_call_id_calls"), ondelete="CASCADE"),
        sa.ForeignKeyConstraint(
            ["tenant_id"], ["tenants.id"], name=op.f("fk_turns_tenant_id_tenants"), ondelete="CASCADE"
        ),
        sa.PrimaryKeyConstraint("id", name=op.f("pk_turns")),
    )
    with op.batch_alter_table("turns", schema=None) as batch_op:
        batch_op.create_index(batch_op.f("ix_turns_call_id"), ["call_id"], unique=False)
        batch_op.create_index(batch_op.f("ix_turns_call_id_at"), ["call_id", "at"], unique=False)
        batch_op.create_index(batch_op.f("ix_turns_tenant_id_at"), ["tenant_id", "at"], unique=False)

    op.create_table(
        "usage",
        sa.Column("id", sa.String(length=64), nullable=False),
        sa.Column("call_id", sa.String(length=64), nullable=True),
        sa.Column("turn_id", sa.String(length=64), nullable=True),
        sa.Column("assistant", sa.String(length=60), nullable=False),
        sa.Column("day", sa.Date(), nullable=False),
        sa.Column("role", sa.String(length=10), nullable=False),
        sa.Column("model", sa.String(length=100), nullable=False),
        sa.Column("amounts", types.Json, nullable=False),
        sa.Column("cost", types.Money(), nullable=False),
        sa.Column("currency", sa.String(length=3), nullable=False),
        sa.Column("price_date", sa.Date(), nullable=True),
        sa.Column("tenant_id", sa.String(length=64), nullable=False),
        sa.ForeignKeyConstraint(["call_id"], ["calls.id"], name=op.f("fk_usage_call_id_calls"), ondelete="SET NULL"),
        sa.ForeignKeyConstraint(
            ["tenant_id"], ["tenants.id"], name=op.f("fk_usage_tenant_id_tenants"), ondelete="CASCADE"
        ),
        sa.PrimaryKeyConstraint("id", name=op.f("pk_usage")),
    )
    with op.batch_alter_table("usage", schema=None) as batch_op:
        batch_op.create_index(batch_op.f("ix_usage_call_id"), ["call_id"], unique=False)
        batch_op.create_index(
            batch_op.f("ix_usage_tenant_id_day_assistant"), ["tenant_id", "day", "assistant"], unique=False
        )


def downgrade() -> None:
    """Take it back."""
    with op.batch_alter_table("usage", schema=None) as batch_op:
        batch_op.drop_index(batch_op.f("ix_usage_tenant_id_day_assistant"))
        batch_op.drop_index(batch_op.f("ix_usage_call_id"))
    op.drop_table("usage")
    with op.batch_alter_table("turns", schema=None) as batch_op:
        batch_op.drop_index(batch_op.f("ix_turns_tenant_id_at"))
        batch_op.drop_index(batch_op.f("ix_turns_call_id_at"))
        batch_op.drop_index(batch_op.f("ix_turns_call_id"))
    op.drop_table("turns")
    with op.batch_alter_table("stored_records", schema=None) as batch_op:
        batch_op.drop_index(batch_op.f("ix_stored_records_call_id"))
    op.drop_table("stored_records")
    with op.batch_alter_table("participants", schema=None) as batch_op:
        batch_op.drop_index(batch_op.f("ix_participants_call_id"))
    op.drop_table("participants")
    with op.batch_alter_table("files", schema=None) as batch_op:
        batch_op.drop_index(batch_op.f("ix_files_tenant_id_id"))
        batch_op.drop_index(batch_op.f("ix_files_call_id"))
        batch_op.drop_index(batch_op.f("ix_files_assistant_id"))
    op.drop_table("files")
    with op.batch_alter_table("call_events", schema=None) as batch_op:
        batch_op.drop_index(batch_op.f("ix_call_events_call_id_at_id"))
        batch_op.drop_index(batch_op.f("ix_call_events_call_id"))
    op.drop_table("call_events")
    with op.batch_alter_table("deleted_calls", schema=None) as batch_op:
        batch_op.drop_index(batch_op.f("ix_deleted_calls_at"))
    op.drop_table("deleted_calls")
    with op.batch_alter_table("calls", schema=None) as batch_op:
        batch_op.drop_index(batch_op.f("ix_calls_tenant_id_status_created_at_id"))
        batch_op.drop_index(batch_op.f("ix_calls_tenant_id_created_at_id"))
        batch_op.drop_index(batch_op.f("ix_calls_tenant_id_assistant_created_at_id"))
        batch_op.drop_index("ix_calls_status_seen_at")
    op.drop_table("calls")
    with op.batch_alter_table("livekit_deliveries", schema=None) as batch_op:
        batch_op.drop_index(batch_op.f("ix_livekit_deliveries_at"))
    op.drop_table("livekit_deliveries")
