"""The transactions of a group commit: what their commands touch is read, decided by a `Page`, and written.

What this writer wrote itself it need not read back: its pending holds, and the balances and allowances that it saw
last. They are as good as read as long as nobody else has written, which the engine tells (`Engine.version`). Where it
cannot tell, rows are locked and read, all in one trip; of the writer's own pending holds only what others change.
"""

from collections.abc import Callable, Collection, Mapping
from decimal import Decimal
from typing import Any, TypeVar

from msgspec.structs import astuple

from farebox.core.allowances import NO_LIMITS, Allowance, end_user_owner
from farebox.core.books import (
    AttributedKey,
    Balance,
    Command,
    Correct,
    DayKey,
    DayTotal,
    Delivery,
    HoldRow,
    HoldState,
    KeyUse,
    Outcome,
    PayOut,
    PlaceHold,
    TopUp,
    Transfer,
    correction_ids,
    owners_of,
    settlement_id,
)
from farebox.core.ledger import Page
from farebox.core.money import add_exact, limbs_of
from farebox.core.repeats import REPEAT_LIFE_US
from farebox.core.stored import StoredRow
from farebox.crash import crash_points
from farebox.store.end_users import count_end_user
from farebox.store.engine import Db, Engine, Question
from farebox.store.rows import (
    Row,
    allowance_changes,
    allowance_from,
    allowance_row,
    attributed_total_row,
    balance_changes,
    day_total_row,
    each,
    end_transfer,
    hold_changes,
    hold_end,
    hold_from,
    hold_row,
    hold_transfer,
    job_row,
    json_text,
    named_hold_end,
    priced_row,
    stored_end,
    stored_row,
    transfer_from,
    transfer_row,
    tried_row,
)
from farebox.store.trail import entering

T = TypeVar("T")

_Whose = tuple[int, int]
"""The account and the key of an order."""

_EndUser = tuple[int, str]
"""The account and the end user of an order."""

KNOWN_MAX = 100_000
"""Rows of a kind that are remembered. Where there are more, all are forgotten: they are read again when needed."""


