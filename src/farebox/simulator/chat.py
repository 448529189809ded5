"""Simulated chat completions."""

from typing import Any

import msgspec
from msgspec import Raw, Struct

from farebox.core.errors import Refusal, invalid
from farebox.core.formats.envelope import refusal_body
from farebox.core.reading import Number
from farebox.simulator.faults import Faults
from farebox.simulator.models import PROVIDER
from farebox.simulator.talk import (
    BUDGET_MIN,
    CREATED,
    Said,
    Talk,
    Tool,
    Turn,
    check_budget,
    cost_members,
    data,
    first_tool,
    least_cap,
)

__all__ = ["COMMENT", "events", "read", "refused", "whole"]

COMMENT = b": OPENROUTER PROCESSING"


class _Part(Struct):
    type: str
    text: str = ""


class _Message(Struct):
    role: str
    content: str | list[_Part] | None = None


class _Function(Struct):
    name: str
    parameters: dict[str, Any] = {}


class _Tool(Struct):
    type: str
    function: _Function | None = None


class _Reasoning(Struct):
    max_tokens: Number | None = None


class _Request(Struct):
    """What the simulator reads of an order; it accepts any other member, as OpenRouter does."""

    messages: list[_Message] | None = None
    prompt: str | None = None
    model: str | None = None
    models: list[str] | None = None
    stream: bool | None = None
    max_tokens: Number | None = None
    max_completion_tokens: Number | None = None
    modalities: list[str] | None = None
    tools: list[_Tool] | None = None
    tool_choice: Raw = Raw(b"null")
    reasoning: _Reasoning | None = None


_decode = msgspec.json.Decoder(_Request).decode


def read(body: bytes) -> Talk:
    """What an order asks for. Raises Refusal, and what msgspec raises for other JSON."""
    request = _decode(body)
    if request.messages is None and request.prompt is None:
        raise invalid('Input required: specify "prompt" or "messages"')
    if request.messages is not None and not request.messages:
        raise invalid("messages: Array must contain at least 1 element(s)")
    messages = request.messages or [_Message("user", request.prompt)]
    functions = [tool.function for tool in request.tools or () if tool.function]
    tools = [Tool(each.name, tuple(each.parameters.get("properties", {}))) for each in functions]
    cap = least_cap(max_tokens=request.max_tokens, max_completion_tokens=request.max_completion_tokens)
    if request.reasoning is not None and request.reasoning.max_tokens is not None:
        check_budget("reasoning.max_tokens", max(BUDGET_MIN, request.reasoning.max_tokens), cap)
    return Talk(
        (*([request.model] if request.model else []), *(request.models or [])),
        tuple(_turn(message) for message in messages),
        streamed=request.stream is True,
        cap=cap,
        tool=first_tool(tools, request.tool_choice),
        wants_picture="image" in (request.modalities or ()),
    )


def _turn(message: _Message) -> Turn:
    if not isinstance(message.content, list):
        return Turn(message.role, message.content or "")
    text = " ".join(part.text for part in message.content if part.text)
    return Turn(message.role, text, sum(part.type == "image_url" for part in message.content))


def refused(refusal: Refusal) -> bytes:
    """The body of a refusal."""
    return refusal_body(refusal)


def _usage(said: Said, faults: Faults) -> dict[str, object]:
    return {
        "prompt_tokens": said.prompt_tokens,
        "completion_tokens": said.answer_tokens,
        "total_tokens": said.prompt_tokens + said.answer_tokens,
        **cost_members(said, faults, "prompt", "completions"),
        "prompt_tokens_details": {"cached_tokens": 0, "cache_write_tokens": 0, "audio_tokens": 0, "video_tokens": 0},
        "completion_tokens_details": {
            "reasoning_tokens": len(said.reasoning),
            "image_tokens": said.image_tokens,
            "audio_tokens": 0,
        },
    }


