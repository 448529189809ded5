"""The trail: every change that somebody makes to accounts, keys, limits, money, decisions, presets and plans, as an
entry that is written with the change and never changed afterwards.

An entry says who, when, which way, what of which account or key, why, and from what to what, member by member. Amounts
are exact text in USD. No entry has a secret, or any part of a key.
"""

from collections.abc import Mapping
from typing import Annotated, Literal

from msgspec import Meta, Struct

Way = Literal["cli", "api", "console", "server", "actor"]
"""Which way a change was made; `server`: by Farebox itself, at a start; `actor`: by Farebox as an Actor."""

WAYS: tuple[Way, ...] = ("cli", "api", "console", "server", "actor")

Value = str | int | bool | None
"""Of a member. One whose name ends in `_us` is a moment."""

Members = Mapping[str, tuple[Value, Value]]
"""From what to what; None where there was nothing, or is nothing any more."""


class By(Struct, frozen=True):
    """Who makes a change. `name` is the label of a management key or a key (perhaps empty), or a system user and host;
    a key is known by its number, too. `session` tells sessions of the console apart: no secret follows from it."""

    way: Way
    name: str
    manager_id: int | None = None
    key_id: int | None = None
    session: str | None = None


NOT_TOLD = By("server", "not told")


class Change(Struct, frozen=True, kw_only=True):
    """What is changed: `what` is a thing and what became of it, such as `key.revoked`. `about` names what is neither an
    account nor a key, an order or a transfer; `transfer_id` is the one transfer that it moved money by."""

    what: str
    account_id: int | None = None
    key_id: int | None = None
    hold_id: str | None = None
    transfer_id: str | None = None
    about: str | None = None
    members: Members
    reason: str | None = None


class Entry(Struct, frozen=True):
    """A change as it stands in the books. Numbers of entries have no gaps, and are in the order of their
    transactions."""

    id: int
    at_us: int
    by: By
    change: Change


class Told(Struct, frozen=True):
    """An entry with the names that things have now. `manager_account_id`: the one account whose keys its maker may
    manage."""

    entry: Entry
    account: str | None = None
    key_label: str | None = None
    key_hint: str | None = None
    key_digest: bytes | None = None
    manager_account_id: int | None = None


OPERATOR = "the operator"
"""Who it was, to a manager of one account: by which name is none of its matters."""


class TrailFilter(Struct, frozen=True):
    """Which entries are wanted: of one account or key, since one moment and before another, whose `who` has a text in
    it, and whose `what` is this, or of this thing. Where a manager of one account asks (`is_for_one`), `who` is looked
    for in what such a manager is told."""

    since_us: int
    until_us: int
    account_id: int | None = None
    key_id: int | None = None
    who: str | None = None
    what: str | None = None
    is_for_one: bool = False

    def takes(self, entry: Entry, manager_account_id: int | None = None) -> bool:
        """Of an entry whose maker may manage the keys of that one account alone."""
        change, by = entry.change, entry.by
        is_named = not self.is_for_one or by.key_id is not None or manager_account_id == self.account_id
        who = by.name if is_named else OPERATOR
        return (
            self.since_us <= entry.at_us < self.until_us
            and self.account_id in (None, change.account_id)
            and self.key_id in (None, change.key_id)
            and (self.who is None or self.who.lower() in who.lower())
            and (self.what is None or f"{change.what}.".startswith(f"{self.what}."))
        )


class EntryPlace(Struct, frozen=True, array_like=True):
    """Where a list of entries goes on: before this one. Callers carry it: it is a number that a database has."""

    id: Annotated[int, Meta(ge=0, le=2**62)]


class TrailHead(Struct, frozen=True):
    """How many entries there are; and from when on every transfer that no order made has one. Before that, nodes of an
    older version may have booked some that have none."""

    entries: int
    whole_from_us: int
