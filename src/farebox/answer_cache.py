"""Answers that are kept for the same order again, in the books' database. What is the same order, and which answers are
kept, is in `core.caching`.

An order that asks for it is looked up before its hold is placed; what is found costs nothing and moves no money. What
was not found is kept once its answer is booked: complete, without an error, not capped for want of money. It is written
after the caller has it.
"""

import asyncio
from collections.abc import Callable
from contextlib import suppress
from time import monotonic

from msgspec import Struct

from farebox import clock
from farebox.answers import EVENT_STREAM, NO_FARE, RepeatedAnswer
from farebox.core.books import KeptAnswer, Settled
from farebox.core.caching import CachedRow, acts_outside, at_upstream, is_success, read_lookup, same_order
from farebox.core.callers import Caller
from farebox.core.headers import HeaderList, RequestHead
from farebox.core.intake import Order
from farebox.core.stored import Keeping
from farebox.ports import AnswerShelf, BooksUnavailable

CACHE_HEADER = b"x-farebox-cache"

TO_WRITE_BYTES_MAX = 16 * 1024 * 1024
"""What waits to be written; where there is more, an answer is not kept."""

SWEEP_SECONDS = 60.0
"""How often what is no longer good is dropped, and all that is kept is measured."""

SWEEP_PART = 16
"""Also when this process has kept so large a part of what may be kept since: several nodes keep to the bound, too."""

LATE_SECONDS = 1.0


class CachedAnswer(RepeatedAnswer):
    """A kept answer, given to the same order again, which costs nothing. Endpoints use it as an `Answer`."""

    def __init__(self, row: CachedRow, now_us: int) -> None:
        self._row = row
        self._body = row.body
        self._age_seconds = max(0, now_us - row.kept_us) // 1_000_000
        self.settled = Settled("posted", NO_FARE)
        self.status = 200
        self.content_type = row.content_type
        self.is_refusal = False
        self.is_stream = self.is_poured = row.content_type == EVENT_STREAM
        self.media_type = row.content_type
        self.held_back = b""

    def tell(self, keeping: Keeping) -> None:
        """Say of it what holds of this order."""
        if self.is_stream:
            self._body = keeping.take(self._body) + keeping.held_back
        else:
            self._body = keeping.tell(self._body)

    @property
    def headers(self) -> HeaderList:
        age = (b"age", b"%d" % self._age_seconds)
        named = [(b"x-generation-id", self._row.generation_id.encode())] if self._row.generation_id else []
        return [*named, age, (CACHE_HEADER, b"hit")]


class Missed(Struct, frozen=True):
    """An order for which nothing was kept: its answer is to be, for so many `seconds`. `body` is what was looked up."""

    order: bytes
    body: bytes
    seconds: int

    @property
    def headers(self) -> HeaderList:
        """What its caller is told."""
        return [(CACHE_HEADER, b"miss")]


