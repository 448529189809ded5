"""Orders of chat completions, read into the neutral form.

Source: the types of OpenAI's SDK (`chat.completion_create_params`) and OpenRouter's OpenAPI document (ChatRequest).
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
    Effort,
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
from farebox.core.translate.raw import FALSE, NULL, TRUE, data_of, is_text, said, shown_as, word
from farebox.core.translate.thoughts import ANTHROPIC, CHAT, OPENAI, budget_in

_PLAIN = frozenset({"messages", "stream", "max_tokens", "max_completion_tokens"})
"""Most orders have no other members that need translation."""


def read(fields: Fields, plain: dict[str, Raw], sifter: Sifter) -> Order:
    """Raises Refusal 400."""
    order = Order(plain, _turns(fields.get("messages", NULL), sifter), said(fields.get("stream")) == TRUE)
    for name in ("max_tokens", "max_completion_tokens"):
        order.answer_tokens = said(fields.get(name)) or order.answer_tokens
    if fields.keys() <= _PLAIN:
        return order
    order.stop = stops_in(said(fields.get("stop")))
    if tools := said(fields.get("tools")):
        order.tools = [_tool(each, sifter) for each in decoded_part(decode_each, tools, "tools")] or None
    if choice := said(fields.get("tool_choice")):
        order.choice = _choice(choice)
    if (parallel := said(fields.get("parallel_tool_calls"))) is not None:
        order.is_parallel = parallel == TRUE
    if form := said(fields.get("response_format")):
        _read_schema(form, order, sifter)
    order.effort = _effort(fields, sifter)
    order.user, order.tier = said(fields.get("user")), word(fields.get("service_tier")) or None
    if said(fields.get("logprobs")) == TRUE:
        order.odds = said(fields.get("top_logprobs")) or Raw(b"0")
    for name in ("verbosity", "store", "temperature"):
        if (value := said(fields.get(name))) is not None:
            plain[name] = value
    return order


def stops_in(stop: Raw | None) -> list[Raw] | None:
    """The stop sequences of a `stop`, which is one or a list of them; empty ones stop nothing. Raises Refusal 400."""
    if stop is None:
        return None
    stops = decoded_part(decode_list, stop, "stop") if bytes(stop).startswith(b"[") else [stop]
    if not all(bytes(each).startswith(b'"') for each in stops):
        raise invalid("stop: give a text, or a list of texts")
    return [each for each in stops if is_text(each)] or None


def _turns(raw: Raw, sifter: Sifter) -> list[Turn]:
    turns: list[Turn] = []
    for fields in decoded_part(decode_each, raw, "messages"):
        role = word(fields.get("role"))
        sifter.kind("messages", role)
        path = f"messages[{role}]"
        message = sifter.members(path, fields)
        if role == "tool":
            if not ends_in_result(turns):
                turns.append(Turn("user", []))
            parts = [part for part in _parts(message, path, sifter) if isinstance(part, Text)]
            turns[-1].parts.append(Result(needed(message, "tool_call_id", path), list(parts)))
        elif role == "assistant":
            turns.append(Turn(role, _said(message, path, sifter)))
        elif role == "user" and ends_in_result(turns):
            turns[-1].parts += _parts(message, path, sifter)
        else:
            turns.append(Turn(role, _parts(message, path, sifter)))
    return turns


def _said(message: Fields, path: str, sifter: Sifter) -> list[Part]:
    """What the assistant said earlier: its thoughts, its words, its calls."""
    parts: list[Part] = []
    if details := said(message.get("reasoning_details")):
        parts += thoughts_of(decoded_part(decode_each, details, f"{path}.reasoning_details"))
    parts += [part for part in _parts(message, path, sifter) if not isinstance(part, Text) or is_text(part.text)]
    if is_text(refusal := said(message.get("refusal"))):
        assert refusal is not None
        parts.append(Refused(refusal))
    if calls := said(message.get("tool_calls")):
        for fields in decoded_part(decode_each, calls, f"{path}.tool_calls"):
            sifter.kind(f"{path}.tool_calls", word(fields.get("type")) or "function")
            call = sifter.members("tool_calls[function]", fields)
            function = decoded_part(decode_fields, call.get("function", NULL), f"{path}.tool_calls[...].function")
            function = sifter.members("tool_calls[function].function", function)
            place = f"{path}.tool_calls[...].function"
            name, arguments = needed(function, "name", place), needed(function, "arguments", place)
            parts.append(Call(needed(call, "id", f"{path}.tool_calls[...]"), name, arguments))
    return parts


def thoughts_of(details: list[Fields], origin: str | None = None) -> list[Thinking]:
    """The thoughts in `reasoning_details`: of the host that each names, or of `origin`. Summaries of one id are one."""
    thoughts: list[Thinking] = []
    for detail in details:
        form = word(detail.get("format"))
        whose = origin or (form if form in (ANTHROPIC, OPENAI) else f"{CHAT}:{form}")
        id_ = said(detail.get("id"))
        text = said(detail.get("text")) or said(detail.get("summary"))
        seal = said(detail.get("signature")) or said(detail.get("data"))
        last = thoughts[-1] if thoughts else None
        # OpenAI's summary and its encrypted content are one item under one id.
        if last is not None and id_ is not None and last.id == id_ and last.seal is None and text is None:
            last.seal = seal
        elif text is not None or seal is not None:
            thoughts.append(Thinking(whose, text, seal, id_))
    return thoughts


def _parts(message: Fields, path: str, sifter: Sifter) -> list[Part]:
    content = said(message.get("content"))
    if content is None:
        return []
    if bytes(content).startswith(b'"'):
        return [Text(content)]
    return [_part(each, path, sifter) for each in decoded_part(decode_each, content, f"{path}.content")]


def _part(part: Fields, path: str, sifter: Sifter) -> Part:
    kind = word(part.get("type"))
    sifter.kind(f"{path}.content", kind)
    part = sifter.members(f"part[{kind}]", part)
    cache = said(part.get("cache_control"))
    match kind:
        case "text":
            return Text(needed(part, "text", f"{path}.content[text]"), cache)
        case "refusal":
            return Refused(needed(part, "refusal", f"{path}.content[refusal]"))
        case "image_url":
            image = part.get("image_url", NULL)
            if bytes(image).startswith(b'"'):
                image = Raw(b'{"url":%b}' % bytes(image))
            place = f"{path}.content[image_url].image_url"
            inner = sifter.members("part[image_url].image_url", decoded_part(decode_fields, image, place))
            url = needed(inner, "url", place)
            media, data = data_of(url) or ("", None)
            return Picture(None if data else url, media, data, detail=shown_as(inner.get("detail")), cache=cache)
        case _:
            place = f"{path}.content[file].file"
            inner = sifter.members("part[file].file", decoded_part(decode_fields, part.get("file", NULL), place))
            name, file_id = said(inner.get("filename")), said(inner.get("file_id"))
            if file_id is not None:
                return Document(file_id=file_id, name=name, cache=cache)
            url = needed(inner, "file_data", place)
            media, data = data_of(url) or ("", None)
            if data is None and "://" not in word(url):
                raise invalid(f"{place}.file_data: give a `data:` URL with base64, or the file's URL")
            return Document(None if data else url, media, data, name=name, cache=cache)


def _tool(tool: Fields, sifter: Sifter) -> Tool:
    kind = word(tool.get("type"))
    sifter.kind("tools", kind)
    tool = sifter.members("tools[function]", tool)
    function = decoded_part(decode_fields, tool.get("function", NULL), "tools[function].function")
    function = sifter.members("tools[function].function", function)
    return Tool(
        needed(function, "name", "tools[function].function"),
        said(function.get("description")),
        said(function.get("parameters")),
        said(function.get("strict")),
        said(tool.get("cache_control")),
    )


_CHOICES = {"auto": "auto", "none": "none", "required": "any"}


def _choice(raw: Raw) -> Choice:
    if kind := _CHOICES.get(word(raw)):
        return Choice(kind)
    if bytes(raw).startswith(b"{"):
        fields = decoded_part(decode_fields, raw, "tool_choice")
        if word(fields.get("type")) == "function":
            function = decoded_part(decode_fields, fields.get("function", NULL), "tool_choice.function")
            return Choice("named", needed(function, "name", "tool_choice.function"))
    raise invalid("tool_choice: give `auto`, `none`, `required`, or the function to be called")


def _read_schema(raw: Raw, order: Order, sifter: Sifter) -> None:
    form = sifter.members("response_format", decoded_part(decode_fields, raw, "response_format"))
    kind = word(form.get("type"))
    sifter.kind("response_format", kind)
    if kind == "json_object":
        order.schema = Schema()
    elif kind == "json_schema":
        place = "response_format.json_schema"
        inner = sifter.members(place, decoded_part(decode_fields, form.get("json_schema", NULL), place))
        order.schema = Schema(
            said(inner.get("schema")) or Raw(b"{}"),
            said(inner.get("name")),
            said(inner.get("description")),
            said(inner.get("strict")),
        )


def _effort(fields: Fields, sifter: Sifter) -> Effort | None:
    level = word(fields.get("reasoning_effort")) or None
    raw = said(fields.get("reasoning"))
    if raw is None:
        return Effort(level) if level else None
    return effort_of(sifter.members("reasoning", decoded_part(decode_fields, raw, "reasoning")), level)


def effort_of(reasoning: Fields, level: str | None = None) -> Effort | None:
    """How much is asked for by a `reasoning`, as OpenRouter and OpenAI's responses have it."""
    level = word(reasoning.get("effort")) or level
    tokens = budget_in(reasoning, "max_tokens", "reasoning")
    if said(reasoning.get("enabled")) == FALSE:
        level = "none"
    summary = said(reasoning.get("summary")) or said(reasoning.get("generate_summary"))
    is_asked = level or tokens is not None or said(reasoning.get("enabled")) == TRUE or summary is not None
    is_shown = said(reasoning.get("exclude")) != TRUE
    return Effort(level, tokens, is_shown, summary) if is_asked else None
