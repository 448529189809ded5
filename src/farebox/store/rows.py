"""How rows become values, and values rows. Columns stand in the order of the values' fields."""

from collections.abc import Callable, Sequence
from decimal import Decimal
from operator import attrgetter
from typing import Any, TypeVar

import msgspec
from msgspec.structs import astuple

from farebox.core.allowances import NO_LIMITS, Allowance, Limits, Slot
from farebox.core.books import HoldRow, Transfer
from farebox.core.callers import Account, Key, PublishedPlans
from farebox.core.plans import Plan
from farebox.core.pricing import KeptPrices

T = TypeVar("T")
S = TypeVar("S", bound=msgspec.Struct)
Row = Sequence[Any]


def each(kind: Callable[..., T]) -> Callable[[Row], T]:
    """How a row becomes a value whose fields are the row's columns as they are."""
    return lambda row: kind(*row)


def each_reading(kind: type[S], **readers: Callable[[Any], Any]) -> Callable[[Row], S]:
    """The same, where `readers` make some of the fields from what stands in their columns."""
    places = [(kind.__struct_fields__.index(name), read) for name, read in readers.items()]

    def value_from(row: Row) -> S:
        values = list(row)
        for place, read in places:
            values[place] = read(values[place])
        return kind(*values)

    return value_from


_decode_limits = msgspec.json.Decoder(Limits).decode


def _limits_from(text: str | None) -> Limits:
    return NO_LIMITS if text is None else _decode_limits(text)


def _cost_from(text: str | None) -> Decimal | None:
    return None if text is None else Decimal(text)


account_from = each_reading(Account, limits=_limits_from)
allowance_from = each_reading(Allowance, limits=_decode_limits, minute=msgspec.json.Decoder(tuple[Slot, ...]).decode)
hold_from = each_reading(HoldRow, streamed=bool)
key_from = each_reading(Key, disabled=bool, limits=_limits_from)
prices_from = each_reading(KeptPrices, bodies=msgspec.msgpack.Decoder(tuple[bytes, ...]).decode)
published_from = each_reading(PublishedPlans, plans=msgspec.json.Decoder(tuple[Plan, ...]).decode)
transfer_from = each_reading(Transfer, cost=_cost_from)

_ACCOUNT_COLUMNS = len(Account.__struct_fields__)


def account_and_key_from(row: Row) -> tuple[Account, Key]:
    return account_from(row[:_ACCOUNT_COLUMNS]), key_from(row[_ACCOUNT_COLUMNS:])


def number_from(row: Row) -> int:
    """The whole number that a row is."""
    return int(row[0])


hold_changes = attrgetter(
    "state",
    "generation_id",
    "served_model",
    "prompt_tokens",
    "answer_tokens",
    "reason",
    "ended_us",
    "asks",
    "ask_us",
    "id",
)
balance_changes = attrgetter("credits_nanos", "debits_nanos", "pending_nanos", "overdrawn_nanos", "account_id")
key_changes = attrgetter("label", "revoked_us", "disabled", "expires_us", "updated_us", "id")
_counts = attrgetter("pending_nanos", "total_nanos", "day_nanos", "week_nanos", "month_nanos", "counted_us", "at_once")

_COST = Transfer.__struct_fields__.index("cost")


def transfer_row(transfer: Transfer) -> Row:
    values = astuple(transfer)
    if transfer.cost is None:
        return values
    return (*values[:_COST], str(transfer.cost), *values[_COST + 1 :])


def json_text(value: object) -> str:
    """A field that stands in its column as JSON."""
    return msgspec.json.encode(value).decode()


def allowance_row(a: Allowance) -> Row:
    return (a.owner, a.account_id, json_text(a.limits), *_counts(a), json_text(a.minute))


def allowance_changes(a: Allowance) -> Row:
    return (*_counts(a), json_text(a.minute), a.owner)
