"""Settlements that the books could not take when they were due: kept here and on disk, booked as soon as possible."""

import asyncio
import logging
from collections import deque
from contextlib import suppress
from heapq import heappop, heappush
from time import monotonic

from farebox import clock
from farebox.core.books import NoSuchRow, Outcome, Settle
from farebox.core.usage import Nothing
from farebox.ports import BooksUnavailable, Ledger, Spool

log = logging.getLogger("farebox")

LATE_SECONDS = 1.0
"""How long to wait between two tries."""

DOUBT_SECONDS = 60.0
"""How long a hold may still appear in the books after its transaction got no answer: the database rolls a silent
transaction back after 48 s."""

DOUBT_SECONDS_MAX = 86_400.0
"""But a commit that waits for a standby ends when that is back, however late. So the hold is looked for again, each
time after twice as long, up to this."""


class LateSettlements:
    """The queue of late settlements, in the order in which they came."""

    def __init__(self, ledger: Ledger, spool: Spool | None = None, doubt_seconds: float = DOUBT_SECONDS) -> None:
        self._ledger = ledger
        self._spool = spool
        self._waiting: deque[Settle] = deque()
        self._doubt_seconds = doubt_seconds
        self._doubtful: list[tuple[float, float, str, Settle]] = []
        self._strange: set[str] = set()
        self._put_off: set[str] = set()

    async def add(self, settle: Settle) -> None:
        """Queue a settlement. It is on disk when this returns, where there is a spool."""
        self._waiting.append(settle)
        if self._spool is not None:
            await self._spool.add(settle)

    @property
    def waiting(self) -> int:
        return len(self._waiting)

    async def run(self) -> None:
        """Settle what waits here, and what processes that died have left, as soon as the books take it. Runs until
        cancelled. To settle a hold twice is harmless. One that fails in a way that nobody foresaw goes behind the
        others, so that it does not hold them up when this is called again."""
        while True:
            with suppress(BooksUnavailable):
                await self._take_over()
                while self._waiting:
                    try:
                        await self._settle(self._waiting[0])
                    except BaseException:
                        # The next try begins with another: what the books refuse holds up nobody else.
                        self._waiting.rotate(-1)
                        raise
                    self._waiting.popleft()
                    if not self._waiting and self._spool is not None:
                        self._spool.clear()
                while self._doubtful and self._doubtful[0][0] <= monotonic():
                    _, waited, _, settle = self._doubtful[0]
                    outcome = await self._carry_out(settle)
                    heappop(self._doubtful)
                    if isinstance(outcome, NoSuchRow):
                        self._doubt(settle, 2 * waited)
            await asyncio.sleep(LATE_SECONDS)

    async def _settle(self, settle: Settle) -> None:
        outcome = await self._carry_out(settle)
        # Where nobody knew whether the hold was placed, it may still appear.
        if isinstance(outcome, NoSuchRow) and settle.verdict == Nothing():
            self._doubt(settle, self._doubt_seconds)

    async def _carry_out(self, settle: Settle) -> Outcome:
        # Or what has counted against limits since it ended would seem to be of a clock that was ahead.
        settle.booked_us = clock.now_us()
        return await self._ledger.carry_out(settle)

    def _doubt(self, settle: Settle, seconds: float) -> None:
        if seconds <= DOUBT_SECONDS_MAX:
            heappush(self._doubtful, (monotonic() + seconds, seconds, settle.hold_id, settle))

    async def _take_over(self) -> None:
        if self._spool is None:
            return
        for name, settles in self._spool.left_behind():
            if name in self._strange:
                continue
            try:
                outcomes = [await self._carry_out(settle) for settle in settles]
            except BooksUnavailable as error:
                # One of them may be refused for good, which must hold up nothing else.
                if name not in self._put_off:
                    self._put_off.add(name)
                    log.warning("settlements kept as %s cannot be booked yet: %s", name, error)
                continue
            # A void may name a hold that never was. Any other settlement has its hold in the books it belongs to.
            if any(
                isinstance(outcome, NoSuchRow) and settle.verdict != Nothing()
                for settle, outcome in zip(settles, outcomes, strict=True)
            ):
                self._strange.add(name)
                log.error("settlements kept as %s are of other books; they stay there", name)
                continue
            log.warning("%d settlements of a process that died are booked", len(settles))
            self._spool.remove(name)
