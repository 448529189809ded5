"""One HTTP/1.1 connection to an upstream, and the answers on it: an order is one write, and one wait for a head.

A general client costs an order four times as much (docs/decisions/connections.md). The rule here: a connection serves
one order at a time, and another one only where the last was sent whole and its answer was read to its end, to the byte.
"""

import asyncio
from collections.abc import Awaitable
from time import monotonic

from httptools import HttpParserError, HttpParserUpgrade, HttpResponseParser

from farebox.core.headers import HeaderList
from farebox.core.likeness import SIZE_LINES, Likeness
from farebox.deadlines import NEVER, Deadlines
from farebox.ports import Take, UpstreamBroke
from farebox.upstream import Timeouts
from farebox.upstream.replies import HEAD_BYTES_MAX, HEADERS_MAX, READ_BYTES_MAX, HttpReply, generation_id_in

IDLE_SECONDS = 4
"""How long an idle connection is kept: less than servers keep theirs (uvicorn and Node, the shortest: 5 s). An order
that is sent while the other side closes is lost, and cannot be sent again."""

UNREAD_BYTES_MAX = 256 * 1024
"""How much of an answer is kept for a caller who reads slowly, before the upstream's sending is held up."""

INTERIM_MAX = 16
"""How many interim answers (1xx) may stand before the answer."""

JOINED_BYTES_MAX = 64 * 1024
"""Up to which length a body is copied behind its head: one write is cheaper than two, and a long copy is not."""


class Pool:
    """What the connections to one upstream share: which are open, and which of those are idle."""

    def __init__(self, timeouts: Timeouts, deadlines: Deadlines) -> None:
        self.timeouts = timeouts
        self.deadlines = deadlines
        self.open: set[Connection] = set()
        self.idle: dict[Connection, None] = {}

    def add(self, connection: "Connection") -> None:
        """Not before its connecting has been waited for: of one that is given up meanwhile uvloop tells no end."""
        self.open.add(connection)
        self.deadlines.add(connection)

    def drop(self, connection: "Connection") -> None:
        self.open.discard(connection)
        self.idle.pop(connection, None)
        self.deadlines.discard(connection)


class PooledReply(HttpReply):
    """An answer that comes on a connection. At its end it keeps what was not read yet, and lets the connection go."""

    __slots__ = ("_broken", "_connection", "_is_complete", "_parts", "_poured", "_take", "_waiter", "likeness")

    def __init__(self, status: int, headers: HeaderList, connection: "Connection", parts: list[bytes]) -> None:
        super().__init__(status, headers)
        self._connection = connection
        self._parts = parts
        self._broken: tuple[str, BaseException | None] | None = None
        self._waiter: asyncio.Future[None] | None = None
        self._take: Take | None = None
        self.likeness: Likeness | None = None
        self._poured: asyncio.Future[Awaitable[None] | None]
        self._is_complete = False

    @property
    def is_complete(self) -> bool:
        return self._is_complete

    async def chunk(self) -> bytes:
        while not self._parts:
            if self._is_complete:
                return b""
            if self._broken is not None:
                message, cause = self._broken
                raise UpstreamBroke(message) from cause
            connection = self._connection
            self._waiter = waiter = connection.loop.create_future()
            # Only waiting here counts as silence: a slow caller is not the upstream's fault.
            connection.wait(connection.no_data_seconds)
            await waiter
        parts = self._parts
        data = parts[0] if len(parts) == 1 else b"".join(parts)
        parts.clear()
        if not self._is_complete:
            self._connection.was_read()
        return data

    async def read(self) -> bytes:
        if not self._is_complete:
            return await super().read()
        # The connection bounds what comes before somebody reads.
        parts, self._parts = self._parts, []
        return parts[0] if len(parts) == 1 else b"".join(parts)

    async def pour(self, take: Take, likeness: Likeness | None = None) -> None:
        while data := await self.chunk():
            waiting = take(data)
            if waiting is None and not (self._parts or self._is_complete or self._broken):
                waiting = await self._poured_into(take, likeness)
            if waiting is not None:
                await waiting

    async def _poured_into(self, take: Take, likeness: Likeness | None) -> Awaitable[None] | None:
        """Let the connection itself give what comes to `take`, up to the end or to a piece that is to be waited for:
        without a task that is woken for each, a stream costs a tenth less."""
        connection = self._connection
        self._take, self._poured = take, connection.loop.create_future()
        connection.wait(connection.no_data_seconds)
        self.likeness = likeness
        try:
            return await self._poured
        finally:
            self._take = self.likeness = None

    def close(self) -> None:
        if not self._is_complete and self._broken is None:
            self._connection.break_off("the connection broke before the answer's end", ConnectionAbortedError())

    def arrived(self) -> None:
        """More has come, or nothing will: who waits for it is woken; where it is poured, it is given on now."""
        if self._take is None:
            if (waiter := self._waiter) is not None:
                self._waiter = None
                self._connection.due = NEVER
                if not waiter.done():
                    waiter.set_result(None)
            return
        parts, connection = self._parts, self._connection
        if self._poured.done():  # nobody waits any more
            return
        if parts:
            data = parts[0] if len(parts) == 1 else b"".join(parts)
            parts.clear()
            self.give(data)
        elif self._is_complete or self._broken:
            connection.due = NEVER
            self._poured.set_result(None)
        else:  # half of a chunk's size is a sign of life, too
            connection.due = monotonic() + connection.no_data_seconds
        if self._take is not None:
            connection.was_read()

    def give(self, data: bytes) -> bool:
        """Give what has come to who has it poured; False where nobody has."""
        if (take := self._take) is None or (poured := self._poured).done():
            return False
        connection = self._connection
        # Not while it runs: it may close this reply, and is not to be called for that again.
        self._take = None
        try:
            waiting = take(data)
        except Exception as error:  # noqa: BLE001 - it is for who poured, not for the connection
            connection.due, self.likeness = NEVER, None
            poured.set_exception(error)
            return True
        if waiting is not None or self._is_complete or self._broken:
            connection.due, self.likeness = NEVER, None
            poured.set_result(waiting)
        else:
            connection.due = monotonic() + connection.no_data_seconds
            self._take = take
        return True

    def ended(self) -> None:
        """All has come. The parts so far are of a connection that goes on to its next order."""
        self._is_complete = True
        self._parts = self._parts.copy()

    def broke_off(self, message: str, cause: BaseException | None) -> None:
        self._broken = (message, cause)
        self._parts = self._parts.copy()
        self.arrived()


