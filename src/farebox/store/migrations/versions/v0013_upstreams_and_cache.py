"""How upstreams stand, for all nodes; answers that are kept for the same order again, and the keys whose are."""

import sqlalchemy as sa
from alembic import op

revision = "0013"
down_revision = "0012"

_us = sa.BigInteger


def upgrade() -> None:
    """Add two tables, and a column to keys. Older code does not read them: it tries every upstream, and keeps no
    answers."""
    op.create_table(
        "upstream_state",
        sa.Column("upstream", sa.Text, primary_key=True),
        sa.Column("model", sa.Text, primary_key=True),
        sa.Column("failures", sa.BigInteger, nullable=False),
        sa.Column("until_us", _us, nullable=False),
        sa.Column("reason", sa.Text, nullable=False),
        sa.Column("changed_us", _us, nullable=False),
        sqlite_with_rowid=False,
    )
    op.add_column("api_key", sa.Column("cache_seconds", sa.BigInteger))
    op.create_table(
        "cached_answer",
        sa.Column("digest", sa.LargeBinary, primary_key=True),
        sa.Column("generation_id", sa.Text, nullable=False),
        sa.Column("content_type", sa.Text, nullable=False),
        sa.Column("kept_us", _us, nullable=False),
        sa.Column("until_us", _us, nullable=False),
        sa.Column("size", sa.BigInteger, nullable=False),
        sa.Column("body", sa.LargeBinary, nullable=False),
    )
    op.create_index("cached_answer_kept", "cached_answer", ["kept_us", "size"])
    op.create_index("cached_answer_until", "cached_answer", ["until_us"])
