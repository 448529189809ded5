"""SQLite's write-ahead log: how much of it an order writes, and what becomes of it beside a reader that stays."""

import asyncio
import re
import sqlite3
import subprocess
import sys
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import closing, contextmanager
from decimal import Decimal
from pathlib import Path

import pytest
from msgspec.structs import replace

from farebox.accounts import Store
from farebox.core.audit import audit
from farebox.core.books import HoldRow, NameGeneration, Settle, TopUp
from farebox.core.usage import Cost
from farebox.store.books import SqlStore
from farebox.store.sqlite import Sqlite
from tests.books import new_books
from tests.gateway import Gateway, eventually
from tests.served.test_store import USD, Engine, account_with, hold
from tools.postgres import Cluster

ORDERS = 40
ORDER_BYTES_MAX = {False: 27_000, True: 31_500}
"""Of a whole answer and of a stream, each alone in its transactions; measured: 25,400 and 29,600, of which 2,000 are
the day's total."""

READER = """
import sqlite3, sys
db = sqlite3.connect(sys.argv[1], isolation_level=None)
db.execute("BEGIN")
print(db.execute("SELECT count(*) FROM account").fetchone(), flush=True)
sys.stdin.read()
"""


@contextmanager
def reader(books: Path) -> Iterator[int]:
    """Another program keeps a transaction open that has read; gives its process."""
    command = [sys.executable, "-c", READER, str(books)]
    with subprocess.Popen(command, stdin=subprocess.PIPE, stdout=subprocess.PIPE) as other:
        assert other.stdout is not None
        assert other.stdin is not None
        assert other.stdout.readline()
        yield other.pid
        other.stdin.close()


def test_an_order_writes_few_pages(tmp_path: Path) -> None:
    new_books(tmp_path / "books.db")

    async def main() -> None:
        store = await SqlStore.open(Sqlite(tmp_path / "books.db"), "w")
        account, key = await account_with(store, "a", USD)

        async def order(name: str, *, is_stream: bool) -> None:
            # As long as real ones are.
            place = replace(hold(account, key, name, 100_000), model="anthropic/claude-sonnet-4.5", streamed=is_stream)
            await store.carry_out(place)
            if is_stream:
                await store.carry_out(NameGeneration(name, f"gen-1764300000-{name[-20:]}"))
            end = Settle(hold_id=name, verdict=Cost(Decimal("0.0000192")), created_us=3, prompt_tokens=14)
            generation = f"gen-1764300000-{name[-20:]}"
            await store.carry_out(replace(end, generation_id=generation, served_model="anthropic/claude-sonnet-4.5"))

        with closing(sqlite3.connect(tmp_path / "books.db", isolation_level=None)) as held:
            for is_stream in (False, True):
                held.execute("BEGIN")
                held.execute("SELECT count(*) FROM account").fetchone()
                before = (tmp_path / "books.db-wal").stat().st_size
                for number in range(ORDERS):
                    await order(f"{int(is_stream)}{number:013x}{'ab' * 6}", is_stream=is_stream)
                written = (tmp_path / "books.db-wal").stat().st_size - before
                held.execute("COMMIT")
                assert written < ORDERS * ORDER_BYTES_MAX[is_stream], (is_stream, written / ORDERS)
        await store.close()

    asyncio.run(main())


def test_a_reader_that_stays_is_named_and_the_log_is_small_again_after_it(tmp_path: Path) -> None:
    def wal_bytes() -> float:
        told = gateway.request("GET", "/metrics").body.decode()
        (found,) = re.findall(r"^farebox_wal_bytes (\S+)$", told, re.MULTILINE)
        return float(found)

    with Gateway(tmp_path, FAREBOX_WAL_WARN_BYTES=str(2**20)) as gateway:
        books = tmp_path / "data" / "farebox.db"
        with reader(books) as pid:
            while wal_bytes() <= 2**20:
                assert gateway.chat().status == 200
            eventually(lambda: f"process {pid} (" in gateway.log.read_text())
            assert gateway.chat().status == 200
            # Said once, however often it is looked at.
            assert gateway.log.read_text().count("kept open by") == 1
        eventually(lambda: "is small again" in gateway.log.read_text())
        assert wal_bytes() < 2**18
        assert gateway.chat().status == 200
        gateway.audit()
    (tmp_path / "data" / "farebox.db-wal").unlink(missing_ok=True)
    gateway.audit()


@pytest.fixture(params=["sqlite", "postgres"])
def engine(request: pytest.FixtureRequest, tmp_path: Path) -> Engine:
    if request.param == "postgres":
        cluster: Cluster = request.getfixturevalue("postgres")
        return Engine("postgres", tmp_path, url=cluster.new_books())
    return Engine(request.param, tmp_path)


def test_an_audit_of_pieces_is_of_one_moment_and_holds_none_meanwhile(engine: Engine) -> None:
    seen: list[str] = []

    async def work(store: Store) -> None:
        assert isinstance(store, SqlStore)
        account, key = await account_with(store, "a", USD)
        # Ids as orders have them, of long ago; h0 to h3 end later, and so does one of the first piece.
        old = [f"{1_000_000 + number:014x}{'0' * 12}" for number in range(9)]
        for name in old:
            await store.carry_out(hold(account, key, name, 1_000_000))
        for name in old[2:7]:
            await store.carry_out(Settle(hold_id=name, verdict=Cost(Decimal("0.0001")), created_us=3))

        async def go_on() -> None:
            async with engine.open() as other:
                await other.carry_out(Settle(hold_id=old[0], verdict=Cost(Decimal("0.0002")), created_us=4))
                await other.carry_out(Settle(hold_id=old[8], verdict=Cost(Decimal("0.0002")), created_us=4))
                await other.carry_out(hold(account, key, f"{2**52:014x}{'1' * 12}", 2_000_000))
                await other.carry_out(TopUp("top-up-1", account.id, 5, 5))
            if engine.kind == "sqlite":
                with closing(sqlite3.connect(engine.path, timeout=0)) as db:
                    # Nobody reads: the log can be cut off.
                    assert db.execute("PRAGMA wal_checkpoint(TRUNCATE)").fetchone()[0] == 0

        with store.in_pieces(10**15, holds_at_once=2) as rows:
            holds = rows.holds

            def holds_meanwhile() -> Iterator[HoldRow]:
                for each in holds():
                    seen.append(each.id)
                    if len(seen) == 1:
                        with ThreadPoolExecutor(1) as pool:
                            pool.submit(lambda: asyncio.run(go_on())).result()
                    yield each

            rows.holds = holds_meanwhile  # type: ignore[method-assign]
            found = audit(rows)
        assert found.differences == []
        assert found.holds == {"pending": 3, "open": 0, "posted": 7, "voided": 0}
        assert sorted(seen) == [*old, f"{2**52:014x}{'1' * 12}"]
        assert seen != sorted(seen), "what had not ended is read at the end"

    engine.run(work)
