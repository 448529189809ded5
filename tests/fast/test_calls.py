"""One connection, byte by byte: what comes in, what goes out, and what stands in the books; the same both ways that
orders go from their connection to the relay."""

import asyncio
import gc
import json
import weakref
from collections.abc import Awaitable, Callable, Mapping
from typing import Any

import pytest
import uvicorn
from starlette.types import Receive, Scope, Send
from uvicorn.server import ServerState

from farebox.admission import Admission
from farebox.answers import Streaming
from farebox.catalog import Catalog
from farebox.core.books import TopUp
from farebox.core.errors import unknown
from farebox.core.formats.table import FORMATS
from farebox.core.headers import HeaderList
from farebox.core.keys import digest
from farebox.core.plans import BUILT_IN
from farebox.deadlines import Deadlines
from farebox.exchange import Exchange
from farebox.http.asgi import send_json
from farebox.http.bodies import BodyReader
from farebox.http.calls import DIRECT, SOCKETS, Serve
from farebox.http.refusals import refuse
from farebox.http.server import PIPELINED_MAX, BoundedHttp
from farebox.identity.keys import KeyCallers, PlansInForce, new_key
from farebox.testing import MemoryStore, Pause, Script, ScriptedReply, ScriptedUpstream, Silence
from farebox.upstream.running import alone
from farebox.web.relay import Relay
from tests.fast.test_exchange import MODELS, USD, whole
from tests.framed import WEBSOCKET, chunked, counted
from tests.served.test_formats import EVERY, STREAMS, told

WAYS = ["direct", "plain"]
BODY_BYTES_MAX = 5000
TURNS = 60
"""After so many turns of the loop nothing moves any more, unless something is waited for."""

STREAM = [part + b"\n\n" for part in told("/chat/completions", "lf").split(b"\n\n")[:-1]]


class Upstream(ScriptedUpstream):
    """Answers every order as its kind says."""

    def __init__(self, answer: Script, stream: Script) -> None:
        super().__init__(pages={"/models": MODELS})
        self._answer = answer
        self._stream = stream

    async def forward(self, path: str, body: bytes, headers: Mapping[str, str], *, streamed: bool) -> ScriptedReply:
        return ScriptedReply(self._stream if streamed else self._answer)


def pausing(*pieces: bytes) -> Script:
    """A stream whose pieces come apart."""
    return Script([step for piece in pieces for step in (piece, Pause(1))])