class Pages:
    """On one connection, for one thread."""

    def __init__(self, engine: Engine, db: Db, worker: str) -> None:
        self._engine = engine
        self._sql = engine.sql
        self._db = db
        self._worker = worker
        self._version: int | None = None
        self._holds: dict[str, HoldRow] = {}
        self._balances: dict[int, Balance] = {}
        self._allowances: dict[str, Allowance] = {}
        self._known: set[_Whose] = set()
        """Whose balances and allowances stand here, as far as there are any."""
        self._known_users: set[_EndUser] = set()
        self._met: set[str] = set()
        self._looked_at: list[str] = []
        """The holds that the last transaction named, and those that it only looked at."""

    def carry_out(self, batch: list[Command]) -> list[Outcome]:
        """Carry out commands in one transaction: all of them or, where this raises, none."""
        try:
            with self._engine.transaction(self._db) as db:
                page = self._read(db, batch)
                outcomes = [page.decide(command, self._worker) for command in batch]
                self._write(db, page)
                crash_points(batch, "before")
        except BaseException:
            self._forget()
            raise
        crash_points(batch, "after")
        self._remember()
        return outcomes

    def _read(self, db: Db, batch: list[Command]) -> Page:
        """What the batch changes, so that nobody else changes it before this transaction ends: PostgreSQL locks each
        row (FOR UPDATE) in this order, holds, balances, allowances; SQLite has one writer a file (BEGIN IMMEDIATE). So
        two processes never overdraw one account; the CHECK `covered` of the table `balance` refuses it in any case. A
        key's use is its account's, and safe under the balance's lock; the hold behind it is only looked at."""
        version = self._engine.version(db)
        self._forget_what_may_have_changed(version)
        touched = _Touched(batch)
        self._met = touched.hold_ids
        if version is not None and self._knows(touched):
            return Page(self._balances, self._holds, self._allowances, {})
        return self._read_anew(_Trip(db), touched, must_lock=version is None)

    def _knows(self, touched: "_Touched") -> bool:
        asks_nothing_else = not touched.paid_in and not touched.repeats and not touched.corrected
        is_known = touched.whose <= self._known and touched.end_users.keys() <= self._known_users
        return asks_nothing_else and is_known and touched.hold_ids <= self._holds.keys()

    def _read_anew(self, trip: "_Trip", touched: "_Touched", *, must_lock: bool) -> Page:
        sql = self._sql
        strange = touched.hold_ids.difference(self._holds)
        self._read_holds(trip, strange)
        holds = [hold for hold_id in touched.hold_ids if (hold := self._holds.get(hold_id))]
        whose = touched.whose.union((hold.account_id, hold.key_id) for hold in holds)
        end_users = {(hold.account_id, hold.end_user) for hold in holds if hold.end_user is not None}
        end_users |= touched.end_users.keys()
        account_ids = {*touched.paid_in, *(account_id for account_id, _ in whose)}
        owners = {owner for each_of in whose - self._known for owner in owners_of(*each_of)}
        for account_id, end_user in end_users - self._known_users:
            owners |= {end_user_owner(account_id, end_user), end_user_owner(account_id, None)}

        locked = trip.ask_for(touched.hold_ids if must_lock else (), tuple, sql.lock_holds)
        balances = trip.ask_for(account_ids.difference(self._balances), each(Balance), sql.lock_balances)
        allowances = trip.ask_for(owners.difference(self._allowances), allowance_from, sql.lock_allowances)
        uses: list[KeyUse] = []
        under_way: list[HoldRow] = []
        answered: list[HoldRow] = []
        for command in touched.repeats:
            if command.repeatable is not None:
                digest = command.repeatable.key_digest
                trip.ask(uses, each(KeyUse), sql.key_use, {"account": command.account_id, "digest": digest})
            if command.is_repeat:
                same = {"key": command.key_id, "digest": command.order_digest}
                since = {**same, "since": command.created_us - REPEAT_LIFE_US}
                trip.ask(under_way, hold_from, sql.same_not_ended, since)
                trip.ask(answered, hold_from, sql.same_answered, since)
        trip.make()
        self._read_holds(trip, [row[0] for row in locked if row[0] in strange or not self._is_as_remembered(*row)])
        self._balances.update((balance.account_id, balance) for balance in balances)
        self._allowances.update((allowance.owner, allowance) for allowance in allowances)
        self._begin_allowances(trip.db, touched.end_users)
        self._known |= whose
        self._known_users |= touched.end_users.keys()
        looked_at = under_way + answered + self._used(trip, touched, uses)
        self._holds.update((hold.id, hold) for hold in looked_at)
        self._looked_at = [hold.id for hold in looked_at]
        return Page(
            self._balances,
            self._holds,
            self._allowances,
            self._booked(trip, touched),
            uses,
            [hold.id for hold in under_way + answered],
            [hold.id for hold in answered],
        )

    def _begin_allowances(self, db: Db, end_users: Mapping[_EndUser, int]) -> None:
        """Of end users that have a limit by default and no allowance yet: make it, with what counts against it. That
        is so once for each; behind the lock of their account's balance."""
        for (account_id, end_user), now_us in end_users.items():
            owner = end_user_owner(account_id, end_user)
            if owner not in self._allowances and end_user_owner(account_id, None) in self._allowances:
                begun = count_end_user(db, self._sql, Allowance(owner, account_id, NO_LIMITS), end_user, now_us)
                db.put_each(self._sql.insert_allowance, [allowance_row(begun)])
                self._allowances[owner] = begun

    def _read_holds(self, trip: "_Trip", hold_ids: Collection[str]) -> None:
        found = trip.ask_for(hold_ids, hold_from, self._sql.holds_of)
        trip.make()
        self._holds.update((hold.id, hold) for hold in found)

    def _is_as_remembered(self, hold_id: str, state: HoldState, delivery: Delivery | None) -> bool:
        """Nothing else of a pending hold is changed by anybody but who serves its order."""
        hold = self._holds[hold_id]
        return (hold.state, hold.delivery) == (state, delivery)

    def _used(self, trip: "_Trip", touched: "_Touched", uses: list[KeyUse]) -> list[HoldRow]:
        used = trip.ask_for({use.hold_id for use in uses} - touched.hold_ids, hold_from, self._sql.holds_of)
        trip.make()
        return used

    def _booked(self, trip: "_Trip", touched: "_Touched") -> dict[str, Transfer]:
        names = [*touched.top_ups, *(name for hold_id in touched.corrected for name in correction_ids(hold_id))]
        for hold_id in touched.hold_ids:
            hold = self._holds.get(hold_id)
            if hold is not None and hold.ended_us is not None:
                names.append(settlement_id(hold_id))
        booked = trip.ask_for(names, transfer_from, self._sql.transfers_of)
        trip.make()
        return {transfer.id: transfer for transfer in booked}

    def _forget_what_may_have_changed(self, version: int | None) -> None:
        if version is None or version != self._version:
            self._version = version
            self._balances.clear()
            self._allowances.clear()
            self._known.clear()
            self._known_users.clear()
            if version is not None:
                self._holds.clear()

    def _write(self, db: Db, page: Page) -> None:
        sql = self._sql
        if page.new_holds:
            db.put_rows(sql.insert_holds, [hold_row(hold) for hold in page.new_holds])
        self._book(db, page.new_transfers)
        if page.priced:
            db.put_each(sql.note_priced, [priced_row(hold) for hold in page.priced.values()])
        if page.tried:
            db.put_each(sql.note_tried, [tried_row(hold) for hold in page.tried.values()])
        if page.with_jobs:
            db.put_each(sql.note_job, [job_row(hold) for hold in page.with_jobs.values()])
        if page.changed_holds:
            self._change_holds(db, page)
        db.put_each(sql.update_balance, [balance_changes(balance) for balance in page.changed_balances.values()])
        if page.changed_allowances:
            db.put_each(sql.update_allowance, [allowance_changes(each) for each in page.changed_allowances.values()])
        if page.totals:
            self._add_totals(db, page.totals)
        if page.attributed:
            self._add_attributed(db, page.attributed)
        if page.new_uses:
            db.put_each(sql.put_key_use, [astuple(use) for use in page.new_uses])
        if page.kept_answers:
            db.put_each(sql.put_answer, [astuple(answer) for answer in page.kept_answers])
        if page.undelivered:
            db.put_each(sql.put_undelivered, [astuple(answer) for answer in page.undelivered])
        if page.stored:
            self._store(db, page.stored)
        if page.charged_fares:
            db.put_each(sql.insert_charged_fare, [astuple(fare) for fare in page.charged_fares])
        if page.entered:
            # Last: nothing is locked behind it.
            for statement, rows in entering(sql, page.entered):
                db.put_each(statement, rows)

    def _store(self, db: Db, rows: list[StoredRow]) -> None:
        """Keep answers for their accounts. The row of one in the background stands already, unless it was deleted, or
        has ended otherwise meanwhile."""
        sql = self._sql
        if whole := [stored_row(row) for row in rows if not row.background]:
            db.put_each(sql.put_stored, whole)
        if ended := [stored_end(row) for row in rows if row.background]:
            db.put_each(sql.end_stored, ended, may_miss=True)

    def _book(self, db: Db, transfers: list[Transfer]) -> None:
        """Write transfers; those of orders by statements that name no more than they have."""
        placed: list[Row] = []
        ended: list[Row] = []
        others: list[Row] = []
        for transfer in transfers:
            match transfer.kind:
                case "hold":
                    placed.append(hold_transfer(transfer))
                case "post" | "void":
                    ended.append(end_transfer(transfer))
                case "top-up" | "adjustment":
                    others.append(transfer_row(transfer))
        sql = self._sql
        if placed:
            db.put_rows(sql.insert_hold_transfers, placed)
        if ended:
            db.put_rows(sql.insert_end_transfers, ended)
        if others:
            db.put_each(sql.insert_transfer, others)

    def _add_totals(self, db: Db, totals: Mapping[DayKey, DayTotal]) -> None:
        """Add to the days' totals. Those of an account stand behind its balance's lock, so nobody else adds to them."""
        db.put_each(self._sql.add_day_totals, [day_total_row(total) for total in totals.values()])
        if finer := [row for total in totals.values() if (row := self._finer_cost(db, total)) is not None]:
            db.put_each(self._sql.put_finer_cost, finer)

    def _add_attributed(self, db: Db, totals: Mapping[AttributedKey, DayTotal]) -> None:
        """The same by end users and tags."""
        sql = self._sql
        db.put_each(sql.add_attributed_totals, [attributed_total_row(key, total) for key, total in totals.items()])
        for (key, end_user, tags), total in totals.items():
            _, finer = limbs_of(total.cost)
            if finer:
                account_id, day, key_id, model, served, kind = key
                names = {"account": account_id, "day": day, "key": key_id, "model": model, "served": served}
                names |= {"kind": kind, "end_user": end_user, "tags": tags}
                before = db.read([(sql.finer_attributed_cost, names)])[0]
                if before and before[0][0] is not None:
                    finer = add_exact(finer, Decimal(before[0][0]))
                row = (str(finer), account_id, day, end_user, tags, key_id, model, served, kind)
                db.put_each(sql.put_finer_attributed_cost, [row])

    def _finer_cost(self, db: Db, total: DayTotal) -> Row | None:
        """What a total's cost has that is finer than its limbs, with what stood there before; None where it has
        nothing, as nearly all."""
        _, finer = limbs_of(total.cost)
        if not finer:
            return None
        account_id, day, key_id, model, served, kind = total.key
        names = {"account": account_id, "day": day, "key": key_id, "model": model, "served": served, "kind": kind}
        before = db.read([(self._sql.finer_cost, names)])[0]
        if before and before[0][0] is not None:
            finer = add_exact(finer, Decimal(before[0][0]))
        return (str(finer), *total.key)

    def _change_holds(self, db: Db, page: Page) -> None:
        """Write changed holds, naming as few columns as changed: SQLite writes each index that a statement names."""
        named: list[Row] = []
        ended: list[Row] = []
        ended_named: list[Row] = []
        opened: list[Row] = []
        for hold in page.changed_holds.values():
            if hold.id in page.only_named:
                named.append((hold.generation_id, hold.id))
            elif hold.id in page.opened:
                opened.append(hold_changes(hold))
            elif hold.id in page.named:
                ended.append(hold_end(hold))
            else:
                ended_named.append(named_hold_end(hold))
        sql = self._sql
        for of_one, of_many, rows in (
            (sql.name_generation, sql.name_generations, named),
            (sql.end_hold, sql.end_holds, ended),
            (sql.end_named_hold, sql.end_named_holds, ended_named),
        ):
            if len(rows) > 1:
                db.put_rows(of_many, rows)
            elif rows:
                # The plain statement is a third cheaper.
                db.put_each(of_one, rows)
        if opened:
            db.put_each(sql.update_hold, opened)

    def _remember(self) -> None:
        """What the page changed stands here already. Of holds, only pending ones will be needed again, of those whose
        accounts were read, too."""
        for hold_id in self._met:
            met = self._holds.get(hold_id)
            if met is not None and met.state != "pending":
                del self._holds[hold_id]
        for hold_id in self._looked_at:
            self._holds.pop(hold_id, None)
        self._looked_at = []
        if max(len(self._holds), len(self._balances), len(self._known), len(self._known_users)) > KNOWN_MAX:
            self._forget()

    def _forget(self) -> None:
        self._forget_what_may_have_changed(None)
        self._holds.clear()


