"""Anthropic's messages, as OpenRouter speaks them.

Sources: OpenRouter's OpenAPI document (MessagesRequest, MessagesResult and its events), and tests of what Anthropic's
SDKs drop or throw on. They read an event by its `event:` line, and silently drop one that has none.
"""

from collections.abc import Mapping

import msgspec
from msgspec import UNSET, Raw, Struct, UnsetType, field
from msgspec.structs import replace

from farebox.core.errors import Refusal, broken, invalid
from farebox.core.formats import PASS, Asked, Progress, Seen
from farebox.core.formats.asking import Request, asked, count, decoded, decoded_part, models_of, with_caps
from farebox.core.formats.bounds import BYTES, NESTED, OPEN, PICTURE, Bounds, Kind
from farebox.core.formats.describing import CAP, COMMON, HELLO, SERVED, USAGE, Described
from farebox.core.formats.envelope import UNTOLD, read_error, unblaming
from farebox.core.formats.mending import (
    BRACE,
    IS_UNKNOWN,
    NULL,
    Amount,
    CostDetails,
    add_nulls,
    cost_before_the_break,
    cost_in,
    encode,
    fill,
    mend_amounts,
    mend_member,
    mend_object,
    see_whole,
    seen,
    without_object,
)
from farebox.core.formats.messages_errors import (
    ERROR,
    error_of,
    refusal_body,
    refusal_error,
    shown_once,
    typed_refusal,
    unthreaded,
)
from farebox.core.formats.messages_usage import counting
from farebox.core.formats.thinking import lower_thinking
from farebox.core.legible import Fields, decode_fields, leniently, written
from farebox.core.reading import UNREADABLE, Many, Number, is_null
from farebox.core.schemas import NAME, OBJECT, TEXT, array_of, object_of, or_null
from farebox.core.sse import data_event, event_data, event_name, named_event

__all__ = ["CAPS", "DESCRIBED", "KEEP_ALIVE", "TEXT_BEGINS"]
__all__ += ["capped", "counting", "error_event", "read", "refusal_body", "see_answer", "see_event", "typed_refusal"]

TEXT_BEGINS = b'"text":"'

CAPS: tuple[str, ...] = ("max_tokens",)

KEEP_ALIVE = named_event(b"ping", b'{"type": "ping"}')
"""Anthropic's own."""

FALLBACKS_MAX = 3
"""OpenRouter's limit of `fallbacks`."""

_SAID = {"oneOf": [TEXT, array_of(object_of({"type": TEXT}))]}
_FALLBACK = {**object_of({"model": NAME}), "additionalProperties": False}

DESCRIBED = Described(
    "Message, as Anthropic's clients ask",
    request=(
        "MessagesRequest",
        object_of(
            {"model": NAME, "messages": array_of(object_of({"role": TEXT, "content": _SAID}), minItems=1)},
            {**COMMON, **dict.fromkeys(CAPS, CAP), "fallbacks": or_null(array_of(_FALLBACK, maxItems=FALLBACKS_MAX))},
            description="`models` and `fallbacks` exclude each other.",
            **{"not": {"required": ["models", "fallbacks"]}},
        ),
    ),
    answer=("Message", object_of({**SERVED, "type": TEXT, "role": TEXT, "content": array_of(OBJECT)}, USAGE)),
    refusal=ERROR,
    example={"model": "sim/echo", "messages": HELLO},
)

