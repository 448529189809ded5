"""Simulated responses: server-sent events without names, the generation's id as the response's, and the cost in the
last event."""

from dataclasses import replace
from typing import Any

import msgspec
from msgspec import Struct

from farebox.core.errors import Refusal, invalid
from farebox.core.formats.envelope import refusal_body
from farebox.core.reading import Number
from farebox.simulator import talk
from farebox.simulator.faults import Faults
from farebox.simulator.talk import Said, Talk, Turn

COMMENT = b": "

_STRING_CODES = {400: "invalid_prompt", 429: "rate_limit_exceeded", 500: "server_error"}
"""Codes of errors by status. OpenRouter documents them as text for this format, which its own SDK cannot type."""


class _Item(Struct):
    type: str = "message"
    role: str = "user"
    content: str | list[talk.Part] | None = ""
    output: Any = ""
    id: Any = None
    summary: Any = None
    encrypted_content: Any = None

    @property
    def thought(self) -> str:
        """What an item of reasoning says."""
        return talk.text_in(self.summary)


class _Tool(Struct):
    type: str
    name: str = ""
    parameters: Any = None


class Request(talk.Request):
    input: str | list[_Item] = ""
    instructions: str | None = None
    max_output_tokens: Number | None = None
    tools: list[_Tool] | None = None
    text: Any = None
    include: Any = None
    store: bool | None = None
    previous_response_id: str | None = None


_decode = msgspec.json.Decoder(Request).decode

_UNSAID = frozenset({"function_call", "reasoning"})
"""Items of earlier answers that say nothing to be answered."""


def read(body: bytes) -> Talk:
    request = _decode(body)
    if request.store or request.previous_response_id is not None:
        raise invalid("This API is stateless: store must be false, and previous_response_id null")
    return talk_in(request)


def talk_in(request: Request) -> Talk:
    """What a request asks for. Raises Refusal 400."""
    items = [_Item(content=request.input)] if isinstance(request.input, str) else request.input
    system = [Turn("system", (request.instructions,))] if request.instructions else []
    functions = [(each.name, each.parameters) for each in request.tools or () if each.type == "function"]
    turns = [*system, *(_turn(item) for item in items if item.type not in _UNSAID)]
    form = talk.member(request.text, "format", "schema")
    asked = talk.talk_of(request, turns, functions, form, max_output_tokens=request.max_output_tokens)
    return replace(asked, wants_seal="reasoning.encrypted_content" in (request.include or ()))


def _turn(item: _Item) -> Turn:
    if item.type == "function_call_output":
        return Turn("tool", (talk.text_in(item.output),))
    return talk.turn_of(item.role, item.content, "input_image")


def refused(refusal: Refusal) -> bytes:
    """The body of a refusal."""
    code = _STRING_CODES.get(refusal.status)
    if code is None:
        return refusal_body(refusal)
    return msgspec.json.encode({"error": {"code": code, "message": refusal.message}, "metadata": None})


def _usage(said: Said, faults: Faults) -> dict[str, object]:
    names = ("prompt", "completions") if faults.defect == "chat-costs" else ("input", "output")
    return {
        "input_tokens": said.prompt_tokens,
        "input_tokens_details": {"cached_tokens": 0, "cache_write_tokens": 0},
        "output_tokens": said.answer_tokens,
        "output_tokens_details": {"reasoning_tokens": len(said.reasoning)},
        "total_tokens": said.prompt_tokens + said.answer_tokens,
        **talk.cost_members(said, faults, *names),
    }


def _items(said: Said, generation_id: str) -> list[dict[str, Any]]:
    tail = generation_id[-8:]
    items: list[dict[str, Any]] = []
    if said.reasoning:
        thought = "".join(said.reasoning)
        summary = [{"type": "summary_text", "text": thought}]
        sealed = {"encrypted_content": talk.seal(thought)} if said.wants_seal else {}
        items.append({"type": "reasoning", "id": f"rs_{tail}", "summary": summary, **sealed})
    for index, (name, arguments) in enumerate(said.tool_calls):
        number = talk.numbered(generation_id, index)
        call = {"type": "function_call", "id": f"fc_{number}", "call_id": f"call_{number}", "name": name}
        items.append({**call, "arguments": arguments, "status": "completed"})
    if said.image:
        picture = {"type": "image_generation_call", "id": f"ig_{tail}", "result": said.image}
        items.append({**picture, "status": "completed"})
    if said.pieces:
        text = {"type": "output_text", "text": said.text, "annotations": [], "logprobs": []}
        message = {"type": "message", "id": f"msg_{tail}", "role": "assistant", "content": [text]}
        items.append({**message, "status": "completed"})
    return items


