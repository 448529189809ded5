"""PostgreSQL as others run it: what roles and databases set, poolers, rights, encodings, standbys, and every error."""

import json
import signal
import threading
import time
from collections import Counter
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any

import psycopg
import pytest

from farebox.store.postgres import Postgres
from farebox.store.prepare import UnusableBooks, schema_of, shown
from tests.gateway import Gateway, eventually
from tests.poolers import behind, pgbouncer
from tests.served.test_crash_points import charged
from tests.served.test_postgres import _fares, farebox, node
from tools.postgres import Cluster, find


def as_role(url: str, role: str) -> str:
    return url.replace("farebox@", f"{role}@")


def run(url: str, *statements: str) -> None:
    with psycopg.connect(url, autocommit=True) as db:
        for statement in statements:
            db.execute(statement.encode())


def shows(session: "psycopg.Connection[Any]", name: str) -> str:
    (value,) = session.execute(f"SHOW {name}".encode()).fetchone() or ("",)
    return str(value)


# What the role and the database set

HOSTILE = {
    "default_transaction_isolation": "serializable",
    "default_transaction_read_only": "on",
    "synchronous_commit": "off",
    "lock_timeout": "1ms",
    "statement_timeout": "50ms",
    "idle_session_timeout": "1s",
    "idle_in_transaction_session_timeout": "10ms",
    "tcp_keepalives_idle": "7200",
    "tcp_user_timeout": "0",
    "client_encoding": "latin1",
}
OURS = {
    "transaction_isolation": "read committed",
    "transaction_read_only": "off",
    "synchronous_commit": "on",
    "lock_timeout": "8s",
    "statement_timeout": "10s",
    "idle_session_timeout": "0",
    "idle_in_transaction_session_timeout": "48s",
    # Of a machine that is lost, its sessions end within half a minute.
    "tcp_keepalives_idle": "10",
    "tcp_keepalives_interval": "5",
    "tcp_keepalives_count": "3",
    "tcp_user_timeout": "25000",
    "client_encoding": "UTF8",
}


def test_what_a_role_sets_changes_nothing(tmp_path: Path, postgres: Cluster) -> None:
    plain = postgres.new_database()
    url = as_role(plain, "hostile")
    run(
        postgres.url("postgres"),
        "CREATE ROLE hostile LOGIN SUPERUSER",
        *(f"ALTER ROLE hostile SET {name} = '{value}'" for name, value in HOSTILE.items()),
    )
    # Not in a transaction: it would be ended for being idle within moments.
    with psycopg.connect(url, autocommit=True) as db:
        assert db.execute("SHOW synchronous_commit").fetchone() == ("off",)
    with node(tmp_path, url, "--workers", "2") as gateway:
        for session in (Postgres(url).connect().raw, Postgres(url).live("a")._connection):
            assert {name: shows(session, name) for name in OURS} == OURS
            session.close()
        key = gateway.new_key("Zoë 語 🚕", "--plan", "paying", "--prepaid", "1")
        began = _sessions(plain)
        with ThreadPoolExecutor(8) as pool:
            assert Counter(pool.map(lambda _: gateway.chat(key).status, range(120))) == {200: 120}
        time.sleep(1.2)
        assert began <= _sessions(plain), "none was ended for being idle"
        assert gateway.chat(key).status == 200
        assert gateway.audit()["orders"]["posted"] == 121
        assert [each["name"] for each in gateway.cli("account", "list")][-1] == "Zoë 語 🚕"


def _sessions(url: str) -> set[int]:
    """Those of the server: it has what it needs open all the time."""
    with psycopg.connect(url) as db:
        asked = "SELECT pid FROM pg_stat_activity WHERE datname = current_database() AND pid != pg_backend_pid()"
        return {row[0] for row in db.execute(asked)}


def test_what_is_more_durable_than_needed_stays(postgres: Cluster) -> None:
    url = postgres.new_database()
    given = f"{url}?options=-csynchronous_commit%3Dremote_apply&application_name=books"
    with Postgres(given).connect().raw as session:
        assert shows(session, "synchronous_commit") == "remote_apply"
        assert shows(session, "application_name") == "books"


