"""All rows of the books, for those who compare them: of one moment, or piece by piece with one moment at the end."""

from collections import deque
from collections.abc import Iterator
from contextlib import ExitStack

from farebox.core.allowances import Allowance
from farebox.core.books import Attributed, Balance, ChargedFare, DayTotal, HoldRow, Transfer, settlement_id
from farebox.core.charges import Charge
from farebox.core.tariffs import KeptTariffs
from farebox.core.trail import Entry, TrailHead
from farebox.store.engine import Db, Engine, Reader
from farebox.store.rows import (
    allowance_from,
    attributed_from,
    day_total_from,
    each,
    hold_from,
    json_text,
    transfer_from,
)
from farebox.store.sql import Statements
from farebox.store.trail import entry_from

HOLDS_AT_ONCE = 2_000
"""Holds of one piece: it is read in some milliseconds."""

LATE_US = 120 * 1_000_000
"""How long after an order got its id its hold is in the books at the latest: a hold waits for them for ten seconds, and
clocks agree within one."""


class SqlSnapshot:
    """All rows that a connection reads at one moment."""

    def __init__(self, db: Reader, sql: Statements) -> None:
        self._db = db
        self._sql = sql

    def transfers(self) -> Iterator[Transfer]:
        return map(transfer_from, self._db.execute(self._sql.transfers_after, {"after": ""}))

    def holds(self) -> Iterator[HoldRow]:
        return map(hold_from, self._db.execute(self._sql.holds_after, {"after": ""}))

    def balances(self) -> Iterator[Balance]:
        return map(each(Balance), self._db.execute(self._sql.all_balances))

    def charged_fares(self) -> Iterator[ChargedFare]:
        return map(each(ChargedFare), self._db.execute(self._sql.all_charged_fares))

    def charges(self) -> Iterator[Charge]:
        return map(each(Charge), self._db.execute(self._sql.all_charges))

    def allowances(self) -> Iterator[Allowance]:
        return map(allowance_from, self._db.execute(self._sql.all_allowances))

    def corrections(self) -> Iterator[Transfer]:
        return map(transfer_from, self._db.execute(self._sql.corrections))

    def tariffs(self) -> Iterator[KeptTariffs]:
        return map(each(KeptTariffs), self._db.execute(self._sql.all_tariffs))

    def day_totals(self) -> Iterator[DayTotal]:
        return map(day_total_from, self._db.execute(self._sql.all_day_totals))

    def entries(self) -> Iterator[Entry]:
        return map(entry_from, self._db.execute(self._sql.all_entries))

    def trail_head(self) -> TrailHead:
        (head,) = map(each(TrailHead), self._db.execute(self._sql.trail_head))
        return head

    def attributed_totals(self) -> Iterator[Attributed]:
        return map(attributed_from, self._db.execute(self._sql.all_attributed_totals))


class Pieces(SqlSnapshot):
    """The same rows for one pass, the last of them at one moment.

    What has ended changes no more, so orders that have are read piece by piece, each in a moment of its own; those that
    had not ended, and those of the last minutes, are read at the last moment, with all that is read after the holds.
    """

    def __init__(self, engine: Engine, db: Db, now_us: int, holds_at_once: int) -> None:
        super().__init__(db, engine.sql)
        self._engine = engine
        self._connection = db
        self._at_once = holds_at_once
        # An order's id begins with the microsecond in which it was made.
        self._until = f"{now_us - LATE_US:014x}"
        self._holds: deque[HoldRow] = deque()
        self._transfers: deque[Transfer] = deque()
        self._reading = self._read()
        self._moment = ExitStack()

    def close(self) -> None:
        self._moment.close()

    def holds(self) -> Iterator[HoldRow]:
        while self._holds or self._has_more():
            if self._holds:
                yield self._holds.popleft()
        yield from map(hold_from, self._db.execute(self._sql.holds_after, {"after": self._until}))

    def transfers(self) -> Iterator[Transfer]:
        while self._transfers or self._has_more():
            if self._transfers:
                yield self._transfers.popleft()
        yield from map(transfer_from, self._db.execute(self._sql.transfers_after, {"after": self._until}))

    def _has_more(self) -> bool:
        return next(self._reading, False)

    def _read(self) -> Iterator[bool]:
        """Put piece after piece into what is given out; True after each."""
        not_ended: list[str] = []
        after, transfers_after, is_last = "", "", False
        while not is_last:
            given = {"after": after, "upto": self._until, "most": self._at_once}
            holds = [hold_from(row) for row in self._db.execute(self._sql.holds_between, given).fetchall()]
            is_last = len(holds) < self._at_once
            upto = self._until if is_last else settlement_id(holds[-1].id)
            rows = self._db.execute(self._sql.transfers_between, {"after": transfers_after, "upto": upto}).fetchall()
            waiting = {hold.id for hold in holds if hold.ended_us is None}
            not_ended += sorted(waiting)
            self._holds += [hold for hold in holds if hold.id not in waiting]
            self._transfers += [each for each in map(transfer_from, rows) if each.hold_id not in waiting]
            if not is_last:
                after, transfers_after = holds[-1].id, upto
            yield True
        self._db = self._moment.enter_context(self._engine.snapshot(self._connection))
        for first in range(0, len(not_ended), self._at_once):
            ids = not_ended[first : first + self._at_once]
            self._holds += map(hold_from, self._db.execute(self._sql.holds_of, {"ids": json_text(ids)}).fetchall())
            both = [*ids, *(settlement_id(each) for each in ids)]
            booked = self._db.execute(self._sql.transfers_of, {"ids": json_text(both)}).fetchall()
            self._transfers += sorted(map(transfer_from, booked), key=lambda transfer: transfer.id)
            yield True
