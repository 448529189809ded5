"""Finding the books, and making or upgrading them before they are opened.

The migration tool runs in a process of its own: it costs 20 MB that no server needs to carry.
"""

import os
import sqlite3
import subprocess
import sys
from pathlib import Path

from farebox.store.sqlite import Sqlite

HEAD = "0006"
"""The schema this code is written for: the newest of farebox/store/migrations/versions."""


SQLITE_MIN = (3, 38)
"""The first with RETURNING and JSON functions in every build."""


class UnusableBooks(Exception):  # noqa: N818 - the word of the house
    """The database cannot be used, and why."""


def sqlite_path(database_url: str) -> Path:
    """The file that a `sqlite:///PATH` URL names (three slashes: relative to here; four: absolute).

    Raises:
        UnusableBooks: another kind of URL.
    """
    scheme, separator, path = database_url.partition(":///")
    if scheme != "sqlite" or not separator or not path or path == ":memory:":
        raise UnusableBooks(f"{database_url!r} is not a database Farebox can use; write sqlite:///PATH")
    return Path(path)


def engine_of(database_url: str) -> Sqlite:
    """The engine of prepared books. Raises UnusableBooks."""
    return Sqlite(sqlite_path(database_url))


def prepare(path: Path) -> bool:
    """Make the books if there are none, upgrade them if they are older; True where they are new.

    Raises:
        UnusableBooks: the file cannot be written, is no database, or has a schema from newer code.
    """
    if sqlite3.sqlite_version_info < SQLITE_MIN:
        raise UnusableBooks(f"this Python comes with SQLite {sqlite3.sqlite_version}; 3.38 or newer is needed")
    is_new = not path.exists()
    try:
        path.parent.mkdir(mode=0o700, parents=True, exist_ok=True)
        # Private from its first moment: SQLite gives its journal files the same mode.
        os.close(os.open(path, os.O_CREAT | os.O_RDWR, 0o600))
        found = _schema_of(path)
    except (OSError, sqlite3.Error) as error:
        raise UnusableBooks(f"{path} cannot be used as a database: {error}") from error
    if found != HEAD:
        if found is not None and found > HEAD:
            raise UnusableBooks(f"{path} has schema {found}, from a newer Farebox; this one knows up to {HEAD}")
        done = subprocess.run(  # noqa: S603 - our own module, no shell
            [sys.executable, "-m", "farebox.store.migrate", str(path)], capture_output=True, text=True, check=False
        )
        if done.returncode != 0:
            raise UnusableBooks(f"{path} could not be upgraded to schema {HEAD}: {done.stderr.strip()[-500:]}")
    return is_new


def _schema_of(path: Path) -> str | None:
    db = sqlite3.connect(path)
    try:
        tables = {row[0] for row in db.execute("SELECT name FROM sqlite_master WHERE type = 'table'")}
        if "alembic_version" not in tables:
            if tables:
                raise UnusableBooks(
                    f"{path} is a database of another program (its tables: {', '.join(sorted(tables))})"
                )
            return None
        row = db.execute("SELECT version_num FROM alembic_version").fetchone()
        return row[0] if row else None
    finally:
        db.close()
