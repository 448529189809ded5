"""Simulated messages in Anthropic's format; a stream has its cost in the event `message_delta`."""

from collections.abc import Iterator, Sequence
from typing import Any, Protocol

import msgspec
from msgspec import Raw, Struct

from farebox.core.errors import invalid
from farebox.core.formats.messages_errors import refusal_body as refused
from farebox.core.reading import Number
from farebox.simulator import talk
from farebox.simulator.faults import Faults
from farebox.simulator.models import PROVIDER
from farebox.simulator.talk import Said, Talk, Turn

__all__ = ["COMMENT", "events", "read", "refused", "whole"]

COMMENT = b": OPENROUTER PROCESSING"

_WHOLE_ONLY = {"cache_creation": None, "inference_geo": None, "service_tier": None}
"""Members of a usage that `message_delta` does not have."""

_STOPS = {"stop": "end_turn", "length": "max_tokens", "tool_calls": "tool_use"}


class _Block(Struct):
    type: str
    text: str = ""
    content: Any = None


class _Message(Struct):
    role: str
    content: str | list[_Block]


class _Tool(Struct):
    name: str
    input_schema: Any = None


class _Fallback(Struct):
    model: str


class _Thinking(Struct):
    type: str
    budget_tokens: Number | None = None


class _Edit(Struct):
    type: str


class _ContextManagement(Struct):
    edits: list[_Edit] = []


class _Request(Struct):
    model: str
    messages: list[_Message]
    models: list[str] | None = None
    fallbacks: list[_Fallback] | None = None
    system: str | list[_Block] | None = None
    stream: bool | None = None
    max_tokens: Number | None = None
    tools: list[_Tool] | None = None
    tool_choice: Raw = Raw(b"null")
    thinking: _Thinking | None = None
    output_config: Any = None
    context_management: _ContextManagement | None = None


_decode = msgspec.json.Decoder(_Request).decode


def read(body: bytes) -> Talk:
    request = _decode(body)
    if request.models and request.fallbacks:
        raise invalid("models and fallbacks cannot be combined")
    if not request.messages:
        raise invalid("messages: at least one message is required")
    system = [_Message("system", request.system)] if request.system else []
    functions = [(each.name, each.input_schema) for each in request.tools or ()]
    cap = talk.least_cap(max_tokens=request.max_tokens)
    _check_thinking(request, cap)
    return Talk(
        (request.model, *(request.models or []), *(each.model for each in request.fallbacks or ())),
        tuple(turn for message in [*system, *request.messages] for turn in turns_of(message.role, message.content)),
        streamed=request.stream is True,
        cap=cap,
        tools=talk.callable_tools(functions, request.tool_choice),
        one_call=is_one_call(request.tool_choice),
        form=talk.member(request.output_config, "format", "schema"),
    )


def _check_thinking(request: _Request, cap: int | None) -> None:
    """Refuse what Anthropic refuses of thinking, in its words."""
    thinking, management = request.thinking, request.context_management
    if thinking is not None and thinking.type == "enabled":
        if thinking.budget_tokens is None:
            raise invalid("thinking.enabled.budget_tokens: Field required")
        if thinking.budget_tokens < talk.BUDGET_MIN:
            raise invalid(f"thinking.enabled.budget_tokens: Input should be greater than or equal to {talk.BUDGET_MIN}")
        talk.check_budget("thinking.budget_tokens", thinking.budget_tokens, cap)
    for edit in management.edits if management is not None else ():
        if edit.type.startswith("clear_thinking") and (thinking is None or thinking.type == "disabled"):
            raise invalid(f"`{edit.type}` strategy requires `thinking` to be enabled or adaptive")


class Block(Protocol):
    """A part of a message."""

    type: str
    text: str
    content: Any


def turns_of(role: str, content: str | Sequence[Block]) -> Iterator[Turn]:
    """A message as turns: each result of a tool is one, as it is in other formats."""
    if isinstance(content, str):
        yield Turn(role, (content,))
        return
    results = [block for block in content if block.type == "tool_result"]
    rest = [block for block in content if block.type != "tool_result"]
    yield from (Turn("tool", (talk.text_in(block.content),)) for block in results)
    if rest or not results:
        texts = (block.text or talk.text_in(block.content) for block in rest)
        images = sum(block.type == "image" for block in rest)
        yield Turn("tool" if results else role, tuple(text for text in texts if text), images)


