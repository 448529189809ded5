"""A stream whose upstream is silent: something goes out between two events, and nothing else about it changes."""

import asyncio
import json
import re
from collections.abc import Mapping
from time import monotonic

import pytest
from openai._streaming import SSEDecoder
from starlette.types import Message, Scope

from farebox.admission import Admission
from farebox.answers import Streaming
from farebox.catalog import Catalog
from farebox.core.books import Command, Outcome, Settle, TopUp
from farebox.core.formats.table import FORMATS
from farebox.core.headers import HeaderList
from farebox.core.keys import digest
from farebox.core.likeness import PutChunk
from farebox.core.plans import BUILT_IN
from farebox.deadlines import Deadlines, Wait
from farebox.exchange import Exchange
from farebox.http.asgi import AsgiCall
from farebox.http.bodies import BodyReader
from farebox.identity.keys import KeyCallers, PlansInForce, new_key
from farebox.ports import Take, UpstreamUnreachable
from farebox.testing import MemoryStore, Script, ScriptedReply, ScriptedUpstream, Silence
from farebox.upstream.running import alone
from farebox.web.relay import Relay
from farebox.web.waiting import Silence as Silent
from farebox.web.waiting import WaitingCaller
from tests.fast.test_exchange import MODELS
from tests.served.test_formats import ORDERS, STREAMED, told

SOON_SECONDS = 0.001
STUCK_SECONDS = 10


class Hushed(ScriptedUpstream):
    """An upstream that says nothing before the first pieces of its answers, or `before_head`, until its caller got a
    keep-alive, and so between any two of them."""

    def __init__(self, *scripts: Script | Exception, before_head: bool = False) -> None:
        super().__init__(*scripts, pages={"/models": MODELS})
        self.heard = asyncio.Event()
        self.hushes = True
        self._before_head = before_head

    async def hush(self) -> None:
        if not self.hushes:
            return
        await self.heard.wait()
        self.heard.clear()

    async def forward(self, path: str, body: bytes, headers: Mapping[str, str], *, streamed: bool) -> ScriptedReply:
        if self._before_head:
            await self.hush()
        reply = await super().forward(path, body, headers, streamed=streamed)
        return HushedReply(reply, self)


class HushedReply(ScriptedReply):
    def __init__(self, reply: ScriptedReply, upstream: Hushed) -> None:
        self.__dict__.update(reply.__dict__)
        self._upstream = upstream
        self._is_first = True

    async def chunk(self) -> bytes:
        if not self._is_first and self._steps and isinstance(self._steps[0], bytes):
            await self._upstream.hush()
        self._is_first = False
        return await super().chunk()


class Gateway:
    """The endpoints of orders, in this process, with one caller. Silence is over after `seconds`."""

    def __init__(self, upstream: Hushed, seconds: float = SOON_SECONDS, store: MemoryStore | None = None) -> None:
        self.upstream = upstream
        self._seconds = seconds
        self.deadlines = Deadlines(SOON_SECONDS)
        self.store = store or MemoryStore()
        self.key = new_key()

    async def start(self) -> "Gateway":
        account = await self.store.create_account("a", "paying", 0, 1)
        await self.store.create_key(account.id, "", digest(self.key), "hint", 1)
        await self.store.carry_out(TopUp("t", account.id, 10**9, 1))
        catalog = Catalog(self.upstream, 300, 3600)
        await catalog.refresh()
        deadlines = self.deadlines
        exchange = Exchange(
            callers=KeyCallers(self.store, PlansInForce(BUILT_IN)),
            prices=catalog,
            ledger=self.store,
            upstreams=alone(self.upstream),
            streaming=Streaming(deadlines),
            admission=Admission(9, 9),
        )
        self._relay = Relay(exchange, BodyReader(10**6, 9, deadlines), deadlines, 0, self._seconds)
        return self

    async def order(self, path: str, caller: "Caller", *headers: tuple[bytes, bytes]) -> None:
        order = {**ORDERS[path], "model": "a/b", "stream": True, "max_tokens": 9, "max_output_tokens": 9}
        body: list[Message] = [{"type": "http.request", "body": json.dumps(order).encode()}]

        async def receive() -> Message:
            if body:
                return body.pop()
            await caller.gone.wait()
            return {"type": "http.disconnect"}

        known = [(b"authorization", f"Bearer {self.key}".encode()), (b"content-type", b"application/json"), *headers]
        scope: Scope = {"type": "http", "method": "POST", "path": path, "headers": known}
        async with asyncio.timeout(STUCK_SECONDS):
            await self._relay.endpoint(path, FORMATS[path])(scope, receive, caller.send)

    async def states(self) -> list[str]:
        return [hold.state for hold in await self.store.holds(("pending", "open", "posted", "voided"))]


