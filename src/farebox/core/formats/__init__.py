"""Wire formats: one module each, all with the functions of `Format`. An *event* is a server-sent event here."""

from collections.abc import Mapping
from typing import Protocol

from msgspec import Raw, Struct

from farebox.core.attribution import Said
from farebox.core.errors import Refusal
from farebox.core.formats.counting import Counting
from farebox.core.formats.describing import Described
from farebox.core.usage import Cost, Unknown


class Searches(Struct, frozen=True):
    """Web searches that an order may make: how many, how many results they bring all together, and whether the request
    names a search engine other than the provider's own."""

    number: int
    results: int
    is_engine_named: bool = False


class Units(Struct, frozen=True):
    """The most that an order can come to of what is not counted in tokens: `pictures` made, `characters` spoken,
    seconds of audio heard and of video made, search units of a reranker; and `videos` that are as long as their model
    makes them."""

    pictures: int = 0
    characters: int = 0
    audio_seconds: int = 0
    video_seconds: int = 0
    search_units: int = 0
    videos: int = 0


class Asked(Struct, frozen=True):
    """What a request asks, as far as Farebox reads it; the rest of the body is the upstream's business.

    `models` stand in the order in which they are tried. `answer_tokens` is the caller's own cap, None without one;
    `answers` is how many answers are asked for, 0 where answers have no tokens (embeddings). `prompt_bytes` (without
    images, with what searches may bring in) and `images` bound the tokens of all `prompts` together, unless
    `prompt_is_open`: something may fill the whole context, such as a file given by reference. `is_premium`: a service
    tier that costs more than the listed price may serve, or a provider that was not picked by its price. `has_wishes`:
    its body may say by which upstreams it would be served; `has_soft`: it may have one of the parameters whose support
    decides who comes first (both `core.wishes`). `units` are what it asks that is not counted in tokens. `inputs` are
    the modalities of what it brings along beside text, by OpenRouter's names: image, file, audio, video. `used` is how
    much of its kind's unit it will have used once it is served (`core.kinds`), where the order itself says that. `said`
    is for whom it is, where it says that.
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
    units: Units | None = None
    has_wishes: bool = True
    has_soft: bool = True
    inputs: frozenset[str] = frozenset()
    used: int | None = None
    said: Said | None = None


class Seen(Struct, frozen=True):
    """What Farebox read in one event of a stream, or in a whole answer; None for what it does not say.

    `repaired` are the bytes to send on instead, None where the original ones are good. `failure` is the Refusal for a
    whole answer that is not valid. `job_id` names a job that the order began, which goes on after this answer.
    `units` is how much of its kind's unit was used (`core.kinds`), by this event.
    """

    generation_id: str | None = None
    model: str | None = None
    cost: Cost | Unknown | None = None
    prompt_tokens: int | None = None
    answer_tokens: int | None = None
    repaired: bytes | None = None
    failure: Refusal | None = None
    job_id: str | None = None
    units: int | None = None


PASS = Seen()
"""Of an event that says nothing, and of which nothing is remembered: so are all that are like it."""
"""Seen in nearly every event: nothing new, and nothing to repair."""


class Calls(Struct):
    """The tool calls in one choice of a chat so far: the index of each by its id, the latest index, and the next free
    one."""

    numbers: dict[str, int] = {}
    last: int = 0
    next: int = 0

    def number(self, call_id: str) -> int:
        """The index of the call with this id, the next free one if the id is new; the latest one if it is empty."""
        return self.numbers.get(call_id, self.next) if call_id else self.last

    def take(self, call_id: str | None, number: int) -> None:
        """Remember a call that the stream named."""
        if call_id:
            self.numbers[call_id] = number
        self.last, self.next = number, max(self.next, number + 1)


class Progress(Struct):
    """What to remember of a stream so far, for repairs and for events of our own that must fit in. `created` is in
    seconds since 1970. `withholds_usage`: a chunk that has a usage and no choices is not for the caller, who did not
    ask for it.

    `client` is the caller's User-Agent; `calls` are a chat's tool calls, by choice. The rest is for the responses
    format: the `response_id` and the sequence number (`next_number`) of a stream's events, the names of function calls
    by item, the latest item and its index, and whether each event has its type in a line of its own (`is_named`);
    `asked` is the order's body, until the answer has said it all again, `unheeded` are its members that its upstream
    was not told, `echoed` what was read there, and `completed`
    the latest response that had to be completed, before and after.
    """

    generation_id: str
    model: str
    created: int
    client: str = ""
    calls: dict[int, Calls] = {}
    response_id: str = ""
    next_number: int = 0
    call_names: dict[str, str] = {}
    item_id: str = ""
    output_index: int = -1
    asked: bytes | Raw = b""
    unheeded: tuple[str, ...] = ()
    echoed: Mapping[str, Raw] | None = None
    completed: tuple[bytes | Raw, bytes] = (b"", b"")
    is_named: bool = False
    withholds_usage: bool = False


class Format(Protocol):
    """What each format module has. `CAPS` are the members of a request that cap its answer's tokens; empty where
    answers have no tokens. `KEEP_ALIVE` is sent in a stream that is silent: every client skips it, wherever it stands
    between two events and before the first. `TEXT_BEGINS` are the name and the opening quote of a text that `see_event`
    does not look into, in which most events of a stream differ and in nothing else; empty where there is none such."""

    CAPS: tuple[str, ...]
    KEEP_ALIVE: bytes
    TEXT_BEGINS: bytes
    DESCRIBED: Described

    def read(self, body: bytes) -> Asked:
        """Read a request body. Raises Refusal 400, which names the field that is wrong and says what would be right."""

    def capped(self, body: bytes, answer_tokens: int) -> bytes:
        """The body with its answer capped at `answer_tokens`, and a thinking budget lowered to fit; all other members
        byte for byte. Raises Refusal 400."""

    def see_event(self, event: bytes, progress: Progress) -> Seen:
        """Read one whole event of a stream, and repair it where an SDK would choke on it."""

    def see_answer(self, body: bytes) -> Seen:
        """Read a whole answer, and repair it where an SDK would choke on it."""

    def counting(self) -> Counting:
        """Counts what an answer in this format used, for upstreams that tell usage and no cost."""

    def error_event(self, refusal: Refusal, progress: Progress) -> bytes:
        """An error as the last event of a stream, after which no client retries."""

    def refusal_body(self, refusal: Refusal) -> bytes:
        """The body of an error answer, in this format's shape."""

    def typed_refusal(self, status: int, body: bytes) -> bytes | None:
        """The body of an upstream's refusal, in the shape from which this format's SDKs make their typed errors; None
        where it is not an error envelope."""
