"""What a change will do, said before it is done: from what to what, of a key or an account. The page's button sends the
same fields again, to where they are carried out."""

from msgspec import Struct

from farebox import clock
from farebox.accounts import BadTerms, Spending
from farebox.console.accounts import found_account
from farebox.console.house import House
from farebox.console.keys import LIMIT_LABELS, found_key, limits_sent, overlap_sent
from farebox.console.naming import key_name
from farebox.console.rendering import query_text
from farebox.console.requests import Answer, Page, Request
from farebox.console.shown import count, usd
from farebox.console.statement import account_of
from farebox.core.allowances import AMOUNTS, LIMIT_NAMES, Limits, limits_by_name, with_changes
from farebox.core.callers import Account
from farebox.core.errors import invalid


class Move(Struct, frozen=True):
    """A line of the table: of what, from what to what."""

    name: str
    now: str
    then: str


async def confirm_key(house: House, request: Request) -> Answer:
    """GET /console/keys/NUMBER/change: what it will do to limit a key, or to give it another secret."""
    request.viewer.check_manages()
    account, key = await found_key(house, request)
    name, once = key_name(key), ""
    match request.text("do"):
        case "limit":
            spent = (await house.accounts.spending_by_key(account)).get(key.id, Spending())
            moves, says = _limited(key.limits, request, spent)
            title, button = f"Set the limits of {name} so?", "Set these limits"
            fields = _sent_limits(request)
        case "rotate":
            seconds = overlap_sent(request)
            until = "never again" if not seconds else f"until {_moment(request.now_us + seconds * 1_000_000)}"
            moves = [Move("Works", f"the key {key.hint}", "a new one; label, limits and what counts against them stay")]
            says = [
                f"The key as it is now works {until}. The new one is shown once, on the next page, and kept nowhere."
            ]
            title, button = f"Give {name} another secret?", "Make the new secret"
            fields = {"overlap_seconds": str(seconds)}
            once = await house.sessions.permit(request.session)
        case other:
            raise _unknown(other)
    there = f"/keys/{key.id}"
    return _page(title, moves, says, button, there, {"do": request.text("do"), "once": once, **fields})


async def confirm_account(house: House, request: Request) -> Answer:
    """GET /console/accounts/NUMBER/change: what it will do to limit an account, change its terms, or close it."""
    request.viewer.check_operates()
    account, balance = await found_account(house, request)
    fields: dict[str, str] = {}
    match request.text("do"):
        case "limit":
            moves, says = _limited(account.limits, request, await house.accounts.spending(account))
            says += ["They hold for all its keys together."]
            title, button = f"Set the limits of {account.name} so?", "Set these limits"
            fields = _sent_limits(request)
        case "terms":
            plan, name = request.text("plan"), request.text("name")
            moves, says = _terms(house, account, plan, name)
            title, button = f"Change {account.name} so?", "Change the account"
            fields = {"plan": plan, "name": name}
        case "close":
            moves = [
                Move("Orders with its keys", "answered 403" if account.closed_us else "served", "answered 403"),
                Move("Balance", usd(balance.balance_nanos), usd(min(0, balance.balance_nanos))),
            ]
            says = [f"What is left, {usd(max(0, balance.balance_nanos))}, is booked as paid out; that is not undone."]
            if balance.pending_nanos:
                says += [f"{usd(balance.pending_nanos)} is held: until that has ended, nothing can be paid out."]
            title, button = f"Close {account.name}?", "Close the account"
            fields = {"reason": request.text("reason")}
        case other:
            raise _unknown(other)
    return _page(title, moves, says, button, f"/accounts/{account.id}", {"do": request.text("do"), **fields})


async def confirm_end_users(house: House, request: Request) -> Answer:
    """GET /console/end-users/change: what it will do to limit an end user, or each by default."""
    request.viewer.check_manages()
    account = await account_of(house, request)
    if account is None:
        raise invalid("account_id: say whose end users they are")
    named = request.text("end_user")
    before = (await house.end_users.find(account, named)).own if named else await house.end_users.default(account)
    moves, says = _limited(before, request, Spending())
    says.append("What it has spent before counts, too." if named else "What each has spent before counts, too.")
    title = f"Set the limits of {named} so?" if named else f"Set the limits of each end user of {account.name} so?"
    whose = {"account_id": str(account.id), "end_user": named}
    back = f"/end-users?{query_text(whose)}"
    return _page(title, moves, says, "Set these limits", "/end-users", {**whose, **_sent_limits(request)}, back)


def _page(
    title: str, moves: list[Move], says: list[str], button: str, there: str, fields: dict[str, str], back: str = ""
) -> Page:
    is_any = any(move.now != move.then for move in moves)
    values = {
        "question": title,
        "moves": moves,
        "says": says if is_any else ["Nothing would change: it is so already."],
        "button": button if is_any else None,
        "there": there,
        "back": back or there,
        "fields": {name: value for name, value in fields.items() if value},
    }
    return Page("change.html", values)


def _unknown(what: str) -> Exception:
    return invalid(f"do: there is no such change as {what[:40]!r}")


def _moment(us: int) -> str:
    return clock.iso(us, "seconds").replace("T", " ").removesuffix("Z") + " UTC"


def _limited(before: Limits, request: Request, spent: Spending) -> tuple[list[Move], list[str]]:
    """What differs, and where more is spent already than will be allowed. Raises BadTerms."""
    try:
        after = with_changes(before, limits_sent(request))
    except ValueError as error:
        raise BadTerms(str(error)) from error
    old, new = limits_by_name(before), limits_by_name(after)
    moves = [
        Move(LIMIT_LABELS[name], _limit(name, old[name]), _limit(name, new[name]))
        for name in LIMIT_NAMES
        if old[name] != new[name]
    ]
    says = ["They hold from the next order on, on every node; orders under way go on."]
    for period, most in after.money.items():
        used = getattr(spent, period)
        if used >= most and before.money.get(period) != most:
            of = "in all" if period == "total" else f"this {period}"
            says.append(f"{usd(used)} is spent {of}: orders are answered 402 at once.")
    return moves, says


def _limit(name: str, value: str | int | list[str] | None) -> str:
    match value:
        case None:
            return "no limit"
        case list():
            return ", ".join(value)
        case int():
            return count(value)
        case str():
            return f"${value}" if name in AMOUNTS else value


def _sent_limits(request: Request) -> dict[str, str]:
    return {name: request.text(name) for name in LIMIT_NAMES}


def _terms(house: House, account: Account, plan: str, name: str) -> tuple[list[Move], list[str]]:
    if plan not in house.plans:
        raise invalid(f"plan: one of {', '.join(sorted(house.plans))}")
    if not name:
        raise invalid("name: an account has a name")
    moves = [Move("Name", account.name, name), Move("Plan", account.plan, plan)]
    says = ["Orders from now on are under it; those under way end under the plan that they began with."]
    if plan != account.plan:
        old, new = house.plans.get(account.plan), house.plans[plan]
        was = "unknown here" if old is None else usd(old.event_price_nanos)
        moves.append(Move("An event ($0.00001 of cost) is charged", was, usd(new.event_price_nanos)))
    return moves, says
