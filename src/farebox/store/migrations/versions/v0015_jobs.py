"""Jobs that orders began, which go on after their answers: each under the upstream's name for it."""

import sqlalchemy as sa
from alembic import op

revision = "0015"
down_revision = "0014"


def upgrade() -> None:
    """Add a column, and an index of the rows that have it: of other orders nothing more is written. Older code does not
    read it: it leaves such holds open, as they are."""
    op.add_column("hold", sa.Column("job_id", sa.Text))
    op.create_index(
        "hold_job",
        "hold",
        ["job_id"],
        sqlite_where=sa.text("job_id IS NOT NULL"),
        postgresql_where=sa.text("job_id IS NOT NULL"),
    )
