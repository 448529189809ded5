"""Events that go by unread, since they are like one that was read: never one that would have been changed, or told
something, had it been read."""

import asyncio
import json
import re
from collections.abc import Awaitable
from decimal import Decimal
from time import monotonic

import pytest
import uvicorn
from hypothesis import example, given
from hypothesis import strategies as st
from starlette.types import Receive, Scope, Send
from uvicorn.server import ServerState

from farebox.answers import Answer, Streaming
from farebox.core.formats import PASS, Progress
from farebox.core.formats.table import FORMATS
from farebox.core.likeness import LEARNT_MAX, Likeness
from farebox.core.meter import Meter
from farebox.core.sse import data_event, named_event
from farebox.core.tariffs import Tariff
from farebox.core.usage import Cost, Unknown
from farebox.deadlines import Deadlines
from farebox.http.calls import DIRECT, Call
from farebox.http.server import BoundedHttp
from farebox.ports import UpstreamBroke
from farebox.testing import Script, ScriptedReply
from tests.fast.test_calls import Server, Wire, both, order, pausing
from tests.fast.test_upstream_answers import begun, run
from tests.wire import Wired

CHAT = (
    b'data: {"id":"gen-1","object":"chat.completion.chunk","created":1,"model":"a/b","choices":[{"index":0,'
    b'"delta":{"role":"assistant","content":"%b"},"finish_reason":null}]}\n\n'
)
MESSAGES = (
    b"event: content_block_delta\n"
    b'data: {"type":"content_block_delta","index":0,"delta":{"type":"text_delta","text":"%b"}}\n\n'
)
EVENTS = {"/chat/completions": CHAT, "/messages": MESSAGES}
USAGE = data_event(
    b'{"id":"gen-1","object":"chat.completion.chunk","created":1,"model":"a/b","choices":[],"usage":{"cost":0.0001,'
    b'"prompt_tokens":1,"completion_tokens":1,"total_tokens":2}}'
)


def progress() -> Progress:
    return Progress("gen-1", "a/b", 1)


def chunk(event: bytes) -> bytes:
    return b"%x\r\n%b\r\n" % (len(event), event)


def events_in(chunks: bytes) -> bytes:
    """What stands in whole chunks."""
    events = b""
    while chunks:
        size, _, rest = chunks.partition(b"\r\n")
        events += rest[: int(size, 16)]
        chunks = rest[int(size, 16) + 2 :]
    return events


class Passing:
    """A meter of a stream, offered each event in a chunk of its own, and what went on: read, or unread."""

    def __init__(self, path: str = "/chat/completions", *, takes: bool = True) -> None:
        self.meter = Meter(FORMATS[path], progress())
        self.unread: list[bytes] = []
        self.takes = takes
        likeness = self.meter.pass_likes(self._put)
        assert likeness is not None
        self.likeness = likeness

    def _put(self, chunk: bytes) -> bool:
        if self.takes:
            self.unread.append(chunk)
        return self.takes

    def offer(self, event: bytes) -> bool:
        """Whether it goes by unread."""
        if self.likeness.passes(chunk(event), b"%x\r\n" % len(event)):
            return True
        self.meter.feed(event)
        return False


PLAIN = st.text(st.characters(codec="utf-8", exclude_characters='"\\\r\n')).map(str.encode)


@given(st.lists(PLAIN, min_size=1))
def test_the_words_of_a_stream_go_by_unread_after_the_first(words: list[bytes]) -> None:
    for path, event in EVENTS.items():
        passing = Passing(path)
        assert not passing.offer(event % b"Hello")
        assert all(passing.offer(event % word) for word in words)
        assert passing.unread == [chunk(event % word) for word in words]


@given(st.text().map(lambda text: json.dumps(text)[1:-1].encode()) | st.binary())
@example(b"\\n")
@example(b"\\")
@example(b"\\\\")
@example(b'\\"')
@example(b'","role":"user')
@example(b'"},"finish_reason":"stop","x":{"y":"')
@example(b'","usage":{"cost":1},"x":"')
@example(b"\n\ndata: {}\n\n")
@example(b"\r")
def test_nothing_goes_by_that_would_have_been_changed_or_told_something(text: bytes) -> None:
    for path, event in EVENTS.items():
        passing = Passing(path)
        passing.offer(event % b"Hello")
        if passing.offer(event % text):
            assert FORMATS[path].see_event(event % text, progress()) is PASS
            assert not {b"\r", b"\n"} & {text[at : at + 1] for at in range(len(text))}


