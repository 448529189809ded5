"""Runs of the Actor that this gateway is, and what they leave behind: items, records, lines of a log."""

import sqlalchemy as sa
from alembic import op

from farebox.store.migrations.shared import index_where

revision = "0005"
down_revision = "0004"


def upgrade() -> None:
    """Add four tables. Older code runs on: it does not know of them."""
    op.create_table(
        "run",
        sa.Column("id", sa.Text, primary_key=True),
        sa.Column("account_id", sa.Integer, sa.ForeignKey("account.id"), nullable=False),
        sa.Column("key_id", sa.Integer, sa.ForeignKey("api_key.id"), nullable=False),
        sa.Column("worker", sa.Text, nullable=False),
        sa.Column("status", sa.Text, nullable=False),
        sa.Column("status_message", sa.Text, nullable=False),
        sa.Column("origin", sa.Text, nullable=False),
        sa.Column("input", sa.LargeBinary, nullable=False),
        sa.Column("timeout_seconds", sa.Integer, nullable=False),
        sa.Column("memory_mbytes", sa.Integer, nullable=False),
        sa.Column("limit_nanos", sa.BigInteger),
        sa.Column("dataset_id", sa.Text, nullable=False),
        sa.Column("store_id", sa.Text, nullable=False),
        sa.Column("queue_id", sa.Text, nullable=False),
        sa.Column("started_us", sa.BigInteger, nullable=False),
        sa.Column("finished_us", sa.BigInteger),
        sa.Column("exit_code", sa.Integer),
        sa.CheckConstraint(
            "status IN ('READY', 'RUNNING', 'TIMING-OUT', 'ABORTING', 'SUCCEEDED', 'FAILED', 'TIMED-OUT', 'ABORTED')",
            "status",
        ),
        sa.CheckConstraint(
            "(finished_us IS NOT NULL) = (status IN ('SUCCEEDED', 'FAILED', 'TIMED-OUT', 'ABORTED'))", "finished"
        ),
        sqlite_with_rowid=False,
    )
    op.create_index("run_of_account", "run", ["account_id", "started_us"])
    op.create_index("run_dataset", "run", ["dataset_id"], unique=True)
    op.create_index("run_store", "run", ["store_id"], unique=True)
    index_where("run_live", "run", ["worker"], "finished_us IS NULL")
    op.create_table(
        "run_item",
        sa.Column("dataset_id", sa.Text, primary_key=True),
        sa.Column("number", sa.Integer, primary_key=True, autoincrement=False),
        sa.Column("body", sa.LargeBinary, nullable=False),
        sqlite_with_rowid=False,
    )
    op.create_table(
        "run_record",
        sa.Column("store_id", sa.Text, primary_key=True),
        sa.Column("key", sa.Text, primary_key=True),
        sa.Column("content_type", sa.Text, nullable=False),
        sa.Column("body", sa.LargeBinary, nullable=False),
        sqlite_with_rowid=False,
    )
    op.create_table(
        "run_line",
        sa.Column("run_id", sa.Text, primary_key=True),
        sa.Column("number", sa.Integer, primary_key=True, autoincrement=False),
        sa.Column("created_us", sa.BigInteger, nullable=False),
        sa.Column("text", sa.Text, nullable=False),
        sqlite_with_rowid=False,
    )
