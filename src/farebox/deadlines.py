"""Many deadlines, one timer.

A timer for every wait of every order would cost as much as the metering. One timer checks them all, a few times a
second, so a deadline may be noticed up to a tick late.
"""

import asyncio
import math
from time import monotonic
from types import TracebackType
from typing import Protocol

TICK_SECONDS = 0.25

NEVER = math.inf


class Wait(Protocol):
    """Something that must not last beyond `due` (monotonic seconds)."""

    due: float

    def expire(self) -> None:
        """Called once, when `due` has passed: end the wait."""


class Deadlines:
    """The waits of one event loop, and their timer."""

    def __init__(self, tick_seconds: float = TICK_SECONDS) -> None:
        self._tick_seconds = tick_seconds
        self._waits: set[Wait] = set()
        self._is_armed = False

    def within(self, seconds: float) -> "_Within":
        """For `async with`: raises TimeoutError where the block takes longer."""
        return _Within(self, seconds)

    def add(self, wait: Wait) -> None:
        """Watch a wait until it is discarded or has expired. Its `due` may change meanwhile."""
        self._waits.add(wait)
        if not self._is_armed:
            self._is_armed = True
            asyncio.get_running_loop().call_later(self._tick_seconds, self._look)

    def discard(self, wait: Wait) -> None:
        self._waits.discard(wait)

    def _look(self) -> None:
        now = monotonic()
        due = [wait for wait in self._waits if wait.due <= now]
        self._is_armed = len(self._waits) > len(due) or len(due) > 1
        if self._is_armed:
            # First: an `expire` that fails must not stop the timer, and those behind it come at the next tick.
            asyncio.get_running_loop().call_later(self._tick_seconds, self._look)
        for wait in due:
            self._waits.discard(wait)
            wait.expire()


class _Within:
    """As `asyncio.timeout`: tells its own cancellation of the task from those by others."""

    __slots__ = ("_cancellations", "_deadlines", "_has_expired", "_task", "due")

    def __init__(self, deadlines: Deadlines, seconds: float) -> None:
        self._deadlines = deadlines
        self._has_expired = False
        self.due = monotonic() + seconds

    async def __aenter__(self) -> None:
        task = asyncio.current_task()
        assert task is not None
        self._task = task
        self._cancellations = task.cancelling()
        self._deadlines.add(self)

    async def __aexit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self._deadlines.discard(self)
        if self._has_expired and self._task.uncancel() <= self._cancellations and kind is asyncio.CancelledError:
            raise TimeoutError from error

    def expire(self) -> None:
        self._has_expired = True
        self._task.cancel()
