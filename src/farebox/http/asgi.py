"""Answers in plain ASGI. Endpoints do without Starlette's Request and Response objects, which would add a tenth to what
an order costs."""

import asyncio
from collections.abc import AsyncGenerator, Awaitable, Callable
from contextlib import aclosing

from starlette.types import Message, Receive, Scope, Send

from farebox.core.headers import HeaderList, RequestHead, read_request_head
from farebox.http.calls import Serve
from farebox.ports import CallerGone, Taker

Endpoint = Callable[[Scope, Receive, Send], Awaitable[None]]

JSON = (b"content-type", b"application/json")

BODY_IS_READ = "farebox.body_is_read"
"""Set in the scope once a request's body has been read to its end."""

BREAK_OFF = "farebox.break_off"
"""In the scope: closes the connection under an answer that has begun, which so gets no end."""

TAKER = "farebox.taker"
"""In the scope: the connection, as what takes an answer (`ports.Taker`)."""

EVENT_STREAM = [(b"content-type", b"text/event-stream"), (b"cache-control", b"no-cache"), (b"x-accel-buffering", b"no")]
"""Headers of an answer in server-sent events, which no proxy is to hold back."""


async def send_start(send: Send, status: int, headers: HeaderList) -> None:
    await send({"type": "http.response.start", "status": status, "headers": headers})


async def send_body(send: Send, body: bytes, *, more: bool = False) -> None:
    await send({"type": "http.response.body", "body": body, "more_body": more})


async def send_whole(send: Send, status: int, headers: HeaderList, body: bytes) -> None:
    await send_start(send, status, [*headers, (b"content-length", b"%d" % len(body))])
    await send_body(send, body)


async def send_pieces(
    send: Send, headers: HeaderList, pieces: AsyncGenerator[bytes, None], taker: Taker | None
) -> None:
    """Send what is long as it is read, as long as somebody takes it. The first piece is read before the head is sent:
    what cannot be read is no answer."""
    async with aclosing(pieces):
        first = await anext(pieces, b"")
        await send_start(send, 200, headers)
        await send_body(send, first, more=True)
        async for piece in pieces:
            if taker is not None and taker.has_gone():
                return
            await send_body(send, piece, more=True)
    await send_body(send, b"")


async def send_json(send: Send, body: bytes, headers: HeaderList | None = None) -> None:
    await send_whole(send, 200, [JSON, *(headers or [])], body)


class AsgiBody:
    """The body of a request that came through ASGI (`calls.Body`)."""

    _has_come = False

    def __init__(self, scope: Scope, receive: Receive) -> None:
        self._scope = scope
        self._receive = receive

    @property
    def headers(self) -> HeaderList:
        headers: HeaderList = self._scope["headers"]
        return headers

    @property
    def is_read(self) -> bool:
        return BODY_IS_READ in self._scope or self._scope["method"] in _WITHOUT_BODY

    @is_read.setter
    def is_read(self, _: bool) -> None:
        self._scope[BODY_IS_READ] = True

    def came(self, bytes_max: int) -> bytes | None:
        """ASGI does not say."""
        return None

    async def part(self) -> tuple[bytes, bool]:
        if self._has_come:
            return b"", True
        message = await self._receive()
        if message["type"] == "http.disconnect":
            raise CallerGone
        self._has_come = not message.get("more_body", False)
        return message.get("body", b""), self._has_come


_WITHOUT_BODY = frozenset({"GET", "HEAD", "OPTIONS", "DELETE"})


class AsgiCall(AsgiBody):
    """A request that came through ASGI, and its answer (`calls.Call`)."""

    has_begun = False
    chunk_put_at = 0.0
    _watching: asyncio.Task[None] | None = None

    def __init__(self, scope: Scope, receive: Receive, send: Send) -> None:
        super().__init__(scope, receive)
        self._send = send

    def head(self) -> RequestHead:
        return read_request_head(self.headers)

    @property
    def taker(self) -> Taker | None:
        return self._scope.get(TAKER)

    @property
    def can_break_off(self) -> bool:
        return BREAK_OFF in self._scope

    # Not a coroutine: each would be one more for every piece of every answer.
    def pass_on(self, message: Message) -> Awaitable[None]:
        """`send`, noticed."""
        self.has_begun = True
        return self._send(message)

    async def whole(self, status: int, headers: HeaderList, body: bytes) -> None:
        await send_whole(self.pass_on, status, headers, body)

    async def begin(self, status: int, headers: HeaderList) -> None:
        await send_start(self.pass_on, status, headers)

    async def send(self, piece: bytes) -> None:
        await self.put(piece)

    def put(self, piece: bytes) -> Awaitable[None]:
        return self._send({"type": "http.response.body", "body": piece, "more_body": True})

    async def end(self, last: bytes = b"") -> None:
        await send_body(self._send, last)

    def put_chunk(self, chunk: bytes) -> bool:
        return False  # ASGI knows no chunks

    def send_if_taken(self, piece: bytes) -> None:
        # One step of `send`, which is not waited for.
        sending = self.send(piece).__await__()
        try:
            next(sending)
        except StopIteration:
            return
        sending.close()

    async def break_off(self) -> None:
        self._scope[BREAK_OFF]()
        await self._until_gone()

    def is_gone(self) -> bool:
        # One step of `receive`, which is not waited for.
        receiving = self._receive().__await__()
        try:
            next(receiving)
        except StopIteration as done:
            return bool(done.value["type"] == "http.disconnect")
        receiving.close()
        return False

    def when_gone(self, tell: Callable[[], None] | None) -> None:
        if self._watching is not None:
            self._watching.cancel()
            self._watching = None
        if tell is not None:
            self._watching = asyncio.create_task(self._until_gone())
            self._watching.add_done_callback(lambda task: None if task.cancelled() else tell())

    async def _until_gone(self) -> None:
        while (await self._receive())["type"] != "http.disconnect":
            pass


class through_asgi:  # noqa: N801 - reads as the function that it is
    """The ASGI endpoint of what serves calls. (An object, because Starlette takes a function for an endpoint of the
    request-and-response kind.)"""

    __slots__ = ("_serve",)

    def __init__(self, serve: Serve) -> None:
        self._serve = serve

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        await self._serve(AsgiCall(scope, receive, send))
