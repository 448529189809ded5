"""Background tasks that fail in a way that nobody foresaw: told, counted, begun again, and cancelled at once."""

import asyncio
import json
import logging
import signal
from collections.abc import Awaitable, Callable
from decimal import Decimal
from time import monotonic

import pytest
from msgspec.structs import replace

from farebox.background import Supervisor, Task
from farebox.core.books import Command, Outcome, PlaceHold, Settle
from farebox.core.usage import Cost
from farebox.deadlines import Deadlines
from farebox.late_settlements import LateSettlements
from farebox.telemetry.logs import without_secrets
from farebox.testing import MemoryStore


class Watched:
    """A supervisor that pauses for a moment only, what it counted, and the tasks that were seen not to run."""

    def __init__(self, well_seconds: float = 60, pause_seconds: float = 0.001) -> None:
        self.counts: dict[str, int] = {}
        self.supervisor = Supervisor(self.count, pause_seconds, 8 * pause_seconds, well_seconds)

    def count(self, name: str, failures: int) -> None:
        self.counts[name] = self.counts.get(name, 0) + failures


def play(work: Callable[[], Awaitable[None]]) -> None:
    async def main() -> None:
        async with asyncio.timeout(5):
            await work()

    asyncio.run(main())


def test_a_task_that_fails_is_told_counted_and_begun_again(caplog: pytest.LogCaptureFixture) -> None:
    watched = Watched()
    begun: list[list[str]] = []

    async def main() -> None:
        runs = asyncio.Event()

        async def work() -> None:
            begun.append([task.name for task in watched.supervisor.not_running])
            if len(begun) < 3:
                raise KeyError("a row that nobody foresaw")
            if len(begun) == 3:
                return  # which it never should
            runs.set()
            await asyncio.Event().wait()

        async with watched.supervisor.running(Task("reconcile", work), Task("well", asyncio.Event().wait)):  # type: ignore[arg-type]
            await runs.wait()
            assert watched.supervisor.not_running == []

    play(main)
    assert watched.counts == {"reconcile": 3, "well": 0}
    assert begun == [[], [], [], []]
    told = [record.getMessage() for record in caplog.records]
    assert [line.rpartition(" in ")[2] for line in told] == ["0.001 s", "0.002 s", "0.004 s"]
    assert all("the task reconcile failed" in line for line in told)
    assert caplog.records[0].exc_info is not None
    assert caplog.records[0].exc_info[0] is KeyError


def test_pauses_grow_to_a_bound_and_begin_anew_after_a_good_run(caplog: pytest.LogCaptureFixture) -> None:
    runs = iter([0.0, 0.0, 0.0, 0.0, 0.0, 0.02, 0.0])
    watched = Watched(well_seconds=0.02)

    async def main() -> None:
        done = asyncio.Event()

        async def work() -> None:
            seconds = next(runs, None)
            if seconds is None:
                done.set()
                await asyncio.Event().wait()
            await asyncio.sleep(seconds or 0)
            raise ValueError

        async with watched.supervisor.running(Task("a", work)):
            await done.wait()

    play(main)
    pauses = [record.getMessage().rpartition(" in ")[2] for record in caplog.records]
    assert pauses == [f"0.00{number} s" for number in (1, 2, 4, 8, 8, 1, 2)]


def test_while_it_pauses_it_is_named_and_a_stop_waits_for_nothing() -> None:
    watched = Watched(pause_seconds=3600)

    async def fail() -> None:
        raise ValueError

    async def main() -> None:
        async with watched.supervisor.running(Task("callers", fail, "orders suffer"), Task("lists", fail)):
            await asyncio.sleep(0.01)
            assert [(task.name, task.harm) for task in watched.supervisor.not_running] == [
                ("callers", "orders suffer"),
                ("lists", ""),
            ]

    play(main)
    assert watched.supervisor.not_running == []


def test_after_a_fatal_error_the_server_stops(caplog: pytest.LogCaptureFixture) -> None:
    watched = Watched()

    async def main() -> None:
        stopped = asyncio.Event()
        asyncio.get_running_loop().add_signal_handler(signal.SIGTERM, stopped.set)

        async def work() -> None:
            raise LookupError("nothing more may be served")

        async with watched.supervisor.running(Task("charging", work, fatal=(LookupError,))):
            await stopped.wait()
            await asyncio.sleep(0.01)

    play(main)
    assert watched.counts == {"charging": 0}
    assert [record.levelno for record in caplog.records] == [logging.CRITICAL]


