"""What the Open Responses specification requires of a response and its events, and what stands there where an upstream
does not say it: what the order asked, or else the specification's default.

`whole_response` and `is_whole_event` say what is complete, and passes as it came. The names are those of the published
schema, version 2026-04-24; OpenAI's API echoes the same members of an order. The one rule: what an upstream did say
stays. A null says nothing.
"""

from collections.abc import Callable, Mapping
from types import MappingProxyType
from typing import Literal

import msgspec
from msgspec import UNSET, Raw, Struct, UnsetType

from farebox.core.formats import Progress
from farebox.core.formats.envelope import UNTOLD
from farebox.core.formats.mending import (
    NULL,
    Amount,
    add_nulls,
    drop_nulls,
    encode,
    fill,
    mend_each,
    mend_member,
    mend_object,
)
from farebox.core.legible import Fields, decode_each, decode_fields, decoded_or, leniently, written
from farebox.core.reading import UNREADABLE, is_null, starts_with

# What is told of the order


class _Member(Struct, frozen=True):
    """What stands in a member that nobody said, and how the JSON begins that an order may have there."""

    otherwise: Raw
    begins: bytes


def _member(otherwise: object, begins: bytes) -> _Member:
    return _Member(encode(otherwise), begins)


_NUMBER, _FLAG, _TEXT = b"-0123456789", b"tf", b'"'

ECHOED: Mapping[str, _Member] = MappingProxyType(
    {
        "previous_response_id": _member(None, _TEXT),
        "instructions": _member(None, _TEXT),
        "tools": _member([], b"["),
        "tool_choice": _member("auto", b'"{'),
        "truncation": _member("disabled", _TEXT),
        "parallel_tool_calls": _member(True, _FLAG),
        "text": _member({"format": {"type": "text"}}, b"{"),
        "top_p": _member(1, _NUMBER),
        "presence_penalty": _member(0, _NUMBER),
        "frequency_penalty": _member(0, _NUMBER),
        "top_logprobs": _member(0, _NUMBER),
        "temperature": _member(1, _NUMBER),
        "reasoning": _member({"effort": None, "summary": None}, b"{"),
        "max_output_tokens": _member(None, _NUMBER),
        "max_tool_calls": _member(None, _NUMBER),
        "store": _member(False, _FLAG),
        "background": _member(False, _FLAG),
        "service_tier": _member("default", _TEXT),
        "metadata": _member({}, b"{"),
        "safety_identifier": _member(None, _TEXT),
        "prompt_cache_key": _member(None, _TEXT),
    }
)
"""The members in which a response repeats its order, by the names that they have there, too."""

_UNASKED: Mapping[str, Raw] = {name: member.otherwise for name, member in ECHOED.items()}
_UNTOLD: Mapping[str, Raw] = dict.fromkeys(("completed_at", "error", "incomplete_details", "usage"), NULL)
"""Members that are null until there is something to say in them. (Plain dicts: of others Python makes no copy in one
go.)"""


def told(progress: Progress) -> Mapping[str, Raw]:
    """ECHOED as this answer's order has it, or as it is where nobody said it."""
    if progress.echoed is None:
        progress.echoed = told_of(progress.asked, progress.unheeded)
        progress.asked = b""
    return progress.echoed


def told_of(asked: bytes | Raw, unheeded: tuple[str, ...] = ()) -> Mapping[str, Raw]:
    """ECHOED as an order's body has it, or a response that has it all. What was left out of the order for its upstream
    (`unheeded`) is told as if it had not been asked: it was not in force."""
    said: Fields = {}
    for name, value in decoded_or(decode_fields, asked, Fields()).items():
        member = ECHOED.get(name)
        if member is not None and bytes(memoryview(value)[:1]) in member.begins:
            # A copy: what is cut out of the order would keep all of it.
            said[name] = value.copy()
    for path in unheeded:
        _take_out(said, path)
    _complete_within(said)
    return {**_UNASKED, **said} if said else _UNASKED


def _take_out(fields: Fields, path: str) -> None:
    """Take out a member, or one within it; metadata are the caller's own, whoever was told."""
    name, _, within = path.partition(".")
    if not within and name != "metadata":
        fields.pop(name, None)
    elif within and starts_with(fields.get(name, NULL), b"{"):
        mend_member(fields, name, lambda members: members.pop(within, None))


def _complete_within(fields: Fields) -> None:
    """Complete what stands within ECHOED."""
    if (tools := fields.get("tools", _NONE)) != _NONE:
        fields["tools"] = mend_each(tools, lambda tool, _: _complete_tool(tool))
    for name, complete in _WITHIN:
        if name in fields and starts_with(fields[name], b"{"):
            fields[name] = mend_object(fields[name], complete)


