"""OpenAI's responses, as OpenRouter speaks them: stateless, in events that have data and no `event:` line. What has
state is done around it (`core.stored`): an order that comes here asks for none.

Sources: OpenRouter's OpenAPI document (ResponsesRequest, OpenResponsesResult and its events), a capture of the wire,
and tests of what its SDKs and OpenAI's reject.
(Long, so that the whole format stands in one place: requests, events, answers.)
"""

from collections.abc import Mapping

import msgspec
from msgspec import UNSET, Raw, Struct, UnsetType, field
from msgspec.structs import replace

from farebox.core.compaction import opened
from farebox.core.errors import Refusal, broken, invalid
from farebox.core.formats import PASS, Asked, Progress, Seen
from farebox.core.formats.asking import Request, asked, count, decoded, decoded_part, models_of, with_caps
from farebox.core.formats.bounds import BYTES, NESTED, OPEN, PICTURE, Bounds, Kind, decode_listed_tools
from farebox.core.formats.describing import CAP, COMMON, SERVED, USAGE, Described
from farebox.core.formats.envelope import (
    ERROR,
    error_in_band,
    read_error,
    refusal_body,
    typed_error,
    typed_refusal,
    unblaming,
)
from farebox.core.formats.mending import BRACE, NULL, cost_in, encode, see_whole, seen, without_object
from farebox.core.formats.responses_required import (
    Event,
    WholeResponse,
    completed_response,
    is_whole_event,
    remember,
    whole_response,
)
from farebox.core.formats.responses_strict import (
    StrictResponse,
    StrictUsage,
    is_shown_once,
    mend_event,
    mend_response,
    shown_once,
)
from farebox.core.formats.responses_usage import counting
from farebox.core.formats.thinking import lower_reasoning
from farebox.core.legible import Fields, decode_fields, decoded_or, legible_part, leniently, written
from farebox.core.reading import UNREADABLE, Many, Number, is_null
from farebox.core.schemas import FLAG, NAME, OBJECT, TEXT, array_of, object_of, or_null
from farebox.core.sse import KEEP_ALIVE, comment_event, data_event, event_data, named_event
from farebox.core.usage import Cost, Unknown, read_cost

__all__ = ["CAPS", "DESCRIBED", "KEEP_ALIVE", "TEXT_BEGINS"]
__all__ += ["capped", "counting", "error_event", "read", "refusal_body", "see_answer", "see_event", "typed_refusal"]

TEXT_BEGINS = b""

CAPS: tuple[str, ...] = ("max_output_tokens",)

DESCRIBED = Described(
    "Response, as OpenAI's newer clients ask",
    request=(
        "ResponsesRequest",
        object_of(
            {"model": NAME, "input": {"oneOf": [TEXT, array_of(OBJECT, minItems=1)]}},
            {
                **COMMON,
                **dict.fromkeys(CAPS, CAP),
                "store": {
                    **or_null(FLAG),
                    "description": "Whether the answer is kept for the account; true if absent.",
                },
                "background": or_null(FLAG),
                "previous_response_id": or_null(TEXT),
            },
        )
        # An order in the background is kept until it is asked for.
        | {
            "not": {
                "required": ["background", "store"],
                "properties": {"background": {"enum": [True]}, "store": {"enum": [False]}},
            }
        },
    ),
    answer=("Response", object_of({**SERVED, "object": TEXT, "status": TEXT, "output": array_of(OBJECT)}, USAGE)),
    refusal=ERROR,
    example={"model": "sim/echo", "input": "Hello"},
    keeps_answers=True,
    see_echoing=lambda body, progress: see_echoing(body, progress),  # noqa: PLW0108  (it stands below)
    opens=opened,
)

IN_FULL: Kind = "in full"
"""Its bytes, and the parts or tools that it has besides its content."""

ITEMS: Mapping[str, Kind] = {
    **dict.fromkeys(("reasoning", "compaction", "context_compaction", "configuration_update"), BYTES),
    **dict.fromkeys(("message", "agent_message"), NESTED),
    # Calls and their results: a later request repeats them in full, so their bytes bound them.
    **dict.fromkeys(("function_call", "custom_tool_call", "apply_patch_call", "apply_patch_call_output"), BYTES),
    **dict.fromkeys(("function_call_output", "custom_tool_call_output"), NESTED),
    **dict.fromkeys(("local_shell_call", "local_shell_call_output", "shell_call", "shell_call_output"), BYTES),
    **dict.fromkeys(("web_search_call", "file_search_call", "tool_search_call", "computer_call"), BYTES),
    **dict.fromkeys(("mcp_list_tools", "mcp_approval_request", "mcp_approval_response", "mcp_call"), BYTES),
    "computer_call_output": NESTED,
    **dict.fromkeys(
        (
            f"openrouter:{tool}"
            for tool in (
                "advisor apply_patch bash code_interpreter datetime experimental__search_models file_search files"
                " fusion mcp memory shell subagent text_editor tool_search web_fetch web_search"
            ).split()
        ),
        BYTES,
    ),
    **dict.fromkeys(("image_generation_call", "openrouter:image_generation", "openrouter:browser_use"), PICTURE),
    **dict.fromkeys(("code_interpreter_call", "additional_tools", "tool_search_output"), IN_FULL),
    "item_reference": OPEN,
}
"""The kinds of an input's items."""

