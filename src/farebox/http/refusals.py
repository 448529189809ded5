"""A refusal in the caller's own wire format: the one place where exceptions become answers."""

import logging
from collections.abc import Awaitable
from typing import Protocol

from starlette.types import Message, Receive, Scope, Send

from farebox.core.errors import Refusal, broken, too_many
from farebox.core.formats.table import ENVELOPE
from farebox.http.asgi import BREAK_OFF, Endpoint, send_refusal, wait_until_gone
from farebox.ports import BooksUnavailable, CallerGone

log = logging.getLogger("farebox")

BOOKS_RETRY_SECONDS = 5


class Refusing(Protocol):
    """Words refusals: a format of orders, or another API."""

    def refusal_body(self, refusal: Refusal) -> bytes: ...


async def refuse(scope: Scope, receive: Receive, send: Send, refusal: Refusal, wire: Refusing = ENVELOPE) -> None:
    await send_refusal(scope, receive, send, refusal, wire.refusal_body(refusal))


class guarded:  # noqa: N801 - reads as the function that it is
    """An endpoint whose errors become refusals in the words of `wire`, as long as its answer has not begun.

    An error after that breaks the connection off, so that the caller sees that its answer has no end; a foreseen one
    is a line in the log. (An object, because Starlette takes a function for an endpoint of the request-and-response
    kind.)
    """

    __slots__ = ("_endpoint", "_wire")

    def __init__(self, endpoint: Endpoint, wire: Refusing = ENVELOPE) -> None:
        self._endpoint = endpoint
        self._wire = wire

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        has_begun = False

        # Not a coroutine: every chunk of every stream goes through here.
        def noticing_send(message: Message) -> Awaitable[None]:
            nonlocal has_begun
            has_begun = True
            return send(message)

        try:
            await self._endpoint(scope, receive, noticing_send)
        except CallerGone:
            return
        except Exception as error:
            if has_begun:
                if not isinstance(error, Refusal | BooksUnavailable) or BREAK_OFF not in scope:
                    raise
                log.error("an answer was broken off without its end: %s", error)
                scope[BREAK_OFF]()
                await wait_until_gone(receive)
                return
            await refuse(scope, receive, send, refusal_of(error), self._wire)


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
