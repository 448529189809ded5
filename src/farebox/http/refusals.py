"""A refusal in the caller's own wire format: the one place where exceptions become answers."""

import asyncio
import logging
from typing import Protocol

from starlette.types import Receive, Scope, Send

from farebox.core.errors import Refusal, broken, too_many, unknown
from farebox.core.formats.table import ENVELOPE
from farebox.http.asgi import JSON, AsgiCall, Endpoint
from farebox.http.calls import Call
from farebox.ports import BooksUnavailable, CallerGone

log = logging.getLogger("farebox")

BOOKS_RETRY_SECONDS = 5

LINGER_BYTES_MAX = 256 * 1024 * 1024
LINGER_SECONDS = 30.0
"""How much of a refused request's body is read and thrown away, and for how long: to close the connection under a
client that still sends would reset it, and the client would never read the refusal."""


class Refusing(Protocol):
    """Words refusals: a format of orders, or another API."""

    def refusal_body(self, refusal: Refusal) -> bytes: ...


async def refuse(scope: Scope, receive: Receive, send: Send, refusal: Refusal, wire: Refusing = ENVELOPE) -> None:
    await send_refusal(AsgiCall(scope, receive, send), refusal, wire.refusal_body(refusal))


class guarded:  # noqa: N801 - reads as the function that it is
    """An endpoint whose errors become refusals in the words of `wire`, as `answer_failure` has it. (An object, because
    Starlette takes a function for an endpoint of the request-and-response kind.)"""

    __slots__ = ("_endpoint", "_wire")

    def __init__(self, endpoint: Endpoint, wire: Refusing = ENVELOPE) -> None:
        self._endpoint = endpoint
        self._wire = wire

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        call = AsgiCall(scope, receive, send)
        try:
            if "\0" in scope["path"]:
                raise unknown("A NUL character stands in the path, and in no name")
            await self._endpoint(scope, receive, call.pass_on)
        except Exception as error:  # noqa: BLE001 - one that nobody foresaw is logged or raised again there
            await answer_failure(call, error, self._wire)


async def answer_failure(call: Call, error: Exception, wire: Refusing) -> None:
    """Refuse a call that failed, as long as its answer has not begun.

    An error after that breaks the connection off, so that the caller sees that its answer has no end; a foreseen one
    is a line in the log, any other is raised again.
    """
    if isinstance(error, CallerGone):
        return
    if not call.has_begun:
        refusal = refusal_of(error)
        await send_refusal(call, refusal, wire.refusal_body(refusal))
        return
    if not isinstance(error, Refusal | BooksUnavailable) or not call.can_break_off:
        raise error
    log.error("an answer was broken off without its end: %s", error)
    await call.break_off()


def refusal_of(error: Exception) -> Refusal:
    """The refusal that answers an error. An error that nobody foresaw is logged with its traceback."""
    match error:
        case Refusal():
            return error
        case BooksUnavailable():
            log.error("%s", error)
            return too_many(f"Try again shortly: {error}", BOOKS_RETRY_SECONDS)
        case _:
            log.error("a request failed in a way that nobody foresaw", exc_info=error)
            # Not a 500: SDKs would repeat the request for an hour, in vain, and may pay each time.
            return broken("Farebox failed to serve this; its log says why")


async def send_refusal(call: Call, refusal: Refusal, body: bytes) -> None:
    """Send a refusal with this body. Where the request's own body was not read, let the caller finish sending it before
    the connection is closed."""
    headers = [JSON, (b"content-length", b"%d" % len(body))]
    headers += [(name.encode("latin-1"), value.encode("latin-1")) for name, value in refusal.headers.items()]
    if call.is_read:
        await call.begin(refusal.status, headers)
        await call.end(body)
        return
    await call.begin(refusal.status, [*headers, (b"connection", b"close")])
    await call.send(body)
    await _linger(call)
    await call.end()


async def _linger(call: Call) -> None:
    size = 0
    try:
        async with asyncio.timeout(LINGER_SECONDS):
            while size < LINGER_BYTES_MAX:
                part, is_last = await call.part()
                if is_last:
                    return
                size += len(part)
    except (TimeoutError, CallerGone):
        return
