"""Who is signed in to the console, and what may be done there once."""

import sqlalchemy as sa
from alembic import op

revision = "0020"
down_revision = "0019"

_us = sa.BigInteger


def upgrade() -> None:
    """Add two tables. Older code does not read them."""
    op.create_table(
        "console_session",
        sa.Column("digest", sa.LargeBinary, primary_key=True),
        sa.Column("api_key_id", sa.Integer, sa.ForeignKey("api_key.id")),
        sa.Column("management_key_id", sa.Integer, sa.ForeignKey("management_key.id")),
        sa.Column("key_digest", sa.LargeBinary, nullable=False),
        sa.Column("created_us", _us, nullable=False),
        sa.Column("until_us", _us, nullable=False),
        sa.CheckConstraint("(api_key_id IS NULL) <> (management_key_id IS NULL)", "of_one_key"),
    )
    op.create_table(
        "console_once",
        sa.Column("digest", sa.LargeBinary, primary_key=True),
        sa.Column("api_key_id", sa.Integer, sa.ForeignKey("api_key.id")),
        sa.Column("until_us", _us, nullable=False),
    )
