"""What was ordered (chat, images, speech, ...), and how much of that kind's unit was used."""

import sqlalchemy as sa
from alembic import op

revision = "0016"
down_revision = "0015"


def upgrade() -> None:
    """Add two columns to holds. Of orders from before, and of those that older code places, neither is known."""
    op.add_column("hold", sa.Column("kind", sa.Text))
    op.add_column("hold", sa.Column("units", sa.BigInteger))
