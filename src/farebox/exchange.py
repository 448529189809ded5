"""THE DATA PATH: one order, from its bytes to its place in the books. Start reading here.

The hold belongs to the context manager in the endpoint's own frame: whatever happens inside the block, leaving it
settles, and what was settled is durable when the block has been left.
"""

import asyncio
import time
from collections.abc import AsyncIterator, Awaitable, Callable, Iterator
from contextlib import asynccontextmanager, contextmanager
from hashlib import sha256
from os import urandom
from typing import Protocol

from msgspec import Struct

from farebox.admission import Admission
from farebox.answers import KEPT_BYTES_MAX, SHELVED, Answer, Replay, Streaming, cap_header
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
from farebox.core.errors import (
    Refusal,
    broken,
    conflict,
    connect_timeout,
    error_type_of,
    gone,
    invalid,
    over_limit,
    too_large,
    unaffordable,
    unreachable,
)
from farebox.core.formats import Format, Progress
from farebox.core.headers import RequestHead
from farebox.core.intake import Order, capped, read_order
from farebox.core.meter import Meter
from farebox.core.money import format_usd
from farebox.core.passage import Passage
from farebox.core.plans import Plan
from farebox.core.pricing import Ceiling, PriceList, ceiling
from farebox.core.usage import Nothing, Unknown, Verdict
from farebox.crash import crash_point
from farebox.late_settlements import Late
from farebox.ports import (
    BooksUnavailable,
    CallerGone,
    Callers,
    Ledger,
    Reply,
    Telemetry,
    Upstream,
    UpstreamBroke,
    UpstreamUnreachable,
    Waiting,
)

IDEMPOTENCY_KEY_MAX = 255

REPEAT_SECONDS = 1
"""When to ask again for an answer that is still being made."""

GONE_STATUS = 499
"""What proxies log of a request whose sender left before its answer."""


class Request(Struct, frozen=True):
    """What came in, undecided. `read_body` raises CallerGone, and Refusal 400, 408, 413 or 415; `caller` is who asks,
    where that is known without a credential; `waiting` is told how far the answer is, where somebody waits for it."""

    path: str
    wire: Format
    head: RequestHead
    read_body: Callable[[], Awaitable[bytes]]
    caller: Caller | None = None
    waiting: Waiting | None = None


class _HeldOrder(Struct, frozen=True):
    """An order whose money is set aside, capped to that where it was less than it can cost."""

    hold_id: str
    order: Order
    outside: Outside | None = None


class _Unanswered(Struct, frozen=True):
    """An order that the upstream did not answer: what that cost, what its caller is told, and which generation it
    became, where that is known."""

    verdict: Verdict
    refusal: Refusal
    generation_id: str | None = None


class Prices(Protocol):
    """The price list in force."""

    def current(self) -> PriceList:
        """Raises Refusal 502 while there is none that may be used."""


class Charges(Protocol):
    """Fares told to an outside biller, from an outbox."""

    async def told(self, transfer_id: str) -> None:
        """Wait until a fare that is charged by its request was told, for a bounded time."""


