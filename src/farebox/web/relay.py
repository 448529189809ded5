"""The billable endpoints: an exchange, and its answer sent on as it comes."""

import asyncio

from starlette.types import Receive, Scope, Send

from farebox.answers import Answer, Replay
from farebox.core.errors import Refusal, error_type_of
from farebox.core.formats import Format
from farebox.core.headers import HeaderList, read_request_head
from farebox.core.ledger import Settled
from farebox.core.money import format_usd
from farebox.crash import crash_point
from farebox.deadlines import Deadlines
from farebox.exchange import Exchange, Request
from farebox.web.asgi import JSON, Endpoint, send_body, send_start, send_whole, wait_until_gone
from farebox.web.bodies import BodyBounds, read_body
from farebox.web.refusals import BEGUN, guarded

_EVENT_STREAM = [
    (b"content-type", b"text/event-stream"),
    (b"cache-control", b"no-cache"),
    (b"x-accel-buffering", b"no"),
]


def relay(exchange: Exchange, path: str, wire: Format, bounds: BodyBounds, deadlines: Deadlines) -> Endpoint:
    """The endpoint that serves orders in one format; `path` is the upstream's."""

    async def endpoint(scope: Scope, receive: Receive, send: Send) -> None:
        head = read_request_head(scope["headers"])

        async def body() -> bytes:
            return await read_body(scope, receive, head, bounds.bytes_max, bounds.seconds, deadlines)

        request = Request(path, wire, head, body)
        async with exchange.open(request) as answer:
            if answer.is_stream:
                scope[BEGUN] = True
                crash_point("send:before")
                await _send_events(answer, receive, send)
            else:
                whole = await answer.read()
        if not answer.is_stream:
            crash_point("send:before")
        if answer.is_stream:
            await send_body(send, b"")
        elif answer.is_refusal:
            typed = wire.typed_refusal(answer.status, whole)
            if typed is None:
                raise _worded(answer, whole)
            await send_whole(send, answer.status, [JSON, *answer.headers], typed)
        else:
            headers = [JSON, *answer.headers, *_fare_headers(answer.settled)]
            await send_whole(send, answer.status, headers, whole)
        crash_point("send:after")

    return guarded(endpoint, wire)


async def _send_events(answer: Answer | Replay, receive: Receive, send: Send) -> None:
    """Send events until the stream's end or the caller's; the body's end is left to be sent when all is booked."""
    gone = asyncio.create_task(wait_until_gone(receive))
    gone.add_done_callback(lambda task: None if task.cancelled() else answer.hang_up())
    try:
        await send_start(send, 200, [*_EVENT_STREAM, *answer.headers])
        async for chunk in answer.events():
            await send_body(send, chunk, more=True)
    except asyncio.CancelledError:
        # The server stops, and this answer's grace is over.
        await send_body(send, answer.break_off("the gateway is stopping"), more=True)
        raise
    finally:
        gone.cancel()


def _fare_headers(settled: Settled | None) -> HeaderList:
    if settled is None or settled.events is None or settled.fare_nanos is None:
        return []
    return [
        (b"x-farebox-fare-events", b"%d" % settled.events),
        (b"x-farebox-fare-usd", format_usd(settled.fare_nanos).encode()),
    ]


def _worded(answer: Answer | Replay, body: bytes) -> Refusal:
    """An upstream's refusal that is no JSON (a proxy's error page), in words a client can read."""
    excerpt = body[:_EXCERPT_BYTES].decode("utf-8", "replace")
    return Refusal(
        answer.status,
        error_type_of(answer.status),
        f"The upstream refused with status {answer.status}, and not in JSON",
        headers={name.decode("latin-1"): value.decode("latin-1") for name, value in answer.headers},
        metadata={"raw": excerpt},
    )


_EXCERPT_BYTES = 300
