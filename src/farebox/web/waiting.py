"""What keeps a waiting caller from giving up, and from ordering the same again.

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
"""How long after an order was sent the answer's head is held back, in the hope that the whole answer comes meanwhile. A
caller so gets the head at most this much later than from the upstream itself."""

REST_SECONDS = 0.25
"""How long the head is held back at least once the upstream's came: an upstream that answers in one piece sends the
rest right behind its head."""

LEAVING_SECONDS = 0.1
"""An order that goes out within this time of its request goes out without a look at whether its caller has hung up: the
look costs some microseconds, and the server takes longer to notice a hang-up."""

UNSENT_MAX = 64 * 1024
"""How many bytes of blank lines and comments are kept for a caller who does not read; more are dropped."""

_BLANK = b"\n"
_COMMENT = b": FAREBOX PROCESSING\n\n"


class WaitingCaller:
    """The caller of one order, from its request's head to its answer's end. Where `silence_seconds` is not 0, it gets a
    blank line (in a stream: a comment) whenever nothing went to it for so long after its order was sent.

    `was_sent`: the order went to the upstream. `has_begun`: the answer's head is out, or on its way. `is_relayed_to`:
    the upstream's own stream goes to it, so that a failure can only break that off.
    """

    # Defaults stand on the class: one of these is made for every order, and few set them.
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
        self.silence_seconds = silence_seconds
        self._asked_at = monotonic()

    def sending(self, headers: HeaderList, *, streamed: bool) -> None:
        now = monotonic()
        if now - self._asked_at > LEAVING_SECONDS and _is_gone(self._receive):
            raise CallerGone
        self._sent_at = now
        self._own_headers = headers
        self.was_sent, self.is_streamed = True, streamed
        if self.silence_seconds:
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
        """The deadline came: send the head that was held back, or something that breaks the silence."""
        if self.has_begun or self._headers is None:
            self._unsent += _COMMENT if self.is_streamed else _BLANK
        self._send_on()

    def touch(self) -> None:
        """Something goes to the caller now: its silence begins anew."""
        if self.silence_seconds:
            self._wait_until(monotonic() + self.silence_seconds)

    def _wait_until(self, due: float) -> None:
        self.due = due
        self._deadlines.add(self)

    def _send_on(self) -> None:
        self.touch()
        # A task of its own: a caller who does not read must not keep the order from its end.
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

    async def begin_stream(self, headers: HeaderList) -> None:
        """Send a stream's head, where it is not out yet, or wait for what was sent before the upstream's stream
        came."""
        self.is_relayed_to = True
        if not self.has_begun:
            self.has_begun = True
            await send_start(self._send, 200, [*EVENT_STREAM, *headers])
        elif self._sending is not None:
            await self._sending
        self.touch()

    async def end(self, last: bytes) -> None:
        """Send the last bytes of an answer that has begun, and its end."""
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
    """Whether a caller whose body was read has hung up, by one step of `receive`, which is not waited for."""
    receiving = receive().__await__()
    try:
        next(receiving)
    except StopIteration as done:
        return bool(done.value["type"] == "http.disconnect")
    receiving.close()
    return False