class Server:
    """Connections, served one of both ways, in this process. `directly` counts those orders that met no ASGI."""

    def __init__(
        self,
        way: str,
        stream: Script | None = None,
        answer: Script | None = None,
        seconds: float = 9,
        http: type[BoundedHttp] = BoundedHttp,
    ) -> None:
        self.way = way
        self._http = http
        self.store = MemoryStore()
        self.key = new_key()
        self.state = ServerState()
        self.directly = 0
        self._upstream = Upstream(answer or whole(), stream or pausing(*STREAM))
        self._seconds = seconds

    async def start(self) -> "Server":
        account = await self.store.create_account("a", "paying", 0, 1)
        await self.store.create_key(account.id, "", digest(self.key), "hint", 1)
        await self.store.carry_out(TopUp("t", account.id, USD, 1))
        catalog = Catalog(self._upstream, 300, 3600)
        await catalog.refresh()
        deadlines = Deadlines(0.01)
        exchange = Exchange(
            callers=KeyCallers(self.store, PlansInForce(BUILT_IN)),
            prices=catalog,
            ledger=self.store,
            upstreams=alone(self._upstream),
            streaming=Streaming(deadlines),
            admission=Admission(9, 9),
        )
        relay = Relay(exchange, BodyReader(BODY_BYTES_MAX, self._seconds, deadlines), deadlines, 0, 0)
        endpoints = {f"/v1{path}": relay.endpoint(path, wire) for path, wire in FORMATS.items()}
        serves = {f"/v1{path}".encode(): relay.serving(path, wire) for path, wire in FORMATS.items()}

        async def app(scope: Scope, receive: Receive, send: Send) -> None:
            if scope["path"] in endpoints:
                await endpoints[scope["path"]](scope, receive, send)
            elif scope["method"] == "GET":
                await send_json(send, b"{}")
            else:
                await refuse(scope, receive, send, unknown("nothing there"))

        def find(path: bytes, _: HeaderList) -> Serve | None:
            self.directly += path in serves
            return serves.get(path)

        self._config = uvicorn.Config(app, http=self._http, ws="none", lifespan="off", log_config=None)
        self.app_state: dict[str, Any] = {DIRECT: find} if self.way == "direct" else {}
        return self

    def connect(self, **caller: Any) -> "Wire":
        protocol = self._http(self._config, self.state, self.app_state, asyncio.get_running_loop())
        return Wire(protocol, **caller)

    async def ended(self) -> None:
        """Wait until nothing is served any more."""
        async with asyncio.timeout(20):
            while self.state.tasks:  # noqa: ASYNC110 - nothing tells
                await asyncio.sleep(0)
        await turns(3)

    async def states(self) -> list[str]:
        return [hold.state for hold in await self.store.holds(("pending", "open", "posted", "voided"))]

    async def asked(self, *pieces: bytes) -> bytes:
        """What is answered to bytes that come in these pieces, by the time nothing is served any more."""
        wire = self.connect()
        for piece in pieces:
            wire.protocol.data_received(piece)
            await turns(2)
        await self.ended()
        wire.lose(None)
        await turns(2)
        return bytes(wire.sent)


class Wire(asyncio.Transport):
    """A connection as its server sees it. `sent` is what its caller was sent, who `leaves_after` so many bytes, or
    reads no more than about `room` at first."""

    def __init__(self, protocol: BoundedHttp, leaves_after: int | None = None, room: int | None = None) -> None:
        super().__init__()
        self.protocol = protocol
        self.sent = bytearray()
        self.is_lost = False
        self.is_ended = False
        self._is_closing = False
        self._leaves_after = leaves_after
        self._room = room
        self.is_paused = False
        protocol.connection_made(self)

    def write(self, data: Any) -> None:
        if self._is_closing:
            return
        self.sent += data
        if self._leaves_after is not None and len(self.sent) >= self._leaves_after:
            self.lose(ConnectionResetError())
        elif self._room is not None and len(self.sent) > self._room and not self.is_paused:
            self.is_paused = True
            self.protocol.pause_writing()

    def take(self, size: int) -> None:
        """The caller reads so many bytes."""
        if self._room is not None:
            self._room += size

    def read_on(self) -> None:
        self._room, self.is_paused = None, False
        self.protocol.resume_writing()

    def close(self) -> None:
        if not self._is_closing:
            self.lose(None)

    def abort(self) -> None:
        self.lose(None)

    def lose(self, error: Exception | None) -> None:
        self._is_closing = True
        if not self.is_lost:
            self.is_lost = True
            asyncio.get_running_loop().call_soon(self.protocol.connection_lost, error)

    def end_side(self) -> None:
        """The caller closes its own side."""
        if not self.protocol.eof_received():
            self.close()

    def is_closing(self) -> bool:
        return self._is_closing

    def set_protocol(self, protocol: Any) -> None:
        self.protocol = protocol

    def get_write_buffer_size(self) -> int:
        return 0 if self._room is None else len(self.sent) - self._room

    def can_write_eof(self) -> bool:
        return True

    def write_eof(self) -> None:
        self.is_ended = True

    def pause_reading(self) -> None: ...

    def resume_reading(self) -> None: ...

    def get_extra_info(self, name: str, default: Any = None) -> Any:
        return _Quiet() if name == "socket" else default


