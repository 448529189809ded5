"""Fares told to an outside biller: each once, whatever fails on the way."""

import asyncio
from collections.abc import Awaitable, Callable
from contextlib import suppress
from decimal import Decimal
from pathlib import Path

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from msgspec.structs import replace

from farebox.actor.charging import ChargesRefused, Charging, take_over
from farebox.actor.outbox import SqlOutbox
from farebox.background import Supervisor, Task
from farebox.core.audit import audit
from farebox.core.books import ChargedFare, Outside, PlaceHold, Settle
from farebox.core.charges import ASK_US, CALL_EVENTS_MAX, WINDOW_US, Charge, read_carried, write_carried
from farebox.core.usage import Cost, Nothing, Unknown
from farebox.store.books import SqlStore
from farebox.store.sqlite import Sqlite
from farebox.testing import CountingBiller
from farebox.testing.biller import Fault
from tests.books import new_books
from tests.served.test_store import Rows

RUN = Outside()
START_US = 1_000_000_000


class Clock:
    """Time that passes when a test says so."""

    def __init__(self) -> None:
        self.us = START_US

    def __call__(self) -> int:
        return self.us


class Books:
    """New books with one account, whose orders are charged outside."""

    def __init__(self, path: Path) -> None:
        self.path = path
        self.orders = 0

    async def __aenter__(self) -> "Books":
        new_books(self.path)
        self.store = await SqlStore.open(Sqlite(self.path), f"worker-{id(self)}")
        self.outbox = SqlOutbox(Sqlite(self.path))
        found = await self.store.find_account("a")
        self.account = found or await self.store.create_account("a", "paying", None, 1)
        keys = await self.store.keys(self.account.id)
        self.key = keys[0] if keys else await self.store.create_key(self.account.id, "", b"d", "h", 1)
        return self

    async def __aexit__(self, *_: object) -> None:
        await self.outbox.close()
        await self.store.close()

    async def fare(
        self, cost: str | None = "0.00001", outside: Outside | None = RUN, name: str = "", verdict: object = None
    ) -> str:
        """One order that cost so much, or nobody knows what; gives its hold."""
        self.orders += 1
        hold = name or f"h{self.orders}"
        place = PlaceHold(
            id=hold,
            account_id=self.account.id,
            key_id=self.key.id,
            wanted_nanos=0,
            least_nanos=0,
            plan="paying",
            event_price_nanos=10_000,
            model="a/b",
            streamed=False,
            created_us=2,
            outside=outside,
        )
        await self.store.carry_out(place)
        said = Unknown("it broke off") if cost is None else Cost(Decimal(cost))
        await self.store.carry_out(Settle(hold_id=hold, verdict=said, created_us=3, generation_id=f"gen-{hold}"))
        return hold

    def rows(self) -> Rows:
        with self.store.snapshot() as rows:
            return Rows(
                list(rows.transfers()),
                list(rows.holds()),
                list(rows.balances()),
                list(rows.charged_fares()),
                list(rows.charges()),
            )

    def charges(self) -> list[Charge]:
        rows = self.rows()
        assert audit(rows).differences == []
        return rows.told


def play(folder: Path, work: Callable[[Books], Awaitable[None]]) -> None:
    async def main() -> None:
        async with Books(folder / "books.db") as books:
            await work(books)

    asyncio.run(main())


async def deliver(charging: Charging, seconds: float = 20) -> None:
    assert await charging.flush(seconds)


def test_the_fares_of_a_run_are_told_as_one_sum(tmp_path: Path) -> None:
    async def work(books: Books) -> None:
        biller = CountingBiller()
        for cost in ("0.00001212", "0.0001", "0", "3E-7"):
            await books.fare(cost)
        await books.fare("0.5", None)
        await books.fare(None)
        await deliver(Charging(books.outbox, biller, now_us=Clock()))
        ((key, count, charge_to),) = biller.calls
        assert (count, charge_to) == (2 + 10 + 1, "")
        (charge,) = books.charges()
        assert (charge.state, charge.count, charge.done, charge.ended_us) == ("charged", 13, 13, START_US)
        assert key == f"{charge.id}-0"
        await deliver(Charging(books.outbox, biller, now_us=Clock()))
        assert len(biller.calls) == 1

    play(tmp_path, work)