def test_the_urls_options_are_kept(tmp_path: Path, postgres: Cluster) -> None:
    """Also by what makes the schema; and the other name of the scheme is as good."""
    url = postgres.new_database()
    run(url, "CREATE SCHEMA fares", "CREATE TABLE public.customer (id int)")
    within = url.replace("postgresql://", "postgres://") + "?options=-csearch_path%3Dfares%20-cwork_mem%3D5MB"
    with node(tmp_path, within) as gateway:
        assert gateway.chat().status == 200
        gateway.audit()
    with psycopg.connect(url) as db:
        found: dict[str, int] = dict(db.execute("SELECT schemaname, count(*) FROM pg_tables GROUP BY 1").fetchall())
        assert (found["public"], found["fares"] > 10) == (1, True)
    with Postgres(within).connect().raw as session:
        assert shows(session, "work_mem") == "5MB"


def test_no_connections_prepared_statements_have_anothers_names(postgres: Cluster) -> None:
    """Nor the driver's own names: a session that is another's answers that it knows no such statement."""
    engine = Postgres(postgres.new_database())
    names: set[str] = set()
    for _ in range(2):
        with engine.connect().raw as session:
            for _ in range(7):
                session.execute("SELECT 1")
            names.update(row[0] for row in session.execute("SELECT name FROM pg_prepared_statements"))
    assert len(names) == 2
    assert all(len(name) > 20 for name in names)


# Poolers


def test_behind_a_pooler_of_sessions_it_serves(tmp_path: Path, postgres: Cluster, upstream: int) -> None:
    known = charged(upstream)
    settings = {"FAREBOX_UPSTREAM_URL": f"http://127.0.0.1:{upstream}/api/v1", "OPENROUTER_API_KEY": "sk-or-x"}
    with pgbouncer(postgres, "session") as port:
        url = behind(postgres, port, postgres.new_books())
        with node(tmp_path / "one", url, **settings) as one, node(tmp_path / "two", url, **settings) as two:
            key = one.new_key("a caller", "--plan", "paying", "--prepaid", "1")
            with ThreadPoolExecutor(8) as pool:
                asked = pool.map(lambda n: (one, two)[n % 2].chat(key, stream=n % 3 == 0).status, range(60))
                assert Counter(asked) == {200: 60}
            key_id = one.cli("key", "list", "a caller")[0]["id"]
            one.cli("key", "revoke", str(key_id))
            bearer = {"authorization": f"Bearer {key}"}
            eventually(lambda: two.request("GET", "/v1/key", headers=bearer).status == 401, 2)
        assert set(_fares(one)) == set(charged(upstream)) - set(known)
        assert one.audit()["orders"]["posted"] == 60


@pytest.mark.parametrize(
    ("mode", "more"),
    [("transaction", ""), ("transaction", "server_round_robin = 1"), ("statement", "server_round_robin = 1")],
)
def test_behind_a_pooler_of_transactions_it_does_not_start(
    tmp_path: Path, postgres: Cluster, mode: str, more: str
) -> None:
    url = postgres.new_books()
    with pgbouncer(postgres, mode, more) as port:
        pooled = behind(postgres, port, url)
        _fill(pooled)
        for _ in range(5):
            with pytest.raises(UnusableBooks, match="set `pool_mode = session` for this database in the pooler"):
                schema_of(pooled)
        done = farebox(tmp_path, "serve", "--port", "0", FAREBOX_DATABASE_URL=pooled)
    assert (done.returncode, done.stderr.count("\n"), "Traceback" in done.stderr) == (1, 1, False), done.stderr


def _fill(pooled: str) -> None:
    """Have the pooler hold some sessions that nobody uses at the moment."""
    connections = [psycopg.connect(pooled, autocommit=True) for _ in range(3)]
    asking = [threading.Thread(target=each.execute, args=("SELECT pg_sleep(0.2)",)) for each in connections]
    for each in asking:
        each.start()
    for each in asking:
        each.join()
    for connection in connections:
        connection.close()