class Exchange:
    """Serves orders: each from authentication to settlement."""

    def __init__(
        self,
        callers: Callers,
        prices: Prices,
        ledger: Ledger,
        upstream: Upstream,
        streaming: Streaming,
        admission: Admission,
        charges: Charges | None = None,
        late: Late | None = None,
        telemetry: Telemetry | None = None,
        now_us: Callable[[], int] = lambda: time.time_ns() // 1000,
    ) -> None:
        self._callers = callers
        self._prices = prices
        self._ledger = ledger
        self._upstream = upstream
        self._streaming = streaming
        self._admission = admission
        self._charges = charges
        self._now_us = now_us
        self._late = late or Late(ledger)
        self._telemetry = telemetry or _Unwatched()

    @asynccontextmanager
    async def open(self, request: Request) -> AsyncIterator[Answer | Replay]:
        """Serve one order; the block sends the answer on.

        Raises:
            Refusal: it was not served. Never one that a client retries once the upstream may have accepted it.
            CallerGone: it was not sent to the upstream.
        """
        passage = Passage(request.path, request.head, time.time_ns())
        try:
            caller = passage.caller = request.caller or await self._callers.identify(request.head)
            with self._admission.admit(caller.account.id):
                body = await request.read_body()
                order = read_order(body, request.wire, caller.plan, self._names)
                most = ceiling(order.asked, order.answer_tokens, self._prices.current())
                passage.model, passage.streamed = order.model, order.asked.streamed
                held = await self._hold(caller, order, most, request.wire, _repeatable(request, body))
                if isinstance(held, Repeated):
                    passage.is_replay = True
                    yield await self._answer_again(held)
                    return
                async with self._serve(request, held, passage) as answer:
                    yield answer
        except Refusal as refusal:
            passage.status, passage.error_type = refusal.status, refusal.error_type
            raise
        except BooksUnavailable:
            passage.status, passage.error_type = 429, "books_unavailable"
            raise
        except CallerGone:
            passage.status, passage.error_type = GONE_STATUS, "caller_gone"
            raise
        finally:
            passage.ended_ns = time.time_ns()
            self._telemetry.saw(passage)

    def _names(self, model: str) -> tuple[str, ...]:
        return self._prices.current().names(model)

    @asynccontextmanager
    async def _serve(self, request: Request, held: "_HeldOrder", passage: Passage) -> AsyncIterator[Answer]:
        """Forward an order whose money is set aside, and settle however the block is left."""
        order = held.order
        meter = Meter(request.wire, Progress("", order.model, self._now_us() // 1_000_000, request.head.client))
        verdict: Verdict = Nothing()
        answer: Answer | None = None
        passage.hold_id, passage.held_ns = held.hold_id, time.time_ns()
        try:
            if request.waiting is not None:
                request.waiting.sending(cap_header(order.answer_cap), streamed=order.asked.streamed)
            verdict = Unknown("the order was sent and not answered")
            reply = await self._forward(request, order)
            if isinstance(reply, _Unanswered):
                verdict = reply.verdict
                meter.identify(reply.generation_id)
                raise reply.refusal
            passage.head_ns = time.time_ns()
            meter.identify(reply.generation_id)
            is_kept = bool(request.head.idempotency_key)
            answer = Answer(reply, meter, self._streaming, order.answer_cap, request.waiting, is_kept=is_kept)
            try:
                await self._name_generation(held.hold_id, reply, answer, meter)
                passage.given_ns = time.time_ns()
                with self._watching(answer):
                    yield answer
            finally:
                verdict = answer.verdict()
                answer.close()
        finally:
            passage.read_ns = time.time_ns()
            settled = await self._settle(held.hold_id, verdict, meter, answer)
            _note(passage, settled, meter, answer)
            if answer is not None:
                answer.settled = settled
            if self._charges is not None and _is_told_now(settled, held.outside):
                await self._charges.told(settlement_id(held.hold_id))

    @contextmanager
    def _watching(self, answer: Answer) -> Iterator[None]:
        """Stream open, as long as the block runs."""
        if not answer.is_stream:
            yield
            return
        self._telemetry.began_stream()
        try:
            yield
        finally:
            self._telemetry.ended_stream()

    async def _forward(self, request: Request, order: Order) -> "Reply | _Unanswered":
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
            refusal = broken(f"The upstream did not answer: {error}. {SHELVED}")
            return _Unanswered(Unknown(str(error)), refusal, error.generation_id)
        crash_point("forward:after")
        return reply

    async def _hold(
        self, caller: Caller, order: Order, most: Ceiling, wire: Format, repeatable: Repeatable | None
    ) -> "_HeldOrder | Repeated":
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
            repeatable=repeatable,
            outside=caller.outside,
            wanted_tokens=most.all_tokens,
            least_tokens=most.least_tokens,
        )
        try:
            outcome = await self._ledger.carry_out(place)
        except asyncio.CancelledError:
            await self._give_back(place.id, now_us)
            raise
        except BooksUnavailable as error:
            if error.is_in_doubt:
                await self._late.add(Settle(place.id, Nothing(), now_us))
            raise
        match outcome:
            case Held(amount, tokens):
                answer_cap = _cap(most, caller.plan, place, amount, tokens)
                if answer_cap is None:
                    return _HeldOrder(place.id, order, caller.outside)
                try:
                    return _HeldOrder(place.id, capped(order, wire, answer_cap), caller.outside)
                except Refusal:
                    await self._give_back(place.id, now_us)
                    raise
            case NotCovered():
                raise _too_dear(caller.plan, most, place, outcome)
            case Exceeded():
                raise _too_fast(outcome, place)
            case Repeated():
                return outcome
            case _:
                raise AssertionError(outcome)

    async def _give_back(self, hold_id: str, now_us: int) -> None:
        """Void the hold of an order that is not sent; late, where the books cannot take that now."""
        settle = Settle(hold_id, Nothing(), now_us)
        try:
            await self._ledger.carry_out(settle)
        except BooksUnavailable:
            await self._late.add(settle)

    async def _answer_again(self, repeated: Repeated) -> Replay:
        """The kept answer of the order that the idempotency key stands for.

        Raises:
            Refusal: 409, that order is another one, or is still being answered; 410, there is no answer to give again.
        """
        hold = repeated.hold
        if not repeated.is_same:
            raise conflict("idempotency-key: another order was sent under this key; a key stands for one order")
        if hold.state == "pending":
            raise conflict("idempotency-key: the order under this key is still being answered", REPEAT_SECONDS)
        kept = await self._ledger.kept_answer(hold.id)
        if kept is None:
            why = f"was over {KEPT_BYTES_MAX} bytes, or broke off" if hold.state == "posted" else "was cut off"
            raise gone(
                f"idempotency-key: the answer to the order under this key was not kept: it {why}."
                f" Its generation is {hold.generation_id or 'not known'}; to order anew, send another key",
                generation_id=hold.generation_id,
            )
        return Replay(hold, kept)

    async def _name_generation(self, hold_id: str, reply: Reply, answer: Answer, meter: Meter) -> None:
        """Write the generation's id before a byte of it goes to the caller, and before a wait for the rest."""
        if answer.is_stream and reply.generation_id is None:
            await answer.read_to_identity()
        generation_id = meter.progress.generation_id
        if generation_id and not answer.is_refusal and (answer.is_stream or not reply.is_complete):
            await self._book(NameGeneration(hold_id, generation_id))

    async def _settle(self, hold_id: str, verdict: Verdict, meter: Meter, answer: Answer | None) -> Settled:
        settle = Settle(
            hold_id,
            verdict,
            self._now_us(),
            generation_id=meter.progress.generation_id or None,
            served_model=meter.served_model,
            prompt_tokens=meter.prompt_tokens,
            answer_tokens=meter.answer_tokens,
            answer=answer.kept(hold_id) if answer is not None else None,
        )
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
                await self._late.add(command)
            raise
        except BooksUnavailable as error:
            if isinstance(command, Settle):
                await self._late.add(command)
            raise broken(f"The answer came and could not be booked: {error}. {SHELVED}") from error


def _is_told_now(settled: Settled, outside: Outside | None) -> bool:
    """Whether an outside biller is told of the order's events by the caller's own request, which waits for that."""
    return settled.fare is not None and settled.fare.events > 0 and outside is not None and bool(outside.charge_to)


class _Unwatched:
    """Nobody watches."""

    def began_stream(self) -> None: ...

    def ended_stream(self) -> None: ...

    def saw(self, passage: Passage) -> None: ...


def _note(passage: Passage, settled: Settled, meter: Meter, answer: Answer | None) -> None:
    passage.state = settled.state
    if settled.fare is not None:
        passage.events, passage.fare_nanos = settled.fare.events, settled.fare.nanos
    passage.generation_id, passage.served_model = meter.progress.generation_id, meter.served_model
    passage.prompt_tokens, passage.answer_tokens = meter.prompt_tokens, meter.answer_tokens
    if answer is not None:
        passage.status = answer.status
        if answer.is_refusal:
            passage.error_type = error_type_of(answer.status)


def _repeatable(request: Request, body: bytes) -> Repeatable | None:
    key = request.head.idempotency_key
    if not key:
        return None
    if len(key) > IDEMPOTENCY_KEY_MAX:
        raise invalid(f"idempotency-key: at most {IDEMPOTENCY_KEY_MAX} characters, not {len(key)}")
    return Repeatable(sha256(key).digest(), sha256(b"%b\0%b" % (request.path.encode(), body)).digest())


def _cap(most: Ceiling, plan: Plan, place: PlaceHold, held_nanos: int, tokens: int | None) -> int | None:
    """What the answer must be capped to, so that it costs no more than was set aside, and becomes no more tokens than
    its minute has left; None where it need not be."""
    caps = [
        *([most.tokens_covered(plan, held_nanos)] if held_nanos < place.wanted_nanos else []),
        *([most.tokens_within(tokens)] if tokens is not None and tokens < place.wanted_tokens else []),
    ]
    return min(caps, default=None)


_PERIODS = {"day": "limit a day", "week": "limit a week", "month": "limit a month", "total": "limit in all"}


def _too_dear(plan: Plan, most: Ceiling, place: PlaceHold, outcome: NotCovered) -> Refusal:
    available = outcome.available_nanos
    covered = most.tokens_covered(plan, available)
    limit = (outcome.owner, outcome.period) if outcome.owner and outcome.period else None
    whose = f" within the {_source(limit[0])}'s {_PERIODS[limit[1]]}" if limit else ""
    return unaffordable(
        f"This order can cost up to ${format_usd(place.wanted_nanos)}, and at least"
        f" ${format_usd(place.least_nanos)} must be covered; ${format_usd(available)} is available{whose}"
        + (f", which covers an answer of {covered} tokens." if most.token else ".")
        + (
            " Shorten the prompt, choose a cheaper model, or ask for a higher limit."
            if limit
            else " Shorten the prompt, choose a cheaper model, or top up."
        ),
        available_usd=format_usd(available),
        ceiling_usd=format_usd(place.wanted_nanos),
        answer_tokens_covered=covered,
        **({"limit_source": f"{_source(limit[0])}_usd_{limit[1]}"} if limit else {}),
    )


def _source(owner: str) -> str:
    """`account` or `key`."""
    return owner.partition(" ")[0]


_RATES = {
    "requests_per_minute": "requests a minute",
    "tokens_per_minute": "tokens a minute",
    "orders_at_once": "orders at once",
}


def _too_fast(exceeded: Exceeded, place: PlaceHold) -> Refusal:
    limit = f"The {_source(exceeded.owner)}'s limit is {exceeded.most} {_RATES[exceeded.rate]}"
    if exceeded.never:
        # Not a 429, which clients repeat: it would never be let through.
        return too_large(f"{limit}, and this order alone may become {place.least_tokens} tokens. Shorten the prompt")
    return over_limit(
        f"{limit}, and {exceeded.remaining} are left"
        + (f"; this order needs {place.least_tokens}" if exceeded.rate == "tokens_per_minute" else ""),
        limit_source=f"{_source(exceeded.owner)}_{exceeded.rate}",
        most=exceeded.most,
        remaining=exceeded.remaining,
        reset_ms=-(-exceeded.reset_us // 1000),
        wait_ms=-(-(exceeded.reset_us - place.created_us) // 1000),
    )
