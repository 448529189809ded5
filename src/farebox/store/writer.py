"""Group commit: one thread takes the commands that have queued, and one transaction makes them durable together.

An order's two durable writes cost one fsync each only while nobody else is waiting; under load many share it.
"""

import asyncio
import threading
from collections.abc import Callable
from queue import Empty, SimpleQueue

from farebox.core.ledger import Command, Outcome, PlaceHold
from farebox.ports import BooksUnavailable

BATCH_MAX = 512
"""Commands in one transaction: what a late one waits for is bounded."""

QUEUED_MAX = 10_000
"""Commands that wait at once before no new hold is taken: some seconds of work."""

Commit = Callable[[list[Command]], list[Outcome | Exception]]
_Waiting = tuple[Command, "asyncio.Future[Outcome]"]


class GroupWriter:
    """Owns the thread. `commit` runs on it only, and gives an outcome or an exception for each command."""

    def __init__(self, commit: Commit, name: str) -> None:
        self._commit = commit
        self._queue: SimpleQueue[_Waiting | None] = SimpleQueue()
        self._loop = asyncio.get_running_loop()
        self._closed = False
        self._thread = threading.Thread(target=self._run, name=name)
        self._thread.start()

    def submit(self, command: Command) -> "asyncio.Future[Outcome]":
        """Queue a command; it will be carried out even if nobody waits for the future.

        Raises:
            BooksUnavailable: the books are closed; or too much has queued, and the command would begin an order. What
                ends one is always taken: there is no more of that than there were orders.
        """
        if self._closed:
            raise BooksUnavailable("the books are closed")
        if isinstance(command, PlaceHold) and self.queued >= QUEUED_MAX:
            raise BooksUnavailable(f"{QUEUED_MAX} commands wait for the books already")
        future: asyncio.Future[Outcome] = self._loop.create_future()
        self._queue.put((command, future))
        return future

    @property
    def queued(self) -> int:
        """Commands that wait."""
        return self._queue.qsize()

    async def close(self) -> None:
        """Carry out what has queued, then stop."""
        if not self._closed:
            self._closed = True
            self._queue.put(None)
        await asyncio.to_thread(self._thread.join)

    def _run(self) -> None:
        is_open = True
        while is_open:
            batch, is_open = self._take()
            if batch:
                outcomes = self._commit([command for command, _ in batch])
                futures = [future for _, future in batch]
                try:
                    self._loop.call_soon_threadsafe(_deliver, futures, outcomes)
                except RuntimeError:
                    # The loop has closed: what was asked is in the books, and nobody is left to be told.
                    continue

    def _take(self) -> tuple[list[_Waiting], bool]:
        """All that has queued, waiting for the first; and whether more may come."""
        batch: list[_Waiting] = []
        item = self._queue.get()
        while item is not None:
            batch.append(item)
            if len(batch) == BATCH_MAX:
                return batch, True
            try:
                item = self._queue.get_nowait()
            except Empty:
                return batch, True
        return batch, False


def _deliver(futures: "list[asyncio.Future[Outcome]]", outcomes: list[Outcome | Exception]) -> None:
    for future, outcome in zip(futures, outcomes, strict=True):
        if future.cancelled():
            continue
        if isinstance(outcome, Exception):
            future.set_exception(outcome)
        else:
            future.set_result(outcome)
