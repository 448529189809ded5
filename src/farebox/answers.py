"""What an exchange hands to its endpoint: an answer as it comes from the upstream, or one that was kept."""

import asyncio
import math
from collections.abc import Awaitable, Callable
from contextlib import suppress
from decimal import Decimal
from time import monotonic
from typing import TYPE_CHECKING

import msgspec
from msgspec import Struct

from farebox import clock
from farebox.core.books import KEY_LIFE_US, Fare, HoldRow, KeptAnswer, Settled
from farebox.core.errors import Refusal, broken, cost_unknown, error_type_of
from farebox.core.formats import Progress
from farebox.core.headers import HeaderList
from farebox.core.idempotency import KEPT_BYTES_MAX, UNDELIVERED_BYTES_MAX
from farebox.core.likeness import Likeness, PutChunk
from farebox.core.meter import Meter
from farebox.core.reading import before_json
from farebox.core.stored import Keeping
from farebox.core.usage import Cost, Nothing, Verdict
from farebox.deadlines import Deadlines
from farebox.ports import BooksUnavailable, Ledger, Reply, Take, Taken, UpstreamBroke, Waiting

if TYPE_CHECKING:  # who translates nothing need not carry it
    from farebox.core.translate import Stream, Translation

EVENT_STREAM = "text/event-stream"
JSON = "application/json"

_READ = frozenset({JSON, EVENT_STREAM})

MEDIA = ("audio/", "video/", "image/")
"""What an answer is that is kept as bytes."""

ANSWER_CAP_HEADER = b"x-farebox-answer-cap"
"""The answer cap in tokens, where the plan, the balance or a limit allows no longer an answer than that."""

REPLAYED_HEADER = (b"idempotency-replayed", b"true")
"""On an answer that was kept, and is given to a repeat of its order."""

NO_FARE = Fare(Decimal(0), 0, 0)


class Streaming:
    """What is done with a stream whose caller hung up, and with one that has died.

    A caller's hang-up stops its stream; or the stream is drained, as was declared for its upstream: that is read on
    without its caller for at most `drain_seconds`, while fewer than `drains_max` others are. A stream that sends
    nothing but comments (a whole answer: blank lines) for `no_event_seconds` is dead.
    """

    def __init__(
        self, deadlines: Deadlines, drains_max: int = 0, drain_seconds: float = 0, no_event_seconds: float = math.inf
    ) -> None:
        self._deadlines = deadlines
        self._drains_max = drains_max
        self._drain_seconds = drain_seconds
        self._drains = 0
        self.no_event_seconds = no_event_seconds

    def drain(self, stop: Callable[[str], None]) -> "_Drain | None":
        """Let a stream be read on, and call `stop` when its time is over; None where too many are drained already."""
        if self._drains >= self._drains_max:
            return None
        self._drains += 1
        drain = _Drain(self, stop, self._drain_seconds)
        self._deadlines.add(drain)
        return drain

    def end(self, drain: "_Drain") -> None:
        self._drains -= 1
        self._deadlines.discard(drain)


class _Drain:
    """A stream without its caller."""

    def __init__(self, streaming: Streaming, stop: Callable[[str], None], seconds: float) -> None:
        self._streaming = streaming
        self._stop = stop
        self._seconds = seconds
        self.due = monotonic() + seconds

    def expire(self) -> None:
        self._stop(f"the caller hung up, and the answer did not end within {self._seconds:g} s after that")

    def end(self) -> None:
        self._streaming.end(self)


