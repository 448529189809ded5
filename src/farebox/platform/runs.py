"""Runs of the Actor that this gateway is: what Apify's platform does around an Actor's batch mode is done here.

A run belongs to the process that began it. When that process dies, another takes the run up and goes on: each order is
placed under an idempotency key of its own, so that none is paid for twice.
"""

import asyncio
import logging
import secrets
import string
import time
from collections.abc import AsyncIterator, Awaitable, Callable, Mapping
from contextlib import asynccontextmanager, suppress
from functools import partial
from typing import TypeVar

from farebox import clock
from farebox.admission import Admission
from farebox.background import Supervisor, Task
from farebox.batch.placing import Batch
from farebox.batch.running import RunInput, explain, in_words, read_input, serve_run, totals_record
from farebox.core.callers import Caller
from farebox.core.errors import Refusal, too_many, unauthenticated
from farebox.core.keys import caller_of_key
from farebox.core.plans import Plan
from farebox.core.runs import ItemOutcome, Record, Run, RunStatus
from farebox.platform.store import SqlRuns
from farebox.ports import BooksUnavailable
from farebox.whole_orders import WholeOrders

log = logging.getLogger("farebox")

T = TypeVar("T")

RUNS_MAX = 100
"""The most runs that one process carries through at once."""

ACCOUNT_RUNS_MAX = RUNS_MAX // 2
"""The same, of one account: none takes all places."""

KEEP_DAYS = 7
"""How long a finished run and what it left are kept, as Apify keeps unnamed storages."""

HEED_SECONDS = 1.0
"""How often a process looks whether a call that another process served has aborted one of its runs."""

TAKE_UP_SECONDS = 5.0
FORGET_SECONDS = 3600.0
WAIT_POLL_SECONDS = 0.1
_LETTERS = string.ascii_letters + string.digits


def new_id() -> str:
    """Seventeen letters and digits, as Apify's ids are."""
    return "".join(secrets.choice(_LETTERS) for _ in range(17))


