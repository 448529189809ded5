"""uvicorn's HTTP protocol, with bounds on connections and on a request's head, and with refusals in the caller's
format.

uvicorn itself sets no bound on a head's length; 64 KiB is far more than any SDK sends.
"""

import asyncio
import logging
import math
import re
import socket
from collections.abc import Callable
from http import HTTPStatus
from typing import TYPE_CHECKING, Any

from httptools import HttpParserError, HttpParserUpgrade, HttpRequestParser
from uvicorn._types import ASGI3Application
from uvicorn.config import Config
from uvicorn.protocols.http.httptools_impl import HttpToolsProtocol, RequestResponseCycle
from uvicorn.protocols.utils import get_local_addr, get_remote_addr

from farebox.core.errors import Refusal, headers_too_large, invalid, too_many, too_slow, wrong_method
from farebox.core.formats.table import format_at
from farebox.http.asgi import BREAK_OFF, TAKER
from farebox.http.calls import DIRECT, SOCKETS, FindServe, FindTalks, Serve, Talks
from farebox.http.connection_state import OF_UVICORN, UNREAD_SECONDS, Flow, Pipeline
from farebox.http.direct import DirectCall, Serving
from farebox.http.known_heads import KnownHead, known_head
from farebox.http.proxies import EarlyCloses, silent_seconds

if TYPE_CHECKING:
    from farebox.http.sockets import WebSocket

log = logging.getLogger("farebox")

HEAD_BYTES_MAX = 64 * 1024

KEEP_ALIVE_MARGIN_SECONDS = 5
"""How much longer a connection may be idle than the `Keep-Alive` header says: a client that uses it until the last
second would lose orders to a closing connection."""

PIPELINED_MAX = 16
"""How many requests may wait behind the one that is answered. Those behind them are not answered: who pipelines sends
again what a closing connection left (RFC 9112, 9.3.2)."""

LINGER_SECONDS = 2.0
"""How long a connection stays open after its last answer, for a client that still sends, of which nothing is read, or
that does not take it."""

HEAD_SECONDS = 30.0
"""How long a connection may take to send its first request's head, or the rest of a later one."""

LONG_BYTES = 64 * 1024
RESET_SECONDS = 5.0
"""How long a body that is longer than that is kept for a caller who may not have taken it."""

LOOK_AFTER_SECONDS = (0.02, 0.2, 1.0, 5.0)
"""The pauses between looks at whether a caller who has closed its side of the connection has gone."""

SHED_CONNECTIONS_MAX = 256
"""How many connections over the limit get a refusal; any more are closed without one."""

SHED_RETRY_SECONDS = 1

LOGGED_PATH_MAX = 200

_HOST = re.compile(rb"(?:[A-Za-z0-9._-]+|\[[0-9A-Fa-f:.]+\])(?::[0-9]{1,5})?")
"""The `Host` of RFC 9110, 7.2, in the characters that names which resolve are made of."""


_early_closes = EarlyCloses()
"""All connections of this process together."""