class _Quiet:
    """A socket without errors."""

    def getsockopt(self, level: int, name: int, size: int | None = None) -> int | bytes:
        return 0 if size is None else b""

    def getsockname(self) -> str:
        return ""

    getpeername = getsockname


async def turns(number: int = TURNS) -> None:
    for _ in range(number):
        await asyncio.sleep(0)


def order(
    server: Server,
    path: str = "/chat/completions",
    frame: Callable[[bytes], bytes] = counted,
    headers: bytes = b"",
    line: bytes = b"POST /v1PATH HTTP/1.1",
    **asked: Any,
) -> bytes:
    """An order on the wire."""
    capped = {} if path == "/embeddings" else {"max_tokens": 9, "max_output_tokens": 9}
    body = json.dumps({**EVERY[path], "model": "a/b", **capped, **asked}).encode()
    key = b"\r\nx-api-key: " + server.key.encode() if b"x-api-key" not in headers else b""
    return line.replace(b"PATH", path.encode()) + b"\r\nhost: x" + key + b"\r\n" + headers + frame(body)


GET = b"GET /healthz HTTP/1.1\r\nhost: x\r\n\r\n"


def both(scene: Callable[[Server], Awaitable[bytes]], **server: Any) -> bytes:
    """Play a scene both ways: its caller is sent the same bytes. Gives them."""

    async def played(way: str) -> bytes:
        begun = await Server(way, **server).start()
        sent = await scene(begun)
        assert "pending" not in await begun.states()
        assert (begun.directly > 0) == (way == "direct")
        return sent.replace(begun.key.encode(), b"KEY")

    direct, plain = (asyncio.run(played(way)) for way in WAYS)
    assert direct == plain
    return direct


# What comes in


@pytest.mark.parametrize("frame", [counted, chunked])
@pytest.mark.parametrize("streamed", [False, True])
def test_however_a_request_is_cut_its_answer_is_the_same(streamed: bool, frame: Callable[[bytes], bytes]) -> None:
    async def scene(server: Server) -> bytes:
        request = order(server, frame=frame, stream=streamed)
        answer = await server.asked(request)
        assert answer.startswith(b"HTTP/1.1 200 OK\r\nkeep-alive: timeout=")
        for position in range(1, len(request)):
            assert await server.asked(request[:position], request[position:]) == answer, position
        assert await server.asked(*(request[at : at + 1] for at in range(len(request)))) == answer
        assert await server.states() == ["posted"] * (len(request) + 1)
        return answer

    both(scene)


@pytest.mark.parametrize("path", STREAMS)
def test_every_format_streams_the_same_bytes(path: str) -> None:
    pieces = [part + b"\n\n" for part in told(path, "lf").split(b"\n\n")[:-1]]
    sent = both(lambda server: server.asked(order(server, path, stream=True)), stream=pausing(*pieces))
    assert sent.endswith(b"0\r\n\r\n")
    assert pieces[1] in sent


@pytest.mark.parametrize("path", FORMATS)
def test_refusals_are_the_same_bytes(path: str) -> None:
    async def scene(server: Server) -> bytes:
        whole_order = order(server, path)
        return b"".join(
            [
                await server.asked(order(server, path, model="no/such")),
                await server.asked(order(server, path, headers=b"content-type: text/plain\r\n")),
                await server.asked(order(server, path, headers=b"content-encoding: zstd\r\n")),
                await server.asked(order(server, path, headers=b"content-encoding: gzip\r\n")),
                await server.asked(order(server, path, headers=b"x-api-key: sk-fb-wrong\r\n")),
                await server.asked(whole_order.replace(b'"model"', b'"mo del"')),
                await server.asked(order(server, path, headers=b"connection: close\r\n", model="no/such")),
                await server.asked(whole_order.replace(b"host: x", b"host: x y")),
            ]
        )

    sent = both(scene)
    assert sent.count(b"HTTP/1.1 ") == 8
    assert b" 200 " not in sent


