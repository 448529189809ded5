"""Jobs: who asks how they stand, how often and for how long; and what their end settles, however often it comes."""

import asyncio
import json
from collections.abc import Awaitable, Callable, Sequence
from decimal import Decimal
from typing import Any

import pytest

from farebox.core.audit import audit
from farebox.core.books import AskLater, HoldRow, PlaceHold, Settle, Settled, TopUp
from farebox.core.callers import Account
from farebox.core.errors import Refusal
from farebox.core.upstream import Filters
from farebox.core.usage import Unknown
from farebox.jobs import Jobs
from farebox.ports import UpstreamBroke, UpstreamUnreachable
from farebox.reconcile import Reconciler
from farebox.testing import MemoryStore, Script, ScriptedUpstream
from farebox.upstream.openrouter_pages import Fetched
from farebox.upstream.running import alone
from tests.served.test_reconcile import record
from tests.upstreams import declared

DAY_US = 86_400 * 1_000_000
MISSING = Fetched(404, b"{}")


def told(**members: Any) -> Fetched:
    return Fetched(200, json.dumps({"id": "job-1", **members}).encode())


RUNS = told(status="in_progress")
DONE = told(status="completed", usage={"cost": 0.5}, generation_id="gen-9")
SILENT = told(status="completed", usage={"cost": None}, generation_id="gen-9")


class Asked(ScriptedUpstream):
    """An upstream that answers looks at its job in turn, the last answer for ever; and has one record, or none."""

    def __init__(
        self, *answers: Fetched | Exception, of_record: Fetched = MISSING, scripts: Sequence[Script | Exception] = ()
    ) -> None:
        super().__init__(*scripts)
        self._answers = list(answers)
        self._of_record = of_record
        self.declared = declared("http://there")
        self.paths: list[str] = []

    async def fetch(self, path: str, query: Filters) -> Fetched:
        self.paths.append(path)
        if path == "/generation":
            return self._of_record
        assert path == "/videos/job-1"
        answer = self._answers.pop(0) if len(self._answers) > 1 else self._answers[0]
        if isinstance(answer, Exception):
            raise answer
        return answer


class World:
    """One account's open hold, whose job runs at an upstream; and a clock of the test's own."""

    def __init__(self, asked: Asked, job_seconds: float = 7 * 86_400, upstream: str | None = None) -> None:
        self._upstream = upstream
        self.store = MemoryStore()
        self.now_us = 0
        self.upstreams = alone(asked)
        self.reconciler = Reconciler(self.store, self.upstreams, 60, lambda: self.now_us, job_seconds=job_seconds)
        self.jobs = Jobs(self.store, self.store, self.upstreams)
        self.account: Account

    async def begin(self, generation_id: str | None = None) -> None:
        self.account = await self.store.create_account("a", "paying", 0, 1)
        key = await self.store.create_key(self.account.id, "", b"k", "hint", 1)
        await self.store.carry_out(TopUp("t", self.account.id, 10**10, 1))
        await self.store.carry_out(
            PlaceHold(
                id="h",
                account_id=self.account.id,
                key_id=key.id,
                wanted_nanos=10**9,
                least_nanos=1,
                plan="paying",
                event_price_nanos=10_000,
                model="a/b",
                streamed=False,
                created_us=0,
                upstream=self._upstream,
            )
        )
        runs = Unknown("the job job-1 runs")
        begun = Settle(hold_id="h", verdict=runs, created_us=0, generation_id=generation_id, job_id="job-1")
        assert await self.store.carry_out(begun) == Settled("open")

    async def hold(self) -> HoldRow:
        hold = await self.store.hold("h")
        assert hold is not None
        return hold

    async def until_settled(self) -> HoldRow:
        for _ in range(2000):
            await self.reconciler.round()
            hold = await self.hold()
            if hold.state != "open" or hold.is_unresolved:
                return hold
            assert hold.ask_us is not None
            self.now_us = max(self.now_us, hold.ask_us)
        raise AssertionError("it goes on for ever")


def run(world: World, work: Callable[[], Awaitable[None]], generation_id: str | None = None) -> None:
    async def main() -> None:
        await world.begin(generation_id)
        await work()
        with world.store.snapshot() as rows:
            assert audit(rows).differences == []

    asyncio.run(main())


