"""Errors in Anthropic's shape: Farebox's own, and those that come in OpenRouter's envelope.

Source of the types: OpenRouter's OpenAPI document (the errors of POST /messages).
"""

import msgspec
from msgspec import Struct

from farebox.core.errors import BROKEN_STATUS, Refusal
from farebox.core.formats.describing import NamedSchema
from farebox.core.formats.envelope import UNTOLD, LooseError, read_error
from farebox.core.legible import decode_fields, leniently
from farebox.core.reading import UNREADABLE
from farebox.core.schemas import OBJECT, TEXT, object_of, one_of, or_null

ERROR: NamedSchema = (
    "MessagesError",
    object_of(
        {
            "type": one_of("error"),
            "error": object_of({"type": TEXT, "message": TEXT}, {"error_type": TEXT, "metadata": OBJECT}),
            "request_id": or_null(TEXT),
        }
    ),
)

_TYPES = {
    400: "invalid_request_error",
    401: "authentication_error",
    402: "billing_error",
    403: "permission_error",
    404: "not_found_error",
    408: "timeout_error",
    413: "request_too_large",
    429: "rate_limit_error",
    503: "overloaded_error",
    504: "timeout_error",
    524: "timeout_error",
    529: "overloaded_error",
}


def _type(status: int) -> str:
    return _TYPES.get(status, "api_error" if status >= 500 or status == BROKEN_STATUS else "invalid_request_error")


_NOT_REPEATED = "invalid_request_error"

_SHOWN_ONCE = frozenset({_NOT_REPEATED, *(_TYPES[status] for status in (401, 402, 403, 404, 413))})
"""The types on which no reader of a stream orders again. Claude Code (2.1) does on `overloaded_error`, Vercel's AI SDK
(7, its Anthropic provider 4.0) on that, `api_error` and `rate_limit_error`, where they come before any output."""


def shown_once(error: dict[str, object]) -> dict[str, object]:
    """The error of an order that was accepted, under a type that no reader repeats; the one that it had beside it."""
    kind = error.get("type")
    if kind in _SHOWN_ONCE:
        return error
    return {**error, "type": _NOT_REPEATED, **({"provider_type": kind} if kind else {})}


def error_of(error: LooseError, status: int) -> dict[str, object]:
    """OpenRouter's error in Anthropic's shape, with all its metadata."""
    metadata = dict(error.metadata or {})
    error_type = metadata.pop("error_type", None)
    return {
        "type": error.type or _type(status),
        "message": error.message or UNTOLD,
        **({"error_type": error_type} if error_type else {}),
        **({"metadata": metadata} if metadata else {}),
    }


_UNTHREADED = "thread_unsupported_request"


def unthreaded() -> Refusal:
    """400 for an order that goes on from what its host keeps (`thread`): that would be in the operator's account, for
    whoever knows the id, and of no known length. On this code Anthropic's tool runner, which asks for a thread by
    itself, sends the whole conversation instead, at once and from then on."""
    details = {"error_code": _UNTHREADED, "unsupported": ["thread"]}
    message = "thread: nothing is stored here; send the earlier messages in `messages`"
    return Refusal(400, "invalid_request", message, metadata=details)


def refusal_body(refusal: Refusal) -> bytes:

    return msgspec.json.encode({"type": "error", "error": refusal_error(refusal), "request_id": None})


def refusal_error(refusal: Refusal) -> dict[str, object]:
    """The error object of a refusal."""
    more = "details" if refusal.metadata.get("error_code") == _UNTHREADED else "metadata"
    return {
        "type": _type(refusal.status),
        "message": refusal.message,
        "error_type": refusal.error_type,
        **({more: refusal.metadata} if refusal.metadata else {}),
    }


class _TypedError(Struct):
    type: str
    message: str


class _TypedRefusal(Struct, tag="error"):
    error: _TypedError


_decode_refusal = msgspec.json.Decoder(_TypedRefusal).decode


def typed_refusal(status: int, body: bytes) -> bytes | None:
    """The body of an upstream's refusal in Anthropic's shape, made from OpenRouter's envelope where need be; None where
    it is neither."""
    try:
        leniently(_decode_refusal, body)
    except UNREADABLE:
        try:
            fields = decode_fields(body)
        except UNREADABLE:
            return None
        if "error" not in fields:
            return None
        error = error_of(read_error(fields["error"]), status)
        return msgspec.json.encode({"type": "error", "error": error, "request_id": None})
    return body