BLOCKS: Mapping[str, Kind] = {
    **dict.fromkeys(("text", "thinking", "redacted_thinking", "compaction", "search_result"), BYTES),
    **dict.fromkeys(("tool_use", "server_tool_use", "mcp_tool_use"), BYTES),
    # They only name a tool, which stands in `tools`.
    **dict.fromkeys(("tool_reference", "tool_addition", "tool_removal", "tool_search_tool_result"), BYTES),
    # Results of tools that the upstream ran, as text or encrypted.
    **dict.fromkeys(("web_search_tool_result", "advisor_tool_result", "code_execution_tool_result"), BYTES),
    **dict.fromkeys(("bash_code_execution_tool_result", "text_editor_code_execution_tool_result"), BYTES),
    **dict.fromkeys(("openrouter_shell_tool_result", "openrouter_bash_tool_result"), BYTES),
    **dict.fromkeys(("tool_result", "mcp_tool_result", "web_fetch_tool_result", "web_fetch_result"), NESTED),
    "web_fetch_tool_result_error": BYTES,
    "image": PICTURE,
    "document": NESTED,
    "container_upload": OPEN,
}
"""The kinds of a message's blocks. A later request repeats results in full, so their bytes bound them."""

SOURCES: Mapping[str, Kind] = {"text": BYTES, "content": NESTED, "base64": OPEN, "url": OPEN, "file": OPEN}
"""The kinds of a document's sources."""

DEPTH_MAX = 8
"""How deep blocks may be nested; the format itself needs four levels."""


class _Block(Struct, gc=False):
    type: str = ""
    source: Raw | UnsetType = UNSET
    content: Raw | UnsetType = UNSET


class _Message(Struct, gc=False):
    content: Raw


class _Fallback(Struct, forbid_unknown_fields=True):
    model: str


class _Request(Request):
    messages: Many[_Message]
    fallbacks: list[_Fallback] | None = None
    max_tokens: Number | None = None
    mcp_servers: Many[Raw] | None = None
    speed: str | None = None
    thread: Raw | UnsetType = UNSET


_CONTENT = "messages[...].content"

_decode_request = msgspec.json.Decoder(_Request).decode
_decode_blocks = msgspec.json.Decoder(list[_Block]).decode
_decode_block = msgspec.json.Decoder(_Block).decode


def read(body: bytes) -> Asked:
    request = decoded(_decode_request, body)
    if request.models and request.fallbacks:
        raise invalid("fallbacks: give either `fallbacks` or `models`, not both")
    if len(request.fallbacks or ()) > FALLBACKS_MAX:
        raise invalid(f"fallbacks: at most {FALLBACKS_MAX} can be given")
    if request.thread is not UNSET and not is_null(request.thread):
        raise unthreaded()
    models = models_of(request, [each.model for each in request.fallbacks or ()])
    if not request.messages:
        raise invalid("messages: the list is empty; give at least one message")
    answer_tokens = None if request.max_tokens is None else count("max_tokens", request.max_tokens)
    bounds = Bounds(is_open=bool(request.mcp_servers))
    for message in request.messages:
        content = bytes(message.content)
        if not content.startswith(b'"'):
            _measure(decoded_part(_decode_blocks, content, _CONTENT), bounds)
    found = asked(request, body, models, bounds, answer_tokens)
    if found.said is not None and not found.said.end_user and (user_id := found.said.metadata.get("user_id")):
        found = replace(found, said=replace(found.said, end_user=user_id))
    return replace(found, is_premium=True) if request.speed == "fast" else found


def _measure(blocks: list[_Block], bounds: Bounds, depth: int = 1) -> None:
    for block in bounds.take(blocks):
        kind = BLOCKS.get(block.type, OPEN)
        if kind == BYTES:
            continue
        if kind == PICTURE:
            bounds.add_picture(block.source)
        elif kind == OPEN or depth == DEPTH_MAX:
            bounds.add_open(block.type)
        elif block.type == "document":
            _measure_document(block.source, bounds, depth)
        else:
            _measure_content(block.content, bounds, depth)


def _measure_document(source: Raw | UnsetType, bounds: Bounds, depth: int) -> None:
    read = _Block() if source is UNSET else decoded_part(_decode_block, bytes(source), _CONTENT)
    kind = SOURCES.get(read.type, OPEN)
    if kind == NESTED:
        _measure_content(read.content, bounds, depth)
    elif kind == OPEN:
        bounds.add_open("document")


