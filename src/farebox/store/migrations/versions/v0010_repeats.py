"""Orders that are sent again without a key: by what they are recognized, and answers that nobody was there to take."""

import sqlalchemy as sa
from alembic import op

revision = "0010"
down_revision = "0009"


def upgrade() -> None:
    """Add two columns to holds, and a table whose rows live for minutes. Older code runs on: its orders are not
    recognized when they are sent again."""
    op.add_column("hold", sa.Column("order_digest", sa.LargeBinary))
    op.add_column("hold", sa.Column("delivery", sa.Text))
    op.create_table(
        "undelivered_answer",
        sa.Column("hold_id", sa.Text, sa.ForeignKey("hold.id"), primary_key=True),
        sa.Column("key_id", sa.Integer, nullable=False),
        sa.Column("order_digest", sa.LargeBinary, nullable=False),
        sa.Column("created_us", sa.BigInteger, nullable=False),
        sa.Column("body", sa.LargeBinary),
        sa.Column("given_us", sa.BigInteger),
    )
    op.create_index("undelivered_answer_digest", "undelivered_answer", ["order_digest"])