def _response(said: Said, generation_id: str, status: str, items: list[dict[str, Any]]) -> dict[str, Any]:
    is_cut = status == "incomplete"
    return {
        "id": generation_id,
        "object": "response",
        "created_at": talk.CREATED,
        "completed_at": talk.CREATED + 1 if status == "completed" else None,
        "model": said.model.id,
        "status": status,
        "error": None,
        "incomplete_details": {"reason": "max_output_tokens"} if is_cut else None,
        "instructions": None,
        "metadata": None,
        "temperature": None,
        "top_p": None,
        "presence_penalty": None,
        "frequency_penalty": None,
        "parallel_tool_calls": True,
        "tool_choice": "auto",
        "tools": [],
        "output": items,
    }


def finished(said: Said, generation_id: str, faults: Faults) -> dict[str, Any]:
    status = "incomplete" if said.finish_reason == "length" else "completed"
    body = _response(said, generation_id, status, _items(said, generation_id))
    body |= talk.usage_member(_usage(said, faults), faults)
    if faults.defect == "no-nulls":
        for name in ("metadata", "error", "top_p", "instructions"):
            del body[name]
    return body


def whole(said: Said, generation_id: str, faults: Faults) -> bytes:
    body = finished(said, generation_id, faults)
    if faults.choices == "empty":
        body["output"] = []
    if faults.failed:
        body |= {"status": "failed", "error": {"code": "server_error", "message": "Simulated provider failure"}}
    return msgspec.json.encode(body)


def events(said: Said, generation_id: str, faults: Faults) -> list[bytes]:
    return talk.written(stream_of(said, generation_id, faults), faults)


def stream_of(said: Said, generation_id: str, faults: Faults) -> list[dict[str, Any]]:
    """The events of a stream, numbered."""
    begun = {**_response(said, generation_id, "in_progress", []), "usage": None}
    stream: list[dict[str, Any]] = [
        {"type": "response.created", "response": begun},
        {"type": "response.in_progress", "response": begun},
    ]
    if faults.defect == "debug":
        stream.insert(0, {"type": "response.debug", "debug": {"echo_upstream_body": {}}})
    for index, item in enumerate(_items(said, generation_id)):
        stream += _item_events(index, item, said)
    if faults.defect == "fusion":
        stream.insert(2, {"type": "response.fusion_call.in_progress", "item_id": "fu_1", "output_index": 0})
    last = finished(said, generation_id, faults)
    stream.append({"type": f"response.{last['status']}", "response": last})
    flat = {"type": "error", "code": "server_error", "message": "Simulated provider failure", "param": None}
    stream = talk.broken_off(stream, faults, flat)
    for number, event in enumerate(stream):
        if "type" in event:
            event["sequence_number"] = number
            _spoil(event, faults.defect)
    return stream


def _spoil(event: dict[str, Any], defect: str | None) -> None:
    """Leave out what real upstreams have left out."""
    match defect:
        case "no-sequence":
            del event["sequence_number"]
        case "no-logprobs":
            event.pop("logprobs", None)
        case "no-name":
            event.pop("name", None)
        case _:
            return


def _item_events(index: int, item: dict[str, Any], said: Said) -> list[dict[str, Any]]:
    place = {"item_id": item["id"], "output_index": index}
    match item["type"]:
        case "reasoning":
            begun = {**item, "summary": []}
            between = _reasoning_events({**place, "summary_index": 0}, item["summary"][0], said)
        case "function_call":
            begun = {**item, "arguments": "", "status": "in_progress"}
            arguments, name = item["arguments"], item["name"]
            kind = "response.function_call_arguments"
            between = [
                {"type": f"{kind}.delta", "delta": arguments, **place},
                {"type": f"{kind}.done", "arguments": arguments, "name": name, **place},
            ]
        case "image_generation_call":
            begun = {**item, "result": None, "status": "in_progress"}
            kind = "response.image_generation_call"
            between = [{"type": f"{kind}.{step}", **place} for step in ("in_progress", "generating", "completed")]
        case _:
            begun = {**item, "content": [], "status": "in_progress"}
            between = _text_events({**place, "content_index": 0}, item["content"][0], said)
    return [
        {"type": "response.output_item.added", "output_index": index, "item": begun},
        *between,
        {"type": "response.output_item.done", "output_index": index, "item": item},
    ]


def _reasoning_events(place: dict[str, Any], part: dict[str, Any], said: Said) -> list[dict[str, Any]]:
    kind = "response.reasoning_summary"
    return [
        {"type": f"{kind}_part.added", "part": {**part, "text": ""}, **place},
        *({"type": f"{kind}_text.delta", "delta": piece, **place} for piece in said.reasoning),
        {"type": f"{kind}_text.done", "text": part["text"], **place},
        {"type": f"{kind}_part.done", "part": part, **place},
    ]


def _text_events(place: dict[str, Any], part: dict[str, Any], said: Said) -> list[dict[str, Any]]:
    kind = "response.output_text"
    return [
        {"type": "response.content_part.added", "part": {**part, "text": ""}, **place},
        *({"type": f"{kind}.delta", "delta": piece, "logprobs": [], **place} for piece in said.pieces),
        {"type": f"{kind}.done", "text": part["text"], "logprobs": [], **place},
        {"type": "response.content_part.done", "part": part, **place},
    ]