_NONE = Raw(b"[]")


def _complete_tool(tool: Fields) -> None:
    if _is_of(tool, "function"):
        add_nulls(tool, "description", "parameters", "strict")


def _complete_choice(choice: Fields) -> None:
    if _is_of(choice, "allowed_tools"):
        fill(choice, mode="auto", tools=[])


def _complete_text(text: Fields) -> None:
    fill(text, format={"type": "text"})
    mend_member(text, "format", _complete_form)


def _complete_form(form: Fields) -> None:
    if _is_of(form, "json_schema"):
        add_nulls(form, "description", "schema")
        fill(form, name="", strict=False)


def _is_of(fields: Fields, kind: str) -> bool:
    return fields.get("type") == encode(kind)


_WITHIN: tuple[tuple[str, Callable[[Fields], None]], ...] = (
    ("tool_choice", _complete_choice),
    ("text", _complete_text),
    ("reasoning", lambda reasoning: add_nulls(reasoning, "effort", "summary")),
)


# Complete, or not

_Text = str | None | UnsetType
_Any = Raw | UnsetType


class _Cited(Struct, gc=False):
    type: str
    url: _Text = UNSET
    start_index: _Any = UNSET
    end_index: _Any = UNSET
    title: _Text = UNSET


class _Part(Struct, gc=False):
    type: str
    text: _Any = UNSET
    refusal: _Any = UNSET
    annotations: list[_Cited] | UnsetType = UNSET


class _Item(Struct, gc=False):
    type: str
    id: _Text = UNSET
    status: _Text = UNSET
    role: _Text = UNSET
    content: list[_Part] | _Text = UNSET
    summary: _Any = UNSET
    encrypted_content: _Any = UNSET
    phase: _Text = UNSET
    call_id: _Text = UNSET
    name: _Text = UNSET
    arguments: _Any = UNSET


class _Tool(Struct, gc=False):
    type: str
    description: _Any = UNSET
    parameters: _Any = UNSET
    strict: _Any = UNSET


class _Form(Struct, gc=False):
    type: str
    name: _Any = UNSET
    description: _Any = UNSET
    schema: _Any = UNSET
    strict: bool | UnsetType = UNSET


class _TextForm(Struct, gc=False):
    format: _Form


class _Reasoning(Struct, gc=False):
    effort: Raw
    summary: Raw


class _Incomplete(Struct, gc=False):
    reason: str


class _Error(Struct, gc=False):
    code: str
    message: str


class WholeResponse(Struct, gc=False):
    """A response that has all that the specification requires of it; what is within, `_is_whole` says."""

    id: str
    object: Literal["response"]
    created_at: int
    completed_at: int | None
    status: str
    incomplete_details: _Incomplete | None
    model: str
    previous_response_id: str | None
    instructions: Raw
    output: list[_Item]
    error: Raw
    tools: list[_Tool]
    tool_choice: str | dict[str, Raw]
    truncation: str
    parallel_tool_calls: bool
    text: _TextForm
    top_p: Amount
    presence_penalty: Amount
    frequency_penalty: Amount
    top_logprobs: int
    temperature: Amount
    reasoning: _Reasoning | None
    usage: Raw
    max_output_tokens: int | None
    max_tool_calls: int | None
    store: bool
    background: bool
    service_tier: str
    metadata: Raw
    safety_identifier: str | None
    prompt_cache_key: str | None


_decode_response = msgspec.json.Decoder(WholeResponse).decode
_decode_part = msgspec.json.Decoder(_Part).decode
_decode_item = msgspec.json.Decoder(_Item).decode
_decode_items = msgspec.json.Decoder(list[_Item]).decode
_decode_error = msgspec.json.Decoder(_Error | None).decode
_decode_cited = msgspec.json.Decoder(_Cited).decode
_decode_text = msgspec.json.Decoder(str).decode
_decode_int = msgspec.json.Decoder(int).decode


def whole_response(text: bytes | Raw) -> WholeResponse | None:
    """The response, if it has all that is required. None where it has not, or is not JSON."""
    try:
        response = leniently(_decode_response, text)
    except UNREADABLE:
        return None
    return response if _is_whole(response) else None


def _is_whole(response: WholeResponse) -> bool:
    form, output, tools, error = response.text.format, response.output, response.tools, response.error
    return (
        (form.type == "text" or _is_whole_form(form))
        and (not output or all(map(_is_whole_item, output)))
        and (not tools or all(map(_is_whole_tool, tools)))
        and (error == NULL or decoded_or(_decode_error, error, None) is not None)
    )


def _is_whole_form(form: _Form) -> bool:
    return form.type != "json_schema" or UNSET not in (form.name, form.description, form.schema, form.strict)