@given(st.lists(st.sampled_from([b"", b" you", b" \\n", b'"', b"\\u0041", b"\n\n"]), min_size=1, max_size=4), st.data())
def test_several_go_by_together_where_each_goes_by_alone(words: list[bytes], data: st.DataObject) -> None:
    chunks = [chunk(CHAT % word) for word in words]
    alone, together = Passing(), Passing()
    for passing in (alone, together):
        passing.offer(CHAT % b"Hello")
    each = all(alone.offer(CHAT % word) for word in words)
    assert together.likeness.pass_several(b"".join(chunks)) == each
    assert together.unread == ([b"".join(chunks)] if each else [])
    assert together.likeness.passed == (len(words) if each else 0)
    cut = data.draw(st.integers(1, len(b"".join(chunks)) - 1))
    if cut not in [len(b"".join(chunks[:count])) for count in range(len(chunks))]:
        assert not together.likeness.pass_several(b"".join(chunks)[:cut])
        assert not together.likeness.pass_several(b"".join(chunks)[cut:])


def test_several_do_not_go_by_behind_another_size() -> None:
    passing = Passing()
    passing.offer(CHAT % b"Hello")
    one, two = chunk(CHAT % b"one"), chunk(CHAT % b"three")
    line = one.index(b"\r")
    for other in (b"0" + one[:line], one[:line].upper() + b" ", b"%x" % (int(one[:line], 16) + 1)):
        assert not passing.likeness.pass_several(two + other + one[line:])
    assert passing.likeness.pass_several(two + one)


@given(st.integers(0, len(CHAT)), st.binary(max_size=2))
def test_what_differs_around_its_text_is_read(at: int, other: bytes) -> None:
    passing = Passing()
    passing.offer(CHAT % b"")
    before, after = CHAT.split(b"%b")
    event = before + after
    changed = event[:at] + other + event[at + 1 :]
    if not (changed.startswith(before) and changed.endswith(after)):
        assert not passing.offer(changed)


@pytest.mark.parametrize("text", ["a\nb", 'say "a"', "a\\b", "a/b", "\t"])
def test_the_usual_escapes_go_by(text: str) -> None:
    passing = Passing()
    passing.offer(CHAT % b"Hello")
    assert passing.offer(CHAT % json.dumps(text)[1:-1].encode())


def test_what_an_event_tells_is_read_behind_any_number_of_others() -> None:
    passing = Passing()
    for event in [CHAT % b"Hello", *[CHAT % b" you"] * 5, USAGE, data_event(b"[DONE]")]:
        passing.offer(event)
    assert len(passing.unread) == 5
    assert passing.meter.verdict("") == Cost(Decimal("0.0001"))


def test_a_call_of_a_tool_is_no_model_for_others() -> None:
    passing = Passing()
    call = CHAT.replace(b'"role"', b'"tool_calls":[{"index":0,"id":"a","function":{}}],"role"')
    assert [passing.offer(call % b"") for _ in range(3)] == [False] * 3


def test_a_quote_within_a_text_does_not_end_it() -> None:
    passing = Passing()
    passing.offer(CHAT % rb"a \"b\"")
    assert not passing.offer(CHAT % rb'a "b\"')


def test_a_text_has_a_quote_at_either_end() -> None:
    passing = Passing()
    passing.offer(CHAT % b"Hello")
    assert not passing.offer(CHAT.replace(b'"%b"', b'"'))


def test_an_event_that_is_changed_is_no_model_for_others() -> None:
    passing = Passing()
    bare = CHAT.replace(b'"created":1,', b"")
    assert [passing.offer(bare % b"") for _ in range(3)] == [False] * 3


def test_comments_are_read_each_time() -> None:
    passing = Passing()
    assert [passing.offer(b': {"content":"a"}\n\n') for _ in range(3)] == [False] * 3


def test_nothing_overtakes_half_an_event() -> None:
    passing = Passing()
    passing.offer(CHAT % b"Hello")
    passing.offer(b"data: {")
    assert not passing.offer(CHAT % b" you")
    # The half has made one event of both, which is none that is known.
    assert passing.likeness.is_between
    assert passing.offer(CHAT % b" all")


