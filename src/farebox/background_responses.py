"""Orders in the background: their callers have the answer's id at once, and ask for it later.

Such an order is held, metered and settled as any other, within this process, by a task that nobody's hang-up ends. It
always goes as a stream, so that it can be stopped and its events told on. Where its process dies, whoever finds it so
says that it failed; its hold is the reconciler's, as every orphan's.
"""

import asyncio
from collections.abc import Callable
from contextlib import suppress
from hashlib import sha256
from secrets import token_hex
from time import monotonic

import msgspec
from msgspec.structs import replace

from farebox import clock
from farebox.answers import EVENT_STREAM, JSON, NO_FARE, Answer, RepeatedAnswer
from farebox.core.books import Settled
from farebox.core.callers import Caller
from farebox.core.errors import Refusal, broken, invalid, too_many
from farebox.core.formats import Progress, responses
from farebox.core.headers import HeaderList
from farebox.core.idempotency import other_order, repeatable
from farebox.core.intake import read_asked
from farebox.core.likeness import PutChunk
from farebox.core.sse import EventSplitter, event_data
from farebox.core.stored import Keeping, StoredRow, as_stream, turned
from farebox.exchange import Exchange, Request
from farebox.ports import BooksUnavailable, CallerGone, ResponseShelf, Take
from farebox.stored_responses import StoredResponses

RETRY_SECONDS = 5

LOOK_SECONDS = 1.0
"""How often this process looks whether another one was asked to cancel or delete what runs here; and how often who
waits for the events of an order that runs elsewhere looks whether it has ended."""

IDLE_SECONDS = 30.0
"""How often orders are looked for whose process died."""

_STOPPED = "the gateway stopped before the answer's end; what it cost is settled once that is known"
_DIED = "the process that served it has gone; what it cost is settled once that is known"


class _Start:
    """Waits for an order in its caller's place: until it is about to be sent, which is when its caller is told that it
    runs (`Waiting`)."""

    def __init__(self) -> None:
        self.held: asyncio.Future[None] = asyncio.get_running_loop().create_future()

    def sending(self, headers: HeaderList, *, streamed: bool) -> None:
        if not self.held.done():
            self.held.set_result(None)

    def head_came(self, headers: Callable[[], HeaderList]) -> None:
        """It is told with the answer."""

    def pass_on(self, lines: bytes) -> None:
        """Nobody listens."""

    def answer_came(self) -> bytes:
        return b""