class Translated:
    """An answer's way from its upstream's format to its caller's, who asked for a stream or (not `is_streamed`) for a
    whole answer, and gets that whichever the upstream sends."""

    def __init__(self, way: "Translation", progress: Progress, *, is_streamed: bool) -> None:
        self.way = way
        self.is_streamed = is_streamed
        self._progress = progress
        self._stream: Stream | None = None

    @property
    def stream(self) -> "Stream":
        if self._stream is None:
            self._stream = self.way.stream(self._progress)
        return self._stream

    def answer(self, body: bytes, generation_id: str) -> bytes:
        """A whole answer. Raises Refusal 424: it is none."""
        progress = self._progress
        return self.way.answer(body, created=progress.created, generation_id=generation_id, during=progress)

    def gathered(self, events: bytes, generation_id: str) -> bytes:
        """A stream as the whole answer that was asked for. Raises Refusal 424: it is none."""
        progress = self._progress
        return self.way.gathered(events, created=progress.created, generation_id=generation_id, during=progress)

    def retold(self, body: bytes) -> bytes:
        """A whole answer as the stream that was asked for. Raises Refusal 424: it is none."""
        return self.way.retold(body, self._progress)

    def giving_to(self, take: Take) -> Take:
        """What takes native pieces, and gives them on translated."""
        feed = self.stream.feed

        def translate(data: bytes) -> Taken:
            chunk = feed(data)
            return take(chunk) if chunk else None

        return translate


