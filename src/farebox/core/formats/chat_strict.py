"""What OpenRouter's SDKs demand of a chat answer, and how known defects are mended to meet that.

The structs are the demands (tested against `@openrouter/sdk` 1.3 and `openrouter` 1.3): an answer that decodes is left
as it is, byte for byte. A chunk that does not makes the caller's SDK throw, and the rest of its stream is lost.
"""

from typing import Literal

import msgspec
from msgspec import UNSET, Raw, Struct, UnsetType, field

from farebox.core.formats import Calls, Progress
from farebox.core.formats.envelope import read_error, typed_error, unblaming
from farebox.core.formats.mending import (
    NULL,
    Amount,
    add_nulls,
    drop_nulls,
    encode,
    fill,
    fill_counts,
    mend_amounts,
    mend_each,
    mend_member,
    mend_object,
    mend_whole_number,
)
from farebox.core.legible import Fields, decode_list, decoded_or
from farebox.core.reading import is_null


class PromptDetails(Struct, gc=False):
    audio_tokens: int | UnsetType = UNSET
    cache_write_tokens: int | UnsetType = UNSET
    cached_tokens: int | UnsetType = UNSET
    video_tokens: int | UnsetType = UNSET


class StrictCostDetails(Struct, gc=False):
    upstream_inference_prompt_cost: Amount
    upstream_inference_completions_cost: Amount
    upstream_inference_cost: Amount | None | UnsetType = UNSET


class StrictUsage(Struct, gc=False):
    prompt_tokens: int
    answer_tokens: int = field(name="completion_tokens")
    total_tokens: int
    cost: Amount | None | UnsetType = UNSET
    is_byok: bool | UnsetType = UNSET
    prompt_tokens_details: PromptDetails | None | UnsetType = UNSET
    cost_details: StrictCostDetails | None | UnsetType = UNSET


class ErrorMetadata(Struct, gc=False):
    error_type: str


class ChunkError(Struct, gc=False):
    code: int
    message: str
    metadata: ErrorMetadata | UnsetType = UNSET


class ToolCallDelta(Struct, gc=False):
    index: int
    id: str | None = None


class Delta(Struct, gc=False):
    """Its texts are not checked: a wrong one could not be mended."""

    role: Literal["assistant"] | UnsetType = UNSET
    reasoning_details: list[Raw] | UnsetType = UNSET
    tool_calls: list[ToolCallDelta] | UnsetType = UNSET


class ChunkChoice(Struct, gc=False):
    index: int
    finish_reason: str | None
    delta: Delta


class Chunk(Struct, gc=False):
    id: str
    object: Literal["chat.completion.chunk"]
    created: int
    model: str
    choices: list[ChunkChoice]
    system_fingerprint: str | UnsetType = UNSET
    error: ChunkError | UnsetType = UNSET
    usage: Raw | UnsetType = UNSET


class Message(Struct, gc=False):
    role: Literal["assistant"]
    reasoning_details: list[Raw] | UnsetType = UNSET
    tool_calls: list[Raw] | UnsetType = UNSET
    images: list[Raw] | UnsetType = UNSET


class ResultChoice(Struct, gc=False):
    index: int
    finish_reason: str | None
    message: Message


class Result(Struct, gc=False):
    id: str
    object: Literal["chat.completion"]
    created: int
    model: str
    system_fingerprint: str | None
    choices: list[ResultChoice]
    usage: Raw | UnsetType = UNSET


_decode_int = msgspec.json.Decoder(int).decode
_decode_text = msgspec.json.Decoder(str).decode


