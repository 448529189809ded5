"""Fares that were wrong, and what is left when an account is closed: moved by transfers of their own, each with a
reason. Nothing that was booked is changed."""

import secrets
from decimal import Decimal

from msgspec import Struct

from farebox import acting, clock
from farebox.core.books import (
    Correct,
    Corrected,
    HoldRow,
    NoSuchRow,
    NotCorrected,
    NotPaidOut,
    PaidOut,
    PayOut,
)
from farebox.core.callers import Account
from farebox.core.money import charged, format_usd
from farebox.ports import Books, Directory, Ledger

REASON_LENGTH_MAX = 500


class NotCorrectable(Exception):  # noqa: N818 - the word of the house
    """There is no such order, no fare of it, or not so much of it; the message says which."""


class NotClosed(Exception):  # noqa: N818
    """The account cannot be paid out now; the message says why, and what to do."""


class Correction(Struct, frozen=True):
    """What a correction moved: the account got so much back (below zero: was charged more), and the fare comes to so
    much now."""

    account: Account
    order: HoldRow
    back_nanos: int
    fare_nanos: int
    is_repeat: bool


async def find_order(books: Books, directory: Directory, named: str) -> tuple[Account, HoldRow]:
    """An order by its hold's id, or its generation's. Raises NotCorrectable."""
    accounts = {account.id: account for account in await directory.accounts()}
    hold = await books.hold(named)
    if hold is None:
        for account_id in accounts:
            if (found := await books.generation(account_id, named)) is not None:
                hold = found[0]
                break
    if hold is None:
        raise NotCorrectable(f"there is no order `{named}`; a statement has the ids of generations and holds")
    return accounts[hold.account_id], hold


async def correct(
    ledger: Ledger,
    account: Account,
    order: HoldRow,
    reason: str,
    *,
    back_nanos: int | None = None,
    cost: Decimal | None = None,
) -> Correction:
    """Give back so much of an order's fare (`back_nanos`; all where that is None), or have the fare come to what it
    would be at another cost. The same again, for the same reason, moves nothing. Raises NotCorrectable."""
    reason = checked_reason(reason)
    fare_nanos: int | None = None
    if cost is not None:
        _, fare_nanos = charged(cost, order.event_price_nanos, marked_up=order.marked_up)
    elif back_nanos is None:
        fare_nanos = 0
    elif back_nanos <= 0:
        raise NotCorrectable("what is given back is more than zero")
    outcome = await ledger.carry_out(
        Correct(order.id, clock.now_us(), reason, back_nanos=back_nanos, fare_nanos=fare_nanos, by=acting.by())
    )
    match outcome:
        case Corrected():
            return Correction(account, order, outcome.back_nanos, outcome.fare_nanos, outcome.is_repeat)
        case NotCorrected(None):
            raise NotCorrectable(f"the order `{order.id}` is {order.state}, and has no fare")
        case NotCorrected(fare):
            left = 0 if fare is None else fare
            raise NotCorrectable(
                f"${format_usd(left)} of this fare is left, or it was corrected too often; nothing was moved"
            )
        case NoSuchRow():
            raise NotCorrectable(f"there is no order `{order.id}`")
        case _:
            raise AssertionError(outcome)


async def pay_out(ledger: Ledger, account: Account, reason: str) -> int:
    """Pay out what is left in an account; how much that was. Raises NotClosed."""
    reason = checked_reason(reason)
    now_us = clock.now_us()
    name = f"{now_us:014x}{secrets.token_hex(6)}"
    outcome = await ledger.carry_out(PayOut(name, account.id, now_us, reason, acting.by()))
    match outcome:
        case PaidOut(amount):
            return amount
        case NotPaidOut(pending, balance):
            if pending:
                raise NotClosed(
                    f"`{account.name}` takes no orders any more, and ${format_usd(pending)} is held for some that have"
                    " not ended: `farebox reconcile --list`, then close it again to pay out the rest"
                )
            raise NotClosed(
                f"`{account.name}` takes no orders any more, and owes ${format_usd(-balance)}: top it up by what was"
                " paid, or refund what will not be, then close it again"
            )
        case _:
            raise AssertionError(outcome)


def checked_reason(reason: str) -> str:
    """A reason as it is kept. To be asked for before an account is closed. Raises NotCorrectable: it is none, or too
    long."""
    reason = reason.strip()
    if not reason or len(reason) > REASON_LENGTH_MAX:
        raise NotCorrectable(f"say why, in 1 to {REASON_LENGTH_MAX} characters: it is kept with the transfer")
    return reason
