"""Reconciling: asking the upstream what open holds cost, and settling them. Until the cost is known, their money stays
set aside, and is neither charged nor given back.

The upstream is asked for its record of each, with back-off, for a day. When to ask next stands in the books, so no
question is lost with a process, and one process at a time asks it. Holds without an answer by then are for an operator
to decide. Where an order began a job, it is the job that is asked for, until it has ended: for a week.
"""

import asyncio
import logging
import time
from collections.abc import Awaitable, Callable
from decimal import Decimal

from msgspec.structs import replace

from farebox import acting, clock
from farebox.core.books import AskLater, Decision, HoldRow, NoSuchRow, Outcome, Settle
from farebox.core.formats.videos import Job
from farebox.core.questions import ASKS_MIN, next_ask_us, settlement_of
from farebox.core.upstream import AskedTooOften, Failed, NoRecords, NoSuchJob, NotYet, Recorded, Unreadable
from farebox.core.usage import Cost, Nothing, Unknown
from farebox.crash import crash_point
from farebox.ports import Books, BooksUnavailable, Ledger, UpstreamBroke, Upstreams, UpstreamUnreachable

log = logging.getLogger("farebox")

ASKED_AT_ONCE_MAX = 8
"""Questions to the upstream at the same time."""

CLAIM_SECONDS = 20
"""How long a question belongs to the process that claimed it: longer than the upstream may take to answer (15 s)."""

POLL_SECONDS = 0.25
JOB_SECONDS = 7 * 86_400
"""For how long a job is asked for: none is known to take longer than hours."""

ORPHANS_SECONDS = 5.0
"""How often to look for holds of processes that died."""

_ZERO = Cost(Decimal(0))

QUIET_SECONDS = 5.0
"""How long to ask nothing after the upstream said that it is asked too often, but not when to come back."""


