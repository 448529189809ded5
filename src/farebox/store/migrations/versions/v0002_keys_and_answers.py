"""Idempotency keys and the answers kept under them; holds found by their generation."""

import sqlalchemy as sa
from alembic import op

from farebox.store.migrations.shared import index_where

revision = "0002"
down_revision = "0001"


def upgrade() -> None:
    """Add two tables, whose rows live for a day, and an index. Older code runs on: it does not know of them."""
    op.create_table(
        "key_use",
        sa.Column("account_id", sa.Integer, sa.ForeignKey("account.id"), primary_key=True, autoincrement=False),
        sa.Column("key_digest", sa.LargeBinary, primary_key=True),
        sa.Column("order_digest", sa.LargeBinary, nullable=False),
        sa.Column("hold_id", sa.Text, sa.ForeignKey("hold.id"), nullable=False),
        sa.Column("created_us", sa.BigInteger, nullable=False),
        sqlite_with_rowid=False,
    )
    op.create_index("key_use_age", "key_use", ["created_us"])
    op.create_table(
        "kept_answer",
        sa.Column("hold_id", sa.Text, sa.ForeignKey("hold.id"), primary_key=True),
        sa.Column("content_type", sa.Text, nullable=False),
        sa.Column("body", sa.LargeBinary, nullable=False),
    )
    index_where("hold_generation", "hold", ["generation_id"], "generation_id IS NOT NULL")
