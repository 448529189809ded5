"""Alerts in the books: where they go, what is raised, and what is on its way; and what they are told of.

What may be many rows is read so many at a time: in between, others get the desk.
"""

from collections.abc import Sequence

import msgspec
from msgspec.structs import astuple

from farebox.core.alerts import Changes, Delivery, Form, Low, Raised, Receiver, Used, limits_used
from farebox.core.changes import low_balance_set, receiver_added, receiver_removed
from farebox.store.engine import Db
from farebox.store.rows import account_and_key_from, allowance_from, each, each_reading, json_text, number_from
from farebox.store.trail import Note, SqlTrail

ROWS_AT_ONCE = 1_000

FURTHEST_US = 2 * 86_400_000_000
"""Longer than any delivery is put off."""

_receiver_from = each_reading(Receiver, kinds=msgspec.json.Decoder(tuple[str, ...]).decode)
_delivery_from = each(Delivery)


class SqlAlerts(SqlTrail):
    """The `AlertShelf` port."""

    async def add_receiver(
        self,
        label: str,
        url: str,
        form: Form,
        secret: str | None,
        kinds: Sequence[str],
        account_id: int | None,
        created_us: int,
    ) -> Receiver:
        given = (label, url, form, secret, json_text(kinds), account_id, created_us)

        def add(db: Db, note: Note) -> Receiver:
            (receiver_id,) = db.execute(self._sql.add_receiver, given).fetchone()
            receiver = Receiver(receiver_id, label, url, form, secret, tuple(kinds), account_id, created_us)
            note(receiver_added(receiver))
            return receiver

        return await self._noting(add)

    async def receivers(self) -> list[Receiver]:
        return await self._desk.rows(_receiver_from, self._sql.receivers)

    async def drop_receiver(self, receiver_id: int) -> None:
        def drop(db: Db, note: Note) -> None:
            there = map(_receiver_from, db.execute(self._sql.receivers).fetchall())
            db.execute(self._sql.drop_deliveries, {"id": receiver_id})
            if db.execute(self._sql.drop_receiver, {"id": receiver_id}).rowcount:
                note(next(receiver_removed(each) for each in there if each.id == receiver_id))

        await self._noting(drop)

    async def raised(self) -> dict[str, Raised]:
        return {found.name: found for found in await self._desk.rows(each(Raised), self._sql.raised)}

    async def take_down(
        self, changes: Changes, deliveries: Sequence[tuple[str, Delivery]], now_us: int, keep_since_us: int
    ) -> int:
        def take_down(db: Db) -> int:
            mine = set()
            # In the order of their names: two processes that raise the same do not wait for each other.
            for trouble in sorted(changes.told, key=lambda trouble: trouble.name):
                row = (trouble.name, trouble.level, now_us, trouble.until_us)
                if db.execute(self._sql.raise_trouble, row).fetchall():
                    mine.add(trouble.name)
            begun = [delivery for name, delivery in deliveries if name in mine]
            for delivery in begun:
                db.execute(self._sql.put_delivery, _delivery_row(delivery))
            for raised in sorted(changes.noted, key=lambda raised: raised.name):
                db.execute(self._sql.note_raised, astuple(raised))
            for name in sorted(changes.over):
                db.execute(self._sql.forget_raised, {"name": name, "now": now_us})
            if begun:
                db.execute(self._sql.forget_deliveries, {"before": keep_since_us})
            return len(begun)

        return await self._desk.change(take_down)

    async def forget_all_raised(self) -> None:
        await self._desk.write(self._sql.forget_all_raised, ())

    async def put_delivery(self, delivery: Delivery) -> None:
        await self._desk.write(self._sql.put_delivery, _delivery_row(delivery))

    async def claim_deliveries(self, now_us: int, until_us: int, most: int) -> list[Delivery]:
        given = {"now": now_us, "latest": now_us + FURTHEST_US, "until": until_us, "most": most}

        def claim() -> list[Delivery]:
            # A look first: a transaction that writes nothing would still make every other writer wait.
            if self._desk.db.execute(self._sql.is_delivery_due, given).fetchone() is None:
                return []
            with self._desk.transaction() as db:
                return [_delivery_from(row) for row in db.execute(self._sql.claim_deliveries, given).fetchall()]

        return await self._desk.do(claim)

    async def change_delivery(self, delivery: Delivery) -> None:
        d = delivery
        changed = {"due": d.due_us, "attempts": d.attempts, "state": d.state, "said": d.said, "ended": d.ended_us}
        await self._desk.write(self._sql.change_delivery, {**changed, "id": d.id})

    async def deliveries(
        self, receiver_id: int | None, account_id: int | None, most: int, before: str
    ) -> list[Delivery]:
        given = {"receiver": receiver_id, "account": account_id, "most": most, "before": before}
        return await self._desk.rows(_delivery_from, self._sql.deliveries, given)

    async def low_accounts(self, default_nanos: int, account_id: int | None) -> list[Low]:
        given = {"below": default_nanos}
        if account_id is not None:
            one = {**given, "after": account_id - 1, "upto": account_id}
            return await self._desk.rows(each(Low), self._sql.low_accounts, one)
        (last,) = await self._desk.rows(number_from, self._sql.last_account)
        found: list[Low] = []
        for after in range(0, last, ROWS_AT_ONCE):
            part = {**given, "after": after, "upto": after + ROWS_AT_ONCE}
            found += await self._desk.rows(each(Low), self._sql.low_accounts, part)
        return found

    async def low_balance(self, account_id: int) -> int | None:
        return await self._desk.row(number_from, self._sql.low_balance, {"account": account_id})

    async def set_low_balance(self, account_id: int, below_nanos: int | None) -> None:
        named = {"account": account_id}

        def change(db: Db, note: Note) -> None:
            db.execute(self._sql.lock_account, (account_id,))
            row = db.execute(self._sql.low_balance, named).fetchone()
            if below_nanos is None:
                db.execute(self._sql.unset_low_balance, named)
            else:
                db.execute(self._sql.set_low_balance, (account_id, below_nanos))
            note(low_balance_set(account_id, None if row is None else row[0], below_nanos))

        await self._noting(change)

    async def limits_used(self, now_us: int) -> list[tuple[Used, str, str | None]]:
        found: list[tuple[Used, str, str | None]] = []
        after = ""
        while True:
            given = {"after": after, "most": ROWS_AT_ONCE}

            def read(given: dict[str, object] = given) -> tuple[list[tuple[Used, str, str | None]], str, int]:
                rows = self._desk.db.execute(self._sql.allowances_behind, given).fetchall()
                used = [one for row in rows for one in limits_used(allowance_from(row), now_us)]
                return [self._named(one) for one in used], rows[-1][0] if rows else "", len(rows)

            part, after, number = await self._desk.do(read)
            found += part
            if number < ROWS_AT_ONCE:
                return found

    def _named(self, used: Used) -> tuple[Used, str, str | None]:
        db, (kind, _, of) = self._desk.db, used.owner.partition(" ")
        account = db.execute(self._sql.console_account, {"account": used.account_id}).fetchone()
        if kind == "account":
            return used, account[1], None
        if kind == "key":
            _, key = account_and_key_from(db.execute(self._sql.key_of_id, {"id": int(of)}).fetchone())
            of = key.label or key.hint
        return used, account[1], of


def _delivery_row(d: Delivery) -> tuple[object, ...]:
    return (
        d.id,
        d.kind,
        d.body,
        d.created_us,
        d.due_us,
        d.attempts,
        d.state,
        d.said,
        d.ended_us,
        d.receiver_id,
    )
