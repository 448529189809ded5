"""THE DATA PATH: one order, from its bytes to its place in the books. Start reading here.

The hold belongs to the context manager in the endpoint's own frame: whatever happens inside the block, leaving it
settles, and what was settled is durable when the block has been left. The path is `Opened.__aenter__`, from top to
bottom, then `__aexit__`; what a step is made of stands below them, in the same order.
"""

import asyncio
from collections.abc import Awaitable, Callable
from dataclasses import replace
from functools import cache
from random import Random
from time import time_ns
from types import TracebackType
from typing import TYPE_CHECKING, Protocol

from msgspec import Struct, structs

from farebox import clock
from farebox.admission import Admission
from farebox.answer_cache import AnswerCache, CachedAnswer, Missed
from farebox.answers import Answer, RepeatedAnswer, Streaming, Translated, cap_header
from farebox.core.allowances import Exceeded
from farebox.core.attempts import failed_of
from farebox.core.attribution import Attribution
from farebox.core.books import (
    Held,
    NameGeneration,
    NotCovered,
    NotWanted,
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
    PresetNamed,
    Refusal,
    connect_timeout,
    cost_unknown,
    denied,
    in_a_circle,
    invalid,
    unreachable,
)
from farebox.core.fitting import may_have_others_thoughts
from farebox.core.formats import Asked, Format, Progress
from farebox.core.formats.table import FORMATS, KINDS
from farebox.core.guards import OrderView
from farebox.core.headers import FARE_WISHES, HOPS_MAX, LEFT_OUT, HeaderList, RequestHead
from farebox.core.idempotency import not_kept, other_order, repeatable, still_answered
from farebox.core.intake import Order, cap_within, capped, read_order, without_body
from farebox.core.meter import Meter
from farebox.core.passage import Passage
from farebox.core.plans import Plan
from farebox.core.pricing import Ceiling, PriceList, ceiling, listed_names
from farebox.core.resale import ResoldMeter, tells_money, unpriced
from farebox.core.routing import Candidate
from farebox.core.shortfall import exceeded_rate, not_covered
from farebox.core.stored import Keeping, StoredRow
from farebox.core.tariffs import Tariff, Tariffs
from farebox.core.usage import Nothing, Unknown, Verdict
from farebox.crash import crash_point
from farebox.guards.running import Guards
from farebox.joining import LEFT_SECONDS, Joining, Sent
from farebox.late_settlements import LateSettlements
from farebox.ports import (
    BooksUnavailable,
    CallerGone,
    Callers,
    Engaged,
    Ledger,
    Reply,
    Taker,
    Telemetry,
    UpstreamBroke,
    UpstreamDenied,
    Upstreams,
    UpstreamUnreachable,
    Waiting,
)
from farebox.presets import Presets
from farebox.routing import Attempts, Routing, Sole
from farebox.stored_responses import StoredResponses
from farebox.upstream_health import Health
from farebox.watching import Unwatched, note_end, note_settled

if TYPE_CHECKING:
    from farebox.core.translate import Translation


KNOWN_NS = 100_000_000
"""How long a caller counts as identified while its order is read, guarded or joined: much less than the time for which
a revoked key may still be accepted."""


class Request(Struct, frozen=True):
    """What came in, undecided. `read_body` raises CallerGone, and Refusal 400, 408, 413 or 415; `caller` is who asks,
    where that is known without a credential; `asked` is what the body asks, where that was read before; `waiting` hears
    how far the answer is, where somebody waits for it; `taker` is the connection that it goes to; `keeping` is how the
    answer is kept for its account, where that was taken up before: then the body is as it is to go on."""

    path: str
    wire: Format
    head: RequestHead
    read_body: Callable[[], Awaitable[bytes]]
    caller: Caller | None = None
    asked: Asked | None = None
    waiting: Waiting | None = None
    taker: Taker | None = None
    keeping: Keeping | None = None

    def is_wanted(self) -> bool:
        """Whether its caller is there still, as far as is known. Any thread may ask."""
        return self.taker is None or not self.taker.has_gone()


class Prices(Protocol):
    """The price list in force."""

    def current(self) -> PriceList:
        """Raises Refusal 502 while there is none that may be used."""


class Lists(Protocol):
    """What orders cost at upstreams that tell usage and no cost."""

    @property
    def current(self) -> Tariffs: ...


