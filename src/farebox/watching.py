"""What telemetry is told of orders: noted here as each goes, told once when it is over."""

import time
from typing import Self

from farebox.core.books import Settled
from farebox.core.callers import Caller
from farebox.core.errors import Refusal, error_type_of
from farebox.core.headers import RequestHead
from farebox.core.intake import Order
from farebox.core.meter import Meter
from farebox.core.passage import Passage
from farebox.ports import BooksUnavailable, CallerGone, Telemetry

GONE_STATUS = 499
"""What proxies log of a request whose sender left before its answer."""


class Watched:
    """One request for an order, watched until the block is left, whatever leaves it."""

    __slots__ = ("_is_streaming", "_passage", "_telemetry")

    def __init__(self, telemetry: Telemetry, path: str, head: RequestHead) -> None:
        self._telemetry = telemetry
        self._passage = Passage(path=path, head=head, began_ns=time.time_ns())
        self._is_streaming = False

    def __enter__(self) -> Self:
        return self

    def __exit__(self, kind: object, error: BaseException | None, trace: object) -> None:
        passage = self._passage
        if isinstance(error, Refusal):
            passage.status, passage.error_type = error.status, error.error_type
        elif isinstance(error, BooksUnavailable):
            passage.status, passage.error_type = 429, "books_unavailable"
        elif isinstance(error, CallerGone):
            passage.status, passage.error_type = GONE_STATUS, "caller_gone"
        passage.ended_ns = time.time_ns()
        self._telemetry.saw(passage)

    def identified(self, caller: Caller) -> None:
        self._passage.caller = caller

    def priced(self, order: Order) -> None:
        self._passage.model, self._passage.streamed = order.model, order.asked.streamed

    def repeated(self) -> None:
        """It is answered with a kept answer."""
        self._passage.is_replay = True

    def held(self, hold_id: str) -> None:
        self._passage.hold_id, self._passage.held_ns = hold_id, time.time_ns()

    def answered(self) -> None:
        """The upstream's head is there."""
        self._passage.head_ns = time.time_ns()

    def passed_on(self, *, is_stream: bool) -> None:
        """The answer begins to go to the caller."""
        self._passage.given_ns = time.time_ns()
        if is_stream:
            self._is_streaming = True
            self._telemetry.began_stream()

    def ended(self) -> None:
        """The answer has come to its end, or never came."""
        self._passage.read_ns = time.time_ns()
        if self._is_streaming:
            self._telemetry.ended_stream()

    def settled(self, settled: Settled, meter: Meter, status: int | None) -> None:
        """`status` is the upstream's, None where it did not answer."""
        passage = self._passage
        passage.state = settled.state
        if settled.fare is not None:
            passage.events, passage.fare_nanos = settled.fare.events, settled.fare.nanos
        passage.generation_id, passage.served_model = meter.progress.generation_id, meter.served_model
        passage.prompt_tokens, passage.answer_tokens = meter.prompt_tokens, meter.answer_tokens
        if status is not None:
            passage.status = status
            if status >= 400:
                passage.error_type = error_type_of(status)


class Unwatched:
    """Nobody watches."""

    def began_stream(self) -> None: ...

    def ended_stream(self) -> None: ...

    def saw(self, passage: Passage) -> None: ...
