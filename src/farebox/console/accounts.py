"""Accounts: those there are, a new one, money paid in, limits."""

import secrets

from farebox import clock
from farebox.console.house import House
from farebox.console.keys import LIMIT_LABELS, limits_sent, limits_text
from farebox.console.requests import Answer, Cell, Page, Redirect, Request
from farebox.console.shown import places_of
from farebox.console.trail import latest
from farebox.core.allowances import limits_by_name
from farebox.core.books import Balance
from farebox.core.callers import Account
from farebox.core.errors import conflict, invalid, unknown
from farebox.core.money import format_usd
from farebox.corrections import NotClosed, NotCorrectable, checked_reason, pay_out
from farebox.web.changes import CLOSED

ROWS = 50
COLUMNS = ("account", "plan", "terms", "balance_usd", "held_usd", "available_usd", "limits", "created")

_NO_ACCOUNT = "There is no such account"


async def show(house: House, request: Request) -> Page:
    """GET /console/accounts."""
    wanted = request.text("search")
    if request.viewer.account_id is None:
        found = await house.reading.accounts(ROWS + 1, request.whole("after"), wanted)
    else:
        own = await house.reading.account(request.viewer.account_id)
        found = [] if own is None else [own]
    listed = found[:ROWS]
    rows = [_row(*each) for each in listed]
    values = {
        "rows": rows,
        "search": wanted,
        "plans": sorted(house.plans),
        "places": places_of(
            nanos for _, b in listed for nanos in (b.balance_nanos, b.pending_nanos, b.available_nanos)
        ),
    }
    further = {"after": listed[-1][0].id} if len(found) > ROWS else None
    return Page("accounts.html", values, columns=COLUMNS, rows=rows, next_query=further)


def _row(account: Account, balance: Balance) -> dict[str, Cell]:
    available = balance.available_nanos
    return {
        "id": account.id,
        "account": account.name,
        "plan": account.plan,
        "terms": _terms(balance),
        "balance_usd": format_usd(balance.balance_nanos),
        "balance_nanos": balance.balance_nanos,
        "held_usd": format_usd(balance.pending_nanos),
        "held_nanos": balance.pending_nanos,
        "available_usd": None if available is None else format_usd(available),
        "available_nanos": available,
        "limits": limits_text(account.limits),
        "created": clock.iso(account.created_us, "seconds"),
        "created_us": account.created_us,
    }


def _terms(balance: Balance) -> str:
    return "prepaid" if balance.limit_nanos == 0 else "postpaid"


async def show_one(house: House, request: Request) -> Page:
    """GET /console/accounts/NUMBER."""
    account, balance = await found_account(house, request)
    low_nanos = await house.alerts.low_balance(account.id)
    values = {
        "account": account,
        "balance": balance,
        "terms": _terms(balance),
        "spent": await house.accounts.spending(account),
        "keys": await house.reading.keys(account.id, ROWS),
        "limits": limits_by_name(account.limits),
        "limits_text": limits_text(account.limits),
        "labels": LIMIT_LABELS,
        "plan": house.plans.get(account.plan),
        "low_nanos": low_nanos,
        "low_text": format_usd(low_nanos) if low_nanos else "",
        "plans": sorted(house.plans),
        "latest": await latest(house, request, account.id),
    }
    return Page("account.html", values)


async def change(house: House, request: Request) -> Answer:
    """POST /console/accounts/NUMBER: set its limits, change its plan and name, close it or open it again, or say below
    what it is told as low."""
    request.viewer.check_operates()
    account, _ = await found_account(house, request)
    match request.text("do") or "limit":
        case "limit":
            await house.accounts.limit(account, None, limits_sent(request))
        case "terms":
            await house.accounts.change(account.name, plan=request.text("plan"), new_name=request.text("name"))
        case "close":
            await _close(house, account, request.text("reason") or CLOSED)
        case "reopen":
            await house.accounts.reopen(account.name)
        case "low_balance":
            below = request.amount("below") if request.text("below") else 0
            await house.alerts.set_low_balance(account.id, below)
        case other:
            raise invalid(f"do: there is no such change as {other[:40]!r}")
    return Redirect(f"/accounts/{account.id}")


async def _close(house: House, account: Account, reason: str) -> None:
    """Raises Refusal: 409, money is held, or owed; 400, the reason is none, or too long."""
    try:
        reason = checked_reason(reason)
        closed, _ = await house.accounts.close(account.name)
        await pay_out(house.ledger, closed, reason)
    except NotClosed as error:
        raise conflict(str(error)) from error
    except NotCorrectable as error:
        raise invalid(f"reason: {error}") from error


# A new account


async def confirm_new(house: House, request: Request) -> Page:
    """GET /console/accounts/new: what opening this account will do."""
    request.viewer.check_operates()
    name, plan, limit, paid_in = _wanted(house, request)
    values = {
        "name": name,
        "plan": house.plans[plan],
        "is_postpaid": limit is None or limit > 0,
        "limit": limit,
        "paid_in": paid_in,
        "query": dict(request.query),
    }
    return Page("new-account.html", values)


async def create(house: House, request: Request) -> Answer:
    """POST /console/accounts. Its name makes it idempotent: there is one account of a name."""
    request.viewer.check_operates()
    account = await house.accounts.create(*_wanted(house, request))
    return Redirect(f"/accounts/{account.id}")


def _wanted(house: House, request: Request) -> tuple[str, str, int | None, int]:
    """An account's name, its plan, how far below zero it may go (None: without limit), and what is paid in. Raises
    Refusal 400."""
    name, plan, terms = request.text("name"), request.text("plan"), request.text("terms")
    if not name:
        raise invalid("name: give the account a name")
    if plan not in house.plans:
        raise invalid(f"plan: one of {', '.join(sorted(house.plans))}")
    if terms == "postpaid":
        return name, plan, request.amount("limit") if request.text("limit") else None, 0
    return name, plan, 0, request.amount("prepaid") if request.text("prepaid") else 0


# Money paid in


async def confirm_top_up(house: House, request: Request) -> Page:
    """GET /console/accounts/NUMBER/top-up: what it will do."""
    request.viewer.check_operates()
    account, balance = await found_account(house, request)
    amount = _amount(request)
    values = {
        "account": account,
        "balance": balance,
        "amount": amount,
        "after": balance.balance_nanos + amount,
        "amount_text": request.text("amount"),
        "note": request.text("note"),
        "once": secrets.token_urlsafe(16),
        "places": places_of([balance.balance_nanos, amount]),
    }
    return Page("top-up.html", values)


async def top_up(house: House, request: Request) -> Answer:
    """POST /console/accounts/NUMBER/top-up. A form that is sent twice pays in once: its word is the top-up's key."""
    request.viewer.check_operates()
    account, _ = await found_account(house, request)
    if not request.text("once"):
        raise invalid("The form is not whole: open the page again")
    key = f"console {request.text('once')}"
    await house.accounts.top_up(account.name, _amount(request), key, request.text("note") or None)
    return Redirect(f"/accounts/{account.id}")


def _amount(request: Request) -> int:
    amount = request.amount("amount")
    if not amount:
        raise invalid("amount: more than zero")
    return amount


async def found_account(house: House, request: Request) -> tuple[Account, Balance]:
    """The account that the path names, where the viewer may see it. Raises Refusal 404."""
    account_id = request.number_in_path("account", _NO_ACCOUNT)
    request.viewer.check_sees(account_id, _NO_ACCOUNT)
    found = await house.reading.account(account_id)
    if found is None:
        raise unknown(_NO_ACCOUNT)
    return found
