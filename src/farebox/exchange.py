"""THE DATA PATH: one order, from its bytes to its place in the books. Start reading here.

The hold belongs to the context manager in the endpoint's own frame: whatever happens inside the block, leaving it
settles, and what was settled is durable when the block has been left.
"""

import asyncio
from collections.abc import AsyncIterator, Awaitable, Callable
from contextlib import asynccontextmanager
from functools import partial
from os import urandom
from typing import Protocol

from msgspec import Struct
from msgspec.structs import replace

from farebox import clock
from farebox.admission import Admission
from farebox.answers import Answer, RepeatedAnswer, Streaming, cap_header
from farebox.core.allowances import Exceeded
from farebox.core.books import (
    Held,
    NameGeneration,
    NotCovered,
    Outcome,
    Outside,
    PlaceHold,
    Repeatable,
    Repeated,
    Settle,
    Settled,
    settlement_id,
)
from farebox.core.callers import Caller
from farebox.core.errors import Refusal, connect_timeout, cost_unknown, unreachable
from farebox.core.formats import Asked, Format, Progress
from farebox.core.headers import RequestHead
from farebox.core.idempotency import not_kept, other_order, repeatable, still_answered
from farebox.core.intake import Order, cap_within, capped, read_order
from farebox.core.meter import Meter
from farebox.core.plans import Plan
from farebox.core.pricing import Ceiling, PriceList, ceiling, listed_names
from farebox.core.shortfall import exceeded_rate, not_covered
from farebox.core.usage import Nothing, Unknown, Verdict
from farebox.crash import crash_point
from farebox.joining import Joining, Sent
from farebox.late_settlements import LateSettlements
from farebox.ports import (
    BooksUnavailable,
    Callers,
    Ledger,
    Reply,
    Taker,
    Telemetry,
    Upstream,
    UpstreamBroke,
    UpstreamUnreachable,
    Waiting,
)
from farebox.watching import Unwatched, Watched


class Request(Struct, frozen=True):
    """What came in, undecided. `read_body` raises CallerGone, and Refusal 400, 408, 413 or 415; `caller` is who asks,
    where that is known without a credential; `asked` is what the body asks, where that was read before; `waiting` hears
    how far the answer is, where somebody waits for it; `taker` is the connection that it goes to."""

    path: str
    wire: Format
    head: RequestHead
    read_body: Callable[[], Awaitable[bytes]]
    caller: Caller | None = None
    asked: Asked | None = None
    waiting: Waiting | None = None
    taker: Taker | None = None


class _HeldOrder(Struct, frozen=True):
    """An order whose money is set aside; its answer is capped where that is less than the order could cost. It is
    `known_by` its idempotency key, or else by what it is, should it be sent again."""

    hold_id: str
    order: Order
    outside: Outside | None = None
    known_by: Repeatable | Sent | None = None


class _Serving(Struct):
    """A held order on its way: what it cost, as far as is known, and its answer, once there is one."""

    held: _HeldOrder
    meter: Meter
    verdict: Verdict = Nothing()
    answer: Answer | None = None


class _Unanswered(Struct, frozen=True):
    """An order that the upstream did not answer: what it cost, how its caller is refused, and the generation's id where
    that is known."""

    verdict: Verdict
    refusal: Refusal
    generation_id: str | None = None


class Prices(Protocol):
    """The price list in force."""

    def current(self) -> PriceList:
        """Raises Refusal 502 while there is none that may be used."""


class Charges(Protocol):
    """Tells fares to an outside biller, from an outbox."""

    async def until_charged(self, transfer_id: str) -> None:
        """Wait, for a bounded time, until a fare that is charged by its request has been charged."""