class Caller:
    """One who orders a stream. Its socket is full after `room` pieces, until it is `emptied`, or until three
    keep-alives were `tried`."""

    def __init__(self, gateway: Gateway, path: str, room: int | None = None) -> None:
        self.keep_alive = FORMATS[path].KEEP_ALIVE
        self.sent: list[Message] = []
        self.gone = asyncio.Event()
        self._heard = gateway.upstream.heard
        self._room = room
        self.tried = 0
        self.emptied = asyncio.Event()
        self.eighth = asyncio.Event()

    async def send(self, message: Message) -> None:
        body = message.get("body")
        if self._room is not None and len(self.sent) > self._room and not self.emptied.is_set():
            # As uvicorn's: it waits while the socket is full, and then writes at once.
            self.tried += body == self.keep_alive
            if self.tried == 3:
                self.emptied.set()
            await self.emptied.wait()
        self.sent.append(message)
        if body == self.keep_alive:
            self._heard.set()
            if self.pieces.count(body) == 8:
                self.eighth.set()

    @property
    def pieces(self) -> list[bytes]:
        return [message["body"] for message in self.sent[1:]]

    @property
    def stream(self) -> bytes:
        """All but keep-alives."""
        return b"".join(piece for piece in self.pieces if piece != self.keep_alive)


def events(stream: bytes) -> list[tuple[str | None, str]]:
    """As OpenAI's SDK reads them; a ping is none."""
    read = SSEDecoder().iter_bytes(iter([stream]))
    return [(each.event, each.data) for each in read if each.event != "ping" and each.data]


@pytest.mark.parametrize("framing", ["lf", "crlf", "cr"])
@pytest.mark.parametrize("path", STREAMED)
def test_however_a_stream_is_cut_a_keep_alive_stands_between_two_events(path: str, framing: str) -> None:
    stream = told(path, framing).replace(b"\r\n", b"\r\n" if framing == "crlf" else b"\r")
    stream = stream.replace(b"\n", b"\r") if framing == "cr" else stream

    async def cut(position: int) -> None:
        upstream = Hushed(Script([stream[:position], stream[position:]]))
        gateway = await Gateway(upstream).start()
        caller = Caller(gateway, path)
        await gateway.order(path, caller)
        assert caller.keep_alive in caller.pieces
        assert caller.stream == stream
        assert events(b"".join(caller.pieces)) == events(stream)
        assert await gateway.states() == ["posted"]

    async def everywhere() -> None:
        ends = [end.end() for end in re.finditer(rb"(\r\n|\n|\r){2}", stream)]
        near = {end - back for end in ends for back in range(5)}
        await asyncio.gather(*(cut(position) for position in sorted({*near, *range(1, len(stream), 17)})))

    asyncio.run(everywhere())


@pytest.mark.parametrize("path", STREAMED)
def test_a_stream_may_begin_before_its_upstream_answers(path: str) -> None:
    async def main() -> None:
        upstream = Hushed(Script([told(path, "lf")]), before_head=True)
        gateway = await Gateway(upstream).start()
        caller = Caller(gateway, path)
        await gateway.order(path, caller)
        assert caller.sent[0]["status"] == 200
        assert (caller.pieces[0], caller.stream) == (caller.keep_alive, told(path, "lf"))

    asyncio.run(main())


