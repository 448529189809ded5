"""Turns of a conversation in Responses over a WebSocket: what a message of the caller's asks, and what it is told that
HTTP says by a status.

Sources: Open Responses' specification (2026-04-24, "WebSocket transport") and OpenAI's guide to its WebSocket mode. An
*event* is one of a stream here, sent as a text of JSON without the frame of server-sent events.
"""

from collections.abc import Mapping, Sequence

import msgspec
from msgspec import UNSET, Raw, Struct, UnsetType

from farebox.core.continuation import PREVIOUS, NotContinued, text_member
from farebox.core.errors import Refusal, invalid, too_many
from farebox.core.legible import Fields, decode_fields, decode_list, decoded_or, leniently, written
from farebox.core.reading import UNREADABLE, is_null

CREATE = "response.create"

_NOT_FORWARDED = ("type", "stream", "stream_options", "generate")
"""What only concerns this connection. Codex (0.171) sends `stream` here too."""

_FALSE = b"false"

LIMIT_REACHED = "websocket_connection_limit_reached"


class Turn(Struct, frozen=True):
    """What a message asks: an order at `/responses`, always streamed, in its `body`; `previous` is the answer that it
    continues, empty for none. One that does not `generate` only leaves its items for the turns after it."""

    body: bytes
    previous: str = ""
    generates: bool = True


class _Item(Struct):
    type: str = ""
    call_id: str = ""


_decode_item = msgspec.json.Decoder(_Item).decode


def read_turn(message: bytes) -> Turn:
    """Read a message. Raises Refusal 400: it is no turn, or not one that is served here."""
    try:
        fields = leniently(decode_fields, message)
    except UNREADABLE as error:
        raise invalid(f"the message is no JSON object; start a turn with {_example()}") from error
    kind = text_member(fields, "type")
    if kind != CREATE:
        raise invalid(f'type: "{CREATE}" starts a turn, and nothing else is understood here; send {_example()}')
    if not is_null(fields.get("stream_id", Raw(b"null"))):
        raise invalid("stream_id: turns of one connection are answered one after another; open another connection")
    if _is(fields, "background", b"true"):
        raise invalid("background: an answer is sent on the connection that asked for it; leave it out")
    previous = text_member(fields, PREVIOUS)
    generates = not _is(fields, "generate", _FALSE)
    order = {name: value for name, value in fields.items() if name not in _NOT_FORWARDED}
    order.pop(PREVIOUS, None)
    order["stream"] = Raw(b"true")
    return Turn(bytes(written(order)), previous, generates)


def _example() -> str:
    return f'{{"type": "{CREATE}", "model": "...", "input": "..."}}'


def _is(fields: Fields, name: str, value: bytes) -> bool:
    return bytes(fields.get(name, Raw(b""))) == value


def check_calls(items: Sequence[Raw], own: Sequence[Raw]) -> None:
    """A result among a turn's `own` items must be of a call that stands before it. Some upstreams overlook that it is
    not, and answer as if the call had never been.

    Raises:
        Refusal: 400, there is no such call.
    """
    called = {read.call_id for read in _read(items) if read.type.endswith("_call")}
    for read in _read(own):
        if read.type.endswith("_call"):
            called.add(read.call_id)
        elif read.type.endswith("_call_output") and read.call_id not in called:
            raise invalid(f"input: there is no call `{read.call_id[:80]}` before its output")


def _read(items: Sequence[Raw]) -> list[_Item]:
    return [decoded_or(_decode_item, item, _Item()) for item in items]


def not_in_memory(response_id: str) -> NotContinued:
    """There is no such answer for this connection: it never was, is an older one's, or a turn that continued it has
    failed."""
    return NotContinued(
        404,
        response_id,
        f"no answer `{response_id[:80]}` is known on this connection, or it was left behind. Send the earlier items in"
        " `input`",
    )


_KINDS: Mapping[int, str] = {
    401: "authentication_error",
    402: "insufficient_quota",
    403: "permission_error",
    429: "rate_limit_error",
}


class _Told(Struct):
    """An error in the envelope of HTTP's answers."""

    message: str = ""
    metadata: dict[str, Raw] | None = None
    param: str | None = None


class _Envelope(Struct):
    error: _Told


_decode_envelope = msgspec.json.Decoder(_Envelope).decode
_decode_text = msgspec.json.Decoder(str).decode


def refused(refusal: Refusal, code: str = "") -> bytes:
    """The event that tells why a turn was not served; the connection goes on."""
    metadata = {name: Raw(msgspec.json.encode(value)) for name, value in refusal.metadata.items()}
    metadata.setdefault("error_type", Raw(msgspec.json.encode(refusal.error_type)))
    told = _Told(refusal.message, metadata, refusal.param)
    return _error_event(refusal.status, told, refusal.headers, code)


def refused_as(status: int, body: bytes, headers: Mapping[str, str]) -> bytes:
    """The same of an answer that HTTP would have got: its status, and its error in OpenRouter's envelope."""
    envelope = decoded_or(_decode_envelope, body, _Envelope(_Told(f"The order was refused with status {status}")))
    return _error_event(status, envelope.error, headers)


def message_of(body: bytes) -> str:
    """What an error in OpenRouter's envelope says."""
    return decoded_or(_decode_envelope, body, _Envelope(_Told("The order failed"))).error.message


