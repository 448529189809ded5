"""Our own client to upstreams and aiohttp's behind the same face, held to the same over real sockets."""

import asyncio
import os
import random
import socket
import ssl
from collections.abc import AsyncIterator, Awaitable, Callable, Coroutine
from contextlib import asynccontextmanager, suppress
from dataclasses import dataclass, field
from pathlib import Path

import pytest
import uvloop

from farebox.deadlines import Deadlines
from farebox.outgoing import DIRECTLY, WayOut
from farebox.ports import UpstreamBroke, UpstreamUnreachable
from farebox.upstream import Timeouts
from farebox.upstream.pool import Connections
from farebox.upstream.replies import HttpReply
from farebox.upstream.sessions import Session
from tests.fast.test_upstream_answers import ANSWERS, BODY, COUNTED, OK
from tests.forward_proxies import Authority, private_authority
from tests.wire import Wired

Client = Connections | Session
CLIENTS = pytest.mark.parametrize("kind", [Connections, Session])

GONE_SECONDS = 5

AIOHTTPS_OWN = {
    "more than it counts": "it is no answer there, since the rest came with it",
    "garbage after chunks": "as above",
    "interim answers without end": "they are not counted there",
    "another protocol": "it is an answer there",
    "half a gzip": "the end is not missed there",
    "half a brotli": "the end is not missed there",
}
"""Where aiohttp reads an answer in another way. Each is one that no upstream gives."""


