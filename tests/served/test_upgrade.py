"""A rolling upgrade: a node of the version before serves on while the schema changes and new nodes come.

The old node is played by its statements, as they stood in that version: what it writes and what it reads.
"""

import secrets
import sqlite3
import subprocess
import sys
import time
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Any

import psycopg
import pytest

from tests.gateway import Gateway, clean_environment, eventually
from tools.postgres import Cluster

BEFORE = "0006"

TRANSFER = (
    "id, kind, debit_account_id, credit_account_id, amount_nanos, created_us, hold_id, cost, events, event_price_nanos,"
    " over_hold_nanos, note"
)
HOLD = (
    "id, account_id, key_id, worker, state, amount_nanos, plan, event_price_nanos, model, streamed, created_us,"
    " generation_id, served_model, prompt_tokens, answer_tokens, reason, ended_us, asks, ask_us, charge_to,"
    " charge_times"
)
KEY = "k.id, k.account_id, k.label, k.digest, k.hint, k.created_us, k.revoked_us"
BALANCE = "UPDATE balance SET debits_nanos = debits_nanos + ?, pending_nanos = pending_nanos - ? WHERE account_id = ?"
FARE_NANOS = 20_000
COST = "0.0000192"


class OldNode:
    """One that serves on books of the schema before."""

    def __init__(self, url: str) -> None:
        self._is_file = url.startswith("sqlite")
        path = url.removeprefix("sqlite:///")
        self._db: Any = (
            sqlite3.connect(path, isolation_level=None) if self._is_file else psycopg.connect(url, autocommit=True)
        )
        self.worker = f"old-{secrets.token_hex(4)}"

    def close(self) -> None:
        self._db.close()

    def run(self, statement: str, given: Sequence[Any] = ()) -> Any:
        return self._db.execute(statement if self._is_file else statement.replace("?", "%s"), given)

    def _together(self, *statements: tuple[str, Sequence[Any]]) -> None:
        self.run("BEGIN IMMEDIATE" if self._is_file else "BEGIN")
        for statement, given in statements:
            self.run(statement, given)
        self.run("COMMIT")

    def place(self, account_id: int, key_id: int) -> str:
        """Set money aside for an order."""
        now_us = time.time_ns() // 1000
        name = f"{now_us:014x}{secrets.token_hex(6)}"
        hold = (name, account_id, key_id, self.worker, "pending", 50_000, "paying", 10_000, "sim/echo", False, now_us)
        self._together(
            (f"INSERT INTO hold ({HOLD}) VALUES ({_marks(HOLD)})", (*hold, *[None] * 6, 0, None, None, None)),
            (
                f"INSERT INTO transfer ({TRANSFER}) VALUES ({_marks(TRANSFER)})",
                (name, "hold", account_id, 1, 50_000, now_us, name, None, None, None, 0, None),
            ),
            ("UPDATE balance SET pending_nanos = pending_nanos + ? WHERE account_id = ?", (50_000, account_id)),
        )
        return name

    def post(self, name: str) -> None:
        """Settle it."""
        now_us = time.time_ns() // 1000
        (row,) = self.run(f"SELECT {HOLD} FROM hold WHERE id = ?", (name,)).fetchall()
        account_id = row[1]
        self._together(
            (
                "UPDATE hold SET state = ?, ended_us = ?, generation_id = ? WHERE id = ?",
                ("posted", now_us, "gen", name),
            ),
            (
                f"INSERT INTO transfer ({TRANSFER}) VALUES ({_marks(TRANSFER)})",
                (f"{name}-end", "post", account_id, 1, FARE_NANOS, now_us, name, COST, 2, 10_000, 0, None),
            ),
            (
                BALANCE,
                (FARE_NANOS, row[5], account_id),
            ),
        )

    def is_good(self, key_id: int) -> bool:
        """Whether it would serve a key."""
        rows = self.run(f"SELECT {KEY} FROM api_key k WHERE k.id = ?", (key_id,)).fetchall()
        return rows[0][6] is None

    def new_key(self, account_id: int) -> None:
        self._together(
            (
                "INSERT INTO api_key (account_id, label, digest, hint, created_us) VALUES (?, ?, ?, ?, ?)",
                (account_id, "made by an old node", secrets.token_bytes(32), "hint", 1),
            ),
            ("UPDATE directory_revision SET value = value + 1", ()),
        )


def _marks(columns: str) -> str:
    return ", ".join("?" for _ in columns.split(","))


