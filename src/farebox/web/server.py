"""What stands before ASGI: uvicorn's HTTP protocol, with a bound on a request's head and our refusals in our envelope.

uvicorn leaves a head's length to whoever sends it; 64 KiB is far more than any SDK sends.
"""

import asyncio

from uvicorn.protocols.http.httptools_impl import HttpToolsProtocol

from farebox.core.errors import Refusal, headers_too_large, invalid, too_slow
from farebox.web.refusals import ENVELOPE

HEAD_BYTES_MAX = 64 * 1024

LINGER_SECONDS = 2.0
"""How long a refused connection may go on sending, to nobody."""

HEAD_SECONDS = 30.0
"""How long a connection may take to send its first request's head, or the rest of a later one."""

_REASONS = {400: b"Bad Request", 408: b"Request Timeout", 431: b"Request Header Fields Too Large"}


class BoundedHttp(HttpToolsProtocol):
    """Refuses a request whose line and headers are longer than HEAD_BYTES_MAX or come slowly, and what is not HTTP."""

    head_seconds = HEAD_SECONDS
    _head_timer: asyncio.TimerHandle | None = None
    _head_bytes = 0
    _is_in_head = True
    _has_refused = False

    def connection_made(self, transport: asyncio.Transport) -> None:  # type: ignore[override]
        super().connection_made(transport)
        self._wait_for_head()

    def connection_lost(self, exc: Exception | None) -> None:
        self._stop_waiting()
        super().connection_lost(exc)

    def data_received(self, data: bytes) -> None:
        if self._has_refused or self.transport.is_closing():
            return
        super().data_received(data)
        if self._is_in_head and not self._has_refused:
            # Nearly every head comes in one piece: only one that does not is worth a timer.
            if self._head_timer is None:
                self._wait_for_head()
            self._head_bytes += len(data)
            if self._head_bytes > HEAD_BYTES_MAX:
                self._refuse(headers_too_large(HEAD_BYTES_MAX))

    def _wait_for_head(self) -> None:
        self._head_timer = self.loop.call_later(self.head_seconds, self._be_too_late)

    def _stop_waiting(self) -> None:
        if self._head_timer is not None:
            self._head_timer.cancel()
            self._head_timer = None

    def _be_too_late(self) -> None:
        self._head_timer = None
        if not self.transport.is_closing() and not self._has_refused:
            self._refuse(too_slow(f"The request's head did not arrive within {self.head_seconds:g} s"))

    def on_message_begin(self) -> None:
        super().on_message_begin()
        self._is_in_head = True
        self._head_bytes = 0

    def on_headers_complete(self) -> None:
        self._is_in_head = False
        self._stop_waiting()
        if (wrong := self._wrong_in_head()) is not None:
            self._refuse(invalid(wrong))
        else:
            super().on_headers_complete()

    def on_body(self, body: bytes) -> None:
        if not self._has_refused:
            super().on_body(body)

    def on_message_complete(self) -> None:
        if not self._has_refused:
            super().on_message_complete()

    def _wrong_in_head(self) -> str | None:
        """What a proxy in front may read otherwise than we do. The parser refuses the rest: two lengths, a length with
        chunks, bare line feeds, folded headers, NULs."""
        hosts = 0
        for name, value in self.headers:
            if name == b"host":
                hosts += 1
            elif name == b"transfer-encoding" and value.lower() != b"chunked":
                return "transfer-encoding: only chunked is understood; pack a body with content-encoding"
        if hosts != 1 and (hosts or self.parser.get_http_version() != "1.0"):
            return f"host: it is there {hosts} times; send it once"
        return None

    def send_400_response(self, msg: str) -> None:
        self._refuse(invalid(f"This is not a valid HTTP request: {msg}"))

    def _refuse(self, refusal: Refusal) -> None:
        body = ENVELOPE.refusal_body(refusal)
        head = b"HTTP/1.1 %d %s\r\ncontent-type: application/json\r\ncontent-length: %d\r\nconnection: close\r\n\r\n"
        self.transport.write(head % (refusal.status, _REASONS[refusal.status], len(body)) + body)
        self.transport.write_eof()
        # Closing at once would reset the connection under a client that still sends, and take the refusal with it.
        self._has_refused = True
        self.loop.call_later(LINGER_SECONDS, self.transport.close)
