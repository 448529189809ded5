"""Copying the books of a file while servers write to it, and putting a copy in their place.

A copy is of one moment: a transaction that reads is kept open while pages are copied, a few megabytes at a time.
Readers hold up no writer in WAL mode; all that it costs is that the write-ahead log grows meanwhile. A copy gets its
name when it is whole, on disk, and audited.
"""

import os
import shutil
import sqlite3
import time
from collections.abc import Iterator
from contextlib import closing, contextmanager
from pathlib import Path

from msgspec import Struct

from farebox.core.audit import Audit, audit
from farebox.store.engine import COMMAND_SECONDS
from farebox.store.prepare import HEAD, UnusableBooks, no_books, refuse_newer, schema_of, sqlite_path, take_up
from farebox.store.snapshots import SqlSnapshot
from farebox.store.sqlite import Sqlite

PAGES_AT_ONCE = 1_024
"""4 MiB."""

PAUSE_SECONDS = 0.005
"""Between two pieces, so that commits find the disk free."""

PARTIAL = ".partial"
"""How a copy's name ends while it is made."""

LOGS = ("-wal", "-shm", "-journal")
"""What SQLite keeps beside a file, and writes into it when it is next opened, whatever file that is by then."""

_IS_USED = "SELECT 1 FROM account WHERE id > 1 UNION ALL SELECT 1 FROM transfer LIMIT 1"


class Copied(Struct, frozen=True):
    """A copy: its file, its bytes, its schema; and what an audit of it found, None where the schema is not this
    version's. `aside` is where the books went that stood in its place."""

    file: Path
    size_bytes: int
    schema: str
    audit: Audit | None
    aside: Path | None = None

    @property
    def is_well(self) -> bool:
        return self.audit is None or not self.audit.differences


def backup(database_url: str, file: Path, *, replaces: bool = False) -> Copied:
    """Copy the books into a file of their own; books of an older schema as they are.

    Raises:
        UnusableBooks: there are none, they cannot be read, or the file cannot be written, is there already, or is that
            of the books.
    """
    if (schema := schema_of(database_url)) is None:
        raise no_books(database_url)
    if file.exists() and file.samefile(sqlite_path(database_url)):
        raise UnusableBooks(f"{file} is the file of the books; a backup is another one")
    if file.exists() and not replaces:
        raise UnusableBooks(f"{file} is there already; choose another name, or replace it by --overwrite")
    source = Sqlite(sqlite_path(database_url), answer_seconds=COMMAND_SECONDS)
    with _partial_of(file) as partial:
        with closing(source.connect()) as reading, closing(sqlite3.connect(partial)) as writing:
            # What is there is what `fsync` below puts on disk; until then it is no backup.
            writing.execute("PRAGMA synchronous = OFF")
            with source.snapshot(reading) as moment:
                moment.execute("SELECT count(*) FROM alembic_version").fetchone()  # from here on it is of this moment
                reading.backup(writing, pages=PAGES_AT_ONCE, progress=lambda *_: time.sleep(PAUSE_SECONDS))
            writing.execute("PRAGMA journal_mode = DELETE")
        return _finish(partial, file, schema)


def restore(file: Path, database_url: str, *, replaces: bool = False, even_if_wrong: bool = False) -> Copied:
    """Put a copy in the place of the books, which are kept under another name. The copy is brought to this version's
    schema, and audited, before anything is moved.

    Raises:
        UnusableBooks: the file is no copy of books, or an audit finds it wrong; a server is on the books; there are
            books with accounts, and it is not to replace them.
    """
    backup_url = f"sqlite:///{file}"
    if (schema := schema_of(backup_url)) is None:
        raise UnusableBooks(f"there is no backup at {file}")
    refuse_newer(backup_url, schema)
    books = Sqlite(sqlite_path(database_url))
    path = books.path
    if serving := books.worker_pids():
        pids = ", ".join(map(str, sorted(serving)))
        raise UnusableBooks(f"{path} is in use (process {pids}): stop the servers first")
    is_used = _is_used(database_url)
    if is_used and not replaces:
        raise UnusableBooks(
            f"{path} has accounts; what was booked there since the backup would be gone. --overwrite replaces it, and"
            " keeps it under another name"
        )
    with _partial_of(path) as partial:
        shutil.copyfile(file, partial)
        take_up(f"sqlite:///{partial.absolute()}")
        _alone(partial)
        copied = _finish(partial, path, HEAD, into_place=False)
        if not copied.is_well and not even_if_wrong:
            raise UnusableBooks(
                f"an audit finds {len(copied.audit.differences) if copied.audit else 0} differences in {file}, so"
                f" nothing was restored: `farebox audit --database-url {backup_url}` names them; --even-if-wrong"
                " restores it all the same"
            )
        aside = _set_aside(path)
        _put(partial, path)
    return Copied(copied.file, copied.size_bytes, schema, copied.audit, aside)


