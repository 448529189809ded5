"""The trail as people and programs read it: lines of texts, the latest first."""

from collections.abc import AsyncGenerator, Mapping
from dataclasses import dataclass

from msgspec.structs import replace

from farebox import clock
from farebox.core.books import LAST_US
from farebox.core.resale import tells_cost
from farebox.core.trail import OPERATOR, Members, Told, TrailFilter, Value
from farebox.ports import Trail

COLUMNS = (
    "id",
    "time",
    "who",
    "way",
    "session",
    "what",
    "account",
    "key",
    "key_hash",
    "about",
    "order_id",
    "transfer_id",
    "changes",
    "reason",
)

AT_ONCE = 1_000
"""Entries of a page, at most, and of a piece of a download."""


@dataclass(frozen=True, slots=True)
class TrailPage:
    """Entries, and the number that the next ones are before, where there are more."""

    told: list[Told]
    next: int | None


class Trails:
    """The use cases over a store. With an account, all is as a manager of that account alone may see it."""

    def __init__(self, store: Trail) -> None:
        self._store = store

    async def page(self, wanted: TrailFilter, before: int, most: int) -> TrailPage:
        found = await self._store.entries(wanted, before, most + 1)
        listed = found[:most]
        return TrailPage(listed, listed[-1].entry.id if len(found) > most else None)

    async def every(self, wanted: TrailFilter, before: int = LAST_US) -> AsyncGenerator[list[Told], None]:
        """All of them, piece by piece."""
        following: int | None = before
        while following is not None:
            page = await self.page(wanted, following, AT_ONCE)
            yield page.told
            following = page.next


def fare_alone(told: Told) -> Told:
    """An entry as those see it who are told the fare alone: without what the upstream charged."""
    change = told.entry.change
    members = {name: each for name, each in change.members.items() if not tells_cost(name)}
    return replace(told, entry=replace(told.entry, change=replace(change, members=members)))


def line(told: Told, viewer_account_id: int | None) -> dict[str, str | int | None]:
    """An entry as a row, for a manager of one account, or (None) of all."""
    entry, change = told.entry, told.entry.change
    return {
        "id": entry.id,
        "time": clock.iso(entry.at_us),
        "who": who(told, viewer_account_id),
        "way": entry.by.way,
        "session": entry.by.session,
        "what": change.what,
        "account": told.account,
        "key": told.key_label or told.key_hint or (None if change.key_id is None else f"key {change.key_id}"),
        "key_hash": None if told.key_digest is None else told.key_digest.hex(),
        "about": change.about,
        "order_id": change.hold_id,
        "transfer_id": change.transfer_id,
        "changes": in_words(change.members),
        "reason": change.reason,
    }


def who(told: Told, viewer_account_id: int | None) -> str:
    by = told.entry.by
    if by.manager_id is not None and viewer_account_id in (None, told.manager_account_id):
        return _with_label(f"management key {by.manager_id}", by.name)
    if by.key_id is not None:
        return _with_label(f"key {by.key_id}", by.name)
    return by.name if viewer_account_id is None else OPERATOR


def _with_label(number: str, label: str) -> str:
    return f"{label} ({number})" if label else number


def members(changed: Members) -> list[tuple[str, str | None, str | None]]:
    """Each member's name, and from what to what; moments in UTC. None where there is nothing."""
    return [(name.removesuffix("_us"), _text(name, old), _text(name, new)) for name, (old, new) in changed.items()]


def by_name(changed: Members) -> Mapping[str, list[str | None]]:
    return {name: [old, new] for name, old, new in members(changed)}


def in_words(changed: Members) -> str:
    return "; ".join(f"{name}: {_or_nothing(old)} → {_or_nothing(new)}" for name, old, new in members(changed))


def _or_nothing(text: str | None) -> str:
    return "nothing" if text is None else text


def _text(name: str, value: Value) -> str | None:
    match value:
        case None:
            return None
        case bool():
            return "yes" if value else "no"
        case int() if name.endswith("_us"):
            return clock.iso(value, "seconds")
        case _:
            return str(value)
