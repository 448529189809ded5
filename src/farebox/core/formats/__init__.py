"""Wire formats: one module each, the same few functions each, and what each says of itself."""

from typing import Protocol

from msgspec import Struct

from farebox.core.errors import Refusal
from farebox.core.formats.describing import Described
from farebox.core.usage import Cost, Unknown


class Searches(Struct, frozen=True):
    """Searches that an order may make: their number, and how many results all of them together bring; whether an
    engine was named that is not the provider's own."""

    number: int
    results: int
    is_engine_named: bool = False


class Asked(Struct, frozen=True):
    """What Farebox reads of a request; the rest of the body is the upstream's business.

    `models` in the order they are tried; `answer_tokens` is the caller's own cap, None where there is none; `answers`
    is how many are asked for, 0 where the answer is not made of tokens. `prompt_bytes` (without pictures, with what
    searches may bring in) and `images` bound the tokens of all `prompts` together; `prompt_is_open` when something may
    fill the whole context (a file by reference); `is_premium` when a dearer service tier than the listed one may
    serve, or a provider that was not picked by its price.
    """

    models: tuple[str, ...]
    prompt_bytes: int
    streamed: bool = False
    answer_tokens: int | None = None
    answers: int = 1
    images: int = 0
    prompts: int = 1
    prompt_is_open: bool = False
    is_premium: bool = False
    searches: Searches | None = None


class Seen(Struct, frozen=True):
    """What Farebox read in one event, or in a whole answer.

    `repaired` is None when the bytes may go on as they are. `failure` is set when a whole answer is none.
    """

    generation_id: str | None = None
    model: str | None = None
    cost: Cost | Unknown | None = None
    prompt_tokens: int | None = None
    answer_tokens: int | None = None
    repaired: bytes | None = None
    failure: Refusal | None = None


PASS = Seen()
"""An event that tells nothing new and needs no change: nearly every one."""


class Calls(Struct):
    """The tool calls of a choice so far: each one's number by its id, the last told of, and the next that is free."""

    numbers: dict[str, int] = {}
    last: int = 0
    next: int = 0

    def number(self, call_id: str) -> int:
        """The number of the call that has this id; of the last one where it is empty."""
        return self.numbers.get(call_id, self.next) if call_id else self.last

    def take(self, call_id: str | None, number: int) -> None:
        """A call was told of."""
        if call_id:
            self.numbers[call_id] = number
        self.last, self.next = number, max(self.next, number + 1)


class Progress(Struct):
    """A stream so far: what an event of ours needs in order to read as part of it, and what a repair must remember.

    `client` is the caller's User-Agent. `calls` are a chat's, by choice. `response_id`, `next_number`, `call_names` (by
    item) and `failure` are of streams of responses: the id that their events go by, the number of the next, the names
    of calls, and what an error event said that no end has followed yet.
    """

    generation_id: str
    model: str
    created: int
    client: str = ""
    calls: dict[int, Calls] = {}
    response_id: str = ""
    next_number: int = 0
    call_names: dict[str, str] = {}
    failure: str | None = None


class Format(Protocol):
    """What each format module has. `CAPS` are a request's members that bound the answer's tokens: none where the answer
    is not made of tokens."""

    CAPS: tuple[str, ...]
    DESCRIBED: Described

    def read(self, body: bytes) -> Asked:
        """Read a request body; raises Refusal 400 when it is not one."""

    def capped(self, body: bytes, answer_tokens: int) -> bytes:
        """The body with its answer capped at `answer_tokens`, and a budget for thinking lowered with it; all else byte
        for byte. Raises Refusal 400."""

    def see_event(self, event: bytes, progress: Progress) -> Seen:
        """Read one whole server-sent event."""

    def see_answer(self, body: bytes) -> Seen:
        """Read a whole answer."""

    def error_event(self, refusal: Refusal, progress: Progress) -> bytes:
        """An in-band error: the stream's last event, after which a client does not retry."""

    def end_event(self, progress: Progress) -> bytes:
        """What a stream that came to its end still lacks for its readers to know it; nearly always nothing."""

    def refusal_body(self, refusal: Refusal) -> bytes:
        """An error answer in this format's own shape."""

    def typed_refusal(self, status: int, body: bytes) -> bytes | None:
        """An upstream's refusal in the shape from which this format's SDKs make their typed errors; None where it is
        nothing that can be put so."""
