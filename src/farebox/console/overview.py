"""What was spent, what is left, and what needs a person."""

from collections.abc import Iterable
from dataclasses import dataclass
from typing import Literal

from msgspec.structs import replace

from farebox.console.charts import Bars, bars
from farebox.console.house import House
from farebox.console.naming import Names
from farebox.console.orders import end_user_of, tag_of
from farebox.console.reading import MINUTE_US, Ended, Spent, spent_from
from farebox.console.rendering import query_text
from farebox.console.requests import Cell, Page, Request, Viewer
from farebox.console.shown import places_of
from farebox.core.allowances import began_us, date_of, day_of
from farebox.core.bills import TAG_GROUP, TotalsFilter
from farebox.core.errors import invalid
from farebox.core.money import format_usd
from farebox.web.bills import check_groups

DAYS = 30
"""UTC days that the chart shows, today's included."""

RANKED_MAX = 8
LOW_MAX = 10
"""Low accounts that are named."""

FARE, NOT_SERVED = "charged for", "not charged: failed, or left before they began"
"""What became of orders that ended."""

KINDS_MAX = 10
"""Kinds of errors that are named."""

SPENT_DAYS_MAX = 366
SPENT_ROWS_MAX = 300
SPENT_COLUMNS = ("date", "account", "key", "model", "for", "orders", "prompt_tokens", "answer_tokens", "fares_usd")

Column = Literal["model", "key_id", "account_id"]


@dataclass(frozen=True, slots=True)
class Sum:
    """What orders under one name came to; `where` is the query that finds their rows, None for several names."""

    name: str
    orders: int
    nanos: int
    where: tuple[str, str] | None = None


async def show(house: House, request: Request) -> Page:
    """GET /console."""
    viewer, now_us = request.viewer, request.now_us
    today = day_of(now_us)
    first_day = today - DAYS + 1
    month_day = day_of(began_us("month", now_us))
    by_day, by_key = await house.reading.spent_since(viewer.account_id, min(first_day, month_day), month_day, today)
    month = [each for each in by_day if each.day >= month_day]
    chart = bars(
        {(each.day, each.model): each.fares_nanos for each in by_day if each.day >= first_day}, first_day, today
    )
    minutes, ended = await house.reading.ended_each_minute(viewer.account_id, now_us)
    names = Names(house.reading)
    tables = [
        ("By model", await _ranked(month, "model", names)),
        ("By key", await _ranked(by_key, "key_id", names)),
    ]
    if viewer.account is None:
        tables.append(("By account", await _ranked(by_key, "account_id", names)))
    return Page(
        "overview.html",
        {
            "today": _total(each for each in by_day if each.day >= today),
            "month": _total(month),
            "month_name": date_of(month_day)[:7],
            "since_month": date_of(month_day),
            "since_chart": date_of(first_day),
            "until": date_of(today),
            "days": DAYS,
            "chart": chart,
            "tables": tables,
            "places": places_of(each.nanos for _, rows in tables for each in rows),
            "chart_places": places_of(nanos for _, values in chart.table for nanos in values),
            "minutes": minutes,
            "ended": sum(each.fares + each.others for each in ended),
            "not_served": sum(each.others for each in ended),
            "by_minute": _by_minute(ended, now_us, minutes),
            "counts": await house.counts() if viewer.is_operator else None,
            "kinds_max": KINDS_MAX,
            "standing": await house.reading.standing(viewer.account_id),
            "needs": await _needs(house, viewer),
        },
    )


def _by_minute(ended: Iterable[Ended], now_us: int, minutes: int) -> Bars:
    """Orders that ended, for each minute until now."""
    last = now_us // MINUTE_US
    counted = {(each.minute, FARE): each.fares for each in ended if each.fares}
    counted |= {(each.minute, NOT_SERVED): each.others for each in ended if each.others}
    return bars(counted, last - minutes + 1, last)


async def _needs(house: House, viewer: Viewer) -> list[tuple[str, str, str]]:
    """What needs a person: what it is, where to do it, and the words of that link."""
    if viewer.is_operator:
        found = await house.troubles.everywhere()
    else:
        found = await house.troubles.low_balances(viewer.account_id)
    lows = [each for each in found if each.kind == "low_balance"]
    shown = [each for each in found if each.kind != "low_balance"] + lows[:LOW_MAX]
    return [(each.said, each.where, _WORDS.get(each.kind, "")) for each in shown]


_WORDS = {
    "unresolved_orders": "Decide",
    "stale_prices": "Models",
    "failing_upstream": "Models",
    "low_balance": "Account",
}


def _total(spent: Iterable[Spent]) -> Sum:
    orders = nanos = 0
    for each in spent:
        orders += each.orders
        nanos += each.fares_nanos
    return Sum("", orders, nanos)