def test_where_every_event_is_different_none_are_learnt_in_the_end() -> None:
    passing = Passing()
    for number in range(LEARNT_MAX):
        event = CHAT.replace(b'"index":0', b'"index":%d' % number)
        assert not passing.offer(event % b"a")
        assert passing.offer(event % b"b")
    another = CHAT.replace(b'"index":0', b'"index":99')
    assert [passing.offer(another % b"a") for _ in range(3)] == [False] * 3
    assert passing.offer(event % b"c")


def test_what_the_caller_does_not_take_is_given_on_as_ever() -> None:
    passing = Passing(takes=False)
    assert [passing.offer(CHAT % b"Hello") for _ in range(3)] == [False] * 3
    assert passing.meter.sse_events == 3


def test_formats_whose_events_are_numbered_have_each_read() -> None:
    meter = Meter(FORMATS["/responses"], progress())
    assert meter.pass_likes(lambda chunk: True) is None
    assert isinstance(meter.verdict("nothing came"), Unknown)


# On a connection


def test_a_connection_offers_whole_chunks_between_two_others_and_nothing_else() -> None:
    event = named_event(b"a", b'{"text":"%b"}')
    chunks = [chunk(event % word) for word in (b"one", b"two", b"three")]
    ends = [len(b"".join(chunks[:count])) for count in (1, 2, 3)]
    stream = b"".join(chunks) + b"0\r\n\r\n"

    async def play(wired: Wired, at: int) -> None:
        reply = await begun(wired)
        gone_on: list[bytes] = []
        unread: list[bytes] = []

        def put(chunk: bytes) -> bool:
            unread.append(chunk)
            gone_on.append(events_in(chunk))
            return True

        likeness = Likeness(b'"text":"', put)
        likeness.learn(event % b"")
        pouring = asyncio.ensure_future(reply.pour(gone_on.append, likeness))
        await asyncio.sleep(0)
        wired.reads(chunk(event % b"zero"))
        for _ in range(3):
            await asyncio.sleep(0)
        wired.reads(stream[:at])
        wired.reads(stream[at:])
        await pouring
        assert b"".join(gone_on) == b"".join(event % word for word in (b"zero", b"one", b"two", b"three"))
        assert unread == ([stream[:at]] if at in ends else [])
        assert wired.is_idle()

    for at in range(len(stream)):
        run(lambda wired, at=at: play(wired, at))  # type: ignore[misc]


@pytest.mark.parametrize("ends", ["closed", "cancelled"])
def test_after_a_stream_was_ended_nothing_goes_by(ends: str) -> None:
    async def play(wired: Wired) -> None:
        reply = await begun(wired)
        unread: list[bytes] = []

        def put(chunk: bytes) -> bool:
            unread.append(chunk)
            return True

        likeness = Likeness(b'"text":"', put)
        event = b'data: {"text":"%b"}\n\n'
        likeness.learn(event % b"")
        pouring = asyncio.ensure_future(reply.pour(lambda data: None, likeness))
        await asyncio.sleep(0)
        for word in (b"one", b"two"):
            wired.reads(chunk(event % word))
            for _ in range(3):
                await asyncio.sleep(0)
        assert unread == [chunk(event % b"two")]
        if ends == "closed":
            reply.close()
        else:
            pouring.cancel()
            await asyncio.sleep(0)
        wired.reads(chunk(event % b"three"))
        with pytest.raises((UpstreamBroke, asyncio.CancelledError)):
            await pouring
        assert len(unread) == 1
        reply.close()

    run(play)


def test_what_goes_by_unread_is_a_sign_of_life() -> None:
    async def play(wired: Wired) -> None:
        reply = await begun(wired)
        likeness = Likeness(b'"text":"', lambda chunk: True)
        event = b'data: {"text":"%b"}\n\n'
        likeness.learn(event % b"")
        pouring = asyncio.ensure_future(reply.pour(lambda data: None, likeness))
        await asyncio.sleep(0)
        for word in (b"one", b"two"):
            wired.connection.due = 0
            wired.reads(chunk(event % word))
            for _ in range(3):
                await asyncio.sleep(0)
        assert likeness.passed == 1
        assert wired.connection.due > monotonic()
        wired.reads(b"0\r\n\r\n")
        await pouring

    run(play)


