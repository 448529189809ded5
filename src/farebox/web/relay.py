"""The billable endpoints: each opens an exchange and sends its answer on as it comes."""

import asyncio
from collections.abc import Awaitable, Callable
from dataclasses import dataclass, replace
from functools import partial
from typing import Protocol, cast

from farebox import clock
from farebox.answers import Answer, RepeatedAnswer, upstream_refusal
from farebox.core.books import Fare
from farebox.core.callers import Caller
from farebox.core.errors import Refusal, broken, cost_unknown, error_type_of, too_many
from farebox.core.formats import Format, Progress
from farebox.core.headers import HeaderList, RequestHead
from farebox.core.money import format_usd
from farebox.core.sse import comment_event
from farebox.crash import crash_point
from farebox.deadlines import Deadlines
from farebox.exchange import Exchange, Request
from farebox.http.asgi import EVENT_STREAM, JSON, Endpoint, through_asgi
from farebox.http.bodies import BodyReader
from farebox.http.calls import Call, Serve
from farebox.http.refusals import answer_failure, refusal_of
from farebox.web.own_address import NO_ADDRESS, OwnAddress
from farebox.web.waiting import Silence, WaitingCaller

STOPPED_RETRY_SECONDS = 1


ReadBody = Callable[[Call, RequestHead], Awaitable[bytes]]


class Remade(Protocol):
    """Makes an order of a request that is none itself, and of its whole answer what was asked for."""

    def read(self, read: ReadBody) -> ReadBody:
        """Reads the order's body, of what `read` reads. Raises Refusal, BooksUnavailable, CallerGone."""

    def tell(self, answer: bytes) -> bytes:
        """What is told of a whole answer. Raises Refusal 424."""


@dataclass(frozen=True, slots=True)
class Relay:
    """Orders over HTTP. `silence_seconds` and, of streams, `stream_silence_seconds`: see Silence."""

    exchange: Exchange
    bodies: BodyReader
    deadlines: Deadlines
    silence_seconds: float
    stream_silence_seconds: float
    own_address: OwnAddress = NO_ADDRESS

    def endpoint(self, path: str, wire: Format) -> Endpoint:
        """What serves orders in one format, as an ASGI endpoint."""
        return through_asgi(self.serving(path, wire))

    def serving(self, path: str, wire: Format, remade: Remade | None = None, caller: Caller | None = None) -> Serve:
        """What serves orders in one format; `path` is the upstream's. `remade`: they come as something else; `caller`:
        whose they are, where that is known without a credential."""
        exchange, read_json = self.exchange, cast(ReadBody, self.bodies.read_json)
        deadlines, described, own_address = self.deadlines, wire.DESCRIBED, self.own_address
        status = 202 if described.begins_job else 200
        silence = Silence(self.silence_seconds, self.stream_silence_seconds, wire.KEEP_ALIVE)
        if described.gives_bytes:
            silence = Silence(0, 0, b"")  # within bytes, whatever breaks the silence would be heard
        if described.from_form is not None:
            read_json = partial(self.bodies.read_json_or_form, from_form=described.from_form)
        if remade is not None:
            read_json = remade.read(read_json)
        tell = None if remade is None else remade.tell

        async def serve(call: Call) -> None:
            head = call.head()
            waiting = WaitingCaller(call, deadlines, silence, status)
            read = partial(read_json, call, head)
            request = Request(path, wire, head, read, caller, waiting=waiting, taker=call.taker)
            try:
                await _serve(exchange, request, waiting, call, own_address, tell)
            except Exception as error:  # noqa: BLE001 - one that nobody foresaw is logged or raised again there
                if waiting.has_begun and not waiting.is_relayed_to:
                    # The caller has had its 200, so that no client repeats the order for what it is told now.
                    await waiting.end(_in_band(refusal_of(error), wire, waiting, head.client))
                else:
                    waiting.close()
                    await answer_failure(call, error, wire)
                    return
            finally:
                waiting.close()
            crash_point("send:after")

        return serve


async def _serve(
    exchange: Exchange,
    request: Request,
    waiting: WaitingCaller,
    call: Call,
    own_address: OwnAddress,
    tell: Callable[[bytes], bytes] | None,
) -> None:
    """Answer an order; `tell` says what is told of a whole answer. An error that is raised still has to reach the
    caller, unless the caller `is_relayed_to`."""
    given: Answer | RepeatedAnswer | None = None
    try:
        async with exchange.open(request) as answer:
            given = answer
            is_poured = answer.is_poured and (waiting.is_streamed or not waiting.has_begun)
            if is_poured:
                crash_point("send:before")
                await _send_stream(answer, call, waiting)
            else:
                whole = await answer.read() if tell is None else await _told(answer, tell)
    except asyncio.CancelledError as error:
        if waiting.is_relayed_to:
            raise
        # The server stops, and the order's grace is over. A cancellation that goes on from here would become a 500.
        raise _stopped(waiting) from error
    except Refusal as refusal:
        if given is None:
            raise
        if given.held_back and waiting.is_relayed_to:
            # It came whole; that it could not be booked yet is no reason to keep its end from the caller.
            await call.send(given.held_back)
        raise _charged(refusal, given) from refusal
    if is_poured:
        is_told = answer.is_stream and (answer.tells_fare or request.head.fare)
        await waiting.end(answer.held_back + fare_comment(answer) if is_told else answer.held_back)
        return
    crash_point("send:before")
    if answer.is_refusal:
        await _send_refusal(answer, whole, request, waiting, call)
    else:
        await _send_whole(answer, whole, request, waiting, call, own_address)


