"""GET /key and /credits: the caller's own, in OpenRouter's shapes. Amounts are exact decimals."""

from collections.abc import Awaitable, Callable

import msgspec
from starlette.types import Receive, Scope, Send

from farebox.accounts import Accounts, Spending
from farebox.core.errors import unauthenticated
from farebox.core.headers import read_request_headers
from farebox.core.ledger import Balance
from farebox.core.money import EVENT_NANOS, format_usd
from farebox.ports import Caller, Callers
from farebox.web.asgi import Endpoint, send_json
from farebox.web.refusals import guarded


def _of_the_caller(callers: Callers, describe: Callable[[Caller], Awaitable[dict[str, object]]]) -> Endpoint:
    async def endpoint(scope: Scope, receive: Receive, send: Send) -> None:
        token, _ = read_request_headers(scope["headers"])
        caller = await callers.find(token) if token else None
        if caller is None:
            raise unauthenticated("Send a Farebox key: `Authorization: Bearer sk-fb-...`")
        await send_json(send, msgspec.json.encode({"data": await describe(caller)}))

    return guarded(endpoint)


def credits_endpoint(callers: Callers, accounts: Accounts) -> Endpoint:
    """What the account has paid in, and what it has spent."""

    async def describe(caller: Caller) -> dict[str, object]:
        balance = await accounts.balance(caller.account)
        return {"total_credits": _usd(balance.credits_nanos), "total_usage": _usd(balance.debits_nanos)}

    return _of_the_caller(callers, describe)


def key_endpoint(callers: Callers, accounts: Accounts) -> Endpoint:
    """The key in use: its label, its spending, and what its account may still spend."""

    async def describe(caller: Caller) -> dict[str, object]:
        balance = await accounts.balance(caller.account)
        return _key(caller, balance, await accounts.spending(caller.account, caller.key))

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