class Answer:
    """An order that the upstream has answered: its head, and its body as it comes, metered.

    `settled` says how the order stands in the books once the exchange's block has been left.
    """

    def __init__(
        self,
        reply: Reply,
        meter: Meter,
        streaming: Streaming,
        own_headers: HeaderList,
        waiting: Waiting | None = None,
        *,
        is_kept: bool = False,
        is_drained: bool = False,
        gives_bytes: bool = False,
        translated: Translated | None = None,
        keeping: Keeping | None = None,
    ) -> None:
        self._keeping = keeping
        self._is_kept = is_kept
        self._is_drained = is_drained
        self._reply = reply
        self._waiting = waiting
        self._streaming = streaming
        self._drain: _Drain | None = None
        self._is_over = False
        self._meter = meter
        self._own_headers = own_headers
        self._translated = translated
        self._early: list[bytes] = []
        self._retold: bytes | None = None
        self._failure: Refusal | None = None
        self._came_as_stream = reply.content_type == EVENT_STREAM and reply.status < 400
        self.is_stream = self._came_as_stream
        content_type = reply.content_type
        if translated is not None and reply.status < 400:
            self.is_stream = translated.is_streamed
            content_type = EVENT_STREAM if self.is_stream else JSON
        self.is_poured = self.is_stream
        """Whether it goes to the caller as it comes: a stream, or bytes that are neither that nor JSON."""
        self.media_type = content_type
        """What bytes are, as the upstream said it."""
        if content_type not in _READ and reply.status < 400:
            self.media_type = _type_out_of(reply.headers) or content_type
            self.is_poured = gives_bytes
        self._copy = _Copy() if is_kept and self.is_poured else None
        self._whole: bytes | None = None
        self._cut_short: str | None = None
        self.settled: Settled | None = None
        self.tells_fare = False
        """Whether a stream ends with a comment that tells its fare, asked for or not."""
        self.status = reply.status
        self.content_type = content_type
        self.is_refusal = reply.status >= 400
        self.is_broken = False
        """Whether the upstream broke it off. (A caller who hangs up says nothing of the upstream.)"""

    @property
    def headers(self) -> HeaderList:
        """Those of the upstream's that the caller may see, and ours."""
        headers = list(self._reply.headers)
        if self._reply.generation_id is None:
            headers += _generation_header(self._meter.progress.generation_id)
        return headers + self._own_headers

    def hang_up(self) -> None:
        """The caller has gone: `stream` ends soon, or goes on to the stream's end for the sake of its cost."""
        if self._is_over or self._drain is not None:
            return
        self._drain = self._streaming.drain(self._stop) if self._is_drained else None
        if self._drain is None:
            self._stop("the caller hung up before the answer's end")

    def close(self) -> None:
        """Let the upstream's connection go: nobody reads the answer any more."""
        self._is_over = True
        if self._drain is not None:
            self._drain.end()
        self._reply.close()

    def _stop(self, why: str) -> None:
        self._cut_short = why
        self._reply.close()

    async def read(self) -> bytes:
        """A whole answer, to its end whether or not the caller is still there; b"" for a refusal that was cut off.

        Raises:
            Refusal: 424, what came is no answer.
        """
        if self._failure is not None:
            raise self._failure
        try:
            is_here = self.is_refusal or self._reply.is_complete
            body = await (self._reply.read() if is_here else self._body())
        except UpstreamBroke as error:
            if self.is_refusal:
                return b""
            self._cut_short, self.is_broken = str(error), True
            raise self._told(broken(f"The upstream broke off: {error}")) from error
        if self.is_refusal:
            return body if self._translated is None else self._translated.way.refusal(self.status, body)
        try:
            whole = self._read_whole(body)
        except Refusal as failure:
            self._cut_short = failure.message
            raise self._told(failure) from failure
        self._whole = whole if self._keeping is None else self._keeping.tell(whole)
        return self._whole

    def _read_whole(self, body: bytes) -> bytes:
        """The whole answer to send on, of what came. Raises Refusal 424: it is none."""
        meter, translated = self._meter, self._translated
        if translated is not None and self._came_as_stream:
            events = meter.feed(body) + meter.finish()
            return translated.gathered(events, meter.progress.generation_id)
        body, failure = meter.read_answer(body)
        if failure is not None:
            raise failure
        return body if translated is None else translated.answer(body, meter.progress.generation_id)

    @property
    def held_back(self) -> bytes:
        """The end of a stream that is kept for its account: it goes to the caller once that is done."""
        return b"" if self._keeping is None else self._keeping.held_back

    def _told(self, failure: Refusal) -> Refusal:
        """What the caller is told of an answer that is none, or was broken off: also that its cost is not known, where
        it is not."""
        return failure if isinstance(self.verdict(), Cost) else cost_unknown(failure.message)

    async def _body(self) -> bytes:
        """A body that has yet to come. Blank lines that come before its JSON go on to a waiting caller as they come."""
        waiting = self._waiting
        if waiting is not None:
            waiting.head_came(lambda: self.headers)
        lines = rest = b""
        due = monotonic() + self._streaming.no_event_seconds
        try:
            while data := await self._reply.chunk():
                more, rest = before_json(rest + data)
                if more and waiting is not None:
                    waiting.pass_on(more)
                if rest and rest != b":":
                    break
                if monotonic() > due:
                    self._reply.close()
                    raise UpstreamBroke(f"nothing but blank lines came for {self._streaming.no_event_seconds:g} s")
            body = rest + await self._reply.read()
        finally:
            if waiting is not None:
                lines = waiting.answer_came()
        return lines + body

    def kept(self, hold_id: str) -> KeptAnswer | None:
        """The answer as it is kept for repeats of its order; None where it broke off, or is longer than is kept."""
        if self._copy is not None:
            is_media = self.is_stream or self.content_type.startswith(MEDIA)
            body = self._copy.body() if is_media else None
        else:
            bytes_max = KEPT_BYTES_MAX if self._is_kept else UNDELIVERED_BYTES_MAX
            body = self._whole if self._whole is not None and len(self._whole) <= bytes_max else None
        return None if body is None else KeptAnswer(hold_id, self.content_type, body)

    async def stream_to(self, take: Take, put_chunk: PutChunk | None = None) -> None:
        """Give an answer that `is_poured` to `take` as it comes: a stream in whole server-sent events, or some of them
        to `put_chunk`, in the chunks in which they came. Where the upstream breaks off, the last is an error; within
        bytes there is no place for one.

        Raises:
            Refusal: 424, bytes have no end.
        """
        meter, given = self._meter, take
        if self._copy is not None:
            take = self._copy.noting(take)
        if self._keeping is not None:
            take = _keeping_from(take, self._keeping)
            if self._copy is None:
                given = take  # what is like a text before is nothing to keep
        if self._retold is not None:
            await _taken(take(self._retold))
            self._end_copy()
            self._is_over = True
            return
        if not self.is_stream:
            await self._bytes_to(take)
            return
        take_native = take if self._translated is None else self._translated.giving_to(take)
        try:
            for chunk in self._early:
                await _taken(take_native(chunk))
            likeness = meter.pass_likes(put_chunk) if put_chunk is not None and take_native is given else None
            await self._reply.pour(self._metered(take_native, likeness), likeness)
        except (UpstreamBroke, Refusal) as error:
            meter.finish()
            if self._cut_short is None:
                reason = error.message if isinstance(error, Refusal) else str(error)
                self._cut_short, self.is_broken = reason, True
                failure = self._told(broken(f"The upstream broke off: {reason}"))
                await _taken(take(self._error_event(failure)))
        else:
            if chunk := meter.finish():
                await _taken(take_native(chunk))
            if self._translated is not None and (chunk := self._translated.stream.finish()):
                await _taken(take(chunk))
            self._end_copy()
        self._is_over = True

    async def _bytes_to(self, take: Take) -> None:
        try:
            await self._reply.pour(take)
        except UpstreamBroke as error:
            if self._cut_short is None:
                self._cut_short, self.is_broken = str(error), True
                raise self._told(broken(f"The upstream broke off: {error}")) from error
        else:
            self._end_copy()
        finally:
            self._is_over = True

    def _end_copy(self) -> None:
        if self._copy is not None:
            self._copy.add(self.held_back)
            self._copy.is_whole = self._cut_short is None

    def _metered(self, take: Take, likeness: Likeness | None) -> Take:
        """Passes a piece through the meter, and what that gives on to `take`."""
        meter, no_event_seconds = self._meter, self._streaming.no_event_seconds
        seen, passed, quiet_since = meter.sse_events, 0, monotonic()

        def pass_on(data: bytes) -> Taken:
            nonlocal seen, passed, quiet_since
            if likeness is not None and likeness.passed != passed:
                passed, quiet_since = likeness.passed, 0.0
            chunk = meter.feed(data)
            if meter.sse_events != seen:
                seen, quiet_since = meter.sse_events, 0.0
            elif not quiet_since:
                quiet_since = monotonic()
            elif monotonic() - quiet_since > no_event_seconds:
                self._reply.close()
                raise UpstreamBroke(f"nothing but comments came for {no_event_seconds:g} s")
            return take(chunk) if chunk else None

        return pass_on

    def break_off(self, why: str) -> bytes:
        """Stop an answer that is poured before its end. Returns what to send as a stream's last: an error that says
        why."""
        self._stop(why)
        if not self.is_stream:
            return b""
        return self._error_event(self._told(broken(f"{why[:1].upper()}{why[1:]}")))

    def _error_event(self, refusal: Refusal) -> bytes:
        return (self._meter.error_event if self._translated is None else self._translated.stream.error)(refusal)

    @property
    def is_read_first(self) -> bool:
        """Whether a part of a stream must be read before its head goes out: that which names its generation, or all of
        it, where it came whole."""
        return self.is_stream and (self._reply.generation_id is None or not self._came_as_stream)

    async def read_first(self) -> None:
        """Read a stream up to the first server-sent event that names its generation: the upstream's head did not.
        Comments before that go on to a waiting caller."""
        if not self._came_as_stream:
            await self._retell()
            return
        waiting = self._waiting
        if waiting is not None:
            waiting.head_came(lambda: self.headers)
        try:
            while not self._meter.progress.generation_id and (data := await self._reply.chunk()):
                if not (chunk := self._meter.feed(data)):
                    continue
                if waiting is not None and not self._meter.sse_events:
                    waiting.pass_on(chunk)
                else:
                    self._early.append(chunk)
        except UpstreamBroke:
            return  # `stream` meets the same break and tells the caller
        finally:
            if waiting is not None and (comments := waiting.answer_came()):
                self._early.insert(0, comments)

    async def _retell(self) -> None:
        """Read a whole answer, to be told as the stream that was asked for. Where it is none, `read` says so."""
        assert self._translated is not None
        try:
            body, failure = self._meter.read_answer(await self._body())
            if failure is not None:
                raise failure
            self._retold = self._translated.retold(body)
            return
        except UpstreamBroke as error:
            self._cut_short, self.is_broken = str(error), True
            self._failure = self._told(broken(f"The upstream broke off: {error}"))
        except Refusal as failure:
            self._cut_short = failure.message
            self._failure = self._told(failure)
        self.is_stream = self.is_poured = False

    def verdict(self) -> Verdict:
        """What the exchange says about its cost, so far: Nothing for a refusal, else the cost that has come, Unknown
        where none has. So a hang-up is billed, too."""
        if self.is_refusal:
            return Nothing()
        return self._meter.verdict(self._cut_short or "the answer ended without saying what it cost")


