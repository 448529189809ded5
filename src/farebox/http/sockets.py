"""WebSockets: a connection of `BoundedHttp` goes on as one of these (RFC 6455), where somebody talks at its path.

Frames are the library's business (`websockets`, its part without I/O); here are the bounds, the clock and the order of
messages. They are answered one after another, in a task that only lives for as long as there are any: an idle socket is
a small thing. Extensions are not agreed on, so nothing comes packed.

Only loaded once a WebSocket is asked for.
"""

import asyncio
import logging
import math
from collections import deque
from collections.abc import Awaitable, Callable, Sequence
from time import monotonic
from typing import TYPE_CHECKING, Any, cast

from websockets.frames import Frame, Opcode
from websockets.protocol import OPEN, SERVER, Protocol
from websockets.utils import accept_key

from farebox.core.errors import Refusal, invalid
from farebox.core.headers import HeaderList
from farebox.http.calls import Talk, Talks
from farebox.http.connection_state import Flow
from farebox.http.refusals import refusal_of

if TYPE_CHECKING:
    from farebox.http.server import BoundedHttp

log = logging.getLogger("farebox")

PING_SECONDS = 30.0
"""How long nothing may be heard before a ping goes out: proxies cut connections that are silent, nginx after 60 s."""

SILENT_SECONDS = 600.0
"""How long a caller may answer no ping. Long, since some libraries answer them only while a message is waited for, and
a client may run a tool meanwhile; who is dead at the other end is found sooner, by TCP."""

CLOSE_SECONDS = 5.0
"""How long a caller may take to answer a close."""

NORMAL, LEAVING, BROKEN_RULE, FAILED = 1000, 1001, 1008, 1011
"""Codes of a close (RFC 6455, 7.4.1)."""

_VERSION = b"13"

_quiet = logging.Logger("farebox.sockets", logging.CRITICAL)
"""The library's log of each connection's frames and end, which nobody reads."""


def accepted(headers: HeaderList) -> bytes:
    """The answer's head that opens a WebSocket. Raises Refusal 400, 426: it was not asked for as RFC 6455 has it
    (4.2.1)."""
    keys = [value for name, value in headers if name == b"sec-websocket-key"]
    versions = [value for name, value in headers if name == b"sec-websocket-version"]
    if versions != [_VERSION]:
        told = {"sec-websocket-version": _VERSION.decode(), "upgrade": "websocket"}
        raise Refusal(426, "invalid_request", "sec-websocket-version: only 13 is spoken", headers=told)
    if len(keys) != 1 or len(keys[0]) != 24 or not keys[0].endswith(b"=="):
        raise invalid("sec-websocket-key: send one, of 16 bytes in base64")
    lines = (
        b"HTTP/1.1 101 Switching Protocols",
        b"upgrade: websocket",
        b"connection: Upgrade",
        b"sec-websocket-accept: " + accept_key(keys[0].decode("latin-1")).encode(),
    )
    return b"\r\n".join(lines) + b"\r\n\r\n"


async def open_socket(connection: "BoundedHttp", talks: Talks, headers: HeaderList, rest: bytes) -> None:
    """Answer the request that asks for a WebSocket: refuse it over HTTP, or go on as one. `rest` came behind it."""
    try:
        head = accepted(headers)
        await talks.admit(headers)
    except Exception as error:  # noqa: BLE001 - the process's edge: what nobody foresaw is logged there
        connection.refuse_socket(refusal_of(error))
        return
    if connection.transport.is_closing():
        return
    connection.leave_to(WebSocket(connection, talks, headers), head, rest)


