"""What a run of the Actor does: from its input to its OUTPUT, wherever it leaves that."""

from collections.abc import Awaitable, Callable
from typing import Protocol

import msgspec

from farebox.batch.entries import BatchOrder, BatchResult
from farebox.batch.placing import Batch, Serving, Totals
from farebox.batch.result_forms import written
from farebox.batch.run_input import RunInput
from farebox.core.callers import Caller
from farebox.core.money import format_usd, parse_usd
from farebox.core.runs import ItemOutcome, Record

TOLD_EVERY = 20
"""A run's status message tells how far it is after so many orders."""


class Leaving(Protocol):
    """Where a run leaves what it does. What is written is durable when its method returns."""

    async def say(self, text: str) -> None:
        """A line of the log."""

    async def tell(self, message: str) -> None:
        """How far it is."""

    async def outcomes(self) -> list[ItemOutcome]:
        """The orders that have their items already."""

    async def begin(self, number: int) -> None:
        """An order is about to be placed."""

    async def push(self, number: int, item: bytes) -> None:
        """An order's item."""

    async def put(self, record: Record) -> None: ...


class Work:
    """A run's orders, begun or begun again under the same `name`."""

    def __init__(
        self,
        serving: Serving,
        who: Callable[[], Awaitable[Caller]],
        name: str,
        asked: RunInput,
        limit_nanos: int | None,
    ) -> None:
        self._serving = serving
        self._who = who
        self._name = name
        self._asked = asked
        self._limit_nanos = limit_nanos

    async def run(self, leaving: Leaving, begun: Callable[[Batch], Awaitable[None]]) -> Totals:
        """Serve the orders that have no items yet; `begun` gets what can be stopped. Gives the totals of all."""
        orders = self._asked.orders
        await leaving.say(f"The run begins: {len(orders)} orders")
        done, totals = _before(await leaving.outcomes())
        left = [order for order in orders if order.number not in done]
        batch = Batch(self._serving, self._who, self._name, self._asked.concurrency, self._limit_nanos, totals)

        async def begin(order: BatchOrder) -> None:
            await leaving.begin(order.number)

        async def tell(result: BatchResult) -> None:
            await leaving.push(result.number, written(result, self._asked.results))
            done.add(result.number)
            if result.error is not None:
                await leaving.say(f"order {result.number}: {result.status} {result.error.get('message')}")
            if len(done) % TOLD_EVERY == 0:
                message = f"{len(done)} of {len(orders)} orders"
                await leaving.say(message)
                await leaving.tell(message)

        await begun(batch)
        await batch.run(left, tell, begin)
        return totals


async def explain(leaving: Leaving, public_url: str) -> str:
    """What a run without orders leaves: how to use the server. Gives its last message."""
    base = f"{public_url}/api/v1"
    body = '{"model": "openrouter/auto", "messages": [{"role": "user", "content": "Hello"}]}'
    example = (
        f"curl {base}/chat/completions -H 'Authorization: Bearer <YOUR_TOKEN>'"
        f" -H 'Content-Type: application/json' -d '{body}'"
    )
    message = "This Actor is a server. Send orders to its endpoint, or give the run `requests`."
    output = msgspec.json.encode({"message": message, "endpoint": base, "example": example})
    await leaving.put(Record("OUTPUT", "application/json", output))
    return f"This Actor is a server: see OUTPUT for how to use it at {base}"


def in_words(totals: Totals) -> str:
    """What became of a run's orders."""
    return f"{totals.served} orders served, {totals.failed} failed; fares ${format_usd(totals.fare_nanos)}"


def _before(outcomes: list[ItemOutcome]) -> tuple[set[int], Totals]:
    """The orders that have their items, and what those came to."""
    done, totals = set[int](), Totals()
    for told in outcomes:
        if told.number not in done:
            done.add(told.number)
            fare_nanos = 0 if told.fare_usd is None else parse_usd(told.fare_usd)
            totals.add(told.status, told.cost_usd, told.fare_events, fare_nanos)
    return done, totals


def output(totals: Totals) -> Record:
    """What a run leaves in the end."""
    told = {
        "orders": totals.orders,
        "served": totals.served,
        "failed": totals.failed,
        "costUsd": f"{totals.cost:f}",
        "fareEvents": totals.events,
        "fareUsd": format_usd(totals.fare_nanos),
    }
    return Record("OUTPUT", "application/json", msgspec.json.encode(told))
