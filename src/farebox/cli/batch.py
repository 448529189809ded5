"""`farebox batch`: serve a file of orders, with a progress bar; begun again, it goes on where it was."""

import asyncio
import os
import secrets
from collections.abc import Callable, Iterator
from contextlib import ExitStack, contextmanager, suppress
from functools import partial
from pathlib import Path
from typing import Annotated

import typer
from msgspec import structs
from rich.console import Console
from rich.progress import BarColumn, MofNCompleteColumn, Progress, TextColumn, TimeRemainingColumn

from farebox.app import running
from farebox.batch.entries import ORDERS_MAX, BatchOrder, BatchResult, read_entry, split_lines
from farebox.batch.placing import REPEATED, Batch, Totals
from farebox.batch.result_forms import ResultForm, fitted, written
from farebox.batch.running import CONCURRENCY, CONCURRENCY_MAX
from farebox.cli.session import AsJson, DatabaseUrl, clear_errors, fail, nanos_of, print_json
from farebox.core.errors import Refusal
from farebox.core.formats.table import FORMATS
from farebox.core.headers import RequestHead
from farebox.core.money import format_usd
from farebox.core.runs import ItemOutcome, read_outcome
from farebox.from_settings import SIMULATOR_URL_VARIABLE
from farebox.settings import Settings, load
from farebox.simulator import server as simulator
from farebox.stopping import on_stop
from farebox.store.prepare import take_up


def batch(
    file: Annotated[Path, typer.Argument(help="Orders, one a line (JSONL).", exists=True, dir_okay=False)],
    out: Annotated[
        Path | None, typer.Option(help="Where the results go.", show_default="FILE with .results before its ending")
    ] = None,
    key: Annotated[str, typer.Option(help="The key that pays.", envvar="FAREBOX_KEY")] = "",
    concurrency: Annotated[
        int, typer.Option(help="Orders at the same time.", min=1, max=CONCURRENCY_MAX)
    ] = CONCURRENCY,
    limit: Annotated[str | None, typer.Option("--limit", metavar="USD", help="What the batch may cost in all.")] = None,
    results_form: Annotated[
        ResultForm, typer.Option("--results", help="Form of the results: our own, OpenAI's or Anthropic's batches'.")
    ] = ResultForm.FAREBOX,
    database_url: DatabaseUrl = None,
    as_json: AsJson = False,
) -> None:
    """Serve a file of orders on these books, without a server.

    A line is an order's body, {"custom_id", "url", "body"} as in OpenAI's batches, or {"custom_id", "params"} as in
    Anthropic's. Each becomes a line of results.
    Stopped and started again it goes on, and pays for no order twice.
    """
    if not key:
        fail("--key: give the key that pays, or set FAREBOX_KEY", 2)
    limit_nanos = None if limit is None else nanos_of(limit, "--limit")
    results = _Results(out or file.with_suffix(f".results{file.suffix}"), results_form)
    if results.path.exists() and (not results.path.is_file() or results.path.samefile(file)):
        fail(f"--out: {results.path} is {'no file' if not results.path.is_file() else 'the file of the orders'}", 2)
    lines = list(split_lines(file.read_bytes()))
    if len(lines) > ORDERS_MAX:
        fail(f"{file}: {len(lines)} orders; a batch has {ORDERS_MAX} at most", 2)
    orders = [fitted(read_entry(number, line, FORMATS), results_form) for number, line in enumerate(lines, 1)]
    with clear_errors(), ExitStack() as stack:
        settings = load(database_url=database_url)
        take_up(settings.database_url)
        if settings.is_simulated:
            os.environ[SIMULATOR_URL_VARIABLE] = stack.enter_context(simulator.embedded())
        try:
            results.open()
        except OSError as error:
            fail(results.words(error))
        stack.callback(results.close)
        done = {outcome.number for outcome in results.outcomes}
        before = sum(order.number in done for order in orders)
        advance = stack.enter_context(_progress(len(orders), before, is_shown=not as_json))
        try:
            totals = asyncio.run(_serve(settings, key, orders, results, concurrency, limit_nanos, advance))
        except Refusal as refusal:
            fail(refusal.message)
    if results.failure is not None:
        fail(f"{results.words(results.failure)}; begun again, the batch goes on, and pays for nothing twice")
    results.finish(is_whole=totals.orders == len(orders))
    _report(totals, before, results.path, as_json=as_json)


