"""Calls that come straight from their connection: between its parser and the relay stands no ASGI.

A DirectCall takes the place that uvicorn's protocol has for its own cycle, so that pipelining, keep-alive, limits and
stops are the same for both.
"""

import asyncio
import logging
from collections.abc import Awaitable, Callable
from time import monotonic
from typing import Any

from uvicorn.protocols.http.flow_control import HIGH_WATER_LIMIT
from uvicorn.protocols.http.httptools_impl import STATUS_LINE, HttpToolsProtocol

from farebox.core.headers import LASTING, NOT_IN_VALUES, HeaderList, RequestHead, read_request_head
from farebox.http.calls import Serve
from farebox.ports import CallerGone, Taker

log = logging.getLogger("farebox")

_IN_NAMES = b"!#$%&'*+-.^_`|~0123456789abcdefghijklmnopqrstuvwxyzABCDEFGHIJKLMNOPQRSTUVWXYZ"
"""The characters of a header's name (RFC 9110, 5.6.2)."""


class Serving:
    """Serves the calls of one connection, one after another, in one task: a new one for each would cost an order 3%."""

    def __init__(self, loop: asyncio.AbstractEventLoop, tasks: set[asyncio.Task[None]]) -> None:
        """`tasks` are those that a stop of the server waits for: an idle one is not among them."""
        self._loop = loop
        self._tasks = tasks
        self._next: tuple[DirectCall, Serve] | None = None
        self._task: asyncio.Task[None] | None = None
        self._idle: asyncio.Future[None] | None = None
        self._is_over = False

    def begin(self, call: "DirectCall", serve: Serve) -> None:
        """Serve a call. The one before has been answered, and may have something to do still."""
        self._next = call, serve
        if self._task is None:
            self._task = self._loop.create_task(self._run())
            self._tasks.add(self._task)
        elif self._idle is not None:
            idle, self._idle = self._idle, None
            idle.set_result(None)
            self._tasks.add(self._task)

    def end(self) -> None:
        """The connection is lost: there is no other call."""
        self._is_over = True
        if self._idle is not None:
            idle, self._idle = self._idle, None
            idle.set_result(None)

    async def _run(self) -> None:
        task = self._task
        assert task is not None
        try:
            while self._next is not None:
                (call, serve), self._next = self._next, None
                try:
                    await serve(call)
                except Exception:  # the process's edge: what nobody foresaw ends one connection
                    log.exception("an order failed in a way that nobody foresaw")
                finally:
                    call.leave()
                    del call, serve  # an idle connection keeps nothing of its last order
                if self._next is None and not self._is_over:
                    self._tasks.discard(task)
                    self._idle = idle = self._loop.create_future()
                    await idle
        except asyncio.CancelledError:
            pass  # the server stops
        finally:
            self._tasks.discard(task)
            self._task = self._idle = None
            if self._next is not None:
                self.begin(*self._next)