def test_an_unknown_cost_is_told_when_it_is_known_and_a_void_never(tmp_path: Path) -> None:
    async def work(books: Books) -> None:
        biller = CountingBiller()
        charging = Charging(books.outbox, biller, now_us=Clock())
        late, void = await books.fare(None), await books.fare(None)
        await deliver(charging)
        assert biller.calls == []
        await books.store.carry_out(Settle(hold_id=late, verdict=Cost(Decimal("0.0005")), created_us=9))
        await books.store.carry_out(Settle(hold_id=void, verdict=Nothing(), created_us=9))
        await books.store.carry_out(Settle(hold_id=late, verdict=Cost(Decimal("0.0005")), created_us=9))
        await deliver(charging)
        assert biller.events == 50

    play(tmp_path, work)


def test_ten_events_stand_for_one_where_the_price_is_flat_and_the_caller_free(tmp_path: Path) -> None:
    async def work(books: Books) -> None:
        biller = CountingBiller()
        await books.fare("0.00001212", Outside(times=10))
        await deliver(Charging(books.outbox, biller, now_us=Clock()))
        assert biller.events == 20

    play(tmp_path, work)


def test_a_fare_charged_by_its_request_is_a_charge_of_its_own_and_waited_for(tmp_path: Path) -> None:
    async def work(books: Books) -> None:
        biller = CountingBiller("before")
        charging = Charging(books.outbox, biller, now_us=Clock(), sum_seconds=60)
        running = asyncio.create_task(charging.run())
        await asyncio.sleep(0.05)
        one, two = [await books.fare("0.0001", Outside(f"request-{number}")) for number in (1, 2)]
        await asyncio.gather(charging.until_charged(f"{one}-end"), charging.until_charged(f"{two}-end"))
        assert len(biller.calls) == 3
        assert {call[2] for call in biller.calls} == {"request-1", "request-2"}
        assert biller.events == 20
        assert {charge.state for charge in books.charges()} == {"charged"}
        running.cancel()
        with suppress(asyncio.CancelledError):
            await running

    play(tmp_path, work)


@pytest.mark.parametrize("faults", [["before"], ["after"], ["after", "before", "after"]])
def test_what_fails_is_told_again_under_the_same_key(tmp_path: Path, faults: list[str]) -> None:
    async def work(books: Books) -> None:
        biller = CountingBiller(*faults)
        await books.fare("0.001")
        await deliver(Charging(books.outbox, biller, now_us=Clock()))
        assert len({key for key, _, _ in biller.calls}) == 1
        assert len(biller.calls) == len(faults) + 1
        assert biller.events == 100

    play(tmp_path, work)


def test_more_than_a_call_takes_goes_in_several(tmp_path: Path) -> None:
    async def work(books: Books) -> None:
        biller = CountingBiller("after", "before")
        await books.fare("250.000001")
        await deliver(Charging(books.outbox, biller, now_us=Clock()))
        assert sorted({count for _, count, _ in biller.calls}) == [5_000_001, CALL_EVENTS_MAX]
        assert biller.events == 25_000_001
        assert len({key for key, _, _ in biller.calls}) == 3

    play(tmp_path, work)


def test_a_death_between_telling_and_writing_it_down_is_told_again_under_its_key(tmp_path: Path) -> None:
    async def work(books: Books) -> None:
        biller = CountingBiller()
        await books.fare("0.001")
        (due,) = await books.outbox.gather(START_US)
        await biller.charge(*due.call, "")
        await books.fare("0.002")
        await deliver(Charging(books.outbox, biller, now_us=Clock()))
        assert biller.events == 300
        assert [charge.state for charge in books.charges()] == ["charged", "charged"]

    play(tmp_path, work)