def _measure_content(content: Raw | UnsetType, bounds: Bounds, depth: int) -> None:
    """Measure a list of blocks, or one block; text is bounded by its bytes."""
    text = b"" if content is UNSET else bytes(content)
    if text.startswith(b"["):
        _measure(decoded_part(_decode_blocks, text, _CONTENT), bounds, depth + 1)
    elif text.startswith(b"{"):
        _measure([decoded_part(_decode_block, text, _CONTENT)], bounds, depth + 1)


def capped(body: bytes, answer_tokens: int) -> bytes:
    """The body with `max_tokens` lowered to `answer_tokens`, or set, and a thinking budget with it."""
    return with_caps(body, CAPS, answer_tokens, lower_thinking)


class _Usage(Struct):
    """What Anthropic's SDKs read of a usage; their helpers throw where the answer's tokens are missing."""

    answer_tokens: int = field(name="output_tokens")
    input_tokens: int | None = None
    cache_creation_input_tokens: int | None = None
    cache_read_input_tokens: int | None = None
    cost: Amount | None = None
    cost_details: CostDetails | None = None

    @property
    def prompt_tokens(self) -> int | None:
        """All tokens of the prompt: `input_tokens` leaves out those read from a cache or written to it."""
        if self.input_tokens is None:
            return None
        return self.input_tokens + (self.cache_creation_input_tokens or 0) + (self.cache_read_input_tokens or 0)


class _Started(Struct):
    id: str
    model: str
    content: list[Raw]
    usage: _Usage


class _Event(Struct):
    type: str
    message: Raw | UnsetType = UNSET
    usage: Raw | UnsetType = UNSET


class _Whole(Struct):
    id: str
    model: str
    content: list[Raw]
    usage: Raw
    stop_reason: str | None


_decode_event = msgspec.json.Decoder(_Event).decode
_decode_started = msgspec.json.Decoder(_Started).decode
_decode_usage = msgspec.json.Decoder(_Usage).decode
_decode_whole = msgspec.json.Decoder(_Whole).decode


def see_event(event: bytes, progress: Progress) -> Seen:
    """Read one whole server-sent event, and repair it if Anthropic's SDKs would drop it or throw."""
    data = event_data(event)
    if not data or data[0] != BRACE:
        if data == b"[DONE]" and event_name(event):
            # SDKs parse the data of a named event as JSON.
            return Seen(repaired=data_event(data))
        plain = without_object(event, data)
        if plain is not None or data is None:
            return plain or PASS
    try:
        read = leniently(_decode_event, data)
    except UNREADABLE:
        return _see_without_type(data, progress)
    match read.type:
        case "message_start":
            seen = _see_start(data, read.message, progress)
        case "message_delta":
            seen = _see_delta(data, read.usage)
        case "error":
            seen = _see_error(data, progress)
        case _:
            seen = PASS if read.usage is UNSET else Seen(cost=cost_in({"usage": read.usage}))
    name = read.type.encode()
    if seen.repaired is None and not event.startswith(b"event: " + name + b"\n") and event_name(event) != name:
        return replace(seen, repaired=named_event(name, data))
    return seen


def _see_start(data: bytes, message: Raw | UnsetType, progress: Progress) -> Seen:
    """Read a `message_start`. Its usage is partial: the final one comes in `message_delta`."""
    try:
        started = leniently(_decode_started, b"" if message is UNSET else message)
        return Seen(generation_id=started.id, model=started.model)
    except UNREADABLE:
        fields = decode_fields(data)
        fields["message"] = mend_object(fields.get("message", Raw(b"{}")), lambda each: _mend_start(each, progress))
    try:
        started = leniently(_decode_started, fields["message"])
    except UNREADABLE:
        return PASS
    repaired = named_event(b"message_start", bytes(written(fields)))
    return Seen(generation_id=started.id or None, model=started.model, repaired=repaired)


