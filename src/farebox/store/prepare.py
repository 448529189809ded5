"""Finding the books, making or upgrading them, and opening them.

Only who serves or upgrades makes books. Whoever reads where there are none is told so, and leaves none behind.

The migration tool runs in a process of its own: it costs 20 MB that no server needs to carry.
"""

import os
import re
import secrets
import sqlite3
import subprocess
import sys
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager, closing
from importlib.util import find_spec
from pathlib import Path

from farebox.store.books import SqlStore
from farebox.store.engine import ANSWER_SECONDS, BUSY_SECONDS, Engine, Reader
from farebox.store.sqlite import Sqlite

HEAD = "0025"
"""The schema this code is written for: the newest of farebox/store/migrations/versions."""


SQLITE_MIN = (3, 38)
"""The first with RETURNING and JSON functions in every build."""

_PASSWORD = re.compile(r"(?<=://)([^/@:]*):.*@|(?<=[?&])((?:ssl)?password=)[^&]*")


class UnusableBooks(Exception):  # noqa: N818 - the word of the house
    """The database cannot be used, and why."""


def is_postgres(database_url: str) -> bool:
    """libpq reads both, and hosts hand out either."""
    return database_url.startswith(("postgresql://", "postgres://"))


def shown(database_url: str) -> str:
    """The URL as it may be printed: without a password."""
    return _PASSWORD.sub(lambda found: f"{found[2]}***" if found[2] else f"{found[1]}:***@", database_url)


def sqlite_path(database_url: str) -> Path:
    """The file that a `sqlite:///PATH` URL names (three slashes: relative to here; four: absolute).

    Raises:
        UnusableBooks: another kind of URL.
    """
    scheme, separator, path = database_url.partition(":///")
    if scheme != "sqlite" or not separator or not path or path == ":memory:":
        raise UnusableBooks(
            f"{shown(database_url)!r} is not a database Farebox can use; write sqlite:///PATH or postgresql://..."
        )
    return Path(path)


def engine_of(database_url: str, busy_seconds: float = BUSY_SECONDS, answer_seconds: float = ANSWER_SECONDS) -> Engine:
    """The engine of books that were prepared. Raises UnusableBooks."""
    if not is_postgres(database_url):
        return Sqlite(sqlite_path(database_url), busy_seconds, answer_seconds)
    if find_spec("psycopg") is None:
        raise UnusableBooks("PostgreSQL needs its driver: pip install 'farebox[postgres]'")
    # Only here: a gateway on SQLite does not carry the driver.
    from farebox.store.postgres import Postgres

    try:
        return Postgres(database_url, busy_seconds, answer_seconds)
    except Postgres.errors as error:
        # Not shown: where its parts cannot be told apart, the password cannot be hidden.
        raise UnusableBooks(
            "the database's URL cannot be read: write postgresql://USER:PASSWORD@HOST/NAME, each of / @ : ? # % in the"
            " user or the password as %2F %40 %3A %3F %23 %25"
        ) from error


@asynccontextmanager
async def open_store(database_url: str, answer_seconds: float = ANSWER_SECONDS) -> AsyncIterator[SqlStore]:
    """Books that were prepared, for as long as the block runs. Raises UnusableBooks, BooksUnavailable."""
    worker = f"{os.getpid()}-{secrets.token_hex(6)}"
    store = await SqlStore.open(engine_of(database_url, answer_seconds=answer_seconds), worker)
    try:
        yield store
    finally:
        await store.close()


def prepare(database_url: str) -> bool:
    """Make the books if there are none, upgrade them if they are older; True where they are new.

    Raises:
        UnusableBooks: they cannot be written, are no database of Farebox's, or have a schema from newer code.
    """
    found = schema_of(database_url, to_write=True)
    if found is None and not is_postgres(database_url):
        _make_file(sqlite_path(database_url))
    _bring_to_head(database_url, found)
    return found is None


def take_up(database_url: str) -> None:
    """Upgrade the books if they are older; none are made.

    Raises:
        UnusableBooks: as `prepare`; or there are none.
    """
    found = schema_of(database_url)
    if found is None:
        raise no_books(database_url)
    _bring_to_head(database_url, found)


