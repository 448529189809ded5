"""Anthropic's messages, simulated: what it demands of an order, and an answer whose usage grows as it comes."""

import hashlib
from collections.abc import Sequence
from typing import Any

import msgspec
from msgspec import Raw, Struct

from farebox.core.errors import Refusal, invalid
from farebox.core.legible import decode_fields, written
from farebox.core.reading import UNREADABLE, Number
from farebox.simulator import talk
from farebox.simulator.faults import Faults
from farebox.simulator.messages import is_one_call, turns_of
from farebox.simulator.talk import Said, Talk, tokens_of

__all__ = ["COMMENT", "error_body", "events", "read", "request_id", "whole"]

COMMENT = b'event: ping\ndata: {"type": "ping"}'

_KNOWN = frozenset(
    (
        "billing_policy cache_control compaction container context_management diagnostics fallback_credit_token"
        " fallbacks inference_geo max_tokens mcp_servers messages metadata model output_config service_tier speed"
        " stop_sequences stream system temperature thinking thread tool_choice tools top_k top_p user_profile_id"
        " workspace_id"
    ).split()
)

_STOPS = {"stop": "end_turn", "length": "max_tokens", "tool_calls": "tool_use"}

_TYPES = {
    400: "invalid_request_error",
    401: "authentication_error",
    402: "billing_error",
    403: "permission_error",
    404: "not_found_error",
    413: "request_too_large",
    429: "rate_limit_error",
    504: "timeout_error",
    529: "overloaded_error",
}


def request_id(number: str) -> str:
    return f"req_01{number.replace('-', '')}"


def error_body(refusal: Refusal, number: str) -> bytes:
    kind = _TYPES.get(refusal.status, "api_error" if refusal.status >= 500 else "invalid_request_error")
    error = {"type": kind, "message": refusal.message}
    return msgspec.json.encode({"type": "error", "error": error, "request_id": request_id(number)})


# Orders


class _Block(Struct):
    type: str
    text: str = ""
    content: Any = None
    id: str = ""
    tool_use_id: str = ""
    thinking: str = ""
    signature: str = ""
    cache_control: Any = None


class _Message(Struct):
    role: str
    content: str | list[_Block]

    @property
    def blocks(self) -> list[_Block]:
        return [_Block("text", self.content)] if isinstance(self.content, str) else self.content


class _Tool(Struct):
    name: str
    input_schema: Any = None
    cache_control: Any = None


class _Thinking(Struct):
    type: str
    budget_tokens: Number | None = None


class _Request(Struct):
    model: str
    max_tokens: Number
    messages: list[_Message]
    system: str | list[_Block] | None = None
    stream: bool | None = None
    temperature: Number | None = None
    tools: list[_Tool] | None = None
    tool_choice: Raw = Raw(b"null")
    thinking: _Thinking | None = None
    output_config: Any = None


_decode = msgspec.json.Decoder(_Request).decode

PREFIXES_MAX = 10_000

_written_prefixes: set[bytes] = set()
"""Digests of the prompts' beginnings that are in the cache."""


def read(body: bytes) -> Talk:
    request = _decoded(body)
    cap = talk.least_cap(max_tokens=request.max_tokens)
    if cap is None or cap < 1:
        raise invalid("max_tokens: Input should be greater than or equal to 1")
    _check_turns(request.messages)
    _check_thinking(request, cap)
    functions = [(each.name, each.input_schema) for each in request.tools or ()]
    cached, cache_written = _caching(_messages(request))
    return Talk(
        (request.model,),
        _turns(request),
        streamed=request.stream is True,
        cap=cap,
        tools=talk.callable_tools(functions, request.tool_choice),
        thinks=request.thinking is not None and request.thinking.type != "disabled",
        cached_tokens=cached,
        cache_write_tokens=cache_written,
        one_call=is_one_call(request.tool_choice),
        form=talk.member(request.output_config, "format", "schema"),
    )


def _messages(request: _Request) -> list[_Message]:
    system = [_Message("system", request.system)] if request.system else []
    return [*system, *request.messages]


def _turns(request: _Request) -> tuple[talk.Turn, ...]:
    return tuple(turn for message in _messages(request) for turn in turns_of(message.role, message.content))


_ONLY_OF_ORDERS = frozenset(
    (
        "container diagnostics fallback_credit_token fallbacks inference_geo max_tokens metadata service_tier"
        " stop_sequences stream temperature thread top_k top_p"
    ).split()
)


