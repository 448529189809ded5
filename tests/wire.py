"""A connection to an upstream without a socket: a test says what is read from it, and sees what was done with it."""

import asyncio
import ssl
from collections.abc import Iterable

from farebox.deadlines import Deadlines
from farebox.outgoing import DIRECTLY
from farebox.upstream import Timeouts
from farebox.upstream.connections import Connection
from farebox.upstream.pool import Connections
from farebox.upstream.replies import HttpReply
from farebox.upstream.tls import TlsTransport


class Wire(asyncio.Transport):
    """What a connection does with its transport."""

    def __init__(self) -> None:
        super().__init__()
        self.sent = b""
        self.unsent_bytes = 0
        self.is_closed = False
        self.is_paused = False

    def write(self, data: bytes | bytearray | memoryview) -> None:
        self.sent += data

    def take(self) -> bytes:
        """What was sent since the last time."""
        sent, self.sent = self.sent, b""
        return sent

    def writelines(self, list_of_data: Iterable[bytes | bytearray | memoryview]) -> None:
        self.sent += b"".join(list_of_data)

    def get_write_buffer_size(self) -> int:
        return self.unsent_bytes

    def close(self) -> None:
        self.is_closed = True

    abort = close

    def is_closing(self) -> bool:
        return self.is_closed

    def pause_reading(self) -> None:
        self.is_paused = True

    def resume_reading(self) -> None:
        self.is_paused = False


class Wired:
    """One connection of a pool, within a running loop."""

    def __init__(self, pool: Connections | None = None, in_tls: tuple[ssl.SSLContext, str] | None = None) -> None:
        self.pool = pool or Connections("http://upstream.test", {}, Timeouts(5, 5, 5), Deadlines(), DIRECTLY)
        self.wire = Wire()
        self.connection = Connection(self.pool, asyncio.get_running_loop())
        self._below = self.connection if in_tls is None else TlsTransport(*in_tls, self.connection)
        self._below.connection_made(self.wire)
        self.pool.add(self.connection)

    def order(self) -> "asyncio.Future[HttpReply]":
        return asyncio.ensure_future(self.pool.post("/x", b"{}", {}, streamed=False))

    def reads(self, *pieces: bytes) -> None:
        for piece in pieces:
            if not self.wire.is_closed:
                self._below.data_received(piece)

    def ends(self, error: Exception | None = None) -> None:
        self.wire.is_closed = True
        self._below.connection_lost(error)

    def is_idle(self) -> bool:
        return self.connection in self.pool.idle and not self.wire.is_closed
