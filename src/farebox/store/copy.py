"""Moving the books from a file into PostgreSQL: every row of one moment, in one transaction."""

from collections.abc import Callable
from contextlib import closing
from itertools import islice
from typing import Any

from farebox.core.audit import Audit, audit
from farebox.store.engine import COMMAND_SECONDS, Db, Engine, Reader
from farebox.store.prepare import (
    HEAD,
    UnusableBooks,
    engine_of,
    is_postgres,
    no_books,
    prepare,
    schema_of,
    shown,
    sqlite_path,
)
from farebox.store.snapshots import SqlSnapshot
from farebox.store.sqlite import Sqlite

TABLES = (
    "account api_key management_key balance allowance tariffs hold transfer day_total attributed_total secret"
    " key_use kept_answer undelivered_answer stored_response charge charged_fare run run_item"
    " run_record run_line run_charge preset_version alert_receiver alert_raised alert_delivery low_balance trail"
).split()
"""In an order in which each row finds those that it names. Left out are plans, which a node publishes itself, and what
is found out again: price lists, how upstreams stand, answers kept for the same orders again; and who is signed in to
the console."""

ROWS_AT_ONCE = 2_000

_SEQUENCES = ("account", "api_key", "management_key", "alert_receiver")
_IS_USED = "SELECT 1 FROM account WHERE id > 1 UNION ALL SELECT 1 FROM transfer LIMIT 1"


def copy(source_url: str, target_url: str, tell: Callable[[str, int], None]) -> tuple[Audit, Audit]:
    """Copy all books, and audit both; `tell` hears of each table and its rows. The target is made if need be.

    Raises:
        UnusableBooks: the source is no file of this version, or a server is on it; the target is not empty; or what
            arrived is not what left.
    """
    if is_postgres(source_url) or not is_postgres(target_url):
        raise UnusableBooks("books are copied from sqlite:///PATH to postgresql://...")
    if (found := schema_of(source_url)) is None:
        raise no_books(source_url)
    if found != HEAD:
        raise UnusableBooks(f"{source_url} has schema {found}, not {HEAD}: `farebox db upgrade` first")
    source = Sqlite(sqlite_path(source_url), answer_seconds=COMMAND_SECONDS)
    if serving := source.worker_pids():
        pids = ", ".join(map(str, sorted(serving)))
        raise UnusableBooks(
            f"{source_url} is in use (process {pids}), and what is booked while it is copied would be lost: stop the"
            " servers first, or copy a backup"
        )
    prepare(target_url)
    target = engine_of(target_url, answer_seconds=COMMAND_SECONDS)
    try:
        return _copy(source, target, target_url, tell)
    except target.errors as error:
        raise UnusableBooks(f"{shown(target_url)} cannot be written: {target.said(error)}") from error
    except source.errors as error:
        raise UnusableBooks(f"{source_url} cannot be read: {source.said(error)}") from error


def _copy(source: Engine, target: Engine, target_url: str, tell: Callable[[str, int], None]) -> tuple[Audit, Audit]:
    with (
        closing(source.connect()) as reading,
        closing(target.connect()) as writing,
        source.snapshot(reading) as old,
        target.transaction(writing) as new,
    ):
        if new.execute(_IS_USED).fetchone() is not None:
            raise UnusableBooks(f"{shown(target_url)} is in use: books are copied into an empty database")
        for table in TABLES:
            tell(table, _copy_table(old, new, table))
        (revision,) = old.execute("SELECT value FROM directory_revision").fetchone()
        new.execute("UPDATE directory_revision SET value = %s", (revision,))
        head = old.execute("SELECT entries, whole_from_us FROM trail_head").fetchone()
        new.execute("UPDATE trail_head SET entries = %s, whole_from_us = %s", head)
        for table in _SEQUENCES:
            new.execute(f"SELECT setval('{table}_id_seq', (SELECT coalesce(max(id), 1) + 1 FROM {table}), false)")
        audits = audit(SqlSnapshot(old, source.sql)), audit(SqlSnapshot(new, target.sql))
        if audits[0] != audits[1]:
            raise UnusableBooks(f"what arrived in {shown(target_url)} is not what left; nothing was copied")
        return audits


def _copy_table(old: Reader, new: Db, table: str) -> int:
    columns = old.execute("SELECT name, type = 'BOOLEAN' FROM pragma_table_info(?)", (table,)).fetchall()
    names, marks = ", ".join(name for name, _ in columns), ", ".join("%s" for _ in columns)
    # SQLite has them as numbers.
    booleans = [place for place, (_, is_boolean) in enumerate(columns) if is_boolean]
    own = " WHERE id > 1" if table == "account" else ""
    rows = iter(old.execute(f"SELECT {names} FROM {table}{own}"))
    copied = 0
    while batch := [_turned(row, booleans) for row in islice(rows, ROWS_AT_ONCE)]:
        new.executemany(f"INSERT INTO {table} ({names}) VALUES ({marks})", batch)
        copied += len(batch)
    return copied


def _turned(row: Any, booleans: list[int]) -> tuple[Any, ...]:
    return tuple(bool(value) if place in booleans else value for place, value in enumerate(row))
