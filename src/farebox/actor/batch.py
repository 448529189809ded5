"""The Actor as a run with an end: it serves the orders of its input, pushes an item for each, and leaves their totals
in the record OUTPUT."""

import asyncio
import logging
import time
from contextlib import aclosing, suppress

import msgspec
from msgspec import Struct

from farebox.actor.environment import ActorEnvironment
from farebox.actor.hosting import Hosting
from farebox.actor.system_events import SystemEvent, listening
from farebox.app import running
from farebox.background import Supervisor
from farebox.batch.entries import refused
from farebox.batch.placing import Batch
from farebox.batch.result_forms import written
from farebox.batch.running import RunInput, explain, in_words, read_input, serve_run, totals_record
from farebox.core.errors import Refusal, gone
from farebox.core.formats.table import FORMATS
from farebox.core.runs import ItemOutcome, Record
from farebox.ports import ApifyUnreachable
from farebox.settings import Settings
from farebox.stopping import on_stop
from farebox.telemetry.metrics import count_task_failures

log = logging.getLogger("farebox.run")
log.setLevel(logging.INFO)

BEGUN_KEY = "FAREBOX-BEGUN"
"""The record of the run's key-value store that names the orders that were placed and have no item yet."""

MOVING = "Moving to another machine"

RESERVED_SECONDS = 5.0
"""How long before a migration's end the charges that are not done are left at the platform."""

TIMEOUT_RESERVED_SECONDS = 20.0
"""How long before its timeout, at which the platform kills it, a run begins its last order."""

PUSH_RETRY_SECONDS = 1.0


async def serve_input(environment: ActorEnvironment, settings: Settings) -> int:
    """Serve the orders of the run's input; the process's exit code."""
    async with aclosing(Hosting(environment, settings)) as hosting:
        return await _Run(hosting, settings).serve_input()


class _Run:
    def __init__(self, hosting: Hosting, settings: Settings) -> None:
        self._hosting = hosting
        self._settings = settings
        self._batch: Batch | None = None
        self._supervisor = Supervisor(count_task_failures)
        self._why = ""
        """Why no more orders are to be begun."""

    async def serve_input(self) -> int:
        output = _Output(self._hosting)
        given = await self._hosting.storage.record(self._hosting.environment.input_key)
        try:
            asked = read_input(given or b"", FORMATS)
        except Refusal as refusal:
            await output.finish(refusal.message)
            return 1
        if not asked.orders:
            await output.finish(await explain(output, self._settings.public_url or ""))
            return 0
        if (until := self._hosting.environment.timeout_at) is not None:
            seconds = until - time.time() - TIMEOUT_RESERVED_SECONDS
            asyncio.get_running_loop().call_later(max(0.0, seconds), self._stop, "Out of time")
        with on_stop(self._stop):
            async with listening(
                self._hosting.environment.system_events_url, self._settings, self._hear, self._supervisor
            ):
                return await self._serve(asked, output)

    async def _serve(self, asked: RunInput, output: "_Output") -> int:
        async with running(self._settings, self._hosting.host, supervisor=self._supervisor) as services:
            callers = self._hosting.callers
            assert callers is not None
            await output.take_up(asked)

            name = f"run-{self._hosting.run_name}"
            batch = Batch(services.agents.orders, callers.owner, name, asked.concurrency, asked.limit_nanos)
            self._batch = batch
            if self._why:
                batch.stop()
            await serve_run(batch, asked, output)
            totals = batch.totals
            if totals.orders < len(asked.orders):
                message = f"{self._why}: {totals.orders} of {len(asked.orders)} orders"
                await output.report(message)
            else:
                message = in_words(totals)
                await output.put(totals_record(totals))
        if self._why == MOVING and totals.orders < len(asked.orders):
            await self._hosting.move()
        await output.finish(message)
        return 0 if totals.orders == len(asked.orders) else 1

    def _stop(self, why: str = "Stopped") -> None:
        """Begin no more orders: those on their way are served to their end."""
        self._why = self._why or why
        if self._batch is not None:
            self._batch.stop()

    async def _hear(self, event: SystemEvent) -> None:
        if event.name == "aborting":
            self._stop("Aborted")
        elif event.name == "migrating":
            self._stop(MOVING)
            # Orders that do not end in time are handed on as placed, and of unknown cost.
            await asyncio.sleep(max(0.0, (event.remaining_seconds or 0.0) - RESERVED_SECONDS))
            await self._hosting.save()
        elif event.name == "persistState":
            await self._hosting.save()


class _Begun(Struct):
    orders: list[int]


class _Output:
    """Where the Actor's run leaves its items and records: in its default dataset and key-value store."""

    def __init__(self, hosting: Hosting) -> None:
        self._hosting = hosting
        self._storage = hosting.storage
        self._before: list[ItemOutcome] = []
        self._begun: set[int] = set()
        self._writing = asyncio.Lock()
        self._written: set[int] = set()

    async def take_up(self, asked: RunInput) -> None:
        """Find out how far the run was when it came here. An order that another machine had placed, and that has no
        item, is not placed again: it may have been served, and may still be charged."""
        self._before = await self._storage.outcomes()
        if not self._hosting.has_new_books:
            return
        record = await self._storage.record(BEGUN_KEY)
        begun = set(msgspec.json.decode(record, type=_Begun).orders) if record is not None else set()
        lost = begun - {outcome.number for outcome in self._before}
        for order in asked.orders:
            if order.number in lost:
                await self.push(order.number, written(refused(order, _CUT_OFF), asked.results))
                self._before.append(ItemOutcome(order.number, _CUT_OFF.status))

    async def say(self, text: str) -> None:
        log.info("%s", text)

    async def report(self, message: str) -> None:
        with suppress(ApifyUnreachable):
            await self._storage.say(message, is_last=False)

    async def finish(self, message: str) -> None:
        log.info("%s", message)
        with suppress(ApifyUnreachable):
            await self._storage.say(message, is_last=True)

    async def outcomes(self) -> list[ItemOutcome]:
        return self._before

    async def begin(self, number: int) -> None:
        """Write down at the platform that an order is placed, before it is: in one write for all that wait."""
        if self._hosting.apify is None:
            return
        self._begun.add(number)
        async with self._writing:
            if number in self._written:
                return
            written = set(self._begun)
            body = msgspec.json.encode(_Begun(sorted(written)))
            await self._storage.put_record(Record(BEGUN_KEY, "application/json", body))
            self._written = written

    async def push(self, number: int, item: bytes) -> None:
        """Push an item until it is there, and once: where the platform may have heard a push, look into the dataset."""
        while True:
            try:
                await self._storage.push(item)
                break
            except ApifyUnreachable as error:
                log.error("the item of order %d could not be pushed yet: %s", number, error)
                await asyncio.sleep(PUSH_RETRY_SECONDS)
                with suppress(ApifyUnreachable):
                    if any(each.number == number for each in await self._storage.outcomes()):
                        break
        self._begun.discard(number)

    async def put(self, record: Record) -> None:
        await self._storage.put_record(record)


_CUT_OFF = gone(
    "The run moved to another machine while this order was on its way. It is not placed again: what it cost, if it was"
    " served, is charged once that is known"
)
