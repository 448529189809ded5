"""Keys that are rotated, with a while in which the old one works, too; accounts that are closed."""

import sqlalchemy as sa
from alembic import op

from farebox.store.migrations.shared import index_where

revision = "0019"
down_revision = "0018"


def upgrade() -> None:
    """Add columns to keys and accounts. Older code refuses a rotated key's old digest at once, and knows no closed
    account: close them when no such node serves any more."""
    op.add_column("account", sa.Column("closed_us", sa.BigInteger))
    op.add_column("api_key", sa.Column("old_digest", sa.LargeBinary))
    op.add_column("api_key", sa.Column("old_until_us", sa.BigInteger))
    index_where("api_key_old_digest", "api_key", ["old_digest"], "old_digest IS NOT NULL")
