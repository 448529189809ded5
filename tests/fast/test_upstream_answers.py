"""Answers of an upstream, byte by byte: what is read of them however they are cut, and who serves another order."""

import asyncio
import gzip
import zlib
from collections.abc import Awaitable, Callable, Iterator
from dataclasses import dataclass
from itertools import combinations

import brotli
import pytest

from farebox.deadlines import NEVER, Deadlines
from farebox.outgoing import DIRECTLY
from farebox.ports import UpstreamBroke, UpstreamUnreachable
from farebox.upstream import Timeouts
from farebox.upstream.connections import IDLE_SECONDS, INTERIM_MAX, UNREAD_BYTES_MAX
from farebox.upstream.pool import Connections
from farebox.upstream.replies import HEAD_BYTES_MAX, HEADERS_MAX, HttpReply
from farebox.upstream.unpacking import PIECE_BYTES
from tests.wire import Wired

OK = b"HTTP/1.1 200 OK\r\n"
BODY = b'{"a":1}'
COUNTED = b"content-length: 7\r\n\r\n" + BODY
EVENTS = b"data: 1\n\ndata: 2\n\n"


def chunked(*chunks: bytes) -> bytes:
    return b"".join(b"%x\r\n%b\r\n" % (len(chunk), chunk) for chunk in chunks) + b"0\r\n\r\n"


def packed(encoding: bytes, body: bytes) -> bytes:
    return OK + b"content-encoding: %b\r\ncontent-length: %d\r\n\r\n" % (encoding, len(body)) + body


@dataclass(frozen=True)
class Whole:
    """An answer that is read: its body, and whether its connection serves another order."""

    body: bytes = BODY
    status: int = 200
    is_kept: bool = True
    generation_id: str | None = None


CLOSED = Whole(is_kept=False)
EARLY = "the connection broke before the answer "
MIDWAY = "the connection broke before the answer's end"
UNREADABLE = "cannot be unpacked"

