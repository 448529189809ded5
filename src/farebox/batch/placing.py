"""Batches: many orders of one caller, served a few at a time through the one exchange, each paid for once however often
the batch is begun again."""

import asyncio
from collections.abc import Awaitable, Callable, Iterable, Iterator
from dataclasses import dataclass, field
from decimal import Decimal
from functools import partial

from farebox.batch.entries import BatchOrder, BatchResult, answered, refused
from farebox.core.callers import Caller
from farebox.core.errors import BROKEN_STATUS, Refusal, unaffordable
from farebox.core.intake import read_order
from farebox.core.money import add_exact, format_usd, parse_usd
from farebox.core.pricing import ceiling, listed_names
from farebox.core.runs import ItemOutcome
from farebox.whole_orders import Placed, WholeOrders

TRIES_MAX = 6
"""How often an order is tried that was not taken up: over half a minute, or as long as `Retry-After` says each time."""

RETRY_FIRST_SECONDS = 1.0
RETRY_LONGEST_SECONDS = 60.0

REPEATED = frozenset({408, 429, 500, 502, 503, 504, 529})
"""Statuses of orders that were not taken up, cost nothing and may be served a little later. 409 counts among them where
it has a `Retry-After`: the order is still being answered."""

_MAY_HAVE_COST = frozenset({200, BROKEN_STATUS, 410, 0})
"""Statuses of orders that may have cost something though no fare is told; 0 of those whose items do not say."""


@dataclass(slots=True)
class Totals:
    """What the orders of a batch have come to so far."""

    orders: int = 0
    served: int = 0
    failed: int = 0
    events: int = 0
    fare_nanos: int = 0
    cost: Decimal = field(default_factory=Decimal)

    def add(self, order: BatchResult | ItemOutcome) -> None:
        """Count one more order."""
        self.orders += 1
        self.served += order.status == 200
        self.failed += order.status != 200
        self.events += order.fare_events or 0
        self.fare_nanos += parse_usd(order.fare_usd or "0")
        self.cost = add_exact(self.cost, Decimal(order.cost_usd or "0"))