class _Copy:
    """A copy of a stream as it went on, for repetitions of its order; up to KEPT_BYTES_MAX."""

    def __init__(self) -> None:
        self._parts: list[bytes] = []
        self._size = 0
        self.is_whole = False

    def add(self, part: bytes) -> None:
        self._size += len(part)
        self._parts.append(part)
        if self._size > KEPT_BYTES_MAX:
            self._parts.clear()

    def noting(self, take: Take) -> Take:
        """`take`, with a copy of each piece."""

        def take_and_note(chunk: bytes) -> Taken:
            self.add(chunk)
            return take(chunk)

        return take_and_note

    def body(self) -> bytes | None:
        """None where the answer was cut short, or is too long."""
        return b"".join(self._parts) if self.is_whole and self._size <= KEPT_BYTES_MAX else None


def _keeping_from(take: Take, keeping: Keeping) -> Take:
    """`take`, of pieces as they are told where the answer is kept for its account."""

    def keep_and_take(piece: bytes) -> Taken:
        told = keeping.take(piece)
        return take(told) if told else None

    return keep_and_take


class RepeatedAnswer:
    """A kept answer, given again to a repetition of its order, which pays nothing. Endpoints use it as an `Answer`."""

    tells_fare = False

    def __init__(self, hold: HoldRow, kept: KeptAnswer) -> None:
        self._hold = hold
        self._body = kept.body
        self.settled = Settled("posted", NO_FARE)
        self.status = 200
        self.content_type = kept.content_type
        self.is_refusal = False
        self.is_stream = kept.content_type == EVENT_STREAM
        self.is_poured = kept.content_type.startswith((EVENT_STREAM, *MEDIA))
        self.media_type = kept.content_type
        self.held_back = b""

    @property
    def headers(self) -> HeaderList:
        return [*_generation_header(self._hold.generation_id), REPLAYED_HEADER]

    def hang_up(self) -> None:
        """Nothing to stop."""

    def break_off(self, why: str) -> bytes:
        """Nothing to add: what was kept has its own end."""
        return b""

    async def read(self) -> bytes:
        return self._body

    async def stream_to(self, take: Take, put_chunk: PutChunk | None = None) -> None:
        await _taken(take(self._body))


