"""Orders, statements and totals over HTTP: for callers at `/orders`, `/statement` and `/totals` under a base, for
managers below `/admin`. Each is JSON or CSV, as the path's ending or `Accept` says."""

import csv
import io
import re
from collections.abc import AsyncGenerator, Awaitable, Callable, Mapping, Sequence
from contextlib import aclosing
from dataclasses import dataclass
from datetime import UTC, datetime
from typing import Any
from urllib.parse import urlencode

import msgspec
from starlette.convertors import Convertor, register_url_convertor
from starlette.types import Receive, Scope, Send

from farebox import clock
from farebox.bills import (
    AT_ONCE,
    COUNTED,
    GROUP_COLUMNS,
    ORDER_COLUMNS,
    STATEMENT_COLUMNS,
    TOTALS_MAX,
    Bills,
    Row,
    TooManyLines,
    fares_alone,
    harmless,
    sums_of,
)
from farebox.bookkeeping import BYS, FORMS, Bookkeeping, By, Form, NotWholeDays, Wanted
from farebox.core.allowances import DAY_US, LAST_DAY
from farebox.core.attribution import is_tag, read_tag
from farebox.core.bills import (
    GROUPS,
    TAG_GROUP,
    Movement,
    OrderFilter,
    OrderPlace,
    Tag,
    TotalsFilter,
    cursor_of,
    place_of,
)
from farebox.core.books import LAST_US, HoldState
from farebox.core.callers import Account, Key
from farebox.core.chart import Side
from farebox.core.errors import invalid, unknown
from farebox.core.formats.table import KINDS
from farebox.core.headers import HeaderList
from farebox.core.keys import PREFIX
from farebox.core.money import format_usd
from farebox.core.trail import EntryPlace, Told, TrailFilter
from farebox.http.asgi import JSON, TAKER, Endpoint, send_pieces, send_whole
from farebox.http.queries import query_pairs, query_whole
from farebox.ports import Taker
from farebox.trail import COLUMNS as TRAIL_COLUMNS
from farebox.trail import Trails, by_name, fare_alone, line

PAGE = 100
"""Rows of a page where nothing is said."""

STATES: tuple[HoldState, ...] = ("pending", "open", "posted", "voided")

CSV = (b"content-type", b"text/csv; charset=utf-8; header=present")

RANGE = ("from", "to", "month", "day")
FOR_WHOM = ("end_user", "tag")
FILTERS = ("key", "model", "kind", "state", *FOR_WHOM)
PAGING = ("limit", "cursor")


@dataclass(frozen=True, slots=True)
class Whose:
    """Whose bills a request may see: an account's, or (None) all; whether with what the upstream charged, or the fares
    alone; and whether it is not asked by who manages all accounts."""

    account: Account | None
    shows_cost: bool = True
    is_for_one: bool = True


Find = Callable[[Scope], Awaitable[Whose]]
"""Raises Refusal."""


@dataclass(frozen=True, slots=True)
class WhoseBooks:
    """Of which accounts a request may have ledgers; in whose books they are kept, where it does not say it; and whether
    with what the upstream charged."""

    accounts: Sequence[Account]
    side: Side
    shows_cost: bool = True


FindBooks = Callable[[Scope], Awaitable[WhoseBooks]]
"""Raises Refusal."""

SIDES: tuple[Side, ...] = ("caller", "operator")
_LEDGER_TYPES: Mapping[Form, bytes] = {
    "beancount": b"text/plain; charset=utf-8",
    "hledger": b"text/plain; charset=utf-8",
    "focus": b"text/csv; charset=utf-8; header=present",
}


class _Ending(Convertor[str]):
    regex = r"\.(?:csv|json)"

    def convert(self, value: str) -> str:
        return value

    def to_string(self, value: str) -> str:
        return value


register_url_convertor("ending", _Ending())


class _LedgerEnding(_Ending):
    regex = "|".join(re.escape(ending) for ending in FORMS)


register_url_convertor("ledger", _LedgerEnding())


