"""Answers in Responses that are kept for their account, also of orders that run in the background; and keys that may
not have any kept."""

import sqlalchemy as sa
from alembic import op

revision = "0014"
down_revision = "0013"

_us = sa.BigInteger


def upgrade() -> None:
    """Add a table, and a column to keys. Older code does not read them: it keeps no answers."""
    op.add_column("api_key", sa.Column("may_store", sa.Boolean, nullable=False, server_default=sa.true()))
    op.create_table(
        "stored_response",
        sa.Column("account_id", sa.BigInteger, sa.ForeignKey("account.id"), primary_key=True),
        sa.Column("id", sa.Text, primary_key=True),
        sa.Column("previous_id", sa.Text),
        sa.Column("status", sa.Text, nullable=False),
        sa.Column("created_us", _us, nullable=False),
        sa.Column("until_us", _us, nullable=False),
        sa.Column("input", sa.LargeBinary, nullable=False),
        sa.Column("answer", sa.LargeBinary, nullable=False),
        sa.Column("generation_id", sa.Text),
        sa.Column("background", sa.Boolean, nullable=False, server_default=sa.false()),
        sa.Column("worker", sa.Text),
        sa.Column("events", sa.LargeBinary),
        sa.Column("size", sa.BigInteger, nullable=False),
    )
    op.create_index("stored_response_until", "stored_response", ["until_us"])
    op.create_index("stored_response_size", "stored_response", ["account_id", "size"])
    not_ended = sa.text("status IN ('queued', 'in_progress')")
    op.create_index(
        "stored_response_worker", "stored_response", ["worker"], sqlite_where=not_ended, postgresql_where=not_ended
    )
