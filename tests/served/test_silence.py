"""Books that say nothing: every wait for them ends, a stop too, and what was in doubt is settled when they are back."""

import asyncio
import os
import subprocess
import sys
import threading
from collections.abc import Awaitable, Callable, Iterator
from contextlib import contextmanager
from pathlib import Path

import pytest

from farebox.core.books import Done, Held, Settle, TopUp
from farebox.core.callers import Account, Key
from farebox.core.usage import Nothing
from farebox.late_settlements import LateSettlements
from farebox.ports import BooksUnavailable
from farebox.store.books import SqlStore
from farebox.store.engine import Db
from farebox.store.spool import Spool
from farebox.store.sqlite import Sqlite
from farebox.store.writer import HEARD_SECONDS
from farebox.testing import MemoryStore
from tests.books import new_books
from tests.gateway import clean_environment
from tests.served.test_store import USD, account_with, hold

ANSWER_SECONDS = 0.6


class Hanging(Sqlite):
    """A file on a disk that hangs, once `hangs` is set, until `goes_on` is."""

    def __init__(self, path: Path) -> None:
        super().__init__(path, answer_seconds=ANSWER_SECONDS)
        self.hangs = threading.Event()
        self.goes_on = threading.Event()

    @contextmanager
    def transaction(self, db: Db) -> Iterator[Db]:
        if self.hangs.is_set():
            self.goes_on.wait(60)
        with super().transaction(db) as begun:
            yield begun


def on_a_disk_that_hangs(folder: Path, work: Callable[[SqlStore, Hanging, Account, Key], Awaitable[None]]) -> None:
    path = folder / "books.db"
    new_books(path)

    async def main() -> None:
        engine = Hanging(path)
        store = await SqlStore.open(engine, "worker")
        try:
            await work(store, engine, *await account_with(store, "a", 5 * USD))
        finally:
            await store.close()

    asyncio.run(main())


async def refused(waiting: Awaitable[object]) -> BooksUnavailable:
    with pytest.raises(BooksUnavailable) as raised:
        await waiting
    return raised.value


def test_what_was_not_begun_is_withdrawn_and_what_was_is_in_doubt(tmp_path: Path) -> None:
    async def work(store: SqlStore, engine: Hanging, account: Account, key: Key) -> None:
        assert await store.carry_out(hold(account, key, "before", 10_000)) == Held(10_000)
        engine.hangs.set()
        begun = asyncio.ensure_future(store.carry_out(hold(account, key, "begun", 10_000)))
        await asyncio.sleep(0.2)
        queued = asyncio.ensure_future(store.carry_out(hold(account, key, "queued", 10_000)))
        ending = asyncio.ensure_future(store.carry_out(Settle(hold_id="before", verdict=Nothing(), created_us=3)))
        assert [(await refused(each)).is_in_doubt for each in (begun, queued, ending)] == [True, False, True]
        engine.hangs.clear()
        engine.goes_on.set()
        assert await store.carry_out(TopUp("after", account.id, 1, 4)) == Done()
        states = {each.id: each.state for each in await store.holds(("pending", "open", "posted", "voided"))}
        assert states == {"before": "voided", "begun": "pending"}

    on_a_disk_that_hangs(tmp_path, work)


def test_whoever_asks_for_what_stands_in_them_is_told(tmp_path: Path) -> None:
    async def work(store: SqlStore, engine: Hanging, account: Account, key: Key) -> None:
        engine.hangs.set()
        changing = asyncio.create_task(store.create_account("b", "paying", 0, 1))
        await asyncio.sleep(0.1)
        reading = [asyncio.create_task(store.balance(account.id)) for _ in range(3)]
        assert (await refused(changing)).is_in_doubt
        for each in reading:
            assert "did not answer" in str(await refused(each))
        engine.hangs.clear()
        engine.goes_on.set()
        assert (await store.balance(account.id)).balance_nanos == 5 * USD

    on_a_disk_that_hangs(tmp_path, work)


def test_they_answer_or_that_is_said_soon(tmp_path: Path) -> None:
    async def work(store: SqlStore, engine: Hanging, account: Account, key: Key) -> None:
        await store.answer()
        engine.hangs.set()
        await store.answer()  # they took a command a moment ago
        await asyncio.sleep(HEARD_SECONDS)
        for _ in range(2):
            asked = [asyncio.create_task(store.answer()) for _ in range(50)]
            for each in asked:
                assert "do not answer" in str(await refused(each))
            assert store.queued == 0, "who asks together asks once"
        engine.hangs.clear()
        engine.goes_on.set()
        await store.answer()

    on_a_disk_that_hangs(tmp_path, work)


STUCK = """
import asyncio, sys
from pathlib import Path
from farebox.core.ledger import TopUp
from farebox.ports import BooksUnavailable
from farebox.store.books import SqlStore
from tests.served.test_silence import Hanging

async def main():
    engine = Hanging(Path(sys.argv[1]))
    store = await SqlStore.open(engine, "worker")
    engine.hangs.set()
    for work in (store.create_account("b", "paying", 0, 1), store.carry_out(TopUp("t", 2, 1, 1))):
        try:
            await work
        except BooksUnavailable as error:
            print(error)
    await store.close()
    print("closed", flush=True)

asyncio.run(main())
"""


def test_a_process_ends_although_its_books_hang(tmp_path: Path) -> None:
    """Within the time of a stop: 60 s later this disk would go on."""
    new_books(tmp_path / "books.db")
    command = [sys.executable, "-c", STUCK, str(tmp_path / "books.db")]
    done = subprocess.run(
        command, capture_output=True, text=True, timeout=45, env=clean_environment(PYTHONPATH=":".join(sys.path))
    )
    assert done.stdout.splitlines()[-1] == "closed", done.stderr
    assert done.stdout.count("did not answer") == 2
    assert done.returncode == 0


def test_a_hold_that_came_about_after_it_was_given_back_is_given_back_again() -> None:
    """Its transaction had got no answer, and was on its way yet; longer than it was looked for at first."""

    async def main() -> None:
        store = MemoryStore()
        account, key = await account_with(store, "a", USD)
        late = LateSettlements(store, doubt_seconds=0.2)
        await late.add(Settle(hold_id="h", verdict=Nothing(), created_us=3))
        running = asyncio.create_task(late.run())
        while late.waiting:  # noqa: ASYNC110 - it has no event to wait for
            await asyncio.sleep(0.05)
        await asyncio.sleep(1.5)
        assert await store.carry_out(hold(account, key, "h", 10_000)) == Held(10_000)
        while (await store.balance(account.id)).pending_nanos:  # noqa: ASYNC110
            await asyncio.sleep(0.05)
        running.cancel()

    asyncio.run(asyncio.wait_for(main(), 20))


def test_a_spool_that_hangs_keeps_no_order(tmp_path: Path) -> None:
    """A pipe that nobody reads from is such a file."""
    os.mkfifo(tmp_path / "one")
    asyncio.run(asyncio.wait_for(Spool(tmp_path, "one").add(Settle(hold_id="h", verdict=Nothing(), created_us=1)), 20))
