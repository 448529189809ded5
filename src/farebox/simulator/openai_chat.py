"""OpenAI's chat completions, simulated."""

from collections.abc import Iterator
from dataclasses import replace
from typing import Any

import msgspec
from msgspec import Struct

from farebox.core.reading import Number
from farebox.simulator import chat, talk
from farebox.simulator.faults import Faults
from farebox.simulator.openai_words import DATED, FINGERPRINT, counted, read_known, usage_members, wrong
from farebox.simulator.talk import Said, Talk

__all__ = ["COMMENT", "events", "read", "whole"]

COMMENT = b""

_KNOWN = frozenset(
    (
        "audio frequency_penalty function_call functions logit_bias logprobs max_completion_tokens max_tokens messages"
        " metadata modalities model moderation n parallel_tool_calls prediction presence_penalty prompt_cache_key"
        " prompt_cache_options prompt_cache_retention reasoning_effort response_format safety_identifier seed"
        " service_tier stop store stream stream_options temperature tool_choice tools top_logprobs top_p user verbosity"
        " web_search_options"
    ).split()
)

_ROLES = ("system", "assistant", "user", "function", "tool", "developer")

_REASONING = "o-"
"""What the names of models that reason begin with."""


class _Options(Struct):
    include_usage: bool = False
    include_obfuscation: bool = True


class _Request(chat.Request):
    stream_options: _Options | None = None
    temperature: Number | None = None


_decode = msgspec.json.Decoder(_Request).decode


def read(body: bytes) -> Talk:
    request = read_known(body, _KNOWN, _decode, lambda name: wrong(f"Unrecognized request argument supplied: {name}"))
    if not request.messages:
        message = "Missing required parameter: 'messages'." if request.messages is None else _EMPTY
        raise wrong(message, "messages", "missing_required_parameter" if request.messages is None else "empty_array")
    for number, each in enumerate(request.messages):
        if each.role not in _ROLES:
            known = ", ".join(f"'{role}'" for role in _ROLES)
            message = f"Invalid value: '{each.role}'. Supported values are: {known}."
            raise wrong(message, f"messages[{number}].role", "invalid_value")
    if request.stream_options is not None and not request.stream:
        raise wrong("The 'stream_options' parameter is only allowed when 'stream' is enabled.", "stream_options")
    if (request.model or "").startswith(_REASONING):
        _check_reasoning(request)
    elif request.max_tokens is not None and request.max_completion_tokens is not None:
        raise wrong("Setting 'max_tokens' and 'max_completion_tokens' at the same time is not supported.")
    asked = chat.talk_in(request)
    wants_usage = request.stream_options is not None and request.stream_options.include_usage
    return replace(asked, wants_usage=wants_usage)


_EMPTY = "Invalid 'messages': empty array. Expected an array with minimum length 1, but got an empty array instead."


def _check_reasoning(request: _Request) -> None:
    if request.max_tokens is not None:
        message = (
            "Unsupported parameter: 'max_tokens' is not supported with this model. Use 'max_completion_tokens' instead."
        )
        raise wrong(message, "max_tokens", "unsupported_parameter")
    if request.temperature not in (None, 1):
        message = (
            f"Unsupported value: 'temperature' does not support {request.temperature} with this model. Only the default"
            " (1) value is supported."
        )
        raise wrong(message, "temperature", "unsupported_value")


def _usage(said: Said, faults: Faults) -> dict[str, object]:
    prompt, answer = counted(said, faults)
    return {
        "prompt_tokens": prompt,
        "completion_tokens": answer,
        "total_tokens": prompt + answer,
        "prompt_tokens_details": {"cached_tokens": said.cached_tokens, "audio_tokens": 0},
        "completion_tokens_details": {
            "reasoning_tokens": len(said.reasoning),
            "audio_tokens": 0,
            "accepted_prediction_tokens": 0,
            "rejected_prediction_tokens": 0,
        },
    }


def _head(said: Said, generation_id: str, kind: str) -> dict[str, Any]:
    return {"id": generation_id, "object": kind, "created": talk.CREATED, "model": said.model.id + DATED}


_TAIL = {"service_tier": "default", "system_fingerprint": FINGERPRINT}


def whole(said: Said, generation_id: str, faults: Faults) -> bytes:
    message: dict[str, object] = {"role": "assistant", "content": said.text or None}
    if said.tool_calls:
        message["tool_calls"] = [
            {"id": head["id"], "type": "function", "function": {"name": name, "arguments": arguments}}
            for head, (name, arguments) in zip(chat.call_heads(said, generation_id), said.tool_calls, strict=True)
        ]
    message |= {"refusal": None, "annotations": []}
    choice = {"index": 0, "message": message, "logprobs": None, "finish_reason": said.finish_reason}
    body = {
        **_head(said, generation_id, "chat.completion"),
        "choices": [] if faults.choices == "empty" else [choice],
        **talk.usage_member(_usage(said, faults), faults),
        **_TAIL,
    }
    return msgspec.json.encode(body)


def events(said: Said, generation_id: str, faults: Faults) -> list[bytes]:
    head = {**_head(said, generation_id, "chat.completion.chunk"), **_TAIL}
    not_yet: dict[str, object] = {"usage": None} if said.wants_usage else {}
    deltas: list[tuple[dict[str, object], str | None]] = [({"role": "assistant", "content": "", "refusal": None}, None)]
    deltas += [({"content": piece}, None) for piece in said.pieces]
    if said.tool_calls:
        deltas[0][0]["content"] = None
        deltas += [({"tool_calls": [call]}, None) for call in _calls(said, generation_id)]
    deltas.append(({}, said.finish_reason))
    chunks: list[dict[str, Any]] = []
    for number, (delta, finish) in enumerate(deltas):
        choice = {"index": 0, "delta": delta, "logprobs": None, "finish_reason": finish}
        chunks.append({**head, "choices": [choice], **not_yet, "obfuscation": "Q7xK" * (1 + number % 3)})
    if said.wants_usage:
        chunks += [{**head, "choices": [], **member} for member in usage_members(_usage(said, faults), faults)]
    error = {"message": "The server had an error while processing your request", "type": "server_error"}
    return talk.written(talk.broken_off(chunks, faults, {"error": {**error, "param": None, "code": None}}), faults)


def _calls(said: Said, generation_id: str) -> Iterator[dict[str, object]]:
    """The calls' deltas: of each its name, then its arguments in pieces."""
    for head, (name, arguments) in zip(chat.call_heads(said, generation_id), said.tool_calls, strict=True):
        half = len(arguments) // 2
        yield {**head, "function": {"name": name, "arguments": ""}}
        for piece in filter(None, (arguments[:half], arguments[half:])):
            yield {"index": head["index"], "function": {"arguments": piece}}
