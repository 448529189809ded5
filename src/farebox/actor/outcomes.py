"""Reading from the items of a run's dataset what became of its orders."""

from collections.abc import Iterable

import msgspec
from msgspec import Struct

from farebox.core.legible import leniently
from farebox.core.reading import UNREADABLE
from farebox.core.runs import ItemOutcome

FIELDS = "number,status,cost_usd,fare_events,fare_usd"


class _Item(Struct):
    number: int
    status: int = 0
    cost_usd: str | None = None
    fare_events: int | None = None
    fare_usd: str | None = None


_decode_item = msgspec.json.Decoder(_Item).decode


def read_outcomes(items: Iterable[bytes]) -> list[ItemOutcome]:
    """What became of each order that has an item. Other items are passed over: somebody else put them there."""
    found: list[ItemOutcome] = []
    for item in items:
        try:
            read = leniently(_decode_item, item)
        except UNREADABLE:
            continue
        found.append(ItemOutcome(read.number, read.status, read.cost_usd, read.fare_events, read.fare_usd))
    return found
