"""Jobs that orders began (videos): how one stands, and what it made, for the account that ordered it.

A job is asked for where its order went, under the name that is in the books with the hold. Whoever sees its end settles
the hold: a caller here, or `reconcile`.
"""

import asyncio
from collections.abc import AsyncIterator, Mapping
from contextlib import asynccontextmanager

from msgspec import Raw, Struct

from farebox import clock
from farebox.core.books import Fare, HoldRow, Settled, Transfer
from farebox.core.callers import Account
from farebox.core.errors import Refusal, broken, denied, error_type_of, unknown, unreachable
from farebox.core.formats.envelope import UNTOLD, read_error
from farebox.core.formats.videos import ID, Job
from farebox.core.legible import Fields, decode_fields, decoded_or
from farebox.core.questions import settlement_of
from farebox.core.upstream import AskedTooOften, Failed, Filters, JobAnswer, NoSuchJob, Unreadable
from farebox.core.usage import Unknown
from farebox.ports import Books, Ledger, Media, UpstreamBroke, Upstreams, UpstreamUnreachable

ANSWER_SECONDS = 10.0
"""How long the upstream may take to say how a job stands."""

OF_THE_CONTENT = (400, 404, 409, 410, 416)
"""Refusals that are about what was asked for, and go on: it is not there yet or any more, or has no such part. All
others are about the operator's account, or the upstream."""

MADE = ("video/", "audio/", "image/", "application/octet-stream")
"""What a job makes. Anything else in its place is an error, or a page."""


class Found(Struct, frozen=True):
    """A job, and what was charged for it; None where it has not been."""

    job: Job
    fare: Fare | None


class Jobs:
    """The jobs of all accounts, each for its own."""

    def __init__(self, books: Books, ledger: Ledger, upstreams: Upstreams) -> None:
        self._books = books
        self._ledger = ledger
        self._upstreams = upstreams

    async def find(self, account: Account, job_id: str) -> Found:
        """An account's own job as it stands now. If it has ended, it is booked when this returns.

        Raises:
            Refusal: 404, it is not the account's, or the upstream does not know it any more; 424, what the upstream
                says of it cannot be read; 502, the upstream cannot be asked now.
            BooksUnavailable: it cannot be looked up, or not be booked.
        """
        hold, end = await self._own(account, job_id)
        job = _told(await self._ask(hold), job_id)
        fare = None if end is None else end.fare
        if end is None and not isinstance(job.verdict, Unknown):
            settled = await self._ledger.carry_out(settlement_of(hold, job, clock.now_us()))
            assert isinstance(settled, Settled), settled
            fare = settled.fare
        return Found(job, fare)

    @asynccontextmanager
    async def content(
        self, account: Account, job_id: str, query: Filters, headers: Mapping[str, str]
    ) -> AsyncIterator[Media]:
        """What an account's own job made, as it comes. `query` and `headers` say which of it, and which part.

        Raises:
            Refusal: as `find`; and those of OF_THE_CONTENT.
        """
        hold, _ = await self._own(account, job_id)
        try:
            async with self._upstreams.content(hold, query, headers) as media:
                await _refuse_other(media)
                yield media
        except (UpstreamUnreachable, UpstreamBroke) as error:
            raise unreachable(f"The upstream cannot be asked now: {error}") from error

    async def _own(self, account: Account, job_id: str) -> tuple[HoldRow, Transfer | None]:
        booked = await self._books.job(account.id, job_id) if ID.fullmatch(job_id) else None
        if booked is None:
            raise unknown(f"Job {job_id[:200]} not found")
        return booked

    async def _ask(self, hold: HoldRow) -> JobAnswer:
        try:
            async with asyncio.timeout(ANSWER_SECONDS):
                return await self._upstreams.job(hold)
        except TimeoutError as error:
            raise unreachable(f"The upstream does not answer within {ANSWER_SECONDS:g} s") from error
        except (UpstreamUnreachable, UpstreamBroke) as error:
            raise unreachable(f"The upstream cannot be asked now: {error}") from error


def _told(answer: JobAnswer, job_id: str) -> Job:
    match answer:
        case Job():
            return answer
        case NoSuchJob():
            raise unknown(f"Job {job_id}: the upstream does not know it any more")
        case Unreadable(reason=reason):
            raise broken(f"What the upstream says of the job cannot be read: {reason}")
        case AskedTooOften() | Failed():
            raise unreachable(f"The upstream answered with {answer.answer}")


async def _refuse_other(media: Media) -> None:
    """Raises Refusal: it is not what a job made."""
    if media.status < 300 and media.content_type.startswith(MADE):
        return
    if media.status in OF_THE_CONTENT:
        error = decoded_or(decode_fields, await media.read(), Fields()).get("error", Raw(b"null"))
        message = read_error(error).message or UNTOLD
        raise Refusal(media.status, error_type_of(media.status), message)
    if media.status in (401, 402, 403):
        raise denied()
    if media.status < 400:
        raise unreachable(f"The upstream answered with {media.content_type} in the place of what the job made")
    raise unreachable(f"The upstream answered with status {media.status}")
