"""The books in PostgreSQL: as many nodes as there are, on one database."""

import re
import threading
import time
from collections.abc import Callable, Generator, Iterable, Iterator, Sequence
from contextlib import contextmanager, suppress
from functools import cache
from hashlib import sha256
from os import environ
from secrets import randbits
from typing import Any, TypeVar

import msgspec
import psycopg
from psycopg.conninfo import conninfo_to_dict
from psycopg.pq import TransactionStatus

from farebox.store.engine import ANSWER_SECONDS, BUSY_SECONDS, SILENT_PART, Db, InDoubt, Question, Reader, Rows
from farebox.store.sql import load

T = TypeVar("T")

CONNECT_SECONDS = 5
"""How long a session may take to begin, over all hosts that the URL names."""

CONNECT_SECONDS_MIN = 2
"""Less the driver does not take."""

MIGRATION_SECONDS = 24 * 3600.0

WAKE_SECONDS = 0.1
"""How often a thread that waits for the server looks up, as the driver has it: a signal can end the wait then."""

SNAPSHOT_ROWS = 5_000
"""Rows of a snapshot that are in memory at once."""


class _CommitInDoubt(psycopg.OperationalError, InDoubt):
    """The connection broke while it was asked to commit."""


class _Silent(psycopg.OperationalError):
    """The server said nothing for too long."""


class _ReadOnly(psycopg.OperationalError):
    """The server may only be read."""


class _Connection(psycopg.Connection[Any]):
    """One whose server must answer. Nothing below says that it does not: where it is stopped, its machine goes on
    confirming what it is sent."""

    silent_seconds = SILENT_PART * ANSWER_SECONDS

    def __init__(self, *given: Any) -> None:
        super().__init__(*given)
        # The driver names each connection's prepared statements alike, by their number. Where a pooler mixes sessions
        # up, a statement's name would then run another client's statement, and no error tell of it. A number that no
        # other connection has turns that into an error.
        self._prepared._prepared_idx = 1 << 62 | randbits(62)

    def forget_prepared(self) -> None:
        """In a pipeline that fails, the driver takes a statement for prepared that the server has left out."""
        self._prepared.clear()

    def wait(self, gen: Generator[Any, Any, T], interval: float = WAKE_SECONDS, timeout: float | None = None) -> T:
        """As the driver's, through which all that a connection does goes. Raises _Silent, and is closed then."""
        if timeout is not None:
            return super().wait(gen, interval, timeout)
        try:
            return super().wait(gen, interval, self.silent_seconds)
        except psycopg.errors._WaitTimeout as error:
            self.close()
            raise _Silent(f"it did not answer within {self.silent_seconds:g} s") from error


Connect = Callable[[], _Connection]
"""Begins a session. Raises psycopg.Error."""

_SET = (
    "SELECT set_config(name, CASE WHEN name = 'synchronous_commit' AND current_setting(name) = 'remote_apply'"
    " THEN 'remote_apply' ELSE value END, false)"
    " FROM unnest(%s::text[], %s::text[]) AS wanted (name, value) WHERE current_setting(name, true) IS NOT NULL"
)
"""What a server is too old to know is left out; what is more durable than asked for stays."""

_BEGIN = b"BEGIN ISOLATION LEVEL READ COMMITTED, READ WRITE"

_HEARD = {
    "tcp_keepalives_idle": "10",
    "tcp_keepalives_interval": "5",
    "tcp_keepalives_count": "3",
    "tcp_user_timeout": "25000",
}
"""A machine that is lost, or cut off, says no goodbye: the server ends its sessions, and with them its node's life, in
25 s. The system's defaults are two hours, or fifteen minutes where something was being sent."""

_BY_IDS = dict.fromkeys(("enable_seqscan", "enable_hashjoin", "enable_mergejoin", "jit"), "off")
"""For a session whose statements find few rows by their ids. A plan is kept: one that was made while the books were
empty would read all of them at every commit, until the server looks at its tables again."""

_Statement = tuple[bytes, Any]