class NoLists:
    """Every upstream tells what its orders cost."""

    current = Tariffs()


class Charges(Protocol):
    """Tells fares to an outside biller, from an outbox."""

    async def until_charged(self, transfer_id: str) -> None:
        """Wait, for a bounded time, until a fare that is charged by its request has been charged."""


class Background(Protocol):
    """Serves orders after their caller has left."""

    async def begin(self, request: Request, caller: Caller, body: bytes, keeping: Keeping) -> RepeatedAnswer:
        """Begin one; what its caller is told at once. Raises Refusal: it cannot be served; BooksUnavailable."""


class Exchange:
    """Serves orders: each from authentication to settlement."""

    def __init__(  # noqa: PLR0913 - one for each part of an order's way
        self,
        *,
        callers: Callers,
        prices: Prices,
        ledger: Ledger,
        upstreams: Upstreams,
        streaming: Streaming,
        admission: Admission,
        routing: Routing | None = None,
        tariffs: Lists | None = None,
        cache: AnswerCache | None = None,
        presets: Presets | None = None,
        guards: Guards | None = None,
        charges: Charges | None = None,
        late: LateSettlements | None = None,
        joining: Joining | None = None,
        telemetry: Telemetry | None = None,
        stored: StoredResponses | None = None,
        attribution: Attribution | None = None,
        now_us: Callable[[], int] = clock.now_us,
    ) -> None:
        self.callers = callers
        self.prices = prices
        self.ledger = ledger
        self.upstreams = upstreams
        self.routing = routing or Routing(upstreams.candidates, Health())
        self.tariffs = tariffs or NoLists()
        self.cache = cache
        self.presets = presets
        self.guards = guards
        self.streaming = streaming
        self.admission = admission
        self.charges = charges
        self.now_us = now_us
        self.late = late or LateSettlements(ledger)
        self.joining = joining or Joining(ledger, admission)
        self.telemetry = telemetry or Unwatched()
        self.stored = stored
        self.attribution = attribution or Attribution()
        self.background: Background | None = None
        # Ids need not be hard to guess, and each order's would be a call of the system.
        self._random_bits = Random().getrandbits  # noqa: S311

    def open(self, request: Request) -> "Opened":
        """For `async with`: serve one order; the block gets its answer, and sends that on.

        Raises:
            Refusal: it was not served. Never one that a client retries once the upstream may have accepted it.
            CallerGone: it was not sent to the upstream.
        """
        return Opened(self, request)

    def new_id(self, now_us: int) -> str:
        """The id of a hold. Those that are placed later sort behind it."""
        return (now_us << 48 | self._random_bits(48)).to_bytes(13, "big").hex()

    def names(self, model: str, plan: Plan) -> tuple[str, ...]:
        return listed_names(self.prices.current(), model, plan)


