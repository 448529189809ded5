"""Group commit: the commands that have queued go to one thread, and one transaction makes them durable together.

An order's two durable writes cost one fsync each only while nobody else is waiting; under load many share it. What a
transaction costs, and waking the thread and the loop for it, is shared, too: so there is one at a time, and what comes
meanwhile queues for the next.
"""

import asyncio
import math
import threading
from collections import deque
from collections.abc import Callable
from itertools import chain
from queue import SimpleQueue
from time import monotonic

from msgspec import Struct

from farebox.core.books import Command, Outcome, PlaceHold
from farebox.deadlines import TICK_SECONDS
from farebox.ports import BooksUnavailable
from farebox.store.engine import ANSWER_SECONDS
from farebox.store.threads import CLOSE_SECONDS

BATCH_MAX = 512
"""Commands in one transaction: what a late one waits for is bounded."""

MANY = 4
"""Where the last transaction had so many commands, the next one waits for more of them. Who is alone never waits."""

GATHER_SECONDS = 0.003
"""And how long it waits: a fraction of what a model's answer takes."""

QUEUED_MAX = 10_000
"""Commands that wait at once before no new hold is taken: some seconds of work."""

ENDING_TIMES = 1.5
"""What ends an order waits so much longer than what begins one: an answer is there that was paid for, and is lost to
its caller where it cannot be booked."""

HEARD_SECONDS = 3.0
"""Books that took a command so short a while ago need not be asked whether they answer."""

ASK_SECONDS = 1.0
"""How long that question may take: as long as an orchestrator's probe waits by default."""

Commit = Callable[[list[Command]], list[Outcome | Exception]]
Look = Callable[[], Exception | None]


class _Waiting(Struct, eq=False):
    """A command, and who waits for its outcome, until when."""

    command: Command
    future: asyncio.Future[Outcome]
    due: float
    is_begun: bool = False
    is_withdrawn: bool = False


_Question = asyncio.Future[Exception | None]
"""Why the books cannot be written, if they cannot."""


