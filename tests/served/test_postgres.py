"""The books in PostgreSQL: several nodes on one database, their deaths, and the database's own."""

import http.client
import json
import signal
import socket
import subprocess
import sys
import threading
import time
from collections import Counter
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import ExitStack, suppress
from functools import partial
from math import inf
from pathlib import Path

import psycopg
import pytest

from tests.gateway import Gateway, eventually
from tests.served.test_crash_points import charged
from tests.served.test_formats import ORDERS, error_type, order
from tests.served.test_runs import ask, begin, items_of, output
from tests.upstreams import HttpUpstream
from tools.postgres import Cluster, find

CHAT = {"model": "sim/echo", "messages": [{"role": "user", "content": "Hello"}], "max_tokens": 20}


@pytest.fixture
def books(postgres: Cluster) -> str:
    return postgres.new_books()


def node(folder: Path, books: str, *arguments: str, **environment: str) -> Gateway:
    folder.mkdir(exist_ok=True)
    return Gateway(folder, *arguments, FAREBOX_DATABASE_URL=books, **environment)


def test_a_gateway_serves_on_it_as_on_a_file(tmp_path: Path, postgres: Cluster) -> None:
    with node(tmp_path, postgres.new_database(), "--workers", "2") as gateway:
        assert gateway.key, "a first start makes the schema, and the demo account"
        for _ in range(4):
            assert gateway.chat().status == 200
        assert gateway.chat(stream=True).status == 200
        run = begin(gateway, gateway.key, {"requests": [CHAT, "nonsense"]})
        assert [item["status"] for item in items_of(gateway, gateway.key, run)] == [200, 400]
        assert output(gateway, gateway.key, run)["fareEvents"] == 1
        within = "status=SUCCEEDED,FAILED&startedAfter=2020-01-01&startedBefore=2999-01-01&desc=1"
        for query, ids in ((within, [run["id"]]), ("status=ABORTED", []), ("startedBefore=2020-01-01", [])):
            page = ask(gateway, gateway.key, f"/v2/actor-runs?{query}").json["data"]
            assert ([each["id"] for each in page["items"]], page["total"]) == (ids, len(ids))
        assert ask(gateway, gateway.key, "/v2/acts/openrouter/runs/last?origin=API").json["data"]["id"] == run["id"]
        assert ask(gateway, gateway.key, f"/v2/request-queues/{run['defaultRequestQueueId']}").status == 200
        headers = {"authorization": f"Bearer {gateway.key}", "idempotency-key": "k", "content-type": "application/json"}
        answers = [gateway.request("POST", "/v1/chat/completions", CHAT, headers) for _ in range(2)]
        assert answers[0].body == answers[1].body
        assert len(gateway.orders()) == 7
        found = gateway.audit()
        assert (found["fares_usd"], found["orders"]["posted"]) == ("0.00007", 7)
        generation = gateway.orders()[0]["generation_id"]
        bearer = {"authorization": f"Bearer {gateway.key}"}
        assert gateway.request("GET", f"/api/v1/generation?id={generation}", headers=bearer).status == 200
        assert gateway.request("GET", "/metrics").status == 200


@pytest.fixture
def nodes(tmp_path: Path, books: str, upstream: int) -> Iterator[list[Gateway]]:
    settings = {
        "FAREBOX_UPSTREAM_URL": f"http://127.0.0.1:{upstream}/api/v1",
        "OPENROUTER_API_KEY": "sk-or-x",
        "FAREBOX_RECONCILE_SECONDS": "86400",
    }
    with ExitStack() as stack:
        yield [stack.enter_context(node(tmp_path / f"node-{number}", books, **settings)) for number in range(3)]