class Reconciler:
    """Opens the holds of processes that died, asks what open holds cost, and settles them.

    `settled` is called with each verdict's kind (`cost`, `nothing`). `give_up_seconds` is the age of a hold after which
    nobody asks any more, 0: nothing is asked; `job_seconds` that of one whose job runs. `catch_up` writes down what the
    books could not take before: a worker whose lock was lost with its database is alive to the other nodes only after
    that, and until then its answers are lost to them.
    """

    def __init__(
        self,
        ledger: Ledger,
        upstreams: Upstreams,
        give_up_seconds: float,
        now_us: Callable[[], int] = clock.now_us,
        settled: Callable[[str], None] = lambda _: None,
        catch_up: Callable[[], Awaitable[None]] | None = None,
        job_seconds: float = JOB_SECONDS,
    ) -> None:
        self._ledger = ledger
        self._upstreams = upstreams
        self._catch_up = catch_up
        self._give_up_us = int(give_up_seconds * 1_000_000)
        self._job_us = int(job_seconds * 1_000_000)
        self._settled = settled
        self._now_us = now_us
        self._quiet_until_us = 0

    async def run(self) -> None:
        """Open orphans, and ask what is due, until cancelled."""
        orphans_at = 0.0
        while True:
            try:
                if time.monotonic() >= orphans_at:
                    orphans_at = time.monotonic() + ORPHANS_SECONDS
                    if self._catch_up is not None:
                        await self._catch_up()
                    await self._ledger.open_orphans()
                asked = await self.round()
            except BooksUnavailable as error:
                log.error("open holds wait for the books: %s", error)
                asked = 0
            if not asked:
                await asyncio.sleep(POLL_SECONDS)

    async def round(self) -> int:
        """Ask what is due now, and return how many questions that were. Raises BooksUnavailable."""
        now_us = self._now_us()
        if not self._give_up_us or now_us < self._quiet_until_us:
            return 0
        due = await self._ledger.claim_questions(now_us, now_us + CLAIM_SECONDS * 1_000_000, ASKED_AT_ONCE_MAX)
        outcomes = await asyncio.gather(*map(self._ask, due), return_exceptions=True)
        for outcome in outcomes:
            if isinstance(outcome, BaseException):
                # Questions without an answer are claimed, and are due again when the claim ends.
                raise outcome
        return len(due)

    async def _ask(self, hold: HoldRow) -> None:
        crash_point("ask:before")
        found = await (self._by_record(hold) if hold.job_id is None else self._by_job(hold))
        crash_point("ask:after")
        if isinstance(found, NoRecords):
            await self._ledger.carry_out(AskLater(hold.id, None, hold.reason or "the upstream keeps no records"))
        elif isinstance(found, Unknown):
            await self._ask_later(hold, found.reason)
        else:
            await self._ledger.carry_out(found)
            self._settled("cost" if isinstance(found.verdict, Cost) else "nothing")

    async def _by_record(self, hold: HoldRow) -> Settle | NoRecords | Unknown:
        """What the upstream's record of a generation settles."""
        record = await self._look_up(hold)
        if isinstance(record, NoRecords | Unknown):
            return record
        if isinstance(record.cost, Unknown):
            return record.cost
        return Settle(
            hold_id=hold.id,
            verdict=record.cost,
            created_us=self._now_us(),
            generation_id=hold.generation_id,
            served_model=record.model,
            prompt_tokens=record.prompt_tokens,
            answer_tokens=record.answer_tokens,
        )

    async def _by_job(self, hold: HoldRow) -> Settle | Unknown:
        """What the end of a job settles. Of one that does not say what it cost, or is not known there any more, the
        record of its generation may."""
        job = await self._job(hold)
        if isinstance(job, Unknown):
            return job
        generation_id = hold.generation_id
        if isinstance(job, NoSuchJob):
            why, has_ended = Unknown("the upstream does not know the job any more"), False
        elif not isinstance(job.verdict, Unknown):
            return settlement_of(hold, job, self._now_us())
        elif not job.has_ended:
            return job.verdict
        else:
            why, has_ended = job.verdict, True
            generation_id = job.generation_id or generation_id
        if generation_id is None:
            return why
        told = await self._by_record(replace(hold, generation_id=generation_id))
        # Of a job of which nobody knows whether it has ended, a record may say zero since it is not charged yet.
        return told if isinstance(told, Settle) and (has_ended or told.verdict != _ZERO) else why

    async def _job(self, hold: HoldRow) -> Job | NoSuchJob | Unknown:
        try:
            answer = await self._upstreams.job(hold)
        except (UpstreamUnreachable, UpstreamBroke) as error:
            return Unknown(f"the upstream could not be asked: {error}")
        match answer:
            case Job() | NoSuchJob():
                return answer
            case Unreadable(reason=reason):
                return Unknown(f"the upstream's answer could not be read: {reason}")
            case AskedTooOften() | Failed():
                return self._not_told(answer)

    async def _ask_later(self, hold: HoldRow, reason: str) -> None:
        now_us = self._now_us()
        age_us = now_us - hold.created_us
        longest_us = self._give_up_us if hold.job_id is None else self._job_us
        is_given_up = age_us > longest_us and hold.asks + 1 >= ASKS_MIN
        next_us = None if is_given_up else now_us + next_ask_us(hold.asks + 1, age_us)
        await self._ledger.carry_out(AskLater(hold.id, next_us, reason))

    async def _look_up(self, hold: HoldRow) -> Recorded | NoRecords | Unknown:
        try:
            answer = await self._upstreams.record(hold)
        except (UpstreamUnreachable, UpstreamBroke) as error:
            return Unknown(f"the upstream could not be asked: {error}")
        match answer:
            case Recorded() | NoRecords():
                return answer
            case NotYet():
                return Unknown("the upstream has no record of it yet")
            case AskedTooOften() | Failed():
                return self._not_told(answer)

    def _not_told(self, answer: AskedTooOften | Failed) -> Unknown:
        if isinstance(answer, AskedTooOften):
            seconds = answer.retry_after_seconds
            quiet_seconds = QUIET_SECONDS if seconds is None else seconds
            self._quiet_until_us = self._now_us() + int(quiet_seconds * 1_000_000)
        return Unknown(f"the upstream answered the question with {answer.answer}")


class NotOpen(Exception):  # noqa: N818 - the word of the house
    """There is no such hold, or it is not open; the message says how it stands."""


async def decide(ledger: Ledger, books: Books, hold_id: str, verdict: Cost | Nothing, reason: str) -> Outcome:
    """End an open hold as an operator says, by an adjustment that keeps the reason.

    Raises:
        NotOpen: there is nothing to decide.
    """
    hold = await books.hold(hold_id)
    if hold is None or hold.state != "open":
        raise NotOpen(f"there is no hold {hold_id}" if hold is None else f"the hold {hold_id} is {hold.state}")
    outcome = await ledger.carry_out(
        Settle(hold_id=hold_id, verdict=verdict, created_us=clock.now_us(), decision=Decision(reason, acting.by()))
    )
    assert not isinstance(outcome, NoSuchRow), outcome
    return outcome
