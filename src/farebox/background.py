"""Background tasks. None dies in silence: one that fails in a way that nobody foresaw is logged and counted, and begins
again after a pause.
"""

import asyncio
import logging
import signal
from collections.abc import AsyncIterator, Awaitable, Callable
from contextlib import asynccontextmanager
from dataclasses import dataclass
from time import monotonic

log = logging.getLogger("farebox")

PAUSE_FIRST_SECONDS = 0.5
PAUSE_LONGEST_SECONDS = 30.0
"""How long a task pauses that failed: twice as long each time, but never longer than this."""

WELL_SECONDS = 60.0
"""A task that failed after so long had been well: its next pause is the first again."""

Work = Callable[[], Awaitable[None]]


@dataclass(frozen=True, slots=True)
class Task:
    """A task that runs until it is cancelled, or until its work is done where that `has_end`. `name` stands in the log,
    in metrics and in `/readyz`.

    `harm` is what becomes of orders while it does not run, where they suffer: then the gateway is not ready. After the
    errors in `fatal` nothing more may be served.
    """

    name: str
    work: Work
    harm: str = ""
    fatal: tuple[type[Exception], ...] = ()
    has_end: bool = False


class Supervisor:
    """Runs tasks, each again after it failed. `counted` is told a task's name and how many failures to add: 0 when it
    begins, so that its first failure is seen to be one more."""

    def __init__(
        self,
        counted: Callable[[str, int], None],
        pause_first_seconds: float = PAUSE_FIRST_SECONDS,
        pause_longest_seconds: float = PAUSE_LONGEST_SECONDS,
        well_seconds: float = WELL_SECONDS,
    ) -> None:
        self._counted = counted
        self._pause_first_seconds = pause_first_seconds
        self._pause_longest_seconds = pause_longest_seconds
        self._well_seconds = well_seconds
        self._pausing: list[Task] = []

    @property
    def not_running(self) -> list[Task]:
        """The tasks that failed and have not begun again."""
        return list(self._pausing)

    @asynccontextmanager
    async def running(self, *tasks: Task) -> AsyncIterator[None]:
        """Run tasks for as long as the block runs. At its end they are cancelled, and waited for."""
        begun = [asyncio.create_task(self.keep(task)) for task in tasks]
        try:
            yield
        finally:
            for each in begun:
                each.cancel()
            if begun:
                await asyncio.wait(begun)

    async def keep(self, task: Task) -> None:
        """Run one task, again and again."""
        self._counted(task.name, 0)
        pause_seconds = self._pause_first_seconds
        while True:
            began = monotonic()
            try:
                await task.work()
                if task.has_end:
                    return
                raise RuntimeError(f"the task {task.name} has come to an end, and should have none")
            except task.fatal as error:
                log.critical("the task %s ends, and the server with it", task.name, exc_info=error)
                signal.raise_signal(signal.SIGTERM)
                return
            except Exception as error:  # noqa: BLE001 - the edge of the process: nobody else would hear of it
                if monotonic() - began >= self._well_seconds:
                    pause_seconds = self._pause_first_seconds
                self.failed(task.name, error, f"; it begins again in {pause_seconds:g} s")
            self._pausing.append(task)
            try:
                await asyncio.sleep(pause_seconds)
            finally:
                self._pausing.remove(task)
            pause_seconds = min(2 * pause_seconds, self._pause_longest_seconds)

    def failed(self, name: str, error: BaseException, then: str = "") -> None:
        """Log and count a failure of what somebody else begins again."""
        self._counted(name, 1)
        log.error("the task %s failed in a way that nobody foresaw%s", name, then, exc_info=error)
