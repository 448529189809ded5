"""Orders of responses, read into the neutral form.

Source: the types of OpenAI's SDK (`responses.response_create_params`) and OpenRouter's OpenAPI document
(ResponsesRequest).
"""

from msgspec import Raw

from farebox.core.errors import invalid
from farebox.core.formats.asking import decoded_part
from farebox.core.legible import Fields, decode_each, decode_fields, decode_list
from farebox.core.translate.members import Sifter, needed
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
    ends_in_result,
)
from farebox.core.translate.orders.from_chat import effort_of, stops_in
from farebox.core.translate.orders.to_responses import ODDS, SEALED
from farebox.core.translate.raw import NULL, TRUE, data_of, in_paragraphs, said, shown_as, word
from farebox.core.translate.thoughts import OPENAI, unpacked

_PLAIN = frozenset({"instructions", "input", "stream", "max_output_tokens"})
"""Most orders have no other members that need translation."""


def read(fields: Fields, plain: dict[str, Raw], sifter: Sifter) -> Order:
    """Raises Refusal 400."""
    turns: list[Turn] = []
    if said(fields.get("instructions")) is not None:
        turns.append(Turn("system", [Text(needed(fields, "instructions"))]))
    given = fields.get("input", NULL)
    if bytes(given).startswith(b'"'):
        turns.append(Turn("user", [Text(given)]))
    else:
        for item in decoded_part(decode_each, given, "input"):
            _read_item(item, turns, sifter)
    order = Order(plain, turns, said(fields.get("stream")) == TRUE, said(fields.get("max_output_tokens")))
    if fields.keys() <= _PLAIN:
        return order
    order.stop = stops_in(said(fields.get("stop")))
    if tools := said(fields.get("tools")):
        order.tools = [_tool(each, sifter) for each in decoded_part(decode_each, tools, "tools")] or None
    if choice := said(fields.get("tool_choice")):
        order.choice = _choice(choice)
    if (parallel := said(fields.get("parallel_tool_calls"))) is not None:
        order.is_parallel = parallel == TRUE
    if reasoning := said(fields.get("reasoning")):
        order.effort = effort_of(sifter.members("reasoning", decoded_part(decode_fields, reasoning, "reasoning")))
        if order.effort is not None:
            order.effort.is_shown = order.effort.summary is not None
    if text := said(fields.get("text")):
        _read_text(text, order, sifter)
    _read_odds(fields, order, sifter)
    order.user, order.tier = said(fields.get("user")), word(fields.get("service_tier")) or None
    if (temperature := said(fields.get("temperature"))) is not None:
        plain["temperature"] = temperature
    return order


def _read_odds(fields: Fields, order: Order, sifter: Sifter) -> None:
    """The odds of tokens are asked for by their number, or by `include`."""
    order.odds = said(fields.get("top_logprobs"))
    for raw in decoded_part(decode_list, said(fields.get("include")) or Raw(b"[]"), "include"):
        included = word(raw)
        if included == ODDS:
            order.odds = order.odds or Raw(b"0")
        elif included != SEALED:
            sifter.leave("include")


def _read_item(item: Fields, turns: list[Turn], sifter: Sifter) -> None:
    kind = word(item.get("type")) or "message"
    sifter.kind("input", kind)
    item = sifter.members(f"input[{kind}]", item)
    place = f"input[{kind}]"
    match kind:
        case "message":
            role = word(item.get("role"))
            sifter.kind("message", role)
            parts = _parts(item.get("content", NULL), f"message[{role}].content", sifter)
            _add(turns, role, parts, joins=role == "assistant" or (role == "user" and ends_in_result(turns)))
        case "function_call":
            name, arguments = needed(item, "name", place), needed(item, "arguments", place)
            _add(turns, "assistant", [Call(needed(item, "call_id", place), name, arguments)])
        case "function_call_output":
            output = item.get("output", NULL)
            parts = _parts(output, "output.content", sifter)
            seen = [part for part in parts if isinstance(part, Text | Picture | Document)]
            result = Result(needed(item, "call_id", place), seen)
            _add(turns, "user", [result], joins=ends_in_result(turns))
        case _:
            _add(turns, "assistant", [_thought(item)])