class Batch:
    """One batch, begun once or again. Its `name` is its own, and the same each time it is begun.

    Orders that could make it cost more than `limit_nanos` are refused with 402; `totals` is how far it is.
    """

    def __init__(
        self,
        orders: WholeOrders,
        who: Callable[[], Awaitable[Caller]],
        name: str,
        concurrency: int,
        limit_nanos: int | None = None,
    ) -> None:
        self._orders = orders
        self._who = who
        self._name = name
        self._concurrency = concurrency
        self._limit_nanos = limit_nanos
        self.totals = Totals()
        self._spent_nanos = 0
        self._held_nanos = 0
        self._has_settled = asyncio.Condition()
        self._is_stopped = False

    async def take_up(self, outcomes: Iterable[ItemOutcome], orders: Iterable[BatchOrder]) -> set[int]:
        """Count what became of orders when the batch was begun before; `orders` are all of the batch's. Returns the
        numbers of those that are done.

        Raises:
            Refusal: 401, the caller is nobody.
            BooksUnavailable: nobody can be looked up.
        """
        done, unknown = set[int](), set[int]()
        for outcome in outcomes:
            if outcome.number not in done:
                done.add(outcome.number)
                self.totals.add(outcome)
                if outcome.fare_usd is None and outcome.status in _MAY_HAVE_COST:
                    unknown.add(outcome.number)
        self._spent_nanos = self.totals.fare_nanos
        if self._limit_nanos is not None and unknown:
            numbered, caller = {order.number: order for order in orders}, await self._who()
            for number in unknown:
                try:
                    self._spent_nanos += self._ceiling_nanos(numbered[number], caller)
                except (KeyError, Refusal):
                    # Nobody can say any more what it cost at most: nothing is left.
                    self._spent_nanos += self._limit_nanos
        return done

    def stop(self) -> None:
        """Begin no more orders; those that were begun are served to their end."""
        self._is_stopped = True

    async def each(self, orders: Iterable[BatchOrder], serve: Callable[[BatchOrder], Awaitable[None]]) -> None:
        """Await `serve` for each order, so many at once, until the batch is stopped.

        Raises:
            Refusal: 401, the caller is nobody.
            BooksUnavailable: nobody can be looked up.
        """
        await self._who()
        waiting = iter(orders)
        async with asyncio.TaskGroup() as group:
            for _ in range(self._concurrency):
                group.create_task(self._serve_in_turn(waiting, serve))

    async def _serve_in_turn(
        self, waiting: Iterator[BatchOrder], serve: Callable[[BatchOrder], Awaitable[None]]
    ) -> None:
        for order in waiting:
            if self._is_stopped:
                return
            await serve(order)

    async def serve(self, order: BatchOrder) -> BatchResult:
        """Serve an order, and count what became of it. What is refused is a result, too."""
        result = await self._result(order)
        self.totals.add(result)
        return result

    async def _result(self, order: BatchOrder) -> BatchResult:
        try:
            if order.refusal is not None:
                raise order.refusal
            held_nanos = await self._set_aside(order)
            spent_nanos = held_nanos  # unless it is known better
            try:
                placed = await self._place(order)
                if placed.fare is not None:
                    spent_nanos = placed.fare.nanos
            except Refusal as refusal:
                if refusal.status not in _MAY_HAVE_COST:
                    spent_nanos = 0
                raise
            finally:
                await self._release(held_nanos, spent_nanos)
        except Refusal as refusal:
            return refused(order, refusal)
        return answered(order, placed.generation_id, placed.body, placed.fare, placed.answer_cap)

    async def _set_aside(self, order: BatchOrder) -> int:
        """Set aside what the order can cost, in nano-dollars, within the batch's limit. Where too little is left, wait
        for orders on their way to end. Raises Refusal 402."""
        if self._limit_nanos is None:
            return 0
        most = self._ceiling_nanos(order, await self._who())
        async with self._has_settled:
            while self._held_nanos and self._spent_nanos + self._held_nanos + most > self._limit_nanos:
                await self._has_settled.wait()
            left = self._limit_nanos - self._spent_nanos - self._held_nanos
            if most > left:
                raise unaffordable(
                    f"This order can cost up to ${format_usd(most)}, and ${format_usd(max(0, left))} of what the batch"
                    f" may cost (${format_usd(self._limit_nanos)}) is left",
                    ceiling_usd=format_usd(most),
                    available_usd=format_usd(max(0, left)),
                )
            self._held_nanos += most
        return most

    def _ceiling_nanos(self, order: BatchOrder, caller: Caller) -> int:
        """The most that an order can cost. Raises Refusal: it is none, or cannot be priced."""
        if order.refusal is not None:
            raise order.refusal
        prices = self._orders.prices.current()
        names = partial(listed_names, prices)
        read = read_order(order.body, self._orders.wires[order.path], caller.plan, names, order.asked)
        return ceiling(read.asked, read.answer_tokens, prices, caller.plan).fare_nanos(caller.plan)

    async def _release(self, held_nanos: int, spent_nanos: int) -> None:
        """Give back what was set aside for an order; `spent_nanos` counts against the limit from here on."""
        async with self._has_settled:
            self._held_nanos -= held_nanos
            self._spent_nanos += spent_nanos
            self._has_settled.notify_all()

    async def _place(self, order: BatchOrder) -> Placed:
        key = f"{self._name}/{order.number}".encode()
        tries = 0
        while True:
            tries += 1
            try:
                caller = await self._who()
                return await self._orders.place(caller, order.path, order.body, idempotency_key=key, asked=order.asked)
            except Refusal as refusal:
                wait_seconds = _wait_seconds(refusal, tries)
                if wait_seconds is None or tries == TRIES_MAX or self._is_stopped:
                    raise
                await asyncio.sleep(wait_seconds)


def _wait_seconds(refusal: Refusal, tries: int) -> float | None:
    """How long to wait before the next try; None where another try would not help, or may cost twice."""
    given = refusal.headers.get("retry-after", "")
    after = float(given) if given.isdigit() else None
    if refusal.status not in REPEATED and (refusal.status != 409 or after is None):
        return None
    return min(after if after is not None else RETRY_FIRST_SECONDS * 2 ** (tries - 1), RETRY_LONGEST_SECONDS)