def _see_delta(data: bytes, usage: Raw | UnsetType) -> Seen:
    cost = cost_in({} if usage is UNSET else {"usage": usage})
    try:
        counted = _decode_usage(b"" if usage is UNSET else usage)
        return Seen(cost=cost, prompt_tokens=counted.prompt_tokens, answer_tokens=counted.answer_tokens)
    except UNREADABLE:
        fields = decode_fields(data)
        fill(fields, usage={})
        mend_member(fields, "usage", _mend_usage)
    repaired = named_event(b"message_delta", bytes(written(fields)))
    try:
        counted = leniently(_decode_usage, fields["usage"])
    except UNREADABLE:
        return Seen(cost=cost, repaired=repaired)
    # A zero is not reported: `fill` may have put it in place of a missing count.
    answer_tokens = counted.answer_tokens or None
    return Seen(cost=cost, prompt_tokens=counted.prompt_tokens, answer_tokens=answer_tokens, repaired=repaired)


def _see_error(data: bytes, progress: Progress) -> Seen:
    """Read an error event: it may report what was charged, too."""
    fields = decode_fields(data)
    said = read_error(fields.get("error"))
    told = unblaming(said)
    if told is not said:
        refusal = error_of(told, 502)
        return Seen(cost=cost_in(fields), repaired=_error_event(shown_once(refusal), progress))
    try:
        error: dict[str, object] = dict(decode_fields(fields.get("error", NULL)))
    except UNREADABLE:
        error = {"message": told.message or UNTOLD}
    error["type"] = told.type
    shown = shown_once(error)
    if shown is error:
        return Seen(cost=cost_in(fields))
    fields["error"] = encode(shown)
    return Seen(cost=cost_in(fields), repaired=named_event(b"error", bytes(written(fields))))


def _see_without_type(data: bytes, progress: Progress) -> Seen:
    """Read an event that has no type; a bare error becomes an `error` event."""
    try:
        fields = decode_fields(data)
    except UNREADABLE:
        refusal = broken("the upstream sent an event that is not JSON")
        return Seen(cost=cost_before_the_break(data), repaired=error_event(refusal, progress))
    cost = cost_in(fields)
    if "error" not in fields:
        return PASS if cost is None else Seen(cost=cost)
    error = unblaming(read_error(fields["error"]))
    status = error.code if isinstance(error.code, int) else 502
    return Seen(cost=cost, repaired=_error_event(shown_once(error_of(error, status)), progress))


def _mend_start(message: Fields, progress: Progress) -> None:
    """Nothing has been made yet, so there is a true zero of it."""
    fill(message, usage={})
    mend_member(message, "usage", lambda usage: fill(usage, output_tokens=0))
    _mend_message(message, progress)


def _mend_message(message: Fields, progress: Progress) -> None:
    fill(message, id=progress.generation_id, model=progress.model, content=[], usage={}, type="message")
    message["role"] = encode("assistant")
    add_nulls(message, "stop_reason", "stop_sequence", "container", "stop_details")
    mend_member(message, "usage", _mend_usage)


def _mend_usage(usage: Fields) -> None:
    mend_amounts(usage)
    if is_null(usage.get("output_tokens", NULL)):
        fill(usage, **{"output_tokens": 0, IS_UNKNOWN: True})
    add_nulls(
        usage,
        "input_tokens",
        "output_tokens_details",
        "cache_creation_input_tokens",
        "cache_read_input_tokens",
        "server_tool_use",
    )


def see_answer(body: bytes) -> Seen:
    return see_whole(body, "content", _read_answer, lambda fields: _mend_message(fields, Progress("", "", 0)))


def _read_answer(text: bytes, repaired: bytes | None) -> Seen:
    whole = _decode_whole(text)
    return seen(whole.id, whole.model, whole.usage, _decode_usage, repaired)


def _error_event(error: dict[str, object], progress: Progress) -> bytes:
    body = {"type": "error", "error": error, "request_id": progress.generation_id or None}
    return named_event(b"error", msgspec.json.encode(body))


def error_event(refusal: Refusal, progress: Progress) -> bytes:
    """An `error` event: both SDKs raise on it, and neither repeats a stream that has begun."""
    error = shown_once(refusal_error(refusal))
    error.pop("provider_type", None)
    return _error_event(error, progress)