ANSWERS: dict[str, tuple[bytes, Whole | str]] = {
    "counted": (OK + b"X-Generation-ID: gen-1\r\n" + COUNTED, Whole(generation_id="gen-1")),
    "two generations": (
        OK + b"x-generation-id: gen-1\r\nx-generation-id: gen-2\r\n" + COUNTED,
        Whole(generation_id="gen-1"),
    ),
    "no body": (OK + b"content-length: 0\r\n\r\n", Whole(b"")),
    "in chunks": (OK + b"transfer-encoding: Chunked\r\n\r\n" + chunked(BODY[:3], BODY[3:]), Whole()),
    "chunks with extensions and trailers": (
        OK + b"transfer-encoding: chunked\r\n\r\n7;a=b\r\n" + BODY + b"\r\n0\r\nx-generation-id: gen-2\r\n\r\n",
        Whole(),
    ),
    "until the connection's end": (
        OK + b"x-generation-id: gen-1\r\n\r\n" + BODY,
        Whole(is_kept=False, generation_id="gen-1"),
    ),
    "closes": (OK + b"connection: close\r\n" + COUNTED, CLOSED),
    "closes after chunks": (OK + b"Connection: Close\r\ntransfer-encoding: chunked\r\n\r\n" + chunked(BODY), CLOSED),
    "keeps alive": (OK + b"connection: keep-alive\r\n" + COUNTED, Whole()),
    "HTTP/1.0": (b"HTTP/1.0 200 OK\r\n" + COUNTED, CLOSED),
    "HTTP/1.0 that says it keeps alive": (b"HTTP/1.0 200 OK\r\nconnection: keep-alive\r\n" + COUNTED, CLOSED),
    "204": (b"HTTP/1.1 204 No Content\r\n\r\n", Whole(b"", 204)),
    "204 with a length": (b"HTTP/1.1 204 No Content\r\ncontent-length: 0\r\n\r\n", Whole(b"", 204)),
    "a refusal": (b"HTTP/1.1 429 Slow Down\r\nretry-after: 7\r\n" + COUNTED, Whole(status=429)),
    "after a 100 and a 103": (
        b"HTTP/1.1 100 Continue\r\n\r\nHTTP/1.1 103 Early Hints\r\nlink: </a>\r\nx-generation-id: no\r\n\r\n"
        + OK
        + COUNTED,
        Whole(),
    ),
    "a status that is none": (b"HTTP/1.1 600 Odd\r\n" + COUNTED, Whole(status=502)),
    "another that is none": (b"HTTP/1.1 999 Odd\r\n" + COUNTED, Whole(status=502)),
    "a generation that is no header's value": (OK + b"x-generation-id: gen-\x01\r\n" + COUNTED, Whole()),
    "no reason": (b"HTTP/1.1 200\r\n" + COUNTED, Whole()),
    "bare line feeds": ((OK + COUNTED).replace(b"\r\n", b"\n"), Whole()),
    "a folded header": (OK + b"x-policy: a\r\n b\r\n" + COUNTED, Whole()),
    "more than it counts": (OK + COUNTED + b"}", CLOSED),
    "another answer": (OK + COUNTED + OK + b"x-generation-id: gen-2\r\n" + COUNTED, CLOSED),
    "the beginning of another answer": (OK + COUNTED + OK[:9], CLOSED),
    "garbage after chunks": (OK + b"transfer-encoding: chunked\r\n\r\n" + chunked(BODY) + b"0\r\n\r\n", CLOSED),
    "gzip": (packed(b"gzip", gzip.compress(BODY)), Whole()),
    "gzip of two members": (packed(b"GZIP", gzip.compress(b"") + gzip.compress(BODY)), Whole()),
    "deflate": (packed(b"deflate", zlib.compress(BODY)), Whole()),
    "deflate without its header": (packed(b"deflate", zlib.compress(BODY, wbits=-15)), Whole()),
    "brotli": (packed(b"br", brotli.compress(BODY)), Whole()),
    "nothing, packed": (packed(b"br", b""), Whole(b"")),
    "packed, it says, as itself": (packed(b"identity", BODY), Whole()),
    "half a gzip": (packed(b"gzip", gzip.compress(BODY)[:-9]), UNREADABLE),
    "half a brotli": (packed(b"br", brotli.compress(BODY)[:-2]), UNREADABLE),
    "no gzip": (packed(b"gzip", BODY), UNREADABLE),
    "less than it counts": (OK + b"content-length: 8\r\n\r\n" + BODY, MIDWAY),
    "chunks without end": (OK + b"transfer-encoding: chunked\r\n\r\n" + chunked(BODY)[:-5], MIDWAY),
    "chunks that lie": (OK + b"transfer-encoding: chunked\r\n\r\n3\r\n" + BODY + b"\r\n0\r\n\r\n", MIDWAY),
    "chunks of no size": (OK + b"transfer-encoding: chunked\r\n\r\nx\r\n", MIDWAY),
    "chunks of a size without end": (OK + b"transfer-encoding: chunked\r\n\r\n" + b"f" * 17 + b"\r\n", MIDWAY),
    "nothing": (b"", EARLY),
    "half a head": (OK + b"content-le", EARLY),
    "an interim answer alone": (b"HTTP/1.1 100 Continue\r\n\r\n", EARLY),
    "interim answers without end": (b"HTTP/1.1 100 Continue\r\n\r\n" * (INTERIM_MAX + 1) + OK + COUNTED, EARLY),
    "another protocol": (b"HTTP/1.1 101 Switching\r\nconnection: upgrade\r\nupgrade: h2c\r\n\r\n", EARLY),
    "another protocol that it names not": (b"HTTP/1.1 101 Switching\r\n" + COUNTED, EARLY),
    "not HTTP": (b"hello?\r\n\r\n", EARLY),
    "TLS": (b"\x15\x03\x01\x00\x02\x02\x46", EARLY),
    "a length twice": (OK + b"content-length: 7\r\n" + COUNTED, EARLY),
    "a length and chunks": (OK + b"content-length: 7\r\ntransfer-encoding: chunked\r\n\r\n" + chunked(BODY), EARLY),
    "a length that is none": (OK + b"content-length: 7a\r\n\r\n" + BODY, EARLY),
    "too many headers": (OK + b"x: y\r\n" * (HEADERS_MAX + 1) + COUNTED, EARLY),
}