class Opened:
    """One order on its way. What is known of it so far stands here: `_hold_id` from the moment that its money is set
    aside, `_answer` from the moment that the upstream has answered."""

    __slots__ = (
        "_admitted",
        "_answer",
        "_at",
        "_attempts",
        "_caller",
        "_engaged",
        "_exchange",
        "_hold_id",
        "_keeping",
        "_known_by",
        "_left_out",
        "_meter",
        "_missed",
        "_most",
        "_order",
        "_passage",
        "_path",
        "_placed_us",
        "_request",
        "_tariff",
        "_tariffs",
        "_translation",
        "_verdict",
        "_view",
    )

    _caller: Caller
    _order: Order
    _most: Ceiling
    _known_by: Repeatable | Sent | None
    """Its idempotency key, or else what it is: by that it is known should it be sent again."""

    _attempts: Attempts | Sole
    _tariffs: Tariffs
    """The price list that was in force when it was placed."""

    _at: Candidate
    """The upstream that it is made ready for, by `_aim`: with `_path` and `_meter`, and `_tariff` and `_translation` if
    need be."""

    _path: str
    """That of the format in which it goes there."""

    _meter: Meter

    def __init__(self, exchange: Exchange, request: Request) -> None:
        self._exchange = exchange
        self._request = request
        self._passage = Passage(path=request.path, head=request.head, began_ns=time_ns())
        self._admitted: asyncio.Task[object] | None = None
        self._hold_id: str | None = None
        self._answer: Answer | None = None
        self._verdict: Verdict = Nothing()
        self._engaged: Engaged | None = None
        self._tariff: Tariff | None = None
        self._translation: Translation | None = None
        self._left_out: tuple[str, ...] = ()
        self._missed: Missed | None = None
        self._view: OrderView | None = None
        self._keeping = request.keeping

    async def __aenter__(self) -> Answer | RepeatedAnswer:
        exchange, request, passage = self._exchange, self._request, self._passage
        try:
            caller = request.caller or await exchange.callers.identify(request.head)
            self._caller = passage.caller = caller
            self._admitted = exchange.admission.enter(caller.account.id)
            if request.head.hops >= HOPS_MAX or request.head.fare:
                _check(request.head)
            body = await request.read_body()
            ordered, asked = body, request.asked
            if request.wire.DESCRIBED.keeps_answers and asked is None:
                ordered = await self._take_up(body)
                if (begun := await self._begin_aside(ordered)) is not None:
                    return begun
            try:
                if exchange.guards is not None:
                    ordered, asked = await self._guard(exchange.guards, ordered)
                order = read_order(ordered, request.wire, caller.plan, exchange.names, asked)
            except PresetNamed as named:
                order = await self._read_with_preset(ordered, named)
            self._most = ceiling(order.asked, order.answer_tokens, exchange.prices.current(), caller.plan)
            self._order, passage.model, passage.streamed = order, order.model, order.asked.streamed
            self._attempts = (exchange.routing.attempts if caller.plan.shows == "cost" else self._attempts_unpriced)(
                request.path, order.body, order.asked
            )
            cache = exchange.cache if request.head.cache or caller.key.cache_seconds else None
            if cache is not None and (cached := await self._look_up(cache)) is not None:
                return cached
            if (repeated := await self._hold_once(body)) is not None:
                passage.is_replay = True
                return repeated
            passage.held_ns = time_ns()
            reply = await self._forward()
            passage.head_ns = time_ns()
            answer = self._take(reply)
            if answer.is_poured or not reply.is_complete:
                await self._name_generation(reply, answer)
            passage.given_ns = time_ns()
            if answer.is_poured:
                exchange.telemetry.began_stream()
                if self._missed is None:  # what is kept for it is kept for these bytes
                    self._order = without_body(self._order)
        except BaseException as error:
            await self.__aexit__(type(error), error, error.__traceback__)
            raise
        return answer

    async def __aexit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        """End the order, however its block was left, or if it was not come to."""
        try:
            if self._hold_id is not None:
                await self._end(self._hold_id)
        except BaseException as failure:
            self._leave(failure)
            raise
        self._leave(error)

    def _leave(self, error: BaseException | None) -> None:
        exchange = self._exchange
        if self._admitted is not None:
            exchange.admission.leave(self._caller.account.id, self._admitted)
        note_end(self._passage, error)
        exchange.telemetry.saw(self._passage)

    async def _identify_again(self) -> None:
        """For an order that may have taken long to come this far, by its body or as a repeat that waited: meanwhile its
        caller's key may have been revoked, or its account closed and paid out. Raises as `Callers.identify`."""
        if self._request.caller is None:
            await self._exchange.callers.identify(self._request.head)

    # Take up what is kept, guard, and look for the same answer

    async def _take_up(self, body: bytes) -> bytes:
        """The order as it goes on: with what was packed opened, and the turns before its own. Raises Refusal: it cannot
        be kept or continued."""
        stored, opens = self._exchange.stored, self._request.wire.DESCRIBED.opens
        if opens is not None:
            body = opens(body)
        if self._keeping is None and stored is not None:
            body, self._keeping = await stored.take_up(self._caller, body)
        return body

    async def _begin_aside(self, body: bytes) -> RepeatedAnswer | None:
        """What the caller of an order that is to be served in the background is told; None where it is not, or is that
        very order."""
        exchange, request, keeping = self._exchange, self._request, self._keeping
        if keeping is None or not keeping.is_background or request.keeping is not None:
            return None
        if exchange.background is None:
            raise invalid("background: an answer is sent on the connection that asked for it here; leave it out")
        await self._identify_again()
        self._passage.is_replay = True
        with exchange.admission.aside(self._caller.account.id):
            return await exchange.background.begin(request, self._caller, body, keeping)

    async def _guard(self, guards: Guards, body: bytes) -> tuple[bytes, Asked]:
        """The body that guards let through, and what it asks. Raises Refusal 403: one refuses it."""
        request = self._request
        guarded = await guards.before(self._caller, request.path, request.wire, body, request.asked)
        self._view = guarded.view
        if self._keeping is not None and guarded.body is not body:
            self._keeping.changed(guarded.body)
        return guarded.body, guarded.asked

    async def _read_with_preset(self, body: bytes, named: PresetNamed) -> Order:
        """The order with its preset put into it, as guards let it pass. Raises Refusal as for any order; 404, there is
        no such preset; `named` where it can have none."""
        exchange, request, caller = self._exchange, self._request, self._caller
        put = await exchange.presets.put_in(caller, request.path, body) if exchange.presets is not None else None
        if put is None:
            raise named
        ordered, asked = put, None
        if exchange.guards is not None:
            ordered, asked = await self._guard(exchange.guards, put)
        return read_order(ordered, request.wire, caller.plan, exchange.names, asked)

    def _attempts_unpriced(self, path: str, body: bytes, asked: Asked) -> Attempts | Sole:
        """As `Routing.attempts`, for a caller who is told no upstream's prices."""
        try:
            return self._exchange.routing.attempts(path, body, asked)
        except Refusal as refusal:
            raise replace(refusal, message=unpriced(refusal.message)) from refusal

    async def _look_up(self, cache: AnswerCache) -> CachedAnswer | None:
        """The answer that is kept for this very order, where the caller wants that."""
        request, at, stored = self._request, self._attempts.at, self._exchange.stored
        found = await cache.look(self._caller, request.head, request.path, self._order, at.upstream)
        if isinstance(found, CachedAnswer):
            await self._identify_again()
            self._passage.is_replay = True
            if self._keeping is not None and stored is not None:
                found.tell(self._keeping)
                await stored.keep(self._keeping)
            return found
        self._missed = found
        return None

    # Hold

    async def _hold_once(self, body: bytes) -> RepeatedAnswer | None:
        """Set money aside for an order that was not placed before; the answer of one that was, which is waited for."""
        exchange, request = self._exchange, self._request
        head, joining = request.head, exchange.joining
        sent: Sent | None = None
        self._known_by = repeatable(head.idempotency_key, request.path, body)
        if self._known_by is None and request.caller is None and not self._order.asked.streamed:
            # A stream is not joined: a part of it has reached its caller, and its hang-up stops it.
            sent = joining.read(request.path, body, head.retry_count, request.waiting, request.taker)
            self._known_by = sent
        if sent is not None and sent.may_join:
            joined = await joining.join(self._caller, sent, self._hold)
            if joined is not None:
                await self._identify_again()
                return RepeatedAnswer(*joined)
        elif (repeated := await self._hold()) is not None:
            return await self._answer_again(repeated)
        if sent is not None and self._hold_id is not None:
            joining.placed(self._hold_id, sent)
            if sent.may_come_late():
                await asyncio.sleep(LEFT_SECONDS)
        return None

    async def _hold(self) -> Repeated | None:
        """Set the ceiling aside, or what the balance covers of it with the answer capped to that; or find that the
        order repeats another."""
        exchange, order, most, plan = self._exchange, self._order, self._most, self._caller.plan
        if time_ns() - self._passage.began_ns > KNOWN_NS:
            await self._identify_again()
        place = self._to_place()
        try:
            outcome = await exchange.ledger.carry_out(place)
        except asyncio.CancelledError:
            await self._give_back(place.id, place.created_us)
            raise
        except BooksUnavailable as error:
            if error.is_in_doubt:
                await exchange.late.add(Settle(hold_id=place.id, verdict=Nothing(), created_us=place.created_us))
            raise
        match outcome:
            case Held():
                if (answer_cap := cap_within(outcome, place, most, plan)) is not None:
                    try:
                        self._order = capped(order, self._request.wire, answer_cap)
                    except Refusal:
                        await self._give_back(place.id, place.created_us)
                        raise
                self._hold_id = self._passage.hold_id = place.id
                return None
            case NotCovered():
                raise not_covered(outcome, place, most, plan)
            case Exceeded():
                raise exceeded_rate(outcome, place)
            case NotWanted():
                raise CallerGone
            case Repeated():
                return outcome
            case _:
                raise AssertionError(outcome)

    def _to_place(self) -> PlaceHold:
        """The command that sets money aside for the order, at the upstream that is tried first."""
        exchange, caller, order, most, known_by = self._exchange, self._caller, self._order, self._most, self._known_by
        plan, now_us = caller.plan, exchange.now_us()
        self._placed_us, self._tariffs = now_us, exchange.tariffs.current
        self._aim(self._attempts.at)
        # What every order has goes without a name, and what few have is told behind that: no call on the way of all
        # has so many names that Python makes a dict of them.
        place = PlaceHold(
            exchange.new_id(now_us),
            caller.account.id,
            caller.key.id,
            most.fare_nanos(plan),
            most.least_nanos(plan),
            plan.name,
            plan.event_price_nanos,
            order.model,
            order.asked.streamed,
            now_us,
            outside=caller.outside,
            marked_up=plan.marks_up,
            wanted_tokens=most.all_tokens,
            least_tokens=most.least_tokens,
            order_digest=known_by.digest if type(known_by) is Sent else None,
            is_wanted=self._request.is_wanted,
            upstream=self._at.booked_as,
            priced=None if self._tariff is None else self._tariff.priced(),
            kind=KINDS.get(self._request.path),
            units=order.asked.used,
        )
        if type(known_by) is Repeatable:
            place = structs.replace(place, repeatable=known_by)
        elif type(known_by) is Sent and known_by.is_marked:
            place = structs.replace(place, is_repeat=True)
        head, said = self._request.head, order.asked.said
        if said is not None or head.end_user or head.tags:
            end_user, tags = exchange.attribution.of(head.end_user, head.tags, said)
            place = structs.replace(place, end_user=end_user, tags=tags)
        return place

    async def _give_back(self, hold_id: str, now_us: int) -> None:
        """Void the hold of an order that is not sent; late, where the books cannot take that now."""
        settle = Settle(hold_id=hold_id, verdict=Nothing(), created_us=now_us)
        try:
            await self._exchange.ledger.carry_out(settle)
        except BooksUnavailable:
            await self._exchange.late.add(settle)

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
        kept = await self._exchange.ledger.kept_answer(hold.id)
        if kept is None:
            raise not_kept(hold)
        return RepeatedAnswer(hold, kept)

    # Forward

    def _aim(self, candidate: Candidate) -> None:
        """Make ready for an upstream: how its answer is metered, by which prices, and from which format. Raises Refusal
        502: it has no price."""
        wire, self._path = self._request.wire, self._request.path
        self._at, self._tariff, self._translation, self._left_out = candidate, None, None, ()
        if candidate.priced_as is not None:
            self._tariff = self._tariffs.find(candidate.upstream, candidate.priced_as, self._placed_us)
            if self._tariff is None:
                raise unreachable(f"`{candidate.model}` has no price at `{candidate.upstream}` now")
        if (native := candidate.native(self._path)) is not None:
            self._path, wire = native, FORMATS[native]
            self._translation = _translations()(self._request.wire, wire)
        plan = self._caller.plan
        if plan.shows == "cost":
            self._meter = Meter(wire, self._progress(), self._tariff)
        else:
            self._meter = ResoldMeter(wire, self._progress(), plan, self._tariff)

    def _progress(self) -> Progress:
        return Progress("", self._order.model, self._placed_us // 1_000_000, self._request.head.client)

    async def _forward(self) -> Reply:
        """Send the order to one upstream after the other, until one takes it. What goes wrong decides what it cost, and
        what its caller is told."""
        request, order = self._request, self._order
        if request.waiting is not None:
            request.waiting.sending(self._own_headers(), streamed=order.asked.streamed)
        crash_point("forward:before")
        try:
            reply = await self._attempts.answer(order.body, self._send)
        except UpstreamUnreachable as error:
            self._verdict = Nothing()
            refuse = connect_timeout if error.timed_out else unreachable
            raise refuse(f"The upstream cannot be reached: {error}") from error
        except UpstreamDenied as error:
            self._verdict = Nothing()
            raise denied() from error
        except UpstreamBroke as error:
            self._verdict = Unknown(str(error))
            self._meter.identify(error.generation_id)
            raise cost_unknown(f"The upstream did not answer: {error}") from error
        crash_point("forward:after")
        return reply

    def _send(self, candidate: Candidate, body: bytes) -> Awaitable[Reply]:
        """Send the order to one upstream, in a format that it speaks. Raises Refusal 400: it cannot be said in that."""
        exchange, request = self._exchange, self._request
        if self._engaged is not None:
            self._engaged.let_go()
            self._engaged = None
        # What an upstream before this one refused cost nothing.
        self._verdict = Nothing()
        if candidate is not self._at:
            return self._send_to_next(candidate, body)
        if self._translation is not None:
            body, self._left_out = self._translation.order(body, answer_tokens_max=self._most.tokens)
        elif not candidate.is_alone and may_have_others_thoughts(body):
            from farebox.core.translate.thoughts import without_others

            body, self._left_out = without_others(self._path, body)
        self._engaged = engaged = exchange.upstreams.engage(candidate.upstream)
        self._verdict = _NOT_ANSWERED
        streamed = self._order.asked.streamed
        return engaged.upstream.forward(self._path, body, request.head.forwarded, streamed=streamed)

    async def _send_to_next(self, candidate: Candidate, body: bytes) -> Reply:
        """Send it to another upstream than the one before. The books know first: should this process die, it is that
        one which may have charged for it."""
        self._aim(candidate)
        assert self._hold_id is not None
        priced = None if self._tariff is None else self._tariff.priced()
        await self._exchange.ledger.carry_out(NameGeneration(self._hold_id, None, candidate.booked_as, priced))
        return await self._send(candidate, body)

    def _own_headers(self) -> HeaderList:
        """Ours, of the answer's."""
        own = cap_header(self._order.answer_cap)
        return own if self._missed is None else own + self._missed.headers

    # Meter

    def _take(self, reply: Reply) -> Answer:
        """The answer to the order, which is metered as it is read, and translated if need be."""
        meter, translated = self._meter, self._translation
        meter.identify(reply.generation_id)
        meter.progress.withholds_usage = translated is None and reply.adds_usage
        if self._left_out:
            reply.headers.append((LEFT_OUT, ", ".join(self._left_out).encode()))
        told = meter.progress if translated is None else self._progress()
        if self._request.wire.DESCRIBED.see_echoing is not None:
            told.asked, told.unheeded = self._order.body, self._left_out
        self._answer = answer = Answer(
            reply,
            meter,
            self._exchange.streaming,
            self._own_headers(),
            self._request.waiting,
            # One in the background is kept for its account, and given again from there.
            is_kept=(type(self._known_by) is Repeatable and self._request.keeping is None) or self._is_copied,
            is_drained=self._engaged is not None and self._engaged.is_drained,
            gives_bytes=self._request.wire.DESCRIBED.gives_bytes,
            translated=None
            if translated is None
            else Translated(translated, told, is_streamed=self._order.asked.streamed),
            keeping=self._keeping,
        )
        if self._caller.plan.shows == "fare":
            answer.tells_fare = True
            reply.headers[:] = [header for header in reply.headers if not tells_money(header[0].decode("latin-1"))]
        return answer

    @property
    def _is_copied(self) -> bool:
        """Whether its answer is kept for the same order again, or shown to guards."""
        guards = self._exchange.guards
        return self._missed is not None or (guards is not None and guards.want_answers)

    async def _name_generation(self, reply: Reply, answer: Answer) -> None:
        """Write the generation's id before a byte of it goes to the caller, and before a wait for the rest."""
        assert self._hold_id is not None
        if answer.is_read_first and self._request.wire.DESCRIBED.names_generation:
            await answer.read_first()
        generation_id = self._meter.progress.generation_id
        if generation_id and not answer.is_refusal:
            await self._book(NameGeneration(self._hold_id, generation_id))

    # Settle

    async def _end(self, hold_id: str) -> None:
        """Settle an order whose money is set aside, also one that got no answer: with Nothing if it was not sent, with
        Unknown if it may have been."""
        exchange, passage, answer = self._exchange, self._passage, self._answer
        try:
            if answer is not None:
                # Before settling: read what the answer said of its cost, then let the upstream's connection go. Neither
                # awaits, so no cancellation comes between; and no connection is held while the books are waited for.
                self._verdict = answer.verdict()
                self._attempts.end(broke_off=answer.is_broken, answer_tokens=self._meter.answer_tokens)
                answer.close()
        finally:
            self._attempts.give_up()
            if self._engaged is not None:
                self._engaged.let_go()
            if self._tariff is not None and isinstance(self._verdict, Unknown):
                self._verdict = self._tariff.cost(self._verdict)  # what is free is, whatever came of it
            passage.upstream, passage.attempts = self._at.booked_as or "", self._attempts.made
            passage.read_ns = time_ns()
            if passage.given_ns and answer is not None and answer.is_poured:
                exchange.telemetry.ended_stream()
            settled = await self._book(self._settlement(hold_id))
            assert isinstance(settled, Settled), settled
            note_settled(passage, settled, self._meter, None if answer is None else answer.status)
            if answer is not None:
                answer.settled = settled
                if self._is_copied:
                    self._show(answer, hold_id, settled)
            # Last, since only what is in the books is charged.
            if exchange.charges is not None and _is_charged_by_request(settled, self._caller.outside):
                await exchange.charges.until_charged(settlement_id(hold_id))

    def _show(self, answer: Answer, hold_id: str, settled: Settled) -> None:
        """Give a booked answer to those who keep it, and to guards."""
        exchange, generation_id = self._exchange, self._meter.progress.generation_id
        kept = answer.kept(hold_id)
        if exchange.cache is not None and self._missed is not None:
            exchange.cache.keep(self._missed, self._at.upstream, self._order.body, kept, settled, generation_id)
        if exchange.guards is not None and self._view is not None:
            exchange.guards.after(self._view, kept, generation_id, settled.fare)

    def _settlement(self, hold_id: str) -> Settle:
        meter, answer, passage = self._meter, self._answer, self._passage
        sent = self._known_by if type(self._known_by) is Sent else None
        is_unheard = sent is not None and sent.has_no_taker()
        was_sent = passage.head_ns > 0 or type(self._verdict) is not Nothing
        settle = Settle(
            hold_id,
            self._verdict,
            self._exchange.now_us(),
            generation_id=meter.progress.generation_id or None,
            served_model=meter.served_model,
            prompt_tokens=meter.prompt_tokens,
            answer_tokens=meter.answer_tokens,
            is_unheard=is_unheard,
            upstream=self._at.booked_as,
            priced=meter.priced,
            job_id=meter.job_id,
            units=meter.units,
            sent_us=passage.held_ns // 1000 if was_sent else None,
            head_us=passage.head_ns // 1000 or None,
            read_us=passage.read_ns // 1000,
            tried=failed_of(passage.attempts) if passage.attempts else None,
        )
        if answer is not None and self._known_by is not None:
            settle.answer = answer.kept(hold_id)
        if self._keeping is not None:
            settle.stored = self._row_to_keep(self._keeping)
        if sent is not None and not is_unheard and type(self._verdict) is not Nothing:
            # Before it is booked: a caller who goes meanwhile, or is told that it could not be, may repeat the order.
            self._exchange.joining.keep_if_lost(settle, sent)
        return settle

    def _row_to_keep(self, keeping: Keeping) -> StoredRow | None:
        stored = self._exchange.stored
        return None if stored is None else stored.row(keeping)

    async def _book(self, command: NameGeneration | Settle) -> Outcome:
        """Carry out a command of an order that the upstream may have accepted: from here on no refusal is repeated."""
        try:
            return await self._exchange.ledger.carry_out(command)
        except asyncio.CancelledError:
            # The server stops, and waits no longer: books that take nothing now may take this at the next start.
            if isinstance(command, Settle):
                command.is_unheard = True
                await self._exchange.late.add(command)
            raise
        except BooksUnavailable as error:
            if isinstance(command, Settle):
                # Its caller is told so in place of the answer: that is a repeat's, from the moment it is booked, which
                # may be by the try that nobody waits for any more.
                command.is_unheard = True
                await self._exchange.late.add(command)
            raise cost_unknown(f"The answer came and could not be booked: {error}") from error


@cache
def _translations() -> "Callable[[Format, Format], Translation | None]":
    # Only here: who translates nothing need not carry it.
    from farebox.core.translate import translation

    return translation


def _check(head: RequestHead) -> None:
    """Raises Refusal 400: no order can be served that comes with this head."""
    if head.hops >= HOPS_MAX:
        raise in_a_circle(head.hops)
    if head.fare.lower() not in FARE_WISHES:
        raise invalid("x-farebox-fare: write `comment`, and a stream ends with a comment that tells its fare")


_NOT_ANSWERED = Unknown("the order was sent and not answered")


def _is_charged_by_request(settled: Settled, outside: Outside | None) -> bool:
    """Whether an outside biller charges the caller for this order by the request it came with, which waits for that."""
    return settled.fare is not None and settled.fare.events > 0 and outside is not None and bool(outside.charge_to)
