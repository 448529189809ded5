"""Simulated chat completions: a deterministic answer, its usage, and the events it is streamed in."""

import re
from dataclasses import dataclass
from decimal import Decimal
from typing import Any

import msgspec
from msgspec import UNSET, Raw, Struct, UnsetType

from farebox.upstream.simulator.faults import Faults
from farebox.upstream.simulator.models import Model

IMAGE_TOKENS = 1290
CREATED = 1_767_225_600

# A red pixel.
_PNG = (
    "data:image/png;base64,iVBORw0KGgoAAAANSUhEUgAAAAEAAAABCAYAAAAfFcSJ"
    "AAAADUlEQVR4nGP4z8DwHwAFAAH/iZk9HQAAAABJRU5ErkJggg=="
)


class Part(Struct):
    type: str
    text: str = ""


class Message(Struct):
    role: str
    content: str | list[Part] | None = None

    @property
    def text(self) -> str:
        if isinstance(self.content, list):
            return " ".join(part.text for part in self.content if part.text)
        return self.content or ""

    @property
    def images(self) -> int:
        return sum(part.type == "image_url" for part in self.content) if isinstance(self.content, list) else 0


class Function(Struct):
    name: str
    parameters: dict[str, object] = {}


class Tool(Struct):
    type: str
    function: Function | None = None


class ChatRequest(Struct):
    """What the simulator reads; it takes the rest as OpenRouter does, without a word."""

    messages: list[Message] | UnsetType = UNSET
    prompt: str | UnsetType = UNSET
    model: str | None = None
    models: list[str] | None = None
    stream: bool | None = None
    max_tokens: int | None = None
    max_completion_tokens: int | None = None
    modalities: list[str] | None = None
    tools: list[Tool] | None = None
    tool_choice: Raw | UnsetType = UNSET
    n: int | None = None


@dataclass(frozen=True, slots=True)
class Said:
    """An answer before it is put in any shape: pieces are tokens."""

    model: Model
    reasoning: tuple[str, ...]
    pieces: tuple[str, ...]
    image: str | None
    tool_call: tuple[str, str] | None
    finish_reason: str
    prompt_tokens: int

    @property
    def answer_tokens(self) -> int:
        return len(self.reasoning) + len(self.pieces) + self.image_tokens + (8 if self.tool_call else 0)

    @property
    def image_tokens(self) -> int:
        return IMAGE_TOKENS if self.image else 0


