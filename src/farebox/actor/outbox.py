"""The outbox in the books' own database: fares that are to be charged by an outside biller, and the charges they
become.

A fare comes into it with the transaction that posts it; see `core.ledger.Page`.
"""

import secrets

from msgspec.structs import astuple

from farebox.core.charges import Carried, CarriedOrder, Charge
from farebox.store.desk import OnDesk
from farebox.store.engine import Engine
from farebox.store.rows import Row, hold_from, number_from


class SqlOutbox(OnDesk):
    """The outbox over one database. Each method raises BooksUnavailable."""

    def __init__(self, engine: Engine) -> None:
        super().__init__(engine, "farebox-outbox")

    async def gather(self, now_us: int) -> list[Charge]:
        """Make charges of the fares that are part of none, and return all that are due: one for each fare that is
        charged by its request, and one at a time for all fares of the run."""

        def gather() -> list[Charge]:
            if self._desk.db.execute(self._sql.is_any_loose).fetchone() is not None:
                self._bundle(now_us)
            return [Charge(*row) for row in self._desk.db.execute(self._sql.due_charges)]

        return await self._desk.do(gather)

    def _bundle(self, now_us: int) -> None:
        sql = self._sql
        with self._desk.transaction() as db:
            for transfer_id, charge_to, count in db.execute(sql.loose_of_requests).fetchall():
                db.execute(sql.insert_charge, astuple(Charge(transfer_id, charge_to, count, now_us)))
                db.execute(sql.bundle, {"charge": transfer_id, "transfer": transfer_id})
            (count,) = db.execute(sql.loose_events_of_run).fetchone()
            if count and db.execute(sql.is_run_charge_due).fetchone() is None:
                charge = Charge(secrets.token_hex(12), "", count, now_us)
                db.execute(sql.insert_charge, astuple(charge))
                db.execute(sql.bundle_run, {"charge": charge.id})

    async def change(self, charge: Charge) -> None:
        """Write down the state of a charge that was due."""
        c = charge
        changed = {"window": c.window_us, "done": c.done, "state": c.state, "said": c.said, "ended": c.ended_us}
        await self._desk.write(self._sql.change_charge, {**changed, "id": c.id})

    async def counted(self) -> int:
        """How many events of charges that have ended the biller has counted."""
        (count,) = await self._desk.rows(number_from, self._sql.counted_events)
        return count

    async def unfinished(self) -> Carried:
        """What another machine needs to go on."""

        def read() -> Carried:
            with self._desk.transaction() as db:
                orders = [_order_from(row) for row in db.execute(self._sql.unfinished_orders)]
                charges = [Charge(*row) for row in db.execute(self._sql.due_charges)]
                (counted,) = db.execute(self._sql.counted_events).fetchone()
            return Carried(counted, orders, charges)

        return await self._desk.do(read)

    async def adopt(self, carried: Carried) -> None:
        """Take over another machine's charges; their orders must be in the books."""

        def adopt() -> None:
            with self._desk.transaction() as db:
                for charge in carried.charges:
                    db.execute(self._sql.adopt_charge, astuple(charge))
                for order in carried.orders:
                    if order.charge_id is not None:
                        db.execute(self._sql.bundle, {"charge": order.charge_id, "transfer": order.transfer_id})

        await self._desk.do(adopt)


def _order_from(row: Row) -> CarriedOrder:
    account, cost, charge_id, *hold = row
    return CarriedOrder(account, hold_from(hold), cost, charge_id)
