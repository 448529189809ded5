"""GET /key, /credits, /generation and /generation/content: what callers ask about themselves, in OpenRouter's shapes.
Amounts are exact decimals. Their orders, statement and totals are in `web/bills.py`."""

from collections.abc import Awaitable, Callable

import msgspec
from starlette.types import Receive, Scope, Send

from farebox import clock
from farebox.accounts import Accounts, Spending
from farebox.core.allowances import Allowance, Period
from farebox.core.callers import Caller
from farebox.core.errors import invalid
from farebox.core.headers import read_request_head
from farebox.core.money import EVENT_NANOS, format_usd
from farebox.core.resale import retold
from farebox.generations import Generations
from farebox.http.asgi import Endpoint, send_json
from farebox.http.queries import query_pairs
from farebox.ports import Callers
from farebox.web.bills import BillPages, Whose, WhoseBooks

RESETS: dict[Period, str | None] = {"day": "daily", "week": "weekly", "month": "monthly", "total": None}
"""OpenRouter's words for when a limit begins anew."""

Describe = Callable[[Caller, Scope], Awaitable[dict[str, object] | msgspec.Raw]]


class OwnPages:
    """The endpoints for what callers ask about themselves."""

    def __init__(self, callers: Callers, accounts: Accounts, generations: Generations, bills: BillPages) -> None:
        self._bills = bills
        self._callers = callers
        self._accounts = accounts
        self._generations = generations

    def routes(self) -> dict[str, Endpoint]:
        """By their path below a base."""
        pages: dict[str, Describe] = {
            "/generation": self._generation,
            "/generation/content": self._content,
            "/key": self._key,
            "/credits": self._credits,
        }
        served = {path: self._serve(describe) for path, describe in pages.items()}
        ledger = self._bills.ledger(self._own_books)
        return {**served, **self._bills.routes(self._account), "/statement{ledger:ledger}": ledger}

    async def _own_books(self, scope: Scope) -> WhoseBooks:
        caller = await self._callers.identify(read_request_head(scope["headers"]))
        return WhoseBooks([caller.account], "caller", caller.plan.shows_cost)

    async def _account(self, scope: Scope) -> Whose:
        """The caller's account: what its other keys did is its own, too."""
        caller = await self._callers.identify(read_request_head(scope["headers"]))
        return Whose(caller.account, caller.plan.shows_cost)

    def _serve(self, describe: Describe) -> Endpoint:
        async def endpoint(scope: Scope, receive: Receive, send: Send) -> None:
            caller = await self._callers.identify(read_request_head(scope["headers"]))
            await send_json(send, msgspec.json.encode({"data": await describe(caller, scope)}))

        return endpoint

    async def _generation(self, caller: Caller, scope: Scope) -> dict[str, object]:
        return await self._generations.find(caller.account, _generation_id(scope), shows_cost=caller.plan.shows_cost)

    async def _content(self, caller: Caller, scope: Scope) -> msgspec.Raw:
        content = await self._generations.content(caller.account, _generation_id(scope))
        return content if caller.plan.shows_cost else msgspec.Raw(retold(bytes(content), lambda usage: None))

    async def _credits(self, caller: Caller, scope: Scope) -> dict[str, object]:
        balance = await self._accounts.balance(caller.account)
        return {"total_credits": usd(balance.credits_nanos), "total_usage": usd(balance.debits_nanos)}

    async def _key(self, caller: Caller, scope: Scope) -> dict[str, object]:
        """OpenRouter's members of a key. Its one limit is whichever leaves least: the key's, its account's, or what was
        paid in."""
        balance = await self._accounts.balance(caller.account)
        spent = await self._accounts.spending(caller.account, caller.key)
        allowances = [await self._accounts.allowance(each) for each in (caller.key, caller.account)]
        limit = None if balance.limit_nanos is None else balance.credits_nanos + balance.limit_nanos
        available = balance.available_nanos
        bounds = [(limit, None if available is None else max(0, available), None), *map(tightest, allowances)]
        most, left, reset = min(bounds, key=lambda bound: (bound[1] is None, bound[1]))
        rates = [each.limits.requests_per_minute for each in allowances if each is not None]
        rate = min((rate for rate in rates if rate is not None), default=-1)
        return {
            "label": caller.key.label or caller.key.hint,
            "limit": or_null(most),
            "limit_remaining": or_null(left),
            "limit_reset": reset,
            **usage(spent),
            "include_byok_in_limit": True,
            "is_free_tier": caller.plan.shows_cost and caller.plan.event_price_nanos > EVENT_NANOS,
            **dict.fromkeys(("is_management_key", "is_provisioning_key"), False),
            "allowed_data_regions": ["global"],
            "budgets": [],
            **dict.fromkeys(("effective_budget", "creator_user_id", "organization_id", "workspace_id")),
            "expires_at": iso_or_null(caller.key.expires_us),
            # SDKs demand this member; Farebox has no daily allowance of free orders.
            "free_model_daily_requests": {"limit": 0, "used": 0, "remaining": 0},
            "rate_limit": {
                "requests": rate,
                "interval": "60s",
                "note": "-1: this key's requests are not limited by rate.",
            },
        }


def _generation_id(scope: Scope) -> str:
    """The one that a query names. Raises Refusal 400."""
    asked = [value for name, value in query_pairs(scope) if name == "id" and value]
    if len(asked) != 1:
        raise invalid(f"id: give the generation's id, once: {scope['path']}?id=gen-...")
    return asked[0]


def usage(spent: Spending) -> dict[str, object]:
    """What a key has spent, as OpenRouter's members of a key. Callers bring no upstream keys of their own (BYOK)
    here."""
    sums = {"": spent.total, "_daily": spent.day, "_weekly": spent.week, "_monthly": spent.month}
    return {
        **{f"usage{suffix}": usd(nanos) for suffix, nanos in sums.items()},
        **{f"byok_usage{suffix}": 0 for suffix in sums},
    }


def tightest(allowance: Allowance | None) -> tuple[int | None, int | None, str | None]:
    """Of the limits of money the one that leaves least: its nanos, the nanos that it leaves, and when it begins anew in
    OpenRouter's words (None: never). Three times None where money has no limit."""
    found = None if allowance is None else allowance.available_nanos(clock.now_us())
    if allowance is None or found is None:
        return None, None, None
    left, period = found
    return allowance.limits.money[period], max(0, left), RESETS[period]


def iso_or_null(us: int | None) -> str | None:
    """A moment, to the second."""
    return None if us is None else clock.iso(us, "seconds")


def usd(nanos: int) -> msgspec.Raw:
    """An amount in USD as a JSON number, exact."""
    return msgspec.Raw(format_usd(nanos).encode())


def or_null(nanos: int | None) -> msgspec.Raw | None:
    """An amount, or None."""
    return None if nanos is None else usd(nanos)