REFUSED = Script([b'{"error": {"code": 429, "message": "not so fast"}}'], 429, "application/json", generation_id=None)


@pytest.mark.parametrize("refusal", [REFUSED, UpstreamUnreachable("nobody there")])
@pytest.mark.parametrize("path", STREAMED)
def test_what_the_upstream_refuses_then_is_told_in_the_stream_and_costs_nothing(
    path: str, refusal: Script | Exception
) -> None:
    async def main() -> None:
        gateway = await Gateway(Hushed(refusal, before_head=True)).start()
        caller = Caller(gateway, path)
        await gateway.order(path, caller)
        assert caller.sent[0]["status"] == 200
        assert caller.pieces[0] == caller.keep_alive
        ((_, said),) = events(caller.stream)
        assert "not so fast" in said or "nobody there" in said
        assert caller.sent[-1]["more_body"] is False
        assert await gateway.states() == ["voided"]

    asyncio.run(main())


@pytest.mark.parametrize("path", STREAMED)
def test_nothing_piles_up_behind_a_full_socket(path: str) -> None:
    async def main() -> None:
        first, rest = told(path, "lf").split(b"\n\n", 1)
        gateway = await Gateway(Hushed(Script([first + b"\n\n", rest]))).start()
        caller = Caller(gateway, path, room=1)
        await gateway.order(path, caller)
        assert caller.stream == first + b"\n\n" + rest
        # Three were tried while there was no room, the last of which made some.
        assert caller.pieces[:3] == [first + b"\n\n", caller.keep_alive, rest]

    asyncio.run(main())


def test_who_reads_slowly_is_not_in_a_silence() -> None:
    async def main() -> None:
        stream = told("/chat/completions", "lf")
        pieces = [piece + b"\n\n" for piece in stream.split(b"\n\n")[:-1]]
        gateway = await Gateway(Hushed(Script([*pieces]))).start()
        caller = Caller(gateway, "/chat/completions", room=3)
        gateway.upstream.hushes = False
        ordering = asyncio.create_task(gateway.order("/chat/completions", caller))
        await asyncio.sleep(20 * SOON_SECONDS)
        assert caller.pieces == pieces[:3]
        caller.emptied.set()
        await ordering
        assert (caller.tried, caller.pieces) == (0, [*pieces, b""])

    asyncio.run(main())


class Hasty(Deadlines):
    """The waits of a stream that is relayed are over at once; how long each should have been is noted."""

    def __init__(self) -> None:
        super().__init__()
        self.pauses: list[float] = []
        self._is_over_soon = False

    def add(self, wait: Wait) -> None:
        super().add(wait)
        if isinstance(wait, WaitingCaller) and wait.is_relayed_to and not self._is_over_soon:
            self._is_over_soon = True
            self.pauses.append(wait.due - monotonic())
            asyncio.get_running_loop().call_later(SOON_SECONDS, self._be_over, wait)

    def _be_over(self, wait: Wait) -> None:
        self._is_over_soon = False
        wait.expire()


def test_keep_alives_come_in_rows_of_three_for_proxies_that_notice_a_hang_up_at_the_third() -> None:
    async def main() -> None:
        stream = told("/chat/completions", "lf")
        gateway = Gateway(Hushed(Script([stream[:200], stream[200:], Silence()])), seconds=100)
        gateway.deadlines = hasty = Hasty()
        await gateway.start()
        caller = Caller(gateway, "/chat/completions")
        ordering = asyncio.create_task(gateway.order("/chat/completions", caller))
        await caller.eighth.wait()
        caller.gone.set()
        await ordering
        # The first is followed by an event, after which a row begins anew.
        assert [pause > 50 for pause in hasty.pauses[:8]] == [True, False, False, False, True, False, False, True]

    asyncio.run(main())


