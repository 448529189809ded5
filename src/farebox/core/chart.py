"""Which accounts of a ledger a fare, a payment or a correction is posted to: in the books of a caller, for whom what
was paid in is an asset and fares are expenses; and in the operator's, for whom it is a liability, fares are income,
and upstreams' costs are expenses."""

from collections.abc import Iterator, Sequence
from decimal import Decimal
from itertools import groupby
from typing import Literal

from msgspec import Struct

from farebox.core.entries import (
    Asserted,
    Entry,
    Line,
    Opened,
    Posting,
    balanced,
    component,
    facts_of,
    marked,
    sum_of,
)
from farebox.core.money import nanos_usd, plain

Side = Literal["caller", "operator"]

OPENING = "Equity:Opening-Balances"
OUTSIDE = "Assets:Clearing:Farebox"
"""Money on its way between Farebox and a bank: nothing is left here once the bank's side is booked, too."""

_NOBODY = "none"


class Spent(Struct, frozen=True):
    """Fares: of one order, or of all of a day's orders of one key, model and kind. `cost` is None where it is not
    told, `event_price_nanos` where there are several."""

    day: int
    at_us: int
    model: str
    key: str
    key_id: int | None
    key_hash: str
    kind: str
    orders: int
    events: int
    event_price_nanos: int | None
    fares_nanos: int
    cost: Decimal | None
    prompt_tokens: int
    answer_tokens: int
    unit: str = ""
    units: str = ""
    order_id: str = ""
    generation_id: str = ""

    @property
    def is_one(self) -> bool:
        return bool(self.order_id)


class Moved(Struct, frozen=True):
    """Money that was paid in or out, or a fare that was corrected. `fare_us` is when that was posted."""

    day: int
    at_us: int
    what: Literal["top-up", "paid out", "correction"]
    id: str
    moved_nanos: int
    reason: str
    model: str = ""
    key: str = ""
    key_hash: str = ""
    order_id: str = ""
    fare_us: int | None = None


Happened = Spent | Moved