class DirectCall:
    """A call (`calls.Call`) of one connection. What uvicorn's protocol sets and calls of its cycle is here under the
    same names: `disconnected`, and `message_event.set()` after that."""

    can_break_off = True

    # On the class stands what orders seldom ask for: Python finds it there slowly.
    chunk_put_at = 0.0
    _change: asyncio.Future[None] | None = None
    _tell_gone: Callable[[], None] | None = None

    def __init__(
        self, connection: HttpToolsProtocol, taker: Taker, headers: HeaderList, keep_alive: bool, kept_open: bytes
    ) -> None:
        self._connection: HttpToolsProtocol | None = connection
        self._flow = connection.flow
        self._url = connection.url
        self._kept_open = kept_open
        self.transport = connection.transport
        self.taker: Taker | None = taker
        self.headers = headers
        self.keep_alive = keep_alive
        self._head_read: RequestHead | None = None
        self.body: bytearray | bytes = bytearray()
        self.more_body = True
        self.is_read = False
        self.response_started = False
        self.response_complete = False
        self.chunked_encoding: bool | None = None
        self.disconnected = False

    def leave(self) -> None:
        """The call has been served to its end, whatever that was."""
        # Else the two would keep each other until the garbage collector finds them.
        self._connection = self.taker = self._tell_gone = None
        # The connection keeps its last call while it is idle, perhaps for long.
        self.headers = []
        self._head_read = None
        if not (self.response_complete or self.disconnected):
            self.transport.close()

    # The request

    def came_whole(self, head: RequestHead, body: bytes) -> None:
        """All of the request is here, and its head was read."""
        self._head_read, self.body, self.more_body = head, body, False

    def head(self) -> RequestHead:
        return self._head_read or read_request_head(self.headers)

    def take(self, piece: bytes) -> None:
        """A piece of the body has come."""
        if self.response_complete:
            return
        self.body += piece
        if len(self.body) > HIGH_WATER_LIMIT:
            self._flow.pause_reading()
        if self._change is not None:
            self.set()

    def take_end(self) -> None:
        """The body has come to its end."""
        if not self.response_complete:
            self.more_body = False
            if self._change is not None:
                self.set()

    def came(self, bytes_max: int) -> bytes | None:
        return None if self.more_body or self.disconnected or len(self.body) > bytes_max else self._rest()

    async def part(self) -> tuple[bytes, bool]:
        if self.more_body and not self.body and not self.disconnected:
            self._flow.resume_reading()
            self._change = asyncio.get_running_loop().create_future()
            await self._change
        if self.disconnected:
            raise CallerGone
        return self._rest(), not self.more_body

    def _rest(self) -> bytes:
        """What has come of the body and was not taken yet."""
        part, self.body = bytes(self.body), bytearray()
        connection = self._connection
        if not self.more_body and connection is not None and not connection.pipeline:
            # A long body may have stopped the reading, which is how a hang-up is heard of.
            self._flow.resume_reading()
        return part

    @property
    def message_event(self) -> "DirectCall":
        return self

    def set(self) -> None:
        """More of the body has come, or the connection is lost."""
        if self._change is not None and not self._change.done():
            self._change.set_result(None)
        if self.disconnected and self._tell_gone is not None:
            self._tell_gone()

    def is_gone(self) -> bool:
        return self.disconnected

    def when_gone(self, tell: Callable[[], None] | None) -> None:
        self._tell_gone = tell
        if tell is not None and self.disconnected:
            tell()

    @property
    def scope(self) -> dict[str, Any]:
        """What ASGI would say of the request, as far as somebody asks."""
        path = self._url.partition(b"?")[0].decode("latin-1")
        return {"method": "POST", "path": path, "http_version": "1.1", "headers": self.headers}

    # The answer

    @property
    def has_begun(self) -> bool:
        return self.response_started

    async def whole(self, status: int, headers: HeaderList, body: bytes) -> None:
        if self._flow.write_paused:
            await self._flow.drain()
        if self.disconnected:
            return
        self.chunked_encoding = False
        lines = self._head(status, [*headers, (b"content-length", b"%d" % len(body))])
        self.transport.write(b"".join([*lines, b"\r\n", body]))
        self._complete()

    async def begin(self, status: int, headers: HeaderList) -> None:
        if self._flow.write_paused:
            await self._flow.drain()
        if self.disconnected:
            return
        # In place, for all who have them.
        self.headers[:] = [header for header in self.headers if header[0] in LASTING]
        names = {name for name, _ in headers}
        self.chunked_encoding = b"content-length" not in names
        says_close = (b"connection", b"close") in headers
        self.keep_alive = self.keep_alive and not says_close
        lines = self._head(status, headers, says_close=says_close)
        lines.append(b"transfer-encoding: chunked\r\n\r\n" if self.chunked_encoding else b"\r\n")
        self.transport.write(b"".join(lines))

    async def send(self, piece: bytes) -> None:
        if self._flow.write_paused:
            await self._flow.drain()
        self._write(piece)

    def put(self, piece: bytes) -> Awaitable[None] | None:
        if self.chunked_encoding and piece and not self.disconnected:
            self.transport.write(b"%x\r\n%b\r\n" % (len(piece), piece))
        else:
            self._write(piece)
        return self._flow.drain() if self._flow.write_paused else None

    def put_chunk(self, chunk: bytes) -> bool:
        if self.disconnected or self._flow.write_paused or not self.chunked_encoding:
            return False
        self.transport.write(chunk)
        self.chunk_put_at = monotonic()
        return True

    def send_if_taken(self, piece: bytes) -> None:
        if not self._flow.write_paused:
            self._write(piece)

    async def end(self, last: bytes = b"") -> None:
        if self._flow.write_paused:
            await self._flow.drain()
        if self.disconnected:
            return
        self._write(last)
        if self.chunked_encoding:
            self.transport.write(b"0\r\n\r\n")
        self._complete()

    async def break_off(self) -> None:
        self.transport.close()

    def _head(self, status: int, headers: HeaderList, *, says_close: bool = False) -> list[bytes]:
        """The lines of the head. Raises ValueError: a header would break it."""
        connection = self._connection
        assert connection is not None
        # One look at all of them together costs as much as one at each.
        names, each_value = zip(*headers, strict=True)
        values = b"".join(each_value)
        if b"".join(names).translate(None, _IN_NAMES) or values != values.translate(None, NOT_IN_VALUES):
            raise ValueError("a header has characters that it may not have")
        lines = [STATUS_LINE[status]]
        self.response_started = True  # not before: what cannot be sent is answered otherwise
        for name, value in connection.server_state.default_headers:
            lines += (name, b": ", value, b"\r\n")
        lines.append(self._kept_open)
        for name, value in headers:
            lines += (name, b": ", value, b"\r\n")
        if not (self.keep_alive or says_close):
            lines.append(b"connection: close\r\n")
        return lines

    def _write(self, piece: bytes) -> None:
        if piece and not self.disconnected:
            self.transport.write(b"%x\r\n%b\r\n" % (len(piece), piece) if self.chunked_encoding else piece)

    def _complete(self) -> None:
        connection = self._connection
        assert connection is not None
        self.response_complete = True
        if not self.keep_alive:
            self.transport.close()
        connection.on_response_complete()
