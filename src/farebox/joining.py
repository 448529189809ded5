"""Orders that are sent again without an idempotency key, and join the order that they repeat.

Proxies give up on an answer that takes long, and SDKs then send the same bytes again: a second order for one call. Here
a repeat waits for the end of the first, or is handed the answer that was kept because nobody was there to take it. By
what an order is found again stands in its hold's own row: one that is not repeated costs no transaction more. The rules
are in `core.repeats`.
"""

import asyncio
from collections import deque
from collections.abc import Awaitable, Callable, Sequence
from contextlib import suppress
from time import monotonic
from typing import TypeVar

from msgspec import Struct
from msgspec.structs import replace

from farebox import clock
from farebox.admission import Admission
from farebox.core.books import First, HoldRow, KeepAnswer, KeptAnswer, Repeated, Settle, Sought
from farebox.core.callers import Caller
from farebox.core.errors import Refusal
from farebox.core.formats.videos import begun
from farebox.core.repeats import REPEAT_LIFE_US, Joins, becomes, is_repeat, order_digest, still_under_way
from farebox.ports import BooksUnavailable, CallerGone, Ledger, Taker, Waiting

T = TypeVar("T")

JOINS_MAX = 5
"""How many orders a repeat joins, one after another, each of which turns out not to have been served: then its caller
is told to come back."""

WAIT_SECONDS = 300.0
"""How long a repeat waits for the order that it joins, where nothing else is set: as an order for its answer."""

POLL_SECONDS = 0.1
"""How often the books are looked into for all repeats together that wait for one order here."""

LOOK_AGAIN_SECONDS = (0.1, 0.2, 0.4, 0.8, 1.6)
"""The pauses between the looks for an order that has ended at another process, which may be about to note that nobody
took its answer. Who repeats it has left before, so a commit is all that is missing, but of a machine that may be
overloaded."""

LEFT_SECONDS = 0.15
"""How long an order is held back whose caller may have gone already: who has gone has told it by then, and it is not
sent."""

FORGET_SECONDS = 60
LATE_SECONDS = 0.1
"""How long to wait before books that could not be written are tried again. Short, since a repeat at another node waits
no longer for what is to be written than LOOK_AGAIN_SECONDS."""

WHOLE = "application/json"
"""What a whole answer is."""


class Sent(Struct):
    """An order as it may be sent again: its digest, whether it says that it is a repeat (`is_marked`) or may be one
    (`may_join`), whether its caller counts its tries (`is_counted`), and its caller."""

    digest: bytes
    is_marked: bool
    may_join: bool
    is_counted: bool
    waiting: Waiting | None = None
    taker: Taker | None = None
    is_waiting: bool = False

    def begin_waiting(self) -> None:
        """Keep the caller informed from now on: its order is under way. Raises CallerGone."""
        if self.waiting is not None and not self.is_waiting:
            self.is_waiting = True
            self.waiting.sending([], streamed=False)

    def has_no_taker(self) -> bool:
        """Whether its caller has gone, or may have."""
        return self.taker is not None and self.taker.may_have_gone()

    def may_come_late(self) -> bool:
        """Whether its caller, who sends it again, may have gone before it is served: its repeat may have been served
        already."""
        return self.is_counted and self.has_no_taker()


class _Note(Struct, eq=False):
    """What is to be written of an order, by whose `digest` its repeats look for it."""

    digest: bytes
    write: Callable[[], Awaitable[object]]

    async def try_to_write(self) -> Exception | None:
        """Why it could not be written, if it could not."""
        try:
            await self.write()
        except Exception as error:  # noqa: BLE001 - it is raised where all have been tried
            return error
        return None


