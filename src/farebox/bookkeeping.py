"""Books for a bookkeeper: statements as files that accounting tools read, written piece by piece from what the
statement over HTTP is made of."""

from collections.abc import AsyncGenerator, AsyncIterator, Callable, Iterable, Iterator, Sequence
from csv import writer as csv_writer
from dataclasses import dataclass, field
from decimal import Decimal
from io import StringIO
from typing import Literal, Protocol

from msgspec.structs import replace

from farebox import clock
from farebox.bills import AT_ONCE, Bills, Row, StatementPage, harmless
from farebox.core import beancount, focus, hledger
from farebox.core.allowances import DAY_US, date_of, day_of
from farebox.core.bills import Days, Movement, TotalsFilter, moved_nanos
from farebox.core.books import LAST_US, DayTotal, HoldRow, Transfer
from farebox.core.callers import Account, Key
from farebox.core.chart import Chart, Happened, Moved, Side, Spent
from farebox.core.entries import Line
from farebox.core.kinds import units_used
from farebox.core.money import EVENT_NANOS
from farebox.ports import Books

Form = Literal["beancount", "hledger", "focus"]
By = Literal["day", "order"]

BYS: tuple[By, ...] = ("day", "order")

FORMS: dict[str, Form] = {".beancount": "beancount", ".journal": "hledger", ".focus.csv": "focus"}
"""By the endings of files."""

DAYS_AT_ONCE = 31
LINES_AT_ONCE = 10_000

_LINES_OF_A_DAY = 1_000_000
_BY = ("day", "key", "served_model", "kind")


class NotWholeDays(Exception):  # noqa: N818 - the word of the house
    """Sums of days are asked for, of a time that begins or ends within one."""


@dataclass(frozen=True, slots=True)
class Wanted:
    """Which file: of which accounts, from one moment to before another, as of when, in whose books."""

    form: Form
    accounts: Sequence[Account]
    since_us: int
    until_us: int
    now_us: int
    side: Side
    by: By = "day"
    shows_cost: bool = True
    """Whether it tells what the upstream charged, where it is in a caller's books."""

    def __post_init__(self) -> None:
        if self.by == "day" and (self.since_us % DAY_US or (self.until_us % DAY_US and self.until_us != LAST_US)):
            raise NotWholeDays

    @property
    def first_day(self) -> int:
        return day_of(self.since_us)

    @property
    def last_day(self) -> int:
        """The last one that anything is booked on."""
        return day_of(min(self.until_us - 1, max(self.now_us, self.since_us)))

    @property
    def title(self) -> str:
        whose = self.accounts[0].name if len(self.accounts) == 1 else f"{len(self.accounts)} accounts"
        since = date_of(self.first_day) if self.since_us else "its beginning"
        return f"Farebox: {whose}, {since} to {date_of(self.last_day)} (UTC), as of {clock.iso(self.now_us)}"


class _Writes(Protocol):
    """What writes a form."""

    def head(self, title: str) -> str: ...

    def begin(self, account: Account, day: int, opening_nanos: int) -> str: ...

    def lines(self, account: Account, happened: Sequence[Happened]) -> str: ...

    def end(self, account: Account, day: int, closing_nanos: int) -> str: ...


