"""OpenRouter's images: pictures made of a text, whole or streamed with partial ones before; OpenAI's
`/images/generations` has the same shapes. Only a whole picture tells its cost, and no answer its generation: that
stands in the head.

Sources: OpenRouter's OpenAPI document (`POST /images`) and what its SDKs reject; OpenAI's Python SDK (its types).
"""

import msgspec
from msgspec import UNSET, Raw, Struct, UnsetType, field
from msgspec.structs import replace

from farebox.core.errors import Refusal, invalid
from farebox.core.formats import PASS, Asked, Progress, Seen, Units
from farebox.core.formats.asking import Attributing, attributed, count, decoded, is_premium, named_models
from farebox.core.formats.chat_strict import PromptDetails, StrictCostDetails, mend_cost_details
from farebox.core.formats.chat_usage import counting
from farebox.core.formats.describing import CAP, USAGE, Described
from farebox.core.formats.envelope import ERROR, read_error, refusal_body, typed_refusal
from farebox.core.formats.mending import (
    BRACE,
    Amount,
    cost_before_the_break,
    cost_in,
    drop_nulls,
    encode,
    fill,
    mend_amounts,
    mend_each,
    mend_member,
    mend_whole_number,
    see_whole,
    seen,
    without_object,
)
from farebox.core.formats.widening import widened_bytes
from farebox.core.legible import Fields, decode_fields, decode_list, decoded_or, leniently, written
from farebox.core.reading import UNREADABLE, Number, starts_with
from farebox.core.schemas import FLAG, NAME, OBJECT, TEXT, WHOLE, array_of, object_of, or_null
from farebox.core.sse import KEEP_ALIVE, data_event, event_data

__all__ = ["CAPS", "DESCRIBED", "KEEP_ALIVE", "TEXT_BEGINS", "as_stream", "counting"]
__all__ += ["capped", "error_event", "read", "refusal_body", "see_answer", "see_event", "typed_refusal"]

CAPS: tuple[str, ...] = ()

TEXT_BEGINS = b""

COMPLETED = "image_generation.completed"

_DONE = b"data: [DONE]\n\n"


class _Request(Attributing):
    prompt: str = ""
    model: str | None = None
    n: Number | None = None
    stream: bool | None = None
    input_references: list[Raw] | None = None
    provider: Raw | UnsetType = UNSET
    service_tier: str | None = None


_decode_request = msgspec.json.Decoder(_Request).decode


def read(body: bytes) -> Asked:
    request = decoded(_decode_request, body)
    models = named_models(request.model, None)
    if not request.prompt:
        raise invalid("prompt: say what is to be seen in the picture")
    given = request.input_references or []
    found = Asked(
        models=models,
        streamed=request.stream is True,
        answers=0,
        prompt_bytes=len(body) - sum(len(bytes(each)) for each in given) + widened_bytes(request.prompt),
        images=len(given),
        is_premium=is_premium(models, request.service_tier, request.provider),
        units=Units(pictures=1 if request.n is None else count("n", request.n)),
    )
    return found if request.user is UNSET and request.metadata is UNSET else attributed(request, found)


def capped(body: bytes, answer_tokens: int) -> bytes:
    """The body as it is: there is no cap to set."""
    return body


class _Usage(Struct):
    prompt_tokens: int
    answer_tokens: int = field(name="completion_tokens")
    total_tokens: int
    cost: Amount | None | UnsetType = UNSET
    is_byok: bool | UnsetType = UNSET
    cost_details: StrictCostDetails | None | UnsetType = UNSET
    prompt_tokens_details: PromptDetails | None | UnsetType = UNSET


class _Picture(Struct):
    b64_json: Raw
    media_type: str | UnsetType = UNSET


class _Whole(Struct):
    created: int
    data: list[_Picture]
    usage: Raw | UnsetType = UNSET


class _StreamError(Struct):
    message: str
    code: str | None = None
    param: str | None = None
    type: str | None = None


class _Event(Struct):
    """An event of any type; its picture is left unread, since it is long."""

    type: str
    b64_json: Raw | UnsetType = UNSET
    partial_image_index: int | UnsetType = UNSET
    created: int | UnsetType = UNSET
    media_type: str | UnsetType = UNSET
    usage: Raw | UnsetType = UNSET
    error: _StreamError | UnsetType = UNSET


_decode_whole = msgspec.json.Decoder(_Whole).decode
_decode_usage = msgspec.json.Decoder(_Usage).decode
_decode_event = msgspec.json.Decoder(_Event).decode