@pytest.mark.parametrize("frame", [counted, chunked])
def test_a_body_that_is_too_long_is_read_to_its_end_before_the_connection_is_closed(
    frame: Callable[[bytes], bytes],
) -> None:
    async def scene(server: Server) -> bytes:
        request = order(server, frame=frame, user="u" * 10 * BODY_BYTES_MAX)
        head, body = request[: request.index(b"\r\n\r\n") + 4], request[request.index(b"\r\n\r\n") + 4 :]
        wire = server.connect()
        wire.protocol.data_received(head + body[: BODY_BYTES_MAX * 6])
        await turns()
        assert wire.sent.startswith(b"HTTP/1.1 413 ")
        assert not wire.is_closing()
        for at in range(BODY_BYTES_MAX * 6, len(body), 997):
            assert not wire.is_closing()
            wire.protocol.data_received(body[at : at + 997])
            await turns(3)
        assert wire.is_closing()
        await server.ended()
        return bytes(wire.sent)

    assert b"\r\nconnection: close\r\n" in both(scene)


@pytest.mark.parametrize("frame", [counted, chunked])
def test_a_body_that_comes_in_one_piece_is_held_to_the_bound_too(frame: Callable[[bytes], bytes]) -> None:
    sent = both(lambda server: server.asked(order(server, frame=frame, user="u" * BODY_BYTES_MAX)))
    assert sent.startswith(b"HTTP/1.1 413 ")


def test_a_body_that_comes_too_slowly_is_refused() -> None:
    async def scene(server: Server) -> bytes:
        wire = server.connect()
        wire.protocol.data_received(order(server)[:-9])
        while not wire.sent:  # noqa: ASYNC110 - nothing tells
            await asyncio.sleep(0.01)
        wire.lose(None)
        await server.ended()
        return bytes(wire.sent)

    assert both(scene, seconds=0.02).startswith(b"HTTP/1.1 408 ")


# Who leaves


@pytest.mark.parametrize("leave", ["reset", "closed", "one side"])
@pytest.mark.parametrize("way", WAYS)
def test_who_leaves_at_any_byte_of_a_request_leaves_no_hold_that_does_not_end(way: str, leave: str) -> None:
    async def main() -> None:
        server = await Server(way).start()
        for streamed in (False, True):
            request = order(server, stream=streamed)
            before = len(await server.states())
            for position in range(len(request) + 1):
                wire = server.connect()
                wire.protocol.data_received(request[:position])
                await turns(position % 3)
                if leave == "one side":
                    wire.end_side()
                else:
                    wire.lose(ConnectionResetError() if leave == "reset" else None)
                await server.ended()
                assert position == len(request) or len(await server.states()) == before
        assert "pending" not in await server.states()

    asyncio.run(main())


@pytest.mark.parametrize("way", WAYS)
@pytest.mark.parametrize("streamed", [False, True])
def test_who_leaves_at_any_byte_of_an_answer_is_billed_as_the_upstream_said_so_far(way: str, streamed: bool) -> None:
    async def main() -> None:
        server = await Server(way).start()
        request = order(server, stream=streamed)
        answer = await server.asked(request)
        for position in range(1, len(answer)):
            wire = server.connect(leaves_after=position)
            wire.protocol.data_received(request)
            await server.ended()
            assert answer.startswith(wire.sent)
            assert len(wire.sent) >= position
        states = await server.states()
        assert len(states) == len(answer)
        assert set(states) == ({"posted", "open"} if streamed else {"posted"})

    asyncio.run(main())


@pytest.mark.parametrize("behind", [b"", GET, b"PO"])
def test_a_silent_stream_ends_with_its_caller_whatever_stands_behind_it(behind: bytes) -> None:
    async def main() -> None:
        server = await Server("direct", stream=Script([STREAM[1], Silence()])).start()
        wire = server.connect()
        wire.protocol.data_received(order(server, stream=True) + behind)
        await turns()
        assert STREAM[1] in wire.sent
        wire.lose(ConnectionResetError())
        await server.ended()
        assert await server.states() == ["open"]

    asyncio.run(main())


