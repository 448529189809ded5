"""A run of the Actor, from its input, read and checked, to its OUTPUT, wherever that is written."""

from functools import partial
from typing import Protocol

import msgspec
from msgspec import UNSET, Raw, Struct, UnsetType

from farebox.batch.entries import ORDERS_MAX, BatchOrder, read_entry, split_lines
from farebox.batch.placing import Batch, Totals
from farebox.batch.result_forms import ResultForm, fitted, written
from farebox.core.errors import Refusal
from farebox.core.formats.table import Formats
from farebox.core.legible import decode_fields, decode_list, leniently, text_of
from farebox.core.money import format_usd, parse_usd
from farebox.core.reading import UNREADABLE, Number, as_whole, json_path_error, starts_with, without_bom
from farebox.core.runs import ItemOutcome, Record

CONCURRENCY = 8
CONCURRENCY_MAX = 64

REPORT_EVERY = 20
"""The run's status message says how far it is after so many orders."""


class RunInput(Struct, frozen=True):
    """What a run is to do. Without `orders` it only leaves a note on how to use the server. `results` is the form of
    its items."""

    orders: tuple[BatchOrder, ...] = ()
    concurrency: int = CONCURRENCY
    limit_nanos: int | None = None
    results: ResultForm = ResultForm.FAREBOX


class _Input(Struct, rename="camel"):
    """Unknown members are ignored, as on the platform."""

    requests: Raw | UnsetType = UNSET
    concurrency: Number | None = None
    max_total_charge_usd: Raw | UnsetType = UNSET
    results: ResultForm | None = None


_decode_input = msgspec.json.Decoder(_Input).decode


def read_input(body: bytes, wires: Formats) -> RunInput:
    """A run's input: `requests` (a list of orders, or a text with one a line), `concurrency`, `maxTotalChargeUsd`,
    `results`; all optional, and `{}` where there is none.

    Raises:
        Refusal: 400, naming the field that is wrong. An order that is wrong is its own item's error.
    """
    body = without_bom(body).strip() or b"{}"
    try:
        read = leniently(_decode_input, body)
    except UNREADABLE as error:
        raise _wrong(json_path_error(error)) from error
    concurrency = CONCURRENCY if read.concurrency is None else as_whole(read.concurrency)
    if concurrency is None or not 1 <= concurrency <= CONCURRENCY_MAX:
        raise _wrong(f"concurrency: a whole number from 1 to {CONCURRENCY_MAX}, not {read.concurrency}")
    entries = [] if read.requests is UNSET else _entries(decode_fields(body)["requests"])
    if len(entries) > ORDERS_MAX:
        raise _wrong(f"requests: {len(entries)} orders; a run has {ORDERS_MAX} at most")
    form = read.results or ResultForm.FAREBOX
    orders = tuple(fitted(read_entry(number, entry, wires), form) for number, entry in enumerate(entries, 1))
    return RunInput(orders, concurrency, _limit(read.max_total_charge_usd), form)


def _entries(requests: Raw) -> list[bytes]:
    try:
        if starts_with(requests, b'"'):
            # Half of a character in the text is an escape in its line.
            return list(split_lines(text_of(requests).encode(errors="backslashreplace")))
        if starts_with(requests, b"null"):
            return []
        return [bytes(entry) for entry in decode_list(requests)]
    except UNREADABLE as error:
        raise _wrong("requests: a list of orders, or a text with one order a line") from error


def _limit(given: Raw | UnsetType) -> int | None:
    """A number or a text: JSON numbers are read by their digits, never as floats."""
    if given is UNSET or bytes(given) == b"null":
        return None
    try:
        return parse_usd(bytes(given).decode().strip('"'))
    except ValueError as error:
        raise _wrong(f"maxTotalChargeUsd: {error}") from error


def _wrong(message: str) -> Refusal:
    return Refusal(400, "invalid-input", f"Input is not valid: {message}")


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
    done = await batch.take_up(await output.outcomes(), orders)
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