@pytest.mark.parametrize("fault", ["before", "after"])
@pytest.mark.parametrize("cost", ["0.001", "150"])
def test_after_its_key_stands_no_more_the_biller_is_asked(tmp_path: Path, fault: str, cost: str) -> None:
    async def work(books: Books) -> None:
        clock = Clock()
        biller = CountingBiller(None, fault)
        charging = Charging(books.outbox, biller, counted_before=0, now_us=clock)
        await books.fare("0.0007")
        await deliver(charging)
        await books.fare(cost)
        (due,) = await books.outbox.gather(clock())
        with suppress(Exception):
            await biller.charge(*due.call, "")
        biller.forget()
        clock.us += ASK_US + 1
        await deliver(charging)
        assert biller.events == 70 + int(Decimal(cost) * 100_000)
        assert [charge.state for charge in books.charges()] == ["charged", "charged"]

    play(tmp_path, work)


class StrangeBiller(CountingBiller):
    """Fails in a way that nobody foresaw, twice, for one request, while another's is under way."""

    def __init__(self) -> None:
        super().__init__()
        self.failures = 0
        self.is_under_way = asyncio.Event()
        self.failed = asyncio.Event()

    async def charge(self, key: str, count: int, charge_to: str) -> None:
        if charge_to == "bad" and self.failures < 2:
            await self.is_under_way.wait()
            self.failures += 1
            raise ValueError(charge_to)
        if charge_to == "good":
            self.calls.append((key, count, charge_to))
            self.is_under_way.set()
            await self.failed.wait()
        await super().charge(key, count, charge_to)


def test_a_charge_that_fails_begins_again_and_breaks_off_no_other(tmp_path: Path) -> None:
    counts: list[int] = []

    async def work(books: Books) -> None:
        biller = StrangeBiller()
        for request in ("bad", "good"):
            await books.fare("0.0001", Outside(request))
        charging = Charging(books.outbox, biller, now_us=Clock(), sum_seconds=0.02)
        supervisor = Supervisor(lambda _, failures: counts.append(failures), pause_first_seconds=0.001)
        async with supervisor.running(Task("charging", charging.run)), asyncio.timeout(10):
            while sum(counts) < 2:  # noqa: ASYNC110 - nothing tells of it
                await asyncio.sleep(0.001)
            biller.failed.set()
            while {charge.state for charge in books.charges()} != {"charged"}:  # noqa: ASYNC110 - as above
                await asyncio.sleep(0.01)
        assert [charge_to for _, _, charge_to in biller.calls].count("good") == 2, "begun once, and ended"

    play(tmp_path, work)
    assert sum(counts) == 2


def test_one_charge_of_a_run_is_told_at_a_time(tmp_path: Path) -> None:
    """Or what the biller counted could not be told apart."""

    async def work(books: Books) -> None:
        await books.fare("0.0001")
        (first,) = await books.outbox.gather(START_US)
        await books.fare("0.0002")
        assert await books.outbox.gather(START_US) == [first]
        await books.outbox.change(first.after_call(START_US))
        (second,) = await books.outbox.gather(START_US)
        assert (second.count, second.state) == (20, "due")

    play(tmp_path, work)


def test_events_counted_before_these_books_began_are_not_taken_for_a_charge(tmp_path: Path) -> None:
    async def work(books: Books) -> None:
        clock = Clock()
        biller = CountingBiller()
        await biller.charge("an earlier machine's", 100, "")
        await books.fare("0.001")
        await books.outbox.gather(clock())
        clock.us += ASK_US + 1
        await deliver(Charging(books.outbox, biller, counted_before=100, now_us=clock))
        assert biller.events == 200

    play(tmp_path, work)


def test_between_the_two_nothing_is_told(tmp_path: Path) -> None:
    async def work(books: Books) -> None:
        clock = Clock()
        biller = CountingBiller()
        await books.fare("0.001")
        await books.outbox.gather(clock())
        clock.us += WINDOW_US + 1
        assert not await Charging(books.outbox, biller, now_us=clock).flush(0.2)
        assert biller.calls == []

    play(tmp_path, work)


