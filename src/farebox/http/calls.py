"""A call: one request for an order and its answer, as the relay sees them, whatever server they come through.

Orders are served by calls, since every layer that they pass costs them. `http.direct` has those that come straight from
their connection, `http.asgi` those of any other server.
"""

from collections.abc import Awaitable, Callable, Sequence
from typing import Protocol

from farebox.core.headers import HeaderList, RequestHead
from farebox.deadlines import Deadlines
from farebox.ports import Taker


class Body(Protocol):
    """A request's body as it comes. `is_read`: set once it was read to its end, so that the connection can be kept."""

    is_read: bool

    @property
    def headers(self) -> HeaderList:
        """The request's, names in lower case."""

    def came(self, bytes_max: int) -> bytes | None:
        """All of the body, where it is here already, is no longer than that, and nothing of it was read; else None."""

    async def part(self) -> tuple[bytes, bool]:
        """The next bytes, and whether they are the last; b"" after those. Raises CallerGone."""


class Call(Body, Protocol):
    """A request, and the way back for its answer: `whole`, or `begin`, `send` as often as needed, and `end`. What is
    sent to a caller who has gone is dropped. `taker` is the connection, where the server shows it."""

    @property
    def taker(self) -> Taker | None: ...

    def head(self) -> RequestHead:
        """What its headers say."""

    @property
    def has_begun(self) -> bool:
        """Whether the answer's head went out."""

    @property
    def can_break_off(self) -> bool: ...

    async def whole(self, status: int, headers: HeaderList, body: bytes) -> None:
        """Send an answer in one piece; its length is added to the headers."""

    async def begin(self, status: int, headers: HeaderList) -> None:
        """Send the head. Without a `content-length` the body may be of any length."""

    async def send(self, piece: bytes) -> None:
        """Send a piece of the body; waits while the caller does not read."""

    def put(self, piece: bytes) -> Awaitable[None] | None:
        """Send a piece of the body at once. Returns what to wait for before the next, where the caller does not
        read."""

    @property
    def chunk_put_at(self) -> float:
        """When `put_chunk` sent the last chunk (monotonic seconds); 0 before any."""

    def put_chunk(self, chunk: bytes) -> bool:
        """Send a piece of the body at once that stands in a chunk of HTTP already. False, and nothing is sent, where
        the body is not in chunks, or the caller does not read or has gone."""

    async def end(self, last: bytes = b"") -> None:
        """Send the last piece, and the body's end."""

    def send_if_taken(self, piece: bytes) -> None:
        """Send a piece of the body now, or not at all where the caller does not read: nothing piles up."""

    async def break_off(self) -> None:
        """Close the connection under an answer that has begun, which so gets no end."""

    def is_gone(self) -> bool:
        """Whether the caller has hung up. Only for use once the body has been read."""

    def when_gone(self, tell: Callable[[], None] | None) -> None:
        """Call `tell` once the caller has hung up, soon where it has already; None: no more. Only for use once the
        body has been read."""


Serve = Callable[[Call], Awaitable[None]]
"""Serves a call: when it returns, the answer has been sent, or its caller has gone."""

FindServe = Callable[[bytes, HeaderList], Serve | None]
"""What serves a POST to a path (as it was sent, without its query) under these headers; None where that is for the ASGI
app."""

DIRECT = "farebox.direct"
"""In the state of the app's lifespan: the FindServe for orders that need not pass through ASGI."""


class Socket(Taker, Protocol):
    """A WebSocket, as those see it who talk on it. Texts are JSON; what is sent to a caller who has gone is dropped."""

    def put(self, texts: Sequence[bytes]) -> Awaitable[None] | None:
        """Send texts at once, a message each. Returns what to wait for before the next, where the caller does not
        read."""

    def ping(self) -> None:
        """Send a ping now, or not at all where the caller does not read."""

    def close(self, code: int, reason: str) -> None:
        """Begin to close it: nothing that comes from now on is heard."""

    def when_gone(self, tell: Callable[[], None] | None) -> None:
        """Call `tell` once the caller has hung up, soon where it has already; None: no more."""


class Talk(Protocol):
    """What is said on one WebSocket."""

    async def hear(self, message: bytes) -> None:
        """Answer a message; the next is heard after that."""

    def forget(self) -> None:
        """The connection is lost."""


class Talks(Protocol):
    """Who talks on WebSockets. A message has at most `message_bytes_max`, and comes within `message_seconds`; at most
    `waiting_max` messages wait for their turn. A connection is open for `seconds` at most."""

    message_bytes_max: int
    message_seconds: float
    waiting_max: int
    seconds: float
    deadlines: Deadlines

    async def admit(self, headers: HeaderList) -> None:
        """Whether a WebSocket may be opened by a request with these headers. Raises Refusal, BooksUnavailable."""

    def begin(self, socket: Socket, headers: HeaderList) -> Talk: ...

    def last_words(self) -> bytes:
        """What is said when a connection's time is over."""

    def too_many(self) -> bytes:
        """What is said to a message that is dropped, since too many wait."""

    def too_slow(self) -> bytes:
        """What is said when a message does not come to its end."""


FindTalks = Callable[[bytes], Talks | None]
"""Who talks at a path (as it was sent, without its query); None where no WebSocket is spoken."""

SOCKETS = "farebox.sockets"
"""In the state of the app's lifespan: the FindTalks."""
