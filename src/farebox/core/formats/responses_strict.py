"""What OpenRouter's and OpenAI's SDKs demand of a response and its events, and how known defects are mended.

The structs are the demands (tested against `@openrouter/sdk` 1.3 and `openai` 7.57). What the specification requires
beyond them stands in `responses_required`: what has all of both is left as it is, byte for byte.
"""

from decimal import Decimal
from typing import Literal

import msgspec
from msgspec import UNSET, Raw, Struct, UnsetType, field

from farebox.core.formats import Progress
from farebox.core.formats.envelope import UNTOLD, read_error, unblaming
from farebox.core.formats.mending import (
    NULL,
    Amount,
    drop_nulls,
    encode,
    fill,
    fill_counts,
    mend_amounts,
    mend_member,
)
from farebox.core.formats.responses_required import complete_event, completed
from farebox.core.legible import Fields, decoded_or
from farebox.core.reading import is_null


class _InputDetails(Struct):
    cached_tokens: int


class _OutputDetails(Struct):
    reasoning_tokens: int


class _CostDetails(Struct):
    upstream_inference_input_cost: Amount
    upstream_inference_output_cost: Amount
    upstream_inference_cost: Amount | None | UnsetType = UNSET


class StrictUsage(Struct):
    input_tokens_details: _InputDetails
    output_tokens_details: _OutputDetails
    total_tokens: int
    prompt_tokens: int = field(name="input_tokens")
    answer_tokens: int = field(name="output_tokens")
    cost: Amount | None | UnsetType = UNSET
    is_byok: bool | UnsetType = UNSET
    cost_details: _CostDetails | UnsetType = UNSET


class StrictResponse(Struct):
    id: str
    object: Literal["response"]
    created_at: int
    completed_at: int | None
    model: str
    status: str
    error: Raw
    incomplete_details: Raw
    instructions: Raw
    metadata: Raw
    temperature: Decimal | None
    top_p: Decimal | None
    presence_penalty: Decimal | None
    frequency_penalty: Decimal | None
    parallel_tool_calls: bool
    tool_choice: Raw
    tools: list[Raw]
    output: list[Raw]
    usage: Raw | UnsetType = UNSET


_NOT_REPEATED = "invalid_prompt"

_SHOWN_ONCE = frozenset({_NOT_REPEATED, "context_length_exceeded"})
"""The codes of a failed response that readers show, and order nothing again. (`insufficient_quota` is another, and is
about an account that is not the caller's.) Codex (0.171) repeats others five times;
Vercel's AI SDK (7, its OpenAI provider 4.0) repeats those that are no refusal, and one without an error, twice."""


class _Error(Struct):
    code: str
    message: str


_decode_error = msgspec.json.Decoder(_Error).decode


def is_shown_once(error: Raw) -> bool:
    """Whether no reader orders again on this error of a failed response."""
    read = decoded_or(_decode_error, error, None)
    return read is not None and read.code in _SHOWN_ONCE


def shown_once(message: str, code: str | int | None = None) -> dict[str, object]:
    """The error of a failed response on which no reader orders again; `code` is what it was."""
    error: dict[str, object] = {"code": _NOT_REPEATED, "message": message}
    return error if code is None else {**error, "metadata": {"provider_code": code}}


_STATUS = {"response.completed": "completed", "response.incomplete": "incomplete", "response.failed": "failed"}


def mend_event(fields: Fields, name: str, progress: Progress) -> Fields:
    """An event with its known defects mended."""
    fill(fields, sequence_number=progress.next_number)
    complete_event(fields, name, progress)
    if name in ("response.output_text.delta", "response.output_text.done"):
        fill(fields, logprobs=[])
    elif name == "response.function_call_arguments.done":
        item_id = bytes(fields.get("item_id", b"")).decode(errors="replace").strip('"')
        fill(fields, name=progress.call_names.get(item_id, ""))
    elif name == "response.failed" or "response" in fields:
        beside = fields.get("error", NULL)

        def mend(response: Fields) -> None:
            fill(response, status=_STATUS.get(name, "in_progress"))
            if name == "response.failed" and not is_shown_once(response.get("error", NULL)):
                response["error"] = encode(_told_once(response.get("error", NULL), beside))
            mend_response(response, progress)

        if name == "response.failed":
            fill(fields, response={})
        mend_member(fields, "response", mend)
    return fields


def _told_once(within: Raw, beside: Raw) -> dict[str, object]:
    """The error of a response that failed, or the one beside it, with a code that nobody repeats."""
    error = unblaming(read_error(beside if is_null(within) else within))
    return shown_once(error.message or UNTOLD, error.code)


def mend_response(fields: Fields, progress: Progress) -> Fields:
    """A response with its known defects mended."""
    fill(
        fields,
        id=progress.generation_id,
        model=progress.model,
        created_at=progress.created,
        status="completed",
        output=[],
    )
    fields["object"] = encode("response")
    mend_member(fields, "usage", _mend_usage)
    fields.update(completed(fields, progress))
    return fields


def _mend_usage(usage: Fields) -> None:
    drop_nulls(usage, "is_byok", "cost_details")
    mend_amounts(usage)
    fill_counts(usage, "input_tokens", "output_tokens")
    fill(usage, input_tokens_details={}, output_tokens_details={})
    mend_member(usage, "input_tokens_details", lambda details: fill(details, cached_tokens=0))
    mend_member(usage, "output_tokens_details", lambda details: fill(details, reasoning_tokens=0))
    mend_member(usage, "cost_details", _mend_cost_details)


def _mend_cost_details(details: Fields) -> None:
    """Rename the two costs that have the names of chat completions, and fill in missing ones."""
    for name, in_chat in (("input", "prompt"), ("output", "completions")):
        cost = details.pop(f"upstream_inference_{in_chat}_cost", NULL)
        if is_null(details.get(f"upstream_inference_{name}_cost", NULL)):
            details[f"upstream_inference_{name}_cost"] = encode(0) if is_null(cost) else cost
