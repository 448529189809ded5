"""Runs in the books' own database, and what they leave behind. They have a thread of their own there: runs do not wait
for orders, nor orders for runs longer than one transaction."""

import json
from collections.abc import Sequence
from typing import Any

from msgspec.structs import astuple

from farebox.core.callers import Account, Key
from farebox.core.runs import ANY_RUN, BilledEvents, ItemOutcome, LogLine, Record, Run, RunStatus, Which
from farebox.ports import TooLong
from farebox.store import sql
from farebox.store.desk import Desk
from farebox.store.engine import Engine

LINES_MAX = 1000

PAGE_BYTES_MAX = 64 * 1024 * 1024
"""How many bytes of items are in memory at once for one reader."""

_RUN = (
    "id, account_id, key_id, worker, status, status_message, origin, input, timeout_seconds, memory_mbytes,"
    " limit_nanos, dataset_id, store_id, queue_id, started_us, finished_us, exit_code"
)
_INSERT_RUN = f"INSERT INTO run ({_RUN}) VALUES ({sql.marks(_RUN)})"
_RUN_NAMED = f"SELECT {_RUN} FROM run WHERE account_id = :account AND :id IN (id, dataset_id, store_id, queue_id)"
_RUNS = f"SELECT {_RUN} FROM run WHERE {{}} ORDER BY started_us {{}}, id {{}} LIMIT :limit OFFSET :offset"
_COUNT_RUNS = "SELECT count(*) FROM run WHERE {}"
_CHANGE_RUN = (
    "UPDATE run SET status = ?, status_message = ?, finished_us = ?, exit_code = ? WHERE id = ? AND finished_us IS NULL"
)
_TELL_RUN = "UPDATE run SET status_message = ? WHERE id = ?"
_LIVE_WORKERS = "SELECT DISTINCT worker FROM run WHERE finished_us IS NULL"
_TAKE_UP = f"""
UPDATE run SET worker = :worker WHERE finished_us IS NULL AND worker IN (SELECT value FROM json_each(:gone))
RETURNING {_RUN}
"""
_PUSH = "INSERT INTO run_item (dataset_id, number, body) VALUES (?, ?, ?) ON CONFLICT DO NOTHING"
_ITEMS = "SELECT body FROM run_item WHERE dataset_id = ? ORDER BY number {} LIMIT ? OFFSET ?"
_SIZE_OF_ITEMS = """
SELECT CAST(coalesce(sum(size), 0) AS BIGINT) FROM (
    SELECT length(body) AS size FROM run_item WHERE dataset_id = ? ORDER BY number {} LIMIT ? OFFSET ?
) AS sizes
"""
_OUTCOMES = """
SELECT number, json_extract(text, '$.status'), json_extract(text, '$.cost_usd'), json_extract(text, '$.fare_events'),
json_extract(text, '$.fare_usd')
FROM (SELECT number, CAST(body AS TEXT) AS text FROM run_item WHERE dataset_id = ?) AS items
"""
_LAST_ITEM = "SELECT coalesce(max(number), 0) FROM run_item WHERE dataset_id = ?"
_CHARGE = "hold_id, run_id, idempotency_key, event, created_us"
_NOTE_CHARGE = f"INSERT INTO run_charge ({_CHARGE}) VALUES ({sql.marks(_CHARGE)})"
_CHARGE_NOTED = """
SELECT hold_id FROM run_charge WHERE run_id = :run AND idempotency_key = :key AND created_us > :since
ORDER BY created_us DESC LIMIT 1
"""
_CHARGED_EVENTS = """
SELECT c.event, CAST(sum(t.events) AS BIGINT) FROM run_charge c JOIN transfer t ON t.id = c.hold_id || '-end'
WHERE c.run_id = ?
GROUP BY c.event
"""
_COUNT_ITEMS = "SELECT count(*) FROM run_item WHERE dataset_id = ?"
_PUT_RECORD = """
INSERT INTO run_record (store_id, key, content_type, body) VALUES (?, ?, ?, ?) ON CONFLICT (store_id, key) DO UPDATE
SET content_type = excluded.content_type, body = excluded.body
"""
_RECORD = "SELECT key, content_type, body FROM run_record WHERE store_id = ? AND key = ?"
_RECORDS = "SELECT key, content_type, body FROM run_record WHERE store_id = ? ORDER BY key"
_ADD_LINE = """
INSERT INTO run_line (run_id, number, created_us, text)
SELECT :run, coalesce(max(number), 0) + 1, :now, :text FROM run_line WHERE run_id = :run
"""
_LINES = f"""
SELECT number, created_us, text FROM run_line WHERE run_id = ? AND number > ? ORDER BY number LIMIT {LINES_MAX}
"""
_OLD = "SELECT id, dataset_id, store_id FROM run WHERE finished_us < ? LIMIT 100"


