"""End users of an account and their limits over HTTP, for managers."""

from collections.abc import Mapping
from typing import TYPE_CHECKING
from urllib.parse import urlencode

from msgspec import Raw

from farebox import clock
from farebox.core.allowances import AMOUNTS, END_USER_LIMITS, Limits, limits_by_name, usage_by_name
from farebox.core.callers import Account
from farebox.core.errors import invalid
from farebox.end_users import PAGE, PAGE_MAX, EndUser, EndUsers
from farebox.http.queries import query_whole
from farebox.web.account import iso_or_null, usd

if TYPE_CHECKING:
    from farebox.web.management import Answer, Request

_QUERY = ("end_user", "limited", "after", "limit")


class EndUserPages:
    """As `Management` serves them; each is given an account that may be changed by who asks."""

    def __init__(self, end_users: EndUsers) -> None:
        self._end_users = end_users

    async def list(self, request: "Request", account: Account) -> "Answer":
        """Those with fares this month, those with limits of their own, or one."""
        query = request.query
        for name in query:
            if name not in _QUERY:
                raise invalid(f"{name}: there is no such parameter; there are {', '.join(_QUERY)}")
        most = query_whole(query, "limit", PAGE, least=1)
        if most > PAGE_MAX:
            raise invalid(f"limit: at most {PAGE_MAX} in a page")
        if named := query.get("end_user"):
            rows, following = [await self._end_users.find(account, named)], None
        else:
            is_limited = query.get("limited", "false").lower() == "true"
            found = self._end_users.limited if is_limited else self._end_users.page
            page = await found(account, query.get("after", ""), most)
            rows, following = page.rows, page.next
        path = f"/admin/accounts/{request.path['account']}/end-users"
        return 200, {
            "data": [described(row) for row in rows],
            "default_limits": _numbers(_set(await self._end_users.default(account))),
            "next": None if following is None else f"{path}?{urlencode({**query, 'after': following})}",
        }

    async def change(self, request: "Request", account: Account) -> "Answer":
        """Set limits of one, or those of each that has none of its own."""
        request.fields.check_names("end_user", "limits")
        named = request.fields.text("end_user")
        given = request.fields.limits("limits")
        if not given:
            raise invalid(f"limits: an object with some of {', '.join(END_USER_LIMITS)}; null lifts one")
        limits = await self._end_users.limit(account, named or None, given)
        if not named:
            return 200, {"data": {"end_user": None, "limits": _numbers(_set(limits))}}
        return 200, {"data": described(await self._end_users.find(account, named))}


def described(row: EndUser) -> dict[str, object]:
    return {
        "end_user": row.name,
        "limits": _numbers(_set(row.own)),
        "limits_in_force": _numbers(_set(row.in_force)),
        "used": _numbers(usage_by_name(row.allowance, clock.now_us())),
        "orders_this_month": row.orders,
        "fares_this_month_usd": usd(row.fares_nanos),
        "latest_at": iso_or_null(row.latest_us),
    }


def _set(limits: Limits) -> dict[str, object]:
    return {name: value for name, value in limits_by_name(limits).items() if value is not None}


def _numbers(values: Mapping[str, object]) -> dict[str, object]:
    """The same values with amounts, which are exact text, as numbers in JSON."""
    return {name: Raw(str(value).encode()) if name in AMOUNTS else value for name, value in values.items()}
