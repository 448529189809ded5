"""An account's statement: what its money did in a time, line by line, and what that comes to."""

from datetime import date

from farebox import clock
from farebox.bills import LOOKED_AT, sums_for
from farebox.console.house import House
from farebox.console.naming import Names
from farebox.console.orders import end_user_of, tag_of
from farebox.console.rendering import query_text
from farebox.console.requests import Cell, Page, Request
from farebox.console.shown import decimals_of, places_of
from farebox.core.allowances import DAY_US, date_of, day_of
from farebox.core.attribution import tags_text
from farebox.core.bills import Movement, OrderFilter, cursor_of, moved_nanos, place_of
from farebox.core.books import HoldRow, Transfer
from farebox.core.callers import Account
from farebox.core.chart import Side
from farebox.core.errors import invalid, unknown
from farebox.core.money import format_usd, plain, whole_events
from farebox.web.members import day_of_date

ROWS = 100
COLUMNS = (
    "time",
    "what",
    "model",
    "key",
    "end_user",
    "tags",
    "prompt_tokens",
    "answer_tokens",
    "cost_usd",
    "events",
    "amount_usd",
    "balance_usd",
    "order",
    "transfer",
)

CHOICES_MAX = 200
"""Accounts that an operator is offered."""


async def show(house: House, request: Request) -> Page:
    """GET /console/statement: of a month, or of some days."""
    account = await account_of(house, request)
    if account is None:
        found = await house.reading.accounts(CHOICES_MAX)
        return Page("choose-account.html", {"accounts": [each for each, _ in found], "page": "statement"})
    month, first_day, last_day = days_of(request)
    after = Movement()
    if cursor := request.text("after"):
        place = place_of(cursor, Movement)
        if place is None:
            raise invalid("after: no place in a statement; begin at the first page")
        after = place
    asked = {"month": month} if month else {"since": date_of(first_day), "until": date_of(last_day)}
    since_us, until_us = first_day * DAY_US, (last_day + 1) * DAY_US
    most = request.rows(ROWS)
    wanted = OrderFilter(since_us, until_us, end_user=end_user_of(house, request), tag=tag_of(request))
    is_part = wanted.end_user is not None or wanted.tag is not None
    looked_at = max(most, LOOKED_AT) if is_part else most
    found_here = await house.reading.movements(account.id, since_us, until_us, after, looked_at + 1)
    names, shows_cost = Names(house.reading), house.shows_cost(request.viewer)
    balance, last = found_here.before_nanos, after
    rows: list[dict[str, Cell]] = []
    for transfer in found_here.transfers[:looked_at]:
        if len(rows) == most:
            break
        balance += moved_nanos(transfer, account.id)
        last = Movement(transfer.created_us, transfer.id, balance)
        hold = found_here.orders.get(transfer.hold_id or "")
        if not is_part or (hold is not None and wanted.takes(hold)):
            row = await _row(transfer, hold, account.id, balance, names)
            rows.append(row if shows_cost else _fare_alone(row, transfer))
    sums = await sums_for(house.books, account.id, wanted) if is_part else found_here.sums
    is_last = not found_here.transfers or last.id == found_here.transfers[-1].id
    amounts = [amount for row in rows for amount in (row["amount_nanos"], row["balance_nanos"])]
    ends = [found_here.opening_nanos, found_here.closing_nanos, sums.moved_nanos]
    values = {
        "account": account,
        "rows": rows,
        "month": month,
        "is_part": is_part,
        "end_user": request.text("end_user"),
        "tag": request.text("tag"),
        "asked": query_text({**asked, "account_id": account.id}),
        "side": side_of(request),
        "since": date_of(first_day),
        "until": date_of(last_day),
        "opening_nanos": found_here.opening_nanos,
        "closing_nanos": found_here.closing_nanos,
        "is_first": not cursor,
        "is_last": is_last,
        "sums": sums,
        "cost": plain(sums.cost),
        "shows_cost": shows_cost,
        "places": places_of([*ends, *(each for each in amounts if isinstance(each, int))]),
        "cost_places": decimals_of(cost for row in rows if isinstance(cost := row["cost_usd"], str)),
    }
    return Page(
        "statement.html",
        values,
        columns=COLUMNS,
        rows=rows,
        next_query=None if is_last else {"after": cursor_of(last)},
    )


async def account_of(house: House, request: Request) -> Account | None:
    """Whose statement, or list, it is; None where an operator has not said it. Raises Refusal 404."""
    asked = request.whole("account_id")
    if not asked:
        return request.viewer.account
    request.viewer.check_sees(asked, "There is no such account")
    found = await house.reading.account(asked)
    if found is None:
        raise unknown("There is no such account")
    return found[0]


def side_of(request: Request) -> Side:
    """In whose books a file is kept: those of the operator, for who manages all accounts and wants no others."""
    is_operators = request.viewer.is_operator and request.text("books") != "caller"
    return "operator" if is_operators else "caller"


def days_of(request: Request) -> tuple[str, int, int]:
    """The month that is asked for, if one is, and the first and last day. Raises Refusal 400."""
    since, until = request.day("since"), request.day("until")
    if since is None and until is None:
        month = request.text("month") or clock.iso(request.now_us)[:7]
        first = day_of_date(f"{month}-01", "month")
        began = date.fromisoformat(f"{month}-01")
        following = date(began.year + began.month // 12, began.month % 12 + 1, 1)
        return month, first, first + (following - began).days - 1
    first = 0 if since is None else since
    last = day_of(request.now_us) if until is None else until
    if first > last:
        raise invalid("since, until: from one day to a later one")
    return "", first, last


async def _row(
    transfer: Transfer, hold: HoldRow | None, account_id: int, balance_nanos: int, names: Names
) -> dict[str, Cell]:
    moved = moved_nanos(transfer, account_id)
    return {
        "time": clock.iso(transfer.created_us, "milliseconds"),
        "time_us": transfer.created_us,
        "what": _what(transfer),
        "model": None if hold is None else hold.served_model or hold.model,
        "key": None if hold is None else await names.key(hold.key_id),
        "end_user": None if hold is None else hold.end_user,
        "tags": None if hold is None else tags_text(hold.tags),
        "prompt_tokens": None if hold is None else hold.prompt_tokens,
        "answer_tokens": None if hold is None else hold.answer_tokens,
        "cost_usd": None if transfer.cost is None else plain(transfer.cost),
        "events": transfer.events,
        "amount_usd": format_usd(moved),
        "amount_nanos": moved,
        "balance_usd": format_usd(balance_nanos),
        "balance_nanos": balance_nanos,
        "order": transfer.hold_id,
        "transfer": transfer.id,
    }


def _fare_alone(row: dict[str, Cell], transfer: Transfer) -> dict[str, Cell]:
    """A line without the cost, and in events of the fare."""
    return {**row, "cost_usd": None, "events": whole_events(transfer.amount_nanos) if transfer.is_fare else None}


def _what(transfer: Transfer) -> str:
    match transfer.kind:
        case "top-up":
            return f"paid in ({transfer.note})" if transfer.note else "paid in"
        case "post":
            return "fare above its hold" if transfer.over_hold_nanos else "fare"
        case "void":
            return "not served"
        case "adjustment" if transfer.is_correction:
            return f"{'refund' if transfer.given_back_nanos > 0 else 'correction'} ({transfer.note})"
        case "adjustment" if transfer.hold_id is None:
            return f"paid out ({transfer.note})"
        case "adjustment":
            return f"adjustment ({transfer.note})"
        case "hold":
            return "held"