PARTS: Mapping[str, Kind] = {
    **dict.fromkeys(("input_text", "output_text", "text", "summary_text", "reasoning_text", "refusal"), BYTES),
    **dict.fromkeys(("encrypted_content", "logs"), BYTES),
    **dict.fromkeys(("input_image", "computer_screenshot", "image"), PICTURE),
    **dict.fromkeys(("input_file", "input_audio", "input_video", "file"), OPEN),
}
"""The kinds of an item's parts."""


class _Part(Struct, gc=False):
    type: str = ""
    image_url: Raw | UnsetType = UNSET
    url: Raw | UnsetType = UNSET


class _Item(Struct, gc=False):
    """An item as first read."""

    type: str = "message"
    content: Raw | UnsetType = UNSET
    output: Raw | UnsetType = UNSET


class _ItemInFull(Struct, gc=False):
    """The members that few items have: the outputs of code, tools, and an image in one of four places."""

    type: str = "message"
    outputs: Raw | UnsetType = UNSET
    tools: Raw | UnsetType = UNSET
    result: Raw | UnsetType = UNSET
    image_b64: Raw | UnsetType = field(default=UNSET, name="imageB64")
    image_url: Raw | UnsetType = field(default=UNSET, name="imageUrl")
    screenshot_b64: Raw | UnsetType = field(default=UNSET, name="screenshotB64")


class _Request(Request):
    input: Raw | UnsetType = UNSET
    max_output_tokens: Number | None = None
    prompt: Raw | UnsetType = UNSET
    store: bool | None = None
    background: bool | None = None
    previous_response_id: str | None = None
    conversation: Raw | UnsetType = UNSET


_decode_request = msgspec.json.Decoder(_Request).decode
_decode_items = msgspec.json.Decoder(Many[_Item]).decode
_decode_items_in_full = msgspec.json.Decoder(list[_ItemInFull]).decode
_decode_parts = msgspec.json.Decoder(list[_Part]).decode
_decode_part = msgspec.json.Decoder(_Part).decode


def read(body: bytes) -> Asked:
    request = decoded(_decode_request, body)
    models = models_of(request)
    _check_stateless(request)
    answer_tokens = None if request.max_output_tokens is None else count("max_output_tokens", request.max_output_tokens)
    has_template = request.prompt is not UNSET and not is_null(request.prompt)
    if (request.input is UNSET or is_null(request.input)) and not has_template:
        raise invalid("input: give a text or a list of items")
    bounds = Bounds(is_open=has_template)
    if request.input is not UNSET:
        _measure_input(bytes(request.input), bounds)
    return asked(request, body, models, bounds, answer_tokens)


def _check_stateless(request: _Request) -> None:
    if request.store:
        raise invalid("store: nothing is stored of such an order; send false, or leave it out")
    if request.previous_response_id is not None:
        raise invalid("previous_response_id: nothing is stored here; send the earlier items in `input`")
    if request.conversation is not UNSET and not is_null(request.conversation):
        raise invalid("conversation: nothing is stored here; send the earlier items in `input`")
    if request.background:
        raise invalid("background: an answer is sent on the connection that asked for it; send false, or leave it out")


def _measure_input(given: bytes, bounds: Bounds) -> None:
    if given.startswith(b'"') or given == b"null":
        return
    items = decoded_part(_decode_items, given, "input")
    if not items:
        raise invalid("input: the list is empty; give at least one item")
    is_more = False
    for item in items:
        kind = ITEMS.get(item.type, OPEN)
        if kind == NESTED:
            _measure_parts(item.content, bounds)
            _measure_parts(item.output, bounds)
        elif kind == OPEN:
            bounds.is_open = True
        elif kind != BYTES:
            is_more = True
    if is_more:
        for each in _decode_items_in_full(given):
            _measure_in_full(each, bounds)


