"""The books in an SQL database: one writer a process, several processes on one database."""

import asyncio
import json
from collections import Counter
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from time import perf_counter
from typing import Self

from msgspec.structs import replace

from farebox.core.allowances import NO_LIMITS, PERIODS, Allowance, Limits, Period, began_us, owner_of
from farebox.core.books import (
    LAST_US,
    Activity,
    Balance,
    ChargedFare,
    Command,
    HoldRow,
    HoldState,
    KeptAnswer,
    KeyUse,
    NotEnded,
    Outcome,
    PlaceHold,
    TopUp,
    Transfer,
    account_of,
    hold_of,
    owners_of,
    settlement_id,
)
from farebox.core.callers import Account, Key, ManagementKey, PublishedPlans
from farebox.core.charges import Charge
from farebox.core.ledger import Page
from farebox.core.pricing import KeptPrices
from farebox.crash import crash_points
from farebox.ports import BooksUnavailable, NameTaken, Snapshot
from farebox.store import sql
from farebox.store.desk import Desk
from farebox.store.engine import Db, Engine, InDoubt
from farebox.store.threads import Worker
from farebox.store.writer import GroupWriter


class SqlStore:
    """Ledger, Directory and Books over one database.

    Commands go through the group writer. Everything else is rare and runs on one thread of its own, the desk.
    A `worker` is a process that places holds; as long as it lives, its holds are no orphans.
    """

    def __init__(self, engine: Engine, worker: str) -> None:
        self.engine = engine
        self.worker = worker
        self._desk = Desk(engine, "farebox-desk")
        self._writer_db = engine.connect()
        self._writer: GroupWriter | None = None
        self._life = engine.live(worker)
        self._committed: Callable[[int, float], None] = lambda commands, seconds: None
        self._notices = engine.notices()
        self._listening = Worker("farebox-notices")

    @classmethod
    async def open(cls, engine: Engine, worker: str) -> Self:
        """Open existing books. See farebox.store.prepare for making them. Raises BooksUnavailable."""
        try:
            store = cls(engine, worker)
        except engine.unavailable as error:
            raise BooksUnavailable(f"the books could not be opened: {error}") from error
        store._writer = GroupWriter(store._commit, "farebox-writer", store._look, engine.answer_seconds)
        return store

    async def close(self) -> None:
        """Write what has queued, and let go of the books; for a bounded time, where they do not answer."""
        assert self._writer is not None
        has_ended, _ = await asyncio.gather(self._writer.close(), self._desk.close())
        if has_ended:
            self._writer_db.close()
        self._life.release()
        # It may be waiting, and then ends by itself within the time that a wait takes.
        await self._listening.close(self._notices.close if self._notices else None)

    # Ledger

    async def carry_out(self, command: Command) -> Outcome:
        assert self._writer is not None
        return await self._writer.submit(command)

    async def balance(self, account_id: int) -> Balance:
        rows = await self._desk.rows(sql.BALANCES, (json.dumps([account_id]),))
        return Balance(*rows[0])

    async def claim_questions(self, now_us: int, until_us: int, most: int) -> list[HoldRow]:
        parameters = {"now": now_us, "until": until_us, "most": most}

        def claim() -> list[HoldRow]:
            # A look first: a transaction that writes nothing would still make every other writer wait.
            if self._desk.db.execute(sql.IS_QUESTION_DUE, parameters).fetchone() is None:
                return []
            with self._desk.transaction() as db:
                return [sql.hold_from(row) for row in db.execute(sql.CLAIM_QUESTIONS, parameters).fetchall()]

        return await self._desk.do(claim)

    async def kept_answer(self, hold_id: str) -> KeptAnswer | None:
        rows = await self._desk.rows(sql.ANSWER, (hold_id,))
        return KeptAnswer(*rows[0]) if rows else None

    async def forget_answers(self, before_us: int) -> None:
        # In portions, none of which takes as long as an answer of the books may.
        for forget in (sql.FORGET_ANSWERS, sql.FORGET_KEY_USES):
            while await self._desk.write(forget, (before_us, sql.FORGOTTEN_AT_ONCE)) == sql.FORGOTTEN_AT_ONCE:
                pass

    async def open_orphans(self) -> list[HoldRow]:
        return await self._desk.do(self._open_orphans)

    def _open_orphans(self) -> list[HoldRow]:
        self._life.renew()
        workers = [row[0] for row in self._desk.db.execute(sql.PENDING_WORKERS)]
        gone = [worker for worker in workers if worker != self.worker and self.engine.is_gone(self._desk.db, worker)]
        if not gone:
            return []
        with self._desk.transaction() as db:
            orphans = [sql.hold_from(row) for row in db.execute(sql.OPEN_ORPHANS, (json.dumps(gone),)).fetchall()]
            # As everywhere: holds, balances, allowances. Behind the balance's lock none is being set up.
            db.execute(sql.LOCK_BALANCES, (json.dumps(sorted({hold.account_id for hold in orphans})),)).fetchall()
            left = Counter(owner for hold in orphans for owner in owners_of(hold.account_id, hold.key_id))
            db.executemany(sql.NOT_SERVED_ANY_MORE, [(count, owner) for owner, count in sorted(left.items())])
        self.engine.forget(gone)
        return orphans

    @property
    def queued(self) -> int:
        """Commands that wait for the writer."""
        return self._writer.queued if self._writer is not None else 0

    async def answer(self) -> None:
        assert self._writer is not None
        await self._writer.ask()

    def watch_commits(self, committed: Callable[[int, float], None]) -> None:
        """Tell, on the writer's thread, of each transaction: its commands, and how many seconds it took."""
        self._committed = committed

    def _commit(self, batch: list[Command]) -> list[Outcome | Exception]:
        began = perf_counter()
        try:
            outcomes = self._commit_together(batch)
            self._committed(len(batch), perf_counter() - began)
            return list(outcomes)
        except self.engine.unavailable as error:
            is_in_doubt = isinstance(error, InDoubt)
            unavailable = BooksUnavailable(f"the books could not be written: {error}", is_in_doubt=is_in_doubt)
            return [unavailable for _ in batch]
        except Exception as error:  # noqa: BLE001 - the edge of the writer's thread, which must outlive it
            # A guard refused a row: the schema's or an assertion. One command's fault must not undo its neighbours'.
            if len(batch) == 1:
                # Another node may have booked the same top-up meanwhile: then it is there now.
                is_met = isinstance(batch[0], TopUp) and isinstance(error, self.engine.conflicting)
                return [self._again(batch[0])] if is_met else [error]
            return [outcome for command in batch for outcome in self._commit([command])]

    def _look(self) -> Exception | None:
        """Why the books cannot be written now, if they cannot: a transaction that writes nothing."""
        try:
            with self.engine.transaction(self._writer_db):
                return None
        except self.engine.unavailable as error:
            return BooksUnavailable(f"the books cannot be written: {error}")

    def _again(self, command: Command) -> Outcome | Exception:
        try:
            return self._commit_together([command])[0]
        except Exception as error:  # noqa: BLE001 - as above
            return error

    def _commit_together(self, batch: list[Command]) -> list[Outcome]:
        db = self._writer_db
        with self.engine.transaction(db):
            page = _read_page(db, batch)
            outcomes = [page.decide(command, self.worker) for command in batch]
            db.executemany(sql.INSERT_HOLD, map(sql.hold_row, page.new_holds))
            db.executemany(sql.INSERT_TRANSFER, map(sql.transfer_row, page.new_transfers))
            db.executemany(sql.UPDATE_HOLD, map(sql.hold_changes, page.changed_holds))
            db.executemany(sql.UPDATE_BALANCE, map(sql.balance_changes, page.changed_balances))
            if page.changed_allowances:
                db.executemany(sql.UPDATE_ALLOWANCE, map(sql.allowance_changes, page.changed_allowances))
            if page.new_uses:
                db.executemany(sql.PUT_KEY_USE, map(sql.key_use_row, page.new_uses))
            if page.kept_answers:
                db.executemany(sql.PUT_ANSWER, map(sql.answer_row, page.kept_answers))
            if page.charged_fares:
                db.executemany(sql.INSERT_CHARGED_FARE, map(sql.charged_fare_row, page.charged_fares))
            crash_points(batch, "before")
        crash_points(batch, "after")
        return outcomes

    # Directory

    async def create_account(self, name: str, plan: str, limit_nanos: int | None, created_us: int) -> Account:
        def create() -> Account:
            with self._desk.transaction() as db:
                (account_id,) = db.execute(sql.INSERT_ACCOUNT, (name, plan, created_us)).fetchone()
                db.execute(sql.INSERT_BALANCE, (account_id, limit_nanos))
                db.execute(sql.BUMP_REVISION)
            return Account(account_id, name, plan, created_us)

        try:
            return await self._desk.do(create)
        except self.engine.conflicting as error:
            raise NameTaken(name) from error

    async def accounts(self) -> list[Account]:
        return await self._desk.do(lambda: [sql.account_from(row) for row in self._desk.db.execute(sql.ACCOUNTS)])

    async def find_account(self, name: str) -> Account | None:
        rows = await self._desk.rows(sql.ACCOUNT_NAMED, (name,))
        return sql.account_from(rows[0]) if rows else None

    async def create_key(self, account_id: int, label: str, digest: bytes, hint: str, created_us: int) -> Key:
        def create() -> int:
            with self._desk.transaction() as db:
                (row_id,) = db.execute(sql.INSERT_KEY, (account_id, label, digest, hint, created_us)).fetchone()
                db.execute(sql.BUMP_REVISION)
            return int(row_id)

        key_id = await self._desk.do(create)
        return Key(key_id, account_id, label, digest, hint, created_us)

    async def keys(self, account_id: int) -> list[Key]:
        return [sql.key_from(row) for row in await self._desk.rows(sql.KEYS, (account_id,))]

    async def find_key(self, digest: bytes) -> tuple[Account, Key] | None:
        rows = await self._desk.rows(sql.KEY_OF_DIGEST, (digest,))
        return sql.account_and_key_from(rows[0]) if rows else None

    async def change_key(self, key: Key) -> None:
        def change() -> None:
            with self._desk.transaction() as db:
                db.execute(sql.CHANGE_KEY, sql.key_changes(key))
                db.execute(sql.BUMP_REVISION)

        await self._desk.do(change)

    async def allowance(self, owner: str) -> Allowance | None:
        rows = await self._desk.rows(sql.ALLOWANCES, (json.dumps([owner]),))
        return sql.allowance_from(rows[0]) if rows else None

    async def set_limits(self, account_id: int, key_id: int | None, limits: Limits, now_us: int) -> None:
        owner = owner_of("account", account_id) if key_id is None else owner_of("key", key_id)

        def change() -> None:
            with self._desk.transaction() as db:
                # Every order of the account waits here, so none is left out of what is counted, or counted twice.
                db.execute(sql.LOCK_BALANCES, (json.dumps([account_id]),)).fetchall()
                before = [sql.allowance_from(row) for row in db.execute(sql.ALLOWANCES, (json.dumps([owner]),))]
                db.execute(sql.DROP_ALLOWANCE, (owner,))
                if limits != NO_LIMITS:
                    minute = before[0].minute if before else ()
                    found = _count(db, Allowance(owner, account_id, limits, minute=minute), key_id, now_us)
                    db.execute(sql.INSERT_ALLOWANCE, sql.allowance_row(found))
                db.execute(sql.BUMP_REVISION)

        await self._desk.do(change)

    async def create_management_key(
        self, label: str, digest: bytes, hint: str, account_id: int | None, created_us: int
    ) -> ManagementKey:
        given = (label, digest, hint, account_id, created_us)

        def create() -> int:
            with self._desk.transaction() as db:
                return int(db.execute(sql.INSERT_MANAGEMENT_KEY, given).fetchone()[0])

        return ManagementKey(await self._desk.do(create), *given)

    async def management_keys(self) -> list[ManagementKey]:
        return [ManagementKey(*row) for row in await self._desk.rows(sql.MANAGEMENT_KEYS)]

    async def find_management_key(self, digest: bytes) -> ManagementKey | None:
        rows = await self._desk.rows(sql.MANAGEMENT_KEY_OF_DIGEST, (digest,))
        return ManagementKey(*rows[0]) if rows else None

    async def revoke_management_key(self, key_id: int, revoked_us: int) -> None:
        await self._desk.write(sql.REVOKE_MANAGEMENT_KEY, (revoked_us, key_id))

    async def published_plans(self) -> PublishedPlans | None:
        rows = await self._desk.rows(sql.PUBLISHED_PLANS)
        return sql.published_from(rows[0]) if rows else None

    async def publish_plans(self, published: PublishedPlans) -> None:
        def publish() -> None:
            with self._desk.transaction() as db:
                # First, so that of two that publish at once one waits here, and one row is left.
                db.execute(sql.BUMP_REVISION)
                db.execute(sql.DROP_PUBLISHED_PLANS)
                db.execute(sql.PUBLISH_PLANS, sql.published_row(published))

        await self._desk.do(publish)

    async def revision(self) -> int:
        row = await self._desk.do(lambda: self._desk.db.execute(sql.REVISION).fetchone())
        return int(row[0])

    async def kept_prices(self, source: str, after_us: int) -> KeptPrices | None:
        rows = await self._desk.rows(sql.KEPT_PRICES, (source, after_us))
        return sql.prices_from(rows[0]) if rows else None

    async def claim_prices(self, source: str, now_us: int, until_us: int) -> bool:
        given = {"source": source, "now": now_us, "until": until_us}
        return await self._desk.write(sql.CLAIM_PRICES, given) == 1

    async def keep_prices(self, source: str, kept: KeptPrices) -> None:
        await self._desk.write(sql.KEEP_PRICES, sql.prices_row(source, kept))

    async def wait_for_change(self, seconds: float) -> None:
        if self._notices is None:
            await asyncio.sleep(seconds)
        else:
            notices = self._notices
            await self._listening.do(lambda: notices.wait(seconds))

    # Books

    async def transfers(self, account_id: int, since_us: int = 0, until_us: int = LAST_US) -> list[Transfer]:
        parameters = {"account": account_id, "since": since_us, "until": until_us}
        return await self._desk.do(
            lambda: [sql.transfer_from(row) for row in self._desk.db.execute(sql.ACCOUNT_TRANSFERS, parameters)]
        )

    async def orders(self, account_id: int, since_us: int, until_us: int) -> list[HoldRow]:
        parameters = {"account": account_id, "since": since_us, "until": until_us}
        return await self._desk.do(
            lambda: [sql.hold_from(row) for row in self._desk.db.execute(sql.ACCOUNT_ORDERS, parameters)]
        )

    async def hold(self, hold_id: str) -> HoldRow | None:
        rows = await self._desk.rows(sql.HOLDS_OF, (json.dumps([hold_id]),))
        return sql.hold_from(rows[0]) if rows else None

    async def holds(self, states: tuple[HoldState, ...]) -> list[HoldRow]:
        statement = sql.HOLDS_NOT_ENDED if set(states) <= {"pending", "open"} else sql.HOLDS_IN
        return [sql.hold_from(row) for row in await self._desk.rows(statement, {"states": json.dumps(states)})]

    async def not_ended(self) -> NotEnded:
        return NotEnded(*await self._desk.do(lambda: self._desk.db.execute(sql.COUNT_NOT_ENDED).fetchone()))

    async def untold_since_us(self) -> int | None:
        row = await self._desk.do(lambda: self._desk.db.execute(sql.UNTOLD_SINCE).fetchone())
        return None if row[0] is None else int(row[0])

    async def generation(self, account_id: int, generation_id: str) -> tuple[HoldRow, Transfer | None] | None:
        def find() -> tuple[HoldRow, Transfer | None] | None:
            rows = self._desk.db.execute(sql.GENERATION, (generation_id, account_id)).fetchall()
            if not rows:
                return None
            hold = sql.hold_from(rows[0])
            ends = self._desk.db.execute(sql.TRANSFERS_OF, (json.dumps([settlement_id(hold.id)]),)).fetchall()
            return hold, sql.transfer_from(ends[0]) if ends else None

        return await self._desk.do(find)

    async def usage_nanos(self, account_id: int, key_id: int | None, since_us: int) -> int:
        parameters = {"account": account_id, "key": key_id, "since": since_us}
        row = await self._desk.do(lambda: self._desk.db.execute(sql.USAGE, parameters).fetchone())
        return int(row[0])

    async def usage_by_key(self, account_id: int, since_us: int) -> dict[int, tuple[int, int]]:
        rows = await self._desk.rows(sql.USAGE_BY_KEY, {"account": account_id, "since": since_us})
        return {key_id: (int(nanos), latest_us) for key_id, nanos, latest_us in rows}

    async def activity(
        self, account_id: int | None, key_id: int | None, since_us: int, until_us: int
    ) -> list[Activity]:
        given = {"account": account_id, "key": key_id, "since": since_us, "until": until_us}
        return [Activity(*row) for row in await self._desk.rows(sql.ACTIVITY, given)]

    @contextmanager
    def snapshot(self) -> Iterator[Snapshot]:
        db = self.engine.connect()
        try:
            with self.engine.snapshot(db) as rows:
                yield SqlSnapshot(rows)
        finally:
            db.close()