def test_each_node_knows_what_another_did(nodes: list[Gateway]) -> None:
    key = nodes[0].new_key("everywhere", "--plan", "paying", "--prepaid", "1")
    answer = nodes[0].chat(key)
    bearer = {"authorization": f"Bearer {key}"}
    generation = f"/api/v1/generation?id={answer.json['id']}"
    run = begin(nodes[0], key, {"requests": [CHAT]})
    for other in nodes[1:]:
        assert other.chat(key).status == 200
        eventually(partial(_is_answered, other, generation, bearer))
        assert [item["status"] for item in items_of(other, key, run)] == [200]
    key_id = nodes[0].cli("key", "list", "everywhere")[0]["id"]
    nodes[1].cli("key", "revoke", str(key_id))
    for each in nodes:
        eventually(partial(_is_refused, each, key), 2)
    assert ask(nodes[2], key, f"/v2/actor-runs/{run['id']}").status == 401


def _is_answered(gateway: Gateway, path: str, headers: dict[str, str]) -> bool:
    return gateway.request("GET", path, headers=headers).status == 200


def _is_refused(gateway: Gateway, key: str) -> bool:
    return gateway.chat(key).status == 401


def test_a_nodes_death_leaves_nothing_open(nodes: list[Gateway], upstream: int) -> None:
    known = charged(upstream)
    key = nodes[0].new_key("a caller", "--plan", "paying", "--prepaid", "1")
    with ThreadPoolExecutor(8) as pool:
        for _ in range(8):
            pool.submit(_try, nodes[0], key)
        time.sleep(1)
        nodes[0].kill()
    assert nodes[1].chat(key).status == 200
    eventually(lambda: nodes[1].audit()["orders"]["pending"] == 0, 20)
    eventually(lambda: len(_fares(nodes[1])) == len(charged(upstream)) - len(known), 30)
    assert set(_fares(nodes[1])) == set(charged(upstream)) - set(known)


def test_an_order_in_the_background_outlives_the_session_that_tells_of_its_node(
    nodes: list[Gateway], books: str
) -> None:
    """Another node is asked for it before its own has taken up the lock again, and again when its own has died."""
    key = nodes[0].new_key("a caller", "--plan", "paying", "--prepaid", "1")
    headers = {"authorization": f"Bearer {key}", "content-type": "application/json"}

    def begin(tokens: int) -> str:
        slow = {**headers, "x-openrouter-simulate": f"token-ms=100,tokens={tokens}"}
        asked = {"model": "sim/echo", "input": "Hello", "background": True}
        return str(nodes[0].request("POST", "/v1/responses", asked, slow).json["id"])

    def status(response: str) -> str:
        return str(nodes[1].request("GET", f"/v1/responses/{response}", headers=headers).json["status"])

    response = begin(30)
    with psycopg.connect(books, autocommit=True) as db:
        locks = "SELECT count(pg_terminate_backend(pid)) FROM pg_locks WHERE locktype = 'advisory' AND objsubid = 1"
        assert db.execute(locks).fetchone() == (3,)
    assert status(response) == "in_progress"
    eventually(lambda: status(response) == "completed")
    response = begin(600)
    eventually(lambda: nodes[1].audit()["orders"]["pending"] == 1)
    nodes[0].kill()
    eventually(lambda: status(response) == "failed", 40)


def _try(gateway: Gateway, key: str, simulate: str = "token-ms=200,tokens=20") -> int | None:
    with suppress(OSError, http.client.HTTPException):
        return gateway.chat(key, simulate, stream=True).status
    return None


def _fares(gateway: Gateway) -> list[str]:
    return [line["generation_id"] for line in gateway.orders("a caller") if line["events"] is not None]


def test_eight_processes_serve_exactly_what_an_account_affords(tmp_path: Path, books: str) -> None:
    with node(tmp_path, books, "--workers", "8") as gateway:
        key = gateway.new_key("a caller", "--plan", "paying", "--prepaid", "0.1")
        with ThreadPoolExecutor(60) as pool:
            statuses = Counter(pool.map(lambda _: gateway.chat(key, model="sim/penny").status, range(400)))
        assert statuses == {200: 100, 402: 300}
        (account,) = [each for each in gateway.cli("account", "list") if each["name"] == "a caller"]
        assert account["balance_usd"] == "0"
        gateway.audit()


