"""The outbox of charges to an outside biller; and the events that Actor runs were charged here."""

import sqlalchemy as sa
from alembic import op

from farebox.store.migrations.shared import index_where

revision = "0006"
down_revision = "0005"


def upgrade() -> None:
    """Add three tables, and two columns to holds: older code does not write them, and charges nobody outside."""
    op.add_column("hold", sa.Column("charge_to", sa.Text))
    op.add_column("hold", sa.Column("charge_times", sa.Integer))
    op.create_table(
        "charge",
        sa.Column("id", sa.Text, primary_key=True),
        sa.Column("charge_to", sa.Text, nullable=False),
        sa.Column("count", sa.BigInteger, nullable=False),
        sa.Column("done", sa.BigInteger, nullable=False),
        sa.Column("window_us", sa.BigInteger, nullable=False),
        sa.Column("state", sa.Text, nullable=False),
        sa.Column("said", sa.Text),
        sa.Column("ended_us", sa.BigInteger),
        sa.CheckConstraint("state IN ('due', 'charged', 'refused', 'unsure')", "state"),
        sa.CheckConstraint("(ended_us IS NULL) = (state = 'due')", "ended"),
        sa.CheckConstraint("count > 0 AND done >= 0 AND done <= count", "counts"),
        sqlite_with_rowid=False,
    )
    index_where("charge_due", "charge", ["id"], "state = 'due'")
    op.create_table(
        "charged_fare",
        sa.Column("transfer_id", sa.Text, sa.ForeignKey("transfer.id"), primary_key=True),
        sa.Column("charge_to", sa.Text, nullable=False),
        sa.Column("count", sa.BigInteger, nullable=False),
        sa.Column("charge_id", sa.Text, sa.ForeignKey("charge.id")),
        sa.CheckConstraint("count > 0", "count"),
        sqlite_with_rowid=False,
    )
    index_where("fare_loose", "charged_fare", ["charge_to"], "charge_id IS NULL")
    op.create_index("fare_of_charge", "charged_fare", ["charge_id"])
    op.create_table(
        "run_charge",
        sa.Column("hold_id", sa.Text, primary_key=True),
        sa.Column("run_id", sa.Text, nullable=False),
        sa.Column("idempotency_key", sa.Text, nullable=False),
        sa.Column("event", sa.Text, nullable=False),
        sa.Column("created_us", sa.BigInteger, nullable=False),
        sqlite_with_rowid=False,
    )
    op.create_index("charge_of_run", "run_charge", ["run_id", "idempotency_key", "created_us"])
