"""What hosts answer, as their own APIs say it: OpenAI's chat completions and responses, Anthropic's messages.

A *said* is a list of what a model says in turn; each format has it whole and as a stream.
"""

import json
from collections.abc import Iterable, Iterator
from dataclasses import dataclass
from typing import Any

from farebox.core.formats import Format, chat, messages, responses


@dataclass(frozen=True)
class Thought:
    text: str
    seal: str = "c2VhbA=="


@dataclass(frozen=True)
class Words:
    text: str


@dataclass(frozen=True)
class Called:
    id: str
    name: str
    arguments: dict[str, Any]


@dataclass(frozen=True)
class No:
    """A refusal in the model's words."""

    text: str


Said = list[Thought | Words | Called | No]

MODEL = "maker/model-1"
CREATED = 1_767_225_600
PROMPT, CACHED, WRITTEN, ANSWER, REASONING = 40, 10, 5, 20, 7
COST = "0.000123400"
DONE = b"data: [DONE]\n\n"


def pieces(text: str) -> list[str]:
    return [text[at : at + 4] for at in range(0, len(text), 4)]


def data(body: Any, name: str = "") -> bytes:
    head = f"event: {name}\n" if name else ""
    return f"{head}data: {json.dumps(body)}\n\n".replace('"COST"', COST).encode()


def whole_bytes(body: Any) -> bytes:
    return json.dumps(body).replace('"COST"', COST).encode()


def calls_of(said: Said) -> list[Called]:
    return [each for each in said if isinstance(each, Called)]


# Chat completions

CHAT_USAGE = {
    "prompt_tokens": PROMPT,
    "completion_tokens": ANSWER,
    "total_tokens": PROMPT + ANSWER,
    "prompt_tokens_details": {"cached_tokens": CACHED, "cache_write_tokens": WRITTEN, "audio_tokens": 0},
    "completion_tokens_details": {"reasoning_tokens": REASONING},
    "cost": "COST",
}


def chat_finish(said: Said) -> str:
    return "tool_calls" if calls_of(said) else "stop"


def chat_whole(said: Said) -> bytes:
    message: dict[str, Any] = {"role": "assistant", "refusal": None}
    texts = [each.text for each in said if isinstance(each, Words)]
    message["content"] = "".join(texts) if texts else None
    thoughts = [each.text for each in said if isinstance(each, Thought)]
    if thoughts:
        message["reasoning_content"] = "".join(thoughts)
    refusals = [each.text for each in said if isinstance(each, No)]
    if refusals:
        message["refusal"] = "".join(refusals)
    if calls := calls_of(said):
        message["tool_calls"] = [
            {"id": c.id, "type": "function", "function": {"name": c.name, "arguments": json.dumps(c.arguments)}}
            for c in calls
        ]
    return whole_bytes(
        {
            "id": "chatcmpl-1",
            "object": "chat.completion",
            "created": CREATED,
            "model": MODEL,
            "choices": [{"index": 0, "message": message, "logprobs": None, "finish_reason": chat_finish(said)}],
            "usage": CHAT_USAGE,
            "service_tier": "default",
            "system_fingerprint": "fp_1",
        }
    )


def chat_stream(said: Said) -> Iterator[bytes]:
    head = {"id": "chatcmpl-1", "object": "chat.completion.chunk", "created": CREATED, "model": MODEL}
    deltas: list[dict[str, Any]] = [{"role": "assistant", "content": ""}]
    number = -1
    for each in said:
        match each:
            case Thought(text):
                deltas += [{"reasoning_content": piece} for piece in pieces(text)]
            case Words(text):
                deltas += [{"content": piece} for piece in pieces(text)]
            case No(text):
                deltas += [{"refusal": piece} for piece in pieces(text)]
            case Called(id_, name, arguments):
                number += 1
                function: dict[str, Any] = {"name": name, "arguments": ""}
                deltas.append({"tool_calls": [{"index": number, "id": id_, "type": "function", "function": function}]})
                for piece in pieces(json.dumps(arguments)):
                    deltas.append({"tool_calls": [{"index": number, "function": {"arguments": piece}}]})
    for delta in deltas:
        yield data({**head, "choices": [{"index": 0, "delta": delta, "finish_reason": None}], "usage": None})
    yield data({**head, "choices": [{"index": 0, "delta": {}, "finish_reason": chat_finish(said)}], "usage": None})
    yield data({**head, "choices": [], "usage": CHAT_USAGE})
    yield DONE


