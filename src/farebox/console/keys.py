"""Keys: those there are, a new one, and what may be changed of one."""

from farebox import clock
from farebox.accounts import OVERLAP_SECONDS_MAX
from farebox.console.calls import TextOrder
from farebox.console.house import House
from farebox.console.naming import key_name
from farebox.console.requests import Answer, Cell, Page, Redirect, Request
from farebox.console.shown import places_of
from farebox.console.snippets import snippets
from farebox.console.trail import latest
from farebox.core.allowances import (
    COUNTS,
    DAY_US,
    LIMIT_NAMES,
    MODELS,
    NO_CHANGES,
    LimitChanges,
    Limits,
    began_us,
    day_of,
    limits_by_name,
)
from farebox.core.books import LAST_US
from farebox.core.callers import Account, Key
from farebox.core.errors import conflict, invalid, unknown
from farebox.core.money import format_usd

ROWS = 50
COLUMNS = ("key", "hint", "account", "state", "spent_this_month_usd", "limits", "created", "expires")

OWNERS_MAX = 200
"""Accounts that are suggested for a new key."""

DAY_SECONDS = 24 * 3600

_NO_KEY = "There is no such key"

_FIRST = TextOrder("chat", "MODEL", "Hello")
_FIRST_MESSAGE = TextOrder("messages", "MODEL", "Hello", cap=500)
"""What a new key may be tried with."""

LIMIT_LABELS = {
    "usd_per_day": "US dollars a day",
    "usd_per_week": "US dollars a week",
    "usd_per_month": "US dollars a month",
    "usd_total": "US dollars in all",
    "requests_per_minute": "Orders a minute",
    "tokens_per_minute": "Tokens a minute",
    "orders_at_once": "Orders at once",
    "answer_tokens_max": "Tokens of an answer",
    MODELS: "Models (names or patterns, separated by commas)",
}
"""What each limit is called in a form."""


async def show(house: House, request: Request) -> Page:
    """GET /console/keys."""
    before = request.whole("before", LAST_US)
    found = await house.reading.keys(request.viewer.account_id, ROWS + 1, before)
    listed = found[:ROWS]
    spent = await _spent_this_month(house, request)
    rows = [_row(account, key, spent.get(key.id, 0), request.now_us) for account, key in listed]
    values = {
        "rows": rows,
        "places": places_of(spent.get(key.id, 0) for _, key in listed),
        "accounts": await _owners(house, request),
        "month": clock.iso(began_us("month", request.now_us))[:7],
    }
    further = {"before": listed[-1][1].id} if len(found) > ROWS else None
    return Page("keys.html", values, columns=COLUMNS, rows=rows, next_query=further)


async def _owners(house: House, request: Request) -> list[str]:
    """The accounts that a new key may be of, as far as a list of suggestions goes."""
    if not request.viewer.is_operator:
        return []
    return [account.name for account, _ in await house.reading.accounts(OWNERS_MAX)]


async def _spent_this_month(house: House, request: Request) -> dict[int, int]:
    first_day, last_day = day_of(began_us("month", request.now_us)), day_of(request.now_us)
    spent = await house.reading.spent_of_keys(request.viewer.account_id, first_day, last_day)
    return {each.key_id: each.fares_nanos for each in spent}


def state_of(key: Key, now_us: int) -> str:
    if key.disabled:
        return "disabled"
    if key.revoked_us is not None:
        return "revoked"
    return "expired" if key.expires_us is not None and key.expires_us <= now_us else "works"


_LIMIT_WORDS = {
    "usd_per_day": "${} a day",
    "usd_per_week": "${} a week",
    "usd_per_month": "${} a month",
    "usd_total": "${} in all",
    "requests_per_minute": "{} orders a minute",
    "tokens_per_minute": "{} tokens a minute",
    "orders_at_once": "{} at once",
    "answer_tokens_max": "{} tokens an answer",
    MODELS: "models {}",
}
"""What each limit is called where it stands in a list."""


def limits_text(limits: Limits) -> str:
    """The limits that are set, as a list may say them."""
    return "; ".join(
        _LIMIT_WORDS[name].format(", ".join(value) if isinstance(value, list) else value)
        for name, value in limits_by_name(limits).items()
        if value is not None
    )


def _row(account: Account, key: Key, spent_nanos: int, now_us: int) -> dict[str, Cell]:
    return {
        "id": key.id,
        "key": key_name(key),
        "hint": key.hint,
        "account": account.name,
        "account_id": account.id,
        "state": state_of(key, now_us),
        "spent_this_month_usd": format_usd(spent_nanos),
        "spent_nanos": spent_nanos,
        "limits": limits_text(key.limits),
        "created": clock.iso(key.created_us, "seconds"),
        "created_us": key.created_us,
        "expires": None if key.expires_us is None else clock.iso(key.expires_us, "seconds"),
        "expires_us": key.expires_us,
    }


# A new key


