"""Lowering the thinking budget of a request with its answer cap: thinking is part of the answer, and upstreams refuse a
budget that is not below the cap.

Sources: Anthropic's documentation of extended thinking (a budget is at least 1,024 tokens, and below `max_tokens`;
`clear_thinking` edits want thinking on) and OpenRouter's of reasoning tokens (the same for `reasoning.max_tokens`,
where less than 1,024 counts as 1,024).
"""

from collections.abc import Callable

import msgspec
from msgspec import Raw

from farebox.core.formats.mending import encode
from farebox.core.legible import Fields, decode_fields, decode_list, decoded_or, written
from farebox.core.reading import Number

BUDGET_MIN = 1_024
"""The smallest budget that upstreams accept."""

Lower = Callable[[Fields, int], None]
"""Fits the thinking budget in a body to an answer of at most so many tokens."""

_decode_number = msgspec.json.Decoder(Number).decode


def lower_thinking(body: Fields, answer_tokens: int) -> None:
    """Lower the budget in `thinking` (of messages); where the answer is too short for any, remove `thinking`, and the
    context edits that upstreams refuse without it."""
    thinking = decoded_or(decode_fields, body.get("thinking"), Fields())
    budget = decoded_or(_decode_number, thinking.get("budget_tokens"), None)
    if budget is None or bytes(thinking.get("type", b"")) != b'"enabled"':
        return
    room = _room(answer_tokens)
    if room is None:
        del body["thinking"]
        _leave_out_clearing(body)
    elif budget > room:
        body["thinking"] = written({**thinking, "budget_tokens": encode(room)})


def lower_reasoning(body: Fields, answer_tokens: int) -> None:
    """Lower the budget in `reasoning` (of chat completions and responses), or remove it where the answer is too short
    for any. Reasoning is not turned off then, which models that always reason refuse."""
    reasoning = decoded_or(decode_fields, body.get("reasoning"), Fields())
    budget = decoded_or(_decode_number, reasoning.get("max_tokens"), None)
    if budget is None:
        return
    room = _room(answer_tokens)
    if room is not None:
        if budget > room:
            body["reasoning"] = written({**reasoning, "max_tokens": encode(room)})
        return
    del reasoning["max_tokens"]
    if bytes(reasoning.get("enabled", b"")) == b"true":
        del reasoning["enabled"]
    if reasoning:
        body["reasoning"] = written(reasoning)
    else:
        del body["reasoning"]


def _room(answer_tokens: int) -> int | None:
    """The highest budget: half of the answer; None where that is less than upstreams accept."""
    room = answer_tokens // 2
    return room if room >= BUDGET_MIN else None


def _leave_out_clearing(body: Fields) -> None:
    management = decoded_or(decode_fields, body.get("context_management"), Fields())
    edits = decoded_or(decode_list, management.get("edits"), list[Raw]())
    kept = [edit for edit in edits if not _is_clearing(edit)]
    if not kept and edits:
        del body["context_management"]
    elif len(kept) < len(edits):
        body["context_management"] = written({**management, "edits": Raw(b"[%b]" % b",".join(map(bytes, kept)))})


def _is_clearing(edit: Raw) -> bool:
    return bytes(decoded_or(decode_fields, edit, Fields()).get("type", b"")).startswith(b'"clear_thinking')
