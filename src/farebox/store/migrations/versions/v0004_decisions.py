"""Adjustments that end a hold: what an operator decided.

SQLite changes no constraint of a table that stands, so the transfers move to a new one. Older code books and serves on
it; its audit does not know such an ending.
"""

from alembic import op

from farebox.store.migrations.shared import complete_transfers, create_transfers

revision = "0004"
down_revision = "0003"

_COLUMNS = (
    "id, kind, debit_account_id, credit_account_id, amount_nanos, created_us, hold_id, cost, events,"
    " event_price_nanos, over_hold_nanos, note"
)
_IS_FARE = (
    "cost IS NULL OR (events IS NOT NULL AND event_price_nanos IS NOT NULL AND events >= 0"
    " AND amount_nanos = events * event_price_nanos)"
)


def upgrade() -> None:
    """Copy every transfer, to the last digit."""
    create_transfers(
        "transfer_moved",
        ("(hold_id IS NOT NULL) = (kind IN ('hold', 'post', 'void')) OR kind = 'adjustment'", "of_hold"),
        ("kind <> 'post' OR cost IS NOT NULL", "cost_of_post"),
        (_IS_FARE, "fare"),
        ("kind <> 'adjustment' OR note IS NOT NULL", "reason"),
    )
    op.execute(f"INSERT INTO transfer_moved ({_COLUMNS}) SELECT {_COLUMNS} FROM transfer")
    op.drop_table("transfer")
    op.rename_table("transfer_moved", "transfer")
    complete_transfers()
