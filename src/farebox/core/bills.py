"""Itemised bills: which orders are wanted, where a page of them ends, and what an account's money did in a time.

A list of orders stays as it was while it is paged, though orders come and end: it is of one moment, `as_of_us`. First
come those that had not ended then, the one that was placed last first; then those that had, the one that ended last
first. An order's time is that of its end; while it has none, that of its beginning.
"""

import binascii
from base64 import urlsafe_b64decode, urlsafe_b64encode
from decimal import Decimal
from typing import Annotated, TypeVar

import msgspec
from msgspec import Meta, Struct

from farebox.core.allowances import DAY_US, LAST_DAY
from farebox.core.attribution import kept_tags
from farebox.core.books import LAST_US, Attributed, AttributedKey, DayTotal, HoldRow, HoldState, Transfer
from farebox.core.reading import UNREADABLE

P = TypeVar("P", bound=Struct)

LAST_ID = "zz"
"""Behind every id."""

GROUPS = ("account", "day", "key", "model", "served_model", "kind")
"""What totals can be grouped by, in the order of a DayKey."""


TAG_GROUP = "tag:"
"""Before a tag's name, by whose values totals are grouped."""

Tag = tuple[str, str]
"""A tag's name and value."""


def has_tag(tags: str | None, tag: Tag) -> bool:
    """Whether it is among an order's, as they are kept."""
    return kept_tags(tags).get(tag[0]) == tag[1]


class EndUserSpent(Struct, frozen=True):
    """What an end user's orders of a time came to, and when the latest fare was posted."""

    end_user: str
    orders: int
    fares_nanos: int
    latest_us: int


class BookedOrder(Struct, frozen=True):
    """An order, and the transfer that ended it, if one has."""

    hold: HoldRow
    end: Transfer | None


class OrderFilter(Struct, frozen=True):
    """Which orders are wanted: each member that is not None must fit. A further filter is a member here, a line in
    `takes`, and a line where the query is read (`bills.FILTERS`)."""

    since_us: int = 0
    until_us: int = LAST_US
    key_id: int | None = None
    model: str | None = None
    kind: str | None = None
    state: HoldState | None = None
    end_user: str | None = None
    tag: Tag | None = None

    @property
    def takes_all(self) -> bool:
        """Whether nothing but the time is asked for, and what orders are found by."""
        asked = (self.key_id, self.model, self.kind, self.state, self.tag)
        return all(each is None for each in asked)

    def takes(self, hold: HoldRow) -> bool:
        return (
            self.key_id in (None, hold.key_id)
            and (self.model is None or self.model in (hold.model, hold.served_model))
            and self.kind in (None, hold.kind)
            and self.state in (None, hold.state)
            and self.end_user in (None, hold.end_user)
            and (self.tag is None or has_tag(hold.tags, self.tag))
        )


# Callers carry places, and may change them: what no database takes, or no calendar has, is none.
_Number = Annotated[int, Meta(ge=-LAST_US, le=LAST_US)]
_Moment = Annotated[int, Meta(ge=0, le=(LAST_DAY + 1) * DAY_US)]
_Id = Annotated[str, Meta(pattern=r"\A[^\0]*\Z")]


class OrderPlace(Struct, frozen=True, array_like=True):
    """A place in a list of orders: behind the order with this id and, where it `has_ended`, this end."""

    as_of_us: _Moment
    has_ended: bool = False
    ended_us: _Number = LAST_US
    id: _Id = LAST_ID

    def behind(self, order: BookedOrder) -> "OrderPlace":
        """The place behind an order that stands behind this one."""
        if order.end is not None and order.end.created_us < self.as_of_us:
            return OrderPlace(self.as_of_us, True, order.end.created_us, order.end.id)
        return OrderPlace(self.as_of_us, False, LAST_US, order.hold.id)