class AnswerCache:
    """Keeps at most `bytes_max` of answers, each `seconds_max` at most. `counted` is told `hit`, `miss` or `left_out`
    for each order that asks, `told` how many answers and bytes are kept."""

    def __init__(
        self,
        shelf: AnswerShelf,
        bytes_max: int,
        seconds_max: int,
        counted: Callable[[str], None] = lambda outcome: None,
        now_us: Callable[[], int] = clock.now_us,
    ) -> None:
        self._shelf = shelf
        self._bytes_max = bytes_max
        self._seconds_max = seconds_max
        self._counted = counted
        self._now_us = now_us
        self._to_write: dict[bytes, CachedRow] = {}
        self._to_write_bytes = 0
        self._has_to_write = asyncio.Event()
        self._since_sweep_bytes = 0
        self.answers = 0
        self.bytes = 0

    async def look(
        self, caller: Caller, head: RequestHead, path: str, order: Order, upstream: str
    ) -> CachedAnswer | Missed | None:
        """The answer that is kept for an order which would go to this upstream; None where it takes no part. One with
        an idempotency key takes none: that stands for its own answer.

        Raises:
            Refusal: 400, `X-Farebox-Cache` is not what it can be.
        """
        if not head.cache and not caller.key.cache_seconds:
            return None
        lookup = read_lookup(head.cache, caller.key.cache_seconds, self._seconds_max)
        if lookup is None or head.idempotency_key:
            return None
        if not lookup.with_tools and acts_outside(order.body, order.asked.models):
            self._counted("left_out")
            return None
        # What was kept under another plan may tell what this one does not show.
        headers = head.forwarded if caller.plan.shows_cost else {**head.forwarded, "shows": "fare"}
        same = same_order(path, order.body, headers, caller.account.id)
        now_us = self._now_us()
        row = await self._find(at_upstream(same, upstream), now_us)
        if row is not None and now_us < min(row.until_us, row.kept_us + lookup.seconds * 1_000_000):
            self._counted("hit")
            return CachedAnswer(row, now_us)
        self._counted("miss")
        return Missed(same, order.body, lookup.seconds)

    async def _find(self, digest: bytes, now_us: int) -> CachedRow | None:
        if (row := self._to_write.get(digest)) is not None:
            return row
        try:
            return await self._shelf.cached_answer(digest, now_us)
        except BooksUnavailable:
            return None  # its hold finds that out, too, and words it

    def keep(
        self,
        missed: Missed,
        upstream: str,
        sent: bytes,
        kept: KeptAnswer | None,
        settled: Settled,
        generation_id: str,
    ) -> None:
        """Keep the answer to an order that was `sent` so to this upstream, and has been booked. It is not kept where
        the order was changed (capped), its cost is not known, or the answer is not a whole success."""
        if kept is None or settled.state != "posted" or sent != missed.body:
            return
        is_fit = self._to_write_bytes + len(kept.body) <= min(TO_WRITE_BYTES_MAX, self._bytes_max)
        if not is_fit or not is_success(kept.body, is_stream=kept.content_type == EVENT_STREAM):
            return
        now_us = self._now_us()
        until_us = now_us + missed.seconds * 1_000_000
        named = generation_id if generation_id.isascii() and generation_id.isprintable() else ""
        digest = at_upstream(missed.order, upstream)
        if (before := self._to_write.pop(digest, None)) is not None:
            self._to_write_bytes -= len(before.body)
        self._to_write[digest] = CachedRow(digest, named, kept.content_type, now_us, until_us, kept.body)
        self._to_write_bytes += len(kept.body)
        self._has_to_write.set()

    async def write_down(self) -> None:
        """Write what is to be kept. Raises BooksUnavailable."""
        while self._to_write:
            digest, row = next(iter(self._to_write.items()))
            await self._shelf.keep_cached(row)
            self._since_sweep_bytes += len(row.body)
            if self._to_write.get(digest) is row:
                del self._to_write[digest]
                self._to_write_bytes -= len(row.body)
            if self._since_sweep_bytes > self._bytes_max // SWEEP_PART:
                await self.sweep()

    async def sweep(self) -> None:
        """Drop what is no longer good and, where more is kept than may be, the oldest. Raises BooksUnavailable."""
        self.answers, self.bytes = await self._shelf.sweep_cached(self._now_us(), self._bytes_max)
        self._since_sweep_bytes = 0

    async def run(self) -> None:
        """Write down what is to be kept, and sweep. Runs until cancelled."""
        sweep_at = 0.0
        while True:
            with suppress(BooksUnavailable):
                if monotonic() >= sweep_at:
                    sweep_at = monotonic() + SWEEP_SECONDS
                    await self.sweep()
                await self.write_down()
            with suppress(TimeoutError):
                async with asyncio.timeout(LATE_SECONDS if self._to_write else SWEEP_SECONDS):
                    self._has_to_write.clear()
                    await self._has_to_write.wait()