class _Job:
    """An order that runs here. `pieces` are what its stream has brought; who follows it waits for `moved`."""

    def __init__(self, row: StoredRow, model: str = "", *, is_streamed: bool = True) -> None:
        self.row = row
        self.model = model
        self.is_streamed = is_streamed
        self.answer: Answer | RepeatedAnswer | None = None
        self.pieces: list[bytes] = []
        self.moved = asyncio.Event()
        self.is_stopped = False
        self.is_over = False

    def take(self, piece: bytes) -> None:
        if self.is_streamed and piece:
            self.pieces.append(piece)
            self.move()

    def progress(self) -> Progress:
        """What an event of ours must fit in behind those that came."""
        told = Progress("", self.model, self.row.created_us // 1_000_000, asked=self.row.answer)
        numbers = [_number_of(event) for event in EventSplitter().feed(b"".join(self.pieces))]
        told.next_number = max((number for number in numbers if number is not None), default=-1) + 1
        return told

    def end(self) -> None:
        self.is_over = True
        self.move()

    def move(self) -> None:
        """Let those who follow look again."""
        self.moved.set()
        self.moved = asyncio.Event()

    def stop(self) -> None:
        self.is_stopped = True
        if self.answer is not None:
            self.answer.hang_up()


class QueuedAnswer(RepeatedAnswer):
    """What the caller of an order in the background is told at once. Endpoints use it as an `Answer`."""

    def __init__(self, row: StoredRow) -> None:
        self._body = row.answer
        self.settled = Settled("posted", NO_FARE)
        self.status = 200
        self.content_type = self.media_type = JSON
        self.is_refusal = self.is_stream = self.is_poured = False
        self.held_back = b""

    @property
    def headers(self) -> HeaderList:
        return []


class FollowedAnswer(RepeatedAnswer):
    """The events of an order in the background, as they come. Who hangs up ends nothing but this."""

    def __init__(self, job: _Job, after: int | None = None) -> None:
        self._job = job
        self._after = after
        self._is_left = False
        self.settled = Settled("posted", NO_FARE)
        self.status = 200
        self.content_type = self.media_type = EVENT_STREAM
        self.is_stream = self.is_poured = True
        self.is_refusal = False
        self.held_back = b""

    @property
    def headers(self) -> HeaderList:
        return []

    def hang_up(self) -> None:
        self._is_left = True
        self._job.move()

    async def stream_to(self, take: Take, put_chunk: PutChunk | None = None) -> None:
        job, at = self._job, 0
        while not self._is_left:
            moved = job.moved
            while at < len(job.pieces):
                piece = job.pieces[at]
                at += 1
                if (events := events_after(piece, self._after)) and (taken := take(events)) is not None:
                    await taken
            if job.is_over and at == len(job.pieces):
                return
            await moved.wait()


class BackgroundResponses:
    """Begins orders in the background, at most `most` at once in this process and half of them of one account, and ends
    them. A process has died that seemed gone for `gone_seconds`: its order would be paid for, and its answer lost, if
    it were stopped for less."""

    def __init__(
        self,
        exchange: Exchange,
        stored: StoredResponses,
        shelf: ResponseShelf,
        most: int,
        gone_seconds: float = 0,
        now_us: Callable[[], int] = clock.now_us,
    ) -> None:
        self._exchange = exchange
        self._stored = stored
        self._shelf = shelf
        self._most = most
        self._account_most = -(-most // 2)
        self._gone_seconds = gone_seconds
        self._gone_since: dict[str | None, float] = {}
        self._now_us = now_us
        self._jobs: dict[tuple[int, str], _Job] = {}
        self._tasks: set[asyncio.Task[None]] = set()
        self._has_jobs = asyncio.Event()

    # Begin

    async def begin(self, request: Request, caller: Caller, body: bytes, keeping: Keeping) -> RepeatedAnswer:
        """Begin an order, and return once its money is set aside.

        Raises:
            Refusal: it is not served; nothing is kept of it then.
            BooksUnavailable: it cannot be kept now.
        """
        if len(self._jobs) >= self._most:
            raise too_many(f"{self._most} orders run in the background, the most at once", RETRY_SECONDS)
        of_account = sum(account_id == caller.account.id for account_id, _ in self._jobs)
        if of_account >= self._account_most:
            message = f"{of_account} orders of this account run in the background, the most at once"
            raise too_many(message, RETRY_SECONDS)
        asked = read_asked(body, request.wire)
        key = request.head.idempotency_key
        keeping.run_as(f"resp_{_named_by(caller.account.id, key) if key else token_hex(24)}")
        now_us = self._now_us()
        row = keeping.begun(asked.models[0], now_us, self._stored.until_us(now_us), self._shelf.worker, body)
        streamed = as_stream(body)
        if not await self._shelf.begin_stored(row):
            return await self._begun_before(row, request, streamed, is_streamed=keeping.is_streamed)
        start, job = _Start(), _Job(row, asked.models[0], is_streamed=keeping.is_streamed)
        head = replace(request.head, retry_count=b"", cache=b"")

        async def read_body() -> bytes:
            return streamed

        order = Request(request.path, request.wire, head, read_body, caller, waiting=start, keeping=keeping)
        task = asyncio.create_task(self._serve(job, order, keeping))
        self._jobs[row.account_id, row.id] = job
        self._has_jobs.set()
        self._tasks.add(task)
        task.add_done_callback(lambda done: self._ended(job, done))
        await asyncio.wait({start.held, task}, return_when=asyncio.FIRST_COMPLETED)
        if not start.held.done() and (error := task.exception()) is not None:
            await self._shelf.delete_stored(row.account_id, row.id, self._now_us())
            raise error
        await self._shelf.end_stored(turned(row, "in_progress"))
        if not keeping.is_streamed:
            return QueuedAnswer(row)
        if request.waiting is not None:
            request.waiting.sending([], streamed=True)
        return FollowedAnswer(job)

    def _ended(self, job: _Job, task: asyncio.Task[None]) -> None:
        self._tasks.discard(task)
        if not task.cancelled():
            task.exception()  # whoever began it is told, if it did not come to be sent
        self._jobs.pop((job.row.account_id, job.row.id), None)
        job.end()

    async def _begun_before(
        self, row: StoredRow, request: Request, body: bytes, *, is_streamed: bool
    ) -> RepeatedAnswer:
        """The order that stands under the same idempotency key. Raises Refusal: 409, it is another one; 400, it is to
        be told in events, and none are kept."""
        before = await self._stored.find(row.account_id, row.id)
        sent = repeatable(request.head.idempotency_key, request.path, body)
        use = None if sent is None else await self._exchange.ledger.key_use(row.account_id, sent.key_digest)
        # Until its money is set aside, its input is all that is known of the order under the key.
        is_same = before.input == row.input if use is None or sent is None else use.order_digest == sent.order_digest
        if not is_same or before.previous_id != row.previous_id:
            raise other_order()
        if not is_streamed:
            return QueuedAnswer(before)
        if request.waiting is not None:
            request.waiting.sending([], streamed=True)
        return await self.follow(before, None)

    # Serve

    async def _serve(self, job: _Job, order: Request, keeping: Keeping) -> None:
        """Serve it to its end. Raises what kept it from being sent."""
        assert isinstance(order.waiting, _Start), order
        start, why = order.waiting, ""
        try:
            try:
                async with self._exchange.open(order) as answer:
                    job.answer = answer
                    if job.is_stopped:
                        answer.hang_up()
                    whole = await self._read(answer, job)
                if answer.is_refusal:
                    why = _message_of(whole)
            finally:
                job.take(keeping.held_back)
        except asyncio.CancelledError:
            # The server stops, and its grace is over. The order is settled by the block that was left.
            await self._end(job, keeping, _STOPPED)
            return
        except (Refusal, BooksUnavailable, CallerGone) as error:
            if not start.held.done():
                raise
            why = error.message if isinstance(error, Refusal) else str(error)
        if not keeping.has_answer:
            await self._end(job, keeping, why or "the answer did not come to its end")

    async def _read(self, answer: Answer | RepeatedAnswer, job: _Job) -> bytes:
        if answer.is_poured:
            await answer.stream_to(job.take)
            return b""
        return await answer.read()

    async def _end(self, job: _Job, keeping: Keeping, why: str) -> None:
        """Say of an order that it got no answer; in an event, where it is told in events and none did. What did get
        one is kept with its settlement, at once or late."""
        row = turned(job.row, "cancelled") if job.is_stopped else turned(job.row, "failed", why)
        is_untold = job.is_streamed and not job.is_stopped and not keeping.held_back
        if is_untold:
            keeping.take(responses.error_event(broken(why), job.progress()))
            row = self._stored.row(keeping) or row
        with suppress(BooksUnavailable):  # whoever asks for it when this process has gone is told that it failed
            await self._shelf.end_stored(row)
        if is_untold:
            job.take(keeping.held_back)

    # Afterwards

    async def cancel(self, account_id: int, response_id: str) -> StoredRow:
        """Stop an order in the background, and return what is kept of it; one that has ended stays as it is.

        Raises:
            Refusal: 404, there is no such answer; 400, it does not run in the background.
        """
        row = await self.find(account_id, response_id)
        if not row.background:
            raise invalid("only an order that was placed with `background: true` can be cancelled")
        if row.is_running:
            await self._shelf.end_stored(turned(row, "cancelled"))
            self.stop(account_id, response_id)
            row = await self._stored.find(account_id, response_id)
        return row

    def stop(self, account_id: int, response_id: str) -> None:
        """Stop an order, if it runs here: its caller wants no answer any more."""
        job = self._jobs.get((account_id, response_id))
        if job is not None:
            job.stop()

    async def find(self, account_id: int, response_id: str) -> StoredRow:
        """What is kept of an answer, one that still runs as well. Raises Refusal 404, BooksUnavailable."""
        row = await self._stored.find(account_id, response_id)
        if row.is_running and row.worker != self._shelf.worker:
            await self._end_orphans()
            row = await self._stored.find(account_id, response_id)
        return row

    async def follow(self, row: StoredRow, after: int | None) -> RepeatedAnswer:
        """Its events, those after a sequence number; as they come where it runs here, else once it has ended.

        Raises:
            Refusal: 400, it was not ordered as a stream in the background, or its events are not kept.
        """
        job = self._jobs.get((row.account_id, row.id))
        if job is not None and job.is_streamed:
            return FollowedAnswer(job, after)
        while row.is_running and job is None:
            await asyncio.sleep(LOOK_SECONDS)
            row = await self.find(row.account_id, row.id)
        if row.events is None:
            raise invalid(
                "stream: no events are kept of this answer. They are of an order with `background: true` and"
                " `stream: true`, unless it was cancelled, or its process died"
            )
        told = _Job(row)
        told.pieces.append(row.events)
        told.is_over = True
        return FollowedAnswer(told, after)

    async def _end_orphans(self) -> None:
        orphans, now = await self._shelf.stored_orphans(), monotonic()
        self._gone_since = {row.worker: self._gone_since.get(row.worker, now) for row in orphans}
        for row in orphans:
            if now - self._gone_since[row.worker] < self._gone_seconds:
                continue
            await self._shelf.end_stored(turned(row, "failed", _DIED))

    async def run(self) -> None:
        """Say of orders whose process died that they failed, and stop those here that another process was asked to
        cancel. Runs until cancelled."""
        orphans_at = 0.0
        loop = asyncio.get_running_loop()
        while True:
            with suppress(BooksUnavailable):
                if loop.time() >= orphans_at:
                    orphans_at = loop.time() + IDLE_SECONDS
                    await self._end_orphans()
                if self._jobs:
                    here = dict(self._jobs)
                    running = set(await self._shelf.stored_running())
                    for name, job in here.items():
                        if name not in running:
                            job.stop()
            self._has_jobs.clear()
            with suppress(TimeoutError):
                if self._jobs:
                    await asyncio.sleep(LOOK_SECONDS)
                else:
                    async with asyncio.timeout(IDLE_SECONDS):
                        await self._has_jobs.wait()

    async def close(self) -> None:
        """Wait until what runs has ended, which it has been told to."""
        while self._tasks:
            await asyncio.wait(set(self._tasks))


def _named_by(account_id: int, idempotency_key: bytes) -> str:
    return sha256(b"%d " % account_id + idempotency_key).hexdigest()[:48]


class _Told(msgspec.Struct):
    message: str = ""


class _Envelope(msgspec.Struct):
    error: _Told


def _message_of(body: bytes) -> str:
    """What an upstream's refusal says."""
    try:
        return msgspec.json.decode(body, type=_Envelope).error.message
    except msgspec.DecodeError:
        return ""


class _Numbered(msgspec.Struct):
    sequence_number: int = -1


def events_after(piece: bytes, after: int | None) -> bytes:
    """Those of a piece's events that come after a number."""
    if after is None:
        return piece
    splitter = EventSplitter()
    events = [*splitter.feed(piece), splitter.rest()]
    return b"".join(event for event in events if _number_of(event) is None or (_number_of(event) or 0) > after)


def _number_of(event: bytes) -> int | None:
    data = event_data(event)
    if data is None or not data.startswith(b"{"):
        return None
    try:
        number = msgspec.json.decode(data, type=_Numbered).sequence_number
    except msgspec.DecodeError:
        return None
    return None if number < 0 else number