def test_what_cannot_be_told_apart_is_flagged_and_never_told_twice(tmp_path: Path) -> None:
    async def work(books: Books) -> None:
        clock = Clock()
        biller = CountingBiller()
        await books.fare("0.001")
        await books.outbox.gather(clock())
        await biller.charge("who knows", 7, "")
        clock.us += ASK_US + 1
        await deliver(Charging(books.outbox, biller, now_us=clock))
        (charge,) = books.charges()
        assert (charge.state, charge.done) == ("unsure", 0)
        assert "7 of its events" in (charge.said or "")
        assert biller.events == 7

    play(tmp_path, work)


class SlowTurns(CountingBiller):
    """Before one of its calls is answered, by its number, more time has gone than a key stands."""

    def __init__(self, clock: Clock, slow_call: int, *faults: Fault | str | None) -> None:
        super().__init__(*faults)
        self.clock = clock
        self.slow_call = slow_call

    async def charge(self, key: str, count: int, charge_to: str) -> None:
        try:
            await super().charge(key, count, charge_to)
        finally:
            if len(self.calls) == self.slow_call:
                self.clock.us += WINDOW_US + 1
                self.forget()


def test_a_charge_whose_turn_comes_after_its_key_stood_is_not_repeated(tmp_path: Path) -> None:
    async def work(books: Books) -> None:
        clock = Clock()
        biller = SlowTurns(clock, 3, "after", "after", None)
        for request in ("request-1", "request-2"):
            await books.fare("0.0001", Outside(request))
        await deliver(Charging(books.outbox, biller, now_us=clock, retry_seconds=0.001))
        assert biller.events == 20
        assert sorted(charge.state for charge in books.charges()) == ["charged", "unsure"]

    play(tmp_path, work)


def test_a_charge_that_waits_long_for_its_first_turn_is_made(tmp_path: Path) -> None:
    async def work(books: Books) -> None:
        clock = Clock()
        biller = SlowTurns(clock, 1, None, "after", None)
        for request in ("request-1", "request-2"):
            await books.fare("0.0001", Outside(request))
        await deliver(Charging(books.outbox, biller, now_us=clock, retry_seconds=0.001))
        assert [charge.state for charge in books.charges()] == ["charged", "charged"]
        assert biller.events == 20
        # Another process would have known since when its key is in use.
        assert sorted(charge.window_us for charge in books.charges()) == [START_US, START_US + WINDOW_US + 1]

    play(tmp_path, work)


def test_a_request_that_is_over_cannot_be_asked_about(tmp_path: Path) -> None:
    async def work(books: Books) -> None:
        clock = Clock()
        biller = CountingBiller()
        await books.fare("0.001", Outside("request-1"))
        await books.outbox.gather(clock())
        clock.us += ASK_US + 1
        await deliver(Charging(books.outbox, biller, now_us=clock))
        (charge,) = books.charges()
        assert (charge.state, biller.calls) == ("unsure", [])

    play(tmp_path, work)


def test_a_refusal_is_written_down_and_ends_what_a_run_serves(tmp_path: Path) -> None:
    async def work(books: Books) -> None:
        biller = CountingBiller("requestId is invalid or has expired", "no such event")
        charging = Charging(books.outbox, biller, now_us=Clock())
        await books.fare("0.001", Outside("request-1"))
        await deliver(charging)
        await books.fare("0.001")
        with pytest.raises(ChargesRefused, match="no such event"):
            await charging.flush(5)
        assert [(charge.state, charge.said) for charge in sorted(books.charges(), key=lambda c: c.charge_to)] == [
            ("refused", "no such event"),
            ("refused", "requestId is invalid or has expired"),
        ]

    play(tmp_path, work)