class GroupWriter:
    """Owns the thread. `commit` and `look` run on it only: the first gives an outcome or an exception for each command,
    the second why the books cannot be written, if they cannot. `answer_seconds` is how long a hold waits."""

    def __init__(
        self, commit: Commit, name: str, look: Look = lambda: None, answer_seconds: float = ANSWER_SECONDS
    ) -> None:
        self._commit = commit
        self._look = look
        self._answer_seconds = answer_seconds
        self._queued: list[_Waiting] = []
        self._begun: deque[list[_Waiting]] = deque()
        self._work: SimpleQueue[list[_Waiting] | _Question | None] = SimpleQueue()
        self._is_busy = False
        self._loop = asyncio.get_running_loop()
        self._is_watched = False
        self._closed = False
        self._give_up_at = math.inf
        self._heard_at = -math.inf
        self._question: _Question | None = None
        # Books that never answer must not keep the process from ending: what was begun is as after a kill.
        self._thread = threading.Thread(target=self._run, name=name, daemon=True)
        self._thread.start()

    def submit(self, command: Command) -> "asyncio.Future[Outcome]":
        """Queue a command; it will be carried out even if nobody waits for the future, which raises BooksUnavailable
        where the books do not answer in time. A hold that was not begun by then is withdrawn.

        Raises:
            BooksUnavailable: the books are closed; or too much has queued, and the command would begin an order. What
                ends one is always taken: there is no more of that than there were orders.
        """
        if self._closed:
            raise BooksUnavailable("the books are closed")
        seconds = self._answer_seconds
        if type(command) is not PlaceHold:
            seconds *= ENDING_TIMES
        elif len(self._queued) >= QUEUED_MAX:
            raise BooksUnavailable(f"{QUEUED_MAX} commands wait for the books already")
        future: asyncio.Future[Outcome] = self._loop.create_future()
        self._queued.append(_Waiting(command, future, monotonic() + seconds))
        if not self._is_watched:
            self._watch()
        if not self._is_busy:
            self._is_busy = True
            self._begin()
        return future

    async def ask(self) -> None:
        """Return where the books can be written, or could be a moment ago. Raises BooksUnavailable, soon."""
        if self._closed:
            raise BooksUnavailable("the books are closed")
        if monotonic() - self._heard_at < HEARD_SECONDS:
            return
        if self._question is None or self._question.done():
            self._question = self._loop.create_future()
            self._work.put(self._question)
        # Whoever asks meanwhile waits for the same answer.
        await asyncio.wait({self._question}, timeout=ASK_SECONDS)
        if not self._question.done():
            raise BooksUnavailable("the books do not answer")
        if failure := self._question.result():
            raise failure

    @property
    def queued(self) -> int:
        """Commands that wait."""
        return len(self._queued)

    def _watch(self) -> None:
        """Look now and then for what has waited for too long: a deadline for each command would cost it more than
        that."""
        self._is_watched = True
        self._loop.call_later(TICK_SECONDS, self._look_for_late)

    def _look_for_late(self) -> None:
        now = monotonic()
        for waiting in chain(self._queued, *self._begun):
            if waiting.due <= now:
                _give_up(waiting)
        self._is_watched = False
        if self._queued or self._begun:
            self._watch()

    async def close(self) -> bool:
        """Carry out what has queued, as far as the books take it within CLOSE_SECONDS, then stop; whether the thread
        has come to its end."""
        if not self._closed:
            self._give_up_at = monotonic() + CLOSE_SECONDS
            self._closed = True
            while self._queued:
                self._begin()
            self._work.put(None)
        await asyncio.to_thread(self._thread.join, 2 * CLOSE_SECONDS)
        return not self._thread.is_alive()

    def _begin(self) -> None:
        """Hand what has queued to the thread: one transaction's worth of it, without what was withdrawn."""
        while self._queued:
            batch, self._queued = self._queued[:BATCH_MAX], self._queued[BATCH_MAX:]
            for waiting in batch:
                waiting.is_begun = not waiting.is_withdrawn
            if batch := [waiting for waiting in batch if waiting.is_begun]:
                self._begun.append(batch)
                self._work.put(batch)
                return
        self._is_busy = False

    def _run(self) -> None:
        while (work := self._work.get()) is not None:
            try:
                if isinstance(work, list):
                    self._loop.call_soon_threadsafe(self._deliver, work, self._carry_out(work))
                else:
                    self._loop.call_soon_threadsafe(work.set_result, self._failure())
            except RuntimeError:
                # The loop has closed: what was asked is in the books, and nobody is left to be told.
                continue

    def _carry_out(self, batch: list[_Waiting]) -> list[Outcome | Exception]:
        if self._closed and monotonic() > self._give_up_at:
            return [BooksUnavailable("the books are closed")] * len(batch)
        outcomes = self._commit([waiting.command for waiting in batch])
        if not isinstance(outcomes[0], Exception):
            self._heard_at = monotonic()
        return outcomes

    def _failure(self) -> Exception | None:
        """Why the books cannot be written, if they cannot."""
        if monotonic() - self._heard_at < HEARD_SECONDS:
            return None
        failure = self._look()
        if failure is None:
            self._heard_at = monotonic()
        return failure

    def _deliver(self, batch: list[_Waiting], outcomes: list[Outcome | Exception]) -> None:
        self._begun.popleft()
        if len(batch) >= MANY:
            self._loop.call_later(GATHER_SECONDS, self._begin)
        else:
            self._begin()
        for waiting, outcome in zip(batch, outcomes, strict=True):
            if waiting.future.done():
                continue
            if isinstance(outcome, Exception):
                waiting.future.set_exception(outcome)
            else:
                waiting.future.set_result(outcome)


def _give_up(waiting: _Waiting) -> None:
    """A command has waited for too long. What was begun may still come to be; what ends an order will."""
    waiting.is_withdrawn = not waiting.is_begun and isinstance(waiting.command, PlaceHold)
    if not waiting.future.done():
        waiting.future.set_exception(
            BooksUnavailable("the books did not answer in time", is_in_doubt=not waiting.is_withdrawn)
        )
