"""An answer's usage in each format, to and from the neutral form. Costs are OpenRouter's members and stay as they are
written; each format has its own names for their parts.

Chat completions and responses count tokens of a cache within the prompt, messages beside it. A usage that cannot be
right is none: who cannot be charged by it is not to be told it, either.
"""

from typing import Annotated

import msgspec
from msgspec import Meta, Raw, Struct

from farebox.core.formats.mending import IS_UNKNOWN
from farebox.core.legible import decoded_or
from farebox.core.translate.neutral import Usage
from farebox.core.translate.raw import said

Count = Annotated[int, Meta(ge=0)] | None
"""As strict as for who charges by it (`core/formats/counting.py`): `40.0` is none."""


class _Details(Struct):
    cached_tokens: Count = None
    cache_write_tokens: Count = None
    reasoning_tokens: Count = None
    thinking_tokens: Count = None


class _Creation(Struct):
    ephemeral_1h_input_tokens: Count = None


class _Costs(Struct):
    upstream_inference_cost: Raw = Raw(b"null")
    upstream_inference_prompt_cost: Raw = Raw(b"null")
    upstream_inference_completions_cost: Raw = Raw(b"null")
    upstream_inference_input_cost: Raw = Raw(b"null")
    upstream_inference_output_cost: Raw = Raw(b"null")


class _Told(Struct):
    """The members of a usage, by the names of all formats."""

    prompt_tokens: Count = None
    completion_tokens: Count = None
    input_tokens: Count = None
    output_tokens: Count = None
    prompt_tokens_details: _Details | None = None
    completion_tokens_details: _Details | None = None
    input_tokens_details: _Details | None = None
    output_tokens_details: _Details | None = None
    cache_read_input_tokens: Count = None
    cache_creation_input_tokens: Count = None
    cache_creation: _Creation | None = None
    cost: Raw = Raw(b"null")
    is_byok: Raw = Raw(b"null")
    cost_details: _Costs | None = None
    is_unknown: bool | None = None


_decode = msgspec.json.Decoder(_Told).decode
_NONE = _Details()


def read_usage(raw: bytes | Raw | None, *, is_messages: bool = False) -> Usage | None:
    """A usage; None where there is none that can be read, or where a count of it is missing that every usage has, is
    below zero, or larger than the whole that it is a part of."""
    if raw is None or bytes(raw) == b"null":
        return None
    told = decoded_or(_decode, raw, None)
    if told is None or told.is_unknown:
        return None
    prompt, answer = _first(told.prompt_tokens, told.input_tokens), _first(told.completion_tokens, told.output_tokens)
    if prompt is None or answer is None:
        return None
    ins = told.prompt_tokens_details or told.input_tokens_details or _NONE
    outs = told.completion_tokens_details or told.output_tokens_details or _NONE
    cached = _first(ins.cached_tokens, told.cache_read_input_tokens) or 0
    written = _first(ins.cache_write_tokens, told.cache_creation_input_tokens) or 0
    written_1h = (told.cache_creation and told.cache_creation.ephemeral_1h_input_tokens) or 0
    reasoning = _first(outs.reasoning_tokens, outs.thinking_tokens) or 0
    if is_messages:
        prompt += cached + written
    if prompt < cached + written:
        return None
    return _with_costs(Usage(prompt, answer, cached, written, written_1h, reasoning), told)


def _with_costs(usage: Usage, told: _Told) -> Usage:
    usage.cost, usage.is_byok = said(told.cost), said(told.is_byok)
    if (costs := told.cost_details) is not None:
        usage.upstream_cost = said(costs.upstream_inference_cost)
        prompt, answer = costs.upstream_inference_prompt_cost, costs.upstream_inference_completions_cost
        usage.upstream_prompt_cost = said(prompt) or said(costs.upstream_inference_input_cost)
        usage.upstream_answer_cost = said(answer) or said(costs.upstream_inference_output_cost)
    return usage


def _first(count: Count, otherwise: Count) -> Count:
    return otherwise if count is None else count


def _costs(usage: Usage, prompt: str, answer: str) -> dict[str, object]:
    """OpenRouter's members of what it cost, as far as they were told."""
    costs: dict[str, object] = {} if usage.cost is None else {"cost": usage.cost}
    if usage.is_byok is not None:
        costs["is_byok"] = usage.is_byok
    if usage.upstream_cost is not None or usage.upstream_prompt_cost is not None:
        costs["cost_details"] = {
            "upstream_inference_cost": usage.upstream_cost,
            f"upstream_inference_{prompt}_cost": usage.upstream_prompt_cost or 0,
            f"upstream_inference_{answer}_cost": usage.upstream_answer_cost or 0,
        }
    return costs


def usage_in_chat(usage: Usage) -> dict[str, object]:
    return {
        "prompt_tokens": usage.prompt,
        "completion_tokens": usage.answer,
        "total_tokens": usage.prompt + usage.answer,
        **_costs(usage, "prompt", "completions"),
        "prompt_tokens_details": {"cached_tokens": usage.cached, "cache_write_tokens": usage.cache_written},
        "completion_tokens_details": {"reasoning_tokens": usage.reasoning},
    }


def usage_in_messages(usage: Usage | None) -> dict[str, object]:
    """Where there is none, what Anthropic's SDKs demand is zero, and marked as not known; the rest is null."""
    if usage is None:
        return {"input_tokens": 0, "output_tokens": 0, IS_UNKNOWN: True, **_NOT_TOLD}
    creation = {
        "ephemeral_5m_input_tokens": max(0, usage.cache_written - usage.cache_written_1h),
        "ephemeral_1h_input_tokens": usage.cache_written_1h,
    }
    return {
        "input_tokens": max(0, usage.prompt - usage.cached - usage.cache_written),
        "output_tokens": usage.answer,
        "output_tokens_details": {"thinking_tokens": usage.reasoning},
        "cache_creation_input_tokens": usage.cache_written,
        "cache_read_input_tokens": usage.cached,
        "cache_creation": creation if usage.cache_written else None,
        "server_tool_use": None,
        **_costs(usage, "prompt", "completions"),
    }


_NOT_TOLD: dict[str, object] = {
    "output_tokens_details": None,
    "cache_creation_input_tokens": None,
    "cache_read_input_tokens": None,
    "cache_creation": None,
    "server_tool_use": None,
}

USAGE_AT_START: dict[str, object] = {"input_tokens": 0, "output_tokens": 0, **_NOT_TOLD}
"""What a message's stream begins with: its usage is told with its end."""


def usage_in_responses(usage: Usage) -> dict[str, object]:
    return {
        "input_tokens": usage.prompt,
        "input_tokens_details": {"cached_tokens": usage.cached, "cache_write_tokens": usage.cache_written},
        "output_tokens": usage.answer,
        "output_tokens_details": {"reasoning_tokens": usage.reasoning},
        "total_tokens": usage.prompt + usage.answer,
        **_costs(usage, "input", "output"),
    }
