"""THE DATA PATH: one order, from its bytes to its place in the books. Start reading here.

The hold belongs to the context manager in the endpoint's own frame: whatever happens inside the block, leaving it
settles, and what was settled is durable when the block has been left.
"""

import asyncio
import time
from collections.abc import AsyncIterator, Awaitable, Callable, Mapping
from contextlib import asynccontextmanager
from os import urandom
from typing import Protocol

from msgspec import Struct

from farebox.core.errors import Refusal, broken, connect_timeout, unaffordable, unauthenticated, unreachable
from farebox.core.formats import Format, Identity
from farebox.core.headers import HeaderList
from farebox.core.intake import Order, capped, read_order
from farebox.core.ledger import Held, NameGeneration, NotCovered, Outcome, PlaceHold, Settle, Settled
from farebox.core.meter import Meter
from farebox.core.money import format_usd
from farebox.core.plans import Plan
from farebox.core.pricing import Ceiling, PriceList, ceiling
from farebox.core.usage import Nothing, Unknown, Verdict
from farebox.ports import BooksUnavailable, Caller, Callers, Ledger, Reply, Upstream, UpstreamBroke, UpstreamUnreachable

ANSWER_CAP_HEADER = b"x-farebox-answer-cap"
"""Tells the answer cap, in tokens, that an order got because the balance did not cover more."""

SHELVED = "What it cost is not known yet: its hold stays open until that is settled, and nothing is charged before"


class Request(Struct, frozen=True):
    """What came in, undecided. `read_body` raises Refusal 413 or 408."""

    path: str
    wire: Format
    token: str | None
    forwarded_headers: Mapping[str, str]
    read_body: Callable[[], Awaitable[bytes]]


class Prices(Protocol):
    """The price list in force."""

    def current(self) -> PriceList:
        """Raises Refusal 502 while there is none that may be used."""


class Answer:
    """An order that the upstream has answered: its head, and its body as it comes, metered.

    `settled` says how the order stands in the books once the exchange's block has been left.
    """

    def __init__(self, reply: Reply, meter: Meter, answer_cap: int | None) -> None:
        self._reply = reply
        self._meter = meter
        self._answer_cap = answer_cap
        self._early: list[bytes] = []
        self._cut_short: str | None = None
        self.settled: Settled | None = None
        self.status = reply.status
        self.content_type = reply.content_type
        self.is_refusal = reply.status >= 400
        self.is_stream = reply.content_type == "text/event-stream" and not self.is_refusal

    @property
    def headers(self) -> HeaderList:
        """The upstream's that may pass, and ours."""
        headers = list(self._reply.headers)
        generation_id = self._meter.identity.generation_id
        if (
            self._reply.generation_id is None
            and generation_id
            and generation_id.isascii()
            and generation_id.isprintable()
        ):
            headers.append((b"x-generation-id", generation_id.encode()))
        if self._answer_cap is not None:
            headers.append((ANSWER_CAP_HEADER, b"%d" % self._answer_cap))
        return headers

    def hang_up(self) -> None:
        """The caller has gone: stop the upstream. `events` then ends."""
        self._cut_short = "the caller hung up before the answer's end"
        self._reply.close()

    async def read(self) -> bytes:
        """A whole answer, to its end whether or not the caller is still there; b"" for a refusal that was cut off.

        Raises:
            Refusal: 424, what came is no answer.
        """
        try:
            body = await self._reply.read()
        except UpstreamBroke as error:
            if self.is_refusal:
                return b""
            self._cut_short = str(error)
            raise broken(f"The upstream broke off: {error}. {SHELVED}") from error
        if self.is_refusal:
            return body
        body, failure = self._meter.read_answer(body)
        if failure is not None:
            self._cut_short = failure.message
            raise failure
        return body

    async def events(self) -> AsyncIterator[bytes]:
        """A stream as it comes, whole events; an in-band error is the last where the upstream breaks off."""
        for chunk in self._early:
            yield chunk
        try:
            while data := await self._reply.chunk():
                if chunk := self._meter.feed(data):
                    yield chunk
        except (UpstreamBroke, Refusal) as error:
            self._meter.finish()
            if self._cut_short is None:
                reason = error.message if isinstance(error, Refusal) else str(error)
                self._cut_short = reason
                yield self._meter.error_event(broken(f"The upstream broke off: {reason}. {SHELVED}"))
        else:
            if chunk := self._meter.finish():
                yield chunk

    async def read_to_identity(self) -> None:
        """Read a stream up to the first event that names its generation, where the upstream's head did not."""
        try:
            while not self._meter.identity.generation_id and (data := await self._reply.chunk()):
                if chunk := self._meter.feed(data):
                    self._early.append(chunk)
        except UpstreamBroke:
            return  # `events` meets the same break and tells the caller

    def verdict(self) -> Verdict:
        """What the exchange says about its cost, so far."""
        if self.is_refusal:
            return Nothing()
        return self._meter.verdict(self._cut_short or "the answer ended without saying what it cost")