@pytest.fixture
def cluster(postgres: Cluster) -> Iterator[Cluster]:
    """A server of the test's own, which keeps what it has committed. (The session's is there: it is installed.)"""
    programs = find()
    assert programs is not None
    cluster = Cluster(programs)
    cluster.stop()
    cluster.start(is_durable=True)
    yield cluster
    cluster.remove()


@pytest.mark.parametrize("how", [signal.SIGINT, signal.SIGQUIT])
def test_the_database_goes_away_and_comes_back(
    tmp_path: Path, cluster: Cluster, upstream: int, how: signal.Signals
) -> None:
    """Orders are told to come back before the upstream hears of them; what was under way settles when it is back."""
    known = charged(upstream)
    settings = {"FAREBOX_UPSTREAM_URL": f"http://127.0.0.1:{upstream}/api/v1", "OPENROUTER_API_KEY": "sk-or-x"}
    settings["FAREBOX_RECONCILE_SECONDS"] = "86400"
    with node(tmp_path, cluster.new_books(), **settings) as gateway:
        key = gateway.new_key("a caller", "--plan", "paying", "--prepaid", "1")
        assert gateway.chat(key).status == 200
        with ThreadPoolExecutor(4) as pool:
            streams = [pool.submit(_try, gateway, key, "token-ms=100,tokens=50") for _ in range(4)]
            eventually(lambda: gateway.audit()["orders"]["pending"] == 4)
            cluster.stop(how)
            answer = gateway.chat(key)
            assert (answer.status, "retry-after" in answer.headers) == (429, True)
            heard = set(charged(upstream)) - set(known)
            assert len(heard) <= 5
            [stream.result(30) for stream in streams]
            cluster.start(is_durable=True)
            eventually(lambda: gateway.chat(key).status == 200, 20)
        eventually(lambda: gateway.audit()["orders"]["pending"] == gateway.audit()["orders"]["open"] == 0, 30)
        assert set(_fares(gateway)) == set(charged(upstream)) - set(known)
        assert len(_fares(gateway)) == 6


def test_what_a_node_knew_outlives_it_while_the_database_is_away(
    tmp_path: Path, cluster: Cluster, upstream: int
) -> None:
    """Nobody is asked: what the answers cost stands on the node's own disk, and nowhere else."""
    known = charged(upstream)
    settings = {"FAREBOX_UPSTREAM_URL": f"http://127.0.0.1:{upstream}/api/v1", "OPENROUTER_API_KEY": "sk-or-x"}
    gateway = node(tmp_path, cluster.new_books(), **settings)
    spool = tmp_path / "data" / "spool"
    with gateway:
        key = gateway.new_key("a caller", "--plan", "paying", "--prepaid", "1")
        with ThreadPoolExecutor(4) as pool:
            streams = [pool.submit(_try, gateway, key, "token-ms=100,tokens=80") for _ in range(4)]
            eventually(lambda: gateway.audit()["orders"]["pending"] == 4)
            cluster.stop(signal.SIGQUIT)
            [stream.result(30) for stream in streams]
        (kept,) = spool.iterdir()
        eventually(lambda: len(kept.read_bytes().splitlines()) == 4)
        gateway.kill()
    cluster.start(is_durable=True)
    with gateway:
        eventually(lambda: len(_fares(gateway)) == 4, 20)
        found = gateway.audit()
        assert found["orders"] == {"pending": 0, "open": 0, "posted": 4, "voided": 0}
        assert set(_fares(gateway)) == set(charged(upstream)) - set(known)
        eventually(lambda: list(spool.iterdir()) == [])


@pytest.fixture
def frozen(cluster: Cluster) -> Iterator[Cluster]:
    """As `cluster`; going on at the end of the test, if that froze it."""
    yield cluster
    cluster.thaw()


