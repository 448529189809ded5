"""WebSocket on `/responses`: each message of a caller's is a turn, and each turn an order like any other.

A turn is served by what serves a POST to the same path: it comes as a call, whose stream goes out event by event, a
text message each. What a WebSocket adds is a memory: of the last turn, so that the next need not repeat what went
before. It ends with the connection, and is bounded for all connections together.

Only loaded once a WebSocket is asked for.
"""

from collections.abc import Awaitable, Callable, Sequence
from uuid import uuid4

from msgspec import Struct

from farebox import clock
from farebox.core import turns
from farebox.core.continuation import continued, input_items, items_of, output_items
from farebox.core.errors import BROKEN_STATUS, Refusal, broken, forbidden, too_slow
from farebox.core.formats import Format, Progress
from farebox.core.headers import HeaderList, RequestHead, read_request_head
from farebox.core.intake import read_asked
from farebox.core.sse import EventSplitter, event_data
from farebox.core.turns import FAILED, Ended, Turn
from farebox.deadlines import Deadlines
from farebox.http.calls import Serve, Socket
from farebox.http.refusals import refusal_of
from farebox.ports import BooksUnavailable, Callers, Taker
from farebox.web.access import Access, host_in

WAITING_MAX = 8
"""How many turns may wait on one connection for the one before them."""

FAILED_CLOSE = 1011
"""The code of a close after an error (RFC 6455, 7.4.1)."""

_OF_ONE_ORDER = frozenset(
    {b"idempotency-key", b"x-stainless-retry-count", b"content-type", b"content-encoding", b"content-length"}
)
"""Headers of the handshake that would say the same of every turn."""


class Memory:
    """How many connections there are, and how many bytes they remember together, at most `bytes_max`."""

    def __init__(self, bytes_max: int) -> None:
        self._bytes_max = bytes_max
        self.bytes = 0
        self.connections = 0

    def take(self, size: int) -> bool:
        """False where there is no room."""
        if self.bytes + size > self._bytes_max:
            return False
        self.bytes += size
        return True

    def give_back(self, size: int) -> None:
        self.bytes -= size


class Remembered(Struct, frozen=True):
    """The last turn of a connection: the id of its answer, and its items, in JSON, with those before it; but for what
    is kept under the id `base`, where there is one."""

    response_id: str
    items: bytes
    base: str = ""


class Turns:
    """Who talks on WebSockets at `/responses` (`calls.Talks`)."""

    waiting_max = WAITING_MAX

    def __init__(
        self,
        serve: Serve,
        wire: Format,
        callers: Callers,
        access: Access,
        deadlines: Deadlines,
        *,
        message_bytes_max: int,
        message_seconds: float,
        seconds: float,
        memory: Memory,
        keeps_answers: bool = False,
    ) -> None:
        """`keeps_answers`: whoever serves finds answers by their id that are not remembered here."""
        self.serve = serve
        self.wire = wire
        self.callers = callers
        self.deadlines = deadlines
        self.message_bytes_max = message_bytes_max
        self.message_seconds = message_seconds
        self.seconds = seconds
        self.memory = memory
        self.keeps_answers = keeps_answers
        self._access = access

    async def admit(self, headers: HeaderList) -> None:
        """As for every order's path: under this gateway's names, of no page elsewhere, and with a key."""
        access = self._access
        hosts = [host_in(value.decode("latin-1")) for name, value in headers if name == b"host"]
        host = hosts[0] if hosts else ""
        if access.hosts and host.encode() not in access.hosts:
            raise forbidden("host: this gateway is not known under that name")
        for name, value in headers:
            origin = value.decode("latin-1")
            if name == b"origin" and access.is_foreign_origin(origin, host):
                raise forbidden(
                    f"origin: pages of {origin[:200]!r} may not ask here; FAREBOX_ALLOWED_ORIGINS says which may"
                )
        await self.callers.identify(read_request_head(headers))

    def begin(self, socket: Socket, headers: HeaderList) -> "Conversation":
        return Conversation(self, socket, headers)

    def last_words(self) -> bytes:
        return turns.limit_reached(self.seconds)

    def too_many(self) -> bytes:
        return turns.too_many_turns(self.waiting_max)

    def too_slow(self) -> bytes:
        return turns.refused(too_slow(f"The message did not arrive within {self.message_seconds:g} s"))