class Exchange:
    """Serves orders: each from authentication to settlement."""

    def __init__(
        self,
        callers: Callers,
        prices: Prices,
        ledger: Ledger,
        upstream: Upstream,
        now_us: Callable[[], int] = lambda: time.time_ns() // 1000,
    ) -> None:
        self._callers = callers
        self._prices = prices
        self._ledger = ledger
        self._upstream = upstream
        self._now_us = now_us

    @asynccontextmanager
    async def open(self, request: Request) -> AsyncIterator[Answer]:
        """Serve one order; the block sends the answer on.

        Raises:
            Refusal: it was not served. Never one that a client retries once the upstream may have accepted it.
        """
        caller = await self._authenticate(request.token)
        order = read_order(await request.read_body(), request.wire, caller.plan)
        most = ceiling(order.asked, order.answer_tokens, self._prices.current())
        hold_id, order, answer_cap = await self._hold(caller, order, most, request.wire)
        verdict: Verdict = Unknown("the order was sent and not answered")
        meter = Meter(request.wire, Identity("", order.model, self._now_us() // 1_000_000))
        answer: Answer | None = None
        try:
            try:
                reply = await self._upstream.forward(
                    request.path, order.body, request.forwarded_headers, streamed=order.asked.streamed
                )
            except UpstreamUnreachable as error:
                verdict = Nothing()
                refuse = connect_timeout if error.timed_out else unreachable
                raise refuse(f"The upstream cannot be reached: {error}") from error
            except UpstreamBroke as error:
                verdict = Unknown(str(error))
                raise broken(f"The upstream did not answer: {error}. {SHELVED}") from error
            meter.identify(reply.generation_id)
            answer = Answer(reply, meter, answer_cap)
            try:
                await self._name_generation(hold_id, reply, answer, meter)
                yield answer
            finally:
                verdict = answer.verdict()
                reply.close()
        finally:
            settled = await self._settle(hold_id, verdict, meter)
            if answer is not None:
                answer.settled = settled

    async def _authenticate(self, token: str | None) -> Caller:
        if token is None:
            raise unauthenticated("No key was sent. Send `Authorization: Bearer sk-fb-...`")
        caller = await self._callers.find(token)
        if caller is None:
            raise unauthenticated("This key is not known here, or was revoked. Farebox keys look like `sk-fb-...`")
        return caller

    async def _hold(self, caller: Caller, order: Order, most: Ceiling, wire: Format) -> tuple[str, Order, int | None]:
        """Set the ceiling aside, or what the balance covers of it with the answer capped to that."""
        now_us = self._now_us()
        place = PlaceHold(
            id=f"{now_us:014x}{urandom(6).hex()}",
            account_id=caller.account.id,
            key_id=caller.key.id,
            wanted_nanos=most.fare_nanos(caller.plan),
            least_nanos=most.least_nanos(caller.plan),
            plan=caller.plan.name,
            event_price_nanos=caller.plan.event_price_nanos,
            model=order.model,
            streamed=order.asked.streamed,
            created_us=now_us,
        )
        try:
            outcome = await self._ledger.carry_out(place)
        except asyncio.CancelledError:
            await self._ledger.carry_out(Settle(place.id, Nothing(), now_us))
            raise
        match outcome:
            case Held(amount) if amount >= place.wanted_nanos:
                return place.id, order, None
            case Held(amount):
                answer_cap = most.tokens_covered(caller.plan, amount)
                return place.id, capped(order, wire, answer_cap), answer_cap
            case NotCovered(available):
                raise _too_dear(caller.plan, most, place, available)
            case _:
                raise AssertionError(outcome)

    async def _name_generation(self, hold_id: str, reply: Reply, answer: Answer, meter: Meter) -> None:
        """Write the generation's id before a byte of it goes to the caller, and before a wait for the rest."""
        if answer.is_stream and reply.generation_id is None:
            await answer.read_to_identity()
        generation_id = meter.identity.generation_id
        if generation_id and not answer.is_refusal and (answer.is_stream or not reply.is_complete):
            await self._book(NameGeneration(hold_id, generation_id))

    async def _settle(self, hold_id: str, verdict: Verdict, meter: Meter) -> Settled:
        settle = Settle(
            hold_id,
            verdict,
            self._now_us(),
            generation_id=meter.identity.generation_id or None,
            served_model=meter.served_model,
            prompt_tokens=meter.prompt_tokens,
            answer_tokens=meter.answer_tokens,
        )
        outcome = await self._book(settle)
        assert isinstance(outcome, Settled), outcome
        return outcome

    async def _book(self, command: NameGeneration | Settle) -> Outcome:
        """Carry out a command of an order that the upstream may have accepted: from here on no refusal is repeated."""
        try:
            return await self._ledger.carry_out(command)
        except BooksUnavailable as error:
            # The hold stays pending, and is taken up at the next start.
            raise broken(f"The answer came and could not be booked: {error}. {SHELVED}") from error


def _too_dear(plan: Plan, most: Ceiling, place: PlaceHold, available_nanos: int) -> Refusal:
    covered = most.tokens_covered(plan, available_nanos)
    return unaffordable(
        f"This order can cost up to ${format_usd(place.wanted_nanos)}, and at least"
        f" ${format_usd(place.least_nanos)} must be covered; ${format_usd(available_nanos)} is available"
        + (f", which covers an answer of {covered} tokens." if most.token else ".")
        + " Shorten the prompt, choose a cheaper model, or top up.",
        available_usd=format_usd(available_nanos),
        ceiling_usd=format_usd(place.wanted_nanos),
        answer_tokens_covered=covered,
    )
