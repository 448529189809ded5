"""The HTTP client to upstreams, against real sockets that misbehave."""

import asyncio
import contextlib
import gzip
import socket
from collections.abc import Awaitable, Callable
from functools import partial
from typing import Protocol

import pytest

from farebox.core.headers import is_sound
from farebox.deadlines import Deadlines
from farebox.http.refusals import guarded
from farebox.outgoing import DIRECTLY
from farebox.ports import BooksUnavailable, UpstreamBroke, UpstreamUnreachable
from farebox.upstream import Timeouts
from farebox.upstream.openrouter import (
    HEAD_BYTES_MAX,
    HEADER_BYTES_MAX,
    READ_BYTES_MAX,
    HttpReply,
    OpenRouter,
)
from farebox.upstream.table import KINDS
from tests.upstreams import declared

Serve = Callable[[asyncio.StreamReader, asyncio.StreamWriter], Awaitable[None]]


class Forward(Protocol):
    """One order to a server that does as it likes; the reply and its body."""

    def __call__(
        self, serve: Serve | None, timeouts: Timeouts | None = None, port: int | None = None
    ) -> tuple[HttpReply, bytes]: ...


@pytest.fixture(
    params=[("openrouter", "/chat/completions"), ("openai", "/chat/completions"), ("anthropic", "/messages")]
)
def forward(request: pytest.FixtureRequest) -> Forward:
    """By an upstream of each kind: they promise the same."""
    return partial(forwarded, *request.param)


