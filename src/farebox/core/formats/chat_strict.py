"""What OpenRouter's SDKs demand of a chat answer, and the known defects that are mended to meet it.

The structs are the demands (tested against `@openrouter/sdk` 1.3 and `openrouter` 1.3): an answer that decodes is left
alone, byte for byte. A chunk that breaks one throws in the caller's SDK and takes the rest of the stream with it.
"""

from collections.abc import Callable
from decimal import Decimal
from typing import Literal

import msgspec
from msgspec import UNSET, Raw, Struct, UnsetType

from farebox.core.formats import Identity
from farebox.core.reading import UNREADABLE, is_null

Fields = dict[str, Raw]

_decode_fields = msgspec.json.Decoder(Fields).decode
_decode_list = msgspec.json.Decoder(list[Fields]).decode


class PromptDetails(Struct):
    audio_tokens: int | UnsetType = UNSET
    cache_write_tokens: int | UnsetType = UNSET
    cached_tokens: int | UnsetType = UNSET
    video_tokens: int | UnsetType = UNSET


class CostDetails(Struct):
    upstream_inference_prompt_cost: Decimal
    upstream_inference_completions_cost: Decimal


class StrictUsage(Struct):
    prompt_tokens: int
    completion_tokens: int
    total_tokens: int
    cost: Decimal | None | UnsetType = UNSET
    is_byok: bool | UnsetType = UNSET
    prompt_tokens_details: PromptDetails | None | UnsetType = UNSET
    cost_details: CostDetails | None | UnsetType = UNSET


class ErrorMetadata(Struct):
    error_type: str


class ChunkError(Struct):
    code: int
    message: str
    metadata: ErrorMetadata | UnsetType = UNSET


class ToolCallDelta(Struct):
    index: int


class Delta(Struct):
    role: Literal["assistant"] | UnsetType = UNSET
    content: str | None | UnsetType = UNSET
    reasoning: str | None | UnsetType = UNSET
    reasoning_details: list[Raw] | UnsetType = UNSET
    tool_calls: list[ToolCallDelta] | UnsetType = UNSET
    refusal: str | None | UnsetType = UNSET


class ChunkChoice(Struct):
    index: int
    finish_reason: str | None
    delta: Delta


class Chunk(Struct):
    id: str
    object: Literal["chat.completion.chunk"]
    created: int
    model: str
    choices: list[ChunkChoice]
    system_fingerprint: str | UnsetType = UNSET
    error: ChunkError | UnsetType = UNSET
    usage: Raw | UnsetType = UNSET


class Message(Struct):
    role: Literal["assistant"]
    reasoning_details: list[Raw] | UnsetType = UNSET
    tool_calls: list[Raw] | UnsetType = UNSET
    images: list[Raw] | UnsetType = UNSET


class ResultChoice(Struct):
    index: int
    finish_reason: str | None
    message: Message


class Result(Struct):
    id: str
    object: Literal["chat.completion"]
    created: int
    model: str
    system_fingerprint: str | None
    choices: list[ResultChoice]
    usage: StrictUsage | UnsetType = UNSET


_NULL = Raw(b"null")


def _encode(value: object) -> Raw:
    return Raw(msgspec.json.encode(value))


def _drop(fields: Fields, *names: str) -> None:
    """Remove members that may be absent but not null."""
    for name in names:
        if name in fields and is_null(fields[name]):
            del fields[name]


def _mend_each(raw: Raw, mend: Callable[[Fields, int], None]) -> Raw:
    """A list of objects with each mended; whatever else it is, as it came."""
    try:
        members = _decode_list(raw)
    except UNREADABLE:
        return raw
    for position, fields in enumerate(members):
        mend(fields, position)
    return _encode(members)


def _mend_object(raw: Raw, mend: Callable[[Fields], None]) -> Raw:
    try:
        fields = _decode_fields(raw)
    except UNREADABLE:
        return raw
    mend(fields)
    return _encode(fields)


