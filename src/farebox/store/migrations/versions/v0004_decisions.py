"""Adjustments that end a hold: what an operator decided.

SQLite changes no constraint of a table that stands, so the transfers move to a new one. Older code books and serves on
it; its audit does not know such an ending.
"""

import sqlalchemy as sa
from alembic import op

from farebox.store.migrations.triggers import immutable

revision = "0004"
down_revision = "0003"

_COLUMNS = (
    "id, kind, debit_account_id, credit_account_id, amount_nanos, created_us, hold_id, cost, events,"
    " event_price_nanos, over_hold_nanos, note"
)


def upgrade() -> None:
    """Copy every transfer, to the last digit."""
    op.create_table(
        "transfer_moved",
        sa.Column("id", sa.Text, primary_key=True),
        sa.Column("kind", sa.Text, nullable=False),
        sa.Column("debit_account_id", sa.Integer, sa.ForeignKey("account.id"), nullable=False),
        sa.Column("credit_account_id", sa.Integer, sa.ForeignKey("account.id"), nullable=False),
        sa.Column("amount_nanos", sa.BigInteger, nullable=False),
        sa.Column("created_us", sa.BigInteger, nullable=False),
        sa.Column("hold_id", sa.Text, sa.ForeignKey("hold.id")),
        sa.Column("cost", sa.Text),
        sa.Column("events", sa.BigInteger),
        sa.Column("event_price_nanos", sa.BigInteger),
        sa.Column("over_hold_nanos", sa.BigInteger, nullable=False),
        sa.Column("note", sa.Text),
        sa.CheckConstraint("kind IN ('top-up', 'hold', 'post', 'void', 'adjustment')", "kind"),
        sa.CheckConstraint("amount_nanos >= 0 AND over_hold_nanos >= 0", "amounts"),
        sa.CheckConstraint("debit_account_id <> credit_account_id", "sides"),
        sa.CheckConstraint(
            "(hold_id IS NOT NULL) = (kind IN ('hold', 'post', 'void')) OR kind = 'adjustment'", "of_hold"
        ),
        sa.CheckConstraint("kind <> 'post' OR cost IS NOT NULL", "cost_of_post"),
        sa.CheckConstraint(
            "cost IS NULL OR (events IS NOT NULL AND event_price_nanos IS NOT NULL AND events >= 0"
            " AND amount_nanos = events * event_price_nanos)",
            "fare",
        ),
        sa.CheckConstraint("kind <> 'adjustment' OR note IS NOT NULL", "reason"),
        sqlite_with_rowid=False,
    )
    op.execute(f"INSERT INTO transfer_moved ({_COLUMNS}) SELECT {_COLUMNS} FROM transfer")
    op.drop_table("transfer")
    op.rename_table("transfer_moved", "transfer")
    op.create_index("transfer_debit", "transfer", ["debit_account_id", "created_us"])
    paid_in = sa.text("kind IN ('top-up', 'adjustment')")
    op.create_index(
        "transfer_paid_in",
        "transfer",
        ["credit_account_id", "created_us"],
        sqlite_where=paid_in,
        postgresql_where=paid_in,
    )
    immutable("transfer")
