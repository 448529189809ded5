"""What the console keeps and reads, on a thread of its own: a page that takes long holds up no order's key."""

from collections.abc import Iterable
from time import perf_counter
from typing import NamedTuple

from msgspec import Struct

from farebox.core.bills import TotalsFilter
from farebox.core.books import LAST_US, Balance, DayTotal, HoldRow, Transfer, correction_ids, settlement_id
from farebox.core.callers import Account, Key
from farebox.store.bills import Bills
from farebox.store.engine import Db, Engine
from farebox.store.rows import (
    Row,
    account_and_key_from,
    account_from,
    each,
    each_reading,
    hold_from,
    json_text,
    transfer_from,
)
from farebox.store.trail import SqlTrail

OPEN_US = 3600 * 1_000_000
"""Orders without a known cost are live for so long; what is older waits among those to be decided."""

MINUTE_US = 60 * 1_000_000
ENDED_US = 3 * 1_000_000, MINUTE_US, 900 * 1_000_000
"""Orders that ended are live for a quarter of an hour. Where enough ended in a shorter time, no more is looked at."""

IN_MINUTE_MAX = 10_000
"""As many as are counted of those that ended within the last minute."""

FILTERED_MAX = 1_000
"""Ended orders that are looked at where those of a key or a model are wanted."""

MINUTES = (60, 10, 1)
COUNTED_MAX = 30_000
"""Ends of orders that are counted for a page, a microsecond each: of the longest time in which there are not
more."""


class SignedIn(Struct, frozen=True):
    """Who is signed in by a key. `account` is the key's, None for a management key of all accounts; its limits are not
    read. `key_id` is the key's, None for a management key, which orders nothing; `manager_id` is that one's."""

    created_us: int
    until_us: int
    key_label: str
    key_hint: str
    account: Account | None
    key_id: int | None
    manager_id: int | None


class Spent(Struct, frozen=True):
    """The fares posted on a UTC day (since 1970) for orders of one key and one model, as it was asked. What they are
    not grouped by is -1 or empty."""

    account_id: int
    day: int
    key_id: int
    model: str
    orders: int
    fares_nanos: int
    prompt_tokens: int
    answer_tokens: int


class Standing(NamedTuple):
    """What accounts have together, in nano-dollars: their balances, and what is held of them."""

    accounts: int
    balance_nanos: int
    held_nanos: int


class LiveFilter(Struct, frozen=True):
    """Which orders somebody watches; each member that is not None must fit."""

    account_id: int | None = None
    key_id: int | None = None
    model: str | None = None


class LiveOrder(Struct, frozen=True):
    """An order under way, or that ended just now; `cost` and `fare_nanos` are None where there is no fare (yet)."""

    id: str
    account_id: int
    account: str
    key_id: int
    key: str
    model: str
    state: str
    streamed: bool
    created_us: int
    ended_us: int | None
    prompt_tokens: int | None
    answer_tokens: int | None
    held_nanos: int
    cost: str | None
    fare_nanos: int | None


class LiveNow(NamedTuple):
    """The latest orders: those under way or without a known cost, of which there are `pending` and `open`, and those
    that ended. How many ended within the last minute is not counted (None) for a key or a model. `seconds` is what
    reading it took."""

    pending: int
    open: int
    not_ended: list[LiveOrder]
    ended: list[LiveOrder]
    ended_in_minute: int | None
    seconds: float


class Ended(NamedTuple):
    """Orders that ended in a minute (since 1970): those that were charged for, and the others."""

    minute: int
    fares: int
    others: int


_ACCOUNT_COLUMNS = len(Account.__struct_fields__)


def _signed_in_from(row: Row) -> SignedIn:
    created_us, until_us, label, hint, manager_id, key_id, *account = row
    owner = None if account[0] is None else Account(*account)
    return SignedIn(created_us, until_us, label, hint, owner, key_id, manager_id)


def spent_from(total: DayTotal) -> Spent:
    """A total as a line."""
    used = (total.prompt_tokens, total.answer_tokens)
    return Spent(*total.key[:4], total.orders, total.fares_nanos, *used)


def _account_and_balance_from(row: Row) -> tuple[Account, Balance]:
    return account_from(row[:_ACCOUNT_COLUMNS]), Balance(*row[_ACCOUNT_COLUMNS:])


_live_from = each_reading(LiveOrder, streamed=bool)


