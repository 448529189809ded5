"""The contract of every store: run on SQLite, and on the shipped fake."""

import asyncio
import csv
import io
import re
import sqlite3
import stat
import subprocess
import sys
from collections.abc import AsyncIterator, Awaitable, Callable
from contextlib import asynccontextmanager
from dataclasses import dataclass, field
from decimal import Decimal
from functools import reduce
from pathlib import Path
from typing import Any

import pytest
from alembic import command
from alembic.config import Config
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from msgspec.structs import replace

from farebox import clock
from farebox.accounts import Store
from farebox.bills import Bills
from farebox.bookkeeping import BYS, Bookkeeping, Wanted
from farebox.core.allowances import DAY_US, NO_LIMITS, SECOND_US, Allowance, Exceeded, Limits
from farebox.core.audit import audit
from farebox.core.bills import Movement, Movements, OrderFilter, OrderPlace, TotalsFilter, moved_nanos
from farebox.core.books import (
    CASH,
    CORRECTIONS_MAX,
    FARES,
    KEY_LIFE_US,
    LAST_US,
    Activity,
    AskLater,
    Attributed,
    Balance,
    ChargedFare,
    Command,
    Correct,
    Corrected,
    DayKey,
    DayTotal,
    Decision,
    Done,
    Fare,
    Held,
    HoldRow,
    KeepAnswer,
    KeptAnswer,
    KeyUse,
    NameGeneration,
    NoSuchRow,
    NotCorrected,
    NotCovered,
    NotEnded,
    NotPaidOut,
    NotWanted,
    OtherTopUp,
    Outside,
    PaidOut,
    PayOut,
    PlaceHold,
    Repeatable,
    Repeated,
    Settle,
    Settled,
    Sought,
    TopUp,
    Transfer,
    day_key,
)
from farebox.core.caching import CachedRow
from farebox.core.callers import Account, Key, PublishedPlans
from farebox.core.charges import Charge
from farebox.core.entries import component
from farebox.core.health import Standing
from farebox.core.money import add_exact
from farebox.core.plans import Plan
from farebox.core.presets import PRESETS_MAX, VERSIONS_MAX, PresetVersion
from farebox.core.pricing import KeptPrices
from farebox.core.questions import FIRST_US, FURTHEST_US
from farebox.core.repeats import LOST_US, REPEAT_LIFE_US
from farebox.core.stored import StoredRow
from farebox.core.tariffs import Entry, KeptTariffs, Priced, Tariffs, TokenPrices
from farebox.core.trail import Entry as TrailEntry
from farebox.core.trail import TrailHead
from farebox.core.usage import Cost, Nothing, Unknown, Usage, Verdict
from farebox.late_settlements import LateSettlements
from farebox.ports import BooksUnavailable, NameTaken, TooManyPresets
from farebox.store import migrate
from farebox.store.books import SqlStore
from farebox.store.prepare import HEAD, UnusableBooks, engine_of, prepare, sqlite_path
from farebox.store.sqlite import Sqlite
from farebox.testing import MemoryStore
from tests.books import new_books
from tests.gateway import eventually
from tools.postgres import Cluster

USD = 10**9


class Engine:
    """A kind of store, and how to open books with it, and open them again as another process would."""

    def __init__(self, kind: str, folder: Path, busy_seconds: float = 10, url: str = "") -> None:
        self.url = url or f"sqlite:///{folder}/books.db"
        self._busy_seconds = busy_seconds
        self.kind = kind
        self.path = folder / "books.db"
        self._memory: MemoryStore | None = None
        self._opened = 0

    @asynccontextmanager
    async def open(self) -> AsyncIterator[Store]:
        self._opened += 1
        worker = f"worker-{self._opened}"
        if self.kind == "memory":
            memory = self._memory.beside(worker) if self._memory else MemoryStore(worker)
            self._memory = memory
            yield memory
            memory.die()
            return
        if self._opened == 1 and self.kind == "sqlite":
            new_books(self.path)
        store = await SqlStore.open(engine_of(self.url, self._busy_seconds), worker)
        try:
            yield store
        finally:
            await store.close()
            if self.kind == "postgres":
                self._await_end_of(worker)

    def _await_end_of(self, worker: str) -> None:
        """The database ends a session, and lets go of its locks, some time after it was closed."""
        engine = engine_of(self.url)
        db = engine.connect()
        eventually(lambda: engine.is_gone(db, worker))
        db.close()

    def run(self, work: Callable[[Store], Awaitable[None]]) -> None:
        async def main() -> None:
            async with self.open() as store:
                await work(store)

        asyncio.run(main())


@pytest.fixture(params=["sqlite", "postgres", "memory"])
def engine(request: pytest.FixtureRequest, tmp_path: Path) -> Engine:
    if request.param == "postgres":
        cluster: Cluster = request.getfixturevalue("postgres")
        return Engine("postgres", tmp_path, url=cluster.new_books())
    return Engine(request.param, tmp_path)


async def account_with(store: Store, name: str, paid_in: int, limit: int | None = 0) -> tuple[Account, Key]:
    account = await store.create_account(name, "paying", limit, 1)
    key = await store.create_key(account.id, "", name.encode(), "hint", 1)
    if paid_in:
        assert await store.carry_out(TopUp(f"top-up-{name}", account.id, paid_in, 1)) == Done()
    return account, key


async def set_limits(store: Store, account_id: int, key_id: int | None, limits: Limits, now_us: int) -> None:
    """Those of an account, or of one of its keys, whatever they were."""
    if key_id is None:
        await store.change_account(account_id, lambda account: replace(account, limits=limits), now_us)
    else:
        await store.change_key(key_id, lambda key: replace(key, limits=limits), now_us)


def hold(
    account: Account, key: Key, name: str, wanted: int, least: int | None = None, price: int = 10_000
) -> PlaceHold:
    least = wanted if least is None else least
    return PlaceHold(
        id=name,
        account_id=account.id,
        key_id=key.id,
        wanted_nanos=wanted,
        least_nanos=least,
        plan="paying",
        event_price_nanos=price,
        model="a/b",
        streamed=False,
        created_us=2,
    )


@dataclass
class Rows:
    """Rows as a test wants them."""

    booked: list[Transfer]
    orders: list[HoldRow]
    accounts: list[Balance]
    fares: list[ChargedFare] = field(default_factory=list)
    told: list[Charge] = field(default_factory=list)
    allowed: list[Allowance] = field(default_factory=list)
    lists: list[KeptTariffs] = field(default_factory=list)
    trail: list[TrailEntry] = field(default_factory=list)

    def transfers(self) -> list[Transfer]:
        return self.booked

    def holds(self) -> list[HoldRow]:
        return self.orders

    def balances(self) -> list[Balance]:
        return self.accounts

    def charged_fares(self) -> list[ChargedFare]:
        return self.fares

    def charges(self) -> list[Charge]:
        return self.told

    def allowances(self) -> list[Allowance]:
        return self.allowed

    def tariffs(self) -> list[KeptTariffs]:
        return self.lists

    def day_totals(self) -> list[DayTotal]:
        """As the fares have it."""
        found: dict[DayKey, DayTotal] = {}
        orders = {order.id: order for order in self.orders}
        for transfer in self.booked:
            if (fare := transfer.fare) is not None and transfer.hold_id in orders and fare.cost.is_finite():
                key = day_key(orders[transfer.hold_id], transfer.created_us)
                found.setdefault(key, DayTotal(key)).count(orders[transfer.hold_id], fare, transfer.created_us)
        return list(found.values())

    def attributed_totals(self) -> list[Attributed]:
        return []

    def corrections(self) -> list[Transfer]:
        return [each for each in self.booked if each.is_correction]

    def entries(self) -> list[TrailEntry]:
        return self.trail

    def trail_head(self) -> TrailHead:
        """None of these transfers need have an entry, unless there are any."""
        return TrailHead(len(self.trail), 0 if self.trail else LAST_US)


def differences(store: Store) -> list[str]:
    with store.snapshot() as rows:
        return audit(rows).differences


def test_a_fare_is_posted_against_its_hold(engine: Engine) -> None:
    async def work(store: Store) -> None:
        account, key = await account_with(store, "a", USD)
        assert await store.carry_out(hold(account, key, "h1", 1_000_000)) == Held(1_000_000)
        assert (await store.balance(account.id)).available_nanos == USD - 1_000_000
        assert await store.carry_out(NameGeneration("h1", "gen-1")) == Done()
        settle = Settle(
            hold_id="h1",
            verdict=Cost(Decimal("0.00001212")),
            created_us=3,
            served_model="c/d",
            prompt_tokens=4,
            answer_tokens=5,
        )
        assert await store.carry_out(settle) == Settled("posted", Fare(Decimal("0.00001212"), 2, 20_000))
        balance = await store.balance(account.id)
        assert (balance.balance_nanos, balance.pending_nanos) == (USD - 20_000, 0)
        (order,) = await store.holds(("posted",))
        assert (order.generation_id, order.served_model, order.prompt_tokens, order.ended_us) == ("gen-1", "c/d", 4, 3)
        top_up, post = await store.transfers(account.id)
        assert (top_up.kind, post.kind) == ("top-up", "post")
        assert (post.cost, post.events, post.over_hold_nanos) == (Decimal("0.00001212"), 2, 0)
        assert await store.spent_nanos(account.id, key.id, 0) == 20_000
        assert await store.spent_nanos(account.id, key.id, 1) == 0
        assert await store.spent_nanos(account.id, key.id + 1, 0) == 0
        assert differences(store) == []

    engine.run(work)


def test_what_has_not_ended_is_counted(engine: Engine) -> None:
    async def work(store: Store) -> None:
        assert await store.not_ended() == NotEnded(0, 0, 0)
        account, key = await account_with(store, "a", USD)
        for number in range(7):
            await store.carry_out(hold(account, key, f"h{number}", 1_000))
        await store.carry_out(Settle(hold_id="h6", verdict=Unknown("it runs"), created_us=3, job_id="job-6"))
        await store.carry_out(Settle(hold_id="h0", verdict=Nothing(), created_us=3))
        await store.carry_out(Settle(hold_id="h1", verdict=Cost(Decimal("0.0001")), created_us=3))
        await store.carry_out(Settle(hold_id="h2", verdict=Unknown("who knows"), created_us=3))
        await store.carry_out(Settle(hold_id="h3", verdict=Unknown("who knows"), created_us=3, generation_id="gen-3"))
        assert await store.not_ended() == NotEnded(pending=2, open=1, unresolved=1, jobs=1)

    engine.run(work)


def test_a_fare_is_corrected_beside_it_and_never_by_more_than_it_is(engine: Engine) -> None:
    async def work(store: Store) -> None:
        account, key = await account_with(store, "a", USD)
        await store.carry_out(hold(account, key, "h1", 60_000))
        assert await store.carry_out(Correct("h1", 3, "why", back_nanos=1)) == NotCorrected()
        await store.carry_out(Settle(hold_id="h1", verdict=Cost(Decimal("0.00005")), created_us=3))
        for order, outcome in (
            (Correct("h1", 4, "bad answer", back_nanos=20_000), Corrected(account.id, 20_000, 30_000)),
            (Correct("h1", 5, "bad answer", back_nanos=20_000), Corrected(account.id, 20_000, 30_000, is_repeat=True)),
            (Correct("h1", 6, "another", back_nanos=30_001), NotCorrected(30_000)),
            (Correct("h1", 6, "it cost more", fare_nanos=70_000), Corrected(account.id, -40_000, 70_000)),
            (Correct("h1", 7, "again", fare_nanos=70_000), Corrected(account.id, 0, 70_000, is_repeat=True)),
            (Correct("h1", 8, "all of it", fare_nanos=0), Corrected(account.id, 70_000, 0)),
            (Correct("nothing", 9, "why", fare_nanos=0), NoSuchRow("hold nothing")),
        ):
            assert await store.carry_out(order) == outcome, order
        balance = await store.balance(account.id)
        assert (balance.balance_nanos, balance.pending_nanos) == (USD, 0)
        assert await store.given_back_nanos(account.id) == 90_000
        assert await store.spent_nanos(account.id, None, 0) == 50_000
        with store.snapshot() as rows:
            found = audit(rows)
            booked, orders, balances = list(rows.transfers()), list(rows.holds()), list(rows.balances())
        assert (found.differences, found.adjustments) == ([], 3)
        last = next(each for each in booked if each.note == "all of it")
        for wrong, said in (
            (replace(last, amount_nanos=70_001), "was charged $0.00005, and $0.000050001 given back"),
            (replace(last, hold_id="h2"), "hold h2: its fare was corrected, and it is not in the books"),
            (replace(last, credit_account=0), "its fare was corrected between 1 and 0"),
        ):
            changed = [wrong if each is last else each for each in booked]
            assert any(said in each for each in audit(Rows(changed, orders, balances)).differences), said
        for number in range(CORRECTIONS_MAX):
            await store.carry_out(Correct("h1", 10, "to and fro", fare_nanos=number % 2 * 10_000 or 20_000))
        assert await store.carry_out(Correct("h1", 11, "once too often", fare_nanos=1)) == NotCorrected(20_000)
        assert differences(store) == []

    engine.run(work)


