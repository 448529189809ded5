"""Itemised bills, read from the books: pages of orders and of movements, and the totals of days."""

from collections.abc import Iterator
from contextlib import closing, contextmanager
from decimal import Decimal
from functools import partial
from typing import Any

from msgspec.structs import replace

from farebox.core.allowances import DAY_US
from farebox.core.bills import (
    GROUPS,
    BookedOrder,
    Days,
    Movement,
    Movements,
    OrderFilter,
    OrderPlace,
    Sums,
    TotalsFilter,
    moved_nanos,
)
from farebox.core.books import Attributed, AttributedKey, DayKey, DayTotal, HoldRow, Transfer, settlement_id
from farebox.core.money import add_exact, limbs_of
from farebox.store.desk import OnDesk
from farebox.store.engine import Db, Reader
from farebox.store.rows import (
    attributed_from,
    attributed_total_row,
    day_total_from,
    day_total_row,
    hold_from,
    json_text,
    transfer_from,
)

LOOKED_AT = 2_000
"""Orders that are looked at for one page, where not all are wanted: some hundredths of a second. A page that finds few
among them is short, and the next one goes on behind them."""

WITHIN_US = 900 * 1_000_000
"""The time before its moment in which a list's orders are looked for first."""

_END = settlement_id("")


def _hold_of(end: str) -> str:
    """The hold that a transfer ended, by its id."""
    return end.removesuffix(_END)