def migrate(url: str, revision: str) -> None:
    """Bring books to an earlier schema than the newest."""
    program = (
        "import sys; from alembic import command; from alembic.config import Config; from pathlib import Path;"
        "import farebox.store.migrate as m; c = Config();"
        "c.set_main_option('script_location', str(Path(m.__file__).with_name('migrations')));"
        "c.attributes['url'] = sys.argv[1];"
        "command.upgrade(c, sys.argv[2])"
    )
    subprocess.run([sys.executable, "-c", program, url, revision], check=True, env=clean_environment())


@pytest.fixture(params=["sqlite", "postgres"])
def url(request: pytest.FixtureRequest, tmp_path: Path) -> str:
    if request.param == "sqlite":
        (tmp_path / "data").mkdir()
        return f"sqlite:///{tmp_path}/data/farebox.db"
    cluster: Cluster = request.getfixturevalue("postgres")
    return cluster.new_database()


@pytest.fixture
def old(url: str) -> Iterator[OldNode]:
    migrate(url, BEFORE)
    node = OldNode(url)
    yield node
    node.close()


def test_an_old_node_and_a_new_one_serve_side_by_side(tmp_path: Path, url: str, old: OldNode) -> None:
    now_us = time.time_ns() // 1000
    for statement in (
        "INSERT INTO account (id, name, plan, created_us) VALUES (2, 'shared', 'paying', 1)",
        "INSERT INTO balance VALUES (2, 1000000000, 0, 0, 0, 0)",
        f"INSERT INTO transfer VALUES ('t', 'top-up', 0, 2, 1000000000, {now_us}, NULL, NULL, NULL, NULL, 0, NULL)",
    ):
        old.run(statement)
    old.new_key(2)
    if not url.startswith("sqlite"):
        old.run("SELECT setval('account_id_seq', 2)")
    under_way = old.place(2, 1)
    with Gateway(tmp_path, FAREBOX_DATABASE_URL=url, FAREBOX_RECONCILE_SECONDS="0") as gateway:
        # The schema has changed under the old node, in the middle of an order.
        assert gateway.cli("db", "check")["is_current"]
        key = gateway.cli("key", "create", "shared")["key"]
        for _ in range(5):
            assert gateway.chat(key).status == 200
            another = old.place(2, 1)
            assert gateway.chat(key, stream=True).status == 200
            old.post(another)
        # The old node is no process that a new one could see alive, so its order was opened: it settles all the same.
        eventually(lambda: gateway.cli("reconcile", "--list") != [], 10)
        old.post(under_way)
        old.new_key(2)
        keys = gateway.cli("key", "list", "shared")
        assert [each["label"] for each in keys] == ["made by an old node", "", "made by an old node"]
        made = keys[1]
        assert old.is_good(made["id"])
        for command, is_good in (("disable", False), ("enable", True), ("revoke", False)):
            gateway.cli("key", command, str(made["id"]))
            assert old.is_good(made["id"]) is is_good, "an old node knows revoked keys, and so disabled ones"
        # An old node keeps no totals of days.
        assert len(gateway.cli("db", "recount")["corrected"]) == 1
        found = gateway.audit()
        assert found["orders"] == {"pending": 0, "open": 0, "posted": 16, "voided": 0}
        # Limits that are set when no old node serves any more count all that it served.
        limited = gateway.cli("account", "limit", "shared", "usd_total=0.5")
        assert limited["used"]["usd_total"] == found["fares_usd"]
        gateway.audit()


def test_what_an_old_node_did_not_count_is_named_and_counted_by_setting_the_limit_again(
    tmp_path: Path, url: str, old: OldNode
) -> None:
    with Gateway(tmp_path, FAREBOX_DATABASE_URL=url, FAREBOX_RECONCILE_SECONDS="0") as gateway:
        gateway.cli("account", "limit", "demo", "usd_total=1")
        (key,) = gateway.cli("key", "list", "demo")
        old.post(old.place(2, key["id"]))
        differences = gateway.cli("audit", code=1)["differences"]
        assert [each for each in differences if each.startswith("account 2: $0 of its limit")]
        assert [each for each in differences if each.startswith("account 2, 20")], "the total of the day"
        assert gateway.cli("account", "limit", "demo", "usd_total=1")["used"]["usd_total"] == "0.00002"
        gateway.cli("db", "recount")
        gateway.audit()
