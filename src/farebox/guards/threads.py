"""Threads for guards that block: a few, begun as they are needed. One that never comes back is left behind: it holds up
no stop, and one thread less serves the others."""

import asyncio
import threading
from collections.abc import Callable
from concurrent.futures import Future
from queue import SimpleQueue
from typing import Any, TypeVar

T = TypeVar("T")

THREADS_MAX = 8


class Threads:
    """At most THREADS_MAX of them; what is asked of more at once waits."""

    def __init__(self, name: str) -> None:
        self._name = name
        self._pieces: SimpleQueue[tuple[Future[Any], Callable[[], Any]]] = SimpleQueue()
        self._idle = threading.Semaphore(0)
        self._begun = 0

    async def do(self, work: Callable[[], T]) -> T:
        """What the work gives, or raises. Work that was not begun when the wait is cancelled is not done."""
        future: Future[T] = Future()
        self._pieces.put((future, work))
        if not self._idle.acquire(blocking=False) and self._begun < THREADS_MAX:
            self._begun += 1
            threading.Thread(target=self._run, name=f"{self._name}-{self._begun}", daemon=True).start()
        return await asyncio.wrap_future(future)

    def _run(self) -> None:
        while True:
            future, work = self._pieces.get()
            if future.set_running_or_notify_cancel():
                try:
                    future.set_result(work())
                except BaseException as error:  # noqa: BLE001 - the edge of the thread: who asked is told
                    future.set_exception(error)
            del future, work
            self._idle.release()
