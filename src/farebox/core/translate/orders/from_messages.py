"""Orders of messages, read into the neutral form.

Source: the types of Anthropic's SDK (`message_create_params`) and OpenRouter's OpenAPI document (MessagesRequest).
"""

import binascii

from msgspec import Raw

from farebox.core.errors import invalid
from farebox.core.formats.asking import decoded_part
from farebox.core.legible import Fields, decode_each, decode_fields, decode_list
from farebox.core.translate.members import Sifter, needed
from farebox.core.translate.neutral import (
    EMPTY,
    Call,
    Choice,
    Document,
    Effort,
    Order,
    Part,
    Picture,
    Result,
    Schema,
    Text,
    Tool,
    Turn,
)
from farebox.core.translate.raw import NULL, TRUE, is_text, quoted, said, word
from farebox.core.translate.thoughts import ANTHROPIC, budget_in, unpacked

_PLAIN = frozenset({"system", "messages", "stream", "max_tokens"})
"""Most orders have no other members that need translation."""


def read(fields: Fields, plain: dict[str, Raw], sifter: Sifter) -> Order:
    """Raises Refusal 400."""
    turns: list[Turn] = []
    if system := said(fields.get("system")):
        turns.append(Turn("system", _parts(system, "messages[system].content", sifter)))
    for message in decoded_part(decode_each, fields.get("messages", NULL), "messages"):
        role = word(message.get("role"))
        sifter.kind("messages", role)
        content = sifter.members(f"messages[{role}]", message).get("content", NULL)
        turns.append(Turn(role, _parts(content, f"messages[{role}].content", sifter)))
    order = Order(plain, turns, said(fields.get("stream")) == TRUE, said(fields.get("max_tokens")))
    if fields.keys() <= _PLAIN:
        return order
    if stop := said(fields.get("stop_sequences")):
        order.stop = decoded_part(decode_list, stop, "stop_sequences") or None
    if tools := said(fields.get("tools")):
        order.tools = [_tool(each, sifter) for each in decoded_part(decode_each, tools, "tools")] or None
    if choice := said(fields.get("tool_choice")):
        _read_choice(choice, order, sifter)
    output = decoded_part(decode_fields, said(fields.get("output_config")) or Raw(b"{}"), "output_config")
    output = sifter.members("output_config", output)
    order.effort = _effort(said(fields.get("thinking")), said(output.get("effort")), sifter)
    if form := said(output.get("format")):
        inner = sifter.members("output_config.format", decoded_part(decode_fields, form, "output_config.format"))
        order.schema = Schema(said(inner.get("schema")) or Raw(b"{}"), strict=TRUE)
    metadata = decoded_part(decode_fields, said(fields.get("metadata")) or Raw(b"{}"), "metadata")
    order.user = said(sifter.members("metadata", metadata).get("user_id")) or said(fields.get("user"))
    tier = word(fields.get("service_tier"))
    order.tier = "default" if tier == "standard_only" else tier or None
    return order


def _parts(content: Raw, path: str, sifter: Sifter) -> list[Part]:
    if bytes(content).startswith(b'"'):
        return [Text(content)]
    return [_part(block, path, sifter) for block in decoded_part(decode_each, content, path)]


def _part(block: Fields, path: str, sifter: Sifter) -> Part:
    kind = word(block.get("type"))
    sifter.kind(path, kind)
    place = f"{path}[{kind}]"
    block = sifter.members(f"block[{kind}]", block)
    match kind:
        case "text":
            return Text(needed(block, "text", place))
        case "image":
            return _picture(block, place, sifter)
        case "document":
            return _document(block, place, sifter)
        case "tool_use":
            told = bytes(said(block.get("input")) or b"{}")
            if not told.startswith(b"{"):
                raise invalid(f"{place}.input: give an object")
            arguments = quoted(told.decode("utf-8", "replace"))
            return Call(needed(block, "id", place), needed(block, "name", place), arguments)
        case "tool_result":
            content = said(block.get("content")) or Raw(b"[]")
            parts = _parts(content, "tool_result.content", sifter)
            seen = [part for part in parts if isinstance(part, Text | Picture | Document)]
            return Result(needed(block, "tool_use_id", place), seen, said(block.get("is_error")) == TRUE)
        case "thinking":
            text, seal = needed(block, "thinking", place), said(block.get("signature")) or EMPTY
            return unpacked(text if is_text(text) else None, seal, ANTHROPIC)
        case _:
            return unpacked(None, needed(block, "data", place), ANTHROPIC)


def _picture(block: Fields, place: str, sifter: Sifter) -> Picture:
    source = decoded_part(decode_fields, block.get("source", NULL), f"{place}.source")
    kind = word(source.get("type"))
    sifter.kind("image.source", kind)
    match kind:
        case "base64":
            data = needed(source, "data", f"{place}.source")
            return Picture(media=word(source.get("media_type")), data=data)
        case "url":
            return Picture(needed(source, "url", f"{place}.source"))
        case _:
            return Picture(file_id=needed(source, "file_id", f"{place}.source"))


def _document(block: Fields, place: str, sifter: Sifter) -> Document:
    source = decoded_part(decode_fields, block.get("source", NULL), f"{place}.source")
    kind = word(source.get("type"))
    sifter.kind("document.source", kind)
    name = said(block.get("title"))
    match kind:
        case "base64":
            data = needed(source, "data", f"{place}.source")
            return Document(media=word(source.get("media_type")), data=data, name=name)
        case "text":
            text = word(needed(source, "data", f"{place}.source")).encode("utf-8", "replace")
            coded = Raw(b'"' + binascii.b2a_base64(text, newline=False) + b'"')
            return Document(media="text/plain", data=coded, name=name)
        case "url":
            return Document(needed(source, "url", f"{place}.source"), name=name)
        case _:
            return Document(file_id=needed(source, "file_id", f"{place}.source"), name=name)


def _tool(tool: Fields, sifter: Sifter) -> Tool:
    kind = word(tool.get("type")) or "custom"
    sifter.kind("tools", "custom" if kind == "custom" else "host's")
    tool = sifter.members("tools[custom]", tool)
    name, schema = needed(tool, "name", "tools[custom]"), said(tool.get("input_schema"))
    return Tool(name, said(tool.get("description")), schema, said(tool.get("strict")))


_CHOICES = {"auto": "auto", "none": "none", "any": "any", "tool": "named"}


def _read_choice(raw: Raw, order: Order, sifter: Sifter) -> None:
    fields = sifter.members("tool_choice", decoded_part(decode_fields, raw, "tool_choice"))
    kind = _CHOICES.get(word(fields.get("type")))
    if kind is None:
        raise invalid("tool_choice.type: give `auto`, `any`, `none` or `tool`")
    order.choice = Choice(kind, needed(fields, "name", "tool_choice") if kind == "named" else None)
    if (disabled := said(fields.get("disable_parallel_tool_use"))) is not None:
        order.is_parallel = disabled != TRUE


def _effort(thinking: Raw | None, level: Raw | None, sifter: Sifter) -> Effort | None:
    word_of = word(level) or None
    if thinking is None:
        return None if word_of is None else Effort(word_of)
    fields = sifter.members("thinking", decoded_part(decode_fields, thinking, "thinking"))
    if word(fields.get("type")) == "disabled":
        return Effort("none")
    tokens = budget_in(fields, "budget_tokens", "thinking")
    return Effort(word_of, tokens, word(fields.get("display")) != "omitted")
