"""Runs in the books' own database, and what they leave behind. They have a thread of their own there: runs do not wait
for orders, nor orders for runs longer than one transaction."""

import json
from collections import Counter
from decimal import Decimal

from msgspec.structs import astuple

from farebox.batch.entries import ORDERS_MAX
from farebox.core.books import LAST_US
from farebox.core.callers import Account, Key
from farebox.core.money import events_ceil
from farebox.core.runs import ANY_RUN, BilledEvents, ItemOutcome, LogLine, Record, Run, RunFilter, RunStatus
from farebox.store.desk import OnDesk
from farebox.store.engine import Db, Engine
from farebox.store.rows import Row, account_and_key_from, each, number_from

LINES_MAX = 1000

PAGE_BYTES_MAX = 64 * 1024 * 1024
"""How many bytes of items are in memory at once for one reader."""


class TooLong(Exception):  # noqa: N818 - the word of the house
    """The items that were asked for at once are too long for memory; the message says how long they may be."""


class SqlRuns(OnDesk):
    """Runs, and their datasets, key-value stores and logs, over one database. `worker` is the process's name in the
    books, and its lock there. Each method raises BooksUnavailable."""

    def __init__(self, engine: Engine, worker: str) -> None:
        super().__init__(engine, "farebox-runs")
        self._worker = worker

    async def create_run(self, run: Run, given: bytes = b"") -> None:
        """A run, and the input that it is begun with. That stands in its store, under a key that no record has: in the
        run's own row it would be read, and written again, with each of its messages. What stands there is no input: an
        older node that takes the run up fails it, and does not take it for one without orders."""

        def create(db: Db) -> None:
            db.execute(self._sql.insert_run, astuple(run))
            db.execute(self._sql.put_record, (run.store_id, "", "application/json", given))

        await self._desk.change(create)

    async def input_of(self, run_id: str) -> bytes:
        """What a run was begun with."""
        (found,) = await self._desk.rows(tuple, self._sql.run_input, {"id": run_id})
        return bytes(found[0])

    async def run(self, account_id: int, run_id: str) -> Run | None:
        """An account's own run, by its id or that of its dataset, key-value store or request queue."""
        return await self._desk.row(_run_from, self._sql.run_named, {"account": account_id, "id": run_id})

    async def runs(
        self, account_id: int, offset: int, limit: int, *, desc: bool, which: RunFilter = ANY_RUN
    ) -> tuple[list[Run], int]:
        """A page of those of an account's runs, ordered by their start, and how many there are in all."""
        statement = self._sql.runs_backward if desc else self._sql.runs_forward
        asked = {
            "account": account_id,
            "statuses": json.dumps(which.statuses),
            "origin": which.origin,
            "since": 0 if which.since_us is None else which.since_us,
            "until": LAST_US if which.until_us is None else which.until_us,
        }

        def find() -> tuple[list[Run], int]:
            rows = self._desk.db.execute(statement, {**asked, "limit": limit, "offset": offset}).fetchall()
            (total,) = self._desk.db.execute(self._sql.count_runs, asked).fetchone()
            return [_run_from(row) for row in rows], total

        return await self._desk.do(find)

    async def change_run(
        self, run_id: str, status: RunStatus, message: str, finished_us: int | None = None, exit_code: int | None = None
    ) -> bool:
        """Set a run's status and message. Returns False, and changes nothing, where the run has finished."""
        given = {"status": status, "message": message, "finished": finished_us, "exit_code": exit_code, "id": run_id}
        return await self._desk.write(self._sql.change_run, given) > 0

    async def tell_run(self, run_id: str, message: str) -> None:
        """Set a run's status message, whatever its status."""
        await self._desk.write(self._sql.tell_run, {"message": message, "id": run_id})

    async def take_up_runs(self) -> list[Run]:
        """Take over the unfinished runs of processes that died, and return them."""

        def take() -> list[Run]:
            workers = [row[0] for row in self._desk.db.execute(self._sql.live_run_workers)]
            gone = [name for name in workers if name != self._worker and self.engine.is_gone(self._desk.db, name)]
            if not gone:
                return []
            with self._desk.transaction() as db:
                given = {"worker": self._worker, "gone": json.dumps(gone)}
                return [_run_from(row) for row in db.execute(self._sql.take_up_runs, given).fetchall()]

        return await self._desk.do(take)

    async def push(self, dataset_id: str, number: int, body: bytes) -> None:
        """Put an item at its place in a dataset; one that is there already stays."""
        await self._desk.write(self._sql.push_item, (dataset_id, number, body))

    async def items(self, dataset_id: str, offset: int, limit: int, *, desc: bool) -> tuple[list[bytes], int]:
        """A page of a dataset, and how many items it has. Raises TooLong."""
        sql = self._sql
        statement, size_of = (
            (sql.items_backward, sql.size_of_items_backward) if desc else (sql.items_forward, sql.size_of_items_forward)
        )
        given = {"dataset": dataset_id, "limit": limit, "offset": offset}

        def find() -> tuple[list[bytes], int]:
            (size,) = self._desk.db.execute(size_of, given).fetchone()
            if size > PAGE_BYTES_MAX:
                raise TooLong(f"{size} bytes of items; at most {PAGE_BYTES_MAX} are given at once")
            bodies = [body for (body,) in self._desk.db.execute(statement, given)]
            (total,) = self._desk.db.execute(sql.count_items, {"dataset": dataset_id}).fetchone()
            return bodies, total

        return await self._desk.do(find)

    async def item_count(self, dataset_id: str) -> int:
        (count,) = await self._desk.rows(number_from, self._sql.count_items, {"dataset": dataset_id})
        return count

    async def outcomes(self, dataset_id: str) -> list[ItemOutcome]:
        """What became of each order that has its item in a dataset; without the answers, which may be long."""
        given = {"dataset": dataset_id, "most": ORDERS_MAX}
        return await self._desk.rows(each(_outcome), self._sql.item_outcomes, given)

    async def note_bill(self, bill: BilledEvents, since_us: int) -> str:
        """Write down that a run is billed, and return the id of the hold for it: that of the run's earlier bill under
        the same idempotency key, if one was noted since `since_us`."""

        def note() -> str:
            given = {"run": bill.run_id, "key": bill.idempotency_key, "since": since_us}
            with self._desk.transaction() as db:
                db.execute(self._sql.lock_run, {"named": bill.run_id})
                found = db.execute(self._sql.bill_noted, given).fetchone()
                if found is not None:
                    return str(found[0])
                db.execute(self._sql.note_bill, astuple(bill))
            return bill.hold_id

        return await self._desk.do(note)

    async def billed_events(self, run_id: str) -> dict[str, int]:
        """How many of each priced event a run was billed for, by the event's name."""
        billed: Counter[str] = Counter()
        for event, cost, times in await self._desk.rows(tuple, self._sql.billed_events, {"run": run_id}):
            billed[event] += times * events_ceil(Decimal(cost))
        return dict(billed)

    async def append(self, dataset_id: str, bodies: list[bytes]) -> None:
        """Append items to a dataset, behind the places that a run's own have: one of those that is not there yet has
        been paid for."""

        def append() -> None:
            with self._desk.transaction() as db:
                db.execute(self._sql.lock_run, {"named": dataset_id})
                (last,) = db.execute(self._sql.last_item, {"dataset": dataset_id}).fetchone()
                items = [(dataset_id, number, body) for number, body in enumerate(bodies, max(last, ORDERS_MAX) + 1)]
                db.executemany(self._sql.push_item, items)

        await self._desk.do(append)

    async def put_record(self, store_id: str, record: Record) -> None:
        await self._desk.write(self._sql.put_record, (store_id, *astuple(record)))

    async def record(self, store_id: str, key: str) -> Record | None:
        return await self._desk.row(each(Record), self._sql.record, {"store": store_id, "key": key})

    async def records(
        self, store_id: str, after: str = "", prefix: str = "", most: int = LINES_MAX
    ) -> list[tuple[str, int]]:
        """A store's records behind a key, ordered by key: each one's key, and how many bytes it has."""
        given = {"store": store_id, "after": after, "prefix": prefix, "most": most}
        return await self._desk.rows(lambda row: (row[0], row[1]), self._sql.records, given)

    async def add_line(self, run_id: str, created_us: int, text: str) -> None:
        await self._desk.write(self._sql.add_line, {"run": run_id, "now": created_us, "text": text})

    async def lines(self, run_id: str, after: int) -> list[LogLine]:
        """The lines of a log after line number `after` (0: from the first), a thousand at most."""
        given = {"run": run_id, "after": after, "most": LINES_MAX}
        return await self._desk.rows(each(LogLine), self._sql.lines, given)

    async def forget_runs(self, before_us: int) -> None:
        """Drop runs that finished before a moment, and what they left."""

        def forget() -> int:
            sql = self._sql
            rows = self._desk.db.execute(sql.runs_to_forget, {"before": before_us}).fetchall()
            with self._desk.transaction() as db:
                for run_id, dataset_id, store_id in rows:
                    db.execute(sql.forget_items, {"dataset": dataset_id})
                    db.execute(sql.forget_records, {"store": store_id})
                    for forget in (sql.forget_lines, sql.forget_charges, sql.forget_run):
                        db.execute(forget, {"run": run_id})
            return len(rows)

        while await self._desk.do(forget):
            pass

    async def key_of_id(self, key_id: int) -> tuple[Account, Key] | None:
        """The key and its account, revoked or not."""
        return await self._desk.row(account_and_key_from, self._sql.key_of_id, {"id": key_id})


def _run_from(row: Row) -> Run:
    return Run(**dict(zip(Run.__struct_fields__, row, strict=True)))


def _outcome(number: int, status: str, cost_usd: str | None, events: str | None, fare_usd: str | None) -> ItemOutcome:
    """An outcome from its columns: one engine gives numbers out of JSON as texts, the other as numbers."""
    return ItemOutcome(number, int(status), cost_usd, None if events is None else int(events), fare_usd)