def forwarded(
    kind: str, path: str, serve: Serve | None, timeouts: Timeouts | None = None, port: int | None = None
) -> tuple[HttpReply, bytes]:

    async def main() -> tuple[HttpReply, bytes]:
        serving: list[asyncio.Task[None] | None] = []

        async def answer(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
            assert serve
            serving.append(asyncio.current_task())
            with contextlib.closing(writer):
                await serve(reader, writer)

        server = await asyncio.start_server(answer, "127.0.0.1", 0) if serve else None
        at = server.sockets[0].getsockname()[1] if server else port
        there = declared(f"http://127.0.0.1:{at}/api/v1", timeouts or Timeouts(5, 5, 5), kind)
        upstream = KINDS[kind](there, "key", Deadlines(0.05), DIRECTLY)
        try:
            reply = await upstream.forward(path, b"{}", {}, streamed=False)
            assert isinstance(reply, HttpReply)
            try:
                return reply, await reply.read()
            finally:
                reply.close()
        finally:
            await upstream.close()
            if server:
                server.close()
                await asyncio.wait([task for task in serving if task])

    return asyncio.run(main())


def answering(answer: bytes, *, pause: float = 0.0) -> Serve:
    async def serve(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        await reader.readuntil(b"\r\n\r\n")
        writer.write(answer)
        await writer.drain()
        await asyncio.sleep(pause)

    return serve


def test_an_answer_is_read_to_its_end(forward: Forward) -> None:
    reply, body = forward(
        answering(b"HTTP/1.1 200 OK\r\nX-Generation-Id: gen-1\r\nX-Secret: s\r\ncontent-length: 2\r\n\r\n{}")
    )
    assert (reply.status, body, reply.generation_id) == (200, b"{}", "gen-1")
    assert reply.headers == [(b"x-generation-id", b"gen-1")]


def test_a_header_that_has_what_none_may_have_is_left_out(forward: Forward) -> None:
    for value in (b"a\x01b", b"a\x7fb", b"a\x0bb"):
        lines = [name + b": " + value for name in (b"x-ratelimit-a", b"x-generation-id", b"x-request-id", b"etag")]
        reply, body = forward(with_head(*lines, b"x-ratelimit-b: 2", b"content-type: audio/x;a=" + value))
        assert (reply.status, body) == (200, b"{}")
        assert reply.headers[0] == (b"x-ratelimit-b", b"2")
        assert all(is_sound(each) for _, each in [*reply.headers, *reply.about_bytes])
        assert reply.content_type == "audio/x"
        assert reply.generation_id is None
        assert forward(with_head(b"content-type: audio/" + value))[0].content_type == "application/octet-stream"


FEW = b"content-length: 2\r\n\r\n{}"


def with_head(*lines: bytes, status: bytes = b"200 OK") -> Serve:
    return answering(b"\r\n".join([b"HTTP/1.1 " + status, *lines, FEW]))


def filler(size: int, name: bytes = b"x-secret") -> bytes:
    return name + b": " + b"a" * size


@pytest.mark.parametrize("size", [8_190, 8_191, 20_000, HEADER_BYTES_MAX])
def test_a_long_header_is_read(forward: Forward, size: int) -> None:
    reply, body = forward(with_head(filler(size), b"x-generation-id: gen-1"))
    assert (reply.status, body, reply.generation_id) == (200, b"{}", "gen-1")
    assert reply.headers == [(b"x-generation-id", b"gen-1")]


@pytest.mark.parametrize("size", [20_000, HEADER_BYTES_MAX])
def test_so_are_a_long_reason_and_many_headers(forward: Forward, size: int) -> None:
    reply, _ = forward(with_head(b"x-generation-id: gen-1", status=b"200 " + b"a" * size))
    assert reply.generation_id == "gen-1"
    reply, _ = forward(with_head(*(filler(1, b"x-%d" % number) for number in range(100)), b"x-generation-id: gen-1"))
    assert reply.generation_id == "gen-1"


@pytest.mark.parametrize(
    "lines",
    [
        (filler(HEADER_BYTES_MAX + 1), b"x-generation-id: gen-1"),
        (b"x-generation-id: gen-1", filler(HEADER_BYTES_MAX + 1)),
        (b"X-Generation-ID: gen-1", filler(1_000_000)),
        (*[filler(60_000)] * (HEAD_BYTES_MAX // 60_000 + 1), b"x-generation-id: gen-1"),
    ],
)
def test_a_head_that_is_too_long_is_not_taken_and_names_its_generation(
    forward: Forward, lines: tuple[bytes, ...]
) -> None:
    with pytest.raises(UpstreamBroke, match="the answer's head is longer than is read") as broke:
        forward(with_head(*lines))
    assert broke.value.generation_id == "gen-1"
    with pytest.raises(UpstreamBroke, match="the answer's head is longer than is read") as broke:
        forward(with_head(*(line for line in lines if b"gen-1" not in line)))
    assert broke.value.generation_id is None


def test_a_refusal_is_taken_however_long_its_head_is(forward: Forward) -> None:
    """It says that nothing was charged."""
    reply, body = forward(with_head(filler(HEADER_BYTES_MAX + 1), status=b"500 No"))
    assert (reply.status, body) == (500, b"{}")


def test_a_head_without_end_is_given_up(forward: Forward) -> None:
    for endless in (filler(3 * READ_BYTES_MAX), b"\r\n".join([filler(1)] * 1000)):
        with pytest.raises(UpstreamBroke, match="the connection broke before the answer"):
            forward(with_head(endless))


def test_a_refused_connection_is_unreachable(forward: Forward) -> None:
    with socket.create_server(("127.0.0.1", 0)) as closed:
        port = closed.getsockname()[1]
    with pytest.raises(UpstreamUnreachable) as refused:
        forward(None, port=port)
    assert not refused.value.timed_out


def test_a_connection_that_does_not_come_about_is_unreachable_in_time(forward: Forward) -> None:
    # A listener whose queue is full answers no more connections.
    with socket.create_server(("127.0.0.1", 0), backlog=0) as full:
        address = full.getsockname()
        waiting = [socket.socket() for _ in range(4)]
        for each in waiting:
            each.setblocking(False)
            each.connect_ex(address)
        with pytest.raises(UpstreamUnreachable) as refused:
            forward(None, Timeouts(0.3, 5, 5), port=address[1])
        assert refused.value.timed_out
        for each in waiting:
            each.close()


@pytest.mark.parametrize(
    "answer",
    [
        b"",
        b"HTTP/1.1 200 OK\r\ncontent-le",
        b"hello\r\n\r\n",
        b"HTTP/1.1 200 OK\r\ncontent-length: 100\r\n\r\n{}",
        b"HTTP/1.1 200 OK\r\ntransfer-encoding: chunked\r\n\r\n5\r\n{}",
        b"HTTP/1.1 200 OK\r\ncontent-encoding: gzip\r\ncontent-length: 2\r\n\r\n{}",
    ],
)
def test_an_answer_that_breaks_off_is_not_taken_for_whole(forward: Forward, answer: bytes) -> None:
    with pytest.raises(UpstreamBroke):
        forward(answering(answer))


def test_a_head_that_does_not_come_in_time_is_given_up(forward: Forward) -> None:
    with pytest.raises(UpstreamBroke, match=r"no answer within 0.2 s"):
        forward(answering(b"", pause=0.6), Timeouts(5, 0.2, 5))


def test_a_body_that_falls_silent_is_given_up(forward: Forward) -> None:
    with pytest.raises(UpstreamBroke, match=r"nothing came for 0.2 s"):
        forward(answering(b"HTTP/1.1 200 OK\r\ncontent-length: 100\r\n\r\n{}", pause=0.6), Timeouts(5, 5, 0.2))


def test_a_reply_that_is_closed_while_it_is_waited_for_keeps_nothing_alive(forward: Forward) -> None:
    async def main() -> UpstreamBroke:
        async def serve(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
            writer.write(b"HTTP/1.1 200 OK\r\ncontent-length: 100\r\n\r\n{")
            await reader.read()
            writer.close()

        server = await asyncio.start_server(serve, "127.0.0.1", 0)
        url = f"http://127.0.0.1:{server.sockets[0].getsockname()[1]}"
        upstream = OpenRouter(declared(url), None, Deadlines())
        reply = await upstream.forward("/x", b"{}", {}, streamed=True)
        assert await reply.chunk() == b"{"
        waiting = asyncio.create_task(reply.chunk())
        await asyncio.sleep(0.05)
        reply.close()
        with pytest.raises(UpstreamBroke) as broke:
            await waiting
        await upstream.close()
        server.close()
        return broke.value

    cause = asyncio.run(main()).__cause__
    assert cause is not None
    assert cause.__traceback__ is None


def test_a_redirect_is_not_followed(forward: Forward) -> None:
    with pytest.raises(UpstreamUnreachable, match="redirects"):
        forward(answering(b"HTTP/1.1 302 Found\r\nlocation: http://127.0.0.1:1/\r\ncontent-length: 0\r\n\r\n"))


def test_an_answer_in_gzip_although_none_was_asked_is_read(forward: Forward) -> None:
    packed = gzip.compress(b'{"a":1}')
    head = b"HTTP/1.1 200 OK\r\ncontent-encoding: gzip\r\ncontent-length: %d\r\n\r\n" % len(packed)
    assert forward(answering(head + packed))[1] == b'{"a":1}'


def test_books_that_are_busy_are_told_before_anything_is_sent() -> None:
    sent: list[dict[str, object]] = []

    async def endpoint(*_: object) -> None:
        raise BooksUnavailable("locked")

    async def send(message: object) -> None:
        assert isinstance(message, dict)
        sent.append(message)

    async def receive() -> dict[str, object]:
        return {"type": "http.request", "body": b"", "more_body": False}

    asyncio.run(guarded(endpoint)({"type": "http", "method": "POST", "path": "/", "headers": []}, receive, send))
    assert sent[0]["status"] == 429
    assert (b"retry-after", b"5") in sent[0]["headers"]  # type: ignore[operator]
