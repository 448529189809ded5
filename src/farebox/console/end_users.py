"""End users of an account: what each spent this month, and its limits."""

from farebox import clock
from farebox.console.house import House
from farebox.console.keys import LIMIT_LABELS, limits_text
from farebox.console.rendering import query_text
from farebox.console.requests import Answer, Cell, Page, Redirect, Request
from farebox.console.shown import places_of
from farebox.console.statement import CHOICES_MAX, account_of
from farebox.core.allowances import COUNTS, END_USER_LIMITS, LimitChanges, began_us, date_of, day_of, limits_by_name
from farebox.core.errors import invalid
from farebox.core.money import format_usd
from farebox.end_users import EndUser

ROWS = 50
COLUMNS = ("end_user", "orders", "fares_this_month_usd", "held_usd", "limits", "latest")

LABELS = {name: LIMIT_LABELS[name] for name in END_USER_LIMITS}


async def show(house: House, request: Request) -> Page:
    """GET /console/end-users: those with fares this month, those with limits of their own, or one."""
    account = await account_of(house, request)
    if account is None:
        found = await house.reading.accounts(CHOICES_MAX)
        return Page("choose-account.html", {"accounts": [each for each, _ in found], "page": "end-users"})
    named, is_limited = request.text("end_user"), request.text("which") == "limited"
    following = None
    if named:
        listed = [await house.end_users.find(account, named)]
    else:
        page = await (house.end_users.limited if is_limited else house.end_users.page)(
            account, request.text("after"), request.rows(ROWS)
        )
        listed, following = page.rows, page.next
    default = await house.end_users.default(account)
    rows = [_row(each) for each in listed]
    values = {
        "account": account,
        "rows": rows,
        "one": listed[0] if named else None,
        "named": named,
        "which": "limited" if is_limited else "",
        "default": limits_by_name(default),
        "default_text": limits_text(default),
        "own": limits_by_name(listed[0].own) if named else {},
        "labels": LABELS,
        "since": date_of(day_of(began_us("month", request.now_us))),
        "month": clock.iso(request.now_us)[:7],
        "places": places_of(each.fares_nanos for each in listed),
    }
    return Page(
        "end-users.html",
        values,
        columns=COLUMNS,
        rows=rows,
        next_query=None if following is None else {"after": following},
    )


def _row(each: EndUser) -> dict[str, Cell]:
    held = 0 if each.allowance is None else each.allowance.pending_nanos
    return {
        "end_user": each.name,
        "orders": each.orders,
        "fares_this_month_usd": format_usd(each.fares_nanos),
        "fares_nanos": each.fares_nanos,
        "held_usd": None if each.allowance is None else format_usd(held),
        "limits": limits_text(each.in_force),
        "latest": None if each.latest_us is None else clock.iso(each.latest_us, "seconds"),
        "latest_us": each.latest_us,
    }


async def change(house: House, request: Request) -> Answer:
    """POST /console/end-users: limits of one end user, or those by default."""
    request.viewer.check_manages()
    account = await account_of(house, request)
    if account is None:
        raise invalid("account_id: say whose end users they are")
    named = request.text("end_user")
    changes: LimitChanges = {
        name: (sent.replace(",", "") if name in COUNTS else sent) or None
        for name in END_USER_LIMITS
        for sent in (request.text(name),)
    }
    await house.end_users.limit(account, named or None, changes)
    if not named:
        return Redirect(f"/end-users?account_id={account.id}")
    kept = house.end_users.kept_as(named)
    return Redirect(f"/end-users?{query_text({'account_id': account.id, 'end_user': kept})}")
