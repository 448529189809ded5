"""Orders and pages on pooled connections of our own: which connection serves one, and how a new one comes about."""

import asyncio
import socket
import ssl
from collections.abc import Awaitable, Mapping, Sequence
from contextlib import suppress
from time import monotonic
from types import MappingProxyType

from aiohappyeyeballs import AddrInfoType, start_connection

from farebox.core.formats.table import accepted
from farebox.core.upstream import Filters
from farebox.deadlines import Deadlines
from farebox.outgoing import WayOut, believing, why_not_connected
from farebox.ports import UpstreamBroke, UpstreamUnreachable
from farebox.upstream import Timeouts
from farebox.upstream.addresses import base_of
from farebox.upstream.connections import Connection, Pool
from farebox.upstream.replies import HttpReply
from farebox.upstream.tls import TlsTransport
from farebox.upstream.unpacking import unpacked

ADDRESSES_SECONDS = 10
UNKNOWN_SECONDS = 1
"""How long the addresses of a name are kept, and that it has none."""

NEXT_ADDRESS_SECONDS = 0.25
"""How long an address may keep silent before the next one is tried beside it (RFC 8305)."""


NO_HEADERS: Mapping[str, str] = MappingProxyType({})


class Connections(Pool):
    """The connections to one upstream. `fields` are the headers of every order."""

    def __init__(
        self, base_url: str, fields: Mapping[str, str], timeouts: Timeouts, deadlines: Deadlines, way: WayOut
    ) -> None:
        super().__init__(timeouts, deadlines)
        self._base = base = base_of(base_url)
        self._fields = _lines({"host": base.host_field, **fields})
        self._server = _Server(base.host, base.port)
        self._tls = (way.tls or believing()) if base.is_secured else None
        self._heads: dict[tuple[str, bool], bytes] = {}
        self._is_closed = False

    def post(self, path: str, body: bytes, headers: Mapping[str, str], *, streamed: bool) -> Awaitable[HttpReply]:
        """Send an order to `path` under the base URL. Raises UpstreamUnreachable, UpstreamBroke."""
        own = _lines(headers) if headers else b""
        head = b"%b%bcontent-length: %d\r\n\r\n" % (self._head(path, streamed=streamed), own, len(body))
        return self._ask(self._idle(), head, body)

    async def get(
        self, path: str, query: Filters, head_seconds: float, headers: Mapping[str, str] = NO_HEADERS
    ) -> HttpReply:
        """Ask for a page at `path`; once more where an idle connection breaks, which may have been closed meanwhile.
        Raises UpstreamUnreachable, UpstreamBroke."""
        target = self._base.target(path, query)
        head = b"GET %b HTTP/1.1\r\n%b%baccept: */*\r\n\r\n" % (target.encode(), self._fields, _lines(headers))
        try:
            async with self.deadlines.within(head_seconds):
                if (connection := self._idle()) is not None:
                    with suppress(UpstreamBroke):
                        return await self._ask(connection, head)
                return await self._ask(None, head)
        except TimeoutError as error:
            raise UpstreamBroke(f"no answer within {head_seconds:g} s") from error

    async def _ask(self, connection: Connection | None, head: bytes, body: bytes = b"") -> HttpReply:
        """Send a request on this connection, or on a new one. Raises UpstreamUnreachable, UpstreamBroke."""
        if connection is None:
            connection = await self._connected()
        coming = connection.send(head, body)
        try:
            return unpacked(await coming).accepted()
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
            target = self._base.target(path)
            accept = _lines({"accept": accepted(path, streamed=streamed)})
            head = b"POST %b HTTP/1.1\r\n%b%b" % (target.encode(), self._fields, accept)
            self._heads[path, streamed] = head
        return head

    def _idle(self) -> Connection | None:
        """The one that served last, so that those which are not needed grow old."""
        while self.idle:
            connection, _ = self.idle.popitem()
            if not connection.is_closing():
                return connection
        return None

    async def _connected(self) -> Connection:
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
        if connection.is_closing():
            raise UpstreamUnreachable("it closed the connection at once")
        self.add(connection)
        return connection


def _lines(headers: Mapping[str, str]) -> bytes:
    """Headers as they are sent. Raises UpstreamUnreachable: one would break out of its line."""
    lines = "".join([f"{name}: {value}\r\n" for name, value in headers.items()])
    if not lines.count("\r") == lines.count("\n") == len(headers) or "\0" in lines:
        raise UpstreamUnreachable("a header of the order has a line break, and was not sent")
    return lines.encode("latin-1", "replace")


class _Server:
    """One host and its addresses, which are looked up once for all who connect at a time."""

    def __init__(self, host: str, port: int) -> None:
        self.host = host
        self._port = port
        self._looking_up = asyncio.Lock()
        self._found: Sequence[AddrInfoType] | OSError = ()
        self._kept_until = 0.0

    async def connect(self, connection: Connection, tls: ssl.SSLContext | None) -> None:
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
