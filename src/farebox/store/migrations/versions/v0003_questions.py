"""When an open hold's cost is asked for."""

import sqlalchemy as sa
from alembic import op

from farebox.store.migrations.shared import index_where

revision = "0003"
down_revision = "0002"


def upgrade() -> None:
    """Add two columns to holds: older code does not write them, and leaves what it opens to an operator."""
    op.add_column("hold", sa.Column("asks", sa.Integer, nullable=False, server_default="0"))
    op.add_column("hold", sa.Column("ask_us", sa.BigInteger))
    op.execute("UPDATE hold SET ask_us = 0 WHERE state = 'open' AND generation_id IS NOT NULL")
    index_where("hold_ask", "hold", ["ask_us"], "ask_us IS NOT NULL")
