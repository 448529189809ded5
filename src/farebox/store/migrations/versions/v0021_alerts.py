"""Alerts: where they go, what is raised, what is on its way, and below which balance an account is low."""

import sqlalchemy as sa
from alembic import op

from farebox.store.migrations.shared import index_where

revision = "0021"
down_revision = "0020"

_us = sa.BigInteger


def upgrade() -> None:
    """Add four tables. Older code does not read them: it raises nothing, and delivers nothing."""
    op.create_table(
        "alert_receiver",
        sa.Column("id", sa.Integer, primary_key=True),
        sa.Column("label", sa.Text, nullable=False),
        sa.Column("url", sa.Text, nullable=False),
        sa.Column("form", sa.Text, nullable=False),
        sa.Column("secret", sa.Text),
        sa.Column("kinds", sa.Text, nullable=False),
        sa.Column("account_id", sa.Integer, sa.ForeignKey("account.id")),
        sa.Column("created_us", _us, nullable=False),
        sa.CheckConstraint("form IN ('webhook', 'slack')", "form"),
        sa.CheckConstraint("(secret IS NOT NULL) = (form = 'webhook')", "signed"),
    )
    op.create_table(
        "alert_raised",
        sa.Column("name", sa.Text, primary_key=True),
        sa.Column("level", sa.BigInteger, nullable=False),
        sa.Column("since_us", _us, nullable=False),
        sa.Column("until_us", _us, nullable=False),
        sqlite_with_rowid=False,
    )
    op.create_table(
        "alert_delivery",
        sa.Column("id", sa.Text, primary_key=True),
        sa.Column("receiver_id", sa.Integer, sa.ForeignKey("alert_receiver.id"), nullable=False),
        sa.Column("kind", sa.Text, nullable=False),
        sa.Column("body", sa.Text, nullable=False),
        sa.Column("created_us", _us, nullable=False),
        sa.Column("due_us", _us),
        sa.Column("attempts", sa.Integer, nullable=False),
        sa.Column("state", sa.Text, nullable=False),
        sa.Column("said", sa.Text, nullable=False),
        sa.Column("ended_us", _us),
        sa.CheckConstraint("state IN ('due', 'delivered', 'given_up')", "state"),
        sa.CheckConstraint("(due_us IS NOT NULL) = (state = 'due')", "due"),
        sa.CheckConstraint("(ended_us IS NULL) = (state = 'due')", "ended"),
        sqlite_with_rowid=False,
    )
    op.create_index("alert_delivery_created", "alert_delivery", ["created_us"])
    index_where("alert_delivery_due", "alert_delivery", ["due_us"], "due_us IS NOT NULL")
    op.create_table(
        "low_balance",
        sa.Column("account_id", sa.Integer, sa.ForeignKey("account.id"), primary_key=True, autoincrement=False),
        sa.Column("below_nanos", sa.BigInteger, nullable=False),
        sa.CheckConstraint("below_nanos >= 0", "amount"),
    )
