"""OpenAI's chat completions, as OpenRouter speaks them.

Sources: OpenRouter's OpenAPI document (ChatRequest, ChatResult, ChatStreamChunk), and tests of what its SDKs reject.
"""

from collections.abc import Mapping

import msgspec
from msgspec import UNSET, Raw, Struct, UnsetType, ValidationError
from msgspec.structs import replace

from farebox.core.errors import Refusal, broken, invalid
from farebox.core.formats import PASS, Asked, Progress, Seen
from farebox.core.formats.asking import Request, asked, count, decoded, decoded_part, models_of, with_caps
from farebox.core.formats.bounds import BYTES, OPEN, PICTURE, Bounds, Kind
from farebox.core.formats.chat_strict import Chunk, Result, StrictUsage, mend_answer, mend_chunk, remember_calls
from farebox.core.formats.chat_usage import counting
from farebox.core.formats.describing import CAP, COMMON, HELLO, SERVED, USAGE, Described
from farebox.core.formats.envelope import ERROR, blames_account, error_in_band, read_error, refusal_body, typed_refusal
from farebox.core.formats.mending import BRACE, cost_before_the_break, cost_in, see_whole, seen, without_object
from farebox.core.formats.thinking import lower_reasoning
from farebox.core.legible import decode_fields, decoded_or, legible, leniently, written
from farebox.core.reading import UNREADABLE, Many, Number, is_null
from farebox.core.schemas import NAME, OBJECT, TEXT, WHOLE, array_of, object_of, or_null
from farebox.core.sse import CR, KEEP_ALIVE, LF, data_event, event_data

__all__ = ["CAPS", "DESCRIBED", "KEEP_ALIVE", "TEXT_BEGINS"]
__all__ += ["capped", "counting", "error_event", "read", "refusal_body", "see_answer", "see_event", "typed_refusal"]

TEXT_BEGINS = b'"content":"'

CAPS: tuple[str, ...] = ("max_tokens", "max_completion_tokens")
"""The caps of an answer. Upstreams differ in which of them they read, so both are lowered."""

ANSWERS_MAX = 128
"""OpenAI's limit of `n`."""

_SAID = {"oneOf": [or_null(TEXT), array_of(object_of({"type": TEXT}))]}

DESCRIBED = Described(
    "Chat completion",
    request=(
        "ChatRequest",
        object_of(
            {"model": NAME, "messages": array_of(object_of({"role": TEXT}, {"content": _SAID}), minItems=1)},
            {**COMMON, **dict.fromkeys(CAPS, CAP), "n": {**CAP, "maximum": ANSWERS_MAX}},
        ),
    ),
    answer=("ChatResult", object_of({**SERVED, "object": TEXT, "created": WHOLE, "choices": array_of(OBJECT)}, USAGE)),
    refusal=ERROR,
    example={"model": "sim/echo", "messages": HELLO},
)


PARTS: Mapping[str, Kind] = {
    "text": BYTES,
    "refusal": BYTES,
    "image_url": PICTURE,
    "file": OPEN,
    "input_audio": OPEN,
    "input_video": OPEN,
    "video_url": OPEN,
}
"""The kinds of a message's parts."""


class _Message(Struct, gc=False):
    """A message. `images` and `audio` stand in an earlier answer of the assistant's."""

    content: Raw | UnsetType = UNSET
    images: Raw | UnsetType = UNSET
    audio: Raw | UnsetType = UNSET


class _Part(Struct, gc=False):
    type: str = ""
    image_url: Raw | UnsetType = UNSET


class _Request(Request):
    messages: Many[_Message] | None = None
    prompt: str | Many[str] | None = None
    max_tokens: Number | None = None
    max_completion_tokens: Number | None = None
    n: Number | None = None
    web_search_options: Raw | UnsetType = UNSET


_decode_request = msgspec.json.Decoder(_Request).decode
_decode_parts = msgspec.json.Decoder(list[_Part]).decode
_decode_chunk = msgspec.json.Decoder(Chunk).decode
_decode_result = msgspec.json.Decoder(Result).decode
_decode_usage = msgspec.json.Decoder(StrictUsage).decode


def read(body: bytes) -> Asked:
    request = decoded(_decode_request, body)
    models = models_of(request)
    if request.messages is None and request.prompt is None:
        raise invalid("messages: give a list of messages")
    if request.messages is not None and not request.messages:
        raise invalid("messages: the list is empty; give at least one message")
    caps = [count(name, cap) for name in CAPS if (cap := getattr(request, name)) is not None]
    answers = 1 if request.n is None else count("n", request.n)
    if answers > ANSWERS_MAX:
        raise invalid(f"n: {request.n} answers are more than the {ANSWERS_MAX} that can be asked at once")

    bounds = Bounds()
    _measure(request.messages or [], bounds)
    if request.web_search_options is not UNSET:
        bounds.add_search_options(request.web_search_options)
    prompts = len(request.prompt) or 1 if isinstance(request.prompt, list) else 1
    found = asked(request, body, models, bounds, max(caps) if caps else None)
    return found if answers == prompts == 1 else replace(found, answers=answers, prompts=prompts)


