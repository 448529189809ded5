"""The books in an SQL database: one writer a process, several processes on one database."""

import json
from collections.abc import Iterator
from contextlib import contextmanager
from typing import Self

from farebox.core.charges import Charge
from farebox.core.ledger import (
    Balance,
    ChargedFare,
    Command,
    HoldRow,
    HoldState,
    KeptAnswer,
    KeyUse,
    Outcome,
    Page,
    PlaceHold,
    TopUp,
    Transfer,
    account_of,
    hold_of,
    settlement_id,
)
from farebox.crash import crash_points
from farebox.ports import Account, BooksUnavailable, Key, NameTaken, NotEnded, Snapshot
from farebox.store import sql
from farebox.store.desk import Desk
from farebox.store.engine import Db, Engine, InDoubt
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

    @classmethod
    async def open(cls, engine: Engine, worker: str) -> Self:
        """Open existing books. See farebox.store.prepare for making them."""
        store = cls(engine, worker)
        store._writer = GroupWriter(store._commit, "farebox-writer")
        return store

    async def close(self) -> None:
        assert self._writer is not None
        await self._writer.close()
        await self._desk.close()
        self._writer_db.close()
        self._life.release()

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
        def forget() -> None:
            with self._desk.transaction() as db:
                db.execute(sql.FORGET_ANSWERS, (before_us,))
                db.execute(sql.FORGET_KEY_USES, (before_us,))

        await self._desk.do(forget)

    async def open_orphans(self) -> list[HoldRow]:
        return await self._desk.do(self._open_orphans)

    def _open_orphans(self) -> list[HoldRow]:
        self._life.renew()
        workers = [row[0] for row in self._desk.db.execute(sql.PENDING_WORKERS)]
        gone = [worker for worker in workers if worker != self.worker and self.engine.is_gone(self._desk.db, worker)]
        if not gone:
            return []
        with self._desk.transaction():
            rows = self._desk.db.execute(sql.OPEN_ORPHANS, (json.dumps(gone),)).fetchall()
        self.engine.forget(gone)
        return [sql.hold_from(row) for row in rows]

    def _commit(self, batch: list[Command]) -> list[Outcome | Exception]:
        try:
            return list(self._commit_together(batch))
        except self.engine.unavailable as error:
            is_in_doubt = isinstance(error, InDoubt)
            unavailable = BooksUnavailable(f"the books could not be written: {error}", is_in_doubt=is_in_doubt)
            return [unavailable for _ in batch]
        except Exception as error:  # noqa: BLE001 - the edge of the writer's thread, which must outlive it
            # A guard refused a row: the schema's or an assertion. One command's fault must not undo its neighbours'.
            if len(batch) == 1:
                return [error]
            return [outcome for command in batch for outcome in self._commit([command])]

    def _commit_together(self, batch: list[Command]) -> list[Outcome]:
        db = self._writer_db
        with self.engine.transaction(db):
            page = _read_page(db, batch)
            outcomes = [page.decide(command, self.worker) for command in batch]
            db.executemany(sql.INSERT_HOLD, map(sql.hold_row, page.new_holds))
            db.executemany(sql.INSERT_TRANSFER, map(sql.transfer_row, page.new_transfers))
            db.executemany(sql.UPDATE_HOLD, map(sql.hold_changes, page.changed_holds))
            db.executemany(sql.UPDATE_BALANCE, map(sql.balance_changes, page.changed_balances))
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
        return await self._desk.do(lambda: [Account(*row) for row in self._desk.db.execute(sql.ACCOUNTS)])

    async def find_account(self, name: str) -> Account | None:
        rows = await self._desk.rows(sql.ACCOUNT_NAMED, (name,))
        return Account(*rows[0]) if rows else None

    async def create_key(self, account_id: int, label: str, digest: bytes, hint: str, created_us: int) -> Key:
        def create() -> int:
            with self._desk.transaction() as db:
                (row_id,) = db.execute(sql.INSERT_KEY, (account_id, label, digest, hint, created_us)).fetchone()
                db.execute(sql.BUMP_REVISION)
            return int(row_id)

        key_id = await self._desk.do(create)
        return Key(key_id, account_id, label, digest, hint, created_us)

    async def keys(self, account_id: int) -> list[Key]:
        return await self._desk.do(lambda: [Key(*row) for row in self._desk.db.execute(sql.KEYS, (account_id,))])

    async def find_key(self, digest: bytes) -> tuple[Account, Key] | None:
        rows = await self._desk.rows(sql.KEY_OF_DIGEST, (digest,))
        return (Account(*rows[0][:4]), Key(*rows[0][4:])) if rows else None

    async def revoke_key(self, key_id: int, revoked_us: int) -> None:
        def revoke() -> None:
            with self._desk.transaction() as db:
                db.execute(sql.REVOKE_KEY, (revoked_us, key_id))
                db.execute(sql.BUMP_REVISION)

        await self._desk.do(revoke)

    async def revision(self) -> int:
        row = await self._desk.do(lambda: self._desk.db.execute(sql.REVISION).fetchone())
        return int(row[0])

    # Books

    async def transfers(self, account_id: int) -> list[Transfer]:
        parameters = {"account": account_id}
        return await self._desk.do(
            lambda: [sql.transfer_from(row) for row in self._desk.db.execute(sql.ACCOUNT_TRANSFERS, parameters)]
        )

    async def holds(self, states: tuple[HoldState, ...], account_id: int | None = None) -> list[HoldRow]:
        parameters = {"states": json.dumps(states), "account": account_id}
        return await self._desk.do(
            lambda: [sql.hold_from(row) for row in self._desk.db.execute(sql.HOLDS_IN, parameters)]
        )

    async def not_ended(self) -> NotEnded:
        return NotEnded(*await self._desk.do(lambda: self._desk.db.execute(sql.COUNT_NOT_ENDED).fetchone()))

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

    @contextmanager
    def snapshot(self) -> Iterator[Snapshot]:
        db = self.engine.connect()
        try:
            with self.engine.snapshot(db):
                yield SqlSnapshot(db)
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


def _read_page(db: Db, batch: list[Command]) -> Page:
    """What the batch changes, locked where others may write at the same time: holds first, then balances. A key's use
    is its account's, and safe under the balance's lock; the hold behind it is only looked at."""
    hold_ids = [hold_id for command in batch if (hold_id := hold_of(command))]
    holds = [sql.hold_from(row) for row in db.execute(sql.LOCK_HOLDS, (json.dumps(hold_ids),))] if hold_ids else []
    account_ids = {hold.account_id for hold in holds}
    account_ids.update(account_id for command in batch if (account_id := account_of(command)) is not None)
    balances = [Balance(*row) for row in db.execute(sql.LOCK_BALANCES, (json.dumps(list(account_ids)),))]
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
    return Page(balances, holds, booked, uses)
