"""Itemised bills: orders, statements and totals as rows of texts, for callers (their own account's) and managers."""

import re
from collections.abc import AsyncGenerator, Mapping, Sequence
from dataclasses import dataclass
from decimal import Decimal
from typing import Protocol

from farebox import clock
from farebox.core.allowances import DAY_US, date_of
from farebox.core.attribution import AS_NAMED, Attribution, tags_text
from farebox.core.bills import (
    TAG_GROUP,
    BookedOrder,
    Movement,
    Movements,
    OrderFilter,
    OrderPlace,
    Sums,
    TotalsFilter,
    moved_nanos,
)
from farebox.core.books import Attributed, DayTotal, HoldRow, Transfer, correction_ids, settlement_id
from farebox.core.callers import Account, Key
from farebox.core.kinds import units_used
from farebox.core.money import EVENT_NANOS, add_exact, format_usd, parse_usd, plain, whole_events
from farebox.core.resale import without_amounts
from farebox.ports import Books, Directory

Row = Mapping[str, str | int | bool | None]
"""A line of a list. Amounts are exact text; moments are in UTC."""

TOTALS_MAX = 10_000
"""Lines of totals in one answer."""

LOOKED_AT = 5_000
"""Lines of a statement that are looked at for a page, where not all are wanted."""

AT_ONCE = 1_000
"""Rows of a page, at most, and of a piece of a download."""

ORDER_COLUMNS = (
    "id",
    "account",
    "key",
    "key_hash",
    "kind",
    "state",
    "model",
    "served_model",
    "streamed",
    "generation_id",
    "placed_at",
    "ended_at",
    "prompt_tokens",
    "answer_tokens",
    "unit",
    "units",
    "end_user",
    "tags",
    "held_usd",
    "cost_usd",
    "events",
    "event_price_usd",
    "fare_usd",
    "plan",
    "reason",
)
STATEMENT_COLUMNS = (
    "time",
    "what",
    "id",
    "order_id",
    "generation_id",
    "kind",
    "model",
    "key",
    "key_hash",
    "end_user",
    "tags",
    "prompt_tokens",
    "answer_tokens",
    "unit",
    "units",
    "cost_usd",
    "events",
    "event_price_usd",
    "amount_usd",
    "balance_usd",
)
COUNTED = ("orders", "prompt_tokens", "answer_tokens", "unit", "units", "cost_usd", "events", "fares_usd")
GROUP_COLUMNS: Mapping[str, tuple[str, ...]] = {
    "account": ("account",),
    "day": ("date",),
    "key": ("key", "key_hash"),
    "model": ("model",),
    "served_model": ("served_model",),
    "kind": ("kind",),
    "end_user": ("end_user",),
}
"""The columns of what totals are grouped by."""


class Store(Books, Directory, Protocol):
    """What bills are made of."""


class TooManyLines(Exception):  # noqa: N818 - the word of the house
    """Totals would have more lines than are given in one answer."""


@dataclass(frozen=True, slots=True)
class OrderPage:
    """Orders, and the place behind them, where there are more."""

    rows: list[Row]
    next: OrderPlace | None


@dataclass(frozen=True, slots=True)
class StatementPage:
    """Lines of a statement, what all of its time comes to, and the last line, where there are more."""

    rows: list[Row]
    movements: Movements
    next: Movement | None