def _measure_in_full(item: _ItemInFull, bounds: Bounds) -> None:
    kind = ITEMS.get(item.type, OPEN)
    if kind == PICTURE:
        bounds.add_picture(item.result, item.image_b64, item.image_url, item.screenshot_b64)
    elif kind == IN_FULL:
        _measure_parts(item.outputs, bounds)
        if item.tools is not UNSET and not is_null(item.tools):
            bounds.add_listed_tools(decoded_part(decode_listed_tools, item.tools, "input[...].tools"))


def _measure_parts(content: Raw | UnsetType, bounds: Bounds) -> None:
    """Measure a list of parts, or one part; text is bounded by its bytes."""
    text = b"null" if content is UNSET else bytes(content)
    if text.startswith(b'"') or text == b"null":
        return
    place = "input[...].content"
    is_one = text.startswith(b"{")
    parts = [decoded_part(_decode_part, text, place)] if is_one else decoded_part(_decode_parts, text, place)
    for part in bounds.take(parts):
        kind = PARTS.get(part.type, OPEN)
        if kind != BYTES:
            bounds.add(kind, part.type, part.image_url, part.url)


def capped(body: bytes, answer_tokens: int) -> bytes:
    return with_caps(body, CAPS, answer_tokens, lower_reasoning)


_TEXT = frozenset({"response.output_text.delta", "response.output_text.done"})
_TERMINAL = frozenset({"response.completed", "response.incomplete", "response.failed"})
_LIFE = _TERMINAL | {"response.created", "response.in_progress", "response.queued"}
_ERRORS = frozenset({"error", "response.error"})

_OPENAI_CLIENTS = ("OpenAI/", "AsyncOpenAI/")
_FOREIGN_TO_OPENAI = ("response.debug", "response.fusion_call.", "response.apply_patch_call_")
"""Events that only OpenRouter has: OpenAI's helpers throw on unknown types, and on anything before
`response.created`."""


_decode_event = msgspec.json.Decoder(Event).decode
_decode_response = msgspec.json.Decoder(StrictResponse).decode
_decode_usage = msgspec.json.Decoder(StrictUsage).decode
_decode_text = msgspec.json.Decoder(str).decode
_decode_int = msgspec.json.Decoder(int).decode


def see_event(event: bytes, progress: Progress) -> Seen:
    """Read one whole server-sent event, and repair it if a strict SDK would choke on it.

    An event that is not as documented reaches a caller of OpenRouter's SDK as `UNKNOWN`, its usage unread.
    """
    data = event_data(event)
    if event.startswith(b"event:"):
        progress.is_named = True
    if not data or data[0] != BRACE:
        plain = without_object(event, data)
        if plain is not None or data is None:
            return plain or PASS
    try:
        read = leniently(_decode_event, data)
    except UNREADABLE:
        return _see_mended(data, progress)
    progress.next_number = read.sequence_number + 1
    if read.type in _TEXT:
        # As `is_whole_event` has it: of what nearly all events are.
        if read.item_id is UNSET or read.output_index is UNSET or read.content_index is UNSET or read.logprobs is UNSET:
            return _see_mended(data, progress)
        return PASS
    if read.type in _LIFE:
        return _see_life(data, read, progress)
    if _is_foreign(read.type, progress):
        return Seen(repaired=comment_event(read.type.encode()))
    is_unnamed_call = read.type == "response.function_call_arguments.done" and read.name is UNSET
    is_error = read.type in _ERRORS or (read.error is not UNSET and not is_null(read.error))
    if is_unnamed_call or is_error or not is_whole_event(read):
        return _see_mended(data, progress)
    remember(read, progress)
    return PASS if read.usage is UNSET else Seen(cost=read_cost(read.usage))


def _is_foreign(name: str, progress: Progress) -> bool:
    return name.startswith(_FOREIGN_TO_OPENAI) and progress.client.startswith(_OPENAI_CLIENTS)


def _see_life(data: bytes, read: Event, progress: Progress) -> Seen:
    """Read an event that carries the whole response; the last one also reports the cost."""
    given = b"" if read.response is UNSET else read.response
    try:
        response = whole_response(given) or leniently(_decode_response, given)
        if read.type == "response.failed" and not is_shown_once(response.error):
            return _see_mended(data, progress)
        seen = _seen_life(read.type, response, progress)
    except UNREADABLE:
        return _see_mended(data, progress)
    if isinstance(response, StrictResponse):
        # What SDKs demand is there, so that all around the response may stay as it is.
        before, found, after = data.partition(given)
        if not found:
            return _see_mended(data, progress)  # it was read in a legible copy
        event = b"".join((before, completed_response(given, progress), after))
        seen = replace(seen, repaired=_event(read.type, event, progress))
    elif progress.asked and isinstance(read.response, Raw):
        progress.asked = read.response  # it says again all that the order asked
    if seen.cost is None and read.usage is not UNSET:
        return replace(seen, cost=_cost_of({"usage": read.usage}, read.type))
    return seen