class Chart:
    """The entries of a ledger, for one side. Each of its accounts is opened once, before it is first posted to."""

    def __init__(self, side: Side) -> None:
        self.side = side
        self._opened: set[str] = set()

    def begin(self, name: str, day: int, opening_nanos: int) -> Iterator[Line]:
        """The balance before all."""
        own = self._own(name)
        yield from self._open(own, name)
        if opening_nanos:
            yield from self._open(OPENING)
            postings = self._both(own, OPENING, opening_nanos)
            yield Entry(day, name, "Balance before", postings)

    def entries(self, name: str, happened: Sequence[Happened]) -> Iterator[Line]:
        """What happened to an account, in its order; a day's sums become one entry."""
        for (day, is_one), some in groupby(happened, key=_entry_key):
            if day is None or is_one:
                for each in some:
                    yield from self._moved(name, each) if isinstance(each, Moved) else self._one(name, each)
            else:
                yield from self._day(name, day, [each for each in some if isinstance(each, Spent)])

    def end(self, name: str, day: int, closing_nanos: int) -> Iterator[Line]:
        """The balance after all."""
        yield Asserted(day, self._own(name), nanos_usd(closing_nanos * self._sign))

    @property
    def _sign(self) -> int:
        return 1 if self.side == "caller" else -1

    def _own(self, name: str) -> str:
        return f"{'Assets:Farebox' if self.side == 'caller' else 'Liabilities:Farebox:Callers'}:{component(name)}"

    def _both(self, own: str, other: str, moved_nanos: int) -> tuple[Posting, ...]:
        amount = nanos_usd(moved_nanos * self._sign)
        return balanced([Posting(own, amount), Posting(other, amount.copy_negate())])

    def _open(self, account: str, name: str = "") -> Iterator[Opened]:
        if account not in self._opened:
            self._opened.add(account)
            yield Opened(account, name)

    def _moved(self, name: str, moved: Moved) -> Iterator[Line]:
        own, other = self._own(name), OUTSIDE
        if moved.what == "correction":
            other = f"{'Expenses' if self.side == 'caller' else 'Income'}:Farebox:Corrections"
        yield from self._open(other)
        words = {"top-up": "Paid in", "paid out": "Paid out"}
        said = words.get(moved.what) or ("Refund" if moved.moved_nanos > 0 else "Correction")
        facts = facts_of({"id": moved.id, "order": moved.order_id, "model": moved.model, "key": moved.key})
        narration = f"{said}: {moved.reason}" if moved.reason else said
        yield Entry(moved.day, name, narration, self._both(own, other, moved.moved_nanos), facts)

    def _one(self, name: str, spent: Spent) -> Iterator[Line]:
        facts = {
            "order": spent.order_id,
            "generation": spent.generation_id,
            "key": spent.key,
            "kind": spent.kind,
            **_used(spent),
        }
        yield from self._fares(spent.day, name, f"Fare of {spent.model}", [spent], facts)

    def _day(self, name: str, day: int, spent: Sequence[Spent]) -> Iterator[Line]:
        orders = sum(each.orders for each in spent)
        yield from self._fares(day, name, f"Fares of {orders} {'order' if orders == 1 else 'orders'}", spent, {})

    def _fares(
        self, day: int, name: str, narration: str, spent: Sequence[Spent], facts: dict[str, object]
    ) -> Iterator[Line]:
        own = self._own(name)
        postings = [Posting(own, nanos_usd(-sum(each.fares_nanos for each in spent) * self._sign))]
        by_account: dict[tuple[str, str], list[Spent]] = {}
        for each in spent:
            by_account.setdefault(self._fare_account(each), []).append(each)
        for (account, stands_for), some in by_account.items():
            yield from self._open(account, stands_for)
            amount = nanos_usd(sum(each.fares_nanos for each in some) * self._sign)
            about = {"orders": sum(each.orders for each in some), **_used(*some)}
            postings.append(Posting(account, amount, () if facts else facts_of(about)))
        if self.side == "operator":
            for line in self._costs(spent):
                if isinstance(line, Posting):
                    postings.append(line)
                else:
                    yield line
        yield Entry(day, name, narration, balanced(postings), facts_of(facts))

    def _fare_account(self, spent: Spent) -> tuple[str, str]:
        model = component(spent.model)
        if self.side == "operator":
            return f"Income:Farebox:Fares:{model}", spent.model
        key = component(_NOBODY) if spent.key_id is None else marked(spent.key, str(spent.key_id))
        return f"Expenses:Farebox:Fares:{model}:{key}", f"{spent.model} by {spent.key}"

    def _costs(self, spent: Sequence[Spent]) -> Iterator[Opened | Posting]:
        """What upstreams charge for these orders, and are owed."""
        owed = "Liabilities:Farebox:Upstream"
        by_model: dict[str, list[Decimal]] = {}
        for each in spent:
            if each.cost:
                by_model.setdefault(each.model, []).append(each.cost)
        for model, costs in by_model.items():
            account = f"Expenses:Farebox:Upstream:{component(model)}"
            yield from self._open(account, model)
            yield Posting(account, sum_of(costs))
        if by_model:
            yield from self._open(owed)
            yield Posting(owed, sum_of(cost for costs in by_model.values() for cost in costs).copy_negate())


def _entry_key(each: Happened) -> tuple[int | None, bool]:
    return (None, True) if isinstance(each, Moved) else (each.day, each.is_one)


def _used(*spent: Spent) -> dict[str, object]:
    return {
        "events": sum(each.events for each in spent),
        "prompt_tokens": sum(each.prompt_tokens for each in spent) or None,
        "answer_tokens": sum(each.answer_tokens for each in spent) or None,
        **{each.unit: _units(each.unit, spent) for each in spent if each.unit},
    }


def _units(unit: str, spent: Sequence[Spent]) -> str:
    return plain(sum_of(Decimal(each.units) for each in spent if each.unit == unit))