class Exchange:
    """Serves orders: each from authentication to settlement."""

    def __init__(  # noqa: PLR0913 - one for each part of an order's way
        self,
        *,
        callers: Callers,
        prices: Prices,
        ledger: Ledger,
        upstream: Upstream,
        streaming: Streaming,
        admission: Admission,
        charges: Charges | None = None,
        late: LateSettlements | None = None,
        joining: Joining | None = None,
        telemetry: Telemetry | None = None,
        now_us: Callable[[], int] = clock.now_us,
    ) -> None:
        self._callers = callers
        self._prices = prices
        self._ledger = ledger
        self._upstream = upstream
        self._streaming = streaming
        self._admission = admission
        self._charges = charges
        self._now_us = now_us
        self._late = late or LateSettlements(ledger)
        self._joining = joining or Joining(ledger, admission)
        self._telemetry = telemetry or Unwatched()

    @asynccontextmanager
    async def open(self, request: Request) -> AsyncIterator[Answer | RepeatedAnswer]:
        """Serve one order; the block sends the answer on.

        Raises:
            Refusal: it was not served. Never one that a client retries once the upstream may have accepted it.
            CallerGone: it was not sent to the upstream.
        """
        with Watched(self._telemetry, request.path, request.head) as watched:
            caller = request.caller or await self._callers.identify(request.head)
            watched.identified(caller)
            with self._admission.admit(caller.account.id):
                body = await request.read_body()
                order = read_order(body, request.wire, caller.plan, self._names, request.asked)
                most = ceiling(order.asked, order.answer_tokens, self._prices.current(), caller.plan)
                watched.priced(order)
                held = await self._hold_once(caller, order, most, request, body)
                if isinstance(held, RepeatedAnswer):
                    watched.repeated()
                    yield held
                    return
                serving = _Serving(held, Meter(request.wire, self._progress(order, request)))
                watched.held(held.hold_id)
                try:
                    yield await self._answer(request, serving, watched)
                finally:
                    await self._end(serving, watched)

    def _names(self, model: str, plan: Plan) -> tuple[str, ...]:
        return listed_names(self._prices.current(), model, plan)

    def _progress(self, order: Order, request: Request) -> Progress:
        return Progress("", order.model, self._now_us() // 1_000_000, request.head.client)

    async def _answer(self, request: Request, serving: _Serving, watched: Watched) -> Answer:
        """Forward an order whose money is set aside; its answer, which may go to the caller."""
        held, meter = serving.held, serving.meter
        order = held.order
        if request.waiting is not None:
            request.waiting.sending(cap_header(order.answer_cap), streamed=order.asked.streamed)
        serving.verdict = Unknown("the order was sent and not answered")
        reply = await self._forward(request, order)
        if isinstance(reply, _Unanswered):
            serving.verdict = reply.verdict
            meter.identify(reply.generation_id)
            raise reply.refusal
        watched.answered()
        meter.identify(reply.generation_id)
        is_kept = isinstance(held.known_by, Repeatable)
        answer = Answer(reply, meter, self._streaming, order.answer_cap, request.waiting, is_kept=is_kept)
        serving.answer = answer
        await self._name_generation(held.hold_id, reply, answer, meter)
        watched.passed_on(is_stream=answer.is_stream)
        return answer

    async def _end(self, serving: _Serving, watched: Watched) -> None:
        """Settle, however the order's block was left: an order that got no answer, too, with Nothing if it was not
        sent, with Unknown if it may have been."""
        held, meter, answer = serving.held, serving.meter, serving.answer
        try:
            if answer is not None:
                # Before settling: read what the answer said of its cost, then let the upstream's connection go. Neither
                # awaits, so no cancellation comes between; and no connection is held while the books are waited for.
                serving.verdict = answer.verdict()
                answer.close()
        finally:
            watched.ended()
            settled = await self._settle(held, serving.verdict, meter, answer)
            watched.settled(settled, meter, None if answer is None else answer.status)
            if answer is not None:
                answer.settled = settled
            # Last, since only what is in the books is charged.
            if self._charges is not None and _is_charged_by_request(settled, held.outside):
                await self._charges.until_charged(settlement_id(held.hold_id))

    async def _forward(self, request: Request, order: Order) -> Reply | _Unanswered:
        """Send the order. What went wrong decides what it cost, and what its caller is told."""
        crash_point("forward:before")
        try:
            reply = await self._upstream.forward(
                request.path, order.body, request.head.forwarded, streamed=order.asked.streamed
            )
        except UpstreamUnreachable as error:
            refuse = connect_timeout if error.timed_out else unreachable
            return _Unanswered(Nothing(), refuse(f"The upstream cannot be reached: {error}"))
        except UpstreamBroke as error:
            refusal = cost_unknown(f"The upstream did not answer: {error}")
            return _Unanswered(Unknown(str(error)), refusal, error.generation_id)
        crash_point("forward:after")
        return reply

    async def _hold_once(
        self, caller: Caller, order: Order, most: Ceiling, request: Request, body: bytes
    ) -> _HeldOrder | RepeatedAnswer:
        """Set money aside for an order that was not placed before; else its answer, which is waited for."""
        key = repeatable(request.head.idempotency_key, request.path, body)
        if key is not None or request.caller is not None:
            held = await self._hold(caller, order, most, request.wire, key)
            return await self._answer_again(held) if isinstance(held, Repeated) else held
        sent: Sent | None = None
        if not order.asked.streamed:
            # A stream is not joined: a part of it has reached its caller, and its hang-up stops it.
            sent = self._joining.read(request.path, body, request.head.retry_count, request.waiting, request.taker)
        place = partial(self._hold, caller, order, most, request.wire, sent)
        if sent is None or not sent.may_join:
            held = await place()
            assert isinstance(held, _HeldOrder), held
        else:
            joined = await self._joining.join(caller, sent, place)
            if not isinstance(joined, _HeldOrder):
                return RepeatedAnswer(*joined)
            held = joined
        if sent is not None:
            self._joining.placed(held.hold_id, sent)
        return held

    async def _hold(
        self, caller: Caller, order: Order, most: Ceiling, wire: Format, known_by: Repeatable | Sent | None
    ) -> _HeldOrder | Repeated:
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
            repeatable=known_by if isinstance(known_by, Repeatable) else None,
            outside=caller.outside,
            wanted_tokens=most.all_tokens,
            least_tokens=most.least_tokens,
            order_digest=known_by.digest if isinstance(known_by, Sent) else None,
            is_repeat=isinstance(known_by, Sent) and known_by.is_marked,
        )
        try:
            outcome = await self._ledger.carry_out(place)
        except asyncio.CancelledError:
            await self._give_back(place.id, now_us)
            raise
        except BooksUnavailable as error:
            if error.is_in_doubt:
                await self._late.add(Settle(hold_id=place.id, verdict=Nothing(), created_us=now_us))
            raise
        match outcome:
            case Held():
                answer_cap = cap_within(outcome, place, most, caller.plan)
                try:
                    held = order if answer_cap is None else capped(order, wire, answer_cap)
                    return _HeldOrder(place.id, held, caller.outside, known_by)
                except Refusal:
                    await self._give_back(place.id, now_us)
                    raise
            case NotCovered():
                raise not_covered(outcome, place, most, caller.plan)
            case Exceeded():
                raise exceeded_rate(outcome, place)
            case Repeated():
                return outcome
            case _:
                raise AssertionError(outcome)

    async def _give_back(self, hold_id: str, now_us: int) -> None:
        """Void the hold of an order that is not sent; late, where the books cannot take that now."""
        settle = Settle(hold_id=hold_id, verdict=Nothing(), created_us=now_us)
        try:
            await self._ledger.carry_out(settle)
        except BooksUnavailable:
            await self._late.add(settle)

    async def _answer_again(self, repeated: Repeated) -> RepeatedAnswer:
        """The kept answer of the order that the idempotency key stands for.

        Raises:
            Refusal: 409, that order is another one, or is still being answered; 410, there is no answer to give again.
        """
        hold = repeated.hold
        if not repeated.is_same:
            raise other_order()
        if hold.state == "pending":
            raise still_answered()
        kept = await self._ledger.kept_answer(hold.id)
        if kept is None:
            raise not_kept(hold)
        return RepeatedAnswer(hold, kept)

    async def _name_generation(self, hold_id: str, reply: Reply, answer: Answer, meter: Meter) -> None:
        """Write the generation's id before a byte of it goes to the caller, and before a wait for the rest."""
        if answer.is_stream and reply.generation_id is None:
            await answer.read_to_identity()
        generation_id = meter.progress.generation_id
        if generation_id and not answer.is_refusal and (answer.is_stream or not reply.is_complete):
            await self._book(NameGeneration(hold_id, generation_id))

    async def _settle(self, held: _HeldOrder, verdict: Verdict, meter: Meter, answer: Answer | None) -> Settled:
        sent = held.known_by if isinstance(held.known_by, Sent) else None
        kept = None if answer is None or held.known_by is None else answer.kept(held.hold_id)
        is_unheard = sent is not None and sent.has_no_taker()
        settle = Settle(
            hold_id=held.hold_id,
            verdict=verdict,
            created_us=self._now_us(),
            generation_id=meter.progress.generation_id or None,
            served_model=meter.served_model,
            prompt_tokens=meter.prompt_tokens,
            answer_tokens=meter.answer_tokens,
            answer=kept,
            is_unheard=is_unheard,
        )
        if sent is not None and not is_unheard and not isinstance(verdict, Nothing):
            # Before it is booked: a caller who goes meanwhile, or is told that it could not be, may repeat the order.
            self._joining.keep_if_lost(held.hold_id, kept, sent)
        outcome = await self._book(settle)
        assert isinstance(outcome, Settled), outcome
        return outcome

    async def _book(self, command: NameGeneration | Settle) -> Outcome:
        """Carry out a command of an order that the upstream may have accepted: from here on no refusal is repeated."""
        try:
            return await self._ledger.carry_out(command)
        except asyncio.CancelledError:
            # The server stops, and waits no longer: books that take nothing now may take this at the next start.
            if isinstance(command, Settle):
                await self._late.add(replace(command, is_unheard=True))
            raise
        except BooksUnavailable as error:
            if isinstance(command, Settle):
                # Its caller is told so in place of the answer: that is a repeat's, from the moment it is booked.
                await self._late.add(replace(command, is_unheard=True))
            raise cost_unknown(f"The answer came and could not be booked: {error}") from error


def _is_charged_by_request(settled: Settled, outside: Outside | None) -> bool:
    """Whether an outside biller charges the caller for this order by the request it came with, which waits for that."""
    return settled.fare is not None and settled.fare.events > 0 and outside is not None and bool(outside.charge_to)