def no_books(database_url: str) -> UnusableBooks:
    return UnusableBooks(
        f"there are no books at {place(database_url)}; `farebox serve` or `farebox db upgrade` makes them, and"
        " --database-url or FAREBOX_DATABASE_URL says where they are"
    )


def place(database_url: str) -> str:
    """Where the books are looked for, as it may be printed: a file with the whole way to it."""
    return shown(database_url) if is_postgres(database_url) else str(sqlite_path(database_url).absolute())


def refuse_newer(database_url: str, found: str | None) -> None:
    """Raises UnusableBooks where the schema that was found is from newer code."""
    if found is not None and found > HEAD:
        raise UnusableBooks(
            f"{shown(database_url)} has schema {found}, from a newer Farebox; this one knows up to {HEAD}."
            " Run that version, or a copy of the database from before it"
        )


def _bring_to_head(database_url: str, found: str | None) -> None:
    refuse_newer(database_url, found)
    if found == HEAD:
        return
    done = subprocess.run(
        [sys.executable, "-m", "farebox.store.migrate"], input=database_url, capture_output=True, text=True, check=False
    )
    if done.returncode != 0:
        said = done.stderr.strip()[-500:].replace(database_url, shown(database_url))
        raise UnusableBooks(f"{shown(database_url)} could not be upgraded to schema {HEAD}: {said}")


def schema_of(database_url: str, *, to_write: bool = False) -> str | None:
    """The schema that the books have; None where there are none yet. Nothing is made. Raises UnusableBooks: they cannot
    be read; or, where they are `to_write`, not written as far as a look can tell."""
    if is_postgres(database_url):
        return _of_postgres(database_url, to_write=to_write)
    return _of_sqlite(sqlite_path(database_url))


def _of_sqlite(path: Path) -> str | None:
    if sqlite3.sqlite_version_info < SQLITE_MIN:
        raise UnusableBooks(f"this Python comes with SQLite {sqlite3.sqlite_version}; 3.38 or newer is needed")
    try:
        # SQLite would make the file; and one that may only be read is of no use, which it says too late.
        os.close(os.open(path, os.O_RDWR))
        with closing(sqlite3.connect(path)) as db:
            tables = frozenset(row[0] for row in db.execute("SELECT name FROM sqlite_master WHERE type = 'table'"))
            return _version(db, tables, str(path))
    except FileNotFoundError:
        return None
    except (OSError, sqlite3.Error) as error:
        raise _unusable(str(path), error) from error


def _make_file(path: Path) -> None:
    """Private from its first moment: SQLite gives its journal files the same mode. Raises UnusableBooks."""
    try:
        path.parent.mkdir(mode=0o700, parents=True, exist_ok=True)
        os.close(os.open(path, os.O_CREAT | os.O_RDWR, 0o600))
    except OSError as error:
        raise _unusable(str(path), error) from error


def _unusable(name: str, error: Exception) -> UnusableBooks:
    return UnusableBooks(f"{name} cannot be used as a database: {error}")


def _of_postgres(database_url: str, *, to_write: bool) -> str | None:
    engine = engine_of(database_url)
    # As above.
    from farebox.store.postgres_fitness import Unfit, examine

    try:
        tables = examine(engine, to_write=to_write)
        with closing(engine.connect()) as db:
            return _version(db, tables, shown(database_url))
    except Unfit as error:
        raise UnusableBooks(f"{shown(database_url)} {error}") from error
    except engine.errors as error:
        raise UnusableBooks(f"{shown(database_url)} cannot be used as a database: {engine.said(error)}") from error


def _version(db: Reader, tables: frozenset[str], name: str) -> str | None:
    if not tables:
        return None
    if not tables >= {"alembic_version", "transfer"}:
        raise UnusableBooks(f"{name} is a database of another program (its tables: {', '.join(sorted(tables))})")
    row = db.execute("SELECT version_num FROM alembic_version").fetchone()
    return row[0] if row else None