class Bookkeeping:
    """The use case. `issuer` is the name on invoices, where one is set. Of an account, as many days are read at once as
    have no more than `lines_at_once`; one at least."""

    def __init__(
        self, books: Books, bills: Bills, issuer: str | None = None, *, lines_at_once: int = LINES_AT_ONCE
    ) -> None:
        self._books = books
        self._bills = bills
        self._issuer = issuer
        self._lines_at_once = lines_at_once

    async def file(self, wanted: Wanted) -> AsyncGenerator[bytes, None]:
        """The file, in pieces: account by account, oldest first. What an account comes to stands at its end."""
        writes = self._writer(wanted)
        yield writes.head(wanted.title).encode()
        for account in wanted.accounts:
            balance, last_day = 0, wanted.last_day
            is_first = True
            async for opening, happened in self._happened(account, wanted):
                if is_first:
                    balance, is_first = opening, False
                    yield writes.begin(account, wanted.first_day or day_of(account.created_us), opening).encode()
                balance += sum(_changed(each) for each in happened)
                last_day = max([last_day, *(each.day for each in happened)])
                told = happened if wanted.shows_cost else [_fare_alone(each) for each in happened]
                yield writes.lines(account, told).encode()
            if not is_first:
                yield writes.end(account, last_day, balance).encode()

    def _writer(self, wanted: Wanted) -> _Writes:
        match wanted.form:
            case "beancount":
                return _Ledger(Chart(wanted.side), beancount.head, beancount.written)
            case "hledger":
                return _Ledger(Chart(wanted.side), hledger.head, hledger.written)
            case "focus":
                return _Focus(wanted.side, self._issuer)

    async def _happened(self, account: Account, wanted: Wanted) -> AsyncIterator[tuple[int, list[Happened]]]:
        """The balance before, and what happened, in pieces; none where the account was opened later."""
        if wanted.by == "day":
            first = max(wanted.first_day, day_of(account.created_us))
            keys = {key.id: key for key in await self._bills.keys_of(account)}
            async for days in self.days(account, first, wanted.last_day):
                yield days.opening_nanos, _of_days(account, days, keys)
            return
        last: Movement | None = Movement()
        while last is not None:
            page = await self._bills.statement(account, wanted.since_us, wanted.until_us, last, AT_ONCE)
            yield page.movements.opening_nanos, list(_of_page(account, page))
            last = page.next

    async def days(self, account: Account, first: int, last: int) -> AsyncIterator[Days]:
        """An account's days, so many at once as have few enough lines."""
        while first <= last:
            behind = min(last, first + DAYS_AT_ONCE - 1)
            while True:
                most = self._lines_at_once if behind > first else _LINES_OF_A_DAY
                found = await self._books.days(account.id, TotalsFilter(first, behind, _BY), most + 1)
                if len(found.totals) <= most:
                    break
                assert behind > first, "more lines of a day than there can be"
                behind = (first + behind) // 2
            yield found
            first = behind + 1


@dataclass(frozen=True, slots=True)
class _Ledger:
    """Files of double entry."""

    chart: Chart
    heads: Callable[[str], str]
    written: Callable[[Line], str]

    def head(self, title: str) -> str:
        return self.heads(title)

    def begin(self, account: Account, day: int, opening_nanos: int) -> str:
        return self._all(self.chart.begin(account.name, day, opening_nanos))

    def lines(self, account: Account, happened: Sequence[Happened]) -> str:
        return self._all(self.chart.entries(account.name, happened))

    def end(self, account: Account, day: int, closing_nanos: int) -> str:
        return self._all(self.chart.end(account.name, day, closing_nanos))

    def _all(self, lines: Iterator[Line]) -> str:
        return "".join(map(self.written, lines))


@dataclass(frozen=True, slots=True)
class _Focus:
    """A table of charges."""

    side: Side
    issuer: str | None
    columns: tuple[str, ...] = field(init=False)

    def __post_init__(self) -> None:
        object.__setattr__(self, "columns", focus.columns(self.side))

    def head(self, title: str) -> str:
        return _table([self.columns])

    def begin(self, account: Account, day: int, opening_nanos: int) -> str:
        return ""

    def lines(self, account: Account, happened: Sequence[Happened]) -> str:
        rows = (focus.row(account.id, account.name, each, self.issuer, self.side) for each in happened)
        return _table([harmless(row[name]) for name in self.columns] for row in rows if row is not None)

    def end(self, account: Account, day: int, closing_nanos: int) -> str:
        return ""


def _table(rows: Iterable[Sequence[object]]) -> str:
    text = StringIO()
    csv_writer(text, lineterminator="\r\n").writerows(rows)
    return text.getvalue()


def _changed(happened: Happened) -> int:
    """By how much it changed the balance."""
    return happened.moved_nanos if isinstance(happened, Moved) else -happened.fares_nanos