def answer(request: ChatRequest, model: Model, faults: Faults) -> Said:
    """What the model says to this request."""
    messages = request.messages if isinstance(request.messages, list) else [Message("user", str(request.prompt or ""))]
    prompt_tokens = sum(3 + (len(m.text.encode()) + 3) // 4 + 258 * m.images for m in messages)
    asked = next((m.text for m in reversed(messages) if m.role == "user"), "")
    tool = next((t.function for t in request.tools or () if t.function), None)
    wants_tool = tool is not None and messages[-1].role != "tool" and request.tool_choice != Raw(b'"none"')
    image = _PNG if "image" in (request.modalities or ()) and "image" in model.outputs else None
    if tool is not None and wants_tool:
        return Said(model, (), (), image, (tool.name, _arguments(tool, asked)), "tool_calls", prompt_tokens)
    words = [f"word{i} " for i in range(faults.tokens)] if faults.tokens is not None else _words(f"You said: {asked}")
    reasoning = _words(f"The last message has {len(asked)} characters. I shall say it back.") if model.reasons else []
    caps = [cap for cap in (request.max_tokens, request.max_completion_tokens, model.answer_tokens_max) if cap]
    room = min(caps) if caps else len(words)
    thought, said = reasoning[:room], words[: max(0, room - len(reasoning))]
    finish = "stop" if len(thought) + len(said) == len(reasoning) + len(words) else "length"
    return Said(model, tuple(thought), tuple(said), image, None, finish, prompt_tokens)


def _words(text: str) -> list[str]:
    return re.findall(r"\s*\S+\s*", text)


def _arguments(tool: Function, asked: str) -> str:
    properties = tool.parameters.get("properties")
    names = list(properties) if isinstance(properties, dict) else []
    return msgspec.json.encode(dict.fromkeys(names, asked)).decode()


def usage(said: Said, faults: Faults) -> dict[str, object]:
    """The usage object in OpenRouter's shape. Off BYOK it repeats the cost as the upstream's."""
    cost = said.model.cost(said.prompt_tokens, said.answer_tokens - said.image_tokens, said.image_tokens)
    number = Raw(b"null" if faults.cost == "is-null" else (faults.cost or _number(cost)).encode())
    bill = Raw(faults.byok.encode()) if faults.byok else number
    prompt_cost = said.model.cost(said.prompt_tokens, 0)
    return {
        "prompt_tokens": said.prompt_tokens,
        "completion_tokens": said.answer_tokens,
        "total_tokens": said.prompt_tokens + said.answer_tokens,
        "cost": number,
        "is_byok": faults.byok is not None,
        "prompt_tokens_details": {"cached_tokens": 0, "cache_write_tokens": 0, "audio_tokens": 0, "video_tokens": 0},
        "cost_details": {
            "upstream_inference_cost": bill,
            "upstream_inference_prompt_cost": Raw(_number(prompt_cost).encode()),
            "upstream_inference_completions_cost": Raw(_number(cost - prompt_cost).encode()),
        },
        "completion_tokens_details": {
            "reasoning_tokens": len(said.reasoning),
            "image_tokens": said.image_tokens,
            "audio_tokens": 0,
        },
    }


def _number(amount: Decimal) -> str:
    """As JSON numbers come from floats in the wild: `7.1e-05`, `3E-7`, `0.00015472`."""
    if amount == 0:
        return "0"
    plain = amount.normalize()
    if plain < Decimal("0.000001"):
        return f"{plain:E}"
    return repr(float(plain)) if Decimal(repr(float(plain))) == plain else f"{plain:f}"


def whole(said: Said, generation_id: str, faults: Faults) -> bytes:
    """The body of an answer that is not streamed."""
    message: dict[str, object] = {"role": "assistant", "content": "".join(said.pieces) or None, "refusal": None}
    if said.reasoning:
        message["reasoning"] = "".join(said.reasoning)
    if said.image:
        message["images"] = [{"type": "image_url", "image_url": {"url": said.image}}]
    if said.tool_call:
        name, arguments = said.tool_call
        call = {"index": 0, "id": f"call_{generation_id[-8:]}", "type": "function"}
        message["tool_calls"] = [{**call, "function": {"name": name, "arguments": arguments}}]
    choice = {
        "index": 0,
        "logprobs": None,
        "finish_reason": said.finish_reason,
        "native_finish_reason": said.finish_reason,
        "message": message,
    }
    body: dict[str, object] = {
        "id": generation_id,
        "provider": "Simulator",
        "model": said.model.id,
        "object": "chat.completion",
        "created": CREATED,
        "system_fingerprint": None,
        "choices": [] if faults.choices == "empty" else [choice],
    }
    if faults.defect == "no-fingerprint":
        del body["system_fingerprint"]
    if faults.usage != "missing":
        body["usage"] = None if faults.usage == "is-null" else usage(said, faults)
    return msgspec.json.encode(body)


def events(said: Said, generation_id: str, faults: Faults) -> list[bytes]:
    """The data of each event of a streamed answer, `[DONE]` the last."""
    shape = faults.usage or said.model.usage_shape
    deltas = _deltas(said, generation_id)
    chunks = [_chunk(said, generation_id, delta) for delta in deltas]
    chunks[-1]["choices"][0]["finish_reason"] = chunks[-1]["choices"][0]["native_finish_reason"] = said.finish_reason
    reported = usage(said, faults)
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
    data = [msgspec.json.encode(chunk) for chunk in chunks]
    _break(data, chunks, faults)
    return data if faults.no_done or b'"error"' in data[-1] else [*data, b"[DONE]"]


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
        image = {"type": "image_url", "image_url": {"url": said.image}, "index": 0}
        deltas.append({"role": "assistant", "content": "", "images": [image]})
    deltas.append({"role": "assistant", "content": ""})
    return deltas


def _tool_delta(call: dict[str, object]) -> dict[str, object]:
    return {"role": "assistant", "content": None, "tool_calls": [call]}


def _chunk(said: Said, generation_id: str, delta: dict[str, object]) -> dict[str, Any]:
    choice = {"index": 0, "delta": delta, "finish_reason": None, "native_finish_reason": None, "logprobs": None}
    return {
        "id": generation_id,
        "provider": "Simulator",
        "model": said.model.id,
        "object": "chat.completion.chunk",
        "created": CREATED,
        "choices": [choice],
    }


def _spoil(chunks: list[dict[str, Any]], defect: str | None) -> None:
    """Give the first chunk, or the last, a defect that is seen in the wild."""
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


def _break(data: list[bytes], chunks: list[dict[str, Any]], faults: Faults) -> None:
    """End the stream in an error where one was asked for."""
    error = {"code": 502, "message": "Simulated provider failure", "metadata": {"error_type": "provider_unavailable"}}
    if faults.error_at_event is not None:
        del data[faults.error_at_event :]
        chunk = {key: value for key, value in chunks[0].items() if key != "usage"}
        choice = {"index": 0, "delta": {"role": "assistant", "content": ""}, "finish_reason": "error"}
        data.append(msgspec.json.encode({**chunk, "error": error, "choices": [choice]}))
    elif faults.bare_error_at_event is not None:
        del data[faults.bare_error_at_event :]
        bare = {"error": {"code": 402, "message": "Simulated: out of credits", "metadata": {}}, "user_id": "user_sim"}
        data.append(msgspec.json.encode(bare))
