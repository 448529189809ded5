"""Whether a PostgreSQL can carry the books: what a start looks at, each refusal a sentence that says what to do."""

import re
from contextlib import closing
from secrets import token_hex
from typing import Any

import psycopg

from farebox.store.engine import Db, Engine
from farebox.store.postgres import CONNECT_SECONDS, Postgres

VERSION_MIN = 120_000
"""Version 12, as the server says it."""

_POOLER = (
    "is reached through a pooler that hands a session from client to client between two transactions (transaction or"
    " statement pooling), and the books need sessions of their own: set `pool_mode = session` for this database in the"
    " pooler, or name PostgreSQL itself"
)
_READ_ONLY = (
    "may only be read: it is a standby. Name the primary; of several hosts, `target_session_attrs=primary` finds it"
)

_SERVER = (
    "SELECT current_setting('server_version_num')::int, current_setting('server_encoding'), pg_is_in_recovery(),"
    " current_user, current_schema(), current_setting('search_path'),"
    " coalesce(has_schema_privilege(current_schema(), 'CREATE'), false)"
)
_TABLES = "SELECT tablename FROM pg_tables WHERE schemaname = current_schema()"
_MISSING = (
    "SELECT wanted.name, wanted.privilege FROM unnest(%s::text[], %s::text[]) AS wanted (name, privilege)"
    " JOIN pg_tables ON schemaname = current_schema() AND tablename = wanted.name"
    " WHERE NOT has_table_privilege(quote_ident(schemaname) || '.' || quote_ident(tablename), wanted.privilege)"
    " ORDER BY 1, 2"
)
_CHANGES = re.compile(r"\b(INSERT)\s+INTO\s+(\w+)|\b(UPDATE)\s+(\w+)\s+SET\b|\b(DELETE)\s+FROM\s+(\w+)")

_BEGIN = "BEGIN; SET LOCAL idle_in_transaction_session_timeout = 0; SET LOCAL statement_timeout = 0"
"""Whatever a role's limits are: the sessions that are looked at must last, and nothing may stay set in them."""


class Unfit(Exception):  # noqa: N818 - the word of the house
    """Why a server cannot carry the books: what follows its name in a sentence."""


def examine(engine: Engine, *, to_write: bool) -> frozenset[str]:
    """The tables that are where the books belong; `to_write`: by who will change them, or make them.

    Raises:
        Unfit: the books cannot be there.
        psycopg.Error: the server cannot be asked.
    """
    assert isinstance(engine, Postgres)
    if is_shared(engine):
        raise Unfit(_POOLER)
    with closing(engine.connect()) as db:
        version, encoding, is_standby, role, schema, search_path, may_create = db.execute(_SERVER).fetchone()
        if version < VERSION_MIN:
            raise Unfit("is a PostgreSQL older than version 12")
        if encoding != "UTF8":
            raise Unfit(
                f"is encoded in {encoding}, and what callers say needs UTF8: CREATE DATABASE ... ENCODING 'UTF8'"
                " TEMPLATE template0"
            )
        if schema is None:
            raise Unfit(f"has no schema of the search_path ({search_path}) that the role {role} may use")
        if to_write and is_standby:
            raise Unfit(_READ_ONLY)
        tables = frozenset(row[0] for row in db.execute(_TABLES))
        if to_write and not tables and not may_create:
            raise Unfit(
                f"is not open to the role {role}, which may make no tables in the schema {schema}:"
                f" GRANT CREATE ON SCHEMA {schema} TO {role}"
            )
        if to_write and (missing := _missing(db)):
            raise Unfit(f"is not open to the role {role}, which lacks rights: {missing}")
    return tables


def _missing(db: Db) -> str:
    """What the statements do to tables that are there, and the role may not."""
    wanted = {("SELECT", "alembic_version")}
    for statement in vars(Postgres.sql).values():
        for found in _CHANGES.finditer(statement):
            privilege, table = (part for part in found.groups() if part)
            wanted |= {(privilege, table), ("SELECT", table)}
            if "DO UPDATE" in statement:
                wanted.add(("UPDATE", table))
    names = [table for _, table in wanted], [privilege for privilege, _ in wanted]
    return ", ".join(f"{privilege} ON {table}" for table, privilege in db.execute(_MISSING, names))


def is_shared(engine: Postgres) -> bool:
    """Whether what is between here and the server hands a session to others between two transactions.

    Nothing is set in these sessions: they may be others' the next moment.
    """
    with closing(engine.as_it_is()) as one, closing(engine.as_it_is()) as other:
        own, others = _session(one), _session(other)
        if own == others:
            return True
        # A pooler that few use gives the same session back again and again. So both hold one at a time, and let go in
        # either order: who comes next gets the other's, whether the pooler hands out what came back last or first.
        for first, last in ((one, other), (other, one), (one, other)):
            try:
                one.execute(_BEGIN)
                other.execute(_BEGIN)
            except psycopg.errors.ProtocolViolation:
                return True  # what a pooler of statements says to that, and no server does
            if (_session(one), _session(other)) != (own, others):
                return True
            first.execute("COMMIT")
            last.execute("COMMIT")
        if _is_standby(one):
            return False
        # A pooler that remembers whose a session was is found out so: between two transactions nobody listens.
        channel = f"farebox_{token_hex(8)}"
        one.execute(f"LISTEN {channel}".encode())
        other.execute("SELECT pg_notify(%s, %s)", (channel, ""))
        return not any(True for _ in one.notifies(timeout=CONNECT_SECONDS, stop_after=1))


def _session(connection: psycopg.Connection[Any]) -> int:
    """The server's process that does a connection's work at the moment."""
    row = connection.execute("SELECT pg_backend_pid()").fetchone()
    assert row is not None
    return int(row[0])


def _is_standby(connection: psycopg.Connection[Any]) -> bool:
    row = connection.execute("SELECT pg_is_in_recovery()").fetchone()
    assert row is not None
    return bool(row[0])