async def _send_refusal(
    answer: Answer | RepeatedAnswer, body: bytes, request: Request, waiting: WaitingCaller, call: Call
) -> None:
    """Send an upstream's refusal on. Raises Refusal: as it is to be worded otherwise."""
    typed = request.wire.typed_refusal(answer.status, body)
    if typed is None:
        raise _worded(answer, body)
    if waiting.has_begun:
        raise upstream_refusal(answer, typed)
    await call.whole(answer.status, [JSON, *answer.headers], typed)


async def _send_whole(
    answer: Answer | RepeatedAnswer,
    whole: bytes,
    request: Request,
    waiting: WaitingCaller,
    call: Call,
    own_address: OwnAddress,
) -> None:
    """Send a whole answer, which is booked. Raises Refusal: a stream was ordered, and has begun."""
    described, status = request.wire.DESCRIBED, answer.status
    if described.below is not None:
        status, whole = 202, described.below(whole, own_address.told_by(request.head.sent))
    if not waiting.has_begun:
        headers = [JSON, *answer.headers, *fare_headers(None if answer.settled is None else answer.settled.fare)]
        await call.whole(status, headers, whole)
    elif not waiting.is_streamed:
        await waiting.end(whole)
    elif described.as_stream is not None:
        await waiting.end(described.as_stream(whole))
    else:
        raise broken("The upstream answered with something that is not the stream that was ordered")


async def _told(answer: Answer | RepeatedAnswer, tell: Callable[[bytes], bytes]) -> bytes:
    whole = await answer.read()
    return whole if answer.is_refusal else tell(whole)


async def _send_stream(answer: Answer | RepeatedAnswer, call: Call, waiting: WaitingCaller) -> None:
    """Send what is poured on until it ends or the caller hangs up. The body's end is left for `_serve` to send once all
    is booked."""
    call.when_gone(answer.hang_up)
    try:
        kind = EVENT_STREAM if answer.is_stream else [(b"content-type", answer.media_type.encode("latin-1"))]
        await waiting.relay([*kind, *answer.headers], answer.stream_to)
    except asyncio.CancelledError:
        # The server stops, and this answer's grace is over.
        await call.send(answer.break_off("the gateway is stopping"))
        raise
    finally:
        call.when_gone(None)


def _charged(refusal: Refusal, answer: Answer | RepeatedAnswer) -> Refusal:
    """The refusal in the place of an answer that is none: with its generation and, where it told its cost, the fare."""
    settled = answer.settled
    headers = _as_text([*answer.headers, *fare_headers(None if settled is None else settled.fare)])
    message = refusal.message
    if settled is not None and settled.fare is not None:
        message += f". It told what that cost, and ${format_usd(settled.fare.nanos)} is charged"
    return replace(refusal, message=message, headers={**headers, **refusal.headers})


def _as_text(headers: HeaderList) -> dict[str, str]:
    return {name.decode("latin-1"): value.decode("latin-1") for name, value in headers}


def fare_headers(fare: Fare | None) -> HeaderList:
    """What was charged; nothing where nothing has been."""
    if fare is None:
        return []
    return [
        (b"x-farebox-fare-events", b"%d" % fare.events),
        (b"x-farebox-fare-usd", format_usd(fare.nanos).encode()),
    ]


def fare_comment(answer: Answer | RepeatedAnswer) -> bytes:
    """What a stream's last comment says: what is charged for it, or that this is not known yet."""
    fare = None if answer.settled is None else answer.settled.fare
    if fare is None:
        return comment_event(b"farebox fare_usd=unknown")
    return comment_event(f"farebox fare_usd={format_usd(fare.nanos)} fare_events={fare.events}".encode())


def _worded(answer: Answer | RepeatedAnswer, body: bytes) -> Refusal:
    """A refusal in our words for an upstream's that is not JSON (a proxy's error page)."""
    excerpt = body[:_EXCERPT_BYTES].decode("utf-8", "replace")
    return Refusal(
        answer.status,
        error_type_of(answer.status),
        f"The upstream refused with status {answer.status}, and not in JSON",
        headers=_as_text(answer.headers),
        metadata={"raw": excerpt},
    )


_EXCERPT_BYTES = 300


def _stopped(waiting: WaitingCaller) -> Refusal:
    if not waiting.was_sent:
        return too_many("This gateway is stopping", STOPPED_RETRY_SECONDS)
    return cost_unknown("The gateway is stopping")


def _in_band(refusal: Refusal, wire: Format, waiting: WaitingCaller, client: str) -> bytes:
    """A refusal after the answer's head went out: an event of the stream, or the whole body."""
    if waiting.is_streamed:
        return wire.error_event(refusal, Progress("", "", clock.now_us() // 1_000_000, client))
    return wire.refusal_body(refusal)
