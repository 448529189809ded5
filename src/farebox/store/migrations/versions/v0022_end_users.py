"""For whom orders are: end users and tags, and the fares of each day by them."""

import sqlalchemy as sa
from alembic import op

from farebox.store.migrations.shared import index_where

revision = "0022"
down_revision = "0021"

_KEY = (
    ("account_id", sa.Integer),
    ("day", sa.BigInteger),
    ("end_user", sa.Text),
    ("tags", sa.Text),
    ("key_id", sa.Integer),
    ("model", sa.Text),
    ("served_model", sa.Text),
    ("kind", sa.Text),
)
_SUMS = "orders events fares_nanos cost_9 cost_18 cost_27 prompt_tokens answer_tokens units latest_us".split()


def upgrade() -> None:
    """Add two columns to holds, and two tables. Orders from before, and those that older code places, have neither an
    end user nor tags. What older code posts of others' orders is in no total by end user, and counts against no limit
    of one: set such limits when no such node serves any more, and `farebox db recount` then."""
    op.add_column("hold", sa.Column("end_user", sa.Text))
    op.add_column("hold", sa.Column("tags", sa.Text))
    index_where("hold_end_user", "hold", ["end_user", "account_id", "id"], "end_user IS NOT NULL")
    op.create_table(
        "attributed_total",
        *(sa.Column(name, kind, primary_key=True, autoincrement=False) for name, kind in _KEY),
        *(sa.Column(name, sa.BigInteger, nullable=False) for name in _SUMS),
        sa.Column("cost_finer", sa.Text),
        sqlite_with_rowid=False,
    )
    index_where("attributed_end_user", "attributed_total", ["account_id", "end_user", "day"], "end_user <> ''")
    op.create_index("allowance_account", "allowance", ["account_id"])
    op.create_table(
        "secret",
        sa.Column("name", sa.Text, primary_key=True),
        sa.Column("value", sa.LargeBinary, nullable=False),
    )
