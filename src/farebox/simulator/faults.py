"""The faults and timings that can be asked for, per request.

In the header `X-OpenRouter-Simulate`, or after the model's name: `sim/echo:cut-at-event=3,token-ms=20`.
"""

from typing import Literal

import msgspec

HEADER = b"x-openrouter-simulate"


class Faults(msgspec.Struct, frozen=True, rename="kebab", forbid_unknown_fields=True):
    """What to do otherwise than a well-behaved upstream. Server-sent events and bytes are numbered from 0."""

    head_ms: int = 0
    """Wait before the answer's head."""
    first_token_ms: int = 0
    """Wait before the first token, sending keep-alive comments, or blank lines before a whole answer."""
    token_ms: int = 0
    """Wait between tokens."""
    silent: bool = False
    """Send nothing while waiting for the first token."""
    tokens: int | None = None
    """Answer with this many words instead of an echo."""
    status: int | None = None
    """Refuse with this status (402, 429, 503, ...)."""
    flagged: bool = False
    """Refuse with 403, since what was said is not allowed there."""
    html: bool = False
    """Answer with a web page."""
    error_body: bool = False
    """Answer 200 with an error as the JSON body, also where a stream was ordered."""
    failed: bool = False
    """A whole answer that failed after it had begun, and was charged: in chat its choice has an error and the finish
    reason `error`, in responses its status is `failed`."""
    usage: Literal["separate", "delta", "merged", "missing", "is-null", "twice", "negative"] | None = None
    """The usage's shape: in an event without choices, with an empty delta, in the finishing chunk, not at all, null; as
    OpenAI or Anthropic also twice, or with numbers below zero."""
    cached_tokens: int = 0
    """Count so many tokens of the prompt as read from a cache, as OpenAI or Anthropic."""
    cache_write_tokens: int = 0
    """Count so many as written to a cache, as Anthropic."""
    calls: int = 1
    """Call so many tools at once, the same again where there are not as many; one where the order wants no more."""
    broken_arguments: bool = False
    """Call a tool with arguments that are no JSON."""
    no_content: bool = False
    """Keep nothing of the prompt and the answer for `GET /generation/content`, as accounts do that log none."""
    whole: bool = False
    """Answer whole where a stream of pictures was ordered, as hosts do that have none."""
    older_cap: bool = False
    """Read no cap of a chat completion's answer but `max_tokens`, as Ollama does."""
    streams: bool = False
    """Answer with a stream where none was ordered."""
    cost: str | None = None
    """Report this number as the cost, digit by digit as written here; `is-null` for none."""
    byok: str | None = None
    """Answer as from the operator's own key, and report this as the host's charge."""
    choices: Literal["empty"] | None = None
    """`empty`: a whole answer without choices; in responses without output, in messages without content."""
    blank_lines: int = 0
    """Blank lines before a whole answer's JSON."""
    comments: int = 0
    """Comment lines before a whole answer's JSON, or before a stream's first event."""
    crlf: bool = False
    """End lines with CRLF."""
    cr: bool = False
    """End lines with CR."""
    split: int = 0
    """Send the stream in pieces of this many bytes."""
    stall_at_event: int | None = None
    """Fall silent before this event, and keep the connection."""
    endless_at_event: int | None = None
    """Send an event here that never ends, a megabyte of it at a time."""
    cut_at_event: int | None = None
    """Break the connection off before this event."""
    cut_at_byte: int | None = None
    """Break the connection off before this byte of the body."""
    error_at_event: int | None = None
    """Send an error in the format's own shape instead of this event, and end."""
    bare_error_at_event: int | None = None
    """Send a bare error object instead of this event, and end."""
    defect: (
        Literal[
            "role-empty",
            "fingerprint-null",
            "tool-calls-null",
            "no-finish",
            "no-index",
            "no-choices",
            "usage-null",
            "empty-data",
            "retry",
            "wrapped-comment",
            "no-fingerprint",
            "data-only",
            "named-done",
            "no-start-usage",
            "no-sequence",
            "no-nulls",
            "no-logprobs",
            "no-name",
            "chat-costs",
            "debug",
            "fusion",
        ]
        | None
    ) = None
    """What strict SDKs choke on. In chat's first event (`no-choices`: its last; `no-fingerprint`: in a whole answer);
    `empty-data`, `retry` and `wrapped-comment` in any format; from `data-only` in messages, from `no-sequence` in
    responses."""
    no_done: bool = False
    """End a stream without `[DONE]`."""
    no_final_blank: bool = False
    """End a stream without the last event's empty line."""
    job: (
        Literal[
            "fails",
            "fails-at-a-cost",
            "cancelled",
            "expires",
            "never-ends",
            "vanishes",
            "ends-twice",
            "costs-late",
        ]
        | None
    ) = None
    """What becomes of a job, where it is not completed at the cost of its video: it fails and costs nothing, or
    something; it is not known any more once it should have ended; it tells twice the cost when it is asked for again;
    it does not say what it cost at first."""
    job_polls: int = 1
    """How many times a job is asked for before it has ended."""
    job_ms: int = 0
    """How long a job runs at least."""
    generation_ms: int = 300
    """How long after a generation's end its record cannot be read yet."""
    no_generation_header: bool = False
    """Do not send `X-Generation-Id`."""


class BadFaults(Exception):  # noqa: N818 - the word of the house
    """A fault that the simulator does not know."""


def parse(*texts: str) -> Faults:
    """Read `name=value,name` lists; later ones win. Raises BadFaults."""
    given: dict[str, str | bool] = {}
    for text in texts:
        for part in filter(None, text.replace(";", ",").split(",")):
            name, equals, value = part.strip().partition("=")
            given[name] = value if equals else True
    try:
        return msgspec.convert(given, Faults, strict=False)
    except msgspec.ValidationError as error:
        raise BadFaults(f"the simulator does not know this fault: {error}") from error