class Bills:
    """The use cases over a store."""

    def __init__(self, store: Store, attribution: Attribution = AS_NAMED) -> None:
        self._store = store
        self._attribution = attribution

    def end_user(self, named: str) -> str:
        """An end user's name as it is kept; it may be given so."""
        return self._attribution.sought(named)

    async def find_key(self, account: Account | None, named: str) -> Key | None:
        """A key of an account, or of any, by its hash, its hint or its name; None where there is none such, or several.
        A key itself is looked for under none of these."""
        owners = await self._store.accounts() if account is None else [account]
        keys = [key for owner in owners for key in await self._store.keys(owner.id)]
        for found in (
            [key for key in keys if key.digest.hex() == named.lower()],
            [key for key in keys if named in (key.label, key.hint)],
        ):
            if len(found) == 1:
                return found[0]
        return None

    async def keys_of(self, account: Account) -> list[Key]:
        """Every key of an account, those that were revoked, too."""
        return list(await self._store.keys(account.id))

    # Orders

    async def orders(self, account: Account | None, wanted: OrderFilter, after: OrderPlace, most: int) -> OrderPage:
        """A page of the orders of an account, or of all."""
        orders, place = await self._store.order_page(None if account is None else account.id, wanted, after, most)
        names = await self._names([order.hold for order in orders])
        return OrderPage([names.order(order) for order in orders], place)

    async def all_orders(
        self, account: Account | None, wanted: OrderFilter, after: OrderPlace
    ) -> AsyncGenerator[list[Row], None]:
        """All of them, in pieces."""
        place: OrderPlace | None = after
        while place is not None:
            page = await self.orders(account, wanted, place, AT_ONCE)
            yield page.rows
            place = page.next

    async def order(self, account: Account | None, named: str) -> tuple[Row, list[Row]] | None:
        """An order by its id or its generation's, and its transfers; None where there is none, or it is another's."""
        hold = await self._store.hold(named)
        if hold is None and account is not None and (found := await self._store.generation(account.id, named)):
            hold = found[0]
        if hold is None or (account is not None and hold.account_id != account.id):
            return None
        ending = settlement_id(hold.id)
        transfers = await self._store.transfers_of([hold.id, ending, *correction_ids(hold.id)])
        transfers.sort(key=lambda transfer: (transfer.created_us, transfer.id))
        end = next((transfer for transfer in transfers if transfer.id == ending), None)
        names = await self._names([hold])
        return names.order(BookedOrder(hold, end)), [_transfer_row(each, hold.account_id) for each in transfers]

    # Statements

    async def statement(
        self,
        account: Account,
        since_us: int,
        until_us: int,
        after: Movement,
        most: int,
        wanted: OrderFilter | None = None,
    ) -> StatementPage:
        """A page of an account's statement, oldest first, with the account's balance after each line; with `wanted`,
        the lines of such orders, fewer than `most` where many others were looked at."""
        looked_at = most if wanted is None else max(most, LOOKED_AT)
        found = await self._store.movements(account.id, since_us, until_us, after, looked_at + 1)
        names = await self._names(list(found.orders.values()))
        balance, last = found.before_nanos, after
        rows: list[Row] = []
        for transfer in found.transfers[:looked_at]:
            if len(rows) == most:
                break
            balance += moved_nanos(transfer, account.id)
            last = Movement(transfer.created_us, transfer.id, balance)
            hold = found.orders.get(transfer.hold_id or "")
            if wanted is None or (hold is not None and wanted.takes(hold)):
                rows.append(names.movement(transfer, hold, account.id, balance))
        has_more = bool(found.transfers) and last.id != found.transfers[-1].id
        return StatementPage(rows, found, last if has_more else None)

    async def whole_statement(
        self, account: Account, since_us: int, until_us: int, after: Movement, wanted: OrderFilter | None = None
    ) -> AsyncGenerator[list[Row], None]:
        """All of it, in pieces."""
        last: Movement | None = after
        while last is not None:
            page = await self.statement(account, since_us, until_us, last, AT_ONCE, wanted)
            yield page.rows
            last = page.next

    async def sums_for(self, account: Account, wanted: OrderFilter) -> Row:
        """What a statement of an end user's orders, or of those under a tag, comes to."""
        return _sums_row(await sums_for(self._store, account.id, wanted))

    # Totals

    async def totals(self, account: Account | None, wanted: TotalsFilter) -> tuple[list[Row], Row]:
        """What was posted, grouped, and the sum of all lines. Raises TooManyLines."""
        account_id = None if account is None else account.id
        if wanted.is_attributed:
            found = await self._store.attributed_totals(account_id, wanted, TOTALS_MAX + 1)
        else:
            plainly = await self._store.totals(account_id, wanted, TOTALS_MAX + 1)
            found = [Attributed("", "", total) for total in plainly]
        if len(found) > TOTALS_MAX:
            raise TooManyLines
        accounts = {each.id: each.name for each in await self._store.accounts()} if "account" in wanted.by else {}
        keys: dict[int, Key] = {}
        if "key" in wanted.by:
            owners = await self._store.accounts() if account is None else [account]
            keys = {key.id: key for owner in owners for key in await self._store.keys(owner.id)}
        rows: list[Row] = [
            {**_group(each.total, wanted.by, accounts, keys), **_whose(each, wanted), **_counted(each.total, wanted)}
            for each in found
        ]
        whole = DayTotal((-1, -1, -1, "", "", ""))
        for each in found:
            whole.add(each.total)
        return rows, _counted(whole, wanted)

    async def _names(self, holds: Sequence[HoldRow]) -> "_Names":
        owners = {hold.account_id for hold in holds}
        accounts = {each.id: each for each in await self._store.accounts() if each.id in owners} if owners else {}
        keys = {key.id: key for owner in accounts for key in await self._store.keys(owner)}
        return _Names(accounts, keys)