class _Touched:
    """What commands touch: holds; whose orders they place, and to whom they pay in, or out; the ids of top-ups, of
    orders whose fares they correct, and orders that may have been placed before."""

    def __init__(self, batch: list[Command]) -> None:
        self.hold_ids: set[str] = set()
        self.whose: set[_Whose] = set()
        self.end_users: dict[_EndUser, int] = {}
        """With the moment of an order for each."""
        self.paid_in: list[int] = []
        self.top_ups: list[str] = []
        self.corrected: list[str] = []
        self.repeats: list[PlaceHold] = []
        for command in batch:
            if type(command) is PlaceHold:
                self.whose.add((command.account_id, command.key_id))
                if command.end_user is not None:
                    self.end_users[command.account_id, command.end_user] = command.created_us
                if command.is_repeat or command.repeatable is not None:
                    self.repeats.append(command)
            elif type(command) is TopUp:
                self.paid_in.append(command.account_id)
                self.top_ups.append(command.id)
            elif type(command) is PayOut:
                self.paid_in.append(command.account_id)
            else:
                self.hold_ids.add(command.hold_id)
                if type(command) is Correct:
                    self.corrected.append(command.hold_id)


class _Trip:
    """Questions that are asked together."""

    def __init__(self, db: Db) -> None:
        self.db = db
        self._questions: list[Question] = []
        self._turns: list[Callable[[list[Row]], None]] = []

    def ask(self, found: list[T], turn: Callable[[Row], T], statement: str, given: Any) -> None:
        """Add to a list what will be found, each row turned into a value."""
        self._questions.append((statement, given))
        self._turns.append(lambda rows: found.extend(map(turn, rows)))

    def ask_for(self, names: Collection[object], turn: Callable[[Row], T], statement: str) -> list[T]:
        """The list of what will be found under these names; it is not asked for where there are none."""
        found: list[T] = []
        if names:
            self.ask(found, turn, statement, {"ids": json_text(names)})
        return found

    def make(self) -> None:
        if self._questions:
            for turn, rows in zip(self._turns, self.db.read(self._questions), strict=True):
                turn(rows)
            self._questions, self._turns = [], []