# Servers that do not fit


def refused(url: str, *command: str) -> str:
    """The one line that a command ends with."""
    done = farebox(Path("/"), *(command or ("db", "upgrade")), FAREBOX_DATABASE_URL=url)
    assert (done.returncode, done.stdout) == (1, ""), done
    assert done.stderr.count("\n") == 1, done.stderr
    assert done.stderr.startswith("farebox: ")
    return done.stderr


@pytest.mark.parametrize("encoding", ["SQL_ASCII", "LATIN1"])
def test_an_encoding_in_which_not_everything_can_be_said(postgres: Cluster, encoding: str) -> None:
    said = refused(postgres.new_database(encoding=encoding))
    assert f"is encoded in {encoding}, and what callers say needs UTF8: CREATE DATABASE" in said


def test_rights_that_are_missing_are_named(postgres: Cluster) -> None:
    empty, url = postgres.new_database(), postgres.new_books()
    run(postgres.url("postgres"), "CREATE ROLE poor LOGIN", "CREATE ROLE barred LOGIN")
    assert "which may make no tables in the schema public: GRANT CREATE" in refused(as_role(empty, "poor"))
    run(empty, "REVOKE ALL ON SCHEMA public FROM public")
    assert "has no schema of the search_path" in refused(as_role(empty, "poor"))
    run(url, "GRANT SELECT ON ALL TABLES IN SCHEMA public TO poor", "GRANT INSERT ON transfer TO poor")
    said = refused(as_role(url, "poor"), "serve", "--port", "0")
    assert "INSERT ON hold, UPDATE ON hold" in said
    assert "ON transfer" not in said
    assert "permission denied for table account" in refused(
        as_role(url, "poor"), "account", "create", "a", "--plan", "paying"
    )
    run(url, f"REVOKE CONNECT ON DATABASE {url.rpartition('/')[2]} FROM public")
    assert "permission denied for database" in refused(as_role(url, "barred"))
    # An older schema, by who does not own it.
    run(
        url,
        f"GRANT CONNECT ON DATABASE {url.rpartition('/')[2]} TO poor",
        "UPDATE alembic_version SET version_num='0006'",
    )
    run(url, "GRANT INSERT, UPDATE, DELETE ON ALL TABLES IN SCHEMA public TO poor")
    assert "could not be upgraded to schema" in refused(as_role(url, "poor"))


def test_as_much_as_the_statements_need_is_enough(tmp_path: Path, postgres: Cluster) -> None:
    url = postgres.new_books()
    run(
        url,
        "CREATE ROLE lean LOGIN",
        "GRANT SELECT, INSERT, UPDATE, DELETE ON ALL TABLES IN SCHEMA public TO lean",
        "REVOKE UPDATE, DELETE ON transfer FROM lean",
        "REVOKE INSERT, UPDATE, DELETE ON alembic_version FROM lean",
        "GRANT USAGE ON ALL SEQUENCES IN SCHEMA public TO lean",
    )
    with node(tmp_path, as_role(url, "lean")) as gateway:
        assert gateway.chat().status == 200
        gateway.audit()


@pytest.mark.parametrize(
    "url",
    [
        "postgresql://farebox:hunter2/slash@127.0.0.1/books",
        "postgres://farebox:hunter2@127.0.0.1:port/books",
        "postgresql://farebox@127.0.0.1:1/books?password=hunter2",
        "postgresql://farebox:hunter2@127.0.0.1:1,127.0.0.1:2/books",
        "postgresql://farebox@127.0.0.1/books?colour=hunter2",
    ],
)
def test_a_url_that_leads_nowhere_gives_no_password_away(url: str) -> None:
    said = refused(url, "audit")
    assert "hunter2" not in said.replace("colour", "")


def test_a_password_is_hidden_wherever_it_stands() -> None:
    assert shown("postgresql://a:b@h/d") == "postgresql://a:***@h/d"
    assert shown("postgres://a@h,i/d?password=b&sslpassword=c&x=y") == (
        "postgres://a@h,i/d?password=***&sslpassword=***&x=y"
    )