def test_a_database_that_says_nothing_keeps_nobody_waiting(tmp_path: Path, frozen: Cluster, upstream: int) -> None:
    """It accepts whatever it is sent. No order begins meanwhile, and none that was under way is lost."""
    known = charged(upstream)
    settings = {"FAREBOX_UPSTREAM_URL": f"http://127.0.0.1:{upstream}/api/v1", "OPENROUTER_API_KEY": "sk-or-x"}
    with node(tmp_path, frozen.new_books(), **settings) as gateway:
        key = gateway.new_key("a caller", "--plan", "paying", "--prepaid", "1")
        assert gateway.chat(key).status == 200
        bearer = {"authorization": f"Bearer {key}"}
        slow = "token-ms=100,tokens=30,first-token-ms=2000"
        with ThreadPoolExecutor(12) as pool:
            streams = [pool.submit(_try, gateway, key, slow) for _ in range(2)]
            wholes = [pool.submit(gateway.chat, key, slow) for _ in range(2)]
            eventually(lambda: gateway.audit()["orders"]["pending"] == 4)
            frozen.freeze()
            asked = [pool.submit(order, gateway, path, key) for path in ORDERS]
            asked += [pool.submit(gateway.request, "GET", path, headers=bearer) for path in ("/v1/key", "/v1/credits")]
            for each in asked:
                answer = each.result(30)
                assert (answer.status, answer.headers["retry-after"]) == (429, "5"), answer.body
                assert "the books" in answer.json["error"]["message"]
            for path, each in zip(ORDERS, asked, strict=False):
                assert error_type(path, each.result()) == "rate_limit_exceeded"
            probe = gateway.request("GET", "/readyz")
            assert (probe.status, "books" in probe.error["message"]) == (503, True)
            assert gateway.request("GET", "/healthz").status == 200
            counted = gateway.request("GET", "/metrics")
            assert (counted.status, b"farebox_writer_queue" in counted.body) == (200, True)
            assert b"farebox_holds{" not in counted.body
            # They were served: no answer that a client would repeat, and no end of a stream.
            # The heads of answers that take so long are out.
            assert [answered.result(30).status for answered in wholes] == [200, 200]
            assert [answered.result().json["error"]["code"] for answered in wholes] == [424, 424]
            assert [answered.result(30) for answered in streams] == [None, None]
            heard = set(charged(upstream)) - set(known)
            assert len(heard) == 5
            frozen.thaw()
            eventually(lambda: gateway.request("GET", "/readyz").status == 200, 20)
            eventually(lambda: gateway.chat(key).status == 200, 20)
        eventually(lambda: gateway.audit()["orders"]["pending"] == 0, 20)
        assert set(_fares(gateway)) == set(charged(upstream)) - set(known)
        assert len(_fares(gateway)) == 6


def test_a_server_stops_although_its_database_says_nothing(tmp_path: Path, frozen: Cluster, upstream: int) -> None:
    settings = {"FAREBOX_UPSTREAM_URL": f"http://127.0.0.1:{upstream}/api/v1", "OPENROUTER_API_KEY": "sk-or-x"}
    settings["FAREBOX_GRACE_SECONDS"] = "1"
    books = frozen.new_books()
    gateway = node(tmp_path, books, **settings)
    with gateway:
        key = gateway.new_key("a caller", "--plan", "paying", "--prepaid", "1")
        with ThreadPoolExecutor(4) as pool:
            streams = [pool.submit(_try, gateway, key, "token-ms=100,tokens=20") for _ in range(4)]
            eventually(lambda: gateway.audit()["orders"]["pending"] == 4)
            frozen.freeze()
            time.sleep(5)  # they have ended, and wait for the books
            assert not any(stream.done() for stream in streams)
            gateway.stop()
            assert gateway.process.returncode == 0
    frozen.thaw()
    with gateway:
        # What the answers cost stood on this machine's disk.
        eventually(lambda: len(_fares(gateway)) == 4, 20)
        assert gateway.audit()["orders"] == {"pending": 0, "open": 0, "posted": 4, "voided": 0}