class SqlSnapshot:
    """All rows that a connection reads at one moment."""

    def __init__(self, db: Db) -> None:
        self._db = db

    def transfers(self) -> Iterator[Transfer]:
        return map(sql.transfer_from, self._db.execute(sql.ALL_TRANSFERS))

    def holds(self) -> Iterator[HoldRow]:
        return map(sql.hold_from, self._db.execute(sql.ALL_HOLDS))

    def balances(self) -> Iterator[Balance]:
        return (Balance(*row) for row in self._db.execute(sql.ALL_BALANCES))

    def charged_fares(self) -> Iterator[ChargedFare]:
        return (ChargedFare(*row) for row in self._db.execute(sql.ALL_CHARGED_FARES))

    def charges(self) -> Iterator[Charge]:
        return map(sql.charge_from, self._db.execute(sql.ALL_CHARGES))

    def allowances(self) -> Iterator[Allowance]:
        return map(sql.allowance_from, self._db.execute(sql.ALL_ALLOWANCES))


def _count(db: Db, allowance: Allowance, key_id: int | None, now_us: int) -> Allowance:
    """An allowance with all that counts against it, from the ledger."""
    given = {"account": allowance.account_id, "key": key_id}

    def spent(period: Period) -> int:
        return int(db.execute(sql.USAGE, {**given, "since": began_us(period, now_us)}).fetchone()[0])

    pending, at_once = db.execute(sql.HELD_NOW, given).fetchone()
    day, week, month, total = (spent(period) for period in PERIODS)
    return replace(
        allowance,
        pending_nanos=pending,
        at_once=at_once,
        day_nanos=day,
        week_nanos=week,
        month_nanos=month,
        total_nanos=total,
        counted_us=now_us,
    )


