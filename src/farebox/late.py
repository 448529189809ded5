"""Settlements that the books could not take at their time: kept here and on disk, and booked as soon as they can be."""

import asyncio
import logging
from collections import deque
from contextlib import suppress

from farebox.core.ledger import NoSuchRow, Settle
from farebox.core.usage import Nothing
from farebox.ports import BooksUnavailable, Ledger, Spool

log = logging.getLogger("farebox")

LATE_SECONDS = 1.0
"""How often it is tried."""


class Late:
    """What is to be settled late, in the order in which it came."""

    def __init__(self, ledger: Ledger, spool: Spool | None = None) -> None:
        self._ledger = ledger
        self._spool = spool
        self._waiting: deque[Settle] = deque()
        self._strange: set[str] = set()

    async def add(self, settle: Settle) -> None:
        """One more; on disk when this returns."""
        self._waiting.append(settle)
        if self._spool is not None:
            await self._spool.add(settle)

    @property
    def waiting(self) -> int:
        return len(self._waiting)

    async def run(self) -> None:
        """Settle, once the books are back, what waits here and what processes left that died meanwhile. Runs until
        cancelled. To settle a second time is harmless."""
        while True:
            with suppress(BooksUnavailable):
                await self._take_over()
                while self._waiting:
                    await self._ledger.carry_out(self._waiting[0])
                    self._waiting.popleft()
                    if not self._waiting and self._spool is not None:
                        self._spool.clear()
            await asyncio.sleep(LATE_SECONDS)

    async def _take_over(self) -> None:
        if self._spool is None:
            return
        for name, settles in self._spool.left_behind():
            if name in self._strange:
                continue
            outcomes = [await self._ledger.carry_out(settle) for settle in settles]
            # To void a hold that never came about is nothing; what cost something has its hold in the books it is of.
            if any(
                isinstance(outcome, NoSuchRow) and settle.verdict != Nothing()
                for settle, outcome in zip(settles, outcomes, strict=True)
            ):
                self._strange.add(name)
                log.error("settlements kept as %s are of other books; they stay there", name)
                continue
            log.warning("%d settlements of a process that died are booked", len(settles))
            self._spool.remove(name)