def test_what_is_left_is_paid_out_where_nothing_is_held_or_owed(engine: Engine) -> None:
    async def work(store: Store) -> None:
        account, key = await account_with(store, "a", USD)
        await store.carry_out(hold(account, key, "h1", 60_000))
        assert await store.carry_out(PayOut("p1", account.id, 3, "closed")) == NotPaidOut(60_000, USD)
        await store.carry_out(Settle(hold_id="h1", verdict=Nothing(), created_us=3))
        assert await store.carry_out(PayOut("p1", account.id, 4, "closed")) == PaidOut(USD)
        assert await store.carry_out(PayOut("p2", account.id, 5, "closed")) == PaidOut(0)
        owing, key = await account_with(store, "b", 0, None)
        await store.carry_out(hold(owing, key, "h2", 60_000))
        await store.carry_out(Settle(hold_id="h2", verdict=Cost(Decimal("0.00001")), created_us=3))
        assert await store.carry_out(PayOut("p3", owing.id, 4, "closed")) == NotPaidOut(0, -10_000)
        assert await store.carry_out(PayOut("p4", 99, 4, "closed")) == NoSuchRow("account 99")
        assert differences(store) == []

    engine.run(work)


def test_a_rotated_key_is_found_by_both_its_digests(engine: Engine) -> None:
    async def work(store: Store) -> None:
        account, key = await account_with(store, "a", 0)
        assert await store.has_foreign_keys()  # its hint is none of ours
        before = await store.revision()
        rotated = replace(key, digest=b"new", hint="sk-fb-n", old_digest=key.digest, old_until_us=9, updated_us=5)
        assert await store.rotate_key(key.id, lambda _: rotated) == rotated
        assert await store.revision() != before
        for name in (b"new", b"a"):
            assert await store.find_key(name) == (account, rotated)
        assert await store.find_key(b"other") is None
        assert rotated.as_sent(b"a").expires_us == 9
        assert rotated.as_sent(b"new").expires_us is None
        assert await store.has_foreign_keys()
        await store.rotate_key(key.id, lambda _: replace(rotated, old_digest=None, old_until_us=None))
        assert await store.find_key(b"a") is None
        assert not await store.has_foreign_keys()

    engine.run(work)


def test_an_account_is_renamed_and_closed(engine: Engine) -> None:
    async def work(store: Store) -> None:
        account, _ = await account_with(store, "a", 0)
        await account_with(store, "b", 0)
        with pytest.raises(NameTaken):
            await store.change_account(account.id, lambda _: replace(account, name="b"), 1)
        changed = replace(account, name="c", plan="free", closed_us=7)
        assert await store.change_account(account.id, lambda _: changed, 1) == changed
        assert await store.find_account("c") == changed
        assert await store.find_account("a") is None
        assert [each.name for each in await store.accounts()] == ["c", "b"]

    engine.run(work)


def test_what_an_operator_decides_is_an_adjustment_with_its_reason(engine: Engine) -> None:
    async def work(store: Store) -> None:
        account, key = await account_with(store, "a", USD)
        for name, verdict, outcome in (
            ("h1", Cost(Decimal("0.00001212")), Settled("posted", Fare(Decimal("0.00001212"), 2, 20_000))),
            ("h2", Nothing(), Settled("voided")),
        ):
            await store.carry_out(hold(account, key, name, 15_000))
            await store.carry_out(Settle(hold_id=name, verdict=Unknown("who knows"), created_us=3))
            assert (
                await store.carry_out(
                    Settle(hold_id=name, verdict=verdict, created_us=4, decision=Decision("the invoice"))
                )
                == outcome
            )
            assert await store.carry_out(Settle(hold_id=name, verdict=Cost(Decimal(1)), created_us=5)) == outcome
        ends = [each for each in await store.transfers(account.id) if each.kind == "adjustment"]
        assert [(each.hold_id, each.amount_nanos, each.events, each.note) for each in ends] == [
            ("h1", 20_000, 2, "the invoice"),
            ("h2", 0, None, "the invoice"),
        ]
        balance = await store.balance(account.id)
        assert (balance.balance_nanos, balance.pending_nanos) == (USD - 20_000, 0)
        assert await store.spent_nanos(account.id, key.id, 0) == 20_000
        with store.snapshot() as rows:
            found = audit(rows)
            holds, balances = list(rows.holds()), list(rows.balances())
        assert (found.differences, found.adjustments, found.fares_nanos, found.over_hold) == ([], 2, 20_000, 1)
        # What was decided is checked like what was reported.
        for wrong, said in (
            (replace(ends[0], amount_nanos=30_000), "booked were 2 events"),
            (replace(ends[0], cost=Decimal("0.5")), "50000 events"),
            (replace(ends[0], over_hold_nanos=0), "flagged"),
            (replace(ends[0], event_price_nanos=20_000), "at another price of an event than $0.00001"),
            (replace(ends[1], amount_nanos=1), "was voided, and $0.000000001 charged"),
        ):
            booked = [wrong if each.id == wrong.id else each for each in await store.transfers(account.id)]
            assert any(said in each for each in audit(Rows(booked, holds, balances)).differences), said

    engine.run(work)


def test_settling_twice_is_settling_once(engine: Engine) -> None:
    async def work(store: Store) -> None:
        account, key = await account_with(store, "a", USD)
        for name, verdict, outcome in (
            ("h1", Cost(Decimal("0.0001")), Settled("posted", Fare(Decimal("0.0001"), 10, 100_000))),
            ("h2", Nothing(), Settled("voided")),
        ):
            await store.carry_out(hold(account, key, name, 1_000_000))
            assert await store.carry_out(Settle(hold_id=name, verdict=verdict, created_us=3)) == outcome
            assert await store.carry_out(Settle(hold_id=name, verdict=Cost(Decimal(1)), created_us=4)) == outcome
            assert await store.carry_out(Settle(hold_id=name, verdict=Nothing(), created_us=4)) == outcome
            assert await store.carry_out(Settle(hold_id=name, verdict=Unknown("late"), created_us=4)) == outcome
        assert (await store.balance(account.id)).balance_nanos == USD - 100_000
        assert differences(store) == []

    engine.run(work)


def test_the_unknown_stays_open_and_is_settled_when_it_is_known(engine: Engine) -> None:
    async def work(store: Store) -> None:
        account, key = await account_with(store, "a", USD)
        await store.carry_out(hold(account, key, "h1", 1_000_000))
        assert await store.carry_out(
            Settle(hold_id="h1", verdict=Unknown("no usage"), created_us=3, generation_id="gen-1")
        ) == Settled("open")
        (order,) = await store.holds(("open",))
        assert (order.reason, order.generation_id) == ("no usage", "gen-1")
        assert (await store.balance(account.id)).pending_nanos == 1_000_000
        assert differences(store) == []
        assert await store.carry_out(Settle(hold_id="h1", verdict=Cost(Decimal(0)), created_us=4)) == Settled(
            "posted", Fare(Decimal(0), 0, 0)
        )
        assert (await store.balance(account.id)).available_nanos == USD
        assert differences(store) == []

    engine.run(work)


def test_a_hold_takes_what_is_there_down_to_the_least_and_no_further(engine: Engine) -> None:
    async def work(store: Store) -> None:
        account, key = await account_with(store, "a", 100)
        assert await store.carry_out(hold(account, key, "h1", 60)) == Held(60)
        assert await store.carry_out(hold(account, key, "h2", 60, least=41)) == NotCovered(40)
        assert await store.carry_out(hold(account, key, "h3", 60, least=40)) == Held(40)
        assert await store.carry_out(hold(account, key, "h4", 1)) == NotCovered(0)
        assert await store.carry_out(hold(account, key, "h5", 0)) == Held(0)
        assert differences(store) == []

    engine.run(work)


def test_a_fare_above_its_hold_is_posted_in_full_and_flagged(engine: Engine) -> None:
    async def work(store: Store) -> None:
        account, key = await account_with(store, "a", 100_000)
        await store.carry_out(hold(account, key, "h1", 100_000))
        assert await store.carry_out(Settle(hold_id="h1", verdict=Cost(Decimal("0.0003")), created_us=3)) == Settled(
            "posted", Fare(Decimal("0.0003"), 30, 300_000)
        )
        balance = await store.balance(account.id)
        assert (balance.balance_nanos, balance.overdrawn_nanos) == (-200_000, 200_000)
        assert (await store.transfers(account.id))[-1].over_hold_nanos == 200_000
        assert await store.carry_out(hold(account, key, "h2", 1)) == NotCovered(0)
        await store.carry_out(TopUp("more", account.id, 200_001, 5))
        assert (await store.balance(account.id)).overdrawn_nanos == 0
        assert await store.carry_out(hold(account, key, "h3", 1)) == Held(1)
        assert differences(store) == []

    engine.run(work)


@pytest.mark.parametrize(("limit", "second"), [(1_000, NotCovered(0)), (None, Held(1_000))])
def test_a_postpaid_account_goes_below_zero_to_its_limit(engine: Engine, limit: int | None, second: object) -> None:
    async def work(store: Store) -> None:
        account, key = await account_with(store, "a", 0, limit)
        assert await store.carry_out(hold(account, key, "h1", 1_000)) == Held(1_000)
        assert await store.carry_out(hold(account, key, "h2", 1_000)) == second
        assert differences(store) == []

    engine.run(work)


def test_a_top_up_under_the_same_id_counts_once(engine: Engine) -> None:
    async def work(store: Store) -> None:
        account, _ = await account_with(store, "a", 0)
        for is_repeat in (False, True, True):
            assert await store.carry_out(TopUp("same", account.id, USD, 1)) == Done(is_repeat)
        other, _ = await account_with(store, "b", 0)
        for account_id, amount in ((account.id, 2 * USD), (other.id, USD)):
            outcome = await store.carry_out(TopUp("same", account_id, amount, 2))
            assert isinstance(outcome, OtherTopUp)
            assert outcome.transfer.amount_nanos == USD
        assert (await store.balance(account.id)).credits_nanos == USD
        assert differences(store) == []

    engine.run(work)


def test_what_is_not_in_the_books_is_said_so(engine: Engine) -> None:
    async def work(store: Store) -> None:
        assert isinstance(await store.carry_out(Settle(hold_id="nothing", verdict=Nothing(), created_us=1)), NoSuchRow)
        assert isinstance(await store.carry_out(NameGeneration("nothing", "gen-1")), NoSuchRow)
        assert isinstance(await store.carry_out(TopUp("t", 99, 1, 1)), NoSuchRow)
        assert isinstance(
            await store.carry_out(
                PlaceHold(
                    id="h",
                    account_id=99,
                    key_id=1,
                    wanted_nanos=1,
                    least_nanos=1,
                    plan="paying",
                    event_price_nanos=1,
                    model="a/b",
                    streamed=False,
                    created_us=1,
                )
            ),
            NoSuchRow,
        )

    engine.run(work)


def test_many_commands_at_once_take_what_is_there_and_no_more(engine: Engine) -> None:
    async def work(store: Store) -> None:
        account, key = await account_with(store, "a", 50_000)
        outcomes = await asyncio.gather(*(store.carry_out(hold(account, key, f"h{n:03}", 1_000)) for n in range(200)))
        assert sum(isinstance(outcome, Held) for outcome in outcomes) == 50
        assert (await store.balance(account.id)).available_nanos == 0
        assert differences(store) == []

    engine.run(work)


def test_orders_of_one_transaction_need_not_have_the_same_parts(engine: Engine) -> None:
    async def work(store: Store) -> None:
        account, key = await account_with(store, "a", USD)
        digests = [None, b"1" * 32, None, None, b"2" * 32]
        outside = [None, None, Outside("request-1", 3), None, Outside("", 1)]
        parts = list(zip(digests, outside, strict=True))
        # The first one goes alone, and what comes meanwhile goes together: with something for each part, with nothing
        # for one, with something for a part in all.
        for name, chosen in (("a", parts), ("b", parts[:2]), ("c", [(b"3" * 32, None)] * 3), ("d", [(None, None)] * 2)):
            places = [
                replace(hold(account, key, f"{name}{number}", 1_000), order_digest=digest, outside=biller)
                for number, (digest, biller) in enumerate([(None, None), *chosen])
            ]
            assert await asyncio.gather(*map(store.carry_out, places)) == [Held(1_000)] * len(places)
            for place in places:
                placed = await store.hold(place.id)
                assert placed is not None
                told = None if placed.charge_times is None else Outside(placed.charge_to or "", placed.charge_times)
                assert (placed.order_digest, told) == (place.order_digest, place.outside)
        assert differences(store) == []

    engine.run(work)


def test_a_command_is_carried_out_although_nobody_waits_for_it(engine: Engine) -> None:
    async def work(store: Store) -> None:
        account, key = await account_with(store, "a", USD)
        await store.carry_out(hold(account, key, "h1", 1_000_000))
        settling = asyncio.ensure_future(
            store.carry_out(Settle(hold_id="h1", verdict=Cost(Decimal("0.0001")), created_us=3))
        )
        await asyncio.sleep(0)
        settling.cancel()
        await asyncio.wait([settling])
        await store.carry_out(NameGeneration("h1", "gen-1"))
        assert [order.state for order in await store.holds(("posted",))] == ["posted"]

    engine.run(work)


def test_holds_that_outlive_their_process_are_found_by_the_next(engine: Engine) -> None:
    async def first(store: Store) -> None:
        account, key = await account_with(store, "a", USD)
        await store.carry_out(hold(account, key, "h1", 1_000))
        await store.carry_out(hold(account, key, "h2", 1_000))
        await store.carry_out(Settle(hold_id="h2", verdict=Nothing(), created_us=3))
        assert await store.open_orphans() == []

    async def second(store: Store) -> None:
        (found,) = await store.open_orphans()
        assert (found.id, found.state) == ("h1", "open")
        assert found.reason
        assert await store.open_orphans() == []
        assert [order.id for order in await store.holds(("open",))] == ["h1"]
        assert differences(store) == []

    engine.run(first)
    engine.run(second)


