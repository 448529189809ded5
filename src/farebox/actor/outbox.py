"""The outbox in the books' own database: fares that are to be charged by an outside biller, and the charges they
become.

A fare comes into it with the transaction that posts it; see `core.ledger.Page`.
"""

import secrets

from msgspec.structs import astuple

from farebox.core.charges import Carried, CarriedOrder, Charge
from farebox.store import sql
from farebox.store.desk import Desk
from farebox.store.engine import Engine

_IS_ANY_LOOSE = "SELECT 1 FROM charged_fare WHERE charge_id IS NULL LIMIT 1"
_LOOSE_OF_REQUESTS = (
    "SELECT transfer_id, charge_to, count FROM charged_fare WHERE charge_id IS NULL AND charge_to <> ''"
)
_IS_RUN_CHARGE_DUE = "SELECT 1 FROM charge WHERE state = 'due' AND charge_to = '' LIMIT 1"
_SUM_OF_RUN = (
    "SELECT CAST(coalesce(sum(count), 0) AS BIGINT) FROM charged_fare WHERE charge_id IS NULL AND charge_to = ''"
)
_BUNDLE_RUN = "UPDATE charged_fare SET charge_id = ? WHERE charge_id IS NULL AND charge_to = ''"
_BUNDLE = "UPDATE charged_fare SET charge_id = ? WHERE transfer_id = ?"
_CHANGE = """
UPDATE charge SET window_us = :window, done = :done, state = :state, said = :said, ended_us = :ended
WHERE id = :id AND state = 'due'
"""
_COUNTED = "SELECT CAST(coalesce(sum(done), 0) AS BIGINT) FROM charge WHERE state <> 'due'"
_UNFINISHED = f"""
SELECT a.name, t.cost, f.charge_id, {sql.HOLD_OF_H} FROM hold h JOIN account a ON a.id = h.account_id
LEFT JOIN transfer t ON t.id = h.id || '-end' LEFT JOIN charged_fare f ON f.transfer_id = t.id
LEFT JOIN charge c ON c.id = f.charge_id
WHERE h.charge_to IS NOT NULL
AND (h.ended_us IS NULL OR (f.transfer_id IS NOT NULL AND (c.id IS NULL OR c.state = 'due')))
"""


class SqlOutbox:
    """The `Outbox` port over one database."""

    def __init__(self, engine: Engine) -> None:
        self._desk = Desk(engine, "farebox-outbox")

    async def close(self) -> None:
        await self._desk.close()

    async def gather(self, now_us: int) -> list[Charge]:
        def gather() -> list[Charge]:
            if self._desk.db.execute(_IS_ANY_LOOSE).fetchone() is not None:
                self._bundle(now_us)
            return [sql.charge_from(row) for row in self._desk.db.execute(sql.DUE_CHARGES)]

        return await self._desk.do(gather)

    def _bundle(self, now_us: int) -> None:
        with self._desk.transaction() as db:
            for transfer_id, charge_to, count in db.execute(_LOOSE_OF_REQUESTS).fetchall():
                db.execute(sql.INSERT_CHARGE, astuple(Charge(transfer_id, charge_to, count, now_us)))
                db.execute(_BUNDLE, (transfer_id, transfer_id))
            (count,) = db.execute(_SUM_OF_RUN).fetchone()
            if count and db.execute(_IS_RUN_CHARGE_DUE).fetchone() is None:
                charge = Charge(secrets.token_hex(12), "", count, now_us)
                db.execute(sql.INSERT_CHARGE, astuple(charge))
                db.execute(_BUNDLE_RUN, (charge.id,))

    async def change(self, charge: Charge) -> None:
        c = charge
        changed = {"window": c.window_us, "done": c.done, "state": c.state, "said": c.said, "ended": c.ended_us}
        await self._desk.write(_CHANGE, {**changed, "id": c.id})

    async def counted(self) -> int:
        rows = await self._desk.rows(_COUNTED)
        return int(rows[0][0])

    async def unfinished(self) -> Carried:
        def read() -> Carried:
            with self._desk.transaction() as db:
                rows = db.execute(_UNFINISHED).fetchall()
                charges = [sql.charge_from(row) for row in db.execute(sql.DUE_CHARGES)]
                (counted,) = db.execute(_COUNTED).fetchone()
            orders = [CarriedOrder(row[0], sql.hold_from(row[3:]), row[1], row[2]) for row in rows]
            return Carried(counted, orders, charges)

        return await self._desk.do(read)

    async def adopt(self, carried: Carried) -> None:
        def adopt() -> None:
            with self._desk.transaction() as db:
                for charge in carried.charges:
                    db.execute(sql.ADOPT_CHARGE, astuple(charge))
                for order in carried.orders:
                    if order.charge_id is not None:
                        db.execute(_BUNDLE, (order.charge_id, order.transfer_id))

        await self._desk.do(adopt)