@pytest.fixture
def silent() -> Iterator[str]:
    """The URL of a database that accepts connections and says nothing, ever."""
    with socket.create_server(("127.0.0.1", 0), backlog=100) as listener:
        yield f"postgresql://farebox@127.0.0.1:{listener.getsockname()[1]}/books"


@pytest.mark.parametrize(
    "words", [("serve", "--port", "0"), ("audit",), ("db", "upgrade"), ("db", "current"), ("key", "list")]
)
def test_a_start_on_a_database_that_says_nothing_ends_with_a_sentence(
    tmp_path: Path, silent: str, words: tuple[str, ...]
) -> None:
    done = farebox(tmp_path, *words, FAREBOX_DATABASE_URL=silent)
    assert done.returncode == 1
    assert f"{silent} cannot be used as a database" in done.stderr
    assert "Traceback" not in done.stderr


_READY = b"Z\x00\x00\x00\x05I"
"""The server's last word on a transaction that has ended."""

_TERMINATED = b"SFATAL\x00VFATAL\x00C57P01\x00Mterminating connection due to administrator command\x00\x00"


class Wire:
    """Between a gateway and its database: passes everything on, until a transaction is to end in which something is
    `written`; what the database answers to that is lost, or, where it `terminates`, followed by the error of a session
    that an administrator has ended."""

    def __init__(self, port: int, *, terminates: bool = False) -> None:
        self._port = port
        self._terminates = terminates
        self.written = b"INSERT INTO hold"
        self.swallows = False
        self.swallowed = 0
        self._listener = socket.create_server(("127.0.0.1", 0), backlog=100)
        self.port = self._listener.getsockname()[1]
        threading.Thread(target=self._serve, daemon=True).start()

    def _serve(self) -> None:
        with suppress(OSError):
            while True:
                client, _ = self._listener.accept()
                server = socket.create_connection(("127.0.0.1", self._port))
                state = {"is_deaf": False, "places": False}
                for source, target in ((client, server), (server, client)):
                    threading.Thread(
                        target=self._pass, args=(source, target, source is client, state), daemon=True
                    ).start()

    def _pass(self, source: socket.socket, target: socket.socket, is_client: bool, state: dict[str, bool]) -> None:
        with source, suppress(OSError):
            while data := source.recv(65536):
                if is_client and self.written in data:
                    state["places"] = True
                if is_client and b"COMMIT" in data and state["places"] and self.swallows:
                    state["is_deaf"], self.swallows = True, False
                    self.swallowed += 1
                if not is_client and state["is_deaf"]:
                    if self._terminates and data.endswith(_READY):
                        fatal = b"E" + (len(_TERMINATED) + 4).to_bytes(4, "big") + _TERMINATED
                        target.sendall(data.removesuffix(_READY) + fatal)
                    continue
                target.sendall(data)
        with suppress(OSError):
            target.shutdown(socket.SHUT_RDWR)  # who reads from it is woken by that, and closes it

    def close(self) -> None:
        self._listener.close()


@pytest.mark.parametrize("terminates", [False, True])
def test_a_hold_whose_commit_is_not_answered_is_given_back(
    tmp_path: Path, cluster: Cluster, upstream: int, terminates: bool
) -> None:
    books = cluster.new_books()
    wire = Wire(cluster.port, terminates=terminates)
    settings = {"FAREBOX_UPSTREAM_URL": f"http://127.0.0.1:{upstream}/api/v1", "OPENROUTER_API_KEY": "sk-or-x"}
    known = charged(upstream)
    with node(tmp_path, books.replace(f":{cluster.port}/", f":{wire.port}/"), **settings) as gateway:
        key = gateway.new_key("a caller", "--plan", "paying", "--prepaid", "1")
        wire.swallows = True
        refused = gateway.chat(key)
        assert (refused.status, wire.swallowed) == (429, 1)
        eventually(lambda: [line["what"] for line in gateway.orders("a caller")] == ["not served"])
        assert gateway.chat(key).status == 200
        assert len(set(charged(upstream)) - set(known)) == 1
        assert gateway.audit()["orders"] == {"pending": 0, "open": 0, "posted": 1, "voided": 1}
    wire.close()


