"""A thread for what blocks: a database, a disk. It does one piece of work after the other.

A piece that never ends blocks no stop: the thread is left behind, and goes with the process.
"""

import asyncio
import threading
from collections.abc import Callable
from concurrent.futures import Future
from contextlib import suppress
from queue import SimpleQueue
from typing import Any, TypeVar

T = TypeVar("T")

CLOSE_SECONDS = 5.0
"""How long a stop waits for the work under way: some more than a commit takes on a busy disk."""

_Piece = tuple["Future[Any]", Callable[[], Any]]


class Worker:
    """The thread; it begins with its first work."""

    def __init__(self, name: str) -> None:
        self._pieces: SimpleQueue[_Piece | None] = SimpleQueue()
        self._thread = threading.Thread(target=self._run, name=name, daemon=True)
        self._has_begun = False

    async def do(self, work: Callable[[], T]) -> T:
        """What the work gives, or raises. Work that was not begun when the wait is cancelled is not done."""
        future: Future[T] = Future()
        self._pieces.put((future, work))
        if not self._has_begun:
            self._has_begun = True
            self._thread.start()
        return await asyncio.wrap_future(future)

    async def close(self, last: Callable[[], object] | None = None) -> None:
        """Do what was asked for before, and `last`; wait for that for a bounded time."""
        if last is not None:
            with suppress(TimeoutError):
                async with asyncio.timeout(CLOSE_SECONDS):
                    await self.do(last)
        self._pieces.put(None)

    def _run(self) -> None:
        while (piece := self._pieces.get()) is not None:
            _carry_out(*piece)
            # Nothing of it is kept until the next one comes.
            del piece


def _carry_out(future: "Future[Any]", work: Callable[[], Any]) -> None:
    if not future.set_running_or_notify_cancel():
        return
    try:
        future.set_result(work())
    except BaseException as error:  # noqa: BLE001 - the edge of the thread, which must outlive it: who asked is told
        future.set_exception(error)