def test_nothing_goes_by_while_the_caller_is_slow() -> None:
    async def play(wired: Wired) -> None:
        reply = await begun(wired)
        taken: list[bytes] = []
        read_on: asyncio.Future[None] = asyncio.get_running_loop().create_future()

        def take(data: bytes) -> Awaitable[None] | None:
            taken.append(data)
            return read_on if b"slow" in data else None

        likeness = Likeness(b'"text":"', lambda chunk: not taken)
        event = b'data: {"text":"%b"}\n\n'
        likeness.learn(event % b"")
        pouring = asyncio.ensure_future(reply.pour(take, likeness))
        await asyncio.sleep(0)
        for word in (b"one", b"slow", b"two"):
            wired.reads(chunk(event % word))
        assert taken == []
        wired.reads(b"0\r\n\r\n")
        read_on.set_result(None)
        await pouring
        assert b"".join(taken) == b"".join(event % word for word in (b"one", b"slow", b"two"))

    run(play)


# To a caller


async def called(*headers: tuple[bytes, bytes]) -> tuple[Wire, Call]:
    """A call that came straight from its connection. The head of its answer is out, with these headers."""
    calls: list[Call] = []

    async def serve(call: Call) -> None:
        calls.append(call)
        await call.begin(200, [(b"content-type", b"text/event-stream"), *headers])
        await asyncio.Event().wait()

    async def app(scope: Scope, receive: Receive, send: Send) -> None: ...

    config = uvicorn.Config(app, http=BoundedHttp, ws="none", lifespan="off", log_config=None)
    found = {DIRECT: lambda path, headers: serve}
    wire = Wire(BoundedHttp(config, ServerState(), found, asyncio.get_running_loop()))
    wire.protocol.data_received(b"POST /v1/messages HTTP/1.1\r\nhost: x\r\ncontent-length: 0\r\n\r\n")
    await asyncio.sleep(0)
    wire.sent.clear()
    return wire, calls[0]


def test_a_chunk_is_put_while_the_caller_reads() -> None:
    async def main() -> None:
        wire, call = await called()
        assert call.put_chunk(b"1\r\na\r\n")
        assert call.chunk_put_at > 0
        wire.protocol.pause_writing()
        assert not call.put_chunk(b"1\r\nb\r\n")
        wire.protocol.resume_writing()
        assert call.put_chunk(b"1\r\nc\r\n")
        wire.lose(None)
        await asyncio.sleep(0)
        assert not call.put_chunk(b"1\r\nd\r\n")
        assert wire.sent == b"1\r\na\r\n1\r\nc\r\n"

    asyncio.run(main())


def test_no_chunk_is_put_into_a_body_without_chunks() -> None:
    async def main() -> None:
        wire, call = await called((b"content-length", b"9"))
        assert not call.put_chunk(b"1\r\na\r\n")
        assert not wire.sent

    asyncio.run(main())


STREAM = [CHAT % b"Hello", CHAT % b" you", CHAT % b" all", USAGE, data_event(b"[DONE]")]
DATA = re.compile(rb"data: [^\n]+\n\n")


def test_a_stream_that_goes_by_is_sent_as_one_that_does_not_and_kept_whole() -> None:
    async def scene(server: Server) -> bytes:
        keyed = order(server, stream=True, headers=b"idempotency-key: k\r\n")
        streams = [await server.asked(order(server, stream=True)), await server.asked(keyed), await server.asked(keyed)]
        assert [b"".join(DATA.findall(stream)) for stream in streams] == [b"".join(STREAM)] * 3
        return b"".join(streams)

    both(scene, stream=pausing(*STREAM))


def test_a_stream_in_which_something_goes_by_is_not_dead() -> None:
    async def main() -> list[bytes]:
        comment = b": psst\n\n"
        streaming = Streaming(Deadlines(), no_event_seconds=0)
        script = Script([*STREAM[:2], comment, *STREAM[2:3], comment, *STREAM[3:]])
        reply = ScriptedReply(script)
        answer = Answer(reply, Meter(FORMATS["/chat/completions"], progress()), streaming, [])
        sent: list[bytes] = []

        def put(chunk: bytes) -> bool:
            sent.append(chunk[chunk.index(b"\r\n") + 2 : -2])
            return True

        await answer.stream_to(sent.append, put)
        return sent

    assert b"".join(asyncio.run(main())).count(b": psst") == 2


def test_where_usage_is_counted_each_event_is_read() -> None:
    meter = Meter(FORMATS["/chat/completions"], progress(), Tariff("a", "b", "1", 1, ()))
    assert meter.pass_likes(lambda chunk: True) is None