@dataclass
class Server:
    """Answers each order on a connection with the next of the `answers`; b"" hangs up, and so does each where it
    `closes`."""

    answers: list[bytes]
    closes: bool = False
    port: int = 0
    connections: int = 0
    orders: list[bytes] = field(default_factory=list)
    serving: list["asyncio.Task[None] | None"] = field(default_factory=list)

    async def serve(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        self.connections += 1
        self.serving.append(asyncio.current_task())
        with suppress(OSError, asyncio.IncompleteReadError):
            while True:
                head = await reader.readuntil(b"\r\n\r\n")
                length = int((head.lower() + b"content-length: 0").split(b"content-length: ")[1].split(b"\r\n")[0])
                self.orders.append(head + await reader.readexactly(length))
                answer = self.answers.pop(0)
                writer.write(answer)
                await writer.drain()
                if self.closes or not answer or b"connection: close" in answer:
                    break
        writer.close()

    async def was_left(self) -> None:
        """Its callers have gone."""
        for each in self.serving:
            assert each is not None
            await asyncio.wait_for(each, GONE_SECONDS)


@asynccontextmanager
async def playing(
    kind: type[Client], *answers: bytes, host: str = "127.0.0.1", name: str = "127.0.0.1"
) -> AsyncIterator[tuple[Client, Server]]:
    server = Server(list(answers))
    async with await asyncio.start_server(server.serve, host, 0) as listener:
        server.port = listener.sockets[0].getsockname()[1]
        client = kind(f"http://{name}:{server.port}/v1", {"k": "v"}, Timeouts(5, 60, 60), Deadlines(0.05), DIRECTLY)
        try:
            yield client, server
        finally:
            await client.close()
            await server.was_left()


async def order(client: Client, body: bytes = b"{}") -> HttpReply:
    return await client.post("/x", body, {"x-title": "t"}, streamed=False)


async def answered(client: Client, body: bytes = b"{}") -> bytes:
    reply = await order(client, body)
    try:
        return await reply.read()
    finally:
        reply.close()


async def outcome(client: Client) -> tuple[int, bytes, str | None] | None:
    try:
        reply = await order(client)
        return reply.status, await reply.read(), reply.generation_id
    except UpstreamBroke:
        return None


def play(main: Callable[[], Awaitable[None]]) -> None:
    before = _open_files()
    asyncio.run(main())  # type: ignore[arg-type]
    assert _open_files() <= before, "something was left open"


def _open_files() -> int:
    return len(list(Path("/proc/self/fd").iterdir()))


@CLIENTS
def test_every_answer_is_read_the_same(kind: type[Client]) -> None:
    async def main() -> None:
        for name, (answer, expected) in ANSWERS.items():
            if kind is Session and name in AIOHTTPS_OWN:
                continue
            async with playing(kind, answer) as (client, server):
                server.closes = True
                got = await outcome(client)
            if isinstance(expected, str):
                assert got is None, name
            else:
                assert got == (expected.status, expected.body, expected.generation_id), name

    play(main)


@CLIENTS
def test_one_connection_serves_many_orders_and_another_where_it_was_closed(kind: type[Client]) -> None:
    async def main() -> None:
        closing = OK + b"connection: close\r\n" + COUNTED
        async with playing(kind, OK + COUNTED, OK + COUNTED, closing, OK + COUNTED) as (client, server):
            for connections in (1, 1, 1, 2):
                assert await answered(client) == BODY
                assert server.connections == connections
            for each in server.orders:
                assert each.startswith(b"POST /v1/x HTTP/1.1\r\n")
                assert b"\r\nx-title: t\r\n" in each

    play(main)


@CLIENTS
def test_an_idle_connection_that_the_upstream_closes_is_not_used_again(kind: type[Client]) -> None:
    async def main() -> None:
        async with playing(kind, OK + COUNTED, OK + COUNTED) as (client, server):
            assert await answered(client) == BODY
            server.answers.insert(0, b"")
            with pytest.raises(UpstreamBroke, match="the connection broke before the answer"):
                await answered(client)
            assert len(server.orders) == 2, "what may have been heard is not sent again"
            assert await answered(client) == BODY
            assert server.connections == 2

    play(main)


@CLIENTS
def test_a_page_is_asked_for_again_where_an_idle_connection_was_closed(kind: type[Client]) -> None:
    async def main() -> None:
        async with playing(kind, OK + COUNTED, b"", OK + COUNTED) as (client, server):
            for number in (1, 2):
                reply = await client.get("/models", (("order", "a b"),), 5)
                assert (reply.status, await reply.read()) == (200, BODY)
                reply.close()
                assert len(server.orders) == 2 * number - 1
            assert server.connections == 2
            for each in server.orders:
                assert each.startswith(b"GET /v1/models?order=a+b HTTP/1.1\r\n")
                assert b"\r\nk: v\r\n" in each

    play(main)


PART = b"content-type: video/mp4\r\ncontent-range: bytes 1-2/9\r\nx-secret: s\r\n"


@CLIENTS
def test_a_part_of_what_was_made_comes_with_what_says_which(kind: type[Client]) -> None:
    """But where it is packed, its length and place are not those of what is passed on."""

    async def main() -> None:
        whole = b"HTTP/1.1 206 Part\r\n" + PART + b"content-length: 2\r\n\r\nhi"
        packed = b"HTTP/1.1 200 OK\r\n" + PART + b"content-encoding: odd\r\ncontent-length: 2\r\n\r\nhi"
        async with playing(kind, whole, packed) as (client, server):
            for names in ({b"content-type", b"content-range", b"content-length"}, {b"content-type"}):
                reply = await client.get("/videos/job-1/content", (("index", "1"),), 5, {"range": "bytes=1-2"})
                assert {name for name, _ in reply.about_bytes} == names
                assert await reply.read() == b"hi"
            assert b"\r\nrange: bytes=1-2\r\n" in server.orders[0].lower()

    play(main)


@CLIENTS
def test_a_page_that_does_not_come_in_its_time_is_given_up(kind: type[Client]) -> None:
    async def main() -> None:
        async with playing(kind, b"HTTP") as (client, _):
            with pytest.raises(UpstreamBroke, match=r"no answer within 0\.1 s"):
                await client.get("/models", (), 0.1)

    play(main)


@CLIENTS
def test_a_long_order_is_sent_whole(kind: type[Client]) -> None:
    async def main() -> None:
        body = os.urandom(1_000_000)
        async with playing(kind, OK + COUNTED) as (client, server):
            assert await answered(client, body) == BODY
            assert server.orders[0].endswith(b"\r\n\r\n" + body)

    play(main)


@CLIENTS
def test_whoever_gives_up_closes_the_connection(kind: type[Client]) -> None:
    async def main() -> None:
        for answer in (b" ", OK, OK + b"content-length: 9\r\n\r\n{", OK + b"content-length: 9\r\n\r\n"):
            async with playing(kind, answer.strip(b" ") or b"HTTP") as (client, server):
                waiting = asyncio.ensure_future(answered(client))
                await asyncio.sleep(0.05)
                waiting.cancel()
                with pytest.raises(asyncio.CancelledError):
                    await waiting
                await server.was_left()

    play(main)


def test_a_stop_ends_every_wait() -> None:
    async def main() -> None:
        async with playing(Connections, b"HTTP", OK + b"content-length: 9\r\n\r\n{") as (client, _):
            waiting = [asyncio.ensure_future(answered(client)) for _ in range(2)]
            await asyncio.sleep(0.1)
            await client.close()
            for each in waiting:
                with pytest.raises(UpstreamBroke):
                    await asyncio.wait_for(each, GONE_SECONDS)

    play(main)


@pytest.mark.parametrize("run", [asyncio.run, uvloop.run])
def test_giving_up_at_any_moment_leaves_nothing_behind(run: Callable[[Coroutine[None, None, None]], None]) -> None:
    async def main() -> None:
        draw = random.Random(7)
        loop = asyncio.get_running_loop()
        async with playing(Connections, *[OK + COUNTED] * 2000) as (client, _):
            assert isinstance(client, Connections)
            for _ in range(60):
                orders = [asyncio.ensure_future(answered(client)) for _ in range(8)]
                for each in orders:
                    loop.call_later(draw.random() * 0.003, each.cancel)
                for got in await asyncio.gather(*orders, return_exceptions=True):
                    assert got == BODY or isinstance(got, asyncio.CancelledError), got
            await asyncio.sleep(0.05)
            assert client.open == set(client.idle)

    run(asyncio.sleep(0))  # uvloop keeps two files of its own from then on
    before = _open_files()
    run(main())
    assert _open_files() <= before, "something was left open"


def test_an_upstream_that_closes_at_once_keeps_nobody_waiting() -> None:
    async def main() -> None:
        async def close(_: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
            writer.close()

        async with await asyncio.start_server(close, "127.0.0.1", 0) as listener:
            port = listener.sockets[0].getsockname()[1]
            client = Connections(f"http://127.0.0.1:{port}", {}, Timeouts(60, 60, 60), Deadlines(), DIRECTLY)
            orders = [asyncio.ensure_future(answered(client)) for _ in range(100)]
            for got in await asyncio.wait_for(asyncio.gather(*orders, return_exceptions=True), GONE_SECONDS):
                assert isinstance(got, UpstreamUnreachable | UpstreamBroke)
            assert not client.open
            await client.close()

    uvloop.run(main())


@CLIENTS
def test_a_slow_reader_holds_the_upstream_up(kind: type[Client]) -> None:
    async def main() -> None:
        sent = 0
        size = 1 << 25

        async def serve(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
            nonlocal sent
            await reader.readuntil(b"\r\n\r\n")
            writer.write(OK + b"content-length: %d\r\n\r\n" % size)
            while sent < size:
                writer.write(bytes(1 << 16))
                await writer.drain()
                sent += 1 << 16
            writer.close()

        async with await asyncio.start_server(serve, "127.0.0.1", 0) as listener:
            port = listener.sockets[0].getsockname()[1]
            client = kind(f"http://127.0.0.1:{port}", {}, Timeouts(5, 5, 5), Deadlines(), DIRECTLY)
            reply = await order(client)
            assert await reply.chunk()
            last = -1
            while last != sent:
                last = sent
                await asyncio.sleep(0.1)
            # The rest is in the sockets' buffers.
            assert sent < size // 2
            while await reply.chunk():
                pass
            assert sent == size
            await client.close()

    play(main)


@CLIENTS
def test_a_name_with_several_addresses_is_reached_by_the_one_that_answers(
    kind: type[Client], monkeypatch: pytest.MonkeyPatch
) -> None:
    def both(host: str, port: int, *_: object, **__: object) -> list[object]:
        assert host == "two.test"
        stream = (socket.SOCK_STREAM, socket.IPPROTO_TCP, "")
        return [
            (socket.AF_INET6, *stream, ("::1", port, 0, 0)),
            (socket.AF_INET, *stream, ("127.0.0.2", port)),
            (socket.AF_INET, *stream, ("127.0.0.1", port)),
        ]

    async def main() -> None:
        monkeypatch.setattr(socket, "getaddrinfo", both)
        async with playing(kind, OK + COUNTED, name="two.test") as (client, _):
            assert await answered(client) == BODY

    play(main)


@CLIENTS
def test_an_address_of_ipv6_is_reached(kind: type[Client]) -> None:
    async def main() -> None:
        async with playing(kind, OK + COUNTED, host="::1", name="[::1]") as (client, server):
            assert await answered(client) == BODY
            assert b"\r\nhost: [::1]:%d\r\n" % server.port in server.orders[0].lower()

    with suppress(OSError), socket.create_server(("::1", 0), family=socket.AF_INET6):
        play(main)


def test_a_name_that_nobody_has_is_unreachable_for_all_who_ask() -> None:
    async def main() -> None:
        client = Connections("http://nobody.invalid", {}, Timeouts(5, 5, 5), Deadlines(), DIRECTLY)
        for error in await asyncio.gather(*[order(client) for _ in range(20)], return_exceptions=True):
            assert isinstance(error, UpstreamUnreachable)
            assert not error.timed_out
        await client.close()

    play(main)


# TLS


@pytest.fixture(scope="module")
def authority(tmp_path_factory: pytest.TempPathFactory) -> Authority:
    return private_authority(tmp_path_factory.mktemp("authority"), "DNS:upstream.test", "IP:127.0.0.1")


def server_side(authority: Authority, newest: ssl.TLSVersion = ssl.TLSVersion.TLSv1_3) -> ssl.SSLContext:
    context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
    context.load_cert_chain(authority.server)
    context.maximum_version = newest
    return context


def trusting(authority: Authority) -> WayOut:
    return WayOut(tls=ssl.create_default_context(cafile=str(authority.file)))


@pytest.mark.parametrize("newest", [ssl.TLSVersion.TLSv1_2, ssl.TLSVersion.TLSv1_3])
def test_orders_go_in_tls_on_one_connection(authority: Authority, newest: ssl.TLSVersion) -> None:
    async def main() -> None:
        long = os.urandom(600_000)
        server = Server(
            [
                OK + COUNTED,
                OK + b"content-length: 600000\r\n\r\n" + long,
                OK + b"\r\n" + BODY,
                b"",
                OK + b"content-length: 9\r\n\r\n{",
            ]
        )
        async with await asyncio.start_server(
            server.serve, "127.0.0.1", 0, ssl=server_side(authority, newest)
        ) as listener:
            port = listener.sockets[0].getsockname()[1]
            client = Connections(f"https://127.0.0.1:{port}", {}, Timeouts(5, 5, 5), Deadlines(), trusting(authority))
            assert await answered(client) == BODY
            assert await answered(client, long) == long
            assert server.connections == 1
            assert server.orders[1].endswith(long)
            server.closes = True
            assert await answered(client) == BODY, "its end is the connection's"
            with pytest.raises(UpstreamBroke):
                await answered(client)
            with pytest.raises(UpstreamBroke, match="before the answer's end"):
                await answered(client)
            await client.close()
            await server.was_left()

    play(main)


class InMemory:
    """A wired connection in TLS, and the server's side of it. What the server has said is read in pieces of `size`."""

    def __init__(self, authority: Authority, size: int = 1 << 20) -> None:
        self.received, self.sent = ssl.MemoryBIO(), ssl.MemoryBIO()
        self.server = server_side(authority).wrap_bio(self.received, self.sent, server_side=True)
        self.wired = Wired(in_tls=(ssl.create_default_context(cafile=str(authority.file)), "upstream.test"))
        self.size = size
        for _ in range(3):
            self.pump()
        self.wired.pool.idle[self.wired.connection] = None

    def pump(self) -> None:
        self.received.write(self.wired.wire.take())
        with suppress(ssl.SSLWantReadError):
            self.server.do_handshake()
        answer = self.sent.read()
        self.wired.reads(*[answer[at : at + self.size] for at in range(0, len(answer), self.size)])

    async def order(self, *answer: bytes) -> HttpReply:
        """An order, and the head of the answer that begins so."""
        order = self.wired.order()
        await asyncio.sleep(0)
        self.received.write(self.wired.wire.take())
        assert self.server.read().startswith(b"POST /x HTTP/1.1\r\n")
        self.say(*answer)
        return await order

    def say(self, *records: bytes) -> None:
        for record in records:
            self.server.write(record)
        self.pump()


def test_tls_is_the_same_however_its_bytes_are_cut(authority: Authority) -> None:
    """A handshake and two answers, in pieces down to a byte."""

    async def main() -> None:
        for size in (1, 2, 5, 100, 1 << 20):
            memory = InMemory(authority, size)
            for _ in range(2):
                assert await (await memory.order(OK + COUNTED)).read() == BODY
                assert memory.wired.is_idle()
            memory.say(b"stray")
            assert memory.wired.wire.is_closed
            memory.wired.ends()

    play(main)


@pytest.mark.parametrize("is_whole", [True, False], ids=["ended", "broken"])
def test_records_of_tls_that_come_together_go_on_together(authority: Authority, is_whole: bool) -> None:
    """Also those before the connection's end, or before a record that is none."""

    async def main() -> None:
        memory = InMemory(authority)
        reply = await memory.order(OK + b"\r\n", b"one, ", b"two, ")
        pieces: list[bytes] = []
        pouring = asyncio.ensure_future(reply.pour(pieces.append))
        await asyncio.sleep(0)
        memory.server.write(b"three, ")
        memory.server.write(b"four")
        if is_whole:
            with suppress(ssl.SSLWantReadError):
                memory.server.unwrap()
        else:
            memory.sent.write(b"\x17\x03\x03\x00\x20" + bytes(32))
        memory.pump()
        assert memory.wired.wire.is_closed
        memory.wired.ends()
        if is_whole:
            await pouring
        else:
            with pytest.raises(UpstreamBroke):
                await pouring
        assert pieces == [b"one, two, ", b"three, four"]

    play(main)


@pytest.mark.parametrize("said", [b"HTTP/1.1 400 No\r\n\r\n", b"", None])
def test_who_does_not_speak_tls_is_unreachable(authority: Authority, said: bytes | None) -> None:
    async def main() -> None:
        left = asyncio.Event()

        async def serve(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
            await reader.read(1)
            with suppress(OSError):
                if said is None:
                    await reader.read()
                else:
                    writer.write(said)
            writer.close()
            left.set()

        async with await asyncio.start_server(serve, "127.0.0.1", 0) as listener:
            port = listener.sockets[0].getsockname()[1]
            timeouts = Timeouts(0.3 if said is None else 5, 5, 5)
            client = Connections(f"https://127.0.0.1:{port}", {}, timeouts, Deadlines(0.05), trusting(authority))
            with pytest.raises(UpstreamUnreachable) as refused:
                await order(client)
            assert refused.value.timed_out is (said is None)
            await asyncio.wait_for(left.wait(), GONE_SECONDS)
            await client.close()

    play(main)


def test_the_certificate_of_another_is_not_trusted(authority: Authority) -> None:
    async def main() -> None:
        server = Server([OK + COUNTED])
        async with await asyncio.start_server(server.serve, "127.0.0.1", 0, ssl=server_side(authority)) as listener:
            port = listener.sockets[0].getsockname()[1]
            for host, way in (("localhost", trusting(authority)), ("127.0.0.1", DIRECTLY)):
                client = Connections(f"https://{host}:{port}", {}, Timeouts(5, 5, 5), Deadlines(), way)
                with pytest.raises(UpstreamUnreachable, match="its certificate is not trusted"):
                    await order(client)
                await client.close()
        assert not server.orders

    play(main)