class Conversation:
    """What is said on one connection, and what is remembered of it."""

    __slots__ = ("_head", "_remembered", "_socket", "_turns")

    def __init__(self, every: Turns, socket: Socket, headers: HeaderList) -> None:
        self._turns = every
        self._socket = socket
        self._head = read_request_head([header for header in headers if _is_of_turns(header[0])])
        self._remembered: Remembered | None = None
        every.memory.connections += 1

    async def hear(self, message: bytes) -> None:
        try:
            turn = turns.read_turn(message)
        except Refusal as refusal:
            await self._say([turns.refused(refusal)])
            return
        going, ended = _Going(b""), FAILED
        try:
            going = self._going(turn)
            ended = await (self._order(turn, going) if turn.generates else self._warm_up(turn, going))
        except (Refusal, BooksUnavailable) as error:
            await self._say([turns.refused(refusal_of(error))])
        self._note(turn, going, ended)

    def forget(self) -> None:
        self._remember(None)
        self._turns.memory.connections -= 1

    async def _say(self, texts: Sequence[bytes]) -> None:
        waiting = self._socket.put(texts)
        if waiting is not None:
            await waiting

    # What went before

    def _going(self, turn: Turn) -> "_Going":
        """A turn with the items of those that it continues. Raises Refusal 400, 404."""
        if not turn.previous:
            return _Going(turn.body)
        known = self._remembered
        if known is not None and known.response_id == turn.previous:
            items = items_of(known.items)
            if not known.base:
                turns.check_calls(items, input_items(turn.body))
            body = continued(turn.body, items)
            return _Going(turns.following(body, known.base) if known.base else body, known.base)
        if not self._turns.keeps_answers:
            raise turns.not_in_memory(turn.previous)
        return _Going(turns.following(turn.body, turn.previous), turn.previous)

    def _note(self, turn: Turn, going: "_Going", ended: Ended) -> None:
        """Remember a turn that ended well, unless it is kept: then it is found there, until it is deleted. One that
        failed takes with it what it continued."""
        if ended.is_stored and self._turns.keeps_answers:
            self._remember(None)
        elif ended.response_id:
            items = [*input_items(going.body), *output_items(ended.response)]
            text = b"[" + b",".join(map(bytes, items)) + b"]"
            self._remember(Remembered(ended.response_id, text, going.base))
        elif self._remembered is not None and self._remembered.response_id == turn.previous:
            self._remember(None)

    def _remember(self, turn: Remembered | None) -> None:
        memory = self._turns.memory
        if self._remembered is not None:
            memory.give_back(len(self._remembered.items))
        self._remembered = turn if turn is not None and memory.take(len(turn.items)) else None

    # Answers

    async def _order(self, turn: Turn, going: "_Going") -> Ended:
        call = TurnCall(self._socket, self._turns.wire, self._head, going.body, turn.previous)
        await self._turns.serve(call)
        return call.ended

    async def _warm_up(self, turn: Turn, going: "_Going") -> Ended:
        """Answer a turn that orders nothing, and so costs nothing."""
        await self._turns.callers.identify(self._head)
        read_asked(turns.checkable(going.body), self._turns.wire)
        texts = turns.warmed_up(turn, f"resp_{uuid4().hex}", clock.now_us() // 1_000_000)
        await self._say(texts)
        return turns.ended_by(texts[-1]) or FAILED


class _Going(Struct, frozen=True):
    """A turn's order as it goes on, and the kept answer that it names, if any."""

    body: bytes
    base: str = ""


def _is_of_turns(name: bytes) -> bool:
    return name not in _OF_ONE_ORDER and not name.startswith(b"sec-websocket-")


class TurnCall:
    """A turn as a call (`calls.Call`): its order in the body, its stream as texts, an error as the event that tells
    one."""

    is_read = True
    has_begun = False
    can_break_off = True
    chunk_put_at = 0.0
    ended = FAILED

    def __init__(self, socket: Socket, wire: Format, head: RequestHead, body: bytes, previous: str) -> None:
        self._socket = socket
        self._previous = previous
        self._wire = wire
        self._head = head
        self._body: bytes | None = body
        self._splitter = EventSplitter()
        self._status = 200
        self._answer_headers: HeaderList = []
        self._whole: bytes | None = None
        """What came of an answer that is no stream."""

    # The request

    @property
    def headers(self) -> HeaderList:
        return self._head.sent

    @property
    def taker(self) -> Taker | None:
        return self._socket

    def head(self) -> RequestHead:
        return self._head

    def came(self, bytes_max: int) -> bytes | None:
        return self._rest() if self._body is not None and len(self._body) <= bytes_max else None

    async def part(self) -> tuple[bytes, bool]:
        return self._rest(), True

    def _rest(self) -> bytes:
        body, self._body = self._body or b"", b""
        return body

    def is_gone(self) -> bool:
        return self._socket.has_gone()

    def when_gone(self, tell: Callable[[], None] | None) -> None:
        self._socket.when_gone(tell)

    # The answer

    async def whole(self, status: int, headers: HeaderList, body: bytes) -> None:
        await self.begin(status, headers)
        await self.end(body)

    async def begin(self, status: int, headers: HeaderList) -> None:
        self.has_begun, self._status = True, status
        if (b"content-type", b"text/event-stream") not in headers:
            self._answer_headers, self._whole = headers, b""

    async def send(self, piece: bytes) -> None:
        waiting = self.put(piece)
        if waiting is not None:
            await waiting

    def put(self, piece: bytes) -> Awaitable[None] | None:
        if self._whole is not None:
            self._whole += piece
            return None
        texts: list[bytes] = []
        for event in self._splitter.feed(piece):
            data = event_data(event)
            if data is None:
                self._socket.ping()
            elif (text := data.strip()) and text != b"[DONE]":
                if self._previous:
                    text = turns.said_to_follow(text, self._previous)
                texts.append(text)
                self.ended = turns.ended_by(text) or self.ended
        return self._socket.put(texts) if texts else None

    def put_chunk(self, chunk: bytes) -> bool:
        return False  # texts are no chunks of HTTP

    def send_if_taken(self, piece: bytes) -> None:
        self._socket.ping()

    async def end(self, last: bytes = b"") -> None:
        await self.send(last)
        if self._whole is None:
            return
        if self._status == 200:
            # A host that streams nothing: what would have been its stream's last event.
            text = b'{"type":"response.completed","sequence_number":0,"response":' + self._whole.strip() + b"}"
            self.ended = turns.ended_by(text) or FAILED
        else:
            text = self._refused(self._whole)
        waiting = self._socket.put([text])
        if waiting is not None:
            await waiting

    def _refused(self, body: bytes) -> bytes:
        if self._status != BROKEN_STATUS:
            headers = {name.decode("latin-1"): value.decode("latin-1") for name, value in self._answer_headers}
            return turns.refused_as(self._status, body, headers)
        # It may have been accepted: on this event no client orders again, whatever it makes of statuses.
        progress = Progress("", "", clock.now_us() // 1_000_000, self._head.client)
        return event_data(self._wire.error_event(broken(turns.message_of(body)), progress)) or b""

    async def break_off(self) -> None:
        self._socket.close(FAILED_CLOSE, "the answer broke off")
