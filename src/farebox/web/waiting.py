"""A caller who waits for its answer: what keeps it from giving up, and from ordering the same again.

An answer that is whole soon goes out with its length and its fare in the head. Where it takes longer, the head goes out
first, and then, as they come, the blank lines and comments with which the upstream asks for patience: they reach the
caller as if it had asked the upstream itself. Nothing here runs for an answer that comes soon.
"""

import asyncio
from collections.abc import Callable
from time import monotonic

from starlette.types import Receive, Send

from farebox.core.headers import HeaderList
from farebox.deadlines import NEVER, Deadlines
from farebox.http.asgi import EVENT_STREAM, JSON, send_body, send_start
from farebox.ports import CallerGone

HEAD_AFTER_SECONDS = 1.0
"""How long the head waits for a whole answer. From when the order was sent, so that a caller hears of an upstream that
answers at once at most so much later than if it had asked there itself, and of one that answers later without delay."""

REST_SECONDS = 0.25
"""How long it waits at least after the upstream's head: one that has its answer whole before it sends its head sends
the rest right behind."""

LEAVING_SECONDS = 0.1
"""Who leaves sooner than that after it asked is taken for one who leaves right after its order was sent: to look costs
some microseconds, and the server itself takes longer to notice."""

UNSENT_MAX = 64 * 1024
"""Bytes of lines kept for a caller who does not read. More are dropped: a whole order is read on all the same."""

_BLANK = b"\n"
_COMMENT = b": FAREBOX PROCESSING\n\n"


class WaitingCaller:
    """Who sent a request for an order, from its head to its answer's end. Where `silence_seconds` is not 0, it gets a
    blank line (in a stream: a comment) whenever so long nothing went to it after its order was sent.

    `was_sent`: the order went to the upstream. `has_begun`: the answer's head is out, or on its way. `is_relayed_to`:
    the upstream's own stream goes to it, so that a failure can only break that off.
    """

    # What few need stands here: there is one of these for every order.
    _headers: Callable[[], HeaderList] | None = None
    _unsent = b""
    _sending: asyncio.Task[None] | None = None
    due = NEVER
    was_sent = False
    has_begun = False
    is_relayed_to = False
    is_streamed = False

    def __init__(self, receive: Receive, send: Send, deadlines: Deadlines, silence_seconds: float) -> None:
        self._receive = receive
        self._send = send
        self._deadlines = deadlines
        self._silence_seconds = silence_seconds
        self._asked_at = monotonic()

    def sending(self, headers: HeaderList, *, streamed: bool) -> None:
        now = monotonic()
        if now - self._asked_at > LEAVING_SECONDS and _is_gone(self._receive):
            raise CallerGone
        self._sent_at = now
        self._own_headers = headers
        self.was_sent, self.is_streamed = True, streamed
        if self._silence_seconds:
            self.touch()

    def head_came(self, headers: Callable[[], HeaderList]) -> None:
        self._headers = headers
        if not self.has_begun:
            self._wait_until(max(self._sent_at + HEAD_AFTER_SECONDS, monotonic() + REST_SECONDS))

    def pass_on(self, lines: bytes) -> None:
        if len(self._unsent) < UNSENT_MAX:
            self._unsent += lines
        if self.has_begun:
            self._send_on()

    def answer_came(self) -> bytes:
        self._deadlines.discard(self)
        if self.has_begun:
            return b""
        unsent, self._unsent = self._unsent, b""
        return unsent

    def expire(self) -> None:
        """Nothing went to the caller for as long as that is to be."""
        if self.has_begun or self._headers is None:
            self._unsent += _COMMENT if self.is_streamed else _BLANK
        self._send_on()

    def touch(self) -> None:
        """Something goes to the caller now."""
        if self._silence_seconds:
            self._wait_until(monotonic() + self._silence_seconds)

    def _wait_until(self, due: float) -> None:
        self.due = due
        self._deadlines.add(self)

    def _send_on(self) -> None:
        self.touch()
        # Not awaited by who reads the answer: a caller who does not read must not keep the order from its end.
        if not self.has_begun:
            self.has_begun = True
            headers = self._own_headers if self._headers is None else self._headers()
            head = [*(EVENT_STREAM if self.is_streamed else [JSON]), *headers]
            self._sending = asyncio.create_task(self._send_lines(head))
        elif self._sending is None or self._sending.done():
            self._sending = asyncio.create_task(self._send_lines())

    async def _send_lines(self, head: HeaderList | None = None) -> None:
        if head is not None:
            await send_start(self._send, 200, head)
        while self._unsent:
            lines, self._unsent = self._unsent, b""
            await send_body(self._send, lines, more=True)

    @property
    def is_kept_from_silence(self) -> bool:
        return bool(self._silence_seconds)

    async def begin_stream(self, headers: HeaderList) -> None:
        """Send a stream's head, where it is not out, and what is to be out before its events."""
        self.is_relayed_to = True
        if not self.has_begun:
            self.has_begun = True
            await send_start(self._send, 200, [*EVENT_STREAM, *headers])
        elif self._sending is not None:
            await self._sending
        self.touch()

    async def end(self, last: bytes) -> None:
        """End an answer that has begun."""
        self._deadlines.discard(self)
        if self._sending is not None:
            await self._sending
        await send_body(self._send, last)

    def close(self) -> None:
        """Nothing more goes to the caller."""
        self._deadlines.discard(self)
        if self._sending is not None:
            self._sending.cancel()


def _is_gone(receive: Receive) -> bool:
    """Whether a caller whose body was read has hung up: what it would be told is looked at once, and not waited for."""
    told = receive().__await__()
    try:
        next(told)
    except StopIteration as done:
        return bool(done.value["type"] == "http.disconnect")
    told.close()
    return False
