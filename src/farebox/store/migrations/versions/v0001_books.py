"""The books: accounts, keys, holds, transfers, balances."""

import sqlalchemy as sa
from alembic import op

from farebox.store.migrations.shared import complete_transfers, create_transfers, index_where

revision = "0001"
down_revision = None

_nanos = sa.BigInteger
_us = sa.BigInteger


def upgrade() -> None:
    """Make every table. Money is integer nano-dollars, time integer microseconds since 1970, a cost exact text."""
    op.create_table(
        "account",
        sa.Column("id", sa.Integer, primary_key=True),
        sa.Column("name", sa.Text, nullable=False, unique=True),
        sa.Column("plan", sa.Text, nullable=False),
        sa.Column("created_us", _us, nullable=False),
    )
    # The two sides of the world outside: what was paid in, and what was earned. They have no row in `balance`, which
    # every order would have to wait for; an audit sums their transfers.
    op.execute("INSERT INTO account (id, name, plan, created_us) VALUES (0, '(cash)', '', 0), (1, '(fares)', '', 0)")
    if op.get_bind().dialect.name == "postgresql":
        op.execute("ALTER SEQUENCE account_id_seq RESTART WITH 2")
    op.create_table(
        "api_key",
        sa.Column("id", sa.Integer, primary_key=True),
        sa.Column("account_id", sa.Integer, sa.ForeignKey("account.id"), nullable=False, index=True),
        sa.Column("label", sa.Text, nullable=False),
        sa.Column("digest", sa.LargeBinary, nullable=False, unique=True),
        sa.Column("hint", sa.Text, nullable=False),
        sa.Column("created_us", _us, nullable=False),
        sa.Column("revoked_us", _us),
    )
    op.create_table("directory_revision", sa.Column("value", sa.BigInteger, nullable=False))
    op.execute("INSERT INTO directory_revision (value) VALUES (1)")
    op.create_table(
        "balance",
        sa.Column("account_id", sa.Integer, sa.ForeignKey("account.id"), primary_key=True, autoincrement=False),
        sa.Column("credits_nanos", _nanos, nullable=False),
        sa.Column("debits_nanos", _nanos, nullable=False),
        sa.Column("pending_nanos", _nanos, nullable=False),
        sa.Column("limit_nanos", _nanos),
        sa.Column("overdrawn_nanos", _nanos, nullable=False),
        sa.CheckConstraint("credits_nanos >= 0 AND debits_nanos >= 0 AND pending_nanos >= 0", "amounts"),
        sa.CheckConstraint("limit_nanos >= 0 AND overdrawn_nanos >= 0", "bounds"),
        # No hold beyond what is covered. `overdrawn_nanos` is exactly the part by which fares above their holds have
        # gone beyond it, so it opens no room for another hold.
        sa.CheckConstraint(
            "limit_nanos IS NULL OR debits_nanos + pending_nanos <= credits_nanos + limit_nanos + overdrawn_nanos",
            "covered",
        ),
    )
    op.create_table(
        "hold",
        sa.Column("id", sa.Text, primary_key=True),
        sa.Column("account_id", sa.Integer, sa.ForeignKey("account.id"), nullable=False),
        sa.Column("key_id", sa.Integer, sa.ForeignKey("api_key.id"), nullable=False),
        sa.Column("worker", sa.Text, nullable=False),
        sa.Column("state", sa.Text, nullable=False),
        sa.Column("amount_nanos", _nanos, nullable=False),
        sa.Column("plan", sa.Text, nullable=False),
        sa.Column("event_price_nanos", _nanos, nullable=False),
        sa.Column("model", sa.Text, nullable=False),
        sa.Column("streamed", sa.Boolean, nullable=False),
        sa.Column("created_us", _us, nullable=False),
        sa.Column("generation_id", sa.Text),
        sa.Column("served_model", sa.Text),
        sa.Column("prompt_tokens", sa.BigInteger),
        sa.Column("answer_tokens", sa.BigInteger),
        sa.Column("reason", sa.Text),
        sa.Column("ended_us", _us),
        sa.CheckConstraint("state IN ('pending', 'open', 'posted', 'voided')", "state"),
        sa.CheckConstraint("(ended_us IS NOT NULL) = (state IN ('posted', 'voided'))", "ended"),
        sa.CheckConstraint("amount_nanos >= 0 AND event_price_nanos > 0", "amounts"),
        sqlite_with_rowid=False,
    )
    index_where("hold_not_ended", "hold", ["state"], "ended_us IS NULL")
    create_transfers(
        "transfer",
        ("(hold_id IS NOT NULL) = (kind IN ('hold', 'post', 'void'))", "of_hold"),
        ("kind <> 'post' OR (cost IS NOT NULL AND events >= 0 AND amount_nanos = events * event_price_nanos)", "fare"),
    )
    complete_transfers()