def _seen_life(
    name: str, response: WholeResponse | StrictResponse, progress: Progress, repaired: bytes | None = None
) -> Seen:
    progress.response_id = response.id
    return _seen(response, repaired, is_last=name in _TERMINAL)


def _seen(response: WholeResponse | StrictResponse, repaired: bytes | None, *, is_last: bool) -> Seen:
    usage = response.usage if isinstance(response.usage, Raw) and not is_null(response.usage) else None
    return seen(response.id, response.model, usage if is_last else None, _decode_usage, repaired)


def _see_mended(data: bytes, progress: Progress) -> Seen:
    try:
        fields = decode_fields(data)
    except UNREADABLE:
        refusal = broken("the upstream sent an event that is not JSON")
        part = legible_part(data)
        return Seen(
            cost=_cost_of(part, decoded_or(_decode_text, part.get("type"), "")), repaired=error_event(refusal, progress)
        )
    name = decoded_or(_decode_text, fields.get("type"), "")
    cost = _cost_of(fields, name)
    told = fields.get("error", NULL)
    if name not in _LIFE and (name in _ERRORS or not is_null(told)):
        error = unblaming(read_error(data if is_null(told) else told))
        number = decoded_or(_decode_int, fields.get("sequence_number"), progress.next_number)
        return Seen(cost=cost, repaired=_failed_event(typed_error(error, 502), number, progress))
    if _is_foreign(name, progress):
        return Seen(cost=cost, repaired=comment_event(name.encode()))
    mended = bytes(written(mend_event(fields, name, progress)))
    try:
        read = leniently(_decode_event, mended)
        progress.next_number = read.sequence_number + 1
        if read.type not in _LIFE:
            remember(read, progress)
            return Seen(cost=cost, repaired=_event(read.type, mended, progress))
        response = leniently(_decode_response, b"" if read.response is UNSET else read.response)
        seen = _seen_life(read.type, response, progress, _event(read.type, mended, progress))
    except UNREADABLE:
        # An unknown defect: some client may still make sense of the event.
        return Seen(cost=cost)
    return replace(seen, cost=cost)


def _cost_of(fields: Fields, name: str) -> Cost | Unknown | None:
    """The cost that an event reports, in its response or beside it. Those before the last report it in part: None."""
    if name in _LIFE - _TERMINAL:
        return None
    return cost_in(decoded_or(decode_fields, fields.get("response"), Fields())) or cost_in(fields)


def see_answer(body: bytes) -> Seen:
    return see_echoing(body, Progress("", "", 0))


def see_echoing(body: bytes, progress: Progress) -> Seen:
    """Read a whole answer, and complete it: with what the order asked, where it does not say that again."""

    def read(text: bytes, repaired: bytes | None) -> Seen:
        if (response := whole_response(text)) is not None:
            return _seen(response, repaired, is_last=True)
        strict = _decode_response(text)
        # `text` may be a legible copy, and what is sent on is none.
        return _seen(strict, completed_response(body if repaired is None else repaired, progress), is_last=True)

    return see_whole(body, "output", read, lambda fields: mend_response(fields, progress))


def _event(name: str, data: bytes, progress: Progress) -> bytes:
    """An event as this stream has them: with its name in a line of its own, or only in its data."""
    return named_event(name.encode(), data) if progress.is_named else data_event(data)


def _failed_event(error: dict[str, object], number: int, progress: Progress) -> bytes:
    """The event on which every reader stops with the error's words, and orders nothing again. Codex ends a stream at no
    other, and reads the response's error, as Vercel's AI SDK does; OpenAI's SDKs raise on one beside the response, and
    their helpers only on that."""
    fields = {"error": encode(shown_once(str(error["message"]))), "status": encode("failed")}
    if progress.response_id:
        fields["id"] = encode(progress.response_id)
    response = mend_response(fields, progress)
    progress.next_number = number + 1
    body = {"type": "response.failed", "sequence_number": number, "response": response, "error": error}
    return _event("response.failed", msgspec.json.encode(body), progress)


def error_event(refusal: Refusal, progress: Progress) -> bytes:
    """A `response.failed` with the error in OpenRouter's shape."""
    return _failed_event(error_in_band(refusal), progress.next_number, progress)