def test_a_top_up_whose_commit_is_not_answered_is_not_called_undone(tmp_path: Path, postgres: Cluster) -> None:
    books = postgres.new_books()
    wire = Wire(postgres.port, terminates=True)
    wire.written = b"INSERT INTO transfer"
    shell = node(tmp_path, books)
    shell.cli("account", "create", "a", "--plan", "paying")
    wire.swallows = True
    wired = books.replace(f":{postgres.port}/", f":{wire.port}/")
    done = farebox(tmp_path, "account", "top-up", "a", "5", FAREBOX_DATABASE_URL=wired)
    assert (done.returncode, "whether it was done is not known" in done.stderr) == (1, True), done.stderr
    assert shell.statement("a")["paid_in_usd"] == "5"
    wire.close()


def farebox(folder: Path, *arguments: str, **environment: str) -> subprocess.CompletedProcess[str]:
    return Gateway(folder, **environment).run(*arguments)


@pytest.mark.parametrize(
    ("change", "said"),
    [
        (lambda url: url.replace("127.0.0.1", "nobody.invalid"), "cannot be used as a database"),
        (lambda url: url.rpartition("/")[0] + "/nothing", "cannot be used as a database"),
        (lambda url: url.replace("farebox@", "stranger:hunter2@"), "cannot be used as a database"),
        (lambda url: url.replace("postgresql://farebox@", "mysql://stranger:hunter2@"), "write sqlite:///PATH"),
    ],
)
def test_a_database_that_cannot_be_used_is_named(tmp_path: Path, books: str, change: object, said: str) -> None:
    assert callable(change)
    done = farebox(tmp_path, "audit", FAREBOX_DATABASE_URL=change(books))
    assert done.returncode in (1, 2)
    assert said in done.stderr
    assert "hunter2" not in done.stderr
    assert "Traceback" not in done.stderr


def test_the_schema_is_told_checked_and_made(tmp_path: Path, postgres: Cluster) -> None:
    url = postgres.new_database()
    assert "none yet" in farebox(tmp_path, "db", "check", FAREBOX_DATABASE_URL=url).stderr
    made = [
        subprocess.Popen(
            [sys.executable, "-m", "farebox", "db", "upgrade", "--json"],
            env=Gateway(tmp_path, FAREBOX_DATABASE_URL=url).environment,
            stdout=subprocess.PIPE,
            text=True,
        )
        for _ in range(3)
    ]
    assert [process.communicate(timeout=60)[0] != "" and process.returncode for process in made] == [0, 0, 0]
    current = json.loads(farebox(tmp_path, "db", "current", "--json", FAREBOX_DATABASE_URL=url).stdout)
    assert current["schema"] == current["expected"]
    assert farebox(tmp_path, "db", "check", FAREBOX_DATABASE_URL=url).returncode == 0
    with psycopg.connect(url, autocommit=True) as db:
        db.execute("UPDATE alembic_version SET version_num = '9999'")
    for command in (("audit",), ("serve", "--port", "0"), ("db", "upgrade"), ("db", "check")):
        done = farebox(tmp_path, *command, FAREBOX_DATABASE_URL=url)
        assert done.returncode == 1
        assert "from a newer Farebox; this one knows up to" in done.stderr


