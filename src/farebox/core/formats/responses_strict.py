"""What OpenRouter's and OpenAI's SDKs demand of a response and its events, and how known defects are mended.

The structs are the demands (tested against `@openrouter/sdk` 1.3 and `openai` 7.57): what decodes is left as it is,
byte for byte.
"""

from decimal import Decimal
from typing import Literal

from msgspec import UNSET, Raw, Struct, UnsetType

from farebox.core.formats import Progress
from farebox.core.formats.mending import NULL, Amount, add_nulls, drop_nulls, encode, fill, mend_amounts, mend_member
from farebox.core.legible import Fields
from farebox.core.reading import is_null


class _InputDetails(Struct):
    cached_tokens: int


class _OutputDetails(Struct):
    reasoning_tokens: int


class _CostDetails(Struct):
    upstream_inference_input_cost: Amount
    upstream_inference_output_cost: Amount
    upstream_inference_cost: Amount | None | UnsetType = UNSET


class Usage(Struct):
    input_tokens: int
    input_tokens_details: _InputDetails
    output_tokens: int
    output_tokens_details: _OutputDetails
    total_tokens: int
    cost: Amount | None | UnsetType = UNSET
    is_byok: bool | UnsetType = UNSET
    cost_details: _CostDetails | UnsetType = UNSET


class Answer(Struct):
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


_NULLABLE = (
    "completed_at",
    "error",
    "incomplete_details",
    "instructions",
    "metadata",
    "temperature",
    "top_p",
    "presence_penalty",
    "frequency_penalty",
)

_STATUS = {"response.completed": "completed", "response.incomplete": "incomplete", "response.failed": "failed"}


def mend_event(fields: Fields, name: str, progress: Progress) -> Fields:
    """An event with its known defects mended."""
    fill(fields, sequence_number=progress.next_number)
    if name in ("response.output_text.delta", "response.output_text.done"):
        fill(fields, logprobs=[])
    elif name == "response.function_call_arguments.done":
        item_id = bytes(fields.get("item_id", b"")).decode(errors="replace").strip('"')
        fill(fields, name=progress.call_names.get(item_id, ""))
    elif "response" in fields:

        def mend(answer: Fields) -> None:
            fill(answer, status=_STATUS.get(name, "in_progress"))
            mend_answer(answer, progress)

        mend_member(fields, "response", mend)
    return fields


def mend_answer(fields: Fields, progress: Progress) -> Fields:
    """A response with its known defects mended."""
    add_nulls(fields, *_NULLABLE)
    fill(
        fields,
        id=progress.generation_id,
        model=progress.model,
        created_at=progress.created,
        status="completed",
        parallel_tool_calls=True,
        tool_choice="auto",
        tools=[],
        output=[],
    )
    fields["object"] = encode("response")
    mend_member(fields, "usage", _mend_usage)
    return fields


def _mend_usage(usage: Fields) -> None:
    drop_nulls(usage, "is_byok", "cost_details")
    mend_amounts(usage)
    fill(usage, input_tokens=0, output_tokens=0, total_tokens=0, input_tokens_details={}, output_tokens_details={})
    mend_member(usage, "input_tokens_details", lambda details: fill(details, cached_tokens=0))
    mend_member(usage, "output_tokens_details", lambda details: fill(details, reasoning_tokens=0))
    mend_member(usage, "cost_details", _mend_cost_details)


def _mend_cost_details(details: Fields) -> None:
    """Rename the two costs that have the names of chat completions, and fill in missing ones."""
    for name, in_chat in (("input", "prompt"), ("output", "completions")):
        cost = details.pop(f"upstream_inference_{in_chat}_cost", NULL)
        if is_null(details.get(f"upstream_inference_{name}_cost", NULL)):
            details[f"upstream_inference_{name}_cost"] = encode(0) if is_null(cost) else cost