@dataclass(frozen=True, slots=True)
class _Asked:
    """A request: whose bills, its query (each name once), whether it wants CSV, and the moment that it came."""

    path: str
    account: Account | None
    shows_cost: bool
    query: Mapping[str, str]
    wants_csv: bool
    now_us: int
    is_for_one: bool = True

    def check_names(self, *known: str) -> None:
        for name in self.query:
            if name not in known:
                raise invalid(f"{name}: there is no such parameter; there are {', '.join(known)}")

    @property
    def range(self) -> tuple[int, int]:
        """From one moment to before another. Raises Refusal 400."""
        since_us, until_us = 0, LAST_US
        whole = [(name, self.query[name]) for name in ("month", "day") if name in self.query]
        if whole and (len(whole) > 1 or "from" in self.query or "to" in self.query):
            raise invalid(f"{whole[0][0]}: it stands alone, without from, to and the like")
        for name, text in whole:
            since_us, until_us = _month(text) if name == "month" else _day(text)
        if "from" in self.query:
            since_us = _moment("from", self.query["from"])
        if "to" in self.query:
            until_us = _moment("to", self.query["to"])
        if since_us > until_us:
            raise invalid("from, to: the time would end before it begins; `to` is the moment before which it ends")
        return since_us, until_us

    @property
    def most(self) -> int:
        found = query_whole(self.query, "limit", PAGE, least=1)
        if found > AT_ONCE:
            raise invalid(f"limit: at most {AT_ONCE} in a page")
        return found

    @property
    def wants_all(self) -> bool:
        """Whether it is a download: a CSV of which no page is asked for."""
        return self.wants_csv and "limit" not in self.query and "cursor" not in self.query

    def told(self, rows: Sequence[Row]) -> Sequence[Row]:
        """Rows as they are shown to who asks."""
        return rows if self.shows_cost else [fares_alone(row) for row in rows]

    async def told_pieces(self, pieces: AsyncGenerator[list[Row], None]) -> AsyncGenerator[list[Row], None]:
        async with aclosing(pieces):
            async for rows in pieces:
                yield list(self.told(rows))

    def next_page(self, place: msgspec.Struct | None) -> str | None:
        if place is None:
            return None
        return f"{self.path}?{urlencode({**self.query, 'cursor': cursor_of(place)})}"

    def about(self, since_us: int, until_us: int) -> dict[str, object]:
        """What stands in every answer: the time it is about, its zone, and as of when it is."""
        return {
            "from": clock.iso(since_us) if since_us else None,
            "to": clock.iso(until_us) if until_us < LAST_US else None,
            "zone": "UTC",
            "as_of": clock.iso(self.now_us),
        }


@dataclass(frozen=True, slots=True)
class _Answer:
    """Rows with these columns, and what stands beside them in JSON; or, of a download, `pieces` of rows."""

    name: str
    columns: Sequence[str]
    about: dict[str, object]
    rows: Sequence[Row] = ()
    next: str | None = None
    pieces: AsyncGenerator[list[Row], None] | None = None


Do = Callable[[_Asked], Awaitable[_Answer]]