class Bills(OnDesk):
    """The part of the `Books` port that bills are made of."""

    async def order_page(
        self, account_id: int | None, wanted: OrderFilter, after: OrderPlace, most: int
    ) -> tuple[list[BookedOrder], OrderPlace | None]:
        return await self._desk.do(lambda: self._order_page(account_id, wanted, after, most))

    def _order_page(
        self, account_id: int | None, wanted: OrderFilter, after: OrderPlace, most: int
    ) -> tuple[list[BookedOrder], OrderPlace | None]:
        looked_at = most if wanted.takes_all else max(most, LOOKED_AT)
        given = {"account": account_id, "since": wanted.since_us, "most": looked_at + 1}
        found: list[BookedOrder] = []
        place, seen = after, 0
        for order in [] if place.has_ended else self._not_ended(given, wanted, place):
            if len(found) == most or seen == looked_at:
                return found, place
            seen += 1
            place = place.behind(order)
            if wanted.takes(order.hold):
                found.append(order)
        if replace(wanted, state=None).takes_all:
            given["most"] = most + 1  # by their states they are found
        ends = self._ended(given, wanted, place)
        fitting = self._fitting(ends, wanted)
        for first in range(0, len(ends), most):
            some = ends[first : first + most]
            orders = self._booked([end for end, _ in some if end in fitting])
            for end, ended_us in some:
                if len(found) == most or seen == looked_at:
                    return found, place
                seen += 1
                place = OrderPlace(after.as_of_us, True, ended_us, end)
                if (booked := orders.get(end)) is not None and wanted.takes(booked.hold):
                    found.append(booked)
        return found, None

    def _not_ended(self, given: dict[str, Any], wanted: OrderFilter, after: OrderPlace) -> list[BookedOrder]:
        """Those that had not ended at the list's moment. They may have since."""
        asked = {**given, "as_of": after.as_of_us, "before": after.id, "until": wanted.until_us}
        holds = [hold_from(row) for row in self._desk.db.execute(self._sql.orders_not_ended, asked)]
        ends = self._ends([hold for hold in holds if hold.ended_us is not None])
        return [BookedOrder(hold, ends.get(hold.id)) for hold in holds]

    def _ended(self, given: dict[str, Any], wanted: OrderFilter, after: OrderPlace) -> list[tuple[str, int]]:
        """What ended orders before the list's moment, behind a place: ids and times, the latest first. Looked for in
        a short time first, and a longer one as long as too few are found in that: of all accounts together no index
        has the order of their times."""
        until_us, before = min(wanted.until_us, after.as_of_us), ""
        if after.has_ended and after.ended_us < until_us:
            until_us, before = after.ended_us, after.id
        statement = self._sql.ended_orders
        if wanted.end_user is not None:
            given = {**given, "end_user": wanted.end_user}
            statement = self._sql.ended_orders_of_end_user
        states = {"posted": int(wanted.state in (None, "posted")), "voided": int(wanted.state in (None, "voided"))}
        asked = {**given, **states, "until": until_us, "before": before}
        width_us = WITHIN_US
        while True:
            since_us = max(wanted.since_us, until_us - width_us)
            rows = self._desk.db.execute(statement, {**asked, "since": since_us}).fetchall()
            if len(rows) >= given["most"] or since_us <= wanted.since_us:
                return [(end, ended_us) for end, ended_us in rows]
            lacking = given["most"] // (len(rows) + 1)
            width_us *= max(4, min(2 * lacking, 64))

    def _fitting(self, ends: list[tuple[str, int]], wanted: OrderFilter) -> set[str]:
        """Of these ends, those of orders that a list may want: others need not be read."""
        if wanted.key_id is None and wanted.model is None and wanted.kind is None:
            return {end for end, _ in ends}
        ids = json_text([_hold_of(end) for end, _ in ends])
        given = {"ids": ids, "key": wanted.key_id, "model": wanted.model, "kind": wanted.kind}
        return {settlement_id(hold_id) for (hold_id,) in self._desk.db.execute(self._sql.holds_fitting, given)}

    def _booked(self, ends: list[str]) -> dict[str, BookedOrder]:
        """The orders that these transfers ended, by their ends."""
        if not ends:
            return {}
        db = self._desk.db
        transfers = map(transfer_from, db.execute(self._sql.transfers_of, {"ids": json_text(ends)}))
        by_id = {transfer.id: transfer for transfer in transfers}
        ids = json_text([_hold_of(end) for end in ends])
        holds = map(hold_from, db.execute(self._sql.holds_of, {"ids": ids}))
        return {end: BookedOrder(hold, by_id[end]) for hold in holds if (end := settlement_id(hold.id)) in by_id}

    def _ends(self, holds: list[HoldRow]) -> dict[str, Any]:
        if not holds:
            return {}
        ids = json_text([settlement_id(hold.id) for hold in holds])
        ends = map(transfer_from, self._desk.db.execute(self._sql.transfers_of, {"ids": ids}))
        return {end.hold_id or "": end for end in ends}

    async def movements(self, account_id: int, since_us: int, until_us: int, after: Movement, most: int) -> Movements:
        def read() -> Movements:
            with self._one_moment() as rows:
                return self._movements(rows, account_id, since_us, until_us, after, most)

        return await self._desk.do(read)

    async def corrections(self, account_id: int, since_us: int, until_us: int) -> list[Transfer]:
        given = {"account": account_id, "since": since_us, "until": until_us}
        found = await self._desk.rows(transfer_from, self._sql.moved_without_fare, given)
        return [each for each in found if each.is_correction]

    async def days(self, account_id: int, wanted: TotalsFilter, most: int) -> Days:
        def read() -> Days:
            with self._one_moment() as rows:
                return self._days(rows, account_id, wanted, most)

        return await self._desk.do(read)

    def _days(self, rows: Reader, account_id: int, wanted: TotalsFilter, most: int) -> Days:
        since_us = wanted.first_day * DAY_US
        given = {"account": account_id, "since": since_us, "until": (wanted.last_day + 1) * DAY_US}
        found = map(transfer_from, rows.execute(self._sql.moved_without_fare, given).fetchall())
        transfers = [transfer for transfer in found if moved_nanos(transfer, account_id)]
        transfers.sort(key=lambda transfer: (transfer.created_us, transfer.id))
        return Days(
            self._sums(rows, account_id, 0, since_us).moved_nanos,
            transfers,
            self._orders_of(rows, transfers),
            self._totals(rows, account_id, wanted, most),
        )

    def _orders_of(self, rows: Reader, transfers: list[Transfer]) -> dict[str, HoldRow]:
        ids = json_text(sorted({transfer.hold_id for transfer in transfers if transfer.hold_id is not None}))
        return {hold.id: hold for hold in map(hold_from, rows.execute(self._sql.holds_of, {"ids": ids}).fetchall())}

    @contextmanager
    def _one_moment(self) -> Iterator[Reader]:
        with closing(self.engine.connect()) as db, self.engine.snapshot(db) as rows:
            yield rows

    def _movements(
        self, rows: Reader, account_id: int, since_us: int, until_us: int, after: Movement, most: int
    ) -> Movements:
        before = self._sums(rows, account_id, 0, since_us)
        opening = before.moved_nanos
        at_us, name = max((since_us, ""), (after.at_us, after.id))
        given = {"account": account_id, "since": at_us, "after": name, "until": until_us, "most": most}
        transfers = [transfer_from(row) for row in rows.execute(self._sql.movements, given).fetchall()]
        return Movements(
            transfers,
            self._orders_of(rows, transfers),
            opening if after.balance_nanos is None else after.balance_nanos,
            opening,
            self._sums(rows, account_id, since_us, until_us),
        )

    def _sums(self, rows: Reader, account_id: int, since_us: int, until_us: int) -> Sums:
        """What all movements within a time come to: whole days by their totals, parts of days fare by fare."""
        sums = Sums()
        if since_us >= until_us:
            return sums
        given = {"account": account_id, "since": since_us, "until": until_us}
        for row in rows.execute(self._sql.moved_without_fare, given).fetchall():
            sums.take(transfer_from(row), account_id)
        first_day = -(-since_us // DAY_US)
        behind = until_us // DAY_US
        if first_day <= behind:
            wanted = TotalsFilter(first_day, behind - 1)
            for total in self._totals(rows, account_id, wanted, 1):
                sums.orders, sums.events = total.orders, total.events
                sums.fares_nanos, sums.cost = total.fares_nanos, total.cost
            parts = [(since_us, first_day * DAY_US), (behind * DAY_US, until_us)]
        else:
            parts = [(since_us, until_us)]
        for start_us, end_us in parts:
            if start_us >= end_us:
                continue
            given = {"account": account_id, "since": start_us, "until": end_us}
            for nanos, events, cost in rows.execute(self._sql.fares_between, given).fetchall():
                sums.orders += 1
                sums.events += events
                sums.fares_nanos += nanos
                sums.cost = add_exact(sums.cost, Decimal(cost))
        return sums

    async def totals(self, account_id: int | None, wanted: TotalsFilter, most: int) -> list[DayTotal]:
        def read() -> list[DayTotal]:
            with self._one_moment() as rows:
                return self._totals(rows, account_id, wanted, most)

        return await self._desk.do(read)

    def _totals(self, rows: Reader, account_id: int | None, wanted: TotalsFilter, most: int) -> list[DayTotal]:
        given = {
            "account": account_id,
            "first": wanted.first_day,
            "last": wanted.last_day,
            "key": wanted.key_id,
            "model": wanted.model,
            "kind": wanted.kind,
        }
        if wanted.by:
            by = {f"by_{name}": int(name in wanted.by) for name in GROUPS}
            found = rows.execute(self._sql.totals, {**given, **by, "most": most}).fetchall()
        else:
            found = rows.execute(self._sql.total, given).fetchall()
        groups = {total.key: total for row in found if (total := day_total_from(row)).orders}
        for *key, finer in rows.execute(self._sql.finer_totals, given).fetchall():
            group = groups.get(wanted.group_of(DayTotal((key[0], key[1], key[2], key[3], key[4], key[5]))))
            if group is not None:
                group.cost = add_exact(group.cost, Decimal(finer))
        return list(groups.values())

    async def attributed_totals(self, account_id: int | None, wanted: TotalsFilter, most: int) -> list[Attributed]:
        def read() -> list[Attributed]:
            with self._one_moment() as rows:
                found = self._attributed_totals(rows, account_id, wanted, most)
                if wanted.end_user is not None or wanted.tag is not None or len(found) == most:
                    return found
                return wanted.with_the_rest(found, self._totals(rows, account_id, wanted, most))

        return await self._desk.do(read)

    def _attributed_totals(
        self, rows: Reader, account_id: int | None, wanted: TotalsFilter, most: int
    ) -> list[Attributed]:
        """Of orders that say for whom they are; in the place of their tags, the value of the one that is grouped by."""
        given = {
            "account": account_id,
            "first": wanted.first_day,
            "last": wanted.last_day,
            "key": wanted.key_id,
            "model": wanted.model,
            "kind": wanted.kind,
            "end_user": wanted.end_user,
            "tag": None if wanted.tag is None else wanted.tag[0],
            "tag_value": None if wanted.tag is None else wanted.tag[1],
            "by_tag": wanted.by_tag,
        }
        by = {f"by_{name}": int(name in wanted.by) for name in (*GROUPS, "end_user")}
        found = rows.execute(self._sql.attributed_totals, {**given, **by, "most": most}).fetchall()
        totals = [each for row in found if (each := attributed_from(row)).total.orders]
        groups = {(each.total.key, each.end_user, each.tags): each.total for each in totals}
        for row in rows.execute(self._sql.finer_attributed_totals, given).fetchall():
            end_user, value, account, day, key_id, model, served, kind, finer = row
            key = wanted.group_of(DayTotal((account, day, key_id, model, served, kind)))
            group = groups.get((key, end_user if "end_user" in wanted.by else "", value))
            if group is not None:
                group.cost = add_exact(group.cost, Decimal(finer))
        return totals

    async def recount(self) -> list[int]:
        """Sum every day's fares again, a day in a transaction, while orders go on; the days whose totals were not that.
        For what was posted by nodes that keep no totals, while the books were upgraded."""
        days = await self._desk.do(lambda: [row[0] for row in self._desk.db.execute(self._sql.days_of_fares)])
        return [day for day in days if await self._desk.change(partial(self._recount, day))]

    def _recount(self, day: int, db: Db) -> bool:
        db.execute(self._sql.lock_day_totals)
        sums: dict[DayKey, DayTotal] = {}
        attributed: dict[AttributedKey, DayTotal] = {}
        given = {"since": day * DAY_US, "until": (day + 1) * DAY_US}
        for account_id, key_id, model, served, kind, end_user, tags, *counted in db.execute(
            self._sql.fares_of_day, given
        ):
            prompt, answer, units, cost, events, nanos, posted_us = counted
            key = (account_id, day, key_id, model, served or model, kind or "")
            used = (prompt or 0, answer or 0, units or 0)
            found = DayTotal(key, 1, events, nanos, Decimal(cost), *used, posted_us)
            sums.setdefault(key, DayTotal(key)).add(found)
            if end_user or tags:
                attributed.setdefault((key, end_user or "", tags or ""), DayTotal(key)).add(found)
        is_changed = self._put_recounted(day, db, sums)
        return self._put_attributed(day, db, attributed) or is_changed

    def _put_attributed(self, day: int, db: Db, sums: dict[AttributedKey, DayTotal]) -> bool:
        rows = map(attributed_from, db.execute(self._sql.attributed_totals_of_day, {"day": day}))
        if {(each.total.key, each.end_user, each.tags): each.total for each in rows} == sums:
            return False
        db.execute(self._sql.drop_attributed_totals, {"day": day})
        db.executemany(
            self._sql.add_attributed_totals, [attributed_total_row(key, total) for key, total in sums.items()]
        )
        finer = [
            (str(rest), *key[:2], end_user, tags, *key[2:])
            for (key, end_user, tags), total in sums.items()
            if (rest := limbs_of(total.cost)[1])
        ]
        db.executemany(self._sql.put_finer_attributed_cost, finer)
        return True

    def _put_recounted(self, day: int, db: Db, sums: dict[DayKey, DayTotal]) -> bool:
        stored = {total.key: total for total in map(day_total_from, db.execute(self._sql.totals_of_day, {"day": day}))}
        if stored == sums:
            return False
        db.execute(self._sql.drop_day_totals, {"day": day})
        db.executemany(self._sql.add_day_totals, [day_total_row(total) for total in sums.values()])
        finer = [(str(rest), *total.key) for total in sums.values() if (rest := limbs_of(total.cost)[1])]
        db.executemany(self._sql.put_finer_cost, finer)
        return True
