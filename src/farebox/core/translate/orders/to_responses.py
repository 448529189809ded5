"""Orders of responses, written from the neutral form.

Source: the types of OpenAI's SDK (`responses.response_create_params`) and OpenRouter's OpenAPI document
(ResponsesRequest).
"""

from farebox.core.translate.members import Sifter
from farebox.core.translate.neutral import (
    Call,
    Choice,
    Document,
    Order,
    Part,
    Picture,
    Refused,
    Result,
    Schema,
    Text,
    Thinking,
    Tool,
    Turn,
)
from farebox.core.translate.orders.to_chat import UNNAMED, user_of
from farebox.core.translate.raw import FALSE, data_url, quoted
from farebox.core.translate.thoughts import OPENAI, level_of

SEALED = "reasoning.encrypted_content"
ODDS = "message.output_text.logprobs"
"""What can be included in an answer: sealed reasoning, the odds of tokens."""

_TIERS = frozenset({"auto", "default", "flex", "priority", "scale", "fast"})


def write(order: Order, sifter: Sifter) -> dict[str, object]:
    body: dict[str, object] = {"store": FALSE, **order.plain, "input": _items(order.turns, sifter)}
    text: dict[str, object] = {}
    include = [SEALED] if order.effort is not None and order.effort.level != "none" else []
    if (verbosity := body.pop("verbosity", None)) is not None:
        text["verbosity"] = verbosity
    if order.is_streamed:
        body["stream"] = True
    if order.answer_tokens is not None:
        body["max_output_tokens"] = order.answer_tokens
    if order.tools:
        body["tools"] = [_written_tool(tool) for tool in order.tools]
    if order.choice is not None:
        body["tool_choice"] = _written_choice(order.choice)
    if order.is_parallel is not None:
        body["parallel_tool_calls"] = order.is_parallel
    if order.effort is not None and (reasoning := _reasoning(order)):
        body["reasoning"] = reasoning
    if order.schema is not None:
        text["format"] = _format(order.schema)
    if text:
        body["text"] = text
    if (user := user_of(order, sifter)) is not None:
        body["user"] = user
    if order.tier in _TIERS:
        body["service_tier"] = order.tier
    elif order.tier:
        sifter.leave("service_tier")
    if order.odds is not None:
        body["top_logprobs"] = order.odds
        include.append(ODDS)
    if include:
        body["include"] = include
    return body


def _reasoning(order: Order) -> dict[str, object]:
    assert order.effort is not None
    reasoning: dict[str, object] = {}
    if level := level_of(order.effort):
        reasoning["effort"] = level
    if level != "none" and (order.effort.is_shown or order.effort.summary is not None):
        reasoning["summary"] = order.effort.summary or "auto"
    return reasoning


def _written_tool(tool: Tool) -> dict[str, object]:
    written: dict[str, object] = {"type": "function", "name": tool.name}
    if tool.description is not None:
        written["description"] = tool.description
    return {**written, "parameters": tool.parameters, "strict": tool.strict or FALSE}


def _written_choice(choice: Choice) -> object:
    if choice.kind == "named":
        return {"type": "function", "name": choice.name}
    return "required" if choice.kind == "any" else choice.kind


def _format(schema: Schema) -> dict[str, object]:
    if schema.schema is None:
        return {"type": "json_object"}
    form = {"name": schema.name or UNNAMED, "schema": schema.schema, "description": schema.description}
    form["strict"] = schema.strict
    return {"type": "json_schema", **{name: value for name, value in form.items() if value is not None}}


def _items(turns: list[Turn], sifter: Sifter) -> list[dict[str, object]]:
    items: list[dict[str, object]] = []
    for turn in turns:
        words: list[Part] = []
        for part in turn.parts:
            if isinstance(part, Text | Refused | Picture | Document):
                words.append(part)
                continue
            if words:
                items.append(_message(turn.role, words))
                words = []
            items += _item(part, sifter)
        if words or not (turn.parts or turn.role == "assistant"):
            items.append(_message(turn.role, words))
    return items


def _message(role: str, parts: list[Part]) -> dict[str, object]:
    return {"role": role, "content": _content(parts, "output_text" if role == "assistant" else "input_text")}


def _content(parts: list[Part], text: str) -> object:
    if len(parts) == 1 and isinstance(parts[0], Text):
        return parts[0].text
    return [_written(part, text) for part in parts]


def _item(part: Part, sifter: Sifter) -> list[dict[str, object]]:
    match part:
        case Call(id_, name, arguments):
            return [{"type": "function_call", "call_id": id_, "name": name, "arguments": arguments}]
        case Result(call_id, parts):
            output = _content(list(parts), "input_text") if parts else ""
            return [{"type": "function_call_output", "call_id": call_id, "output": output}]
        case Thinking(origin, text, seal, id_) if origin == OPENAI and seal is not None and id_ is not None:
            summary = [] if text is None else [{"type": "summary_text", "text": text}]
            return [{"type": "reasoning", "id": id_, "summary": summary, "encrypted_content": seal}]
        case _:
            sifter.leave("input[reasoning]")
            return []


def _written(part: Part, text: str) -> dict[str, object]:
    match part:
        case Text(told):
            return {"type": text, "text": told}
        case Refused(told):
            return {"type": "refusal", "refusal": told}
        case Picture():
            detail = part.detail or quoted("auto")
            if part.file_id is not None:
                return {"type": "input_image", "file_id": part.file_id, "detail": detail}
            url = part.url if part.data is None else data_url(part.media, part.data)
            return {"type": "input_image", "image_url": url, "detail": detail}
        case Document():
            name = {} if part.name is None else {"filename": part.name}
            if part.file_id is not None:
                return {"type": "input_file", "file_id": part.file_id, **name}
            if part.data is None:
                return {"type": "input_file", "file_url": part.url, **name}
            return {"type": "input_file", "file_data": data_url(part.media, part.data), **name}
        case _:
            raise AssertionError(part)