class Runner:
    """Begins runs, carries them through, and takes up those of processes that died."""

    def __init__(
        self,
        runs: SqlRuns,
        orders: WholeOrders,
        admission: Admission,
        plans: Mapping[str, Plan],
        worker: str,
        public_url: str,
        supervisor: Supervisor,
    ) -> None:
        self._runs = runs
        self._orders = orders
        self._admission = admission
        self._plans = plans
        self._worker = worker
        self.public_url = public_url
        self._supervisor = supervisor
        self._going: dict[str, _Going] = {}

    async def begin(
        self,
        caller: Caller,
        body: bytes,
        *,
        origin: str,
        timeout_seconds: int = 3600,
        memory_mbytes: int = 1024,
        limit_nanos: int | None = None,
    ) -> Run:
        """Begin a run; `body` is its input. Raises Refusal: 400, that is wrong; 429, too many runs are going."""
        asked = await asyncio.to_thread(read_input, body, self._orders.wires)
        if len(self._going) >= RUNS_MAX:
            raise too_many(f"{RUNS_MAX} runs are going, the most at once", 5)
        if sum(going.run.account_id == caller.account.id for going in self._going.values()) >= ACCOUNT_RUNS_MAX:
            raise too_many(f"{ACCOUNT_RUNS_MAX} runs of this account are going, the most at once", 5)
        limits = [limit for limit in (asked.limit_nanos, limit_nanos) if limit is not None]
        run_id = new_id()
        run = Run(
            id=run_id,
            account_id=caller.account.id,
            key_id=caller.key.id,
            worker=self._worker,
            status="RUNNING",
            origin=origin,
            input=b"%d" % len(body),
            timeout_seconds=timeout_seconds,
            memory_mbytes=memory_mbytes,
            limit_nanos=min(limits, default=None),
            dataset_id=new_id(),
            store_id=new_id(),
            queue_id=run_id,
            started_us=clock.now_us(),
        )
        await self._runs.create_run(run, body)
        self._carry_in_background(run, asked)
        return run

    async def abort(self, run: Run) -> None:
        """Let a run begin no more orders. Those on their way are served to their end."""
        is_going = await self._runs.change_run(run.id, "ABORTING", "Aborting: orders on their way are answered")
        # Another process that carries it through sees its status within HEED_SECONDS.
        if is_going and run.id in self._going:
            self._going[run.id].stop("ABORTED", "Aborted")

    async def finished(self, run: Run, seconds: float) -> Run:
        """The run once it has finished, or as it stands after `seconds`."""
        until = time.monotonic() + seconds
        while True:
            run = await self._runs.run(run.account_id, run.id) or run
            if run.is_finished or time.monotonic() >= until:
                return run
            await asyncio.sleep(min(WAIT_POLL_SECONDS, max(0.0, until - time.monotonic())))

    @asynccontextmanager
    async def going(self) -> AsyncIterator[None]:
        """Keep runs going for as long as the block runs; then those of this process are left for another to take up."""
        try:
            async with self._supervisor.running(Task("runs", self._keep_going)):
                yield
        finally:
            tasks = [going.task for going in self._going.values()]
            for task in tasks:
                task.cancel()
            if tasks:
                await asyncio.wait(tasks)

    async def _keep_going(self) -> None:
        """Take up the unfinished runs of dead processes, heed aborts that other processes served, drop old runs. Runs
        until cancelled."""
        take_up_at = forget_at = 0.0
        while True:
            try:
                await self._heed()
                if time.monotonic() >= take_up_at:
                    take_up_at = time.monotonic() + TAKE_UP_SECONDS
                    for run in await self._runs.take_up_runs():
                        await self._take_up(run)
                if time.monotonic() >= forget_at:
                    forget_at = time.monotonic() + FORGET_SECONDS
                    await self._runs.forget_runs(clock.now_us() - KEEP_DAYS * 86_400_000_000)
            except BooksUnavailable as error:
                log.error("runs wait for the books: %s", error)
            await asyncio.sleep(HEED_SECONDS)

    async def _take_up(self, run: Run) -> None:
        try:
            # It is this process's now, and nobody else's to take up.
            given = await _durably(lambda: self._runs.input_of(run.id))
            asked = await asyncio.to_thread(read_input, given, self._orders.wires)
        except Refusal as refusal:
            # Another version of Farebox began it, and takes what this one does not.
            await self._end(run, "FAILED", refusal.message)
        else:
            self._carry_in_background(run, asked)

    async def _heed(self) -> None:
        """Stop runs that were aborted or have timed out, and leave all of them to others while this process stops."""
        for going in list(self._going.values()):
            if self._admission.is_closed:
                going.is_left = True
                going.batch.stop()
            elif clock.now_us() > going.run.started_us + going.run.timeout_seconds * 1_000_000 > going.run.started_us:
                going.stop("TIMED-OUT", f"Timed out after {going.run.timeout_seconds} s")
            elif (await self.finished(going.run, 0)).status == "ABORTING":
                going.stop("ABORTED", "Aborted")

    def _carry_in_background(self, run: Run, asked: RunInput) -> None:
        caller = partial(self._caller, run)
        batch = Batch(self._orders, caller, f"run-{run.id}", asked.concurrency, run.limit_nanos)
        going = self._going[run.id] = _Going(run, batch)
        going.task = asyncio.create_task(self._carry(going, asked))
        going.task.add_done_callback(lambda _: self._going.pop(run.id))

    async def _carry(self, going: "_Going", asked: RunInput) -> None:
        """Carry a run through from where it stands, and write down how it ended."""
        run = going.run
        try:
            ended = await self._serve(going, asked)
        except Refusal as refusal:
            ended = "FAILED", refusal.message
        except Exception as error:  # noqa: BLE001 - told to the supervisor, and to who began the run
            self._supervisor.failed("runs", error)
            ended = "FAILED", "The run failed; the gateway's log says why"
        if ended is None:
            return
        # Until that is written down, nobody else goes on with the run.
        await self._supervisor.keep(Task("runs", partial(self._end, run, *ended), has_end=True))

    async def _end(self, run: Run, status: RunStatus, message: str) -> None:
        await _Output(self._runs, run).say(message)
        exit_code = {"SUCCEEDED": 0, "FAILED": 1}.get(status)
        await _durably(lambda: self._runs.change_run(run.id, status, message, clock.now_us(), exit_code))

    async def _serve(self, going: "_Going", asked: RunInput) -> tuple[RunStatus, str] | None:
        """Serve a run's orders. Returns its last status and message; None where another process goes on with it."""
        output = _Output(self._runs, going.run)
        if not asked.orders:
            return "SUCCEEDED", await explain(output, self.public_url)
        with suppress(BooksUnavailable):  # it is heeded a second later
            await self._heed()
        await serve_run(going.batch, asked, output)
        totals = going.batch.totals
        if going.is_left:
            return None
        await output.put(totals_record(totals))
        message = in_words(totals)
        if totals.orders == len(asked.orders) or going.ended is None:
            return "SUCCEEDED", message
        status, why = going.ended
        return status, f"{why}: {message}"

    async def _caller(self, run: Run) -> Caller:
        """The run's caller, under its plan as it is now. Raises Refusal 401, or 403 as `caller_of_key`, and ends the
        run: its key was revoked or has expired, or its account orders nothing any more."""
        try:
            found = await _durably(lambda: self._runs.key_of_id(run.key_id))
            if found is None or found[1].revoked_us is not None:
                raise unauthenticated("The key that began this run was revoked")
            if (expires_us := found[1].expires_us) is not None and expires_us <= clock.now_us():
                raise unauthenticated("The key that began this run has expired")
            return caller_of_key(*found, self._plans)
        except Refusal as refusal:
            self._going[run.id].stop("FAILED", refusal.message)
            raise