def cuts(answer: bytes) -> Iterator[tuple[bytes, ...]]:
    yield (answer,)
    for at in range(1, min(len(answer), 400)):
        yield answer[:at], answer[at:]
    yield tuple(answer[at : at + 1] for at in range(len(answer)))


def run(play: Callable[[Wired], Awaitable[None]]) -> None:
    async def main() -> None:
        wired = Wired()
        try:
            await play(wired)
        finally:
            await wired.pool.close()

    asyncio.run(main())


def idle(wired: Wired) -> None:
    """Make the connection one that has served an order."""
    wired.pool.idle[wired.connection] = None


async def outcome(wired: Wired, pieces: tuple[bytes, ...]) -> Whole | str:
    order = wired.order()
    await asyncio.sleep(0)
    wired.reads(*pieces)
    kept = wired.is_idle()
    if not kept:
        wired.ends()
    try:
        reply = await order
        whole = Whole(await reply.read(), reply.status, wired.is_idle(), reply.generation_id)
    except UpstreamBroke as broke:
        return str(broke)
    assert reply.is_complete
    assert wired.is_idle() == kept
    reply.close()
    return whole


async def poured(wired: Wired, pieces: tuple[bytes, ...]) -> Whole | str:
    """The same, of an answer that is poured out as it comes."""
    order = wired.order()
    await asyncio.sleep(0)

    body: list[bytes] = []

    async def pour() -> HttpReply:
        reply = await order
        await reply.pour(body.append)
        return reply

    pouring = asyncio.ensure_future(pour())
    for piece in pieces:
        wired.reads(piece)
        for _ in range(4):
            await asyncio.sleep(0)
    if not wired.is_idle():
        wired.ends()
    try:
        reply = await pouring
    except UpstreamBroke as broke:
        return str(broke)
    assert reply.is_complete
    return Whole(b"".join(body), reply.status, wired.is_idle(), reply.generation_id)


@pytest.mark.parametrize("of", [outcome, poured])
@pytest.mark.parametrize("name", ANSWERS)
def test_an_answer_is_the_same_however_it_is_cut(
    name: str, of: Callable[[Wired, tuple[bytes, ...]], Awaitable[Whole | str]]
) -> None:
    answer, expected = ANSWERS[name]

    async def main() -> None:
        for pieces in cuts(answer):
            wired = Wired()
            idle(wired)
            got = await of(wired, pieces)
            if isinstance(expected, str):
                assert isinstance(got, str), (pieces, got)
                assert expected in got, (pieces, got)
            else:
                assert got == expected, pieces
            if not wired.is_idle():
                assert wired.wire.is_closed
            await wired.pool.close()

    asyncio.run(main())


def test_a_connection_serves_one_order_after_the_other() -> None:
    async def play(wired: Wired) -> None:
        idle(wired)
        for body in (b"1", b"22", b"333"):
            order = wired.order()
            await asyncio.sleep(0)
            assert not wired.is_idle(), "it serves one at a time"
            wired.reads(OK + b"content-length: %d\r\n\r\n%b" % (len(body), body))
            assert wired.is_idle()
            assert await (await order).read() == body
        assert wired.wire.sent.count(b"POST /x HTTP/1.1\r\n") == 3

    run(play)


def test_what_follows_a_body_in_chunks_is_no_part_of_the_next_head() -> None:
    async def play(wired: Wired) -> None:
        idle(wired)
        for answer in ("chunks with extensions and trailers", "in chunks"):
            order = wired.order()
            await asyncio.sleep(0)
            wired.reads(ANSWERS[answer][0])
            assert (await order).generation_id is None

    run(play)


def test_a_connection_that_is_closed_serves_no_order() -> None:
    async def main() -> None:
        wired = Wired(Connections("http://127.0.0.1:9", {}, Timeouts(5, 5, 5), Deadlines(), DIRECTLY))
        idle(wired)
        wired.wire.close()
        with pytest.raises(UpstreamUnreachable):
            await wired.order()
        assert not wired.wire.sent
        idle(wired)
        wired.ends()
        assert not wired.pool.idle
        assert not wired.pool.open

    asyncio.run(main())