class Connection(asyncio.Protocol):
    """One connection: connected, idle, waiting for the head of an answer (`_head`), or for its body (`_reply`)."""

    loop: asyncio.AbstractEventLoop
    _transport: asyncio.Transport
    _head: asyncio.Future[PooledReply] | None = None
    _reply: PooledReply | None = None
    _head_bytes = 0
    _interim = 0
    _unread_bytes = 0
    _says_1_1 = False
    _is_over = False
    _is_reusable = False
    _is_until_close = False
    due = NEVER

    def __init__(self, pool: Pool, loop: asyncio.AbstractEventLoop) -> None:
        self._pool = pool
        self.loop = loop
        self.no_data_seconds = pool.timeouts.no_data
        self._is_paused = False
        self._framing_bytes = 0
        self._is_between_chunks = False
        self._headers: HeaderList = []
        self._parts: list[bytes] = []
        # The parser calls it for each piece of a body.
        self.on_body = self._parts.append
        self._parser = HttpResponseParser(self)
        self._parser.set_dangerous_leniencies(
            lenient_headers=True, lenient_optional_cr_before_lf=True, lenient_spaces_after_chunk_size=True
        )

    # An order

    def send(self, head: bytes, body: bytes) -> asyncio.Future[PooledReply]:
        """Send an order. The reply raises UpstreamBroke."""
        assert self._head is None
        assert self._reply is None
        self._head = reply = self.loop.create_future()
        self._is_over = False
        self._head_bytes = self._interim = self._framing_bytes = 0
        self.wait(self._pool.timeouts.first_byte)
        if len(body) <= JOINED_BYTES_MAX:
            self._transport.write(head + body)
        else:
            self._transport.writelines((head, body))
        return reply

    def wait(self, seconds: float) -> None:
        """Begin a wait: for the answer's head, for more of it, or for another order."""
        self.due = monotonic() + seconds
        self._pool.deadlines.add(self)

    def break_off(self, message: str, cause: BaseException | None = None) -> None:
        """Close the connection now; whoever waits for an answer on it gets UpstreamBroke."""
        head, reply = self._head, self._reply
        self._head = self._reply = None
        self.due = NEVER
        self._transport.abort()
        if reply is not None:
            reply.broke_off(message, cause)
        elif head is not None and not head.done():
            error = UpstreamBroke(message, generation_id_in(self._headers))
            error.__cause__ = cause
            head.set_exception(error)

    def was_read(self) -> None:
        """The caller has taken what had come."""
        self._unread_bytes = 0
        if self._is_paused:
            self._is_paused = False
            self._transport.resume_reading()

    def is_closing(self) -> bool:
        return self._transport.is_closing()

    def expire(self) -> None:
        timeouts = self._pool.timeouts
        if self._head is not None:
            self.break_off(f"no answer within {timeouts.first_byte:g} s")
        elif self._reply is not None:
            self.break_off(f"nothing came for {timeouts.no_data:g} s")
        else:
            self._transport.close()

    def _let_go(self) -> None:
        """An answer has been read to its end: the connection is free for another order, or closed."""
        reply, self._reply = self._reply, None
        assert reply is not None
        self.was_read()
        transport = self._transport
        # An answer may come before its order was sent whole. The rest of that would stand before the next order.
        if self._is_reusable and not transport.is_closing() and not transport.get_write_buffer_size():
            self._pool.idle[self] = None
            reply.arrived()
            self.wait(IDLE_SECONDS)
        else:
            reply.arrived()
            transport.close()

    # What the transport tells

    def connection_made(self, transport: asyncio.Transport) -> None:  # type: ignore[override]
        self._transport = transport

    def data_received(self, data: bytes) -> None:
        reply = self._reply
        # Nearly every event comes as one whole chunk, for which the parser is not needed.
        if self._is_between_chunks and reply is not None:
            likeness = reply.likeness
            if (line := SIZE_LINES.get(len(data))) is not None:
                if likeness is not None and likeness.passes(data, line):
                    self.due = monotonic() + self.no_data_seconds
                    return
                if data.startswith(line) and data[-2:] == b"\r\n" and reply.give(data[len(line) : -2]):
                    return
            if likeness is not None and likeness.pass_several(data):
                self.due = monotonic() + self.no_data_seconds
                return
        if self._head is None and reply is None:
            # It belongs to no order, and must not be taken for the next one's answer.
            self._transport.abort()
            return
        if not self._head_bytes:
            self._says_1_1 = data.startswith(b"HTTP/1.1 ")
        parts = self._parts
        parts_before = len(parts)
        try:
            self._parser.feed_data(data)
        except (HttpParserError, HttpParserUpgrade) as error:
            self._is_reusable = False
            if not self._is_over:
                self._broke(error.with_traceback(None))
                return
        if self._is_over:
            self._let_go()
        elif (reply := self._reply) is not None:
            # So it is surely where an event ends its chunk: in no chunk's size is a line end, and within a chunk the
            # part would end as the read does. To be told by the parser would cost two calls a chunk.
            self._is_between_chunks = data[-4:] == b"\n\n\r\n" and bool(parts) and parts[-1][-2:] == b"\n\n"
            self._unread_bytes += len(data)
            if self._unread_bytes > UNREAD_BYTES_MAX and not self._is_paused:
                self._is_paused = True
                self._transport.pause_reading()
            # Trailers and what else stands between two pieces of a body, or behind the last, are bounded as a head is.
            self._framing_bytes = 0 if len(parts) > parts_before else self._framing_bytes + len(data)
            if self._framing_bytes > HEAD_BYTES_MAX:
                self._broke(ValueError("what stands between two pieces of its body has no end"))
                return
            reply.arrived()
        else:
            self._head_bytes += len(data)
            if self._head_bytes > READ_BYTES_MAX or len(self._headers) > HEADERS_MAX:
                self._broke(ValueError("its head has no end"))

    def connection_lost(self, error: Exception | None) -> None:
        self._pool.drop(self)
        if self._reply is not None and self._is_until_close and error is None:
            self.on_message_complete()
            self._let_go()
        elif self._reply is not None or self._head is not None:
            self._broke(error or ConnectionResetError("it was closed"))
        del self._parser  # which refers back to this object

    def _broke(self, error: BaseException) -> None:
        if self._reply is not None:
            self.break_off("the connection broke before the answer's end", error)
        else:
            self.break_off(f"the connection broke before the answer ({type(error).__name__})", error)

    # What the parser finds

    def on_message_begin(self) -> None:
        if self._is_over:
            raise ValueError("something follows the answer")

    def on_header(self, name: bytes, value: bytes) -> None:
        # What follows a body in chunks is no part of the head.
        if self._reply is None:
            self._headers.append((name.lower(), value))

    def on_headers_complete(self) -> None:
        status = self._parser.get_status_code()
        headers = self._headers
        head = self._head
        assert head is not None
        if head.cancelled():
            raise ValueError("nobody waits for it")  # and the connection is not to be taken for idle
        if len(headers) > HEADERS_MAX:
            raise ValueError("too many headers")
        self._headers = []
        if 100 <= status < 200:
            self._interim += 1
            if self._interim > INTERIM_MAX:
                raise ValueError("interim answers without end")
            return
        self._is_reusable = self._parser.should_keep_alive() and (
            # The parser makes a text of two numbers, which takes longer than all the rest of this.
            (self._says_1_1 and not self._interim) or self._parser.get_http_version() == "1.1"
        )
        self._is_until_close = not self._is_reusable and _ends_by_closing(status, headers)
        self._reply = reply = PooledReply(status, headers, self, self._parts)
        self._head = None
        self.due = NEVER
        head.set_result(reply)

    def on_message_complete(self) -> None:
        if self._reply is not None:
            self._is_over = True
            self._reply.ended()
            self._parts.clear()


def _ends_by_closing(status: int, headers: HeaderList) -> bool:
    """Whether an answer's body ends with the connection (RFC 9112, 6.3), and not where a length or chunks say."""
    if status in (204, 304):
        return False
    coding = b",".join(value for name, value in headers if name == b"transfer-encoding")
    return b"chunked" not in coding.lower() if coding else all(name != b"content-length" for name, _ in headers)
