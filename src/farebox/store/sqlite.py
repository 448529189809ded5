"""The books in one SQLite file: WAL, `synchronous=FULL`, several processes on one file.

A living worker keeps a lock on a file of its name in a folder beside the books, which the kernel lets go when the
process dies however it dies.
"""

import os
import sqlite3
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

from farebox.store.engine import ANSWER_SECONDS, BUSY_SECONDS, Db
from farebox.store.locks import is_free, take
from farebox.store.sql import load

PRAGMAS = (
    "PRAGMA journal_mode = WAL",
    "PRAGMA synchronous = FULL",
    "PRAGMA foreign_keys = ON",
)


class Sqlite:
    """The `Engine` of one file."""

    sql = load("sqlite.sql", value=r":\1", value_of_row="?")
    unavailable: tuple[type[Exception], ...] = (sqlite3.OperationalError,)
    conflicting: tuple[type[Exception], ...] = (sqlite3.IntegrityError,)

    def __init__(self, path: Path, busy_seconds: float = BUSY_SECONDS, answer_seconds: float = ANSWER_SECONDS) -> None:
        self.path = path
        self.answer_seconds = answer_seconds
        self._busy_seconds = busy_seconds
        self._workers = path.with_name(path.name + "-workers")

    def connect(self) -> sqlite3.Connection:
        """With the settings that durability rests on. Autocommit: transactions are begun by hand."""
        # A store hands its connections from the thread that opens it to the one that uses it; never to two at a time.
        db = sqlite3.connect(self.path, timeout=self._busy_seconds, isolation_level=None, check_same_thread=False)
        for pragma in PRAGMAS:
            db.execute(pragma)
        return db

    @contextmanager
    def transaction(self, db: Db) -> Iterator[Db]:
        assert isinstance(db, sqlite3.Connection)
        db.execute("BEGIN IMMEDIATE")
        try:
            yield db
            db.execute("COMMIT")
        finally:
            if db.in_transaction:
                db.execute("ROLLBACK")

    @contextmanager
    def snapshot(self, db: Db) -> Iterator[Db]:
        db.execute("BEGIN")
        yield db

    def live(self, worker: str) -> "_Lock":
        return _Lock(self._workers, worker)

    def is_gone(self, db: Db, worker: str) -> bool:
        return is_free(self._workers / worker)

    def notices(self) -> None:
        """A file tells nothing."""

    def forget(self, workers: list[str]) -> None:
        for worker in workers:
            (self._workers / worker).unlink(missing_ok=True)


class _Lock:
    """A worker's file, locked."""

    def __init__(self, folder: Path, worker: str) -> None:
        folder.mkdir(mode=0o700, exist_ok=True)
        self._own = folder / worker
        self._descriptor = take(self._own)

    def renew(self) -> None:
        """The kernel lets go of it with the process, not before."""

    def release(self) -> None:
        self._own.unlink(missing_ok=True)
        os.close(self._descriptor)
