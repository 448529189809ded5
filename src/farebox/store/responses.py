"""Answers in Responses that are kept for their accounts. What is kept with a settlement is written in `pages.py`."""

from collections.abc import Sequence

from farebox.core.stored import StoredRow
from farebox.store.desk import OnDesk
from farebox.store.engine import Db
from farebox.store.rows import number_from, stored_end, stored_from, stored_row

SWEPT_AT_ONCE = 1_000
"""Rows in one transaction: each may be some megabytes."""


class SqlResponses(OnDesk):
    """The `ResponseShelf` port."""

    @property
    def worker(self) -> str:
        raise NotImplementedError

    async def stored(self, account_id: int, response_id: str, now_us: int) -> StoredRow | None:
        given = {"account": account_id, "id": response_id, "now": now_us}
        return await self._desk.row(stored_from, self._sql.stored, given)

    async def stored_chain(self, account_id: int, response_id: str, now_us: int, most: int) -> list[StoredRow]:
        given = {"account": account_id, "id": response_id, "now": now_us, "most": most}
        return await self._desk.rows(_without_events, self._sql.stored_chain, given)

    async def keep_stored(self, row: StoredRow) -> None:
        await self._desk.write(self._sql.put_stored, stored_row(row))

    async def begin_stored(self, row: StoredRow) -> bool:
        return await self._desk.write(self._sql.begin_stored, stored_row(row)) == 1

    async def end_stored(self, row: StoredRow) -> bool:
        return await self._desk.write(self._sql.end_stored, stored_end(row)) == 1

    async def go_on_stored(self, account_id: int, response_ids: Sequence[str], until_us: int) -> None:
        def go_on(db: Db) -> None:
            for response_id in sorted(response_ids):
                db.execute(self._sql.keep_stored_until, {"account": account_id, "id": response_id, "until": until_us})

        await self._desk.change(go_on)

    async def delete_stored(self, account_id: int, response_id: str, now_us: int) -> bool:
        given = {"account": account_id, "id": response_id, "now": now_us}
        return await self._desk.write(self._sql.delete_stored, given) == 1

    async def measure_stored(self, account_id: int) -> int:
        (size,) = await self._desk.rows(number_from, self._sql.measure_stored, {"account": account_id})
        return size

    async def sweep_stored(self, now_us: int) -> None:
        given = {"now": now_us, "most": SWEPT_AT_ONCE}
        while await self._desk.write(self._sql.drop_expired_stored, given) == SWEPT_AT_ONCE:
            pass

    async def stored_orphans(self) -> list[StoredRow]:
        def look() -> list[StoredRow]:
            db = self._desk.db
            rows = [_without_events(row) for row in db.execute(self._sql.stored_running)]
            gone = {
                worker
                for worker in {row.worker for row in rows}
                if worker is not None and worker != self.worker and self.engine.is_gone(db, worker)
            }
            return [row for row in rows if row.worker in gone]

        return await self._desk.do(look)

    async def stored_running(self) -> list[tuple[int, str]]:
        rows = await self._desk.rows(_without_events, self._sql.stored_running)
        return [(row.account_id, row.id) for row in rows if row.worker == self.worker]


def _without_events(row: Sequence[object]) -> StoredRow:
    return stored_from((*row, None))
