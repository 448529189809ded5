"""What a bookkeeper takes away: a statement as a file for accounting tools, and a month's invoice, to be printed."""

from msgspec import Struct

from farebox.bookkeeping import FORMS, Wanted
from farebox.console.house import House
from farebox.console.requests import Answer, Cell, Download, Page, Request
from farebox.console.shown import places_of
from farebox.console.statement import CHOICES_MAX, account_of, days_of, side_of
from farebox.core.allowances import DAY_US, date_of, day_of
from farebox.core.bills import Days, TotalsFilter, moved_nanos
from farebox.core.books import DayTotal, Transfer
from farebox.core.callers import Account
from farebox.core.errors import invalid, unknown
from farebox.core.kinds import units_used
from farebox.core.money import format_usd

COLUMNS = ("model", "kind", "orders", "prompt_tokens", "answer_tokens", "unit", "units", "fares_usd")

LINES_MAX = 10_000
"""Of an invoice: models times kinds of orders."""

_ENDINGS = {form: ending for ending, form in FORMS.items()}
_TYPES = {"focus": b"text/csv; charset=utf-8"}


async def download(house: House, request: Request) -> Answer:
    """GET /console/statement/books/{form}: of a month, or of some days."""
    form = next((form for form in FORMS.values() if form == request.path["form"]), None)
    if form is None:
        raise unknown("There is no such form of a statement")
    account = await account_of(house, request)
    if account is None:
        raise invalid("account_id: say whose statement it is")
    _, first, last = days_of(request)
    since_us, until_us = first * DAY_US, (last + 1) * DAY_US
    wanted = Wanted(
        form,
        [account],
        since_us,
        until_us,
        request.now_us,
        side_of(request),
        shows_cost=house.shows_cost(request.viewer),
    )
    name = f"farebox-{date_of(first)}-{date_of(last)}{_ENDINGS[form]}"
    return Download(name, _TYPES.get(form, b"text/plain; charset=utf-8"), house.bookkeeping.file(wanted))


class Other(Struct, frozen=True):
    """A line of an invoice that is no fare."""

    day: int
    what: str
    reason: str
    order: str | None
    nanos: int


class Invoiced(Struct, frozen=True):
    """What an invoice is made of: all of one moment, so that its sums are those of its lines."""

    opening_nanos: int
    totals: list[DayTotal]
    corrections: list[Other]
    payments: list[Other]

    @property
    def fares_nanos(self) -> int:
        return sum(total.fares_nanos for total in self.totals)

    @property
    def given_back_nanos(self) -> int:
        return sum(each.nanos for each in self.corrections)

    @property
    def paid_nanos(self) -> int:
        return sum(each.nanos for each in self.payments)

    @property
    def closing_nanos(self) -> int:
        return self.opening_nanos - self.fares_nanos + self.given_back_nanos + self.paid_nanos


async def show_invoice(house: House, request: Request) -> Page:
    """GET /console/invoice: of a month."""
    account = await account_of(house, request)
    if account is None:
        found = await house.reading.accounts(CHOICES_MAX)
        return Page("choose-account.html", {"accounts": [each for each, _ in found], "page": "invoice"})
    month, first, last = days_of(request)
    if not month:
        raise invalid("month: an invoice is of a month, such as 2026-11")
    wanted = TotalsFilter(first, last, ("served_model", "kind"))
    days = await house.reading.days(account.id, wanted, LINES_MAX + 1)
    if len(days.totals) > LINES_MAX:
        raise invalid(f"month: that is more than {LINES_MAX} lines; take the statement instead")
    invoiced = _invoiced(account, days)
    rows = [_row(total) for total in invoiced.totals]
    others = [each.nanos for each in (*invoiced.corrections, *invoiced.payments)]
    sums = (invoiced.opening_nanos, invoiced.fares_nanos, invoiced.closing_nanos)
    values = {
        "account": account,
        "month": month,
        "number": f"{month.replace('-', '')}-{account.id}",
        "since": date_of(first),
        "until": date_of(last),
        "issued": date_of(last + 1),
        "is_over": day_of(request.now_us) > last,
        "seller": house.seller,
        "rows": rows,
        "has_units": any(row["unit"] for row in rows),
        "invoiced": invoiced,
        "orders": sum(total.orders for total in invoiced.totals),
        "places": places_of([*sums, *others, *(total.fares_nanos for total in invoiced.totals)]),
    }
    return Page("invoice.html", values, columns=COLUMNS, rows=rows)


def _invoiced(account: Account, days: Days) -> Invoiced:
    moved = [(transfer, _other(transfer, account.id)) for transfer in days.transfers]
    totals = sorted(days.totals, key=lambda total: (-total.fares_nanos, total.key))
    return Invoiced(
        days.opening_nanos,
        totals,
        [other for transfer, other in moved if transfer.is_correction],
        [other for transfer, other in moved if not transfer.is_correction],
    )


def _other(transfer: Transfer, account_id: int) -> Other:
    nanos = moved_nanos(transfer, account_id)
    if transfer.is_correction:
        what = "Refund" if nanos > 0 else "Correction"
    else:
        what = "Paid in" if nanos > 0 else "Paid out"
    return Other(day_of(transfer.created_us), what, transfer.note or "", transfer.hold_id, nanos)


def _row(total: DayTotal) -> dict[str, Cell]:
    _, _, _, _, served, kind = total.key
    unit, units = next(iter(units_used(kind, total.units).items()), (None, None))
    return {
        "model": served,
        "kind": kind or None,
        "orders": total.orders,
        "prompt_tokens": total.prompt_tokens,
        "answer_tokens": total.answer_tokens,
        "unit": unit,
        "units": units,
        "fares_usd": format_usd(total.fares_nanos),
        "fares_nanos": total.fares_nanos,
    }
