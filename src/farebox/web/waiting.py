"""What keeps a waiting caller from giving up, and from ordering the same again; and a proxy before it from cutting a
silent stream.

An answer that is whole soon goes out with its length and its fare in the head. Where it takes longer, the head goes out
first, and then, as they come, the blank lines and comments with which the upstream asks for patience: they reach the
caller as if it had asked the upstream itself. Nothing here runs for an answer that comes soon. Where the upstream says
nothing, Farebox does: a stream then gets its format's keep-alive between two events, which also makes proxies tell of
a caller who has gone.
"""

import asyncio
from collections.abc import Awaitable, Callable
from dataclasses import dataclass
from time import monotonic

from farebox.core.headers import HeaderList
from farebox.core.likeness import PutChunk
from farebox.deadlines import NEVER, Deadlines
from farebox.http.asgi import EVENT_STREAM, JSON
from farebox.http.calls import Call
from farebox.ports import CallerGone, Take, Taken

HEAD_AFTER_SECONDS = 1.0
"""How long after an order was sent the answer's head is held back, in the hope that the whole answer comes meanwhile. A
caller so gets the head at most this much later than from the upstream itself."""

REST_SECONDS = 0.25
"""How long the head is held back at least once the upstream's came: an upstream that answers in one piece sends the
rest right behind its head."""

LEAVING_SECONDS = 0.1
"""An order that goes out within this time of its request goes out without a look at whether its caller has hung up: the
look costs some microseconds, and the server takes longer to notice a hang-up."""

KNOCKS = 3
KNOCK_SECONDS = 1.0
"""How many keep-alives go out in a row, this far apart, each time that a stream was silent for too long. A caller who
has left a proxy refuses the first; HAProxy and Apache notice that when they send the second, Varnish at the third
(measured)."""

UNSENT_MAX = 64 * 1024
"""How many bytes of blank lines and comments are kept for a caller who does not read; more are dropped."""

_BLANK = b"\n"


@dataclass(frozen=True, slots=True)
class Silence:
    """How long a caller may hear nothing after its order was sent, 0 for ever: one of a whole answer, who then gets a
    blank line, and one of a stream, who gets a `keep_alive`."""

    whole_seconds: float
    stream_seconds: float
    keep_alive: bytes


class WaitingCaller:
    """The caller of one order, from its request's head to its answer's end.

    `was_sent`: the order went to the upstream. `has_begun`: the answer's head is out, or on its way. `is_relayed_to`:
    the upstream's own stream goes to it, so that a failure can only break that off.
    """

    # On the class stands what orders seldom ask for: Python finds it there slowly.
    _headers: Callable[[], HeaderList] | None = None
    _unsent = b""
    _silence_seconds = 0.0
    _knocks = 0
    _knock_due = NEVER

    def __init__(self, call: Call, deadlines: Deadlines, silence: Silence, status: int = 200) -> None:
        """`status` is that of an answer whose head goes out before it has come."""
        self._call = call
        self._status = status
        self._deadlines = deadlines
        self._silence = silence
        self._asked_at = monotonic()
        self._sending: asyncio.Task[None] | None = None
        self.due = NEVER
        self.was_sent = False
        self.has_begun = False
        self.is_relayed_to = False
        self.is_streamed = False

    def sending(self, headers: HeaderList, *, streamed: bool) -> None:
        now = monotonic()
        if now - self._asked_at > LEAVING_SECONDS and self._call.is_gone():
            raise CallerGone
        self._sent_at = now
        self._own_headers = headers
        self.was_sent, self.is_streamed = True, streamed
        self._silence_seconds = self._silence.stream_seconds if streamed else self._silence.whole_seconds
        if self._silence_seconds:
            self._wait_until(now + self._silence_seconds)

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
        if self.is_relayed_to:
            # Chunks that are put do not put the deadline off, each by itself.
            due = self._call.chunk_put_at + self._silence_seconds
            if due > monotonic():
                self._wait_until(due)
            else:
                self._knock()
            return
        is_silent = self.has_begun or self._headers is None
        if is_silent and (self._sending is None or self._sending.done()):
            self._unsent += self._silence.keep_alive if self.is_streamed else _BLANK
        self._send_on()

    def _knock(self) -> None:
        """Send a keep-alive between two events of the upstream's stream."""
        self._call.send_if_taken(self._silence.keep_alive)
        # Where something else went out since the last one, this is the first of a row.
        self._knocks = self._knocks + 1 if self.due == self._knock_due else 1
        pause = self._silence_seconds
        if self._knocks % KNOCKS:
            pause = min(pause, KNOCK_SECONDS)
        self._knock_due = monotonic() + pause
        self._wait_until(self._knock_due)

    def _touch(self) -> None:
        """Something goes to the caller now: its silence begins anew."""
        if self._silence_seconds:
            self._wait_until(monotonic() + self._silence_seconds)

    def _wait_until(self, due: float) -> None:
        self.due = due
        self._deadlines.add(self)

    def _send_on(self) -> None:
        self._touch()
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
            await self._call.begin(self._status, head)
        while self._unsent:
            lines, self._unsent = self._unsent, b""
            await self._call.send(lines)

    async def relay(self, head: HeaderList, stream_to: Callable[[Take, PutChunk], Awaitable[None]]) -> None:
        """Send what the upstream streams on as it comes, but not the body's end. Each piece is of whole events where
        there are keep-alives, which may stand after it."""
        self.is_relayed_to = True
        self.due = NEVER
        if not self.has_begun:
            self.has_begun = True
            await self._call.begin(200, head)
        elif self._sending is not None:
            # What was sent before the upstream's stream came.
            await self._sending
        self._touch()
        put, silence_seconds = self._call.put, self._silence_seconds

        # Nothing here is a call that can be spared: there are hundreds of pieces.
        def take(piece: bytes) -> Taken:
            waiting = put(piece)
            if waiting is not None:
                return self._until_taken(waiting)
            self.due = monotonic() + silence_seconds
            return None

        try:
            await stream_to(take, self._call.put_chunk)
        finally:
            self.due = NEVER

    async def _until_taken(self, waiting: Awaitable[None]) -> None:
        # Who reads slowly is not silent.
        self.due = NEVER
        await waiting
        self._touch()

    async def end(self, last: bytes) -> None:
        """Send the last bytes of an answer that has begun, and its end."""
        self._deadlines.discard(self)
        if self._sending is not None:
            await self._sending
        await self._call.end(last)

    def close(self) -> None:
        """Nothing more goes to the caller."""
        self._deadlines.discard(self)
        if self._sending is not None:
            self._sending.cancel()