class TotalsFilter(Struct, frozen=True):
    """Which days' totals are wanted, the last one included, and by what they are grouped (`GROUPS`)."""

    first_day: int
    last_day: int
    by: tuple[str, ...] = ()
    key_id: int | None = None
    model: str | None = None
    kind: str | None = None
    end_user: str | None = None
    tag: Tag | None = None

    @property
    def by_tag(self) -> str | None:
        """The tag by whose values totals are grouped."""
        return next((name.removeprefix(TAG_GROUP) for name in self.by if name.startswith(TAG_GROUP)), None)

    @property
    def is_attributed(self) -> bool:
        """Whether it asks for whom orders are, which days' totals do not tell."""
        asks = self.end_user is not None or self.tag is not None
        return asks or "end_user" in self.by or self.by_tag is not None

    def attributed_group(self, total: Attributed) -> AttributedKey:
        """An attributed total's key, without what is not grouped by; in the place of its tags, the value of the one
        that is."""
        value = "" if self.by_tag is None else kept_tags(total.tags or None).get(self.by_tag, "")
        return (self.group_of(total.total), total.end_user if "end_user" in self.by else "", value)

    def takes_attributed(self, total: Attributed) -> bool:
        is_taken = self.takes(total.total) and self.end_user in (None, total.end_user)
        return is_taken and (self.tag is None or has_tag(total.tags or None, self.tag))

    def with_the_rest(self, attributed: list[Attributed], all_of_them: list[DayTotal]) -> list[Attributed]:
        """The totals of orders that say for whom they are, and of all that do not, which are what is left of the
        days' totals."""
        groups = {(each.total.key, each.end_user, each.tags): each.total for each in attributed}
        rest = {total.key: total for total in all_of_them}
        for (key, _, _), total in groups.items():
            if key in rest:
                rest[key].take_away(total)
        for key, total in rest.items():
            if total.orders:
                groups.setdefault((key, "", ""), DayTotal(key)).add(total)
        return [Attributed(end_user, value, total) for (_, end_user, value), total in groups.items()]

    def group_of(self, total: DayTotal) -> tuple[int, int, int, str, str, str]:
        """A total's key, without what is not grouped by."""
        account_id, day, key_id, model, served, kind = total.key
        by = self.by
        return (
            account_id if "account" in by else -1,
            day if "day" in by else -1,
            key_id if "key" in by else -1,
            model if "model" in by else "",
            served if "served_model" in by else "",
            kind if "kind" in by else "",
        )

    def takes(self, total: DayTotal) -> bool:
        _, day, key_id, model, _, kind = total.key
        return (
            self.first_day <= day <= self.last_day
            and self.key_id in (None, key_id)
            and self.model in (None, model)
            and self.kind in (None, kind)
        )


class Movement(Struct, frozen=True, array_like=True):
    """A transfer in a statement, by its time and id, and the account's balance after it, as far as that is known."""

    at_us: _Number = -1
    id: _Id = ""
    balance_nanos: _Number | None = None


class Sums(Struct):
    """What an account's movements come to: money paid in, paid out, and given back for fares that were corrected (less
    what was charged in such a way); fares, and of these how many, their events and their cost."""

    paid_in_nanos: int = 0
    paid_out_nanos: int = 0
    given_back_nanos: int = 0
    fares_nanos: int = 0
    orders: int = 0
    events: int = 0
    cost: Decimal = Decimal(0)

    @property
    def moved_nanos(self) -> int:
        """By how much all of it changed the balance."""
        return self.paid_in_nanos - self.paid_out_nanos + self.given_back_nanos - self.fares_nanos

    def take(self, transfer: Transfer, account_id: int) -> None:
        """Add a transfer that is no fare."""
        moved = moved_nanos(transfer, account_id)
        if transfer.is_correction:
            self.given_back_nanos += moved
        elif moved < 0:
            self.paid_out_nanos -= moved
        else:
            self.paid_in_nanos += moved


class Movements(Struct, frozen=True):
    """A page of a statement: transfers, oldest first, with the orders that they are of, by hold. `before_nanos` is the
    balance before the first of them, `opening_nanos` that before all of the time; `sums` are of all of the time."""

    transfers: list[Transfer]
    orders: dict[str, HoldRow]
    before_nanos: int
    opening_nanos: int
    sums: Sums

    @property
    def closing_nanos(self) -> int:
        """The balance after all of the time."""
        return self.opening_nanos + self.sums.moved_nanos


class Days(Struct, frozen=True):
    """What happened to an account on some days, all of one moment: the balance before them, money that moved and was
    no fare, oldest first, with the orders that it is of, by hold; and the fares, as totals."""

    opening_nanos: int
    transfers: list[Transfer]
    orders: dict[str, HoldRow]
    totals: list[DayTotal]


def moved_nanos(transfer: Transfer, account_id: int) -> int:
    """By how much a transfer changes an account's balance. Money that was set aside, and is given back, does not."""
    if transfer.credit_account == account_id:
        return transfer.amount_nanos
    is_paid_out = transfer.kind == "adjustment" and transfer.hold_id is None
    return -transfer.amount_nanos if transfer.is_fare or transfer.is_correction or is_paid_out else 0


def cursor_of(place: Struct) -> str:
    """A place as callers carry it to the next page."""
    return urlsafe_b64encode(msgspec.json.encode(place)).decode().rstrip("=")


def place_of(cursor: str, kind: type[P]) -> P | None:
    """The place that a cursor is; None where it is none."""
    try:
        return msgspec.json.decode(urlsafe_b64decode(cursor.encode() + b"=" * (-len(cursor) % 4)), type=kind)
    except (*UNREADABLE, UnicodeEncodeError, binascii.Error):
        return None
