"""Many deadlines, one timer.

A timer for every wait of every order would cost as much as the metering. One timer looks a few times a second at the
waits that are due soon, and now and then at all of them; so a deadline may be noticed up to a tick late.
"""

import asyncio
import math
from time import monotonic
from types import TracebackType
from typing import Protocol

TICK_SECONDS = 0.25

SORTED_AFTER_TICKS = 8
"""How many ticks lie between looks at all waits. Thousands of open streams have two each, hardly one of them due soon,
and a look at each took an eighth of what their events cost."""

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
        self._near: set[Wait] = set()
        self._far: set[Wait] = set()
        self._ticks = 0
        self._is_armed = False

    def within(self, seconds: float) -> "_Within":
        """For `async with`: raises TimeoutError where the block takes longer."""
        return _Within(self, seconds)

    def add(self, wait: Wait) -> None:
        """Watch a wait until it is discarded or has expired. Meanwhile its `due` may be put off; who brings it nearer
        adds it again."""
        self._near.add(wait)
        if not self._is_armed:
            self._is_armed = True
            asyncio.get_running_loop().call_later(self._tick_seconds, self._look)

    def discard(self, wait: Wait) -> None:
        self._near.discard(wait)
        self._far.discard(wait)

    def _look(self) -> None:
        now = monotonic()
        self._ticks += 1
        if self._ticks % SORTED_AFTER_TICKS == 0:
            self._sort(now + SORTED_AFTER_TICKS * self._tick_seconds)
        due = [wait for wait in self._near if wait.due <= now]
        self._is_armed = len(due) > 1 or len(self._near) > len(due) or bool(self._far)
        if self._is_armed:
            # First: an `expire` that fails must not stop the timer, and those behind it come at the next tick.
            asyncio.get_running_loop().call_later(self._tick_seconds, self._look)
        for wait in due:
            self.discard(wait)
            wait.expire()

    def _sort(self, far_from: float) -> None:
        every = self._near | self._far
        self._near = {wait for wait in every if wait.due <= far_from}
        self._far = every - self._near


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