class BillPages:
    """The endpoints, for whoever `find` finds an account for."""

    def __init__(self, bills: Bills, bookkeeping: Bookkeeping, trails: Trails) -> None:
        self._bills = bills
        self._bookkeeping = bookkeeping
        self._trails = trails

    def routes(self, find: Find, *, with_statement: bool = True, with_trail: bool = False) -> dict[str, Endpoint]:
        """By their path below whatever they are put under."""
        lists: dict[str, Do] = {"/orders": self._orders, "/totals": self._totals}
        if with_statement:
            lists["/statement"] = self._statement
        if with_trail:
            lists["/trail"] = self._trail
        served = {path: _serve(find, do) for path, do in lists.items()}
        return {
            **served,
            **{f"{path}{{ending:ending}}": endpoint for path, endpoint in served.items()},
            "/orders/{id}": self._one_order(find),
        }

    def ledger(self, find: FindBooks) -> Endpoint:
        """Statements as files for accounting tools, by the ending of the path."""

        async def endpoint(scope: Scope, receive: Receive, send: Send) -> None:
            whose = await find(scope)
            ending = str(scope["path_params"]["ledger"])
            asked = _asked(scope, Whose(None), wants_csv=False)
            asked.check_names(*RANGE, "by", "books")
            named = _one_of(asked, "by", BYS)
            by: By = "order" if named == "order" else "day"
            wanted_side = _one_of(asked, "books", SIDES if whose.side == "operator" else ("caller",))
            side = next((each for each in SIDES if each == wanted_side), whose.side)
            since_us, until_us = asked.range
            try:
                wanted = Wanted(
                    FORMS[ending], whose.accounts, since_us, until_us, asked.now_us, side, by, whose.shows_cost
                )
            except NotWholeDays as error:
                raise invalid("from, to: write dates such as 2026-11-28, or ask for by=order") from error
            headers: HeaderList = [
                (b"content-type", _LEDGER_TYPES[wanted.form]),
                _PRIVATE,
                (b"content-disposition", f'attachment; filename="statement{ending}"'.encode()),
                *_about_headers(asked.about(since_us, until_us)),
            ]
            await send_pieces(send, headers, self._bookkeeping.file(wanted), scope.get(TAKER))

        return endpoint

    async def _orders(self, asked: _Asked) -> _Answer:
        asked.check_names(*RANGE, *FILTERS, *PAGING)
        since_us, until_us = asked.range
        key = await self._key(asked)
        wanted = OrderFilter(
            since_us,
            until_us,
            None if key is None else key.id,
            asked.query.get("model"),
            _one_of(asked, "kind", sorted(set(KINDS.values()))),
            next((state for state in STATES if state == _one_of(asked, "state", STATES)), None),
            self._end_user(asked),
            _tag(asked),
        )
        after = OrderPlace(asked.now_us + 1)
        if "cursor" in asked.query:
            after = _place(asked.query["cursor"], OrderPlace)
        about = asked.about(since_us, until_us) | {"as_of": clock.iso(after.as_of_us)}
        if asked.wants_all:
            pieces = self._bills.all_orders(asked.account, wanted, after)
            return _Answer("orders", ORDER_COLUMNS, about, pieces=asked.told_pieces(pieces))
        page = await self._bills.orders(asked.account, wanted, after, asked.most)
        return _Answer("orders", ORDER_COLUMNS, about, asked.told(page.rows), asked.next_page(page.next))

    async def _statement(self, asked: _Asked) -> _Answer:
        asked.check_names(*RANGE, *FOR_WHOM, *PAGING)
        assert asked.account is not None
        account, (since_us, until_us) = asked.account, asked.range
        after = _place(asked.query["cursor"], Movement) if "cursor" in asked.query else Movement()
        about = asked.about(since_us, until_us)
        wanted: OrderFilter | None = OrderFilter(since_us, until_us, end_user=self._end_user(asked), tag=_tag(asked))
        if wanted is not None and wanted.end_user is None and wanted.tag is None:
            wanted = None
        if wanted is not None:
            _check_days(since_us, until_us, "a statement of an end user or a tag is")
        if asked.wants_all:
            pieces = self._bills.whole_statement(account, since_us, until_us, after, wanted)
            return _Answer("statement", STATEMENT_COLUMNS, about, pieces=asked.told_pieces(pieces))
        page = await self._bills.statement(account, since_us, until_us, after, asked.most, wanted)
        found = page.movements
        sums = sums_of(found) if wanted is None else await self._bills.sums_for(account, wanted)
        about |= {
            "account": account.name,
            "plan": account.plan,
            "opening_balance_usd": format_usd(found.opening_nanos),
            "closing_balance_usd": format_usd(found.closing_nanos),
            "totals": asked.told([sums])[0],
        }
        return _Answer("statement", STATEMENT_COLUMNS, about, asked.told(page.rows), asked.next_page(page.next))

    async def _totals(self, asked: _Asked) -> _Answer:
        asked.check_names(*RANGE, "by", "key", "model", "kind", *FOR_WHOM)
        since_us, until_us = asked.range
        _check_days(since_us, until_us, "totals are")
        by = tuple(name for name in (asked.query.get("by") or "day").split(",") if name)
        check_groups(by)
        key = await self._key(asked)
        kind = _one_of(asked, "kind", sorted(set(KINDS.values())))
        key_id = None if key is None else key.id
        wanted = TotalsFilter(
            since_us // DAY_US,
            -(-until_us // DAY_US) - 1,
            by,
            key_id,
            asked.query.get("model") or None,
            kind,
            self._end_user(asked),
            _tag(asked),
        )
        try:
            rows, whole = await self._bills.totals(asked.account, wanted)
        except TooManyLines as error:
            raise invalid(f"by: that is more than {TOTALS_MAX} lines; ask for a shorter time, or by less") from error
        columns = [column for name in (*GROUPS, "end_user") if name in by for column in GROUP_COLUMNS[name]]
        columns += [name for name in by if name.startswith(TAG_GROUP)]
        about = asked.about(since_us, until_us) | {"totals": asked.told([whole])[0]}
        return _Answer("totals", (*columns, *COUNTED), about, asked.told(rows))

    def _end_user(self, asked: _Asked) -> str | None:
        named = asked.query.get("end_user")
        return self._bills.end_user(named) if named else None

    async def _trail(self, asked: _Asked) -> _Answer:
        """For managers: who changed what, the latest first."""
        asked.check_names(*RANGE, "key", "who", "what", *PAGING)
        since_us, until_us = asked.range
        key = await self._key(asked)
        account_id = None if asked.account is None else asked.account.id
        key_id = None if key is None else key.id
        who, what = asked.query.get("who"), asked.query.get("what")
        wanted = TrailFilter(since_us, until_us, account_id, key_id, who, what, asked.is_for_one)
        before = EntryPlace(LAST_US)
        if "cursor" in asked.query:
            before = _place(asked.query["cursor"], EntryPlace)
        about = asked.about(since_us, until_us)
        if asked.wants_all:
            return _Answer("trail", TRAIL_COLUMNS, about, pieces=self._all_lines(wanted, before.id, asked))
        page = await self._trails.page(wanted, before.id, asked.most)
        rows = [_trail_line(told, asked) for told in page.told]
        following = None if page.next is None else EntryPlace(page.next)
        return _Answer("trail", TRAIL_COLUMNS, about, rows, asked.next_page(following))

    async def _all_lines(self, wanted: TrailFilter, before: int, asked: _Asked) -> AsyncGenerator[list[Row], None]:
        async with aclosing(self._trails.every(wanted, before)) as pieces:
            async for piece in pieces:
                yield [_trail_line(told, asked) for told in piece]

    async def _key(self, asked: _Asked) -> Key | None:
        if (named := asked.query.get("key")) is None:
            return None
        if named.startswith(PREFIX) and len(named) > 30:
            raise invalid("key: give its hash or its name, never the key itself: addresses are kept in logs")
        if (found := await self._bills.find_key(asked.account, named)) is None:
            raise invalid(f"key: there is none called {named[:80]!r}, or there are several; give its hash")
        return found

    def _one_order(self, find: Find) -> Endpoint:
        async def endpoint(scope: Scope, receive: Receive, send: Send) -> None:
            whose = await find(scope)
            named = str(scope["path_params"]["id"])
            found = await self._bills.order(whose.account, named)
            if found is None:
                raise unknown(f"Order {named[:100]} not found: it is none, or another account's")
            order, transfers = found
            if not whose.shows_cost:
                order, transfers = fares_alone(order), [fares_alone(each) for each in transfers]
            about = {"zone": "UTC", "as_of": clock.iso(clock.now_us())}
            answer = {"data": {**order, "transfers": transfers}, **about}
            await send_whole(send, 200, [JSON, _PRIVATE], msgspec.json.encode(answer))

        return endpoint


def _trail_line(told: Told, asked: _Asked) -> Row:
    """As JSON, a change's members stand for themselves."""
    if not asked.shows_cost:
        told = fare_alone(told)
    row: dict[str, Any] = dict(line(told, asked.account.id if asked.is_for_one and asked.account else None))
    if not asked.wants_csv:
        row["changes"] = by_name(told.entry.change.members)
    return row


_PRIVATE = (b"cache-control", b"private, no-store")


def _serve(find: Find, do: Do) -> Endpoint:
    async def endpoint(scope: Scope, receive: Receive, send: Send) -> None:
        whose = await find(scope)
        ending = scope["path_params"].get("ending", "")
        accepts = b",".join(value for name, value in scope["headers"] if name == b"accept").lower()
        wants_csv = ending == ".csv" or (not ending and accepts.startswith(b"text/csv"))
        answer = await do(_asked(scope, whose, wants_csv=wants_csv))
        if wants_csv:
            await _send_csv(send, answer, scope.get(TAKER))
        else:
            body = {"data": answer.rows, **answer.about}
            if answer.name != "totals":
                body["next"] = answer.next
            await send_whole(send, 200, [JSON, _PRIVATE, *_link(answer)], msgspec.json.encode(body))

    return endpoint


def _asked(scope: Scope, whose: Whose, *, wants_csv: bool) -> _Asked:
    pairs = query_pairs(scope)
    query = dict(pairs)
    if len(query) != len(pairs):
        raise invalid("the query: a parameter stands in it twice")
    return _Asked(scope["path"], whose.account, whose.shows_cost, query, wants_csv, clock.now_us(), whose.is_for_one)


def _link(answer: _Answer) -> HeaderList:
    return [] if answer.next is None else [(b"link", f'<{answer.next}>; rel="next"'.encode())]


async def _send_csv(send: Send, answer: _Answer, taker: Taker | None) -> None:
    headers: HeaderList = [
        CSV,
        _PRIVATE,
        (b"content-disposition", f'attachment; filename="{answer.name}.csv"'.encode()),
        *_about_headers(answer.about),
        *_link(answer),
    ]
    head = _lines([dict(zip(answer.columns, answer.columns, strict=True))], answer.columns)
    if answer.pieces is None:
        await send_whole(send, 200, headers, head + _lines(answer.rows, answer.columns))
        return
    await send_pieces(send, headers, _csv_pieces(head, answer.pieces, answer.columns), taker)


async def _csv_pieces(
    head: bytes, pieces: AsyncGenerator[list[Row], None], columns: Sequence[str]
) -> AsyncGenerator[bytes, None]:
    yield head
    async with aclosing(pieces):
        async for rows in pieces:
            yield _lines(rows, columns)


def _about_headers(about: Mapping[str, object]) -> HeaderList:
    said = {b"from": about["from"], b"to": about["to"], b"as-of": about["as_of"]}
    return [(b"x-farebox-" + name, str(value).encode()) for name, value in said.items() if value]


def _lines(rows: Sequence[Row], columns: Sequence[str]) -> bytes:
    text = io.StringIO()
    writer = csv.writer(text, lineterminator="\r\n")
    writer.writerows([[harmless(row[name]) for name in columns] for row in rows])
    return text.getvalue().encode()


def _one_of(asked: _Asked, name: str, known: Sequence[str]) -> str | None:
    value = asked.query.get(name)
    if value is not None and value not in known:
        raise invalid(f"{name}: {value[:40]!r} is none of {', '.join(known)}")
    return value


def _tag(asked: _Asked) -> Tag | None:
    named = asked.query.get("tag")
    if not named:
        return None
    if (found := read_tag(named)) is None:
        raise invalid(f"tag: {named[:80]!r} is no tag; write its name and its value, like team=search")
    return found


def check_groups(by: Sequence[str]) -> None:
    """Raises Refusal 400: totals cannot be grouped so."""
    tags = [name for name in by if name.startswith(TAG_GROUP) and is_tag(name.removeprefix(TAG_GROUP), "value")]
    if strange := [name for name in by if name not in (*GROUPS, "end_user", *tags)]:
        known = ", ".join((*GROUPS, "end_user"))
        raise invalid(
            f"by: {strange[0][:40]!r} is none of {known}, or a tag's name such as tag:team; write several with commas"
            " between"
        )
    if len(tags) > 1:
        raise invalid("by: one tag at a time; ask for another with a filter such as tag=team=search")


def _check_days(since_us: int, until_us: int, what: str) -> None:
    if since_us % DAY_US or (until_us % DAY_US and until_us != LAST_US):
        raise invalid(f"from, to: {what} of whole UTC days; write dates such as 2026-11-28")


def _place(cursor: str, kind: type[Any]) -> Any:
    if (place := place_of(cursor, kind)) is None:
        raise invalid("cursor: give the one that stands in `next` of the page before, as it is")
    return place


_EXAMPLE = "write it like 2026-11-28, 2026-11-28T14:30:00Z or 2026-11"
_MONTH = re.compile(r"([0-9]{4})-([0-9]{2})")


def _moment(name: str, text: str) -> int:
    """A moment: a date's first, a month's first, or one with a time, in UTC where it names no zone."""
    if _MONTH.fullmatch(text):
        return _month(text, name)[0]
    try:
        # In a query a plus sign that was not escaped has become a space.
        at = datetime.fromisoformat(text.replace(" ", "+", 1) if text[10:11] == "T" else text)
        found = clock.us_of(at)
    except ValueError as error:
        raise invalid(f"{name}: {_EXAMPLE}, not {text[:40]!r}") from error
    if not 0 <= found // DAY_US <= LAST_DAY:
        raise invalid(f"{name}: {_EXAMPLE}, of a year from 1970 to 9998, not {text[:40]!r}")
    return found


def _month(text: str, name: str = "month") -> tuple[int, int]:
    found = _MONTH.fullmatch(text)
    if found is None or not 1 <= int(found[2]) <= 12 or not 1970 <= int(found[1]) < 9999:
        raise invalid(f"{name}: write it like 2026-11, of a year from 1970 to 9998, not {text[:40]!r}")
    year, month = int(found[1]), int(found[2])
    after = (year + month // 12, month % 12 + 1)
    return clock.us_of(datetime(year, month, 1, tzinfo=UTC)), clock.us_of(datetime(*after, 1, tzinfo=UTC))


def _day(text: str) -> tuple[int, int]:
    if not re.fullmatch(r"[0-9]{4}-[0-9]{2}-[0-9]{2}", text):
        raise invalid(f"day: write it like 2026-11-28, not {text[:40]!r}")
    start_us = _moment("day", text)
    return start_us, start_us + DAY_US
