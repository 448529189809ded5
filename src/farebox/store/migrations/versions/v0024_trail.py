"""The trail: who changed what, when, which way and why."""

import time

import sqlalchemy as sa
from alembic import op

from farebox.store.migrations.shared import index_where

revision = "0024"
down_revision = "0023"

_us = sa.BigInteger

ROLLOUT_US = 86_400 * 1_000_000
"""How long servers of the version before may go on beside newer ones: what they book has no entry."""


def upgrade() -> None:
    """Add two tables. Older code does not write them: its changes have no entries."""
    op.create_table(
        "trail",
        sa.Column("id", sa.BigInteger, primary_key=True, autoincrement=False),
        sa.Column("at_us", _us, nullable=False),
        sa.Column("way", sa.Text, nullable=False),
        sa.Column("who", sa.Text, nullable=False),
        sa.Column("by_manager_id", sa.Integer, sa.ForeignKey("management_key.id")),
        sa.Column("by_key_id", sa.Integer, sa.ForeignKey("api_key.id")),
        sa.Column("session", sa.Text),
        sa.Column("what", sa.Text, nullable=False),
        sa.Column("account_id", sa.Integer, sa.ForeignKey("account.id")),
        sa.Column("key_id", sa.Integer, sa.ForeignKey("api_key.id")),
        sa.Column("hold_id", sa.Text, sa.ForeignKey("hold.id")),
        sa.Column("transfer_id", sa.Text, sa.ForeignKey("transfer.id"), unique=True),
        sa.Column("about", sa.Text),
        sa.Column("members", sa.Text, nullable=False),
        sa.Column("reason", sa.Text),
        sqlite_with_rowid=False,
    )
    index_where("trail_of_account", "trail", ["account_id", "id"], "account_id IS NOT NULL")
    index_where("trail_of_key", "trail", ["key_id", "id"], "key_id IS NOT NULL")
    op.create_table(
        "trail_head",
        sa.Column("entries", sa.BigInteger, nullable=False),
        sa.Column("whole_from_us", _us, nullable=False),
    )
    is_used = op.get_bind().execute(sa.text("SELECT 1 FROM transfer LIMIT 1")).first() is not None
    whole_from_us = time.time_ns() // 1_000 + ROLLOUT_US if is_used else 0
    head = sa.table("trail_head", sa.column("entries"), sa.column("whole_from_us"))
    op.execute(head.insert().values(entries=0, whole_from_us=whole_from_us))
    _refuse_changes()


def _refuse_changes() -> None:
    """Nobody changes or deletes an entry, whoever writes to the database."""
    if op.get_bind().dialect.name == "postgresql":
        op.execute(
            "CREATE FUNCTION trail_is_immutable() RETURNS trigger LANGUAGE plpgsql AS"
            " $$ BEGIN RAISE EXCEPTION 'the trail is only added to'; END $$"
        )
        for change, each in (("UPDATE OR DELETE", "ROW"), ("TRUNCATE", "STATEMENT")):
            op.execute(
                f"CREATE TRIGGER trail_no_{change.split()[0].lower()} BEFORE {change} ON trail"
                f" FOR EACH {each} EXECUTE FUNCTION trail_is_immutable()"
            )
        return
    for change in ("UPDATE", "DELETE"):
        op.execute(
            f"CREATE TRIGGER trail_no_{change.lower()} BEFORE {change} ON trail"
            " BEGIN SELECT RAISE(ABORT, 'the trail is only added to'); END"
        )
