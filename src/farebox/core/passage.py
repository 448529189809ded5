"""The record of one request for an order, for metrics, the log's line and spans."""

from msgspec import Struct

from farebox.core.books import HoldState
from farebox.core.callers import Caller
from farebox.core.headers import RequestHead


class Passage(Struct):
    """One request for an order on its way: what became of it, and when (nanoseconds since 1970, 0 where it did not come
    so far). `held_ns`: the money is set aside; `head_ns`: the upstream's head is there; `given_ns`: it goes on to the
    caller; `read_ns`: the answer has ended; `ended_ns`: all is over."""

    path: str
    head: RequestHead
    began_ns: int
    held_ns: int = 0
    head_ns: int = 0
    given_ns: int = 0
    read_ns: int = 0
    ended_ns: int = 0
    caller: Caller | None = None
    model: str = ""
    streamed: bool = False
    is_replay: bool = False
    hold_id: str = ""
    generation_id: str = ""
    served_model: str | None = None
    prompt_tokens: int | None = None
    answer_tokens: int | None = None
    state: HoldState | None = None
    events: int | None = None
    fare_nanos: int | None = None
    status: int = 200
    error_type: str = ""
