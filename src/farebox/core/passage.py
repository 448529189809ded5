"""The record of one request for an order, for metrics, the log's line and spans."""

from collections.abc import Sequence

from msgspec import Struct

from farebox.core.attempts import Attempt
from farebox.core.books import HoldState
from farebox.core.callers import Caller
from farebox.core.headers import RequestHead


class Passage(Struct, kw_only=True):
    """One request for an order: what became of it, and when (nanoseconds since 1970; 0 where it did not get so far).
    `held_ns`: the money was set aside; `head_ns`: the upstream's head came; `given_ns`: the answer began to go to the
    caller; `read_ns`: the answer ended; `ended_ns`: all was over.

    `upstream` is the one that served it, or was tried last: empty for the built-in one. `attempts` are those that were
    made at declared upstreams, in turn."""

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
    upstream: str = ""
    attempts: Sequence[Attempt] = ()
    served_model: str | None = None
    prompt_tokens: int | None = None
    answer_tokens: int | None = None
    state: HoldState | None = None
    events: int | None = None
    fare_nanos: int | None = None
    status: int = 200
    error_type: str = ""
