"""Statements that several migrations share."""

import sqlalchemy as sa
from alembic import op


def index_where(name: str, table: str, columns: list[str], condition: str) -> None:
    """An index of the rows that meet a condition."""
    where = sa.text(condition)
    op.create_index(name, table, columns, sqlite_where=where, postgresql_where=where)


def create_transfers(table: str, *own_checks: tuple[str, str]) -> None:
    """Make the table of transfers, with checks of its own (each a condition and a name) beside those that every
    version of it has."""
    op.create_table(
        table,
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
        *(sa.CheckConstraint(condition, name) for condition, name in own_checks),
        sqlite_with_rowid=False,
    )


def complete_transfers() -> None:
    """Index transfers, and refuse to change or delete them, whoever writes to the database."""
    op.create_index("transfer_debit", "transfer", ["debit_account_id", "created_us"])
    index_where("transfer_paid_in", "transfer", ["credit_account_id", "created_us"], "kind IN ('top-up', 'adjustment')")
    if op.get_bind().dialect.name == "postgresql":
        op.execute(
            "CREATE OR REPLACE FUNCTION transfer_is_immutable() RETURNS trigger LANGUAGE plpgsql AS"
            " $$ BEGIN RAISE EXCEPTION 'transfers are immutable'; END $$"
        )
        op.execute(
            "CREATE TRIGGER transfer_is_immutable BEFORE UPDATE OR DELETE ON transfer"
            " FOR EACH ROW EXECUTE FUNCTION transfer_is_immutable()"
        )
        return
    for change in ("UPDATE", "DELETE"):
        op.execute(
            f"CREATE TRIGGER transfer_no_{change.lower()} BEFORE {change} ON transfer"
            " BEGIN SELECT RAISE(ABORT, 'transfers are immutable'); END"
        )
