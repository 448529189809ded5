"""Simulated chat completions."""

from dataclasses import replace
from typing import Any

import msgspec
from msgspec import Struct

from farebox.core.errors import invalid
from farebox.core.formats.envelope import refusal_body as refused
from farebox.core.reading import Number
from farebox.simulator import talk
from farebox.simulator.faults import Faults
from farebox.simulator.models import PROVIDER
from farebox.simulator.talk import Said, Talk

__all__ = ["COMMENT", "events", "read", "refused", "whole"]

COMMENT = b": OPENROUTER PROCESSING"


class _Message(Struct):
    role: str
    content: str | list[talk.Part] | None = None


class _Function(Struct):
    name: str
    parameters: Any = None


class _Tool(Struct):
    type: str
    function: _Function | None = None


class Request(talk.Request):
    messages: list[_Message] | None = None
    prompt: str | None = None
    max_tokens: Number | None = None
    max_completion_tokens: Number | None = None
    tools: list[_Tool] | None = None
    response_format: Any = None


_decode = msgspec.json.Decoder(Request).decode


def read(body: bytes) -> Talk:
    request = _decode(body)
    if request.messages is None and request.prompt is None:
        raise invalid('Input required: specify "prompt" or "messages"')
    if request.messages is not None and not request.messages:
        raise invalid("messages: Array must contain at least 1 element(s)")
    return talk_in(request)


def talk_in(request: Request) -> Talk:
    """What a request asks for. Raises Refusal 400."""
    messages = request.messages or [_Message("user", request.prompt)]
    functions = [(each.function.name, each.function.parameters) for each in request.tools or () if each.function]
    turns = [talk.turn_of(message.role, message.content, "image_url") for message in messages]
    caps = {"max_tokens": request.max_tokens, "max_completion_tokens": request.max_completion_tokens}
    form = talk.member(request.response_format, "json_schema", "schema")
    asked = talk.talk_of(request, turns, functions, form, **caps)
    return replace(asked, older_cap=talk.least_cap(max_tokens=request.max_tokens))


def _usage(said: Said, faults: Faults) -> dict[str, object]:
    return {
        "prompt_tokens": said.prompt_tokens,
        "completion_tokens": said.answer_tokens,
        "total_tokens": said.prompt_tokens + said.answer_tokens,
        **talk.cost_members(said, faults, "prompt", "completions"),
        "prompt_tokens_details": {"cached_tokens": 0, "cache_write_tokens": 0, "audio_tokens": 0, "video_tokens": 0},
        "completion_tokens_details": {
            "reasoning_tokens": len(said.reasoning),
            "image_tokens": said.image_tokens,
            "audio_tokens": 0,
        },
    }


def whole(said: Said, generation_id: str, faults: Faults) -> bytes:
    message: dict[str, object] = {"role": "assistant", "content": said.text or None, "refusal": None}
    if said.reasoning:
        message["reasoning"] = "".join(said.reasoning)
    if said.image:
        message["images"] = [{"type": "image_url", "image_url": {"url": f"data:image/png;base64,{said.image}"}}]
    if said.tool_calls:
        message["tool_calls"] = [
            {**each, "function": {"name": name, "arguments": arguments}}
            for each, (name, arguments) in zip(call_heads(said, generation_id), said.tool_calls, strict=True)
        ]
    choice: dict[str, object] = {
        "index": 0,
        "logprobs": None,
        "finish_reason": said.finish_reason,
        "native_finish_reason": said.finish_reason,
        "message": message,
    }
    if faults.failed:
        choice |= {"finish_reason": "error", "error": {"code": 502, "message": "Simulated provider failure"}}
    body: dict[str, object] = {
        "id": generation_id,
        "provider": PROVIDER,
        "model": said.model.id,
        "object": "chat.completion",
        "created": talk.CREATED,
        "system_fingerprint": None,
        "choices": [] if faults.choices == "empty" else [choice],
    }
    if faults.defect == "no-fingerprint":
        del body["system_fingerprint"]
    return msgspec.json.encode({**body, **talk.usage_member(_usage(said, faults), faults)})


