"""Orders of messages, written from the neutral form.

Source: the types of Anthropic's SDK (`message_create_params`) and OpenRouter's OpenAPI document (MessagesRequest).
"""

import binascii
import re

from msgspec import Raw
from msgspec.json import Decoder

from farebox.core.errors import invalid
from farebox.core.formats.asking import decoded_part
from farebox.core.reading import Number
from farebox.core.translate.members import Sifter
from farebox.core.translate.neutral import (
    Call,
    Choice,
    Document,
    Effort,
    Order,
    Part,
    Picture,
    Refused,
    Result,
    Text,
    Thinking,
    Tool,
    Turn,
)
from farebox.core.translate.raw import is_text, object_in, quoted, word
from farebox.core.translate.thoughts import ANTHROPIC, budget_of, sealed_for

_decode_number = Decoder(Number).decode

ANSWER_TOKENS = 8_192
"""The cap of an order that has none, since messages demand one: each model of Anthropic's today can say as much."""


NO_MESSAGE = Raw(b'"(no message)"')
"""What a conversation begins with in which the assistant speaks first: messages demand that the user does."""


def write(order: Order, sifter: Sifter, answer_tokens_max: int) -> dict[str, object]:
    """The body. An order without a cap gets one of at most `answer_tokens_max`: so much is what its hold covers."""
    system, turns = _system(order.turns)
    if turns and turns[0].role == "assistant":
        turns.insert(0, Turn("user", [Text(NO_MESSAGE)]))
    body: dict[str, object] = {**order.plain}
    if order.is_streamed:
        body["stream"] = True
    if "temperature" in order.plain and decoded_part(_decode_number, order.plain["temperature"], "temperature") > 1:
        raise invalid("temperature: messages take 0 to 1; send 1 at most")
    thinking = _thinking(order.effort, body)
    budget = 0 if order.effort is None else budget_of(order.effort) or 0
    body["max_tokens"] = order.answer_tokens or min(ANSWER_TOKENS + budget, answer_tokens_max)
    if system is not None:
        body["system"] = system
    body["messages"] = [
        {"role": turn.role, "content": content}
        for turn in turns
        if (content := _content(turn, sifter)) or turn.role != "assistant"
    ]
    if order.stop:
        body["stop_sequences"] = order.stop
    if order.tools:
        body["tools"] = [_written_tool(tool) for tool in order.tools]
    if choice := _written_choice(order):
        body["tool_choice"] = choice
    if thinking is not None:
        body["thinking"] = thinking
    if order.schema is not None:
        output = body.setdefault("output_config", {})
        assert isinstance(output, dict)
        output["format"] = {"type": "json_schema", "schema": order.schema.schema}
    if order.user is not None:
        body["metadata"] = {"user_id": order.user}
    if order.tier in ("auto", "default"):
        body["service_tier"] = "auto" if order.tier == "auto" else "standard_only"
    elif order.tier:
        sifter.leave("service_tier")
    return body


def _system(turns: list[Turn]) -> tuple[object, list[Turn]]:
    """The `system` that the first turns make, and the rest. A later one stays in its place."""
    parts: list[Part] = []
    rest: list[Turn] = []
    for turn in turns:
        if turn.role in ("user", "assistant"):
            rest.append(turn)
        elif rest:
            rest.append(Turn("system", turn.parts))
        else:
            parts += turn.parts
    return (_texts(parts) if parts else None), rest


def _texts(parts: list[Part]) -> object:
    if len(parts) == 1 and isinstance(parts[0], Text) and parts[0].cache is None:
        return parts[0].text
    return [_block(part) for part in parts]


def _content(turn: Turn, sifter: Sifter) -> object:
    """What a turn says; an empty list where the assistant said nothing: messages take no such turn, and no empty text
    of its own."""
    parts = turn.parts
    if turn.role == "assistant":
        kept = [part for part in parts if not isinstance(part, Thinking) or _is_sealed_here(part)]
        if len(kept) < len(parts):
            sifter.leave("messages[assistant].reasoning")
        parts = [part for part in kept if not isinstance(part, Text) or is_text(part.text)]
    return _texts(parts)


def _is_sealed_here(thinking: Thinking) -> bool:
    return thinking.origin == ANTHROPIC and thinking.seal is not None