def _read_page(db: Db, batch: list[Command]) -> Page:
    """What the batch changes, locked where others may write at the same time: holds first, then balances, then
    allowances. A key's use is its account's, and safe under the balance's lock; the hold behind it is only looked
    at."""
    hold_ids = [hold_id for command in batch if (hold_id := hold_of(command))]
    holds = [sql.hold_from(row) for row in db.execute(sql.LOCK_HOLDS, (json.dumps(hold_ids),))] if hold_ids else []
    account_ids = {hold.account_id for hold in holds}
    account_ids.update(account_id for command in batch if (account_id := account_of(command)) is not None)
    balances = [Balance(*row) for row in db.execute(sql.LOCK_BALANCES, (json.dumps(list(account_ids)),))]
    owners = {owner for hold in holds for owner in owners_of(hold.account_id, hold.key_id)}
    for command in batch:
        if isinstance(command, PlaceHold):
            owners.update(owners_of(command.account_id, command.key_id))
    allowances = [sql.allowance_from(row) for row in db.execute(sql.LOCK_ALLOWANCES, (json.dumps(list(owners)),))]
    uses = [
        KeyUse(*row)
        for command in batch
        if isinstance(command, PlaceHold) and command.repeatable is not None
        for row in db.execute(sql.KEY_USE, (command.account_id, command.repeatable.key_digest))
    ]
    if used := [use.hold_id for use in uses if use.hold_id not in hold_ids]:
        holds += [sql.hold_from(row) for row in db.execute(sql.HOLDS_OF, (json.dumps(used),))]
    repeated = [command.id for command in batch if isinstance(command, TopUp)]
    repeated += [settlement_id(hold.id) for hold in holds if hold.state in ("posted", "voided")]
    booked = (
        [sql.transfer_from(row) for row in db.execute(sql.TRANSFERS_OF, (json.dumps(repeated),))] if repeated else []
    )
    return Page(balances, holds, booked, uses, allowances)