class BoundedHttp(HttpToolsProtocol):
    """Refuses connections beyond uvicorn's `limit_concurrency`, a request whose line and headers are longer than
    HEAD_BYTES_MAX or come slowly, and what is not HTTP. No timer outlives its connection."""

    __slots__ = OF_UVICORN

    head_seconds = HEAD_SECONDS
    unread_seconds = UNREAD_SECONDS
    _head_timer: asyncio.TimerHandle | None = None
    _end_timer: asyncio.TimerHandle | None = None
    _idle_timer: asyncio.TimerHandle | None = None
    _idle_until = 0.0
    _head_bytes = 0
    _body_bytes = 0
    """In this read."""
    _is_all_one = True
    """This read is of one message, and no body came with it."""
    _is_in_head = True
    _is_in_body = False
    """Of the newest request, which is `cycle`."""
    _is_between = True
    """Between two requests, or before the first."""
    _known_head: KnownHead | None = None
    _is_offer = False
    _has_closed_early = False
    url = b""
    _version = ""
    _host: bytes | None = None
    """The last request's `Host`, which nearly always is that of the next."""
    _is_one_too_many = False
    _tell_if_lost: Callable[[], None] | None = None
    _answering: RequestResponseCycle | DirectCall | None = None
    _serving: Serving | None = None
    cycle: RequestResponseCycle | DirectCall  # type: ignore[assignment]

    def __init__(self, config: Config, *arguments: Any, **named: Any) -> None:
        super().__init__(config, *arguments, **named)
        self.pipeline = Pipeline()  # type: ignore[assignment]
        # Each order asks for these two, and Python is slow to find what stands on the class.
        self._has_refused = False
        self._has_ended = False
        self._find_serve: FindServe | None = self.app_state.get(DIRECT)
        self._find_talks: FindTalks | None = self.app_state.get(SOCKETS)
        # uvicorn's own answer would be a 503, which SDKs repeat for an hour, for an idle connection as for an order.
        self._connections_max = config.limit_concurrency
        self.limit_concurrency = None
        self._kept_open = (b"keep-alive", b"timeout=%d" % (config.timeout_keep_alive - KEEP_ALIVE_MARGIN_SECONDS))
        self._kept_open_line = b"%b: %b\r\n" % self._kept_open

    def connection_made(self, transport: asyncio.Transport) -> None:  # type: ignore[override]
        # Not uvicorn's: it asks for addresses, which only ASGI needs.
        self.connections.add(self)
        self.transport = transport
        self.flow = Flow(transport, self.unread_seconds)
        self.scheme = "http"
        if self._connections_max is not None:
            excess = len(self.connections) - self._connections_max
            if excess > SHED_CONNECTIONS_MAX:
                transport.abort()
                return
            self._is_one_too_many = excess > 0
        self._wait_for_head()

    def connection_lost(self, exc: Exception | None) -> None:
        if exc is not None and self._is_being_answered():
            self._note_early_close()
        self._stop_waiting()
        for timer in (self._idle_timer, self._end_timer):
            if timer is not None:
                timer.cancel()
        if self._tell_if_lost is not None and (exc is not None or self._was_not_taken()):
            self._lose()
        super().connection_lost(exc)
        if self._serving is not None:
            self._serving.end()
        if self._answering is not None and self._answering is not self.cycle:
            # Another request stands behind it, and uvicorn tells that one.
            _disconnect(self._answering)

    def eof_received(self) -> bool | None:  # type: ignore[override]
        """The caller has closed its side. It may still read (`nc -N`, some scripts): then it is answered."""
        self._has_ended = True
        if self._tell_if_lost is not None and self._was_not_taken():
            self._lose()
        if not self._is_being_answered():
            return None
        self._note_early_close()
        self.cycle.keep_alive = False
        self._knock()
        self._look(LOOK_AFTER_SECONDS)
        return True

    def _is_being_answered(self) -> bool:
        cycle = self.cycle
        return cycle is not None and not (cycle.response_complete or cycle.more_body or self._has_refused)

    def _note_early_close(self) -> None:
        if not self._has_closed_early:
            self._has_closed_early = True
            _early_closes.saw(self.cycle.scope, silent_seconds(self.transport.get_extra_info("socket")))

    def _knock(self) -> None:
        """Send bytes that mean nothing at this point of the answer: a client that has gone answers them with a
        reset."""
        if self.pipeline:
            return  # the answer under way is an earlier one's
        if self.cycle.chunked_encoding:
            self.transport.write(b"0")  # leads the next chunk's size
        elif not self.cycle.response_started and self.cycle.scope["http_version"] != "1.0":
            self.transport.write(b"HTTP/1.1 100 Continue\r\n\r\n")  # any number of these is allowed (RFC 9110, 15.2)

    def has_gone(self) -> bool:
        return self.transport.is_closing()

    def may_have_gone(self) -> bool:
        """Whether the caller has closed its side, which is all that a proxy that gives up may show, or all of it."""
        return self._has_ended or self.transport.is_closing()

    def tell_if_lost(self, tell: Callable[[], None], size: int = 0) -> None:
        """Call `tell` where the caller goes before its answer is sent, or had gone by then and answers it with a reset.
        That comes within a moment or not at all, so that a long answer need not be kept for longer."""
        self._tell_if_lost = tell
        if self.may_have_gone():
            self._lose()
            return
        if size > LONG_BYTES:
            self.loop.call_later(RESET_SECONDS, self._forget, tell)
        if not self.cycle.keep_alive and self.transport.can_write_eof():
            self.cycle.transport = _LastAnswer(self.transport, self._end_after_caller)  # type: ignore[assignment]

    def _end_after_caller(self) -> None:
        """End a connection that is not kept open, and learn whether its answer was taken: nobody would hear of a reset
        that came after its end."""
        if self.may_have_gone():
            self.transport.close()
            return
        self._has_refused = True
        self.pipeline.clear()
        self.transport.write_eof()
        self._end_timer = self.loop.call_later(LINGER_SECONDS, self.transport.close)

    def _forget(self, tell: Callable[[], None]) -> None:
        if self._tell_if_lost is tell:
            self._tell_if_lost = None

    def _was_not_taken(self) -> bool:
        """As a connection ends: whether its answer was not sent, or met a caller who had gone."""
        return not self.cycle.response_complete or bool(self._socket_error())

    def _lose(self) -> None:
        tell, self._tell_if_lost = self._tell_if_lost, None
        if tell is not None:
            tell()

    def _socket_error(self) -> int:
        return int(self.transport.get_extra_info("socket").getsockopt(socket.SOL_SOCKET, socket.SO_ERROR))

    def _look(self, after_seconds: tuple[float, ...]) -> None:
        if self._socket_error():
            self.transport.abort()
        elif after_seconds:
            self._end_timer = self.loop.call_later(after_seconds[0], self._look, after_seconds[1:])

    def data_received(self, data: bytes) -> None:
        if self._has_refused or self.transport.is_closing():
            return
        before, was_between = self.cycle, self._is_between
        is_next = was_between and before is not None and before.response_complete
        known = self._known_head
        if known is not None and is_next and (body := known.body_in(data)) is not None:
            self._begin_known(known, body)
            return
        self._is_all_one, self._body_bytes = True, 0
        try:
            self._parse(data)
        except HttpParserError as error:
            self.send_400_response(str(error))
        if known is None and is_next:
            self._know_head(data)
        if not self._is_between and not self._has_refused:
            # Nearly every head comes in one piece, so only the others get a timer.
            if self._is_in_head and self._head_timer is None:
                self._wait_for_head()
            if self._count(data) > HEAD_BYTES_MAX:
                self._refuse(headers_too_large(HEAD_BYTES_MAX))

    def _count(self, data: bytes) -> int:
        """How much has come of what is no body: of a head; or since the last piece of a body, which are its chunks'
        extensions and its trailers. As far as that can be told of a read, and never more than it is."""
        if self._is_all_one:
            self._head_bytes += len(data)
        elif self._is_in_head:
            # Behind another message: all that comes after its head, but for its body.
            self._head_bytes = len(data) - (data.rfind(b"\r\n\r\n") + 4) - self._body_bytes
        else:
            self._head_bytes = 0
        return self._head_bytes

    def _know_head(self, data: bytes) -> None:
        """Remember the head of a connection's second order: most that have two have many."""
        call = self.cycle
        if self._has_refused or not self._is_between or not isinstance(call, DirectCall):
            return
        assert self._find_serve is not None
        serve = self._find_serve(self.url.partition(b"?")[0], call.headers)
        if serve is not None:
            self._known_head = known_head(data, self.url, call.headers, serve)

    def _begin_known(self, known: KnownHead, body: bytes) -> None:
        """Begin the call of an order that came whole under a head that was read before."""
        # Who asks again has read the answer before.
        self._tell_if_lost = None
        self._idle_until = math.inf
        self.url = known.url
        head = known.sent_with(body)
        self.cycle = call = DirectCall(self, self, head.sent, True, self._kept_open_line)
        call.came_whole(head, body)
        self._start_call(call, known.serve)

    def _parse(self, data: bytes) -> None:
        """Feed the parser. Raises HttpParserError."""
        rest: bytes | memoryview = data
        while True:
            try:
                self.parser.feed_data(rest)
            except HttpParserUpgrade as offer:
                if self._has_refused:
                    return
                rest = memoryview(rest)[offer.args[0] :]
                if (talks := self._talks_here()) is not None:
                    self._open_socket(talks, bytes(rest))
                    return
                self._ignore_offer()
            else:
                return

    def _talks_here(self) -> Talks | None:
        """Who talks on the WebSocket that is asked for; None where none is spoken, or none was asked for."""
        if self._find_talks is None or self.parser.get_method() != b"GET" or self._is_being_answered():
            return None
        offers = [value.strip().lower() for name, value in self.headers if name == b"upgrade"]
        return self._find_talks(self.url.partition(b"?")[0]) if offers == [b"websocket"] else None

    def _open_socket(self, talks: Talks, rest: bytes) -> None:
        """Have a request for a WebSocket answered, which may take a look into the books."""
        self._is_offer = False
        if (wrong := self._wrong_in_head()) is not None:
            self._refuse(invalid(wrong))
        elif self._is_one_too_many:
            self._refuse(self._too_many_connections())
        else:
            # Only here: who is asked for none need not carry what it is made of.
            from farebox.http.sockets import open_socket

            self.flow.pause_reading()
            task = self.loop.create_task(open_socket(self, talks, self.headers, rest))
            self.tasks.add(task)
            task.add_done_callback(self.tasks.discard)

    def refuse_socket(self, refusal: Refusal) -> None:
        """Answer over HTTP that no WebSocket is opened."""
        if not self.transport.is_closing():
            self.flow.resume_reading()
            self._refuse(refusal)

    def leave_to(self, protocol: "WebSocket", head: bytes, rest: bytes) -> None:
        """Send the head of the answer that opens a WebSocket, and let the connection go on as that."""
        self._stop_waiting()
        for timer in (self._idle_timer, self._end_timer):
            if timer is not None:
                timer.cancel()
        if self._serving is not None:
            self._serving.end()
        self.connections.discard(self)
        self.connections.add(protocol)  # type: ignore[arg-type]
        self.transport.set_protocol(protocol)
        self.transport.write(head)
        if rest:
            protocol.data_received(rest)
        self.flow.resume_reading()

    def _too_many_connections(self) -> Refusal:
        return too_many(f"{self._connections_max} connections are open, the most at once", SHED_RETRY_SECONDS)

    def _ignore_offer(self) -> None:
        """Read on in HTTP/1.1 after a head that offers another protocol: an upgrade that is not wanted is ignored (RFC
        9110, 7.8).

        The parser takes such a head for a whole message, and its body for the other protocol's first bytes, or, by
        the next piece, for a request. So another parser is given the same head without the offer, and then the body.
        """
        line = b"%b %b HTTP/%b\r\n" % (self.parser.get_method(), self.url, self.parser.get_http_version().encode())
        kept = [b"%b: %b\r\n" % header for header in self.headers if header[0] != b"upgrade"]
        if any(name == b"upgrade" and b"websocket" in value.lower() for name, value in self.headers):
            path = self.url.partition(b"?")[0][:LOGGED_PATH_MAX].decode("latin-1")
            log.warning("a WebSocket was asked for at %r: none is spoken here, and it is answered over HTTP/1.1", path)
        self._is_offer = False
        self.parser = HttpRequestParser(self)
        self.parser.feed_data(b"".join([line, *kept, b"\r\n"]))

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

    def on_response_complete(self) -> None:
        """As uvicorn's, but for the timer: one that begins anew with each answer costs a hundredth of an order."""
        self.server_state.total_requests += 1
        if self.transport.is_closing():
            return
        self.flow.resume_reading()
        if self.pipeline:
            self._start_asgi_task(*self.pipeline.pop())
            return
        self._idle_until = self.loop.time() + self.timeout_keep_alive
        if self._idle_timer is None:
            self._idle_timer = self.loop.call_later(self.timeout_keep_alive, self._look_whether_idle)

    def _look_whether_idle(self) -> None:
        self._idle_timer = None
        left = self._idle_until - self.loop.time()
        if left <= 0:
            self.transport.close()
        elif left < math.inf:
            self._idle_timer = self.loop.call_later(left, self._look_whether_idle)

    def on_message_begin(self) -> None:
        self.url = b""
        self._is_between = False
        self.headers = []
        self.expect_100_continue = False
        self._is_in_head, self._is_in_body = True, False
        self._head_bytes = 0
        self._idle_until = math.inf
        # Who asks again has read the answer before.
        self._tell_if_lost = None

    def on_header(self, name: bytes, value: bytes) -> None:
        if self._is_in_head:
            super().on_header(name, value)
        # Trailers after a body in chunks do not count as headers: a proxy in front may have checked the head alone.

    def on_headers_complete(self) -> None:
        self._is_in_head = False
        # Again: the answer to the request before may have ended since this head began.
        self._idle_until = math.inf
        if self._head_timer is not None:
            self._stop_waiting()
        if self._has_refused:
            return
        if self.parser.get_method() == b"CONNECT":
            self._refuse(wrong_method("CONNECT", "GET, POST"))
        elif self.parser.should_upgrade():
            self._is_offer = True
        elif (wrong := self._wrong_in_head()) is not None:
            self._refuse(invalid(wrong))
        elif self._is_one_too_many:
            self._refuse(self._too_many_connections())
        elif len(self.pipeline) >= PIPELINED_MAX:
            self._has_refused, self.cycle.keep_alive = True, False
        elif (serve := self._served_directly()) is not None:
            self._is_in_body = True
            self._begin_call(serve)
        else:
            self._is_in_body = True
            self._begin_cycle()
            self.headers = []
            self.scope[BREAK_OFF] = self.transport.close  # type: ignore[literal-required]
            self.scope[TAKER] = self  # type: ignore[literal-required]
            assert isinstance(self.cycle, RequestResponseCycle), self.cycle
            if self.cycle.keep_alive:
                self.cycle.default_headers = [*self.cycle.default_headers, self._kept_open]

    def _served_directly(self) -> Serve | None:
        """What serves this request without ASGI: an order, with nothing about it that only ASGI's way knows."""
        if self._find_serve is None or self.expect_100_continue or self.parser.get_method() != b"POST":
            return None
        if self._version != "1.1":
            return None
        return self._find_serve(self.url.partition(b"?")[0], self.headers)

    def _begin_cycle(self) -> None:
        """Have uvicorn begin a cycle, with a scope, which calls do without."""
        if self.client is None:
            self.server, self.client = get_local_addr(self.transport), get_remote_addr(self.transport)
        url, headers, expects = self.url, self.headers, self.expect_100_continue
        super().on_message_begin()
        self.url, self.headers, self.expect_100_continue = url, headers, expects
        self.scope["headers"] = headers
        super().on_headers_complete()

    def _begin_call(self, serve: Serve) -> None:
        """The same for a call."""
        before = self.cycle
        keep_alive = self.parser.should_keep_alive()
        call = DirectCall(self, self, self.headers, keep_alive, self._kept_open_line if keep_alive else b"")
        self.headers = []
        self.cycle = call
        if before is None or before.response_complete:
            self._start_call(call, serve)
        else:
            self.flow.pause_reading()
            self.pipeline.appendleft((call, serve))  # type: ignore[arg-type]

    def _start_call(self, call: DirectCall, serve: Serve) -> None:
        self._answering = call
        if self._serving is None:
            self._serving = Serving(self.loop, self.tasks)
        self._serving.begin(call, serve)

    def _start_asgi_task(self, cycle: RequestResponseCycle | DirectCall, app: Any) -> None:
        """Called by uvicorn for what was in the pipeline, too."""
        self._answering = cycle
        if isinstance(cycle, DirectCall):
            self._start_call(cycle, app)
            return
        super()._start_asgi_task(cycle, app if cycle.scope["http_version"] != "1.0" else _unchunked(cycle, app))

    def on_body(self, body: bytes) -> None:
        self._is_all_one = False
        self._body_bytes += len(body)
        if self._has_refused:
            return
        if isinstance(self.cycle, DirectCall):
            self.cycle.take(body)
        else:
            super().on_body(body)

    def on_message_complete(self) -> None:
        self._is_all_one = False
        if self._has_refused or self._is_offer:
            return
        self._is_between, self._is_in_body = True, False
        if isinstance(self.cycle, DirectCall):
            self.cycle.take_end()
        else:
            super().on_message_complete()

    def _wrong_in_head(self) -> str | None:
        """Why a head is refused that a proxy in front might read differently; None where it is not. The parser itself
        refuses two lengths, a length with chunks, bare line feeds, folded headers and NULs."""
        # Asked once: the parser makes a text of two numbers each time.
        self._version = version = self.parser.get_http_version()
        if version not in ("1.0", "1.1"):
            return f"HTTP/{version} is not spoken here; send HTTP/1.1"
        hosts = 0
        for name, value in self.headers:
            if name == b"host":
                hosts += 1
                if value != self._host and not _HOST.fullmatch(value):
                    return "host: it is not the name of a host, with or without a port"
                self._host = value
            elif name == b"transfer-encoding":
                if version == "1.0":
                    return "transfer-encoding: HTTP/1.0 has none; send content-length"
                if value.lower() != b"chunked":
                    return "transfer-encoding: only chunked is understood; pack a body with content-encoding"
        if hosts != 1 and (hosts or version != "1.0"):
            return f"host: it is there {hosts} times; send it once"
        return None

    def send_400_response(self, msg: str) -> None:
        self._refuse(invalid(f"This is not a valid HTTP request: {msg}"))

    def _refuse(self, refusal: Refusal) -> None:
        """Refuse the connection, once: the parser goes on after a refused head, and may call that no request, too."""
        if self._has_refused:
            return
        self._has_refused = True
        cycle = self.cycle
        if self._is_in_body and self.pipeline:
            # The last of those that wait, which the one before it must not be answered with.
            del self.pipeline[0]
            self.cycle = cycle = self.pipeline[0][0] if self.pipeline else self._answering  # type: ignore[assignment]
        elif self._is_in_body and cycle.response_complete:
            self._end_later()
            return
        elif self._is_in_body and not cycle.response_started:
            self._write_refusal(refusal)
            _disconnect(cycle)
            return
        if cycle is not None and not cycle.response_complete:
            # An answer is on its way, and nothing may come between: it is the connection's last.
            cycle.keep_alive = False
        else:
            self._write_refusal(refusal)

    def _write_refusal(self, refusal: Refusal) -> None:
        body = format_at(self.url.partition(b"?")[0].decode("latin-1")).refusal_body(refusal)
        headers = {"content-type": "application/json", "content-length": len(body), "connection": "close"}
        lines = [f"{name}: {value}\r\n" for name, value in {**headers, **refusal.headers}.items()]
        head = f"HTTP/1.1 {refusal.status} {HTTPStatus(refusal.status).phrase}\r\n{''.join(lines)}\r\n"
        self.transport.write(head.encode() + body)
        self._end_later()

    def _end_later(self) -> None:
        self.transport.write_eof()
        # Closing at once would reset the connection under a client that still sends, and take the refusal with it.
        self._end_timer = self.loop.call_later(LINGER_SECONDS, self.transport.close)


def _disconnect(cycle: RequestResponseCycle | DirectCall) -> None:
    """Have who serves a request know that its caller is not there."""
    cycle.disconnected = True
    cycle.message_event.set()


class _LastAnswer:
    """A transport as an answer sees it that is its connection's last: `close` is for the connection to do."""

    def __init__(self, transport: asyncio.Transport, close: Callable[[], None]) -> None:
        self.write = transport.write
        self.is_closing = transport.is_closing
        self.close = close


def _unchunked(cycle: RequestResponseCycle, app: ASGI3Application) -> ASGI3Application:
    """The app for a client of HTTP/1.0, which knows no chunks: a body of unknown length ends with the connection."""

    async def serve(scope: Any, receive: Any, send: Any) -> None:
        is_open_ended = False

        async def send_unchunked(message: Any) -> None:
            nonlocal is_open_ended
            if message["type"] == "http.response.start":
                is_open_ended = all(name != b"content-length" for name, _ in message["headers"])
                if is_open_ended:
                    cycle.chunked_encoding = False
            elif is_open_ended:
                cycle.expected_content_length = len(message.get("body", b""))
            await send(message)

        await app(scope, receive, send_unchunked)

    return serve