def events(said: Said, generation_id: str, faults: Faults) -> list[bytes]:
    shape = faults.usage or said.model.usage_shape
    deltas = _deltas(said, generation_id)
    chunks = [_chunk(said, generation_id, delta) for delta in deltas]
    chunks[-1]["choices"][0]["finish_reason"] = chunks[-1]["choices"][0]["native_finish_reason"] = said.finish_reason
    reported = _usage(said, faults)
    match shape:
        case "merged":
            chunks[-1]["usage"] = reported
        case "delta":
            chunks.append({**_chunk(said, generation_id, {"role": "assistant", "content": ""}), "usage": reported})
        case "separate" | "twice" | "negative":
            last = {**_chunk(said, generation_id, {}), "choices": [], "usage": reported}
            chunks += [last, last] if shape == "twice" else [last]
        case "is-null":
            chunks.append({**_chunk(said, generation_id, {}), "choices": [], "usage": None})
        case _:
            assert shape == "missing", shape
    _spoil(chunks, faults.defect)
    error = {"code": 502, "message": "Simulated provider failure", "metadata": {"error_type": "provider_unavailable"}}
    choice = {"index": 0, "delta": {"role": "assistant", "content": ""}, "finish_reason": "error"}
    broken = {**chunks[0], "error": error, "choices": [choice]}
    broken.pop("usage", None)
    return talk.written(talk.broken_off(chunks, faults, broken), faults)


def _deltas(said: Said, generation_id: str) -> list[dict[str, object]]:
    deltas: list[dict[str, object]] = [
        {"role": "assistant", "content": "", "reasoning": word} for word in said.reasoning
    ]
    deltas += [{"role": "assistant", "content": word} for word in said.pieces]
    for head, (name, arguments) in zip(call_heads(said, generation_id), said.tool_calls, strict=True):
        deltas.append(_tool_delta({**head, "function": {"name": name, "arguments": ""}}))
        deltas.append(_tool_delta({"index": head["index"], "function": {"arguments": arguments}}))
    if said.image:
        image = {"type": "image_url", "image_url": {"url": f"data:image/png;base64,{said.image}"}, "index": 0}
        deltas.append({"role": "assistant", "content": "", "images": [image]})
    deltas.append({"role": "assistant", "content": ""})
    return deltas


def call_heads(said: Said, generation_id: str) -> list[dict[str, object]]:
    """What stands in each call beside its function."""
    return [
        {"index": index, "id": f"call_{talk.numbered(generation_id, index)}", "type": "function"}
        for index in range(len(said.tool_calls))
    ]


def _tool_delta(call: dict[str, object]) -> dict[str, object]:
    return {"role": "assistant", "content": None, "tool_calls": [call]}


def _chunk(said: Said, generation_id: str, delta: dict[str, object]) -> dict[str, Any]:
    choice = {"index": 0, "delta": delta, "finish_reason": None, "native_finish_reason": None, "logprobs": None}
    return {
        "id": generation_id,
        "provider": PROVIDER,
        "model": said.model.id,
        "object": "chat.completion.chunk",
        "created": talk.CREATED,
        "choices": [choice],
    }


def _spoil(chunks: list[dict[str, Any]], defect: str | None) -> None:
    """Give the first chunk, or the last, a defect that real upstreams have shown."""
    first, choice = chunks[0], chunks[0]["choices"][0]
    match defect:
        case "role-empty":
            choice["delta"]["role"] = ""
        case "fingerprint-null":
            first["system_fingerprint"] = None
        case "tool-calls-null":
            choice["delta"]["tool_calls"] = None
        case "no-finish":
            del choice["finish_reason"]
        case "no-index":
            del choice["index"]
        case "usage-null":
            first["usage"] = None
        case "no-choices":
            del chunks[-1]["choices"]
        case _:
            return