def _cached(block: dict[str, object], cache: Raw | None) -> dict[str, object]:
    return block if cache is None else {**block, "cache_control": cache}


def _block(part: Part) -> dict[str, object]:
    match part:
        case Text(text, cache):
            return _cached({"type": "text", "text": text}, cache)
        case Refused(text):
            return {"type": "text", "text": text}
        case Picture():
            return _cached({"type": "image", "source": _source(part)}, part.cache)
        case Document():
            block: dict[str, object] = {"type": "document", "source": _source(part)}
            return _cached(block if part.name is None else {**block, "title": part.name}, part.cache)
        case Call(id_, name, arguments, cache):
            given = object_in(arguments)
            if given is None:
                raise invalid(f"the call `{word(id_)}`: its arguments must be a text that holds a JSON object")
            return _cached({"type": "tool_use", "id": _call_id(id_), "name": name, "input": given}, cache)
        case Result(call_id, parts, is_error, cache):
            block = {"type": "tool_result", "tool_use_id": _call_id(call_id)}
            if parts:
                block["content"] = _texts(list(parts))
            return _cached({**block, "is_error": True} if is_error else block, cache)
        case Thinking(text=None):
            return {"type": "redacted_thinking", "data": sealed_for(ANTHROPIC, part)}
        case _:
            return {"type": "thinking", "thinking": part.text, "signature": sealed_for(ANTHROPIC, part)}


_IDS = re.compile(rb'"[\w-]+"')
_NOT_IN_IDS = re.compile(r"[^\w-]", re.ASCII)


def _call_id(id_: Raw) -> Raw:
    """A call's id in the characters that Anthropic takes: each other one by its number. (Kimi's calls are
    `functions.f:0`.)"""
    if _IDS.fullmatch(bytes(id_)):
        return id_
    return quoted(_NOT_IN_IDS.sub(lambda found: f"_{ord(found[0]):x}_", word(id_)))


def _source(part: Picture | Document) -> dict[str, object]:
    if part.file_id is not None:
        return {"type": "file", "file_id": part.file_id}
    if part.data is None:
        return {"type": "url", "url": part.url}
    if part.media == "text/plain":
        try:
            text = binascii.a2b_base64(bytes(part.data)[1:-1]).decode()
        except (binascii.Error, UnicodeDecodeError) as error:
            raise invalid("file.file_data: a plain text must be UTF-8, as base64") from error
        return {"type": "text", "media_type": "text/plain", "data": text}
    return {"type": "base64", "media_type": part.media, "data": part.data}


_NO_SCHEMA = Raw(b'{"type":"object","properties":{}}')


def _written_tool(tool: Tool) -> dict[str, object]:
    written: dict[str, object] = {"name": tool.name}
    if tool.description is not None:
        written["description"] = tool.description
    written["input_schema"] = tool.parameters or _NO_SCHEMA
    if tool.strict is not None:
        written["strict"] = tool.strict
    return _cached(written, tool.cache)


def _written_choice(order: Order) -> dict[str, object] | None:
    choice = order.choice
    if choice is None:
        if order.is_parallel is not False or not order.tools:
            return None
        choice = Choice("auto")
    written: dict[str, object] = {"type": "tool" if choice.kind == "named" else choice.kind}
    if choice.name is not None:
        written["name"] = choice.name
    if order.is_parallel is not None and choice.kind != "none":
        written["disable_parallel_tool_use"] = not order.is_parallel
    return written


_LEVELS = {"minimal": "low"}
"""Those that Anthropic has no word for."""


def _thinking(effort: Effort | None, body: dict[str, object]) -> dict[str, object] | None:
    """The `thinking` that an effort asks for; its level goes into `output_config`."""
    if effort is None:
        return None
    if effort.level == "none":
        return {"type": "disabled"}
    if effort.level is not None:
        body["output_config"] = {"effort": _LEVELS.get(effort.level, effort.level)}
    shown: dict[str, object] = {}
    if effort.is_shown is not None:
        shown["display"] = "summarized" if effort.is_shown else "omitted"
    if effort.budget is not None:
        return {"type": "enabled", "budget_tokens": budget_of(effort), **shown}
    return {"type": "adaptive", **shown}
