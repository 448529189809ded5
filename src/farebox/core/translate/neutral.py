"""The neutral form between two wire formats: what an order asks and an answer says, in no format's words.

Whatever passes through unread (texts, schemas, arguments, numbers) is raw JSON, so that every byte and digit of it
stays as it was. A text is its JSON string, quotes included; arguments of a call are a string that holds an object's
JSON.
"""

from typing import Protocol

from msgspec import Raw, Struct

from farebox.core.errors import Refusal
from farebox.core.formats import Progress

EMPTY = Raw(b'""')
"""The empty text."""


class Text(Struct):
    """What is said, with the mark up to which a prompt is kept (`cache`), what it cites, and its tokens' odds."""

    text: Raw
    cache: Raw | None = None
    citations: "tuple[Citation, ...]" = ()
    logprobs: Raw | None = None


class Refused(Struct):
    """The model's own words for why it does not answer."""

    text: Raw


class Picture(Struct):
    """A picture or a file: by its address, as base64 of a media type, or by its id in the host's store."""

    url: Raw | None = None
    media: str = ""
    data: Raw | None = None
    file_id: Raw | None = None
    detail: Raw | None = None
    cache: Raw | None = None


class Document(Struct):
    """A file, as `Picture` has it, with its name."""

    url: Raw | None = None
    media: str = ""
    data: Raw | None = None
    file_id: Raw | None = None
    name: Raw | None = None
    cache: Raw | None = None


class Thinking(Struct):
    """What was thought: its text, and the seal under which its host takes it back (a signature, or the whole of it
    encrypted). `origin` says whose seal that is, `id` is the host's name of it. Without a text it is all sealed."""

    origin: str
    text: Raw | None = None
    seal: Raw | None = None
    id: Raw | None = None


class Call(Struct):
    """A call of a tool."""

    id: Raw
    name: Raw
    arguments: Raw
    cache: Raw | None = None


class Result(Struct):
    """What a call gave back."""

    call_id: Raw
    parts: "list[Text | Picture | Document]"
    is_error: bool = False
    cache: Raw | None = None


Part = Text | Refused | Picture | Document | Thinking | Call | Result


class Turn(Struct):
    """One side's parts: `system`, `developer`, `user` (with the results of calls first) or `assistant`."""

    role: str
    parts: list[Part]


def ends_in_result(turns: list[Turn]) -> bool:
    """Whether the last turn gives the results of calls, to which others, and the user's words, may be added."""
    return (
        bool(turns) and turns[-1].role == "user" and bool(turns[-1].parts) and isinstance(turns[-1].parts[-1], Result)
    )


class Tool(Struct):
    """A function that may be called; `parameters` is its JSON schema."""

    name: Raw
    description: Raw | None = None
    parameters: Raw | None = None
    strict: Raw | None = None
    cache: Raw | None = None


class Choice(Struct):
    """Which tool is to be called: `auto`, `none`, `any`, or the one of a `name`."""

    kind: str
    name: Raw | None = None


class Effort(Struct):
    """How much is to be thought: a word for it (`none` for not at all), a budget in tokens, or as the model likes
    (neither); and whether the thoughts are to be shown (`summary` is how, where the order says)."""

    level: str | None = None
    budget: int | None = None
    is_shown: bool | None = None
    summary: Raw | None = None


class Schema(Struct):
    """The JSON schema of the answer; without one (`schema` None) any JSON object."""

    schema: Raw | None = None
    name: Raw | None = None
    description: Raw | None = None
    strict: Raw | None = None


class Order(Struct):
    """What an order asks. `plain` are members that need no translation but a name, by the target's names."""

    plain: dict[str, Raw]
    turns: list[Turn]
    is_streamed: bool = False
    answer_tokens: Raw | None = None
    stop: list[Raw] | None = None
    tools: list[Tool] | None = None
    choice: Choice | None = None
    is_parallel: bool | None = None
    effort: Effort | None = None
    schema: Schema | None = None
    is_schema_unset: bool = True
    user: Raw | None = None
    tier: str | None = None
    odds: Raw | None = None


class Citation(Struct, frozen=True):
    """A web page that a text cites: from which character of the whole answer's text to which."""

    url: Raw
    title: Raw
    start: int = 0
    end: int = 0
    quote: Raw = EMPTY


class Usage(Struct):
    """The tokens of an answer. `prompt` counts all of the prompt, those read from a cache and written to it, too;
    `answer` all of the answer, its reasoning, too. Costs are raw numbers, as OpenRouter puts them in."""

    prompt: int = 0
    answer: int = 0
    cached: int = 0
    cache_written: int = 0
    cache_written_1h: int = 0
    reasoning: int = 0
    cost: Raw | None = None
    is_byok: Raw | None = None
    upstream_cost: Raw | None = None
    upstream_prompt_cost: Raw | None = None
    upstream_answer_cost: Raw | None = None


class Answer(Struct):
    """A whole answer. `stop` is one of STOPS; `during` has what its order asked."""

    id: str
    model: str
    created: int
    parts: list[Part]
    stop: str
    stop_sequence: Raw | None = None
    usage: Usage | None = None
    tier: str | None = None
    fingerprint: str | None = None
    during: Progress | None = None


STOPS = ("stop", "sequence", "length", "tools", "filter", "pause")
"""Why an answer ended: said all; a stop sequence; its cap or the model's context; a call; a refusal of the model or of
a filter; a pause in the host's own tools."""


class Writer(Protocol):
    """Writes a stream in one format. A part ends where another kind begins, at its seal, at the next call, at the end.
    All of it is appended to `sent`: whole events."""

    sent: list[bytes]

    def start(self, id_: str, model: str, created: int) -> None:
        """Begin the answer. Of several calls the first counts."""

    def text(self, delta: bytes, logprobs: Raw | None = None) -> None: ...
    def cite(self, citation: Citation) -> None: ...
    def refuse(self, delta: bytes) -> None: ...
    def think(self, origin: str, delta: bytes) -> None: ...
    def seal(self, thinking: Thinking) -> None:
        """End what was thought with its seal. Its text has come before, or there is none."""

    def call(self, id_: Raw, name: Raw) -> None: ...
    def argue(self, delta: bytes) -> None:
        """A piece of the latest call's arguments."""

    def count(self, told: Usage) -> None: ...
    def end(self, stop: str, stop_sequence: Raw | None) -> None:
        """End the answer. What was counted goes out with it."""

    def keep_alive(self) -> None: ...
    def fail(self, refusal: Refusal) -> None:
        """End the answer with an error."""