def _add(turns: list[Turn], role: str, parts: list[Part], *, joins: bool = True) -> None:
    if joins and turns and turns[-1].role == role:
        turns[-1].parts += parts
    else:
        turns.append(Turn(role, list(parts)))


def _thought(item: Fields) -> Thinking:
    texts = [needed(part, "text", "input[reasoning]") for part in _pieces(item, "summary") or _pieces(item, "content")]
    thought = unpacked(in_paragraphs(texts), said(item.get("encrypted_content")) or NULL, OPENAI)
    if thought.origin == OPENAI:
        thought.id = said(item.get("id"))
    return thought


def _pieces(item: Fields, name: str) -> list[Fields]:
    return decoded_part(decode_each, said(item.get(name)) or Raw(b"[]"), f"input[reasoning].{name}")


def _parts(content: Raw, path: str, sifter: Sifter) -> list[Part]:
    if bytes(content).startswith(b'"'):
        return [Text(content)]
    return [_part(each, path, sifter) for each in decoded_part(decode_each, content, path)]


def _part(part: Fields, path: str, sifter: Sifter) -> Part:
    kind = word(part.get("type"))
    sifter.kind(path, kind)
    place = f"{path}[{kind}]"
    part = sifter.members(f"part[{kind}]", part)
    match kind:
        case "input_image":
            if (file_id := said(part.get("file_id"))) is not None:
                return Picture(file_id=file_id, detail=shown_as(part.get("detail")))
            url = needed(part, "image_url", place)
            media, data = data_of(url) or ("", None)
            return Picture(None if data else url, media, data, detail=shown_as(part.get("detail")))
        case "input_file":
            return _file(part, place)
        case "refusal":
            return Refused(needed(part, "refusal", place))
        case _:
            return Text(needed(part, "text", place))


def _file(part: Fields, place: str) -> Document:
    name = said(part.get("filename"))
    if (file_id := said(part.get("file_id"))) is not None:
        return Document(file_id=file_id, name=name)
    if (url := said(part.get("file_url"))) is not None:
        return Document(url, name=name)
    told = needed(part, "file_data", place)
    found = data_of(told)
    if found is None:
        raise invalid(f"{place}.file_data: give a `data:` URL with base64")
    return Document(media=found[0], data=found[1], name=name)


def _tool(tool: Fields, sifter: Sifter) -> Tool:
    kind = word(tool.get("type"))
    sifter.kind("tools", kind if kind in ("function", "custom") else "host's")
    tool = sifter.members("tools[function]", tool)
    name, parameters = needed(tool, "name", "tools[function]"), said(tool.get("parameters"))
    return Tool(name, said(tool.get("description")), parameters, said(tool.get("strict")))


_CHOICES = {"auto": "auto", "none": "none", "required": "any"}


def _choice(raw: Raw) -> Choice:
    if kind := _CHOICES.get(word(raw)):
        return Choice(kind)
    if bytes(raw).startswith(b"{"):
        fields = decoded_part(decode_fields, raw, "tool_choice")
        if word(fields.get("type")) == "function":
            return Choice("named", needed(fields, "name", "tool_choice"))
    raise invalid("tool_choice: give `auto`, `none`, `required`, or the function to be called")


def _read_text(raw: Raw, order: Order, sifter: Sifter) -> None:
    text = sifter.members("text", decoded_part(decode_fields, raw, "text"))
    if (verbosity := said(text.get("verbosity"))) is not None:
        order.plain["verbosity"] = verbosity
    form = said(text.get("format"))
    if form is None:
        return
    inner = sifter.members("text.format", decoded_part(decode_fields, form, "text.format"))
    kind = word(inner.get("type"))
    sifter.kind("text.format", kind)
    if kind == "json_object":
        order.schema = Schema()
    elif kind == "json_schema":
        name, schema = said(inner.get("name")), said(inner.get("schema")) or Raw(b"{}")
        order.schema = Schema(schema, name, said(inner.get("description")), said(inner.get("strict")))
