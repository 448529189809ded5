"""The trail in the books: what is changed is entered by the transaction that changes it."""

from collections.abc import Callable, Sequence
from typing import TypeVar

import msgspec

from farebox import acting, clock
from farebox.core.trail import OPERATOR, By, Change, Entry, Told, TrailFilter, Value
from farebox.store.desk import OnDesk
from farebox.store.engine import Db
from farebox.store.rows import Row, json_text
from farebox.store.sql import Statements

T = TypeVar("T")

Note = Callable[[Change | None], None]
"""Takes down what is changed; of None there is nothing to be entered."""

Entering = tuple[int, By, Change]
"""When, who, what."""

_members_from = msgspec.json.Decoder(dict[str, tuple[Value, Value]]).decode

_ENTRY_COLUMNS = 15


class SqlTrail(OnDesk):
    """The `Trail` port; and how stores write it: what they change for somebody goes through `_noting`."""

    async def _noting(self, work: Callable[[Db, Note], T]) -> T:
        """Do work in a transaction of its own, at whose end what it notes is entered in the trail, as done by whoever
        acts now. `work` locks nothing after the trail: it may be entered by one transaction at a time."""
        by = acting.by()

        def change(db: Db) -> T:
            noted: list[Entering] = []
            done = work(db, lambda change: None if change is None else noted.append((clock.now_us(), by, change)))
            if noted:
                for statement, rows in entering(self._sql, noted):
                    for row in rows:
                        db.execute(statement, row)
            return done

        return await self._desk.change(change)

    async def entries(self, wanted: TrailFilter, before: int, most: int) -> list[Told]:
        given = {
            "before": before,
            "since": wanted.since_us,
            "until": wanted.until_us,
            "account": wanted.account_id,
            "key": wanted.key_id,
            "who": None if wanted.who is None else f"%{_plain(wanted.who.lower())}%",
            "what": None if wanted.what is None else f"{_plain(wanted.what)}.%",
            "most": most,
        }
        if wanted.account_id is None:
            return await self._desk.rows(told_from, self._sql.entries, given)
        given |= {"for_one": wanted.is_for_one, "operator": OPERATOR}
        return await self._desk.rows(told_from, self._sql.entries_of_account, given)


def _plain(text: str) -> str:
    """A text in a pattern of LIKE, in which it stands for itself."""
    return text.translate({ord(mark): f"!{mark}" for mark in "!%_"})


def entering(sql: Statements, noted: Sequence[Entering]) -> list[tuple[str, list[Row]]]:
    """The statements that enter changes in the trail, each with its rows: the last ones of their transaction."""
    rows = [_entry_row(len(noted) - 1 - place, *each) for place, each in enumerate(noted)]
    return [(sql.count_entries, [(len(noted),)]), (sql.insert_entry, rows)]


def _entry_row(later: int, at_us: int, by: By, change: Change) -> Row:
    return (
        later,
        at_us,
        by.way,
        by.name,
        by.manager_id,
        by.key_id,
        by.session,
        change.what,
        change.account_id,
        change.key_id,
        change.hold_id,
        change.transfer_id,
        change.about,
        json_text(change.members),
        change.reason,
    )


def entry_from(row: Row) -> Entry:
    number, at_us, way, who, manager_id, by_key_id, session, what, account_id, key_id, hold_id, transfer_id, *rest = row
    about, members, reason = rest
    change = Change(
        what=what,
        account_id=account_id,
        key_id=key_id,
        hold_id=hold_id,
        transfer_id=transfer_id,
        about=about,
        members=_members_from(members),
        reason=reason,
    )
    return Entry(number, at_us, By(way, who, manager_id, by_key_id, session), change)


def told_from(row: Row) -> Told:
    return Told(entry_from(row[:_ENTRY_COLUMNS]), *row[_ENTRY_COLUMNS:])
