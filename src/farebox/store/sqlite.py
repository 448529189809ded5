"""The books in one SQLite file: WAL, `synchronous=FULL`, several processes on one file.

A living worker keeps a lock on a file of its name in a folder beside the books, which the kernel lets go when the
process dies however it dies.
"""

import re
import sqlite3
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from functools import cache
from itertools import chain
from itertools import count as count_up
from pathlib import Path
from typing import Any

from farebox.store.engine import ANSWER_SECONDS, BUSY_SECONDS, Db, Question, Reader
from farebox.store.locks import LockedFile, is_free
from farebox.store.sql import load

CHECKPOINT_PAGES = 2_000
"""Pages of the write-ahead log after which a commit copies them into the file: 4 MiB, as by SQLite's own default."""

WAL_BYTES = 16 * 2**20
"""What of the log's file is kept when it begins anew."""

PRAGMAS = (
    "PRAGMA journal_mode = WAL",
    "PRAGMA synchronous = FULL",
    "PRAGMA foreign_keys = ON",
    f"PRAGMA wal_autocheckpoint = {CHECKPOINT_PAGES}",
    f"PRAGMA journal_size_limit = {WAL_BYTES}",
)


ROWS_MAX = 64
"""Rows in one statement. The driver keeps each statement that it has read, and one of so many holds is 60 KB."""

ANY_NUMBER_MAX = 16
"""So few rows, whatever their number, are one statement."""

STATEMENTS_KEPT = 256
"""All that one connection reads again and again."""

_VALUES = re.compile(r"VALUES (\([^()]*\))")


@cache
def _repeated(statement: str, count: int, nulls: tuple[int, ...] = ()) -> str:
    """A statement of one row behind VALUES as one of so many, in which the values of these places are null."""

    def rows(found: re.Match[str]) -> str:
        places = count_up()
        row = re.sub(r"\?", lambda _: "NULL" if next(places) in nulls else "?", found[1])
        return "VALUES " + ", ".join([row] * count)

    return _VALUES.sub(rows, statement)


def _take_nulls(values: list[Any], width: int) -> tuple[int, ...]:
    """Take out of rows, which stand one behind the other, the places that are null in each; say which. A null that is
    given as a value costs as much as ten others: the driver looks for a way to adapt it, every time."""
    rows = len(values) // width
    nulls = [at for at in range(width) if values[at] is None and values[at::width].count(None) == rows]
    for at in reversed(nulls):
        del values[at::width]
        width -= 1
    return tuple(nulls)


class _Connection(sqlite3.Connection):
    checkpoints_on_commit = True

    def read(self, questions: Sequence[Question]) -> list[list[Any]]:
        return [self.execute(statement, given).fetchall() for statement, given in questions]

    def put_each(self, statement: str, rows: Sequence[Sequence[Any]], /, *, may_miss: bool = False) -> None:
        done = self.executemany(statement, rows)
        # A row that is not there as it was read would be left out in silence.
        assert done.rowcount == len(rows) or may_miss or "ON CONFLICT" in statement, (statement, done.rowcount)

    def put_rows(self, statement: str, rows: Sequence[Sequence[Any]]) -> None:
        """In as few steps as there can be: in each the driver lets other threads run, and has to wait for its turn
        again. Many go in powers of two, so that few statements stand for any number of rows."""
        before, written = self.total_changes, 0
        while written < len(rows):
            left = len(rows) - written
            count = left if left <= ANY_NUMBER_MAX else min(ROWS_MAX, 1 << left.bit_length() - 1)
            values = list(chain.from_iterable(rows[written : written + count]))
            nulls = _take_nulls(values, len(rows[0]))
            self.execute(_repeated(statement, count, nulls), values)
            written += count
        assert self.total_changes - before == written, (statement, self.total_changes - before, written)


class Sqlite:
    """The `Engine` of one file."""

    sql = load("sqlite.sql", value=r":\1", value_of_row="?")
    errors: tuple[type[Exception], ...] = (sqlite3.Error,)
    unavailable: tuple[type[Exception], ...] = (sqlite3.OperationalError,)
    conflicting: tuple[type[Exception], ...] = (sqlite3.IntegrityError,)
    refusing: tuple[type[Exception], ...] = (sqlite3.IntegrityError, sqlite3.DataError)
    renewed_within_seconds = 0.0

    def __init__(self, path: Path, busy_seconds: float = BUSY_SECONDS, answer_seconds: float = ANSWER_SECONDS) -> None:
        # As SQLite names its log: by whatever link a process comes here, it finds the workers of all.
        self.path = path.resolve()
        self.answer_seconds = answer_seconds
        self._busy_seconds = busy_seconds
        self._workers = self.beside("-workers")
        self.checkpoints_on_commit = True
        """Whether a commit copies what has gathered in the write-ahead log. Where that is much, who commits would wait
        for it: `store/wal.py` does it then."""

    def beside(self, suffix: str) -> Path:
        """The file whose name is the books' and the suffix."""
        return self.path.with_name(self.path.name + suffix)

    def said(self, error: Exception) -> str:
        return str(error)

    def connect(self) -> _Connection:
        """With the settings that durability rests on. Autocommit: transactions are begun by hand."""
        # A store hands its connections from the thread that opens it to the one that uses it; never to two at a time.
        db = sqlite3.connect(
            self.path,
            timeout=self._busy_seconds,
            isolation_level=None,
            check_same_thread=False,
            cached_statements=STATEMENTS_KEPT,
            factory=_Connection,
        )
        for pragma in PRAGMAS:
            db.execute(pragma)
        return db

    def connect_to_write(self) -> _Connection:
        return self.connect()

    @contextmanager
    def transaction(self, db: Db) -> Iterator[Db]:
        assert isinstance(db, _Connection)
        if db.checkpoints_on_commit is not self.checkpoints_on_commit:
            db.checkpoints_on_commit = self.checkpoints_on_commit
            db.execute(f"PRAGMA wal_autocheckpoint = {CHECKPOINT_PAGES if db.checkpoints_on_commit else 0}")
        db.execute("BEGIN IMMEDIATE")
        try:
            yield db
            db.execute("COMMIT")
        finally:
            if db.in_transaction:
                db.execute("ROLLBACK")

    def version(self, db: Db) -> int:
        (version,) = db.execute("PRAGMA data_version").fetchone()
        return int(version)

    @contextmanager
    def snapshot(self, db: Db) -> Iterator[Reader]:
        db.execute("BEGIN")
        yield db

    def live(self, worker: str) -> LockedFile:
        return LockedFile(self._workers, worker)

    def is_gone(self, db: Db, worker: str) -> bool:
        return is_free(self._workers / worker)

    def worker_pids(self) -> set[int]:
        """The processes of living workers: a worker's name begins with its process's number."""
        numbers = [each.name.partition("-")[0] for each in self._workers.glob("[0-9]*-*") if not is_free(each)]
        return {int(number) for number in numbers if number.isdecimal()}

    def notices(self) -> None:
        """A file tells nothing."""

    def forget(self, workers: list[str]) -> None:
        for worker in workers:
            (self._workers / worker).unlink(missing_ok=True)
