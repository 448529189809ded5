"""The billable endpoints: an exchange, and its answer sent on as it comes."""

import asyncio
from dataclasses import dataclass

from starlette.types import Receive, Scope, Send

from farebox.core.errors import Refusal
from farebox.core.formats import Format
from farebox.core.headers import HeaderList, read_request_headers
from farebox.core.ledger import Settled
from farebox.core.money import format_usd
from farebox.deadlines import Deadlines
from farebox.exchange import Answer, Exchange, Request
from farebox.web.asgi import JSON, Endpoint, read_body, send_body, send_start, send_whole, wait_until_gone
from farebox.web.refusals import BEGUN, guarded

_EVENT_STREAM = [
    (b"content-type", b"text/event-stream"),
    (b"cache-control", b"no-cache"),
    (b"x-accel-buffering", b"no"),
]


@dataclass(frozen=True, slots=True)
class BodyBounds:
    """How long a request body may be, in bytes and seconds."""

    bytes_max: int
    seconds: float


def relay(exchange: Exchange, path: str, wire: Format, bounds: BodyBounds, deadlines: Deadlines) -> Endpoint:
    """The endpoint that serves orders in one format; `path` is the upstream's."""

    async def endpoint(scope: Scope, receive: Receive, send: Send) -> None:
        token, forwarded = read_request_headers(scope["headers"])

        async def body() -> bytes:
            return await read_body(scope, receive, bounds.bytes_max, bounds.seconds, deadlines)

        async with exchange.open(Request(path, wire, token, forwarded, body)) as answer:
            if answer.is_stream:
                scope[BEGUN] = True
                await _send_events(answer, receive, send)
            else:
                whole = await answer.read()
        if answer.is_stream:
            await send_body(send, b"")
        elif answer.is_refusal and (answer.content_type != "application/json" or not whole):
            raise _worded(answer, whole)
        else:
            headers = [JSON, *answer.headers, *_fare_headers(answer.settled)]
            await send_whole(send, answer.status, headers, whole)

    return guarded(endpoint, wire)


async def _send_events(answer: Answer, receive: Receive, send: Send) -> None:
    """Send events until the stream's end or the caller's; the body's end is left to be sent when all is booked."""
    gone = asyncio.create_task(wait_until_gone(receive))
    gone.add_done_callback(lambda task: None if task.cancelled() else answer.hang_up())
    try:
        await send_start(send, 200, [*_EVENT_STREAM, *answer.headers])
        async for chunk in answer.events():
            await send_body(send, chunk, more=True)
    finally:
        gone.cancel()


def _fare_headers(settled: Settled | None) -> HeaderList:
    if settled is None or settled.events is None or settled.fare_nanos is None:
        return []
    return [
        (b"x-farebox-fare-events", b"%d" % settled.events),
        (b"x-farebox-fare-usd", format_usd(settled.fare_nanos).encode()),
    ]


def _worded(answer: Answer, body: bytes) -> Refusal:
    """An upstream's refusal that is no JSON (a proxy's error page), in words a client can read."""
    excerpt = body[:_EXCERPT_BYTES].decode("utf-8", "replace")
    return Refusal(
        answer.status,
        _ERROR_TYPES.get(answer.status, "provider_unavailable" if answer.status >= 500 else "invalid_request"),
        f"The upstream refused with status {answer.status}, and not in JSON",
        headers={name.decode("latin-1"): value.decode("latin-1") for name, value in answer.headers},
        metadata={"raw": excerpt},
    )


_EXCERPT_BYTES = 300
_ERROR_TYPES = {
    401: "authentication",
    402: "payment_required",
    403: "permission_denied",
    404: "not_found",
    408: "timeout",
    413: "payload_too_large",
    429: "rate_limit_exceeded",
    504: "timeout",
    524: "timeout",
    529: "provider_overloaded",
}