@dataclass(frozen=True, slots=True)
class _Names:
    """The accounts and keys that rows name."""

    accounts: Mapping[int, Account]
    keys: Mapping[int, Key]

    def order(self, order: BookedOrder) -> Row:
        hold, end = order.hold, order.end
        account = self.accounts.get(hold.account_id)
        fare = None if end is None else end.fare
        return {
            "id": hold.id,
            "account": None if account is None else account.name,
            **_key_of(self.keys.get(hold.key_id)),
            "kind": hold.kind,
            "state": hold.state,
            "model": hold.model,
            "served_model": hold.served_model,
            "streamed": hold.streamed,
            "generation_id": hold.generation_id,
            "placed_at": _moment(hold.created_us),
            "ended_at": None if end is None else _moment(end.created_us),
            **_used(hold),
            **_for_whom(hold),
            "held_usd": format_usd(hold.amount_nanos),
            "cost_usd": None if fare is None else plain(fare.cost),
            "events": None if fare is None else fare.events,
            "event_price_usd": format_usd(EVENT_NANOS if hold.marked_up else hold.event_price_nanos),
            "fare_usd": None if fare is None else format_usd(fare.nanos),
            "plan": hold.plan,
            "reason": hold.reason,
        }

    def movement(self, transfer: Transfer, hold: HoldRow | None, account_id: int, balance_nanos: int) -> Row:
        return {
            "time": _moment(transfer.created_us),
            "what": _what(transfer),
            "id": transfer.id,
            "order_id": transfer.hold_id,
            "generation_id": None if hold is None else hold.generation_id,
            "kind": None if hold is None else hold.kind,
            "model": None if hold is None else hold.served_model or hold.model,
            **_key_of(None if hold is None else self.keys.get(hold.key_id)),
            **_for_whom(hold),
            **_used(hold),
            "cost_usd": None if transfer.cost is None else plain(transfer.cost),
            "events": transfer.events,
            "event_price_usd": None if transfer.event_price_nanos is None else format_usd(transfer.event_price_nanos),
            "amount_usd": format_usd(moved_nanos(transfer, account_id)),
            "balance_usd": format_usd(balance_nanos),
        }


_FORMULA = re.compile(r"[=+\-@\t\r]")
_NUMBER = re.compile(r"-?[0-9]+(?:\.[0-9]+)?")


def harmless(value: str | int | bool | None) -> str | int | bool | None:
    """A value as a table has it. A text that a spreadsheet would take for a formula gets a mark before it."""
    if isinstance(value, bool):
        return "true" if value else "false"
    if isinstance(value, str) and _FORMULA.match(value) and not _NUMBER.fullmatch(value):
        return f"'{value}"
    return value


def _moment(us: int) -> str:
    return clock.iso(us)


def _key_of(key: Key | None) -> Row:
    if key is None:
        return {"key": None, "key_hash": None}
    return {"key": key.label or key.hint, "key_hash": key.digest.hex()}


def _for_whom(hold: HoldRow | None) -> Row:
    """Its end user and its tags, written as in `X-Farebox-Tags`."""
    if hold is None:
        return {"end_user": None, "tags": None}
    return {"end_user": hold.end_user, "tags": tags_text(hold.tags)}


def _used(hold: HoldRow | None) -> Row:
    """What an order used; of one that was not served, nothing."""
    if hold is None or hold.state == "voided":
        return dict.fromkeys(("prompt_tokens", "answer_tokens", "unit", "units"))
    return {
        "prompt_tokens": hold.prompt_tokens,
        "answer_tokens": hold.answer_tokens,
        **_in_units(hold.kind or "", hold.units),
    }


def _in_units(kind: str, units: int | None) -> Row:
    for name, count in units_used(kind, units).items():
        return {"unit": name, "units": count}
    return {"unit": None, "units": None}


def _what(transfer: Transfer) -> str:
    if transfer.is_correction:
        return "correction"
    if transfer.kind == "adjustment" and transfer.hold_id is None:
        return "paid out"
    words = {"post": "fare", "void": "not served", "hold": "held"}
    return words.get(transfer.kind, transfer.kind)