def _error_event(status: int, told: _Told, headers: Mapping[str, str], code: str = "") -> bytes:
    metadata = told.metadata or {}
    reason = decoded_or(_decode_text, metadata.get("reason"), "")
    if reason == "previous_response_not_found":
        status = 400  # OpenAI's own, by which clients know it
    kind = _KINDS.get(status, "server_error" if status >= 500 else "invalid_request_error")
    code = code or reason or decoded_or(_decode_text, metadata.get("error_type"), kind)
    error: dict[str, object] = {"type": kind, "code": code, "message": told.message, "param": told.param}
    event: dict[str, object] = {"type": "error", "status": status, "error": {**error, "metadata": metadata}}
    if "retry-after" in headers:
        event["headers"] = {"retry-after": headers["retry-after"]}
    return msgspec.json.encode(event)


def limit_reached(seconds: float) -> bytes:
    """The last event of a connection whose time is over."""
    message = f"A connection is open for {seconds / 60:g} minutes at most; open a new one to go on"
    return refused(invalid(message), LIMIT_REACHED)


def too_many_turns(most: int) -> bytes:
    return refused(too_many(f"{most} turns wait on this connection already; wait for their answers", 1))


class Ended(Struct, frozen=True):
    """How a turn ended: the `response` of its last event, as JSON, empty where it failed; its id; and whether it says
    that it is stored."""

    response: bytes = b""
    response_id: str = ""
    is_stored: bool = False


class _Event(Struct):
    type: str = ""
    response: Raw | UnsetType = UNSET


class _Response(Struct):
    id: str
    store: bool | None = None


_decode_event = msgspec.json.Decoder(_Event).decode
_decode_response = msgspec.json.Decoder(_Response).decode

FAILED = Ended()

_WELL = frozenset({"response.completed", "response.incomplete"})
_BADLY = frozenset({"response.failed", "error"})
_LAST_BEGINS = (b"response.completed", b"response.incomplete", b"response.failed", b'"error"')


def ended_by(event: bytes) -> Ended | None:
    """How a turn ended, where this event says it; None for every other."""
    if not any(name in event for name in _LAST_BEGINS):
        return None
    read = decoded_or(_decode_event, event, _Event())
    if read.type in _BADLY:
        return FAILED
    if read.type not in _WELL or read.response is UNSET:
        return None
    response = decoded_or(_decode_response, read.response, None)
    return FAILED if response is None else Ended(bytes(read.response), response.id, response.store is True)


def following(body: bytes, response_id: str) -> bytes:
    """The order with the answer that it continues, which is kept."""
    fields = decode_fields(body)
    fields[PREVIOUS] = Raw(msgspec.json.encode(response_id))
    return bytes(written(fields))


_WHOLE_RESPONSE = b'"response":'


def said_to_follow(event: bytes, previous: str) -> bytes:
    """An event of a turn that continues an answer: where it carries the whole response, that says so. The order did not
    name it."""
    if _WHOLE_RESPONSE not in event:
        return event
    try:
        fields = decode_fields(event)
        response = decode_fields(fields["response"])
    except (KeyError, *UNREADABLE):
        return event
    response[PREVIOUS] = Raw(msgspec.json.encode(previous))
    fields["response"] = written(response)
    return bytes(written(fields))


def warmed_up(turn: Turn, response_id: str, created: int) -> tuple[bytes, bytes]:
    """The two events that answer a turn which does not generate: nothing was ordered, and its answer is empty."""
    fields = decode_fields(turn.body)
    details = {"input_tokens_details": {"cached_tokens": 0}, "output_tokens_details": {"reasoning_tokens": 0}}
    response: dict[str, object] = {
        **_UNSAID,
        **{name: fields[name] for name in _SAID if name in fields and not is_null(fields[name])},
        "id": response_id,
        "object": "response",
        "created_at": created,
        "status": "in_progress",
        "output": [],
        "background": False,
        "previous_response_id": turn.previous or None,
    }
    usage = {"input_tokens": 0, "output_tokens": 0, "total_tokens": 0, **details}
    done = {**response, "status": "completed", "completed_at": created, "usage": usage}
    return (
        msgspec.json.encode({"type": "response.created", "sequence_number": 0, "response": response}),
        msgspec.json.encode({"type": "response.completed", "sequence_number": 1, "response": done}),
    )


_UNSAID: Mapping[str, object] = {
    **dict.fromkeys(
        "completed_at error incomplete_details instructions reasoning usage max_output_tokens max_tool_calls"
        " safety_identifier prompt_cache_key".split()
    ),
    "model": "",
    "tools": [],
    "tool_choice": "auto",
    "truncation": "disabled",
    "parallel_tool_calls": True,
    "text": {"format": {"type": "text"}},
    "top_p": 1.0,
    "presence_penalty": 0.0,
    "frequency_penalty": 0.0,
    "top_logprobs": 0,
    "temperature": 1.0,
    "store": False,
    "service_tier": "default",
    "metadata": {},
}
"""What a response says of itself where its order does not (Open Responses, ResponseResource)."""

_SAID = (
    "model instructions tools tool_choice truncation parallel_tool_calls text top_p presence_penalty frequency_penalty"
    " top_logprobs temperature max_output_tokens max_tool_calls safety_identifier prompt_cache_key metadata reasoning"
).split()


def checkable(body: bytes) -> bytes:
    """The body of a turn that does not generate, to be read as an order: such may come without any input yet."""
    fields = decode_fields(body)
    fields.pop(PREVIOUS, None)
    given = fields.get("input", Raw(b"null"))
    if not (is_null(given) or (bytes(given).startswith(b"[") and not decode_list(given))):
        return bytes(written(fields))
    return bytes(written({**fields, "input": Raw(b'"-"')}))