def test_a_key_stands_for_one_order_for_a_day(engine: Engine) -> None:
    def under(key: bytes, place: PlaceHold, asked: bytes = b"asked", at_us: int = 2) -> PlaceHold:
        return replace(place, repeatable=Repeatable(key, asked), created_us=at_us)

    async def work(store: Store) -> None:
        account, key = await account_with(store, "a", USD)
        other, others_key = await account_with(store, "b", USD)
        assert await store.carry_out(under(b"k", hold(account, key, "h1", 100))) == Held(100)
        again = await store.carry_out(under(b"k", hold(account, key, "h2", 100)))
        assert isinstance(again, Repeated)
        assert (again.hold.id, again.hold.state, again.is_same) == ("h1", "pending", True)
        another = await store.carry_out(under(b"k", hold(account, key, "h2", 100), asked=b"else"))
        assert isinstance(another, Repeated)
        assert not another.is_same
        # Nothing was set aside for either, and the key is this account's alone.
        assert (await store.balance(account.id)).pending_nanos == 100
        assert await store.carry_out(under(b"k", hold(other, others_key, "h3", 100))) == Held(100)
        assert await store.carry_out(under(b"l", hold(account, key, "h4", 100))) == Held(100)

        await store.carry_out(Settle(hold_id="h1", verdict=Cost(Decimal("0.00001")), created_us=3))
        again = await store.carry_out(under(b"k", hold(account, key, "h2", 100)))
        assert isinstance(again, Repeated)
        assert again.hold.state == "posted"
        next_day = 2 + KEY_LIFE_US
        assert await store.carry_out(under(b"k", hold(account, key, "h5", 100), at_us=next_day)) == Held(100)
        assert differences(store) == []

    engine.run(work)


def as_sent(place: PlaceHold, digest: bytes = b"digest", *, is_repeat: bool = False) -> PlaceHold:
    return replace(place, order_digest=digest, is_repeat=is_repeat)


async def found(
    store: Store, place: PlaceHold, *, is_marked: bool = True, now_us: int = 10, may_follow: bool = False
) -> str | None:
    assert place.order_digest is not None
    seen = await store.find_first(Sought(place.account_id, place.key_id, place.order_digest, is_marked, now_us))
    assert seen.may_follow is may_follow
    return seen.hold_id


def test_what_others_did_to_a_hold_since_it_was_placed_counts_when_it_ends(engine: Engine) -> None:
    async def work(store: Store) -> None:
        account, key = await account_with(store, "a", USD)
        for name in ("h1", "h2", "h3"):
            await store.carry_out(as_sent(hold(account, key, name, 100), digest=name.encode()))
        joined = as_sent(hold(account, key, "h1", 100), digest=b"h1")
        assert await found(store, joined) == "h1"
        async with engine.open() as other:
            await other.carry_out(Settle(hold_id="h2", verdict=Nothing(), created_us=3))
            await other.carry_out(Settle(hold_id="h3", verdict=Unknown("who knows"), created_us=3))
        answer = KeptAnswer("h1", "application/json", b"{}")
        cost = Cost(Decimal("0.00001"))
        await store.carry_out(Settle(hold_id="h1", verdict=cost, created_us=4, answer=answer))
        assert (await store.first("h1")).body == b"{}"
        assert await store.carry_out(Settle(hold_id="h2", verdict=cost, created_us=4)) == Settled("voided")
        assert isinstance(await store.carry_out(Settle(hold_id="h3", verdict=cost, created_us=4)), Settled)
        (third,) = [order for order in await store.holds(("posted",)) if order.id == "h3"]
        assert (third.reason, third.ask_us) == (None, None)
        assert differences(store) == []

    engine.run(work)


def test_a_hold_that_was_looked_at_for_another_key_ends_within_its_own_limits(engine: Engine) -> None:
    async def work(store: Store) -> None:
        account, key = await account_with(store, "a", USD)
        second = await store.create_key(account.id, "", b"second", "hint", 1)
        await set_limits(store, account.id, key.id, Limits(total_nanos=USD), 1)
        first = replace(hold(account, key, "h1", 100), repeatable=Repeatable(b"k", b"asked"))
        assert await store.carry_out(first) == Held(100)
        # Somebody else writes: all is read anew.
        await store.create_account("b", "paying", 0, 1)
        assert isinstance(await store.carry_out(replace(first, id="h2", key_id=second.id)), Repeated)
        await store.carry_out(Settle(hold_id="h1", verdict=Nothing(), created_us=3))
        assert differences(store) == []

    engine.run(work)


def test_a_repeat_joins_an_order_under_way_and_its_answer_is_kept(engine: Engine) -> None:
    async def work(store: Store) -> None:
        account, key = await account_with(store, "a", USD)
        first = as_sent(hold(account, key, "h1", 100))
        assert await found(store, first) is None
        assert await store.carry_out(first) == Held(100)
        # It may be the same in vain: only one that says that it is a repeat joins an order whose caller is there.
        assert await found(store, first, is_marked=False) is None
        assert await found(store, replace(first, order_digest=b"other")) is None
        assert await found(store, replace(first, key_id=key.id + 1)) is None
        assert await found(store, first, now_us=2 + REPEAT_LIFE_US) is None
        assert await found(store, first) == "h1"
        assert (await store.first("h1")).hold.delivery == "joined"
        again = await store.carry_out(as_sent(hold(account, key, "h2", 100), is_repeat=True))
        assert isinstance(again, Repeated)
        assert again.hold.id == "h1"
        assert (await store.balance(account.id)).pending_nanos == 100
        answer = KeptAnswer("h1", "application/json", b"{}")
        await store.carry_out(Settle(hold_id="h1", verdict=Cost(Decimal("0.00001")), created_us=3, answer=answer))
        assert (await store.first("h1")).body == b"{}"
        for is_marked in (True, False):
            assert await found(store, first, is_marked=is_marked) == "h1"
        late = await store.carry_out(as_sent(hold(account, key, "h3", 100), is_repeat=True))
        assert isinstance(late, Repeated), "it was looked for before the first was placed, which has ended since"
        assert late.hold.id == "h1"
        # A repeat has got it: it is not given to one that does not ask for it.
        await store.give_undelivered("h1", 11)
        assert await found(store, first, is_marked=False) is None
        assert await found(store, first) == "h1"
        await store.forget_undelivered(2)
        assert await found(store, first) == "h1"
        await store.forget_undelivered(3)
        assert await found(store, first) is None
        # Those of one batch, too.
        places = [as_sent(hold(account, key, name, 100), b"many", is_repeat=True) for name in ("h4", "h5", "h6")]
        outcomes = await asyncio.gather(*map(store.carry_out, places))
        assert sorted(type(outcome).__name__ for outcome in outcomes) == ["Held", "Repeated", "Repeated"]
        assert differences(store) == []

    engine.run(work)


def test_what_nobody_was_there_to_take_is_kept_for_a_repeat(engine: Engine) -> None:
    async def work(store: Store) -> None:
        account, key = await account_with(store, "a", USD)
        cost = Cost(Decimal("0.00001"))

        async def settled(name: str, verdict: Verdict, body: bytes | None, *, is_unheard: bool = True) -> PlaceHold:
            place = as_sent(hold(account, key, name, 100), name.encode())
            await store.carry_out(place)
            answer = None if body is None else KeptAnswer(name, "application/json", body)
            settle = Settle(hold_id=name, verdict=verdict, created_us=3, answer=answer, is_unheard=is_unheard)
            await store.carry_out(settle)
            assert await store.kept_answer(name) is None
            return place

        assert await found(store, await settled("h1", cost, b"1", is_unheard=False)) is None
        assert await found(store, await settled("h2", Nothing(), b"2")) is None
        for name, verdict, body in (("h3", cost, b"3"), ("h4", cost, None), ("h5", Unknown("why"), b"5")):
            assert await found(store, await settled(name, verdict, body)) == name
            assert (await store.first(name)).body == body
        # The cost that is known later does not take the answer away.
        await store.carry_out(Settle(hold_id="h5", verdict=cost, created_us=4))
        assert (await store.first("h5")).body == b"5"
        taken = await settled("h6", cost, b"6", is_unheard=False)
        await store.carry_out(KeepAnswer("h6", b"6"))
        assert await found(store, taken, is_marked=False) == "h6"
        left = as_sent(hold(account, key, "h7", 100), b"h7")
        await store.carry_out(left)
        await store.mark_lost("h7")
        assert await found(store, left, is_marked=False) == "h7"

    engine.run(work)


def test_what_a_dead_process_may_not_have_sent_is_not_ordered_again(engine: Engine) -> None:
    places: list[PlaceHold] = []
    cost = Cost(Decimal("0.00001"))

    async def die(store: Store) -> None:
        account, key = await account_with(store, "a", USD)
        for name, verdict in (("h1", None), ("h2", cost), ("h3", Unknown("why")), ("h4", Nothing())):
            places.append(as_sent(hold(account, key, name, 100), name.encode()))
            await store.carry_out(places[-1])
            if verdict is not None:
                await store.carry_out(Settle(hold_id=name, verdict=verdict, created_us=3))
                assert await found(store, places[-1]) is None

    async def take_over(store: Store) -> None:
        assert [hold.delivery for hold in await store.open_orphans()] == ["lost"]
        assert [await found(store, place) for place in places] == ["h1", "h2", "h3", None]
        assert [await found(store, place, is_marked=False) for place in places] == ["h1", None, "h3", None]
        assert await found(store, places[1], now_us=3 + LOST_US) is None
        await store.carry_out(Settle(hold_id="h1", verdict=cost, created_us=5))
        assert await found(store, places[0]) == "h1"
        assert (await store.first("h1")).body is None

    engine.run(die)
    engine.run(take_over)


def test_what_has_just_ended_at_another_process_that_lives_may_come_to_be_known_as_lost(engine: Engine) -> None:
    async def work(store: Store) -> None:
        account, key = await account_with(store, "a", USD)
        posted, opened, voided = (as_sent(hold(account, key, name, 100), name.encode()) for name in ("h1", "h2", "h3"))
        ends: list[tuple[PlaceHold, Verdict]] = [
            (posted, Cost(Decimal("0.00001"))),
            (opened, Unknown("why")),
            (voided, Nothing()),
        ]
        for place, verdict in ends:
            await store.carry_out(place)
            await store.carry_out(Settle(hold_id=place.id, verdict=verdict, created_us=3))
            # What it has to note itself, this process knows.
            assert await found(store, place) is None
        async with engine.open() as other:
            for place in (posted, opened):
                assert await found(other, place, may_follow=True) is None
                # One that does not say that it is a repeat is not held up.
                assert await found(other, place, is_marked=False) is None
            assert await found(other, voided) is None
            assert await found(other, replace(posted, order_digest=b"other")) is None
            assert await found(other, posted, now_us=3 + LOST_US) is None
            await store.carry_out(KeepAnswer("h1", b"1"))
            await store.carry_out(KeepAnswer("h2", None))
            assert [await found(other, place) for place in (posted, opened)] == ["h1", "h2"]

    engine.run(work)


def test_nothing_is_set_aside_for_who_has_gone_while_it_waited(engine: Engine) -> None:
    async def work(store: Store) -> None:
        account, key = await account_with(store, "a", USD)
        answers = iter((False, True))
        place = replace(hold(account, key, "h1", 100), is_wanted=lambda: next(answers))
        assert await store.carry_out(place) == NotWanted()
        assert (await store.balance(account.id)).pending_nanos == 0
        assert await store.carry_out(place) == Held(100)
        assert differences(store) == []

    engine.run(work)


def test_an_order_that_was_not_taken_up_leaves_its_key_free(engine: Engine) -> None:
    async def work(store: Store) -> None:
        account, key = await account_with(store, "a", USD)
        first = replace(hold(account, key, "h1", 100), repeatable=Repeatable(b"k", b"asked"))
        await store.carry_out(first)
        await store.carry_out(Settle(hold_id="h1", verdict=Nothing(), created_us=3))
        assert await store.carry_out(replace(first, id="h2")) == Held(100)
        assert isinstance(await store.carry_out(replace(first, id="h3")), Repeated)

    engine.run(work)


def test_one_of_many_at_once_under_a_key_is_placed(engine: Engine) -> None:
    async def work(store: Store) -> None:
        account, key = await account_with(store, "a", USD)
        places = [replace(hold(account, key, f"h{n}", 100), repeatable=Repeatable(b"k", b"asked")) for n in range(20)]
        outcomes = await asyncio.gather(*map(store.carry_out, places))
        assert sum(isinstance(outcome, Held) for outcome in outcomes) == 1
        assert (await store.balance(account.id)).pending_nanos == 100

    engine.run(work)


def test_answers_are_kept_and_forgotten_with_their_keys(engine: Engine) -> None:
    async def work(store: Store) -> None:
        account, key = await account_with(store, "a", USD)
        for name, at_us in (("old", 10), ("new", 20)):
            place = replace(hold(account, key, name, 100), repeatable=Repeatable(name.encode(), b""), created_us=at_us)
            await store.carry_out(place)
            answer = KeptAnswer(name, "application/json", name.encode() * 1000)
            await store.carry_out(Settle(hold_id=name, verdict=Cost(Decimal(0)), created_us=30, answer=answer))
            assert await store.kept_answer(name) == answer
        assert await store.key_use(account.id, b"new") == KeyUse(account.id, b"new", b"", "new", 20)
        assert await store.key_use(account.id + 1, b"new") is None
        await store.forget_answers(20)
        assert await store.key_use(account.id, b"old") is None
        assert await store.kept_answer("old") is None
        assert await store.kept_answer("new") is not None
        assert await store.kept_answer("none") is None
        assert await store.carry_out(
            replace(hold(account, key, "again", 100), repeatable=Repeatable(b"old", b""), created_us=30)
        ) == Held(100)

    engine.run(work)


