"""A database engine, as far as the stores must know which it is: its statements, how to connect, to write all or
nothing, and to tell whether another process is alive."""

from collections.abc import Iterable, Iterator, Sequence
from contextlib import AbstractContextManager
from typing import Any, Protocol

from farebox.store.sql import Statements

BUSY_SECONDS = 8.0
"""How long a write waits for another process's transaction before the books count as unavailable."""

ANSWER_SECONDS = 10.0
"""How long a server waits for its books: an order for its hold, a caller for what stands there. Longer than a write
waits for another's, so that the database's own words are told where it has some; shorter than clients wait."""

COMMAND_SECONDS = 600.0
"""The same for a command, which may go through all rows that there are."""

SILENT_PART = 0.9
"""Of that time, how much of it a database may be silent over one statement. Its connection is broken off then, so that
the thread that waits is free again before those who wait for it have gone."""


class InDoubt(Exception):  # noqa: N818 - the word of the field
    """A transaction's end was asked for, and whether it ended so is not known."""


class Rows(Protocol):
    """What a statement found."""

    @property
    def rowcount(self) -> int: ...

    def fetchone(self) -> Any: ...

    def fetchall(self) -> list[Any]: ...

    def __iter__(self) -> Iterator[Any]: ...


class Reader(Protocol):
    """What reads rows: for one thread at a time."""

    def execute(self, statement: str, given: Any = (), /) -> Rows: ...


Question = tuple[str, Any]
"""A statement that reads, and the values that it is given."""


class Db(Reader, Protocol):
    """A connection: for one thread at a time. Each statement outside a transaction is one of its own."""

    def executemany(self, statement: str, given: Iterable[Any], /) -> object: ...

    def read(self, questions: Sequence[Question], /) -> list[list[Any]]:
        """Within a transaction: what each of them finds, in their order; on a server in one trip."""

    def put_rows(self, statement: str, rows: Sequence[Any], /) -> None:
        """Within a transaction: write rows by a statement marked `(rows)`. On a server all that is put goes with the
        transaction's end, in one trip."""

    def put_each(self, statement: str, rows: Sequence[Any], /, *, may_miss: bool = False) -> None:
        """The same by a statement marked `(row)`. Each finds its row, but where it `may_miss`."""

    def close(self) -> None: ...


class Life(Protocol):
    """A worker is alive as long as this is held, which ends with its process however that ends."""

    def renew(self) -> None:
        """Hold it again, where the database has let it go by itself."""

    def release(self) -> None: ...


class Notices(Protocol):
    """What the database tells of by itself. For one thread."""

    def wait(self, seconds: float) -> None:
        """Return when an account, a key, their limits or the plans have changed, or after so long."""

    def close(self) -> None: ...


class Engine(Protocol):
    """Where the books are."""

    sql: Statements
    """As this engine's connections take them."""

    answer_seconds: float
    """How long who uses the books waits for an answer."""

    renewed_within_seconds: float
    """How long a worker that lives may seem gone, its `Life` lost with the database and not yet renewed."""

    errors: tuple[type[Exception], ...]
    """All that is raised when a statement fails, for whatever reason."""

    unavailable: tuple[type[Exception], ...]
    """Of these, what is raised when the books cannot be used now: no other statement fares better."""

    conflicting: tuple[type[Exception], ...]
    """And what is raised when a row cannot be, beside another."""
    refusing: tuple[type[Exception], ...]
    """What the same rows would meet again: the schema does not take them."""

    def said(self, error: Exception) -> str:
        """One of these errors as a sentence may quote it."""

    def connect(self) -> Db: ...

    def connect_to_write(self) -> Db:
        """As `connect`, for the statements of a group commit: each finds its rows by their ids."""

    def transaction(self, db: Db) -> AbstractContextManager[Db]:
        """Write, all of it or nothing."""

    def version(self, db: Db) -> int | None:
        """Within a transaction: a number that is the same as in this connection's last one as long as no other
        connection has written since. None where that cannot be told: what is changed must be read then."""

    def snapshot(self, db: Db) -> AbstractContextManager[Reader]:
        """Read rows of one moment."""

    def live(self, worker: str) -> Life:
        """Be alive under a name."""

    def is_gone(self, db: Db, worker: str) -> bool:
        """Whether a worker has died, however."""

    def notices(self) -> Notices | None:
        """None where the database tells nothing, and must be asked."""

    def forget(self, workers: list[str]) -> None:
        """Workers that have gone will not be asked about again."""
