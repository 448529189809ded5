"""The books in an SQL database: one writer a process, several processes on one database.

The rest of the stores' work is in `reading.py` and `bills.py` (what stands in the books) and `directory.py` (who is in
them).
"""

import asyncio
import logging
from collections import Counter
from collections.abc import Callable
from time import monotonic
from typing import Self

from msgspec.structs import astuple

from farebox.core.books import (
    Balance,
    Command,
    First,
    HoldRow,
    KeptAnswer,
    KeyUse,
    Outcome,
    Seen,
    Settle,
    Sought,
    TopUp,
    all_owners_of,
)
from farebox.core.caching import CachedRow
from farebox.core.questions import FURTHEST_US
from farebox.core.repeats import LOST_US, REPEAT_LIFE_US, Found, Kept, first_of, seen_ended
from farebox.core.usage import Cost, Unknown
from farebox.ports import BooksUnavailable
from farebox.store.alerts import SqlAlerts
from farebox.store.bills import Bills
from farebox.store.directory import SqlDirectory
from farebox.store.engine import Db, Engine, InDoubt
from farebox.store.pages import Pages
from farebox.store.presets import SqlPresets
from farebox.store.reading import Reading
from farebox.store.responses import SqlResponses
from farebox.store.rows import (
    each,
    hold_from,
    json_text,
)
from farebox.store.writer import GroupWriter

log = logging.getLogger("farebox")

FORGOTTEN_AT_ONCE = 10_000
"""Rows in one transaction: none takes as long as an answer of the books may."""

SWEPT_TO = 0.9
"""To what part of the bound kept answers are swept, so that there is room again for a while."""


