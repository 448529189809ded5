"""Orders over HTTP/1.1, on pooled connections of our own: an order is one write, and one wait for its answer's head.

A general client costs an order four times as much (docs/decisions/connections.md). The rule here: a connection serves
one order at a time, and another one only where the last was sent whole and its answer was read to its end, to the byte.
"""

import asyncio
import socket
import ssl
from collections.abc import Mapping, Sequence
from time import monotonic

from aiohappyeyeballs import AddrInfoType, start_connection
from httptools import HttpParserError, HttpParserUpgrade, HttpResponseParser
from yarl import URL

from farebox.core.headers import HeaderList
from farebox.deadlines import NEVER, Deadlines
from farebox.outgoing import WayOut, why_not_connected
from farebox.ports import UpstreamBroke, UpstreamUnreachable
from farebox.upstream import Timeouts
from farebox.upstream.replies import HEADERS_MAX, READ_BYTES_MAX, HttpReply, generation_id_in
from farebox.upstream.tls import TlsTransport
from farebox.upstream.unpacking import unpacked

IDLE_SECONDS = 4
"""How long an idle connection is kept: less than servers keep theirs (uvicorn and Node, the shortest: 5 s). An order
that is sent while the other side closes is lost, and cannot be sent again."""

UNREAD_BYTES_MAX = 256 * 1024
"""How much of an answer is kept for a caller who reads slowly, before the upstream's sending is held up."""

INTERIM_MAX = 16
"""How many interim answers (1xx) may stand before the answer."""

JOINED_BYTES_MAX = 64 * 1024
"""Up to which length a body is copied behind its head: one write is cheaper than two, and a long copy is not."""

ADDRESSES_SECONDS = 10
UNKNOWN_SECONDS = 1
"""How long the addresses of a name are kept, and that it has none."""

NEXT_ADDRESS_SECONDS = 0.25
"""How long an address may keep silent before the next one is tried beside it (RFC 8305)."""


class Connections:
    """The connections to one upstream. `fields` are the headers of every order."""

    def __init__(
        self, base_url: str, fields: Mapping[str, str], timeouts: Timeouts, deadlines: Deadlines, way: WayOut
    ) -> None:
        url = URL(base_url)
        assert url.raw_host is not None
        self._base = url.raw_path.rstrip("/")
        self._fields = _lines({"host": url.host_port_subcomponent or "", **fields})
        self._server = _Server(url.raw_host, url.port or 0)
        self._tls = None if url.scheme == "http" else way.tls or _default_tls()
        self._heads: dict[tuple[str, bool], bytes] = {}
        self._is_closed = False
        self.timeouts = timeouts
        self.deadlines = deadlines
        self.open: set[Connection] = set()
        self.idle: dict[Connection, None] = {}

    async def post(self, path: str, body: bytes, headers: Mapping[str, str], *, streamed: bool) -> HttpReply:
        """Send an order to `path` under the base URL. Raises UpstreamUnreachable, UpstreamBroke."""
        own = _lines(headers) if headers else b""
        head = b"%b%bcontent-length: %d\r\n\r\n" % (self._head(path, streamed=streamed), own, len(body))
        connection = self._idle() or await self._connected()
        coming = connection.send(head, body)
        try:
            return unpacked(await coming)
        except asyncio.CancelledError:
            if coming.cancelled():
                connection.break_off("nobody waits for its answer")
            elif coming.exception() is None:
                # The connection may serve another order by now.
                coming.result().close()
            raise

    async def close(self) -> None:
        self._is_closed = True
        for connection in tuple(self.open):
            connection.break_off("the gateway is stopping")
        await asyncio.sleep(0)

    def _head(self, path: str, *, streamed: bool) -> bytes:
        """What the heads of all such orders begin with."""
        head = self._heads.get((path, streamed))
        if head is None:
            target = URL(self._base + path).raw_path_qs
            accept = _lines({"accept": "text/event-stream" if streamed else "application/json"})
            head = b"POST %b HTTP/1.1\r\n%b%b" % (target.encode(), self._fields, accept)
            self._heads[path, streamed] = head
        return head

    def _idle(self) -> "Connection | None":
        """The one that served last, so that those which are not needed grow old."""
        while self.idle:
            connection, _ = self.idle.popitem()
            if not connection.is_closing():
                return connection
        return None

    async def _connected(self) -> "Connection":
        """A new connection. Raises UpstreamUnreachable."""
        connection = Connection(self, asyncio.get_running_loop())
        seconds = self.timeouts.connect
        try:
            async with self.deadlines.within(seconds):
                await self._server.connect(connection, self._tls)
        except TimeoutError as error:
            raise UpstreamUnreachable(f"no connection within {seconds:g} s", timed_out=True) from error
        except OSError as error:
            raise UpstreamUnreachable(why_not_connected(error)) from error
        if self._is_closed:
            connection.break_off("the gateway is stopping")
            raise UpstreamUnreachable("the gateway is stopping")
        return connection