class WebSocket(asyncio.Protocol):
    """A connection (`calls.Socket`)."""

    __slots__ = (
        "_connections",
        "_ends_at",
        "_flow",
        "_heard_at",
        "_is_closing",
        "_is_gone",
        "_is_leaving",
        "_loop",
        "_partial",
        "_partial_since",
        "_protocol",
        "_queue",
        "_queued_bytes",
        "_talk",
        "_talks",
        "_task",
        "_tasks",
        "_tell_gone",
        "_transport",
        "due",
    )

    def __init__(self, connection: "BoundedHttp", talks: Talks, headers: HeaderList) -> None:
        self._loop = connection.loop
        self._transport = connection.transport
        self._connections = cast(set[Any], connection.connections)
        self._tasks = connection.tasks
        self._flow = Flow(connection.transport)
        self._talks = talks
        self._protocol = Protocol(SERVER, state=OPEN, max_size=talks.message_bytes_max, logger=_quiet)
        self._queue: deque[bytes] | None = None
        self._queued_bytes = 0
        self._partial: bytearray | None = None
        self._partial_since = 0.0
        self._task: asyncio.Task[None] | None = None
        self._tell_gone: Callable[[], None] | None = None
        self._is_closing = self._is_gone = self._is_leaving = False
        now = monotonic()
        self._heard_at = now
        self._ends_at = now + talks.seconds
        self.due = math.inf
        self._wait_on(now)
        self._talk: Talk | None = talks.begin(self, headers)
        talks.deadlines.add(self)

    # The connection

    def data_received(self, data: bytes) -> None:
        if self._is_gone:
            return
        now = self._heard_at = monotonic()
        protocol = self._protocol
        protocol.receive_data(data)
        frames = cast(list[Frame], protocol.events_received())
        self._write()
        for frame in frames:
            self._take(frame)
        if frames and self._partial is None:
            self._partial_since = 0.0
        elif not self._partial_since:
            # A message has begun, or a frame of one: the next that comes whole may be another's beginning.
            self._partial_since = now
            self._wait_on(now)
            self._talks.deadlines.add(self)

    def _take(self, frame: Frame) -> None:
        if frame.opcode is Opcode.CLOSE:
            self._lose()
        elif frame.opcode in (Opcode.TEXT, Opcode.BINARY) and frame.fin:
            self._heard(bytes(frame.data))
        elif frame.opcode in (Opcode.TEXT, Opcode.BINARY):
            self._partial = bytearray(frame.data)
        elif frame.opcode is Opcode.CONT and self._partial is not None:
            self._partial += frame.data
            if frame.fin:
                message, self._partial = bytes(self._partial), None
                self._heard(message)

    def eof_received(self) -> None:
        self._lose()

    def connection_lost(self, exc: Exception | None) -> None:
        self._connections.discard(self)
        self._talks.deadlines.discard(self)
        self._flow.resume_writing()
        self._lose()
        talk, self._talk = self._talk, None
        if talk is not None:
            talk.forget()

    def pause_writing(self) -> None:
        self._flow.pause_writing()

    def resume_writing(self) -> None:
        self._flow.resume_writing()
        self._flow.resume_reading()

    def shutdown(self) -> None:
        """The server stops (uvicorn calls this). A turn that is being answered is broken off by its own bounds."""
        self._is_leaving = True
        if self._task is None:
            self._leave()

    def _leave(self) -> None:
        self.close(LEAVING, "the gateway is stopping")
        self._transport.close()

    # The clock

    def _wait_on(self, now: float) -> None:
        due = now + PING_SECONDS
        if self._task is None:
            due = min(due, self._ends_at)
        if self._partial_since:
            due = min(due, self._partial_since + self._talks.message_seconds)
        self.due = due

    def expire(self) -> None:
        if self._is_gone:
            return
        now = monotonic()
        if self._is_closing or now - self._heard_at > SILENT_SECONDS:
            self._transport.abort()
            return
        if self._partial_since and now - self._partial_since >= self._talks.message_seconds:
            self.put([self._talks.too_slow()])
            self.close(BROKEN_RULE, "the message did not come to its end")
        elif self._task is None and now >= self._ends_at:
            self._end()
        else:
            self.ping()
            self._wait_on(now)
        self._talks.deadlines.add(self)

    def _end(self) -> None:
        self.put([self._talks.last_words()])
        self.close(NORMAL, "its time is over")

    # Messages

    def _heard(self, message: bytes) -> None:
        if self._is_closing or self._is_gone:
            return
        if self._task is not None:
            talks = self._talks
            waiting = self._queue if self._queue is not None else deque()
            size = self._queued_bytes + len(message)
            if len(waiting) >= talks.waiting_max or size > talks.message_bytes_max:
                self.put([talks.too_many()])
                return
            waiting.append(message)
            self._queue, self._queued_bytes = waiting, size
        elif monotonic() >= self._ends_at:
            self._end()
        else:
            self._task = task = self._loop.create_task(self._answer(message))
            self._tasks.add(task)

    async def _answer(self, message: bytes) -> None:
        """Answer a message, and those that came meanwhile."""
        task = self._task
        assert task is not None
        try:
            while self._talk is not None and not self._is_gone:
                await self._talk.hear(message)
                if not self._queue or monotonic() >= self._ends_at:
                    break
                message = self._queue.popleft()
                self._queued_bytes -= len(message)
        except asyncio.CancelledError:
            self._is_leaving = True
        except Exception:  # the process's edge: what nobody foresaw ends one connection
            log.exception("a turn failed in a way that nobody foresaw")
            self.close(FAILED, "its log says why")
        finally:
            self._task = self._queue = None
            self._queued_bytes = 0
            self._tasks.discard(task)
        if self._is_leaving:
            self._leave()
        elif monotonic() >= self._ends_at and not self._is_closing:
            self._end()

    # `calls.Socket`

    def put(self, texts: Sequence[bytes]) -> Awaitable[None] | None:
        if self._is_gone or self._is_closing:
            return None
        for text in texts:
            self._protocol.send_text(text)
        self._write()
        return self._flow.drain() if self._flow.write_paused else None

    def ping(self) -> None:
        if not (self._is_gone or self._is_closing or self._flow.write_paused):
            self._protocol.send_ping(b"")
            self._write()

    def close(self, code: int, reason: str) -> None:
        if self._is_gone or self._is_closing:
            return
        self._is_closing = True
        self._protocol.send_close(code, reason)
        self._write()
        self.due = monotonic() + CLOSE_SECONDS
        self._talks.deadlines.add(self)

    def when_gone(self, tell: Callable[[], None] | None) -> None:
        self._tell_gone = tell
        if tell is not None and self._is_gone:
            tell()

    def has_gone(self) -> bool:
        return self._is_gone or self._transport.is_closing()

    def may_have_gone(self) -> bool:
        return self.has_gone()

    def tell_if_lost(self, tell: Callable[[], None], size: int = 0) -> None:
        if self.has_gone():
            tell()

    def _lose(self) -> None:
        if not self._is_gone:
            self._is_gone = True
            self._queue = None
            if self._tell_gone is not None:
                self._tell_gone()

    def _write(self) -> None:
        """Write what the library has to say."""
        pieces = self._protocol.data_to_send()
        if not pieces or self._transport.is_closing():
            return
        if self._flow.write_paused:
            # Who sends pings and does not read what they are answered with is not read, either.
            self._flow.pause_reading()
        self._transport.write(b"".join(pieces))
        if pieces[-1] == b"":  # the end, as the library says it
            self._is_closing = True
            self._transport.close()