class Postgres:
    """The `Engine` of one database. Raises psycopg.ProgrammingError where the URL cannot be read."""

    sql = load("postgres.sql", value=r"%(\1)s", value_of_row="%s")
    errors: tuple[type[Exception], ...] = (psycopg.Error,)
    unavailable: tuple[type[Exception], ...] = (psycopg.OperationalError, psycopg.InterfaceError)
    conflicting: tuple[type[Exception], ...] = (psycopg.IntegrityError,)
    refusing: tuple[type[Exception], ...] = (psycopg.IntegrityError, psycopg.DataError)
    renewed_within_seconds = 15.0

    def __init__(self, url: str, busy_seconds: float = BUSY_SECONDS, answer_seconds: float = ANSWER_SECONDS) -> None:
        given = conninfo_to_dict(url)
        hosts = 1 + str(given.get("hostaddr") or given.get("host") or "").count(",")
        # A server that was the primary may be a standby today, and still be named first.
        is_any_good = hosts == 1 or "target_session_attrs" in given or "PGTARGETSESSIONATTRS" in environ
        self._parameters: dict[str, Any] = {
            "fallback_application_name": "farebox",
            **({} if is_any_good else {"target_session_attrs": "primary"}),
            **given,
            "client_encoding": "UTF8",
            "connect_timeout": max(CONNECT_SECONDS // hosts, CONNECT_SECONDS_MIN),
        }
        self._busy_seconds = busy_seconds
        self.answer_seconds = answer_seconds

    def said(self, error: Exception) -> str:
        primary = error.diag.message_primary if isinstance(error, psycopg.Error) else None
        return primary or " ".join(str(error).split())

    def as_it_is(self) -> _Connection:
        """A session of which nothing is set. Raises psycopg.Error."""
        connection = _Connection.connect("", autocommit=True, **self._parameters)
        connection.silent_seconds = SILENT_PART * self.answer_seconds
        return connection

    def _begin_session(self, *, ends_what_waits: bool = True, finds_by_ids: bool = False) -> _Connection:
        """A session with all set that the books rest on, whatever its role, its database or its server has set; in one
        round trip. Whatever the URL's `options` set beside it stays."""
        milliseconds = int(self._busy_seconds * 1000) if ends_what_waits else 0
        settings = {
            "default_transaction_isolation": "read committed",
            "default_transaction_read_only": "off",
            "synchronous_commit": "on",
            "lock_timeout": str(milliseconds),
            # The server gives up soon after nobody waits any more.
            "statement_timeout": str(int(self.answer_seconds * 1000) if ends_what_waits else 0),
            "transaction_timeout": "0",
            "idle_in_transaction_session_timeout": str(6 * milliseconds),
            "idle_session_timeout": "0",
            **_HEARD,
            **(_BY_IDS if finds_by_ids else {}),
        }
        connection = self.as_it_is()
        try:
            connection.execute(_SET, (list(settings), list(settings.values())))
        except BaseException:
            connection.close()
            raise
        return connection

    def connect(self) -> "PostgresDb":
        return PostgresDb(self._begin_session)

    def connect_to_write(self) -> "PostgresDb":
        return PostgresDb(lambda: self._begin_session(finds_by_ids=True), saves_trips=True)

    def version(self, db: Db) -> None:
        """Other nodes write all the time; what is changed is locked, and read with that."""

    def to_migrate(self) -> psycopg.Connection[Any]:
        """A session that waits for as long as it takes, and begins its transactions by itself."""
        connection = self._begin_session(ends_what_waits=False)
        connection.autocommit = False
        connection.silent_seconds = MIGRATION_SECONDS
        return connection

    @contextmanager
    def transaction(self, db: Db) -> Iterator[Db]:
        """READ COMMITTED, and what a command changes is locked before it is read: holds, then balances, each in the
        order of their ids, so that no two nodes wait for each other."""
        assert isinstance(db, PostgresDb)
        db.begin(_BEGIN)
        try:
            yield db
            db.ensure_begun()
        except BaseException:
            with suppress(*self.errors):
                db.roll_back()
            raise
        try:
            db.commit()
        except self.errors as error:
            if _was_answered(db.raw):
                # The server's own words: it was undone.
                with suppress(*self.errors):
                    db.roll_back()
                raise
            db.raw.close()
            raise _CommitInDoubt(str(error)) from error

    @contextmanager
    def snapshot(self, db: Db) -> Iterator[Reader]:
        assert isinstance(db, PostgresDb)
        db.begin(b"BEGIN ISOLATION LEVEL REPEATABLE READ READ ONLY")
        streaming = _Streaming(db)
        try:
            yield streaming
        finally:
            streaming.finish()

    def live(self, worker: str) -> "_Session":
        return _Session(self._begin_session, worker)

    def is_gone(self, db: Db, worker: str) -> bool:
        # Got for the length of this statement, if nobody holds it.
        return bool(db.execute("SELECT pg_try_advisory_xact_lock(%s)", (_number(worker),)).fetchone()[0])

    def notices(self) -> "_Notices":
        return _Notices(self._begin_session)

    def forget(self, workers: list[str]) -> None:
        """Nothing is left of them."""


class PostgresDb:
    """A connection that is made anew where it has broken, before the next statement or transaction."""

    def __init__(self, connect: Connect, *, saves_trips: bool = False) -> None:
        """`saves_trips`: a transaction begins with the first that is asked in it."""
        self._connect = connect
        self._saves_trips = saves_trips
        self.raw = connect()
        self._is_within = False
        self._begin: bytes | None = None
        self._put: list[tuple[bytes, Sequence[Any]]] = []

    def begin(self, statement: bytes) -> None:
        self._begin, self._is_within = statement, True
        if not self._saves_trips:
            self.ensure_begun()

    def ensure_begun(self) -> None:
        if self._begin is not None:
            self._trip([])

    def commit(self) -> None:
        """Write what was put, and end the transaction, in one trip."""
        statements = [(statement, row) for statement, rows in self._put for row in rows]
        self._end()
        _in_one_trip(self.raw, [*statements, (b"COMMIT", None)])

    def roll_back(self) -> None:
        has_begun = self._begin is None
        self._end()
        if has_begun and self.raw.info.transaction_status != TransactionStatus.IDLE:
            self.raw.execute(b"ROLLBACK")

    def _end(self) -> None:
        self._begin, self._is_within, self._put = None, False, []

    def execute(self, statement: str, given: Any = (), /) -> Rows:
        # Within a transaction a connection that broke has taken along what was written before.
        if self._is_within and self._begin is None:
            return self.raw.execute(statement.encode(), given or None)
        return self._trip([(statement.encode(), given or None)])[0]

    def read(self, questions: Sequence[Question], /) -> list[list[Any]]:
        return [found.fetchall() for found in self._trip([(asked.encode(), given) for asked, given in questions])]

    def put_rows(self, statement: str, rows: Sequence[Any], /) -> None:
        if rows:
            columns = _columns(statement)
            objects = [dict(zip(columns, row, strict=True)) for row in rows]
            self._put.append((statement.encode(), [(_encode(objects).decode(),)]))

    def put_each(self, statement: str, rows: Sequence[Any], /, *, may_miss: bool = False) -> None:
        self._put.append((statement.encode(), rows))

    def _trip(self, statements: list[_Statement]) -> list[psycopg.Cursor[Any]]:
        """Carry out statements. Where they begin something, a connection that broke meanwhile shows it here, and
        nothing is lost yet: it is made anew."""
        begin, self._begin = self._begin, None
        if self._is_within and begin is None:
            return _in_one_trip(self.raw, statements)
        all_of_it = statements if begin is None else [(begin, None), *statements]
        try:
            found = _in_one_trip(self.raw, all_of_it)
        except Postgres.errors as error:
            is_refused = self.raw.info.transaction_status == TransactionStatus.IDLE
            if begin is not None and is_refused and isinstance(error, psycopg.NotSupportedError):
                # A standby. The next transaction connects anew, and may find the primary.
                self.raw.close()
                raise _ReadOnly(f"the server may only be read: {' '.join(str(error).split())}") from error
            if _was_answered(self.raw) or isinstance(error, _Silent):
                raise
            self.raw.close()
            self.raw = self._connect()
            found = _in_one_trip(self.raw, all_of_it)
        return found if begin is None else found[1:]

    def executemany(self, statement: str, given: Iterable[Any], /) -> object:
        rows = list(given)
        if rows:
            self.ensure_begun()
            self.raw.cursor().executemany(statement.encode(), rows)
        return None

    def close(self) -> None:
        self.raw.close()


_encode = msgspec.json.Encoder().encode
_COLUMNS = re.compile(r" AS \w+ \(([^)]*)\)")


@cache
def _columns(statement: str) -> tuple[str, ...]:
    """The names that the members of a statement's JSON objects have, in the order of its rows' values."""
    found = _COLUMNS.search(statement)
    assert found, statement
    return tuple(column.split()[0] for column in found[1].split(","))


def _in_one_trip(raw: _Connection, statements: list[_Statement]) -> list[psycopg.Cursor[Any]]:
    """Carry out statements; after one that fails, none. Raises what the first that failed says."""
    if len(statements) == 1:
        return [raw.execute(*statements[0])]
    cursors: list[psycopg.Cursor[Any]] = []
    failure: psycopg.Error | None = None
    try:
        with raw.pipeline():
            try:
                cursors += [raw.execute(statement, given) for statement, given in statements]
            except psycopg.Error as error:
                failure = error
    except psycopg.Error as error:
        failure = failure or error
    while isinstance(failure, psycopg.errors.PipelineAborted) and isinstance(failure.__context__, psycopg.Error):
        # Of one that was left out. What the first said was raised before.
        failure = failure.__context__
    if failure is not None:
        raw.forget_prepared()
        raise failure
    return cursors


def _was_answered(raw: _Connection) -> bool:
    """Whether the server has said how the last trip ended, as it does after each error but one that ends the session.
    Such a one comes before the connection is seen to close, and what went before it may have been carried out."""
    return raw.info.transaction_status not in (TransactionStatus.ACTIVE, TransactionStatus.UNKNOWN)


class _Streaming:
    """A snapshot's rows, some thousands at a time: there may be more than memory holds."""

    def __init__(self, db: PostgresDb) -> None:
        self._db = db
        self._cursors: list[psycopg.ServerCursor[Any]] = []

    def execute(self, statement: str, given: Any = (), /) -> Rows:
        cursor = self._db.raw.cursor(name=f"snapshot_{len(self._cursors)}")
        cursor.itersize = SNAPSHOT_ROWS
        self._cursors.append(cursor)
        return cursor.execute(statement.encode(), given or None)

    def finish(self) -> None:
        with suppress(*Postgres.errors):
            for cursor in self._cursors:
                cursor.close()


class _Session:
    """A worker's lock, held by a session of its own: the server lets it go when the session ends, and that ends with
    the process, or when the server itself restarts; then it is taken again."""

    def __init__(self, connect: Connect, worker: str) -> None:
        self._connect = connect
        self._number = _number(worker)
        self._lock = threading.Lock()
        self._connection = self._take()

    def _take(self) -> _Connection:
        connection = self._connect()
        connection.execute("SELECT pg_advisory_lock(%s)", (self._number,))
        return connection

    def renew(self) -> None:
        with self._lock:
            with suppress(*Postgres.errors):
                self._connection.execute("SELECT 1")
                return
            self._connection.close()
            self._connection = self._take()

    def release(self) -> None:
        with self._lock:
            self._connection.close()


class _Notices:
    """A session that listens. What was told while it was away is found by who asks after each wait."""

    def __init__(self, connect: Connect) -> None:
        self._connect = connect
        self._connection: _Connection | None = None

    def wait(self, seconds: float) -> None:
        try:
            if self._connection is None:
                self._connection = self._connect()
                self._connection.execute("LISTEN farebox_directory")
            for _ in self._connection.notifies(timeout=seconds, stop_after=1):
                pass
        except Postgres.errors:
            self.close()
            time.sleep(seconds)

    def close(self) -> None:
        if self._connection is not None:
            self._connection.close()
            self._connection = None


def _number(worker: str) -> int:
    """A worker's name as the number that advisory locks have."""
    return int.from_bytes(sha256(worker.encode()).digest()[:8], "big", signed=True)