def _lines(headers: Mapping[str, str]) -> bytes:
    """Headers as they are sent. Raises UpstreamUnreachable: one would break out of its line."""
    lines = "".join([f"{name}: {value}\r\n" for name, value in headers.items()])
    if not lines.count("\r") == lines.count("\n") == len(headers) or "\0" in lines:
        raise UpstreamUnreachable("a header of the order has a line break, and was not sent")
    return lines.encode("latin-1", "replace")


def _default_tls() -> ssl.SSLContext:
    context = ssl.create_default_context()
    context.set_alpn_protocols(["http/1.1"])
    return context


class _Server:
    """One host and its addresses, which are looked up once for all who connect at a time."""

    def __init__(self, host: str, port: int) -> None:
        self.host = host
        self._port = port
        self._looking_up = asyncio.Lock()
        self._found: Sequence[AddrInfoType] | OSError = ()
        self._kept_until = 0.0

    async def connect(self, connection: "Connection", tls: ssl.SSLContext | None) -> None:
        """Connect to the first address that answers. Raises OSError."""
        loop = asyncio.get_running_loop()
        addresses = await self._addresses()
        connected = await start_connection(addresses, happy_eyeballs_delay=NEXT_ADDRESS_SECONDS, interleave=1)
        if tls is None:
            await loop.create_connection(lambda: connection, sock=connected)
            return
        secured = TlsTransport(tls, self.host.rstrip("."), connection)
        await loop.create_connection(lambda: secured, sock=connected)
        await secured.ready()

    async def _addresses(self) -> Sequence[AddrInfoType]:
        async with self._looking_up:
            if monotonic() >= self._kept_until:
                loop = asyncio.get_running_loop()
                try:
                    self._found = await loop.getaddrinfo(self.host, self._port, type=socket.SOCK_STREAM)
                    self._kept_until = monotonic() + ADDRESSES_SECONDS
                except UnicodeError:
                    raise OSError(0, "no name of a host") from None
                except OSError as error:
                    self._found = error.with_traceback(None)
                    self._kept_until = monotonic() + UNKNOWN_SECONDS
        if isinstance(self._found, OSError):
            raise type(self._found)(*self._found.args)
        return self._found


class PooledReply(HttpReply):
    """An answer that comes on a connection. At its end it keeps what was not read yet, and lets the connection go."""

    __slots__ = ("_broken", "_connection", "_is_complete", "_parts", "_waiter")

    def __init__(self, status: int, headers: HeaderList, connection: "Connection", parts: list[bytes]) -> None:
        super().__init__(status, headers)
        self._connection = connection
        self._parts = parts
        self._broken: tuple[str, BaseException | None] | None = None
        self._waiter: asyncio.Future[None] | None = None
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
            connection.due = monotonic() + connection.no_data_seconds
            await waiter
        parts = self._parts
        data = parts[0] if len(parts) == 1 else b"".join(parts)
        parts.clear()
        if not self._is_complete:
            self._connection.was_read()
        return data

    def close(self) -> None:
        if not self._is_complete and self._broken is None:
            self._connection.break_off("the connection broke before the answer's end", ConnectionAbortedError())

    def arrived(self) -> None:
        """More has come, or nothing will."""
        waiter = self._waiter
        if waiter is not None:
            self._waiter = None
            self._connection.due = NEVER
            if not waiter.done():
                waiter.set_result(None)

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
    _is_over = False
    _is_reusable = False
    _is_until_close = False
    _is_paused = False
    due = NEVER

    def __init__(self, pool: Connections, loop: asyncio.AbstractEventLoop) -> None:
        self._pool = pool
        self.loop = loop
        self.no_data_seconds = pool.timeouts.no_data
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
        self._head_bytes = self._interim = 0
        self.due = monotonic() + self._pool.timeouts.first_byte
        if len(body) <= JOINED_BYTES_MAX:
            self._transport.write(head + body)
        else:
            self._transport.writelines((head, body))
        return reply

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
            self.due = monotonic() + IDLE_SECONDS
        else:
            reply.arrived()
            transport.close()

    # What the transport tells

    def connection_made(self, transport: asyncio.Transport) -> None:  # type: ignore[override]
        self._transport = transport
        self._pool.open.add(self)
        self._pool.deadlines.add(self)

    def data_received(self, data: bytes) -> None:
        if self._head is None and self._reply is None:
            # It belongs to no order, and must not be taken for the next one's answer.
            self._transport.abort()
            return
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
            self._unread_bytes += len(data)
            if self._unread_bytes > UNREAD_BYTES_MAX and not self._is_paused:
                self._is_paused = True
                self._transport.pause_reading()
            reply.arrived()
        else:
            self._head_bytes += len(data)
            if self._head_bytes > READ_BYTES_MAX or len(self._headers) > HEADERS_MAX:
                self._broke(ValueError("its head has no end"))

    def connection_lost(self, error: Exception | None) -> None:
        pool = self._pool
        pool.open.discard(self)
        pool.idle.pop(self, None)
        pool.deadlines.discard(self)
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
        self._is_reusable = self._parser.should_keep_alive() and self._parser.get_http_version() == "1.1"
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
