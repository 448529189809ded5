"""When an order was sent, its answer's head came and it ended, and which upstreams did not serve it."""

import sqlalchemy as sa
from alembic import op

revision = "0025"
down_revision = "0024"


def upgrade() -> None:
    """Add four columns to holds. Of orders from before, and of those that older code serves, none is known."""
    for name in ("sent_us", "head_us", "read_us"):
        op.add_column("hold", sa.Column(name, sa.BigInteger))
    op.add_column("hold", sa.Column("tried", sa.Text))