def _measure(messages: list[_Message], bounds: Bounds) -> None:
    for message in messages:
        if message.images is not UNSET:
            # Those of an earlier answer. Where they cannot be read, their bytes count.
            for part in bounds.take(decoded_or(_decode_parts, message.images, list[_Part]())):
                bounds.add_picture(part.image_url)
        if message.audio is not UNSET and not is_null(message.audio):
            bounds.is_open = True  # an earlier answer, by its id
        content = b"null" if message.content is UNSET else bytes(message.content)
        if content.startswith(b'"'):
            continue
        if content.startswith(b"["):
            for part in bounds.take(decoded_part(_decode_parts, content, "messages[...].content")):
                kind = PARTS.get(part.type, OPEN)
                if kind != BYTES:
                    bounds.add(kind, part.type, part.image_url)
        elif content != b"null":
            raise invalid("messages[...].content: expected text or a list of parts")


def capped(body: bytes, answer_tokens: int) -> bytes:
    """The body with its caps lowered to `answer_tokens` (`max_tokens` set where it has none), and a reasoning budget
    with them."""
    return with_caps(body, CAPS, answer_tokens, lower_reasoning)


def see_event(event: bytes, progress: Progress) -> Seen:
    """Read one whole server-sent event, and repair it if a strict SDK would choke on it."""
    data: bytes | None
    data = line = event[6:-2]
    if event[:7] != b"data: {" or LF in line or CR in line:  # nearly none is so
        data = event_data(event)
        if not data or data[0] != BRACE:
            plain = without_object(event, data)
            if plain is not None or data is None:
                return plain or PASS
    try:
        chunk = _decode_chunk(data)
        if chunk.error is UNSET or not _blames_account(data):
            if chunk.usage is not UNSET and is_null(chunk.usage):
                return _see_without_null(data, progress)
            return _seen(chunk, progress)
    except ValidationError:
        return _see_mended(data, progress)
    except UNREADABLE:
        return _see_in_copy(data, progress)
    return _see_mended(data, progress)


def _blames_account(data: bytes) -> bool:
    error = read_error(decode_fields(data)["error"])
    return blames_account(error, error.code)


def _seen(chunk: Chunk, progress: Progress, repaired: bytes | None = None) -> Seen:
    remembers = False
    for choice in chunk.choices:
        if choice.delta.tool_calls is not UNSET:
            remember_calls(choice, progress)
            remembers = True
    if chunk.usage is UNSET and repaired is None and chunk.id == progress.generation_id and not remembers:
        return PASS
    if progress.withholds_usage and chunk.usage is not UNSET and not chunk.choices:
        repaired = b""
    return seen(chunk.id, chunk.model, chunk.usage, _decode_usage, repaired)


_NULL_USAGE = b',"usage":null'
"""What OpenAI puts into each chunk of a stream whose usage was asked for, but the one that has it. Within a text its
quotes would be escaped: it is nothing but a member."""


def _see_without_null(data: bytes, progress: Progress) -> Seen:
    data = data.replace(_NULL_USAGE, b"", 1)
    try:
        return _seen(_decode_chunk(data), progress, data_event(data))
    except UNREADABLE:
        return _see_mended(data, progress)


def _see_in_copy(data: bytes, progress: Progress) -> Seen:
    """Read an event in its legible copy: it is not valid JSON. If some client can read it, it goes on as it came."""
    try:
        return _seen(_decode_chunk(legible(data)), progress)
    except ValidationError:
        return _see_mended(data, progress)
    except UNREADABLE:
        refusal = broken("the upstream sent an event that is not JSON")
        return Seen(cost=cost_before_the_break(data), repaired=error_event(refusal, progress))


def _see_mended(data: bytes, progress: Progress) -> Seen:
    try:
        fields = decode_fields(data)
    except UNREADABLE:
        refusal = broken("the upstream sent an event that is not an object")
        return Seen(cost=cost_before_the_break(data), repaired=error_event(refusal, progress))
    cost = cost_in(fields)
    mended = bytes(written(mend_chunk(fields, progress)))
    try:
        return replace(_seen(leniently(_decode_chunk, mended), progress, data_event(mended)), cost=cost)
    except UNREADABLE:
        # An unknown defect: some client may still make sense of the event.
        return Seen(cost=cost)


def see_answer(body: bytes) -> Seen:
    return see_whole(body, "choices", _read_answer, mend_answer)


def _read_answer(text: bytes, repaired: bytes | None) -> Seen:
    result = _decode_result(text)
    return seen(result.id, result.model, result.usage, _decode_usage, repaired)


def error_event(refusal: Refusal, progress: Progress) -> bytes:
    """In the full chunk shape: OpenRouter's SDK throws something opaque on a bare error. OpenAI's raise either way."""
    chunk = {
        "id": progress.generation_id,
        "object": "chat.completion.chunk",
        "created": progress.created,
        "model": progress.model,
        "choices": [{"index": 0, "delta": {"role": "assistant", "content": ""}, "finish_reason": "error"}],
        "error": error_in_band(refusal),
    }
    return data_event(msgspec.json.encode(chunk))