@pytest.mark.parametrize(
    ("answers", "of_record", "generation_id", "cost"),
    [
        ([RUNS, UpstreamBroke("x"), UpstreamUnreachable("x"), Fetched(500, b""), told(), DONE], MISSING, None, "0.5"),
        ([RUNS, told(status="failed")], MISSING, None, None),
        ([MISSING, RUNS, DONE], MISSING, "gen-1", "0.5"),
        # What the job does not say, its generation's record does.
        ([SILENT], Fetched(200, record(total_cost=0.7)), None, "0.7"),
        ([SILENT, SILENT, DONE], MISSING, None, "0.5"),
        ([SILENT], Fetched(200, record(total_cost=0)), None, "0"),
        ([MISSING], Fetched(200, record(total_cost=0.7)), "gen-1", "0.7"),
        # But not that a job is for nothing whose end nobody saw.
        ([MISSING, MISSING, DONE], Fetched(200, record(total_cost=0)), "gen-1", "0.5"),
        ([RUNS, RUNS, DONE], Fetched(200, record(total_cost=0.7)), "gen-1", "0.5"),
    ],
)
def test_what_a_job_comes_to(
    answers: list[Fetched | Exception], of_record: Fetched, generation_id: str | None, cost: str | None
) -> None:
    world = World(Asked(*answers, of_record=of_record))

    async def work() -> None:
        hold = await world.until_settled()
        (end,) = [each for each in await world.store.transfers(world.account.id) if each.kind in ("post", "void")]
        expected = ("voided", None) if cost is None else ("posted", Decimal(cost))
        assert (hold.state, end.cost) == expected

    run(world, work, generation_id)


@pytest.mark.parametrize("answer", [RUNS, MISSING, SILENT, Fetched(401, b"")])
def test_a_job_without_end_is_asked_for_a_week_ever_more_rarely_and_then_an_operators(answer: Fetched) -> None:
    upstream = Asked(answer)
    world = World(upstream)

    async def work() -> None:
        hold = await world.until_settled()
        assert (hold.state, hold.is_unresolved) == ("open", True)
        assert 7 * DAY_US < world.now_us < 8 * DAY_US
        assert 600 < upstream.paths.count("/videos/job-1") < 900
        # Whoever sees its end after that settles it all the same.
        upstream._answers = [DONE]
        assert (await world.jobs.find(world.account, "job-1")).fare is not None
        assert (await world.hold()).state == "posted"

    run(world, work)


def test_a_job_ends_once_whoever_sees_it_and_whatever_it_says_then() -> None:
    world = World(Asked(DONE, told(status="completed", usage={"cost": 0.9}), told(status="failed"), RUNS))

    async def work() -> None:
        fares = [(await world.jobs.find(world.account, "job-1")).fare for _ in range(4)]
        assert [fare and fare.cost for fare in fares] == [Decimal("0.5")] * 4
        world.now_us = DAY_US
        assert await world.reconciler.round() == 0
        assert (await world.hold()).generation_id == "gen-9"
        # A question that was under way when it ended.
        await world.store.carry_out(AskLater("h", 5, "late"))
        assert (await world.hold()).state == "posted"
        assert (await world.store.balance(world.account.id)).pending_nanos == 0

    run(world, work)


def test_counts_tell_a_job_from_a_question() -> None:
    world = World(Asked(RUNS), job_seconds=1)

    async def work() -> None:
        counted = await world.store.not_ended()
        assert (counted.open, counted.jobs, counted.unresolved) == (0, 1, 0)
        await world.until_settled()
        counted = await world.store.not_ended()
        assert (counted.open, counted.jobs, counted.unresolved) == (0, 0, 1)

    run(world, work)


def test_an_upstream_that_is_not_declared_any_more() -> None:
    world = World(Asked(DONE), upstream="gone")

    async def work() -> None:
        with pytest.raises(Refusal, match="`gone` is not declared any more"):
            await world.jobs.find(world.account, "job-1")
        with pytest.raises(Refusal, match="`gone` is not declared any more"):
            await world.jobs.content(world.account, "job-1", (), {}).__aenter__()
        assert await world.reconciler.round() == 0
        world.now_us = DAY_US
        assert await world.reconciler.round() == 1
        hold = await world.hold()
        assert (hold.state, "not declared any more" in (hold.reason or "")) == ("open", True)

    run(world, work)


def test_what_is_no_video_is_not_sent_on() -> None:
    """A page, a link in JSON, what is about the operator's account; but that there is none yet is told."""
    scripts: list[Script | Exception] = [
        Script([b"<html>"], content_type="text/html"),
        Script([b'{"url": "http://secret/"}'], content_type="application/json"),
        Script([b'{"error": {"message": "sk-or-secret is no key"}}'], status=401),
        UpstreamUnreachable("refused"),
        Script([b'{"error": {"message": "not ready"}}'], status=409),
        Script([b"video"], content_type="video/mp4"),
    ]
    world = World(Asked(RUNS, scripts=scripts))

    async def work() -> None:
        for status in (502, 502, 502, 502, 409):
            with pytest.raises(Refusal) as refused:
                await world.jobs.content(world.account, "job-1", (), {}).__aenter__()
            assert refused.value.status == status
            assert "secret" not in refused.value.message
        async with world.jobs.content(world.account, "job-1", (("index", "1"),), {}) as media:
            assert (await media.read(), media.about_bytes) == (b"video", [(b"content-type", b"video/mp4")])

    run(world, work)