@pytest.mark.parametrize("streamed", [False, True])
def test_who_has_only_ended_its_own_side_is_answered(streamed: bool) -> None:
    async def scene(server: Server) -> bytes:
        wire = server.connect()
        wire.protocol.data_received(order(server, stream=streamed))
        await turns(1 if not streamed else 12)
        wire.end_side()
        await server.ended()
        assert wire.is_closing()
        return bytes(wire.sent)

    assert b"HTTP/1.1 200 OK" in both(scene, answer=Script([Pause(9), *whole().steps], content_type="application/json"))


def test_nothing_of_a_direct_order_waits_for_the_garbage_collector() -> None:
    async def main() -> None:
        server = await Server("direct").start()
        wire = server.connect()
        for streamed in (False, True):
            wire.protocol.data_received(order(server, stream=streamed))
            await server.ended()
        left = weakref.ref(wire.protocol)
        wire.lose(None)
        await turns()
        del wire.protocol
        assert left() is None

    gc.collect()
    gc.disable()
    try:
        asyncio.run(main())
    finally:
        gc.enable()


# Who reads slowly


@pytest.mark.parametrize("way", WAYS)
def test_nothing_piles_up_for_who_does_not_read_and_all_comes_to_who_reads_on(way: str) -> None:
    async def main() -> None:
        events = [STREAM[1]] * 2000
        server = await Server(way, stream=pausing(*events, *STREAM[2:])).start()
        room = 3 * len(STREAM[1])
        wires = [server.connect(room=room) for _ in range(2)]
        for wire in wires:
            wire.protocol.data_received(order(server, stream=True))
        await turns(1000)
        assert all(room < len(wire.sent) < room + 2 * len(STREAM[1]) for wire in wires)
        wires[0].read_on()
        wires[1].lose(ConnectionResetError())
        await server.ended()
        assert wires[0].sent.count(STREAM[1]) == 2000
        assert wires[0].sent.endswith(b"0\r\n\r\n")
        assert sorted(await server.states()) == ["open", "posted"]

    asyncio.run(main())


@pytest.mark.parametrize("way", WAYS)
def test_who_takes_nothing_for_long_is_cut_off_and_who_takes_little_is_not(way: str) -> None:
    class Impatient(BoundedHttp):
        unread_seconds = 0.5

    async def main() -> None:
        server = await Server(way, stream=pausing(*[STREAM[1]] * 2000, *STREAM[2:]), http=Impatient).start()
        still, slow = (server.connect(room=3 * len(STREAM[1])) for _ in range(2))
        for wire in (still, slow):
            wire.protocol.data_received(order(server, stream=True))
        async with asyncio.timeout(10):
            while not still.is_lost:
                await asyncio.sleep(0.01)
                slow.take(1)
        assert not slow.is_lost
        slow.read_on()
        await server.ended()
        assert slow.sent.endswith(b"0\r\n\r\n")
        assert sorted(await server.states()) == ["open", "posted"]

    asyncio.run(main())


# One after another


def test_requests_that_stand_behind_one_another_are_answered_in_turn() -> None:
    async def scene(server: Server) -> bytes:
        several = [
            order(server, stream=True),
            GET,
            order(server),
            order(server, model="no/such"),
            order(server, frame=chunked, stream=True),
            GET,
            GET,
            order(server, "/embeddings", model="no/such"),
        ]
        at_once = await server.asked(b"".join(several))
        one_by_one = await server.asked(*several)
        in_bytes = b"".join(several)
        cut = await server.asked(*(in_bytes[at : at + 61] for at in range(0, len(in_bytes), 61)))
        assert at_once == one_by_one == cut
        return at_once

    sent = both(scene)
    statuses = [int(part[:3]) for part in sent.split(b"HTTP/1.1 ")[1:]]
    assert statuses == [200, 200, 200, 404, 200, 200, 200, 404]