def test_an_answer_that_is_read_late_is_not_mixed_with_the_next() -> None:
    async def play(wired: Wired) -> None:
        idle(wired)
        first = wired.order()
        await asyncio.sleep(0)
        wired.reads(OK + b"content-length: 5\r\n\r\nfirst")
        second = wired.order()
        await asyncio.sleep(0)
        wired.reads(OK + b"content-length: 6\r\n\r\nsec")
        (await first).close()
        wired.reads(b"ond")
        assert await (await second).read() == b"second"
        assert await (await first).read() == b"first"

    run(play)


@pytest.mark.parametrize("stray", [b"\r\n", OK + COUNTED, b"HTTP/1.1 408 Request Timeout\r\n\r\n"])
def test_what_comes_without_an_order_is_no_answer(stray: bytes) -> None:
    async def play(wired: Wired) -> None:
        idle(wired)
        wired.reads(stray)
        assert wired.wire.is_closed

    run(play)


def test_an_answer_before_its_order_was_sent_whole_is_the_connections_last() -> None:
    async def play(wired: Wired) -> None:
        idle(wired)
        order = wired.order()
        await asyncio.sleep(0)
        wired.wire.unsent_bytes = 1
        wired.reads(OK + COUNTED)
        assert await (await order).read() == BODY
        assert wired.wire.is_closed

    run(play)


def test_an_order_that_nobody_waits_for_gives_up_its_connection() -> None:
    async def play(wired: Wired) -> None:
        idle(wired)
        order = wired.order()
        await asyncio.sleep(0)
        order.cancel()
        with pytest.raises(asyncio.CancelledError):
            await order
        assert wired.wire.is_closed

    run(play)


def test_giving_up_in_the_moment_of_the_answer_leaves_the_next_order_alone() -> None:
    async def play(wired: Wired) -> None:
        idle(wired)
        first = wired.order()
        await asyncio.sleep(0)
        wired.reads(OK + COUNTED)
        second = wired.pool.post("/x", b"{}", {}, streamed=False)
        first.cancel()
        coming = asyncio.ensure_future(second)
        with pytest.raises(asyncio.CancelledError):
            await first
        await asyncio.sleep(0)
        assert not wired.wire.is_closed
        wired.reads(OK + COUNTED)
        assert await (await coming).read() == BODY

    run(play)


def test_giving_up_before_the_answer_leaves_the_next_order_alone() -> None:
    async def play(wired: Wired) -> None:
        idle(wired)
        first = wired.order()
        await asyncio.sleep(0)
        first.cancel()
        wired.reads(OK + COUNTED)
        assert not wired.is_idle(), "the order that was given up closes it yet"
        with pytest.raises(asyncio.CancelledError):
            await first

    run(play)


def test_who_reads_slowly_holds_the_upstream_up() -> None:
    async def play(wired: Wired) -> None:
        idle(wired)
        order = wired.order()
        await asyncio.sleep(0)
        size = 3 * UNREAD_BYTES_MAX
        wired.reads(OK + b"content-length: %d\r\n\r\n" % size)
        reply = await order
        unread, rest = 0, size
        while rest:
            while rest and not wired.wire.is_paused:
                wired.reads(b"a" * 65536)
                rest -= 65536
                unread += 65536
            assert unread <= UNREAD_BYTES_MAX + 65536
            unread -= len(await reply.chunk())
            assert not wired.wire.is_paused
        assert await reply.chunk() == b""
        assert wired.is_idle()

    run(play)


async def begun(wired: Wired) -> HttpReply:
    """A stream whose head has come, and nothing else."""
    idle(wired)
    order = wired.order()
    await asyncio.sleep(0)
    wired.reads(OK + b"transfer-encoding: chunked\r\n\r\n")
    return await order


def piece(body: bytes) -> bytes:
    return b"%x\r\n%b\r\n" % (len(body), body)


