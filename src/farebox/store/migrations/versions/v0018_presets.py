"""Presets of accounts: a model and settings under a name, version by version."""

import sqlalchemy as sa
from alembic import op

revision = "0018"
down_revision = "0017"


def upgrade() -> None:
    """Add a table. Older code does not read it: it refuses orders that name a preset."""
    op.create_table(
        "preset_version",
        sa.Column("account_id", sa.Integer, sa.ForeignKey("account.id"), primary_key=True),
        sa.Column("slug", sa.Text, primary_key=True),
        sa.Column("version", sa.Integer, primary_key=True),
        sa.Column("first_us", sa.BigInteger, nullable=False),
        sa.Column("created_us", sa.BigInteger, nullable=False),
        sa.Column("system_prompt", sa.Text),
        sa.Column("config", sa.Text, nullable=False),
        sqlite_with_rowid=False,
    )
