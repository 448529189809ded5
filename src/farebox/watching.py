"""What telemetry is told of an order: noted in its passage as it goes, told once when it is over."""

from time import time_ns

from farebox.core.books import Settled
from farebox.core.errors import Refusal, error_type_of
from farebox.core.meter import Meter
from farebox.core.passage import Passage
from farebox.ports import BooksUnavailable, CallerGone

GONE_STATUS = 499
"""What proxies log of a request whose sender left before its answer."""


def note_settled(passage: Passage, settled: Settled, meter: Meter, status: int | None) -> None:
    """Note how an order stands in the books. `status` is the upstream's, None where it did not answer."""
    passage.state = settled.state
    if settled.fare is not None:
        passage.events, passage.fare_nanos = settled.fare.events, settled.fare.nanos
    passage.generation_id, passage.served_model = meter.progress.generation_id, meter.served_model
    passage.prompt_tokens, passage.answer_tokens = meter.prompt_tokens, meter.answer_tokens
    if status is not None:
        passage.status = status
        if status >= 400:
            passage.error_type = error_type_of(status)


def note_end(passage: Passage, error: BaseException | None) -> None:
    """Note that an order is over, and the error that ended it, if one did."""
    if error is None:
        pass
    elif isinstance(error, Refusal):
        passage.status, passage.error_type = error.status, error.error_type
    elif isinstance(error, BooksUnavailable):
        passage.status, passage.error_type = 429, "books_unavailable"
    elif isinstance(error, CallerGone):
        passage.status, passage.error_type = GONE_STATUS, "caller_gone"
    passage.ended_ns = time_ns()


class Unwatched:
    """Nobody watches."""

    def began_stream(self) -> None: ...

    def ended_stream(self) -> None: ...

    def saw(self, passage: Passage) -> None: ...