# A standby


class Pair:
    """A primary and the standby that its commits wait for."""

    def __init__(self, programs: Path) -> None:
        self.primary = Cluster(programs)
        self.url = self.primary.new_books()
        self.standby = Cluster(programs, self.primary)
        name = self.url.rpartition("/")[2]
        self.hosts = f"127.0.0.1:{self.primary.port},127.0.0.1:{self.standby.port}"
        self.both = f"postgresql://farebox@{self.hosts}/{name}"

    def on(self, cluster: Cluster) -> str:
        return cluster.url(self.url.rpartition("/")[2])

    def remove(self) -> None:
        self.standby.remove()
        self.primary.remove()


@pytest.fixture
def pair(postgres: Cluster) -> Iterator[Pair]:
    """(The session's server is there: PostgreSQL is installed.)"""
    programs = find()
    assert programs is not None
    pair = Pair(programs)
    yield pair
    pair.remove()


def test_a_standby_takes_over_and_orders_go_on(tmp_path: Path, pair: Pair, upstream: int) -> None:
    known = charged(upstream)
    settings = {
        "FAREBOX_UPSTREAM_URL": f"http://127.0.0.1:{upstream}/api/v1",
        "OPENROUTER_API_KEY": "sk-or-x",
        "FAREBOX_RECONCILE_SECONDS": "86400",
    }
    said = refused(pair.on(pair.standby), "serve", "--port", "0")
    assert "may only be read: it is a standby" in said
    assert json.loads(farebox(tmp_path, "audit", "--json", FAREBOX_DATABASE_URL=pair.on(pair.standby)).stdout)
    # A connection that is to a standby is given up: the next one may be to the primary.
    engine = Postgres(pair.on(pair.standby))
    astray = engine.connect()
    with pytest.raises(engine.unavailable, match="the server may only be read"), engine.transaction(astray):
        raise AssertionError
    assert astray.raw.closed
    # The standby stands first: who is the primary is found out.
    first, second = pair.hosts.split(",")
    url = pair.both.replace(pair.hosts, f"{second},{first}")
    with (
        node(tmp_path / "one", url, **settings) as one,
        node(tmp_path / "two", pair.both + "?target_session_attrs=read-write", **settings) as two,
    ):
        key = one.new_key("a caller", "--plan", "paying", "--prepaid", "5")
        statuses: Counter[int] = Counter()
        stops = threading.Event()

        def order(gateway: Gateway, *, stream: bool) -> None:
            while not stops.is_set():
                statuses[_status(gateway, key, stream=stream)] += 1

        with ThreadPoolExecutor(8) as pool:
            for number in range(8):
                pool.submit(order, (one, two)[number % 2], stream=number % 4 < 2)
            try:
                eventually(lambda: statuses[200] > 40, 30)
                pair.primary.stop(signal.SIGQUIT)
                before = statuses[200]
                time.sleep(0.5)
                pair.standby.promote()
                eventually(lambda: statuses[200] > before + 40, 40)
            finally:
                stops.set()
        # 0: a stream that was under way, and whose end had to be held back. 424: so with a whole answer.
        assert set(statuses) <= {200, 429, 424, 0}, statuses
        assert all(_status(each, key, stream=False) == 200 for each in (one, two))
        eventually(lambda: one.audit()["orders"]["pending"] == one.audit()["orders"]["open"] == 0, 60)
        assert set(_fares(one)) == set(charged(upstream)) - set(known)
        with engine.transaction(astray):
            pass
        astray.close()


def _status(gateway: Gateway, key: str, *, stream: bool) -> int:
    try:
        return gateway.chat(key, "token-ms=5,tokens=10", stream=stream).status
    except Exception:  # noqa: BLE001 - broken off, in whichever way
        return 0


# Every error


