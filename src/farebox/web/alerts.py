"""Who is told of troubles, as managers set it over HTTP. A manager of one account has receivers of that account's
alerts alone. Each is a use case of `farebox.alerts`, as the commands and the console's pages are.
"""

from typing import TYPE_CHECKING

import msgspec
from msgspec import Raw

from farebox import clock
from farebox.accounts import Accounts
from farebox.alerts import Alerts
from farebox.core.alerts import Delivery, Receiver
from farebox.core.errors import forbidden, invalid, unknown
from farebox.core.reading import is_null, read_whole
from farebox.core.webhooks import shown
from farebox.http.queries import query_whole

if TYPE_CHECKING:
    from farebox.web.management import Answer, Request

PAGE = 100
DELIVERIES_MAX = 1_000

_NUMBER_MAX = 2**31 - 1


class AlertPages:
    """The endpoints, as `Management` serves them."""

    def __init__(self, alerts: Alerts, accounts: Accounts) -> None:
        self._alerts = alerts
        self._accounts = accounts

    async def list_all(self, request: "Request") -> "Answer":
        """GET /admin/alerts."""
        found = await self._alerts.receivers(request.manager.account_id)
        return 200, {"data": [await self._described(each) for each in found]}

    async def add(self, request: "Request") -> "Answer":
        """POST /admin/alerts."""
        fields = request.fields
        fields.check_names("url", "label", "form", "kinds", "account")
        url = fields.text("url")
        if not url:
            raise invalid("url: where the alerts go")
        account_id = request.manager.account_id
        if (named := fields.text("account")) is not None:
            own = None if account_id is None else await self._accounts.find_by_id(account_id)
            if own is not None and named != own.name:
                raise forbidden("This management key is for another account")
            account_id = (own or await self._accounts.find(named)).id
        kinds = _texts(fields.get("kinds"))
        made = await self._alerts.add(
            url, fields.text("label") or "", fields.text("form") or "webhook", kinds, account_id
        )
        return 201, {"data": await self._described(made), "secret": made.secret}

    async def read(self, request: "Request") -> "Answer":
        """GET /admin/alerts/{alert}."""
        return 200, {"data": await self._described(await self._found(request))}

    async def remove(self, request: "Request") -> "Answer":
        """DELETE /admin/alerts/{alert}."""
        await self._alerts.remove(await self._found(request))
        return 200, {"deleted": True}

    async def test(self, request: "Request") -> "Answer":
        """POST /admin/alerts/{alert}/test."""
        request.fields.check_names()
        return 200, {"data": described_delivery(await self._alerts.test(await self._found(request)))}

    async def deliveries(self, request: "Request") -> "Answer":
        """GET /admin/alerts/{alert}/deliveries."""
        receiver = await self._found(request)
        most = query_whole(request.query, "limit", PAGE)
        if not 1 <= most <= DELIVERIES_MAX:
            raise invalid(f"limit: 1 to {DELIVERIES_MAX}")
        found = await self._alerts.deliveries(receiver.id, None, most, request.query.get("before", ""))
        return 200, {"data": [described_delivery(each) for each in found]}

    async def low_balance(self, account_id: int) -> int:
        """Below what an account is low, in nano-dollars."""
        return await self._alerts.low_balance(account_id)

    async def set_low_balance(self, account_id: int, below_nanos: int | None) -> None:
        await self._alerts.set_low_balance(account_id, below_nanos)

    async def _found(self, request: "Request") -> Receiver:
        """Raises Refusal 404, NotFound."""
        number = read_whole(request.path["alert"], 1, _NUMBER_MAX)
        if number is None:
            raise unknown("There is no such alert; GET /admin/alerts lists them")
        return await self._alerts.find(number, request.manager.account_id)

    async def _described(self, receiver: Receiver) -> dict[str, object]:
        account_id = receiver.account_id
        account = None if account_id is None else (await self._accounts.find_by_id(account_id)).name
        return {
            "id": receiver.id,
            "label": receiver.label,
            "url": shown(receiver.url),
            "form": receiver.form,
            "kinds": list(receiver.kinds),
            "account": account,
            "created_at": clock.iso(receiver.created_us),
        }


def described_delivery(delivery: Delivery) -> dict[str, object]:
    return {
        "id": delivery.id,
        "kind": delivery.kind,
        "state": delivery.state,
        "attempts": delivery.attempts,
        "problem": delivery.said or None,
        "created_at": clock.iso(delivery.created_us),
        "next_attempt_at": None if delivery.due_us is None else clock.iso(delivery.due_us),
        "ended_at": None if delivery.ended_us is None else clock.iso(delivery.ended_us),
    }


def _texts(value: Raw | None) -> list[str]:
    """Raises Refusal 400."""
    if value is None or is_null(value):
        return []
    try:
        return msgspec.json.decode(value, type=list[str])
    except msgspec.DecodeError as error:
        raise invalid("kinds: a list of texts") from error