class Joining:
    """Finds the orders that others repeat, and waits for them. One of the repeats of one order looks into the books,
    the others here wait for what it finds, so that a thousand of them are no more work than one. They wait aside: they
    do not count as orders that are being served."""

    def __init__(
        self,
        ledger: Ledger,
        admission: Admission,
        joins: Joins = "marked",
        wait_seconds: float = WAIT_SECONDS,
        now_us: Callable[[], int] = clock.now_us,
        look_again_seconds: Sequence[float] = LOOK_AGAIN_SECONDS,
    ) -> None:
        self._ledger = ledger
        self._admission = admission
        self._joins = joins
        self._wait_seconds = wait_seconds
        self._now_us = now_us
        self._look_again_seconds = look_again_seconds
        self._leading: dict[tuple[int, bytes, bool], asyncio.Future[_Found]] = {}
        self._to_write: deque[_Note] = deque()
        self._has_to_write = asyncio.Event()
        self._writing = asyncio.Lock()

    def read(
        self, path: str, body: bytes, retry_count: bytes, waiting: Waiting | None, taker: Taker | None
    ) -> Sent | None:
        """By what a whole order without an idempotency key is recognized; None where no order is."""
        if self._joins == "off":
            return None
        is_marked = retry_count != b"" and is_repeat(retry_count)
        may_join = is_marked or self._joins == "unmarked"
        return Sent(order_digest(path, body), is_marked, may_join, retry_count != b"", waiting, taker)

    async def join(
        self, caller: Caller, sent: Sent, place: Callable[[], Awaitable[T | Repeated]]
    ) -> T | tuple[HoldRow, KeptAnswer]:
        """The order that this one repeats, and its answer; or, where there is none, what it became when it was placed
        itself: once for all that wait here for the same.

        Raises:
            Refusal: it was not placed; or 410, the answer is lost; 409, the first has not ended in time.
            BooksUnavailable: it cannot be looked for, or placed, now.
            CallerGone: nobody waits any more.
        """
        due = monotonic() + self._wait_seconds
        name = (caller.key.id, sent.digest, sent.is_marked)
        for _ in range(JOINS_MAX):
            if (leading := self._leading.get(name)) is not None:
                sent.begin_waiting()
                with self._admission.aside(caller.account.id):
                    await asyncio.wait({leading}, timeout=max(0.0, due - monotonic()))
                found = leading.result() if leading.done() else still_under_way()
                if isinstance(found, Exception):
                    raise found
                if found is not None:
                    return self._answer(found, sent)
                continue
            leading = self._leading[name] = asyncio.get_running_loop().create_future()
            found = None
            try:
                with self._admission.aside(caller.account.id):
                    found = await self._look_for(caller, sent, due)
                if found is not None:
                    return self._answer(found, sent)
                placed = await place()
                if not isinstance(placed, Repeated):
                    return placed
                # Another repeat of the same order was placed a moment ago, at another node: that one is joined.
            except (Refusal, BooksUnavailable) as error:
                found = error
                raise
            finally:
                del self._leading[name]
                leading.set_result(found)
        raise still_under_way()

    def _answer(self, first: First, sent: Sent) -> tuple[HoldRow, KeptAnswer]:
        assert first.body is not None, first.hold
        if self._joins == "unmarked" and not sent.has_no_taker():
            # Undelivered no more: it is not given to one that does not ask for it.
            self._write(sent, lambda: self._ledger.give_undelivered(first.hold.id, self._now_us()))
        return first.hold, KeptAnswer(first.hold.id, WHOLE, first.body)

    async def _look_for(self, caller: Caller, sent: Sent, due: float) -> First | None:
        sought = Sought(caller.account.id, caller.key.id, sent.digest, sent.is_marked, self._now_us())
        hold_id = await self._find(sought, sent)
        if hold_id is None:
            return None
        while True:
            first = _with_job(await self._ledger.first(hold_id))
            become = becomes(first)
            if become != "waiting":
                return first if become == "answered" else None
            sent.begin_waiting()
            if monotonic() > due:
                raise still_under_way()
            await asyncio.sleep(POLL_SECONDS)

    async def _find(self, sought: Sought, sent: Sent) -> str | None:
        """The hold of the order that is joined. What is not there yet, and may come to be known, is waited for."""
        pauses = iter(self._look_again_seconds)
        while True:
            await self.write_down()
            seen = await self._ledger.find_first(sought)
            # Who has left here may have come to be known as such meanwhile.
            may_follow = seen.may_follow or any(note.digest == sought.order_digest for note in self._to_write)
            pause = next(pauses, None)
            if seen.hold_id is not None or not may_follow or pause is None:
                return seen.hold_id
            await asyncio.sleep(pause)
            if sent.taker is not None and sent.taker.has_gone():
                raise CallerGone

    def placed(self, hold_id: str, sent: Sent) -> None:
        """An order is under way. Where repeats need not say that they are some, it is written down for them if its
        caller goes."""
        if self._joins == "unmarked" and sent.taker is not None:
            sent.taker.tell_if_lost(lambda: self._write(sent, lambda: self._ledger.mark_lost(hold_id)))

    def keep_if_lost(self, settle: Settle, sent: Sent) -> None:
        """What is about to be booked and sent is kept where its caller turns out not to have taken it."""
        if sent.taker is None:
            return
        body = None if settle.answer is None else settle.answer.body

        def keep() -> None:
            # Where it is not booked yet, the two are one: no repeat at another node looks in between.
            settle.is_unheard = True
            self._write(sent, lambda: self._ledger.carry_out(KeepAnswer(settle.hold_id, body)))

        sent.taker.tell_if_lost(keep, 0 if body is None else len(body))

    def _write(self, sent: Sent, write: Callable[[], Awaitable[object]]) -> None:
        self._to_write.append(_Note(sent.digest, write))
        self._has_to_write.set()

    async def write_down(self) -> None:
        """Write down what is to be, all of it at once: each for itself would wait for a commit of its own. Raises
        BooksUnavailable. What fails stays, and holds up nothing else."""
        async with self._writing:
            while self._to_write:
                notes = list(self._to_write)
                failures = await asyncio.gather(*(note.try_to_write() for note in notes))
                for note, failure in zip(notes, failures, strict=True):
                    self._to_write.popleft()
                    if failure is not None:
                        self._to_write.append(note)
                if failed := [failure for failure in failures if failure is not None]:
                    raise failed[0]

    async def run(self) -> None:
        """Write down what is to be, as soon as the books take it, and drop what was kept for long enough. Runs until
        cancelled."""
        forget_at = 0.0
        while True:
            with suppress(BooksUnavailable):
                if monotonic() >= forget_at:
                    forget_at = monotonic() + FORGET_SECONDS
                    await self._ledger.forget_undelivered(self._now_us() - REPEAT_LIFE_US)
                await self.write_down()
            with suppress(TimeoutError):
                async with asyncio.timeout(LATE_SECONDS if self._to_write else FORGET_SECONDS):
                    await self._has_to_write.wait()
            self._has_to_write.clear()


def _with_job(first: First) -> First:
    """An order that began a job is answered by the job's name, which is in the books; its answer had no more to say."""
    job_id = first.hold.job_id
    return first if first.body is not None or job_id is None else replace(first, body=begun(job_id))


_Found = First | None | Refusal | BooksUnavailable
"""What one repeat found for the others here; None where they are to look again."""
