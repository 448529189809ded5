"""The reading side of the books: what stands in them, for statements, lists and audits."""

from collections.abc import Iterator, Sequence
from contextlib import closing, contextmanager

from farebox.core.audit import Snapshot
from farebox.core.books import (
    LAST_US,
    Activity,
    HoldRow,
    HoldState,
    NotEnded,
    Transfer,
    settlement_id,
)
from farebox.ports import BooksUnavailable
from farebox.store.desk import OnDesk
from farebox.store.rows import each, hold_from, json_text, number_from, transfer_from
from farebox.store.snapshots import HOLDS_AT_ONCE, Pieces, SqlSnapshot

ROWS_AT_ONCE = 10_000
"""Rows that one statement reads for a statement of account."""


class Reading(OnDesk):
    """The `Books` port, but for `answer`, which is the writer's."""

    async def transfers(self, account_id: int, since_us: int = 0, until_us: int = LAST_US) -> list[Transfer]:
        found: list[Transfer] = []
        given = {"account": account_id, "since": since_us, "after": "", "until": until_us, "most": ROWS_AT_ONCE}
        while rows := await self._desk.rows(transfer_from, self._sql.account_transfers, given):
            found += rows
            if len(rows) < ROWS_AT_ONCE:
                break
            given |= {"since": rows[-1].created_us, "after": rows[-1].id}
        return found

    async def orders(self, hold_ids: Sequence[str]) -> list[HoldRow]:
        found: list[HoldRow] = []
        for first in range(0, len(hold_ids), ROWS_AT_ONCE):
            some = {"ids": json_text(hold_ids[first : first + ROWS_AT_ONCE])}
            found += await self._desk.rows(hold_from, self._sql.holds_of, some)
        return found

    async def hold(self, hold_id: str) -> HoldRow | None:
        return await self._desk.row(hold_from, self._sql.hold, {"id": hold_id})

    async def transfers_of(self, ids: Sequence[str]) -> list[Transfer]:
        found = await self._desk.rows(transfer_from, self._sql.transfers_of, {"ids": json_text(ids)})
        return sorted(found, key=lambda transfer: transfer.id)

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
        return await self._with_end(self._sql.generation, {"account": account_id, "generation": generation_id})

    async def job(self, account_id: int, job_id: str) -> tuple[HoldRow, Transfer | None] | None:
        return await self._with_end(self._sql.job, {"account": account_id, "job": job_id})

    async def _with_end(self, statement: str, given: dict[str, object]) -> tuple[HoldRow, Transfer | None] | None:
        """The hold that a statement finds, and the transfer that ended it, if one has."""

        def find() -> tuple[HoldRow, Transfer | None] | None:
            if (row := self._desk.db.execute(statement, given).fetchone()) is None:
                return None
            hold = hold_from(row)
            end = self._desk.db.execute(self._sql.transfer, {"id": settlement_id(hold.id)}).fetchone()
            return hold, None if end is None else transfer_from(end)

        return await self._desk.do(find)

    async def spent_nanos(self, account_id: int, key_id: int | None, first_day: int) -> int:
        given = {"account": account_id, "key": key_id, "first": first_day}
        return sum(await self._desk.rows(number_from, self._sql.spent_since, given))

    async def spent_by_key(self, account_id: int, first_day: int) -> dict[int, tuple[int, int]]:
        given = {"account": account_id, "first": first_day}
        found = await self._desk.rows(tuple, self._sql.spent_by_key, given)
        return {key_id: (nanos, latest_us) for key_id, nanos, latest_us in found}

    async def given_back_nanos(self, account_id: int) -> int:
        (nanos,) = await self._desk.rows(number_from, self._sql.given_back, {"account": account_id})
        return nanos

    async def activity(
        self, account_id: int | None, key_id: int | None, first_day: int, last_day: int
    ) -> list[Activity]:
        given = {"account": account_id, "key": key_id, "first": first_day, "last": last_day}
        return await self._desk.rows(each(Activity), self._sql.activity, given)

    @contextmanager
    def snapshot(self) -> Iterator[Snapshot]:
        try:
            with closing(self.engine.connect()) as db, self.engine.snapshot(db) as rows:
                yield SqlSnapshot(rows, self._sql)
        except self.engine.errors as error:
            raise BooksUnavailable(f"the books could not be read: {self.engine.said(error)}") from error

    @contextmanager
    def in_pieces(self, now_us: int, holds_at_once: int = HOLDS_AT_ONCE) -> Iterator[Snapshot]:
        """All rows for an audit, and no moment of the books held for longer than the last minutes' rows take. Blocks.
        Raises BooksUnavailable."""
        try:
            with closing(self.engine.connect()) as db, closing(Pieces(self.engine, db, now_us, holds_at_once)) as rows:
                yield rows
        except self.engine.errors as error:
            raise BooksUnavailable(f"the books could not be read: {self.engine.said(error)}") from error