def mend_chunk(fields: Fields, identity: Identity) -> Fields:
    """A chunk with its known defects mended; a bare error becomes a chunk that carries it."""
    is_bare_error = "choices" not in fields and "error" in fields
    _drop(fields, "system_fingerprint", "usage", "error", "id", "model", "choices")
    fields.setdefault("id", _encode(identity.generation_id))
    fields["object"] = _encode("chat.completion.chunk")
    fields.setdefault("model", _encode(identity.model))
    _mend_created(fields, identity.created)
    if is_bare_error:
        fields["choices"] = _encode(
            [{"index": 0, "delta": {"role": "assistant", "content": ""}, "finish_reason": "error"}]
        )
    fields.setdefault("choices", Raw(b"[]"))
    fields["choices"] = _mend_each(fields["choices"], _mend_chunk_choice)
    if "usage" in fields:
        fields["usage"] = _mend_object(fields["usage"], _mend_usage)
    if "error" in fields:
        fields["error"] = _mend_error(fields["error"])
    return fields


def mend_answer(fields: Fields) -> Fields:
    """A whole answer with its known defects mended."""
    fields.setdefault("system_fingerprint", _NULL)
    fields["object"] = _encode("chat.completion")
    _drop(fields, "usage")
    _mend_created(fields, 0)
    fields["choices"] = _mend_each(fields["choices"], _mend_answer_choice)
    if "usage" in fields:
        fields["usage"] = _mend_object(fields["usage"], _mend_usage)
    return fields


def _mend_created(fields: Fields, otherwise: int) -> None:
    try:
        fields["created"] = _encode(int(msgspec.json.decode(fields.get("created", _NULL), type=Decimal)))
    except (*UNREADABLE, ValueError, OverflowError):
        fields["created"] = _encode(otherwise)


def _mend_chunk_choice(choice: Fields, position: int) -> None:
    choice.setdefault("index", _encode(position))
    choice.setdefault("finish_reason", _NULL)
    choice["delta"] = _mend_object(choice.get("delta", Raw(b"{}")), _mend_delta)


def _mend_delta(delta: Fields) -> None:
    if bytes(delta.get("role", _NULL)) != b'"assistant"':
        delta.pop("role", None)
    _drop(delta, "tool_calls", "reasoning_details")
    if "tool_calls" in delta:
        delta["tool_calls"] = _mend_each(delta["tool_calls"], _mend_tool_call)


def _mend_tool_call(call: Fields, position: int) -> None:
    call.setdefault("index", _encode(position))


def _mend_answer_choice(choice: Fields, position: int) -> None:
    choice.setdefault("index", _encode(position))
    choice.setdefault("finish_reason", _NULL)
    choice["message"] = _mend_object(choice.get("message", Raw(b"{}")), _mend_message)


def _mend_message(message: Fields) -> None:
    message["role"] = _encode("assistant")
    _drop(message, "tool_calls", "reasoning_details", "images")


def _mend_usage(usage: Fields) -> None:
    _drop(usage, "is_byok")
    for name in ("prompt_tokens", "completion_tokens", "total_tokens"):
        if is_null(usage.get(name, _NULL)):
            usage[name] = _encode(0)
    if "prompt_tokens_details" in usage:
        names = ("audio_tokens", "cache_write_tokens", "cached_tokens", "video_tokens")
        usage["prompt_tokens_details"] = _mend_object(
            usage["prompt_tokens_details"], lambda details: _drop(details, *names)
        )
    if "cost_details" in usage:
        usage["cost_details"] = _mend_object(usage["cost_details"], _mend_cost_details)


def _mend_cost_details(details: Fields) -> None:
    for name in ("upstream_inference_prompt_cost", "upstream_inference_completions_cost"):
        if is_null(details.get(name, _NULL)):
            details[name] = _encode(0)


class _LooseError(Struct):
    code: int | str | None = None
    message: str | None = None
    metadata: dict[str, Raw] | None = None


def _mend_error(raw: Raw) -> Raw:
    """An integer `code`, and `metadata` only with an `error_type`: without them the SDK throws something opaque."""
    try:
        error = msgspec.json.decode(raw, type=_LooseError)
    except UNREADABLE:
        error = _LooseError(message=bytes(raw).decode(errors="replace"))
    metadata = dict(error.metadata or {})
    if isinstance(error.code, str):
        metadata.setdefault("provider_code", _encode(error.code))
    metadata.setdefault("error_type", _encode("unmapped"))
    text = str(error.code)
    code = int(text) if text.isascii() and text.isdigit() else 502
    return _encode({"code": code, "message": error.message or "the upstream reported an error", "metadata": metadata})
