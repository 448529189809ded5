"""What stands before ASGI: uvicorn's HTTP protocol, with a bound on a request's head and our refusals in our envelope.

uvicorn leaves a head's length to whoever sends it; 64 KiB is far more than any SDK sends.
"""

from uvicorn.protocols.http.httptools_impl import HttpToolsProtocol

from farebox.core.errors import Refusal, headers_too_large, invalid
from farebox.web.refusals import ENVELOPE

HEAD_BYTES_MAX = 64 * 1024

LINGER_SECONDS = 2.0
"""How long a refused connection may go on sending, to nobody."""

_REASONS = {400: b"Bad Request", 431: b"Request Header Fields Too Large"}


class BoundedHttp(HttpToolsProtocol):
    """Refuses a request whose line and headers are longer than HEAD_BYTES_MAX, and what is not HTTP."""

    _head_bytes = 0
    _is_in_head = True
    _has_refused = False

    def data_received(self, data: bytes) -> None:
        if self._has_refused or self.transport.is_closing():
            return
        super().data_received(data)
        if self._is_in_head and not self._has_refused:
            self._head_bytes += len(data)
            if self._head_bytes > HEAD_BYTES_MAX:
                self._refuse(headers_too_large(HEAD_BYTES_MAX))

    def on_message_begin(self) -> None:
        super().on_message_begin()
        self._is_in_head = True
        self._head_bytes = 0

    def on_headers_complete(self) -> None:
        self._is_in_head = False
        super().on_headers_complete()

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