def counted(body: bytes) -> tuple[str, int]:
    """The model, and how many tokens a prompt has. Raises Refusal 400: it is none, or has what only orders may."""
    try:
        fields = decode_fields(body)
    except UNREADABLE as error:
        raise invalid("The request body is not valid JSON") from error
    if extra := [name for name in fields if name in _ONLY_OF_ORDERS]:
        raise invalid(f"{extra[0]}: Extra inputs are not permitted")
    request = _decoded(bytes(written({**fields, "max_tokens": Raw(b"1000000")})))
    _check_turns(request.messages)
    return request.model, sum(turn.tokens for turn in _turns(request))


def _decoded(body: bytes) -> _Request:
    try:
        fields = decode_fields(body)
    except UNREADABLE as error:
        raise invalid("The request body is not valid JSON") from error
    for name in ("model", "messages", "max_tokens"):
        if name not in fields:
            raise invalid(f"{name}: Field required")
    for name in fields:
        if name not in _KNOWN:
            raise invalid(f"{name}: Extra inputs are not permitted")
    try:
        return _decode(body)
    except UNREADABLE as error:
        raise invalid(str(error)) from error


def _check_turns(messages: Sequence[_Message]) -> None:
    """What is demanded of the turns: whose they are, what they hold, and each tool's result right behind its call."""
    if not messages:
        raise invalid("messages: at least one message is required")
    if messages[0].role == "assistant":
        raise invalid('messages: first message must use the "user" role')
    called: list[str] = []
    for number, message in enumerate(messages):
        if message.role not in ("user", "assistant") and not (message.role == "system" and number):
            raise invalid(
                f'messages: Unexpected role "{message.role}". The Messages API accepts a top-level `system` parameter,'
                ' not "system" as an input message role.'
            )
        blocks = message.blocks
        if any(block.type == "text" and not block.text for block in blocks) or not blocks:
            raise invalid("messages: text content blocks must be non-empty")
        _check_results(number, blocks, called)
        called = [block.id for block in blocks if block.type == "tool_use"] if message.role == "assistant" else []
        _check_signatures(number, blocks)
    last = messages[-1].blocks[-1]
    if messages[-1].role == "assistant" and last.text != last.text.rstrip():
        raise invalid("messages: final assistant content cannot end with trailing whitespace")


def _check_results(number: int, blocks: Sequence[_Block], called: Sequence[str]) -> None:
    given = [block.tool_use_id for block in blocks if block.type == "tool_result"]
    if missing := [each for each in called if each not in given]:
        raise invalid(
            f"messages.{number - 1}: `tool_use` ids were found without `tool_result` blocks immediately after:"
            f" {', '.join(missing)}. Each `tool_use` block must have a corresponding `tool_result` block in the next"
            " message."
        )
    if strange := [each for each in given if each not in called]:
        raise invalid(
            f"messages.{number}.content.0: unexpected `tool_use_id` found in `tool_result` blocks: {strange[0]}. Each"
            " `tool_result` block must have a corresponding `tool_use` block in the previous message."
        )


def _check_signatures(number: int, blocks: Sequence[_Block]) -> None:
    for position, block in enumerate(blocks):
        if block.type == "thinking" and block.signature != talk.seal(block.thinking):
            raise invalid(f"messages.{number}.content.{position}: Invalid `signature` in `thinking` block")


def _check_thinking(request: _Request, cap: int) -> None:
    thinking = request.thinking
    if thinking is None or thinking.type == "disabled":
        return
    if thinking.type == "enabled":
        if thinking.budget_tokens is None:
            raise invalid("thinking.enabled.budget_tokens: Field required")
        if thinking.budget_tokens < talk.BUDGET_MIN:
            raise invalid(f"thinking.enabled.budget_tokens: Input should be greater than or equal to {talk.BUDGET_MIN}")
        talk.check_budget("thinking.budget_tokens", thinking.budget_tokens, cap)
    if request.temperature not in (None, 1):
        raise invalid("`temperature` may only be set to 1 when thinking is enabled.")


def _caching(messages: Sequence[_Message]) -> tuple[int, int]:
    """How many tokens of the prompt are read from the cache, and written to it: all up to the last block that says so,
    the first time written, later read."""
    texts: list[str] = []
    until = 0
    for message in messages:
        for block in message.blocks:
            texts.append(block.text or talk.text_in(block.content))
            if block.cache_control is not None:
                until = len(texts)
    if not until:
        return 0, 0
    prefix = "\0".join(texts[:until])
    digest = hashlib.sha256(prefix.encode()).digest()
    tokens = sum(tokens_of(text) for text in texts[:until])
    if digest in _written_prefixes:
        return tokens, 0
    if len(_written_prefixes) >= PREFIXES_MAX:
        _written_prefixes.clear()
    _written_prefixes.add(digest)
    return 0, tokens


