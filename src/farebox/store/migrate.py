"""Bring a database to the newest schema: `python -m farebox.store.migrate`, its URL on standard input: it may have a
password in it, which the list of processes must not show."""

import sys
from pathlib import Path

from alembic import command
from alembic.config import Config
from sqlalchemy.exc import DBAPIError


def upgrade(url: str) -> None:
    """Run every migration that the database has not had."""
    config = Config()
    config.set_main_option("script_location", str(Path(__file__).with_name("migrations")))
    config.attributes["url"] = url
    command.upgrade(config, "head")


if __name__ == "__main__":
    try:
        upgrade(sys.stdin.read().strip())
    except DBAPIError as error:
        sys.exit(" ".join(str(error.orig).split()))