# Messages

MESSAGES_USAGE = {
    "input_tokens": PROMPT - CACHED - WRITTEN,
    "cache_creation_input_tokens": WRITTEN,
    "cache_read_input_tokens": CACHED,
    "output_tokens": ANSWER,
    "output_tokens_details": {"thinking_tokens": REASONING},
    "cost": "COST",
}


def messages_stop(said: Said) -> dict[str, Any]:
    refusals = [each.text for each in said if isinstance(each, No)]
    if refusals:
        details = {"type": "refusal", "category": "cyber", "explanation": "".join(refusals)}
        return {"stop_reason": "refusal", "stop_sequence": None, "stop_details": details}
    return {"stop_reason": "tool_use" if calls_of(said) else "end_turn", "stop_sequence": None}


def messages_blocks(said: Said) -> Iterator[dict[str, Any]]:
    for each in said:
        match each:
            case Thought("", seal):
                yield {"type": "redacted_thinking", "data": seal}
            case Thought(text, seal):
                yield {"type": "thinking", "thinking": text, "signature": seal}
            case Words(text):
                yield {"type": "text", "text": text}
            case Called(id_, name, arguments):
                yield {"type": "tool_use", "id": id_, "name": name, "input": arguments}
            case No():
                pass


def messages_head(content: list[dict[str, Any]]) -> dict[str, Any]:
    return {"id": "msg_1", "type": "message", "role": "assistant", "model": MODEL, "content": content}


def messages_whole(said: Said) -> bytes:
    content = list(messages_blocks(said))
    return whole_bytes({**messages_head(content), **messages_stop(said), "usage": MESSAGES_USAGE})


def messages_stream(said: Said) -> Iterator[bytes]:
    started = {"input_tokens": 25, "cache_creation_input_tokens": 5, "cache_read_input_tokens": 10, "output_tokens": 1}
    message = {**messages_head([]), "stop_reason": None, "stop_sequence": None, "usage": started}
    yield data({"type": "message_start", "message": message}, "message_start")
    yield data({"type": "ping"}, "ping")
    for index, block in enumerate(messages_blocks(said)):
        deltas: list[dict[str, Any]] = []
        match block:
            case {"type": "thinking", "thinking": text, "signature": seal}:
                empty = {**block, "thinking": "", "signature": ""}
                deltas += [{"type": "thinking_delta", "thinking": piece} for piece in pieces(text)]
                deltas.append({"type": "signature_delta", "signature": seal})
            case {"type": "text", "text": text}:
                empty = {**block, "text": ""}
                deltas += [{"type": "text_delta", "text": piece} for piece in pieces(text)]
            case {"type": "tool_use", "input": arguments}:
                empty = {**block, "input": {}}
                told = ["", *pieces(json.dumps(arguments))] if arguments else []
                deltas += [{"type": "input_json_delta", "partial_json": piece} for piece in told]
            case _:
                empty = block
        started_block = {"type": "content_block_start", "index": index, "content_block": empty}
        yield data(started_block, "content_block_start")
        for delta in deltas:
            yield data({"type": "content_block_delta", "index": index, "delta": delta}, "content_block_delta")
        yield data({"type": "content_block_stop", "index": index}, "content_block_stop")
    delta = {"type": "message_delta", "delta": messages_stop(said), "usage": {**MESSAGES_USAGE}}
    del delta["usage"]["input_tokens"]
    del delta["usage"]["cache_creation_input_tokens"]
    del delta["usage"]["cache_read_input_tokens"]
    yield data(delta, "message_delta")
    yield data({"type": "message_stop"}, "message_stop")


# Responses

RESPONSES_USAGE = {
    "input_tokens": PROMPT,
    "input_tokens_details": {"cached_tokens": CACHED, "cache_write_tokens": WRITTEN},
    "output_tokens": ANSWER,
    "output_tokens_details": {"reasoning_tokens": REASONING},
    "total_tokens": PROMPT + ANSWER,
    "cost": "COST",
}