def test_a_stream_is_poured_in_the_moment_it_comes_and_held_up_by_who_takes_it_slowly() -> None:
    async def play(wired: Wired) -> None:
        reply = await begun(wired)
        taken: list[bytes] = []
        is_slow = False
        going_on: asyncio.Future[None] = asyncio.get_running_loop().create_future()

        def take(data: bytes) -> Awaitable[None] | None:
            taken.append(data)
            return going_on if is_slow else None

        pouring = asyncio.ensure_future(reply.pour(take))
        await asyncio.sleep(0)
        wired.reads(piece(b"1"))
        for _ in range(3):
            await asyncio.sleep(0)
        wired.reads(piece(b"2") + piece(b"3"))
        assert taken == [b"1", b"23"]
        is_slow = True
        wired.reads(piece(b"4"))
        size = 0
        while not wired.wire.is_paused:
            await asyncio.sleep(0)
            wired.reads(piece(b"a" * 65536))
            size += 65536
        assert taken == [b"1", b"23", b"4"]
        assert UNREAD_BYTES_MAX <= size <= UNREAD_BYTES_MAX + 65536
        is_slow = False
        going_on.set_result(None)
        for _ in range(4):
            await asyncio.sleep(0)
        wired.reads(b"0\r\n\r\n")
        await pouring
        assert b"".join(taken) == b"1234" + b"a" * size
        assert wired.is_idle()

    run(play)


def test_what_looks_like_a_whole_chunk_is_none_within_another() -> None:
    # The last is of 0x15 bytes: cut behind the 1, the rest begins as a chunk of 5.
    bodies = [b"1\n\n", piece(b"a\n\n"), b"hel\n\n\r\n" + piece(b"a\n\n") + b"more!!"]
    stream = b"".join(map(piece, bodies))
    assert b"\r\n15\r\nhel\n\n\r\n" in stream

    async def play(wired: Wired) -> None:
        reply = await begun(wired)
        taken: list[bytes] = []
        pouring = asyncio.ensure_future(reply.pour(taken.append))
        for one, other in combinations(range(1, len(stream)), 2):
            taken.clear()
            for each in (stream[:one], stream[one:other], stream[other:]):
                wired.reads(each)
                for _ in range(3 if one == 1 else 0):
                    await asyncio.sleep(0)
            assert b"".join(taken) == b"".join(bodies), (one, other)
        wired.reads(b"0\r\n\r\n")
        await pouring
        assert wired.is_idle()

    run(play)


def test_a_chunk_that_does_not_end_where_it_says_breaks_a_stream() -> None:
    async def play(wired: Wired) -> None:
        reply = await begun(wired)
        pouring = asyncio.ensure_future(reply.pour(lambda data: None))
        for each in (piece(b"1\n\n"), piece(b"2\n\n"), b"3\r\n3\n\n\n\n"):
            await asyncio.sleep(0)
            wired.reads(each)
        assert wired.wire.is_closed
        with pytest.raises(UpstreamBroke, match=MIDWAY):
            await pouring

    run(play)


@pytest.mark.parametrize("is_poured", [False, True])
def test_whole_chunks_that_come_before_anybody_reads_are_kept(is_poured: bool) -> None:
    async def play(wired: Wired) -> None:
        reply = await begun(wired)
        for each in (b"1\n\n", b"2\n\n", b"3\n\n"):
            wired.reads(piece(each))
        taken: list[bytes] = []
        reading = asyncio.ensure_future(reply.pour(taken.append) if is_poured else reply.read())
        for each in (b"4\n\n", b"5"):
            await asyncio.sleep(0)
            wired.reads(piece(each))
        wired.reads(b"0\r\n\r\n")
        body = await reading
        assert (b"".join(taken) if is_poured else body) == b"1\n\n2\n\n3\n\n4\n\n5"
        assert wired.is_idle()

    run(play)