def is_one_call(choice: Raw) -> bool:
    """Whether a `tool_choice` allows no two calls at once."""
    return talk.member(msgspec.json.decode(choice), "disable_parallel_tool_use") is True


def _usage(said: Said, faults: Faults) -> dict[str, object]:
    return {
        "input_tokens": said.prompt_tokens,
        "output_tokens": said.answer_tokens,
        "output_tokens_details": None,
        "cache_creation_input_tokens": 0,
        "cache_read_input_tokens": 0,
        "server_tool_use": None,
        **talk.cost_members(said, faults, "prompt", "completions"),
    }


def _blocks(said: Said, generation_id: str) -> list[dict[str, Any]]:
    blocks: list[dict[str, Any]] = []
    if said.reasoning:
        blocks.append({"type": "thinking", "thinking": "".join(said.reasoning), "signature": "simulated"})
    for index, (name, arguments) in enumerate(said.tool_calls):
        call_id = f"toolu_{talk.numbered(generation_id, index)}"
        call = {"type": "tool_use", "id": call_id, "name": name, "caller": {"type": "direct"}}
        blocks.append({**call, "input": msgspec.json.decode(arguments)})
    if said.pieces:
        blocks.append({"type": "text", "text": said.text, "citations": None})
    return blocks


def _message(said: Said, generation_id: str) -> dict[str, Any]:
    return {
        "id": generation_id,
        "type": "message",
        "role": "assistant",
        "container": None,
        "content": [],
        "model": said.model.id,
        "provider": PROVIDER,
        "stop_reason": None,
        "stop_details": None,
        "stop_sequence": None,
    }


def whole(said: Said, generation_id: str, faults: Faults) -> bytes:
    body = {
        **_message(said, generation_id),
        "content": [] if faults.choices == "empty" else _blocks(said, generation_id),
        "stop_reason": _STOPS[said.finish_reason],
        **talk.usage_member({**_usage(said, faults), **_WHOLE_ONLY}, faults),
    }
    return msgspec.json.encode(body)


def events(said: Said, generation_id: str, faults: Faults) -> list[bytes]:
    start = _message(said, generation_id)
    if faults.defect != "no-start-usage":
        start["usage"] = {**_usage(said, faults), **_WHOLE_ONLY, "input_tokens": 0, "output_tokens": 0}
        for member in ("cost", "is_byok", "cost_details"):
            del start["usage"][member]
    stream: list[dict[str, Any]] = [{"type": "message_start", "message": start}, {"type": "ping"}]
    for index, block in enumerate(_blocks(said, generation_id)):
        stream += _block_events(index, block, said)
    stop = {"stop_reason": _STOPS[said.finish_reason], "stop_sequence": None, "stop_details": None, "container": None}
    stream += [
        {"type": "message_delta", "delta": stop, **talk.usage_member(_usage(said, faults), faults)},
        {"type": "message_stop"},
    ]
    error = {"type": "api_error", "message": "Simulated provider failure", "error_type": "provider_unavailable"}
    stream = talk.broken_off(stream, faults, {"type": "error", "error": error, "request_id": generation_id})
    done = b"event: data\n" + talk.DONE if faults.defect == "named-done" else talk.DONE
    return talk.written(stream, faults, lambda event: _named(event, faults), done)


def _named(event: dict[str, Any], faults: Faults) -> bytes:
    if faults.defect == "data-only" or "type" not in event:
        return talk.data(event)
    return b"event: " + str(event["type"]).encode() + b"\n" + talk.data(event)


def _block_events(index: int, block: dict[str, Any], said: Said) -> list[dict[str, Any]]:
    match block["type"]:
        case "thinking":
            empty = {**block, "thinking": "", "signature": ""}
            deltas = [{"type": "thinking_delta", "thinking": piece} for piece in said.reasoning]
            deltas.append({"type": "signature_delta", "signature": block["signature"]})
        case "tool_use":
            empty = {**block, "input": {}}
            told = next(arguments for name, arguments in said.tool_calls if name == block["name"])
            deltas = [{"type": "input_json_delta", "partial_json": part} for part in ("", told)]
        case _:
            empty = {**block, "text": ""}
            deltas = [{"type": "text_delta", "text": piece} for piece in said.pieces]
    return [
        {"type": "content_block_start", "index": index, "content_block": empty},
        *({"type": "content_block_delta", "index": index, "delta": delta} for delta in deltas),
        {"type": "content_block_stop", "index": index},
    ]