def _is_whole_tool(tool: _Tool) -> bool:
    return tool.type != "function" or UNSET not in (tool.description, tool.parameters, tool.strict)


def _is_whole_item(item: _Item) -> bool:
    match item.type:
        case "message":
            named = type(item.id) is str and type(item.status) is str and type(item.role) is str
            parts = item.content
            return named and item.phase is not None and type(parts) is list and all(map(_is_whole_part, parts))
        case "function_call":
            named = type(item.id) is str and type(item.status) is str
            return named and type(item.call_id) is str and type(item.name) is str and _is_said(item.arguments)
        case "reasoning":
            has_no_null = item.content is not None and item.encrypted_content != NULL
            return type(item.id) is str and _is_said(item.summary) and has_no_null
        case _:
            return True


def _is_whole_part(part: _Part) -> bool:
    match part.type:
        case "output_text":
            return _is_said(part.text) and part.annotations is not UNSET and all(map(_is_whole_cited, part.annotations))
        case "refusal":
            return _is_said(part.refusal)
        case _:
            return True


_NOT_WHOLE_ITEMS = [_Item("message")]


def _is_whole_cited(cited: _Cited) -> bool:
    is_placed = cited.start_index is not UNSET and cited.end_index is not UNSET
    return cited.type != "url_citation" or (is_placed and type(cited.url) is str and type(cited.title) is str)


def _is_said(value: _Any) -> bool:
    return value is not UNSET and value != NULL


class Event(Struct, gc=False):
    """An event of a stream, as far as it is looked into."""

    type: str
    sequence_number: int
    response: _Any = UNSET
    item_id: str | UnsetType = UNSET
    output_index: int | UnsetType = UNSET
    content_index: int | UnsetType = UNSET
    summary_index: int | UnsetType = UNSET
    annotation_index: int | UnsetType = UNSET
    item: _Any = UNSET
    part: _Any = UNSET
    annotation: _Any = UNSET
    logprobs: tuple[Raw, ...] | UnsetType = UNSET
    name: str | UnsetType = UNSET
    error: _Any = UNSET
    usage: _Any = UNSET


def is_in_item(event: Event) -> bool:
    return event.item_id is not UNSET and event.output_index is not UNSET


def is_in_content(event: Event) -> bool:
    return event.item_id is not UNSET and event.output_index is not UNSET and event.content_index is not UNSET


def is_in_summary(event: Event) -> bool:
    return event.item_id is not UNSET and event.output_index is not UNSET and event.summary_index is not UNSET


def _has_item(event: Event) -> bool:
    item = None if event.item is UNSET else decoded_or(_decode_item, event.item, None)
    return event.output_index is not UNSET and item is not None and _is_whole_item(item)


def _has_part(event: Event) -> bool:
    part = None if event.part is UNSET else decoded_or(_decode_part, event.part, None)
    return part is not None and _is_whole_part(part) and (is_in_content(event) or is_in_summary(event))


def _has_annotation(event: Event) -> bool:
    cited = None if event.annotation is UNSET else decoded_or(_decode_cited, event.annotation, None)
    is_placed = is_in_content(event) and event.annotation_index is not UNSET
    return is_placed and cited is not None and _is_whole_cited(cited)


_IN_ITEM = ("item_id", "output_index")
_IN_CONTENT = (*_IN_ITEM, "content_index")
_IN_SUMMARY = (*_IN_ITEM, "summary_index")


class _Kind(Struct, frozen=True):
    """The members that say where an event belongs, and what tells whether it has them and what they hold."""

    place: tuple[str, ...]
    is_whole: Callable[[Event], bool]


_KINDS: Mapping[str, _Kind] = MappingProxyType(
    {
        f"response.{name}.{step}": kind
        for steps, kinds in (
            (
                ("added", "done"),
                {
                    "output_item": _Kind(("output_index",), _has_item),
                    "content_part": _Kind(_IN_CONTENT, _has_part),
                    "reasoning_summary_part": _Kind(_IN_SUMMARY, _has_part),
                },
            ),
            (("added",), {"output_text.annotation": _Kind((*_IN_CONTENT, "annotation_index"), _has_annotation)}),
            (
                ("delta", "done"),
                {
                    **dict.fromkeys(
                        ("output_text", "refusal", "reasoning", "reasoning_text"), _Kind(_IN_CONTENT, is_in_content)
                    ),
                    "reasoning_summary_text": _Kind(_IN_SUMMARY, is_in_summary),
                    "function_call_arguments": _Kind(_IN_ITEM, is_in_item),
                },
            ),
        )
        for name, kind in kinds.items()
        for step in steps
    }
)
"""The events within an answer, by their types."""


def is_whole_event(event: Event) -> bool:
    kind = _KINDS.get(event.type)
    return kind is None or kind.is_whole(event)