def whole(said: Said, generation_id: str, faults: Faults) -> bytes:
    """The body of an answer that is not streamed."""
    message: dict[str, object] = {"role": "assistant", "content": said.text or None, "refusal": None}
    if said.reasoning:
        message["reasoning"] = "".join(said.reasoning)
    if said.image:
        message["images"] = [{"type": "image_url", "image_url": {"url": f"data:image/png;base64,{said.image}"}}]
    if said.tool_call:
        name, arguments = said.tool_call
        call = {"index": 0, "id": f"call_{generation_id[-8:]}", "type": "function"}
        message["tool_calls"] = [{**call, "function": {"name": name, "arguments": arguments}}]
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
        "created": CREATED,
        "system_fingerprint": None,
        "choices": [] if faults.choices == "empty" else [choice],
    }
    if faults.defect == "no-fingerprint":
        del body["system_fingerprint"]
    if faults.usage != "missing":
        body["usage"] = None if faults.usage == "is-null" else _usage(said, faults)
    return msgspec.json.encode(body)


def events(said: Said, generation_id: str, faults: Faults) -> list[bytes]:
    """Each server-sent event of a streamed answer, without the empty line at its end; `[DONE]` is the last."""
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
        case "separate":
            chunks.append({**_chunk(said, generation_id, {}), "choices": [], "usage": reported})
        case "is-null":
            chunks.append({**_chunk(said, generation_id, {}), "choices": [], "usage": None})
        case _:
            assert shape == "missing", shape
    _spoil(chunks, faults.defect)
    stream = [data(chunk) for chunk in chunks]
    _break(stream, chunks, faults)
    return stream if faults.no_done or b'"error"' in stream[-1] else [*stream, b"data: [DONE]"]


def _deltas(said: Said, generation_id: str) -> list[dict[str, object]]:
    deltas: list[dict[str, object]] = [
        {"role": "assistant", "content": "", "reasoning": word} for word in said.reasoning
    ]
    deltas += [{"role": "assistant", "content": word} for word in said.pieces]
    if said.tool_call:
        name, arguments = said.tool_call
        call = {"index": 0, "id": f"call_{generation_id[-8:]}", "type": "function"}
        deltas.append(_tool_delta({**call, "function": {"name": name, "arguments": ""}}))
        deltas.append(_tool_delta({"index": 0, "function": {"arguments": arguments}}))
    if said.image:
        image = {"type": "image_url", "image_url": {"url": f"data:image/png;base64,{said.image}"}, "index": 0}
        deltas.append({"role": "assistant", "content": "", "images": [image]})
    deltas.append({"role": "assistant", "content": ""})
    return deltas


def _tool_delta(call: dict[str, object]) -> dict[str, object]:
    return {"role": "assistant", "content": None, "tool_calls": [call]}


def _chunk(said: Said, generation_id: str, delta: dict[str, object]) -> dict[str, Any]:
    choice = {"index": 0, "delta": delta, "finish_reason": None, "native_finish_reason": None, "logprobs": None}
    return {
        "id": generation_id,
        "provider": PROVIDER,
        "model": said.model.id,
        "object": "chat.completion.chunk",
        "created": CREATED,
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


def _break(stream: list[bytes], chunks: list[dict[str, Any]], faults: Faults) -> None:
    """End the stream in an error where one was asked for."""
    error = {"code": 502, "message": "Simulated provider failure", "metadata": {"error_type": "provider_unavailable"}}
    if faults.error_at_event is not None:
        del stream[faults.error_at_event :]
        chunk = {key: value for key, value in chunks[0].items() if key != "usage"}
        choice = {"index": 0, "delta": {"role": "assistant", "content": ""}, "finish_reason": "error"}
        stream.append(data({**chunk, "error": error, "choices": [choice]}))
    elif faults.bare_error_at_event is not None:
        del stream[faults.bare_error_at_event :]
        bare = {"error": {"code": 402, "message": "Simulated: out of credits", "metadata": {}}, "user_id": "user_sim"}
        stream.append(data(bare))