def test_another_programs_database_is_left_alone(tmp_path: Path, postgres: Cluster) -> None:
    url = postgres.new_database()
    with psycopg.connect(url, autocommit=True) as db:
        db.execute("CREATE TABLE customer (id int)")
    done = farebox(tmp_path, "serve", "--port", "0", FAREBOX_DATABASE_URL=url)
    assert "is a database of another program (its tables: customer)" in done.stderr


def test_transfers_cannot_be_changed_by_whoever_has_the_database(tmp_path: Path, books: str) -> None:
    with node(tmp_path, books) as gateway:
        assert gateway.chat().status == 200
    with psycopg.connect(books, autocommit=True) as db:
        for statement in ("UPDATE transfer SET amount_nanos = 0", "DELETE FROM transfer"):
            with pytest.raises(psycopg.errors.RaiseException, match="immutable"):
                db.execute(statement)


def test_a_password_is_shown_nowhere(tmp_path: Path, books: str) -> None:
    url = books.replace("farebox@", "farebox:hunter2@")
    with node(tmp_path, url) as gateway:
        assert "farebox:***@127.0.0.1" in gateway.banner
        assert "hunter2" not in gateway.stop()


def test_books_move_from_a_file_and_nothing_is_lost(tmp_path: Path, postgres: Cluster) -> None:
    (tmp_path / "one").mkdir()
    old, url = Gateway(tmp_path / "one"), postgres.new_database()
    with old:
        key = old.new_key("a caller", "--plan", "paying", "--prepaid", "1")
        old.chat(key, stream=True)
        old.chat(key, "usage=missing")
        begin(old, key, {"requests": [CHAT, CHAT]})
        headers = {"authorization": f"Bearer {key}", "idempotency-key": "k", "content-type": "application/json"}
        first = old.request("POST", "/v1/chat/completions", CHAT, headers)
        assert first.status == 200
        source = f"sqlite:///{old.folder}/data/farebox.db"
        refused = farebox(tmp_path, "db", "copy", source, url)
        assert refused.returncode == 1
        assert f"is in use (process {old.process.pid})" in refused.stderr
    statement, found = old.statement("a caller"), old.audit()
    moved = json.loads(farebox(tmp_path, "db", "copy", source, url, "--json").stdout)
    assert moved["differences"] == {"before": [], "after": []}
    assert moved["rows"]["transfer"] == found["transfers"]
    assert moved["rows"]["run_item"] == 2
    with node(tmp_path / "two", url) as new:
        assert new.statement("a caller") == statement
        published = new.audit() | {"trail_entries": found["trail_entries"]}
        assert published == found, "but for the plans that the new node published"
        assert new.request("POST", "/v1/chat/completions", CHAT, headers).body == first.body
        assert new.chat(key).status == 200
        assert new.new_key("another", "--plan", "free")
        assert ask(new, key, "/v2/actor-runs").json["data"]["total"] == 1
    again = farebox(tmp_path, "db", "copy", source, url)
    assert again.returncode == 1
    assert "is in use" in again.stderr
    for wrong in ((url, source), (source, source), (url, url)):
        done = farebox(tmp_path, "db", "copy", *wrong)
        assert done.returncode == 1
        assert "books are copied from sqlite:///PATH to postgresql://" in done.stderr