def test_of_too_many_that_stand_behind_one_another_the_first_are_answered_and_the_last_one_told() -> None:
    async def scene(server: Server) -> bytes:
        return await server.asked(order(server, stream=True) + 100 * GET)

    sent = both(scene)
    assert sent.count(b"HTTP/1.1 200 ") == 1 + PIPELINED_MAX
    assert sent.count(b"connection: close") == 1


@pytest.mark.parametrize("expects", [b"", b"expect: 100-continue\r\n"])
def test_who_goes_while_another_request_waits_is_missed(expects: bytes, caplog: pytest.LogCaptureFixture) -> None:
    async def scene(server: Server) -> bytes:
        await server.asked(order(server, model="no/such"))
        wire = server.connect()
        wire.protocol.data_received(order(server, headers=expects, stream=True) + GET)
        while STREAM[1] not in wire.sent:
            await turns(1)
        wire.lose(None)
        await server.ended()
        (hold,) = await server.store.holds(("open",))
        assert hold.reason is not None
        assert hold.reason.startswith("the caller hung up")
        return b""

    both(scene, stream=pausing(*[STREAM[1]] * 2000, *STREAM[2:]))
    assert not [record for record in caplog.records if record.exc_info]


def test_a_body_that_breaks_is_refused_at_once_and_spoils_no_answer_before_it() -> None:
    async def scene(server: Server) -> bytes:
        broken = order(server, frame=lambda body: b"transfer-encoding: chunked\r\n\r\nzz\r\n")
        alone = await server.asked(broken)
        assert (alone.count(b"HTTP/1.1 "), alone.count(b"HTTP/1.1 400 "), alone.count(b"chunk size")) == (1, 1, 1)
        behind = await server.asked(order(server, stream=True) + broken)
        assert behind.count(b"HTTP/1.1 ") == behind.count(b"HTTP/1.1 200 ") == 1
        assert behind.endswith(b"0\r\n\r\n")
        two_behind = await server.asked(order(server, stream=True) + GET + broken)
        assert two_behind.count(b"HTTP/1.1 ") == two_behind.count(b"HTTP/1.1 200 ") == 2
        return b""

    both(scene)


@pytest.mark.parametrize("piece", [b"a: b\r\n" * 1000, b"c" * 6000], ids=["short trailers", "one long one"])
def test_what_follows_a_body_is_bounded_as_a_head_is(piece: bytes) -> None:
    async def scene(server: Server) -> bytes:
        whole_body = order(server, frame=chunked).removesuffix(b"\r\n")
        sent = await server.asked(whole_body + b"x: ", *[piece] * 40)
        assert (sent.count(b"HTTP/1.1 "), sent.count(b"HTTP/1.1 431 ")) == (1, 1)
        few = await server.asked(whole_body + b"x: ", *[piece] * 2, b"\r\n\r\n")
        assert few.count(b"HTTP/1.1 200 ") == 1
        return b""

    both(scene)


def test_what_served_an_order_ends_where_its_connection_goes_on_as_a_websocket() -> None:
    class Silent:
        message_bytes_max, message_seconds, waiting_max, seconds = 99, 9.0, 1, 9.0
        deadlines = Deadlines(0.01)

        async def admit(self, headers: HeaderList) -> None: ...

        def begin(self, *_: object) -> "Silent":
            return self

        def forget(self) -> None: ...

    async def main() -> None:
        server = await Server("direct").start()
        server.app_state[SOCKETS] = lambda path: Silent()
        before = asyncio.all_tasks()
        wire = server.connect()
        wire.protocol.data_received(order(server))
        await server.ended()
        wire.protocol.data_received(b"GET /v1/responses HTTP/1.1\r\nhost: x\r\n" + WEBSOCKET + b"\r\n")
        await turns(8)
        assert b"HTTP/1.1 101 " in wire.sent
        assert asyncio.all_tasks() == before
        wire.lose(None)
        await turns(2)

    asyncio.run(main())


