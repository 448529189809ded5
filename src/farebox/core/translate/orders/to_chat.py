"""Orders of chat completions, written from the neutral form.

Source: the types of OpenAI's SDK (`chat.completion_create_params`) and OpenRouter's OpenAPI document (ChatRequest).
"""

from msgspec import Raw

from farebox.core.errors import invalid
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
from farebox.core.translate.raw import data_url, quoted, word
from farebox.core.translate.thoughts import CHAT, level_of

_TIERS = frozenset({"auto", "default", "flex", "priority", "scale", "fast"})

USER_CHARS_MAX = 64
"""A longer `user` is refused by OpenAI."""


def write(order: Order, sifter: Sifter) -> dict[str, object]:
    body: dict[str, object] = {**order.plain, "messages": _messages(order.turns, sifter)}
    if order.is_streamed:
        body |= {"stream": True, "stream_options": {"include_usage": True}}
    if order.answer_tokens is not None:
        # All hosts read this one but OpenAI's own: there it gets the other name (`core/fitting.py`).
        body["max_tokens"] = order.answer_tokens
    if order.stop:
        body["stop"] = order.stop
    if order.tools:
        body["tools"] = [{"type": "function", "function": _function(tool)} for tool in order.tools]
    if order.choice is not None:
        body["tool_choice"] = _written_choice(order.choice)
    if order.is_parallel is not None:
        body["parallel_tool_calls"] = order.is_parallel
    if order.schema is not None:
        body["response_format"] = _written_schema(order.schema)
    if order.effort is not None and (level := level_of(order.effort)):
        body["reasoning_effort"] = level
    if (user := user_of(order, sifter)) is not None:
        body["user"] = user
    if order.tier in _TIERS:
        body["service_tier"] = order.tier
    elif order.tier:
        sifter.leave("service_tier")
    if order.odds is not None:
        body |= {"logprobs": True, "top_logprobs": order.odds}
    return body


def user_of(order: Order, sifter: Sifter) -> Raw | None:
    """Whose order it is, as OpenAI takes it. (Claude Code's `user_id` is longer.)"""
    if order.user is not None and len(word(order.user)) > USER_CHARS_MAX:
        sifter.leave("metadata.user_id")
        return None
    return order.user


def _function(tool: Tool) -> dict[str, Raw]:
    function = {"name": tool.name, "description": tool.description, "parameters": tool.parameters}
    return {name: value for name, value in {**function, "strict": tool.strict}.items() if value is not None}


def _written_choice(choice: Choice) -> object:
    if choice.kind == "named":
        return {"type": "function", "function": {"name": choice.name}}
    return "required" if choice.kind == "any" else choice.kind


UNNAMED = Raw(b'"answer"')
"""What a schema without a name is called: OpenAI demands one."""


def _written_schema(schema: Schema) -> dict[str, object]:
    if schema.schema is None:
        return {"type": "json_object"}
    inner = {"name": schema.name or UNNAMED, "schema": schema.schema, "description": schema.description}
    inner["strict"] = schema.strict
    return {"type": "json_schema", "json_schema": {name: value for name, value in inner.items() if value is not None}}


_SAYS_NOTHING: dict[str, object] = {"role": "assistant", "content": None}


def _messages(turns: list[Turn], sifter: Sifter) -> list[dict[str, object]]:
    messages: list[dict[str, object]] = []
    for turn in turns:
        if turn.role == "assistant":
            message = _assistant(turn.parts, sifter)
            # One that says nothing is refused: it has neither a content nor a call.
            if message != _SAYS_NOTHING:
                messages.append(message)
            continue
        parts = turn.parts
        results = [part for part in parts if isinstance(part, Result)]
        if results:
            messages += [_result(each) for each in results]
            seen = [part for each in results for part in _seen_in(each)]
            parts = seen + [part for part in parts if not isinstance(part, Result)]
        if parts or not results:
            messages.append({"role": turn.role, "content": _content(parts)})
    return messages


def _result(result: Result) -> dict[str, object]:
    texts: list[Part] = [part for part in result.parts if isinstance(part, Text)]
    content = _content(texts) if texts or not result.parts else "What it gave back follows the results."
    return {"role": "tool", "tool_call_id": result.call_id, "content": content}


def _seen_in(result: Result) -> list[Part]:
    """The pictures and files of a result, which only a message of the user's can have, with whose they are."""
    seen: list[Part] = [part for part in result.parts if not isinstance(part, Text)]
    return [Text(quoted(f"From the result of the call {word(result.call_id)}:")), *seen] if seen else []


def _content(parts: list[Part]) -> object:
    if len(parts) == 1 and isinstance(parts[0], Text):
        return parts[0].text
    return [_written(part) for part in parts] or ""


def _written(part: Part) -> dict[str, object]:
    match part:
        case Text(text):
            return {"type": "text", "text": text}
        case Refused(text):
            return {"type": "refusal", "refusal": text}
        case Picture():
            url = part.url if part.data is None else data_url(part.media, part.data)
            if url is None:
                raise invalid("image_url: send the picture itself, or its URL; it cannot be sent by its `file_id`")
        case Document():
            return {"type": "file", "file": _file(part)}
        case _:
            raise AssertionError(part)
    return {"type": "image_url", "image_url": {"url": url, **({"detail": part.detail} if part.detail else {})}}


def _file(part: Document) -> dict[str, object]:
    name = {} if part.name is None else {"filename": part.name}
    if part.file_id is not None:
        return {"file_id": part.file_id, **name}
    if part.data is None:
        raise invalid("file: send the file itself; it cannot be sent by its URL")
    return {"file_data": data_url(part.media, part.data), **name}


def _assistant(parts: list[Part], sifter: Sifter) -> dict[str, object]:
    message: dict[str, object] = {"role": "assistant"}
    words: list[Part] = [part for part in parts if isinstance(part, Text)]
    message["content"] = _content(words) if words else None
    for part in parts:
        match part:
            case Refused(text):
                message["refusal"] = text
            case Thinking(origin) if origin.startswith(CHAT):
                _give_back(part, message)
            case Thinking():
                sifter.leave("messages[assistant].reasoning")
            case Call(id_, name, arguments):
                calls = message.setdefault("tool_calls", [])
                assert isinstance(calls, list)
                calls.append({"id": id_, "type": "function", "function": {"name": name, "arguments": arguments}})
            case _:
                assert isinstance(part, Text), part
    return message


def _give_back(thinking: Thinking, message: dict[str, object]) -> None:
    """Say a thought again in the member in which its host said it."""
    member = thinking.origin.removeprefix(f"{CHAT}:")
    if member in ("reasoning", "reasoning_content"):
        message[member] = thinking.text
    else:
        details = message.setdefault("reasoning_details", [])
        assert isinstance(details, list)
        details += details_of(thinking, member or None, len(details))


def details_of(thinking: Thinking, form: str | None, index: int) -> list[dict[str, object]]:
    """A thought as OpenRouter's `reasoning_details`."""
    common: dict[str, object] = {"format": form, "index": index}
    if thinking.id is not None:
        common["id"] = thinking.id
    if form is not None and form.endswith("responses-v1"):
        details = [] if thinking.text is None else [{"type": "reasoning.summary", "summary": thinking.text, **common}]
        if thinking.seal is not None:
            sealed = {**common, "index": index + len(details)}
            details.append({"type": "reasoning.encrypted", "data": thinking.seal, **sealed})
        return details
    if thinking.text is None:
        return [{"type": "reasoning.encrypted", "data": thinking.seal, **common}]
    return [{"type": "reasoning.text", "text": thinking.text, "signature": thinking.seal, **common}]
