"""The reading side of the books: what stands in them, for statements, lists and audits."""

from collections.abc import Iterator
from contextlib import closing, contextmanager

from farebox.core.allowances import Allowance
from farebox.core.audit import Snapshot
from farebox.core.books import (
    LAST_US,
    Activity,
    Balance,
    ChargedFare,
    HoldRow,
    HoldState,
    NotEnded,
    Transfer,
    settlement_id,
)
from farebox.core.charges import Charge
from farebox.ports import BooksUnavailable
from farebox.store.desk import OnDesk
from farebox.store.engine import Reader
from farebox.store.rows import allowance_from, each, hold_from, json_text, number_from, transfer_from
from farebox.store.sql import Statements


class Reading(OnDesk):
    """The `Books` port, but for `answer`, which is the writer's."""

    async def transfers(self, account_id: int, since_us: int = 0, until_us: int = LAST_US) -> list[Transfer]:
        given = {"account": account_id, "since": since_us, "until": until_us}
        return await self._desk.rows(transfer_from, self._sql.account_transfers, given)

    async def orders(self, account_id: int, since_us: int, until_us: int) -> list[HoldRow]:
        given = {"account": account_id, "since": since_us, "until": until_us}
        return await self._desk.rows(hold_from, self._sql.account_orders, given)

    async def hold(self, hold_id: str) -> HoldRow | None:
        return await self._desk.row(hold_from, self._sql.hold, {"id": hold_id})

    async def holds(self, states: tuple[HoldState, ...]) -> list[HoldRow]:
        statement = self._sql.holds_not_ended if set(states) <= {"pending", "open"} else self._sql.holds_in
        return await self._desk.rows(hold_from, statement, {"states": json_text(states)})

    async def not_ended(self) -> NotEnded:
        (counts,) = await self._desk.rows(each(NotEnded), self._sql.count_not_ended)
        return counts

    async def untold_since_us(self) -> int | None:
        ((since_us,),) = await self._desk.rows(tuple, self._sql.untold_since)
        return None if since_us is None else int(since_us)

    async def generation(self, account_id: int, generation_id: str) -> tuple[HoldRow, Transfer | None] | None:
        def find() -> tuple[HoldRow, Transfer | None] | None:
            given = {"account": account_id, "generation": generation_id}
            if (row := self._desk.db.execute(self._sql.generation, given).fetchone()) is None:
                return None
            hold = hold_from(row)
            end = self._desk.db.execute(self._sql.transfer, {"id": settlement_id(hold.id)}).fetchone()
            return hold, None if end is None else transfer_from(end)

        return await self._desk.do(find)

    async def usage_nanos(self, account_id: int, key_id: int | None, since_us: int) -> int:
        given = {"account": account_id, "key": key_id, "since": since_us}
        (nanos,) = await self._desk.rows(number_from, self._sql.usage, given)
        return nanos

    async def usage_by_key(self, account_id: int, since_us: int) -> dict[int, tuple[int, int]]:
        given = {"account": account_id, "since": since_us}
        rows = await self._desk.rows(tuple, self._sql.usage_by_key, given)
        return {key_id: (nanos, latest_us) for key_id, nanos, latest_us in rows}

    async def activity(
        self, account_id: int | None, key_id: int | None, since_us: int, until_us: int
    ) -> list[Activity]:
        given = {"account": account_id, "key": key_id, "since": since_us, "until": until_us}
        return await self._desk.rows(each(Activity), self._sql.activity, given)

    @contextmanager
    def snapshot(self) -> Iterator[Snapshot]:
        try:
            with closing(self.engine.connect()) as db, self.engine.snapshot(db) as rows:
                yield SqlSnapshot(rows, self._sql)
        except self.engine.errors as error:
            raise BooksUnavailable(f"the books could not be read: {self.engine.said(error)}") from error


class SqlSnapshot:
    """All rows that a connection reads at one moment."""

    def __init__(self, db: Reader, sql: Statements) -> None:
        self._db = db
        self._sql = sql

    def transfers(self) -> Iterator[Transfer]:
        return map(transfer_from, self._db.execute(self._sql.all_transfers))

    def holds(self) -> Iterator[HoldRow]:
        return map(hold_from, self._db.execute(self._sql.all_holds))

    def balances(self) -> Iterator[Balance]:
        return map(each(Balance), self._db.execute(self._sql.all_balances))

    def charged_fares(self) -> Iterator[ChargedFare]:
        return map(each(ChargedFare), self._db.execute(self._sql.all_charged_fares))

    def charges(self) -> Iterator[Charge]:
        return map(each(Charge), self._db.execute(self._sql.all_charges))

    def allowances(self) -> Iterator[Allowance]:
        return map(allowance_from, self._db.execute(self._sql.all_allowances))