# Answers


def _usage(said: Said, faults: Faults, answer_tokens: int | None = None) -> dict[str, object]:
    """`input_tokens` leave out those of the cache."""
    sign = -1 if faults.usage == "negative" else 1
    return {
        "input_tokens": sign * (said.prompt_tokens - said.cached_tokens - said.cache_write_tokens),
        "cache_creation_input_tokens": said.cache_write_tokens,
        "cache_read_input_tokens": said.cached_tokens,
        "output_tokens": sign * (said.answer_tokens if answer_tokens is None else answer_tokens),
    }


def _tier(said: Said) -> dict[str, object]:
    creation = {"ephemeral_5m_input_tokens": said.cache_write_tokens, "ephemeral_1h_input_tokens": 0}
    return {"cache_creation": creation, "service_tier": "standard", "inference_geo": "not_available"}


def _blocks(said: Said, generation_id: str) -> list[dict[str, Any]]:
    blocks: list[dict[str, Any]] = []
    if said.reasoning:
        thought = "".join(said.reasoning)
        blocks.append({"type": "thinking", "thinking": thought, "signature": talk.seal(thought)})
    for index, (name, arguments) in enumerate(said.tool_calls):
        called = {"type": "tool_use", "id": f"toolu_01{talk.numbered(generation_id, index)}", "name": name}
        try:
            blocks.append({**called, "input": msgspec.json.decode(arguments)})
        except UNREADABLE:
            blocks.append({**called, "input": {}})
    if said.pieces:
        blocks.append({"type": "text", "text": said.text})
    return blocks


def _message(said: Said, generation_id: str) -> dict[str, Any]:
    return {
        "model": said.model.id,
        "id": generation_id,
        "type": "message",
        "role": "assistant",
        "content": [],
        "stop_reason": None,
        "stop_sequence": None,
    }


def whole(said: Said, generation_id: str, faults: Faults) -> bytes:
    body = {
        **_message(said, generation_id),
        "content": [] if faults.choices == "empty" else _blocks(said, generation_id),
        "stop_reason": _STOPS[said.finish_reason],
        **talk.usage_member({**_usage(said, faults), **_tier(said)}, faults),
    }
    return msgspec.json.encode(body)


def events(said: Said, generation_id: str, faults: Faults) -> list[bytes]:
    start = {**_message(said, generation_id), "usage": {**_usage(said, faults, 1), **_tier(said)}}
    stream: list[dict[str, Any]] = [{"type": "message_start", "message": start}]
    for index, block in enumerate(_blocks(said, generation_id)):
        stream += _block_events(index, block, said)
    stream.insert(2, {"type": "ping"})
    stop = {"stop_reason": _STOPS[said.finish_reason], "stop_sequence": None}
    delta = {"type": "message_delta", "delta": stop, **talk.usage_member(_usage(said, faults), faults)}
    if faults.usage == "twice":
        stream.append({**delta, "usage": _usage(said, faults, said.answer_tokens // 2)})
    stream += [delta, {"type": "message_stop"}]
    error = {"type": "overloaded_error", "message": "Overloaded"}
    stream = talk.broken_off(stream, faults, {"type": "error", "error": error, "request_id": f"req_{generation_id}"})
    return [_named(event) for event in stream]


def _named(event: dict[str, Any]) -> bytes:
    return b"event: " + str(event.get("type", "error")).encode() + b"\n" + talk.data(event)


def _block_events(index: int, block: dict[str, Any], said: Said) -> list[dict[str, Any]]:
    match block["type"]:
        case "thinking":
            empty = {**block, "thinking": "", "signature": ""}
            deltas = [{"type": "thinking_delta", "thinking": piece} for piece in said.reasoning]
            deltas.append({"type": "signature_delta", "signature": block["signature"]})
        case "tool_use":
            arguments = next(arguments for name, arguments in said.tool_calls if name == block["name"])
            half = len(arguments) // 2
            empty = {**block, "input": {}}
            parts = ("", arguments[:half], arguments[half:])
            deltas = [{"type": "input_json_delta", "partial_json": part} for part in parts]
        case _:
            empty = {**block, "text": ""}
            deltas = [{"type": "text_delta", "text": piece} for piece in said.pieces]
    return [
        {"type": "content_block_start", "index": index, "content_block": empty},
        *({"type": "content_block_delta", "index": index, "delta": delta} for delta in deltas),
        {"type": "content_block_stop", "index": index},
    ]
