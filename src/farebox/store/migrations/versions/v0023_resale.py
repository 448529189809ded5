"""Orders whose cost is multiplied before it is rounded up to events, so that fares alone tell nothing of it."""

import sqlalchemy as sa
from alembic import op

revision = "0023"
down_revision = "0022"


def upgrade() -> None:
    """Add a column to holds. Older code neither places such orders nor knows how they are charged: have a plan show
    the fare when no such node serves any more."""
    op.add_column("hold", sa.Column("marked_up", sa.Boolean))