def test_a_run_goes_on_on_another_machine(tmp_path: Path) -> None:
    """What was counted, what was told and not answered, what was not told, what is not known yet."""
    biller = CountingBiller(None, "after")

    async def leave() -> bytes:
        async with Books(tmp_path / "one.db") as books:
            clock = Clock()
            await books.fare("0.0001")
            await deliver(Charging(books.outbox, biller, now_us=clock))
            await books.fare("0.0002")
            flushing = asyncio.create_task(Charging(books.outbox, biller, now_us=clock, retry_seconds=60).flush(60))
            while len(biller.calls) < 2:  # noqa: ASYNC110 - tells nobody
                await asyncio.sleep(0.01)
            flushing.cancel()
            await books.fare("0.0004")
            await books.fare(None)
            return write_carried(await books.outbox.unfinished())

    async def arrive(record: bytes) -> None:
        carried = read_carried(record)
        assert (carried.counted, len(carried.orders), len(carried.charges)) == (10, 3, 1)
        async with Books(tmp_path / "two.db") as books:
            for _ in range(2):
                await take_over(carried, books.store, books.outbox)
            clock = Clock()
            await deliver(Charging(books.outbox, biller, counted_before=carried.counted, now_us=clock))
            assert biller.events == 10 + 20 + 40
            (late,) = await books.store.holds(("open",))
            assert late.generation_id == "gen-h4"
            await books.store.carry_out(Settle(hold_id=late.id, verdict=Cost(Decimal("0.0008")), created_us=9))
            await deliver(Charging(books.outbox, biller, counted_before=carried.counted, now_us=clock))
            assert biller.events == 150
            assert sum(charge.done for charge in books.charges()) == 140

    asyncio.run(arrive(asyncio.run(leave())))


def test_a_record_of_something_else_is_refused() -> None:
    with pytest.raises(ValueError, match="cannot be read"):
        read_carried(b'{"counted": "many"}')


faults = st.lists(st.sampled_from(["before", "after", None]), max_size=12)
costs = st.lists(st.integers(1, 10**6).map(lambda micros: str(Decimal(micros).scaleb(-6))), min_size=1, max_size=5)


@settings(max_examples=20)
@given(st.lists(costs, min_size=1, max_size=3), faults)
def test_events_told_are_events_of_the_ledger(
    tmp_path_factory: pytest.TempPathFactory, waves: list[list[str]], faults: list[str | None]
) -> None:
    async def work(books: Books) -> None:
        biller = CountingBiller(*faults)
        charging = Charging(books.outbox, biller, now_us=Clock(), retry_seconds=0.005)
        for wave in waves:
            for cost in wave:
                await books.fare(cost)
            await charging.flush(0.01)
        await deliver(charging, 120)
        rows = books.rows()
        assert audit(rows).differences == []
        assert biller.events == sum(transfer.events or 0 for transfer in rows.booked)

    play(tmp_path_factory.mktemp("books"), work)


def test_the_audit_names_what_is_wrong_in_the_outbox(tmp_path: Path) -> None:
    async def work(books: Books) -> None:
        hold = await books.fare("0.0001")
        await books.fare("0.0001", None)
        await deliver(Charging(books.outbox, CountingBiller(), now_us=Clock()))
        rows = books.rows()
        (fare,), (charge,) = rows.fares, rows.told
        for fares, told, said in (
            ([], rows.told, "should be"),
            ([replace(fare, count=11)], rows.told, "comes to 10 events outside; 11 are charged"),
            ([replace(fare, count=11)], rows.told, "10 events, its fares say 11"),
            ([fare], [], "has fares, and is not in the books"),
            ([fare], [replace(charge, count=9)], "9 events, its fares say 10"),
            ([fare, ChargedFare("h2-end", "", 10, charge.id)], rows.told, "and should not be"),
            ([fare, ChargedFare("nobody-end", "", 10, charge.id)], rows.told, "not in the books"),
        ):
            found = audit(Rows(rows.booked, rows.orders, rows.accounts, fares, told)).differences
            assert any(said in each for each in found), (said, found)
        assert (audit(rows).charged_events, audit(rows).uncharged_events) == (10, 0)
        assert hold == "h1"

    play(tmp_path, work)