class SqlStore(Reading, Bills, SqlPresets, SqlDirectory, SqlResponses, SqlAlerts):
    """Ledger, Directory, Books, PresetShelf, ResponseShelf and AlertShelf over one database.

    Commands go through the group writer. Everything else is rare and runs on one thread of its own, the desk.
    A `worker` is a process that places holds; as long as it lives, its holds are no orphans.
    """

    def __init__(self, engine: Engine, worker: str) -> None:
        super().__init__(engine, "farebox-desk")
        self._worker = worker
        self._committed: Callable[[int, float], None] = lambda commands, seconds: None
        self._writer_db = engine.connect_to_write()
        self._pages = Pages(engine, self._writer_db, worker)
        self._life = engine.live(worker)
        self._writer = GroupWriter(self._commit, "farebox-writer", self._look, engine.answer_seconds)

    @classmethod
    async def open(cls, engine: Engine, worker: str) -> Self:
        """Open existing books. See farebox.store.prepare for making them. Raises BooksUnavailable."""
        try:
            return cls(engine, worker)
        except engine.errors as error:
            raise BooksUnavailable(f"the books could not be opened: {engine.said(error)}") from error

    async def close(self) -> None:
        """Write what has queued, and let go of the books; for a bounded time, where they do not answer."""
        has_ended, _ = await asyncio.gather(self._writer.close(), self._desk.close())
        if has_ended:
            self._writer_db.close()
        self._life.release()
        await self.stop_listening()

    def carry_out(self, command: Command) -> "asyncio.Future[Outcome]":
        return self._writer.submit(command)

    async def balance(self, account_id: int) -> Balance:
        (balance,) = await self._desk.rows(each(Balance), self._sql.balance, {"account": account_id})
        return balance

    async def claim_questions(self, now_us: int, until_us: int, most: int) -> list[HoldRow]:
        given = {"now": now_us, "latest": now_us + FURTHEST_US, "until": until_us, "most": most}

        def claim() -> list[HoldRow]:
            # A look first: a transaction that writes nothing would still make every other writer wait.
            if self._desk.db.execute(self._sql.is_question_due, given).fetchone() is None:
                return []
            with self._desk.transaction() as db:
                return [hold_from(row) for row in db.execute(self._sql.claim_questions, given).fetchall()]

        return await self._desk.do(claim)

    async def kept_answer(self, hold_id: str) -> KeptAnswer | None:
        return await self._desk.row(each(KeptAnswer), self._sql.kept_answer, {"hold": hold_id})

    async def key_use(self, account_id: int, key_digest: bytes) -> KeyUse | None:
        given = {"account": account_id, "digest": key_digest}
        return await self._desk.row(each(KeyUse), self._sql.key_use, given)

    async def find_first(self, sought: Sought) -> Seen:
        return await self._desk.do(lambda: self._find_first(sought))

    def _find_first(self, sought: Sought) -> Seen:
        db, sql = self._desk.db, self._sql
        order = {"key": sought.key_id, "digest": sought.order_digest}
        since = {**order, "since": sought.now_us - REPEAT_LIFE_US}
        while True:
            # Holds first: what is kept is written by the transaction that ends one. The other way round, one that ends
            # between the two would be in neither.
            holds = [hold_from(row) for row in db.execute(sql.same_not_ended, since)]
            kept = [
                Kept(name, bool(body), given is not None)
                for name, body, given in db.execute(sql.same_undelivered, since)
            ]
            found = first_of(kept, holds, self._is_gone, is_marked=sought.is_marked)
            if found is None:
                lately = {**order, "account": sought.account_id, "lately": sought.now_us - LOST_US}
                posted = db.execute(sql.same_posted, lately).fetchall() if sought.is_marked else []
                ended = [*posted, *((hold.id, hold.worker) for hold in holds)]
                return seen_ended(ended, self.worker, self._is_gone) if sought.is_marked else Seen()
            if found.marked is None or self._mark_delivery(found):
                return Seen(found.hold_id)
            # It has just ended, or another repeat was quicker.

    def _is_gone(self, worker: str) -> bool:
        return worker != self.worker and self.engine.is_gone(self._desk.db, worker)

    def _mark_delivery(self, found: Found) -> bool:
        given = {"id": found.hold_id, "state": found.state, "delivery": found.marked}
        with self._desk.transaction() as db:
            return bool(db.execute(self._sql.mark_delivery, given).rowcount)

    async def first(self, hold_id: str) -> First:
        def look() -> First:
            # The hold first: what is kept is written by the transaction that ends it.
            hold = hold_from(self._desk.db.execute(self._sql.hold, {"id": hold_id}).fetchone())
            kept = self._desk.db.execute(self._sql.undelivered_body, {"hold": hold_id}).fetchone()
            return First(hold, None if kept is None else kept[0])

        return await self._desk.do(look)

    async def mark_lost(self, hold_id: str) -> None:
        await self._desk.do(lambda: self._mark_delivery(Found(hold_id, "lost")))

    async def give_undelivered(self, hold_id: str, now_us: int) -> None:
        await self._desk.write(self._sql.give_undelivered, {"hold": hold_id, "now": now_us})

    async def forget_undelivered(self, before_us: int) -> None:
        await self._desk.write(self._sql.forget_undelivered, {"before": before_us})

    async def forget_answers(self, before_us: int) -> None:
        given = {"before": before_us, "most": FORGOTTEN_AT_ONCE}
        for forget in (self._sql.forget_answers, self._sql.forget_key_uses):
            while await self._desk.write(forget, given) == FORGOTTEN_AT_ONCE:
                pass

    async def cached_answer(self, digest: bytes, now_us: int) -> CachedRow | None:
        return await self._desk.row(each(CachedRow), self._sql.cached_answer, {"digest": digest, "now": now_us})

    async def keep_cached(self, row: CachedRow) -> None:
        await self._desk.write(self._sql.put_cached, (*astuple(row), len(row.body)))

    async def sweep_cached(self, now_us: int, bytes_max: int) -> tuple[int, int]:
        def sweep(db: Db) -> tuple[int, int]:
            db.execute(self._sql.drop_expired, {"now": now_us})
            answers, size = db.execute(self._sql.measure_cached).fetchone()
            if size > bytes_max:
                db.execute(self._sql.drop_oldest_cached, {"most": int(bytes_max * SWEPT_TO)})
                answers, size = db.execute(self._sql.measure_cached).fetchone()
            return answers, size

        return await self._desk.change(sweep)

    async def open_orphans(self) -> list[HoldRow]:
        return await self._desk.do(self._open_orphans)

    def _open_orphans(self) -> list[HoldRow]:
        """The pending holds of processes that died (their locks are free), now open. `Reconciler` asks the upstream
        about those that have a generation's id; the others are an operator's to decide (`farebox reconcile`)."""
        self._life.renew()
        workers = [row[0] for row in self._desk.db.execute(self._sql.pending_workers)]
        gone = [worker for worker in workers if worker != self.worker and self.engine.is_gone(self._desk.db, worker)]
        if not gone:
            return []
        with self._desk.transaction() as db:
            rows = db.execute(self._sql.open_orphans, {"workers": json_text(gone)}).fetchall()
            orphans = [hold_from(row) for row in rows]
            # As everywhere: holds, balances, allowances. Behind the balance's lock none is being set up.
            account_ids = sorted({hold.account_id for hold in orphans})
            db.execute(self._sql.lock_balances, {"ids": json_text(account_ids)}).fetchall()
            left = Counter(owner for hold in orphans for owner in all_owners_of(hold))
            db.executemany(self._sql.not_served_any_more, [(count, owner) for owner, count in sorted(left.items())])
        self.engine.forget(gone)
        return orphans

    @property
    def worker(self) -> str:
        return self._worker

    @property
    def queued(self) -> int:
        """Commands that wait for the writer."""
        return self._writer.queued

    async def answer(self) -> None:
        await self._writer.ask()

    def watch_commits(self, committed: Callable[[int, float], None]) -> None:
        """Tell, on the writer's thread, of each transaction: its commands, and how many seconds it took."""
        self._committed = committed

    def _commit(self, batch: list[Command]) -> list[Outcome | Exception]:
        began = monotonic()
        try:
            outcomes = self._pages.carry_out(batch)
            self._committed(len(batch), monotonic() - began)
            return list(outcomes)
        except self.engine.unavailable as error:
            is_in_doubt = isinstance(error, InDoubt)
            said = self.engine.said(error)
            unavailable = BooksUnavailable(f"the books could not be written: {said}", is_in_doubt=is_in_doubt)
            return [unavailable for _ in batch]
        except Exception as error:  # noqa: BLE001 - the edge of the writer's thread, which must outlive it
            # A guard refused a row: the schema's or an assertion. One command's fault must not undo its neighbours'.
            if len(batch) == 1:
                # Another node may have booked the same top-up meanwhile: then it is there now.
                (command,) = batch
                if isinstance(command, TopUp) and isinstance(error, self.engine.conflicting):
                    return [self._again(command)]
                is_final = isinstance(error, self.engine.refusing) or not isinstance(error, self.engine.errors)
                if isinstance(command, Settle) and is_final:
                    return [self._left_open(command, error)]
                return [self._refused(error)]
            return [outcome for command in batch for outcome in self._commit([command])]

    def _look(self) -> Exception | None:
        """Why the books cannot be written now, if they cannot: a transaction that writes nothing."""
        try:
            with self.engine.transaction(self._writer_db):
                return None
        except self.engine.errors as error:
            return BooksUnavailable(f"the books cannot be written: {self.engine.said(error)}")
        except Exception as error:
            # The edge of the writer's thread, which must outlive it.
            log.error("the books cannot be written, for a reason that nobody foresaw", exc_info=error)
            return BooksUnavailable("the books cannot be written; the log says why")

    def _left_open(self, settle: Settle, error: Exception) -> Outcome | Exception:
        """Something that the answer said cannot be kept: its hold is left open for a person, rather than pending, which
        nobody would see."""
        log.error("the books refused the settlement of %s, which is left open", settle.hold_id, exc_info=error)
        told = (
            f"its cost is ${settle.verdict.amount:f}" if isinstance(settle.verdict, Cost) else "its cost is not known"
        )
        verdict = Unknown(f"{told}, and the books refused what else its answer said; the log says why")
        return self._again(Settle(settle.hold_id, verdict, settle.created_us))

    def _again(self, command: Command) -> Outcome | Exception:
        try:
            return self._pages.carry_out([command])[0]
        except Exception as error:  # noqa: BLE001 - as above
            return self._refused(error)

    def _refused(self, error: Exception) -> Exception:
        """A command's failure as who waits for it is told: whatever the database says, nothing was written."""
        if not isinstance(error, self.engine.errors):
            return error
        is_in_doubt = isinstance(error, InDoubt)
        return BooksUnavailable(f"the books refused it: {self.engine.said(error)}", is_in_doubt=is_in_doubt)