def responses_items(said: Said) -> Iterator[dict[str, Any]]:
    for number, each in enumerate(said):
        match each:
            case Thought(text, seal):
                summary = [{"type": "summary_text", "text": text}] if text else []
                yield {"id": f"rs_{number}", "type": "reasoning", "summary": summary, "encrypted_content": seal}
            case Words(text):
                part = {"type": "output_text", "text": text, "annotations": [], "logprobs": []}
                yield _message(number, part)
            case No(text):
                yield _message(number, {"type": "refusal", "refusal": text})
            case Called(id_, name, arguments):
                call = {"call_id": id_, "name": name, "arguments": json.dumps(arguments)}
                yield {"id": f"fc_{number}", "type": "function_call", "status": "completed", **call}


def _message(number: int, part: dict[str, Any]) -> dict[str, Any]:
    return {"id": f"msg_{number}", "type": "message", "role": "assistant", "status": "completed", "content": [part]}


def response(status: str, output: list[dict[str, Any]], usage: Any) -> dict[str, Any]:
    return {
        "id": "resp_1",
        "object": "response",
        "created_at": CREATED,
        "status": status,
        "error": None,
        "incomplete_details": None,
        "instructions": None,
        "metadata": {},
        "model": MODEL,
        "output": output,
        "parallel_tool_calls": True,
        "temperature": 1.0,
        "tool_choice": "auto",
        "tools": [],
        "top_p": 1.0,
        "service_tier": "default",
        "usage": usage,
    }


def responses_whole(said: Said) -> bytes:
    return whole_bytes(response("completed", list(responses_items(said)), RESPONSES_USAGE))


def responses_stream(said: Said) -> Iterator[bytes]:
    items = list(responses_items(said))
    events: list[dict[str, Any]] = [
        {"type": "response.created", "response": response("in_progress", [], None)},
        {"type": "response.in_progress", "response": response("in_progress", [], None)},
    ]
    for index, item in enumerate(items):
        events += _item_events(index, item)
    events.append({"type": "response.completed", "response": response("completed", items, RESPONSES_USAGE)})
    for number, event in enumerate(events):
        yield data({**event, "sequence_number": number}, event["type"])


def _item_events(index: int, item: dict[str, Any]) -> Iterator[dict[str, Any]]:
    place = {"item_id": item["id"], "output_index": index}
    empty: dict[str, dict[str, Any]] = {
        "reasoning": {"summary": [], "encrypted_content": "cGFydA=="},
        "message": {"content": [], "status": "in_progress"},
        "function_call": {"arguments": "", "status": "in_progress"},
    }
    yield {"type": "response.output_item.added", "output_index": index, "item": {**item, **empty[item["type"]]}}
    match item:
        case {"type": "reasoning", "summary": [{"text": text}]}:
            place["summary_index"] = 0
            part = {"type": "summary_text", "text": text}
            yield {"type": "response.reasoning_summary_part.added", **place, "part": {**part, "text": ""}}
            for piece in pieces(text):
                yield {"type": "response.reasoning_summary_text.delta", **place, "delta": piece}
            yield {"type": "response.reasoning_summary_text.done", **place, "text": text}
            yield {"type": "response.reasoning_summary_part.done", **place, "part": part}
        case {"type": "message", "content": [part]}:
            place["content_index"] = 0
            name = "output_text" if part["type"] == "output_text" else "refusal"
            member = "text" if name == "output_text" else "refusal"
            yield {"type": "response.content_part.added", **place, "part": {**part, member: ""}}
            for piece in pieces(part[member]):
                yield {"type": f"response.{name}.delta", **place, "delta": piece, "logprobs": []}
            yield {"type": f"response.{name}.done", **place, member: part[member], "logprobs": []}
            yield {"type": "response.content_part.done", **place, "part": part}
        case {"type": "function_call", "arguments": arguments}:
            for piece in pieces(arguments):
                yield {"type": "response.function_call_arguments.delta", **place, "delta": piece}
            yield {"type": "response.function_call_arguments.done", **place, "arguments": arguments}
        case _:
            pass
    yield {"type": "response.output_item.done", "output_index": index, "item": item}


def whole(native: Format, said: Said) -> bytes:
    made = {id(chat): chat_whole, id(messages): messages_whole, id(responses): responses_whole}
    return made[id(native)](said)


def stream(native: Format, said: Said) -> Iterable[bytes]:
    made = {id(chat): chat_stream, id(messages): messages_stream, id(responses): responses_stream}
    return made[id(native)](said)
