"""Bring a database to the newest schema: `python -m farebox.store.migrate PATH`."""

import sys
from pathlib import Path

from alembic import command
from alembic.config import Config


def upgrade(path: Path) -> None:
    """Run every migration that the database at `path` has not had."""
    config = Config()
    config.set_main_option("script_location", str(Path(__file__).with_name("migrations")))
    config.attributes["url"] = f"sqlite:///{path}"
    command.upgrade(config, "head")


if __name__ == "__main__":
    upgrade(Path(sys.argv[1]))