def see_event(event: bytes, progress: Progress) -> Seen:
    data = event_data(event)
    if data is None or not data or data[0] != BRACE:
        passed = without_object(event, data)
        if passed is not None:
            return passed
    assert data is not None
    try:
        return _read_event(data)
    except UNREADABLE:
        pass  # not valid JSON, perhaps, and legible all the same
    try:
        return leniently(_read_event, data)
    except UNREADABLE:
        return _mended_event(data)


def _read_event(data: bytes) -> Seen:
    """Raises those of UNREADABLE: an SDK would not take it."""
    event = _decode_event(data)
    needed = {COMPLETED: (event.b64_json, event.created), "error": (event.error,)}.get(event.type, ())
    if UNSET in needed:
        raise msgspec.ValidationError("a member is missing")
    found = PASS if event.usage is UNSET else seen(UNSET, "", event.usage, _decode_usage, None)
    return replace(found, units=1) if event.type == COMPLETED else found


def _mended_event(data: bytes) -> Seen:
    try:
        fields = decode_fields(data)
    except UNREADABLE:
        return Seen(cost=cost_before_the_break(data), repaired=_error("an event that is not JSON came"))
    cost = cost_in(fields)
    error = fields.get("error")
    if error is not None and not starts_with(error, b"null"):
        told = read_error(error)
        said = {"message": told.message or "the upstream reported an error", "type": told.type}
        code = None if told.code is None else str(told.code)
        return Seen(cost=cost, repaired=data_event(_encode({"type": "error", "error": {**said, "code": code}})))
    drop_nulls(fields, "usage", "media_type", "error")
    mend_member(fields, "usage", _mend_usage)
    units: int | None = None
    if starts_with(fields.get("type", Raw(b"")), b'"%b"' % COMPLETED.encode()):
        mend_whole_number(fields, "created", 0)
        units = 1
    return Seen(cost=cost, units=units, repaired=data_event(bytes(written(fields))))


def see_answer(body: bytes) -> Seen:
    """Without `usage`, its cost is unknown."""
    return see_whole(body, "data", _read_answer, _mend_answer)


def _read_answer(text: bytes, repaired: bytes | None) -> Seen:
    whole = _decode_whole(text)
    return replace(seen(UNSET, "", whole.usage, _decode_usage, repaired), units=len(whole.data))


def _mend_answer(fields: Fields) -> None:
    mend_whole_number(fields, "created", 0)
    fields["data"] = mend_each(fields["data"], lambda picture, _: drop_nulls(picture, "media_type"))
    drop_nulls(fields, "usage")
    mend_member(fields, "usage", _mend_usage)


def _mend_usage(usage: Fields) -> None:
    drop_nulls(usage, "is_byok")
    mend_amounts(usage)
    fill(usage, prompt_tokens=0, completion_tokens=0, total_tokens=0)
    names = PromptDetails.__struct_fields__
    mend_member(usage, "prompt_tokens_details", lambda details: drop_nulls(details, *names))
    mend_member(usage, "cost_details", mend_cost_details)


_encode = msgspec.json.encode


def as_stream(body: bytes) -> bytes:
    """The events of a whole answer: hosts that have no streams of pictures give one in the place of a stream."""
    fields = decode_fields(body)
    pictures = decoded_or(decode_list, fields["data"], list[Raw]())
    events: list[bytes] = []
    for number, picture in enumerate(pictures, 1):
        event = Fields({"type": encode(COMPLETED)}) | decoded_or(decode_fields, picture, Fields())
        beside = ("created", "usage") if number == len(pictures) else ("created",)
        event |= {name: fields[name] for name in beside if name in fields}
        events.append(data_event(bytes(written(event))))
    return b"".join([*events, _DONE])


def error_event(refusal: Refusal, progress: Progress) -> bytes:
    error = {"message": refusal.message, "code": str(refusal.status), "type": refusal.error_type}
    return data_event(_encode({"type": "error", "error": error}))


def _error(message: str) -> bytes:
    return data_event(_encode({"type": "error", "error": {"message": f"The upstream broke off: {message}"}}))


_REFERENCE = object_of({"type": TEXT, "image_url": object_of({"url": NAME})})

DESCRIBED = Described(
    "Images",
    request=(
        "ImagesRequest",
        object_of(
            {"model": NAME, "prompt": NAME},
            {"n": CAP, "stream": or_null(FLAG), "input_references": or_null(array_of(_REFERENCE))},
        ),
    ),
    answer=("Images", object_of({"created": WHOLE, "data": array_of(OBJECT)}, USAGE)),
    refusal=ERROR,
    example={"model": "sim/illustrator", "prompt": "Hello"},
    operation="image_generation",
    names_generation=False,
    as_stream=as_stream,
    answered_with="image",
)