def test_a_head_behind_a_long_body_is_not_as_long_as_that() -> None:
    async def scene(server: Server) -> bytes:
        await server.asked(order(server))
        long = GET.removesuffix(b"\r\n") + b"content-length: 100000\r\n\r\n" + 100_000 * b"a"
        sent = await server.asked(long + GET[:10], GET[10:])
        assert [part[:3] for part in sent.split(b"HTTP/1.1 ")[1:]] == [b"200", b"200"]
        return b""

    both(scene)


def test_a_head_that_a_connection_knows_is_read_as_one_that_it_does_not() -> None:
    async def main() -> None:
        server = await Server("direct").start()

        def sent(path: str = "/chat/completions", **asked: Any) -> bytes:
            behind = b"\r\nContent-Type: application/json\r\nconnection: keep-alive\r\n\r\n"
            request = order(server, path, lambda body: b"Content-Length: %d%b%b" % (len(body), behind, body), **asked)
            return request.replace(b"HTTP/1.1\r\n", b"HTTP/1.1\r\nX-Title: a\r\n")

        known, other, streamed = sent(), sent(temperature=0.123), sent(stream=True)
        elsewhere = sent("/messages")

        async def answered(*before: bytes, last: bytes, behind: bytes = b"") -> bytes:
            """What is answered to the last of several requests, and to what stands behind it."""
            wire = server.connect()
            for request in before:
                wire.protocol.data_received(request)
                await server.ended()
            wire.sent.clear()
            wire.protocol.data_received(last)
            if behind:
                wire.protocol.data_received(behind)
            await turns()
            wire.lose(None)
            await server.ended()
            return bytes(wire.sent)

        until, key = known.index(b"\r\n\r\n") + 4, known.index(server.key.encode())
        # Of its key no character: who guesses many is made to wait.
        places = [*range(key), *range(key + len(server.key), until)]
        changed = [
            known[:at] + new + known[at + 1 :]
            for at in places
            for new in (b"", known[at : at + 1] * 2, bytes([known[at] ^ 1]))
        ]
        whole_ones = [known, other, streamed, known + known, known + GET, GET, b"\r\n" + known]
        for last in [*whole_ones, *changed, known[:-1], known + b"P", known[:until]]:
            assert await answered(known, known, last=last) == await answered(last=last), last
        for last in whole_ones:
            assert await answered(known, known, known, last=last) == await answered(known, GET, known, last=last), last
            assert await answered(known, known, last=last, behind=known) == await answered(last=last, behind=known)
        assert await answered(GET, known + elsewhere, last=known) == await answered(last=known)
        assert await answered(*[elsewhere] * 2, GET, elsewhere, last=b"\0") == await answered(elsewhere, last=b"\0")
        assert set(await server.states()) == {"posted"}

    asyncio.run(main())


@pytest.mark.parametrize(
    "odd", [b"connection: close\r\n", b"expect: 100-continue\r\n", b"connection: upgrade\r\nupgrade: websocket\r\n"]
)
def test_a_head_that_is_not_plain_is_read_each_time(odd: bytes, caplog: pytest.LogCaptureFixture) -> None:
    async def scene(server: Server) -> bytes:
        several = await server.asked(*[order(server, headers=odd)] * 4, order(server))
        return await server.asked(*[order(server)] * 2, *[order(server, headers=odd)] * 3) + several

    both(scene)
    assert len(caplog.records) == (2 * 7 if b"websocket" in odd else 0)


def test_a_head_that_a_connection_knows_has_the_length_of_each_body() -> None:
    async def scene(server: Server) -> bytes:
        short, long = order(server, model="no/such"), order(server, user="u" * 2 * BODY_BYTES_MAX)
        return await server.asked(short, short, long, short)

    assert b"has 10" in both(scene)