async def confirm_new(house: House, request: Request) -> Page:
    """GET /console/keys/new: what making this key will do."""
    request.viewer.check_manages()
    account, label, expires_us, limit = await _wanted(house, request)
    values = {
        "account": account,
        "label": label,
        "expires_us": expires_us,
        "expires": request.text("expires"),
        "limit": limit,
        "standing": await house.accounts.balance(account),
        "once": await house.sessions.permit(request.session),
    }
    return Page("new-key.html", values)


async def create(house: House, request: Request) -> Page:
    """POST /console/keys: make the key, and show it, once."""
    request.viewer.check_manages()
    account, label, expires_us, limit = await _wanted(house, request)
    if not await house.sessions.take_permit(request.session, request.text("once")):
        raise conflict("This form was sent before, and its key was made then: a key is shown once. Make another one")
    limits = {"usd_per_month": limit} if limit else NO_CHANGES
    key, account, row = await house.accounts.create_key(account.name, label, expires_us, limits=limits)
    return _made(request, key, account, row)


async def _wanted(house: House, request: Request) -> tuple[Account, str, int | None, str]:
    """Whose the key is to be, its name, when it expires and what it may spend a month. Raises Refusal, NotFound,
    BadTerms."""
    own = request.viewer.account
    account = own if own is not None else await house.accounts.find(request.text("account"))
    label, limit = request.text("label"), request.text("limit")
    if not label:
        raise invalid("name: give the key a name, such as who or what will use it")
    if limit:
        house.accounts.check_limits({"usd_per_month": limit})
    last_day = request.day("expires")
    # Until the end of that day.
    return account, label, None if last_day is None else (last_day + 1) * DAY_US, limit


# One key


async def show_one(house: House, request: Request) -> Page:
    """GET /console/keys/NUMBER."""
    account, key = await found_key(house, request)
    spent = (await house.accounts.spending_by_key(account)).get(key.id)
    values = {
        "account": account,
        "key": key,
        "name": key_name(key),
        "state": state_of(key, request.now_us),
        "spent": spent,
        "limits": limits_by_name(key.limits),
        "limits_text": limits_text(key.limits),
        "labels": LIMIT_LABELS,
        "latest": await latest(house, request, account.id, key.id),
        "can_change": request.viewer.is_manager and (key.revoked_us is None or key.disabled),
    }
    return Page("key.html", values)


async def change(house: House, request: Request) -> Answer:
    """POST /console/keys/NUMBER: rename, limit, rotate, disable, enable or revoke it."""
    request.viewer.check_manages()
    account, key = await found_key(house, request)
    named = key.digest.hex()
    match request.text("do"):
        case "rename":
            await house.accounts.change_key(named, label=request.text("label"))
        case "limit":
            await house.accounts.limit(account, key, limits_sent(request))
        case "rotate":
            return await _rotate(house, request, named)
        case "disable":
            await house.accounts.change_key(named, disabled=True)
        case "enable":
            await house.accounts.change_key(named, disabled=False)
        case "revoke":
            await house.accounts.revoke_key(named)
        case other:
            raise invalid(f"do: there is no such change as {other[:40]!r}")
    return Redirect(f"/keys/{key.id}")


async def _rotate(house: House, request: Request, named: str) -> Page:
    """Give a key another secret, and show it, once."""
    seconds = overlap_sent(request)
    if not await house.sessions.take_permit(request.session, request.text("once")):
        raise conflict("This form was sent before, and the new secret was made then: it is shown once. Rotate it again")
    key, account, row = await house.accounts.rotate_key(named, seconds)
    return _made(request, key, account, row)


def _made(request: Request, key: str, account: Account, row: Key) -> Page:
    values = {
        "key": key,
        "row": row,
        "name": key_name(row),
        "account": account,
        "snippets": [*snippets(_FIRST, request.address, key), *snippets(_FIRST_MESSAGE, request.address, key)[1:]],
    }
    return Page("made-key.html", values, status=201)


def overlap_sent(request: Request) -> int:
    """For how long a key's old secret works, too. Raises Refusal 400."""
    return request.whole("overlap_seconds", DAY_SECONDS, OVERLAP_SECONDS_MAX)


def limits_sent(request: Request) -> LimitChanges:
    """All limits as a form has them; an empty field lifts its limit."""
    changes: dict[str, str | list[str] | None] = {}
    for name in LIMIT_NAMES:
        sent = request.text(name)
        if name == MODELS:
            changes[name] = [each.strip() for each in sent.split(",") if each.strip()] or None
        else:
            changes[name] = (sent.replace(",", "") if name in COUNTS else sent) or None
    return changes


async def found_key(house: House, request: Request) -> tuple[Account, Key]:
    """The key that the path names, where the viewer may see it. Raises Refusal 404."""
    found = await house.reading.key(request.number_in_path("key", _NO_KEY))
    if found is None:
        raise unknown(_NO_KEY)
    request.viewer.check_sees(found[0].id, _NO_KEY)
    return found