def test_whatever_the_database_says_no_order_begins(tmp_path: Path, postgres: Cluster, upstream: int) -> None:
    """One class of errors each, as the server tells it, of the first row that an order writes."""
    known = charged(upstream)
    url = postgres.new_books()
    settings = {"FAREBOX_UPSTREAM_URL": f"http://127.0.0.1:{upstream}/api/v1", "OPENROUTER_API_KEY": "sk-or-x"}
    with node(tmp_path, url, **settings) as gateway, psycopg.connect(url, autocommit=True) as db:
        key = gateway.new_key("a caller", "--plan", "paying", "--prepaid", "1")
        assert gateway.chat(key).status == 200
        db.execute("CREATE TRIGGER fails BEFORE INSERT ON hold EXECUTE FUNCTION suppress_redundant_updates_trigger()")
        for code in CODES:
            db.execute(
                "CREATE OR REPLACE FUNCTION fails() RETURNS trigger LANGUAGE plpgsql AS $$ BEGIN RAISE EXCEPTION"
                f" 'it fails so' USING ERRCODE = '{code}', DETAIL = 'a row of somebody'; END $$".encode()
            )
            db.execute("CREATE OR REPLACE TRIGGER fails BEFORE INSERT ON hold EXECUTE FUNCTION fails()")
            answer = gateway.chat(key)
            assert (answer.status, answer.headers.get("retry-after")) == (429, "5"), (code, answer.body)
            assert answer.error["message"].endswith("it fails so")
        db.execute("DROP TRIGGER fails ON hold")
        for table in ("balance", "allowance", "hold", "api_key"):
            db.execute(f"ALTER TABLE {table} RENAME TO elsewhere".encode())
            answer = gateway.chat(key if table != "api_key" else "sk-fb-unknown")
            assert (answer.status, "does not exist" in answer.error["message"]) == (429, True), (table, answer.body)
            db.execute(f"ALTER TABLE elsewhere RENAME TO {table}".encode())
        assert gateway.chat(key).status == 200
        assert len(set(charged(upstream)) - set(known)) == 2
        assert gateway.audit()["orders"] == {"pending": 0, "open": 0, "posted": 2, "voided": 0}


CODES = (
    *("0A000", "08006", "21000", "22P02", "22003", "23505", "23514", "25006", "25P02", "26000", "28000", "2D000"),
    *("40001", "40P01", "42501", "42601", "42P01", "53100", "53200", "53300", "54000", "55000", "55P03", "57014"),
    *("57P04", "58030", "72000", "F0000", "HV000", "P0001", "XX000", "XX001", "XX002"),
)
"""One of each class that PostgreSQL's list of errors has, and those that are met."""


def test_a_settlement_that_the_books_refuse_holds_up_no_other(tmp_path: Path, postgres: Cluster) -> None:
    url = postgres.new_books()
    with node(tmp_path, url) as gateway, psycopg.connect(url, autocommit=True) as db:
        key = gateway.new_key("a caller", "--plan", "paying", "--prepaid", "1")

        def refuse(when: str) -> None:
            db.execute(
                "CREATE OR REPLACE FUNCTION refuses() RETURNS trigger LANGUAGE plpgsql AS $$ BEGIN"
                f" IF NEW.kind = 'post' AND {when} THEN RAISE EXCEPTION 'no such row'; END IF;"
                " RETURN NEW; END $$".encode()
            )

        refuse("true")
        db.execute("CREATE TRIGGER refuses BEFORE INSERT ON transfer FOR EACH ROW EXECUTE FUNCTION refuses()")
        for _ in range(2):
            # It was served: no answer that a client would repeat.
            assert gateway.chat(key).error["code"] == 424
        first, second = (line["hold_id"] for line in gateway.orders("a caller"))
        refuse(f"NEW.hold_id = '{first}'")
        eventually(lambda: _states(db) == {first: "pending", second: "posted"})
        refuse("false")
        eventually(lambda: _states(db) == {first: "posted", second: "posted"})
        gateway.audit()


def _states(db: "psycopg.Connection[Any]") -> dict[str, str]:
    return dict(db.execute("SELECT id, state FROM hold").fetchall())