def _transfer_row(transfer: Transfer, account_id: int) -> Row:
    """A transfer of an order, as it stands in the books: what a hold set aside does not change the balance."""
    return {
        "id": transfer.id,
        "time": _moment(transfer.created_us),
        "what": _what(transfer),
        "set_aside_usd": format_usd(transfer.amount_nanos) if transfer.kind == "hold" else None,
        "given_back_usd": format_usd(transfer.amount_nanos) if transfer.kind == "void" else None,
        "amount_usd": format_usd(moved_nanos(transfer, account_id)),
        "cost_usd": None if transfer.cost is None else plain(transfer.cost),
        "events": transfer.events,
        "event_price_usd": None if transfer.event_price_nanos is None else format_usd(transfer.event_price_nanos),
        "above_hold_usd": format_usd(transfer.over_hold_nanos),
    }


def _group(total: DayTotal, by: Sequence[str], accounts: Mapping[int, str], keys: Mapping[int, Key]) -> Row:
    account_id, day, key_id, model, served, kind = total.key
    found: dict[str, str | int | bool | None] = {}
    if "account" in by:
        found["account"] = accounts.get(account_id)
    if "day" in by:
        found["date"] = date_of(day)
    if "key" in by:
        found |= _key_of(keys.get(key_id))
    texts = {"model": model, "served_model": served, "kind": kind or None}
    return found | {name: text for name, text in texts.items() if name in by}


def _whose(total: Attributed, wanted: TotalsFilter) -> Row:
    """For whom the orders of a total are, as far as it is grouped by that; null where they do not say it."""
    found: dict[str, str | int | bool | None] = {}
    if "end_user" in wanted.by:
        found["end_user"] = total.end_user or None
    if wanted.by_tag is not None:
        found[f"{TAG_GROUP}{wanted.by_tag}"] = total.tags or None
    return found


def _counted(total: DayTotal, wanted: TotalsFilter) -> Row:
    """The sums; units are summed where all are of one kind."""
    kind = wanted.kind if wanted.kind is not None else total.key[5]
    return {
        "orders": total.orders,
        "prompt_tokens": total.prompt_tokens,
        "answer_tokens": total.answer_tokens,
        **_in_units(kind, total.units),
        "cost_usd": plain(total.cost),
        "events": total.events,
        "fares_usd": format_usd(total.fares_nanos),
    }


def fares_alone(row: Row) -> Row:
    """A line of any list as those see it who are told the fare alone: without its cost, and in events of the fare."""
    told = dict(row)
    for name in _OF_COST:
        if name in told:
            told[name] = None
    if "event_price_usd" not in told and "events" not in told:
        return told
    amount = next((row[name] for name in _FARES if isinstance(row.get(name), str)), None)
    is_fare = row.get("events") is not None or "fare_usd" in row
    events = whole_events(abs(_nanos(str(amount)))) if amount is not None and is_fare else None
    told["events"] = events
    if "event_price_usd" in told:
        told["event_price_usd"] = None if events is None else format_usd(EVENT_NANOS)
    if isinstance(reason := told.get("reason"), str):
        told["reason"] = without_amounts(reason)
    return told


_OF_COST = ("cost_usd",)
_FARES = ("fare_usd", "fares_usd", "amount_usd")


def _nanos(amount: str) -> int:
    return -parse_usd(amount[1:]) if amount.startswith("-") else parse_usd(amount)


def sums_of(page: Movements) -> Row:
    """What a statement's whole time comes to."""
    return _sums_row(page.sums)


async def sums_for(books: Books, account_id: int, wanted: OrderFilter) -> Sums:
    """What the orders of an end user, or under a tag, came to in some whole days: their fares, and what was given back
    of them."""
    first, behind = wanted.since_us // DAY_US, -(-wanted.until_us // DAY_US)
    asked = TotalsFilter(first, behind - 1, end_user=wanted.end_user, tag=wanted.tag)
    sums = Sums()
    for found in await books.attributed_totals(account_id, asked, 2):
        sums.orders, sums.events = found.total.orders, found.total.events
        sums.fares_nanos, sums.cost = found.total.fares_nanos, found.total.cost
    corrections = await books.corrections(account_id, wanted.since_us, wanted.until_us)
    orders = await books.orders([each.hold_id for each in corrections if each.hold_id is not None])
    theirs = {hold.id for hold in orders if wanted.takes(hold)}
    for each in corrections:
        if each.hold_id in theirs:
            sums.take(each, account_id)
    return sums


def _sums_row(sums: Sums) -> Row:
    return {
        "paid_in_usd": format_usd(sums.paid_in_nanos),
        "paid_out_usd": format_usd(sums.paid_out_nanos),
        "given_back_usd": format_usd(sums.given_back_nanos),
        "fares_usd": format_usd(sums.fares_nanos),
        "orders": sums.orders,
        "events": sums.events,
        "cost_usd": plain(add_exact(sums.cost, Decimal(0))),
    }
