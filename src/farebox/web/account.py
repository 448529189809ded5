"""GET /key, /credits and /generation: the caller's own, in OpenRouter's shapes. Amounts are exact decimals."""

from collections.abc import Awaitable, Callable
from urllib.parse import parse_qs

import msgspec
from starlette.types import Receive, Scope, Send

from farebox.accounts import Accounts, Spending
from farebox.core.errors import invalid
from farebox.core.ledger import Balance
from farebox.core.money import EVENT_NANOS, format_usd
from farebox.generations import Generations
from farebox.ports import Caller, Callers
from farebox.web.asgi import Endpoint, send_json
from farebox.web.callers import caller_of
from farebox.web.refusals import guarded

Describe = Callable[[Caller, Scope], Awaitable[dict[str, object]]]


def _of_the_caller(callers: Callers, describe: Describe) -> Endpoint:
    async def endpoint(scope: Scope, receive: Receive, send: Send) -> None:
        caller = await caller_of(callers, scope)
        await send_json(send, msgspec.json.encode({"data": await describe(caller, scope)}))

    return guarded(endpoint)


def credits_endpoint(callers: Callers, accounts: Accounts) -> Endpoint:
    """What the account has paid in, and what it has spent."""

    async def describe(caller: Caller, scope: Scope) -> dict[str, object]:
        balance = await accounts.balance(caller.account)
        return {"total_credits": _usd(balance.credits_nanos), "total_usage": _usd(balance.debits_nanos)}

    return _of_the_caller(callers, describe)


def key_endpoint(callers: Callers, accounts: Accounts) -> Endpoint:
    """The key in use: its label, its spending, and what its account may still spend."""

    async def describe(caller: Caller, scope: Scope) -> dict[str, object]:
        balance = await accounts.balance(caller.account)
        return _key(caller, balance, await accounts.spending(caller.account, caller.key))

    return _of_the_caller(callers, describe)


def generation_endpoint(callers: Callers, generations: Generations) -> Endpoint:
    """What one of the account's orders became, cost, and is charged."""

    async def describe(caller: Caller, scope: Scope) -> dict[str, object]:
        asked = parse_qs(scope["query_string"].decode("latin-1")).get("id", [])
        if len(asked) != 1:
            raise invalid("id: give the generation's id, once: /generation?id=gen-...")
        return await generations.find(caller.account, asked[0])

    return _of_the_caller(callers, describe)


def _key(caller: Caller, balance: Balance, spent: Spending) -> dict[str, object]:
    limit = None if balance.limit_nanos is None else balance.credits_nanos + balance.limit_nanos
    available = balance.available_nanos
    return {
        "label": caller.key.label or caller.key.hint,
        "limit": None if limit is None else _usd(limit),
        "limit_remaining": None if available is None else _usd(max(0, available)),
        "limit_reset": None,
        "usage": _usd(spent.total),
        "usage_daily": _usd(spent.day),
        "usage_weekly": _usd(spent.week),
        "usage_monthly": _usd(spent.month),
        "byok_usage": 0,
        "byok_usage_daily": 0,
        "byok_usage_weekly": 0,
        "byok_usage_monthly": 0,
        "include_byok_in_limit": True,
        "is_free_tier": caller.plan.event_price_nanos > EVENT_NANOS,
        "is_management_key": False,
        "is_provisioning_key": False,
        "allowed_data_regions": ["global"],
        "budgets": [],
        "effective_budget": None,
        "creator_user_id": None,
        "organization_id": None,
        "workspace_id": None,
        "expires_at": None,
        # Farebox has no daily allowance of free orders and no request limit: shapes that SDKs demand.
        "free_model_daily_requests": {"limit": 0, "used": 0, "remaining": 0},
        "rate_limit": {"requests": -1, "interval": "10s", "note": "This gateway does not limit requests by rate."},
    }


def _usd(nanos: int) -> msgspec.Raw:
    return msgspec.Raw(format_usd(nanos).encode())
