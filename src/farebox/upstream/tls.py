"""TLS for a connection of our own: OpenSSL between a plain transport and the protocol above it.

The event loop's own TLS costs an event of a stream twice as much, and keeps 256 KiB a connection.
"""

import asyncio
import ssl
from contextlib import suppress
from errno import ECONNRESET

RECORD_BYTES = 16 * 1024
"""The longest record of TLS: more is never read at once."""


class TlsTransport(asyncio.Transport, asyncio.Protocol):
    """The protocol of a plain transport, and the transport of the protocol above, which hears of the connection once
    the handshake is done."""

    _plain: asyncio.Transport
    _waiter: asyncio.Future[None] | None = None
    _error: Exception | None = None
    _is_ready = False

    def __init__(self, context: ssl.SSLContext, host: str, above: asyncio.Protocol) -> None:
        super().__init__()
        self._in, self._out = ssl.MemoryBIO(), ssl.MemoryBIO()
        self._tls = context.wrap_bio(self._in, self._out, server_hostname=host)
        self._above = above

    async def ready(self) -> None:
        """Wait for the handshake's end. Raises OSError."""
        if not self._is_ready and self._error is None:
            self._waiter = asyncio.get_running_loop().create_future()
            try:
                await self._waiter
            except asyncio.CancelledError:
                self.abort()
                raise
        if self._error is not None:
            raise self._error

    # Below: what the plain transport tells

    def connection_made(self, transport: asyncio.Transport) -> None:  # type: ignore[override]
        self._plain = transport
        self._shake_hands()

    def data_received(self, data: bytes) -> None:
        tls, received = self._tls, self._in
        received.write(data)
        if not self._is_ready and not self._shake_hands():
            return
        # Here and not in a method: a stream has hundreds of reads. What several records held goes on in one piece, as
        # it does without TLS: each piece costs a write to the caller.
        parts: list[bytes] = []
        plain: bytes | None = None
        broken: OSError | None = None
        try:
            while received.pending and (plain := tls.read(RECORD_BYTES)):
                parts.append(plain)
        except ssl.SSLWantReadError:
            pass
        except OSError as error:
            broken = error
        if parts:
            self._above.data_received(parts[0] if len(parts) == 1 else b"".join(parts))
        if broken is not None:
            self._broke(broken)
        elif plain == b"":  # the other side has said that it sends no more
            self._plain.close()
        if self._out.pending:
            self._flush()

    def connection_lost(self, error: Exception | None) -> None:
        self._error = self._error or error
        if self._is_ready:
            self._above.connection_lost(self._error)
        else:
            self._error = self._error or ConnectionResetError(ECONNRESET, "it was closed")
            self._wake()
        del self._above  # which refers back to this object

    def _shake_hands(self) -> bool:
        """Go on with the handshake. True once it is done."""
        try:
            self._tls.do_handshake()
        except ssl.SSLWantReadError:
            self._flush()
        except OSError as error:
            self._error = error
            self._flush()  # the other side is told what is wrong
            self._plain.close()
            self._wake()
        else:
            self._flush()
            self._is_ready = True
            self._above.connection_made(self)
            self._wake()
        return self._is_ready

    def _wake(self) -> None:
        if self._waiter is not None and not self._waiter.done():
            self._waiter.set_result(None)

    def _broke(self, error: OSError) -> None:
        self._error = error
        self._plain.abort()

    def _flush(self) -> None:
        self._plain.write(self._out.read())

    # Above: a transport

    def write(self, data: bytes | bytearray | memoryview) -> None:
        try:
            self._tls.write(data)
        except OSError as error:
            self._broke(error)
        else:
            self._flush()

    def close(self) -> None:
        with suppress(OSError):
            self._tls.unwrap()
        self._flush()
        self._plain.close()

    def abort(self) -> None:
        self._plain.abort()

    def is_closing(self) -> bool:
        return self._plain.is_closing()

    def get_write_buffer_size(self) -> int:
        return self._plain.get_write_buffer_size()

    def pause_reading(self) -> None:
        self._plain.pause_reading()

    def resume_reading(self) -> None:
        self._plain.resume_reading()