async def _ranked(spent: Iterable[Spent], column: Column, names: Names) -> list[Sum]:
    """The largest sums by what stands in a column, and the rest as one."""
    sums: dict[str | int, tuple[int, int]] = {}
    for each in spent:
        of = getattr(each, column)
        orders, nanos = sums.get(of, (0, 0))
        sums[of] = orders + each.orders, nanos + each.fares_nanos
    ranked = sorted(sums.items(), key=lambda item: (-item[1][1], str(item[0])))
    found = [Sum(await _name(of, column, names), *each, (column, str(of))) for of, each in ranked[:RANKED_MAX]]
    if rest := ranked[RANKED_MAX:]:
        orders, nanos = (sum(each[place] for _, each in rest) for place in (0, 1))
        found.append(Sum("1 other" if len(rest) == 1 else f"{len(rest)} others", orders, nanos))
    return found


async def _name(of: str | int, column: Column, names: Names) -> str:
    match column:
        case "model":
            return str(of)
        case "key_id":
            return await names.key(int(of))
        case "account_id":
            return await names.account(int(of))


async def show_spent(house: House, request: Request) -> Page:
    """GET /console/spent: the rows of which the overview's sums are made."""
    today = day_of(request.now_us)
    since, until = request.day("since"), request.day("until")
    since = day_of(began_us("month", request.now_us)) if since is None else since
    until = today if until is None else until
    if not since <= until < since + SPENT_DAYS_MAX:
        raise invalid(f"since, until: from one day to a later one, at most {SPENT_DAYS_MAX} days")
    model, key_id, account_id = request.text("model"), request.whole("key_id"), request.whole("account_id")
    if account_id:
        request.viewer.check_sees(account_id, "There is no such account")
    names = Names(house.reading)
    if key_id:
        await names.check_sees_key(request.viewer, key_id)
    most = request.rows(SPENT_ROWS_MAX)
    asked = TotalsFilter(
        since,
        until,
        ("account", "day", "key", "model", *_further(request)),
        key_id or None,
        model or None,
        end_user=end_user_of(house, request),
        tag=tag_of(request),
    )
    spent, whole, whose = await _spent(house, account_id or request.viewer.account_id, asked, most)
    await names.load_keys(each.key_id for each in spent)
    rows: list[dict[str, Cell]] = [
        {
            "date": date_of(each.day),
            "account": await names.account(each.account_id),
            "key": await names.key(each.key_id),
            "model": each.model,
            "for": whom,
            "orders": each.orders,
            "prompt_tokens": each.prompt_tokens,
            "answer_tokens": each.answer_tokens,
            "fares_usd": format_usd(each.fares_nanos),
            "fares_nanos": each.fares_nanos,
        }
        for each, whom in zip(spent, whose, strict=True)
    ]
    by = request.text("by")
    values = {
        "rows": rows,
        "orders_of": [_orders_of(request, each, by, whom) for each, whom in zip(spent, whose, strict=True)],
        "total": _total(whole),
        "is_cut": len(spent) == most,
        "since": date_of(since),
        "until": date_of(until),
        "model": model,
        "by": by,
        "end_user": request.text("end_user"),
        "tag": request.text("tag"),
        "key_id": key_id,
        "key": await names.key(key_id) if key_id else "",
        "account_id": account_id,
        "account": await names.account(account_id) if account_id else "",
        "places": places_of([*(each.fares_nanos for each in whole), *(each.fares_nanos for each in spent)]),
    }
    return Page("spent.html", values, columns=SPENT_COLUMNS, rows=rows)


def _orders_of(request: Request, line: Spent, by: str, whom: str | None) -> str:
    """The query for the orders of a line, those that were placed on its day; empty where it is of those that name
    nobody, which cannot be asked for."""
    if by and whom is None:
        return ""
    day = date_of(line.day)
    asked: dict[str, str | int] = {
        "since": day,
        "until": day,
        "state": "posted",
        "account_id": line.account_id,
        "key_id": line.key_id,
        "model": line.model,
        "end_user": (whom or "") if by == "end_user" else request.text("end_user"),
        "tag": f"{by.removeprefix(TAG_GROUP)}={whom}" if by.startswith(TAG_GROUP) else request.text("tag"),
    }
    return query_text(asked)


def _further(request: Request) -> tuple[str, ...]:
    """By what else sums are told: end users, or a tag's values. Raises Refusal 400."""
    by = request.text("by")
    if not by:
        return ()
    check_groups((by,))
    return (by,) if by == "end_user" or by.startswith(TAG_GROUP) else ()


async def _spent(
    house: House, account_id: int | None, asked: TotalsFilter, most: int
) -> tuple[list[Spent], list[Spent], list[str | None]]:
    """The lines of what was spent, what all of it comes to, and for whom each line is, where that is asked."""
    if not asked.is_attributed:
        spent, total = await house.reading.spent_rows(account_id, asked, most)
        return spent, [total], [None] * len(spent)
    found = await house.reading.attributed_totals(account_id, asked, most)
    every = replace(asked, by=())
    if every.is_attributed:
        sums = [spent_from(each.total) for each in await house.reading.attributed_totals(account_id, every, most)]
    else:
        sums = [(await house.reading.spent_rows(account_id, every, 1))[1]]
    whose = [each.end_user or each.tags or None for each in found]
    return [spent_from(each.total) for each in found], sums, whose
