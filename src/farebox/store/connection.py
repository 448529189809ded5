"""A connection to the books in an SQLite file, and transactions on it."""

import sqlite3
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

from farebox.store import sql

BUSY_SECONDS = 10
"""How long a write waits for another process's transaction before the books count as unavailable."""


def connect(path: Path, busy_seconds: float = BUSY_SECONDS) -> sqlite3.Connection:
    """A connection with the settings that durability rests on. Autocommit: transactions are begun by hand."""
    # A store hands its connections from the thread that opens it to the one that uses it; never to two at a time.
    db = sqlite3.connect(path, timeout=busy_seconds, isolation_level=None, check_same_thread=False)
    for pragma in sql.PRAGMAS:
        db.execute(pragma)
    return db


@contextmanager
def transaction(db: sqlite3.Connection) -> Iterator[sqlite3.Connection]:
    """Write, all of it or nothing."""
    db.execute("BEGIN IMMEDIATE")
    try:
        yield db
        db.execute("COMMIT")
    finally:
        if db.in_transaction:
            db.execute("ROLLBACK")