async def _serve(
    settings: Settings,
    key: str,
    orders: list[BatchOrder],
    results: "_Results",
    concurrency: int,
    limit_nanos: int | None,
    advance: Callable[[], None],
) -> Totals:
    async with running(structs.replace(settings, order_log=False)) as services:
        who = partial(services.callers.identify, RequestHead((key,)))
        batch = Batch(services.agents.orders, who, results.name, concurrency, limit_nanos)
        done = await batch.take_up(results.outcomes, orders)

        async def serve(order: BatchOrder) -> None:
            results.add(await batch.serve(order))
            if results.failure is not None:
                # Not cut off: what is under way is paid for, and kept to be written when the batch is begun again.
                batch.stop()
            advance()

        # The first Ctrl-C lets the orders that were begun end.
        with on_stop(batch.stop):
            await batch.each((order for order in orders if order.number not in done), serve)
        return batch.totals


class _Results:
    """The file of results, and beside it the batch's name until the last order is served."""

    def __init__(self, path: Path, form: ResultForm) -> None:
        self.path = path
        self._form = form
        self._name_path = path.with_name(path.name + ".batch")
        self.name = ""
        self.outcomes: list[ItemOutcome] = []
        self.failure: OSError | None = None

    def words(self, error: OSError) -> str:
        return f"--out: {self.path} cannot be written: {error.strerror}"

    def open(self) -> None:
        """Keep the whole lines of an earlier start whose orders need not be placed again, and drop the rest. Raises
        OSError."""
        kept = []
        if self.path.exists():
            for line in self.path.read_bytes().splitlines(keepends=True):
                outcome = read_outcome(line)
                if outcome is None or not outcome.status:
                    continue  # cut off within the line: its order is placed again, and paid for once
                if outcome.status not in REPEATED and outcome.status != 402:
                    kept.append(line)
                    self.outcomes.append(outcome)
        draft = self.path.with_name(self.path.name + ".draft")
        draft.write_bytes(b"".join(kept))
        draft.replace(self.path)
        with self._name_path.open("a+") as file:
            file.seek(0)
            self.name = file.read()
            if not self.name:
                # On disk before the first order, whose answer is found by it. Empty where the disk was full.
                self.name = f"batch-{secrets.token_hex(12)}"
                file.write(self.name)
                file.flush()
                os.fsync(file.fileno())
        self._file = self.path.open("ab")

    def add(self, result: BatchResult) -> None:
        """Write a result, or keep why it cannot be written."""
        try:
            self._file.write(written(result, self._form) + b"\n")
            self._file.flush()
        except OSError as error:
            self.failure = error

    def close(self) -> None:
        with suppress(OSError):  # told by `failure`
            self._file.close()

    def finish(self, *, is_whole: bool) -> None:
        """Forget the batch's name once all its orders are served: the same file begun again then orders anew."""
        if is_whole:
            self._name_path.unlink()


@contextmanager
def _progress(orders: int, done: int, *, is_shown: bool) -> Iterator[Callable[[], None]]:
    columns = (TextColumn("{task.description}"), BarColumn(), MofNCompleteColumn(), TimeRemainingColumn())
    with Progress(*columns, console=Console(stderr=True), disable=not is_shown) as bar:
        task = bar.add_task("orders", total=orders, completed=done)
        yield lambda: bar.advance(task)


def _report(totals: Totals, before: int, path: Path, *, as_json: bool) -> None:
    if as_json:
        print_json(
            {
                "orders": totals.orders,
                "before": before,
                "served": totals.served,
                "failed": totals.failed,
                "cost_usd": f"{totals.cost:f}",
                "fare_events": totals.events,
                "fare_usd": format_usd(totals.fare_nanos),
                "results": str(path),
            }
        )
    else:
        typer.echo(
            f"{totals.served} orders served, {totals.failed} failed"
            + (f", {before} were done before" if before else "")
            + f"; cost ${totals.cost:f}, fares ${format_usd(totals.fare_nanos)} ({totals.events} events)."
            + f" Results: {path}"
        )
    if totals.failed:
        raise typer.Exit(1)
