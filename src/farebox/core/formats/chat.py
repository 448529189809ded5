"""OpenAI's chat completions, as OpenRouter speaks them.

Sources: OpenRouter's OpenAPI document (ChatRequest, ChatResult, ChatStreamChunk) and what its SDKs were seen to reject.
"""

import msgspec
from msgspec import UNSET, Raw, Struct, UnsetType, ValidationError

from farebox.core.errors import BROKEN_STATUS, Refusal, broken, invalid
from farebox.core.formats import PASS, Asked, Identity, Seen
from farebox.core.formats.chat_strict import Chunk, Result, StrictUsage, mend_answer, mend_chunk
from farebox.core.reading import UNREADABLE, is_null, json_path_error, skip_to_json
from farebox.core.sse import comment_event, data_event, event_data
from farebox.core.usage import read_cost

CAPS = ("max_tokens", "max_completion_tokens")
"""Where a caller caps the answer. Upstreams differ in which they read, so both are bound."""

ANSWERS_MAX = 128
"""OpenAI's own bound for `n`."""

TOOL_PROMPT_TOKENS = 1_000
"""Set aside for instructions that a host may put before a prompt with tools: an assumption, no list says it."""

_PREMIUM_TIERS = frozenset({"priority", "fast", "scale"})
_PREMIUM_SUFFIX = ":nitro"
_SEARCH_SUFFIX = ":online"


class _Message(Struct):
    content: Raw | UnsetType = UNSET


class _Part(Struct):
    type: str = ""
    image_url: Raw | UnsetType = UNSET


class _Tool(Struct):
    type: str = "function"


class _Request(Struct):
    model: str | None = None
    models: list[str] | None = None
    messages: list[_Message] | None = None
    prompt: str | list[str] | None = None
    stream: bool | None = None
    max_tokens: int | None = None
    max_completion_tokens: int | None = None
    n: int | None = None
    tools: list[_Tool] | None = None
    plugins: list[Raw] | None = None
    web_search_options: Raw | UnsetType = UNSET
    service_tier: str | None = None


_decode_request = msgspec.json.Decoder(_Request).decode
_decode_parts = msgspec.json.Decoder(list[_Part]).decode
_decode_fields = msgspec.json.Decoder(dict[str, Raw]).decode
_decode_chunk = msgspec.json.Decoder(Chunk).decode
_decode_result = msgspec.json.Decoder(Result).decode
_decode_usage = msgspec.json.Decoder(StrictUsage).decode


def read(body: bytes) -> Asked:
    """Read a request body.

    Raises:
        Refusal: 400, naming the field that is wrong and what would be right.
    """
    try:
        request = _decode_request(body)
    except UNREADABLE as error:
        raise invalid(json_path_error(error)) from error
    models = tuple(([request.model] if request.model else []) + (request.models or []))
    if not models or not all(models):
        raise invalid("model: name a model such as `openai/gpt-4o-mini`, or give a list of them in `models`")
    if request.messages is None and request.prompt is None:
        raise invalid("messages: give a list of messages")
    if request.messages is not None and not request.messages:
        raise invalid("messages: the list is empty; give at least one message")
    for name, value in (("n", request.n), *((name, getattr(request, name)) for name in CAPS)):
        if value is not None and value < 1:
            raise invalid(f"{name}: {value} is not a whole number above zero")
    if request.n is not None and request.n > ANSWERS_MAX:
        raise invalid(f"n: {request.n} answers are more than the {ANSWERS_MAX} that can be asked at once")

    picture_bytes, images, is_open = _measure(request.messages or [])
    searches = request.web_search_options is not UNSET or any(model.endswith(_SEARCH_SUFFIX) for model in models)
    served_tools = any(tool.type != "function" for tool in request.tools or ())
    caps = [cap for cap in (request.max_tokens, request.max_completion_tokens) if cap is not None]
    return Asked(
        models=models,
        streamed=request.stream is True,
        answer_tokens=max(caps) if caps else None,
        answers=request.n or 1,
        prompt_bytes=len(body) - picture_bytes + (TOOL_PROMPT_TOKENS if request.tools else 0),
        images=images,
        prompt_is_open=is_open or searches or served_tools or bool(request.plugins),
        is_premium=request.service_tier in _PREMIUM_TIERS or any(m.endswith(_PREMIUM_SUFFIX) for m in models),
    )


def _measure(messages: list[_Message]) -> tuple[int, int, bool]:
    """The bytes of pictures, their number, and whether a part is of a kind whose size its bytes do not bound."""
    picture_bytes, images, is_open = 0, 0, False
    for message in messages:
        if not isinstance(message.content, Raw):
            continue
        content = bytes(message.content)
        if content.startswith(b"["):
            for part in _read_parts(content):
                if part.type == "image_url" and isinstance(part.image_url, Raw):
                    images += 1
                    picture_bytes += len(bytes(part.image_url))
                elif part.type != "text":
                    is_open = True
        elif not content.startswith(b'"') and not is_null(message.content):
            raise invalid("messages[...].content: expected text or a list of parts")
    return picture_bytes, images, is_open


def _read_parts(content: bytes) -> list[_Part]:
    try:
        return _decode_parts(content)
    except UNREADABLE as error:
        raise invalid(f"messages[...].content: {json_path_error(error)}") from error