@pytest.mark.parametrize("begins", [b"0\r\nx: ", b"7;a="], ids=["trailer", "extension"])
@pytest.mark.parametrize("is_poured", [False, True])
def test_what_stands_between_two_pieces_of_a_body_has_an_end(begins: bytes, is_poured: bool) -> None:
    async def play(wired: Wired) -> None:
        reply = await begun(wired)
        reading = asyncio.ensure_future(reply.pour(lambda data: None) if is_poured else reply.read())
        for each in (b"1\n\n", b"2\n\n"):
            await asyncio.sleep(0)
            wired.reads(piece(each))
        wired.reads(begins)
        given = 0
        while not wired.wire.is_closed:
            wired.reads(b"a" * 10_000)
            given += 10_000
            assert given <= HEAD_BYTES_MAX + 10_000
            await asyncio.sleep(0)
        with pytest.raises(UpstreamBroke, match=MIDWAY):
            await reading

    run(play)


def test_the_sizes_of_many_chunks_are_not_taken_for_one_without_end() -> None:
    async def play(wired: Wired) -> None:
        reply = await begun(wired)
        reading = asyncio.ensure_future(reply.pour(lambda data: None))
        size = b"1;a=" + b"a" * 10_000 + b"\r\n"
        for _ in range(3 * HEAD_BYTES_MAX // len(size)):
            await asyncio.sleep(0)
            wired.reads(size, b"x\r\n")
        wired.reads(b"0\r\n\r\n")
        await reading
        assert wired.is_idle()

    run(play)


def test_a_part_of_a_chunk_is_a_sign_of_life() -> None:
    async def play(wired: Wired) -> None:
        reply = await begun(wired)
        pouring = asyncio.ensure_future(reply.pour(lambda data: None))
        await asyncio.sleep(0)
        dues = []
        for each in (piece(b"1\n\n"), piece(b"2\n\n"), b"1", b"\r\n", b"3\r\n", b"0\r\n\r\n"):
            wired.reads(each)
            for _ in range(3):
                await asyncio.sleep(0)
            dues.append(wired.connection.due)
        assert dues[:-1] == sorted(set(dues[:-1]))
        await pouring

    run(play)


@pytest.mark.parametrize("closes", [False, True])
def test_what_fails_in_whoever_takes_a_stream_is_for_who_poured_it(closes: bool) -> None:
    async def play(wired: Wired) -> None:
        reply = await begun(wired)

        def take(data: bytes) -> None:
            if data == b"2":
                if closes:
                    reply.close()
                raise UpstreamBroke("not one more")

        pouring = asyncio.ensure_future(reply.pour(take))
        for data in (b"1", b"2", b"3"):
            await asyncio.sleep(0)
            wired.reads(piece(data))
        with pytest.raises(UpstreamBroke, match="not one more"):
            await pouring
        reply.close()
        assert wired.wire.is_closed

    run(play)


def test_nothing_is_given_to_who_has_stopped_pouring() -> None:
    async def play(wired: Wired) -> None:
        reply = await begun(wired)
        taken: list[bytes] = []
        pouring = asyncio.ensure_future(reply.pour(taken.append))
        for data in (b"1", b"2"):
            await asyncio.sleep(0)
            wired.reads(piece(data))
            await asyncio.sleep(0)
        pouring.cancel()
        wired.reads(piece(b"3"))
        with pytest.raises(asyncio.CancelledError):
            await pouring
        assert taken == [b"1", b"2"]
        reply.close()
        assert wired.wire.is_closed

    run(play)


@pytest.mark.parametrize("is_closed", [False, True])
def test_a_stream_that_is_closed_or_silent_wakes_who_pours_it(is_closed: bool) -> None:
    async def play(wired: Wired) -> None:
        reply = await begun(wired)
        pouring = asyncio.ensure_future(reply.pour(lambda data: None))
        for _ in range(2):
            await asyncio.sleep(0)
            wired.reads(piece(b"1"))
        assert wired.connection.due < NEVER
        if is_closed:
            reply.close()
        else:
            wired.connection.expire()
        with pytest.raises(UpstreamBroke):
            await pouring

    run(play)


def test_a_few_packed_bytes_are_unpacked_piece_by_piece() -> None:
    zeros = bytes(40 * PIECE_BYTES)

    async def play(wired: Wired) -> None:
        for encoding, body in ((b"gzip", gzip.compress(zeros)), (b"br", brotli.compress(zeros))):
            idle(wired)
            order = wired.order()
            await asyncio.sleep(0)
            wired.reads(packed(encoding, body))
            reply = await order
            pieces = []
            while piece := await reply.chunk():
                pieces.append(piece)
            assert b"".join(pieces) == zeros
            assert max(map(len, pieces)) <= 2 * PIECE_BYTES

    run(play)


def test_many_members_of_gzip_are_no_answer() -> None:
    async def play(wired: Wired) -> None:
        idle(wired)
        order = wired.order()
        await asyncio.sleep(0)
        wired.reads(packed(b"gzip", gzip.compress(b"") * 5000))
        reply = await order
        with pytest.raises(UpstreamBroke, match=UNREADABLE):
            await reply.read()

    run(play)


def test_what_came_before_a_break_is_read() -> None:
    async def play(wired: Wired) -> None:
        idle(wired)
        order = wired.order()
        await asyncio.sleep(0)
        wired.reads(OK + b"content-length: 99\r\n\r\n" + EVENTS)
        wired.ends(ConnectionResetError())
        reply = await order
        assert await reply.chunk() == EVENTS
        for _ in range(2):
            with pytest.raises(UpstreamBroke, match=MIDWAY):
                await reply.chunk()
        reply.close()

    run(play)


def test_a_head_that_breaks_off_names_its_generation() -> None:
    async def play(wired: Wired) -> None:
        idle(wired)
        order = wired.order()
        await asyncio.sleep(0)
        wired.reads(OK + b"x-generation-id: gen-1\r\nx-pol")
        wired.ends()
        with pytest.raises(UpstreamBroke) as broke:
            await order
        assert broke.value.generation_id == "gen-1"

    run(play)


def test_an_idle_connection_is_closed_in_time() -> None:
    async def play(wired: Wired) -> None:
        idle(wired)
        order = wired.order()
        await asyncio.sleep(0)
        before = asyncio.get_running_loop().time()
        wired.reads(OK + COUNTED)
        await order
        assert wired.connection.due - before == pytest.approx(IDLE_SECONDS, abs=1)
        wired.connection.expire()
        assert wired.wire.is_closed

    run(play)


def test_a_header_cannot_break_out_of_its_line() -> None:
    async def play(wired: Wired) -> None:
        idle(wired)
        for name, value in (("x-title", "a\r\nx-evil: b"), ("x-title", "a\nb"), ("x-title", "a\rb"), ("x\r\ny", "a")):
            with pytest.raises(UpstreamUnreachable, match="was not sent"):
                await wired.pool.post("/x", b"{}", {name: value}, streamed=False)
        assert not wired.wire.sent
        assert wired.is_idle()
        order = asyncio.ensure_future(wired.pool.post("/x", b"{}", {"x-title": "caf\xe9"}, streamed=True))
        await asyncio.sleep(0)
        head, _, body = wired.wire.sent.partition(b"\r\n\r\n")
        assert b"\r\nx-title: caf\xe9\r\n" in head
        assert b"\r\naccept: text/event-stream\r\n" in head
        assert head.endswith(b"\r\ncontent-length: 2")
        assert body == b"{}"
        wired.reads(OK + COUNTED)
        await order

    run(play)


def test_the_host_and_the_target_are_as_the_url_says() -> None:
    async def main() -> None:
        for url, host, target in (
            ("http://a.test/api/v1", b"a.test", b"/api/v1/x"),
            ("https://a.test:8443", b"a.test:8443", b"/x"),
            ("http://[::1]:80/v%201", b"[::1]", b"/v%201/x"),
            ("http://b\xfccher.test/", b"xn--bcher-kva.test", b"/x"),
        ):
            pool = Connections(url.rstrip("/"), {"user-agent": "farebox"}, Timeouts(5, 5, 5), Deadlines(), DIRECTLY)
            wired = Wired(pool)
            idle(wired)
            order = wired.order()
            await asyncio.sleep(0)
            assert wired.wire.sent.startswith(
                b"POST %b HTTP/1.1\r\nhost: %b\r\nuser-agent: farebox\r\n" % (target, host)
            )
            order.cancel()

    asyncio.run(main())