def test_an_open_hold_is_a_question_that_one_asker_gets_at_a_time(engine: Engine) -> None:
    async def work(store: Store) -> None:
        account, key = await account_with(store, "a", USD)
        for name, generation_id in (("h1", "gen-1"), ("h2", None), ("h3", "gen-3")):
            await store.carry_out(hold(account, key, name, 100))
            await store.carry_out(
                Settle(hold_id=name, verdict=Unknown("hung up"), created_us=1000, generation_id=generation_id)
            )
        # One that the upstream has no name for can be asked of nobody.
        by_id = {each.id: each for each in await store.holds(("open",))}
        assert [by_id[name].is_unresolved for name in ("h1", "h2", "h3")] == [False, True, False]
        assert await store.claim_questions(1000, 5_000_000, 10) == []
        due = 1000 + FIRST_US
        (first,) = await store.claim_questions(due, 5_000_000, 1)
        (second,) = await store.claim_questions(due, 5_000_000, 10)
        assert {first.id, second.id} == {"h1", "h3"}
        assert await store.claim_questions(4_999_999, 9_000_000, 10) == []

        await store.carry_out(AskLater("h1", 6_000_000, "not yet"))
        # h3's asker died: its claim has run out.
        assert [each.id for each in await store.claim_questions(5_000_000, 9_000_000, 10)] == ["h3"]
        (again,) = await store.claim_questions(6_000_000, 9_000_000, 10)
        assert (again.id, again.asks, again.reason) == ("h1", 1, "not yet")
        # The clock was ahead when it was put off, and has been set back.
        await store.carry_out(AskLater("h1", 8_000_000 + FURTHEST_US + 1, "not yet"))
        assert [each.id for each in await store.claim_questions(8_000_000, 8_500_000, 10)] == ["h1"]
        await store.carry_out(AskLater("h1", None, "given up"))
        assert await store.claim_questions(8_000_000, 9_000_000, 10) == []
        await store.carry_out(Settle(hold_id="h1", verdict=Cost(Decimal("0.00001")), created_us=7_000_000))
        assert await store.carry_out(AskLater("h1", 8_000_000, "late")) == Done()
        assert [each.id for each in await store.claim_questions(99_000_000, 99_000_001, 10)] == ["h3"]
        assert differences(store) == []

    engine.run(work)


def test_a_job_is_found_by_its_own_account_alone_and_asked_about_until_it_has_ended(engine: Engine) -> None:
    async def work(store: Store) -> None:
        account, key = await account_with(store, "a", USD)
        other, _ = await account_with(store, "b", USD)
        await store.carry_out(hold(account, key, "h1", 20_000))
        await store.carry_out(Settle(hold_id="h1", verdict=Unknown("it runs"), created_us=3, job_id="job-1"))
        found = await store.job(account.id, "job-1")
        assert found is not None
        assert (found[0].id, found[0].state, found[0].job_id, found[1]) == ("h1", "open", "job-1", None)
        assert await store.job(other.id, "job-1") is None
        assert await store.job(account.id, "job-2") is None
        (due,) = await store.claim_questions(10**9, 2 * 10**9, 5)
        assert (due.id, due.job_id, due.generation_id) == ("h1", "job-1", None)
        cost = Cost(Decimal("0.0001"))
        await store.carry_out(Settle(hold_id="h1", verdict=cost, created_us=4, generation_id="gen-1"))
        await store.carry_out(Settle(hold_id="h1", verdict=Nothing(), created_us=5, generation_id="gen-2"))
        found = await store.job(account.id, "job-1")
        assert found is not None
        assert found[1] is not None
        assert (found[0].generation_id, found[1].cost) == ("gen-1", cost.amount)
        # One that had ended when its order was answered.
        await store.carry_out(hold(account, key, "h2", 20_000))
        await store.carry_out(Settle(hold_id="h2", verdict=cost, created_us=4, job_id="job-2"))
        assert await store.job(account.id, "job-2") is not None
        assert differences(store) == []

    engine.run(work)


def test_a_generation_is_found_by_its_own_account_alone(engine: Engine) -> None:
    async def work(store: Store) -> None:
        account, key = await account_with(store, "a", USD)
        other, _ = await account_with(store, "b", USD)
        await store.carry_out(hold(account, key, "h1", 100))
        await store.carry_out(NameGeneration("h1", "gen-1"))
        found = await store.generation(account.id, "gen-1")
        assert found is not None
        assert (found[0].id, found[1]) == ("h1", None)
        await store.carry_out(Settle(hold_id="h1", verdict=Cost(Decimal("0.00001")), created_us=3))
        found = await store.generation(account.id, "gen-1")
        assert found is not None
        assert found[1] is not None
        assert (found[0].state, found[1].events) == ("posted", 1)
        assert await store.generation(other.id, "gen-1") is None
        assert await store.generation(account.id, "gen-2") is None

    engine.run(work)


def test_accounts_and_keys(engine: Engine) -> None:
    async def work(store: Store) -> None:
        revision = await store.revision()
        account, key = await account_with(store, "a", 0)
        assert await store.revision() != revision
        assert await store.find_account("a") == account
        assert await store.find_account("b") is None
        assert await store.find_account("(cash)") is None
        assert await store.accounts() == [account]
        assert await store.find_key(b"a") == (account, key)
        assert await store.find_key(b"b") is None
        with pytest.raises(NameTaken):
            await store.create_account("a", "free", 0, 1)
        revision = await store.revision()
        changed = replace(
            key, label="b", revoked_us=7, disabled=True, expires_us=9, updated_us=8, cache_seconds=60, may_store=False
        )
        assert await store.change_key(key.id, lambda _: changed, 1) == changed
        assert await store.find_key(b"a") == (account, changed)
        assert await store.keys(account.id) == [changed]
        assert await store.revision() != revision

    engine.run(work)


names = st.sampled_from([f"h{n}" for n in range(6)])
costs = st.sampled_from(["0", "3E-7", "0.0001", "0.00123456789", "0.5"])
verdicts = st.one_of(costs.map(lambda c: Cost(Decimal(c))), st.just(Nothing()), st.just(Unknown("?")))
steps = st.one_of(
    st.tuples(st.just("top-up"), st.integers(1, 10**6), st.integers(0, 1)),
    st.tuples(st.just("hold"), names, st.integers(0, 10**7), st.integers(0, 1)),
    st.tuples(st.just("settle"), names, verdicts),
    st.tuples(st.just("name"), names),
)