def capped(body: bytes, answer_tokens: int) -> bytes:
    """The body with each cap it has lowered to `answer_tokens`, or `max_tokens` set where it has none."""
    fields = _decode_fields(body)
    cap = Raw(b"%d" % answer_tokens)
    present = [name for name in CAPS if name in fields and not is_null(fields[name])]
    for name in present:
        if int(bytes(fields[name])) > answer_tokens:
            fields[name] = cap
    if not present:
        fields[CAPS[0]] = cap
    return msgspec.json.encode(fields)


def see_event(event: bytes, identity: Identity) -> Seen:
    """Read one whole server-sent event, and repair it if a strict SDK would choke on it."""
    data = event_data(event)
    if data is None:
        # Comments go on. A lone `retry:` or `id:` makes OpenAI's Python SDK parse an empty string.
        lines = event.replace(b"\r", b"\n").split(b"\n")
        if all(not line or line.startswith(b":") for line in lines):
            return PASS
        return Seen(repaired=comment_event(event))
    if data == b"[DONE]":
        return PASS
    if not data.strip() or data.startswith(b":"):
        # Empty data, or a keep-alive comment that some relay wrapped as data: both break JSON parsers.
        return Seen(repaired=comment_event(data))
    try:
        chunk = _decode_chunk(data)
        if chunk.usage is UNSET:
            if chunk.id == identity.generation_id:
                return PASS
            return Seen(generation_id=chunk.id, model=chunk.model)
        usage = _decode_usage(chunk.usage)
    except ValidationError:
        return _see_mended(data, identity)
    except UNREADABLE:
        refusal = broken("the upstream sent an event that is not JSON")
        return Seen(repaired=error_event(refusal, identity))
    return Seen(
        generation_id=chunk.id,
        model=chunk.model,
        cost=read_cost(chunk.usage),
        prompt_tokens=usage.prompt_tokens,
        answer_tokens=usage.completion_tokens,
    )


def _see_mended(data: bytes, identity: Identity) -> Seen:
    try:
        fields = _decode_fields(data)
    except UNREADABLE:
        return Seen(repaired=error_event(broken("the upstream sent an event that is not an object"), identity))
    usage = fields.get("usage")
    mended = msgspec.json.encode(mend_chunk(fields, identity))
    cost = read_cost(usage) if usage is not None and not is_null(usage) else None
    try:
        chunk = _decode_chunk(mended)
        counted = _decode_usage(chunk.usage) if chunk.usage is not UNSET else None
    except UNREADABLE:
        # Broken in a way that is not known to us: some client may still make sense of it.
        return Seen(cost=cost)
    return Seen(
        generation_id=chunk.id or None,
        model=chunk.model or None,
        cost=cost,
        prompt_tokens=counted.prompt_tokens if counted else None,
        answer_tokens=counted.completion_tokens if counted else None,
        repaired=data_event(mended),
    )


def see_answer(body: bytes) -> Seen:
    """Read a whole answer: blank lines and comments before its JSON are tolerated, absent keys that SDKs need added."""
    text = skip_to_json(body)
    repaired = None if body.endswith(text) and not body[: len(body) - len(text)].strip() else text
    try:
        fields = _decode_fields(text)
    except UNREADABLE:
        return Seen(failure=broken("the upstream answered with something that is not JSON"))
    usage = fields.get("usage")
    cost = read_cost(usage) if usage is not None and not is_null(usage) else None
    if "choices" not in fields:
        return Seen(cost=cost, failure=_failure(fields.get("error")))
    try:
        result = _decode_result(text)
    except UNREADABLE:
        repaired = msgspec.json.encode(mend_answer(fields))
        try:
            result = _decode_result(repaired)
        except UNREADABLE:
            return Seen(cost=cost)
    counted = result.usage if isinstance(result.usage, StrictUsage) else None
    return Seen(
        generation_id=result.id,
        model=result.model,
        cost=cost,
        prompt_tokens=counted.prompt_tokens if counted else None,
        answer_tokens=counted.completion_tokens if counted else None,
        repaired=repaired,
    )


class _Error(Struct):
    message: str = ""


def _failure(error: Raw | None) -> Refusal:
    try:
        said = msgspec.json.decode(error or b"{}", type=_Error).message
    except UNREADABLE:
        said = ""
    return broken(
        f"the upstream accepted the order and then failed: {said}" if said else "the upstream's answer has no choices"
    )


def error_event(refusal: Refusal, identity: Identity) -> bytes:
    """In the full chunk shape: OpenRouter's SDK throws something opaque on a bare error. OpenAI's raise either way."""
    chunk = {
        "id": identity.generation_id,
        "object": "chat.completion.chunk",
        "created": identity.created,
        "model": identity.model,
        "choices": [{"index": 0, "delta": {"role": "assistant", "content": ""}, "finish_reason": "error"}],
        "error": _error(refusal, 502 if refusal.status == BROKEN_STATUS else refusal.status),
    }
    return data_event(msgspec.json.encode(chunk))


def refusal_body(refusal: Refusal) -> bytes:
    """OpenRouter's envelope. Without an integer `code` and `metadata.error_type` its SDKs lose the error's type."""
    return msgspec.json.encode({"error": _error(refusal, refusal.status)})


def _error(refusal: Refusal, code: int) -> dict[str, object]:
    return {
        "code": code,
        "message": refusal.message,
        "metadata": {"error_type": refusal.error_type, **refusal.metadata},
    }
