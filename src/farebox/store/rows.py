"""How rows become values, and values rows. Columns stand in the order of the values' fields."""

from collections.abc import Callable, Sequence
from decimal import Decimal
from typing import Any, TypeVar

import msgspec
from msgspec.structs import astuple

from farebox.core.allowances import NO_LIMITS, Allowance, Limits, Slot
from farebox.core.books import Balance, HoldRow, Transfer
from farebox.core.callers import Account, Key, PublishedPlans
from farebox.core.plans import Plan
from farebox.core.pricing import KeptPrices

T = TypeVar("T")
Row = Sequence[Any]


_decode_limits = msgspec.json.Decoder(Limits).decode
_decode_minute = msgspec.json.Decoder(tuple[Slot, ...]).decode
_decode_bodies = msgspec.msgpack.Decoder(tuple[bytes, ...]).decode
_decode_plans = msgspec.json.Decoder(tuple[Plan, ...]).decode

_LIMITS = Allowance.__struct_fields__.index("limits")
_ACCOUNT_COLUMNS = len(Account.__struct_fields__)
_DISABLED = Key.__struct_fields__.index("disabled")
_STREAMED = HoldRow.__struct_fields__.index("streamed")
_COST = Transfer.__struct_fields__.index("cost")


def each(kind: Callable[..., T]) -> Callable[[Row], T]:
    """How a row becomes a value whose fields are the row's columns as they are."""
    return lambda row: kind(*row)


def transfer_row(transfer: Transfer) -> Row:
    values = astuple(transfer)
    if transfer.cost is None:
        return values
    return (*values[:_COST], str(transfer.cost), *values[_COST + 1 :])


def transfer_from(row: Row) -> Transfer:
    values = list(row)
    values[_COST] = None if row[_COST] is None else Decimal(row[_COST])
    return Transfer(*values)


def hold_from(row: Row) -> HoldRow:
    values = list(row)
    values[_STREAMED] = bool(row[_STREAMED])
    return HoldRow(*values)


def hold_changes(h: HoldRow) -> Row:
    return (
        h.state,
        h.generation_id,
        h.served_model,
        h.prompt_tokens,
        h.answer_tokens,
        h.reason,
        h.ended_us,
        h.asks,
        h.ask_us,
        h.id,
    )


def account_from(row: Row) -> Account:
    account_id, name, plan, created_us, limits = row
    return Account(account_id, name, plan, created_us, limits_from(limits))


def key_from(row: Row) -> Key:
    values = list(row)
    values[_DISABLED] = bool(row[_DISABLED])
    values[-1] = limits_from(row[-1])
    return Key(*values)


def account_and_key_from(row: Row) -> tuple[Account, Key]:
    return account_from(row[:_ACCOUNT_COLUMNS]), key_from(row[_ACCOUNT_COLUMNS:])


def key_changes(key: Key) -> Row:
    return (key.label, key.revoked_us, key.disabled, key.expires_us, key.updated_us, key.id)


def limits_from(text: str | None) -> Limits:
    return NO_LIMITS if text is None else _decode_limits(text)


def limits_text(limits: Limits) -> str:
    return msgspec.json.encode(limits).decode()


def allowance_from(row: Row) -> Allowance:
    values = list(row)
    values[_LIMITS] = _decode_limits(row[_LIMITS])
    values[-1] = _decode_minute(row[-1])
    return Allowance(*values)


def allowance_row(a: Allowance) -> Row:
    *counts, owner = allowance_changes(a)
    return (owner, a.account_id, limits_text(a.limits), *counts)


def allowance_changes(a: Allowance) -> Row:
    return (
        a.pending_nanos,
        a.total_nanos,
        a.day_nanos,
        a.week_nanos,
        a.month_nanos,
        a.counted_us,
        a.at_once,
        msgspec.json.encode(a.minute).decode(),
        a.owner,
    )


def prices_from(row: Row) -> KeptPrices:
    return KeptPrices(_decode_bodies(row[0]), row[1])


def prices_row(source: str, kept: KeptPrices) -> Row:
    return (source, msgspec.msgpack.encode(kept.bodies), kept.read_us)


def published_from(row: Row) -> PublishedPlans:
    return PublishedPlans(_decode_plans(row[0]), row[1], row[2])


def published_row(published: PublishedPlans) -> Row:
    return (msgspec.json.encode(published.plans).decode(), published.by, published.published_us)


def balance_changes(b: Balance) -> Row:
    return (b.credits_nanos, b.debits_nanos, b.pending_nanos, b.overdrawn_nanos, b.account_id)


def number_from(row: Row) -> int:
    """The whole number that a row is."""
    return int(row[0])
