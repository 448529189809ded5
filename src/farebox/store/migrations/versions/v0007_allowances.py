"""Limits of accounts and keys, and what counts against them; keys of managers; plans and price lists for all nodes."""

import sqlalchemy as sa
from alembic import op

revision = "0007"
down_revision = "0006"

_nanos = sa.BigInteger
_us = sa.BigInteger


def upgrade() -> None:
    """Add four tables, and columns to keys and holds. Older code keeps no limits and counts nothing against them: set
    them when no such node serves any more, or set them anew then, which counts afresh."""
    op.add_column("hold", sa.Column("reserved_tokens", sa.BigInteger))
    # A disabled key has `revoked_us`, too, so that older code refuses it.
    op.add_column("api_key", sa.Column("disabled", sa.Boolean, nullable=False, server_default=sa.false()))
    op.add_column("api_key", sa.Column("expires_us", _us))
    op.add_column("api_key", sa.Column("updated_us", _us))
    op.create_table(
        "allowance",
        sa.Column("owner", sa.Text, primary_key=True),
        sa.Column("account_id", sa.Integer, sa.ForeignKey("account.id"), nullable=False),
        sa.Column("limits", sa.Text, nullable=False),
        sa.Column("pending_nanos", _nanos, nullable=False),
        sa.Column("total_nanos", _nanos, nullable=False),
        sa.Column("day_nanos", _nanos, nullable=False),
        sa.Column("week_nanos", _nanos, nullable=False),
        sa.Column("month_nanos", _nanos, nullable=False),
        sa.Column("counted_us", _us, nullable=False),
        sa.Column("at_once", sa.BigInteger, nullable=False),
        sa.Column("minute", sa.Text, nullable=False),
        sqlite_with_rowid=False,
    )
    op.create_table(
        "management_key",
        sa.Column("id", sa.Integer, primary_key=True),
        sa.Column("label", sa.Text, nullable=False),
        sa.Column("digest", sa.LargeBinary, nullable=False, unique=True),
        sa.Column("hint", sa.Text, nullable=False),
        sa.Column("account_id", sa.Integer, sa.ForeignKey("account.id")),
        sa.Column("created_us", _us, nullable=False),
        sa.Column("revoked_us", _us),
    )
    op.create_table(
        "published_plans",
        sa.Column("plans", sa.Text, nullable=False),
        sa.Column("published_by", sa.Text, nullable=False),
        sa.Column("published_us", _us, nullable=False),
    )
    op.create_table(
        "price_list",
        sa.Column("source", sa.Text, primary_key=True),
        sa.Column("bodies", sa.LargeBinary),
        sa.Column("read_us", _us),
        sa.Column("claimed_us", _us, nullable=False),
        sqlite_with_rowid=False,
    )
    if op.get_bind().dialect.name == "postgresql":
        # By a trigger, so that what older code changes is told, too.
        op.execute(
            "CREATE OR REPLACE FUNCTION directory_changed() RETURNS trigger LANGUAGE plpgsql AS"
            " $$ BEGIN PERFORM pg_notify('farebox_directory', ''); RETURN NULL; END $$"
        )
        op.execute(
            "CREATE TRIGGER directory_changed AFTER UPDATE ON directory_revision"
            " FOR EACH ROW EXECUTE FUNCTION directory_changed()"
        )
