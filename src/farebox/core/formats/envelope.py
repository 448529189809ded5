"""OpenRouter's error envelope: of chat completions, responses and embeddings, and of all paths that have no format.
Without an integer `code` and `metadata.error_type` OpenRouter's SDKs lose the error's type.
"""

import msgspec
from msgspec import Raw, Struct

from farebox.core.errors import BROKEN_STATUS, Refusal, broken, denied, error_type_of
from farebox.core.formats.describing import NamedSchema
from farebox.core.legible import decode_fields, decoded_or, leniently, written
from farebox.core.reading import UNREADABLE
from farebox.core.schemas import TEXT, WHOLE, object_of

ERROR: NamedSchema = (
    "Error",
    object_of({"error": object_of({"code": WHOLE, "message": TEXT, "metadata": object_of({"error_type": TEXT})})}),
)


def error_of(refusal: Refusal) -> dict[str, object]:
    """The error object of a refusal, to be sent under its own status."""
    error: dict[str, object] = {
        "code": refusal.status,
        "message": refusal.message,
        "metadata": {"error_type": refusal.error_type, **refusal.metadata},
    }
    return error if refusal.param is None else {**error, "param": refusal.param}


def error_in_band(refusal: Refusal) -> dict[str, object]:
    """The error object of a stream's last event. A broken upstream is code 502 here: no client retries within a
    stream."""
    error = error_of(refusal)
    return {**error, "code": 502} if refusal.status == BROKEN_STATUS else error


def refusal_body(refusal: Refusal) -> bytes:

    return msgspec.json.encode({"error": error_of(refusal)})


UNTOLD = "the upstream reported an error"
"""What an error says that has no message."""


class _Metadata(Struct):
    error_type: str


class _Error(Struct):
    code: int
    message: str
    metadata: _Metadata | None = None


class _Envelope(Struct):
    error: _Error


class LooseError(Struct):
    """An error as upstreams send it: with a code of either type (both are documented), or without one."""

    code: int | str | None = None
    message: str | None = None
    metadata: dict[str, Raw] | None = None
    type: str | None = None


class _LooseEnvelope(Struct):
    error: LooseError


_decode_text = msgspec.json.Decoder(str).decode
_decode_strictly = msgspec.json.Decoder(_Envelope).decode
_decode_loosely = msgspec.json.Decoder(_LooseEnvelope).decode
_decode_error = msgspec.json.Decoder(LooseError).decode


def typed_refusal(status: int, body: bytes) -> bytes | None:
    """The body of an upstream's refusal, with the integer code and the error type that SDKs read added where they are
    missing; None where it is not such an envelope."""
    try:
        leniently(_decode_strictly, body)
    except UNREADABLE:
        try:
            fields = decode_fields(body)
            error = leniently(_decode_loosely, body).error
        except UNREADABLE:
            return None
        fields["error"] = Raw(msgspec.json.encode(typed_error(error, status)))
        return bytes(written(fields))
    return body


def typed_error(error: LooseError, code_otherwise: int) -> dict[str, object]:
    """The error with an integer `code` and `metadata.error_type`, without which SDKs throw an opaque error."""
    metadata: dict[str, object] = dict(error.metadata or {})
    if isinstance(error.code, str):
        metadata.setdefault("provider_code", error.code)
    text = str(error.code)
    code = int(text) if text.isascii() and text.isdigit() else code_otherwise
    metadata.setdefault("error_type", error_type_of(code))
    return {"code": code, "message": error.message or UNTOLD, "metadata": metadata}


def read_error(raw: Raw | bytes | None) -> LooseError:
    """Read an error object; whatever else stands in its place becomes the message."""
    if raw is None or bytes(raw) == b"null":
        return LooseError()
    try:
        return leniently(_decode_error, raw)
    except UNREADABLE:
        return LooseError(message=bytes(raw).decode(errors="replace"))


_OF_CONTENT = frozenset({"content_policy_violation", "content_filter", "refusal"})
_OF_ACCOUNT = frozenset(
    "authentication authentication_error invalid_api_key payment_required billing_error insufficient_quota"
    " billing_hard_limit_reached billing_not_active permission_denied permission_error".split()
)
"""Codes and types of errors that are about what was ordered, and of those about the account that ordered it."""

_NO_CREDIT = "credit balance is too low"


def blames_account(error: LooseError, code: int | str | None) -> bool:
    """Whether an error is about the account that Farebox orders from: the operator's. `code` is its status, or its own
    code within a stream.

    Sources: OpenRouter's list of `error_type`, and its page on errors (403 also says that a text was flagged, with
    `reasons`); OpenAI's list of error codes (429 `insufficient_quota`); Anthropic's API (without credit it refuses with
    400 and a sentence).
    """
    if str(code) in ("401", "402"):
        return True
    metadata = error.metadata or {}
    words = {str(error.code), error.type or "", decoded_or(_decode_text, metadata.get("error_type"), "")}
    if "reasons" in metadata or words & _OF_CONTENT:
        return False
    return str(code) == "403" or bool(words & _OF_ACCOUNT) or _NO_CREDIT in (error.message or "").lower()


def unblaming(error: LooseError) -> LooseError:
    """An error within an answer as its caller is told it: none that is about an account is about his."""
    if not blames_account(error, error.code):
        return error
    told = denied()
    return LooseError(told.status, told.message, {"error_type": Raw(msgspec.json.encode(told.error_type))})


def failure(error: Raw | None, otherwise: str) -> Refusal:
    """424 for a whole answer that holds an `error` instead: with its message, or `otherwise` if it has none."""
    said = unblaming(read_error(error)).message
    return broken(f"the upstream accepted the order and then failed: {said}" if said else otherwise)