def test_what_has_an_end_is_tried_until_it_is_done() -> None:
    watched = Watched()
    tries: list[int] = []

    async def work() -> None:
        tries.append(1)
        if len(tries) < 3:
            raise ValueError

    play(lambda: watched.supervisor.keep(Task("runs", work, has_end=True)))
    assert (len(tries), watched.counts) == (3, {"runs": 2})


class Refusing(MemoryStore):
    """Books that fail on one hold's settlement, again and again."""

    async def carry_out(self, command: Command) -> Outcome:
        if isinstance(command, Settle) and command.hold_id == "bad":
            raise AssertionError(command.hold_id)
        return await super().carry_out(command)


def test_a_late_settlement_that_fails_holds_up_no_other() -> None:
    watched = Watched()
    settle = Settle(hold_id="bad", verdict=Cost(Decimal("0.00001")), created_us=3)

    async def main() -> None:
        store = Refusing()
        account = await store.create_account("a", "paying", None, 1)
        key = await store.create_key(account.id, "", b"d", "h", 1)
        for hold_id in ("bad", "good"):
            place = PlaceHold(
                id=hold_id,
                account_id=account.id,
                key_id=key.id,
                wanted_nanos=0,
                least_nanos=0,
                plan="paying",
                event_price_nanos=10_000,
                model="a/b",
                streamed=False,
                created_us=2,
            )
            await store.carry_out(place)
        late = LateSettlements(store)
        await late.add(settle)
        await late.add(replace(settle, hold_id="good"))
        async with watched.supervisor.running(Task("late_settlements", late.run)):
            while late.waiting > 1:  # noqa: ASYNC110 - nothing tells of it
                await asyncio.sleep(0.001)
        hold = await store.hold("good")
        assert hold is not None
        assert (hold.state, late.waiting) == ("posted", 1)

    play(main)
    assert watched.counts["late_settlements"] > 0


def test_a_deadline_that_fails_stops_no_other() -> None:
    class Wait:
        def __init__(self, due: float, error: Exception | None = None) -> None:
            self.due = due
            self.error = error
            self.expired = asyncio.Event()

        def expire(self) -> None:
            self.expired.set()
            if self.error is not None:
                raise self.error

    async def main() -> None:
        asyncio.get_running_loop().set_exception_handler(lambda *_: None)
        deadlines = Deadlines(0.001)
        waits = [Wait(0, ValueError()), Wait(0, ValueError()), Wait(0)]
        for wait in waits:
            deadlines.add(wait)
        for wait in waits:
            await wait.expired.wait()
        late = Wait(0)
        deadlines.add(late)
        await late.expired.wait()

    play(main)


def test_a_deadline_far_away_comes_in_its_time_and_may_be_put_off_and_brought_nearer() -> None:
    class Wait:
        def __init__(self, seconds: float) -> None:
            self.due = monotonic() + seconds
            self.expired_at = asyncio.get_running_loop().create_future()

        def expire(self) -> None:
            self.expired_at.set_result(monotonic())

    async def main() -> None:
        deadlines = Deadlines(0.001)
        one, put_off, nearer, dropped = (Wait(seconds) for seconds in (0.05, 0.05, 60, 0.05))
        for wait in (one, put_off, nearer, dropped):
            deadlines.add(wait)
        await asyncio.sleep(0.03)
        put_off.due += 0.03
        deadlines.discard(dropped)
        nearer.due = monotonic()
        deadlines.add(nearer)
        for wait in (nearer, one, put_off):
            assert await wait.expired_at >= wait.due
        assert one.expired_at.result() < put_off.expired_at.result()
        assert not dropped.expired_at.done()

    play(main)


@pytest.mark.parametrize(
    ("said", "logged"),
    [
        ("http://me:hunter2@proxy:3128/ is bad", "http://me:***@proxy:3128/ is bad"),
        ("InvalidHeader: b'Bearer sk-fb-abcdefghijkl'", "InvalidHeader: b'Bearer ***'"),
        ("key sk-or-v1-0123456789abcdef, apify_api_0123456789", "key ***, ***"),
        ("proxy-authorization: Basic bWU6aHVudGVyMg==", "proxy-authorization: Basic ***"),
        ("postgresql://u:p%40ss@db/farebox", "postgresql://u:***@db/farebox"),
        (
            "at http://127.0.0.1:8080/api/v1 by a@b, the bearer of it",
            "at http://127.0.0.1:8080/api/v1 by a@b, the bearer of it",
        ),
    ],
)
def test_what_a_foreign_error_quotes_is_logged_without_secrets(said: str, logged: str) -> None:
    assert without_secrets(said) == logged
    assert json.dumps(logged)