@contextmanager
def _partial_of(file: Path) -> Iterator[Path]:
    """A file beside, private from its first moment; removed where it does not get the name."""
    partial = file.with_name(file.name + PARTIAL)
    try:
        file.parent.mkdir(mode=0o700, parents=True, exist_ok=True)
        partial.unlink(missing_ok=True)
        os.close(os.open(partial, os.O_CREAT | os.O_EXCL | os.O_RDWR, 0o600))
        yield partial
    except (OSError, sqlite3.Error) as error:
        raise UnusableBooks(f"{file} cannot be written: {error}") from error
    finally:
        partial.unlink(missing_ok=True)
        _drop_logs(partial)
        workers = partial.with_name(partial.name + "-workers")
        if workers.is_dir():
            shutil.rmtree(workers)


def _finish(partial: Path, file: Path, schema: str, *, into_place: bool = True) -> Copied:
    """Put a copy on disk, audit what stands there, and give it its name."""
    with partial.open("rb") as written:
        os.fsync(written.fileno())
    found: Audit | None = None
    # By a connection that only reads, and makes no files beside it.
    with closing(sqlite3.connect(f"{partial.absolute().as_uri()}?mode=ro&immutable=1", uri=True)) as db:
        (said,) = db.execute("PRAGMA quick_check(1)").fetchone()
        if said != "ok":
            raise UnusableBooks(f"the copy is not whole: {said}")
        if schema == HEAD:
            found = audit(SqlSnapshot(db, Sqlite.sql))
    size = partial.stat().st_size
    if into_place:
        _put(partial, file)
    return Copied(file, size, schema, found)


def _put(partial: Path, file: Path) -> None:
    """Durable when this returns. What is left there of another file's logs would be written over this one."""
    _drop_logs(file)
    partial.replace(file)
    folder = os.open(file.parent, os.O_RDONLY)
    try:
        os.fsync(folder)
    finally:
        os.close(folder)


def _drop_logs(file: Path) -> None:
    for end in LOGS:
        file.with_name(file.name + end).unlink(missing_ok=True)


def _alone(path: Path) -> None:
    """Have everything in the one file: no log stands beside it afterwards. Raises UnusableBooks."""
    try:
        with closing(sqlite3.connect(path, timeout=1)) as db:
            (mode,) = db.execute("PRAGMA journal_mode = DELETE").fetchone()
    except sqlite3.OperationalError as error:
        raise UnusableBooks(f"{path} is in use by another program: {error}") from error
    if mode != "delete":
        raise UnusableBooks(f"{path} is in use by another program, which keeps its log")


def _set_aside(path: Path) -> Path | None:
    """Where the books stand from now on that were there; or, where only their file was taken away, what was in their
    log: the last orders before their server died."""
    aside = path.with_name(f"{path.name}.before-{time.strftime('%Y%m%dT%H%M%SZ', time.gmtime())}")
    if path.exists():
        _alone(path)
    else:
        path, aside = (each.with_name(each.name + "-wal") for each in (path, aside))
        if not path.exists():
            return None
    if aside.exists():
        raise UnusableBooks(f"{aside} is there already; wait a second")
    return path.rename(aside)


def _is_used(database_url: str) -> bool:
    if schema_of(database_url) is None:
        return False
    with closing(sqlite3.connect(sqlite_path(database_url))) as db:
        return db.execute(_IS_USED).fetchone() is not None
