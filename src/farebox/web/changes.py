"""What a manager changes beside limits, over HTTP: keys rotated and brought along, accounts closed and opened again,
fares given back and corrected. Each is a use case of `farebox.accounts` or `farebox.corrections`, as the commands are.
"""

from decimal import Decimal
from typing import TYPE_CHECKING, Any

import msgspec

from farebox import clock
from farebox.accounts import Accounts, BadTerms, NotFound, Store
from farebox.core.errors import conflict, forbidden, invalid
from farebox.core.money import format_usd, is_readable_cost
from farebox.core.moving.foreign_keys import BadRows, ForeignKey, read_foreign_keys
from farebox.corrections import NotClosed, NotCorrectable, checked_reason, correct, find_order, pay_out

if TYPE_CHECKING:
    from farebox.web.management import Answer, Request

OVERLAP_SECONDS = 86_400
"""How long a rotated key's old secret works where the manager does not say."""

KEYS_MAX = 200
"""Keys of one request: all of its answer is made at once."""

CLOSED = "the account is closed"


class Changes:
    """The use cases, as `Management` serves them; each is given what is named in the request and may be changed by who
    asks."""

    def __init__(self, accounts: Accounts, store: Store) -> None:
        self._accounts = accounts
        self._store = store

    async def rotate(self, request: "Request", digest_hex: str) -> tuple[str, str]:
        """Give a key another secret; it, and the hash that the key has now."""
        request.fields.check_names("overlap_seconds", "expires_at")
        given = request.fields.number("overlap_seconds")
        if given is not None and not given.isdecimal():
            raise invalid("overlap_seconds: a whole number of seconds, 0 for none")
        overlap = OVERLAP_SECONDS if given is None else int(given)
        expires_us = request.fields.moment("expires_at")
        key, _, row = await self._accounts.rotate_key(digest_hex, overlap, expires_us)
        return key, row.digest.hex()

    async def import_keys(self, request: "Request") -> "Answer":
        """Take over keys by their digests: all of them, or none where one is wrong."""
        request.fields.check_names("account", "keys")
        default = request.fields.text("account")
        if "keys" not in request.fields:
            raise invalid("keys: a list of objects, each with a `digest`")
        try:
            rows, _ = read_foreign_keys(bytes(request.fields["keys"]).decode())
        except BadRows as error:
            raise invalid("keys: " + "; ".join(str(error).splitlines())) from error
        if len(rows) > KEYS_MAX:
            raise invalid(f"keys: at most {KEYS_MAX} in one request")
        # All of them before any is taken over: one that is refused then was meant otherwise while this went on.
        owners = [await self._owner(request, row, default) for row in rows]
        moments = [_moment(row) for row in rows]
        taken: list[dict[str, Any]] = []
        for row, owner, expires_us in zip(rows, owners, moments, strict=True):
            key, was_there = await self._accounts.import_key(owner, row, expires_us)
            taken.append({"hash": key.digest.hex(), "name": key.label, "account": owner, "was_there": was_there})
        return 200, {"data": taken}

    async def _owner(self, request: "Request", row: ForeignKey, default: str | None) -> str:
        """Whose a key is to be. Raises Refusal 400, 403."""
        name = row.account or default
        if not name:
            raise invalid(f"keys: {row.where}: account: missing, and none is given for all")
        own = request.manager.account_id
        if own is not None and name != (await self._accounts.find_by_id(own)).name:
            raise forbidden("This management key is for another account")
        try:
            account, _ = await self._accounts.check_import(name, row)
        except (NotFound, BadTerms) as error:
            raise invalid(f"keys: {row.where}: {error}") from error
        return account.name

    async def close(self, request: "Request", name: str) -> str:
        """Close an account and pay out what is left; how much that was. Raises Refusal 400, 409."""
        request.fields.check_names("reason")
        try:
            reason = checked_reason(request.fields.text("reason") or CLOSED)
            account, _ = await self._accounts.close(name)
            return format_usd(await pay_out(self._store, account, reason))
        except NotClosed as error:
            raise conflict(str(error)) from error
        except NotCorrectable as error:
            raise invalid(f"reason: {error}") from error

    async def correct(self, request: "Request") -> "Answer":
        """Give back a fare or some of it, or correct it to another cost. Raises Refusal 400."""
        fields = request.fields
        fields.check_names("order", "reason", "amount_usd", "cost_usd")
        named, reason = fields.text("order"), fields.text("reason")
        if not named or not reason:
            raise invalid("order, reason: give both; an order is named by its generation's id")
        amount, cost = fields.amount("amount_usd"), _cost(fields.number("cost_usd"))
        if amount is not None and cost is not None:
            raise invalid("amount_usd, cost_usd: they exclude each other")
        try:
            account, order = await find_order(self._store, self._store, named)
            done = await correct(self._store, account, order, reason, back_nanos=amount, cost=cost)
        except NotCorrectable as error:
            raise invalid(str(error)) from error
        answer = {
            "account": done.account.name,
            "hold_id": done.order.id,
            "generation_id": done.order.generation_id,
            "given_back_usd": format_usd(0 if done.is_repeat else done.back_nanos),
            "fare_usd": format_usd(done.fare_nanos),
        }
        return (
            (200, {"data": answer}, [(b"idempotency-replayed", b"true")]) if done.is_repeat else (201, {"data": answer})
        )


def _moment(row: ForeignKey) -> int | None:
    try:
        return clock.read_iso(row.expires) if row.expires else None
    except ValueError as error:
        raise invalid(f"keys: {row.where}: expires: write it like 2027-12-31T23:59:59Z") from error


def _cost(number: str | None) -> Decimal | None:
    if number is None:
        return None
    cost = msgspec.json.decode(number, type=Decimal)
    if not is_readable_cost(cost):
        raise invalid("cost_usd: an amount in USD such as 0.00123")
    return cost