def mend_chunk(fields: Fields, progress: Progress) -> Fields:
    """A chunk with its known defects mended; a bare error becomes a chunk that carries it."""
    is_bare_error = "choices" not in fields and "error" in fields
    drop_nulls(fields, "system_fingerprint", "usage", "error", "id", "model", "choices")
    fields.setdefault("id", encode(progress.generation_id))
    fields["object"] = encode("chat.completion.chunk")
    fields.setdefault("model", encode(progress.model))
    mend_whole_number(fields, "created", progress.created)
    if is_bare_error:
        fields["choices"] = encode(
            [{"index": 0, "delta": {"role": "assistant", "content": ""}, "finish_reason": "error"}]
        )
    fields.setdefault("choices", Raw(b"[]"))
    fields["choices"] = mend_each(
        fields["choices"], lambda choice, position: _mend_chunk_choice(choice, position, progress)
    )
    mend_member(fields, "usage", _mend_usage)
    if "error" in fields:
        fields["error"] = encode(typed_error(unblaming(read_error(fields["error"])), 502))
    return fields


def mend_answer(fields: Fields) -> Fields:
    """A whole answer with its known defects mended."""
    add_nulls(fields, "system_fingerprint")
    fields["object"] = encode("chat.completion")
    drop_nulls(fields, "usage")
    mend_whole_number(fields, "created", 0)
    fields["choices"] = mend_each(fields["choices"], _mend_answer_choice)
    mend_member(fields, "usage", _mend_usage)
    return fields


def remember_calls(choice: ChunkChoice, progress: Progress) -> None:
    """Remember the indices of a choice's tool calls, for later chunks that leave them out."""
    assert choice.delta.tool_calls is not UNSET
    calls = progress.calls.setdefault(choice.index, Calls())
    for call in choice.delta.tool_calls:
        calls.take(call.id, call.index)


def _mend_chunk_choice(choice: Fields, position: int, progress: Progress) -> None:
    fill(choice, index=position)
    add_nulls(choice, "finish_reason")

    def mend(delta: Fields) -> None:
        if bytes(delta.get("role", b"")) != b'"assistant"':
            delta.pop("role", None)
        drop_nulls(delta, "tool_calls", "reasoning_details")
        if "tool_calls" in delta:
            calls = progress.calls.setdefault(decoded_or(_decode_int, choice["index"], position), Calls())
            delta["tool_calls"] = _mend_tool_calls(delta["tool_calls"], calls)

    fill(choice, delta={})
    choice["delta"] = mend_object(choice["delta"], mend)


def _mend_tool_calls(tool_calls: Raw, calls: Calls) -> Raw:
    is_one = len(decoded_or(decode_list, tool_calls, list[Raw]())) == 1
    return mend_each(tool_calls, lambda call, position: _mend_tool_call(call, calls, None if is_one else position))


def _mend_tool_call(call: Fields, calls: Calls, position: int | None) -> None:
    """Add the index that some hosts leave out, above all where they send one call per chunk. A new id is the next call;
    a delta without an id continues the latest call, or, among several, the one at its `position`."""
    call_id = decoded_or(_decode_text, call.get("id"), "")
    if is_null(call.get("index", NULL)):
        call["index"] = encode(position if position is not None and not call_id else calls.number(call_id))
    calls.take(call_id, decoded_or(_decode_int, call["index"], calls.last))


def _mend_answer_choice(choice: Fields, position: int) -> None:
    fill(choice, index=position)
    add_nulls(choice, "finish_reason")
    fill(choice, message={})
    choice["message"] = mend_object(choice["message"], _mend_message)


def _mend_message(message: Fields) -> None:
    message["role"] = encode("assistant")
    drop_nulls(message, "tool_calls", "reasoning_details", "images")


def _mend_usage(usage: Fields) -> None:
    drop_nulls(usage, "is_byok")
    mend_amounts(usage)
    fill_counts(usage, "prompt_tokens", "completion_tokens")
    names = PromptDetails.__struct_fields__
    mend_member(usage, "prompt_tokens_details", lambda details: drop_nulls(details, *names))
    mend_member(usage, "cost_details", mend_cost_details)


def mend_cost_details(details: Fields) -> None:
    fill(details, upstream_inference_prompt_cost=0, upstream_inference_completions_cost=0)