def test_a_database_whose_disk_is_full_loses_nothing(tmp_path: Path, books: str, upstream: int) -> None:
    """The server says so in its own error, for as long as it lasts: what a full disk answers to a row more."""
    known = charged(upstream)
    settings = {
        "FAREBOX_UPSTREAM_URL": f"http://127.0.0.1:{upstream}/api/v1",
        "OPENROUTER_API_KEY": "sk-or-x",
        "FAREBOX_RECONCILE_SECONDS": "86400",
    }
    with node(tmp_path, books, **settings) as gateway, psycopg.connect(books, autocommit=True) as db:
        key = gateway.new_key("a caller", "--plan", "paying", "--prepaid", "1")
        with ThreadPoolExecutor(3) as pool:
            streams = [pool.submit(_try, gateway, key, "token-ms=100,tokens=20") for _ in range(3)]
            eventually(lambda: gateway.audit()["orders"]["pending"] == 3)
            db.execute(
                "CREATE FUNCTION full_disk() RETURNS trigger LANGUAGE plpgsql AS $$ BEGIN RAISE EXCEPTION"
                " 'could not extend file: No space left on device' USING ERRCODE = '53100'; END $$"
            )
            db.execute("CREATE TRIGGER full_disk BEFORE INSERT ON transfer EXECUTE FUNCTION full_disk()")
            refused = gateway.chat(key)
            assert (refused.status, "retry-after" in refused.headers) == (429, True)
            assert "No space left" in refused.error["message"]
            [stream.result(30) for stream in streams]
        assert len(set(charged(upstream)) - set(known)) == 3, "the upstream never heard of the one that was refused"
        db.execute("DROP TRIGGER full_disk ON transfer")
        eventually(lambda: len(_fares(gateway)) == 3, 20)
        assert gateway.chat(key).status == 200
        gateway.audit()


# Plans


def test_nodes_whose_plans_differ_serve_under_those_of_the_last(tmp_path: Path, books: str) -> None:
    def plan(folder: Path, multiplier: str) -> Gateway:
        folder.mkdir()
        (folder / "farebox.toml").write_text(f'[plans.resale]\nmultiplier = "{multiplier}"\n')
        return Gateway(folder, FAREBOX_DATABASE_URL=books)

    def price(gateway: Gateway, key: str) -> str:
        return gateway.chat(key, "cost=0.00001").headers["x-farebox-fare-usd"]

    with plan(tmp_path / "first", "2") as first:
        assert "Plans:" not in first.banner
        key = first.new_key("a caller", "--plan", "resale", "--prepaid", "1")
        assert price(first, key) == "0.00002"
        with plan(tmp_path / "second", "3") as second:
            assert "Plans: not those that" in second.banner
            assert "changed: resale" in second.banner
            assert price(second, key) == "0.00003"
            eventually(lambda: price(first, key) == "0.00003", 2)
            # A node with the same plans changes nothing, and says nothing.
            second.stop()
            second.start()
            assert "Plans:" not in second.banner
        assert "changed: resale" in first.stop()
        first.start()
        assert "changed: resale" in first.banner
        assert price(first, key) == "0.00002"
        first.audit()


def test_one_node_at_a_time_asks_the_upstream_for_its_prices(tmp_path: Path, books: str) -> None:
    with HttpUpstream().serving() as upstream, ExitStack() as stack:
        settings = {"FAREBOX_PRICES_REFRESH_SECONDS": "1", "OPENROUTER_API_KEY": "sk-or-x"}
        settings["FAREBOX_UPSTREAM_URL"] = upstream.url
        nodes = [stack.enter_context(node(tmp_path / name, books, "--workers", "2", **settings)) for name in "abc"]
        before = len(_times(upstream, "/models"))
        eventually(lambda: _apart(_times(upstream, "/models")[before:]) >= 6, 60)
        times = _times(upstream, "/models")[before:]
        # Once in a second, however slow they are, but for three processes that may have started last; each for itself,
        # six would ask six times as often.
        assert len(times) <= _apart(times) + 3, times
        for each in nodes:
            eventually(partial(_has_fresh_prices, each))


def _has_fresh_prices(node: Gateway) -> bool:
    return not node.request("GET", "/readyz").json["prices_are_stale"]


def _times(upstream: HttpUpstream, path: str) -> list[float]:
    """When it was asked for a page."""
    return [at for at, asked in zip(upstream.asked_at, upstream.asked, strict=False) if asked.startswith(path)]


def _apart(times: list[float]) -> int:
    """How many of these times are a second apart, which is how long prices are fresh."""
    count, last = 0, -inf
    for at in times:
        if at > last + 0.95:
            count, last = count + 1, at
    return count