def test_nothing_behind_a_last_answer_is_answered() -> None:
    async def scene(server: Server) -> bytes:
        last = order(server, headers=b"connection: close\r\n")
        return await server.asked(last + order(server) + GET) + await server.asked(last, order(server))

    sent = both(scene)
    assert sent.count(b"HTTP/1.1 ") == sent.count(b"\r\nconnection: close\r\n") == 2


def test_garbage_behind_an_order_does_not_come_between_its_answer() -> None:
    async def scene(server: Server) -> bytes:
        return await server.asked(order(server, stream=True) + b"\x00\x01 nonsense\r\n\r\n")

    assert both(scene).endswith(b"0\r\n\r\n")


def test_a_server_that_stops_ends_connections_after_their_answers() -> None:
    async def scene(server: Server) -> bytes:
        idle, busy, late = (server.connect() for _ in range(3))
        idle.protocol.data_received(order(server))
        await turns()
        busy.protocol.data_received(order(server, stream=True))
        await turns(12)
        late.protocol.data_received(order(server))
        for wire in (idle, busy, late):
            wire.protocol.shutdown()
        assert [wire.is_closing() for wire in (idle, busy, late)] == [True, False, False]
        await server.ended()
        assert busy.is_closing()
        assert late.is_ended
        return bytes(busy.sent)

    assert both(scene, stream=pausing(*STREAM[:2] * 50, *STREAM[2:])).endswith(b"0\r\n\r\n")


@pytest.mark.parametrize(
    "value", [b"1\r\nset-cookie: a=b", b"a\x01b", b"a\x7fb", b"a\0b"], ids=["line", "1", "7f", "0"]
)
def test_a_header_of_the_upstreams_cannot_break_the_head(value: bytes) -> None:
    async def scene(server: Server) -> bytes:
        return await server.asked(order(server)) + await server.asked(order(server, stream=True))

    bad: HeaderList = [(b"x-openrouter-a", value), (b"x-openrouter-b", b"2\t3")]
    stream = pausing(*STREAM)
    stream.headers = bad
    sent = both(scene, answer=whole(headers=bad), stream=stream)
    assert sent.count(b"HTTP/1.1 200 OK\r\n") == sent.count(b"x-openrouter-b: 2\t3\r\n") == 2
    assert b"x-openrouter-a" not in sent


def test_what_cannot_be_sent_is_told_in_an_answer() -> None:
    async def main() -> None:
        refusal = {"error": {"code": 600, "message": "no"}}
        server = await Server("direct", answer=whole(refusal, status=600)).start()
        sent = await server.asked(order(server))
        assert sent.startswith(b"HTTP/1.1 424 "), sent

    asyncio.run(main())


# Which way


@pytest.mark.parametrize(
    ("line", "headers", "is_direct"),
    [
        (b"POST /v1/chat/completions HTTP/1.1", b"", True),
        (b"POST /v1/chat/completions?beta=true HTTP/1.1", b"connection: close\r\n", True),
        (b"POST /v1/chat/completions HTTP/1.0", b"", False),
        (b"POST /v1/chat/completions HTTP/1.1", b"expect: 100-continue\r\n", False),
        (b"POST /v1/%63hat/completions HTTP/1.1", b"", False),
        (b"POST http://x/v1/chat/completions HTTP/1.1", b"", False),
        (b"PUT /v1/chat/completions HTTP/1.1", b"", False),
        (b"POST /v1/chat/completions HTTP/1.1", b"connection: upgrade\r\nupgrade: h2c\r\n", True),
    ],
)
def test_what_is_odd_about_a_request_is_left_to_asgi(line: bytes, headers: bytes, is_direct: bool) -> None:
    async def main() -> None:
        server = await Server("direct").start()
        answer = await server.asked(order(server, line=line, headers=headers))
        assert b"HTTP/1.1 200 OK" in answer
        assert server.directly == is_direct

    asyncio.run(main())