@pytest.mark.parametrize("kind", ["sqlite", "memory"])
@settings(max_examples=60, suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(st.lists(steps, max_size=40), st.integers(1, 8))
def test_any_history_balances(
    kind: str, tmp_path_factory: pytest.TempPathFactory, history: list[tuple[object, ...]], together: int
) -> None:
    def command(step: tuple[object, ...], number: int, accounts: list[tuple[Account, Key]]) -> Command:
        match step:
            case ("top-up", int(amount), int(which)):
                return TopUp(f"t{number}", accounts[which][0].id, amount, number)
            case ("hold", str(name), int(amount), int(which)):
                return hold(*accounts[which], f"{name}-{number}", amount, amount // 2)
            case ("settle", str(name), verdict):
                return Settle(hold_id=latest.get(name, name), verdict=verdict, created_us=number)  # type: ignore[arg-type]
            case _:
                return NameGeneration(latest.get(str(step[1]), str(step[1])), f"gen-{number}")

    latest: dict[str, str] = {}

    async def work(store: Store) -> None:
        accounts = [await account_with(store, "a", 10**6), await account_with(store, "b", 0, 10**6)]
        pending: list[Command] = []
        for number, step in enumerate(history):
            made = command(step, number, accounts)
            if isinstance(made, PlaceHold):
                latest[str(step[1])] = made.id
            pending.append(made)
            if len(pending) >= together:
                await asyncio.gather(*map(store.carry_out, pending))
                pending.clear()
        await asyncio.gather(*map(store.carry_out, pending))
        assert differences(store) == []
        for account, _ in accounts:
            balance = await store.balance(account.id)
            assert balance.available_nanos is not None
            assert balance.overdrawn_nanos == max(0, -balance.available_nanos)

    Engine(kind, tmp_path_factory.mktemp("books")).run(work)


# What SQLite adds


def test_the_books_are_private_and_durable(tmp_path: Path) -> None:
    engine = Engine("sqlite", tmp_path / "new" / "folder")

    async def work(store: Store) -> None:
        await account_with(store, "a", USD)
        assert isinstance(store, SqlStore)
        assert store._writer_db.execute("PRAGMA synchronous").fetchone() == (2,)
        assert store._writer_db.execute("PRAGMA journal_mode").fetchone() == ("wal",)

    engine.run(work)
    assert stat.S_IMODE(engine.path.stat().st_mode) == 0o600
    prepare(f"sqlite:///{tmp_path}/another/books.db")
    assert stat.S_IMODE((tmp_path / "another").stat().st_mode) == 0o700
    assert stat.S_IMODE((tmp_path / "another" / "books.db").stat().st_mode) == 0o600


@pytest.mark.parametrize(
    "statement",
    [
        "UPDATE transfer SET amount_nanos = 1",
        "DELETE FROM transfer",
        "UPDATE balance SET pending_nanos = 2000000000",
        "UPDATE balance SET credits_nanos = 0, debits_nanos = 1",
        "INSERT INTO transfer VALUES ('x', 'post', 2, 1, 1, 1, 'h1', '0.1', 5, 10000, 0, NULL)",
        "INSERT INTO transfer VALUES ('x', 'adjustment', 2, 1, 1, 1, 'h1', '0.1', 5, 10000, 0, 'why')",
        "INSERT INTO transfer VALUES ('x', 'adjustment', 2, 1, 1, 1, 'h1', NULL, NULL, NULL, 0, NULL)",
        "INSERT INTO transfer VALUES ('x', 'top-up', 2, 1, 1, 1, 'h1', NULL, NULL, NULL, 0, NULL)",
        "INSERT INTO transfer VALUES ('x', 'top-up', 2, 2, 1, 1, NULL, NULL, NULL, NULL, 0, NULL)",
        "INSERT INTO transfer VALUES ('x', 'gift', 2, 1, 1, 1, NULL, NULL, NULL, NULL, 0, NULL)",
        "INSERT INTO transfer VALUES ('x', 'void', 2, 1, 1, 1, NULL, NULL, NULL, NULL, 0, NULL)",
        "UPDATE hold SET state = 'lost'",
        "UPDATE hold SET state = 'posted'",
        "UPDATE hold SET ended_us = 1",
    ],
)
def test_the_schema_guards_the_books_from_what_code_might_do(tmp_path: Path, statement: str) -> None:
    engine = Engine("sqlite", tmp_path)

    async def work(store: Store) -> None:
        account, key = await account_with(store, "a", USD)
        await store.carry_out(hold(account, key, "h1", 1_000))

    engine.run(work)
    db = sqlite3.connect(engine.path)
    with pytest.raises(sqlite3.IntegrityError):
        db.execute(statement)
    db.close()


def test_a_command_that_the_schema_refuses_does_not_take_others_along(tmp_path: Path) -> None:
    engine = Engine("sqlite", tmp_path)

    async def work(store: Store) -> None:
        account, key = await account_with(store, "a", USD)
        faulty = hold(account, key, "h2", -1, least=-1)
        outcomes = await asyncio.gather(
            store.carry_out(hold(account, key, "h1", 1_000)),
            store.carry_out(faulty),
            store.carry_out(hold(account, key, "h3", 1_000, price=0)),
            store.carry_out(hold(account, key, "h4", 1_000)),
            return_exceptions=True,
        )
        assert [isinstance(outcome, Held) for outcome in outcomes] == [True, False, False, True]
        assert await store.carry_out(hold(account, key, "h5", 1_000)) == Held(1_000)
        assert differences(store) == []

    engine.run(work)


@pytest.mark.parametrize("kind", ["sqlite", "postgres"])
def test_a_settlement_that_the_books_refuse_leaves_its_hold_open(
    kind: str, tmp_path: Path, request: pytest.FixtureRequest
) -> None:
    """Pending, it would be seen by nobody while its process lives."""
    url = request.getfixturevalue("postgres").new_books() if kind == "postgres" else ""

    async def work(store: Store) -> None:
        account, key = await account_with(store, "a", USD)
        cost = Cost(Decimal("0.00002"))
        refused = [
            Settle("h1", cost, 3, prompt_tokens=2**63),
            Settle("h2", Cost(Decimal(2_000_000)), 3),
            *([Settle("h3", cost, 3, served_model="a/\0b")] if kind == "postgres" else []),
        ]
        names = [settle.hold_id for settle in refused]
        for name in [*names, "h4"]:
            assert await store.carry_out(hold(account, key, name, 1_000)) == Held(1_000)
        outcomes = await asyncio.gather(
            *(store.carry_out(settle) for settle in refused), store.carry_out(Settle("h4", cost, 3))
        )
        assert [outcome.state for outcome in outcomes if isinstance(outcome, Settled)] == ["open" for _ in names] + [
            "posted"
        ]
        left = await store.holds(("open",))
        assert [each.id for each in left] == names
        assert left[0].reason is not None
        assert left[0].reason.startswith("its cost is $0.00002, and the books refused")
        assert differences(store) == []

    Engine(kind, tmp_path, url=url).run(work)


def test_two_processes_write_to_one_file(tmp_path: Path) -> None:
    engine = Engine("sqlite", tmp_path)

    async def work(one: Store) -> None:
        account, key = await account_with(one, "a", 50_000)
        async with engine.open() as other:
            places = [
                store.carry_out(hold(account, key, f"{number}-{worker}", 1_000))
                for number in range(100)
                for worker, store in enumerate((one, other))
            ]
            outcomes = await asyncio.gather(*places)
            assert sum(isinstance(outcome, Held) for outcome in outcomes) == 50
            assert await other.open_orphans() == []
            assert differences(other) == []

    engine.run(work)


def test_books_that_are_locked_for_too_long_are_unavailable(tmp_path: Path) -> None:
    engine = Engine("sqlite", tmp_path, busy_seconds=0.2)

    async def work(store: Store) -> None:
        account, key = await account_with(store, "a", USD)
        blocker = sqlite3.connect(engine.path, isolation_level=None)
        blocker.execute("BEGIN IMMEDIATE")
        with pytest.raises(BooksUnavailable):
            await store.carry_out(hold(account, key, "h1", 1_000))
        blocker.execute("ROLLBACK")
        blocker.close()
        assert await store.carry_out(hold(account, key, "h1", 1_000)) == Held(1_000)

    engine.run(work)


def test_a_database_of_another_program_is_left_alone(tmp_path: Path) -> None:
    path = tmp_path / "other.db"
    db = sqlite3.connect(path)
    db.execute("CREATE TABLE recipes (id)")
    db.close()
    before = path.read_bytes()
    with pytest.raises(UnusableBooks, match="another program"):
        prepare(f"sqlite:///{path}")
    assert path.read_bytes() == before


def test_what_is_no_database_is_refused(tmp_path: Path) -> None:
    path = tmp_path / "text.db"
    path.write_text("not a database, " * 100)
    with pytest.raises(UnusableBooks, match="cannot be used"):
        prepare(f"sqlite:///{path}")
    with pytest.raises(UnusableBooks, match="sqlite:///PATH"):
        sqlite_path("mysql://x")


def test_a_newer_schema_is_refused(tmp_path: Path) -> None:
    path = tmp_path / "books.db"
    new_books(path)
    db = sqlite3.connect(path)
    db.execute("UPDATE alembic_version SET version_num = '9999'")
    db.commit()
    db.close()
    with pytest.raises(UnusableBooks, match="newer"):
        prepare(f"sqlite:///{path}")


def test_the_schema_that_code_expects_is_the_newest_migration(tmp_path: Path) -> None:
    prepare(f"sqlite:///{tmp_path}/books.db")
    db = sqlite3.connect(tmp_path / "books.db")
    assert db.execute("SELECT version_num FROM alembic_version").fetchone() == (HEAD,)
    db.close()


@pytest.mark.parametrize(
    "statement",
    [
        Sqlite.sql.pending_workers,
        Sqlite.sql.open_orphans,
        Sqlite.sql.is_question_due,
        Sqlite.sql.claim_questions,
        Sqlite.sql.count_not_ended,
    ],
)
def test_what_is_asked_again_and_again_does_not_go_through_every_order(tmp_path: Path, statement: str) -> None:
    new_books(tmp_path / "books.db")
    db = sqlite3.connect(tmp_path / "books.db")
    given = {"now": 1, "latest": 4, "until": 2, "most": 3, "workers": "[]"}
    plan = [row[3] for row in db.execute(f"EXPLAIN QUERY PLAN {statement}", given)]
    db.close()
    # To count the holds that have not ended is to read the index that has only those, as a whole.
    allowed = "hold_not_ended" if statement == Sqlite.sql.count_not_ended else "no index"
    assert not [step for step in plan if step.startswith("SCAN hold") and allowed not in step], plan


def test_older_books_are_upgraded_and_keep_what_is_in_them(tmp_path: Path) -> None:
    path = tmp_path / "books.db"
    config = Config()
    config.set_main_option("script_location", str(Path(migrate.__file__).with_name("migrations")))
    config.attributes["url"] = f"sqlite:///{path}"
    command.upgrade(config, "0001")
    db = sqlite3.connect(path)
    db.execute("INSERT INTO account (id, name, plan, created_us) VALUES (2, 'old', 'paying', 1)")
    db.execute("INSERT INTO balance VALUES (2, 90000, 20000, 0, 0, 0)")
    db.execute("INSERT INTO api_key VALUES (7, 2, '', x'00', 'hint', 1, NULL)")
    db.execute(
        "INSERT INTO hold VALUES"
        " ('h0', 2, 7, 'w', 'posted', 50000, 'paying', 10000, 'a/b', 0, 1, 'gen-0', 'a/b', 1, 2, NULL, 3)"
    )
    for row in (
        "('t0', 'top-up', 0, 2, 90000, 1, NULL, NULL, NULL, NULL, 0, 'cash')",
        "('h0', 'hold', 2, 1, 50000, 1, 'h0', NULL, NULL, NULL, 0, NULL)",
        "('h0-end', 'post', 2, 1, 20000, 3, 'h0', '0.000012120', 2, 10000, 0, NULL)",
    ):
        db.execute(f"INSERT INTO transfer VALUES {row}")
    booked = db.execute("SELECT * FROM transfer ORDER BY id").fetchall()
    db.commit()
    db.close()
    assert prepare(f"sqlite:///{path}") is False

    async def main() -> None:
        db = sqlite3.connect(path)
        assert db.execute("SELECT * FROM transfer ORDER BY id").fetchall() == booked
        with pytest.raises(sqlite3.IntegrityError, match="immutable"):
            db.execute("DELETE FROM transfer")
        db.close()
        store = await SqlStore.open(Sqlite(path), "w")
        assert differences(store) == []
        assert [account.name for account in await store.accounts()] == ["old"]
        key = await store.create_key(2, "", b"k", "hint", 1)
        account = (await store.accounts())[0]
        await store.carry_out(TopUp("t", 2, 1000, 1))
        place = replace(hold(account, key, "h", 100), repeatable=Repeatable(b"k", b""))
        assert await store.carry_out(place) == Held(100)
        await store.close()

    asyncio.run(main())


def test_two_processes_that_make_the_books_at_once_make_them_once(tmp_path: Path) -> None:
    script = "import sys; from farebox.store.prepare import prepare; prepare('sqlite:///' + sys.argv[1])"
    command = [sys.executable, "-c", script, str(tmp_path / "books.db")]
    made = [subprocess.Popen(command, stderr=subprocess.PIPE) for _ in range(4)]
    for each in made:
        _, said = each.communicate(timeout=60)
        assert each.returncode == 0, said.decode()


# Limits


def test_limits_count_what_was_and_what_comes(engine: Engine) -> None:
    async def work(store: Store) -> None:
        account, key = await account_with(store, "a", USD)
        other = await store.create_key(account.id, "", b"other", "hint", 1)
        for name in ("h1", "h2"):
            await store.carry_out(hold(account, key, name, 100_000))
        await store.carry_out(Settle(hold_id="h1", verdict=Cost(Decimal("0.0002")), created_us=DAY_US))
        limits = Limits(day_nanos=500_000, total_nanos=900_000, orders_at_once=2)
        await set_limits(store, account.id, key.id, limits, DAY_US)
        found = await store.find_key(b"a")
        assert found
        assert found[1].limits == limits
        allowance = await store.allowance(f"key {key.id}")
        assert allowance
        assert (allowance.total_nanos, allowance.day_nanos, allowance.pending_nanos) == (200_000, 200_000, 100_000)
        assert allowance.at_once == 1
        # 0.0005 less 0.0002 spent and 0.0001 held.
        place = replace(hold(account, key, "h3", 300_000, least=1), created_us=DAY_US)
        assert await store.carry_out(place) == Held(200_000)
        outcome = await store.carry_out(replace(place, id="h4"))
        assert isinstance(outcome, Exceeded)
        assert (outcome.rate, outcome.owner) == ("orders_at_once", f"key {key.id}")
        assert await store.carry_out(replace(place, id="other", key_id=other.id)) == Held(300_000)
        await store.carry_out(Settle(hold_id="h2", verdict=Nothing(), created_us=DAY_US))
        assert await store.carry_out(replace(place, id="h4")) == Held(100_000)
        await store.carry_out(Settle(hold_id="h4", verdict=Unknown("who knows"), created_us=DAY_US))
        refused = await store.carry_out(replace(place, id="h5"))
        assert refused == NotCovered(0, f"key {key.id}", "day")
        # The next day has its own money, less what is still held.
        assert await store.carry_out(replace(place, id="h6", created_us=2 * DAY_US)) == Held(200_000)
        await store.carry_out(Settle(hold_id="h6", verdict=Cost(Decimal("0.0002")), created_us=2 * DAY_US))
        await store.carry_out(Settle(hold_id="h4", verdict=Cost(Decimal("0.00009")), created_us=2 * DAY_US))
        allowance = await store.allowance(f"key {key.id}")
        assert allowance
        assert (allowance.total_nanos, allowance.day_nanos, allowance.at_once) == (490_000, 290_000, 1)
        assert differences(store) == []
        await set_limits(store, account.id, key.id, NO_LIMITS, DAY_US)
        assert await store.allowance(f"key {key.id}") is None
        assert await store.carry_out(replace(place, id="h7")) == Held(300_000)
        assert differences(store) == []

    engine.run(work)


def test_tokens_are_counted_in_advance_and_corrected(engine: Engine) -> None:
    async def work(store: Store) -> None:
        account, key = await account_with(store, "a", USD)
        await set_limits(store, account.id, None, Limits(tokens_per_minute=100), DAY_US)
        place = PlaceHold(
            id="h1",
            account_id=account.id,
            key_id=key.id,
            wanted_nanos=1,
            least_nanos=1,
            plan="paying",
            event_price_nanos=10_000,
            model="a/b",
            streamed=False,
            created_us=DAY_US,
        )
        place = replace(place, wanted_tokens=90, least_tokens=20)
        assert await store.carry_out(place) == Held(1, 90)
        assert isinstance(await store.carry_out(replace(place, id="h2")), Exceeded)
        await store.carry_out(
            Settle(hold_id="h1", verdict=Cost(Decimal(0)), created_us=DAY_US, prompt_tokens=10, answer_tokens=5)
        )
        assert await store.carry_out(replace(place, id="h2")) == Held(1, 85)
        await store.carry_out(Settle(hold_id="h2", verdict=Nothing(), created_us=DAY_US))
        assert await store.carry_out(replace(place, id="h3")) == Held(1, 85)
        await store.carry_out(Settle(hold_id="h3", verdict=Unknown("who knows"), created_us=DAY_US))
        exceeded = await store.carry_out(replace(place, id="h4", least_tokens=101))
        assert isinstance(exceeded, Exceeded)
        assert exceeded.never
        later = replace(place, id="h5", created_us=DAY_US + 61 * SECOND_US)
        assert await store.carry_out(later) == Held(1, 90)
        assert differences(store) == []

    engine.run(work)


def test_tokens_are_corrected_of_an_order_from_a_node_whose_clock_is_behind(engine: Engine) -> None:
    async def work(store: Store) -> None:
        account, key = await account_with(store, "a", USD)
        await set_limits(store, account.id, None, Limits(tokens_per_minute=100), DAY_US)
        ahead = replace(
            hold(account, key, "ahead", 1), wanted_tokens=40, least_tokens=40, created_us=DAY_US + 2_000_000
        )
        assert await store.carry_out(ahead) == Held(1, 40)
        for number in range(9):
            name, began_us = f"behind {number}", DAY_US + number * 100_000
            assert await store.carry_out(replace(ahead, id=name, created_us=began_us)) == Held(1, 40), number
            await store.carry_out(Settle(name, Cost(Decimal(0)), began_us + 50_000, prompt_tokens=1, answer_tokens=1))
        allowance = await store.allowance(f"account {account.id}")
        assert allowance
        assert allowance.tokens_available(DAY_US + 3_000_000) == 100 - 40 - 9 * 2
        assert differences(store) == []

    engine.run(work)


def test_a_fare_that_is_booked_late_is_the_day_befores(engine: Engine) -> None:
    """The books were away over midnight, and took another order's fare first when they were back."""

    async def work(store: Store) -> None:
        now_us = clock.now_us()
        ended_us = now_us - DAY_US
        account, key = await account_with(store, "a", USD)
        for name in ("late", "next"):
            await store.carry_out(replace(hold(account, key, name, 1_000_000), created_us=ended_us - 1))
        await set_limits(store, account.id, None, Limits(day_nanos=500_000), now_us)
        await store.carry_out(Settle(hold_id="next", verdict=Cost(Decimal("0.0001")), created_us=now_us))
        late = LateSettlements(store)
        await late.add(Settle(hold_id="late", verdict=Cost(Decimal("0.0003")), created_us=ended_us))
        running = asyncio.create_task(late.run())
        while late.waiting:  # noqa: ASYNC110 - it has no event to wait for
            await asyncio.sleep(0.01)
        running.cancel()
        allowance = await store.allowance(f"account {account.id}")
        assert allowance
        assert (allowance.day_nanos, allowance.total_nanos) == (100_000, 400_000)
        assert allowance.available_nanos(now_us) == (400_000, "day")
        assert differences(store) == []

    engine.run(work)


def test_an_event_that_is_no_order_is_bound_by_money_alone(engine: Engine) -> None:
    async def work(store: Store) -> None:
        account, key = await account_with(store, "a", USD)
        await set_limits(store, account.id, None, Limits(requests_per_minute=1, total_nanos=150), DAY_US)
        place = replace(hold(account, key, "h1", 100), created_us=DAY_US, is_order=False)
        assert await store.carry_out(place) == Held(100)
        assert await store.carry_out(replace(place, id="h2")) == NotCovered(50, f"account {account.id}", "total")
        assert await store.carry_out(replace(place, id="h3", wanted_nanos=9, least_nanos=9)) == Held(9)
        small = replace(place, wanted_nanos=9, least_nanos=9)
        assert await store.carry_out(replace(small, id="h4", is_order=True)) == Held(9)
        assert await store.carry_out(replace(small, id="h5")) == Held(9)
        assert isinstance(await store.carry_out(replace(small, id="h6", is_order=True)), Exceeded)
        # Another limit does not give a minute back.
        await set_limits(store, account.id, None, Limits(requests_per_minute=2), DAY_US)
        assert await store.carry_out(replace(small, id="h7", is_order=True)) == Held(9)
        assert isinstance(await store.carry_out(replace(small, id="h8", is_order=True)), Exceeded)

    engine.run(work)


def test_what_a_process_that_died_was_serving_is_served_no_more(engine: Engine) -> None:
    async def before(store: Store) -> None:
        account, key = await account_with(store, "a", USD)
        await set_limits(store, account.id, None, Limits(orders_at_once=2), 1)
        await set_limits(store, account.id, key.id, Limits(orders_at_once=2), 1)
        for name in ("h1", "h2"):
            assert await store.carry_out(hold(account, key, name, 100)) == Held(100)

    async def after(store: Store) -> None:
        assert len(await store.open_orphans()) == 2
        for owner in ("account 2", "key 1"):
            allowance = await store.allowance(owner)
            assert allowance
            assert (allowance.at_once, allowance.pending_nanos) == (0, 200)
        await store.carry_out(Settle(hold_id="h1", verdict=Nothing(), created_us=3))
        assert differences(store) == []

    engine.run(before)
    engine.run(after)


def test_money_that_moved_to_another_account_or_by_another_amount_is_named(engine: Engine) -> None:
    """Whatever else fits: a transfer has the two sides that its kind has, and the amount that the trail tells."""

    async def work(store: Store) -> None:
        account, key = await account_with(store, "a", USD)
        other, _ = await account_with(store, "b", USD)
        for name in ("fare", "void", "decided", "waived"):
            await store.carry_out(hold(account, key, name, 100_000))
        await store.carry_out(Settle("fare", Cost(Decimal("0.00005")), 3))
        await store.carry_out(Settle("void", Nothing(), 3))
        for name, verdict in (("decided", Cost(Decimal("0.00007"))), ("waived", Nothing())):
            await store.carry_out(Settle(name, Unknown("who knows"), 3))
            await store.carry_out(Settle(name, verdict, 4, decision=Decision("why")))
        await store.carry_out(Correct("fare", 5, "bad answer", back_nanos=20_000))
        await store.carry_out(Correct("fare", 6, "it cost more", fare_nanos=90_000))
        await store.carry_out(PayOut("paid-out", other.id, 7, "closed"))
        with store.snapshot() as rows:
            booked, orders, trail = list(rows.transfers()), list(rows.holds()), list(rows.entries())
            balances = {each.account_id: each for each in rows.balances()}

        def audited(*changed: Transfer) -> list[str]:
            """With every balance as the transfers have it, as one who knows the books would leave them."""
            now = {each.id: each for each in [*booked, *changed]}
            moved = [each for each in now.values() if each.kind not in ("hold", "void")]
            fitting = [
                replace(
                    balance,
                    credits_nanos=sum(each.amount_nanos for each in moved if each.credit_account == number),
                    debits_nanos=sum(each.amount_nanos for each in moved if each.debit_account == number),
                )
                for number, balance in balances.items()
            ]
            return audit(Rows([now[each.id] for each in booked], orders, fitting, trail=trail)).differences

        assert audited() == []
        for each in booked:
            if each.is_correction:
                # As another test has it, they are between their account and fares; and here, by their amount.
                assert audited(replace(each, amount_nanos=each.amount_nanos - 1)), each
                assert audited(replace(each, debit_account=each.credit_account, credit_account=each.debit_account)), (
                    each
                )
                continue
            wrong = {CASH, FARES, account.id, other.id} - {each.debit_account, each.credit_account}
            for number in wrong:
                assert audited(replace(each, credit_account=number)), (each, number)
                assert audited(replace(each, debit_account=number)), (each, number)
            if each.kind in ("top-up", "adjustment"):
                said = audited(replace(each, amount_nanos=each.amount_nanos + 1))
                assert any(line.startswith("entry ") and "another amount" in line for line in said), each

    engine.run(work)


def test_an_allowance_that_is_wrong_is_named() -> None:
    booked = Transfer("h1-end", "post", 2, 1, 20_000, DAY_US, "h1", Decimal("0.00002"), 2, 10_000)
    placed = Transfer("h1", "hold", 2, 1, 30_000, DAY_US, "h1")
    order = HoldRow("h1", 2, 1, "w", "posted", 30_000, "paying", 10_000, "a/b", False, DAY_US, ended_us=DAY_US)
    balances = [Balance(2, 0, 20_000, 0, None)]
    right = Allowance("key 1", 2, NO_LIMITS, 0, 20_000, 20_000, 20_000, 20_000, DAY_US)
    for allowance, said in (
        (right, []),
        (replace(right, pending_nanos=5), ["held"]),
        (replace(right, at_once=1), ["held"]),
        (replace(right, day_nanos=19_999), ["day"]),
        (replace(right, total_nanos=20_001), ["total"]),
        # A fare that one clock booked just before midnight may count after it; one of an hour before may not.
        (replace(right, counted_us=2 * DAY_US), ["day"]),
    ):
        found = audit(Rows([placed, booked], [order], balances, allowed=[allowance])).differences
        assert len(found) == len(said), found
        assert all(word in line for word, line in zip(said, found, strict=True))
    late = replace(booked, created_us=2 * DAY_US - 1)
    around = replace(right, counted_us=2 * DAY_US)
    assert audit(Rows([placed, late], [order], balances, allowed=[around])).differences == []


def test_two_processes_set_limits_and_serve_and_nothing_is_miscounted(engine: Engine) -> None:
    """Orders begin and end while limits come, go and change."""
    if engine.kind == "memory":
        return

    async def work(one: Store) -> None:
        account, key = await account_with(one, "a", USD)
        async with engine.open() as two:

            async def serve(store: Store, name: str) -> None:
                for number in range(40):
                    order = f"{name}{number}"
                    await store.carry_out(hold(account, key, order, 1_000))
                    await store.carry_out(Settle(hold_id=order, verdict=Cost(Decimal("0.00001")), created_us=number))

            async def change() -> None:
                for number in range(12):
                    limits = NO_LIMITS if number % 3 == 2 else Limits(total_nanos=USD, orders_at_once=100 + number)
                    await set_limits(two, account.id, key.id if number % 2 else None, limits, 50)
                    await asyncio.sleep(0.01)

            await asyncio.gather(
                *(serve(store, name) for store, name in ((one, "a"), (one, "b"), (two, "c"))), change()
            )
            assert differences(one) == []

    engine.run(work)


def test_activity_is_summed_by_day_and_model(engine: Engine) -> None:
    async def work(store: Store) -> None:
        account, key = await account_with(store, "a", USD)
        other, other_key = await account_with(store, "b", USD)
        for number, (owner, its, day, model) in enumerate(
            ((account, key, 1, "a/b"), (account, key, 1, "a/b"), (account, key, 2, "c/d"), (other, other_key, 2, "c/d"))
        ):
            await store.carry_out(replace(hold(owner, its, f"h{number}", 1_000), model=model))
            settle = Settle(
                hold_id=f"h{number}",
                verdict=Cost(Decimal("0.00002")),
                created_us=day * DAY_US,
                prompt_tokens=3,
                answer_tokens=4,
            )
            await store.carry_out(settle)
        first, second = Activity(2, "c/d", "c/d", 1, 20_000, 3, 4), Activity(1, "a/b", "a/b", 2, 40_000, 6, 8)
        assert await store.activity(account.id, None, 0, 9) == [first, second]
        assert await store.activity(account.id, key.id, 0, 1) == [second]
        assert await store.activity(account.id, key.id, 2, 9) == [first]
        assert await store.activity(account.id, other_key.id, 0, 9) == []
        both = await store.activity(None, None, 2, 2)
        assert both == [replace(first, requests=2, fares_nanos=40_000, prompt_tokens=6, answer_tokens=8)]
        assert await store.spent_by_key(account.id, 0) == {key.id: (60_000, 2 * DAY_US)}
        assert await store.spent_by_key(account.id, 2) == {key.id: (20_000, 2 * DAY_US)}

    engine.run(work)


def test_management_keys_and_plans(engine: Engine) -> None:
    async def work(store: Store) -> None:
        made = await store.create_management_key("ops", b"m", "hint", None, 1)
        assert await store.management_keys() == [made]
        assert await store.find_management_key(b"m") == made
        assert await store.find_management_key(b"n") is None
        assert await store.find_key(b"m") is None
        await store.revoke_management_key(made.id, 5)
        await store.revoke_management_key(made.id, 6)
        assert await store.find_management_key(b"m") == replace(made, revoked_us=5)
        assert await store.published_plans() is None
        revision = await store.revision()
        for by in ("one", "two"):
            published = PublishedPlans((Plan("gold", 20_000, 9, ("a/*",)), Plan("free", 100_000)), by, 7)
            await store.publish_plans(published)
            assert await store.published_plans() == published
        assert await store.revision() != revision

    engine.run(work)


def test_a_store_that_is_told_of_changes_wakes_at_once(engine: Engine) -> None:
    """On PostgreSQL; elsewhere the wait is as long as it was asked to be."""

    async def work(store: Store) -> None:
        waiting = asyncio.create_task(store.wait_for_change(8))
        await asyncio.sleep(1)
        assert not waiting.done()
        await store.create_account("a", "paying", 0, 1)
        done, _ = await asyncio.wait([waiting], timeout=3)
        assert bool(done) == (engine.kind == "postgres")
        waiting.cancel()

    engine.run(work)


def test_one_process_at_a_time_asks_for_prices_and_all_find_them(engine: Engine) -> None:
    async def work(store: Store) -> None:
        assert await store.kept_prices("a", 0) is None
        assert await store.claim_prices("a", 100, 200)
        assert not await store.claim_prices("a", 150, 250)
        assert await store.claim_prices("b", 150, 250), "of another upstream"
        assert await store.claim_prices("a", 200, 300), "who asked has not come back"
        kept = KeptPrices((b"{}", b"[1]"), 250)
        await store.keep_prices("a", kept)
        assert await store.kept_prices("a", 249) == kept
        assert await store.kept_prices("a", 250) is None
        assert await store.kept_prices("b", 0) is None
        assert await store.claim_prices("a", 260, 360)
        assert await store.claim_prices("a", 10, 20), "a claim from a clock far ahead is none"

    engine.run(work)


def test_answers_are_kept_for_the_same_orders_while_they_are_good_and_within_a_bound(engine: Engine) -> None:
    def row(name: bytes, kept_us: int, size: int = 10) -> CachedRow:
        return CachedRow(name, f"gen-{kept_us}", "application/json", kept_us, kept_us + 100, b"x" * size)

    async def work(store: Store) -> None:
        assert await store.cached_answer(b"a", 0) is None
        await store.keep_cached(row(b"a", 1))
        await store.keep_cached(row(b"a", 3))
        assert await store.cached_answer(b"a", 102) == row(b"a", 3)
        assert await store.cached_answer(b"a", 103) is None
        for name in (b"b", b"c", b"d"):
            await store.keep_cached(row(name, 10 + name[0]))
        assert await store.sweep_cached(102, 100) == (4, 40)
        assert await store.sweep_cached(103, 100) == (3, 30), "those that are no longer good"
        assert await store.sweep_cached(103, 30) == (3, 30)
        assert await store.sweep_cached(103, 25) == (2, 20), "the oldest"
        assert await store.cached_answer(b"b", 103) is None
        assert await store.cached_answer(b"d", 103) is not None

    engine.run(work)


def stored(account: Account, name: str, previous: str | None = None, until_us: int = 100, **more: Any) -> StoredRow:
    return StoredRow(account.id, name, previous, more.pop("status", "completed"), 1, until_us, b'"hi"', b"{}", **more)


def test_an_answer_is_its_accounts_until_its_time_is_over(engine: Engine) -> None:
    async def work(store: Store) -> None:
        account, key = await account_with(store, "a", USD)
        other, _ = await account_with(store, "b", USD)
        await store.carry_out(hold(account, key, "h1", 100))
        first, second = stored(account, "r1", generation_id="gen-1"), stored(account, "r2", "r1")
        await store.carry_out(Settle(hold_id="h1", verdict=Nothing(), created_us=2, stored=first))
        assert await store.stored(account.id, "r1", 99) == first, "kept with its settlement"
        await store.keep_stored(second)
        assert await store.stored_chain(account.id, "r2", 99, 10) == [second, first]
        assert await store.stored_chain(account.id, "r2", 99, 0) == [second]
        assert await store.measure_stored(account.id) == first.size + second.size == 12
        for account_id, name, now_us in ((other.id, "r1", 9), (account.id, "r3", 9), (account.id, "r1", 100)):
            assert await store.stored(account_id, name, now_us) is None
            assert await store.stored_chain(account_id, name, now_us, 10) == []
            assert not await store.delete_stored(account_id, name, now_us)
        await store.go_on_stored(account.id, ["r1", "r2"], 200)
        await store.go_on_stored(account.id, ["r1"], 150)
        await store.sweep_stored(150)
        assert await store.stored(account.id, "r1", 150) == replace(first, until_us=200)
        assert await store.delete_stored(account.id, "r1", 150)
        assert await store.stored_chain(account.id, "r2", 150, 10) == [replace(second, until_us=200)]
        await store.sweep_stored(200)
        assert await store.measure_stored(account.id) == 0

    engine.run(work)


def test_presets_are_kept_version_by_version_within_bounds(engine: Engine) -> None:
    async def work(store: Store) -> None:
        one = (await store.create_account("one", "paying", 0, 1)).id
        other = (await store.create_account("other", "paying", 0, 1)).id
        assert await store.preset(one, "a") is None
        first = await store.save_preset(one, "a", None, "{}", 10)
        second = await store.save_preset(one, "a", "Be brief.", '{"seed":1.50}', 20)
        assert second == PresetVersion(one, "a", 2, 10, 20, "Be brief.", '{"seed":1.50}')
        assert await store.preset(one, "a") == second
        assert await store.preset(one, "a", 1) == first
        assert await store.preset(one, "a", 3) is None
        for number in range(PRESETS_MAX - 1):
            await store.save_preset(one, f"b{number:02}", None, "{}", 30)
        with pytest.raises(TooManyPresets):
            await store.save_preset(one, "c", None, "{}", 40)
        for _ in range(VERSIONS_MAX):
            await store.save_preset(one, "a", None, "{}", 40)
        assert [each.version for each in await store.preset_versions(one, "a")] == list(range(3, VERSIONS_MAX + 3))
        assert [each.slug for each in await store.presets(one)][:3] == ["a", "b00", "b01"]
        assert await store.presets(other) == []
        assert not await store.drop_preset(other, "a")
        assert await store.drop_preset(one, "a")
        assert not await store.drop_preset(one, "a")
        assert (await store.save_preset(one, "a", None, "{}", 50)).version == 1

    engine.run(work)


def test_an_order_in_the_background_ends_once_and_is_no_orphan_while_its_process_lives(engine: Engine) -> None:
    async def work() -> None:
        async with engine.open() as store:
            account, key = await account_with(store, "a", USD)
            await store.carry_out(hold(account, key, "h1", 100))
            running = stored(account, "r1", status="queued", background=True, worker=store.worker)
            assert await store.begin_stored(running)
            assert not await store.begin_stored(replace(running, input=b'"other"'))
            assert await store.stored_running() == [(account.id, "r1")]
            ended = replace(running, status="completed", answer=b"[]", events=b"e", generation_id="gen-1")
            await store.carry_out(Settle(hold_id="h1", verdict=Nothing(), created_us=2, stored=ended))
            assert await store.stored(account.id, "r1", 9) == ended
            assert not await store.end_stored(replace(running, status="failed"))
            assert await store.stored_running() == []
            # One that was deleted meanwhile does not come back.
            await store.carry_out(hold(account, key, "h2", 100))
            gone = replace(ended, id="r2")
            await store.carry_out(Settle(hold_id="h2", verdict=Nothing(), created_us=2, stored=gone))
            assert await store.stored(account.id, "r2", 9) is None
            assert await store.begin_stored(replace(running, id="r3"))
            assert await store.stored_orphans() == []
        async with engine.open() as store:
            assert [row.id for row in await store.stored_orphans()] == ["r3"]
            assert await store.end_stored(replace(running, id="r3", status="failed"))
            assert await store.stored_orphans() == []

    asyncio.run(work())


def test_of_two_words_on_an_upstream_the_later_holds(engine: Engine) -> None:
    async def work(store: Store) -> None:
        assert await store.standings() == []
        alone = Standing("u", "a/b", 3, 9_000, "status_503", 200)
        await store.put_standing(alone)
        await store.put_standing(Standing("u", "", 0, 0, "", 150))
        await store.put_standing(Standing("u", "a/b", 0, 0, "", 100))
        assert {each.model: each for each in await store.standings()}["a/b"] == alone
        await store.put_standing(Standing("u", "a/b", 0, 0, "", 300))
        assert {each.model: each.until_us for each in await store.standings()} == {"": 0, "a/b": 0}
        await store.forget_standings(300)
        assert [each.changed_us for each in await store.standings()] == [300]

    engine.run(work)


def test_two_processes_that_book_one_top_up_book_it_once(engine: Engine) -> None:
    """Under one id and for two accounts, at the same time: one is booked, the other told so."""
    if engine.kind == "memory":
        return

    async def work(one: Store) -> None:
        first, _ = await account_with(one, "a", 0)
        second, _ = await account_with(one, "b", 0)
        async with engine.open() as two:
            for number in range(30):
                name = f"top-up {number}"
                outcomes = await asyncio.gather(
                    one.carry_out(TopUp(name, first.id, USD, 1)), two.carry_out(TopUp(name, second.id, USD, 1))
                )
                assert sorted(type(outcome).__name__ for outcome in outcomes) == ["Done", "OtherTopUp"]
        paid_in = [(await one.balance(account.id)).credits_nanos for account in (first, second)]
        assert sum(paid_in) == 30 * USD
        assert differences(one) == []

    engine.run(work)


# Orders at upstreams that tell usage and no cost

MILLIONTHS = TokenPrices(prompt=Decimal("0.000003"), answer=Decimal("0.000015"))
LISTED = Tariffs([Entry(upstream="u", model="m", prices=MILLIONTHS), Entry(upstream="free", model="*", is_free=True)])
KEPT = KeptTariffs(LISTED.version, LISTED.content, 1)
USED = Usage(prompt=100, answer=50)
PRICED = Priced(version=LISTED.version, model="m", at_us=2)


def at_other_upstream(place: PlaceHold, priced: Priced | None = PRICED, upstream: str = "u") -> PlaceHold:
    return replace(place, upstream=upstream, priced=priced)


def settled(name: str, usage: Usage | None = USED, cost: str = "0.00105", **more: object) -> Settle:
    verdict: Verdict = Cost(Decimal(cost)) if usage is not None else Unknown("it broke off")
    tokens = {} if usage is None else {"prompt_tokens": usage.prompt_tokens, "answer_tokens": usage.answer_tokens}
    priced = replace(PRICED, usage=usage)
    return Settle(**{"hold_id": name, "verdict": verdict, "created_us": 3, "priced": priced, **tokens, **more})  # type: ignore[arg-type]


def test_who_served_an_order_and_by_which_prices_stands_in_the_books(engine: Engine) -> None:
    async def work(store: Store) -> None:
        await store.keep_tariffs(KEPT)
        await store.keep_tariffs(replace(KEPT, first_used_us=5))
        account, key = await account_with(store, "a", USD)
        for name in ("h1", "h2", "h3", "h4", "h5"):
            await store.carry_out(at_other_upstream(hold(account, key, name, 2_000_000)))
        await store.carry_out(hold(account, key, "h6", 2_000_000))
        assert {(each.upstream, each.priced) for each in await store.holds(("pending",))} == {
            ("u", PRICED),
            (None, None),
        }
        await store.carry_out(settled("h1"))
        await store.carry_out(settled("h2", None))
        # Another upstream served it than it was placed for: one that tells the cost.
        await store.carry_out(NameGeneration("h3", "gen-3", upstream="v"))
        await store.carry_out(Settle(hold_id="h3", verdict=Cost(Decimal("0.5")), created_us=3))
        elsewhere = replace(PRICED, model="n", usage=Usage(prompt=7))
        cost = Cost(Decimal(0))
        await store.carry_out(
            Settle(
                hold_id="h4",
                verdict=cost,
                created_us=3,
                upstream="free",
                priced=elsewhere,
                prompt_tokens=7,
                answer_tokens=0,
            )
        )
        await store.carry_out(Settle(hold_id="h5", verdict=Nothing(), created_us=3))
        await store.carry_out(Settle(hold_id="h6", verdict=Cost(Decimal("0.5")), created_us=3))
        found = {each.id: (each.upstream, each.priced) for each in await store.holds(("posted", "open", "voided"))}
        assert found == {
            "h1": ("u", replace(PRICED, usage=USED)),
            "h2": ("u", PRICED),
            "h3": ("v", None),
            "h4": ("free", elsewhere),
            "h5": ("u", PRICED),
            "h6": (None, None),
        }
        # What has ended changes no more.
        await store.carry_out(settled("h1", Usage(prompt=1), upstream="w"))
        assert {each.upstream for each in await store.orders(["h1"])} == {"u"}
        with store.snapshot() as rows:
            assert list(rows.tariffs()) == [KEPT]
        assert differences(store) == []

    engine.run(work)


def test_the_audit_computes_a_cost_again_and_names_what_differs(engine: Engine) -> None:
    async def work(store: Store) -> None:
        await store.keep_tariffs(KEPT)
        account, key = await account_with(store, "a", USD)
        await store.carry_out(at_other_upstream(hold(account, key, "h1", 2_000_000)))
        await store.carry_out(settled("h1"))
        await store.carry_out(at_other_upstream(hold(account, key, "h2", 2_000_000)))
        await store.carry_out(settled("h2", None))
        assert differences(store) == []
        with store.snapshot() as rows:
            booked, (posted, opened), balances = list(rows.transfers()), list(rows.holds()), list(rows.balances())

        def said(wrong: HoldRow = posted, lists: list[KeptTariffs] | None = None, cost: str = "0.00105") -> list[str]:
            transfers = [replace(t, cost=Decimal(cost)) if t.cost is not None else t for t in booked]
            lists = [KEPT] if lists is None else lists
            return audit(Rows(transfers, [wrong, opened], balances, lists=lists)).differences

        def priced(**changes: object) -> HoldRow:
            assert posted.priced is not None
            return replace(posted, priced=replace(posted.priced, **changes))

        other = Tariffs([Entry(upstream="u", model="x", prices=MILLIONTHS)])
        dearer = Tariffs([Entry(upstream="u", model="m", prices=replace(MILLIONTHS, prompt=Decimal("0.000004")))])
        kept = [KEPT, KeptTariffs(other.version, other.content, 1), KeptTariffs(dearer.version, dearer.content, 1)]
        assert said() == []
        for found, words in (
            # Fares follow costs, so that a cost in the same events is not a difference of the fare.
            (said(cost="0.001049"), ["hold h1 used what costs $0.00105 by the list", "posted were $0.001049"]),
            (said(priced(usage=Usage(prompt=101, answer=49))), ["used what costs $0.001038", "used 101 and 49 tokens"]),
            (said(priced(usage=Usage(prompt=99, cache_read=1, answer=50))), ["cannot be computed: 1 of `cache_read`"]),
            (said(priced(usage=None)), ["cannot be computed: its usage is not in the books"]),
            (said(priced(version="0" * 24)), [f"is priced by the list {'0' * 24}, which is not in the books"]),
            (said(priced(version=other.version), kept), ["which has no `m` at `u`"]),
            (said(priced(version=dearer.version), kept), ["used what costs $0.00115"]),
            (said(priced(at_us=2 + 120 * SECOND_US)), ["was placed at another time than its prices are of"]),
            (said(replace(posted, upstream=None)), ["does not say of which upstream"]),
            (said(replace(posted, upstream="v")), ["which has no `m` at `v`"]),
            (said(replace(posted, prompt_tokens=5)), ["used 100 and 50 tokens by its usage; 5 and 50 are booked"]),
            (said(lists=[]), ["hold h1 is priced by the list", "hold h2 is priced by the list"]),
            (
                said(lists=[replace(KEPT, content=KEPT.content.replace("0.000003", "0.000004"))]),
                ["or not as it was", "is not as it was when it was first used"],
            ),
        ):
            assert all(any(word in each for each in found) for word in words), (words, found)

    engine.run(work)


def test_what_an_operator_decided_is_not_recomputed(engine: Engine) -> None:
    async def work(store: Store) -> None:
        await store.keep_tariffs(KEPT)
        account, key = await account_with(store, "a", USD)
        for name, verdict in (("h1", Cost(Decimal("0.002"))), ("h2", Nothing())):
            await store.carry_out(at_other_upstream(hold(account, key, name, 2_000_000)))
            await store.carry_out(settled(name, None))
            await store.carry_out(Settle(hold_id=name, verdict=verdict, created_us=4, decision=Decision("the invoice")))
        assert differences(store) == []

    engine.run(work)


def test_a_list_that_came_while_the_books_are_audited_is_found() -> None:
    late = Tariffs([Entry(upstream="u", model="m", prices=replace(MILLIONTHS, prompt=Decimal("0.000004")))])

    class Growing(Rows):
        looks = 0

        def tariffs(self) -> list[KeptTariffs]:
            self.looks += 1
            return [KEPT] if self.looks == 1 else [KEPT, KeptTariffs(late.version, late.content, 1)]

    orders = [
        replace(
            HoldRow(name, 2, 1, "w", "posted", 2_000_000, "paying", 10_000, "a/b", False, 2, ended_us=3),
            upstream="u",
            priced=Priced(version=version, model="m", at_us=2, usage=USED),
            prompt_tokens=100,
            answer_tokens=50,
        )
        for name, version in (("h1", LISTED.version), ("h2", late.version))
    ]
    found = audit(Growing([], orders, [])).differences
    assert not any("which is not in the books" in each for each in found)


def at(us: int, number: int = 0) -> str:
    """An order's id, as the exchange makes one."""
    return f"{us:014x}{number:012x}"


async def order(store: Store, account: Account, key: Key, us: int, verdict: Verdict | None, **more: Any) -> str:
    """An order that was placed at a moment and, where there is a verdict, ended ten microseconds later."""
    placed = {name: more.pop(name) for name in ("model", "kind") if name in more}
    name = at(us, key.id)
    await store.carry_out(replace(hold(account, key, name, 1_000_000), created_us=us, **placed))
    if verdict is not None:
        await store.carry_out(Settle(hold_id=name, verdict=verdict, created_us=us + 10, **more))
    return name


async def pages(store: Store, account: Account | None, wanted: OrderFilter, as_of_us: int, most: int = 2) -> list[str]:
    """The ids of all orders that are wanted, page by page."""
    place: OrderPlace | None = OrderPlace(as_of_us)
    found: list[str] = []
    while place is not None:
        rows, place = await store.order_page(None if account is None else account.id, wanted, place, most)
        assert all((each.end is None) == (each.hold.ended_us is None) for each in rows)
        found += [each.hold.id for each in rows]
    return found


def test_orders_are_listed_by_their_end_and_a_list_stays_as_it_was(engine: Engine) -> None:
    async def work(store: Store) -> None:
        account, key = await account_with(store, "a", USD)
        other, its_key = await account_with(store, "b", USD)
        cost = Cost(Decimal("0.0001"))
        one = await order(store, account, key, 100, cost, kind="chat")
        two = await order(store, account, key, 200, Nothing(), kind="chat")
        open_ = await order(store, account, key, 300, Unknown("who knows"), kind="images")
        strange = await order(store, other, its_key, 350, cost, kind="chat")
        three = await order(store, account, key, 400, cost, kind="images", model="c/d", served_model="c/d-1")
        pending = await order(store, account, key, 500, None)
        everything = OrderFilter()
        assert await pages(store, account, everything, 1000) == [pending, open_, three, two, one]
        assert await pages(store, None, everything, 1000) == [pending, open_, three, strange, two, one]
        for wanted, ids in (
            (OrderFilter(key_id=key.id), [pending, open_, three, two, one]),
            (OrderFilter(key_id=key.id + 9), []),
            (OrderFilter(model="c/d-1"), [three]),
            (OrderFilter(kind="chat"), [two, one]),
            (OrderFilter(state="posted"), [three, one]),
            (OrderFilter(state="voided"), [two]),
            (OrderFilter(state="open"), [open_]),
            (OrderFilter(since_us=210, until_us=410), [open_, two]),
        ):
            assert await pages(store, account, wanted, 1000) == ids, wanted
        # What ends while the list is paged stays where it stood; what begins is not in it.
        first, place = await store.order_page(account.id, everything, OrderPlace(1000), 1)
        assert [each.hold.id for each in first] == [pending]
        await store.carry_out(Settle(hold_id=open_, verdict=cost, created_us=1001))
        await store.carry_out(Settle(hold_id=pending, verdict=cost, created_us=1002))
        await order(store, account, key, 2000, cost)
        assert place is not None
        second, place = await store.order_page(account.id, everything, place, 2)
        assert [each.hold.id for each in second] == [open_, three]
        assert second[0].end is not None
        assert place is not None
        third, place = await store.order_page(account.id, everything, place, 2)
        assert ([each.hold.id for each in third], place) == ([two, one], None)
        assert differences(store) == []

    engine.run(work)


def test_a_statement_runs_from_one_balance_to_the_other(engine: Engine) -> None:
    async def work(store: Store) -> None:
        account, key = await account_with(store, "a", USD)
        for day in range(4):
            for number in range(3):
                cost = Cost(Decimal("0.00012") * (number + 1))
                await order(store, account, key, day * DAY_US + 100 * (number + 1), cost, prompt_tokens=7)
        await order(store, account, key, DAY_US + 900, Nothing())
        assert await store.carry_out(TopUp("more", account.id, 5_000, 2 * DAY_US)) == Done()
        for since_us, until_us in ((0, LAST_US), (DAY_US, 3 * DAY_US), (DAY_US + 150, 2 * DAY_US + 150), (500, 600)):
            whole = await store.movements(account.id, since_us, until_us, Movement(), 99)
            balance, last, count = whole.opening_nanos, Movement(), 0
            while (page := await store.movements(account.id, since_us, until_us, last, 2)).transfers:
                assert (page.before_nanos, page.sums) == (balance, whole.sums)
                for transfer in page.transfers:
                    assert since_us <= transfer.created_us < until_us
                    balance += moved_nanos(transfer, account.id)
                    last = Movement(transfer.created_us, transfer.id, balance)
                    count += 1
            assert (balance, count) == (whole.closing_nanos, len(whole.transfers))
            fares = [fare for transfer in whole.transfers if (fare := transfer.fare) is not None]
            assert whole.sums.fares_nanos == sum(fare.nanos for fare in fares)
            assert whole.sums.cost == sum((fare.cost for fare in fares), Decimal(0))
            assert (whole.sums.orders, whole.sums.events) == (len(fares), sum(fare.events for fare in fares))
        assert balance_of(await store.movements(account.id, 0, LAST_US, Movement(), 1)) == (
            (await store.balance(account.id)).balance_nanos
        )

    engine.run(work)


def test_books_of_days_and_of_orders_come_to_the_same(engine: Engine) -> None:
    """Whatever is read at once: the sums are those of the statement, and a file's end is the next one's beginning."""

    async def work(store: Store) -> None:
        account, key = await account_with(store, "a b", 100 * USD)
        for day in (0, 3, 4, 36):
            for number, kind in enumerate(("chat", "images")):
                more = {"model": f"m/{number}", "kind": kind, "prompt_tokens": 3, "units": number or None}
                cost = Cost(Decimal("0.00012345678901") * (day + number))
                name = await order(store, account, key, day * DAY_US + 100 * (number + 1), cost, **more)
            await store.carry_out(Correct(name, day * DAY_US + 900, f"of {day}", fare_nanos=day + 1))
        assert await store.carry_out(TopUp("more", account.id, 5_000, 36 * DAY_US)) == Done()
        bills = Bills(store)
        for since_us, until_us in ((0, LAST_US), (3 * DAY_US, 35 * DAY_US)):
            whole = await store.movements(account.id, since_us, until_us, Movement(), 99)
            for by in BYS:
                texts = []
                for lines_at_once in (1, 10_000):
                    books = Bookkeeping(store, bills, lines_at_once=lines_at_once)
                    wanted = Wanted("beancount", [account], since_us, until_us, 50 * DAY_US, "operator", by)
                    texts.append(b"".join([piece async for piece in books.file(wanted)]).decode())
                assert len(set(texts)) == 1
                sums = posted(texts[0])
                own = f"Liabilities:Farebox:Callers:{component('a b')}"
                assert sums.pop(own) == -whole.closing_nanos
                assert sums.pop("Equity:Opening-Balances", 0) == whole.opening_nanos
                assert sums.pop("Assets:Clearing:Farebox", 0) == whole.sums.paid_in_nanos
                assert sums.pop("Income:Farebox:Corrections") == whole.sums.given_back_nanos
                assert sum(sums[name] for name in sums if name.startswith("Income")) == -whole.sums.fares_nanos
                upstream = sum(sums[name] for name in sums if name.startswith("Expenses"))
                assert upstream == -sums["Liabilities:Farebox:Upstream"] == whole.sums.cost * USD
                assert f"balance {own} -{Decimal(whole.closing_nanos) / USD:.9f} ~ 0 USD" in texts[0]
            charges = Wanted("focus", [account], since_us, until_us, 50 * DAY_US, "caller", "day")
            table = b"".join([piece async for piece in Bookkeeping(store, bills).file(charges)]).decode()
            billed = sum(Decimal(row["BilledCost"]) for row in csv.DictReader(io.StringIO(table)))
            assert billed * USD == whole.sums.fares_nanos - whole.sums.given_back_nanos

    engine.run(work)


def posted(ledger: str) -> dict[str, Decimal]:
    """What a ledger's accounts come to, in nano-dollars."""
    sums: dict[str, Decimal] = {}
    for account, amount in re.findall(r"^  (\S+:\S+)  (\S+) USD$", ledger, re.MULTILINE):
        sums[account] = sums.get(account, Decimal(0)) + Decimal(amount) * USD
    return sums


def balance_of(page: Movements) -> int:
    return page.closing_nanos


FINE = Decimal("0.0000000000000000000000000000000000000123")


def test_the_totals_of_days_are_exact_and_grouped(engine: Engine) -> None:
    async def work(store: Store) -> None:
        account, key = await account_with(store, "a", USD)
        other, its_key = await account_with(store, "b", USD)
        costs = [Decimal("0.1"), Decimal("1.23456789012345678901234567E-3"), FINE, FINE, Decimal("3E-7")]
        for number, cost in enumerate(costs):
            kind = "images" if number % 2 else "chat"
            units = 2 if number % 2 else None
            await order(store, account, key, DAY_US + number * 100, Cost(cost), kind=kind, units=units, answer_tokens=3)
        await order(store, other, its_key, 2 * DAY_US, Cost(Decimal(1)), kind="chat")
        await order(store, other, its_key, 2 * DAY_US + 100, Nothing(), kind="chat")
        (whole,) = await store.totals(account.id, TotalsFilter(0, 9), 99)
        assert whole.cost == reduce(add_exact, costs)
        assert (whole.orders, whole.units, whole.answer_tokens) == (5, 4, 15)
        both = await store.totals(None, TotalsFilter(0, 9, ("account", "day", "kind")), 99)
        assert [(t.key[0], t.key[1], t.key[5], t.orders) for t in both] == [
            (other.id, 2, "chat", 1),
            (account.id, 1, "chat", 3),
            (account.id, 1, "images", 2),
        ]
        assert [t.cost for t in both if t.key[5] == "images"] == [add_exact(costs[1], costs[3])]
        assert len(await store.totals(None, TotalsFilter(0, 9, ("kind",)), 1)) == 1
        assert await store.totals(account.id, TotalsFilter(2, 9), 99) == []
        assert (await store.totals(None, TotalsFilter(0, 9, kind="images", model="a/b"), 99))[0].orders == 2
        assert differences(store) == []

    engine.run(work)


def test_two_processes_add_to_one_total(engine: Engine) -> None:
    async def work(one: Store) -> None:
        account, key = await account_with(one, "a", USD)
        async with engine.open() as two:

            async def serve(store: Store, first: int) -> None:
                for number in range(20):
                    cost = add_exact(Decimal("0.00001"), FINE if number % 10 == 3 else Decimal(0))
                    await order(store, account, key, first + number * 100, Cost(cost))

            await asyncio.gather(serve(one, 1), serve(two, 2), serve(one, 3))
            (total,) = await two.totals(account.id, TotalsFilter(0, 0), 9)
            assert (total.orders, total.cost) == (60, add_exact(60 * Decimal("0.00001"), 6 * FINE))
            assert differences(one) == []

    engine.run(work)


def test_a_total_that_is_wrong_is_named() -> None:
    booked = Transfer("h1-end", "post", 2, 1, 20_000, DAY_US, "h1", Decimal("0.00002"), 2, 10_000)
    placed = Transfer("h1", "hold", 2, 1, 30_000, DAY_US, "h1")
    ordered = HoldRow("h1", 2, 1, "w", "posted", 30_000, "paying", 10_000, "a/b", False, DAY_US, ended_us=DAY_US)
    balances = [Balance(2, 0, 20_000, 0, None)]

    class Summed(Rows):
        summed: list[DayTotal]

        def day_totals(self) -> list[DayTotal]:
            return self.summed

    rows = Summed([placed, booked], [ordered], balances)
    (right,) = Rows(rows.booked, rows.orders, rows.accounts).day_totals()
    for summed, said in (
        ([right], ""),
        ([], "are not in the totals"),
        ([replace(right, orders=2)], "its total says 2 orders"),
        ([replace(right, fares_nanos=1)], "1970-01-02"),
        ([replace(right, cost=Decimal("0.000020001"))], "cost $0.000020001"),
        ([replace(right, units=1)], "1 units"),
        ([right, replace(right, key=(*right.key[:5], "chat"))], "chat of `a/b`"),
    ):
        rows.summed = summed
        found = audit(rows).differences
        assert len(found) == (1 if said else 0), found
        assert not said or said in found[0]


def test_what_is_not_in_the_totals_is_counted_again(engine: Engine) -> None:
    """Nodes of an earlier version post fares, and add nothing to the totals."""
    if engine.kind == "memory":
        return

    async def work(store: Store) -> None:
        assert isinstance(store, SqlStore)
        account, key = await account_with(store, "a", USD)
        for number, cost in enumerate((Decimal("0.0001"), FINE, Decimal("0.0003"))):
            await order(store, account, key, DAY_US * (number // 2) + 100 * number, Cost(cost), kind="chat")
        assert await store.recount() == []
        await store._desk.write("DELETE FROM day_total WHERE day = 0", ())
        assert len(differences(store)) == 1
        assert await store.recount() == [0]
        assert differences(store) == []

    engine.run(work)
