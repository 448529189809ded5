"""Sending answers in plain ASGI. Orders do without Starlette's Request and Response objects, which would add a tenth to
what an order costs."""

import asyncio
from collections.abc import Awaitable, Callable

from starlette.types import Receive, Scope, Send

from farebox.core.errors import Refusal
from farebox.core.headers import HeaderList

Endpoint = Callable[[Scope, Receive, Send], Awaitable[None]]

JSON = (b"content-type", b"application/json")

LINGER_BYTES_MAX = 256 * 1024 * 1024
LINGER_SECONDS = 30.0
"""How much of a refused request's body is read and thrown away, and for how long: to close the connection under a
client that still sends would reset it, and the client would never read the refusal."""

BODY_IS_READ = "farebox.body_is_read"
"""Set in the scope once a request's body has been read to its end."""

BREAK_OFF = "farebox.break_off"
"""In the scope: closes the connection under an answer that has begun, which so gets no end."""

TAKER = "farebox.taker"
"""In the scope: the connection, as what takes an answer (`ports.Taker`)."""

EVENT_STREAM = [(b"content-type", b"text/event-stream"), (b"cache-control", b"no-cache"), (b"x-accel-buffering", b"no")]
"""Headers of an answer in server-sent events, which no proxy is to hold back."""


async def wait_until_gone(receive: Receive) -> None:
    """Return when the caller has hung up. Only for use once the request's body has been read."""
    while (await receive())["type"] != "http.disconnect":
        pass


async def send_start(send: Send, status: int, headers: HeaderList) -> None:
    await send({"type": "http.response.start", "status": status, "headers": headers})


async def send_body(send: Send, body: bytes, *, more: bool = False) -> None:
    await send({"type": "http.response.body", "body": body, "more_body": more})


async def send_whole(send: Send, status: int, headers: HeaderList, body: bytes) -> None:
    await send_start(send, status, [*headers, (b"content-length", b"%d" % len(body))])
    await send_body(send, body)


async def send_json(send: Send, body: bytes, headers: HeaderList | None = None) -> None:
    await send_whole(send, 200, [JSON, *(headers or [])], body)


async def send_refusal(scope: Scope, receive: Receive, send: Send, refusal: Refusal, body: bytes) -> None:
    """Send a refusal with this body. Where the request's own body was not read, let the caller finish sending it before
    the connection is closed."""
    headers = [JSON, (b"content-length", b"%d" % len(body))]
    headers += [(name.encode("latin-1"), value.encode("latin-1")) for name, value in refusal.headers.items()]
    if scope["method"] in _WITHOUT_BODY or BODY_IS_READ in scope:
        await send_start(send, refusal.status, headers)
        await send_body(send, body)
        return
    await send_start(send, refusal.status, [*headers, (b"connection", b"close")])
    await send_body(send, body, more=True)
    await _linger(receive)
    await send_body(send, b"")


_WITHOUT_BODY = frozenset({"GET", "HEAD", "OPTIONS", "DELETE"})


async def _linger(receive: Receive) -> None:
    size = 0
    try:
        async with asyncio.timeout(LINGER_SECONDS):
            while size < LINGER_BYTES_MAX:
                message = await receive()
                size += len(message.get("body", b""))
                if message["type"] == "http.disconnect" or not message.get("more_body", False):
                    return
    except TimeoutError:
        return