class _Output:
    """Where a run of this gateway leaves its log, items and records: in the books' database."""

    def __init__(self, runs: SqlRuns, run: Run) -> None:
        self._runs = runs
        self._run = run

    async def say(self, text: str) -> None:
        # A run does not fail because a line of its log is lost.
        with suppress(BooksUnavailable):
            await self._runs.add_line(self._run.id, clock.now_us(), text)

    async def report(self, message: str) -> None:
        with suppress(BooksUnavailable):
            await self._runs.tell_run(self._run.id, message)

    async def outcomes(self) -> list[ItemOutcome]:
        return await _durably(lambda: self._runs.outcomes(self._run.dataset_id))

    async def begin(self, number: int) -> None:
        """Nothing to write down: the order's idempotency key is in the same books."""

    async def push(self, number: int, item: bytes) -> None:
        await _durably(lambda: self._runs.push(self._run.dataset_id, number, item))

    async def put(self, record: Record) -> None:
        await _durably(lambda: self._runs.put_record(self._run.store_id, record))


class _Going:
    """A run that this process carries through, and why it ends before all its orders are served: `is_left` for another
    process to go on with, or `ended` with this status and message."""

    def __init__(self, run: Run, batch: Batch) -> None:
        self.run = run
        self.batch = batch
        self.task: asyncio.Task[None]
        self.ended: tuple[RunStatus, str] | None = None
        self.is_left = False

    def stop(self, status: RunStatus, why: str) -> None:
        """Begin no more orders: those on their way are served to their end."""
        self.ended = self.ended or (status, why)
        self.batch.stop()


async def _durably(do: Callable[[], Awaitable[T]]) -> T:
    """Write what must not be lost, or read what a run does not go on without, once the books can be used."""
    while True:
        try:
            return await do()
        except BooksUnavailable as error:
            log.error("a run waits for the books: %s", error)
            await asyncio.sleep(HEED_SECONDS)