class SqlRuns:
    """The `Runs` port over one database. `worker` is the process's name in the books, and its lock there."""

    def __init__(self, engine: Engine, worker: str) -> None:
        self._engine = engine
        self._worker = worker
        self._desk = Desk(engine, "farebox-runs")

    async def close(self) -> None:
        await self._desk.close()

    async def create_run(self, run: Run) -> None:
        await self._desk.write(_INSERT_RUN, astuple(run))

    async def run(self, account_id: int, run_id: str) -> Run | None:
        given = {"account": account_id, "id": run_id}
        rows = await self._desk.rows(_RUN_NAMED, given)
        return _run_from(rows[0]) if rows else None

    async def runs(
        self, account_id: int, offset: int, limit: int, *, desc: bool, which: Which = ANY_RUN
    ) -> tuple[list[Run], int]:
        order = "DESC" if desc else "ASC"
        where, asked = _where(account_id, which)

        def find() -> tuple[list[Run], int]:
            page = {**asked, "limit": limit, "offset": offset}
            rows = self._desk.db.execute(_RUNS.format(where, order, order), page).fetchall()
            (total,) = self._desk.db.execute(_COUNT_RUNS.format(where), asked).fetchone()
            return [_run_from(row) for row in rows], total

        return await self._desk.do(find)

    async def change_run(
        self, run_id: str, status: RunStatus, message: str, finished_us: int | None = None, exit_code: int | None = None
    ) -> bool:
        return await self._desk.write(_CHANGE_RUN, (status, message, finished_us, exit_code, run_id)) > 0

    async def tell_run(self, run_id: str, message: str) -> None:
        await self._desk.write(_TELL_RUN, (message, run_id))

    async def take_up_runs(self) -> list[Run]:
        def take() -> list[Run]:
            workers = [row[0] for row in self._desk.db.execute(_LIVE_WORKERS)]
            gone = [name for name in workers if name != self._worker and self._engine.is_gone(self._desk.db, name)]
            if not gone:
                return []
            with self._desk.transaction() as db:
                rows = db.execute(_TAKE_UP, {"worker": self._worker, "gone": json.dumps(gone)}).fetchall()
            return [_run_from(row) for row in rows]

        return await self._desk.do(take)

    async def push(self, dataset_id: str, number: int, body: bytes) -> None:
        await self._desk.write(_PUSH, (dataset_id, number, body))

    async def items(self, dataset_id: str, offset: int, limit: int, *, desc: bool) -> tuple[list[bytes], int]:
        def find() -> tuple[list[bytes], int]:
            order = "DESC" if desc else "ASC"
            (size,) = self._desk.db.execute(_SIZE_OF_ITEMS.format(order), (dataset_id, limit, offset)).fetchone()
            if size > PAGE_BYTES_MAX:
                raise TooLong(f"{size} bytes of items; at most {PAGE_BYTES_MAX} are given at once")
            statement = _ITEMS.format(order)
            rows = self._desk.db.execute(statement, (dataset_id, limit, offset)).fetchall()
            (total,) = self._desk.db.execute(_COUNT_ITEMS, (dataset_id,)).fetchone()
            return [row[0] for row in rows], total

        return await self._desk.do(find)

    async def item_count(self, dataset_id: str) -> int:
        row = await self._desk.do(lambda: self._desk.db.execute(_COUNT_ITEMS, (dataset_id,)).fetchone())
        return int(row[0])

    async def outcomes(self, dataset_id: str) -> list[ItemOutcome]:
        return [_outcome(*row) for row in await self._desk.rows(_OUTCOMES, (dataset_id,))]

    async def note_bill(self, bill: BilledEvents, since_us: int) -> str:
        def note() -> str:
            given = {"run": bill.run_id, "key": bill.idempotency_key, "since": since_us}
            with self._desk.transaction() as db:
                found = db.execute(_CHARGE_NOTED, given).fetchone()
                if found is not None:
                    return str(found[0])
                db.execute(_NOTE_CHARGE, astuple(bill))
            return bill.hold_id

        return await self._desk.do(note)

    async def billed_events(self, run_id: str) -> dict[str, int]:
        return dict(await self._desk.rows(_CHARGED_EVENTS, (run_id,)))

    async def append(self, dataset_id: str, bodies: list[bytes]) -> None:
        def append() -> None:
            with self._desk.transaction() as db:
                (last,) = db.execute(_LAST_ITEM, (dataset_id,)).fetchone()
                db.executemany(_PUSH, [(dataset_id, last + number, body) for number, body in enumerate(bodies, 1)])

        await self._desk.do(append)

    async def put_record(self, store_id: str, record: Record) -> None:
        await self._desk.write(_PUT_RECORD, (store_id, *astuple(record)))

    async def record(self, store_id: str, key: str) -> Record | None:
        rows = await self._desk.rows(_RECORD, (store_id, key))
        return Record(*rows[0]) if rows else None

    async def records(self, store_id: str) -> list[Record]:
        return await self._desk.do(lambda: [Record(*row) for row in self._desk.db.execute(_RECORDS, (store_id,))])

    async def add_line(self, run_id: str, created_us: int, text: str) -> None:
        await self._desk.write(_ADD_LINE, {"run": run_id, "now": created_us, "text": text})

    async def lines(self, run_id: str, after: int) -> list[LogLine]:
        return await self._desk.do(lambda: [LogLine(*row) for row in self._desk.db.execute(_LINES, (run_id, after))])

    async def forget_runs(self, before_us: int) -> None:
        def forget() -> int:
            rows = self._desk.db.execute(_OLD, (before_us,)).fetchall()
            with self._desk.transaction() as db:
                for run_id, dataset_id, store_id in rows:
                    db.execute("DELETE FROM run_item WHERE dataset_id = ?", (dataset_id,))
                    db.execute("DELETE FROM run_record WHERE store_id = ?", (store_id,))
                    db.execute("DELETE FROM run_line WHERE run_id = ?", (run_id,))
                    db.execute("DELETE FROM run_charge WHERE run_id = ?", (run_id,))
                    db.execute("DELETE FROM run WHERE id = ?", (run_id,))
            return len(rows)

        while await self._desk.do(forget):
            pass

    async def key_of_id(self, key_id: int) -> tuple[Account, Key] | None:
        rows = await self._desk.rows(sql.KEY_OF_ID, (key_id,))
        return sql.account_and_key_from(rows[0]) if rows else None


def _run_from(row: Sequence[Any]) -> Run:
    """A run from its columns, which are its fields in order."""
    return Run(**dict(zip(Run.__struct_fields__, row, strict=True)))


def _where(account_id: int, which: Which) -> tuple[str, dict[str, int | str]]:
    """SQL's condition for the runs that are asked for, and its parameters."""
    conditions, given = ["account_id = :account"], dict[str, int | str](account=account_id)
    if which.statuses:
        conditions.append("status IN (SELECT value FROM json_each(:statuses))")
        given["statuses"] = json.dumps(which.statuses)
    if which.origin:
        conditions.append("origin = :origin")
        given["origin"] = which.origin
    if which.since_us is not None:
        conditions.append("started_us >= :since")
        given["since"] = which.since_us
    if which.until_us is not None:
        conditions.append("started_us <= :until")
        given["until"] = which.until_us
    return " AND ".join(conditions), given


def _outcome(number: int, status: str, cost_usd: str | None, events: str | None, fare_usd: str | None) -> ItemOutcome:
    """An outcome from its columns: one engine gives numbers out of JSON as texts, the other as numbers."""
    return ItemOutcome(number, int(status), cost_usd, None if events is None else int(events), fare_usd)