def _type_out_of(headers: HeaderList) -> str:
    """Take out of an upstream's headers what says its answer's type in full, which stands there for bytes alone."""
    for place, (name, value) in enumerate(headers):
        if name == b"content-type":
            del headers[place]
            return value.decode("latin-1")
    return ""


async def _taken(waiting: Awaitable[None] | None) -> None:
    if waiting is not None:
        await waiting


def cap_header(answer_cap: int | None) -> HeaderList:
    """The header that names an answer cap, where it was lowered."""
    return [] if answer_cap is None else [(ANSWER_CAP_HEADER, b"%d" % answer_cap)]


def _generation_header(generation_id: str | None) -> HeaderList:
    """The header that names a generation; none for an id that is no header's value."""
    if not generation_id or not generation_id.isascii() or not generation_id.isprintable():
        return []
    return [(b"x-generation-id", generation_id.encode())]


class _ErrorBody(Struct):
    error: dict[str, object]


def upstream_refusal(answer: Answer | RepeatedAnswer, body: bytes | None) -> Refusal:
    """An upstream's refusal, which cost nothing. `body` is what the format made of its body, None where that failed."""
    headers = {name.decode("latin-1"): value.decode("latin-1") for name, value in answer.headers}
    error: dict[str, object] = {}
    if body is not None:
        error = msgspec.json.decode(body, type=_ErrorBody).error
    message = str(error.get("message") or f"The upstream refused with status {answer.status}")
    metadata = error.get("metadata")
    return Refusal(
        answer.status,
        error_type_of(answer.status),
        message,
        headers,
        {key: value for key, value in metadata.items() if key != "error_type"} if isinstance(metadata, dict) else {},
    )


FORGET_SECONDS = 3600


async def forget_old_answers(ledger: Ledger) -> None:
    """Drop what was kept under idempotency keys that have had their day, now and every hour. Runs until cancelled."""
    while True:
        with suppress(BooksUnavailable):  # the next round finds them too
            await ledger.forget_answers(clock.now_us() - KEY_LIFE_US)
        await asyncio.sleep(FORGET_SECONDS)
