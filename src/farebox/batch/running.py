"""What a run of the Actor does: from its input to its OUTPUT, wherever that is written."""

from functools import partial
from typing import Protocol

import msgspec

from farebox.batch.entries import BatchOrder
from farebox.batch.placing import Batch, Totals
from farebox.batch.result_forms import written
from farebox.batch.run_input import RunInput
from farebox.core.money import format_usd
from farebox.core.runs import ItemOutcome, Record

REPORT_EVERY = 20
"""The run's status message says how far it is after so many orders."""


class RunOutput(Protocol):
    """Where a run writes what it does. What is written is durable when its method returns."""

    async def say(self, text: str) -> None:
        """A line of the log."""

    async def report(self, message: str) -> None:
        """Show how far the run is, where its status stands."""

    async def outcomes(self) -> list[ItemOutcome]:
        """What became of the orders that have their items already."""

    async def begin(self, number: int) -> None:
        """An order is about to be placed."""

    async def push(self, number: int, item: bytes) -> None:
        """An order's item."""

    async def put(self, record: Record) -> None: ...


async def serve_run(batch: Batch, run_input: RunInput, output: RunOutput) -> None:
    """Serve a run's orders that have no items yet. What they came to, and those before, is in the batch's totals."""
    orders = run_input.orders
    await output.say(f"The run begins: {len(orders)} orders")
    done = batch.take_up(await output.outcomes())
    left = [order for order in orders if order.number not in done]
    await batch.each(left, partial(_serve_item, batch, run_input, output, done))


async def _serve_item(batch: Batch, run_input: RunInput, output: RunOutput, done: set[int], order: BatchOrder) -> None:
    await output.begin(order.number)
    result = await batch.serve(order)
    await output.push(result.number, written(result, run_input.results))
    done.add(result.number)
    if result.error is not None:
        await output.say(f"order {result.number}: {result.status} {result.error.get('message')}")
    if len(done) % REPORT_EVERY == 0:
        message = f"{len(done)} of {len(run_input.orders)} orders"
        await output.say(message)
        await output.report(message)


async def explain(output: RunOutput, public_url: str) -> str:
    """Leave a note on how to use the server, which is all that a run without orders does. Returns its last message."""
    base = f"{public_url}/api/v1"
    body = '{"model": "openrouter/auto", "messages": [{"role": "user", "content": "Hello"}]}'
    example = (
        f"curl {base}/chat/completions -H 'Authorization: Bearer <YOUR_TOKEN>'"
        f" -H 'Content-Type: application/json' -d '{body}'"
    )
    message = "This Actor is a server. Send orders to its endpoint, or give the run `requests`."
    usage = msgspec.json.encode({"message": message, "endpoint": base, "example": example})
    await output.put(Record("OUTPUT", "application/json", usage))
    return f"This Actor is a server: see OUTPUT for how to use it at {base}"


def in_words(totals: Totals) -> str:
    """What became of a run's orders."""
    return f"{totals.served} orders served, {totals.failed} failed; fares ${format_usd(totals.fare_nanos)}"


def totals_record(totals: Totals) -> Record:
    """What a run leaves in the end: its OUTPUT."""
    members = {
        "orders": totals.orders,
        "served": totals.served,
        "failed": totals.failed,
        "costUsd": f"{totals.cost:f}",
        "fareEvents": totals.events,
        "fareUsd": format_usd(totals.fare_nanos),
    }
    return Record("OUTPUT", "application/json", msgspec.json.encode(members))