# Completing


def completed_response(response: bytes | Raw, progress: Progress) -> bytes:
    """A response with all that the specification requires. Raises those of UNREADABLE."""
    before, after = progress.completed
    if response != before:  # the first two of a stream are the same
        after = bytes(written(completed(decode_fields(response), progress)))
        progress.completed = response, after
    return after


def completed(response: Fields, progress: Progress) -> Fields:
    """A response with all that the specification requires of it, and of all within it."""
    echoed = told(progress)
    said = {name: value for name, value in response.items() if value != NULL or name not in echoed}
    _complete_within(said)
    fields = {**_UNTOLD, **echoed, **said}
    for name, complete in (("incomplete_details", _complete_details), ("error", _complete_error)):
        if fields[name] != NULL:
            mend_member(fields, name, complete)
    output = fields.get("output", NULL)
    if output != _NONE and not all(map(_is_whole_item, decoded_or(_decode_items, output, _NOT_WHOLE_ITEMS))):
        fields["output"] = _completed_items(fields, output, progress)
    return fields


def _completed_items(fields: Fields, output: Raw, progress: Progress) -> Raw:
    items = decoded_or(decode_each, output, None)
    if items is None:
        return output
    status = decoded_or(_decode_text, fields.get("status"), "")
    for number, item in enumerate(items):
        is_last = number == len(items) - 1
        complete_item(item, _id_of(progress), number, status if is_last and status in _GOING else "completed")
    return written(items)


_GOING = frozenset({"in_progress", "incomplete"})


def _id_of(progress: Progress) -> str:
    return progress.response_id or progress.generation_id


def _complete_details(details: Fields) -> None:
    fill(details, reason="unknown")


def _complete_error(error: Fields) -> None:
    fill(error, code="server_error", message=UNTOLD)
    if not starts_with(error["code"], _TEXT):
        error["code"] = encode(bytes(error["code"]).decode(errors="replace"))


_PREFIXES = {"message": "msg", "function_call": "fc", "reasoning": "rs"}


def complete_item(item: Fields, answer_id: str, number: int, status: str) -> None:
    """Add what is required of an item, the `number`-th of its answer."""
    kind = decoded_or(_decode_text, item.get("type"), "")
    if (prefix := _PREFIXES.get(kind)) is None:
        return
    fill(item, id=f"{prefix}_{answer_id}_{number}")
    match kind:
        case "message":
            drop_nulls(item, "phase")
            fill(item, status=status, role="assistant", content=[])
            item["content"] = mend_each(item["content"], lambda part, _: _complete_part(part))
        case "function_call":
            fill(item, status=status, name="", arguments="")
            if is_null(item.get("call_id", NULL)):
                item["call_id"] = item["id"]
        case _:
            drop_nulls(item, "content", "encrypted_content")
            fill(item, summary=[])


def _complete_part(part: Fields) -> None:
    if _is_of(part, "output_text"):
        fill(part, text="", annotations=[])
        part["annotations"] = mend_each(part["annotations"], lambda cited, _: _complete_cited(cited))
    elif _is_of(part, "refusal"):
        fill(part, refusal="")


def _complete_cited(cited: Fields) -> None:
    if _is_of(cited, "url_citation"):
        fill(cited, url="", title="", start_index=0, end_index=0)


def complete_event(fields: Fields, name: str, progress: Progress) -> None:
    """Add what is required of an event within an answer: where it belongs, and what is missing in what it holds."""
    kind = _KINDS.get(name)
    if kind is None:
        return
    is_new = name == "response.output_item.added"
    number = max(progress.output_index, 0) if not is_new else progress.output_index + 1
    place = {"item_id": progress.item_id, "output_index": number}
    fill(fields, **{member: place.get(member, 0) for member in kind.place})
    number = decoded_or(_decode_int, fields["output_index"], number) if "output_index" in fields else number
    status = "in_progress" if is_new else "completed"
    mend_member(fields, "item", lambda item: complete_item(item, _id_of(progress), number, status))
    mend_member(fields, "part", _complete_part)
    mend_member(fields, "annotation", _complete_cited)


class _Added(Struct):
    id: str
    name: str | UnsetType = UNSET


_decode_added = msgspec.json.Decoder(_Added).decode


def remember(event: Event, progress: Progress) -> None:
    """Remember the item that an event adds: later ones may not say to which they belong, and one that ends a call's
    arguments must have its name, too."""
    if event.type == "response.output_item.added":
        added = decoded_or(_decode_added, event.item, None)
        if event.output_index is not UNSET:
            progress.output_index = event.output_index
        if added is not None:
            progress.item_id = added.id
            if added.name is not UNSET:
                progress.call_names[added.id] = added.name