class SqlConsole(Bills, SqlTrail):
    """The console's side of the books; orders, movements and totals are read as everywhere. `most` bounds every list,
    and `after` or `before` says where it goes on."""

    def __init__(self, engine: Engine) -> None:
        super().__init__(engine, "farebox-console")

    # Who is signed in

    async def session(self, digest: bytes, now_us: int, since_us: int) -> SignedIn | None:
        """Who is signed in by a session that was opened after `since_us`; None where nobody is, any more."""
        given = {"digest": digest, "now": now_us, "since": since_us}
        return await self._desk.row(_signed_in_from, self._sql.console_session, given)

    async def open_session(
        self,
        digest: bytes,
        key_id: int,
        key_digest: bytes,
        now_us: int,
        until_us: int,
        *,
        is_manager: bool,
        since_us: int,
        most: int,
    ) -> None:
        """Open a session of a key that has this digest now, and forget what has ended; of one key `most` stay."""
        api_key, manager = (None, key_id) if is_manager else (key_id, None)

        def open_one(db: Db) -> None:
            db.execute(self._sql.open_console_session, (digest, api_key, manager, key_digest, now_us, until_us))
            given = {"now": now_us, "since": since_us, "api_key": api_key, "management_key": manager, "most": most}
            db.execute(self._sql.forget_console_sessions, given)

        await self._desk.change(open_one)

    async def extend_session(self, digest: bytes, until_us: int) -> None:
        await self._desk.write(self._sql.extend_console_session, {"digest": digest, "until": until_us})

    async def close_session(self, digest: bytes) -> None:
        await self._desk.write(self._sql.close_console_session, {"digest": digest})

    async def allow_once(self, digest: bytes, now_us: int, until_us: int, key_id: int | None = None) -> None:
        """Let something be done once, by who knows what has this digest."""

        def allow(db: Db) -> None:
            db.execute(self._sql.forget_once, {"now": now_us})
            db.execute(self._sql.allow_once, (digest, key_id, until_us))

        await self._desk.change(allow)

    async def take_once(self, digest: bytes, now_us: int) -> tuple[bool, int | None]:
        """Whether it may be done, which from now on it may not; and the key that goes with it."""

        def take(db: Db) -> tuple[bool, int | None]:
            row = db.execute(self._sql.take_once, {"digest": digest}).fetchone()
            return (False, None) if row is None or row[1] <= now_us else (True, row[0])

        return await self._desk.change(take)

    # What pages show

    async def spent_since(
        self, account_id: int | None, first_day: int, month_day: int, last_day: int
    ) -> tuple[list[Spent], list[Spent]]:
        """What was spent on each day since the first of two, by model, and since the other, by key and account; of one
        moment."""

        def read() -> tuple[list[Spent], list[Spent]]:
            given = {"account": account_id, "first": first_day, "last": last_day}
            with self._one_moment() as rows:
                by_model = rows.execute(self._sql.console_spent_by_model, given).fetchall()
                by_key = rows.execute(self._sql.console_spent_by_key, {**given, "first": month_day}).fetchall()
            return [Spent(*row) for row in by_model], [Spent(*row) for row in by_key]

        return await self._desk.do(read)

    async def spent_of_keys(self, account_id: int | None, first_day: int, last_day: int) -> list[Spent]:
        given = {"account": account_id, "first": first_day, "last": last_day}
        return await self._desk.rows(each(Spent), self._sql.console_spent_by_key, given)

    async def spent_rows(self, account_id: int | None, wanted: TotalsFilter, most: int) -> tuple[list[Spent], Spent]:
        """The totals of days as they are wanted, and the sum of all of them, also of those beyond so many; of one
        moment."""

        def read() -> tuple[list[Spent], Spent]:
            given = {"account": account_id, "first": wanted.first_day, "last": wanted.last_day}
            named = {**given, "key": wanted.key_id, "model": wanted.model}
            with self._one_moment() as rows:
                found = [spent_from(total) for total in self._totals(rows, account_id, wanted, most)]
                return found, Spent(*rows.execute(self._sql.console_spent_sum, named).fetchone())

        return await self._desk.do(read)

    async def names_of_keys(self, key_ids: Iterable[int]) -> list[tuple[int, str, int, str]]:
        """What keys are called: their ids and names, with those of their accounts."""
        return await self._desk.rows(tuple, self._sql.names_of_keys, {"ids": json_text(sorted(set(key_ids)))})

    async def open_holds(self, account_id: int | None, after: str, most: int) -> list[HoldRow]:
        """Orders whose cost is not known, the oldest first."""
        given = {"account": account_id, "after": after, "most": most}
        return await self._desk.rows(hold_from, self._sql.console_open, given)

    async def keys(self, account_id: int | None, most: int, before: int = LAST_US) -> list[tuple[Account, Key]]:
        """Keys, the newest first."""
        given = {"account": account_id, "before": before, "most": most}
        return await self._desk.rows(account_and_key_from, self._sql.console_keys, given)

    async def key(self, key_id: int) -> tuple[Account, Key] | None:
        return await self._desk.row(account_and_key_from, self._sql.key_of_id, {"id": key_id})

    async def account(self, account_id: int) -> tuple[Account, Balance] | None:
        return await self._desk.row(_account_and_balance_from, self._sql.console_account, {"account": account_id})

    async def accounts(self, most: int, after: int = 0, like: str = "") -> list[tuple[Account, Balance]]:
        """Accounts with their balances, the oldest first; those with `like` in their names."""
        plain = like.lower().translate({ord("%"): "_", ord("\\"): "_"})
        given = {"after": after, "like": f"%{plain}%", "most": most}
        return await self._desk.rows(_account_and_balance_from, self._sql.console_accounts, given)

    async def standing(self, account_id: int | None) -> Standing:
        """Of one account, or of all."""
        (found,) = await self._desk.rows(each(Standing), self._sql.console_standing, {"account": account_id})
        return found

    async def order(self, hold_id: str) -> tuple[HoldRow, list[Transfer]] | None:
        """An order, and its transfers: the one that set money aside, the one that ended it, and corrections of its
        fare."""

        def find() -> tuple[HoldRow, list[Transfer]] | None:
            row = self._desk.db.execute(self._sql.hold, {"id": hold_id}).fetchone()
            if row is None:
                return None
            found = map(transfer_from, self._desk.db.execute(self._sql.transfers_of, {"ids": json_text(ids)}))
            return hold_from(row), sorted(found, key=lambda transfer: (transfer.created_us, transfer.id))

        ids = [hold_id, settlement_id(hold_id), *correction_ids(hold_id)]
        return await self._desk.do(find)

    # What is going on

    async def live(self, wanted: LiveFilter, now_us: int, most: int) -> LiveNow:
        """The latest orders, at most so many of those that have not ended and as many of those that have."""
        return await self._desk.do(lambda: self._live(wanted, now_us, most))

    def _live(self, wanted: LiveFilter, now_us: int, most: int) -> LiveNow:
        began, db, sql = perf_counter(), self._desk.db, self._sql
        given = {"account": wanted.account_id, "key": wanted.key_id, "model": wanted.model, "since": now_us - OPEN_US}
        pending, is_open = db.execute(sql.live_counts, given).fetchone()
        # An order may end meanwhile: it is missing in neither list then, but in both, and the second one is right.
        not_ended = [_live_from(row) for row in db.execute(sql.live_not_ended, {**given, "most": most})]
        looked_at, in_minute = FILTERED_MAX, None
        within_us: tuple[int, ...] = ENDED_US[-1:]
        if wanted.key_id is None and wanted.model is None:
            times = {"account": wanted.account_id, "since": now_us - MINUTE_US, "most": IN_MINUTE_MAX}
            (in_minute,) = db.execute(sql.count_ended, times).fetchone()
            looked_at, within_us = most, ENDED_US
        ended: list[LiveOrder] = []
        for each_us in within_us:
            asked = {**given, "since": now_us - each_us, "most": looked_at, "shown": most}
            ended = [_live_from(row) for row in db.execute(sql.live_ended, asked)]
            if len(ended) >= most:
                break
        have_ended = {each.id for each in ended}
        not_ended = [each for each in not_ended if each.id not in have_ended]
        return LiveNow(pending, is_open, not_ended, ended, in_minute, perf_counter() - began)

    async def ended_each_minute(self, account_id: int | None, now_us: int) -> tuple[int, list[Ended]]:
        """For the last hour, or a shorter time where too many ended in that: how many minutes, and what ended in those
        in which something did. The minute that has not passed is one of them."""

        def count() -> tuple[int, list[Ended]]:
            for minutes in MINUTES:
                since_us = (now_us // MINUTE_US - minutes + 1) * MINUTE_US
                given = {"account": account_id, "since": since_us, "most": COUNTED_MAX}
                found = [Ended(*row) for row in self._desk.db.execute(self._sql.ended_each_minute, given)]
                if sum(each.fares + each.others for each in found) < COUNTED_MAX:
                    return minutes, found
            return 0, []

        return await self._desk.do(count)
