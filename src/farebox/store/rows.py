"""How rows become values, and values rows. Columns stand in the order of the values' fields."""

from collections.abc import Callable, Sequence
from decimal import Decimal
from typing import Any, TypeVar

import msgspec
from msgspec.structs import astuple

from farebox.core.allowances import NO_LIMITS, Allowance, Limits, Slot
from farebox.core.books import Attributed, AttributedKey, Balance, DayTotal, HoldRow, Transfer
from farebox.core.callers import Account, Key, PublishedPlans
from farebox.core.money import cost_of, limbs_of
from farebox.core.plans import Plan
from farebox.core.pricing import KeptPrices
from farebox.core.stored import StoredRow
from farebox.core.tariffs import Priced

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


_ZERO = Decimal(0)
_encode = msgspec.json.Encoder().encode
_decode_priced = msgspec.json.Decoder(Priced).decode
_decode_limits = msgspec.json.Decoder(Limits).decode


def _limits_from(text: str | None) -> Limits:
    return NO_LIMITS if text is None else _decode_limits(text)


def _priced_from(text: str | None) -> Priced | None:
    return None if text is None else _decode_priced(text)


def _cost_from(text: str | None) -> Decimal | None:
    return None if text is None else Decimal(text)


account_from = each_reading(Account, limits=_limits_from)
allowance_from = each_reading(Allowance, limits=_decode_limits, minute=msgspec.json.Decoder(tuple[Slot, ...]).decode)
hold_from = each_reading(HoldRow, streamed=bool, marked_up=bool, priced=_priced_from)
key_from = each_reading(Key, disabled=bool, may_store=bool, limits=_limits_from)
prices_from = each_reading(KeptPrices, bodies=msgspec.msgpack.Decoder(tuple[bytes, ...]).decode)
stored_from = each_reading(StoredRow, background=bool)
published_from = each_reading(PublishedPlans, plans=msgspec.json.Decoder(tuple[Plan, ...]).decode)
transfer_from = each_reading(Transfer, cost=_cost_from)

_ACCOUNT_COLUMNS = len(Account.__struct_fields__)


def account_and_key_from(row: Row) -> tuple[Account, Key]:
    return account_from(row[:_ACCOUNT_COLUMNS]), key_from(row[_ACCOUNT_COLUMNS:])


def number_from(row: Row) -> int:
    """The whole number that a row is."""
    return int(row[0])


def hold_row(h: HoldRow) -> Row:
    """As it is placed."""
    # SQLite's driver looks for an adapter for a bool, and for bytes.
    digest = None if h.order_digest is None else bytearray(h.order_digest)
    return (
        h.id,
        h.account_id,
        h.key_id,
        h.worker,
        h.amount_nanos,
        h.plan,
        h.event_price_nanos,
        h.model,
        1 if h.streamed else 0,
        h.created_us,
        1 if h.marked_up else 0,
        h.charge_to,
        h.charge_times,
        h.reserved_tokens,
        digest,
        h.kind,
        h.units,
        h.end_user,
        h.tags,
    )


def priced_row(h: HoldRow) -> Row:
    return (h.upstream, None if h.priced is None else json_text(h.priced), h.id)


def job_row(h: HoldRow) -> Row:
    return (h.job_id, h.id)


def hold_changes(h: HoldRow) -> Row:
    return (
        h.state,
        h.generation_id,
        h.served_model,
        h.prompt_tokens,
        h.answer_tokens,
        h.units,
        h.reason,
        h.sent_us,
        h.head_us,
        h.read_us,
        h.ended_us,
        h.asks,
        h.ask_us,
        h.id,
    )


def hold_end(h: HoldRow) -> Row:
    return (h.state, h.generation_id, *_ending(h))


def named_hold_end(h: HoldRow) -> Row:
    """The same without the generation's id, which stands there."""
    return (h.state, *_ending(h))


def _ending(h: HoldRow) -> Row:
    used = (h.served_model, h.prompt_tokens, h.answer_tokens, h.units)
    return (*used, h.sent_us, h.head_us, h.read_us, h.ended_us, h.id)


def tried_row(h: HoldRow) -> Row:
    return (h.tried, h.id)


def hold_transfer(t: Transfer) -> Row:
    return (t.id, t.debit_account, t.amount_nanos, t.created_us, t.hold_id)


def end_transfer(t: Transfer) -> Row:
    return (
        t.id,
        t.kind,
        t.debit_account,
        t.amount_nanos,
        t.created_us,
        t.hold_id,
        None if t.cost is None else str(t.cost),
        t.events,
        t.event_price_nanos,
        t.over_hold_nanos,
    )


_COST = Transfer.__struct_fields__.index("cost")


def transfer_row(transfer: Transfer) -> Row:
    values = astuple(transfer)
    if transfer.cost is None:
        return values
    return (*values[:_COST], str(transfer.cost), *values[_COST + 1 :])


def balance_changes(b: Balance) -> Row:
    return (b.credits_nanos, b.debits_nanos, b.pending_nanos, b.overdrawn_nanos, b.account_id)


def key_changes(key: Key) -> Row:
    return (
        key.label,
        key.revoked_us,
        key.disabled,
        key.expires_us,
        key.updated_us,
        key.cache_seconds,
        key.may_store,
        key.id,
    )


def stored_row(row: StoredRow) -> Row:
    return (*astuple(row), row.size)


def stored_end(row: StoredRow) -> Row:
    """What an order in the background became."""
    return (row.status, row.until_us, row.answer, row.generation_id, row.events, row.size, row.account_id, row.id)


def json_text(value: object) -> str:
    """What stands in one column as JSON: a field that has parts, or a list that a statement is given."""
    return _encode(value).decode()


def day_total_row(t: DayTotal) -> Row:
    """Without what is finer than a limb; that has a statement of its own."""
    limbs, _ = limbs_of(t.cost)
    used = (t.prompt_tokens, t.answer_tokens, t.units)
    return (*t.key, t.orders, t.events, t.fares_nanos, *limbs, *used, t.latest_us)


def attributed_total_row(key: AttributedKey, t: DayTotal) -> Row:
    _, end_user, tags = key
    account_id, day, *rest = day_total_row(t)
    return (account_id, day, end_user, tags, *rest)


def attributed_from(row: Row) -> Attributed:
    end_user, tags, *total = row
    return Attributed(end_user, tags, day_total_from(total))


def day_total_from(row: Row) -> DayTotal:
    account_id, day, key_id, model, served_model, kind, orders, events, nanos, first, middle, last, finer, *used = row
    cost = cost_of((first, middle, last), _ZERO if finer is None else Decimal(finer))
    return DayTotal((account_id, day, key_id, model, served_model, kind), orders, events, nanos, cost, *used)


def allowance_row(a: Allowance) -> Row:
    *counts, owner = allowance_changes(a)
    return (owner, a.account_id, json_text(a.limits), *counts)


def allowance_changes(a: Allowance) -> Row:
    return (
        a.pending_nanos,
        a.total_nanos,
        a.day_nanos,
        a.week_nanos,
        a.month_nanos,
        a.counted_us,
        a.at_once,
        json_text(a.minute),
        a.owner,
    )