class SlowBooks(MemoryStore):
    async def carry_out(self, command: Command) -> Outcome:
        if isinstance(command, Settle):
            await asyncio.sleep(20 * SOON_SECONDS)
        return await super().carry_out(command)


class Chunked(AsgiCall):
    """A call that is put chunks, and what else it is sent."""

    def __init__(self) -> None:
        self.sent: list[bytes] = []

    async def begin(self, status: int, headers: HeaderList) -> None: ...

    def send_if_taken(self, piece: bytes) -> None:
        self.sent.append(piece)


def test_a_stream_whose_chunks_go_by_is_not_silent() -> None:
    async def main() -> None:
        call = Chunked()
        waiting = WaitingCaller(call, Deadlines(), Silent(0, 100, b": psst\n\n"))
        waiting.sending([], streamed=True)

        async def stream_to(take: Take, put_chunk: PutChunk) -> None:
            call.chunk_put_at = monotonic() - 40
            waiting.expire()
            assert not call.sent
            assert 50 < waiting.due - monotonic() <= 60
            call.chunk_put_at -= 61
            waiting.expire()
            assert call.sent == [b": psst\n\n"]

        await waiting.relay([], stream_to)
        waiting.close()

    asyncio.run(main())


def test_after_the_last_event_the_body_ends() -> None:
    async def main() -> None:
        stream = told("/messages", "lf")
        gateway = await Gateway(Hushed(Script([stream])), store=SlowBooks()).start()
        caller = Caller(gateway, "/messages")
        await gateway.order("/messages", caller)
        assert caller.pieces == [stream, b""]

    asyncio.run(main())


def test_a_keep_alive_is_what_every_client_of_its_format_skips() -> None:
    comments = dict.fromkeys(FORMATS, b": keep-alive\n\n")
    pings = {"/messages": b'event: ping\ndata: {"type": "ping"}\n\n'}
    assert {path: wire.KEEP_ALIVE for path, wire in FORMATS.items()} == {**comments, **pings}


@pytest.mark.parametrize("path", STREAMED)
def test_a_kept_answer_has_no_keep_alives(path: str) -> None:
    async def main() -> None:
        stream = told(path, "lf")
        gateway = await Gateway(Hushed(Script([stream[:99], stream[99:]]))).start()
        callers = [Caller(gateway, path) for _ in range(2)]
        for caller in callers:
            await gateway.order(path, caller, (b"idempotency-key", b"k"))
        assert callers[0].keep_alive in callers[0].pieces
        assert callers[1].pieces == [stream, b""]

    asyncio.run(main())


def test_a_caller_who_leaves_in_a_silence_is_sent_nothing_more() -> None:
    async def main() -> None:
        stream = told("/chat/completions", "lf")
        gateway = await Gateway(Hushed(Script([stream[:200], Silence()]))).start()
        caller = Caller(gateway, "/chat/completions")
        ordering = asyncio.create_task(gateway.order("/chat/completions", caller))
        await gateway.upstream.hush()
        caller.gone.set()
        await ordering
        assert await gateway.states() == ["open"]
        number = len(caller.sent)
        await asyncio.sleep(5 * SOON_SECONDS)
        assert len(caller.sent) == number

    asyncio.run(main())


def test_none_is_sent_where_that_is_off() -> None:
    async def main() -> None:
        stream = told("/messages", "lf")
        gateway = await Gateway(Hushed(Script([stream[:200], stream[200:]])), seconds=0).start()
        caller = Caller(gateway, "/messages")
        ordering = asyncio.create_task(gateway.order("/messages", caller))
        await asyncio.sleep(20 * SOON_SECONDS)
        assert b"".join(caller.pieces) == stream[: stream.rindex(b"\n\n", 0, 200) + 2]
        gateway.upstream.heard.set()
        await ordering
        assert caller.stream == stream
        assert caller.keep_alive not in caller.pieces

    asyncio.run(main())
