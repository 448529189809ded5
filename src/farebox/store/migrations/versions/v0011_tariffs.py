"""Orders at upstreams that have a name or tell no cost: who served them, by which prices, for what; and the lists."""

import sqlalchemy as sa
from alembic import op

revision = "0011"
down_revision = "0010"


def upgrade() -> None:
    """Add two columns to holds, and a table of a few rows. Older code runs on: its orders go to the built-in upstream,
    which is what null says."""
    op.add_column("hold", sa.Column("upstream", sa.Text))
    op.add_column("hold", sa.Column("priced", sa.Text))
    op.create_table(
        "tariffs",
        sa.Column("version", sa.Text, primary_key=True),
        sa.Column("content", sa.Text, nullable=False),
        sa.Column("first_used_us", sa.BigInteger, nullable=False),
    )