def _fare_alone(happened: Happened) -> Happened:
    """As those see it who are told the fare alone: in events of the fare."""
    if isinstance(happened, Moved):
        return happened
    events = -(-happened.fares_nanos // EVENT_NANOS)
    price = None if happened.event_price_nanos is None else EVENT_NANOS
    return replace(happened, cost=None, events=events, event_price_nanos=price)


def _of_days(account: Account, days: Days, keys: dict[int, Key]) -> list[Happened]:
    """In the order of days; of one day what was paid in and the like first, then the fares."""
    moved: list[Happened] = []
    for transfer in days.transfers:
        hold = days.orders.get(transfer.hold_id or "")
        key = None if hold is None else keys.get(hold.key_id)
        moved.append(_moved(transfer, account.id, hold, "" if key is None else key.digest.hex(), _named(key)))
    spent: list[Happened] = [_spent_on(total, keys.get(total.key[2])) for total in reversed(days.totals)]
    return sorted([*moved, *spent], key=lambda each: (each.day, isinstance(each, Spent)))


def _named(key: Key | None) -> str:
    return "" if key is None else key.label or key.hint


def _spent_on(total: DayTotal, key: Key | None) -> Spent:
    _, day, _, _, served, kind = total.key
    unit, units = next(iter(units_used(kind, total.units).items()), ("", ""))
    return Spent(
        day=day,
        at_us=day * DAY_US,
        model=served,
        key=_named(key),
        key_id=None if key is None else key.id,
        key_hash="" if key is None else key.digest.hex(),
        kind=kind,
        orders=total.orders,
        events=total.events,
        event_price_nanos=None,
        fares_nanos=total.fares_nanos,
        cost=total.cost,
        prompt_tokens=total.prompt_tokens,
        answer_tokens=total.answer_tokens,
        unit=unit,
        units=units,
    )


def _moved(transfer: Transfer, account_id: int, hold: HoldRow | None, key_hash: str, key: str) -> Moved:
    moved = moved_nanos(transfer, account_id)
    return Moved(
        day=day_of(transfer.created_us),
        at_us=transfer.created_us,
        what="correction" if transfer.is_correction else "top-up" if moved > 0 else "paid out",
        id=transfer.id,
        moved_nanos=moved,
        reason=transfer.note or "",
        model="" if hold is None else hold.served_model or hold.model,
        key=key,
        key_hash=key_hash,
        order_id=transfer.hold_id or "",
        fare_us=None if hold is None else hold.ended_us,
    )


def _of_page(account: Account, page: StatementPage) -> Iterator[Happened]:
    """The lines of a statement that moved money, or were a fare of nothing."""
    for row, transfer in zip(page.rows, page.movements.transfers, strict=False):
        hold = page.movements.orders.get(transfer.hold_id or "")
        if transfer.is_fare:
            yield _spent_in(row, transfer, None if hold is None else hold.key_id)
        elif moved_nanos(transfer, account.id):
            yield _moved(transfer, account.id, hold, _text(row, "key_hash"), _text(row, "key"))


def _spent_in(row: Row, transfer: Transfer, key_id: int | None) -> Spent:
    cost = row.get("cost_usd")
    return Spent(
        day=day_of(transfer.created_us),
        at_us=transfer.created_us,
        model=_text(row, "model"),
        key=_text(row, "key"),
        key_id=key_id,
        key_hash=_text(row, "key_hash"),
        kind=_text(row, "kind"),
        orders=1,
        events=transfer.events or 0,
        event_price_nanos=transfer.event_price_nanos,
        fares_nanos=transfer.amount_nanos,
        cost=None if cost is None else Decimal(str(cost)),
        prompt_tokens=int(row["prompt_tokens"] or 0),
        answer_tokens=int(row["answer_tokens"] or 0),
        unit=_text(row, "unit"),
        units=_text(row, "units"),
        order_id=_text(row, "order_id"),
        generation_id=_text(row, "generation_id"),
    )


def _text(row: Row, name: str) -> str:
    return str(row[name] or "")
